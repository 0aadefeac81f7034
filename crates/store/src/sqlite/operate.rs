//! What operators do.

use gatefeed_core::{
    StoreError,
    partition::{FailurePolicy, PartitionStatus},
    store::RetryFilter,
};
use sqlx::SqliteConnection;

use super::{
    Sqlite,
    checkpoint::{Seen, look},
    error::Result,
    rows::now,
};

const FIND: &str = "SELECT rowid FROM gatefeed_partitions WHERE id = ?";

const FIND_ITEM: &str = "SELECT EXISTS (SELECT 1 FROM gatefeed_items WHERE partition_id = ? AND id = ?)";

pub(super) const RETRY: &str = concat!(
    "UPDATE gatefeed_items
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
    " WHERE rowid = ?"
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
    " WHERE rowid = ?1"
);

impl Sqlite {
    pub(super) async fn retry_failed(&self, partition: &str, filter: &RetryFilter) -> Result<u64> {
        let mut tx = self.lanes.write().await?;
        let rowid = find(tx.conn()?, partition).await?;
        let seen = look(tx.conn()?, rowid).await?;
        if seen.is_some_and(|seen| seen.state.status == PartitionStatus::Cancelled) {
            let text = format!("partition {partition:?} is cancelled: its items cannot be retried");
            return Err(StoreError::Refused(text).into());
        }
        if let Some(item) = &filter.item {
            find_item(tx.conn()?, partition, item).await?;
        }
        let retry = sqlx::query(RETRY).bind(partition).bind(&filter.item).bind(filter.gate);
        let retried = retry.execute(tx.conn()?).await?.rows_affected();
        if retried > 0 {
            sqlx::query(REOPEN).bind(rowid).execute(tx.conn()?).await?;
        }
        tx.commit().await?;
        Ok(retried)
    }

    pub(super) async fn let_go(&self, partition: &str) -> Result<()> {
        let mut tx = self.lanes.write().await?;
        if sqlx::query(SEAL).bind(partition).execute(tx.conn()?).await?.rows_affected() == 0 {
            return Err(no_partition(partition).into());
        }
        tx.commit().await
    }

    pub(super) async fn raise_gate(&self, partition: &str) -> Result<i32> {
        let mut tx = self.lanes.write().await?;
        let rowid = find(tx.conn()?, partition).await?;
        let seen = look(tx.conn()?, rowid).await?.ok_or_else(|| no_partition(partition))?;
        let gate = next_gate(&seen)?;
        sqlx::query(RAISE).bind(rowid).bind(gate).execute(tx.conn()?).await?;
        tx.commit().await?;
        Ok(gate)
    }
}

async fn find(connection: &mut SqliteConnection, partition: &str) -> Result<i64> {
    let found = sqlx::query_scalar(FIND).bind(partition).fetch_optional(connection).await?;
    found.ok_or_else(|| no_partition(partition).into())
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

/// Where an operator's advance goes, or why it may not.
fn next_gate(seen: &Seen) -> Result<i32, StoreError> {
    let (id, gate) = (&seen.id, seen.state.gate);
    let refuse = |why: String| Err(StoreError::Refused(format!("partition {id:?} cannot advance: {why}")));
    if !matches!(seen.state.status, PartitionStatus::Available | PartitionStatus::Paused) {
        return refuse(format!("it is {}", seen.state.status.as_str()));
    }
    let failed_here = seen.probe.failed_gate.is_some_and(|failed| failed <= gate);
    match seen.probe.open_gate {
        Some(open) if open <= gate => refuse(format!(
            "an item at gate {open} is still open, and gate {gate} is through only when none is; \
             `gatefeed items {id} --gate {open}` shows them"
        )),
        _ if failed_here && seen.state.failure_policy == FailurePolicy::Stop => refuse(format!(
            "an item at or below gate {gate} is failed and its policy is 'stop'; `gatefeed retry {id}` first"
        )),
        Some(next) => Ok(next),
        None => refuse(format!("nothing is open above gate {gate}")),
    }
}
