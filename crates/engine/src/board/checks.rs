//! Gates.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{lease::Lease, store::Checkpointed};
use tokio::time::Instant;

use super::Board;
use crate::held::{Held, Reading};

/// The most partitions of one checkpoint.
const CHECKS_MAX: usize = 64;
/// A partition that others are inserting into is looked at again after this.
const BUSY_REST: Duration = Duration::from_millis(100);

impl Board {
    /// Partitions with nothing left to do at their gate, as far as their owner knows.
    pub(crate) fn checks(&mut self) -> Vec<Arc<Lease>> {
        if self.is_draining {
            return Vec::new();
        }
        let now = Instant::now();
        let done = self.held.values_mut().filter(|held| held.is_through(now));
        let check = |held: &mut Held| {
            held.reading = Reading::Checking;
            held.check_after = None;
            held.lease.clone()
        };
        done.take(CHECKS_MAX).map(check).collect()
    }

    /// Takes the result of a checkpoint.
    pub(crate) fn checked(&mut self, lease: &Lease, result: Checkpointed) {
        let Some(held) = self.current(lease) else { return };
        held.check_has_failed = false;
        // Else it had been failed or released: its gate's time is not over, or not any more.
        held.state.is_past_deadline &= result == Checkpointed::Busy;
        match result {
            Checkpointed::Due => held.reading = Reading::At(None),
            Checkpointed::Wait(time) => held.reading = Reading::Resting(Instant::now() + time),
            Checkpointed::Overdue | Checkpointed::Busy => {
                held.reading = Reading::Resting(Instant::now() + BUSY_REST)
            }
            Checkpointed::Advanced(gate) => {
                held.state.gate = gate;
                held.state.version += 1;
                held.reading = Reading::At(None);
            }
            Checkpointed::Slept | Checkpointed::Closed | Checkpointed::Failed | Checkpointed::Fenced => {
                self.remove(&lease.partition);
            }
        }
    }

    /// Whether the last checkpoint of it could not be made.
    pub(crate) fn check_has_failed(&mut self, lease: &Lease) -> bool {
        self.current(lease).is_some_and(|held| held.check_has_failed)
    }

    /// The checkpoint could not be made: again after a rest. Meanwhile the partition is read as ever, since something may
    /// have come.
    pub(crate) fn check_failed(&mut self, lease: &Lease, rest: Duration) {
        if let Some(held) = self.current(lease) {
            held.reading = Reading::End;
            held.check_after = Some(Instant::now() + rest);
            held.check_has_failed = true;
        }
    }
}
