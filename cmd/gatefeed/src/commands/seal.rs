//! `gatefeed seal`.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::{args::JsonArg, database::DatabaseArgs, output, parse};

/// Let a held partition advance and complete by itself.
///
/// Sets manual_checkpoint to false and auto_close to true. Items may still be inserted afterwards, and sealing twice is
/// the same as once.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  gatefeed seal import-42")]
pub(crate) struct SealArgs {
    /// The partition
    #[arg(value_parser = parse::name)]
    partition: String,
    #[command(flatten)]
    json: JsonArg,
}

pub(crate) async fn seal(database: &DatabaseArgs, args: SealArgs) -> Result<()> {
    database.open_migrated().await?.seal(&args.partition).await?;
    if args.json.json {
        return output::json_object(&json!({"partition": args.partition, "sealed": true}));
    }
    output::line(&format!(
        "{} is sealed: its gates advance by themselves and it completes once every item is through.",
        args.partition
    ))
}
