//! `gatefeed advance`.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::{args::JsonArg, database::DatabaseArgs, output, parse};

/// Raise a partition's gate by hand to the next one with open items.
///
/// For partitions with manual_checkpoint. Refused while an item at or below the gate is open, past a failed item under
/// the policy 'stop', and when there is nothing to go on to.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  gatefeed advance import-42")]
pub(crate) struct AdvanceArgs {
    /// The partition
    #[arg(value_parser = parse::name)]
    partition: String,
    #[command(flatten)]
    json: JsonArg,
}

pub(crate) async fn advance(database: &DatabaseArgs, args: AdvanceArgs) -> Result<()> {
    let gate = database.open_migrated().await?.advance(&args.partition).await?;
    if args.json.json {
        return output::json_object(&json!({"partition": args.partition, "gate": gate}));
    }
    output::line(&format!("{} is at gate {gate} now.", args.partition))
}
