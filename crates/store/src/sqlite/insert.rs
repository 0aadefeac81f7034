//! Adding partitions and items: for `push`, in a caller's own transaction, and for the children of an answer.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use gatefeed_core::{
    StoreError,
    item::NewItem,
    partition::{NewPartition, elsewhere},
    store::{Push, Pushed},
};
use sqlx::{Row, SqliteConnection, query::Query, sqlite::SqliteArguments};

use super::{
    Sqlite,
    dependencies::{Edges, insert_rich},
    error::Result,
    pool::{Tx, run},
    rows::{now, of_moment},
    values::{chunks, rows_of, values},
};

/// Not OR IGNORE, here and below: that would swallow what a CHECK refuses.
pub(super) const PARTITION: &str = "INSERT INTO gatefeed_partitions
    (id, feed, priority, manual_checkpoint, auto_close, max_in_flight, failure_policy, gate_deadline_seconds, keep_history)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING";

/// Makes a partition if it is missing; returns whether it was.
async fn make_partition(connection: &mut SqliteConnection, partition: &NewPartition) -> Result<bool> {
    let query = sqlx::query(PARTITION).bind(&partition.id).bind(&partition.feed).bind(partition.priority);
    let query =
        query.bind(partition.manual_checkpoint).bind(partition.auto_close).bind(partition.max_in_flight);
    let query = query.bind(partition.failure_policy.to_string());
    let query = query.bind(partition.gate_deadline_seconds()?).bind(partition.keep_history);
    let made = query.execute(&mut *connection).await?.rows_affected() == 1;
    if !made && partition.own_feed_only {
        check_feed(connection, &partition.id, &partition.feed).await?;
    }
    Ok(made)
}

/// Errs where a partition exists in another feed: to its caller there is none.
pub(super) async fn check_feed(connection: &mut SqliteConnection, partition: &str, feed: &str) -> Result<()> {
    let find =
        sqlx::query("SELECT feed <> ?2 FROM gatefeed_partitions WHERE id = ?1").bind(partition).bind(feed);
    match find.fetch_optional(connection).await?.map(|row| row.try_get(0)).transpose()? {
        Some(true) => Err(elsewhere(partition).into()),
        Some(false) | None => Ok(()),
    }
}

/// Makes the partitions that are missing, each in the feed it comes with.
pub(super) async fn make_partitions(
    connection: &mut SqliteConnection,
    partitions: BTreeMap<&str, &str>,
) -> Result<()> {
    let partitions: Vec<(&str, &str)> = partitions.into_iter().collect();
    for chunk in chunks(&partitions) {
        let rows = values(chunk.len(), 2);
        let sql = format!("INSERT INTO gatefeed_partitions (id, feed) {rows} ON CONFLICT (id) DO NOTHING");
        let mut query = sqlx::query(&sql);
        for (id, feed) in chunk {
            query = query.bind(*id).bind(*feed);
        }
        query.execute(&mut *connection).await?;
    }
    Ok(())
}

/// Adds items whose ids do not exist yet, with what they depend on; returns how many.
pub(super) async fn insert_whole(connection: &mut SqliteConnection, items: &[&NewItem]) -> Result<u64> {
    let mut edges = Edges::default();
    let added = insert_items(connection, items, &mut edges).await?;
    edges.insert(connection).await?;
    Ok(added)
}

/// Adds items whose ids do not exist yet; what they depend on may come later: it is put to `edges`.
async fn insert_items(
    connection: &mut SqliteConnection,
    items: &[&NewItem],
    edges: &mut Edges,
) -> Result<u64> {
    if items.iter().copied().all(is_plain) {
        return insert_plain(connection, items).await;
    }
    let (plain, rich): (Vec<&NewItem>, Vec<&NewItem>) =
        items.iter().copied().partition(|item| is_plain(item));
    Ok(insert_plain(connection, &plain).await? + insert_rich(connection, &rich, edges).await?)
}

/// Whether it waits for nothing and asks for nothing, as most items do.
fn is_plain(item: &NewItem) -> bool {
    item.dependencies.is_empty() && item.gather.is_none()
}

async fn insert_plain(connection: &mut SqliteConnection, items: &[&NewItem]) -> Result<u64> {
    let mut added = 0;
    for chunk in chunks(items) {
        let sql = items_sql(chunk.len());
        let mut query = sqlx::query(&sql);
        for item in chunk {
            query = bind_item(query, item)?;
        }
        added += query.execute(&mut *connection).await?.rows_affected();
    }
    Ok(added)
}

type Insert<'q> = Query<'q, sqlx::Sqlite, SqliteArguments<'q>>;

/// What every insert of an item takes, in this order.
pub(super) fn bind_item<'q>(query: Insert<'q>, item: &'q NewItem) -> Result<Insert<'q>> {
    let query = query.bind(&item.partition).bind(&item.id).bind(item.gate).bind(item.priority);
    let query = query.bind(&item.data.content_type).bind(item.data.bytes.as_ref());
    let query = query.bind(item.available_at.map(of_moment).transpose()?);
    let creator = item.creator.as_ref();
    Ok(query.bind(creator.map(|c| &c.item)).bind(creator.map(|c| c.gate)))
}

pub(super) fn items_sql(rows: usize) -> String {
    let rows = rows_of(rows, concat!("(?,?,?,?,?,?,coalesce(?,", now!(), "),?,?)"));
    format!(
        "INSERT INTO gatefeed_items (partition_id, id, gate, priority, content_type, data, available_at, creator_id,
            creator_gate) {rows}
        ON CONFLICT (partition_id, id) DO NOTHING"
    )
}

impl Sqlite {
    /// The partition is made at once, which takes nothing from the others: the write lock is held anyway.
    pub(super) async fn open_push(&self, partition: &NewPartition) -> Result<Box<dyn Push>> {
        let mut tx = self.lanes.write().await?;
        let created = make_partition(tx.conn()?, partition).await?;
        Ok(Box::new(OpenPush {
            tx: Some(tx),
            file: self.lanes.path().to_owned(),
            partition: partition.id.clone(),
            pushed: Pushed { created, ..Pushed::default() },
            edges: Edges::default(),
        }))
    }
}

/// A push and the write lock, which it holds until it ends.
struct OpenPush {
    /// Taken out while items are added, so that an error, or a call that is dropped, rolls all of it back at once.
    tx: Option<Tx>,
    file: PathBuf,
    partition: String,
    pushed: Pushed,
    /// Inserted at the end: what an item depends on may come after it.
    edges: Edges,
}

#[async_trait]
impl Push for OpenPush {
    async fn add(&mut self, items: &[NewItem]) -> gatefeed_core::Result<()> {
        let added = self.insert(items).await;
        added.map_err(|error| error.of(&self.file))
    }

    async fn commit(mut self: Box<Self>) -> gatefeed_core::Result<Pushed> {
        let edges = std::mem::take(&mut self.edges);
        let committed = match self.tx.take() {
            Some(tx) => commit(tx, edges).await,
            None => Err(ended(&self.partition).into()),
        };
        committed.map(|()| self.pushed).map_err(|error| error.of(&self.file))
    }
}

async fn commit(mut tx: Tx, edges: Edges) -> Result<()> {
    edges.insert(tx.conn()?).await?;
    tx.commit().await
}

impl OpenPush {
    async fn insert(&mut self, items: &[NewItem]) -> Result<()> {
        let mut tx = self.tx.take().ok_or_else(|| ended(&self.partition))?;
        let added = add(tx.conn()?, &self.partition, items, &mut self.edges).await?;
        self.pushed.count(items.len(), added);
        self.tx = Some(tx);
        Ok(())
    }
}

fn ended(partition: &str) -> StoreError {
    StoreError::Refused(format!(
        "the push into partition {partition:?} has failed before and was rolled back: begin another"
    ))
}

/// Adds items of this partition; returns how many were new.
async fn add(
    connection: &mut SqliteConnection,
    partition: &str,
    items: &[NewItem],
    edges: &mut Edges,
) -> Result<u64> {
    NewItem::check_partition(items, partition)?;
    let items: Vec<&NewItem> = items.iter().collect();
    insert_items(connection, &items, edges).await
}

/// Pushes within a transaction that the caller has open: all of it or, after an error, nothing, whatever the caller
/// does with the transaction then. Where a call that was dropped halfway got to is unknown: roll back.
pub(crate) async fn push_into(
    connection: &mut SqliteConnection,
    partition: &NewPartition,
    items: &[NewItem],
) -> gatefeed_core::Result<Pushed> {
    let pushed = push_whole(connection, partition, items).await;
    pushed.map_err(|error| error.of(Path::new("the database of this connection")))
}

async fn push_whole(
    connection: &mut SqliteConnection,
    partition: &NewPartition,
    items: &[NewItem],
) -> Result<Pushed> {
    run(connection, "SAVEPOINT gatefeed_push").await?;
    let pushed = push_all(connection, partition, items).await;
    if pushed.is_err() {
        // SQLite may have ended the whole transaction by itself; then there is nothing to undo.
        run(connection, "ROLLBACK TO gatefeed_push").await.ok();
        run(connection, "RELEASE gatefeed_push").await.ok();
        return pushed;
    }
    run(connection, "RELEASE gatefeed_push").await?;
    pushed
}

pub(super) async fn push_all(
    connection: &mut SqliteConnection,
    partition: &NewPartition,
    items: &[NewItem],
) -> Result<Pushed> {
    let mut pushed = Pushed { created: make_partition(connection, partition).await?, ..Pushed::default() };
    let mut edges = Edges::default();
    pushed.count(items.len(), add(connection, &partition.id, items, &mut edges).await?);
    edges.insert(connection).await?;
    Ok(pushed)
}
