//! What watchers say of themselves. Each report is a commit, and so, unlike on Postgres, a hint to everybody who
//! listens: `PRAGMA data_version` cannot tell commits apart.

use std::time::Duration;

use gatefeed_core::{
    inspect::WatcherStatus,
    watcher::{ALIVE_FOR, FORGOTTEN_AFTER, FeedReport, Report},
};
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{
    Sqlite,
    error::Result,
    rows::{at, now, seconds},
};

const NOTE: &str = concat!(
    "INSERT INTO gatefeed_watchers
        (id, feed, version, concurrency, partitions, in_flight, outcomes, outcomes_per_second)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id, feed) DO UPDATE SET version = excluded.version, concurrency = excluded.concurrency,
        partitions = excluded.partitions, in_flight = excluded.in_flight, outcomes = excluded.outcomes,
        outcomes_per_second = excluded.outcomes_per_second, seen_at = ",
    now!()
);

/// The table is as small as there are watchers, since this is done with every report.
const FORGET: &str = concat!("DELETE FROM gatefeed_watchers WHERE seen_at < ", now!("?"));

const ALIVE: &str = concat!(
    "SELECT feed, id, version, concurrency, partitions, in_flight, outcomes, outcomes_per_second, started_at, seen_at
    FROM gatefeed_watchers WHERE seen_at >= ",
    now!("?"),
    " ORDER BY id, feed"
);

impl Sqlite {
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
    query.execute(connection).await?;
    Ok(())
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn ago(duration: Duration) -> String {
    seconds(duration).replacen('+', "-", 1)
}

/// The watchers that are alive, each with one of its feeds, in order of id.
pub(super) async fn alive(connection: &mut SqliteConnection) -> Result<Vec<(String, WatcherStatus)>> {
    let rows = sqlx::query(ALIVE).bind(ago(ALIVE_FOR)).fetch_all(connection).await?;
    rows.iter().map(|row| Ok((row.try_get("feed")?, watcher_status(row)?))).collect()
}

fn watcher_status(row: &SqliteRow) -> Result<WatcherStatus> {
    Ok(WatcherStatus {
        id: row.try_get("id")?,
        version: row.try_get("version")?,
        concurrency: row.try_get("concurrency")?,
        partitions: row.try_get("partitions")?,
        in_flight: row.try_get("in_flight")?,
        outcomes: row.try_get("outcomes")?,
        outcomes_per_second: row.try_get("outcomes_per_second")?,
        started_at: at(row, "started_at")?,
        seen_at: at(row, "seen_at")?,
    })
}
