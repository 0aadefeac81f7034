//! Pushes whose items come bit by bit.

use std::sync::Arc;

use gatefeed_core::{
    Store, StoreError,
    inspect::PartitionFilter,
    item::NewItem,
    partition::NewPartition,
    store::{Checkpointed, Push, Pushed},
};

use super::{checkpoint::completed, given::*};

async fn begin(store: &Arc<dyn Store>, partition: &str) -> Box<dyn Push> {
    store.begin_push(&NewPartition::new(partition)).await.unwrap()
}

/// Adds items from the other side, as soon as it may.
async fn add(store: &Arc<dyn Store>, partition: &str, items: &[NewItem]) -> Pushed {
    let made = NewPartition::new(partition);
    patiently(|| store.push(&made, items)).await
}

/// How many partitions somebody else sees.
async fn seen(store: &Arc<dyn Store>) -> usize {
    store.partitions(&PartitionFilter { limit: 10, ..PartitionFilter::default() }).await.unwrap().len()
}

/// Others see all of it at once.
pub async fn nothing_is_visible_before_the_commit(db: TestDb) {
    let (store, other) = (db.store(), db.another_store().await);
    let mut push = begin(&store, "p").await;
    assert_eq!(seen(&other).await, 0, "only begun");
    push.add(&[item("p", "i", 0)]).await.unwrap();
    assert_eq!(seen(&other).await, 0, "an item added");
    assert!(other.status().await.unwrap().is_empty());
    assert_eq!(push.commit().await.unwrap(), Pushed { created: true, added: 1, existing: 0 });
    assert_eq!(item_ids(&other, "p").await, ["i"]);
    assert_eq!(&*claim(&other, "w", 10).await[0].lease.partition, "p");
}

/// Whoever gives up has changed nothing, not even made the partition.
pub async fn dropped_it_leaves_nothing(db: TestDb) {
    let (store, other) = (db.store(), db.another_store().await);
    let mut push = begin(&store, "p").await;
    push.add(&[item("p", "i", 0)]).await.unwrap();
    drop(push);
    // Waits for the lock, which is soon free.
    let pushed = add(&other, "p", &[item("p", "j", 0)]).await;
    assert_eq!(pushed, Pushed { created: true, added: 1, existing: 0 });
    assert_eq!(item_ids(&store, "p").await, ["j"]);
    drop(begin(&store, "q").await);
    assert!(add(&other, "q", &[]).await.created);
    assert_eq!(seen(&other).await, 2);
}

/// Ids that were there before, and those that an earlier part has brought, are left as they are.
pub async fn several_parts_count_as_one(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("old", 3)]).await;
    let mut push = begin(&store, "p").await;
    push.add(&[]).await.unwrap();
    push.add(&[item("p", "a", 0), item("p", "old", 0)]).await.unwrap();
    push.add(&[item("p", "b", 1), item("p", "a", 2), item("p", "b", 2)]).await.unwrap();
    assert_eq!(push.commit().await.unwrap(), Pushed { created: false, added: 2, existing: 3 });
    for (id, gate) in [("old", 3), ("a", 0), ("b", 1)] {
        assert_eq!(item_row(&store, "p", id).await.gate, gate, "{id}");
    }
}

/// A part that is refused takes those before it along, also when the caller overlooks the error.
pub async fn an_error_leaves_nothing(db: TestDb) {
    let (store, other) = (db.store(), db.another_store().await);
    let mut push = begin(&store, "p").await;
    push.add(&[item("p", "good", 0)]).await.unwrap();
    let error = push.add(&[item("p", "also good", 0), item("p", "bad", -1)]).await.unwrap_err();
    assert!(error.is_data(), "{error:?}");
    assert!(push.add(&[item("p", "too late", 0)]).await.is_err());
    assert!(push.commit().await.is_err());
    assert!(add(&other, "q", &[]).await.created);
    assert_eq!(seen(&other).await, 1, "p was made");
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items").await, 0);
}

/// A partition that the database refuses is refused at once or with the first items.
pub async fn a_bad_partition_is_refused(db: TestDb) {
    let store = db.store();
    db.run("INSERT INTO gatefeed_partitions (id, status) VALUES ('ended', 'cancelled')").await;
    for id in ["", "nul\0inside", "ended"] {
        let error = match store.begin_push(&NewPartition::new(id)).await {
            Ok(mut push) => push.add(&[item(id, "i", 0)]).await.unwrap_err(),
            Err(error) => error,
        };
        assert!(error.is_data(), "{id:?}: {error:?}");
    }
    assert_eq!(seen(&store).await, 1);
}

/// One partition at a time.
pub async fn items_of_another_partition_are_refused(db: TestDb) {
    let store = db.store();
    push(&store, "q", &[("i", 0)]).await;
    let mut push = begin(&store, "p").await;
    push.add(&[item("p", "i", 0)]).await.unwrap();
    let error = push.add(&[item("p", "j", 0), item("q", "j", 0)]).await.unwrap_err();
    assert!(matches!(&error, StoreError::Refused(text) if text.contains("\"q\"")), "{error:?}");
    assert!(push.commit().await.is_err());
    assert_eq!(item_ids(&store, "q").await, ["i"]);
    assert_eq!(seen(&store).await, 1);
}

/// What is being pushed is not stranded: the partition neither closes nor goes idle meanwhile. On Postgres the items
/// hold their partition's row; on SQLite the push is the one writer, so that nobody closes anything.
pub async fn its_partition_stays_awake(db: TestDb) {
    let lease = completed(&db, &[("i", 0)]).await;
    let (store, other) = (db.store(), db.another_store().await);
    let mut push = begin(&other, "p").await;
    push.add(&[item("p", "late", 0)]).await.unwrap();
    assert_eq!(promptly("a checkpoint", checkpoint(&store, &lease)).await, Checkpointed::Busy);
    assert!(db.partition_is("p", "status = 'available' AND owner = 'w' AND next_run_at IS NOT NULL").await);
    push.commit().await.unwrap();
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Due);
    assert_eq!(due_ids(&store, &lease).await, ["late"]);
}

/// Once a push is given up, nothing holds its partition any more.
pub async fn dropped_it_lets_its_partition_close(db: TestDb) {
    let lease = completed(&db, &[("i", 0)]).await;
    let (store, other) = (db.store(), db.another_store().await);
    let mut push = begin(&other, "p").await;
    push.add(&[item("p", "late", 0)]).await.unwrap();
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Busy);
    drop(push);
    let mut step = checkpoint(&store, &lease).await;
    while step == Checkpointed::Busy {
        step = checkpoint(&store, &lease).await;
    }
    assert_eq!(step, Checkpointed::Closed);
}

/// A producer that takes its time holds up nobody else. Only on Postgres: SQLite has one writer at a time.
pub async fn other_partitions_go_on(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    let lease = completed(&db, &[("i", 0)]).await;
    let store = db.store();
    let mut slow = begin(&store, "slow").await;
    slow.add(&[item("slow", "i", 0)]).await.unwrap();
    assert_eq!(promptly("a checkpoint", checkpoint(&store, &lease)).await, Checkpointed::Closed);
    promptly("a push", push(&store, "q", &[("i", 0)])).await;
    assert_eq!(promptly("a claim", claim(&store, "w", 10)).await.len(), 1);
    slow.commit().await.unwrap();
    assert_eq!(claim(&store, "w", 10).await.len(), 1);
}
