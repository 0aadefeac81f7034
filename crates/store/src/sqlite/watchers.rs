//! What watchers say of themselves. Each report is a commit, and so, unlike on Postgres, a hint to everybody who
//! listens: `PRAGMA data_version` cannot tell commits apart.

use std::time::Duration;

use gatefeed_core::{
    circuit::Circuit,
    inspect::WatcherStatus,
    share::{PeerGroup, Peers},
    watcher::{ALIVE_FOR, ASKS_FOR, FORGOTTEN_AFTER, FeedReport, Report},
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Sqlite,
    error::Result,
    pool::Lane,
    rows::{at, now, seconds},
};

const NOTE: &str = concat!(
    "INSERT INTO gatefeed_watchers
        (id, feed, version, concurrency, partitions, in_flight, outcomes, outcomes_per_second, circuits)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id, feed) DO UPDATE SET version = excluded.version, concurrency = excluded.concurrency,
        partitions = excluded.partitions, in_flight = excluded.in_flight, outcomes = excluded.outcomes,
        outcomes_per_second = excluded.outcomes_per_second, circuits = excluded.circuits, seen_at = ",
    now!()
);

/// The table is as small as there are watchers, since this is done with every report.
const FORGET: &str = concat!("DELETE FROM gatefeed_watchers WHERE seen_at < ", now!("?"));

const ALIVE: &str = concat!(
    "SELECT feed, id, version, concurrency, partitions, in_flight, outcomes, outcomes_per_second, circuits, started_at,
        seen_at
    FROM gatefeed_watchers WHERE seen_at >= ",
    now!("?"),
    " ORDER BY id, feed"
);

/// Looked for before anything is written, since each write is a hint to everybody.
pub(super) const OTHERS_HOLD: &str = concat!(
    "SELECT f.value FROM json_each(?2) f WHERE EXISTS (
        SELECT 1 FROM gatefeed_partitions p INDEXED BY gatefeed_partitions_leased
        WHERE p.feed = f.value AND p.status = 'available' AND p.owner IS NOT NULL AND p.next_run_at IS NOT NULL
            AND p.owner <> ?1 AND p.next_run_at <= ",
    now!(),
    " AND p.until > ",
    now!(),
    ")"
);

const ASK: &str = concat!(
    "UPDATE gatefeed_watchers SET asks_until = ",
    now!("?3"),
    " WHERE id = ?1 AND feed IN (SELECT value FROM json_each(?2))"
);

const ASKERS: &str = concat!(
    "SELECT feed, count(*) AS watchers FROM gatefeed_watchers
    WHERE id <> ?1 AND feed IN (SELECT value FROM json_each(?2)) AND asks_until > ",
    now!(),
    " GROUP BY feed"
);

/// One row for each set of feeds that other watchers serve of these.
const PEERS: &str = concat!(
    "SELECT feeds, count(*) AS watchers, count(*) FILTER (WHERE id < ?1) AS before FROM (
        SELECT id, json_group_array(feed) AS feeds FROM (
            SELECT id, feed FROM gatefeed_watchers
            WHERE id <> ?1 AND feed IN (SELECT value FROM json_each(?2)) AND seen_at >= ",
    now!("?3"),
    " ORDER BY id, feed)
        GROUP BY id)
    GROUP BY feeds"
);

impl Sqlite {
    pub(super) async fn ask_for_partitions(&self, watcher: &str, feeds: &[String]) -> Result<()> {
        let mut connection = self.lanes.read(Lane::Work).await?;
        let query = sqlx::query_scalar(OTHERS_HOLD).bind(watcher).bind(json(feeds));
        let held: Vec<String> = query.fetch_all(&mut *connection).await?;
        drop(connection);
        if held.is_empty() {
            return Ok(());
        }
        let mut tx = self.lanes.write().await?;
        let query = sqlx::query(ASK).bind(watcher).bind(json(&held)).bind(seconds(ASKS_FOR));
        query.execute(tx.conn()?).await?;
        tx.commit().await
    }

    pub(super) async fn askers(&self, watcher: &str, feeds: &[String]) -> Result<Vec<(String, usize)>> {
        let mut connection = self.lanes.read(Lane::Work).await?;
        let query = sqlx::query(ASKERS).bind(watcher).bind(json(feeds));
        let rows = query.fetch_all(&mut *connection).await?;
        rows.iter()
            .map(|row| Ok((row.try_get("feed")?, row.try_get::<i64, _>("watchers")? as usize)))
            .collect()
    }

    pub(super) async fn others(&self, watcher: &str, feeds: &[String]) -> Result<Peers> {
        let mut connection = self.lanes.read(Lane::Work).await?;
        let query = sqlx::query(PEERS).bind(watcher).bind(json(feeds)).bind(ago(ALIVE_FOR));
        let rows = query.fetch_all(&mut *connection).await?;
        Ok(Peers::new(rows.iter().map(peer_group).collect::<Result<_>>()?))
    }

    pub(super) async fn note_report(&self, report: &Report) -> Result<()> {
        let mut tx = self.lanes.write().await?;
        for feed in &report.feeds {
            note(tx.conn()?, report, feed).await?;
        }
        sqlx::query(FORGET).bind(ago(FORGOTTEN_AFTER)).execute(tx.conn()?).await?;
        tx.commit().await
    }

    pub(super) async fn forget_watcher(&self, watcher: &str) -> Result<()> {
        let mut tx = self.lanes.write().await?;
        sqlx::query("DELETE FROM gatefeed_watchers WHERE id = ?").bind(watcher).execute(tx.conn()?).await?;
        tx.commit().await
    }
}

async fn note(connection: &mut SqliteConnection, report: &Report, feed: &FeedReport) -> Result<()> {
    let query = sqlx::query(NOTE).bind(&*report.watcher).bind(&feed.feed).bind(report.version);
    let query =
        query.bind(whole(report.concurrency)).bind(whole(feed.partitions)).bind(whole(feed.in_flight));
    let query = query.bind(i64::try_from(feed.outcomes).unwrap_or(i64::MAX)).bind(feed.outcomes_per_second);
    let query = query.bind(Circuit::write(&feed.circuits));
    query.execute(connection).await?;
    Ok(())
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn json(feeds: &[String]) -> String {
    serde_json::Value::from(feeds).to_string()
}

fn ago(duration: Duration) -> String {
    seconds(duration).replacen('+', "-", 1)
}

/// The watchers that are alive, each with one of its feeds, in order of id.
pub(super) async fn alive(connection: &mut SqliteConnection) -> Result<Vec<(String, WatcherStatus)>> {
    let rows = sqlx::query(ALIVE).bind(ago(ALIVE_FOR)).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get("feed")?, watcher_status(row)?))).collect()
}

fn peer_group(row: &SqliteRow) -> Result<PeerGroup> {
    Ok(PeerGroup {
        feeds: serde_json::from_str(row.try_get("feeds")?).unwrap_or_default(),
        watchers: row.try_get::<i64, _>("watchers")? as usize,
        before: row.try_get::<i64, _>("before")? as usize,
    })
}

fn watcher_status(row: &SqliteRow) -> Result<WatcherStatus> {
    let seen_at = at(row, "seen_at")?;
    Ok(WatcherStatus {
        id: row.try_get("id")?,
        version: row.try_get("version")?,
        concurrency: row.try_get("concurrency")?,
        partitions: row.try_get("partitions")?,
        in_flight: row.try_get("in_flight")?,
        outcomes: row.try_get("outcomes")?,
        outcomes_per_second: row.try_get("outcomes_per_second")?,
        circuits: Circuit::read(row.try_get("circuits")?, seen_at),
        started_at: at(row, "started_at")?,
        seen_at,
    })
}
