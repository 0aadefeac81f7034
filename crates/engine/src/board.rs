//! What this watcher holds in memory. All decisions about what to claim, read, send and check next are made
//! here, synchronously; the loops around it only carry them out.

mod checks;
mod leases;
mod outcomes;
mod pages;
mod room;
mod turns;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use foldhash::{HashMap, HashMapExt};
use gatefeed_core::lease::Lease;

pub(crate) use self::{
    room::Room,
    turns::{Origin, Turn},
};
use crate::{held::Held, lanes::Lanes};

/// The most partitions of one claim.
pub(crate) const CLAIM_MAX: usize = 32;
/// The most outcomes of one batch.
pub(crate) const BATCH_MAX: usize = 2000;
/// Deliveries stop while this many outcomes are unwritten: a batch that is being written, one that comes after it, and one
/// of which is being taken note …
const UNWRITTEN_MAX: usize = 3 * BATCH_MAX;
/// … or this many bytes of them.
const UNWRITTEN_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What is going on in a feed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Figures {
    /// Partitions held.
    pub(crate) partitions: usize,
    /// Deliveries in flight, but for those of leases that were lost: they are being aborted.
    pub(crate) in_flight: usize,
    /// Outcomes written since the start.
    pub(crate) outcomes: u64,
}

/// The partitions and the counts over all of them.
#[derive(Debug)]
pub(crate) struct Board {
    held: HashMap<Arc<str>, Held>,
    /// Partitions with something to send, each once, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    /// Partitions with something to send that may not be sent now: their handler is down, or their feed or gate has as
    /// much in flight as it may.
    parked: Vec<Arc<str>>,
    concurrency: usize,
    poll_interval: Duration,
    buffered: usize,
    in_flight: usize,
    unwritten: usize,
    unwritten_bytes: usize,
    /// Outcomes written since the start, by feed; an entry for each that is served.
    written: BTreeMap<Arc<str>, u64>,
    /// What may be sent, by feed and gate.
    lanes: Lanes,
    is_draining: bool,
    /// Something has waited for a slot since this was last asked for.
    was_full: bool,
    /// The most that were in flight since then.
    in_flight_max: usize,
}

impl Board {
    pub(crate) fn new(concurrency: usize, poll_interval: Duration, feeds: &[String]) -> Self {
        Self {
            held: HashMap::new(),
            turns: VecDeque::new(),
            parked: Vec::new(),
            concurrency,
            poll_interval,
            buffered: 0,
            in_flight: 0,
            unwritten: 0,
            unwritten_bytes: 0,
            written: feeds.iter().map(|feed| (feed.as_str().into(), 0)).collect(),
            lanes: Lanes::default(),
            is_draining: false,
            was_full: false,
            in_flight_max: 0,
        }
    }

    /// With bounds for feeds and gates, and with who says which are ready.
    pub(crate) fn with_lanes(self, lanes: Lanes) -> Self {
        Self { lanes, ..self }
    }

    /// How many deliveries may be in flight.
    pub(crate) fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Changes how many may be in flight, and says how many it was. With fewer, none begins before enough have ended.
    pub(crate) fn set_concurrency(&mut self, concurrency: usize) -> usize {
        std::mem::replace(&mut self.concurrency, concurrency)
    }

    /// Whether something has waited for a slot since this was last asked, and the most that were in flight.
    pub(crate) fn take_usage(&mut self) -> (bool, usize) {
        let was_full = std::mem::take(&mut self.was_full);
        (was_full, std::mem::replace(&mut self.in_flight_max, self.in_flight))
    }

    /// Nothing is held, nothing is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.in_flight == 0 && self.unwritten == 0
    }

    /// Outcomes that are not written yet.
    pub(crate) fn unwritten(&self) -> usize {
        self.unwritten
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// What is going on, by feed: each that is served, once.
    pub(crate) fn figures(&self) -> BTreeMap<Arc<str>, Figures> {
        let of =
            |(feed, &outcomes): (&Arc<str>, &u64)| (feed.clone(), Figures { outcomes, ..Figures::default() });
        let mut figures: BTreeMap<_, _> = self.written.iter().map(of).collect();
        for held in self.held.values() {
            if let Some(figures) = figures.get_mut(&held.feed) {
                figures.partitions += 1;
                figures.in_flight += held.in_flight;
            }
        }
        figures
    }

    /// Stops sending and reading; what is in flight goes on.
    pub(crate) fn drain(&mut self) {
        self.is_draining = true;
        self.turns.clear();
        self.parked.clear();
        for held in self.held.values_mut() {
            held.has_turn = false;
            held.forget_buffer();
        }
        self.buffered = 0;
    }

    /// Ends what is in flight: it stays as it is in the database.
    pub(crate) fn cancel_deliveries(&self) {
        self.held.values().for_each(|held| held.cancel.cancel());
    }

    fn current(&mut self, lease: &Lease) -> Option<&mut Held> {
        current(&mut self.held, lease)
    }
}

/// The partition under exactly this lease.
fn current<'a>(held: &'a mut HashMap<Arc<str>, Held>, lease: &Lease) -> Option<&'a mut Held> {
    held.get_mut(&lease.partition).filter(|held| *held.lease == *lease)
}

/// Gives a partition a place in the turns if it can send and has none.
fn queue(turns: &mut VecDeque<Arc<str>>, held: &mut Held) {
    if !held.has_turn && !held.buffer.is_empty() {
        held.has_turn = true;
        turns.push_back(held.lease.partition.clone());
    }
}

#[cfg(test)]
mod tests;
