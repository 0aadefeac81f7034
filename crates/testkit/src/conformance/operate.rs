//! What operators do, also while a watcher holds the lease.

use gatefeed_core::{
    StoreError,
    item::ItemStatus,
    outcome::Settled,
    partition::{FailurePolicy, NewPartition, PartitionStatus},
    store::{Checkpointed, RetryFilter},
};

use super::given::*;

fn item_named(id: &str) -> RetryFilter {
    RetryFilter { item: Some(id.into()), gate: None }
}

fn at_gate(gate: i32) -> RetryFilter {
    RetryFilter { item: None, gate: Some(gate) }
}

/// A partition that has failed with "a" and "b" at gate 0; "c" at gate 1 is open.
async fn failed_partition(db: &TestDb) {
    let store = db.store();
    push(&store, "p", &[("a", 0), ("b", 0), ("c", 1)]).await;
    let lease = lease(&store, "w", "p").await;
    settle_all(&store, &lease, ItemStatus::Failed).await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Failed);
}

/// A retry is a new pass with no retries used, due now, and the partition is open again, visibly.
pub async fn retry_reopens_a_failed_partition(db: TestDb) {
    failed_partition(&db).await;
    let store = db.store();
    let used = "retry_count = 5, suspect_count = 2, error_messages = 'boom'";
    db.run(&format!("UPDATE gatefeed_items SET {used}, available_at = '2020-01-01 00:00:00' WHERE id = 'a'"))
        .await;
    let (item, before) = (item_row(&store, "p", "a").await, partition(&store, "p").await);
    assert_eq!(store.retry("p", &RetryFilter::default()).await.unwrap(), 2);
    let row = item_row(&store, "p", "a").await;
    assert_eq!((row.status, row.pass, row.retry_count), (ItemStatus::Available, item.pass + 1, 0));
    assert_eq!(row.version, item.version + 1);
    let due =
        format!("suspect_count = 0 AND available_at BETWEEN {} AND {}", db.in_secs(-60.0), db.in_secs(0.1));
    assert!(db.item_is("p", "a", &due).await);
    let after = partition(&store, "p").await;
    assert_eq!(
        (after.status, after.gate, after.version),
        (PartitionStatus::Available, 0, before.version + 1)
    );
    assert!(db.item_is("p", "c", "version = 0").await);
    assert_eq!(drain(&store, "v").await, 3);
    assert_eq!(partition(&store, "p").await.status, PartitionStatus::Complete);
}

/// Only what the filter names; nothing to retry changes nothing.
pub async fn retry_by_gate_and_item(db: TestDb) {
    let made = NewPartition { failure_policy: FailurePolicy::Continue, ..NewPartition::new("p") };
    let store = db.store();
    push_to(&store, &made, &[("a", 0), ("b", 0), ("c", 1), ("d", 1), ("fine", 0)]).await;
    db.run("UPDATE gatefeed_items SET status = 'failed' WHERE id <> 'fine'").await;
    db.run("UPDATE gatefeed_items SET status = 'complete' WHERE id = 'fine'").await;
    assert_eq!(store.retry("p", &at_gate(1)).await.unwrap(), 2);
    assert_eq!(store.retry("p", &item_named("a")).await.unwrap(), 1);
    let version = partition(&store, "p").await.version;
    assert_eq!(store.retry("p", &item_named("a")).await.unwrap(), 0, "it is available");
    assert_eq!(store.retry("p", &item_named("fine")).await.unwrap(), 0, "it is complete");
    assert_eq!(store.retry("p", &at_gate(7)).await.unwrap(), 0);
    let both = RetryFilter { item: Some("b".into()), gate: Some(1) };
    assert_eq!(store.retry("p", &both).await.unwrap(), 0);
    assert_eq!(partition(&store, "p").await.version, version);
    assert!(db.item_is("p", "b", "status = 'failed' AND version = 1").await);
}

/// Under 'continue' a partition completes with failed items; a retry reopens it.
pub async fn retry_reopens_a_complete_partition(db: TestDb) {
    let made = NewPartition { failure_policy: FailurePolicy::Continue, ..NewPartition::new("p") };
    let store = db.store();
    push_to(&store, &made, &[("a", 0)]).await;
    let lease = lease(&store, "w", "p").await;
    settle_all(&store, &lease, ItemStatus::Failed).await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Closed);
    assert_eq!(store.retry("p", &RetryFilter::default()).await.unwrap(), 1);
    assert_eq!(drain(&store, "v").await, 1);
}

/// A paused partition stays paused: its items wait for it.
pub async fn retry_leaves_a_paused_partition_paused(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id, status) VALUES ('p', 'paused')").await;
    db.run("INSERT INTO gatefeed_items (partition_id, id, status) VALUES ('p', 'a', 'failed')").await;
    assert_eq!(db.store().retry("p", &RetryFilter::default()).await.unwrap(), 1);
    assert!(db.partition_is("p", "status = 'paused'").await);
    assert!(db.item_is("p", "a", "status = 'available'").await);
    assert!(claim(&db.store(), "w", 10).await.is_empty());
}

/// The owner goes on with what an operator has retried; its lease stays.
pub async fn retry_while_leased(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("a", 0), ("b", 0)]).await;
    let store = db.store();
    let failed = completion(&lease, &due[0], with_status(&due[0], ItemStatus::Failed));
    assert_eq!(store.complete(&[failed]).await.unwrap(), [Settled::Written]);
    let operator = db.another_store().await;
    assert_eq!(operator.retry("p", &RetryFilter::default()).await.unwrap(), 1);
    assert!(db.partition_is("p", "owner = 'w' AND epoch = 1").await);
    let twice = completion(&lease, &due[0], done(&due[0]));
    assert_eq!(store.complete(&[twice]).await.unwrap(), [Settled::Stale]);
    assert_eq!(complete_all(&store, &lease).await, 2);
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Closed);
}

/// What is not there is named, what has ended is refused.
pub async fn retry_names_what_is_wrong(db: TestDb) {
    let store = db.store();
    let nowhere = store.retry("nowhere", &RetryFilter::default()).await.unwrap_err();
    assert!(matches!(&nowhere, StoreError::NotFound(text) if text.contains("nowhere")), "{nowhere:?}");
    push(&store, "p", &[("a", 0)]).await;
    let nothing = store.retry("p", &item_named("nothing")).await.unwrap_err();
    assert!(matches!(&nothing, StoreError::NotFound(text) if text.contains("nothing")), "{nothing:?}");
    db.run("UPDATE gatefeed_items SET status = 'failed'").await;
    db.run("UPDATE gatefeed_partitions SET status = 'cancelled'").await;
    let cancelled = store.retry("p", &RetryFilter::default()).await.unwrap_err();
    assert!(matches!(&cancelled, StoreError::Refused(text) if text.contains("cancelled")), "{cancelled:?}");
    assert!(db.item_is("p", "a", "status = 'failed' AND version = 1").await);
}

/// A held partition is let go: its gates rise and it closes. Twice is once.
pub async fn seal_lets_go(db: TestDb) {
    let store = db.store();
    let made = NewPartition { manual_checkpoint: true, auto_close: false, ..NewPartition::new("p") };
    push_to(&store, &made, &[("a", 0), ("b", 1)]).await;
    assert_eq!(drain(&store, "w").await, 1);
    let before = partition(&store, "p").await;
    store.seal("p").await.unwrap();
    let sealed = partition(&store, "p").await;
    assert!(!sealed.manual_checkpoint && sealed.auto_close && sealed.next_run_at.is_some());
    assert_eq!(sealed.version, before.version + 1);
    store.seal("p").await.unwrap();
    assert_eq!(partition(&store, "p").await.version, sealed.version);
    push(&store, "p", &[("later", 1)]).await;
    assert_eq!(drain(&store, "w").await, 2);
    assert_eq!(partition(&store, "p").await.status, PartitionStatus::Complete);
    let nowhere = store.seal("nowhere").await.unwrap_err();
    assert!(matches!(nowhere, StoreError::NotFound(_)), "{nowhere:?}");
}

/// Its owner keeps a partition that is sealed under it.
pub async fn seal_while_leased(db: TestDb) {
    let store = db.store();
    let made = NewPartition { manual_checkpoint: true, ..NewPartition::new("p") };
    push_to(&store, &made, &[("a", 0), ("b", 1)]).await;
    let lease = lease(&store, "w", "p").await;
    complete_all(&store, &lease).await;
    db.another_store().await.seal("p").await.unwrap();
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(1));
}

/// The gate rises to the lowest open one, and the partition has work.
pub async fn advance_goes_to_the_next_open_gate(db: TestDb) {
    let store = db.store();
    let made = NewPartition { manual_checkpoint: true, ..NewPartition::new("p") };
    push_to(&store, &made, &[("a", 0), ("b", 5), ("c", 9)]).await;
    assert_eq!(drain(&store, "w").await, 1);
    let before = partition(&store, "p").await;
    assert_eq!(store.advance("p").await.unwrap(), 5);
    let after = partition(&store, "p").await;
    assert_eq!((after.gate, after.version, after.manual_checkpoint), (5, before.version + 1, true));
    assert_eq!(drain(&store, "w").await, 1);
    assert_eq!(partition(&store, "p").await.gate, 5, "held again");
}

/// Its owner sees the new gate.
pub async fn advance_while_leased(db: TestDb) {
    let store = db.store();
    let made = NewPartition { manual_checkpoint: true, ..NewPartition::new("p") };
    push_to(&store, &made, &[("a", 0), ("b", 5)]).await;
    let lease = lease(&store, "w", "p").await;
    complete_all(&store, &lease).await;
    assert_eq!(db.another_store().await.advance("p").await.unwrap(), 5);
    assert_eq!(due_ids(&store, &lease).await, ["b"]);
}

/// Not past open work, not past a failure under 'stop', not into nothing; the text says which.
pub async fn advance_is_refused_with_a_reason(db: TestDb) {
    let store = db.store();
    let nowhere = store.advance("nowhere").await.unwrap_err();
    assert!(matches!(nowhere, StoreError::NotFound(_)), "{nowhere:?}");
    push(&store, "p", &[("a", 0), ("b", 5)]).await;
    let mut reasons = Vec::new();
    for change in [
        "UPDATE gatefeed_items SET status = 'available' WHERE id = 'a'",
        "UPDATE gatefeed_items SET status = 'waiting' WHERE id = 'a'",
        "UPDATE gatefeed_items SET status = 'failed' WHERE id = 'a'",
        "UPDATE gatefeed_items SET status = 'complete'",
    ] {
        db.run(change).await;
        let error = store.advance("p").await.unwrap_err();
        let StoreError::Refused(reason) = error else { panic!("{change}: {error:?}") };
        reasons.push(reason);
    }
    assert!(reasons[0] != reasons[2] && reasons[2] != reasons[3] && reasons[0] != reasons[3], "{reasons:?}");
    assert!(db.partition_is("p", "gate = 0 AND version = 0").await);
    db.run("UPDATE gatefeed_items SET status = 'available' WHERE id = 'b'").await;
    db.run("UPDATE gatefeed_items SET status = 'failed' WHERE id = 'a'").await;
    db.run("UPDATE gatefeed_partitions SET failure_policy = 'continue'").await;
    assert_eq!(store.advance("p").await.unwrap(), 5);
}
