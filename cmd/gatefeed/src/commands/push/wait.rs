//! `--wait`: until the partition closes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gatefeed_core::{
    Store, StoreError,
    inspect::{GateCounts, PartitionRow},
    partition::PartitionStatus,
    store::Wakeups,
};
use tokio::time::sleep;

use crate::{
    gates::{Bars, Gates, pace},
    output::{self, quoted},
};

/// How often bars are drawn, at most.
const BARS_INTERVAL: Duration = Duration::from_millis(250);
/// How often a line is printed, at most.
const LINES_INTERVAL: Duration = Duration::from_secs(5);
/// How often the partition is looked at without a hint.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// For how long hints are gathered.
const HINT_PAUSE: Duration = Duration::from_millis(50);
/// How often watchers are looked for, at most.
const WATCHERS_INTERVAL: Duration = Duration::from_secs(5);
/// The same while there is none: one that has just been started reports within a second.
const MISSED_INTERVAL: Duration = Duration::from_secs(1);
/// For how long watchers may be missing before that is told.
const MISSED_MAX: Duration = Duration::from_secs(4);

/// How the partition ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) status: PartitionStatus,
    /// Why it did not complete.
    pub(super) reason: Option<String>,
    pub(super) gates: Vec<GateCounts>,
}

/// Waits until the partition is complete, failed or cancelled, and shows its gates meanwhile. A database that does
/// not answer for a while is waited for too.
pub(super) async fn wait(store: &dyn Store, id: &str) -> Result<Ended> {
    let mut changes = store.changes(id).await;
    let mut view = View::new();
    loop {
        match look(store, id, &mut view).await {
            Ok(Some(ended)) => return Ok(ended),
            Ok(None) => {}
            Err(error) if is_retryable(&error) => view.unavailable(&error),
            Err(error) => return Err(error.context(format!("cannot wait for {id} any longer"))),
        }
        pause(&mut *changes, view.bars.is_some()).await;
    }
}

fn is_retryable(error: &anyhow::Error) -> bool {
    error.downcast_ref().is_some_and(StoreError::is_retryable)
}

/// Until a hint comes or it is time to look again.
async fn pause(changes: &mut dyn Wakeups, is_drawn: bool) {
    let interval = if is_drawn { BARS_INTERVAL } else { POLL_INTERVAL };
    tokio::select! {
        () = changes.next() => sleep(HINT_PAUSE).await,
        () = sleep(interval) => {}
    }
}

/// One look; what it came to, if the partition has closed.
async fn look(store: &dyn Store, id: &str, view: &mut View) -> Result<Option<Ended>> {
    let row = store.partition(id).await?.context("the partition has been deleted")?;
    if row.status.is_closed() {
        let gates = store.gates(id).await?;
        view.end(&gates, row.gate);
        return Ok(Some(Ended { status: row.status, reason: row.reason, gates }));
    }
    view.update(store, &row).await?;
    view.check_watchers(store, &row).await?;
    Ok(None)
}

/// What is shown while waiting.
struct View {
    /// `None`: lines are printed.
    bars: Option<Bars>,
    gates: Gates,
    next_gates_at: Instant,
    next_watchers_at: Instant,
    watchers: Watchers,
    is_available: bool,
    is_empty: bool,
}

impl View {
    fn new() -> Self {
        let now = Instant::now();
        let bars = Bars::new();
        // The first line would only repeat what was pushed.
        let next_gates_at = if bars.is_some() { now } else { now + LINES_INTERVAL };
        let gates = Gates::default();
        Self {
            bars,
            gates,
            next_gates_at,
            next_watchers_at: now,
            watchers: Watchers::default(),
            is_available: true,
            is_empty: false,
        }
    }

    async fn update(&mut self, store: &dyn Store, row: &PartitionRow) -> Result<()> {
        let started = Instant::now();
        if started < self.next_gates_at {
            return Ok(());
        }
        let counts = store.gates(&row.id).await?;
        self.is_available = true;
        let min = if self.bars.is_some() { BARS_INTERVAL } else { LINES_INTERVAL };
        self.next_gates_at = started + pace(started.elapsed(), min);
        self.gates.update(&counts, row.gate, |_| None);
        if counts.is_empty() && !self.is_empty {
            self.note(&format!("{} has no items: it stays open until it gets some", row.id));
        }
        self.is_empty = counts.is_empty();
        match &self.bars {
            Some(bars) => bars.show(&self.gates),
            None if self.is_empty => {}
            None => output::note(&self.gates.line()),
        }
        Ok(())
    }

    fn end(&mut self, counts: &[GateCounts], reached: i32) {
        self.gates.update(counts, reached, |_| None);
        if let Some(bars) = self.bars.take() {
            bars.show(&self.gates);
            bars.end();
        }
    }

    /// Says so when nobody serves the feed for a while.
    async fn check_watchers(&mut self, store: &dyn Store, row: &PartitionRow) -> Result<()> {
        let started = Instant::now();
        if started < self.next_watchers_at {
            return Ok(());
        }
        let is_watched = row.owner.is_some() || has_watcher(store, &row.feed).await?;
        if self.watchers.seen(is_watched, started) {
            self.note(&nobody(&row.feed));
        }
        self.next_watchers_at = started + pace(started.elapsed(), self.watchers.interval());
        Ok(())
    }

    fn unavailable(&mut self, error: &anyhow::Error) {
        if self.is_available {
            self.note(&format!("waiting for the database: {error:#}"));
        }
        self.is_available = false;
    }

    fn note(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.note(text),
            None => output::note(text),
        }
    }
}

/// Whether somebody serves the feed.
#[derive(Debug, Default)]
struct Watchers {
    /// Since when nobody does.
    missed_since: Option<Instant>,
    is_told: bool,
}

impl Watchers {
    /// Takes what a look has found; returns whether it is time to tell that nobody does.
    fn seen(&mut self, is_watched: bool, now: Instant) -> bool {
        if is_watched {
            *self = Self::default();
            return false;
        }
        let since = *self.missed_since.get_or_insert(now);
        let is_due = !self.is_told && now.duration_since(since) >= MISSED_MAX;
        self.is_told |= is_due;
        is_due
    }

    fn interval(&self) -> Duration {
        let is_urgent = self.missed_since.is_some() && !self.is_told;
        if is_urgent { MISSED_INTERVAL } else { WATCHERS_INTERVAL }
    }
}

async fn has_watcher(store: &dyn Store, feed: &str) -> Result<bool> {
    let feeds = store.status().await?;
    Ok(feeds.iter().any(|status| status.feed == feed && !status.watchers.is_empty()))
}

fn nobody(feed: &str) -> String {
    let flag = match feed {
        gatefeed_core::id::DEFAULT_FEED => String::new(),
        feed => format!(" --feed {}", quoted(feed)),
    };
    format!("no watcher serves the feed {feed}; start one: gatefeed run --target URL{flag}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told after looks, each so many seconds after the start.
    fn told(looks: &[(u64, bool)]) -> Vec<bool> {
        let (start, mut watchers) = (Instant::now(), Watchers::default());
        let look = |(seconds, is_watched): &(u64, bool)| {
            watchers.seen(*is_watched, start + Duration::from_secs(*seconds))
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn a_watcher_that_has_just_been_started_is_not_missed() {
        assert_eq!(told(&[(0, false), (1, false), (3, true), (9, true)]), [false; 4]);
        // It was there, went, and another one came.
        assert_eq!(told(&[(0, true), (100, false), (103, true), (200, false)]), [false; 4]);
    }

    #[test]
    fn that_nobody_serves_the_feed_is_told_once_until_somebody_did() {
        let looks = [(0, false), (3, false), (4, false), (60, false), (61, true), (70, false), (75, false)];
        assert_eq!(told(&looks), [false, false, true, false, false, false, true]);
        let mut watchers = Watchers::default();
        watchers.seen(false, Instant::now());
        assert_eq!(watchers.interval(), MISSED_INTERVAL);
        watchers.seen(true, Instant::now());
        assert_eq!(watchers.interval(), WATCHERS_INTERVAL);
    }
}
