//! A namespace of its own for each case, dropped afterwards.

use std::{future::Future, panic::resume_unwind, sync::Arc, time::Duration};

use gatefeed_api::{ApiOptions, new_token};
use gatefeed_client::{
    Client, Options, Pushed, Store,
    sqlx::{self, Executor, PgPool, SqlitePool, postgres::PgPoolOptions},
};
use gatefeed_core::token::Role;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::AbortHandle, time::timeout};

/// No case takes longer, on however slow a machine: what does hangs.
const CASE_MAX: Duration = Duration::from_secs(120);

/// No single thing that a case waits for takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A SQLite file or a Postgres schema, migrated.
pub(crate) struct Db {
    pub(crate) url: String,
    pub(crate) options: Options,
    pub(crate) client: Client,
    store: Arc<dyn Store>,
    server: Option<AbortOnDrop>,
    /// The application's own.
    pub(crate) pool: Pool,
    /// Goes last, with the file in it.
    _dir: Option<TempDir>,
}

/// A server's task.
pub(crate) struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(crate) enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

/// Runs one case and drops its schema, also after a panic.
pub(crate) async fn run<F>(db: Db, case: impl FnOnce(Arc<Db>) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let db = Arc::new(db);
    let ended = tokio::spawn(timeout(CASE_MAX, case(db.clone()))).await;
    db.drop_schema().await;
    match ended {
        Ok(ended) => assert!(ended.is_ok(), "not over after {CASE_MAX:?}"),
        Err(panic) => resume_unwind(panic.into_panic()),
    }
}

/// A database for tests, or what to do.
pub(crate) fn postgres_url() -> String {
    std::env::var("GATEFEED_TEST_POSTGRES_URL").unwrap_or_else(|_| {
        panic!(
            "GATEFEED_TEST_POSTGRES_URL is not set: run ./scripts/test, which starts a Postgres for the tests"
        )
    })
}

/// What a push did.
pub(crate) fn pushed(created: bool, added: u64, existing: u64) -> Pushed {
    Pushed { created, added, existing }
}

impl Db {
    pub(crate) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("gatefeed.db").display());
        let options = Options::default();
        let client = Client::connect_and_migrate(&url, &options).await.unwrap();
        let pool = Pool::Sqlite(SqlitePool::connect(&url).await.unwrap());
        let store = client.store().unwrap().clone();
        Self { url, options, client, store, server: None, pool, _dir: Some(dir) }
    }

    /// In a schema that is not on anybody's search_path, with a name that needs its quotes.
    pub(crate) async fn postgres() -> Self {
        let url = postgres_url();
        let schema = format!("Client-{}", uuid::Uuid::new_v4().simple());
        let options = Options { schema: Some(schema), ..Options::default() };
        let client = Client::connect_and_migrate(&url, &options).await.unwrap();
        let pool = PgPoolOptions::new().max_connections(4).connect(&url).await.unwrap();
        let store = client.store().unwrap().clone();
        Self { url, options, client, store, server: None, pool: Pool::Postgres(pool), _dir: None }
    }

    /// The same, with a client that speaks HTTP to an API before it.
    pub(crate) async fn over_http(self) -> Self {
        let (client, _, server) = self.api().await;
        Self { client, server: Some(server), ..self }
    }

    /// An API before it, a client with a token for all of it, and the API's URL.
    pub(crate) async fn api(&self) -> (Client, String, AbortOnDrop) {
        let (secret, token) = new_token(Role::Operate, None, None, None);
        self.store.add_token(&token).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = gatefeed_api::api(self.store(), ApiOptions::default());
        let server = tokio::spawn(gatefeed_api::serve(listener, router, std::future::pending()));
        let client = Client::http(&url).token(secret).build().unwrap();
        (client, url, AbortOnDrop(server.abort_handle()))
    }

    /// The store, whatever the client is.
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// Another client of the same tables.
    pub(crate) async fn another(&self) -> Client {
        Client::connect_with(&self.url, &self.options).await.unwrap()
    }

    /// A table's name with its schema.
    pub(crate) fn table(&self, name: &str) -> String {
        self.options.schema.as_ref().map_or_else(|| name.to_owned(), |schema| format!("{schema:?}.{name}"))
    }

    pub(crate) async fn execute(&self, sql: &str) {
        match &self.pool {
            Pool::Postgres(pool) => drop(pool.execute(sql).await.unwrap()),
            Pool::Sqlite(pool) => drop(pool.execute(sql).await.unwrap()),
        }
    }

    /// Rows of a table.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {}", self.table(table));
        match &self.pool {
            Pool::Postgres(pool) => sqlx::query_scalar(&sql).fetch_one(pool).await.unwrap(),
            Pool::Sqlite(pool) => sqlx::query_scalar(&sql).fetch_one(pool).await.unwrap(),
        }
    }

    /// Sets a partition's status, as an operator might by hand.
    pub(crate) async fn set_status(&self, partition: &str, status: &str) {
        let table = self.table("gatefeed_partitions");
        self.execute(&format!("UPDATE {table} SET status = '{status}' WHERE id = '{partition}'")).await;
    }

    async fn drop_schema(&self) {
        if let Some(server) = &self.server {
            server.0.abort();
        }
        if let Some(schema) = &self.options.schema {
            self.execute(&format!("DROP SCHEMA {schema:?} CASCADE")).await;
        }
    }
}
