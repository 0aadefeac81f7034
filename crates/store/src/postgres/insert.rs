//! Adding partitions and items: for `push` and for the children of an answer.

use std::{collections::BTreeMap, time::Duration};

use gatefeed_core::{Result, StoreError, item::NewItem, partition::NewPartition, store::Pushed};

use super::{
    Postgres,
    error::translate,
    pool::{Lane, Tx},
};

/// Rows of one statement.
const ROWS_MAX: usize = 2_000;

const PARTITION: &str = "INSERT INTO {schema}.gatefeed_partitions
    (id, feed, priority, manual_checkpoint, auto_close, max_in_flight, failure_policy)
    VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";

/// In order of id, like every lock on several partitions.
const PARTITIONS: &str = "INSERT INTO {schema}.gatefeed_partitions (id, feed)
    SELECT n.id, n.feed FROM unnest($1::text[], $2::text[]) AS n (id, feed) ORDER BY n.id ON CONFLICT DO NOTHING";

const ITEMS: &str =
    "INSERT INTO {schema}.gatefeed_items (partition_id, id, gate, priority, data, content_type)
    SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::int[], $5::bytea[], $6::text[])
    ON CONFLICT DO NOTHING";

impl Postgres {
    pub(super) async fn add(&self, partition: &NewPartition, items: &[NewItem]) -> Result<Pushed> {
        if let Some(item) = items.iter().find(|item| item.partition != partition.id) {
            return Err(StoreError::Refused(format!(
                "item {:?} is of partition {:?}, not of {:?}: push one partition at a time",
                item.id, item.partition, partition.id
            )));
        }
        let mut tx = self.begin(Lane::Work, Duration::from_secs(60)).await?;
        let query = tx.query(self.sql.get(PARTITION)).bind(&partition.id).bind(&partition.feed);
        let query =
            query.bind(partition.priority).bind(partition.manual_checkpoint).bind(partition.auto_close);
        let max_in_flight = partition.max_in_flight.map(i32::try_from).transpose();
        let max_in_flight =
            max_in_flight.map_err(|_| StoreError::data("max_in_flight is over 2147483647"))?;
        let query = query.bind(max_in_flight).bind(partition.failure_policy.as_str());
        let created = query.execute(tx.conn()?).await.map_err(translate)?.rows_affected() == 1;
        let items: Vec<&NewItem> = items.iter().collect();
        let added = self.insert_items(&mut tx, &items).await?;
        // The partition may have been there already, in another feed.
        let feed = self.feed_of(&mut tx, &partition.id).await?;
        tx.commit().await?;
        self.announce(vec![feed]).await;
        Ok(Pushed { created, added, existing: items.len() as u64 - added })
    }

    /// Makes the partitions that are missing, each in the feed it comes with.
    pub(super) async fn make_partitions(&self, tx: &mut Tx, partitions: BTreeMap<&str, &str>) -> Result<()> {
        let (ids, feeds): (Vec<&str>, Vec<&str>) = partitions.into_iter().unzip();
        let query = tx.query(self.sql.get(PARTITIONS)).bind(ids).bind(feeds);
        query.execute(tx.conn()?).await.map_err(translate)?;
        Ok(())
    }

    /// Adds items whose ids do not exist yet; returns how many.
    pub(super) async fn insert_items(&self, tx: &mut Tx, items: &[&NewItem]) -> Result<u64> {
        let mut added = 0;
        for items in items.chunks(ROWS_MAX) {
            let all = || items.iter();
            let query = tx.query(self.sql.get(ITEMS));
            let query = query.bind(all().map(|i| i.partition.as_str()).collect::<Vec<_>>());
            let query = query.bind(all().map(|i| i.id.as_str()).collect::<Vec<_>>());
            let query = query.bind(all().map(|i| i.gate).collect::<Vec<_>>());
            let query = query.bind(all().map(|i| i.priority).collect::<Vec<_>>());
            let query = query.bind(all().map(|i| i.data.bytes.as_ref()).collect::<Vec<&[u8]>>());
            let query = query.bind(all().map(|i| i.data.content_type.as_str()).collect::<Vec<_>>());
            added += query.execute(tx.conn()?).await.map_err(translate)?.rows_affected();
        }
        Ok(added)
    }
}
