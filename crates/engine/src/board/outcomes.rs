//! What deliveries come to.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{lease::Lease, outcome::Settled};
use tokio::time::Instant;

use super::{BATCH_MAX, Board, UNWRITTEN_MAX, current, queue};
use crate::held::{Held, Reading};

impl Board {
    /// The delivery ended; its outcome, of this many bytes, is to be written. True if there is no reason to wait for
    /// others before that: nothing else is under way, or they are enough for a batch.
    pub(crate) fn answered(&mut self, lease: &Lease, bytes: usize) -> bool {
        self.landed(lease, 1);
        self.unwritten += 1;
        self.unwritten_bytes += bytes;
        self.in_flight == 0 || self.unwritten == BATCH_MAX
    }

    /// The delivery ended without an outcome: the item stays as it is in the database.
    pub(crate) fn given_up(&mut self, lease: &Lease, item: &str) {
        self.landed(lease, 0);
        if let Some(held) = self.current(lease) {
            held.known.remove(item);
            held.restart();
        }
    }

    /// The database has the item but did not hand it out: the partition rests.
    pub(crate) fn put_back(&mut self, lease: &Lease, item: &str, rest: Duration) {
        self.given_up(lease, item);
        self.rest(lease, rest);
    }

    fn landed(&mut self, lease: &Lease, unwritten: usize) {
        self.in_flight -= 1;
        if let Some(held) = current(&mut self.held, lease) {
            held.in_flight -= 1;
            held.unwritten += unwritten;
            queue(&mut self.turns, held);
        }
    }

    /// An item that waits has waited for too long: whether its outcome, of this many bytes, is to be written now. Not while the
    /// item is known: then the last of it is not written yet.
    pub(crate) fn overdue(&mut self, lease: &Lease, item: &Arc<str>, bytes: usize) -> bool {
        let is_full = self.unwritten >= UNWRITTEN_MAX;
        let Some(held) = current(&mut self.held, lease).filter(|held| held.is_workable()) else {
            return false;
        };
        if is_full || self.is_draining || !held.known.insert(item.clone()) {
            return false;
        }
        held.unwritten += 1;
        self.unwritten += 1;
        self.unwritten_bytes += bytes;
        true
    }

    /// The leases of partitions that are worked on and take outcomes, as far as is known, with their feeds. What somebody has
    /// locked, or the database takes no outcome of, must not take the place of others.
    pub(crate) fn writable(&self) -> Vec<(Arc<Lease>, Arc<str>)> {
        if self.is_draining {
            return Vec::new();
        }
        let now = Instant::now();
        let is_resting = |held: &Held| matches!(held.reading, Reading::Unreadable(until) if until > now);
        let is_writable = |held: &&Held| held.is_workable() && !held.is_locked && !is_resting(held);
        let all = self.held.values().filter(is_writable);
        all.map(|held| (held.lease.clone(), held.feed.clone())).collect()
    }

    /// An outcome was written, or turned out to be nobody's. `due_gate`: the lowest gate of this partition at
    /// which it may have made something due. True if the lease is fenced off and was held until now.
    pub(crate) fn settled(
        &mut self,
        lease: &Lease,
        item: &Arc<str>,
        settled: Settled,
        due_gate: Option<i32>,
        bytes: usize,
    ) -> bool {
        self.unwritten -= 1;
        self.unwritten_bytes -= bytes;
        if settled == Settled::Fenced {
            return self.lost(lease);
        }
        if let Some(held) = current(&mut self.held, lease) {
            held.unwritten -= 1;
            held.is_locked = false;
            held.forget(item);
            // With dependencies, others may have come free.
            let is_due = due_gate.is_some_and(|gate| gate <= held.state.gate)
                || settled == Settled::Stale
                || held.state.has_dependencies;
            if is_due && held.reading == Reading::End {
                held.reading = Reading::At(None);
            }
            queue(&mut self.turns, held);
        }
        false
    }

    /// The database takes no outcome of the item, which stays as it is: the partition rests.
    pub(crate) fn refused(&mut self, lease: &Lease, item: &Arc<str>, bytes: usize, rest: Duration) {
        self.settled(lease, item, Settled::Stale, None, bytes);
        self.rest(lease, rest);
    }

    /// An outcome could not be written: somebody has the partition's row locked.
    pub(crate) fn locked(&mut self, lease: &Lease) {
        if let Some(held) = self.current(lease) {
            held.is_locked = true;
        }
    }

    /// Counts an outcome that was written, whether its lease is still held or not.
    pub(crate) fn count_written(&mut self, feed: &str) {
        if let Some(written) = self.written.get_mut(feed) {
            *written += 1;
        }
    }
}
