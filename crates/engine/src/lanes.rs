//! What may be sent of a feed and gate: within bounds of its own, and while its handlers can be reached.

use std::{fmt, sync::Arc};

use foldhash::{HashMap, HashMapExt};

use crate::policy::Policies;

/// Whether a delivery of a feed at a gate makes sense now.
pub(crate) type Ready = Arc<dyn Fn(&str, i32) -> bool + Send + Sync>;

/// What is in flight of feeds and gates that have a bound of their own, and what is ready.
pub(crate) struct Lanes {
    ready: Ready,
    /// Feeds with a bound, or with a gate that has one.
    bounded: HashMap<Arc<str>, Bounds>,
}

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
        self.in_flight >= self.max
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
        Self { ready: Arc::new(|_, _| true), bounded: HashMap::new() }
    }
}

impl Lanes {
    pub(crate) fn new(policies: &Policies, ready: Ready) -> Self {
        let mut bounded: HashMap<Arc<str>, Bounds> = HashMap::new();
        for (feed, gate, max) in policies.bounds() {
            let bounds = bounded.entry(feed.into()).or_default();
            let count = Count { in_flight: 0, max };
            match gate {
                Some(gate) => bounds.gates.push((gate, count)),
                None => bounds.feed = count,
            }
        }
        Self { ready, bounded }
    }

    /// Whether one more delivery may begin.
    pub(crate) fn may_send(&self, feed: &str, gate: i32) -> bool {
        let has_room =
            self.bounded.is_empty() || self.bounded.get(feed).is_none_or(|bounds| !bounds.is_full(gate));
        has_room && (self.ready)(feed, gate)
    }

    /// A delivery begins.
    pub(crate) fn sent(&mut self, feed: &str, gate: i32) {
        let Some(bounds) = self.of(feed) else { return };
        bounds.feed.in_flight += 1;
        if let Some(count) = bounds.gate(gate) {
            count.in_flight += 1;
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
