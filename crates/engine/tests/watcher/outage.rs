//! The database is away for a while.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use gatefeed_core::{
    answer::Answer,
    item::{Data, INLINE_BYTES_MAX, NewItem},
    partition::NewPartition,
};
use gatefeed_testkit::faults::{Call, Fault, FaultStore};

use crate::{
    db::{Db, item, watcher, within},
    record::{Log, What},
};

on_both! {
    sending_stops_when_trust_ends_and_resumes
    every_call_may_fail_at_first
    data_that_cannot_be_loaded_is_not_asked_for_without_a_pause
}

async fn sending_stops_when_trust_ends_and_resumes(db: Arc<Db>) {
    let lease = Duration::from_secs(1);
    db.push_many("p", 100).await;
    let is_away = Arc::new(AtomicBool::new(false));
    let away = is_away.clone();
    let store = FaultStore::with(db.another().await, move |_, _, _| {
        if away.load(Ordering::SeqCst) { Fault::Refuse } else { Fault::None }
    });
    let log = Log::new();
    let processor = log.processor(async |_| {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(Answer::done())
    });
    // Everything is read at once, and takes longer than the lease lasts.
    let run = watcher(store).concurrency(4).lease_duration(lease).processor(processor).run();
    let run = tokio::spawn(run);
    log.until("some deliveries", |events| events.len() > 8).await;

    let gone = Instant::now();
    is_away.store(true, Ordering::SeqCst);
    tokio::time::sleep(lease * 5 / 2).await;
    let back = Instant::now();
    is_away.store(false, Ordering::SeqCst);

    assert!(!within("idle", run).await.unwrap().unwrap().failed);
    let began = log.of(What::Began);
    let late: Vec<_> = began.iter().filter(|e| e.at > gone + lease && e.at < back).collect();
    assert!(late.is_empty(), "{} begun after the lease had run out: {late:?}", late.len());
    assert!(began.iter().any(|event| event.at > back), "nothing was left to do");
    db.assert_complete("p", 100).await;
}

async fn every_call_may_fail_at_first(db: Arc<Db>) {
    db.push("p", &[("small", 0), ("next", 1)]).await;
    push_large(&db).await;
    let store =
        FaultStore::with(db.another().await, |_, nth, _| if nth <= 3 { Fault::Refuse } else { Fault::None });
    let log = Log::new();
    let run = watcher(store).processor(log.processor(async |_| Ok(Answer::done()))).run();
    assert!(!within("idle", run).await.unwrap().failed);
    log.assert_once(3);
    db.assert_complete("p", 3).await;
}

/// An item whose data does not come with its page.
async fn push_large(db: &Db) {
    let data = Data::json(Bytes::from(vec![b'1'; 2 * INLINE_BYTES_MAX]));
    let large = NewItem { data, ..item("p", "large", 0) };
    db.store.push(&NewPartition::new("p"), &[large]).await.unwrap();
}

/// Everything works but this: neither the log nor the database may be flooded.
async fn data_that_cannot_be_loaded_is_not_asked_for_without_a_pause(db: Arc<Db>) {
    push_large(&db).await;
    let store = FaultStore::with(db.another().await, |call, _, _| match call {
        Call::Load => Fault::Refuse,
        _ => Fault::None,
    });
    let log = Log::new();
    let run = watcher(store.clone()).processor(log.processor(async |_| Ok(Answer::done()))).run();
    let run = tokio::spawn(run);
    let again = async {
        while store.count(Call::Load) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("a second try", again).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (loads, pages) = (store.count(Call::Load), store.count(Call::Page));
    store.rule(|_, _, _| Fault::None);
    within("idle", run).await.unwrap().unwrap();
    log.assert_once(1);
    assert!(loads < 20 && pages < 20, "asked {loads} times, read {pages} pages");
}
