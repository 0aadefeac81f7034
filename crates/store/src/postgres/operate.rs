//! What operators do. The SQL functions of the schema do the work, so that psql and the command line agree.

use std::time::Duration;

use gatefeed_core::{
    Result, StoreError,
    store::{RetryFilter, Rewound},
};
use sqlx::{Row, postgres::PgRow};

use super::{
    Postgres,
    error::translate,
    pool::{Lane, Tx},
};

const LIMIT: Duration = Duration::from_secs(60);

/// For what changes many items of a partition at once.
const WHOLE_LIMIT: Duration = Duration::from_secs(600);

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
        self.call("SELECT {schema}.gatefeed_seal($1)", partition, LIMIT).await.map(|_| ())
    }

    pub(super) async fn raise_gate(&self, partition: &str) -> Result<i32> {
        let row = self.call("SELECT {schema}.gatefeed_advance($1)", partition, LIMIT).await?;
        Ok(row.get(0))
    }

    pub(super) async fn set_aside(&self, partition: &str) -> Result<()> {
        self.call("SELECT {schema}.gatefeed_pause($1)", partition, LIMIT).await.map(|_| ())
    }

    pub(super) async fn take_up(&self, partition: &str) -> Result<()> {
        self.call("SELECT {schema}.gatefeed_resume($1)", partition, LIMIT).await.map(|_| ())
    }

    pub(super) async fn end(&self, partition: &str) -> Result<u64> {
        let row = self.call("SELECT {schema}.gatefeed_cancel($1)", partition, WHOLE_LIMIT).await?;
        self.wake_parents().await;
        Ok(row.get::<i64, _>(0).unsigned_abs())
    }

    pub(super) async fn go_back(&self, partition: &str, gate: i32) -> Result<Rewound> {
        let mut tx = self.begin(Lane::Work, WHOLE_LIMIT).await?;
        let call = tx.query(self.sql.get("SELECT items, removed FROM {schema}.gatefeed_rewind($1, $2)"));
        let row = call.bind(partition).bind(gate).fetch_one(tx.conn()?).await.map_err(spoken)?;
        tx.commit().await?;
        let count = |column| row.get::<i64, _>(column).unsigned_abs();
        Ok(Rewound { items: count("items"), removed: count("removed") })
    }

    /// Calls a function that takes the partition only.
    async fn call(&self, sql: &'static str, partition: &str, limit: Duration) -> Result<PgRow> {
        let mut tx = self.begin(Lane::Work, limit).await?;
        let call = tx.query(self.sql.get(sql)).bind(partition);
        let row = call.fetch_one(tx.conn()?).await.map_err(spoken)?;
        tx.commit().await?;
        Ok(row)
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
