//! What operators do. The SQL functions of the schema do the work, so that psql and the command line agree.

use std::time::Duration;

use gatefeed_core::{
    Result, StoreError,
    acting::{self, Acted, Action},
    store::RetryFilter,
};
use sqlx::Row;

use super::{
    Postgres,
    error::translate,
    pool::{Lane, Tx},
};

const LIMIT: Duration = Duration::from_secs(60);

/// For what changes many items of a partition at once.
const WHOLE_LIMIT: Duration = Duration::from_secs(600);

/// For one lock: an action that waits for longer than this is told so, and others get its connection.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The lock that all functions begin with.
const LOCK: &str = "SELECT version FROM {schema}.gatefeed_partitions WHERE id = $1 FOR NO KEY UPDATE";

/// The function of the schema that does it.
fn function(action: &Action) -> &'static str {
    match action {
        Action::Retry(_) => "SELECT {schema}.gatefeed_retry($1, $2, $3) AS items",
        Action::Seal => "SELECT {schema}.gatefeed_seal($1)",
        Action::Advance => "SELECT {schema}.gatefeed_advance($1) AS gate",
        Action::Pause => "SELECT {schema}.gatefeed_pause($1)",
        Action::Resume => "SELECT {schema}.gatefeed_resume($1)",
        Action::Cancel => "SELECT {schema}.gatefeed_cancel($1) AS items",
        Action::Rewind(_) => "SELECT items, removed FROM {schema}.gatefeed_rewind($1, $2)",
    }
}

impl Postgres {
    pub(super) async fn operate(
        &self,
        partition: &str,
        version: Option<i64>,
        action: &Action,
    ) -> Result<Acted> {
        let limit = match action {
            Action::Cancel | Action::Rewind(_) => WHOLE_LIMIT,
            _ => LIMIT,
        };
        let mut tx = self.begin_for(partition, Lane::Act, limit, LOCK_WAIT).await?;
        if version.is_some() {
            self.check_version_of(&mut tx, partition, version).await?;
        }
        let acted = self.act_in(&mut tx, partition, action).await?;
        tx.commit().await?;
        if matches!(action, Action::Cancel) {
            self.wake_parents().await;
        }
        Ok(acted)
    }

    /// Errs unless the partition is at this version, and keeps it there.
    async fn check_version_of(&self, tx: &mut Tx, partition: &str, version: Option<i64>) -> Result<()> {
        let lock = tx.query(self.sql.get(LOCK)).bind(partition);
        let row = lock.fetch_optional(tx.conn()?).await.map_err(translate)?;
        let row = row.ok_or_else(|| no_partition(partition))?;
        acting::check_version(partition, row.get(0), version)
    }

    async fn act_in(&self, tx: &mut Tx, partition: &str, action: &Action) -> Result<Acted> {
        if let Action::Retry(RetryFilter { item: Some(item), .. }) = action {
            self.find_item(tx, partition, item).await?;
        }
        let query = tx.query(self.sql.get(function(action))).bind(partition);
        let query = match action {
            Action::Retry(filter) => query.bind(&filter.item).bind(filter.gate),
            Action::Rewind(gate) => query.bind(*gate),
            _ => query,
        };
        let row = query.fetch_one(tx.conn()?).await.map_err(spoken)?;
        let count = |column| row.get::<i64, _>(column).unsigned_abs();
        Ok(match action {
            Action::Retry(_) | Action::Cancel => Acted { items: count("items"), ..Acted::default() },
            Action::Advance => Acted { gate: row.get("gate"), ..Acted::default() },
            Action::Rewind(_) => {
                Acted { items: count("items"), removed: count("removed"), ..Acted::default() }
            }
            Action::Seal | Action::Pause | Action::Resume => Acted::default(),
        })
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
