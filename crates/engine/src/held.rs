//! One partition that this watcher holds.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use foldhash::{HashSet, HashSetExt};
use gatefeed_core::{
    item::DueItem,
    lease::{Grant, Lease, SUSPECT_EXPIRIES, renew_interval, trusted_until},
    partition::PartitionState,
    store::{Cursor, PageRequest},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::board::BATCH_MAX;

/// A partition whose row somebody has locked sends no more while this many of its outcomes are unwritten, so that it
/// does not fill what all partitions share.
const UNWRITTEN_LOCKED_MAX: usize = 500;
/// Any partition stops at this many, since that its row is locked is only known once one could not be written.
const UNWRITTEN_MAX: usize = 2 * BATCH_MAX;
/// A partition of which nothing could be sent for so long may be better off with another watcher: all of them, since a
/// handler that cannot be reached from here may be reached from there.
const STUCK: Duration = Duration::from_secs(1);

/// How far the owner has read.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reading {
    /// The next page starts here; `None`: at the beginning.
    At(Option<Cursor>),
    /// A page is on its way.
    Loading,
    /// The last page reached the end. What came behind the cursor meanwhile is found by reading again, and
    /// before the partition is let go the checkpoint looks under a lock.
    End,
    /// At a checkpoint.
    Checking,
    /// Nothing to do before then, or before a hint.
    Resting(Instant),
    /// It could not be read: not again before then.
    Unreadable(Instant),
}

/// For how long a claim or a renewal holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trust {
    /// No delivery is begun after this ([`crate::clock`]).
    pub(crate) until: Duration,
    /// When the next renewal is due.
    pub(crate) renew_at: Duration,
}

impl Trust {
    /// Of a claim or renewal that was started then; `jitter` is uniform in [0, 1).
    pub(crate) fn new(started: Duration, duration: Duration, jitter: f64) -> Self {
        let interval = renew_interval(duration).mul_f64(0.8 + 0.2 * jitter);
        Self { until: trusted_until(started, duration), renew_at: started + interval }
    }
}

/// Until when deliveries under a lease may begin ([`crate::clock`]); shared with those that are about to.
#[derive(Clone, Debug)]
pub(crate) struct TrustedUntil(Arc<AtomicU64>);

impl TrustedUntil {
    fn new(until: Duration) -> Self {
        let trusted = Self(Arc::default());
        trusted.set(until);
        trusted
    }

    pub(crate) fn set(&self, until: Duration) {
        self.0.store(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// The lease is not ours any more.
    pub(crate) fn end(&self) {
        self.set(Duration::ZERO);
    }

    /// Whether a delivery may begin now.
    pub(crate) fn holds(&self, now: Duration) -> bool {
        now.as_nanos() < u128::from(self.0.load(Ordering::Acquire))
    }
}

/// A leased partition: its row, what is buffered, and what is under way.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) lease: Arc<Lease>,
    pub(crate) feed: Arc<str>,
    pub(crate) state: PartitionState,
    /// No delivery is begun after this.
    pub(crate) trusted_until: TrustedUntil,
    /// When its renewal is due, by the same clock.
    pub(crate) renew_at: Duration,
    pub(crate) expiries: i32,
    pub(crate) buffer: VecDeque<DueItem>,
    /// Ids that are buffered, in flight or unwritten: never taken from a page again.
    pub(crate) known: HashSet<Arc<str>>,
    /// Ids whose outcome was written while a page was on its way: the page may show them as they were before,
    /// so that they stay known until it has come.
    pub(crate) leaving: Vec<Arc<str>>,
    pub(crate) in_flight: usize,
    /// Its outcomes that are not written yet: many, while somebody has its row locked.
    pub(crate) unwritten: usize,
    /// Somebody had its row locked when an outcome was last to be written.
    pub(crate) is_locked: bool,
    /// It is given back as soon as nothing is under way: others are to have their turn.
    pub(crate) is_leaving: bool,
    pub(crate) granted_at: Instant,
    /// Since when nothing of it could be sent, for want of a handler or of room within a bound.
    pub(crate) parked_since: Option<Instant>,
    pub(crate) reading: Reading,
    /// The page that is on its way is not taken: the partition rests until then.
    pub(crate) rests_until: Option<Instant>,
    /// Its checkpoint went wrong, and is not made again before then.
    pub(crate) check_after: Option<Instant>,
    /// The last one did.
    pub(crate) check_has_failed: bool,
    /// When the current scan began at the beginning.
    pub(crate) scan_started: Instant,
    /// When it was last to be read.
    pub(crate) read_at: Instant,
    /// The first page has not come yet.
    pub(crate) is_unread: bool,
    /// It has a place in the turns.
    pub(crate) has_turn: bool,
    /// Ends its deliveries when the lease is lost.
    pub(crate) cancel: Arc<CancellationToken>,
}

impl Held {
    pub(crate) fn new(grant: Grant, trust: Trust, cancel: CancellationToken) -> Self {
        Self {
            feed: grant.state.feed.as_str().into(),
            lease: grant.lease,
            state: grant.state,
            trusted_until: TrustedUntil::new(trust.until),
            renew_at: trust.renew_at,
            expiries: grant.expiries,
            buffer: VecDeque::new(),
            known: HashSet::new(),
            leaving: Vec::new(),
            in_flight: 0,
            unwritten: 0,
            is_locked: false,
            is_leaving: false,
            granted_at: Instant::now(),
            parked_since: None,
            reading: Reading::At(None),
            rests_until: None,
            check_after: None,
            check_has_failed: false,
            scan_started: Instant::now(),
            read_at: Instant::now(),
            is_unread: true,
            has_turn: false,
            cancel: Arc::new(cancel),
        }
    }

    /// Its leases have expired again and again without progress: one of its items may be killing watchers.
    pub(crate) fn is_suspect(&self) -> bool {
        self.expiries >= SUSPECT_EXPIRIES
    }

    /// Whether it may have one more delivery now. In suspect mode nothing else may be under way, not even an
    /// outcome that is unwritten: what is `known` beyond the buffer.
    pub(crate) fn may_send(&self, now: Duration) -> bool {
        let is_within_bounds = match self.is_suspect() {
            true => self.known.len() == self.buffer.len(),
            false => self.state.max_in_flight.is_none_or(|max| self.in_flight < max as usize),
        };
        is_within_bounds
            && self.unwritten < if self.is_locked { UNWRITTEN_LOCKED_MAX } else { UNWRITTEN_MAX }
            && !self.buffer.is_empty()
            && self.is_workable()
            && self.trusted_until.holds(now)
    }

    /// The first item whose gate may be sent to: as a rule the first of all, since pages are in order of the gates.
    pub(crate) fn next_item(&self, may_send: impl Fn(i32) -> bool) -> Option<usize> {
        let mut refused = None;
        self.buffer.iter().position(|item| {
            if refused == Some(item.gate) {
                return false;
            }
            let may = may_send(item.gate);
            refused = (!may).then_some(item.gate);
            may
        })
    }

    /// How many buffered items from `from` on go into a batch at this gate: those that follow each other, do not gather, and
    /// have no more bytes together.
    pub(crate) fn supply(&self, from: usize, gate: i32, most: usize, mut bytes_left: u64) -> usize {
        let fits = |item: &&DueItem| {
            let fits = item.gate == gate && item.gather.is_none() && item.size <= bytes_left;
            bytes_left = bytes_left.saturating_sub(item.size);
            fits
        };
        self.buffer.iter().skip(from).take(most).take_while(fits).count()
    }

    /// How many more deliveries the partition's own bound allows.
    pub(crate) fn room(&self) -> usize {
        self.state.max_in_flight.map_or(usize::MAX, |max| (max as usize).saturating_sub(self.in_flight))
    }

    /// Nothing is buffered, and more is about to be read.
    pub(crate) fn is_all_taken_for_now(&self) -> bool {
        self.buffer.is_empty() && matches!(self.reading, Reading::At(_) | Reading::Loading)
    }

    /// Whether nobody has set it aside or ended it, and its gate's time is not over.
    pub(crate) fn is_available(&self) -> bool {
        self.state.is_workable()
    }

    /// Whether it is to be read and sent from.
    pub(crate) fn is_workable(&self) -> bool {
        self.is_available() && !self.is_leaving
    }

    /// Whether it has more to send than what is in flight, as far as its owner knows, and goes on sending.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_workable() && !self.is_suspect() && !self.buffer.is_empty()
    }

    /// It waits for a handler or a bound, and has no turn until that changes.
    pub(crate) fn park(&mut self) {
        self.has_turn = true;
        self.parked_since.get_or_insert_with(Instant::now);
    }

    /// Nothing of it is under way, and nothing could be sent for a while.
    pub(crate) fn is_stuck(&self, now: Instant) -> bool {
        self.in_flight == 0 && self.parked_since.is_some_and(|since| since + STUCK <= now)
    }

    /// Nothing is left to do, as far as its owner knows: time for a checkpoint. One that is no longer available
    /// is read no further, wherever the reading stands.
    pub(crate) fn is_through(&self, now: Instant) -> bool {
        !self.is_leaving
            && self.known.is_empty()
            && self.check_after.is_none_or(|at| at <= now)
            && match &self.reading {
                Reading::End => true,
                Reading::Loading | Reading::Checking => false,
                Reading::Resting(until) | Reading::Unreadable(until) => !self.is_available() && *until <= now,
                Reading::At(_) => !self.is_available(),
            }
    }

    /// Whether it is to be read on: with a buffer for other partitions' items too, before it is empty.
    pub(crate) fn is_low(&self, page_items: usize, has_room: bool) -> bool {
        matches!(self.reading, Reading::At(_))
            && self.buffer.len() <= page_items / 2
            && (has_room || self.buffer.is_empty())
    }

    /// Drops what is buffered, and says how many items that were; the database has them.
    pub(crate) fn forget_buffer(&mut self) -> usize {
        let items = self.buffer.len();
        for item in self.buffer.drain(..) {
            self.known.remove(&item.id);
        }
        items
    }

    /// The next page, which is on its way from now on.
    pub(crate) fn read_on(&mut self, limit: usize) -> Option<PageRequest> {
        let Reading::At(after) = &self.reading else { return None };
        let after = after.clone();
        self.read_at = Instant::now();
        if after.is_none() {
            self.scan_started = self.read_at;
        }
        self.reading = Reading::Loading;
        Some(PageRequest { lease: self.lease.clone(), after, limit })
    }

    /// An item's outcome is written.
    pub(crate) fn forget(&mut self, item: &Arc<str>) {
        if self.reading == Reading::Loading {
            self.leaving.push(item.clone());
        } else {
            self.known.remove(item);
        }
    }

    /// A page has come, or has failed to: what was leaving is gone now.
    pub(crate) fn let_leave(&mut self) -> usize {
        let leaving = std::mem::take(&mut self.leaving);
        leaving.iter().for_each(|item| _ = self.known.remove(item));
        leaving.len()
    }

    /// Reads from the beginning next, or after its rest.
    pub(crate) fn restart(&mut self) {
        if !matches!(self.reading, Reading::Loading | Reading::Checking | Reading::Unreadable(_)) {
            self.reading = Reading::At(None);
        }
    }
}
