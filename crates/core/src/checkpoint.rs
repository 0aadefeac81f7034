//! Checkpoints: whether a gate rises, and whether a partition closes, fails or goes to sleep.
//!
//! The store locks the partition's row, looks (in a statement of its own, so that it sees whatever was
//! committed before the lock), asks [`decide`], and writes the answer in the same transaction.

use std::{fmt, time::Duration};

use crate::{
    error::StoreError,
    failure_policy::Failures,
    partition::{FailurePolicy, PartitionState, PartitionStatus},
};

/// What the store saw under the lock.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Probe {
    /// The lowest gate that has an open item.
    pub open_gate: Option<i32>,
    /// How long until the first available item at or below the partition's gate is due; zero: it is due.
    pub due_in: Option<Duration>,
    /// How long until the first item that waits for a callback has waited long enough; zero: it has.
    pub waiting_in: Option<Duration>,
    /// The lowest gate that has a failed item.
    pub failed_gate: Option<i32>,
    /// The gates below [`failures_below`] that have failed items, in order; empty where it is `None`.
    pub failures: Vec<Failures>,
    /// How long until the deadline of the partition's gate; zero: it has passed; `None`: there is none.
    pub deadline_in: Option<Duration>,
    /// Whether the partition has an item at all.
    pub any_item: bool,
    /// Whether the lock excluded inserters. While somebody is inserting, only an advance is safe: a late item
    /// is legal, one that is stranded is not.
    pub exclusive: bool,
}

/// What to do with a partition that has nothing in flight.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Something at or below the gate is due: deliver it.
    Due,
    /// Something is due within the time for which its owner keeps an idle partition.
    Wait(Duration),
    /// An item has waited for its callback for too long: its owner settles that.
    Overdue,
    /// An inserter is at work: look again soon.
    Busy,
    /// Release; wake after this long, or, with `None`, when something happens.
    Sleep(Option<Duration>),
    /// Raise the gate to this one, the lowest that has an open item: sparse gates cost one step.
    Advance(i32),
    /// Everything is through: complete, and release.
    Close,
    /// Something is in the way and nothing more is delivered: fail, and release.
    Fail(Stop),
}

/// Why a partition stops. Its text goes into the partition's `reason`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stop {
    /// More failed items than the policy puts up with.
    Failures {
        /// The policy.
        policy: FailurePolicy,
        /// The gate and its failed items; under 'stop' they are not counted.
        failures: Failures,
    },
    /// The gate had open items when its time was over.
    Deadline {
        /// The gate.
        gate: i32,
        /// The time it had.
        deadline: Duration,
    },
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures { policy, failures: Failures { gate, failed, total } } => match policy {
                FailurePolicy::Stop | FailurePolicy::Continue => {
                    write!(f, "an item at gate {gate} is failed, and the failure policy is '{policy}'")
                }
                FailurePolicy::UpTo(_) => write!(
                    f,
                    "{failed} items at gate {gate} are failed, and the failure policy puts up with {policy}"
                ),
                FailurePolicy::UpToShare(_) => write!(
                    f,
                    "{failed} of the {total} items that came to gate {gate} are failed, and the failure policy puts up \
                     with {policy}"
                ),
            },
            Self::Deadline { gate, deadline } => write!(
                f,
                "gate {gate} had open items when its deadline of {} s had passed",
                deadline.as_secs()
            ),
        }
    }
}

/// Decides. `hold` is for how long an owner would rather wait than release.
pub fn decide(state: &PartitionState, probe: &Probe, hold: Duration) -> Verdict {
    let verdict = if probe.open_gate.is_some_and(|open| open <= state.gate) {
        gate_is_open(state, probe, hold)
    } else {
        gate_is_through(state, probe)
    };
    match verdict {
        Verdict::Sleep(_) | Verdict::Close | Verdict::Fail(_) if !probe.exclusive => Verdict::Busy,
        verdict => verdict,
    }
}

/// An open item is left at or below the gate: it is delivered, or waited for, until the gate's time is over.
fn gate_is_open(state: &PartitionState, probe: &Probe, hold: Duration) -> Verdict {
    if probe.deadline_in == Some(Duration::ZERO) {
        let deadline = state.gate_deadline.unwrap_or_default();
        return Verdict::Fail(Stop::Deadline { gate: state.gate, deadline });
    }
    if probe.due_in == Some(Duration::ZERO) {
        return Verdict::Due;
    }
    if probe.waiting_in == Some(Duration::ZERO) {
        return Verdict::Overdue;
    }
    match [probe.due_in, probe.deadline_in, probe.waiting_in].into_iter().flatten().min() {
        Some(next) if next <= hold => Verdict::Wait(next),
        next => Verdict::Sleep(next),
    }
}

/// Nothing open is left at or below the gate.
fn gate_is_through(state: &PartitionState, probe: &Probe) -> Verdict {
    if let Some(stop) = failures_stop(state, probe) {
        return Verdict::Fail(stop);
    }
    match probe.open_gate {
        Some(_) if state.manual_checkpoint => Verdict::Sleep(None),
        Some(next) => Verdict::Advance(next),
        None if probe.any_item && state.auto_close => Verdict::Close,
        None => Verdict::Sleep(None),
    }
}

/// The gate below which failed items are to be counted: the one to which the partition would go next, or none to
/// count at all, since its gate is not through, it has no failed item there or its policy does not ask for a number.
pub fn failures_below(state: &PartitionState, probe: &Probe) -> Option<i64> {
    let bound = match probe.open_gate {
        Some(open) if open <= state.gate => return None,
        Some(open) => i64::from(open),
        None => i64::MAX,
    };
    let has_failed = probe.failed_gate.is_some_and(|failed| i64::from(failed) < bound);
    (state.failure_policy.counts() && has_failed).then_some(bound)
}

/// More failed items than are put up with stand at a gate that the next advance would leave behind.
fn failures_stop(state: &PartitionState, probe: &Probe) -> Option<Stop> {
    let policy = state.failure_policy;
    let is_left_behind =
        |failed: i32| failed <= state.gate || probe.open_gate.is_none_or(|open| failed < open);
    let failures = match policy {
        FailurePolicy::Continue => None,
        FailurePolicy::Stop => {
            let gate = probe.failed_gate.filter(|gate| is_left_behind(*gate));
            gate.map(|gate| Failures { gate, failed: 1, total: 1 })
        }
        FailurePolicy::UpTo(_) | FailurePolicy::UpToShare(_) => probe
            .failures
            .iter()
            .find(|failures| is_left_behind(failures.gate) && !policy.tolerates(failures))
            .copied(),
    };
    failures.map(|failures| Stop::Failures { policy, failures })
}

/// Where an operator's advance of `partition` goes, or, as `Refused`, why it may not.
pub fn by_hand(partition: &str, state: &PartitionState, probe: &Probe) -> Result<i32, StoreError> {
    let gate = state.gate;
    let refuse =
        |why: String| Err(StoreError::Refused(format!("partition {partition:?} cannot advance: {why}")));
    if !matches!(state.status, PartitionStatus::Available | PartitionStatus::Paused) {
        return refuse(format!("it is {}", state.status.as_str()));
    }
    match probe.open_gate {
        Some(open) if open <= gate => refuse(format!(
            "an item at gate {open} is still open, and gate {gate} is through only when none is; \
             `gatefeed items {partition:?} --gate {open}` shows them"
        )),
        Some(next) => match failures_stop(state, probe) {
            Some(stop) => refuse(format!("{stop}; `gatefeed retry {partition:?}` first")),
            None => Ok(next),
        },
        None => refuse(format!("nothing is open above gate {gate}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOLD: Duration = Duration::from_secs(2);

    fn state(gate: i32) -> PartitionState {
        PartitionState {
            feed: "default".into(),
            status: PartitionStatus::Available,
            gate,
            manual_checkpoint: false,
            auto_close: true,
            max_in_flight: None,
            failure_policy: FailurePolicy::Stop,
            gate_deadline: None,
            is_past_deadline: false,
            keep_history: false,
            version: 0,
            has_dependencies: false,
        }
    }

    fn probe(open_gate: Option<i32>) -> Probe {
        Probe {
            open_gate,
            due_in: None,
            waiting_in: None,
            failed_gate: None,
            failures: Vec::new(),
            deadline_in: None,
            any_item: true,
            exclusive: true,
        }
    }

    #[test]
    fn sparse_gates_are_one_step() {
        assert_eq!(decide(&state(0), &probe(Some(1_000_000)), HOLD), Verdict::Advance(1_000_000));
    }

    #[test]
    fn what_waits_for_a_callback_is_looked_after_when_its_time_is_over() {
        let seen = |due: Option<u64>, waiting: u64| Probe {
            due_in: due.map(Duration::from_secs),
            waiting_in: Some(Duration::from_secs(waiting)),
            ..probe(Some(0))
        };
        assert_eq!(decide(&state(0), &seen(None, 60), HOLD), Verdict::Sleep(Some(Duration::from_secs(60))));
        assert_eq!(
            decide(&state(0), &seen(Some(90), 60), HOLD),
            Verdict::Sleep(Some(Duration::from_secs(60)))
        );
        assert_eq!(decide(&state(0), &seen(None, 1), HOLD), Verdict::Wait(Duration::from_secs(1)));
        assert_eq!(decide(&state(0), &seen(None, 0), Duration::ZERO), Verdict::Overdue);
        assert_eq!(decide(&state(0), &seen(Some(0), 0), HOLD), Verdict::Due);
    }

    #[test]
    fn an_open_item_at_or_below_the_gate_holds_it() {
        let due = |ms| Probe { due_in: Some(Duration::from_millis(ms)), ..probe(Some(2)) };
        assert_eq!(decide(&state(3), &due(0), HOLD), Verdict::Due);
        assert_eq!(decide(&state(3), &due(900), HOLD), Verdict::Wait(Duration::from_millis(900)));
        assert_eq!(decide(&state(3), &due(9000), HOLD), Verdict::Sleep(Some(Duration::from_secs(9))));
        assert_eq!(decide(&state(2), &probe(Some(2)), HOLD), Verdict::Sleep(None), "waiting items only");
    }

    #[test]
    fn closing_needs_items_auto_close_and_no_inserter() {
        assert_eq!(decide(&state(0), &probe(None), HOLD), Verdict::Close);
        assert_eq!(decide(&state(0), &Probe { any_item: false, ..probe(None) }, HOLD), Verdict::Sleep(None));
        assert_eq!(decide(&state(0), &Probe { exclusive: false, ..probe(None) }, HOLD), Verdict::Busy);
        let stays_open = PartitionState { auto_close: false, ..state(0) };
        assert_eq!(decide(&stays_open, &probe(None), HOLD), Verdict::Sleep(None));
    }

    #[test]
    fn a_held_gate_does_not_rise_but_the_last_one_closes() {
        let held = PartitionState { manual_checkpoint: true, ..state(0) };
        assert_eq!(decide(&held, &probe(Some(1)), HOLD), Verdict::Sleep(None));
        assert_eq!(decide(&held, &probe(None), HOLD), Verdict::Close);
    }

    #[test]
    fn stop_fails_once_nothing_more_can_be_delivered_and_continue_never() {
        let failed = Probe { failed_gate: Some(0), ..probe(Some(1)) };
        let still_open = Probe { due_in: Some(Duration::ZERO), ..failed.clone() };
        assert_eq!(decide(&state(1), &still_open, HOLD), Verdict::Due);
        let failures = Failures { gate: 0, failed: 1, total: 1 };
        let fail = Verdict::Fail(Stop::Failures { policy: FailurePolicy::Stop, failures });
        assert_eq!(decide(&state(0), &failed, HOLD), fail);
        assert_eq!(decide(&state(0), &Probe { open_gate: None, ..failed.clone() }, HOLD), fail);
        let lenient = PartitionState { failure_policy: FailurePolicy::Continue, ..state(0) };
        assert_eq!(decide(&lenient, &failed, HOLD), Verdict::Advance(1));
        assert_eq!(decide(&lenient, &Probe { open_gate: None, ..failed }, HOLD), Verdict::Close);
    }

    #[test]
    fn a_tolerance_counts_the_gates_that_are_left_behind() {
        let policy = FailurePolicy::UpTo(2);
        let lenient = PartitionState { failure_policy: policy, ..state(0) };
        let failures = |gate, failed| Failures { gate, failed, total: 0 };
        let seen = |failures| Probe { failed_gate: Some(0), failures, ..probe(Some(5)) };
        assert_eq!(failures_below(&lenient, &seen(vec![])), Some(5));
        assert_eq!(failures_below(&lenient, &Probe { open_gate: None, ..seen(vec![]) }), Some(i64::MAX));
        assert_eq!(failures_below(&lenient, &probe(Some(5))), None, "none is failed");
        assert_eq!(
            failures_below(&lenient, &Probe { failed_gate: Some(0), ..probe(Some(0)) }),
            None,
            "not through"
        );
        assert_eq!(failures_below(&state(0), &seen(vec![])), None, "'stop' needs no number");
        let decided = |failures| decide(&lenient, &seen(failures), HOLD);
        assert_eq!(decided(vec![failures(0, 2), failures(1, 2)]), Verdict::Advance(5));
        let stop = Stop::Failures { policy, failures: failures(1, 3) };
        assert_eq!(decided(vec![failures(0, 2), failures(1, 3)]), Verdict::Fail(stop));
        assert!(stop.to_string().starts_with("3 items at gate 1 are failed"), "{stop}");
    }

    #[test]
    fn a_deadline_stops_a_gate_with_open_items_and_no_other() {
        let limited = PartitionState { gate_deadline: Some(Duration::from_secs(60)), ..state(0) };
        let seen = |due: Option<u64>, deadline: u64, open| Probe {
            due_in: due.map(Duration::from_secs),
            deadline_in: Some(Duration::from_secs(deadline)),
            ..probe(open)
        };
        let stop = Verdict::Fail(Stop::Deadline { gate: 0, deadline: Duration::from_secs(60) });
        assert_eq!(decide(&limited, &seen(Some(0), 0, Some(0)), HOLD), stop);
        assert_eq!(decide(&limited, &seen(None, 0, Some(0)), HOLD), stop);
        assert_eq!(decide(&limited, &seen(Some(0), 9, Some(0)), HOLD), Verdict::Due);
        let sleeps = Verdict::Sleep(Some(Duration::from_secs(9)));
        assert_eq!(decide(&limited, &seen(Some(20), 9, Some(0)), HOLD), sleeps);
        assert_eq!(decide(&limited, &seen(None, 9, Some(0)), HOLD), sleeps);
        assert_eq!(decide(&limited, &seen(None, 0, Some(1)), HOLD), Verdict::Advance(1), "it is through");
        assert_eq!(decide(&limited, &seen(None, 0, None), HOLD), Verdict::Close);
    }

    #[test]
    fn an_inserter_does_not_hold_up_an_advance() {
        assert_eq!(
            decide(&state(0), &Probe { exclusive: false, ..probe(Some(1)) }, HOLD),
            Verdict::Advance(1)
        );
    }

    proptest! {
        #[test]
        fn the_gate_only_rises_and_never_past_an_open_item(
            gate in 0..5i32, open in prop::option::of(0..9i32), failed in prop::option::of(0..9i32),
            due_ms in prop::option::of(0..5000u64), any_item: bool, exclusive: bool,
            manual_checkpoint: bool, auto_close: bool, lenient: bool,
        ) {
            let failure_policy = if lenient { FailurePolicy::Continue } else { FailurePolicy::Stop };
            let state = PartitionState { manual_checkpoint, auto_close, failure_policy, ..state(gate) };
            let due_in = due_ms.map(Duration::from_millis);
            let failures = Vec::new();
            let probe =
                Probe { open_gate: open, due_in, waiting_in: None, failed_gate: failed, failures, deadline_in: None, any_item, exclusive };
            match decide(&state, &probe, HOLD) {
                Verdict::Advance(to) => {
                    prop_assert!(to > gate && open == Some(to) && !manual_checkpoint);
                    prop_assert!(lenient || failed.is_none_or(|f| f >= to), "past a failed item");
                    prop_assert_eq!(by_hand("p", &state, &probe).unwrap(), to);
                }
                Verdict::Close => prop_assert!(open.is_none() && any_item && auto_close && exclusive),
                Verdict::Fail(_) => prop_assert!(!lenient && failed.is_some() && exclusive),
                Verdict::Due => prop_assert!(due_in == Some(Duration::ZERO) && open.is_some_and(|o| o <= gate)),
                Verdict::Wait(time) => prop_assert!(time <= HOLD && !time.is_zero()),
                Verdict::Sleep(_) => prop_assert!(exclusive),
                Verdict::Overdue => prop_assert!(false, "nothing waits"),
                Verdict::Busy => prop_assert!(!exclusive),
            }
        }
    }
}
