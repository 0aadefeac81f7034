//! Items of many callers in one transaction. Many rows a statement while every id is new; where one was there already
//! all is done again row by row, since a statement only tells how many rows it has inserted. So it is where a key is that of
//! a request with many items.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use gatefeed_core::ingest::{self, Arrival, Arrived};
use serde_json::{Value, json};
use sqlx::{Row, SqliteConnection};

use super::{
    Sqlite,
    error::Result,
    insert::{bind_item, check_feed, make_partitions},
    pool::Lane,
    rows::now,
    values::{chunks, rows_of},
};

/// By the primary key.
const FIND: &str = "SELECT request_digest FROM gatefeed_items WHERE partition_id = ? AND id = ?";

/// Those of some keys, by place, that requests with many items have.
const TAKEN: &str = "SELECT n.value ->> 0 FROM json_each(?) n CROSS JOIN gatefeed_requests r
    ON r.partition_id = n.value ->> 1 AND r.key = n.value ->> 2";

const BACKLOG: &str = "SELECT count(*) FROM (
    SELECT 1 FROM (
        SELECT id FROM gatefeed_partitions INDEXED BY gatefeed_partitions_free
        WHERE feed = ?1 AND status = 'available' AND owner IS NULL AND next_run_at IS NOT NULL
        UNION ALL
        SELECT id FROM gatefeed_partitions INDEXED BY gatefeed_partitions_leased
        WHERE feed = ?1 AND status = 'available' AND owner IS NOT NULL AND next_run_at IS NOT NULL) p
    CROSS JOIN gatefeed_items i INDEXED BY gatefeed_items_due
        ON i.partition_id = p.id AND i.status = 'available' LIMIT ?2)";

fn arrive(rows: usize) -> String {
    let rows = rows_of(rows, concat!("(?,?,?,?,?,?,coalesce(?,", now!(), "),?,?,?)"));
    format!(
        "INSERT INTO gatefeed_items (partition_id, id, gate, priority, content_type, data, available_at, creator_id,
            creator_gate, request_digest) {rows}
        ON CONFLICT (partition_id, id) DO NOTHING"
    )
}

impl Sqlite {
    pub(super) async fn take_in(&self, arrivals: &[Arrival]) -> Result<Vec<Arrived>> {
        ingest::check(arrivals)?;
        let mut tx = self.lanes.write().await?;
        // The first of several feeds counts, as it would if they came one after another.
        let partitions: BTreeMap<&str, &str> = arrivals
            .iter()
            .rev()
            .map(|arrival| (arrival.item.partition.as_str(), arrival.feed.as_str()))
            .collect();
        make_partitions(tx.conn()?, partitions.clone()).await?;
        check_feeds(tx.conn()?, arrivals).await?;
        let mut taken = taken(tx.conn()?, arrivals).await?;
        if taken.is_empty() {
            if add_all(tx.conn()?, arrivals).await? == arrivals.len() as u64 {
                tx.commit().await?;
                return Ok(vec![Arrived::Added; arrivals.len()]);
            }
            drop(tx);
            tx = self.lanes.write().await?;
            make_partitions(tx.conn()?, partitions).await?;
            check_feeds(tx.conn()?, arrivals).await?;
            taken = self::taken(tx.conn()?, arrivals).await?;
        }
        let arrived = add_singly(tx.conn()?, arrivals, &taken).await?;
        tx.commit().await?;
        Ok(arrived)
    }

    pub(super) async fn count_backlog(&self, feed: &str, limit: u64) -> Result<u64> {
        let query = sqlx::query(BACKLOG).bind(feed).bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let counted: i64 = query.fetch_one(&mut *self.lanes.read(Lane::Scan).await?).await?.try_get(0)?;
        Ok(counted.unsigned_abs())
    }
}

/// Errs where one comes from a caller whose partition it is not.
async fn check_feeds(connection: &mut SqliteConnection, arrivals: &[Arrival]) -> Result<()> {
    let own = arrivals.iter().filter(|arrival| arrival.own_feed_only);
    let own: BTreeSet<(&str, &str)> =
        own.map(|arrival| (arrival.item.partition.as_str(), arrival.feed.as_str())).collect();
    for (partition, feed) in own {
        check_feed(&mut *connection, partition, feed).await?;
    }
    Ok(())
}

/// The places of those whose key a request with many items has.
async fn taken(connection: &mut SqliteConnection, arrivals: &[Arrival]) -> Result<HashSet<usize>> {
    let keys = arrivals.iter().enumerate().filter_map(|(place, arrival)| {
        arrival.request.as_ref().map(|request| json!([place, arrival.item.partition, request.key]))
    });
    let keys: Vec<Value> = keys.collect();
    if keys.is_empty() {
        return Ok(HashSet::new());
    }
    let query = sqlx::query_scalar::<_, i64>(TAKEN).bind(Value::from(keys).to_string());
    let places = query.fetch_all(connection).await?;
    Ok(places.into_iter().filter_map(|place| usize::try_from(place).ok()).collect())
}

async fn add_all(connection: &mut SqliteConnection, arrivals: &[Arrival]) -> Result<u64> {
    let mut added = 0;
    for chunk in chunks(arrivals) {
        let sql = arrive(chunk.len());
        let mut query = sqlx::query(&sql);
        for arrival in chunk {
            query = bind_item(query, &arrival.item)?.bind(arrival.digest());
        }
        added += query.execute(&mut *connection).await?.rows_affected();
    }
    Ok(added)
}

/// Nobody else writes meanwhile, so that what was looked for and not found is new.
async fn add_singly(
    connection: &mut SqliteConnection,
    arrivals: &[Arrival],
    taken: &HashSet<usize>,
) -> Result<Vec<Arrived>> {
    let sql = arrive(1);
    let mut arrived = Vec::with_capacity(arrivals.len());
    for (place, arrival) in arrivals.iter().enumerate() {
        let is_taken = taken.contains(&place);
        let insert = bind_item(sqlx::query(&sql), &arrival.item)?.bind(arrival.digest());
        if !is_taken && insert.execute(&mut *connection).await?.rows_affected() == 1 {
            arrived.push(Arrived::Added);
            continue;
        }
        let find = sqlx::query(FIND).bind(&arrival.item.partition).bind(&arrival.item.id);
        let row = find.fetch_optional(&mut *connection).await?;
        let digest = row.as_ref().map(|row| row.try_get::<Option<&[u8]>, _>(0)).transpose()?.flatten();
        arrived.push(Arrived::found(arrival, digest, is_taken));
    }
    Ok(arrived)
}
