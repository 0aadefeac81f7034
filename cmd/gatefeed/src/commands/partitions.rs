//! `gatefeed partitions`.

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use gatefeed_core::{
    inspect::{PartitionFilter, PartitionRow},
    partition::PartitionStatus,
};

use super::page_end;
use crate::{
    args::{JsonArg, PageArgs},
    database::DatabaseArgs,
    output::{self, Align, Table, count, relative_or_dash},
};

/// List partitions, in order of id, with their open and failed items.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed partitions
  gatefeed partitions --feed video --status failed
  gatefeed partitions --json --limit 1000 | jq -r '.[].id'")]
pub(crate) struct PartitionsArgs {
    /// Only this feed
    #[arg(long, env = "GATEFEED_FEED", value_name = "NAME", help_heading = "Filter")]
    feed: Option<String>,
    /// Only this status: available, paused, complete, failed or cancelled
    #[arg(
        long,
        env = "GATEFEED_STATUS",
        value_name = "STATUS",
        help_heading = "Filter",
        value_parser = parse_status
    )]
    status: Option<PartitionStatus>,
    /// Only this partition
    #[arg(long, env = "GATEFEED_ID", value_name = "ID", help_heading = "Filter")]
    id: Option<String>,
    #[command(flatten)]
    page: PageArgs,
    #[command(flatten)]
    json: JsonArg,
}

fn parse_status(word: &str) -> Result<PartitionStatus, String> {
    let expected = "expected available, paused, complete, failed or cancelled";
    word.parse().map_err(|_| expected.to_owned())
}

pub(crate) async fn partitions(database: &DatabaseArgs, args: PartitionsArgs) -> Result<()> {
    let is_filtered = args.feed.is_some() || args.status.is_some() || args.id.is_some();
    let is_later_page = args.page.after.is_some();
    let filter = PartitionFilter {
        feed: args.feed,
        status: args.status,
        id: args.id,
        after: args.page.after,
        limit: args.page.limit + 1,
    };
    let mut rows = database.open_migrated().await?.partitions(&filter).await?;
    page_end(&mut rows, args.page.limit, |row| &row.id);
    if args.json.json {
        return output::json_rows(&rows);
    }
    match rows.is_empty() {
        false => table(&rows).print(),
        true if is_later_page => output::line("No partitions after that one."),
        true if is_filtered => {
            output::line("No partition fits: leave out a filter, or see `gatefeed status`.")
        }
        true => output::line(
            "No partitions yet: insert a row into gatefeed_partitions and its items into gatefeed_items.",
        ),
    }
}

fn table(rows: &[PartitionRow]) -> Table {
    use Align::{Left, Right, RightIfAny};
    let mut table = Table::new(&[
        ("id", Left),
        ("feed", Left),
        ("status", Left),
        ("gate", Right),
        ("available", Right),
        ("waiting", RightIfAny),
        ("blocked", RightIfAny),
        ("failed", Right),
        ("next run", Left),
        ("owner", Left),
        ("updated", Left),
    ]);
    let now = Utc::now();
    rows.iter().for_each(|row| table.row(cells(row, now)));
    table
}

fn cells(row: &PartitionRow, now: DateTime<Utc>) -> Vec<String> {
    // A held gate explains why nothing happens.
    let held = if row.manual_checkpoint { " (held)" } else { "" };
    vec![
        row.id.clone(),
        row.feed.clone(),
        format!("{}{held}", row.status.as_str()),
        row.gate.to_string(),
        count(row.items.available),
        count(row.items.waiting),
        count(row.items.blocked),
        count(row.items.failed),
        relative_or_dash(row.next_run_at, now),
        owner(row, now),
        relative_or_dash(Some(row.updated_at), now),
    ]
}

fn owner(row: &PartitionRow, now: DateTime<Utc>) -> String {
    match (&row.owner, row.until) {
        (Some(owner), Some(until)) if until <= now => format!("{owner} (expired)"),
        (Some(owner), _) => owner.clone(),
        (None, _) => "-".to_owned(),
    }
}
