//! Adding partitions and items: for `push` and for the children of an answer.

use std::collections::BTreeMap;

use gatefeed_core::{StoreError, item::NewItem, partition::NewPartition, store::Pushed};
use sqlx::SqliteConnection;

use super::{
    Sqlite,
    error::Result,
    values::{chunks, values},
};

/// Not OR IGNORE, here and below: that would swallow what a CHECK refuses.
pub(super) const PARTITION: &str = "INSERT INTO gatefeed_partitions
    (id, feed, priority, manual_checkpoint, auto_close, max_in_flight, failure_policy)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING";

impl Sqlite {
    pub(super) async fn add(&self, partition: &NewPartition, items: &[NewItem]) -> Result<Pushed> {
        if let Some(item) = items.iter().find(|item| item.partition != partition.id) {
            return Err(StoreError::Refused(format!(
                "item {:?} is of partition {:?}, not of {:?}: push one partition at a time",
                item.id, item.partition, partition.id
            ))
            .into());
        }
        let items: Vec<&NewItem> = items.iter().collect();
        let mut tx = self.lanes.write().await?;
        let created = make_partition(tx.conn()?, partition).await?;
        let added = insert_items(tx.conn()?, &items).await?;
        tx.commit().await?;
        Ok(Pushed { created, added, existing: items.len() as u64 - added })
    }
}

async fn make_partition(connection: &mut SqliteConnection, partition: &NewPartition) -> Result<bool> {
    let query = sqlx::query(PARTITION).bind(&partition.id).bind(&partition.feed).bind(partition.priority);
    let query =
        query.bind(partition.manual_checkpoint).bind(partition.auto_close).bind(partition.max_in_flight);
    let made = query.bind(partition.failure_policy.as_str()).execute(connection).await?;
    Ok(made.rows_affected() == 1)
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

/// Adds items whose ids do not exist yet; returns how many.
pub(super) async fn insert_items(connection: &mut SqliteConnection, items: &[&NewItem]) -> Result<u64> {
    let mut added = 0;
    for chunk in chunks(items) {
        let sql = items_sql(chunk.len());
        let mut query = sqlx::query(&sql);
        for item in chunk {
            query = query.bind(&item.partition).bind(&item.id).bind(item.gate).bind(item.priority);
            query = query.bind(&item.data.content_type).bind(item.data.bytes.as_ref());
        }
        added += query.execute(&mut *connection).await?.rows_affected();
    }
    Ok(added)
}

pub(super) fn items_sql(rows: usize) -> String {
    let rows = values(rows, 6);
    format!(
        "INSERT INTO gatefeed_items (partition_id, id, gate, priority, content_type, data) {rows}
        ON CONFLICT (partition_id, id) DO NOTHING"
    )
}
