//! The conformance suite on Postgres: a schema of its own for each test, in the database of
//! GATEFEED_TEST_POSTGRES_URL.

#![allow(clippy::unwrap_used, reason = "tests state what they expect by unwrapping")]

use std::sync::Arc;

use async_trait::async_trait;
use gatefeed_core::Store;
use gatefeed_store::{BlobOptions, Options, connect};
use gatefeed_testkit::{Db, OpenTx};
use sqlx::{
    Connection, Executor, PgConnection, PgPool, Row, ValueRef,
    postgres::{PgConnectOptions, PgPoolOptions, PgRow},
};

gatefeed_testkit::conformance!(make_db);
#[cfg(feature = "s3")]
gatefeed_testkit::bucket_conformance!(make_db);

struct PostgresDb {
    url: String,
    schema: String,
    user: PgConnectOptions,
    pool: PgPool,
    store: Arc<dyn Store>,
}

async fn make_db() -> Arc<dyn Db> {
    let Ok(url) = std::env::var("GATEFEED_TEST_POSTGRES_URL") else {
        panic!(
            "GATEFEED_TEST_POSTGRES_URL is not set: run ./scripts/test, which starts a Postgres for the tests"
        )
    };
    // A name that needs its quotes.
    let schema = format!("Test-{}", uuid::Uuid::new_v4().simple());
    // A user may name tables without their schema; what the store does must not rely on it.
    let user: PgConnectOptions = url.parse().unwrap();
    let user = user.options([("search_path", format!("\"{schema}\""))]);
    let pool = PgPoolOptions::new().max_connections(8).connect_lazy_with(user.clone());
    let store = open(&url, &schema).await;
    Arc::new(PostgresDb { url, schema, user, pool, store })
}

async fn open(url: &str, schema: &str) -> Arc<dyn Store> {
    connect(url, &Options { schema: Some(schema.to_owned()), ..Options::default() }).await.unwrap()
}

fn error_text(error: sqlx::Error) -> String {
    let code = error.as_database_error().and_then(|e| e.code()).unwrap_or_default().into_owned();
    format!("{code}: {error}")
}

/// The simple query protocol, which plain text without parameters takes, answers in text.
fn texts(row: &PgRow) -> Vec<Option<String>> {
    let text = |i| {
        let value = row.try_get_raw(i).unwrap();
        if value.is_null() { None } else { Some(value.as_str().unwrap().to_owned()) }
    };
    (0..row.len()).map(text).collect()
}

#[async_trait]
impl Db for PostgresDb {
    fn is_postgres(&self) -> bool {
        true
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    async fn another_store(&self) -> Arc<dyn Store> {
        open(&self.url, &self.schema).await
    }

    async fn store_with_blobs(&self, url: &str, inline_max: u64) -> Arc<dyn Store> {
        let blobs = Some(BlobOptions { url: url.to_owned(), inline_max });
        let options = Options { schema: Some(self.schema.clone()), blobs, ..Options::default() };
        connect(&self.url, &options).await.unwrap()
    }

    fn table(&self, name: &str) -> String {
        format!("\"{}\".{name}", self.schema)
    }

    async fn execute(&self, sql: &str) -> Result<u64, String> {
        let mut connection = self.pool.acquire().await.map_err(error_text)?;
        let done = connection.execute(sql).await;
        if done.is_err() {
            // Postgres says so before it gives back the locks; what follows must not be skipped for them.
            connection.execute("SELECT 1").await.ok();
        }
        Ok(done.map_err(error_text)?.rows_affected())
    }

    async fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        let rows = self.pool.fetch_all(sql).await.unwrap_or_else(|e| panic!("{sql}\nfailed with {e}"));
        rows.iter().map(texts).collect()
    }

    async fn begin(&self) -> Box<dyn OpenTx> {
        let mut connection = PgConnection::connect_with(&self.user).await.unwrap();
        connection.execute("BEGIN").await.unwrap();
        Box::new(PostgresTx(connection))
    }
}

struct PostgresTx(PgConnection);

#[async_trait]
impl OpenTx for PostgresTx {
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
