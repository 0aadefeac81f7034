//! Reports: who looks sees each watcher and what it does, and nothing depends on that.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gatefeed_core::{
    answer::{Answer, Verdict},
    inspect::{FeedStatus, WatcherStatus},
    partition::NewPartition,
    share::Peers,
    watcher::{FeedReport, Report},
};
use gatefeed_engine::{Delivery, Processor};
use gatefeed_testkit::faults::{Call, Fault, FaultStore};
use tokio_util::sync::CancellationToken;

use crate::{
    db::{Db, watcher, within},
    record::{Log, What},
};

on_both! {
    a_watcher_is_listed_with_what_it_does_until_it_has_stopped
    every_outcome_counts_failed_attempts_too
    one_that_is_done_says_so
    one_that_died_stays_until_one_of_its_name_comes
    refused_reports_disturb_nothing
    a_report_that_hangs_disturbs_nothing
    who_splits_limits_knows_of_others_before_anything_is_sent
}

async fn a_watcher_is_listed_with_what_it_does_until_it_has_stopped(db: Arc<Db>) {
    db.push_many("p", 4).await;
    db.push_many("q", 2).await;
    db.push_to(&NewPartition { feed: "other".into(), ..NewPartition::new("r") }, &[("i", 0)]).await;
    let log = Log::new();
    let (processor, released) = log.held();
    let shutdown = CancellationToken::new();
    let feeds = ["default", "other", "idle"].map(str::to_owned).to_vec();
    let builder = watcher(db.another().await).owner("w").feeds(feeds).shutdown(shutdown.clone());
    let run = tokio::spawn(builder.until_idle(false).processor(processor).run());

    let seen = until(&db, "default", |w| w.in_flight == 6).await;
    let expected = (env!("CARGO_PKG_VERSION"), 10, 2, 0);
    assert_eq!((&*seen.version, seen.concurrency, seen.partitions, seen.outcomes), expected);
    let other = until(&db, "other", |w| w.in_flight == 1).await;
    assert_eq!((other.partitions, other.outcomes), (1, 0));
    let idle = until(&db, "idle", |_| true).await;
    assert_eq!((idle.partitions, idle.in_flight), (0, 0));
    assert_eq!(feed(&db, "default").await.unwrap().in_flight, 6);

    let last = until(&db, "default", |_| true).await;
    shutdown.cancel();
    let draining = until(&db, "default", |w| w.seen_at > last.seen_at).await;
    assert_eq!((draining.partitions, draining.in_flight), (2, 6));
    assert_eq!(draining.started_at, seen.started_at);
    released.add_permits(100);
    within("stop", run).await.unwrap().unwrap();
    assert_gone(&db).await;
}

async fn every_outcome_counts_failed_attempts_too(db: Arc<Db>) {
    db.push("p", &[("a", 0), ("b", 0), ("late", 1)]).await;
    let log = Log::new();
    let processor = log.processor(async |delivery| match (&*delivery.item, delivery.attempt) {
        ("b", 1 | 2) => Err("twice".into()),
        _ => Ok(Answer::done()),
    });
    let builder = watcher(db.another().await).owner("w").until_idle(false);
    let run = tokio::spawn(builder.processor(processor).run());
    let seen = until(&db, "default", |w| w.outcomes >= 5 && w.partitions == 0).await;
    assert_eq!((seen.outcomes, seen.in_flight), (5, 0));
    run.abort();
}

async fn one_that_is_done_says_so(db: Arc<Db>) {
    db.push("p", &[("a", 0)]).await;
    let store = FaultStore::new(db.another().await);
    let (log, reported) = (Log::new(), store.clone());
    let processor = log.processor(move |_| {
        let store = reported.clone();
        async move {
            until_reported(&store, 1).await;
            Ok(Answer::done())
        }
    });
    within("idle", watcher(store).processor(processor).run()).await.unwrap();
    assert_gone(&db).await;
}

async fn one_that_died_stays_until_one_of_its_name_comes(db: Arc<Db>) {
    let log = Log::new();
    let start = |store, feed: &str| {
        let builder = watcher(store).owner("w").feeds(vec![feed.to_owned()]).until_idle(false);
        tokio::spawn(builder.processor(log.processor(async |_| Ok(Answer::done()))).run())
    };
    let first = start(db.another().await, "default");
    let died = until(&db, "default", |_| true).await;
    first.abort();
    assert!(within("the end", first).await.unwrap_err().is_cancelled());
    assert_eq!(feed(&db, "default").await.unwrap().watchers.len(), 1);

    let second = start(db.another().await, "other");
    let heir = until(&db, "other", |_| true).await;
    assert!(heir.started_at > died.started_at);
    assert!(feed(&db, "default").await.is_none(), "it does not serve this one");
    second.abort();
}

async fn refused_reports_disturb_nothing(db: Arc<Db>) {
    let store = faulty_reports(&db, Fault::Refuse).await;
    work_undisturbed(&db, &store).await;
    assert_gone(&db).await;
}

async fn a_report_that_hangs_disturbs_nothing(db: Arc<Db>) {
    let store = faulty_reports(&db, Fault::StopBefore).await;
    work_undisturbed(&db, &store).await;
}

/// Is told how many others there are.
struct Splitting {
    log: Arc<Mutex<Vec<String>>>,
}

impl Processor for Splitting {
    async fn process(&self, _: Delivery) -> Verdict {
        self.log.lock().unwrap().push("sent".into());
        Ok(Answer::done())
    }

    fn is_split(&self) -> bool {
        true
    }

    fn split(&self, peers: &Peers) {
        let told = format!("one of {}", peers.share(|feed| feed == "default").watchers());
        let mut log = self.log.lock().unwrap();
        if log.last() != Some(&told) {
            log.push(told);
        }
    }
}

/// Also if its first reports fail; and afterwards it is told of those who come and go.
async fn who_splits_limits_knows_of_others_before_anything_is_sent(db: Arc<Db>) {
    db.push("p", &[("a", 0)]).await;
    let another = |watcher: &str| Report {
        watcher: watcher.into(),
        version: "1",
        concurrency: 1,
        feeds: vec![FeedReport {
            feed: "default".into(),
            partitions: 0,
            in_flight: 0,
            outcomes: 0,
            outcomes_per_second: 0.0,
            circuits: vec![],
        }],
    };
    db.store.report(&another("v")).await.unwrap();
    let store = FaultStore::with(db.another().await, |call, nth, _| match call {
        Call::Report if nth <= 2 => Fault::Refuse,
        _ => Fault::None,
    });
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let shutdown = CancellationToken::new();
    let builder = watcher(store).owner("w").until_idle(false).shutdown(shutdown.clone());
    let run = tokio::spawn(builder.processor(Splitting { log: log.clone() }).run());
    let until = async |what: &'static str, expected: &[&str]| {
        let met = async {
            while *log.lock().unwrap() != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(
            tokio::time::timeout(Duration::from_secs(30), met).await.is_ok(),
            "{what}: {:?}",
            log.lock().unwrap()
        );
    };
    until("told first", &["one of 2", "sent"]).await;
    db.store.report(&another("x")).await.unwrap();
    until("one that comes", &["one of 2", "sent", "one of 3"]).await;
    db.store.farewell("v").await.unwrap();
    db.store.farewell("x").await.unwrap();
    until("others that go", &["one of 2", "sent", "one of 3", "one of 1"]).await;
    shutdown.cancel();
    within("stop", run).await.unwrap().unwrap();
    assert_gone(&db).await;
}

/// The only fault: whatever a watcher reports ends like this.
async fn faulty_reports(db: &Db, fault: Fault) -> Arc<FaultStore> {
    FaultStore::with(db.another().await, move |call, _, _| match call {
        Call::Report => fault,
        _ => Fault::None,
    })
}

/// A delivery that outlasts its lease, work that comes after a faulty report, which is not the last, and a stop that
/// has an end.
async fn work_undisturbed(db: &Db, store: &Arc<FaultStore>) {
    let lease = Duration::from_secs(1);
    db.push("long", &[("i", 0)]).await;
    let log = Log::new();
    let processor = log.processor(move |delivery| async move {
        if &*delivery.partition == "long" {
            tokio::time::sleep(lease * 2).await;
        }
        Ok(Answer::done())
    });
    let shutdown = CancellationToken::new();
    let builder = watcher(store.clone()).until_idle(false).lease_duration(lease).shutdown(shutdown.clone());
    let run = tokio::spawn(builder.processor(processor).run());
    until_reported(store, 2).await;
    db.push_many("p", 20).await;
    log.until("all is through", |events| events.iter().filter(|e| e.what == What::Accepted).count() == 21)
        .await;
    shutdown.cancel();
    within("stop", run).await.unwrap().unwrap();
    log.assert_once(21);
    assert!(store.granted().iter().all(|lease| lease.epoch == 1), "a lease was lost");
    for partition in ["long", "p"] {
        assert_eq!(db.partition(partition).await.owner, None);
    }
}

/// Waits for the beginning of so many reports.
async fn until_reported(store: &FaultStore, count: u64) {
    let reported = async {
        while store.count(Call::Report) < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("reports", reported).await;
}

async fn feed(db: &Db, name: &str) -> Option<FeedStatus> {
    db.store.status().await.unwrap().into_iter().find(|status| status.feed == name)
}

/// Waits until the only watcher of this feed meets a condition.
async fn until(db: &Db, name: &str, condition: impl Fn(&WatcherStatus) -> bool) -> WatcherStatus {
    let met = async {
        loop {
            let watchers = feed(db, name).await.map(|feed| feed.watchers).unwrap_or_default();
            assert!(watchers.iter().all(|watcher| watcher.id == "w"), "{watchers:?}");
            if let Some(watcher) = watchers.into_iter().find(&condition) {
                return watcher;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(name, met).await
}

async fn assert_gone(db: &Db) {
    let status = db.store.status().await.unwrap();
    let watchers: Vec<_> = status.into_iter().flat_map(|feed| feed.watchers).collect();
    assert!(watchers.is_empty(), "{watchers:?}");
}
