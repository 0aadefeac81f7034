//! Wake-ups: `PRAGMA data_version` changes whenever another connection, of any process, has committed.

use std::time::Duration;

use async_trait::async_trait;
use gatefeed_core::store::Wakeups;
use sqlx::{ConnectOptions, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::time::{Interval, MissedTickBehavior, interval, sleep};

use super::Sqlite;

/// How often it is read while somebody waits: ~20 µs each.
const INTERVAL: Duration = Duration::from_millis(5);

/// How long to wait before a broken connection is made again.
const RECONNECT: Duration = Duration::from_secs(1);

impl Sqlite {
    pub(super) fn listen(&self) -> Box<dyn Wakeups> {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let options = self.lanes.options().clone().busy_timeout(Duration::ZERO);
        Box::new(Polling { options, connection: None, ticks, seen: None })
    }
}

/// Polls within `next` itself, so that nothing runs while nobody waits. A change between two calls is seen by the
/// second: `seen` stays.
struct Polling {
    options: SqliteConnectOptions,
    connection: Option<SqliteConnection>,
    ticks: Interval,
    seen: Option<i64>,
}

#[async_trait]
impl Wakeups for Polling {
    async fn next(&mut self) {
        loop {
            self.ticks.tick().await;
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
