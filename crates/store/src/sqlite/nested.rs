//! Nested partitions: making them with an outcome, and settling the items that wait for them. What closes leaves a note
//! and wakes its parent in the same statement (triggers of the schema do), since there are no locks on rows.

use std::collections::HashMap;

use gatefeed_core::{
    item::Data,
    lease::Lease,
    nested::{COUNTED_MAX, Closed, Counts, DEPTH_MAX, NewNested, Settlement, id_taken, settle, too_deep},
    outcome::Completion,
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    dependencies::unblock,
    error::Result,
    rows::{by_key, now, word},
    text::{maybe_text, owned, shown},
};
use crate::unsettled::Piece;

/// Whether a partition `p` has notes that nobody has looked at.
macro_rules! has_notes {
    () => {
        "EXISTS (SELECT 1 FROM gatefeed_closed c INDEXED BY gatefeed_closed_unapplied
            WHERE c.parent_partition_id = p.id AND NOT c.applied) AS has_notes"
    };
}
pub(super) use has_notes;

const PARENT: &str =
    concat!("SELECT feed, depth FROM gatefeed_partitions ", by_key!(partitions), " WHERE id = ?");

const NESTED: &str = "INSERT INTO gatefeed_partitions
    (id, feed, parent_partition_id, parent_item_id, parent_pass, parent_gate, parent_then, depth)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING";

/// Notes of what is no longer waited for.
pub(super) const DROP: &str = concat!(
    "DELETE FROM gatefeed_closed WHERE parent_partition_id = ? AND NOT applied
    AND NOT EXISTS (SELECT 1 FROM gatefeed_items i ",
    by_key!(items),
    " WHERE i.partition_id = gatefeed_closed.parent_partition_id AND i.id = gatefeed_closed.parent_item_id
        AND i.status = 'waiting' AND i.pass = gatefeed_closed.parent_pass)"
);

/// What an item waits for that has not closed, by a note of this name.
macro_rules! is_open {
    ($c:literal) => {
        concat!(
            "EXISTS (SELECT 1 FROM gatefeed_partitions p INDEXED BY gatefeed_partitions_nested
            WHERE p.parent_partition_id = ",
            $c,
            ".parent_partition_id AND p.parent_item_id = ",
            $c,
            ".parent_item_id AND p.parent_pass = ",
            $c,
            ".parent_pass AND NOT EXISTS (SELECT 1 FROM gatefeed_closed o
                WHERE o.parent_partition_id = p.parent_partition_id AND o.parent_item_id = p.parent_item_id
                    AND o.partition_id = p.id))"
        )
    };
}

/// Items that wait for more are looked at again when the next note comes.
pub(super) const APPLY: &str = concat!(
    "UPDATE gatefeed_closed SET applied = 1 WHERE parent_partition_id = ? AND NOT applied AND ",
    is_open!("gatefeed_closed")
);

/// The next item that waits for nothing any more.
pub(super) const READY: &str = concat!(
    "SELECT i.id, i.pass, CAST(i.data AS BLOB) AS data, i.content_type, i.error_messages
    FROM gatefeed_closed c INDEXED BY gatefeed_closed_unapplied CROSS JOIN gatefeed_items i ",
    by_key!(items),
    " ON i.partition_id = c.parent_partition_id AND i.id = c.parent_item_id
        AND i.status = 'waiting' AND i.pass = c.parent_pass
    WHERE c.parent_partition_id = ? AND NOT c.applied AND NOT ",
    is_open!("c"),
    " LIMIT 1"
);

const CLOSED: &str = "SELECT partition_id, parent_then, status, reason FROM gatefeed_closed
    WHERE parent_partition_id = ? AND parent_item_id = ? AND parent_pass = ? ORDER BY partition_id";

pub(super) const COUNT: &str = concat!(
    "SELECT count(*) AS items, total(status = 'complete') AS complete, total(status = 'failed') AS failed,
        total(status = 'cancelled') AS cancelled
    FROM (SELECT status FROM gatefeed_items ",
    by_key!(items),
    " WHERE partition_id = CAST(? AS TEXT) LIMIT ?)"
);

const SETTLE: &str = concat!(
    "UPDATE gatefeed_items ",
    by_key!(items),
    " SET status = ?4, data = coalesce(?5, data), content_type = coalesce(?6, content_type),
        error_messages = coalesce(?7, error_messages), version = version + 1, updated_at = ",
    now!(),
    " WHERE partition_id = ?1 AND id = ?2 AND pass = ?3 AND status = 'waiting'"
);

const FORGET: &str = "DELETE FROM gatefeed_closed WHERE parent_partition_id = ? AND parent_item_id = ?";

/// Makes what the answers nest; their items come after. `Data` where an id is taken or the parent is as deep as they get.
pub(super) async fn add_nested(connection: &mut SqliteConnection, parents: &[&Completion]) -> Result<()> {
    let mut known: HashMap<&Lease, (String, i32)> = HashMap::new();
    for parent in parents.iter().filter(|parent| !parent.nested.is_empty()) {
        let (feed, depth) = match known.get(parent.lease.as_ref()) {
            Some(parent) => parent.clone(),
            None => {
                let row =
                    sqlx::query(PARENT).bind(&*parent.lease.partition).fetch_one(&mut *connection).await?;
                let found: (String, i32) = (owned(&row, "feed")?, row.try_get("depth")?);
                known.insert(&parent.lease, found.clone());
                found
            }
        };
        if depth >= DEPTH_MAX {
            return Err(too_deep(&parent.lease.partition).into());
        }
        for nested in &parent.nested {
            add(connection, parent, nested, &feed, depth + 1).await?;
        }
    }
    Ok(())
}

async fn add(
    connection: &mut SqliteConnection,
    parent: &Completion,
    nested: &NewNested,
    feed: &str,
    depth: i32,
) -> Result<()> {
    let query = sqlx::query(NESTED).bind(&nested.id).bind(nested.feed.as_deref().unwrap_or(feed));
    let query = query.bind(&*parent.lease.partition).bind(&*parent.item).bind(nested.pass);
    let query = query.bind(nested.gate).bind(nested.then.as_str()).bind(depth);
    match query.execute(connection).await?.rows_affected() {
        0 => Err(id_taken(&nested.id).into()),
        _ => Ok(()),
    }
}

/// Settles items of a partition that wait for nothing any more: of so many closed partitions, about. `None`: that was
/// all; else those whose dependents are left, if any.
pub(super) async fn settle_nested(
    connection: &mut SqliteConnection,
    partition: &str,
    max: usize,
) -> Result<Option<Vec<String>>> {
    for statement in [DROP, APPLY] {
        sqlx::query(statement).bind(partition).execute(&mut *connection).await?;
    }
    let mut settled = 0;
    while settled < max {
        let ready = sqlx::query(READY).bind(partition).fetch_optional(&mut *connection).await?;
        let Some(item) = ready else { return Ok(None) };
        settled += settle_item(connection, partition, &item).await?;
        let changed = Some(vec![item.try_get::<String, _>("id")?]);
        let rest = unblock(connection, partition, changed, Some(Piece::of(Piece::WITHIN, 1))).await?;
        if rest.is_some() {
            return Ok(rest);
        }
    }
    Ok(Some(Vec::new()))
}

/// Returns for how many it had waited.
async fn settle_item(connection: &mut SqliteConnection, partition: &str, item: &SqliteRow) -> Result<usize> {
    let (id, pass): (&str, i32) = (item.try_get("id")?, item.try_get("pass")?);
    let rows = sqlx::query(CLOSED).bind(partition).bind(id).bind(pass).fetch_all(&mut *connection).await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in &rows {
        all.push(closed(connection, row).await?);
    }
    let data = Data {
        bytes: item.try_get::<Vec<u8>, _>("data")?.into(),
        content_type: owned(item, "content_type")?,
    };
    let (status, data, errors) = match settle(&data, maybe_text(item, "error_messages")?.as_deref(), &all) {
        Settlement::Deliver(data) => ("available", Some(data), None),
        Settlement::Complete => ("complete", None, None),
        Settlement::Fail(errors) => ("failed", None, Some(errors)),
    };
    let query = sqlx::query(SETTLE).bind(partition).bind(id).bind(pass).bind(status);
    let query = query.bind(data.as_ref().map(|data| &data.bytes[..]));
    let query = query.bind(data.as_ref().map(|data| data.content_type.as_str())).bind(errors);
    query.execute(&mut *connection).await?;
    sqlx::query(FORGET).bind(partition).bind(id).execute(&mut *connection).await?;
    Ok(all.len())
}

async fn closed(connection: &mut SqliteConnection, row: &SqliteRow) -> Result<Closed> {
    let id: &[u8] = row.try_get("partition_id")?;
    let counted = sqlx::query(COUNT).bind(id).bind(COUNTED_MAX + 1).fetch_one(connection).await?;
    let count = |status| counted.try_get::<f64, _>(status).map(|count| count as i64);
    let counts =
        Counts { complete: count("complete")?, failed: count("failed")?, cancelled: count("cancelled")? };
    Ok(Closed {
        id: shown(id).into_owned(),
        then: word(row, "parent_then")?,
        status: word(row, "status")?,
        reason: maybe_text(row, "reason")?,
        counts: (counted.try_get::<i64, _>("items")? <= COUNTED_MAX).then_some(counts),
    })
}
