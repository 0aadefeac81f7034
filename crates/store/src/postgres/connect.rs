//! Making connections, and giving up old ones.

use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use sqlx::{Connection, Error, PgConnection, postgres::PgConnectOptions};

use super::error::is_starting;

/// A connection is replaced after this long: what a server's process keeps in memory grows.
const AGE_MAX: Duration = Duration::from_secs(3600);

/// Between attempts while the server comes up, at first …
const PAUSE: Duration = Duration::from_millis(10);
/// … and at most.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What makes a pool's connections. The pool takes them back at once and asks nothing: sqlx's own asks each whether it
/// lives before and after each use, the second time in a task of its own, which took an eighth of the time of writing
/// outcomes.
#[derive(Debug)]
pub(super) struct Connector(PgConnectOptions);

impl Connector {
    pub(super) fn new(options: &PgConnectOptions) -> Self {
        Self(options.clone())
    }
}

/// A connection, and the limits that its session has beside those of single transactions.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) conn: PgConnection,
    pub(super) limits: Option<Limits>,
}

/// What the server itself ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Limits {
    /// Statements that take longer, and transactions that lie idle for longer.
    pub(super) statement_ms: u128,
    /// Waiting for one lock.
    pub(super) lock_ms: u128,
}

impl Manager for Connector {
    type Type = Session;
    type Error = Error;

    /// Waits for a server that comes up, as long as the pool's patience lasts.
    async fn create(&self) -> Result<Session, Error> {
        let mut pause = PAUSE;
        loop {
            match PgConnection::connect_with(&self.0).await {
                Err(error) if is_starting(&error) => tokio::time::sleep(pause).await,
                made => return Ok(Session { conn: made?, limits: None }),
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn recycle(&self, _: &mut Session, metrics: &Metrics) -> RecycleResult<Error> {
        match metrics.age() < AGE_MAX {
            true => Ok(()),
            false => Err(RecycleError::message("old")),
        }
    }
}
