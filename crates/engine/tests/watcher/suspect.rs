//! An item that kills its watcher ends `failed`; its neighbours do not.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gatefeed_core::{
    answer::Answer,
    item::ItemStatus,
    partition::{FailurePolicy, NewPartition},
};
use tokio::task::AbortHandle;

use crate::{
    db::{Db, watcher, within},
    record::{Log, What},
};

on_both! { an_item_that_kills_its_watcher_fails }

/// No more watchers than this die.
const DEATHS_MAX: usize = 20;

async fn an_item_that_kills_its_watcher_fails(db: Arc<Db>) {
    let lenient = NewPartition { failure_policy: FailurePolicy::Continue, ..NewPartition::new("p") };
    db.push_to(&lenient, &[("a", 0), ("killer", 0), ("z", 0), ("next", 1)]).await;
    db.push("q", &[("i", 0), ("j", 2)]).await;
    let log = Log::new();
    let mut deaths = 0;
    while within("the watcher's end", live(&db, &log)).await {
        deaths += 1;
        assert!(deaths < DEATHS_MAX, "{:?}", log.of(What::Began));
    }
    // Two make it suspect, three prove it; neighbours that get through between take the blame from it for a while.
    assert!(deaths >= 5, "{deaths}");
    let killer = db.item("p", "killer").await;
    assert_eq!(killer.status, ItemStatus::Failed);
    assert!(killer.error_messages.unwrap().contains("watcher died 3 times"));
    for item in ["a", "z", "next"] {
        assert_eq!(db.item("p", item).await.status, ItemStatus::Complete, "{item}");
    }
    db.assert_complete("q", 2).await;
    let began = log.of(What::Began);
    let last_kill = began.iter().rposition(|event| event.item == "killer");
    assert!(began.iter().position(|event| event.item == "next") > last_kill, "{began:?}");
}

/// One life of a watcher; true if it was killed.
async fn live(db: &Db, log: &Log) -> bool {
    let life: Arc<Mutex<Option<AbortHandle>>> = Arc::default();
    let target = life.clone();
    let processor = log.processor(move |delivery| {
        let target = target.clone();
        async move {
            if &*delivery.item == "killer" {
                // It is there by the time that a partition was claimed and read; if not, the handler waits.
                while target.lock().unwrap().as_ref().map(AbortHandle::abort).is_none() {
                    tokio::task::yield_now().await;
                }
                return std::future::pending().await;
            }
            Ok(Answer::done())
        }
    });
    let run = watcher(db.another().await).lease_duration(Duration::from_secs(1)).processor(processor).run();
    let run = tokio::spawn(run);
    *life.lock().unwrap() = Some(run.abort_handle());
    match run.await {
        Ok(finished) => {
            finished.unwrap();
            false
        }
        Err(error) => {
            assert!(error.is_cancelled(), "{error}");
            true
        }
    }
}
