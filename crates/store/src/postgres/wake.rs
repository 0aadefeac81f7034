//! NOTIFY: hints that something became due. Polling finds it anyway, only later.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use gatefeed_core::{Result, store::Wakeups};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::{sync::Notify, task::JoinHandle};

use super::{
    Postgres,
    error::translate,
    pool::{Lane, Tx},
};

/// How long to wait before a broken listener is made again, at most.
const RECONNECT_MAX: Duration = Duration::from_secs(5);

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
        let mut tx = self.begin(Lane::Work, Duration::from_secs(2)).await?;
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
        let heard = Arc::new(Notify::new());
        let payloads = payloads.iter().cloned().collect();
        let task = self
            .lanes
            .listen
            .clone()
            .map(|options| tokio::spawn(listen_for_ever(options, channel, payloads, heard.clone())));
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

async fn listen_for_ever(
    options: PgConnectOptions,
    channel: String,
    payloads: HashSet<String>,
    heard: Arc<Notify>,
) {
    let mut wait = Duration::from_millis(100);
    loop {
        match listen_once(&options, &channel, &payloads, &heard, &mut wait).await {
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, "the notification connection broke; polling meanwhile"),
        }
        // Whatever was notified meanwhile went unheard.
        heard.notify_one();
        tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
        wait = (wait * 2).min(RECONNECT_MAX);
    }
}

async fn listen_once(
    options: &PgConnectOptions,
    channel: &str,
    payloads: &HashSet<String>,
    heard: &Notify,
    wait: &mut Duration,
) -> Result<(), sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(1).connect_with(options.clone()).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.listen(channel).await?;
    *wait = Duration::from_millis(100);
    heard.notify_one();
    while let Some(notification) = listener.try_recv().await? {
        if payloads.contains(notification.payload()) {
            heard.notify_one();
        }
    }
    Ok(())
}
