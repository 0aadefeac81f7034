//! Connections. Renewals have one of their own, so that they never queue behind writers; readers have a few, apart by who
//! waits for them.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use gatefeed_core::StoreError;
use sqlx::{
    ConnectOptions, Connection, SqliteConnection, SqlitePool,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, OwnedMutexGuard},
    time::timeout,
};

use super::{
    error::Result,
    file::{FileId, file_of, make},
};
use crate::Synchronous;

/// How long SQLite itself polls for the write lock, on its connection's thread. Short, since a dropped call
/// leaves its connection only then; the rest of a caller's patience is spent in a loop here.
const BUSY_POLL: Duration = Duration::from_millis(50);

/// How long a write waits for the transactions of this process, and then for those of others.
pub(super) const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// How long a renewal or a checkpoint does: both can be repeated soon.
const SHORT_PATIENCE: Duration = Duration::from_millis(200);

/// A reading connection that is not a watcher's own is closed when it was not used for this long.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Which reading connections a call uses, as on Postgres, where calls have more lanes: here all writers wait for one lock.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lane {
    /// A watcher's.
    Work,
    /// What is looked up by its key before something else can go on: a caller's rights, whether the database answers.
    Ask,
    /// What deliveries gather, and how many items wait.
    Scan,
    /// All data of an item, which may be much.
    Fetch,
    /// What people look at, which may take a minute.
    Look,
}

impl Lane {
    /// As they are numbered.
    const ALL: [Self; 5] = [Self::Work, Self::Ask, Self::Scan, Self::Fetch, Self::Look];

    /// Connections, at most. Few: each has a thread.
    pub(super) const fn size(self) -> u32 {
        match self {
            Self::Work => 3,
            Self::Ask | Self::Scan | Self::Fetch | Self::Look => 2,
        }
    }
}

/// Rows that a connection's thread reads ahead.
const ROWS_AHEAD: usize = 256;

/// Bytes of the write-ahead log that stay on the disk after a large transaction.
const WAL_BYTES_MAX: u64 = 64 << 20;

/// SQLite's page cache of a connection that writes items, and of each other one.
const WRITER_CACHE_KIB: u32 = 64 << 10;
const CACHE_KIB: u32 = 8 << 10;

/// All connections to one file.
#[derive(Debug)]
pub(super) struct Lanes {
    options: SqliteConnectOptions,
    file: FileId,
    writer: Writer,
    renewer: Writer,
    /// By the lane's number.
    readers: Vec<SqlitePool>,
    /// Held while a renewal waits for the write lock: our own writers let it pass.
    renewing: Mutex<()>,
}

impl Lanes {
    /// Opens the file of a URL, or makes it, and puts it into WAL mode.
    pub(super) async fn open(url: &str, synchronous: Synchronous) -> gatefeed_core::Result<Self> {
        let file = file_of(url)?;
        let options = SqliteConnectOptions::new()
            .filename(&file)
            .synchronous(match synchronous {
                Synchronous::Full => SqliteSynchronous::Full,
                Synchronous::Normal => SqliteSynchronous::Normal,
            })
            .busy_timeout(BUSY_POLL)
            .row_buffer_size(ROWS_AHEAD)
            .pragma("cache_size", format!("-{CACHE_KIB}"))
            .pragma("journal_size_limit", WAL_BYTES_MAX.to_string())
            // The store's wrapper logs calls; sqlx would log a slow statement's whole text.
            .disable_statement_logging();
        make(&options).await.map_err(|error| error.of(&file))?;
        let id = FileId::of(&file);
        Ok(Self::over(options, id))
    }

    fn over(options: SqliteConnectOptions, file: FileId) -> Self {
        let reading = options.clone().busy_timeout(WRITE_PATIENCE).pragma("query_only", "ON");
        let readers = Lane::ALL.map(|lane| readers(&reading, lane)).into();
        Self {
            writer: Writer::new(options.clone().pragma("cache_size", format!("-{WRITER_CACHE_KIB}"))),
            // Moving the log into the file is not for the connection that must be quick.
            renewer: Writer::new(options.clone().pragma("wal_autocheckpoint", "0")),
            readers,
            renewing: Mutex::default(),
            file,
            options,
        }
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        self.options.get_filename()
    }

    /// How to connect to it.
    pub(super) fn options(&self) -> &SqliteConnectOptions {
        &self.options
    }

    /// Closes every connection; the last one of all processes moves the log into the file and removes it.
    pub(super) async fn close(&self) {
        for readers in &self.readers {
            readers.close().await;
        }
        self.renewer.close().await;
        self.writer.close().await;
    }

    /// Errs when the file is not there any more, or is another one: what is written would be gone with the last connection, and
    /// what others write would never be seen.
    fn check_file(&self) -> Result<()> {
        if FileId::of(self.path()) == self.file {
            return Ok(());
        }
        let text = "the database file was moved, deleted or replaced while it was open: put it back, or restart this process";
        Err(StoreError::Unavailable(text.into()).into())
    }

    /// A connection that cannot write.
    pub(super) async fn read(&self, lane: Lane) -> Result<PoolConnection<sqlx::Sqlite>> {
        self.check_file()?;
        Ok(self.readers[lane as usize].acquire().await?)
    }

    /// The write lock.
    pub(super) async fn write(&self) -> Result<Tx> {
        self.check_file()?;
        self.writer.begin(WRITE_PATIENCE, Some(&self.renewing)).await
    }

    /// The write lock, or soon an error that is busy.
    pub(super) async fn write_soon(&self) -> Result<Tx> {
        self.check_file()?;
        self.writer.begin(SHORT_PATIENCE, Some(&self.renewing)).await
    }

    /// The write lock before any other writer of this process, or soon an error that is busy.
    pub(super) async fn renew(&self) -> Result<Tx> {
        self.check_file()?;
        let _passing = self.renewing.lock().await;
        self.renewer.begin(SHORT_PATIENCE, None).await
    }
}

/// Connections that are made when they are wanted.
fn readers(options: &SqliteConnectOptions, lane: Lane) -> SqlitePool {
    // SQLite's connections do not break by lying idle, and a dropped statement ends by itself.
    let pool = SqlitePoolOptions::new().max_connections(lane.size()).test_before_acquire(false);
    let idle_max = if matches!(lane, Lane::Work) { None } else { Some(IDLE_MAX) };
    pool.idle_timeout(idle_max).max_lifetime(None).connect_lazy_with(options.clone())
}

/// One connection for one transaction at a time; made when it is first wanted, and again after it broke.
#[derive(Debug)]
struct Writer {
    options: SqliteConnectOptions,
    slot: Arc<Mutex<Option<SqliteConnection>>>,
}

impl Writer {
    fn new(options: SqliteConnectOptions) -> Self {
        Self { options, slot: Arc::default() }
    }

    /// Waits for the transaction that is under way, if there is one.
    async fn close(&self) {
        let connection = self.slot.lock().await.take();
        if let Some(connection) = connection
            && let Err(error) = connection.close().await
        {
            tracing::debug!(%error, "a connection did not close");
        }
    }

    async fn begin(&self, patience: Duration, renewing: Option<&Mutex<()>>) -> Result<Tx> {
        let queued = timeout(patience, self.slot.clone().lock_owned()).await;
        let mut slot =
            queued.map_err(|_| StoreError::Conflict("another call of this process is writing".into()))?;
        if let Some(renewing) = renewing {
            drop(renewing.lock().await);
        }
        // Taken out while it is in use: dropped together with this call it closes, which ends its transaction.
        let mut connection = match slot.take() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        let begun = lock(&mut connection, patience).await;
        match begun {
            Ok(()) => Ok(Tx { open: Some((slot, connection)) }),
            Err(error) => {
                if error.is_busy() {
                    *slot = Some(connection);
                }
                Err(error)
            }
        }
    }
}

async fn lock(connection: &mut SqliteConnection, patience: Duration) -> Result<()> {
    let started = Instant::now();
    loop {
        match run(connection, "BEGIN IMMEDIATE").await {
            Err(error) if error.is_busy() && started.elapsed() < patience => {}
            begun => return begun,
        }
    }
}

/// Runs a statement without parameters.
pub(super) async fn run(connection: &mut SqliteConnection, statement: &'static str) -> Result<()> {
    sqlx::query(statement).execute(connection).await?;
    Ok(())
}

/// A write transaction. Unless committed it is rolled back, also when the call that has it is dropped. (Not
/// sqlx's own: that one keeps counting a transaction which SQLite has rolled back by itself, as it may do when the
/// disk is full, and then never begins another.)
#[derive(Debug)]
pub(super) struct Tx {
    open: Option<(OwnedMutexGuard<Option<SqliteConnection>>, SqliteConnection)>,
}

impl Tx {
    /// The connection, for statements.
    pub(super) fn conn(&mut self) -> Result<&mut SqliteConnection> {
        match &mut self.open {
            Some((_, connection)) => Ok(connection),
            None => Err(StoreError::Defect("a transaction that has ended is used".into()).into()),
        }
    }

    /// Makes it all durable.
    pub(super) async fn commit(mut self) -> Result<()> {
        run(self.conn()?, "COMMIT").await?;
        self.give_back();
        Ok(())
    }

    fn give_back(&mut self) {
        if let Some((mut slot, connection)) = self.open.take() {
            *slot = Some(connection);
        }
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        // Without a runtime the connection is dropped, which rolls back too.
        if let (Some((slot, connection)), Ok(runtime)) = (self.open.take(), Handle::try_current()) {
            runtime.spawn(roll_back(slot, connection));
        }
    }
}

/// Keeps the connection, and with it its prepared statements, if that goes well.
async fn roll_back(mut slot: OwnedMutexGuard<Option<SqliteConnection>>, mut connection: SqliteConnection) {
    if run(&mut connection, "ROLLBACK").await.is_ok() {
        *slot = Some(connection);
    }
}
