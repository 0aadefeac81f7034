//! `gatefeed status`.

use anyhow::Result;
use chrono::Utc;
use clap::Args;
use gatefeed_core::inspect::FeedStatus;

use crate::{
    args::JsonArg,
    database::DatabaseArgs,
    output::{self, Align, Table, count, relative_or_dash},
};

/// Show the feeds: partitions by status, what is open, what failed.
///
/// OLDEST DUE tells since when the work that has waited longest has been due: while it grows, watchers are missing or
/// too slow. Items that are complete are not counted, so that looking stays cheap. Columns without a count may be left
/// out; --json has all of them.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed status
  gatefeed status --json | jq '.[] | select(.items.failed > 0) | .feed'")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    json: JsonArg,
}

pub(crate) async fn status(database: &DatabaseArgs, args: StatusArgs) -> Result<()> {
    let feeds = database.open_migrated().await?.status().await?;
    if args.json.json {
        return output::json_rows(&feeds);
    }
    if feeds.is_empty() {
        return output::line(
            "Nothing here yet: insert a row into gatefeed_partitions and its items into gatefeed_items, then start \
             `gatefeed run --target URL`.",
        );
    }
    table(&feeds).print()
}

fn table(feeds: &[FeedStatus]) -> Table {
    use Align::{Left, Right, RightIfAny};
    let mut table = Table::new(&[
        ("feed", Left),
        ("partitions:", Left),
        ("available", Right),
        ("leased", Right),
        ("paused", RightIfAny),
        ("complete", Right),
        ("failed", Right),
        ("cancelled", RightIfAny),
        ("items:", Left),
        ("available", Right),
        ("waiting", RightIfAny),
        ("blocked", RightIfAny),
        ("failed", Right),
        ("oldest due", Left),
    ]);
    feeds.iter().for_each(|feed| table.row(row(feed)));
    table
}

fn row(feed: &FeedStatus) -> Vec<String> {
    let (partitions, items) = (&feed.partitions, &feed.items);
    vec![
        feed.feed.clone(),
        String::new(),
        count(partitions.available),
        count(feed.leased),
        count(partitions.paused),
        count(partitions.complete),
        count(partitions.failed),
        count(partitions.cancelled),
        String::new(),
        count(items.available),
        count(items.waiting),
        count(items.blocked),
        count(items.failed),
        relative_or_dash(feed.oldest_due_at, Utc::now()),
    ]
}
