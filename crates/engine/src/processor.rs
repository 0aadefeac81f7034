//! The seam between the queue and whoever does the work.

use std::{borrow::Cow, future::Future, sync::Arc};

use bytes::Bytes;
use gatefeed_core::{answer::Verdict, blob::Link, id};
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
}

/// Does the work of one delivery. Must not block its thread (`tokio::task::spawn_blocking` is there for that),
/// and is dropped at an await point when the lease is lost or the grace period of a shutdown ends.
pub trait Processor: Send + Sync + 'static {
    /// Works on one item. An `Err` is a failed attempt; a panic counts as one too.
    fn process(&self, delivery: Delivery) -> impl Future<Output = Verdict> + Send;

    /// Resolves when a delivery makes sense; awaited before an item is taken, so that while every target is
    /// down items wait in the database instead of being tried.
    fn ready(&self) -> impl Future<Output = ()> + Send {
        async {}
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
