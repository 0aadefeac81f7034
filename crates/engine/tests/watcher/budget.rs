//! The in-flight budget: kept, used, and shared.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{answer::Answer, partition::NewPartition};
use gatefeed_engine::Concurrency;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    db::{Db, watcher, within},
    record::{Log, What, in_flight, in_flight_max},
};

on_both! {
    bounds_are_kept_and_reached
    a_hanging_partition_does_not_hold_up_another
    a_partition_that_begins_to_hang_does_not_hold_up_another
    one_that_comes_along_does_not_wait_for_a_poll
    many_partitions_get_their_turns
    the_bound_changes_while_it_runs
    what_is_left_to_the_watcher_goes_up_and_down_within_its_bounds
}

async fn bounds_are_kept_and_reached(db: Arc<Db>) {
    let ids: Vec<_> = (0..60).map(|n| format!("i{n:02}")).collect();
    let items: Vec<_> = ids.iter().map(|id| (id.as_str(), 0)).collect();
    db.push_to(&NewPartition { max_in_flight: Some(3), ..NewPartition::new("bounded") }, &items).await;
    db.push("free", &items).await;
    let log = Log::new();
    let released = Arc::new(Semaphore::new(0));
    let permits = released.clone();
    let processor = log.processor(move |_| {
        let permits = permits.clone();
        async move {
            permits.acquire().await.unwrap().forget();
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..5))).await;
            Ok(Answer::done())
        }
    });
    let run = tokio::spawn(watcher(db.another().await).concurrency(8).processor(processor).run());
    log.until("both bounds are reached", |events| {
        let bounded: Vec<_> = events.iter().filter(|event| event.partition == "bounded").cloned().collect();
        in_flight(events) == 8 && in_flight(&bounded) == 3
    })
    .await;
    released.add_permits(1000);
    within("idle", run).await.unwrap().unwrap();
    log.assert_once(120);
    let (overall, by_partition) = in_flight_max(&log.events());
    assert_eq!((overall, by_partition["bounded"]), (8, 3));
}

async fn a_hanging_partition_does_not_hold_up_another(db: Arc<Db>) {
    hanging_does_not_hold_up(&db, 0).await;
}

/// The slots that are kept for it are of use at once, however long the poll interval is.
async fn one_that_comes_along_does_not_wait_for_a_poll(db: Arc<Db>) {
    db.push_many("slow", 100).await;
    let log = Log::new();
    let released = Arc::new(Semaphore::new(0));
    let permits = released.clone();
    let processor = log.processor(move |delivery| {
        let permits = permits.clone();
        async move {
            if &*delivery.partition == "slow" {
                permits.acquire().await.unwrap().forget();
            }
            Ok(Answer::done())
        }
    });
    let builder = watcher(db.another().await).concurrency(20).poll_interval(Duration::from_secs(600));
    let stop = CancellationToken::new();
    let builder = builder.until_idle(false).shutdown(stop.clone());
    let run = tokio::spawn(builder.processor(processor).run());
    log.until("it is full", |events| in_flight(events) == 18).await;
    for partition in ["quick", "another"] {
        db.push(partition, &[("i", 0)]).await;
        log.until(partition, |events| events.iter().any(|e| e.is(What::Accepted, partition))).await;
    }
    assert_eq!(log.of(What::Accepted).len(), 2);
    released.add_permits(100);
    log.until("all", |events| events.iter().filter(|e| e.what == What::Accepted).count() == 102).await;
    stop.cancel();
    within("the end", run).await.unwrap().unwrap();
}

async fn a_partition_that_begins_to_hang_does_not_hold_up_another(db: Arc<Db>) {
    hanging_does_not_hold_up(&db, 30).await;
}

/// The partition "slow" hangs after so many items, and "quick" comes when as many deliveries as there may be hang.
async fn hanging_does_not_hold_up(db: &Db, hangs_after: usize) {
    db.push_many("slow", hangs_after + 40).await;
    let log = Log::new();
    let released = Arc::new(Semaphore::new(hangs_after));
    let permits = released.clone();
    let processor = log.processor(move |delivery| {
        let permits = permits.clone();
        async move {
            if &*delivery.partition == "slow" {
                permits.acquire().await.unwrap().forget();
            }
            Ok(Answer::done())
        }
    });
    let run = tokio::spawn(watcher(db.another().await).concurrency(10).processor(processor).run());
    log.until("nine hang", |events| in_flight(events) >= 9 && events.len() >= 2 * hangs_after + 9).await;
    // One may be kept for others: the tenth has this long to come.
    _ = tokio::time::timeout(Duration::from_millis(300), log.until_in_flight(10)).await;
    db.push_many("quick", 20).await;
    let is_through = log.until("quick is through", |events| {
        events.iter().filter(|event| event.is(What::Accepted, "quick")).count() == 20
    });
    let is_through = tokio::time::timeout(Duration::from_secs(10), is_through).await.is_ok();
    released.add_permits(1000);
    within("idle", run).await.unwrap().unwrap();
    assert!(is_through, "held up by a partition that hangs");
    log.assert_once(hangs_after + 60);
}

/// More partitions than deliveries, and one of them large.
async fn many_partitions_get_their_turns(db: Arc<Db>) {
    db.push_many("large", 6000).await;
    let log = Log::new();
    let processor = log.processor(async |delivery| {
        if &*delivery.partition == "large" {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(Answer::done())
    });
    let run = tokio::spawn(watcher(db.another().await).processor(processor).run());
    log.until("the large one is under way", |events| events.len() > 20).await;
    for n in 0..30 {
        db.push_many(&format!("small{n}"), 3).await;
    }
    within("idle", run).await.unwrap().unwrap();
    log.assert_once(6090);
    let events = log.of(What::Accepted);
    let last_small = events.iter().rposition(|event| event.partition != "large").unwrap();
    let before = events[..last_small].iter().filter(|event| event.partition == "large").count();
    // A full watcher leaves them to others for some poll intervals first.
    assert!(before < 5500, "the small ones were through after {before} of the large one");
}

/// Waits until a watcher may have so many in flight.
async fn until_it_may(concurrency: &Concurrency, what: &str, condition: impl Fn(usize) -> bool) {
    let met = async {
        while !condition(concurrency.current()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, met).await;
}

async fn the_bound_changes_while_it_runs(db: Arc<Db>) {
    db.push_many("p", 60).await;
    db.push_many("q", 60).await;
    let log = Log::new();
    let (processor, released) = log.held();
    let watcher = watcher(db.another().await).concurrency(8).processor(processor);
    let concurrency = watcher.concurrency();
    let run = tokio::spawn(watcher.run());
    log.until_in_flight(8).await;

    concurrency.set(3).unwrap();
    until_it_may(&concurrency, "three", |now| now == 3).await;
    let before = log.events().len();
    released.add_permits(20);
    log.until("20 are through", |events| events.iter().filter(|e| e.what == What::Accepted).count() == 20)
        .await;
    log.until_in_flight(3).await;
    let events = log.events();
    for end in before..events.len() {
        let began = events[end].what == What::Began;
        assert!(!began || in_flight(&events[..=end]) <= 3, "one began before enough had ended");
    }

    concurrency.set_between(12, 12).unwrap();
    log.until_in_flight(12).await;
    released.add_permits(1000);
    within("idle", run).await.unwrap().unwrap();
    log.assert_once(120);
    assert_eq!(in_flight_max(&log.events()).0, 12);
}

async fn what_is_left_to_the_watcher_goes_up_and_down_within_its_bounds(db: Arc<Db>) {
    db.push_many("p", 3000).await;
    let log = Log::new();
    let processor = log.processor(async |_| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(Answer::done())
    });
    let watcher = watcher(db.another().await).concurrency_between(2, 4).until_idle(false);
    let shutdown = CancellationToken::new();
    let watcher = watcher.shutdown(shutdown.clone()).processor(processor);
    let concurrency = watcher.concurrency();
    let run = tokio::spawn(watcher.run());
    until_it_may(&concurrency, "it grows", |now| now == 4).await;
    concurrency.set_between(2, 6).unwrap();
    until_it_may(&concurrency, "it grows on", |now| now == 6).await;
    log.until("all are through", |events| events.iter().filter(|e| e.what == What::Accepted).count() == 3000)
        .await;
    until_it_may(&concurrency, "what is not used is given up", |now| now == 2).await;
    shutdown.cancel();
    within("stop", run).await.unwrap().unwrap();
    log.assert_once(3000);
    assert!(in_flight_max(&log.events()).0 <= 6);
}
