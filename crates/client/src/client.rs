//! The client: how it is opened, and how it pushes.

use std::sync::Arc;

use gatefeed_core::{Store, StoreError, store::Pushed};
use gatefeed_store::{Options, sqlite_path};

use crate::{error::Result, item::IntoItem, partition::Partition, push::Pusher};

/// A connection to gatefeed's tables. Cheap to clone; clones share their connections.
#[derive(Clone, Debug)]
pub struct Client {
    store: Arc<dyn Store>,
    schema: Option<Arc<str>>,
}

impl Client {
    /// Opens `sqlite://path` or `postgres://…` whose tables exist. Errs with `SchemaMissing`, `SchemaOlder` or
    /// `SchemaNewer`, which say what to do; a missing SQLite file is not made.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(url, &Options::default()).await
    }

    /// As [`connect`](Self::connect), with options: a Postgres schema of its own, for example.
    pub async fn connect_with(url: &str, options: &Options) -> Result<Self> {
        check_file(url)?;
        let client = Self::open(url, options).await?;
        client.store.check_schema().await?;
        Ok(client)
    }

    /// As [`connect_with`](Self::connect_with), and makes the tables or brings them to this version. Needs the
    /// right to make tables; a missing SQLite file is made.
    pub async fn connect_and_migrate(url: &str, options: &Options) -> Result<Self> {
        let client = Self::open(url, options).await?;
        client.store.migrate().await?;
        Ok(client)
    }

    /// Over a store that is open already. [`push_in`](Self::push_in) pushes into the schema `public`, unless
    /// [`in_schema`](Self::in_schema) names another.
    pub fn over(store: Arc<dyn Store>) -> Self {
        Self { store, schema: None }
    }

    /// The Postgres schema that [`push_in`](Self::push_in) pushes into; for a client made by [`over`](Self::over).
    pub fn in_schema(mut self, schema: impl AsRef<str>) -> Self {
        self.schema = Some(schema.as_ref().into());
        self
    }

    /// Pushes a partition with its items in one transaction. A partition that exists is left as it is, and so are
    /// items whose ids exist: a push whose end is unknown can simply be repeated. Without items it makes the
    /// partition.
    ///
    /// A cancelled partition takes no items ([`StoreError::Data`]).
    pub async fn push(&self, partition: &Partition) -> Result<Pushed> {
        self.begin(partition).await?.commit().await
    }

    /// Pushes a partition with its items, and these, in one transaction, however many there are: they are read
    /// and sent in turns, so that memory stays bounded. Items without an id get a fresh one at every call: give
    /// them ids if the call may be repeated.
    ///
    /// Errs with [`Error::Item`](crate::Error::Item) for an item that will not do; then nothing remains. Where two push
    /// thousands of the same ids at the same time in different orders, one can fail with [`StoreError::Conflict`],
    /// which is retryable.
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
    /// fetched; on SQLite that keeps every other writer out, so that there one fetches first.
    pub async fn begin(&self, partition: &Partition) -> Result<Pusher> {
        Pusher::begin(&*self.store, partition).await
    }

    /// The store below, for what this client does not offer.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    async fn open(url: &str, options: &Options) -> Result<Self> {
        let store = gatefeed_store::connect(url, options).await?;
        Ok(Self { store, schema: options.schema.as_deref().map(Into::into) })
    }
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
