//! `gatefeed items`.

mod parts;

use anyhow::Result;
use chrono::{DateTime, Utc};
use clap::Args;
use gatefeed_core::{
    Store,
    inspect::{DataPart, ItemFilter, ItemRow, JsonItem},
    item::ItemStatus,
};
use serde::Serialize;

use self::parts::ItemParts;
use super::listing::{self, Listing, ListingArgs, Page, Parts, prose};
use crate::{
    args::PageArgs,
    database::DatabaseArgs,
    output::{Kind, Look, Table, number, relative, shortened, size},
    parse,
};

/// How much of an error or of an item's data a terminal shows at most, however wide it is.
const CELL_CHARS_MAX: usize = 200;

/// How much of an item's data is read for that: where there is more, enough to be cut, of characters of any length.
const CELL_BYTES_MAX: u32 = 4 * (CELL_CHARS_MAX as u32 + 1);

/// List the items of a partition, in order of id.
///
/// A narrow terminal gets long names and errors with a …, may lose columns, and in the end gets a block of lines for each
/// item. What is piped on is whole but for the items' data, of which only the beginning is shown. --json has every
/// column, every error, and all of the data.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed items import-42
  gatefeed items import-42 --status failed
  gatefeed items import-42 --status available --watch
  gatefeed items import-42 --id row-7 --data --json | jq -r '.[0].data'")]
pub(crate) struct ItemsArgs {
    /// The partition
    #[arg(value_name = "PARTITION", required_unless_present = "partition_flag", value_parser = parse::name)]
    partition: Option<String>,
    /// The partition, as a flag
    #[arg(long = "partition", id = "partition_flag", env = "GATEFEED_PARTITION", value_name = "ID", value_parser = parse::name)]
    partition_flag: Option<String>,
    /// Only this status: available, waiting, blocked, complete, failed or cancelled
    #[arg(
        long,
        env = "GATEFEED_ITEMS_STATUS",
        value_name = "STATUS",
        help_heading = "Filter",
        value_parser = parse_status
    )]
    status: Option<ItemStatus>,
    /// Only this gate
    #[arg(
        long,
        env = "GATEFEED_ITEMS_GATE",
        value_name = "GATE",
        help_heading = "Filter",
        allow_hyphen_values = true,
        value_parser = parse::gate
    )]
    gate: Option<i32>,
    /// Only this item
    #[arg(long, env = "GATEFEED_ITEMS_ID", value_name = "ID", help_heading = "Filter")]
    id: Option<String>,
    /// Only ids after this one: where the previous page ended
    #[arg(long, env = "GATEFEED_ITEMS_AFTER", value_name = "ID", help_heading = "Paging")]
    after: Option<String>,
    #[command(flatten)]
    page: PageArgs,
    /// Show the beginning of the items' data too. In JSON it is all of it: the text "data", or "data_base64" where it
    /// is not UTF-8
    #[arg(long, env = "GATEFEED_DATA", help_heading = "Output")]
    data: bool,
    #[command(flatten)]
    listing: ListingArgs,
}

fn parse_status(word: &str) -> Result<ItemStatus, String> {
    let expected = "expected available, waiting, blocked, complete, failed or cancelled";
    word.parse().map_err(|_| expected.to_owned())
}

pub(crate) async fn items(database: &DatabaseArgs, args: ItemsArgs) -> Result<()> {
    let items = Items {
        is_filtered: args.status.is_some() || args.gate.is_some() || args.id.is_some(),
        limit: args.page.limit,
        filter: ItemFilter {
            partition: args.partition.or(args.partition_flag).unwrap_or_default(),
            status: args.status,
            gate: args.gate,
            id: args.id,
            after: args.after,
            limit: args.page.limit + 1,
            data: if args.data { DataPart::First(CELL_BYTES_MAX) } else { DataPart::None },
        },
    };
    listing::list(database, &args.listing, &items).await
}

struct Items {
    /// As it is for people.
    filter: ItemFilter,
    is_filtered: bool,
    limit: usize,
}

impl Items {
    fn with_data(&self) -> bool {
        self.filter.data != DataPart::None
    }
}

impl Listing for Items {
    type Row = ItemRow;

    async fn read(&self, store: &dyn Store) -> Result<Page<ItemRow>> {
        Ok(Page::cut(store.items(&self.filter).await?, self.limit, |row| &row.id))
    }

    fn parts(&self) -> impl Parts<Row = ItemRow> {
        ItemParts::new(self.filter.clone(), self.limit, self.with_data())
    }

    fn json(row: &ItemRow) -> impl Serialize {
        JsonItem::new(row)
    }

    fn text(&self, rows: &[ItemRow], look: Look) -> Vec<String> {
        let none = match rows.is_empty() {
            false => return table(rows, self.with_data(), look).lines(look),
            true if self.filter.after.is_some() => "No items after that one.",
            true if self.is_filtered => {
                "No item fits: leave out a filter to see all of the partition's items."
            }
            true => {
                "The partition has no items yet: add some with `gatefeed push`, or insert rows into gatefeed_items."
            }
        };
        prose(none, None, look)
    }
}

fn table(rows: &[ItemRow], with_data: bool, look: Look) -> Table {
    let mut table = Table::new(&[
        ("id", Kind::Id),
        ("gate", Kind::Right),
        ("status", Kind::Status),
        ("pass", Kind::Right),
        ("retries", Kind::Right),
        ("due", Kind::Left),
        ("size", Kind::Right),
        ("updated", Kind::Left),
        (if with_data { "data" } else { "last error" }, Kind::Text),
    ])
    .spare(&["pass", "updated"])
    .spare_at_last(&["gate", "due", "size", "retries"]);
    let now = Utc::now();
    let last_max = if look.width.is_some() { CELL_CHARS_MAX } else { usize::MAX };
    rows.iter().for_each(|row| table.row(cells(row, with_data, last_max, now)));
    table
}

fn cells(row: &ItemRow, with_data: bool, last_max: usize, now: DateTime<Utc>) -> Vec<String> {
    let due = if row.status.is_open() { relative(row.available_at, now) } else { "-".to_owned() };
    let last = if with_data {
        shortened(&data_cell(row), CELL_CHARS_MAX)
    } else {
        shortened(&error_cell(row), last_max)
    };
    vec![
        row.id.clone(),
        number(row.gate.into()),
        row.status.as_str().to_owned(),
        number(row.pass.into()),
        number(row.retry_count.into()),
        due,
        size(row.size),
        relative(row.updated_at, now),
        last,
    ]
}

fn error_cell(row: &ItemRow) -> String {
    let last = row.error_messages.as_deref().and_then(|log| log.lines().last());
    last.unwrap_or("").to_owned()
}

fn data_cell(row: &ItemRow) -> String {
    match row.data.as_deref().map(|data| text(data, row.size)) {
        Some(Some(text)) => text.to_owned(),
        Some(None) => format!("({}, not text)", row.content_type),
        None => row.data_error.as_ref().map(|why| format!("({why})")).unwrap_or_default(),
    }
}

/// The beginning of data of this size as text. It may end within a character.
fn text(beginning: &[u8], size: i64) -> Option<&str> {
    let is_cut = i64::try_from(beginning.len()).is_ok_and(|length| length < size);
    match std::str::from_utf8(beginning) {
        Ok(text) => Some(text),
        Err(error) if is_cut && error.error_len().is_none() => {
            std::str::from_utf8(&beginning[..error.valid_up_to()]).ok()
        }
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_that_was_cut_is_left_out_and_what_is_no_text_is_none() {
        let data = "aé".as_bytes();
        assert_eq!((text(&data[..2], 3), text(data, 3), text(b"", 0)), (Some("a"), Some("aé"), Some("")));
        // All of it is there, and it ends within a character.
        assert_eq!((text(&data[..2], 2), text(b"a\xffb", 9)), (None, None));
    }

    #[test]
    fn what_is_read_for_a_cell_is_enough_to_tell_that_there_is_more() {
        for character in ["a", "é", "履", "👩"] {
            let data = character.repeat(CELL_CHARS_MAX + 2);
            let beginning = &data.as_bytes()[..data.len().min(CELL_BYTES_MAX as usize)];
            let cell = shortened(text(beginning, data.len() as i64).unwrap(), CELL_CHARS_MAX);
            assert_eq!(cell, character.repeat(CELL_CHARS_MAX) + "…");
        }
    }
}
