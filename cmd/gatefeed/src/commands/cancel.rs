//! `gatefeed cancel`.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::counted;
use crate::{args::JsonArg, database::DatabaseArgs, output, parse};

/// End a partition for good: its open items are cancelled.
///
/// What is in flight is aborted within a second, and answers that come later change nothing. The partition takes no
/// more items and cannot be reopened; to stop it for a while, pause it. A complete one is left alone.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  gatefeed cancel import-42")]
pub(crate) struct CancelArgs {
    /// The partition
    #[arg(value_parser = parse::name)]
    partition: String,
    #[command(flatten)]
    json: JsonArg,
}

pub(crate) async fn cancel(database: &DatabaseArgs, args: CancelArgs) -> Result<()> {
    let cancelled = database.open_migrated().await?.cancel(&args.partition).await?;
    if args.json.json {
        return output::json_object(&json!({"partition": args.partition, "cancelled": cancelled}));
    }
    output::line(&format!(
        "{} is cancelled, and with it {}.",
        args.partition,
        counted(cancelled, "open item")
    ))
}
