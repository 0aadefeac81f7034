//! What operators do. The SQL functions of the schema do the work, so that psql and the command line agree.

use std::{collections::HashMap, time::Duration};

use gatefeed_core::{Result, StoreError, checkpoint::by_hand, store::RetryFilter};
use sqlx::Row;

use super::{
    Postgres,
    error::translate,
    pool::{Lane, Tx},
    rows::{state, state_columns},
    wake::Hint,
};

const LIMIT: Duration = Duration::from_secs(60);

const LOCK: &str = concat!(
    "SELECT ",
    state_columns!(),
    " FROM {schema}.gatefeed_partitions p WHERE p.id = $1 FOR NO KEY UPDATE"
);

const RAISE: &str = "UPDATE {schema}.gatefeed_partitions
    SET gate = $2, version = version + 1, updated_at = now(), next_run_at = now() WHERE id = $1";

impl Postgres {
    pub(super) async fn retry_failed(&self, partition: &str, filter: &RetryFilter) -> Result<u64> {
        let mut tx = self.begin(Lane::Work, LIMIT).await?;
        if let Some(item) = &filter.item {
            self.find_item(&mut tx, partition, item).await?;
        }
        let call = tx.query(self.sql.get("SELECT {schema}.gatefeed_retry($1, $2, $3)"));
        let call = call.bind(partition).bind(&filter.item).bind(filter.gate);
        let retried: i64 = call.fetch_one(tx.conn()?).await.map_err(spoken)?.get(0);
        tx.commit().await?;
        Ok(retried.unsigned_abs())
    }

    pub(super) async fn let_go(&self, partition: &str) -> Result<()> {
        let mut tx = self.begin(Lane::Work, LIMIT).await?;
        let call = tx.query(self.sql.get("SELECT {schema}.gatefeed_seal($1)")).bind(partition);
        call.execute(tx.conn()?).await.map_err(spoken)?;
        tx.commit().await
    }

    pub(super) async fn raise_gate(&self, partition: &str) -> Result<i32> {
        let mut tx = self.begin(Lane::Work, LIMIT).await?;
        let row = tx.query(self.sql.get(LOCK)).bind(partition).fetch_optional(tx.conn()?).await;
        let Some(row) = row.map_err(translate)? else { return Err(no_partition(partition)) };
        let state = state(&row)?;
        let feed = state.feed.clone();
        let seen = self.probe(&mut tx, HashMap::from([(partition.to_owned(), (state, true))])).await?;
        let Some(seen) = seen.get(partition) else { return Err(no_partition(partition)) };
        let gate = by_hand(partition, &seen.state, &seen.probe)?;
        let raise = tx.query(self.sql.get(RAISE)).bind(partition).bind(gate);
        raise.execute(tx.conn()?).await.map_err(translate)?;
        self.notify(&mut tx, &[Hint::Due(feed)]).await?;
        tx.commit().await?;
        Ok(gate)
    }

    async fn find_item(&self, tx: &mut Tx, partition: &str, item: &str) -> Result<()> {
        let find = self.sql.get("SELECT 1 FROM {schema}.gatefeed_items WHERE partition_id = $1 AND id = $2");
        let found =
            tx.query(find).bind(partition).bind(item).fetch_optional(tx.conn()?).await.map_err(translate)?;
        found
            .map(|_| ())
            .ok_or_else(|| StoreError::NotFound(format!("partition {partition:?} has no item {item:?}")))
    }
}

pub(super) fn no_partition(partition: &str) -> StoreError {
    StoreError::NotFound(format!("partition {partition:?} does not exist"))
}

/// The functions' own refusals, without the prefix that marks them in psql.
fn spoken(error: sqlx::Error) -> StoreError {
    let plain = |message: String| message.trim_start_matches("gatefeed: ").to_owned();
    match translate(error) {
        StoreError::Data(message) => StoreError::Refused(plain(message)),
        StoreError::NotFound(message) => StoreError::NotFound(plain(message)),
        error => error,
    }
}
