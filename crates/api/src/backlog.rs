//! The bound of a feed's backlog: what is available is counted now and then, up to the bound, and what this process
//! has taken in since is added.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use gatefeed_core::Store;
use tokio::sync::Mutex;

use crate::problem::Problem;

/// Counting takes at most one part in so many of the time, and is not done more often than this.
const SHARE: u32 = 20;
const INTERVAL_MIN: Duration = Duration::from_millis(500);

/// When to ask again.
const RETRY_SECONDS: u64 = 2;

/// Feeds that are remembered.
const FEEDS_MAX: usize = 10_000;

#[derive(Debug)]
struct Counted {
    items: u64,
    next_at: Instant,
}

/// The backlog of one feed.
#[derive(Debug, Default)]
struct Feed {
    counted: RwLock<Option<Counted>>,
    /// Taken in since. A count and items that are given back can meet, so that it may be below zero for a moment.
    since: AtomicI64,
    counting: Mutex<()>,
}

/// The bound, and the feeds.
#[derive(Debug)]
pub(crate) struct Backlog {
    max: Option<u64>,
    feeds: RwLock<HashMap<String, Arc<Feed>>>,
}

impl Backlog {
    pub(crate) fn new(max: Option<u64>) -> Self {
        Self { max, feeds: RwLock::default() }
    }

    /// Whether there is one.
    pub(crate) fn is_bounded(&self) -> bool {
        self.max.is_some()
    }

    /// Counts so many items more. Errs when the feed has too much work for them.
    pub(crate) async fn check(
        &self,
        store: &dyn Store,
        feed: &str,
        items: usize,
    ) -> Result<Counting, Problem> {
        let Some(max) = self.max else { return Ok(Counting::default()) };
        if items as u64 > max {
            return Err(Problem::too_large(format!(
                "these are {items} items, and {max} of a feed may wait for a watcher (--max-backlog): send so many at a time \
                 at the most"
            )));
        }
        let backlog = self.feed(feed);
        if backlog.is_stale() {
            backlog.count(store, feed, max).await?;
        }
        let items = i64::try_from(items).unwrap_or(i64::MAX);
        let waiting = backlog.add(items);
        if waiting <= max {
            return Ok(Counting { feed: Some(backlog), items });
        }
        backlog.take_back(items);
        Err(Problem::backlog(
            format!(
                "with these {items} more than {max} of the feed {feed:?} would wait for a watcher, which is as many as \
                 may: send this again later"
            ),
            RETRY_SECONDS,
        ))
    }

    fn feed(&self, name: &str) -> Arc<Feed> {
        if let Some(feed) = self.feeds.read().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Arc::clone(feed);
        }
        let mut feeds = self.feeds.write().unwrap_or_else(PoisonError::into_inner);
        if feeds.len() >= FEEDS_MAX {
            feeds.clear();
        }
        Arc::clone(feeds.entry(name.to_owned()).or_default())
    }
}

/// Items that are counted as taken in. Dropped, those that were not added count no more.
#[derive(Debug, Default)]
pub(crate) struct Counting {
    feed: Option<Arc<Feed>>,
    items: i64,
}

impl Counting {
    /// So many of them were added.
    pub(crate) fn added(mut self, items: u64) {
        self.items -= i64::try_from(items).unwrap_or(i64::MAX).min(self.items);
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Some(feed) = &self.feed {
            feed.take_back(self.items);
        }
    }
}

impl Feed {
    fn is_stale(&self) -> bool {
        let counted = self.counted.read().unwrap_or_else(PoisonError::into_inner);
        counted.as_ref().is_none_or(|counted| Instant::now() >= counted.next_at)
    }

    /// One counts; the first time the others wait for it.
    async fn count(&self, store: &dyn Store, feed: &str, max: u64) -> Result<(), Problem> {
        let has_counted = self.counted.read().unwrap_or_else(PoisonError::into_inner).is_some();
        let _counting = match self.counting.try_lock() {
            Ok(counting) => counting,
            Err(_) if has_counted => return Ok(()),
            Err(_) => self.counting.lock().await,
        };
        if !self.is_stale() {
            return Ok(());
        }
        let started = Instant::now();
        let before = self.since.load(Ordering::Relaxed);
        let items = store.backlog(feed, max.saturating_add(1)).await?;
        // What came while it was counted may have been counted too: then it counts twice until the next time.
        self.since.fetch_sub(before, Ordering::Relaxed);
        let next_at = Instant::now() + (started.elapsed() * SHARE).max(INTERVAL_MIN);
        *self.counted.write().unwrap_or_else(PoisonError::into_inner) = Some(Counted { items, next_at });
        Ok(())
    }

    fn add(&self, items: i64) -> u64 {
        let since = self.since.fetch_add(items, Ordering::Relaxed) + items;
        let counted = self.counted.read().unwrap_or_else(PoisonError::into_inner);
        counted.as_ref().map_or(0, |counted| counted.items) + since.max(0).unsigned_abs()
    }

    fn take_back(&self, items: i64) {
        self.since.fetch_sub(items, Ordering::Relaxed);
    }
}
