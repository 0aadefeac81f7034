//! `gatefeed pause`.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::{args::JsonArg, database::DatabaseArgs, output, parse};

/// Set a partition aside: nothing more of it is sent.
///
/// Its watcher stops within a second, lets what is in flight end, and gives the partition back. Items may still be
/// inserted; they wait. Pausing twice is the same as once; what has ended cannot be paused.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  gatefeed pause import-42")]
pub(crate) struct PauseArgs {
    /// The partition
    #[arg(value_parser = parse::name)]
    partition: String,
    #[command(flatten)]
    json: JsonArg,
}

pub(crate) async fn pause(database: &DatabaseArgs, args: PauseArgs) -> Result<()> {
    database.open_migrated().await?.pause(&args.partition).await?;
    if args.json.json {
        return output::json_object(&json!({"partition": args.partition, "status": "paused"}));
    }
    output::line(&format!(
        "{} is paused: nothing more of it is sent. `gatefeed resume` lets it go on.",
        args.partition
    ))
}
