//! `gatefeed partitions`.

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use gatefeed_core::{
    Store,
    inspect::{PartitionFilter, PartitionRow},
    partition::PartitionStatus,
};
use serde::Serialize;

use super::listing::{self, Listing, ListingArgs, OnePart, Page, Parts, prose};
use crate::{
    args::PageArgs,
    database::DatabaseArgs,
    output::{Kind, Look, Table, count, number, relative, relative_or_dash},
};

/// List partitions, in order of id, with their open and failed items.
///
/// A narrow terminal gets long names with a …, may lose columns, and in the end gets a block of lines for each partition.
/// What is piped on, and --json, is always whole.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed partitions
  gatefeed partitions --feed video --status failed
  gatefeed partitions --status available --watch=5s
  gatefeed partitions --json --limit 1000 | jq -r '.[].id'")]
pub(crate) struct PartitionsArgs {
    /// Only this feed
    #[arg(long, env = "GATEFEED_PARTITIONS_FEED", value_name = "NAME", help_heading = "Filter")]
    feed: Option<String>,
    /// Only this status: available, paused, complete, failed or cancelled
    #[arg(
        long,
        env = "GATEFEED_PARTITIONS_STATUS",
        value_name = "STATUS",
        help_heading = "Filter",
        value_parser = parse_status
    )]
    status: Option<PartitionStatus>,
    /// Only this partition
    #[arg(long, env = "GATEFEED_PARTITIONS_ID", value_name = "ID", help_heading = "Filter")]
    id: Option<String>,
    /// Only ids after this one: where the previous page ended
    #[arg(long, env = "GATEFEED_PARTITIONS_AFTER", value_name = "ID", help_heading = "Paging")]
    after: Option<String>,
    #[command(flatten)]
    page: PageArgs,
    #[command(flatten)]
    listing: ListingArgs,
}

fn parse_status(word: &str) -> Result<PartitionStatus, String> {
    let expected = "expected available, paused, complete, failed or cancelled";
    word.parse().map_err(|_| expected.to_owned())
}

pub(crate) async fn partitions(database: &DatabaseArgs, args: PartitionsArgs) -> Result<()> {
    let partitions = Partitions {
        is_filtered: args.feed.is_some() || args.status.is_some() || args.id.is_some(),
        limit: args.page.limit,
        filter: PartitionFilter {
            feed: args.feed,
            status: args.status,
            id: args.id,
            after: args.after,
            limit: args.page.limit + 1,
        },
    };
    listing::list(database, &args.listing, &partitions).await
}

struct Partitions {
    filter: PartitionFilter,
    is_filtered: bool,
    limit: usize,
}

impl Listing for Partitions {
    type Row = PartitionRow;

    async fn read(&self, store: &dyn Store) -> Result<Page<PartitionRow>> {
        Ok(Page::cut(store.partitions(&self.filter).await?, self.limit, |row| &row.id))
    }

    fn parts(&self) -> impl Parts<Row = PartitionRow> {
        OnePart::of(self)
    }

    fn json(row: &PartitionRow) -> impl Serialize {
        row
    }

    fn text(&self, rows: &[PartitionRow], look: Look) -> Vec<String> {
        let none = match rows.is_empty() {
            false => return table(rows).lines(look),
            true if self.filter.after.is_some() => "No partitions after that one.",
            true if self.is_filtered => "No partition fits: leave out a filter, or see `gatefeed status`.",
            true => {
                "No partitions yet: make one with `gatefeed push`, or insert a row into gatefeed_partitions and its \
                 items into gatefeed_items."
            }
        };
        prose(none, None, look)
    }
}

fn table(rows: &[PartitionRow]) -> Table {
    let mut table = Table::new(&[
        ("id", Kind::Id),
        ("feed", Kind::Id),
        ("status", Kind::Status),
        ("gate", Kind::Right),
        ("available", Kind::Right),
        ("waiting", Kind::RightIfAny),
        ("blocked", Kind::RightIfAny),
        ("failed", Kind::Failures),
        ("next run", Kind::Left),
        ("owner", Kind::Id),
        ("updated", Kind::Left),
    ])
    .spare(&["feed", "updated"])
    .spare_at_last(&["gate", "waiting", "blocked", "next run", "owner"]);
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
        number(row.gate.into()),
        count(row.items.available),
        count(row.items.waiting),
        count(row.items.blocked),
        count(row.items.failed),
        relative_or_dash(row.next_run_at, now),
        owner(row, now),
        relative(row.updated_at, now),
    ]
}

fn owner(row: &PartitionRow, now: DateTime<Utc>) -> String {
    match (&row.owner, row.until) {
        (Some(owner), Some(until)) if until <= now => format!("{owner} (expired)"),
        (Some(owner), _) => owner.clone(),
        (None, _) => "-".to_owned(),
    }
}
