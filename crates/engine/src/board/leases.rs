//! Partitions come, stay and go.

use std::{sync::Arc, time::Duration};

use gatefeed_core::lease::{Grant, Lease, Observed};
use tokio_util::sync::CancellationToken;

use super::{Board, current, queue};
use crate::held::{Held, Reading, Trust};

impl Board {
    /// The leases held now.
    pub(crate) fn leases(&self) -> Vec<Arc<Lease>> {
        self.held.values().map(|held| held.lease.clone()).collect()
    }

    /// Takes a granted partition. A partition that was held already comes with a new lease: the old one ran
    /// out and was claimed again, by this very watcher.
    pub(crate) fn granted(&mut self, grant: Grant, trust: Trust, cancel: CancellationToken) {
        self.remove(&grant.lease.partition.clone());
        self.held.insert(grant.lease.partition.clone(), Held::new(grant, trust, cancel));
    }

    /// Leases whose renewal is due.
    pub(crate) fn renewals(&self, now: Duration) -> Vec<Arc<Lease>> {
        self.held.values().filter(|held| held.renew_at <= now).map(|held| held.lease.clone()).collect()
    }

    pub(crate) fn renewed(&mut self, lease: &Lease, trust: Trust) {
        if let Some(held) = current(&mut self.held, lease) {
            held.trusted_until.set(trust.until);
            held.renew_at = trust.renew_at;
            queue(&mut self.turns, held);
        }
    }

    /// What the database says of a partition now.
    pub(crate) fn observed(&mut self, lease: &Lease, observed: Observed) {
        let Observed::Held(state) = observed else {
            self.lost(lease);
            return;
        };
        let Some(held) = current(&mut self.held, lease) else { return };
        // A look that began before this watcher's own last step shows an older row.
        if state.version < held.state.version || state == held.state {
            return;
        }
        held.state = state;
        held.restart();
        // In another feed it is another watcher's, perhaps, and certainly for another handler.
        held.is_leaving |= held.state.feed != *held.feed;
        if held.is_workable() {
            // There may be more room than there was.
            queue(&mut self.turns, held);
        } else {
            // What is in flight goes on; then the partition is given back, or released by its checkpoint.
            self.buffered -= held.forget_buffer();
        }
    }

    /// Leases whose count of expiries is to be cleared, since an item got through.
    pub(crate) fn progressed(&mut self, lease: &Lease) -> bool {
        self.current(lease).is_some_and(|held| std::mem::take(&mut held.expiries) > 0)
    }

    /// Partitions that are to be given back, and have nothing under way.
    pub(crate) fn leavers(&self) -> Vec<Arc<Lease>> {
        let left = |held: &&Held| {
            held.is_leaving
                && held.known.is_empty()
                && !matches!(held.reading, Reading::Loading | Reading::Checking)
        };
        self.held.values().filter(left).map(|held| held.lease.clone()).collect()
    }

    /// They were given back.
    pub(crate) fn released(&mut self, leases: &[Arc<Lease>]) {
        for lease in leases {
            if self.current(lease).is_some() {
                self.remove(&lease.partition);
            }
        }
    }

    /// The lease is not ours any more: its deliveries are aborted, its buffer is dropped. True if it was held and had anything
    /// left to do: else this watcher's own checkpoint or release may have ended it, whose result is on its way.
    pub(crate) fn lost(&mut self, lease: &Lease) -> bool {
        let Some(held) = self.current(lease) else { return false };
        let was_at_work = !held.known.is_empty();
        self.remove(&lease.partition);
        was_at_work
    }

    pub(super) fn remove(&mut self, partition: &Arc<str>) {
        let Some(mut held) = self.held.remove(partition) else { return };
        held.cancel.cancel();
        held.trusted_until.end();
        self.buffered -= held.forget_buffer();
        self.turns.retain(|id| id != partition);
        self.parked.retain(|id| id != partition);
    }
}
