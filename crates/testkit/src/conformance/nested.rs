//! Nested partitions: an item waits until those that its answer has made have closed, and none of their closings is lost.

use std::{sync::Arc, time::Instant};

use gatefeed_core::{
    Store, StoreError,
    item::{DueItem, ItemStatus, NewItem},
    lease::Lease,
    nested::{DEPTH_MAX, NewNested, Then},
    outcome::{Change, Completion, Kept, Settled},
    partition::{NewPartition, PartitionStatus},
    store::{Checkpointed, RetryFilter, Rewound},
};

use super::{
    given::*,
    race::{RACE, dawdle},
    seed,
};

/// The answer of an item that nests these partitions, each with one item "c".
fn nesting(lease: &Arc<Lease>, item: &DueItem, partitions: &[&str], then: Then) -> Completion {
    let pass = item.pass + 1;
    let change = Change { pass, ..with_status(item, ItemStatus::Waiting) };
    let children = partitions.iter().map(|id| crate::conformance::given::item(id, "c", 0)).collect();
    let nested = |id: &&str| NewNested { id: (*id).to_owned(), feed: None, gate: item.gate, pass, then };
    let kept = item.data.clone().and_then(|data| Kept::of(item, data, &change));
    let nested = partitions.iter().map(nested).collect();
    Completion { nested, kept, ..with_children(lease, item, change, children) }
}

/// A partition "p" whose item "i" waits for these; its lease.
async fn waiting_for(db: &TestDb, partitions: &[&str], then: Then) -> Arc<Lease> {
    let (lease, due) = leased(db, "p", &[("i", 0)]).await;
    let answer = nesting(&lease, &due[0], partitions, then);
    assert_eq!(complete_patiently(&db.store(), &[answer]).await, [Settled::Written]);
    lease
}

/// Leases this partition, however long it takes to be woken; others that are due are given back.
async fn lease_of(store: &Arc<dyn Store>, id: &str) -> Arc<Lease> {
    loop {
        let grants = claim(store, "w", 10).await;
        let (wanted, others): (Vec<_>, Vec<_>) =
            grants.into_iter().map(|grant| grant.lease).partition(|lease| *lease.partition == *id);
        store.release(&others).await.unwrap();
        if let Some(lease) = wanted.into_iter().next() {
            return lease;
        }
        tokio::task::yield_now().await;
    }
}

/// Closes a nested partition by giving its item this status.
async fn close(store: &Arc<dyn Store>, id: &str, status: ItemStatus) {
    let lease = lease_of(store, id).await;
    assert_eq!(settle_all(store, &lease, status).await, 1);
    let expected = match status {
        ItemStatus::Failed => Checkpointed::Failed,
        _ => Checkpointed::Closed,
    };
    assert_eq!(checkpoint(store, &lease).await, expected);
}

async fn status_of_item(store: &Arc<dyn Store>) -> ItemStatus {
    item_row(store, "p", "i").await.status
}

async fn status_of(store: &Arc<dyn Store>, id: &str) -> PartitionStatus {
    partition(store, id).await.status
}

/// Then it is delivered again, in a later pass, with what became of them.
pub async fn an_item_waits_until_all_have_closed(db: TestDb) {
    let store = db.store();
    let parent = waiting_for(&db, &["q", "r"], Then::Deliver).await;
    assert_eq!(status_of_item(&store).await, ItemStatus::Waiting);
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Slept);
    assert!(db.partition_is("p", "next_run_at IS NULL AND owner IS NULL").await);
    assert!(db.partition_is("q", "parent_partition_id = 'p' AND parent_item_id = 'i' AND depth = 1").await);
    close(&store, "q", ItemStatus::Complete).await;
    let parent = lease_of(&store, "p").await;
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Slept);
    assert_eq!(status_of_item(&store).await, ItemStatus::Waiting, "the other one has not closed");
    close(&store, "r", ItemStatus::Failed).await;
    let parent = lease_of(&store, "p").await;
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Due);
    let due = due(&store, &parent).await;
    assert_eq!((due.len(), due[0].pass, due[0].gate), (1, 1, 0));
    let expected = concat!(
        r#"{"data":{"id":"i"},"partitions":[{"id":"q","status":"complete","reason":null,"complete":1,"failed":0,"#,
        r#""cancelled":0},{"id":"r","status":"failed","reason":"an item at gate 0 is failed, and the failure policy "#,
        r#"is 'stop'","complete":0,"failed":1,"cancelled":0}]}"#
    );
    assert_eq!(std::str::from_utf8(due[0].data.as_ref().unwrap()).unwrap(), expected);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_closed").await, 0);
    assert_eq!(drain_lease(&store, &parent).await, 1);
    assert_eq!(status_of(&store, "p").await, PartitionStatus::Complete);
}

/// People are told who waits for whom.
pub async fn why_names_parents_and_children(db: TestDb) {
    let store = db.store();
    waiting_for(&db, &["q", "r"], Then::Deliver).await;
    close(&store, "r", ItemStatus::Complete).await;
    let row = partition(&store, "q").await;
    let parent = (row.parent_partition_id.as_deref(), row.parent_item_id.as_deref());
    assert_eq!(parent, (Some("p"), Some("i")));
    assert_eq!(partition(&store, "p").await.parent_partition_id, None);
    assert_eq!(store.why("p", None).await.unwrap().waits_for, ["q"]);
    assert_eq!(store.why("p", Some("i")).await.unwrap().waits_for, ["q"]);
    assert!(store.why("q", None).await.unwrap().waits_for.is_empty());
}

/// With "then": "complete" it is not delivered again, and its data stays as it is.
pub async fn an_item_completes_with_what_it_waited_for(db: TestDb) {
    let store = db.store();
    let parent = waiting_for(&db, &["q"], Then::Complete).await;
    close(&store, "q", ItemStatus::Complete).await;
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Closed);
    let row = item_row(&store, "p", "i").await;
    assert_eq!((row.status, row.data), (ItemStatus::Complete, Some(b"{\"id\":\"i\"}".to_vec())));
}

/// One that did not complete is enough.
pub async fn an_item_fails_with_what_it_waited_for(db: TestDb) {
    let store = db.store();
    let parent = waiting_for(&db, &["q", "r"], Then::Complete).await;
    close(&store, "q", ItemStatus::Failed).await;
    close(&store, "r", ItemStatus::Complete).await;
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Failed);
    let error = item_row(&store, "p", "i").await.error_messages.unwrap();
    assert!(error.starts_with("partition \"q\" is failed: an item at gate 0 is failed"), "{error}");
}

/// While its partition is busy with others, an item need not wait for the checkpoint.
pub async fn outcomes_apply_what_has_closed(db: TestDb) {
    let store = db.store();
    let (parent, due) = leased(&db, "p", &[("i", 0), ("j", 0), ("k", 0)]).await;
    let answer = nesting(&parent, &due[0], &["q"], Then::Deliver);
    assert_eq!(complete_patiently(&store, &[answer]).await, [Settled::Written]);
    close(&store, "q", ItemStatus::Complete).await;
    let other = completion(&parent, &due[1], done(&due[1]));
    assert_eq!(complete_patiently(&store, &[other]).await, [Settled::Written]);
    assert_eq!(due_ids(&store, &parent).await, ["i", "k"]);
}

/// What is not written nests nothing.
pub async fn a_second_or_fenced_answer_makes_nothing(db: TestDb) {
    let store = db.store();
    let (parent, due) = leased(&db, "p", &[("i", 0), ("j", 0)]).await;
    let answer = nesting(&parent, &due[0], &["q"], Then::Deliver);
    let twice = [answer.clone(), answer.clone()];
    assert_eq!(complete_patiently(&store, &twice).await, [Settled::Written, Settled::Stale]);
    assert_eq!(complete_patiently(&store, &[answer]).await, [Settled::Stale]);
    assert_eq!(item_ids(&store, "q").await, ["c"]);
    expire(&db, "p").await;
    while claim(&store, "thief", 10).await.iter().all(|grant| *grant.lease.partition != *"p") {}
    let late = nesting(&parent, &due[1], &["r"], Then::Deliver);
    assert_eq!(complete_patiently(&store, &[late]).await, [Settled::Fenced]);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_partitions").await, 2);
}

/// Nothing of such an answer is written.
pub async fn an_id_that_is_taken_is_data(db: TestDb) {
    let store = db.store();
    push(&store, "taken", &[("x", 0)]).await;
    push(&store, "p", &[("i", 0)]).await;
    let parent = lease_of(&store, "p").await;
    let due = due(&store, &parent).await;
    let answer = nesting(&parent, &due[0], &["new", "taken"], Then::Deliver);
    let refused = store.complete(&[answer]).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Data(why) if why.contains("\"taken\" exists already")),
        "{refused}"
    );
    assert_eq!(status_of_item(&store).await, ItemStatus::Available);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_partitions").await, 2);
    assert_eq!(item_ids(&store, "taken").await, ["x"]);
}

/// The answer that would nest deeper makes nothing.
pub async fn partitions_nest_so_deep_and_no_deeper(db: TestDb) {
    let store = db.store();
    push(&store, "0", &[("c", 0)]).await;
    for depth in 0..=DEPTH_MAX {
        let parent = lease_of(&store, &depth.to_string()).await;
        let due = due(&store, &parent).await;
        let next = (depth + 1).to_string();
        let answer = nesting(&parent, &due[0], &[&next], Then::Deliver);
        let written = patiently_or_data(&store, &answer).await;
        match depth == DEPTH_MAX {
            false => assert_eq!(written.unwrap(), [Settled::Written]),
            true => {
                let refused = written.unwrap_err().to_string();
                assert!(refused.contains("\"8\" is nested 8 deep"), "{refused}");
            }
        }
    }
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_partitions").await, i64::from(DEPTH_MAX) + 1);
}

async fn patiently_or_data(store: &Arc<dyn Store>, answer: &Completion) -> Result<Vec<Settled>, StoreError> {
    loop {
        match store.complete(std::slice::from_ref(answer)).await {
            Err(error) if error.is_retryable() => tokio::task::yield_now().await,
            settled => return settled,
        }
    }
}

/// As when a watcher dies after it has closed the partition, or somebody does it by hand: nobody was told.
pub async fn a_parent_that_nobody_woke_is_found(db: TestDb) {
    let parent = waiting_for(&db, &["q"], Then::Deliver).await;
    let store = db.store();
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Slept);
    db.run("UPDATE gatefeed_partitions SET status = 'complete', next_run_at = NULL WHERE id = 'q'").await;
    let parent = lease_of(&db.another_store().await, "p").await;
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Due);
}

/// What closes waits for nobody who has the parent's row locked, and the parent is woken later.
pub async fn a_locked_parent_is_woken_later(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    let store = db.store();
    let parent = waiting_for(&db, &["q"], Then::Deliver).await;
    let child = lease_of(&store, "q").await;
    assert_eq!(complete_all(&store, &child).await, 1);
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Slept);
    let mut other = db.begin().await;
    other.execute("UPDATE gatefeed_partitions SET priority = 1 WHERE id = 'p'").await.unwrap();
    assert_eq!(promptly("a checkpoint", checkpoint(&store, &child)).await, Checkpointed::Closed);
    other.commit().await.unwrap();
    let parent = lease_of(&store, "p").await;
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Due);
}

/// What is gone is not waited for.
pub async fn a_deleted_one_counts_as_cancelled(db: TestDb) {
    let parent = waiting_for(&db, &["q"], Then::Complete).await;
    let store = db.store();
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Slept);
    db.run("DELETE FROM gatefeed_partitions WHERE id = 'q'").await;
    let parent = lease_of(&store, "p").await;
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Failed);
    let error = item_row(&store, "p", "i").await.error_messages.unwrap();
    assert_eq!(error, "partition \"q\" is cancelled: deleted");
}

/// It has closed once, and that was noted.
pub async fn one_that_is_opened_again_does_not_matter(db: TestDb) {
    let store = db.store();
    let parent = waiting_for(&db, &["q", "r"], Then::Deliver).await;
    close(&store, "q", ItemStatus::Failed).await;
    store.retry("q", &RetryFilter::default()).await.unwrap();
    close(&store, "r", ItemStatus::Complete).await;
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Due);
    assert_eq!(due_ids(&store, &parent).await, ["i"]);
    close(&store, "q", ItemStatus::Complete).await;
    assert_eq!(drain_lease(&store, &parent).await, 1);
    assert_eq!(status_of(&store, "p").await, PartitionStatus::Complete);
}

/// What closes meanwhile does not resume it, and is not forgotten.
pub async fn a_paused_parent_goes_on_later(db: TestDb) {
    let store = db.store();
    let parent = waiting_for(&db, &["q"], Then::Deliver).await;
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Slept);
    store.pause("p").await.unwrap();
    close(&store, "q", ItemStatus::Complete).await;
    assert!(claim(&store, "w", 10).await.is_empty());
    store.resume("p").await.unwrap();
    let parent = lease_of(&store, "p").await;
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Due);
    assert_eq!(due_ids(&store, &parent).await, ["i"]);
}

/// And what is nested in that; what is complete stays so.
pub async fn a_cancellation_cancels_what_is_nested(db: TestDb) {
    let store = db.store();
    waiting_for(&db, &["q", "r"], Then::Deliver).await;
    close(&store, "r", ItemStatus::Complete).await;
    let child = lease_of(&store, "q").await;
    let due = due(&store, &child).await;
    let answer = nesting(&child, &due[0], &["s"], Then::Deliver);
    assert_eq!(complete_patiently(&store, &[answer]).await, [Settled::Written]);
    assert_eq!(store.cancel("p").await.unwrap(), 3, "i, the item of q and that of s");
    for (id, status) in [("q", "cancelled"), ("r", "complete"), ("s", "cancelled")] {
        assert_eq!(status_of(&store, id).await.as_str(), status, "{id}");
    }
    assert!(db.partition_is("q", "reason = 'cancelled with partition \"p\"'").await);
    assert!(db.partition_is("s", "reason = 'cancelled with partition \"q\"'").await);
    assert!(claim(&store, "w", 10).await.is_empty());
}

/// A partition that is cancelled by itself has closed.
pub async fn a_cancelled_one_has_closed(db: TestDb) {
    let store = db.store();
    let parent = waiting_for(&db, &["q"], Then::Complete).await;
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Slept);
    store.cancel("q").await.unwrap();
    let parent = lease_of(&store, "p").await;
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Failed);
    let error = item_row(&store, "p", "i").await.error_messages.unwrap();
    assert_eq!(error, "partition \"q\" is cancelled: cancelled by an operator");
}

/// Since the gate to which it goes back; the answers will nest again.
pub async fn a_rewind_cancels_what_was_nested_since(db: TestDb) {
    let store = db.store();
    let partition = NewPartition { keep_history: true, ..NewPartition::new("p") };
    push_to(&store, &partition, &[("i", 0), ("j", 1)]).await;
    let parent = lease(&store, "w", "p").await;
    let first = due(&store, &parent).await;
    let answer = nesting(&parent, &first[0], &["q"], Then::Deliver);
    assert_eq!(complete_patiently(&store, &[answer]).await, [Settled::Written]);
    close(&store, "q", ItemStatus::Complete).await;
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Due);
    assert_eq!(complete_all(&store, &parent).await, 1);
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Advanced(1));
    let second = due(&store, &parent).await;
    let answer = nesting(&parent, &second[0], &["r"], Then::Deliver);
    assert_eq!(complete_patiently(&store, &[answer]).await, [Settled::Written]);
    assert_eq!(store.rewind("p", 1).await.unwrap(), Rewound { items: 1, removed: 0 });
    assert_eq!(status_of(&store, "q").await, PartitionStatus::Complete);
    assert_eq!(status_of(&store, "r").await, PartitionStatus::Cancelled);
    let parent = lease_of(&store, "p").await;
    assert_eq!(due_ids(&store, &parent).await, ["j"]);
    // Its note is of another pass.
    assert_eq!(complete_all(&store, &parent).await, 1);
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Closed);
    assert_eq!(store.rewind("p", 0).await.unwrap(), Rewound { items: 2, removed: 0 });
    let row = item_row(&store, "p", "i").await;
    assert_eq!(row.data, Some(b"{\"id\":\"i\"}".to_vec()), "without what became of q");
}

/// An item that completes without a delivery unblocks like any other.
pub async fn dependents_go_on_when_it_completes(db: TestDb) {
    let store = db.store();
    let after =
        NewItem { dependencies: gatefeed_core::dependency::Dependencies::on(["i"]), ..item("p", "after", 0) };
    store.push(&NewPartition::new("p"), &[item("p", "i", 0), after]).await.unwrap();
    let parent = lease(&store, "w", "p").await;
    let first = due(&store, &parent).await;
    let answer = nesting(&parent, &first[0], &["q"], Then::Complete);
    assert_eq!(complete_patiently(&store, &[answer]).await, [Settled::Written]);
    close(&store, "q", ItemStatus::Complete).await;
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Due);
    assert_eq!(due_ids(&store, &parent).await, ["after"]);
}

/// What it leaves behind in more than one piece is not left behind.
pub async fn many_dependents_of_what_waited_come_free(db: TestDb) {
    const MANY: usize = 12_000;
    let store = db.store();
    let on = gatefeed_core::dependency::Dependencies::on(["i"]);
    let after = |n| NewItem { dependencies: on.clone(), ..item("p", &format!("after{n}"), 0) };
    let items: Vec<NewItem> = std::iter::once(item("p", "i", 0)).chain((0..MANY).map(after)).collect();
    store.push(&NewPartition::new("p"), &items).await.unwrap();
    let parent = lease(&store, "w", "p").await;
    let first = due(&store, &parent).await;
    let answer = nesting(&parent, &first[0], &["q"], Then::Complete);
    assert_eq!(complete_patiently(&store, &[answer]).await, [Settled::Written]);
    close(&store, "q", ItemStatus::Failed).await;
    assert_eq!(checkpoint(&store, &parent).await, Checkpointed::Due);
    let left = db.count("SELECT count(*) FROM gatefeed_items WHERE status = 'blocked'").await;
    assert!(left > 0 && left < MANY as i64, "{left} are blocked");
    assert_eq!(drain_lease(&store, &parent).await, 0);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items WHERE status = 'blocked'").await, 0);
    assert_eq!(status_of(&store, "p").await, PartitionStatus::Failed);
}

/// Children that close while their parents' outcomes are written and their parent steps: every parent goes on.
pub async fn closings_against_their_parent(db: TestDb) {
    let mut rng = seed::rng("nested::closings_against_their_parent");
    let until = Instant::now() + RACE;
    let (store, other) = (db.store(), db.another_store().await);
    let mut round = 0;
    while Instant::now() < until || round == 0 {
        round += 1;
        let id = format!("p{round:05}");
        let ids: Vec<_> = (0..6).map(|n| format!("i{n}")).collect();
        push(&store, &id, &ids.iter().map(|i| (i.as_str(), 0)).collect::<Vec<_>>()).await;
        let children = tokio::spawn(drain_nested(other.clone(), format!("{id}/"), 12));
        let mut passes = 0;
        while status_of(&store, &id).await != PartitionStatus::Complete {
            for grant in claim(&store, "parent", 10).await {
                if *grant.lease.partition != *id {
                    store.release(&[grant.lease]).await.unwrap();
                    continue;
                }
                passes += nest_or_complete(&store, &grant.lease, &mut rng).await;
            }
        }
        assert_eq!(passes, 12, "round {round}");
        children.await.unwrap();
        assert_eq!(db.count("SELECT count(*) FROM gatefeed_closed").await, 0, "round {round}");
    }
}

/// Works on a parent until it sleeps or closes: in their first pass its items nest two partitions each, in the second
/// they are done. Returns how many answers there were.
async fn nest_or_complete(store: &Arc<dyn Store>, lease: &Arc<Lease>, rng: &mut rand::rngs::StdRng) -> usize {
    let mut answers = 0;
    loop {
        for item in due(store, lease).await {
            let ids = [0, 1].map(|n| format!("{}/{}/{n}", lease.partition, item.id));
            let answer = match item.pass {
                0 => nesting(lease, &item, &[&ids[0], &ids[1]], Then::Deliver),
                _ => completion(lease, &item, done(&item)),
            };
            assert_eq!(complete_patiently(store, &[answer]).await, [Settled::Written]);
            answers += 1;
            dawdle(rng).await;
        }
        match checkpoint(store, lease).await {
            Checkpointed::Slept | Checkpointed::Closed => return answers,
            Checkpointed::Busy | Checkpointed::Due => dawdle(rng).await,
            other => panic!("{other:?}"),
        }
    }
}

/// Closes so many partitions whose ids begin like this.
async fn drain_nested(store: Arc<dyn Store>, prefix: String, number: usize) {
    let mut closed = 0;
    while closed < number {
        for grant in claim(&store, "children", 1).await {
            if grant.lease.partition.starts_with(&prefix) {
                assert_eq!(drain_lease(&store, &grant.lease).await, 1);
                closed += 1;
            } else {
                store.release(&[grant.lease]).await.unwrap();
            }
        }
        tokio::task::yield_now().await;
    }
}
