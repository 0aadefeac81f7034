//! Wake-ups: `PRAGMA data_version` changes whenever another connection, of any process, has committed. Asking costs two
//! switches of threads, so that the log of the database is looked at first, which each commit writes to.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use gatefeed_core::store::Wakeups;
use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::Sqlite;

/// How often the log is looked at while somebody waits: some 2 µs each.
const INTERVAL: Duration = Duration::from_millis(5);

/// After so many looks that showed nothing the database is asked all the same: a commit that overwrites the log from
/// its start within the same tick of the file system's clock as the one before it does not show.
const LOOKS_MAX: u32 = 10;

/// How long to wait before a broken connection is made again.
const RECONNECT: Duration = Duration::from_secs(1);

impl Sqlite {
    pub(super) fn listen(&self) -> Box<dyn Wakeups> {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let options = self.lanes.options().clone().busy_timeout(Duration::ZERO);
        let log = Log::of(options.get_filename());
        Box::new(Polling { options, connection: None, ticks, seen: None, log })
    }
}

/// Polls within `next` itself, so that nothing runs while nobody waits. A change between two calls is seen by the
/// second: `seen` stays.
struct Polling {
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
    ticks: Interval,
    seen: Option<i64>,
    log: Log,
}

#[async_trait]
impl Wakeups for Polling {
    async fn next(&mut self) {
        loop {
            self.ticks.tick().await;
            match self.has_changed().await {
                Ok(false) => {}
                Ok(true) => return,
                Err(error) => {
                    tracing::debug!(%error, "the wake-up connection broke; polling meanwhile");
                    (self.connection, self.seen) = (None, None);
                    sleep(RECONNECT).await;
                }
            }
        }
    }
}

impl Polling {
    /// Notes what it has seen only once the database has answered: if it is dropped before, the next call asks again.
    async fn has_changed(&mut self) -> sqlx::Result<bool> {
        let look = self.log.look();
        if self.seen.is_some() && !self.log.may_have_changed(&look) {
            return Ok(false);
        }
        let version = self.version().await?;
        self.log.note(look);
        Ok(self.seen.replace(version) != Some(version))
    }

    async fn version(&mut self) -> sqlx::Result<i64> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(self.options.connect().await?),
        };
        sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await
    }
}

/// What the file system tells of a log, if there is one: its size and when it was written to.
type Look = Option<(u64, SystemTime)>;

/// The database's log.
struct Log {
    path: PathBuf,
    /// What it looked like when the database was asked.
    seen: Look,
    /// Looks since then.
    looks: u32,
}

impl Log {
    fn of(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        Self { path: path.into(), seen: None, looks: 0 }
    }

    /// It is a local file, or there would be no log; so this does not block.
    fn look(&mut self) -> Look {
        self.looks += 1;
        fs::metadata(&self.path).and_then(|log| Ok((log.len(), log.modified()?))).ok()
    }

    /// False only if nothing shows.
    fn may_have_changed(&self, look: &Look) -> bool {
        look.is_none() || *look != self.seen || self.looks >= LOOKS_MAX
    }

    /// The database was asked after this look.
    fn note(&mut self, look: Look) {
        (self.seen, self.looks) = (look, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Waker},
    };

    use sqlx::{Executor, sqlite::SqliteJournalMode};

    use super::*;

    /// Looks, and asks the database if it has to.
    fn asks(log: &mut Log) -> bool {
        let look = log.look();
        let asks = log.may_have_changed(&look);
        if asks {
            log.note(look);
        }
        asks
    }

    #[test]
    fn the_database_is_asked_when_its_log_has_changed_and_now_and_then() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::of(&dir.path().join("x.db"));
        assert!(asks(&mut log) && asks(&mut log), "without a log nothing is known");
        fs::write(dir.path().join("x.db-wal"), "one").unwrap();
        assert!(asks(&mut log));
        assert!((1..LOOKS_MAX).all(|_| !asks(&mut log)));
        assert!(asks(&mut log), "now and then");
        assert!(!asks(&mut log));
        fs::write(dir.path().join("x.db-wal"), "longer").unwrap();
        assert!(asks(&mut log));
        let later = SystemTime::now() + Duration::from_secs(1);
        fs::File::options()
            .write(true)
            .open(dir.path().join("x.db-wal"))
            .unwrap()
            .set_modified(later)
            .unwrap();
        assert!(asks(&mut log), "of the same size");
        assert!(!asks(&mut log));
    }

    /// The engine drops a call whenever something else comes first.
    #[tokio::test]
    async fn a_change_is_seen_though_the_call_that_met_it_was_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let options = options.journal_mode(SqliteJournalMode::Wal);
        let mut other = options.connect().await.unwrap();
        other.execute("CREATE TABLE x (n)").await.unwrap();
        let (log, ticks) = (Log::of(&path), interval(INTERVAL));
        let mut polling = Polling { options, connection: None, ticks, seen: None, log };
        assert!(polling.has_changed().await.unwrap(), "the first time");
        loop {
            other.execute("INSERT INTO x VALUES (1)").await.unwrap();
            let asked = pin!(polling.has_changed()).poll(&mut Context::from_waker(Waker::noop()));
            // Now and then the answer is there at once, and the call was not dropped.
            if asked.is_pending() {
                break;
            }
        }
        assert!(polling.has_changed().await.unwrap(), "hidden by the call that was dropped");
        assert!(!polling.has_changed().await.unwrap(), "seen twice");
    }
}
