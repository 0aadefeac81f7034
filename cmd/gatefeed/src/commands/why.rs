//! `gatefeed why`.

use anyhow::Result;
use clap::Args;
use gatefeed_core::why::{Why, explain};

use crate::{args::JsonArg, database::DatabaseArgs, output, parse};

/// Tell why a partition or item is where it is, and what to do.
///
/// It names what holds the gate: items that are due, delayed or waiting, the last error, a pause, a failure and its
/// reason, a gate that is held by hand, a feed that no watcher serves. It counts nothing beyond a thousand, so that it
/// answers at once however large the partition is.
///
/// The exit code is 0 whatever the answer, and 1 when there is no such partition or item.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed why import-42
  gatefeed why import-42 row-7
  gatefeed why import-42 --json | jq -r '.todo[]'")]
pub(crate) struct WhyArgs {
    /// The partition
    #[arg(value_parser = parse::name)]
    partition: String,
    /// One of its items
    #[arg(value_parser = parse::name)]
    item: Option<String>,
    #[command(flatten)]
    json: JsonArg,
}

pub(crate) async fn why(database: &DatabaseArgs, args: WhyArgs) -> Result<()> {
    let facts = database.open_migrated().await?.why(&args.partition, args.item.as_deref()).await?;
    let why = explain(facts);
    if args.json.json {
        return output::json_object(&why);
    }
    output::lines(&text(&why))
}

fn text(why: &Why) -> Vec<String> {
    let subject = match &why.item {
        Some(item) => {
            format!("{} of {}: {} at gate {}", item.id, why.partition, item.status.as_str(), item.gate)
        }
        None => format!("{}: {} at gate {}", why.partition, why.status.as_str(), why.gate),
    };
    let because = why.because.iter().map(|line| format!("  {}", output::shown(line)));
    let todo = why.todo.iter().map(|line| format!("To do: {}", output::shown(line)));
    std::iter::once(subject).chain(because).chain(todo).collect()
}
