//! The conformance suite on SQLite: a file of its own for each test.

#![allow(clippy::unwrap_used, reason = "tests state what they expect by unwrapping")]

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use gatefeed_core::Store;
use gatefeed_store::{BlobOptions, Options, connect};
use gatefeed_testkit::{Db, OpenTx};
use sqlx::{
    Connection, Executor, Row, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteRow},
};
use tempfile::TempDir;

gatefeed_testkit::conformance!(make_db);
#[cfg(feature = "s3")]
gatefeed_testkit::bucket_conformance!(make_db);

struct SqliteDb {
    url: String,
    user: SqliteConnectOptions,
    pool: SqlitePool,
    store: Arc<dyn Store>,
    /// Goes last, with the file in it.
    _dir: TempDir,
}

async fn make_db() -> Arc<dyn Db> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gatefeed.db");
    let url = format!("sqlite://{}", path.display());
    let store = open(&url).await;
    // As in sqlite3's own shell: no foreign keys. It waits for the lock, though, as a program would.
    let user = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .foreign_keys(false)
        .busy_timeout(Duration::from_secs(60));
    let pool = SqlitePoolOptions::new().max_connections(4).connect_lazy_with(user.clone());
    Arc::new(SqliteDb { url, user, pool, store, _dir: dir })
}

async fn open(url: &str) -> Arc<dyn Store> {
    connect(url, &Options::default()).await.unwrap()
}

fn error_text(error: sqlx::Error) -> String {
    let code = error.as_database_error().and_then(|e| e.code()).unwrap_or_default().into_owned();
    format!("{code}: {error}")
}

/// SQLite writes any value as text when it is asked to.
fn texts(row: &SqliteRow) -> Vec<Option<String>> {
    (0..row.len()).map(|i| row.try_get_unchecked(i).unwrap()).collect()
}

#[async_trait]
impl Db for SqliteDb {
    fn is_postgres(&self) -> bool {
        false
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn another_store(&self) -> Arc<dyn Store> {
        open(&self.url).await
    }

    async fn store_with_blobs(&self, url: &str, inline_max: u64) -> Arc<dyn Store> {
        let blobs = Some(BlobOptions { url: url.to_owned(), inline_max });
        let options = Options { blobs, ..Options::default() };
        connect(&self.url, &options).await.unwrap()
    }

    fn table(&self, name: &str) -> String {
        name.to_owned()
    }

    async fn execute(&self, sql: &str) -> Result<u64, String> {
        Ok(self.pool.execute(sql).await.map_err(error_text)?.rows_affected())
    }

    async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let rows = self.pool.fetch_all(sql).await.unwrap_or_else(|e| panic!("{sql}\nfailed with {e}"));
        rows.iter().map(texts).collect()
    }

    async fn begin(&self) -> Box<dyn OpenTx> {
        let mut connection = SqliteConnection::connect_with(&self.user).await.unwrap();
        connection.execute("BEGIN").await.unwrap();
        Box::new(SqliteTx(connection))
    }
}

struct SqliteTx(SqliteConnection);

#[async_trait]
impl OpenTx for SqliteTx {
    async fn execute(&mut self, sql: &str) -> Result<u64, String> {
        Ok(self.0.execute(sql).await.map_err(error_text)?.rows_affected())
    }

    async fn commit(mut self: Box<Self>) -> Result<(), String> {
        self.0.execute("COMMIT").await.map_err(error_text)?;
        self.0.close().await.map_err(error_text)
    }

    async fn rollback(mut self: Box<Self>) {
        self.0.execute("ROLLBACK").await.unwrap();
        self.0.close().await.unwrap();
    }
}
