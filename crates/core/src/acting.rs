//! What an operator does to a partition, and what it may do by the partition's status. The SQL functions of the Postgres
//! schema decide the same and say it in the same words.

use crate::{
    error::{Result, StoreError},
    partition::{PartitionState, PartitionStatus},
    store::RetryFilter,
};

/// What an operator does to a partition; [`crate::Store`] has a method of each.
#[derive(Clone, Debug)]
pub enum Action {
    /// Makes failed items available again.
    Retry(RetryFilter),
    /// Lets a held partition go.
    Seal,
    /// Raises its gate by hand.
    Advance,
    /// Sets it aside.
    Pause,
    /// Lets it go on.
    Resume,
    /// Ends it.
    Cancel,
    /// Goes back to this gate.
    Rewind(i32),
}

/// What an action came to; zero where it has no such thing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Acted {
    /// Items that were retried, cancelled, or made available by a rewind.
    pub items: u64,
    /// Items that a rewind removed.
    pub removed: u64,
    /// The gate to which the partition was advanced.
    pub gate: i32,
}

/// What a cancellation notes as the partition's `reason`.
pub const CANCELLED: &str = "cancelled by an operator";

/// `Changed` unless the partition is at the version that the action is for; `None`: any will do.
pub fn check_version(partition: &str, found: i64, expected: Option<i64>) -> Result<()> {
    match expected {
        Some(expected) if expected != found => Err(StoreError::Changed(format!(
            "partition {partition:?} is at version {found}, not {expected}: look at it again"
        ))),
        _ => Ok(()),
    }
}

/// Whether a pause changes anything: a paused partition stays paused. `Refused` for one that has ended.
pub fn pause(partition: &str, status: PartitionStatus) -> Result<bool> {
    match status {
        PartitionStatus::Available => Ok(true),
        PartitionStatus::Paused => Ok(false),
        ended => refused(format!("partition {partition:?} cannot be paused: it is {}", ended.as_str())),
    }
}

/// Whether a partition may go on: one that is paused, and one that has failed with open items at or below its gate, as
/// after a deadline. `Refused` for others, since there is nothing to go on with.
pub fn resume(partition: &str, status: PartitionStatus, has_open_item: bool) -> Result<()> {
    match status {
        PartitionStatus::Paused => Ok(()),
        PartitionStatus::Failed if has_open_item => Ok(()),
        PartitionStatus::Failed => refused(format!(
            "partition {partition:?} cannot be resumed: it is failed, and nothing at its gate is open; \
             `gatefeed retry` makes its failed items available"
        )),
        other => refused(format!("partition {partition:?} is not paused: it is {}", other.as_str())),
    }
}

/// Whether a cancellation changes the partition; one that is cancelled stays so, and only open items that have come into
/// it meanwhile are cancelled. `Refused` for a complete one.
pub fn cancel(partition: &str, status: PartitionStatus) -> Result<bool> {
    match status {
        PartitionStatus::Complete => {
            refused(format!("partition {partition:?} is complete: nothing of it is left to cancel"))
        }
        PartitionStatus::Cancelled => Ok(false),
        PartitionStatus::Available | PartitionStatus::Paused | PartitionStatus::Failed => Ok(true),
    }
}

/// Whether a partition may go back to `gate`. `Refused`, saying why not.
pub fn rewind(partition: &str, state: &PartitionState, gate: i32) -> Result<()> {
    let refuse = |why: String| refused(format!("partition {partition:?} cannot be rewound: {why}"));
    if state.status == PartitionStatus::Cancelled {
        return refuse("it is cancelled".to_owned());
    }
    if !state.keep_history {
        return refuse(
            "it keeps no history, so that its items' earlier data is gone; keep_history has to be set before its \
             first item comes"
                .to_owned(),
        );
    }
    if gate < 0 || gate > state.gate {
        return refuse(format!(
            "it is at gate {}, and gate {gate} is not one that it has reached",
            state.gate
        ));
    }
    Ok(())
}

fn refused<T>(why: String) -> Result<T> {
    Err(StoreError::Refused(why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_answer() {
        use PartitionStatus::*;
        let all = [Available, Paused, Complete, Failed, Cancelled];
        let outcomes = |act: &dyn Fn(PartitionStatus) -> Option<bool>| all.map(act);
        assert_eq!(outcomes(&|s| pause("p", s).ok()), [Some(true), Some(false), None, None, None]);
        assert_eq!(
            outcomes(&|s| cancel("p", s).ok()),
            [Some(true), Some(true), None, Some(true), Some(false)]
        );
        let resumed = |open| outcomes(&|s| resume("p", s, open).ok().map(|()| true));
        assert_eq!(resumed(false), [None, Some(true), None, None, None]);
        assert_eq!(resumed(true), [None, Some(true), None, Some(true), None]);
    }
}
