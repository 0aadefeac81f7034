//! What every operation has at hand.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use gatefeed_core::{Result, Store, inspect::Awaited};
use tokio::sync::{Notify, Semaphore};

use crate::{
    access::{Access, Openness},
    backlog::Backlog,
    budget::Budget,
    events::Seen,
    group::Group,
    watched::Watched,
};

/// How long the feed of a partition is remembered. It does not change but by hand.
const FEED_REMEMBERED: Duration = Duration::from_secs(10);

/// Partitions whose feed is remembered.
const FEEDS_MAX: usize = 10_000;

/// Requests that wait for something at a time, streams of events included.
const WAITERS_MAX: usize = 256;

/// How the API behaves.
#[derive(Clone, Debug)]
pub struct ApiOptions {
    /// The most bytes of an item's data.
    pub payload_max: usize,
    /// The most bytes of a body with many items.
    pub bulk_max: usize,
    /// The most bytes of bodies that are not committed yet, over all requests.
    pub in_flight_max: usize,
    /// The most bytes of answers with data that are not read yet, over all requests.
    pub answers_max: usize,
    /// The most items of a feed that may wait for a watcher; `None`: as many as come.
    pub backlog_max: Option<u64>,
    /// Who may use it as long as no token has ever been made.
    pub openness: Openness,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            payload_max: 16 << 20,
            bulk_max: 64 << 20,
            in_flight_max: 256 << 20,
            answers_max: 256 << 20,
            backlog_max: None,
            openness: Openness::Closed,
        }
    }
}

/// The state behind the router; cheap to clone.
pub(crate) type App = Arc<Inner>;

pub(crate) struct Inner {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) options: ApiOptions,
    pub(crate) access: Access,
    pub(crate) budget: Budget,
    pub(crate) answers: Budget,
    pub(crate) backlog: Backlog,
    pub(crate) group: Group,
    pub(crate) waiters: Arc<Semaphore>,
    /// What requests wait for, and whether it has ended.
    pub(crate) waits: Watched<Awaited, bool>,
    /// Partitions whose events are followed.
    pub(crate) follows: Watched<String, Seen>,
    /// Rung when one more is.
    pub(crate) followed: Notify,
    feeds: Mutex<HashMap<String, (Instant, String)>>,
}

impl Inner {
    pub(crate) fn start(store: Arc<dyn Store>, options: ApiOptions) -> App {
        Arc::new(Self {
            access: Access::new(Arc::clone(&store), options.openness),
            budget: Budget::new(options.in_flight_max),
            answers: Budget::new(options.answers_max),
            backlog: Backlog::new(options.backlog_max),
            group: Group::start(&store),
            waiters: Arc::new(Semaphore::new(WAITERS_MAX)),
            waits: Watched::default(),
            follows: Watched::default(),
            followed: Notify::new(),
            feeds: Mutex::default(),
            store,
            options,
        })
    }

    /// The feed of a partition, if it exists.
    pub(crate) async fn feed_of(&self, partition: &str) -> Result<Option<String>> {
        if let Some((at, feed)) = self.feeds.lock().unwrap_or_else(PoisonError::into_inner).get(partition)
            && at.elapsed() < FEED_REMEMBERED
        {
            return Ok(Some(feed.clone()));
        }
        let Some(glance) = self.store.glance(partition).await? else { return Ok(None) };
        let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
        if feeds.len() >= FEEDS_MAX {
            feeds.clear();
        }
        feeds.insert(partition.to_owned(), (Instant::now(), glance.feed.clone()));
        Ok(Some(glance.feed))
    }
}
