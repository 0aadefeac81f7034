//! Lost replies: the work was done, the watcher hears that it was not.

use std::{sync::Arc, time::Duration};

use gatefeed_core::answer::{Answer, Verdict};
use gatefeed_engine::Delivery;
use gatefeed_testkit::faults::{Call, Fault, FaultStore};

use crate::{
    db::{Db, child, watcher, within},
    record::Log,
};

on_both! { lost_outcomes lost_checkpoints lost_claims lost_replies_of_every_kind }

const PARTITIONS: [&str; 3] = ["p", "q", "r"];
const ITEMS: usize = 15;
const EVERY: [Call; 6] =
    [Call::Complete, Call::Checkpoint, Call::Claim, Call::Page, Call::Renew, Call::Observe];

async fn lost_outcomes(db: Arc<Db>) {
    let log = lose(&db, 2, &[Call::Complete], Duration::from_secs(30)).await;
    log.assert_once(3 * 2 * ITEMS);
}

async fn lost_checkpoints(db: Arc<Db>) {
    let log = lose(&db, 2, &[Call::Checkpoint], Duration::from_secs(30)).await;
    log.assert_once(3 * 2 * ITEMS);
}

/// A lease that nobody knows of has to expire.
async fn lost_claims(db: Arc<Db>) {
    lose(&db, 2, &[Call::Claim], Duration::from_secs(1)).await;
}

async fn lost_replies_of_every_kind(db: Arc<Db>) {
    lose(&db, 3, &EVERY, Duration::from_secs(1)).await;
}

/// Every k-th reply to these calls is lost; all is done nevertheless, and every child is there once.
async fn lose(db: &Db, k: u64, calls: &'static [Call], lease: Duration) -> Log {
    for partition in PARTITIONS {
        db.push_many(partition, ITEMS).await;
    }
    let store = FaultStore::with(db.another().await, move |call, nth, _| {
        if calls.contains(&call) && nth % k == 0 { Fault::Lose } else { Fault::None }
    });
    let log = Log::new();
    let run = watcher(store.clone()).lease_duration(lease).processor(log.processor(one_child)).run();
    assert!(!within("idle", run).await.unwrap().failed);
    assert!(store.count(calls[0]) >= k, "nothing was lost");
    for partition in PARTITIONS {
        db.assert_complete(partition, 2 * ITEMS).await;
    }
    log
}

/// Slow enough for several batches.
async fn one_child(delivery: Delivery) -> Verdict {
    tokio::time::sleep(Duration::from_millis(10)).await;
    Ok(if delivery.gate == 0 { Answer::done().with_item(child(Some(1))) } else { Answer::done() })
}
