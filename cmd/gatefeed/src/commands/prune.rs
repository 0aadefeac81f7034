//! `gatefeed prune`.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{ArgAction, Args};
use gatefeed_core::blob::Collected;
use serde_json::json;

use super::counted;
use crate::{args::JsonArg, database::DatabaseArgs, output, parse};

/// Remove what nothing needs any more: blobs that no item refers to.
///
/// A blob is left over where a process died before its item was committed, where an item got other data, and where its
/// partition was deleted. `gatefeed run` and `gatefeed serve` remove those by
/// themselves after --blob-grace; this does it now.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed prune --blobs --blob-store file:///var/lib/gatefeed/blobs
  gatefeed prune --blobs --older-than 2h --blob-store s3://bucket/queue")]
pub(crate) struct PruneArgs {
    /// Remove blobs of this database from --blob-store
    #[arg(long, env = "GATEFEED_PRUNE_BLOBS", required = true, action = ArgAction::SetTrue)]
    blobs: bool,
    /// Only what is at least so old. A push puts its blobs before it commits: what is younger than the longest push may
    /// be about to be referred to, so that less than an hour is for when nobody pushes
    #[arg(
        long,
        env = "GATEFEED_OLDER_THAN",
        value_name = "DURATION",
        default_value = "1d",
        value_parser = parse::duration
    )]
    older_than: Duration,
    #[command(flatten)]
    json: JsonArg,
}

pub(crate) async fn prune(database: &DatabaseArgs, args: PruneArgs) -> Result<()> {
    let store = database.open_migrated().await?;
    let Some(blobs) = store.blobs() else {
        bail!("no blob store is named: add --blob-store and the URL that items were pushed with");
    };
    let Collected { blobs, bytes, kept } = blobs.collect(args.older_than).await?;
    if args.json.json {
        return output::json_object(&json!({"blobs": blobs, "bytes": bytes, "kept": kept}));
    }
    let size = output::size(i64::try_from(bytes).unwrap_or(i64::MAX));
    output::line(&format!(
        "{} of {size} removed, {} of that age referred to.",
        counted(blobs, "blob"),
        output::number(i64::try_from(kept).unwrap_or(i64::MAX))
    ))
}
