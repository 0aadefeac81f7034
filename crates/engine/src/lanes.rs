//! What may be sent of a feed and gate: within bounds of its own, and while its handlers can be reached.

use std::{fmt, sync::Arc};

use foldhash::{HashMap, HashMapExt};

use crate::policy::{Batch, Policies};

/// Whether a delivery of a feed at a gate makes sense now.
pub(crate) type Ready = Arc<dyn Fn(&str, i32) -> bool + Send + Sync>;

/// What is in flight of feeds and gates that have a bound of their own, and what is ready.
pub(crate) struct Lanes {
    ready: Ready,
    /// Feeds with a bound, or with a gate that has one.
    bounded: HashMap<Arc<str>, Bounds>,
    /// Feeds with batches at some gate: those of a gate (`Some`), and of all others.
    batched: HashMap<Arc<str>, Vec<AtGate>>,
    /// The most bytes of a batch.
    pub(crate) batch_bytes_max: u64,
}

/// How items are batched at a gate; without one, at all that have no entry of their own.
type AtGate = (Option<i32>, Option<Batch>);

#[derive(Debug, Default)]
struct Bounds {
    feed: Count,
    gates: Vec<(i32, Count)>,
}

#[derive(Debug)]
struct Count {
    in_flight: usize,
    max: usize,
}

impl Default for Count {
    fn default() -> Self {
        Self { in_flight: 0, max: usize::MAX }
    }
}

impl Count {
    fn is_full(&self) -> bool {
        self.room() == 0
    }

    fn room(&self) -> usize {
        self.max.saturating_sub(self.in_flight)
    }
}

impl Bounds {
    fn gate(&mut self, gate: i32) -> Option<&mut Count> {
        self.gates.iter_mut().find(|(own, _)| *own == gate).map(|(_, count)| count)
    }

    fn is_full(&self, gate: i32) -> bool {
        let own = self.gates.iter().find(|(own, _)| *own == gate);
        self.feed.is_full() || own.is_some_and(|(_, count)| count.is_full())
    }
}

impl Default for Lanes {
    fn default() -> Self {
        Self {
            ready: Arc::new(|_, _| true),
            bounded: HashMap::new(),
            batched: HashMap::new(),
            batch_bytes_max: 0,
        }
    }
}

impl Lanes {
    pub(crate) fn new(policies: &Policies, batch_bytes_max: u64, ready: Ready) -> Self {
        let mut bounded: HashMap<Arc<str>, Bounds> = HashMap::new();
        for (feed, gate, max) in policies.bounds() {
            let bounds = bounded.entry(feed.into()).or_default();
            let count = Count { in_flight: 0, max };
            match gate {
                Some(gate) => bounds.gates.push((gate, count)),
                None => bounds.feed = count,
            }
        }
        let mut batched: HashMap<Arc<str>, Vec<AtGate>> = HashMap::new();
        for (feed, gate, batch) in policies.batches() {
            batched.entry(feed.into()).or_default().push((gate, batch));
        }
        batched.retain(|_, gates| gates.iter().any(|(_, batch)| batch.is_some()));
        Self { ready, bounded, batched, batch_bytes_max }
    }

    /// How items at this gate of this feed are batched.
    pub(crate) fn batch(&self, feed: &str, gate: i32) -> Option<Batch> {
        if self.batched.is_empty() {
            return None;
        }
        // Those of gates come before those of all others.
        let of_gate = self.batched.get(feed)?.iter().find(|(own, _)| own.is_none_or(|own| own == gate));
        of_gate.and_then(|(_, batch)| *batch)
    }

    /// How many more deliveries may begin, and how many there may be at all.
    pub(crate) fn room(&self, feed: &str, gate: i32) -> (usize, usize) {
        let Some(bounds) = self.bounded.get(feed) else { return (usize::MAX, usize::MAX) };
        let own = bounds.gates.iter().find(|(own, _)| *own == gate).map(|(_, count)| count);
        let (room, max) = (bounds.feed.room(), bounds.feed.max);
        own.map_or((room, max), |own| (room.min(own.room()), max.min(own.max)))
    }

    /// Whether one more delivery may begin.
    pub(crate) fn may_send(&self, feed: &str, gate: i32) -> bool {
        let has_room =
            self.bounded.is_empty() || self.bounded.get(feed).is_none_or(|bounds| !bounds.is_full(gate));
        has_room && (self.ready)(feed, gate)
    }

    /// Deliveries of so many items begin.
    pub(crate) fn sent(&mut self, feed: &str, gate: i32, items: usize) {
        let Some(bounds) = self.of(feed) else { return };
        bounds.feed.in_flight += items;
        if let Some(count) = bounds.gate(gate) {
            count.in_flight += items;
        }
    }

    /// A delivery has ended. True if others could not begin because of it.
    pub(crate) fn landed(&mut self, feed: &str, gate: i32) -> bool {
        let Some(bounds) = self.of(feed) else { return false };
        let was_full = bounds.is_full(gate);
        bounds.feed.in_flight = bounds.feed.in_flight.saturating_sub(1);
        if let Some(count) = bounds.gate(gate) {
            count.in_flight = count.in_flight.saturating_sub(1);
        }
        was_full
    }

    fn of(&mut self, feed: &str) -> Option<&mut Bounds> {
        if self.bounded.is_empty() { None } else { self.bounded.get_mut(feed) }
    }

    /// How many deliveries a feed may have in flight; `None`: as many as all.
    pub(crate) fn max(&self, feed: &str) -> Option<usize> {
        self.bounded.get(feed).map(|bounds| bounds.feed.max).filter(|max| *max < usize::MAX)
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes").field("bounded", &self.bounded).finish_non_exhaustive()
    }
}
