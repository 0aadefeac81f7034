//! What watchers report of themselves.

use std::time::Duration;

use gatefeed_core::{
    Result,
    circuit::Circuit,
    inspect::WatcherStatus,
    share::{PeerGroup, Peers},
    watcher::{ALIVE_FOR, ASKS_FOR, FORGOTTEN_AFTER, FeedReport, Report},
};
use sqlx::postgres::PgRow;

use super::{
    Postgres,
    error::translate,
    pool::{Lane, Tx},
    rows::get,
};

const LIMIT: Duration = Duration::from_secs(5);

const REPORT: &str = "INSERT INTO {schema}.gatefeed_watchers AS w
    (id, feed, version, concurrency, partitions, in_flight, outcomes, outcomes_per_second, circuits)
    SELECT $1, r.feed, $2, $3, r.partitions, r.in_flight, r.outcomes, r.outcomes_per_second, r.circuits::jsonb
    FROM unnest($4::text[], $5::int[], $6::int[], $7::bigint[], $8::float8[], $9::text[])
        AS r (feed, partitions, in_flight, outcomes, outcomes_per_second, circuits)
    ON CONFLICT (id, feed) DO UPDATE SET version = excluded.version, concurrency = excluded.concurrency,
        partitions = excluded.partitions, in_flight = excluded.in_flight, outcomes = excluded.outcomes,
        outcomes_per_second = excluded.outcomes_per_second, circuits = excluded.circuits, seen_at = now()";

const FORGET_OLD: &str =
    "DELETE FROM {schema}.gatefeed_watchers WHERE seen_at < now() - interval '1 second' * $1::float8";

const ALIVE: &str = "SELECT *, circuits::text AS circuits_text FROM {schema}.gatefeed_watchers
    WHERE seen_at >= now() - interval '1 second' * $1::float8 ORDER BY id, feed";

/// One probe of the leased partitions a feed, which most often are others'. ORDER BY and LIMIT, not EXISTS: see
/// `checkpoint.rs`.
pub(super) const ASK: &str = "UPDATE {schema}.gatefeed_watchers w
    SET asks_until = clock_timestamp() + interval '1 second' * $3::float8
    WHERE w.id = $1 AND w.feed = ANY ($2) AND (
        SELECT true FROM {schema}.gatefeed_partitions p
        WHERE p.feed = w.feed AND p.status = 'available' AND p.owner IS NOT NULL AND p.next_run_at IS NOT NULL
            AND p.owner <> $1 AND p.next_run_at <= now() AND p.until > now()
        ORDER BY p.until LIMIT 1) IS NOT NULL";

const ASKERS: &str = "SELECT w.feed, count(*) AS watchers FROM {schema}.gatefeed_watchers w
    WHERE w.id <> $1 AND w.feed = ANY ($2) AND w.asks_until > clock_timestamp() GROUP BY w.feed";

/// One row for each set of feeds that other watchers serve of these.
const PEERS: &str = "SELECT feeds, count(*) AS watchers, count(*) FILTER (WHERE id < $1) AS before FROM (
        SELECT w.id, array_agg(w.feed ORDER BY w.feed) AS feeds FROM {schema}.gatefeed_watchers w
        WHERE w.id <> $1 AND w.feed = ANY ($2) AND w.seen_at >= now() - interval '1 second' * $3::float8
        GROUP BY w.id) others
    GROUP BY feeds";

impl Postgres {
    pub(super) async fn ask_for_partitions(&self, watcher: &str, feeds: &[String]) -> Result<()> {
        let mut tx = self.begin(Lane::Work, LIMIT).await?;
        let query = tx.query(self.sql.get(ASK)).bind(watcher).bind(feeds).bind(ASKS_FOR.as_secs_f64());
        query.execute(tx.conn()?).await.map_err(translate)?;
        tx.commit().await
    }

    pub(super) async fn askers(&self, watcher: &str, feeds: &[String]) -> Result<Vec<(String, usize)>> {
        let mut tx = self.begin(Lane::Work, LIMIT).await?;
        let query = tx.query(self.sql.get(ASKERS)).bind(watcher).bind(feeds);
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        tx.commit().await?;
        rows.iter().map(|row| Ok((get(row, "feed")?, get::<i64>(row, "watchers")? as usize))).collect()
    }

    pub(super) async fn others(&self, watcher: &str, feeds: &[String]) -> Result<Peers> {
        let mut tx = self.begin(Lane::Work, LIMIT).await?;
        let query = tx.query(self.sql.get(PEERS)).bind(watcher).bind(feeds).bind(ALIVE_FOR.as_secs_f64());
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        tx.commit().await?;
        Ok(Peers::new(rows.iter().map(peer_group).collect::<Result<_>>()?))
    }

    pub(super) async fn note_report(&self, report: &Report) -> Result<()> {
        let mut tx = self.begin(Lane::Work, LIMIT).await?;
        let all = || report.feeds.iter();
        let numbers = |number: fn(&FeedReport) -> usize| all().map(|f| small(number(f))).collect::<Vec<_>>();
        let query = tx.query(self.sql.get(REPORT)).bind(report.watcher.as_ref()).bind(report.version);
        let query = query.bind(small(report.concurrency)).bind(all().map(|f| &f.feed).collect::<Vec<_>>());
        let query = query.bind(numbers(|f| f.partitions)).bind(numbers(|f| f.in_flight));
        let query = query.bind(all().map(|f| f.outcomes as i64).collect::<Vec<_>>());
        let query = query.bind(all().map(|f| f.outcomes_per_second).collect::<Vec<_>>());
        let query = query.bind(all().map(|f| Circuit::write(&f.circuits)).collect::<Vec<_>>());
        query.execute(tx.conn()?).await.map_err(translate)?;
        let forget = tx.query(self.sql.get(FORGET_OLD)).bind(FORGOTTEN_AFTER.as_secs_f64());
        forget.execute(tx.conn()?).await.map_err(translate)?;
        tx.commit().await
    }

    pub(super) async fn forget(&self, watcher: &str) -> Result<()> {
        let mut tx = self.begin(Lane::Work, LIMIT).await?;
        let delete = self.sql.get("DELETE FROM {schema}.gatefeed_watchers WHERE id = $1");
        tx.query(delete).bind(watcher).execute(tx.conn()?).await.map_err(translate)?;
        tx.commit().await
    }

    /// The watchers that are alive, each with the feed it serves.
    pub(super) async fn alive(&self, tx: &mut Tx) -> Result<Vec<(String, WatcherStatus)>> {
        let query = tx.query(self.sql.get(ALIVE)).bind(ALIVE_FOR.as_secs_f64());
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        rows.iter().map(|row| Ok((get(row, "feed")?, watcher(row)?))).collect()
    }
}

fn small(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn peer_group(row: &PgRow) -> Result<PeerGroup> {
    Ok(PeerGroup {
        feeds: get(row, "feeds")?,
        watchers: get::<i64>(row, "watchers")? as usize,
        before: get::<i64>(row, "before")? as usize,
    })
}

fn watcher(row: &PgRow) -> Result<WatcherStatus> {
    let seen_at = get(row, "seen_at")?;
    Ok(WatcherStatus {
        id: get(row, "id")?,
        version: get(row, "version")?,
        concurrency: get::<i32>(row, "concurrency")?.into(),
        partitions: get::<i32>(row, "partitions")?.into(),
        in_flight: get::<i32>(row, "in_flight")?.into(),
        outcomes: get(row, "outcomes")?,
        outcomes_per_second: get(row, "outcomes_per_second")?,
        circuits: Circuit::read(get(row, "circuits_text")?, seen_at),
        started_at: get(row, "started_at")?,
        seen_at,
    })
}
