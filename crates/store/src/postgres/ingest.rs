//! Items of many callers in one transaction. It has one statement, whatever their partitions are, and a second one
//! only where an id was there already.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::PoisonError,
    time::Duration,
};

use gatefeed_core::{
    Result, StoreError,
    ingest::{self, Arrival, Arrived},
    item::NewItem,
};
use sqlx::{Row, postgres::PgRow};

use super::{
    Postgres,
    error::translate,
    insert::bind_items,
    pool::{Lane, Tx},
    rows::get,
};

/// For one statement.
const LIMIT: Duration = Duration::from_secs(10);

/// Short, since all that arrives waits along; and less than Postgres' `deadlock_timeout` (1 s), so that of two that wait
/// for each other this one gives way.
const ROW_WAIT: Duration = Duration::from_millis(50);

/// Between two times at which watchers are told, at least.
const ANNOUNCE_INTERVAL: Duration = Duration::from_millis(20);

/// Not worth a flush of the log: polling finds what was never told.
const ANNOUNCE: &str = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, f.feed)
    FROM (SELECT DISTINCT p.feed FROM {schema}.gatefeed_partitions p WHERE p.id = ANY ($2)) f";

/// Items first, then partitions, both in order. The trigger looks at the end of the statement, when both are there. A
/// partition that exists is not inserted to no effect: that would read all CHECKs of its table in each statement. Nor is an
/// item whose key a request with many items has.
const ARRIVE: &str = "WITH made AS (
        INSERT INTO {schema}.gatefeed_partitions (id, feed)
        SELECT n.id, n.feed FROM unnest($12::text[], $13::text[]) AS n (id, feed)
        WHERE NOT EXISTS (SELECT 1 FROM {schema}.gatefeed_partitions p WHERE p.id = n.id)
        ORDER BY n.id ON CONFLICT DO NOTHING)
    INSERT INTO {schema}.gatefeed_items
        (partition_id, id, gate, priority, available_at, data, content_type, creator_id, creator_gate, request_digest)
    SELECT n.partition_id, n.id, n.gate, n.priority, coalesce(n.available_at, now()), n.data, n.content_type,
        n.creator_id, n.creator_gate, n.digest
    FROM unnest($1::text[], $2::text[], $3::int[], $4::int[], $5::timestamptz[], $6::bytea[], $7::text[],
            $8::text[], $9::int[], $10::bytea[], $11::text[])
        AS n (partition_id, id, gate, priority, available_at, data, content_type, creator_id, creator_gate, digest, key)
    WHERE n.key IS NULL
        OR NOT EXISTS (SELECT 1 FROM {schema}.gatefeed_requests r WHERE r.partition_id = n.partition_id AND r.key = n.key)
    ON CONFLICT DO NOTHING";

/// In order: whether there is an item, this transaction has inserted it, and what it was made by; and whether its key is
/// that of a request with many items.
const FOUND: &str =
    "SELECT i.id IS NOT NULL AS is_there, coalesce(i.xmin = pg_current_xact_id()::xid, false) AS is_ours, i.request_digest,
        EXISTS (SELECT 1 FROM {schema}.gatefeed_requests r WHERE r.partition_id = n.partition_id AND r.key = n.key) AS is_taken
    FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS n (partition_id, id, key, place)
    LEFT JOIN {schema}.gatefeed_items i ON i.partition_id = n.partition_id AND i.id = n.id
    ORDER BY n.place";

/// Partitions that got items, of which watchers have not been told.
#[derive(Debug, Default)]
pub(super) struct Untold {
    partitions: HashSet<String>,
    /// A task tells.
    is_telling: bool,
}

impl Postgres {
    pub(super) async fn take_in(&self, arrivals: &[Arrival]) -> Result<Vec<Arrived>> {
        ingest::check(arrivals)?;
        if arrivals.is_empty() {
            return Ok(Vec::new());
        }
        let mut order: Vec<usize> = (0..arrivals.len()).collect();
        let key = |index: &usize| (&arrivals[*index].item.partition, &arrivals[*index].item.id);
        order.sort_by(|a, b| key(a).cmp(&key(b)));
        let sorted: Vec<&Arrival> = order.iter().map(|index| &arrivals[*index]).collect();
        let mut tx = self.begin_with_lock_wait(Lane::Ingest, LIMIT, ROW_WAIT).await?;
        let added = match self.insert_arrivals(&mut tx, &sorted).await {
            Ok(added) => added,
            // The connection is well: others need not wait for a new one while the culprit is looked for.
            Err(error) if error.is_data() || matches!(error, StoreError::Locked(_)) => {
                tx.rollback().await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let found = if added == arrivals.len() as u64 {
            vec![Arrived::Added; arrivals.len()]
        } else {
            self.find_arrivals(&mut tx, &sorted).await?
        };
        tx.commit().await?;
        self.tell_soon(sorted.iter().map(|arrival| arrival.item.partition.as_str()).collect());
        let mut arrived = vec![Arrived::Added; arrivals.len()];
        order.iter().zip(found).for_each(|(index, found)| arrived[*index] = found);
        Ok(arrived)
    }

    async fn insert_arrivals(&self, tx: &mut Tx, arrivals: &[&Arrival]) -> Result<u64> {
        let items: Vec<&NewItem> = arrivals.iter().map(|arrival| &arrival.item).collect();
        let digests: Vec<Option<&[u8]>> = arrivals.iter().map(|arrival| arrival.digest()).collect();
        // The first of several feeds counts, as it would if they came one after another.
        let partitions: BTreeMap<&str, &str> = arrivals
            .iter()
            .rev()
            .map(|arrival| (arrival.item.partition.as_str(), arrival.feed.as_str()))
            .collect();
        let (ids, feeds): (Vec<&str>, Vec<&str>) = partitions.into_iter().unzip();
        let query = bind_items(tx.query(self.sql.get(ARRIVE)), &items);
        let query = query.bind(digests).bind(keys(arrivals)).bind(ids).bind(feeds);
        let added = query.execute(tx.conn()?).await.map_err(translate)?.rows_affected();
        self.check_arrivals(tx, arrivals).await?;
        Ok(added)
    }

    /// Errs where one comes from a caller whose partition it is not. Afterwards, since who makes a partition first is known
    /// then, and only where a caller may touch one feed alone.
    async fn check_arrivals(&self, tx: &mut Tx, arrivals: &[&Arrival]) -> Result<()> {
        let own = arrivals.iter().filter(|arrival| arrival.own_feed_only);
        let own: BTreeSet<(&str, &str)> =
            own.map(|arrival| (arrival.item.partition.as_str(), arrival.feed.as_str())).collect();
        if own.is_empty() {
            return Ok(());
        }
        let (ids, feeds) = own.into_iter().unzip();
        self.inserter(tx)?.check_feeds(ids, feeds).await
    }

    /// What became of each, where some ids were there already.
    async fn find_arrivals(&self, tx: &mut Tx, arrivals: &[&Arrival]) -> Result<Vec<Arrived>> {
        let (partitions, ids): (Vec<&str>, Vec<&str>) =
            arrivals.iter().map(|a| (a.item.partition.as_str(), a.item.id.as_str())).unzip();
        let query = tx.query(self.sql.get(FOUND)).bind(partitions).bind(ids).bind(keys(arrivals));
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        let mut added = HashSet::new();
        let mut arrived = Vec::with_capacity(arrivals.len());
        for (&arrival, row) in arrivals.iter().zip(&rows) {
            let found = Found::read(row)?;
            // Only the first of those with the same id was inserted, unless its key was taken.
            let is_added = found.is_ours && found.digest == arrival.digest();
            let is_added = is_added && added.insert((&arrival.item.partition, &arrival.item.id));
            arrived.push(if is_added { Arrived::Added } else { found.of(arrival)? });
        }
        Ok(arrived)
    }

    /// Tells watchers, beside the callers' answers: at once, or once for all that comes until the interval is over.
    fn tell_soon(&self, partitions: BTreeSet<&str>) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        for partition in partitions {
            if !arrived.partitions.contains(partition) {
                arrived.partitions.insert(partition.to_owned());
            }
        }
        if !std::mem::replace(&mut arrived.is_telling, true) {
            tokio::spawn(self.clone().tell_of_arrivals());
        }
    }

    /// Tells until nothing is left to tell.
    async fn tell_of_arrivals(self) {
        loop {
            let partitions = {
                let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
                if arrived.partitions.is_empty() {
                    arrived.is_telling = false;
                    return;
                }
                std::mem::take(&mut arrived.partitions)
            };
            if let Err(error) = self.tell(partitions.into_iter().collect()).await {
                tracing::debug!(%error, "watchers were not told of new items; polling finds them");
            }
            tokio::time::sleep(ANNOUNCE_INTERVAL).await;
        }
    }

    async fn tell(&self, partitions: Vec<String>) -> Result<()> {
        let mut tx = self.begin(Lane::Tell, Duration::from_secs(2)).await?;
        let query = tx.query(self.sql.get(ANNOUNCE)).bind(&self.sql.channel).bind(partitions);
        query.execute(tx.conn()?).await.map_err(translate)?;
        tx.commit().await
    }

    pub(super) async fn count_backlog(&self, feed: &str, limit: u64) -> Result<u64> {
        let count = "SELECT count(*) FROM (
                SELECT 1 FROM (
                    SELECT f.id FROM {schema}.gatefeed_partitions f WHERE f.feed = $1 AND f.status = 'available'
                        AND f.owner IS NULL AND f.next_run_at IS NOT NULL
                    UNION ALL
                    SELECT l.id FROM {schema}.gatefeed_partitions l WHERE l.feed = $1 AND l.status = 'available'
                        AND l.owner IS NOT NULL AND l.next_run_at IS NOT NULL) p
                JOIN {schema}.gatefeed_items i ON i.partition_id = p.id AND i.status = 'available' LIMIT $2) b";
        let mut tx = self.begin(Lane::Scan, Duration::from_secs(60)).await?;
        let query = tx.query(self.sql.get(count)).bind(feed).bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let counted: i64 = query.fetch_one(tx.conn()?).await.map_err(translate)?.get(0);
        tx.commit().await?;
        Ok(counted.unsigned_abs())
    }
}

/// Of each its idempotency key.
fn keys<'a>(arrivals: &[&'a Arrival]) -> Vec<Option<&'a str>> {
    arrivals.iter().map(|arrival| arrival.request.as_ref().map(|request| request.key.as_str())).collect()
}

/// What is where an arrival was to be.
struct Found<'r> {
    is_there: bool,
    /// This transaction has inserted it.
    is_ours: bool,
    digest: Option<&'r [u8]>,
    is_key_taken: bool,
}

impl<'r> Found<'r> {
    fn read(row: &'r PgRow) -> Result<Self> {
        let (is_there, is_ours) = (get(row, "is_there")?, get(row, "is_ours")?);
        let (digest, is_key_taken) = (get(row, "request_digest")?, get(row, "is_taken")?);
        Ok(Self { is_there, is_ours, digest, is_key_taken })
    }

    /// What an arrival comes to that was not added.
    fn of(&self, arrival: &Arrival) -> Result<Arrived> {
        if !self.is_there && !self.is_key_taken {
            // Deleted between the two statements.
            return Err(StoreError::Conflict("an item or a request went away meanwhile".into()));
        }
        Ok(Arrived::found(arrival, self.digest, self.is_key_taken))
    }
}
