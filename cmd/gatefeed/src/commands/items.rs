//! `gatefeed items`.

use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use clap::Args;
use gatefeed_core::{
    inspect::{ItemFilter, ItemRow},
    item::ItemStatus,
};
use serde::Serialize;

use super::page_end;
use crate::{
    args::{JsonArg, PageArgs},
    database::DatabaseArgs,
    output::{self, Align, Table, relative, shortened, size},
    parse,
};

/// How much of an error or of an item's data a table shows; --json has all of it.
const CELL_CHARS_MAX: usize = 60;

/// List the items of a partition, in order of id.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed items import-42
  gatefeed items import-42 --status failed
  gatefeed items import-42 --id row-7 --data --json | jq -r '.[0].data'")]
pub(crate) struct ItemsArgs {
    /// The partition
    #[arg(value_name = "PARTITION", required_unless_present = "partition_flag")]
    partition: Option<String>,
    /// The partition, as a flag
    #[arg(long = "partition", id = "partition_flag", env = "GATEFEED_PARTITION", value_name = "ID")]
    partition_flag: Option<String>,
    /// Only this status: available, waiting, blocked, complete, failed or cancelled
    #[arg(
        long,
        env = "GATEFEED_STATUS",
        value_name = "STATUS",
        help_heading = "Filter",
        value_parser = parse_status
    )]
    status: Option<ItemStatus>,
    /// Only this gate
    #[arg(
        long,
        env = "GATEFEED_GATE",
        value_name = "GATE",
        help_heading = "Filter",
        allow_hyphen_values = true,
        value_parser = parse::gate
    )]
    gate: Option<i32>,
    /// Only this item
    #[arg(long, env = "GATEFEED_ID", value_name = "ID", help_heading = "Filter")]
    id: Option<String>,
    #[command(flatten)]
    page: PageArgs,
    /// Show the items' data too. In JSON it is the text "data", or "data_base64" where it is not UTF-8
    #[arg(
        long,
        env = "GATEFEED_DATA",
        help_heading = "Output",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    data: bool,
    #[command(flatten)]
    json: JsonArg,
}

fn parse_status(word: &str) -> Result<ItemStatus, String> {
    let expected = "expected available, waiting, blocked, complete, failed or cancelled";
    word.parse().map_err(|_| expected.to_owned())
}

pub(crate) async fn items(database: &DatabaseArgs, args: ItemsArgs) -> Result<()> {
    let is_filtered = args.status.is_some() || args.gate.is_some() || args.id.is_some();
    let is_later_page = args.page.after.is_some();
    let filter = ItemFilter {
        partition: args.partition.or(args.partition_flag).unwrap_or_default(),
        status: args.status,
        gate: args.gate,
        id: args.id,
        after: args.page.after,
        limit: args.page.limit + 1,
        with_data: args.data,
    };
    let mut rows = database.open_migrated().await?.items(&filter).await?;
    page_end(&mut rows, args.page.limit, |row| &row.id);
    if args.json.json {
        return output::json_rows(&rows.iter().map(JsonItem::new).collect::<Vec<_>>());
    }
    match rows.is_empty() {
        false => table(&rows, args.data).print(),
        true if is_later_page => output::line("No items after that one."),
        true if is_filtered => {
            output::line("No item fits: leave out a filter to see all of the partition's items.")
        }
        true => output::line("The partition has no items yet: insert rows into gatefeed_items."),
    }
}

fn table(rows: &[ItemRow], with_data: bool) -> Table {
    use Align::{Left, Right};
    let last = if with_data { "data" } else { "last error" };
    let mut table = Table::new(&[
        ("id", Left),
        ("gate", Right),
        ("status", Left),
        ("pass", Right),
        ("retries", Right),
        ("due", Left),
        ("size", Right),
        ("updated", Left),
        (last, Left),
    ]);
    let now = Utc::now();
    rows.iter().for_each(|row| table.row(cells(row, with_data, now)));
    table
}

fn cells(row: &ItemRow, with_data: bool, now: DateTime<Utc>) -> Vec<String> {
    let due = if row.status.is_open() { relative(row.available_at, now) } else { "-".to_owned() };
    vec![
        row.id.clone(),
        row.gate.to_string(),
        row.status.as_str().to_owned(),
        row.pass.to_string(),
        row.retry_count.to_string(),
        due,
        size(row.size),
        relative(row.updated_at, now),
        if with_data { data_cell(row) } else { error_cell(row) },
    ]
}

fn error_cell(row: &ItemRow) -> String {
    let last = row.error_messages.as_deref().and_then(|log| log.lines().last());
    shortened(last.unwrap_or(""), CELL_CHARS_MAX)
}

fn data_cell(row: &ItemRow) -> String {
    match row.data.as_deref().map(std::str::from_utf8) {
        Some(Ok(text)) => shortened(text, CELL_CHARS_MAX),
        Some(Err(_)) => format!("({}, not text)", row.content_type),
        None => String::new(),
    }
}

/// An item as a program reads it.
#[derive(Serialize)]
struct JsonItem<'a> {
    #[serde(flatten)]
    row: &'a ItemRow,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

impl<'a> JsonItem<'a> {
    fn new(row: &'a ItemRow) -> Self {
        let bytes = row.data.as_deref();
        let data = bytes.and_then(|bytes| std::str::from_utf8(bytes).ok());
        let data_base64 = bytes.filter(|_| data.is_none()).map(|bytes| BASE64_STANDARD.encode(bytes));
        Self { row, data, data_base64 }
    }
}
