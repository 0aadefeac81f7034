//! What has ended of all that is waited for.

use std::time::Duration;

use gatefeed_core::{Result, inspect::Awaited};
use sqlx::Row;

use super::{
    Postgres,
    error::translate,
    pool::{Lane, Tx},
};

const LIMIT: Duration = Duration::from_secs(10);

/// By place, from 1; by the primary key.
const PARTITIONS: &str = "SELECT n.place FROM unnest($1::text[]) WITH ORDINALITY AS n (id, place)
    LEFT JOIN {schema}.gatefeed_partitions p ON p.id = n.id
    WHERE p.status IS NULL OR p.status IN ('complete', 'failed', 'cancelled')";

const ITEMS: &str =
    "SELECT n.place FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS n (partition_id, id, place)
    LEFT JOIN {schema}.gatefeed_items i ON i.partition_id = n.partition_id AND i.id = n.id
    WHERE i.status IS NULL OR i.status NOT IN ('available', 'waiting', 'blocked')";

impl Postgres {
    pub(super) async fn find_ended(&self, awaited: &[Awaited]) -> Result<Vec<bool>> {
        let (mut partitions, mut items) = (Vec::new(), Vec::new());
        for (index, awaited) in awaited.iter().enumerate() {
            match awaited {
                Awaited::Partition(id) => partitions.push((index, id.as_str())),
                Awaited::Item { partition, id } => items.push((index, (partition.as_str(), id.as_str()))),
            }
        }
        let mut ended = vec![false; awaited.len()];
        let mut tx = self.begin(Lane::Ask, LIMIT).await?;
        self.find_ended_partitions(&mut tx, partitions, &mut ended).await?;
        self.find_ended_items(&mut tx, items, &mut ended).await?;
        tx.commit().await?;
        Ok(ended)
    }

    async fn find_ended_partitions(
        &self,
        tx: &mut Tx,
        partitions: Vec<(usize, &str)>,
        ended: &mut [bool],
    ) -> Result<()> {
        if partitions.is_empty() {
            return Ok(());
        }
        let (places, ids): (Vec<usize>, Vec<&str>) = partitions.into_iter().unzip();
        let query = tx.query(self.sql.get(PARTITIONS)).bind(ids);
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        note(&rows, &places, ended);
        Ok(())
    }

    async fn find_ended_items(
        &self,
        tx: &mut Tx,
        items: Vec<(usize, (&str, &str))>,
        ended: &mut [bool],
    ) -> Result<()> {
        if items.is_empty() {
            return Ok(());
        }
        let (places, keys): (Vec<usize>, Vec<(&str, &str)>) = items.into_iter().unzip();
        let (partitions, ids): (Vec<&str>, Vec<&str>) = keys.into_iter().unzip();
        let query = tx.query(self.sql.get(ITEMS)).bind(partitions).bind(ids);
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        note(&rows, &places, ended);
        Ok(())
    }
}

fn note(rows: &[sqlx::postgres::PgRow], places: &[usize], ended: &mut [bool]) {
    for row in rows {
        let place = usize::try_from(row.get::<i64, _>(0) - 1).unwrap_or(usize::MAX);
        if let Some(ended) = places.get(place).and_then(|index| ended.get_mut(*index)) {
            *ended = true;
        }
    }
}
