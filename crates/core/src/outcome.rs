//! Outcomes: what becomes of an item after a delivery. Pure; the store only writes it down.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    answer::{Answer, Child, Failure, Next, Verdict},
    dependency::{Dependencies, Input},
    error_log,
    id::{child_id, nested_id},
    item::{Creator, Data, DueItem, ItemStatus, NewItem},
    lease::Lease,
    nested::{Nested, NewNested},
    retry::RetryPolicy,
};

/// What is written to an item's row.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Change {
    /// The new status.
    pub status: ItemStatus,
    /// The new gate; of an item that is complete, the one at which it was delivered.
    pub gate: i32,
    /// The new pass.
    pub pass: i32,
    /// The new retry count; of an item that is complete, the one with which it was delivered.
    pub retry_count: i32,
    /// `available_at` becomes the database's clock plus this; `None` leaves it.
    pub delay: Option<Duration>,
    /// New data; `None` leaves it.
    pub data: Option<Data>,
    /// The new error log; `None` leaves it.
    pub error_messages: Option<String>,
    /// `waiting_until` becomes the database's clock plus this; `None` takes it away.
    pub wait: Option<Duration>,
}

impl Change {
    /// The item is through, and that is all: what most outcomes come to, and stores write at less cost. Its gate and
    /// retry count are those with which it was delivered ([`decide`]), and stay.
    pub fn is_plain(&self) -> bool {
        self.status == ItemStatus::Complete
            && self.delay.is_none()
            && self.data.is_none()
            && self.error_messages.is_none()
    }
}

/// One outcome on its way to the database: written if the lease is current and the item still has the version
/// that was delivered; its children are added in the same transaction or not at all.
#[derive(Clone, Debug)]
pub struct Completion {
    /// The lease under which the item was delivered.
    pub lease: Arc<Lease>,
    /// The feed of the partition, which children's new partitions join.
    pub feed: Arc<str>,
    /// The item.
    pub item: Arc<str>,
    /// The version that was delivered.
    pub version: i64,
    /// What to write.
    pub change: Change,
    /// Items to add.
    pub children: Vec<NewItem>,
    /// Partitions to make for which the item waits; their items are among the children.
    pub nested: Vec<NewNested>,
    /// What to keep of what is replaced, in a partition with `keep_history`.
    pub kept: Option<Kept>,
}

/// What an item was delivered with at a gate, for a rewind to that gate: kept with the outcome that replaces it, unless
/// something is kept for this item and gate already, since that is what it came to the gate with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Kept {
    /// The gate.
    pub gate: i32,
    /// The data.
    pub data: Data,
}

impl Kept {
    /// What to keep when `item`, which was delivered with these bytes, changes like this: nothing, unless it moves on, its
    /// data is replaced, or it waits for partitions, since what became of them comes with its data.
    pub fn of(item: &DueItem, bytes: Bytes, change: &Change) -> Option<Self> {
        let waits_for_partitions = change.status == ItemStatus::Waiting && change.wait.is_none();
        let is_replaced = change.gate != item.gate || change.data.is_some() || waits_for_partitions;
        let data = match &item.reference {
            Some(reference) => reference.to_data(),
            None => Data { bytes, content_type: item.content_type.to_string() },
        };
        is_replaced.then_some(Self { gate: item.gate, data })
    }
}

/// What became of a [`Completion`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Settled {
    /// It is committed.
    Written,
    /// The item has another version: somebody else decided about it. Nothing of it was written.
    Stale,
    /// The lease is not current. Nothing of it was written.
    Fenced,
    /// Somebody has the partition's row locked: not written, not lost. Ask again soon; the other completions of
    /// the batch do not wait for it.
    Busy,
}

/// Decides what an item of `partition` becomes. `jitter` is uniform in [0, 1).
pub fn decide(
    partition: &str,
    item: &DueItem,
    verdict: Verdict,
    policy: &RetryPolicy,
    jitter: f64,
) -> (Change, Vec<NewItem>, Vec<NewNested>) {
    match verdict {
        Ok(answer) => {
            let Answer { next, data, items, partitions, then } = answer;
            let mut children: Vec<NewItem> =
                (0..).zip(items).map(|(index, child)| resolve(partition, item, index, child)).collect();
            let change = match partitions.is_empty() {
                true => accepted(item, next, data),
                false => waiting(item, data),
            };
            let mut nested = Vec::with_capacity(partitions.len());
            for (index, Nested { id, feed, items }) in (0..).zip(partitions) {
                let id = id.unwrap_or_else(|| nested_id(partition, &item.id, item.pass, index));
                children.extend((0..).zip(items).map(|(index, child)| inside(&id, item, index, child)));
                nested.push(NewNested { id, feed, gate: item.gate, pass: change.pass, then });
            }
            (change, children, nested)
        }
        Err(failure) => (failed(item, failure, policy, jitter), Vec::new(), Vec::new()),
    }
}

/// An item of a nested partition.
fn inside(nested: &str, parent: &DueItem, index: i32, child: Child) -> NewItem {
    NewItem {
        partition: nested.to_owned(),
        id: child.id.unwrap_or_else(|| child_id(nested, &parent.id, parent.pass, index)),
        gate: child.gate.unwrap_or(0),
        priority: child.priority,
        available_at: None,
        data: child.data,
        creator: None,
        dependencies: child.dependencies,
        gather: child.gather,
    }
}

fn accepted(item: &DueItem, next: Next, data: Option<Data>) -> Change {
    let pass = item.pass.saturating_add(1);
    let change = Change {
        status: ItemStatus::Complete,
        gate: item.gate,
        pass,
        retry_count: item.retry_count,
        delay: None,
        data,
        error_messages: None,
        wait: None,
    };
    match next {
        Next::Done => change,
        Next::Again { gate, after } => Change {
            status: ItemStatus::Available,
            gate: gate.unwrap_or(item.gate),
            retry_count: 0,
            delay: after,
            ..change
        },
        // The attempt goes on: neither its pass nor its count changes.
        Next::Callback { within } => {
            Change { status: ItemStatus::Waiting, pass: item.pass, data: None, wait: Some(within), ..change }
        }
    }
}

/// The item stays where it is until what it waits for has closed.
fn waiting(item: &DueItem, data: Option<Data>) -> Change {
    Change { status: ItemStatus::Waiting, retry_count: 0, ..accepted(item, Next::Done, data) }
}

fn failed(item: &DueItem, failure: Failure, policy: &RetryPolicy, jitter: f64) -> Change {
    let backoff = policy.backoff(item.retry_count, jitter);
    let mut change = Change {
        status: ItemStatus::Available,
        gate: item.gate,
        pass: item.pass,
        retry_count: item.retry_count,
        delay: Some(failure.retry_after.unwrap_or(backoff)),
        data: None,
        error_messages: Some(error_log::append(item.error_messages.as_deref(), &failure.message)),
        wait: None,
    };
    if failure.no_retry || (failure.counted && !policy.allows_another(item.retry_count)) {
        change.status = ItemStatus::Failed;
        change.delay = None;
    } else if failure.counted {
        change.retry_count = item.retry_count.saturating_add(1);
    }
    change
}

fn resolve(partition: &str, parent: &DueItem, index: i32, child: Child) -> NewItem {
    let elsewhere = child.partition.as_deref().is_some_and(|other| other != partition);
    NewItem {
        gate: child.gate.unwrap_or(if elsewhere { 0 } else { parent.gate }),
        id: child.id.unwrap_or_else(|| child_id(partition, &parent.id, parent.pass, index)),
        partition: child.partition.unwrap_or_else(|| partition.to_owned()),
        priority: child.priority,
        available_at: None,
        data: child.data,
        creator: (!elsewhere).then(|| Creator { item: parent.id.to_string(), gate: parent.gate }),
        dependencies: of_parent(child.dependencies, parent, elsewhere),
        gather: child.gather,
    }
}

/// A child that takes its parent's output without naming anybody depends on the item that adds it.
fn of_parent(mut dependencies: Dependencies, parent: &DueItem, elsewhere: bool) -> Dependencies {
    if dependencies.input == Input::Parent && dependencies.on.is_empty() && !elsewhere {
        dependencies.on.push(parent.id.to_string());
    }
    dependencies
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nested::Then;
    use proptest::prelude::*;

    fn item(gate: i32, retry_count: i32) -> DueItem {
        DueItem {
            id: "i".into(),
            gate,
            pass: 4,
            retry_count,
            suspect_count: 0,
            version: 9,
            content_type: crate::id::JSON.into(),
            size: 2,
            data: None,
            error_messages: Some("earlier".into()),
            gather: None,
            born: 0,
            reference: None,
        }
    }

    fn change(item: &DueItem, verdict: Verdict) -> Change {
        decide("p", item, verdict, &RetryPolicy::default(), 0.5).0
    }

    #[test]
    fn done_is_terminal_at_the_gate_where_it_happened() {
        let change = change(&item(3, 2), Ok(Answer::done()));
        assert_eq!((change.status, change.gate, change.pass), (ItemStatus::Complete, 3, 5));
        assert_eq!((change.data, change.error_messages), (None, None));
    }

    #[test]
    fn a_missing_gate_keeps_the_item_where_it_is() {
        let change = change(&item(3, 2), Ok(Answer::again_after(Duration::from_secs(9))));
        assert_eq!((change.status, change.gate), (ItemStatus::Available, 3));
        assert_eq!(change.delay, Some(Duration::from_secs(9)));
    }

    #[test]
    fn retries_start_again_at_each_gate() {
        let moved = change(&item(3, 5), Ok(Answer::to_gate(1)));
        assert_eq!((moved.gate, moved.retry_count, moved.pass), (1, 0, 5));
    }

    #[test]
    fn the_last_failure_is_final_and_keeps_the_count() {
        let retried = change(&item(0, 4), Err("boom".into()));
        assert_eq!((retried.status, retried.retry_count), (ItemStatus::Available, 5));
        assert_eq!(retried.delay, Some(Duration::from_secs(4)));
        let last = change(&item(0, 5), Err("boom".into()));
        assert_eq!((last.status, last.retry_count, last.delay), (ItemStatus::Failed, 5, None));
        assert_eq!(last.error_messages.as_deref(), Some("earlier\nboom"));
        assert_eq!(last.pass, 4);
    }

    #[test]
    fn no_retry_ends_it_and_uncounted_never_does() {
        assert_eq!(change(&item(0, 0), Err(Failure::final_("no"))).status, ItemStatus::Failed);
        let delayed = change(&item(0, 5), Err(Failure::delayed("refused", Some(Duration::from_secs(2)))));
        assert_eq!((delayed.status, delayed.retry_count), (ItemStatus::Available, 5));
        assert_eq!(delayed.delay, Some(Duration::from_secs(2)));
    }

    #[test]
    fn children_default_to_their_parents_gate_and_partition() {
        let child = |id: Option<&str>, gate, partition: Option<&str>| Child {
            id: id.map(str::to_owned),
            gate,
            priority: 0,
            partition: partition.map(str::to_owned),
            data: Data::json("1"),
            dependencies: Dependencies::default(),
            gather: None,
        };
        let answer = Answer::done()
            .with_item(child(None, None, None))
            .with_item(child(Some("x"), None, Some("q")))
            .with_item(child(None, Some(7), Some("p")));
        let children = decide("p", &item(3, 0), Ok(answer), &RetryPolicy::default(), 0.0).1;
        let seen: Vec<_> = children.iter().map(|c| (c.partition.as_str(), c.gate)).collect();
        assert_eq!(seen, [("p", 3), ("q", 0), ("p", 7)]);
        assert_eq!(children[0].id, child_id("p", "i", 4, 0));
        assert_eq!(children[1].id, "x");
        let creators: Vec<_> =
            children.iter().map(|c| c.creator.as_ref().map(|c| (c.item.as_str(), c.gate))).collect();
        assert_eq!(creators, [Some(("i", 3)), None, Some(("i", 3))], "not in another partition");
    }

    #[test]
    fn what_is_replaced_is_kept() {
        let (item, bytes) = (item(3, 0), Bytes::from_static(b"old"));
        let kept = |answer| Kept::of(&item, bytes.clone(), &change(&item, Ok(answer)));
        assert_eq!(kept(Answer::done()), None);
        assert_eq!(kept(Answer::again_after(Duration::ZERO)), None);
        let old = Kept { gate: 3, data: Data::json("old") };
        assert_eq!(kept(Answer::to_gate(4)), Some(old.clone()));
        assert_eq!(kept(Answer::done().with_data(Data::json("new"))), Some(old));
        assert_eq!(Kept::of(&item, bytes.clone(), &change(&item, Err("boom".into()))), None);
    }

    #[test]
    fn an_item_waits_for_its_callback_as_it_is() {
        let within = Duration::from_secs(60);
        let answer = Answer::by_callback(within).with_data(Data::json("early"));
        let waits = change(&item(3, 2), Ok(answer));
        assert_eq!((waits.status, waits.gate, waits.wait), (ItemStatus::Waiting, 3, Some(within)));
        assert_eq!((waits.pass, waits.retry_count, &waits.data), (4, 2, &None));
        assert_eq!(Kept::of(&item(3, 2), Bytes::new(), &waits), None, "its data stays");
    }

    #[test]
    fn a_child_that_takes_its_parents_output_depends_on_it() {
        let child = |on: &[&str]| {
            let dependencies = Dependencies { input: Input::Parent, ..Dependencies::on(on.to_vec()) };
            Child {
                id: None,
                gate: None,
                priority: 0,
                partition: None,
                data: Data::json("null"),
                dependencies,
                gather: None,
            }
        };
        let answer = Answer::done().with_item(child(&[])).with_item(child(&["x"]));
        let children = decide("p", &item(3, 0), Ok(answer), &RetryPolicy::default(), 0.0).1;
        let on: Vec<_> = children.iter().map(|c| c.dependencies.on.clone()).collect();
        assert_eq!(on, [["i"], ["x"]]);
    }

    #[test]
    fn an_item_waits_for_what_its_answer_nests() {
        let child = |id: Option<&str>| Child {
            id: id.map(str::to_owned),
            gate: None,
            priority: 2,
            partition: None,
            data: Data::json("1"),
            dependencies: Dependencies::default(),
            gather: None,
        };
        let nested = |id: Option<&str>| Nested {
            id: id.map(str::to_owned),
            feed: None,
            items: vec![child(None), child(Some("x"))],
        };
        let answer = Answer::to_gate(5).with_partition(nested(None)).with_partition(nested(Some("q")));
        let answer = Answer { then: Then::Complete, ..answer };
        let (change, children, nested) = decide("p", &item(3, 2), Ok(answer), &RetryPolicy::default(), 0.0);
        assert_eq!((change.status, change.gate, change.pass), (ItemStatus::Waiting, 3, 5));
        assert_eq!((change.retry_count, change.delay), (0, None));
        let derived = nested_id("p", "i", 4, 0);
        let seen: Vec<_> = nested.iter().map(|n| (n.id.as_str(), n.gate, n.pass, n.then)).collect();
        assert_eq!(seen, [(derived.as_str(), 3, 5, Then::Complete), ("q", 3, 5, Then::Complete)]);
        let seen: Vec<_> = children.iter().map(|c| (c.partition.as_str(), c.gate, c.id.as_str())).collect();
        let (one, two) = (child_id(&derived, "i", 4, 0), child_id("q", "i", 4, 0));
        assert_eq!(seen, [(&*derived, 0, &*one), (&*derived, 0, "x"), ("q", 0, &*two), ("q", 0, "x")]);
    }

    proptest! {
        #[test]
        fn however_attempts_fail_their_number_is_bounded(counted in prop::collection::vec(any::<bool>(), 1..40)) {
            let policy = RetryPolicy { max_retries: Some(3), ..RetryPolicy::default() };
            let mut item = item(0, 0);
            let mut attempts = 0;
            for counts in counted {
                let failure = Failure { counted: counts, ..Failure::new("x") };
                let (change, ..) = decide("p", &item, Err(failure), &policy, 0.3);
                attempts += i32::from(counts);
                prop_assert_eq!(change.status == ItemStatus::Failed, attempts == 4);
                if attempts == 4 {
                    return Ok(());
                }
                item.retry_count = change.retry_count;
                prop_assert_eq!(item.retry_count, attempts);
            }
        }
    }
}
