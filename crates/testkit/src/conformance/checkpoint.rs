//! What becomes of a partition with nothing in flight.

use std::sync::Arc;

use gatefeed_core::{
    item::ItemStatus,
    lease::Lease,
    outcome::Settled,
    partition::{FailurePolicy, NewPartition, PartitionStatus},
    store::Checkpointed,
};

use super::{given::*, renew::forgeries};

pub(super) const RELEASED: &str = "owner IS NULL AND lease_id IS NULL AND until IS NULL";

pub(super) async fn settled(
    db: &TestDb,
    made: NewPartition,
    items: &[(&str, i32)],
    status: ItemStatus,
) -> Arc<Lease> {
    let store = db.store();
    push_to(&store, &made, items).await;
    let lease = lease(&store, "w", &made.id).await;
    settle_all(&store, &lease, status).await;
    lease
}

/// A partition whose items at gate 0 are through.
pub(super) async fn completed(db: &TestDb, items: &[(&str, i32)]) -> Arc<Lease> {
    settled(db, NewPartition::new("p"), items, ItemStatus::Complete).await
}

/// A partition whose items at gate 0 have failed.
async fn failed(db: &TestDb, policy: FailurePolicy, items: &[(&str, i32)]) -> Arc<Lease> {
    let made = NewPartition { failure_policy: policy, ..NewPartition::new("p") };
    settled(db, made, items, ItemStatus::Failed).await
}

/// Sparse gates cost one step, not one each.
pub async fn sparse_gates_are_one_step(db: TestDb) {
    let lease = completed(&db, &[("i", 0), ("j", 1_000_000), ("k", 2_000_000)]).await;
    let store = db.store();
    let before = partition(&store, "p").await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(1_000_000));
    let after = partition(&store, "p").await;
    assert_eq!(
        (after.gate, after.version, after.owner.as_deref()),
        (1_000_000, before.version + 1, Some("w"))
    );
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Due);
    assert_eq!(due_ids(&store, &lease).await, ["j"]);
    assert_eq!(partition(&store, "p").await.version, after.version);
}

/// The barrier: every item is through gate 0 before any is delivered at gate 1.
pub async fn an_open_item_holds_the_gate(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0), ("j", 0), ("next", 1)]).await;
    let lease = lease(&store, "w", "p").await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Due);
    let due = due(&store, &lease).await;
    let batch = [completion(&lease, &due[0], done(&due[0]))];
    assert_eq!(store.complete(&batch).await.unwrap(), [Settled::Written]);
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Due);
    assert_eq!(partition(&store, "p").await.gate, 0);
    assert_eq!(complete_all(&store, &lease).await, 1);
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(1));
}

/// A late item is delivered at once and delays only the next checkpoint.
pub async fn a_late_item_delays_the_next_checkpoint_only(db: TestDb) {
    let lease = completed(&db, &[("i", 0), ("j", 1), ("k", 2)]).await;
    let store = db.store();
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(1));
    push(&store, "p", &[("late", 0)]).await;
    assert_eq!(due_ids(&store, &lease).await, ["late", "j"]);
    let due = due(&store, &lease).await;
    assert_eq!(
        store.complete(&[completion(&lease, &due[1], done(&due[1]))]).await.unwrap(),
        [Settled::Written]
    );
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Due);
    assert_eq!(complete_all(&store, &lease).await, 1);
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(2));
}

/// Everything is through: complete, visibly, and released.
pub async fn the_last_gate_closes(db: TestDb) {
    let lease = completed(&db, &[("i", 0)]).await;
    let store = db.store();
    let before = partition(&store, "p").await.version;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Closed);
    assert!(
        db.partition_is("p", &format!("status = 'complete' AND next_run_at IS NULL AND {RELEASED}")).await
    );
    assert_eq!(partition(&store, "p").await.version, before + 1);
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Fenced);
    push(&store, "p", &[("j", 0)]).await;
    assert!(grant(&store, "v", "p").await.lease.epoch > lease.epoch);
}

/// 'stop': the gate does not pass a failed item.
pub async fn stop_fails(db: TestDb) {
    let lease = failed(&db, FailurePolicy::Stop, &[("i", 0), ("next", 1)]).await;
    let store = db.store();
    let before = partition(&store, "p").await.version;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Failed);
    let failed = "status = 'failed' AND gate = 0 AND next_run_at IS NULL";
    assert!(db.partition_is("p", &format!("{failed} AND {RELEASED}")).await);
    assert_eq!(partition(&store, "p").await.version, before + 1);
    assert!(claim(&store, "v", 10).await.is_empty());
}

/// 'stop': what is at the gate goes on being delivered, and then the partition fails, also at its last gate.
pub async fn stop_delivers_what_it_can(db: TestDb) {
    let lease = failed(&db, FailurePolicy::Stop, &[("i", 0)]).await;
    let store = db.store();
    push(&store, "p", &[("j", 0)]).await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Due);
    assert_eq!(complete_all(&store, &lease).await, 1);
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Failed);
}

/// 'stop': a failure ahead of the gate is in nobody's way before the gate is there.
pub async fn a_failure_ahead_does_not_count_yet(db: TestDb) {
    let lease = completed(&db, &[("i", 0), ("j", 1)]).await;
    let store = db.store();
    db.run("INSERT INTO gatefeed_items (partition_id, gate, status) VALUES ('p', 2, 'failed')").await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(1));
    assert_eq!(complete_all(&store, &lease).await, 1);
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Failed, "it can never close");
}

/// 'continue': failed items count as through.
pub async fn continue_goes_on_and_closes(db: TestDb) {
    let lease = failed(&db, FailurePolicy::Continue, &[("i", 0), ("next", 1)]).await;
    let store = db.store();
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(1));
    settle_all(&store, &lease, ItemStatus::Failed).await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Closed);
    assert_eq!(partition(&store, "p").await.status, PartitionStatus::Complete);
}

/// A held gate waits for an operator, and costs no polling meanwhile.
pub async fn a_held_gate_sleeps(db: TestDb) {
    let made = NewPartition { manual_checkpoint: true, ..NewPartition::new("p") };
    let lease = settled(&db, made, &[("i", 0), ("next", 1)], ItemStatus::Complete).await;
    assert_eq!(checkpoint(&db.store(), &lease).await, Checkpointed::Slept);
    let idle = "status = 'available' AND gate = 0 AND next_run_at IS NULL";
    assert!(db.partition_is("p", &format!("{idle} AND {RELEASED}")).await);
    assert!(claim(&db.store(), "v", 10).await.is_empty());
}

/// Without auto_close a partition stays open.
pub async fn without_auto_close_it_stays_open(db: TestDb) {
    let made = NewPartition { auto_close: false, ..NewPartition::new("p") };
    let lease = settled(&db, made, &[("i", 0)], ItemStatus::Complete).await;
    let version = partition(&db.store(), "p").await.version;
    assert_eq!(checkpoint(&db.store(), &lease).await, Checkpointed::Slept);
    assert!(
        db.partition_is("p", &format!("status = 'available' AND next_run_at IS NULL AND {RELEASED}")).await
    );
    assert_eq!(partition(&db.store(), "p").await.version, version, "sleeping is no visible change");
}

/// Without the current lease nothing changes.
pub async fn fenced(db: TestDb) {
    let lease = completed(&db, &[("i", 0)]).await;
    let store = db.store();
    for forged in forgeries(&lease) {
        assert_eq!(checkpoint(&store, &forged).await, Checkpointed::Fenced, "{forged:?}");
    }
    assert!(db.partition_is("p", "status = 'available' AND owner = 'w'").await);
    steal(&db, "p", "v").await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Fenced);
    db.run("DELETE FROM gatefeed_partitions").await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Fenced);
}

/// One step for each lease, in order.
pub async fn several_at_once(db: TestDb) {
    let store = db.store();
    for id in ["closes", "due", "stolen", "advances"] {
        push(&store, id, &[("i", 0)]).await;
    }
    push(&store, "advances", &[("j", 4)]).await;
    let grants = claim(&store, "w", 10).await;
    let of = |id: &str| grants.iter().find(|g| &*g.lease.partition == id).unwrap().lease.clone();
    steal(&db, "stolen", "v").await;
    complete_all(&store, &of("closes")).await;
    complete_all(&store, &of("advances")).await;
    let leases = [of("stolen"), of("closes"), of("due"), of("advances")];
    let steps = store.checkpoint(&leases, HOLD).await.unwrap();
    use Checkpointed::{Advanced, Closed, Due, Fenced};
    assert_eq!(steps, [Fenced, Closed, Due, Advanced(4)]);
    assert!(store.checkpoint(&[], HOLD).await.unwrap().is_empty());
}

/// Whoever has inserted and not committed keeps the partition awake: its item would be stranded.
pub async fn an_open_producer_keeps_it_awake(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    let lease = completed(&db, &[("i", 0)]).await;
    let store = db.store();
    let mut producer = db.begin().await;
    producer.execute("INSERT INTO gatefeed_items (partition_id, id) VALUES ('p', 'late')").await.unwrap();
    assert_eq!(promptly("a checkpoint", checkpoint(&store, &lease)).await, Checkpointed::Busy);
    assert!(db.partition_is("p", "status = 'available' AND owner = 'w' AND next_run_at IS NOT NULL").await);
    producer.commit().await.unwrap();
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Due);
}

/// The gate may rise under an inserter: a late item is legal.
pub async fn an_open_producer_does_not_hold_up_an_advance(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    let lease = completed(&db, &[("i", 0), ("next", 1)]).await;
    let store = db.store();
    let mut producer = db.begin().await;
    producer.execute("INSERT INTO gatefeed_items (partition_id, id) VALUES ('p', 'late')").await.unwrap();
    assert_eq!(promptly("an advance", checkpoint(&store, &lease)).await, Checkpointed::Advanced(1));
    producer.commit().await.unwrap();
    assert_eq!(due_ids(&store, &lease).await, ["late", "next"]);
}

/// A row that another writer holds is left for later, and the others are not held up.
pub async fn a_locked_row_is_busy(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    let store = db.store();
    push(&store, "free", &[("i", 0)]).await;
    push(&store, "locked", &[("i", 0)]).await;
    let grants = claim(&store, "w", 10).await;
    for grant in &grants {
        complete_all(&store, &grant.lease).await;
    }
    let mut leases: Vec<_> = grants.into_iter().map(|g| g.lease).collect();
    leases.sort_by(|a, b| b.partition.cmp(&a.partition));
    let mut other = db.begin().await;
    other.execute("UPDATE gatefeed_partitions SET priority = 1 WHERE id = 'locked'").await.unwrap();
    let steps = promptly("a checkpoint", store.checkpoint(&leases, HOLD)).await.unwrap();
    assert_eq!(steps, [Checkpointed::Busy, Checkpointed::Closed]);
    other.rollback().await;
    assert_eq!(checkpoint(&store, &leases[0]).await, Checkpointed::Closed);
}
