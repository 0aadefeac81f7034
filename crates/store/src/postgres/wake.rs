//! NOTIFY: hints that something became due. Polling finds it anyway, only later.

use std::{
    collections::{BTreeSet, HashSet},
    io::{self, ErrorKind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use gatefeed_core::{Result, store::Wakeups};
use sqlx::{
    Executor,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{sync::Notify, task::JoinHandle, time::timeout};

use super::{
    Postgres,
    error::translate,
    pool::{ACQUIRE_TIMEOUT, Lane, Tx},
};

/// How long to wait before a broken listener is made again, at most.
const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// How long a listener waits. A router, or an address that has moved to another server, forgets a connection without a
/// word; and who only reads never learns of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// After so much silence the server is asked whether it is still there.
    pub(super) silence_max: Duration,
    /// For each answer; one that has not come by then does not come, and the connection is made again.
    pub(super) answer_max: Duration,
}

impl Patience {
    /// One question in half a minute costs nothing, and is sooner than most routers forget.
    pub(super) const USUAL: Self = Self { silence_max: Duration::from_secs(30), answer_max: ACQUIRE_TIMEOUT };
}

/// What is told.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Hint {
    /// Something may be due in this feed.
    Due(String),
    /// This partition has closed or failed.
    Ended(String),
}

/// Hints that wait for their notification, over all calls of this process.
#[derive(Debug, Default)]
pub(super) struct Pending {
    hints: Mutex<BTreeSet<Hint>>,
    /// Held by the call that is sending.
    pub(super) sending: tokio::sync::Mutex<()>,
    /// A task is about to send.
    is_sender_due: AtomicBool,
}

impl Pending {
    fn hints(&self) -> MutexGuard<'_, BTreeSet<Hint>> {
        self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Postgres {
    /// Notifies after a commit. A NOTIFY in every inserting transaction halves a busy producer, since commits
    /// that notify queue behind each other; so that calls at the same time share one.
    pub(super) async fn announce(&self, hints: Vec<Hint>) {
        if hints.is_empty() {
            return;
        }
        self.pending.hints().extend(hints);
        self.announce_rest().await;
    }

    /// As [`Self::announce`], beside the caller, who has others waiting.
    pub(super) fn announce_soon(&self, hints: Vec<Hint>) {
        if hints.is_empty() {
            return;
        }
        self.pending.hints().extend(hints);
        // One task that has yet to take them is enough, so that they cannot pile up.
        if !self.pending.is_sender_due.swap(true, Ordering::SeqCst) {
            let this = self.clone();
            tokio::spawn(async move { this.announce_rest().await });
        }
    }

    /// Sends what has not been sent.
    pub(super) async fn announce_rest(&self) {
        // A call that is dropped while it sends lets the next one in; what it had taken is found by polling.
        let _sending = self.pending.sending.lock().await;
        self.pending.is_sender_due.store(false, Ordering::SeqCst);
        let hints: Vec<Hint> = std::mem::take(&mut *self.pending.hints()).into_iter().collect();
        // None: the call before took these along.
        if !hints.is_empty()
            && let Err(error) = self.send(&hints).await
        {
            tracing::debug!(%error, "a notification was not sent; polling finds out");
        }
    }

    /// The feed of a partition.
    pub(super) async fn feed_of(&self, tx: &mut Tx, partition: &str) -> Result<String> {
        let find = self.sql.get("SELECT feed FROM {schema}.gatefeed_partitions WHERE id = $1");
        let row = tx.query(find).bind(partition).fetch_one(tx.conn()?).await.map_err(translate)?;
        super::rows::get(&row, "feed")
    }

    async fn send(&self, hints: &[Hint]) -> Result<()> {
        let mut tx = self.begin(Lane::Tell, Duration::from_secs(2)).await?;
        self.notify(&mut tx, hints).await?;
        tx.commit().await
    }

    /// Notifies with a transaction's commit.
    pub(super) async fn notify(&self, tx: &mut Tx, hints: &[Hint]) -> Result<()> {
        if hints.is_empty() {
            return Ok(());
        }
        let (channels, payloads): (Vec<&str>, Vec<&str>) =
            hints.iter().map(|hint| self.address(hint)).unzip();
        let query = "SELECT pg_notify(h.channel, h.payload) FROM unnest($1::text[], $2::text[]) AS h (channel, payload)";
        let query = tx.query(query).bind(channels).bind(payloads);
        query.execute(tx.conn()?).await.map_err(translate)?;
        Ok(())
    }

    /// The channel and the payload.
    fn address<'a>(&'a self, hint: &'a Hint) -> (&'a str, &'a str) {
        match hint {
            Hint::Due(feed) => (&self.sql.channel, feed),
            Hint::Ended(partition) => (&self.sql.ended, partition),
        }
    }

    pub(super) fn listen(&self, channel: String, payloads: &[String]) -> Box<dyn Wakeups> {
        self.listen_with(Patience::USUAL, channel, payloads)
    }

    pub(super) fn listen_with(
        &self,
        patience: Patience,
        channel: String,
        payloads: &[String],
    ) -> Box<dyn Wakeups> {
        let heard = Arc::new(Notify::new());
        let payloads = payloads.iter().cloned().collect();
        let task = self.lanes.listen.clone().map(|options| {
            let listener = Listener { options, channel, payloads, patience, heard: heard.clone() };
            tokio::spawn(listener.run())
        });
        Box::new(Listening { heard, task })
    }
}

struct Listening {
    heard: Arc<Notify>,
    /// Without one, nothing is ever heard.
    task: Option<JoinHandle<()>>,
}

#[async_trait]
impl Wakeups for Listening {
    async fn next(&mut self) {
        self.heard.notified().await;
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

struct Listener {
    options: PgConnectOptions,
    channel: String,
    payloads: HashSet<String>,
    patience: Patience,
    heard: Arc<Notify>,
}

impl Listener {
    async fn run(self) {
        let mut wait = Duration::from_millis(100);
        loop {
            match self.listen_once(&mut wait).await {
                Ok(()) => {}
                Err(error) => tracing::debug!(%error, "the notification connection broke; polling meanwhile"),
            }
            // Whatever was notified meanwhile went unheard.
            self.heard.notify_one();
            tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
            wait = (wait * 2).min(RECONNECT_MAX);
        }
    }

    /// Until the connection is gone. It is then dropped with a farewell that nobody may hear, and ends with TCP's own
    /// patience.
    async fn listen_once(&self, wait: &mut Duration) -> Result<(), sqlx::Error> {
        let mut listener = self.answered(self.connect()).await?;
        *wait = Duration::from_millis(100);
        self.heard.notify_one();
        loop {
            match timeout(self.patience.silence_max, listener.try_recv()).await {
                Ok(Ok(Some(notification))) if self.payloads.contains(notification.payload()) => {
                    self.heard.notify_one();
                }
                Ok(Ok(Some(_))) => {}
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                // What is notified before the answer comes is kept for the next turn.
                Err(_) => _ = self.answered(listener.execute("SELECT 1")).await?,
            }
        }
    }

    async fn connect(&self) -> Result<PgListener, sqlx::Error> {
        let pool = PgPoolOptions::new().max_connections(1).connect_with(self.options.clone()).await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        // Once it is gone, `run` makes another one.
        listener.eager_reconnect(false);
        listener.listen(&self.channel).await?;
        Ok(listener)
    }

    async fn answered<T>(
        &self,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, sqlx::Error> {
        let late = || io::Error::new(ErrorKind::TimedOut, "the server did not answer in time");
        timeout(self.patience.answer_max, work).await.map_err(|_| late())?
    }
}
