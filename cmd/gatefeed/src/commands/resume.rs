//! `gatefeed resume`.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::{args::JsonArg, database::DatabaseArgs, output, parse};

/// Let a paused partition go on.
///
/// Also one that has failed with open items at its gate, as after a deadline, whose time then starts again. One that
/// has failed by failed items alone is for `gatefeed retry`.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  gatefeed resume import-42")]
pub(crate) struct ResumeArgs {
    /// The partition
    #[arg(value_parser = parse::name)]
    partition: String,
    #[command(flatten)]
    json: JsonArg,
}

pub(crate) async fn resume(database: &DatabaseArgs, args: ResumeArgs) -> Result<()> {
    database.open_migrated().await?.resume(&args.partition).await?;
    if args.json.json {
        return output::json_object(&json!({"partition": args.partition, "status": "available"}));
    }
    output::line(&format!("{} goes on.", args.partition))
}
