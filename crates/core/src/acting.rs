//! What an operator may do to a partition, by its status. The SQL functions of the Postgres schema decide the same and
//! say it in the same words.

use crate::{
    error::{Result, StoreError},
    partition::{PartitionState, PartitionStatus},
};

/// What a cancellation notes as the partition's `reason`.
pub const CANCELLED: &str = "cancelled by an operator";

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
