//! What a failed item means: 'stop', 'continue' and a number.

use std::sync::Arc;

use gatefeed_core::{
    answer::{Answer, Failure, Verdict},
    item::ItemStatus,
    partition::{FailurePolicy, NewPartition, PartitionStatus},
    store::RetryFilter,
};
use gatefeed_engine::Delivery;

use crate::{
    db::{Db, watcher, within},
    record::{Log, What},
};

on_both! { stop_fails_the_partition continue_goes_on so_many_are_put_up_with }

const ITEMS: [(&str, i32); 3] = [("bad", 0), ("good", 0), ("next", 1)];

async fn bad_fails(delivery: Delivery) -> Verdict {
    if &*delivery.item == "bad" { Err(Failure::final_("broken")) } else { Ok(Answer::done()) }
}

async fn stop_fails_the_partition(db: Arc<Db>) {
    db.push("p", &ITEMS).await;
    db.push("fine", &[("i", 0)]).await;
    let log = Log::new();
    let run = watcher(db.another().await).processor(log.processor(bad_fails)).run();
    assert!(within("idle", run).await.unwrap().failed);
    assert_eq!(db.partition("p").await.status, PartitionStatus::Failed);
    let status: Vec<_> = db.items("p").await.into_iter().map(|row| (row.id, row.status)).collect();
    let expected = [ItemStatus::Failed, ItemStatus::Complete, ItemStatus::Available];
    assert_eq!(status, ITEMS.map(|(id, _)| id.to_owned()).into_iter().zip(expected).collect::<Vec<_>>());
    assert_eq!(log.gates("next"), [0; 0]);
    db.assert_complete("fine", 1).await;

    // Retried, it goes on.
    assert_eq!(db.store.retry("p", &RetryFilter::default()).await.unwrap(), 1);
    let run = watcher(db.another().await).processor(log.processor(async |_| Ok(Answer::done()))).run();
    assert!(!within("idle again", run).await.unwrap().failed);
    db.assert_complete("p", 3).await;
    assert_eq!(log.of(What::Began).last().unwrap().item, "next");
}

async fn continue_goes_on(db: Arc<Db>) {
    let lenient = NewPartition { failure_policy: FailurePolicy::Continue, ..NewPartition::new("p") };
    db.push_to(&lenient, &ITEMS).await;
    let log = Log::new();
    let run = watcher(db.another().await).processor(log.processor(bad_fails)).run();
    assert!(!within("idle", run).await.unwrap().failed);
    assert_eq!(db.partition("p").await.status, PartitionStatus::Complete);
    assert_eq!(db.item("p", "bad").await.status, ItemStatus::Failed);
    assert_eq!(db.item("p", "next").await.status, ItemStatus::Complete);
    assert_eq!(log.gates("bad"), [0]);
}

async fn so_many_are_put_up_with(db: Arc<Db>) {
    for (id, policy) in [("one", "1"), ("half", "50%"), ("less", "25%"), ("none", "0")] {
        let made = NewPartition { failure_policy: policy.parse().unwrap(), ..NewPartition::new(id) };
        db.push_to(&made, &ITEMS).await;
    }
    let log = Log::new();
    let run = watcher(db.another().await).processor(log.processor(bad_fails)).run();
    assert!(within("idle", run).await.unwrap().failed);
    for (id, status) in [
        ("one", PartitionStatus::Complete),
        ("half", PartitionStatus::Complete),
        ("less", PartitionStatus::Failed),
        ("none", PartitionStatus::Failed),
    ] {
        assert_eq!(db.partition(id).await.status, status, "{id}");
    }
    let reason = db.partition("less").await.reason.unwrap();
    assert!(reason.starts_with("1 of the 3 items that came to gate 0 are failed"), "{reason}");
}
