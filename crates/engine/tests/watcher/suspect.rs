//! An item that kills its watcher ends `failed`; its neighbours do not.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gatefeed_core::{
    Result,
    answer::Answer,
    item::ItemStatus,
    partition::{FailurePolicy, NewPartition},
    store::PageRequest,
};
use gatefeed_engine::Finished;
use tokio::task::{AbortHandle, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    db::{Db, watcher, within},
    record::{Event, Log, What},
};

on_both! {
    an_item_that_kills_its_watcher_fails
    a_clean_stop_is_no_death
}

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

/// What is broken off by a stop was noted before it was sent; its watcher takes the note back.
async fn a_clean_stop_is_no_death(db: Arc<Db>) {
    db.push("p", &[("slow", 0)]).await;
    let log = Log::new();
    for _ in 0..2 {
        let dies = hang(&db, &log, CancellationToken::new()).await;
        dies.abort();
        assert!(dies.await.is_err_and(|error| error.is_cancelled()));
    }
    let shutdown = CancellationToken::new();
    let stops = hang(&db, &log, shutdown.clone()).await;
    assert_eq!(db.item("p", "slow").await.version, 1, "it was noted");
    shutdown.cancel();
    within("the stop", stops).await.unwrap().unwrap();
    let grant = within("a claim", async {
        loop {
            if let Some(grant) = db.claim_now().await.pop() {
                return grant;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    let request = PageRequest { lease: grant.await.lease, after: None, limit: 1 };
    let item = db.store.page(&[request]).await.unwrap().remove(0).items.remove(0);
    assert_eq!((item.suspect_count, item.version), (0, 2));
}

/// Starts a watcher whose handler hangs, and waits for its delivery.
async fn hang(db: &Db, log: &Log, shutdown: CancellationToken) -> JoinHandle<Result<Finished>> {
    let began = log.count(What::Began);
    let builder = watcher(db.another().await).lease_duration(Duration::from_secs(1)).shutdown(shutdown);
    let processor = log.processor(|_| std::future::pending());
    let run = tokio::spawn(builder.grace(Duration::ZERO).processor(processor).run());
    let is_next = |events: &[Event]| events.iter().filter(|event| event.what == What::Began).count() > began;
    log.until("it is delivered", is_next).await;
    run
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
