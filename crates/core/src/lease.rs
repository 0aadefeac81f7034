//! Leases: who owns a partition, and how long its watcher may rely on that. docs/protocol.md has the prose.

use std::{sync::Arc, time::Duration};

use uuid::Uuid;

use crate::{error::StoreError, partition::PartitionState};

/// The shortest lease: below it a renewal delayed by an ordinary hiccup loses the partition.
pub const DURATION_MIN: Duration = Duration::from_secs(1);

/// The lease that a watcher asks for unless told otherwise.
pub const DURATION_DEFAULT: Duration = Duration::from_secs(30);

/// From this many expiries without progress on, a partition is run in suspect mode: one item at a time, each
/// attempt written before it is sent, until one gets through.
pub const SUSPECT_EXPIRIES: i32 = 2;

/// One grant of one partition. Owner, lease id and epoch together are the fence: a write that carries a lease
/// that is not current changes nothing. The lease id matters beside the epoch because after an asynchronous
/// failover of the database the same epoch can be issued twice.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Lease {
    /// The partition.
    pub partition: Arc<str>,
    /// The watcher that holds it.
    pub owner: Arc<str>,
    /// New with every grant.
    pub lease_id: Uuid,
    /// Grows with every grant; travels to the handler.
    pub epoch: i64,
}

impl Lease {
    /// Nobody's: for an outcome that is written under the partition's lock instead ([`crate::callback`]).
    pub fn nobodys(partition: Arc<str>) -> Self {
        Self { partition, owner: "".into(), lease_id: Uuid::nil(), epoch: 0 }
    }
}

/// What a watcher asks for when it has room.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who asks.
    pub owner: Arc<str>,
    /// The feeds it serves.
    pub feeds: Vec<String>,
    /// How long the lease shall last; at least [`DURATION_MIN`].
    pub duration: Duration,
    /// At most this many partitions; zero claims none.
    pub limit: usize,
    /// Only partitions that have been due for this long, and free ones: what nobody else has taken.
    pub due_for: Duration,
}

/// A granted lease and the partition as it was then.
#[derive(Clone, Debug)]
pub struct Grant {
    /// The lease.
    pub lease: Arc<Lease>,
    /// The partition's row.
    pub state: PartitionState,
    /// How often in a row its leases have expired without progress, this take-over included.
    pub expiries: i32,
}

/// What became of a renewal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Renewal {
    /// The lease lasts for another duration.
    Renewed,
    /// The row was locked by somebody: not renewed, not lost. Ask again soon.
    Skipped,
    /// Another lease is current, or the partition is gone: stop, and abort what is running.
    Lost,
}

/// What an owner sees when it looks at a partition that it holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Observed {
    /// The lease is current; this is the row now.
    Held(PartitionState),
    /// Another lease is current, or the partition is gone.
    Lost,
}

impl Observed {
    /// Whether the owner may go on with the partition.
    pub fn is_workable(&self) -> bool {
        matches!(self, Self::Held(state) if state.is_workable())
    }
}

/// Until when a lease may be trusted for sending: the moment the claim or renewal was *started*, plus the
/// duration, less a margin of a fifth for clock rates and for a request on its way. `started` and the answer
/// are readings of a clock that also runs while the machine sleeps, since any starting point.
pub fn trusted_until(started: Duration, duration: Duration) -> Duration {
    started + duration - duration / 5
}

/// How long to wait between renewals: a third of the lease leaves two more tries before trust ends.
pub fn renew_interval(duration: Duration) -> Duration {
    duration / 3
}

/// Checks a lease duration that somebody chose.
pub fn check_duration(duration: Duration) -> Result<(), StoreError> {
    if duration < DURATION_MIN || duration > Duration::from_secs(24 * 3600) {
        return Err(StoreError::Config(format!(
            "a lease duration of {duration:?} will not do: it must be between 1s and 24h"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_ends_before_the_lease_and_after_two_missed_renewals() {
        for secs in [1, 30, 3600] {
            let duration = Duration::from_secs(secs);
            let started = Duration::from_secs(1000);
            let trust = trusted_until(started, duration);
            assert!(trust < started + duration);
            assert!(trust > started + 2 * renew_interval(duration));
        }
    }

    #[test]
    fn durations_are_bounded() {
        assert!(check_duration(Duration::from_millis(999)).is_err());
        assert!(check_duration(DURATION_MIN).is_ok());
        assert!(check_duration(Duration::from_secs(48 * 3600)).is_err());
    }
}
