//! Going back to a gate, with what each item came to it with.

use std::sync::Arc;

use gatefeed_core::{
    StoreError,
    dependency::Dependencies,
    item::{Creator, Data, DueItem, ItemStatus, NewItem},
    lease::{Lease, Observed},
    outcome::{Change, Completion, Kept, Settled},
    partition::{NewPartition, PartitionStatus},
    store::{Checkpointed, Rewound},
};

use super::{acting::assert_refused, checkpoint::RELEASED, given::*};

fn keeping(id: &str) -> NewPartition {
    NewPartition { keep_history: true, ..NewPartition::new(id) }
}

/// The item's data, as JSON text.
async fn data(db: &TestDb, item: &str) -> String {
    String::from_utf8(item_row(&db.store(), "p", item).await.data.unwrap()).unwrap()
}

/// The completion of a delivery, as the engine of a partition with `keep_history` makes it.
fn answered(lease: &Arc<Lease>, item: &DueItem, change: Change, children: Vec<NewItem>) -> Completion {
    let bytes = item.data.clone().unwrap();
    let kept = Kept::of(item, bytes, &change);
    Completion { kept, ..with_children(lease, item, change, children) }
}

/// Goes to a gate with new data that names it.
fn to_gate(item: &DueItem, gate: i32) -> Change {
    let data = Some(Data::json(format!("\"{} at {gate}\"", item.id)));
    Change { status: ItemStatus::Available, gate, data, retry_count: 0, ..done(item) }
}

/// Sends everything that is due to this gate.
async fn all_to(store: &Arc<dyn gatefeed_core::Store>, lease: &Arc<Lease>, gate: i32) {
    let due = due(store, lease).await;
    let batch: Vec<_> = due.iter().map(|item| answered(lease, item, to_gate(item, gate), vec![])).collect();
    assert_eq!(complete_patiently(store, &batch).await, vec![Settled::Written; due.len()]);
}

/// "a" and "b" have gone from gate 0 over 1 to 2 and are done there with new data.
async fn through(db: &TestDb, id: &str) -> Arc<Lease> {
    let store = db.store();
    push_to(&store, &keeping(id), &[("a", 0), ("b", 0)]).await;
    let lease = lease(&store, "w", id).await;
    for gate in [1, 2] {
        all_to(&store, &lease, gate).await;
        assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(gate));
    }
    let due = due(&store, &lease).await;
    let end = |item: &DueItem| Change { data: Some(Data::json("\"end\"")), ..done(item) };
    let batch: Vec<_> = due.iter().map(|item| answered(&lease, item, end(item), vec![])).collect();
    assert_eq!(complete_patiently(&store, &batch).await, [Settled::Written; 2]);
    lease
}

/// Gates and data are those of the checkpoint, whichever it is; pass, version and epoch grow; it runs again.
pub async fn items_are_as_they_came_to_the_gate(db: TestDb) {
    let lease = through(&db, "p").await;
    let store = db.store();
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Closed);
    for (gate, came_with) in [(2, "\"a at 2\""), (1, "\"a at 1\""), (0, "{\"id\":\"a\"}")] {
        let (item, before) = (item_row(&store, "p", "a").await, partition(&store, "p").await);
        assert_eq!(store.rewind("p", gate).await.unwrap(), Rewound { items: 2, removed: 0 });
        let row = item_row(&store, "p", "a").await;
        assert_eq!((row.status, row.gate), (ItemStatus::Available, gate));
        assert_eq!((row.pass, row.retry_count), (item.pass + 1, 0));
        assert!(row.version > item.version);
        assert_eq!(data(&db, "a").await, came_with);
        let after = partition(&store, "p").await;
        assert_eq!((after.status, after.gate), (PartitionStatus::Available, gate));
        assert_eq!((after.epoch, after.version), (before.epoch + 1, before.version + 1));
        assert!(after.next_run_at.is_some());
    }
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_history").await, 0);
    let lease = super::given::lease(&store, "v", "p").await;
    for gate in [1, 2] {
        all_to(&store, &lease, gate).await;
        assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(gate));
    }
    assert_eq!(data(&db, "a").await, "\"a at 2\"");
    complete_all(&store, &lease).await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Closed);
}

/// Bytes come back as they were, with their content type; so does what was changed several times at its gate.
pub async fn what_it_came_with_counts_not_what_became_of_it(db: TestDb) {
    let store = db.store();
    let bytes = Data { bytes: vec![0, 255, 92].into(), content_type: "image/png".into() };
    store.push(&keeping("p"), &[NewItem::new("p", "a", bytes)]).await.unwrap();
    let lease = lease(&store, "w", "p").await;
    for _ in 0..3 {
        all_to(&store, &lease, 0).await;
    }
    assert_eq!(store.rewind("p", 0).await.unwrap().items, 1);
    let row = item_row(&store, "p", "a").await;
    assert_eq!((row.data.as_deref(), row.content_type.as_str()), (Some(&[0u8, 255, 92][..]), "image/png"));
}

/// An item that went back and came again counts by its last coming; one that left a gate out, by the next.
pub async fn the_last_coming_counts(db: TestDb) {
    let store = db.store();
    push_to(&store, &keeping("p"), &[("loop", 0), ("jump", 0), ("fall", 0)]).await;
    let lease = lease(&store, "w", "p").await;
    let step = async |id: &str, gate: i32, text: &str| {
        let due = due(&store, &lease).await;
        let item = due.iter().find(|item| *item.id == *id).unwrap();
        let change = Change { data: Some(Data::json(format!("\"{text}\""))), ..to_gate(item, gate) };
        assert_eq!(
            complete_patiently(&store, &[answered(&lease, item, change, vec![])]).await,
            [Settled::Written]
        );
    };
    step("loop", 1, "first").await;
    step("jump", 3, "jumped").await;
    step("fall", 3, "high").await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(1));
    step("loop", 0, "back").await;
    step("loop", 1, "second").await;
    step("loop", 3, "on").await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(3));
    step("fall", 1, "low").await;
    assert_eq!(store.rewind("p", 1).await.unwrap().items, 3);
    let seen = async |id| (item_row(&store, "p", id).await.gate, data(&db, id).await);
    assert_eq!(seen("loop").await, (1, "\"second\"".to_owned()));
    assert_eq!(seen("jump").await, (3, "\"jumped\"".to_owned()));
    assert_eq!(seen("fall").await, (1, "\"low\"".to_owned()), "it stays where it fell to");
}

/// What answers have made at the gate or beyond it goes, since they will make it again; what was made before, and what
/// people have pushed, stays and is available again if it is there or beyond.
pub async fn what_will_be_made_again_is_removed(db: TestDb) {
    let store = db.store();
    push_to(&store, &keeping("p"), &[("a", 0), ("pushed", 2)]).await;
    let lease = lease(&store, "w", "p").await;
    let made = |id: &str, creator: &DueItem| NewItem {
        creator: Some(Creator { item: creator.id.to_string(), gate: creator.gate }),
        ..item("p", id, 1)
    };
    for (gate, child) in [(1, "early"), (2, "late")] {
        let due = due(&store, &lease).await;
        let of = |item: &DueItem| if &*item.id == "a" { vec![made(child, item)] } else { vec![] };
        let batch: Vec<_> =
            due.iter().map(|item| answered(&lease, item, to_gate(item, gate), of(item))).collect();
        complete_patiently(&store, &batch).await;
        if gate == 1 {
            assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(1));
        }
    }
    assert!(db.item_is("p", "late", "creator_id = 'a' AND creator_gate = 1").await);
    assert!(db.item_is("p", "pushed", "creator_id IS NULL AND creator_gate IS NULL").await);
    assert_eq!(store.rewind("p", 1).await.unwrap(), Rewound { items: 3, removed: 1 });
    assert_eq!(item_ids(&store, "p").await, ["a", "early", "pushed"]);
    assert_eq!(store.rewind("p", 0).await.unwrap(), Rewound { items: 2, removed: 1 });
    assert_eq!(item_ids(&store, "p").await, ["a", "pushed"]);
}

/// Lower gates are left alone, whatever is there, and so is what an operator has cancelled.
pub async fn only_what_is_at_the_gate_or_beyond(db: TestDb) {
    let store = db.store();
    let made = NewPartition { failure_policy: "continue".parse().unwrap(), ..keeping("p") };
    push_to(
        &store,
        &made,
        &[("done", 0), ("failed", 0), ("at", 1), ("broken", 1), ("left", 1), ("later", 9)],
    )
    .await;
    let lease = lease(&store, "w", "p").await;
    complete_all(&store, &lease).await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(1));
    complete_all(&store, &lease).await;
    for (id, status) in [("failed", "failed"), ("broken", "failed"), ("left", "cancelled")] {
        db.run(&format!("UPDATE gatefeed_items SET status = '{status}' WHERE id = '{id}'")).await;
    }
    let later = db.in_secs(5000.0);
    db.run(&format!("UPDATE gatefeed_items SET available_at = {later} WHERE id = 'later'")).await;
    assert_eq!(store.rewind("p", 1).await.unwrap(), Rewound { items: 3, removed: 0 });
    let status = async |id| item_row(&store, "p", id).await.status;
    assert_eq!((status("done").await, status("failed").await), (ItemStatus::Complete, ItemStatus::Failed));
    assert_eq!((status("at").await, status("broken").await), (ItemStatus::Available, ItemStatus::Available));
    assert_eq!(status("left").await, ItemStatus::Cancelled);
    assert!(db.item_is("p", "later", &format!("available_at > {}", db.in_secs(4000.0))).await, "it waits on");
}

/// Its owner loses the lease: a late answer is fenced and keeps nothing.
pub async fn a_late_answer_is_fenced(db: TestDb) {
    let store = db.store();
    push_to(&store, &keeping("p"), &[("a", 0), ("b", 0)]).await;
    let lease = lease(&store, "w", "p").await;
    let due = due(&store, &lease).await;
    db.another_store().await.rewind("p", 0).await.unwrap();
    assert!(db.partition_is("p", &format!("{RELEASED} AND epoch = 2")).await);
    assert_eq!(store.observe(std::slice::from_ref(&lease)).await.unwrap(), [Observed::Lost]);
    let late = answered(&lease, &due[0], to_gate(&due[0], 1), vec![]);
    assert_eq!(complete_patiently(&store, &[late]).await, [Settled::Fenced]);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_history").await, 0);
    assert!(db.item_is("p", "a", "gate = 0 AND pass = 1").await);
}

/// A stale outcome keeps nothing either: what it would have replaced is not replaced.
pub async fn a_stale_answer_keeps_nothing(db: TestDb) {
    let store = db.store();
    push_to(&store, &keeping("p"), &[("a", 0)]).await;
    let lease = lease(&store, "w", "p").await;
    let due = due(&store, &lease).await;
    db.run("UPDATE gatefeed_items SET version = version + 1").await;
    let stale = answered(&lease, &due[0], to_gate(&due[0], 1), vec![]);
    assert_eq!(complete_patiently(&store, &[stale]).await, [Settled::Stale]);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_history").await, 0);
}

/// A failed one is open again without its reason; a paused one stays paused.
pub async fn failed_and_paused_ones(db: TestDb) {
    let store = db.store();
    push_to(&store, &keeping("p"), &[("a", 0)]).await;
    let lease = lease(&store, "w", "p").await;
    settle_all(&store, &lease, ItemStatus::Failed).await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Failed);
    assert_eq!(store.rewind("p", 0).await.unwrap().items, 1);
    let row = partition(&store, "p").await;
    assert_eq!((row.status, row.reason), (PartitionStatus::Available, None));
    store.pause("p").await.unwrap();
    assert_eq!(store.rewind("p", 0).await.unwrap().items, 1);
    assert_eq!(partition(&store, "p").await.status, PartitionStatus::Paused);
    assert!(claim(&store, "w", 10).await.is_empty());
}

/// Without a history, to a gate that was not reached, and from the dead: the text says why not, and nothing changes.
pub async fn it_is_refused_with_a_reason(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("a", 0)]).await;
    assert_refused(store.rewind("p", 0).await, &["cannot be rewound", "keeps no history", "keep_history"]);
    push_to(&store, &keeping("q"), &[("a", 0)]).await;
    assert_refused(store.rewind("q", 1).await, &["it is at gate 0", "gate 1 is not one that it has reached"]);
    assert_refused(store.rewind("q", -1).await, &["gate -1"]);
    assert!(matches!(store.rewind("nowhere", 0).await, Err(StoreError::NotFound(_))));
    store.cancel("q").await.unwrap();
    assert_refused(store.rewind("q", 0).await, &["it is cancelled"]);
    assert!(db.item_is("p", "a", "pass = 0 AND version = 0").await);
    assert!(db.partition_is("p", "epoch = 0").await);
}

/// A history that begins in the middle is none.
pub async fn it_is_switched_on_before_the_first_item(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[]).await;
    db.run("UPDATE gatefeed_partitions SET keep_history = true").await;
    assert!(partition(&store, "p").await.keep_history);
    push(&store, "p", &[("a", 0)]).await;
    db.run("UPDATE gatefeed_partitions SET keep_history = false").await;
    let error = db.refused("UPDATE gatefeed_partitions SET keep_history = true").await;
    assert!(error.contains("has items already"), "{error}");
}

/// It goes with its partition, and owners hear whether it is wanted.
pub async fn it_goes_with_its_partition(db: TestDb) {
    let lease = through(&db, "p").await;
    let store = db.store();
    let seen = store.observe(std::slice::from_ref(&lease)).await.unwrap();
    assert!(matches!(&seen[0], Observed::Held(state) if state.keep_history), "{seen:?}");
    assert!(db.count("SELECT count(*) FROM gatefeed_history").await > 0);
    db.run("DELETE FROM gatefeed_partitions WHERE id = 'p'").await;
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_history").await, 0);
}

/// Back to a gate without items: the next checkpoint passes it.
pub async fn to_an_empty_gate(db: TestDb) {
    let store = db.store();
    push_to(&store, &keeping("p"), &[("a", 0), ("b", 8)]).await;
    let first = lease(&store, "w", "p").await;
    complete_all(&store, &first).await;
    assert_eq!(checkpoint(&store, &first).await, Checkpointed::Advanced(8));
    assert_eq!(store.rewind("p", 4).await.unwrap().items, 1);
    let lease = lease(&store, "w", "p").await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(8));
    assert_eq!(due_ids(&store, &lease).await, ["b"]);
}

/// What is delivered again waits for its dependencies again; what is removed takes its own along.
pub async fn dependencies_are_waited_for_again(db: TestDb) {
    let store = db.store();
    let depending = |id: &str, on: &str| NewItem { dependencies: Dependencies::on([on]), ..item("p", id, 0) };
    store.push(&keeping("p"), &[item("p", "a", 0), depending("b", "a")]).await.unwrap();
    for round in 0..2 {
        let lease = lease(&store, "w", "p").await;
        let due = due(&store, &lease).await;
        assert_eq!((due.len(), &*due[0].id), (1, "a"), "round {round}");
        let creator = Some(Creator { item: "a".into(), gate: 0 });
        let made = NewItem { creator, ..depending("made", "b") };
        let outcome = answered(&lease, &due[0], done(&due[0]), vec![made]);
        assert_eq!(complete_patiently(&store, &[outcome]).await, [Settled::Written]);
        for next in ["b", "made"] {
            assert_eq!(due_ids(&store, &lease).await, [next], "round {round}");
            assert_eq!(complete_all(&store, &lease).await, 1);
        }
        assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Closed);
        if round == 0 {
            assert_eq!(store.rewind("p", 0).await.unwrap(), Rewound { items: 2, removed: 1 });
            assert_eq!(item_row(&store, "p", "b").await.status, ItemStatus::Blocked);
            assert_eq!(db.count("SELECT count(*) FROM gatefeed_dependencies").await, 1);
        }
    }
}
