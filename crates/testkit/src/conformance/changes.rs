//! Hints that a partition has ended, for whoever waits for that.

use gatefeed_core::{
    item::ItemStatus,
    partition::{NewPartition, PartitionStatus},
    store::{Checkpointed, Wakeups},
};

use super::{
    checkpoint::settled,
    given::*,
    wake::{quiet, woken},
};

/// A waiter in another process.
async fn waiter(db: &TestDb, partition: &str) -> Box<dyn Wakeups> {
    quiet(db.another_store().await.changes(partition).await).await
}

async fn ends(db: TestDb, items: ItemStatus, step: Checkpointed, partition_ends: PartitionStatus) {
    let lease = settled(&db, NewPartition::new("p"), &[("i", 0)], items).await;
    let waiter = waiter(&db, "p").await;
    assert_eq!(checkpoint(&db.store(), &lease).await, step);
    woken(waiter, "the end").await;
    assert_eq!(partition(&db.store(), "p").await.status, partition_ends);
}

/// Complete.
pub async fn a_waiter_wakes_when_it_closes(db: TestDb) {
    ends(db, ItemStatus::Complete, Checkpointed::Closed, PartitionStatus::Complete).await;
}

/// Failed.
pub async fn a_waiter_wakes_when_it_fails(db: TestDb) {
    ends(db, ItemStatus::Failed, Checkpointed::Failed, PartitionStatus::Failed).await;
}

/// Several may wait for the same end, and each is told.
pub async fn every_waiter_wakes(db: TestDb) {
    let lease = settled(&db, NewPartition::new("p"), &[("i", 0)], ItemStatus::Complete).await;
    let waiters = [waiter(&db, "p").await, waiter(&db, "p").await];
    assert_eq!(checkpoint(&db.store(), &lease).await, Checkpointed::Closed);
    for waiter in waiters {
        woken(waiter, "the end").await;
    }
}
