//! Connections: lanes, so that a queue in one never delays another, and transactions that cannot wedge a lane.

use std::{
    str::FromStr,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use deadpool::{
    Runtime,
    managed::{Object, Pool, PoolError, QueueMode, TimeoutType},
};
use gatefeed_core::{Result, StoreError};
use sqlx::{
    Connection, Executor, PgConnection, Postgres as Pg, Row,
    postgres::{PgArguments, PgConnectOptions},
    query::Query,
};

use tokio::time::timeout;

use super::{
    Postgres,
    connect::{Connector, Limits, Session},
    error::translate,
    turns::Turn,
};
use crate::without_password;

/// How long to wait for a connection.
pub(super) const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long people do: rather than be refused while others' looks and actions are slow.
const PEOPLE_PATIENCE: Duration = Duration::from_secs(20);

/// For the answer to a BEGIN, which takes the server no time.
const BEGIN_MAX: Duration = Duration::from_secs(5);

/// A connection of a lane that is not kept is closed when it was not taken for this long.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Which pool a call uses. Who waits for it decides: a watcher for the lanes that are kept, others for the rest, whose
/// connections are made when they are wanted. What may take long, or wait for somebody's lock, is apart from what
/// may not.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    /// Renewals, and nothing else.
    Renew,
    /// Outcomes: one connection, since two that share-lock one partition make multixacts and can deadlock.
    Complete,
    /// What else a watcher does.
    Work,
    /// Pushes, which may stay open while their caller fetches the next items.
    Push,
    /// Callbacks, which wait for a partition's lock.
    Call,
    /// Items that arrive one by one: one transaction after another, and beside it those that wait for somebody's lock.
    Ingest,
    /// What is looked up by its key before something else can go on: a caller's rights, whether the database answers.
    Ask,
    /// What deliveries gather, and how many items wait.
    Scan,
    /// All data of an item, which may be much.
    Fetch,
    /// What people look at, which may take a minute.
    Look,
    /// What operators do, which may take minutes.
    Act,
    /// Notifications, whose commits wait for each other's on the whole server.
    Tell,
}

impl Lane {
    /// As they are numbered.
    pub(super) const ALL: [Self; 12] = [
        Self::Renew,
        Self::Complete,
        Self::Work,
        Self::Push,
        Self::Call,
        Self::Ingest,
        Self::Ask,
        Self::Scan,
        Self::Fetch,
        Self::Look,
        Self::Act,
        Self::Tell,
    ];

    /// Connections, at most. Their sums are told in `docs/operations.md`.
    pub(super) const fn size(self) -> usize {
        match self {
            Self::Renew | Self::Complete | Self::Tell => 1,
            Self::Ask | Self::Scan | Self::Fetch => 2,
            Self::Work | Self::Look | Self::Act => 3,
            Self::Call | Self::Ingest => 4,
            Self::Push => 8,
        }
    }

    /// A watcher's own.
    pub(super) const fn is_kept(self) -> bool {
        matches!(self, Self::Renew | Self::Complete | Self::Work)
    }

    /// Of its connections, those that one partition may have.
    pub(super) const fn turns(self) -> usize {
        match self {
            Self::Push => 4,
            Self::Call | Self::Act => 2,
            _ => self.size(),
        }
    }

    pub(super) const fn patience(self) -> Duration {
        match self {
            Self::Look | Self::Act => PEOPLE_PATIENCE,
            _ => ACQUIRE_TIMEOUT,
        }
    }
}

/// The pools.
#[derive(Debug)]
pub(super) struct Lanes {
    /// By the lane's number.
    pools: Vec<Pool<Connector>>,
    /// Where LISTEN connects; nowhere behind a pooler, where polling has to do.
    pub(super) listen: Option<PgConnectOptions>,
    /// Whether prepared statements may be kept: not behind a pooler that hands out another server connection
    /// for each transaction.
    prepared: bool,
}

impl Lanes {
    pub(super) async fn connect(url: &str, listen_url: Option<&str>) -> Result<Arc<Self>> {
        let options = parse(url)?;
        let listen = listen_url.map(parse).transpose()?;
        // Not through the pool, which would try again until its patience ends and not say why.
        let first = timeout(ACQUIRE_TIMEOUT, PgConnection::connect_with(&options)).await;
        let first = first.map_err(|_| unreachable(url, "it did not answer in time"))?;
        let first = first.map_err(|error| refused(url, error))?;
        let prepared = is_pinned(first, &options).await;
        let listen = listen.or_else(|| prepared.then(|| options.clone()));
        let pools = Lane::ALL.iter().map(|lane| pool(&options, *lane)).collect::<Result<_>>()?;
        let lanes = Arc::new(Self { pools, listen, prepared });
        tokio::spawn(close_idle_ones(Arc::downgrade(&lanes)));
        Ok(lanes)
    }

    pub(super) async fn close(&self) {
        for pool in &self.pools {
            let idle = pool.retain(|_, _| false).removed;
            pool.close();
            end(idle).await;
        }
    }

    /// Closes what nobody has wanted for so long, of the lanes that are not kept.
    pub(super) async fn trim(&self, idle_max: Duration) {
        for lane in Lane::ALL.into_iter().filter(|lane| !lane.is_kept()) {
            end(self.pool(lane).retain(|_, metrics| metrics.last_used() < idle_max).removed).await;
        }
    }

    /// Drops all that lie idle, without a farewell that nobody may hear.
    fn forget_idle_ones(&self) {
        for pool in &self.pools {
            drop(pool.retain(|_, _| false));
        }
    }

    /// How many there are now.
    #[cfg(test)]
    pub(super) fn connections(&self, lane: Lane) -> usize {
        self.pool(lane).status().size
    }

    fn pool(&self, lane: Lane) -> &Pool<Connector> {
        &self.pools[lane as usize]
    }
}

/// As long as the lanes are there.
async fn close_idle_ones(lanes: Weak<Lanes>) {
    loop {
        tokio::time::sleep(IDLE_MAX / 2).await;
        let Some(lanes) = lanes.upgrade() else { return };
        lanes.trim(IDLE_MAX).await;
    }
}

async fn end(sessions: Vec<Session>) {
    for session in sessions {
        if let Err(error) = session.conn.close().await {
            tracing::debug!(%error, "a connection did not close");
        }
    }
}

fn parse(url: &str) -> Result<PgConnectOptions> {
    let options = PgConnectOptions::from_str(url).map_err(|error| {
        StoreError::Config(format!("the database URL {} cannot be read: {error}", without_password(url)))
    })?;
    Ok(options.application_name("gatefeed"))
}

fn pool(options: &PgConnectOptions, lane: Lane) -> Result<Pool<Connector>> {
    let pool = Pool::builder(Connector::new(options)).max_size(lane.size()).runtime(Runtime::Tokio1);
    let pool = pool.wait_timeout(Some(lane.patience())).create_timeout(Some(ACQUIRE_TIMEOUT));
    // Of those that are made when they are wanted the same ones are used, so that the others become idle.
    let pool = pool.queue_mode(if lane.is_kept() { QueueMode::Fifo } else { QueueMode::Lifo }).build();
    pool.map_err(|error| StoreError::Defect(format!("no pool of connections: {error}")))
}

fn unreachable(url: &str, why: &str) -> StoreError {
    StoreError::Unavailable(format!("cannot reach the database {}: {why}", without_password(url)))
}

fn limits(limit: Duration, lock_wait: Duration) -> Limits {
    let statement_ms = limit.as_millis();
    // Below the statement's limit, so that a lock that cannot be had reads as what it is.
    Limits { statement_ms, lock_ms: lock_wait.as_millis().min(statement_ms * 9 / 10) }
}

fn unavailable(error: PoolError<sqlx::Error>) -> StoreError {
    match error {
        PoolError::Backend(error) => translate(error),
        PoolError::Timeout(TimeoutType::Wait) => StoreError::Unavailable(
            "the database cannot be reached, or is busy: no connection became free in time".into(),
        ),
        error => StoreError::Unavailable(format!("the database cannot be reached: {error}")),
    }
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

/// Whether this connection stays on one server connection: it and another one take turns in asking who serves them, the other
/// one inside of a transaction. Behind a transaction pooler the one gets the server connection that the other has just
/// given back, or another one than before, or, of a single one, none. Not by LISTEN: it would stay on a server
/// connection that others use.
async fn is_pinned(mut one: PgConnection, options: &PgConnectOptions) -> bool {
    const ROUNDS: usize = 8;
    const STARVED: Duration = Duration::from_secs(1);
    let asked = async {
        let mut other = PgConnection::connect_with(options).await?;
        let (mut served, mut is_pinned) = (None, true);
        for _ in 0..ROUNDS {
            let first = served_by(&mut one).await?;
            other.execute("BEGIN").await?;
            let between = served_by(&mut other).await?;
            // A pooler with a single server connection has none to give.
            let again = timeout(STARVED, served_by(&mut one)).await;
            let Ok(again) = again else { return Ok(false) };
            let again = again?;
            other.execute("ROLLBACK").await?;
            let both = (first, between);
            is_pinned &=
                both.0 == again && both.0 != both.1 && served.as_ref().is_none_or(|served| *served == both);
            served = Some(both);
        }
        one.close().await?;
        other.close().await?;
        Ok::<_, sqlx::Error>(is_pinned)
    };
    matches!(timeout(ACQUIRE_TIMEOUT, asked).await, Ok(Ok(true)))
}

/// The process of the server. By the simple protocol, in which a statement is one message.
async fn served_by(conn: &mut PgConnection) -> Result<String, sqlx::Error> {
    let row = conn.fetch_one("SELECT pg_backend_pid()::text").await?;
    row.try_get(0)
}

/// A transaction. Dropped before its commit, it takes its connection with it: that is a rollback that needs no
/// answer from a server that may be gone, and the lane's place is free at once.
pub(super) struct Tx {
    session: Option<Object<Connector>>,
    /// Where only so many may wait for a partition.
    turn: Option<Turn>,
    prepared: bool,
    /// Its one statement is a transaction by itself.
    is_implicit: bool,
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
        let session = self.session.as_deref_mut();
        Ok(&mut session.ok_or_else(|| StoreError::Defect("transaction is over".into()))?.conn)
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
        if !self.is_implicit {
            self.conn()?.execute(word).await.map_err(translate)?;
        }
        self.session.take();
        self.turn.take();
        Ok(())
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            drop(Object::take(session));
        }
    }
}

impl Postgres {
    /// Begins. A client that is stopped in the middle must not hold its locks for long, so that the server ends
    /// what takes over `limit`.
    pub(super) async fn begin(&self, lane: Lane, limit: Duration) -> Result<Tx> {
        self.begin_with_lock_wait(lane, limit, limit).await
    }

    /// For something that may have to wait for this partition, in a lane in which others do not wait for that one.
    pub(super) async fn begin_for(
        &self,
        partition: &str,
        lane: Lane,
        limit: Duration,
        lock_wait: Duration,
    ) -> Result<Tx> {
        let turn = self.turns.wait(lane, partition).await?;
        let mut tx = self.begin_with_lock_wait(lane, limit, lock_wait).await?;
        tx.turn = Some(turn);
        Ok(tx)
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
        let Limits { statement_ms, lock_ms } = limits(limit, lock_wait);
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {statement_ms}; \
             SET LOCAL lock_timeout = {lock_ms}; \
             SET LOCAL idle_in_transaction_session_timeout = {statement_ms}; SET LOCAL gatefeed.ours = 'on'"
        );
        loop {
            let (mut tx, was_used) = self.take(lane).await?;
            let begun = timeout(BEGIN_MAX, tx.conn()?.execute(begin.as_str())).await;
            match begun.map(|begun| begun.map_err(translate)) {
                Ok(Ok(_)) => return Ok(tx),
                // It broke while it lay idle, which is found out here and not by asking it each time before: nothing was
                // done yet. Dropped, it does not come back, so that this ends with a new one.
                Ok(Err(StoreError::Unavailable(_))) if was_used => {}
                Ok(Err(error)) => return Err(error),
                // So did the others, as a rule: something between has forgotten them.
                Err(_) if was_used => self.lanes.forget_idle_ones(),
                Err(_) => return Err(StoreError::Unavailable("the database does not answer".into())),
            }
        }
    }

    /// For exactly one statement, which is then a transaction by itself: one answer of the server to wait for in place of
    /// three. The limits are the session's, and so are set again only where they change. Behind a pooler it begins.
    pub(super) async fn begin_single(&self, lane: Lane, limit: Duration, lock_wait: Duration) -> Result<Tx> {
        if !self.lanes.prepared {
            return self.begin_with_lock_wait(lane, limit, lock_wait).await;
        }
        let (mut tx, _) = self.take(lane).await?;
        tx.is_implicit = true;
        let limits = limits(limit, lock_wait);
        match &mut tx.session {
            Some(session) if session.limits != Some(limits) => {
                let Limits { statement_ms, lock_ms } = limits;
                let set = format!(
                    "SET default_transaction_isolation = 'read committed'; SET statement_timeout = {statement_ms}; \
                     SET lock_timeout = {lock_ms}; SET gatefeed.ours = 'on'"
                );
                session.conn.execute(set.as_str()).await.map_err(translate)?;
                session.limits = Some(limits);
            }
            _ => {}
        }
        Ok(tx)
    }

    /// A connection of a lane, and whether it served before.
    async fn take(&self, lane: Lane) -> Result<(Tx, bool)> {
        let session = self.lanes.pool(lane).get().await.map_err(unavailable)?;
        let was_used = Object::metrics(&session).recycle_count > 0;
        Ok((
            Tx { session: Some(session), turn: None, prepared: self.lanes.prepared, is_implicit: false },
            was_used,
        ))
    }

    /// Whether the database answers.
    pub(super) async fn answer(&self) -> Result<()> {
        let tx = self.begin(Lane::Ask, Duration::from_secs(2)).await?;
        tx.rollback().await
    }
}
