//! What operators do.

use gatefeed_core::{StoreError, checkpoint::by_hand, partition::PartitionStatus, store::RetryFilter};
use sqlx::SqliteConnection;

use super::{Sqlite, checkpoint::look, error::Result, rows::now};

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

impl Sqlite {
    pub(super) async fn retry_failed(&self, partition: &str, filter: &RetryFilter) -> Result<u64> {
        let mut tx = self.lanes.write().await?;
        let seen = look(tx.conn()?, partition).await?.ok_or_else(|| no_partition(partition))?;
        if seen.state.status == PartitionStatus::Cancelled {
            let text = format!("partition {partition:?} is cancelled: its items cannot be retried");
            return Err(StoreError::Refused(text).into());
        }
        if let Some(item) = &filter.item {
            find_item(tx.conn()?, partition, item).await?;
        }
        let retry = sqlx::query(RETRY).bind(partition).bind(&filter.item).bind(filter.gate);
        let retried = retry.execute(tx.conn()?).await?.rows_affected();
        if retried > 0 {
            sqlx::query(REOPEN).bind(partition).execute(tx.conn()?).await?;
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
        let seen = look(tx.conn()?, partition).await?.ok_or_else(|| no_partition(partition))?;
        let gate = by_hand(partition, &seen.state, &seen.probe)?;
        sqlx::query(RAISE).bind(partition).bind(gate).execute(tx.conn()?).await?;
        tx.commit().await?;
        Ok(gate)
    }
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
