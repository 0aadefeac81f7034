//! What there is to see of a partition, for people: a few looks, each bounded.

use gatefeed_core::{
    StoreError,
    circuit::CircuitStatus,
    why::{Facts, LOOK_MAX, NAMED_MAX, Seen},
};
use sqlx::{Acquire, Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Sqlite,
    error::Result,
    inspect::partition_row,
    operate::no_partition,
    pool::Lane,
    rows::{at, by_key, maybe_at, now, word},
    text::{maybe_text, owned, shown, text},
    watchers::alive,
};

/// Nothing of its items is counted.
pub(super) const PARTITION: &str = concat!(
    "SELECT p.*, 0 AS available, 0 AS waiting, 0 AS blocked, 0 AS failed, ",
    now!(),
    " AS now,
        (SELECT i.gate FROM gatefeed_items i INDEXED BY gatefeed_items_due
         WHERE i.partition_id = p.id AND i.status = 'available' AND i.gate > p.gate ORDER BY i.gate LIMIT 1)
            AS next_available,
        (SELECT i.gate FROM gatefeed_items i INDEXED BY gatefeed_items_parked
         WHERE i.partition_id = p.id AND i.status IN ('waiting', 'blocked') AND i.gate > p.gate ORDER BY i.gate LIMIT 1)
            AS next_parked,
        EXISTS (SELECT 1 FROM gatefeed_items i ",
    by_key!(items),
    " WHERE i.partition_id = p.id) AS any_item
    FROM gatefeed_partitions p WHERE p.id = ?"
);

macro_rules! items {
    ($index:expr, $which:literal) => {
        concat!(
            "SELECT id, gate, status, available_at, waiting_until, retry_count, substr(error_messages, -1100) AS errors
            FROM gatefeed_items ",
            $index,
            " WHERE partition_id = ?1 AND ",
            $which
        )
    };
}

pub(super) const AVAILABLE: &str = items!(
    "INDEXED BY gatefeed_items_due",
    "status = 'available' AND gate <= ?2 ORDER BY gate, priority DESC, available_at, id LIMIT ?3"
);
pub(super) const PARKED: &str = items!(
    "INDEXED BY gatefeed_items_parked",
    "status IN ('waiting', 'blocked') AND gate <= ?2 ORDER BY gate LIMIT ?3"
);
pub(super) const FAILED: &str =
    items!("INDEXED BY gatefeed_items_failed", "status = 'failed' AND gate >= ?2 ORDER BY gate LIMIT ?3");
const ITEM: &str = items!("", "id = ?2");

pub(super) const WAITS_FOR: &str =
    "SELECT p.id FROM gatefeed_partitions p INDEXED BY gatefeed_partitions_nested
    WHERE p.parent_partition_id = ? AND p.parent_item_id = ? AND p.status IN ('available', 'paused')
    ORDER BY p.id LIMIT ?";

impl Sqlite {
    pub(super) async fn look_into(&self, partition: &str, item: Option<&str>) -> Result<Facts> {
        let mut connection = self.lanes.read(Lane::Look).await?;
        // One transaction, so that all looks see the same moment; dropped, it ends.
        let mut tx = connection.begin().await?;
        let row = sqlx::query(PARTITION).bind(partition).fetch_optional(&mut *tx).await?;
        let row = row.ok_or_else(|| no_partition(partition))?;
        let gate: i32 = row.try_get("gate")?;
        let next: [Option<i32>; 2] = [row.try_get("next_available")?, row.try_get("next_parked")?];
        let (watchers, circuits) = serving(&mut tx, &text(&row, "feed")?).await?;
        let mut facts = Facts {
            now: at(&row, "now")?,
            partition: partition_row(&row)?,
            available: see(&mut tx, AVAILABLE, partition, gate).await?,
            parked: see(&mut tx, PARKED, partition, gate).await?,
            failed: see(&mut tx, FAILED, partition, 0).await?,
            next_gate: next.into_iter().flatten().min(),
            any_item: row.try_get("any_item")?,
            watchers,
            circuits,
            item: match item {
                Some(item) => Some(see_item(&mut tx, partition, item).await?),
                None => None,
            },
            waits_for: Vec::new(),
            data_error: None,
        };
        if let Some(item) = facts.waiting() {
            let query = sqlx::query_scalar::<_, Vec<u8>>(WAITS_FOR).bind(partition).bind(&item.id);
            let ids = query.bind(NAMED_MAX as i64 + 1).fetch_all(&mut *tx).await?;
            facts.waits_for = ids.iter().map(|id| shown(id).into_owned()).collect();
        }
        Ok(facts)
    }
}

async fn see(connection: &mut SqliteConnection, sql: &str, partition: &str, gate: i32) -> Result<Vec<Seen>> {
    let query = sqlx::query(sql).bind(partition).bind(gate).bind(LOOK_MAX as i64 + 1);
    query.fetch_all(connection).await?.iter().map(seen).collect()
}

async fn see_item(connection: &mut SqliteConnection, partition: &str, item: &str) -> Result<Seen> {
    let row = sqlx::query(ITEM).bind(partition).bind(item).fetch_optional(connection).await?;
    let missing = || StoreError::NotFound(format!("partition {partition:?} has no item {item:?}"));
    seen(&row.ok_or_else(missing)?)
}

async fn serving(connection: &mut SqliteConnection, feed: &str) -> Result<(Vec<String>, Vec<CircuitStatus>)> {
    let alive = alive(connection).await?.into_iter().filter(|(of, _)| of == feed);
    let (watchers, circuits): (_, Vec<_>) = alive.map(|(_, watcher)| (watcher.id, watcher.circuits)).unzip();
    Ok((watchers, circuits.concat()))
}

fn seen(row: &SqliteRow) -> Result<Seen> {
    let errors = maybe_text(row, "errors")?;
    Ok(Seen {
        id: owned(row, "id")?,
        gate: row.try_get("gate")?,
        status: word(row, "status")?,
        available_at: at(row, "available_at")?,
        waiting_until: maybe_at(row, "waiting_until")?,
        retry_count: row.try_get("retry_count")?,
        last_error: errors.as_deref().and_then(|errors| errors.lines().last()).map(str::to_owned),
    })
}
