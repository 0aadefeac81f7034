//! Watchers as they report themselves, for people who want to know who is at work and how fast.

use std::{sync::Arc, time::Duration};

use crate::circuit::Circuit;

/// How often a watcher reports, about.
pub const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// For how long after its last report a watcher counts as alive: some reports may be late or fail.
pub const ALIVE_FOR: Duration = Duration::from_secs(20);

/// After this time the last report of a watcher that ended without saying so is forgotten.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// For how long a watcher's asking for partitions counts: those that hold some look more often than that.
pub const ASKS_FOR: Duration = Duration::from_millis(800);

/// What a watcher reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Its name: the `owner` of its leases.
    pub watcher: Arc<str>,
    /// Its version of gatefeed.
    pub version: &'static str,
    /// Its budget of deliveries in flight, over all its feeds.
    pub concurrency: usize,
    /// What it does, by feed; one entry for each feed that it serves.
    pub feeds: Vec<FeedReport>,
}

/// What a watcher does in one feed.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedReport {
    /// The feed.
    pub feed: String,
    /// Partitions that it holds.
    pub partitions: usize,
    /// Deliveries in flight.
    pub in_flight: usize,
    /// Outcomes written since it started, failed attempts included.
    pub outcomes: u64,
    /// Outcomes written a second since the last report.
    pub outcomes_per_second: f64,
    /// Its targets that the watcher leaves alone; at most [`crate::circuit::CIRCUITS_MAX`] are kept.
    pub circuits: Vec<Circuit>,
}
