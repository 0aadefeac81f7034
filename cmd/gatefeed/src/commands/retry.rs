//! `gatefeed retry`.

use anyhow::Result;
use clap::Args;
use gatefeed_core::store::RetryFilter;
use serde_json::json;

use crate::{args::JsonArg, database::DatabaseArgs, output, parse};

/// Make a partition's failed items available again.
///
/// They start a new pass with all their retries, due now, and a partition that had failed is open again. It is safe
/// while watchers run.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed retry import-42
  gatefeed retry import-42 --item row-7
  gatefeed retry import-42 --gate 1")]
pub(crate) struct RetryArgs {
    /// The partition
    #[arg(value_parser = parse::name)]
    partition: String,
    /// Only this item
    #[arg(long, env = "GATEFEED_RETRY_ITEM", value_name = "ID", help_heading = "Filter")]
    item: Option<String>,
    /// Only items at this gate
    #[arg(
        long,
        env = "GATEFEED_RETRY_GATE",
        value_name = "GATE",
        help_heading = "Filter",
        allow_hyphen_values = true,
        value_parser = parse::gate
    )]
    gate: Option<i32>,
    #[command(flatten)]
    json: JsonArg,
}

pub(crate) async fn retry(database: &DatabaseArgs, args: RetryArgs) -> Result<()> {
    let filter = RetryFilter { item: args.item, gate: args.gate };
    let retried = database.open_migrated().await?.retry(&args.partition, &filter).await?;
    if args.json.json {
        return output::json_object(&json!({"partition": args.partition, "retried": retried}));
    }
    output::line(&match retried {
        0 => format!("Nothing to retry in {}: no item that fits is failed.", args.partition),
        1 => format!("1 failed item of {} is available again.", args.partition),
        n => {
            let number = output::number(i64::try_from(n).unwrap_or(i64::MAX));
            format!("{number} failed items of {} are available again.", args.partition)
        }
    })
}
