//! Text that is not UTF-8. SQLite stores whatever bytes it is given; names and content types that are not UTF-8 are refused
//! since migration 18, but there may be some from before, and reasons and errors are anybody's to write. Such text is shown
//! with each byte that is wrong as U+FFFD and its two hexadecimal digits, so that different ones look different and a listing
//! can go on behind one. What nobody can name fails, once, instead of holding up what is next to it.

use std::borrow::Cow;

use gatefeed_core::{item::DueItem, lease::Lease};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    error::Result,
    fence::current,
    pool::Lanes,
    rows::{by_key, due_item, now},
};

const FAIL_PARTITION: &str = concat!(
    "UPDATE gatefeed_partitions ",
    by_key!(partitions),
    " SET status = 'failed', owner = NULL, lease_id = NULL, until = NULL, next_run_at = NULL, version = version + 1,
        reason = 'the id of this partition is not UTF-8: insert it and its items under another id, and delete this one',
        updated_at = ",
    now!(),
    " WHERE id = CAST(? AS TEXT)"
);

const FAIL_ITEM: &str = concat!(
    "UPDATE gatefeed_items ",
    by_key!(items),
    " SET status = 'failed', waiting_until = NULL, version = version + 1,
        error_messages = 'the id of this item is not UTF-8: insert it under another id, and delete this one',
        updated_at = ",
    now!(),
    " WHERE partition_id = ? AND id = CAST(? AS TEXT) AND version = ? AND status IN ('available', 'waiting')"
);

const PARTITION: &str = "SELECT EXISTS (SELECT 1 FROM gatefeed_partitions WHERE id = CAST(? AS TEXT))";
const ITEM: &str =
    "SELECT EXISTS (SELECT 1 FROM gatefeed_items WHERE partition_id = ? AND id = CAST(? AS TEXT))";

/// Stands before the digits of a byte that is wrong.
const MARK: char = char::REPLACEMENT_CHARACTER;

/// A column's text, as it is shown.
pub(super) fn text<'r>(row: &'r SqliteRow, column: &str) -> Result<Cow<'r, str>> {
    Ok(shown(row.try_get(column)?))
}

/// The same.
pub(super) fn owned(row: &SqliteRow, column: &str) -> Result<String> {
    Ok(text(row, column)?.into_owned())
}

/// A column's text, if it has one, as it is shown.
pub(super) fn maybe_text(row: &SqliteRow, column: &str) -> Result<Option<String>> {
    Ok(row.try_get::<Option<&[u8]>, _>(column)?.map(|bytes| shown(bytes).into_owned()))
}

/// Bytes as text. UTF-8 is shown as it is.
pub(super) fn shown(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.into();
    }
    let mut shown = String::with_capacity(2 * bytes.len());
    for chunk in bytes.utf8_chunks() {
        shown.push_str(chunk.valid());
        chunk.invalid().iter().for_each(|byte| shown.push_str(&format!("{MARK}{byte:02x}")));
    }
    shown.into()
}

/// The bytes that are shown so, if some are wrong; perhaps: it may be a text of its own.
fn meant(shown: &str) -> Option<Vec<u8>> {
    let mut pieces = shown.split(MARK);
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let byte = piece.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte.filter(|byte| !byte.is_ascii()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&piece.as_bytes()[2..]);
            }
            None => {
                bytes.extend(MARK.to_string().as_bytes());
                bytes.extend(piece.as_bytes());
            }
        }
    }
    (bytes != shown.as_bytes()).then_some(bytes)
}

/// The id of the partition that a listing goes on behind, for a `CAST(? AS TEXT)`.
pub(super) async fn after_partition(
    connection: &mut SqliteConnection,
    after: Option<&str>,
) -> Result<Vec<u8>> {
    let after = after.unwrap_or("");
    if let Some(id) = meant(after)
        && sqlx::query_scalar(PARTITION).bind(&id).fetch_one(connection).await?
    {
        return Ok(id);
    }
    Ok(after.into())
}

/// The same of an item.
pub(super) async fn after_item(
    connection: &mut SqliteConnection,
    partition: &str,
    after: Option<&str>,
) -> Result<Vec<u8>> {
    let after = after.unwrap_or("");
    if let Some(id) = meant(after)
        && sqlx::query_scalar(ITEM).bind(partition).bind(&id).fetch_one(connection).await?
    {
        return Ok(id);
    }
    Ok(after.into())
}

/// An item that nobody can name.
#[derive(Debug)]
pub(super) struct Nameless {
    id: Vec<u8>,
    version: i64,
}

/// The items of rows, and those that nobody can name.
pub(super) fn named(rows: &[SqliteRow]) -> Result<(Vec<DueItem>, Vec<Nameless>)> {
    let (mut items, mut no_name) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in rows {
        let id: &[u8] = row.try_get("id")?;
        match std::str::from_utf8(id) {
            Ok(_) => items.push(due_item(row)?),
            Err(_) => no_name.push(Nameless { id: id.to_vec(), version: row.try_get("version")? }),
        }
    }
    Ok((items, no_name))
}

/// Fails a partition that nobody can name, whoever has it.
pub(super) async fn fail_partition(connection: &mut SqliteConnection, id: &[u8]) -> Result<()> {
    sqlx::query(FAIL_PARTITION).bind(id).execute(connection).await?;
    Ok(())
}

/// Fails items that nobody can name, of leases that are current.
pub(super) async fn fail_items(lanes: &Lanes, items: &[(&Lease, Vec<Nameless>)]) -> Result<()> {
    if items.is_empty() {
        return Ok(());
    }
    let mut tx = lanes.write().await?;
    let leases: Vec<&Lease> = items.iter().map(|(lease, _)| *lease).collect();
    let current = current(tx.conn()?, &leases).await?;
    let mut failed = Vec::with_capacity(items.len());
    for ((lease, items), _) in items.iter().zip(current).filter(|(_, current)| *current) {
        let mut count = 0;
        for Nameless { id, version } in items {
            let fail = sqlx::query(FAIL_ITEM).bind(&*lease.partition).bind(id).bind(version);
            count += fail.execute(tx.conn()?).await?.rows_affected();
        }
        failed.push((&lease.partition, count));
    }
    tx.commit().await?;
    for (partition, items) in failed.into_iter().filter(|(_, items)| *items > 0) {
        tracing::warn!(%partition, items, "items have failed whose ids are not UTF-8");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_shown_and_found_again() {
        for (bytes, text) in [
            (&b"M\xfcller"[..], "M\u{fffd}fcller"),
            (b"\xe3\x81", "\u{fffd}e3\u{fffd}81"),
            (b"a\xef\xbf\xbd\xe9", "a\u{fffd}\u{fffd}e9"),
        ] {
            assert_eq!(shown(bytes), text);
            assert_eq!(meant(text).as_deref(), Some(bytes));
        }
        for text in ["", "Müller", "\u{fffd}", "\u{fffd}41", "\u{fffd}f", "\u{fffd}ü", "\u{fffd}+f"] {
            assert_eq!(shown(text.as_bytes()), text);
            assert_eq!(meant(text), None, "{text}");
        }
    }
}
