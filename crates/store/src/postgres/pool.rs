//! Connections: five lanes, so that a queue in one never delays another, and transactions that cannot wedge
//! a lane.

use std::{str::FromStr, sync::atomic::Ordering, time::Duration};

use gatefeed_core::{Result, StoreError};
use sqlx::{
    Connection, Executor, PgConnection, Pool, Postgres as Pg,
    pool::PoolConnection,
    postgres::{PgArguments, PgConnectOptions, PgListener, PgPoolOptions},
    query::Query,
};

use super::{Postgres, error::translate};
use crate::without_password;

/// How long to wait for a connection.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Pushes at a time. Connections are made when they are wanted, so that a watcher has none of these.
const PUSHES_MAX: u32 = 8;

/// Items that arrive one by one: one transaction after another, and beside it those that wait for somebody's lock.
pub(super) const INGESTS_MAX: u32 = 4;

/// Which pool a call uses.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    /// Renewals, and nothing else.
    Renew,
    /// Outcomes: one connection, since two that share-lock one partition make multixacts and can deadlock.
    Complete,
    /// Pushes, which may stay open while their caller fetches the next items.
    Push,
    /// Items that arrive one by one. Its connections are not asked whether they live, which costs a sixth of such a
    /// transaction: whoever begins here begins again where that fails.
    Ingest,
    /// Everything else.
    Work,
}

/// The pools.
#[derive(Debug)]
pub(super) struct Lanes {
    renew: Pool<Pg>,
    complete: Pool<Pg>,
    push: Pool<Pg>,
    ingest: Pool<Pg>,
    work: Pool<Pg>,
    /// Where LISTEN connects.
    pub(super) listen: PgConnectOptions,
    /// Whether prepared statements may be kept: not behind a pooler that hands out another server connection
    /// for each transaction.
    prepared: bool,
}

impl Lanes {
    pub(super) async fn connect(url: &str, listen_url: Option<&str>) -> Result<Self> {
        let options = parse(url)?;
        let listen = listen_url.map_or_else(|| Ok(options.clone()), parse)?;
        let work = pool(&options, 3);
        // Not through the pool, which would try again until its patience ends and not say why.
        let first = tokio::time::timeout(ACQUIRE_TIMEOUT, PgConnection::connect_with(&options)).await;
        let first = first.map_err(|_| unreachable(url, "it did not answer in time"))?;
        first.map_err(|error| refused(url, error))?.close().await.map_err(translate)?;
        let prepared = is_pinned(&options).await;
        let push = pool(&options, PUSHES_MAX);
        let ingest = sized(INGESTS_MAX).test_before_acquire(false).connect_lazy_with(options.clone());
        Ok(Self {
            renew: pool(&options, 1),
            complete: pool(&options, 1),
            push,
            ingest,
            work,
            listen,
            prepared,
        })
    }

    pub(super) async fn close(&self) {
        for pool in [&self.renew, &self.complete, &self.push, &self.ingest, &self.work] {
            pool.close().await;
        }
    }

    fn pool(&self, lane: Lane) -> &Pool<Pg> {
        match lane {
            Lane::Renew => &self.renew,
            Lane::Complete => &self.complete,
            Lane::Push => &self.push,
            Lane::Ingest => &self.ingest,
            Lane::Work => &self.work,
        }
    }
}

fn parse(url: &str) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url).map_err(|error| {
        StoreError::Config(format!("the database URL {} cannot be read: {error}", without_password(url)))
    })?;
    Ok(options.application_name("gatefeed"))
}

fn pool(options: &PgConnectOptions, size: u32) -> Pool<Pg> {
    sized(size).connect_lazy_with(options.clone())
}

fn sized(size: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .idle_timeout(None)
        .max_lifetime(Duration::from_secs(3600))
}

fn unreachable(url: &str, why: &str) -> StoreError {
    StoreError::Unavailable(format!("cannot reach the database {}: {why}", without_password(url)))
}

/// The first connection failed: what the server says of the user or database is a matter of the URL.
fn refused(url: &str, error: sqlx::Error) -> StoreError {
    if !matches!(error, sqlx::Error::Database(_)) {
        return unreachable(url, &error.to_string());
    }
    match translate(error) {
        StoreError::Config(why) => {
            StoreError::Config(format!("the database {} refuses: {why}", without_password(url)))
        }
        error => unreachable(url, &error.to_string()),
    }
}

/// Whether a connection of ours stays on one server connection. Asked by function: one connection listens,
/// another notifies. Behind a transaction pooler the listener has no server connection while it waits, and
/// hears nothing.
async fn is_pinned(options: &PgConnectOptions) -> bool {
    let channel = format!("gatefeed.probe.{}", uuid::Uuid::new_v4().simple());
    let heard = async {
        let pool = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await.ok()?;
        let mut listener = PgListener::connect_with(&pool).await.ok()?;
        listener.listen(&channel).await.ok()?;
        let mut notifier = PgConnection::connect_with(options).await.ok()?;
        notifier.execute(format!("NOTIFY \"{channel}\"").as_str()).await.ok()?;
        listener.recv().await.ok()
    };
    matches!(tokio::time::timeout(Duration::from_millis(500), heard).await, Ok(Some(_)))
}

/// A transaction. Dropped before its commit, it takes its connection with it: that is a rollback that needs no
/// answer from a server that may be gone, and the lane's place is free at once.
pub(super) struct Tx {
    conn: Option<PoolConnection<Pg>>,
    prepared: bool,
}

impl Tx {
    /// A statement for this transaction.
    pub(super) fn query<'q>(&self, sql: &'q str) -> Query<'q, Pg, PgArguments> {
        sqlx::query(sql).persistent(self.prepared)
    }

    /// Whether prepared statements may be kept.
    pub(super) fn is_prepared(&self) -> bool {
        self.prepared
    }

    /// From now on the server lets it lie idle for this long.
    pub(super) async fn idle_for(&mut self, limit: Duration) -> Result<()> {
        let ms = limit.as_millis();
        let set = format!("SET LOCAL idle_in_transaction_session_timeout = {ms}");
        self.conn()?.execute(set.as_str()).await.map_err(translate)?;
        Ok(())
    }

    /// The connection.
    pub(super) fn conn(&mut self) -> Result<&mut PgConnection> {
        self.conn.as_deref_mut().ok_or_else(|| StoreError::Defect("transaction is over".into()))
    }

    /// Commits. When the answer is lost, whether it took effect is unknown.
    pub(super) async fn commit(self) -> Result<()> {
        self.end("COMMIT").await
    }

    /// Undoes everything and keeps the connection.
    pub(super) async fn rollback(self) -> Result<()> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, word: &'static str) -> Result<()> {
        self.conn()?.execute(word).await.map_err(translate)?;
        self.conn.take();
        Ok(())
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            drop(conn.detach());
        }
    }
}

impl Postgres {
    /// Begins. A client that is stopped in the middle must not hold its locks for long, so that the server ends
    /// what takes over `limit`.
    pub(super) async fn begin(&self, lane: Lane, limit: Duration) -> Result<Tx> {
        self.begin_with_lock_wait(lane, limit, limit).await
    }

    /// For fenced writes: a third of the shortest lease that this process asked for, so that a client that stops
    /// in the middle loses its locks before others may take over.
    pub(super) fn write_limit(&self) -> Duration {
        Duration::from_millis(self.lease_ms.load(Ordering::Relaxed)) / 3
    }

    /// Notes how long leases last.
    pub(super) fn note_lease(&self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.lease_ms.fetch_min(ms, Ordering::Relaxed);
    }

    /// As [`Self::begin`], waiting for locks no longer than `lock_wait`.
    pub(super) async fn begin_with_lock_wait(
        &self,
        lane: Lane,
        limit: Duration,
        lock_wait: Duration,
    ) -> Result<Tx> {
        let conn = self.lanes.pool(lane).acquire().await.map_err(translate)?;
        let mut tx = Tx { conn: Some(conn), prepared: self.lanes.prepared };
        let ms = limit.as_millis();
        // Below the statement's limit, so that a lock that cannot be had reads as what it is.
        let lock_ms = lock_wait.as_millis().min(ms * 9 / 10);
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {ms}; SET LOCAL lock_timeout = {lock_ms}; \
             SET LOCAL idle_in_transaction_session_timeout = {ms}; SET LOCAL gatefeed.ours = 'on'"
        );
        tx.conn()?.execute(begin.as_str()).await.map_err(translate)?;
        Ok(tx)
    }

    /// Whether the database answers.
    pub(super) async fn answer(&self) -> Result<()> {
        let tx = self.begin(Lane::Work, Duration::from_secs(2)).await?;
        tx.rollback().await
    }
}
