//! The tables that are measured, filled by plain SQL.

use std::sync::Arc;

use gatefeed_core::Store;
use gatefeed_store::{Options, connect};
use sqlx::{Connection, Executor, PgConnection, SqliteConnection};
use tempfile::TempDir;

/// A schema or a file of its own.
pub(crate) struct Tables {
    pub(crate) store: Arc<dyn Store>,
    by_hand: Hand,
    /// Goes last, with the file in it.
    _dir: Option<TempDir>,
}

enum Hand {
    Postgres(PgConnection, String),
    Sqlite(SqliteConnection),
}

impl Tables {
    pub(crate) async fn postgres(url: &str) -> Self {
        let schema = format!("gatefeed_bench_flat_{}", std::process::id());
        let mut hand = PgConnection::connect(url).await.unwrap();
        hand.execute(format!("CREATE SCHEMA {schema}").as_str()).await.unwrap();
        hand.execute(format!("SET search_path = {schema}").as_str()).await.unwrap();
        let options = Options { schema: Some(schema.clone()), ..Options::default() };
        Self { store: migrated(url, &options).await, by_hand: Hand::Postgres(hand, schema), _dir: None }
    }

    pub(crate) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("gatefeed.db").display());
        let store = migrated(&url, &Options::default()).await;
        let hand = SqliteConnection::connect(&url).await.unwrap();
        Self { store, by_hand: Hand::Sqlite(hand), _dir: Some(dir) }
    }

    /// So many items of 100 bytes of one partition, which is made.
    pub(crate) async fn items(&mut self, partition: &str, items: usize, priority: i32, is_delayed: bool) {
        self.run(&format!(
            "INSERT INTO gatefeed_partitions (id) VALUES ('{partition}') ON CONFLICT DO NOTHING"
        ))
        .await;
        let (rows, data, later) = match &self.by_hand {
            Hand::Postgres(..) => (
                format!("generate_series(1, {items}) AS n (n)"),
                "convert_to('{\"text\": \"' || repeat('x', 85) || '\"}', 'UTF8')",
                "now() + interval '1 hour' + n * interval '1 ms'",
            ),
            Hand::Sqlite(_) => (
                format!(
                    "(WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {items}) SELECT n FROM n WHERE n <= {items})"
                ),
                "'{\"text\": \"' || replace(hex(zeroblob(43)), '0', 'x') || '\"}'",
                "strftime('%Y-%m-%d %H:%M:%f', 'now', '+1 hour')",
            ),
        };
        let at = if is_delayed { later } else { "CURRENT_TIMESTAMP" };
        self.run(&format!(
            "INSERT INTO gatefeed_items (partition_id, id, priority, available_at, data)
             SELECT '{partition}', 'i{priority}-' || n, {priority}, {at}, {data} FROM {rows}"
        ))
        .await;
    }

    /// All are complete but the last ones.
    pub(crate) async fn finish_all_but(&mut self, partition: &str, rest: usize) {
        self.run(&format!(
            "UPDATE gatefeed_items SET status = 'complete' WHERE partition_id = '{partition}' AND id NOT IN (
                SELECT id FROM gatefeed_items WHERE partition_id = '{partition}' ORDER BY available_at DESC, id DESC
                LIMIT {rest})"
        ))
        .await;
        // As autovacuum does.
        match &self.by_hand {
            Hand::Postgres(..) => self.run("VACUUM ANALYZE gatefeed_items").await,
            Hand::Sqlite(_) => {}
        }
    }

    /// So many partitions with one item each.
    pub(crate) async fn partitions(&mut self, partitions: usize) {
        let rows = match &self.by_hand {
            Hand::Postgres(..) => format!("generate_series(1, {partitions}) AS n (n)"),
            Hand::Sqlite(_) => format!(
                "(WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {partitions}) SELECT n FROM n)"
            ),
        };
        self.run(&format!("INSERT INTO gatefeed_partitions (id) SELECT 'p' || n FROM {rows}")).await;
        self.run("INSERT INTO gatefeed_items (partition_id, id, data) SELECT id, 'i', '1' FROM gatefeed_partitions").await;
    }

    /// Empty again.
    pub(crate) async fn clear(&mut self) {
        match &self.by_hand {
            Hand::Postgres(..) => self.run("TRUNCATE gatefeed_items, gatefeed_partitions").await,
            Hand::Sqlite(_) => {
                self.run("DELETE FROM gatefeed_items").await;
                self.run("DELETE FROM gatefeed_partitions").await;
            }
        }
    }

    /// Removes what was made.
    pub(crate) async fn drop(mut self) {
        self.store.close().await;
        if let Hand::Postgres(_, schema) = &self.by_hand {
            self.run(&format!("DROP SCHEMA {} CASCADE", schema.clone())).await;
        }
    }

    async fn run(&mut self, sql: &str) {
        match &mut self.by_hand {
            Hand::Postgres(hand, _) => hand.execute(sql).await.map(|_| ()),
            Hand::Sqlite(hand) => hand.execute(sql).await.map(|_| ()),
        }
        .unwrap();
    }
}

async fn migrated(url: &str, options: &Options) -> Arc<dyn Store> {
    let store = connect(url, options).await.unwrap();
    store.migrate().await.unwrap();
    store
}
