//! A gate's deadline.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{
    item::ItemStatus,
    lease::{Lease, Observed},
    partition::{NewPartition, PartitionStatus},
    store::Checkpointed,
};

use super::{acting::assert_refused, checkpoint::RELEASED, given::*};

/// A leased partition whose gates have an hour, with these items.
async fn limited(db: &TestDb, items: &[(&str, i32)]) -> Arc<Lease> {
    let store = db.store();
    let made = NewPartition { gate_deadline: Some(Duration::from_secs(3600)), ..NewPartition::new("p") };
    push_to(&store, &made, items).await;
    assert_eq!(partition(&store, "p").await.gate_deadline_seconds, Some(3600));
    lease(&store, "w", "p").await
}

/// As if the partition had come to its gate so many seconds ago.
async fn since(db: &TestDb, secs: f64) {
    let since = db.in_secs(-secs);
    assert_eq!(db.run(&format!("UPDATE gatefeed_partitions SET gate_since = {since}")).await, 1);
}

async fn is_overdue(db: &TestDb, lease: &Arc<Lease>) -> bool {
    match db.store().observe(std::slice::from_ref(lease)).await.unwrap().remove(0) {
        Observed::Held(state) => state.is_overdue,
        Observed::Lost => panic!("nobody takes it"),
    }
}

/// Open items, whatever holds them: the partition fails and says why.
pub async fn a_gate_that_takes_too_long_fails(db: TestDb) {
    let lease = limited(&db, &[("a", 0), ("b", 1)]).await;
    let store = db.store();
    since(&db, 3500.0).await;
    assert!(!is_overdue(&db, &lease).await);
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Due);
    since(&db, 3601.0).await;
    assert!(is_overdue(&db, &lease).await);
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Failed);
    let row = partition(&store, "p").await;
    assert_eq!((row.status, row.gate, row.next_run_at), (PartitionStatus::Failed, 0, None));
    let reason = "gate 0 had open items when its deadline of 3600 s had passed";
    assert_eq!(row.reason.as_deref(), Some(reason));
    assert!(db.item_is("p", "a", "status = 'available' AND version = 0").await);
    assert!(db.partition_is("p", RELEASED).await);
}

/// A partition that sleeps is woken by its deadline.
pub async fn a_sleeper_wakes_at_its_deadline(db: TestDb) {
    let lease = limited(&db, &[("a", 0)]).await;
    let store = db.store();
    settle_all(&store, &lease, ItemStatus::Waiting).await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Slept);
    let hour = format!("next_run_at BETWEEN {} AND {}", db.in_secs(3500.0), db.in_secs(3600.5));
    assert!(db.partition_is("p", &hour).await);
    since(&db, 3601.0).await;
    db.run(&format!("UPDATE gatefeed_partitions SET next_run_at = {}", db.in_secs(-1.0))).await;
    let grant = grant(&store, "v", "p").await;
    assert!(grant.state.is_overdue);
    assert_eq!(checkpoint(&store, &grant.lease).await, Checkpointed::Failed);
}

/// What is due after the deadline is not waited for.
pub async fn the_deadline_comes_before_a_later_item(db: TestDb) {
    let lease = limited(&db, &[("a", 0)]).await;
    let later = db.in_secs(9000.0);
    db.run(&format!("UPDATE gatefeed_items SET available_at = {later}")).await;
    assert_eq!(checkpoint(&db.store(), &lease).await, Checkpointed::Slept);
    assert!(db.partition_is("p", &format!("next_run_at < {}", db.in_secs(3600.5))).await);
}

/// Late, but with nothing open: it goes on, and the next gate has its own time.
pub async fn each_gate_has_its_own_time(db: TestDb) {
    let lease = limited(&db, &[("a", 0), ("b", 1)]).await;
    let store = db.store();
    complete_all(&store, &lease).await;
    since(&db, 9000.0).await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(1));
    assert!(!is_overdue(&db, &lease).await);
    assert!(db.partition_is("p", &format!("gate_since > {}", db.in_secs(-60.0))).await);
}

/// Whoever has been failed by a deadline, or was paused, gets the whole time again.
pub async fn resume_starts_the_clock_again(db: TestDb) {
    let lease = limited(&db, &[("a", 0)]).await;
    let store = db.store();
    since(&db, 9000.0).await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Failed);
    store.resume("p").await.unwrap();
    assert_eq!(partition(&store, "p").await.reason, None);
    since(&db, 9000.0).await;
    store.pause("p").await.unwrap();
    store.resume("p").await.unwrap();
    assert_eq!(drain(&store, "v").await, 1);
}

/// Time without work does not count: neither before the first item, nor after the last one.
pub async fn time_without_work_does_not_count(db: TestDb) {
    let store = db.store();
    let made = NewPartition { gate_deadline: Some(Duration::from_secs(3600)), ..NewPartition::new("p") };
    push_to(&store, &made, &[]).await;
    for id in ["first", "second"] {
        since(&db, 9000.0).await;
        push(&store, "p", &[(id, 0)]).await;
        let lease = lease(&store, "w", "p").await;
        assert!(!is_overdue(&db, &lease).await, "{id}");
        complete_all(&store, &lease).await;
        assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Closed);
    }
}

/// What sleeps is woken, so that its next owner knows when to look again.
pub async fn a_deadline_that_is_set_later_wakes(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("a", 0)]).await;
    let first = lease(&store, "w", "p").await;
    settle_all(&store, &first, ItemStatus::Waiting).await;
    assert_eq!(checkpoint(&store, &first).await, Checkpointed::Slept);
    assert_eq!(partition(&store, "p").await.next_run_at, None);
    db.run("UPDATE gatefeed_partitions SET gate_deadline_seconds = 60").await;
    let next = lease(&store, "v", "p").await;
    assert_eq!(checkpoint(&store, &next).await, Checkpointed::Slept);
    assert!(db.partition_is("p", &format!("next_run_at > {}", db.in_secs(30.0))).await);
}

/// A deadline that is set later counts from then on; one that will not do is refused.
pub async fn a_deadline_may_be_set_later(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("a", 0)]).await;
    since(&db, 9000.0).await;
    let lease = lease(&store, "w", "p").await;
    db.run("UPDATE gatefeed_partitions SET gate_deadline_seconds = 60").await;
    assert!(!is_overdue(&db, &lease).await);
    db.refused("UPDATE gatefeed_partitions SET gate_deadline_seconds = 0").await;
    for bad in [Duration::ZERO, Duration::from_millis(1500), Duration::from_secs(u64::MAX)] {
        let made = NewPartition { gate_deadline: Some(bad), ..NewPartition::new("q") };
        assert!(store.push(&made, &[]).await.unwrap_err().is_data(), "{bad:?}");
    }
    assert_refused(store.resume("p").await, &["not paused"]);
}

/// A partition of which nothing is due before its deadline, and which nobody has claimed.
pub async fn what_is_pushed_for_later_has_a_deadline_too(db: TestDb) {
    let store = db.store();
    let made = NewPartition { gate_deadline: Some(Duration::from_secs(3600)), ..NewPartition::new("p") };
    push_to(&store, &made, &[]).await;
    let insert = format!(
        "INSERT INTO gatefeed_items (partition_id, id, available_at) VALUES ('p', 'i', {})",
        db.in_secs(9000.0)
    );
    db.run(&insert).await;
    let hour = format!("next_run_at BETWEEN {} AND {}", db.in_secs(3500.0), db.in_secs(3600.5));
    assert!(db.partition_is("p", &hour).await);
    // The same of one that was through: its time begins when it is reopened.
    db.run("UPDATE gatefeed_items SET status = 'complete'").await;
    db.run("UPDATE gatefeed_partitions SET status = 'complete', next_run_at = NULL").await;
    since(&db, 9000.0).await;
    db.run(&insert.replace("'i'", "'j'")).await;
    assert!(db.partition_is("p", &hour).await);
    db.run(&format!("UPDATE gatefeed_partitions SET gate_since = {}", db.in_secs(-9000.0))).await;
    db.run(&format!("UPDATE gatefeed_partitions SET next_run_at = {}", db.in_secs(9000.0))).await;
    let grant = grant(&store, "v", "p").await;
    assert!(grant.state.is_overdue);
    assert_eq!(checkpoint(&store, &grant.lease).await, Checkpointed::Failed);
}
