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
            if self.seen.is_some() && !self.log.may_have_changed() {
                continue;
            }
            match self.version().await {
                Ok(version) if self.seen.replace(version) == Some(version) => {}
                Ok(_) => return,
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
    async fn version(&mut self) -> sqlx::Result<i64> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            None => self.connection.insert(self.options.connect().await?),
        };
        sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await
    }
}

/// The database's log, as the file system tells of it.
struct Log {
    path: PathBuf,
    /// Its size and when it was written to.
    seen: Option<(u64, SystemTime)>,
    /// Looks since the database was asked.
    looks: u32,
}

impl Log {
    fn of(database: &Path) -> Self {
        let mut path = database.as_os_str().to_owned();
        path.push("-wal");
        Self { path: path.into(), seen: None, looks: 0 }
    }

    /// False only if nothing shows. It is a local file, or there would be no log; so this does not block.
    fn may_have_changed(&mut self) -> bool {
        let found = fs::metadata(&self.path).and_then(|log| Ok((log.len(), log.modified()?))).ok();
        self.looks += 1;
        if found.is_some() && found == self.seen && self.looks < LOOKS_MAX {
            return false;
        }
        (self.seen, self.looks) = (found, 0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_asked_when_its_log_has_changed_and_now_and_then() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::of(&dir.path().join("x.db"));
        assert!(log.may_have_changed() && log.may_have_changed(), "without a log nothing is known");
        fs::write(dir.path().join("x.db-wal"), "one").unwrap();
        assert!(log.may_have_changed());
        assert!((1..LOOKS_MAX).all(|_| !log.may_have_changed()));
        assert!(log.may_have_changed(), "now and then");
        assert!(!log.may_have_changed());
        fs::write(dir.path().join("x.db-wal"), "longer").unwrap();
        assert!(log.may_have_changed());
        let later = SystemTime::now() + Duration::from_secs(1);
        fs::File::options()
            .write(true)
            .open(dir.path().join("x.db-wal"))
            .unwrap()
            .set_modified(later)
            .unwrap();
        assert!(log.may_have_changed(), "of the same size");
        assert!(!log.may_have_changed());
    }
}
