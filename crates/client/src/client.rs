//! The client: how it is opened, and how it pushes.

use std::sync::Arc;

use gatefeed_core::{Store, StoreError, store::Pushed};
use gatefeed_store::{Options, sqlite_path};

use crate::{
    backend::{Backend, Direct},
    error::Result,
    http::{HttpBuilder, Remote},
    item::IntoItem,
    partition::Partition,
    push::Pusher,
};

/// A connection to gatefeed's tables, or to its API. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    backend: Arc<dyn Backend>,
    /// `None`: it speaks HTTP.
    store: Option<Arc<dyn Store>>,
    schema: Option<Arc<str>>,
}

impl Client {
    /// Opens `sqlite://path` or `postgres://…` whose tables exist. Errs with `SchemaMissing`, `SchemaOlder` or
    /// `SchemaNewer`, which say what to do; a missing SQLite file is not made. `http://…` is [`http`](Self::http) without
    /// a token.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(url, &Options::default()).await
    }

    /// As [`connect`](Self::connect), with options: a Postgres schema of its own, for example.
    pub async fn connect_with(url: &str, options: &Options) -> Result<Self> {
        if is_http(url) {
            return Self::http(url).build();
        }
        check_file(url)?;
        let client = Self::open(url, options).await?;
        client.database()?.check_schema().await?;
        Ok(client)
    }

    /// As [`connect_with`](Self::connect_with), and makes the tables or brings them to this version. Needs the
    /// right to make tables; a missing SQLite file is made.
    pub async fn connect_and_migrate(url: &str, options: &Options) -> Result<Self> {
        let client = Self::open(url, options).await?;
        client.database()?.migrate().await?;
        Ok(client)
    }

    /// Over a store that is open already. [`push_in`](Self::push_in) pushes into the schema `public`, unless
    /// [`in_schema`](Self::in_schema) names another.
    pub fn over(store: Arc<dyn Store>) -> Self {
        Self { backend: Arc::new(Direct(store.clone())), store: Some(store), schema: None }
    }

    /// Over the API of `gatefeed serve` or `gatefeed run --listen`, for services that must not reach the database: the same
    /// calls and types, but for [`push_in`](Self::push_in). Nothing is asked before the first call.
    ///
    /// ```
    /// # use gatefeed_client::Client;
    /// # fn main() -> gatefeed_client::Result<()> {
    /// let client = Client::http("http://gatefeed.internal:8080").token("gf_…").build()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn http(url: impl Into<String>) -> HttpBuilder {
        HttpBuilder::new(url.into())
    }

    pub(crate) fn over_http(remote: Remote) -> Self {
        Self { backend: Arc::new(Arc::new(remote)), store: None, schema: None }
    }

    /// The Postgres schema that [`push_in`](Self::push_in) pushes into; for a client made by [`over`](Self::over).
    pub fn in_schema(mut self, schema: impl AsRef<str>) -> Self {
        self.schema = Some(schema.as_ref().into());
        self
    }

    /// Pushes a partition with its items in one transaction. A partition that exists is left as it is, and so are
    /// items whose ids exist: a push whose end is unknown can simply be repeated. Without items it makes the
    /// partition. For items that are all in memory.
    ///
    /// Any number of these may run at once, also with the same ids. Where one meets an id that another push has added
    /// and not committed yet, it gives way and is repeated; those of more than 2,000 items go one after another.
    /// [`StoreError::Locked`], which is retryable, says that the other one was still open after a minute.
    ///
    /// A cancelled partition takes no items ([`StoreError::Cancelled`]).
    pub async fn push(&self, partition: &Partition) -> Result<Pushed> {
        Ok(self.backend.push(partition.row(), partition.in_order()).await?)
    }

    /// Pushes a partition with its items, and these, in one transaction, however many there are: they are read
    /// and sent in turns, so that memory stays bounded. Items without an id get a fresh one at every call: give
    /// them ids if the call may be repeated.
    ///
    /// Errs with [`Error::Item`](crate::Error::Item) for an item that will not do; then nothing remains. As with
    /// [`begin`](Self::begin), pushes of this kind into one partition go one after another; those into different
    /// ones run at once.
    ///
    /// Over HTTP all of it is one request, which is held in memory: 64 MiB of data at the most.
    pub async fn push_many(
        &self,
        partition: &Partition,
        items: impl IntoIterator<Item: IntoItem>,
    ) -> Result<Pushed> {
        let mut pusher = self.begin(partition).await?;
        for item in items {
            pusher.add(item).await?;
        }
        pusher.commit().await
    }

    /// Begins a push whose items come bit by bit, as one transaction. It may stay open while the next items are
    /// fetched, for minutes on Postgres; on SQLite that keeps every other writer out, so that there one fetches first.
    ///
    /// On Postgres a partition has one such push at a time, so that two with the same ids never wait for each other
    /// in a circle: this waits until those that were begun before have ended, and errs with [`StoreError::Locked`],
    /// which is retryable, when that takes a minute. A [`push`](Self::push) runs beside it, and waits where it has
    /// the same ids or where the partition is not committed yet. Whoever has one open
    /// must not wait for another one into the same partition: end the first one before.
    ///
    /// Writers that stand outside of this, plain INSERTs and [`push_in`](Self::push_in), can still meet it with the
    /// same ids in another order; then the database ends one of the two with [`StoreError::Conflict`], which is
    /// retryable.
    pub async fn begin(&self, partition: &Partition) -> Result<Pusher> {
        Pusher::begin(&*self.backend, partition).await
    }

    /// The store below, for what this client does not offer; `None`: it speaks HTTP.
    pub fn store(&self) -> Option<&Arc<dyn Store>> {
        self.store.as_ref()
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// For what takes a connection to the database.
    pub(crate) fn database(&self) -> Result<&Arc<dyn Store>> {
        let why = "this client speaks HTTP, and that takes a connection to the database: Client::connect(\"postgres://…\")";
        Ok(self.store.as_ref().ok_or_else(|| StoreError::Config(why.into()))?)
    }

    pub(crate) fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    async fn open(url: &str, options: &Options) -> Result<Self> {
        let client = Self::over(gatefeed_store::connect(url, options).await?);
        Ok(Self { schema: options.schema.as_deref().map(Into::into), ..client })
    }
}

fn is_http(url: &str) -> bool {
    ["http://", "https://"].iter().any(|scheme| url.starts_with(scheme))
}

/// An application that mistyped a path should hear of it, not find an empty queue.
fn check_file(url: &str) -> Result<()> {
    match sqlite_path(url) {
        Some(path) if !path.exists() => Err(StoreError::Config(format!(
            "there is no database {}: run `gatefeed migrate`, or open it with Client::connect_and_migrate",
            path.display()
        ))
        .into()),
        _ => Ok(()),
    }
}
