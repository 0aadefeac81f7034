//! What operators do.

use gatefeed_core::{
    StoreError,
    acting::{self, Acted, Action},
    checkpoint::by_hand,
    partition::PartitionStatus,
    store::RetryFilter,
};
use sqlx::SqliteConnection;

use super::{
    Sqlite,
    checkpoint::{Seen, look},
    error::Result,
    rows::{by_key, now},
};

const FIND_ITEM: &str = "SELECT EXISTS (SELECT 1 FROM gatefeed_items WHERE partition_id = ? AND id = ?)";

pub(super) const RETRY: &str = concat!(
    "UPDATE gatefeed_items INDEXED BY gatefeed_items_failed
    SET status = 'available', pass = min(pass + 1, 2147483647), retry_count = 0, suspect_count = 0, available_at = ",
    now!(),
    ", version = version + 1, updated_at = ",
    now!(),
    " WHERE partition_id = ?1 AND status = 'failed' AND (?2 IS NULL OR id = ?2) AND (?3 IS NULL OR gate = ?3)"
);

const REOPEN: &str = concat!(
    "UPDATE gatefeed_partitions
    SET status = CASE WHEN status IN ('failed', 'complete') THEN 'available' ELSE status END,
        version = version + 1, next_run_at = ",
    now!(),
    ", updated_at = ",
    now!(),
    " WHERE id = ?"
);

const SEAL: &str = concat!(
    "UPDATE gatefeed_partitions
    SET manual_checkpoint = 0, auto_close = 1, version = version + (manual_checkpoint OR NOT auto_close),
        next_run_at = CASE WHEN status IN ('available', 'paused') THEN ",
    now!(),
    " ELSE next_run_at END, updated_at = ",
    now!(),
    " WHERE id = ?"
);

const RAISE: &str = concat!(
    "UPDATE gatefeed_partitions SET gate = ?2, version = version + 1, next_run_at = ",
    now!(),
    ", updated_at = ",
    now!(),
    " WHERE id = ?1"
);

const PAUSE: &str = concat!(
    "UPDATE gatefeed_partitions SET status = 'paused', version = version + 1, updated_at = ",
    now!(),
    " WHERE id = ?"
);

const RESUME: &str = concat!(
    "UPDATE gatefeed_partitions SET status = 'available', version = version + 1, next_run_at = ",
    now!(),
    ", updated_at = ",
    now!(),
    " WHERE id = ?"
);

const CANCEL: &str = concat!(
    "UPDATE gatefeed_partitions
    SET status = 'cancelled', reason = ?2, epoch = epoch + 1, owner = NULL, lease_id = NULL, until = NULL,
        next_run_at = NULL, version = version + 1, updated_at = ",
    now!(),
    " WHERE id = ?1"
);

/// One for each of the indexes of open items.
pub(super) const CANCEL_ITEMS: [&str; 2] = [
    concat!(
        "UPDATE gatefeed_items INDEXED BY gatefeed_items_due
        SET status = 'cancelled', version = version + 1, updated_at = ",
        now!(),
        " WHERE partition_id = ? AND status = 'available'"
    ),
    concat!(
        "UPDATE gatefeed_items INDEXED BY gatefeed_items_parked
        SET status = 'cancelled', waiting_until = NULL, version = version + 1, updated_at = ",
        now!(),
        " WHERE partition_id = ? AND status IN ('waiting', 'blocked')"
    ),
];

const GO_BACK: &str = concat!(
    "UPDATE gatefeed_partitions
    SET status = CASE WHEN status IN ('failed', 'complete') THEN 'available' ELSE status END, gate = ?2,
        epoch = epoch + 1, owner = NULL, lease_id = NULL, until = NULL, expiries = 0, version = version + 1,
        next_run_at = ",
    now!(),
    ", gate_since = ",
    now!(),
    ", updated_at = ",
    now!(),
    " WHERE id = ?1"
);

/// What answers will make again, and its history before it.
pub(super) const FORGET_MADE: &str = concat!(
    "DELETE FROM gatefeed_history WHERE partition_id = ?1 AND item_id IN (SELECT id FROM gatefeed_items ",
    by_key!(items),
    " WHERE partition_id = ?1 AND creator_gate >= ?2)"
);
pub(super) const REMOVE_MADE: &str =
    concat!("DELETE FROM gatefeed_items ", by_key!(items), " WHERE partition_id = ?1 AND creator_gate >= ?2");

/// Of an item with a history from the gate on, its lowest one.
pub(super) const RESTORE: &str = concat!(
    "UPDATE gatefeed_items ",
    by_key!(items),
    " SET gate = h.to_gate, data = h.old_data, content_type = h.old_content_type, available_at = ",
    now!(),
    " FROM (SELECT item_id, min(gate) AS to_gate, data AS old_data, content_type AS old_content_type
        FROM gatefeed_history WHERE partition_id = ?1 AND gate >= ?2 GROUP BY item_id) h
    WHERE partition_id = ?1 AND id = h.item_id AND gate >= h.to_gate AND status <> 'cancelled'"
);

pub(super) const AGAIN: &str = concat!(
    "UPDATE gatefeed_items ",
    by_key!(items),
    " SET status = 'available', pass = min(pass + 1, 2147483647), retry_count = 0, suspect_count = 0,
        waiting_until = NULL, available_at = CASE WHEN status = 'available' THEN available_at ELSE ",
    now!(),
    " END, version = version + 1, updated_at = ",
    now!(),
    " WHERE partition_id = ?1 AND gate >= ?2 AND status <> 'cancelled'"
);

/// What items of a partition wait for, or have waited for, from a gate on.
pub(super) const NESTED: &str = "SELECT id FROM gatefeed_partitions INDEXED BY gatefeed_partitions_nested
    WHERE parent_partition_id = ?1 AND parent_gate >= ?2 AND status NOT IN ('complete', 'cancelled')";

pub(super) const FORGET: &str = "DELETE FROM gatefeed_history WHERE partition_id = ?1 AND gate >= ?2";

impl Sqlite {
    pub(super) async fn operate(
        &self,
        partition: &str,
        version: Option<i64>,
        action: &Action,
    ) -> Result<Acted> {
        let mut tx = self.lanes.write().await?;
        let seen = find(tx.conn()?, partition).await?;
        acting::check_version(partition, seen.state.version, version)?;
        let acted = act(tx.conn()?, partition, &seen, action).await?;
        tx.commit().await?;
        Ok(acted)
    }
}

async fn act(
    connection: &mut SqliteConnection,
    partition: &str,
    seen: &Seen,
    action: &Action,
) -> Result<Acted> {
    let mut acted = Acted::default();
    match action {
        Action::Retry(filter) => acted.items = retry(connection, partition, seen, filter).await?,
        Action::Seal => {
            sqlx::query(SEAL).bind(partition).execute(connection).await?;
        }
        Action::Advance => acted.gate = raise_gate(connection, partition, seen).await?,
        Action::Pause => {
            if acting::pause(partition, seen.state.status)? {
                sqlx::query(PAUSE).bind(partition).execute(connection).await?;
            }
        }
        Action::Resume => {
            let has_open = seen.probe.open_gate.is_some_and(|open| open <= seen.state.gate);
            acting::resume(partition, seen.state.status, has_open)?;
            sqlx::query(RESUME).bind(partition).execute(connection).await?;
        }
        Action::Cancel => {
            acted.items = cancel(connection, partition, acting::CANCELLED).await?;
            acted.items += cancel_nested(connection, partition, 0).await?;
        }
        Action::Rewind(gate) => acted = go_back(connection, partition, seen, *gate).await?,
    }
    Ok(acted)
}

async fn retry(
    connection: &mut SqliteConnection,
    partition: &str,
    seen: &Seen,
    filter: &RetryFilter,
) -> Result<u64> {
    if seen.state.status == PartitionStatus::Cancelled {
        let text = format!("partition {partition:?} is cancelled: its items cannot be retried");
        return Err(StoreError::Refused(text).into());
    }
    if let Some(item) = &filter.item {
        find_item(connection, partition, item).await?;
    }
    let retry = sqlx::query(RETRY).bind(partition).bind(&filter.item).bind(filter.gate);
    let retried = retry.execute(&mut *connection).await?.rows_affected();
    if retried > 0 {
        sqlx::query(REOPEN).bind(partition).execute(connection).await?;
    }
    Ok(retried)
}

async fn raise_gate(connection: &mut SqliteConnection, partition: &str, seen: &Seen) -> Result<i32> {
    let gate = by_hand(partition, &seen.state, &seen.probe)?;
    sqlx::query(RAISE).bind(partition).bind(gate).execute(connection).await?;
    Ok(gate)
}

async fn go_back(
    connection: &mut SqliteConnection,
    partition: &str,
    seen: &Seen,
    gate: i32,
) -> Result<Acted> {
    acting::rewind(partition, &seen.state, gate)?;
    cancel_nested(connection, partition, gate).await?;
    let mut touched = [0; 6];
    let steps = [GO_BACK, FORGET_MADE, REMOVE_MADE, RESTORE, AGAIN, FORGET];
    for (touched, step) in touched.iter_mut().zip(steps) {
        let step = sqlx::query(step).bind(partition).bind(gate);
        *touched = step.execute(&mut *connection).await?.rows_affected();
    }
    let [_, _, removed, _, items, _] = touched;
    Ok(Acted { items, removed, ..Acted::default() })
}

/// Cancels a partition within a transaction, as `gatefeed_cancel` does on Postgres; returns how many items.
async fn cancel(connection: &mut SqliteConnection, partition: &str, reason: &str) -> Result<u64> {
    let seen = find(connection, partition).await?;
    if acting::cancel(partition, seen.state.status)? {
        sqlx::query(CANCEL).bind(partition).bind(reason).execute(&mut *connection).await?;
    }
    let mut cancelled = 0;
    for items in CANCEL_ITEMS {
        cancelled += sqlx::query(items).bind(partition).execute(&mut *connection).await?.rows_affected();
    }
    Ok(cancelled)
}

/// Cancels what is nested in a partition, from a gate on, and what is nested in that; returns how many items.
async fn cancel_nested(connection: &mut SqliteConnection, partition: &str, gate: i32) -> Result<u64> {
    let mut cancelled = 0;
    let mut parents = vec![(partition.to_owned(), gate)];
    while let Some((parent, gate)) = parents.pop() {
        let nested = sqlx::query_scalar::<_, Vec<u8>>(NESTED).bind(&parent).bind(gate);
        let reason = format!("cancelled with partition \"{}\"", parent.chars().take(100).collect::<String>());
        let nested = nested.fetch_all(&mut *connection).await?;
        // What cannot be named is delivered by nobody.
        for child in nested.into_iter().filter_map(|id| String::from_utf8(id).ok()) {
            cancelled += cancel(connection, &child, &reason).await?;
            parents.push((child, 0));
        }
    }
    Ok(cancelled)
}

async fn find(connection: &mut SqliteConnection, partition: &str) -> Result<Seen> {
    Ok(look(connection, partition).await?.ok_or_else(|| no_partition(partition))?)
}

async fn find_item(connection: &mut SqliteConnection, partition: &str, item: &str) -> Result<()> {
    if sqlx::query_scalar(FIND_ITEM).bind(partition).bind(item).fetch_one(connection).await? {
        return Ok(());
    }
    Err(StoreError::NotFound(format!("partition {partition:?} has no item {item:?}")).into())
}

pub(super) fn no_partition(partition: &str) -> StoreError {
    StoreError::NotFound(format!("partition {partition:?} does not exist"))
}
