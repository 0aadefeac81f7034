//! The seam between the queue and whoever does the work.

use std::{borrow::Cow, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use gatefeed_core::{
    answer::Verdict, blob::Link, callback::Ticket, circuit::Circuit, id, retry::RetryPolicy, share::Peers,
};
use uuid::Uuid;

use crate::gathering::Gathering;

/// One attempt to hand an item over.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The partition's feed.
    pub feed: Arc<str>,
    /// The partition.
    pub partition: Arc<str>,
    /// The item's id within the partition.
    pub item: Arc<str>,
    /// The gate at which it is delivered.
    pub gate: i32,
    /// How often it has been accepted, retried by an operator or rewound.
    pub pass: i32,
    /// 1 for the first delivery at this gate, one more for each failed attempt.
    pub attempt: u32,
    /// The lease's fencing token: a handler that has seen a higher one for this partition may refuse.
    pub epoch: i64,
    /// What the data is.
    pub content_type: Cow<'static, str>,
    /// The item's bytes as stored.
    pub data: Bytes,
    /// The version of its row. With [`Self::born`] it names this attempt, for whoever answers by a callback.
    pub version: i64,
    /// [`gatefeed_core::item::DueItem::born`].
    pub born: i64,
    /// How it is repeated if it fails.
    pub retry: RetryPolicy,
    /// Where the handler fetches the data by itself; then `data` is empty.
    pub link: Option<Link>,
    /// What came before it, if it asks for that. Over HTTP it is part of the body.
    pub gathering: Option<Gathering>,
}

impl Delivery {
    /// Stable for partition, item and pass: what was done under this key need not be done again.
    pub fn idempotency_key(&self) -> Uuid {
        id::idempotency_key(&self.partition, &self.item, self.pass)
    }

    /// What a callback's token says ([`gatefeed_core::callback`]): with it, a processor may answer
    /// [`gatefeed_core::answer::Answer::by_callback`].
    pub fn ticket(&self, timeout: Duration, max_answer: u64) -> Ticket {
        Ticket {
            partition: self.partition.clone(),
            item: self.item.clone(),
            version: self.version,
            born: self.born,
            timeout,
            retry: self.retry.clone(),
            max_answer,
        }
    }
}

/// Does the work of one delivery. Must not block its thread (`tokio::task::spawn_blocking` is there for that),
/// and is dropped at an await point when the lease is lost or the grace period of a shutdown ends.
pub trait Processor: Send + Sync + 'static {
    /// Works on one item. An `Err` is a failed attempt; a panic counts as one too.
    fn process(&self, delivery: Delivery) -> impl Future<Output = Verdict> + Send;

    /// Works on a batch of one partition and gate ([`crate::Batch`]); the verdicts are in the order of the items. Unless
    /// there is a better way, each is worked on by itself, all at the same time.
    fn process_batch(&self, deliveries: Vec<Delivery>) -> impl Future<Output = Vec<Verdict>> + Send {
        join_all(deliveries.into_iter().map(|delivery| self.process(delivery)))
    }

    /// Whether a delivery of this feed at this gate makes sense now; asked before an item is taken, so that while
    /// every target is down items wait in the database instead of being tried. Asked often: no more than a look.
    fn is_ready(&self, _feed: &str, _gate: i32) -> bool {
        true
    }

    /// An item of this feed and gate is about to be taken: whether it may be. Asked once for each delivery, whose
    /// beginning may then count on what is limited being reserved for it.
    fn reserve(&self, feed: &str, gate: i32) -> bool {
        self.is_ready(feed, gate)
    }

    /// Whether nothing of this feed got through when it was last tried, at whatever gate: its handlers cannot be reached from
    /// here, or keep failing. Until one has answered, this watcher claims of it only what has been due for so long that
    /// nobody else seems to take it, unless it is the only one. Asked when partitions are to be claimed.
    fn is_down(&self, _feed: &str) -> bool {
        false
    }

    /// The targets of a feed that are left alone now, for people ([`gatefeed_core::inspect::WatcherStatus`]). Asked about
    /// once a second.
    fn circuits(&self, _feed: &str) -> Vec<Circuit> {
        Vec::new()
    }

    /// Whether it keeps limits that hold for all watchers of a feed together. Then it is told of the others
    /// ([`Self::split`]) before the first delivery, and every few seconds.
    fn is_split(&self) -> bool {
        false
    }

    /// These serve its feeds too: from now on it keeps its share of limits.
    fn split(&self, _peers: &Peers) {}

    /// Resolves when [`Self::is_ready`] may say yes where it said no before this was called.
    fn readiness_changed(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

impl<F, Fut> Processor for F
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Verdict> + Send,
{
    fn process(&self, delivery: Delivery) -> impl Future<Output = Verdict> + Send {
        self(delivery)
    }
}
