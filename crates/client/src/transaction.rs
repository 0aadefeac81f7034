//! Pushing inside a transaction that the caller has open.

use gatefeed_core::{item::NewItem, partition::NewPartition, store::Pushed};
use gatefeed_store::{push_into_postgres, push_into_sqlite};
use sqlx::{PgConnection, SqliteConnection};

use crate::{client::Client, error::Result, partition::Partition};

mod sealed {
    pub trait Sealed {}
    impl Sealed for sqlx::PgConnection {}
    impl Sealed for sqlx::SqliteConnection {}
}

/// A connection of the application's own: sqlx's for Postgres or SQLite, to which its transactions and pooled
/// connections dereference.
pub trait Connection: sealed::Sealed + Send {
    #[doc(hidden)]
    fn push(
        &mut self,
        schema: Option<&str>,
        partition: &NewPartition,
        items: &[NewItem],
    ) -> impl Future<Output = gatefeed_core::Result<Pushed>> + Send;
}

impl Connection for PgConnection {
    async fn push(
        &mut self,
        schema: Option<&str>,
        partition: &NewPartition,
        items: &[NewItem],
    ) -> gatefeed_core::Result<Pushed> {
        push_into_postgres(self, schema, partition, items).await
    }
}

impl Connection for SqliteConnection {
    /// A SQLite file is its own namespace.
    async fn push(
        &mut self,
        _schema: Option<&str>,
        partition: &NewPartition,
        items: &[NewItem],
    ) -> gatefeed_core::Result<Pushed> {
        push_into_sqlite(self, partition, items).await
    }
}

impl Client {
    /// Pushes inside a transaction that the caller has open, on Postgres or SQLite: with its commit the items are there
    /// and watchers are woken, with its rollback nothing remains. The application's own rows and the work that they
    /// ask for are committed together.
    ///
    /// On Postgres it pushes into this client's schema, whatever `search_path` says. It waits for whoever has added one
    /// of the ids and not committed yet, as long as the transaction waits for locks. It can fail with `Conflict` in
    /// REPEATABLE READ and stricter, as any write there can, and where others add the same ids in another order.
    /// After an error roll back: on Postgres the transaction is
    /// aborted and takes no more statements; on SQLite it stays open without what this push had added.
    ///
    /// A client that speaks HTTP errs with `Config`: this takes a connection to the database.
    ///
    /// Large data goes to the client's blob store, if it has one, before this returns; the transaction has to end within
    /// the grace of those who collect garbage there.
    ///
    /// Begin a SQLite transaction with `begin_with("BEGIN IMMEDIATE")`: one that has read before it writes can find
    /// that another writer was faster.
    ///
    /// ```
    /// # use gatefeed_client::{Client, Options, Partition, sqlx};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let url = format!("sqlite://{}", dir.path().join("gatefeed.db").display());
    /// # let client = Client::connect_and_migrate(&url, &Options::default()).await?;
    /// // The application's own pool, on the same database.
    /// let pool = sqlx::SqlitePool::connect(&url).await?;
    /// # sqlx::query("CREATE TABLE orders (id TEXT)").execute(&pool).await?;
    /// let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    /// sqlx::query("INSERT INTO orders (id) VALUES ('o-7')").execute(&mut *tx).await?;
    /// client.push_in(&mut *tx, &Partition::builder("order-o-7").item("send the invoice").build()?).await?;
    /// tx.commit().await?;
    /// # assert_eq!(client.partition("order-o-7").await?.items.available, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn push_in(&self, connection: &mut impl Connection, partition: &Partition) -> Result<Pushed> {
        let mut items = partition.in_order();
        let data = items.iter().map(|item| item.data.clone()).collect();
        let stored = self.database()?.offload(data).await?;
        items.iter_mut().zip(stored).for_each(|(item, data)| item.data = data);
        Ok(connection.push(self.schema(), partition.row(), &items).await?)
    }
}
