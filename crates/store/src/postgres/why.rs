//! What there is to see of a partition, for people: a few looks, each bounded.

use std::{str::FromStr, time::Duration};

use gatefeed_core::{
    Result, StoreError,
    circuit::CircuitStatus,
    item::ItemStatus,
    why::{Facts, LOOK_MAX, NAMED_MAX, Seen},
};
use sqlx::{Row, postgres::PgRow};

use super::{
    Postgres,
    error::translate,
    inspect::partition_row,
    operate::no_partition,
    pool::{Lane, Tx},
    rows::get,
};

const LIMIT: Duration = Duration::from_secs(10);

/// Nothing of its items is counted.
const PARTITION: &str = "SELECT p.*, 0::bigint AS available, 0::bigint AS waiting, 0::bigint AS blocked, 0::bigint AS failed,
        clock_timestamp() AS now,
        least((SELECT i.gate FROM {schema}.gatefeed_items i
               WHERE i.partition_id = p.id AND i.status = 'available' AND i.gate > p.gate ORDER BY i.gate LIMIT 1),
              (SELECT i.gate FROM {schema}.gatefeed_items i
               WHERE i.partition_id = p.id AND i.status IN ('waiting', 'blocked') AND i.gate > p.gate
               ORDER BY i.gate LIMIT 1)) AS next_gate,
        (SELECT i.id FROM {schema}.gatefeed_items i WHERE i.partition_id = p.id ORDER BY i.id LIMIT 1) IS NOT NULL AS any_item
    FROM {schema}.gatefeed_partitions p WHERE p.id = $1";

macro_rules! items {
    ($which:literal) => {
        concat!(
            "SELECT i.id, i.gate, i.status, i.available_at, i.waiting_until, i.retry_count, right(i.error_messages, 1100) AS errors
            FROM {schema}.gatefeed_items i WHERE i.partition_id = $1 AND ",
            $which
        )
    };
}

const AVAILABLE: &str = items!(
    "i.status = 'available' AND i.gate <= $2 ORDER BY i.gate, -(i.priority::bigint), i.available_at, i.id LIMIT $3"
);
const PARKED: &str = items!("i.status IN ('waiting', 'blocked') AND i.gate <= $2 ORDER BY i.gate LIMIT $3");
const FAILED: &str = items!("i.status = 'failed' AND i.gate >= $2 ORDER BY i.gate LIMIT $3");
const ITEM: &str = items!("i.id = $2");

const WAITS_FOR: &str = "SELECT p.id FROM {schema}.gatefeed_partitions p
    WHERE p.parent_partition_id = $1 AND p.parent_item_id = $2 AND p.status IN ('available', 'paused')
    ORDER BY p.id LIMIT $3";

impl Postgres {
    pub(super) async fn look_into(&self, partition: &str, item: Option<&str>) -> Result<Facts> {
        let mut tx = self.begin(Lane::Look, LIMIT).await?;
        let query = tx.query(self.sql.get(PARTITION)).bind(partition);
        let row = query.fetch_optional(tx.conn()?).await.map_err(translate)?;
        let missing = || no_partition(partition);
        let row = row.ok_or_else(missing)?;
        let gate = get(&row, "gate")?;
        let (watchers, circuits) = self.serving(&mut tx, get(&row, "feed")?).await?;
        let mut facts = Facts {
            now: get(&row, "now")?,
            partition: partition_row(&row)?,
            available: self.see(&mut tx, AVAILABLE, partition, gate).await?,
            parked: self.see(&mut tx, PARKED, partition, gate).await?,
            failed: self.see(&mut tx, FAILED, partition, 0).await?,
            next_gate: get(&row, "next_gate")?,
            any_item: get(&row, "any_item")?,
            watchers,
            circuits,
            item: match item {
                Some(item) => Some(self.see_item(&mut tx, partition, item).await?),
                None => None,
            },
            waits_for: Vec::new(),
            data_error: None,
        };
        if let Some(item) = facts.waiting() {
            facts.waits_for = self.waits_for(&mut tx, partition, &item.id).await?;
        }
        tx.commit().await?;
        Ok(facts)
    }

    async fn see(&self, tx: &mut Tx, sql: &'static str, partition: &str, gate: i32) -> Result<Vec<Seen>> {
        let query = tx.query(self.sql.get(sql)).bind(partition).bind(gate).bind(LOOK_MAX as i64 + 1);
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        rows.iter().map(seen).collect()
    }

    async fn see_item(&self, tx: &mut Tx, partition: &str, item: &str) -> Result<Seen> {
        let query = tx.query(self.sql.get(ITEM)).bind(partition).bind(item);
        let row = query.fetch_optional(tx.conn()?).await.map_err(translate)?;
        let missing = || StoreError::NotFound(format!("partition {partition:?} has no item {item:?}"));
        seen(&row.ok_or_else(missing)?)
    }

    async fn waits_for(&self, tx: &mut Tx, partition: &str, item: &str) -> Result<Vec<String>> {
        let query = tx.query(self.sql.get(WAITS_FOR)).bind(partition).bind(item).bind(NAMED_MAX as i64 + 1);
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        rows.iter().map(|row| get(row, "id")).collect()
    }

    async fn serving(&self, tx: &mut Tx, feed: &str) -> Result<(Vec<String>, Vec<CircuitStatus>)> {
        let alive = self.alive(tx).await?.into_iter().filter(|(of, _)| of == feed);
        let (watchers, circuits): (_, Vec<_>) =
            alive.map(|(_, watcher)| (watcher.id, watcher.circuits)).unzip();
        Ok((watchers, circuits.concat()))
    }
}

fn seen(row: &PgRow) -> Result<Seen> {
    let errors: Option<&str> = row.try_get("errors").map_err(translate)?;
    Ok(Seen {
        id: get(row, "id")?,
        gate: get(row, "gate")?,
        status: ItemStatus::from_str(get(row, "status")?)?,
        available_at: get(row, "available_at")?,
        waiting_until: get(row, "waiting_until")?,
        retry_count: get(row, "retry_count")?,
        last_error: errors.and_then(|errors| errors.lines().last()).map(str::to_owned),
    })
}
