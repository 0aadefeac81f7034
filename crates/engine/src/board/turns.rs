//! Items go out.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{item::DueItem, lease::Lease};
use tokio_util::sync::CancellationToken;

use super::{Board, UNWRITTEN_BYTES_MAX, UNWRITTEN_MAX, current, queue};
use crate::{
    held::{Held, TrustedUntil},
    lanes::Lanes,
    policy::Batch,
};

/// An item to be delivered now, or the first of a batch.
pub(crate) struct Turn {
    pub(crate) origin: Origin,
    pub(crate) item: DueItem,
    /// How it is batched; `None`: it is delivered by itself.
    pub(crate) batch: Option<Batch>,
    /// The rest of its batch.
    pub(crate) more: Vec<DueItem>,
    /// The partition is still being read, and may have more for the batch soon.
    pub(crate) may_grow: bool,
    /// The partition's buffer is running low: time to read on.
    pub(crate) is_low: bool,
}

/// Where an item comes from: its partition, as this watcher holds it.
pub(crate) struct Origin {
    pub(crate) lease: Arc<Lease>,
    pub(crate) feed: Arc<str>,
    pub(crate) suspect: bool,
    /// Whether the outcome keeps what it replaces.
    pub(crate) keep_history: bool,
    /// Whether a delivery may still begin, should something come between.
    pub(crate) trusted_until: TrustedUntil,
    pub(crate) cancel: Arc<CancellationToken>,
}

impl Origin {
    fn of(held: &Held) -> Self {
        Self {
            lease: held.lease.clone(),
            feed: held.feed.clone(),
            suspect: held.is_suspect(),
            keep_history: held.state.keep_history,
            trusted_until: held.trusted_until.clone(),
            cancel: held.cancel.clone(),
        }
    }
}

/// What a partition sends in its turn: so many of its buffered items, from this one on.
struct Choice {
    first: usize,
    count: usize,
    batch: Option<Batch>,
}

impl Board {
    /// The next item to deliver: partitions take turns, one item each.
    pub(crate) fn next_turn(&mut self, now: Duration) -> Option<Turn> {
        if self.unwritten >= UNWRITTEN_MAX || self.unwritten_bytes >= UNWRITTEN_BYTES_MAX {
            return None;
        }
        if self.in_flight >= self.concurrency {
            // With fewer slots than there were, and with batches, which can take all of it.
            self.was_full |= !self.turns.is_empty();
            return None;
        }
        // Twice around: one that gave way to others is asked again when none of them could send.
        for _ in 0..2 * self.turns.len() {
            let id = self.turns.pop_front()?;
            if let Some(choice) = self.choose(&id, now) {
                return self.begin(&id, choice);
            }
        }
        None
    }

    /// What a partition that has its turn sends now. `None`: nothing; it waits for another turn, for a bound or a handler, or
    /// comes back by [`queue`] when that changes.
    fn choose(&mut self, id: &Arc<str>, now: Duration) -> Option<Choice> {
        let spare = self.concurrency.saturating_sub(self.in_flight);
        let (kept, share) = self.kept_back();
        let (lanes, held) = (&self.lanes, self.held.get_mut(id)?);
        held.has_turn = false;
        if !held.may_send(now) {
            return None;
        }
        if spare <= kept && held.in_flight >= share {
            // What is kept for others is not its own: more slots would be of use.
            self.was_full = true;
            queue(&mut self.turns, held);
            return None;
        }
        let Some(first) = held.next_item(|gate| lanes.may_send(&held.feed, gate)) else {
            // It keeps what it has, and takes nobody's time until that changes.
            held.park();
            self.parked.push(id.clone());
            return None;
        };
        let gate = held.buffer[first].gate;
        let budget = spare.saturating_sub(kept).max(spare.min(share.saturating_sub(held.in_flight)));
        let batch = lanes.batch(&held.feed, gate);
        let count = match batch {
            Some(batch) => batch_count(lanes, held, first, batch, budget, self.concurrency / 10),
            None => Some(1),
        };
        let Some(count) = count else {
            queue(&mut self.turns, held);
            return None;
        };
        if !lanes.reserve(&held.feed, gate) {
            held.park();
            self.parked.push(id.clone());
            return None;
        }
        Some(Choice { first, count, batch })
    }

    /// Takes it out of the partition's buffer.
    fn begin(&mut self, id: &Arc<str>, Choice { first, count, batch }: Choice) -> Option<Turn> {
        let page_items = self.page_items();
        let has_room = self.buffered <= self.buffer_max();
        let held = self.held.get_mut(id)?;
        let mut items = held.buffer.drain(first..first + count);
        let item = items.next()?;
        let more: Vec<DueItem> = items.collect();
        let taken = 1 + more.len();
        held.in_flight += taken;
        held.parked_since = None;
        self.lanes.sent(&held.feed, item.gate, taken);
        self.buffered -= taken;
        self.in_flight += taken;
        self.in_flight_max = self.in_flight_max.max(self.in_flight);
        queue(&mut self.turns, held);
        let origin = Origin::of(held);
        let is_single = item.gather.is_some() || origin.suspect;
        let may_grow =
            !is_single && batch.is_some_and(|batch| taken < batch.size) && held.is_all_taken_for_now();
        let is_low = held.is_low(page_items, has_room);
        Some(Turn { origin, item, batch, more, may_grow, is_low })
    }

    /// Adds to a batch what has come for it since.
    pub(crate) fn grow(&mut self, turn: &mut Turn) {
        let Some(batch) = turn.batch else { return };
        let (kept, share) = self.kept_back();
        let spare = self.concurrency.saturating_sub(self.in_flight);
        let Some(held) = current(&mut self.held, &turn.origin.lease) else {
            turn.may_grow = false;
            return;
        };
        let budget = spare.saturating_sub(kept).max(spare.min(share.saturating_sub(held.in_flight)));
        let bytes: u64 = turn.item.size + turn.more.iter().map(|item| item.size).sum::<u64>();
        let left = Batch { size: batch.size.saturating_sub(1 + turn.more.len()), ..batch };
        let bytes_left = self.lanes.batch_bytes_max.saturating_sub(bytes);
        let supply = held.supply(0, turn.item.gate, left.size, bytes_left);
        let room = self.lanes.room(&held.feed, turn.item.gate).0.min(held.room());
        let count = if held.is_workable() { supply.min(budget).min(room) } else { 0 };
        turn.more.extend(held.buffer.drain(..count));
        turn.may_grow =
            count == supply && count < left.size && held.is_workable() && held.is_all_taken_for_now();
        held.in_flight += count;
        self.lanes.sent(&held.feed, turn.item.gate, count);
        self.buffered -= count;
        self.in_flight += count;
    }

    /// How many slots are kept for partitions that have fewer than a share of them: else one that comes along
    /// would wait for deliveries of others, which may hang. A tenth; of fewer than ten slots, one, and only
    /// while another partition is waiting for its turn.
    pub(super) fn kept_back(&self) -> (usize, usize) {
        match self.concurrency {
            0..=1 => (0, 0),
            slots @ 2..=9 => (usize::from(!self.turns.is_empty()), slots.div_ceil(2)),
            slots => (slots / 10, slots / 10),
        }
    }

    /// What waited for a bound or a handler, and need not wait any more, has its turn again. True if there was any.
    pub(crate) fn unpark(&mut self) -> bool {
        let parked = self.parked.len();
        let (lanes, turns, held) = (&self.lanes, &mut self.turns, &mut self.held);
        self.parked.retain(|id| {
            let Some(held) = held.get_mut(id) else { return false };
            let may_send = |gate| lanes.may_send(&held.feed, gate);
            let stays = !held.buffer.is_empty() && held.next_item(may_send).is_none();
            if !stays {
                held.has_turn = false;
                queue(turns, held);
            }
            stays
        });
        self.parked.len() < parked
    }

    /// A delivery of this feed and gate has ended, whatever came of it. True if others waited for that.
    pub(crate) fn left_lane(&mut self, feed: &str, gate: i32) -> bool {
        self.lanes.landed(feed, gate) && self.unpark()
    }
}

/// How many items the batch has that begins with this one. `None`: few, although there are more, since other deliveries
/// take the room; it is worth waiting for one of them to end. A tenth of the budget is enough, so that what hangs holds up
/// nobody.
fn batch_count(
    lanes: &Lanes,
    held: &Held,
    first: usize,
    batch: Batch,
    budget: usize,
    tenth: usize,
) -> Option<usize> {
    let item = &held.buffer[first];
    if held.is_suspect() || item.gather.is_some() {
        return Some(1);
    }
    let bytes_left = lanes.batch_bytes_max.saturating_sub(item.size);
    let supply = 1 + held.supply(first + 1, item.gate, batch.size.saturating_sub(1), bytes_left);
    let (room, max) = lanes.room(&held.feed, item.gate);
    let allowed = budget.min(room).min(held.room());
    let max = held.state.max_in_flight.map_or(max, |own| max.min(own as usize));
    let is_worth_it = allowed >= supply.min(tenth.max(1)).min(max);
    is_worth_it.then_some(supply.min(allowed).max(1))
}
