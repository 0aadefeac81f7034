//! A database as a test sees it: through the store, and through plain SQL as a user would write it.

use std::sync::Arc;

use async_trait::async_trait;
use gatefeed_core::Store;

use crate::bucket::Bucket;

/// One namespace for one test, empty at first: a Postgres schema or a SQLite file. Tables are named without a
/// schema in SQL that goes through [`Db::execute`], [`Db::rows`] and [`OpenTx::execute`].
#[async_trait]
pub trait Db: Send + Sync + 'static {
    /// Whether this is Postgres; for the few cases that differ.
    fn is_postgres(&self) -> bool;

    /// The store under test.
    fn store(&self) -> Arc<dyn Store>;

    /// A second process's view of the same namespace: nothing is shared but the database.
    async fn another_store(&self) -> Arc<dyn Store>;

    /// As [`Db::another_store`], with data of more than `inline_max` bytes in this blob store.
    async fn store_with_blobs(&self, url: &str, inline_max: u64) -> Arc<dyn Store>;

    /// Where blobs are to lie; `None`: in a folder.
    fn bucket(&self) -> Option<Bucket> {
        None
    }

    /// A table or function with its schema, quoted.
    fn table(&self, name: &str) -> String;

    /// Runs a statement; returns the rows it touched, or the database's error as "CODE: message".
    async fn execute(&self, sql: &str) -> Result<u64, String>;

    /// Runs a query; values as the database writes them as text. Panics when the query fails.
    async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>>;

    /// Opens a transaction on a connection of its own.
    async fn begin(&self) -> Box<dyn OpenTx>;
}

/// An open transaction; dropped, it rolls back.
#[async_trait]
pub trait OpenTx: Send {
    /// Runs a statement in it; errors as from [`Db::execute`].
    async fn execute(&mut self, sql: &str) -> Result<u64, String>;

    /// Commits.
    async fn commit(self: Box<Self>) -> Result<(), String>;

    /// Rolls back.
    async fn rollback(self: Box<Self>);
}

impl dyn Db {
    /// Runs a statement that has to work.
    pub async fn run(&self, sql: &str) -> u64 {
        self.execute(sql).await.unwrap_or_else(|e| panic!("{sql}\nfailed with {e}"))
    }

    /// Runs a statement that has to be refused; returns the error.
    pub async fn refused(&self, sql: &str) -> String {
        match self.execute(sql).await {
            Ok(rows) => panic!("accepted, touching {rows} rows:\n{sql}"),
            Err(error) => error,
        }
    }

    /// The only value of the only row of a query.
    pub async fn value(&self, sql: &str) -> Option<String> {
        let rows = self.rows(sql).await;
        assert_eq!((rows.len(), rows.first().map(Vec::len)), (1, Some(1)), "{sql}");
        rows.into_iter().flatten().next().flatten()
    }

    /// The number that a query yields.
    pub async fn count(&self, sql: &str) -> i64 {
        let value = self.value(sql).await;
        value.as_deref().and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("{sql}\ngave {value:?}"))
    }

    /// Whether the partition's row meets an SQL condition.
    pub async fn partition_is(&self, id: &str, condition: &str) -> bool {
        let sql = format!("SELECT count(*) FROM gatefeed_partitions WHERE id = '{id}' AND ({condition})");
        self.count(&sql).await == 1
    }

    /// Whether the item's row meets an SQL condition.
    pub async fn item_is(&self, partition: &str, id: &str, condition: &str) -> bool {
        let row = format!("partition_id = '{partition}' AND id = '{id}'");
        self.count(&format!("SELECT count(*) FROM gatefeed_items WHERE {row} AND ({condition})")).await == 1
    }

    /// SQL for the database's clock plus this many seconds (minus, when negative).
    pub fn in_secs(&self, secs: f64) -> String {
        if self.is_postgres() {
            format!("(now() + interval '1 second' * ({secs}))")
        } else {
            format!("strftime('%Y-%m-%d %H:%M:%f', 'now', '{secs:+.3} seconds')")
        }
    }
}
