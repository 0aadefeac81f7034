//! Checkpoints of partitions whose work is yet to come: who waits, who sleeps, and who wakes them.

use std::time::Duration;

use gatefeed_core::{item::ItemStatus, outcome::Settled, partition::NewPartition, store::Checkpointed};

use super::{
    checkpoint::{RELEASED, settled},
    given::*,
};

/// Parked items hold the gate too, but need no watcher until something happens.
pub async fn waiting_and_blocked_items_hold_the_gate(db: TestDb) {
    for status in [ItemStatus::Waiting, ItemStatus::Blocked] {
        let id = status.as_str();
        let lease = settled(&db, NewPartition::new(id), &[("i", 0)], status).await;
        push(&db.store(), id, &[("next", 1)]).await;
        assert_eq!(checkpoint(&db.store(), &lease).await, Checkpointed::Slept);
        let idle = "status = 'available' AND gate = 0 AND next_run_at IS NULL";
        assert!(db.partition_is(id, &format!("{idle} AND {RELEASED}")).await, "{id}");
    }
}

/// An empty partition stays open: its items are still to come.
pub async fn an_empty_partition_stays_open(db: TestDb) {
    let now = db.in_secs(-1.0);
    db.run(&format!("INSERT INTO gatefeed_partitions (id, next_run_at) VALUES ('p', {now})")).await;
    let lease = lease(&db.store(), "w", "p").await;
    assert_eq!(checkpoint(&db.store(), &lease).await, Checkpointed::Slept);
    assert!(
        db.partition_is("p", &format!("status = 'available' AND next_run_at IS NULL AND {RELEASED}")).await
    );
}

/// What is due soon is waited for; what is due later wakes the partition then.
pub async fn delayed_items(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let store = db.store();
    let mut change = with_status(&due[0], ItemStatus::Available);
    change.delay = Some(Duration::from_secs(3600));
    assert_eq!(store.complete(&[completion(&lease, &due[0], change)]).await.unwrap(), [Settled::Written]);
    let patient = store.checkpoint(std::slice::from_ref(&lease), Duration::from_secs(7200)).await.unwrap();
    let [Checkpointed::Wait(wait)] = patient[..] else { panic!("{patient:?}") };
    assert!((3000..=3600).contains(&wait.as_secs()), "{wait:?}");
    assert!(db.partition_is("p", "owner = 'w' AND next_run_at IS NOT NULL").await);
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Slept);
    let row = partition(&store, "p").await;
    assert_eq!(row.next_run_at, Some(item_row(&store, "p", "i").await.available_at));
    assert!(db.partition_is("p", RELEASED).await);
    assert!(claim(&store, "v", 10).await.is_empty());
}

/// A wait ends: the same partition is due once its time has come.
pub async fn a_wait_ends(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let store = db.store();
    let mut change = with_status(&due[0], ItemStatus::Available);
    change.delay = Some(Duration::from_millis(700));
    assert_eq!(store.complete(&[completion(&lease, &due[0], change)]).await.unwrap(), [Settled::Written]);
    loop {
        match checkpoint(&store, &lease).await {
            Checkpointed::Wait(time) => {
                assert!(!time.is_zero() && time <= Duration::from_millis(700), "{time:?}");
                tokio::time::sleep(time).await;
            }
            step => break assert_eq!(step, Checkpointed::Due),
        }
    }
    assert_eq!(due_ids(&store, &lease).await, ["i"]);
}

/// An operator has paused or cancelled it: released, and its work is not forgotten.
pub async fn no_longer_available_ones_are_released(db: TestDb) {
    for status in ["paused", "cancelled"] {
        let (lease, _) = leased(&db, status, &[("i", 0)]).await;
        db.run(&format!("UPDATE gatefeed_partitions SET status = '{status}' WHERE id = '{status}'")).await;
        assert_eq!(checkpoint(&db.store(), &lease).await, Checkpointed::Slept);
        assert!(db.partition_is(status, &format!("status = '{status}' AND {RELEASED}")).await, "{status}");
    }
    db.run("UPDATE gatefeed_partitions SET status = 'available' WHERE id = 'paused'").await;
    lease(&db.store(), "v", "paused").await;
}

/// What a partition that slept with a delayed item does when its time has come, without an insert.
pub async fn a_sleeper_wakes_by_itself(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let store = db.store();
    let mut change = with_status(&due[0], ItemStatus::Available);
    change.delay = Some(Duration::from_millis(600));
    assert_eq!(store.complete(&[completion(&lease, &due[0], change)]).await.unwrap(), [Settled::Written]);
    let steps = store.checkpoint(std::slice::from_ref(&lease), Duration::ZERO).await.unwrap();
    assert!(matches!(steps[..], [Checkpointed::Slept | Checkpointed::Due]), "{steps:?}");
    if steps == [Checkpointed::Due] {
        store.release(&[lease]).await.unwrap();
    }
    let mut granted = claim(&store, "v", 10).await;
    while granted.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        granted = claim(&store, "v", 10).await;
    }
    assert_eq!(due_ids(&store, &granted[0].lease).await, ["i"]);
}
