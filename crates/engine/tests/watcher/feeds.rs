//! Feeds in one watcher: each with a policy of its own, and none in another's way.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gatefeed_core::{
    answer::{Answer, Failure, Verdict},
    partition::NewPartition,
};
use gatefeed_engine::{Delivery, Policy, Processor};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    db::{Db, retries, watcher, within},
    record::{Event, Log, Recording, What, in_flight_max},
};

on_both! {
    each_feed_and_gate_has_its_own_retries
    bounds_of_feeds_and_gates_are_kept_and_hold_up_nobody
    a_feed_whose_handler_is_down_waits_untouched
    what_becomes_due_is_left_to_those_that_can_send_it
    without_others_what_is_due_is_claimed_and_sent_once_the_handler_is_back
    who_is_alone_claims_what_is_due_though_its_handler_was_down
}

async fn push(db: &Db, feed: &str, partition: &str, items: &[(&str, i32)]) {
    db.push_to(&NewPartition { feed: feed.to_owned(), ..NewPartition::new(partition) }, items).await;
}

fn feeds() -> Vec<String> {
    vec!["a".to_owned(), "b".to_owned()]
}

async fn each_feed_and_gate_has_its_own_retries(db: Arc<Db>) {
    push(&db, "a", "of-a", &[("a0", 0), ("a1", 1)]).await;
    push(&db, "b", "of-b", &[("b0", 0)]).await;
    let log = Log::new();
    let fails = |delivery: Delivery| async move {
        if &*delivery.item == "a0" { Ok(Answer::done()) } else { Err(Failure::new("no")) }
    };
    let policy = |max| Policy { retry: retries(Some(max)), ..Policy::default() };
    let watcher = watcher(db.another().await).feeds(feeds()).retry(retries(Some(1)));
    let watcher = watcher.feed_policy("a", policy(4)).gate_policy("a", 1, policy(2));
    within("idle", watcher.processor(log.processor(fails)).run()).await.unwrap();
    assert_eq!((log.attempts("a1"), log.attempts("b0")), (vec![1, 2, 3], vec![1, 2]));
}

async fn bounds_of_feeds_and_gates_are_kept_and_hold_up_nobody(db: Arc<Db>) {
    let ids: Vec<String> = (0..60).map(|n| format!("i{n:02}")).collect();
    let items: Vec<(&str, i32)> =
        ids.iter().enumerate().map(|(n, id)| (id.as_str(), (n % 2) as i32)).collect();
    for partition in ["a1", "a2"] {
        push(&db, "a", partition, &items).await;
    }
    push(&db, "b", "b", &items).await;
    let log = Log::new();
    let processor = log.processor(async |delivery| {
        let time = if &*delivery.feed == "a" { 5 } else { 1 };
        tokio::time::sleep(Duration::from_millis(time)).await;
        Ok(Answer::done())
    });
    let policy = |max| Policy { concurrency: Some(max), ..Policy::default() };
    let watcher = watcher(db.another().await).feeds(feeds());
    let watcher = watcher.feed_policy("a", policy(3)).gate_policy("a", 1, policy(1)).concurrency(20);
    within("idle", watcher.processor(processor).run()).await.unwrap();
    log.assert_once(180);
    let of = |is_wanted: &dyn Fn(&Event) -> bool| -> Vec<Event> {
        log.events().into_iter().filter(|event| is_wanted(event)).collect()
    };
    assert_eq!(in_flight_max(&of(&|event| event.partition.starts_with('a'))).0, 3);
    assert_eq!(in_flight_max(&of(&|event| event.partition.starts_with('a') && event.gate == 1)).0, 1);
    assert!(in_flight_max(&of(&|event| event.partition == "b")).0 > 3, "the other feed has what is left");
}

/// Feed `a` is down until it is told.
struct Down<F> {
    inner: Recording<F>,
    is_up: Arc<AtomicBool>,
    changed: Arc<Notify>,
}

impl<F, Fut> Processor for Down<F>
where
    F: Fn(Delivery) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Verdict> + Send,
{
    fn process(&self, delivery: Delivery) -> impl Future<Output = Verdict> + Send {
        self.inner.process(delivery)
    }

    fn is_ready(&self, feed: &str, _: i32) -> bool {
        feed != "a" || self.is_up.load(Ordering::Acquire)
    }

    fn is_down(&self, feed: &str) -> bool {
        !self.is_ready(feed, 0)
    }

    fn readiness_changed(&self) -> impl Future<Output = ()> + Send {
        self.changed.notified()
    }
}

async fn a_feed_whose_handler_is_down_waits_untouched(db: Arc<Db>) {
    // More than is read ahead, in more partitions than are held of it.
    for n in 0..12 {
        let ids: Vec<String> = (0..300).map(|n| format!("i{n:03}")).collect();
        let items: Vec<(&str, i32)> = ids.iter().map(|id| (id.as_str(), 0)).collect();
        push(&db, "a", &format!("a{n}"), &items).await;
    }
    let log = Log::new();
    let (is_up, changed) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
    let inner = log.processor(async |_| Ok(Answer::done()));
    let processor = Down { inner, is_up: is_up.clone(), changed: changed.clone() };
    let run = tokio::spawn(watcher(db.another().await).feeds(feeds()).processor(processor).run());
    let ids: Vec<String> = (0..50).map(|n| format!("b{n:02}")).collect();
    for id in &ids {
        push(&db, "b", id, &[(id, 0)]).await;
    }
    log.until("the other feed is through", |events| {
        events.iter().filter(|event| event.what == What::Accepted).count() == 50
    })
    .await;
    assert!(log.events().iter().all(|event| event.partition.starts_with('b')), "it was tried");
    assert!(db.items("a0").await.iter().all(|row| row.error_messages.is_none()), "it was touched");
    is_up.store(true, Ordering::Release);
    changed.notify_waiters();
    within("idle", run).await.unwrap().unwrap();
    log.assert_once(3650);
}

/// A handler that has failed may have come back: only a delivery can tell.
async fn who_is_alone_claims_what_is_due_though_its_handler_was_down(db: Arc<Db>) {
    let (log, stop) = (Log::new(), CancellationToken::new());
    let inner = log.processor(async |_| Ok(Answer::done()));
    let down = Down { inner, is_up: Arc::new(AtomicBool::new(false)), changed: Arc::new(Notify::new()) };
    push(&db, "a", "due", &[("due", 0)]).await;
    // Nothing is overdue within this test.
    let watcher = watcher(db.another().await).feeds(feeds()).poll_interval(Duration::from_secs(3600));
    let run = tokio::spawn(watcher.until_idle(false).shutdown(stop.clone()).processor(down).run());
    let claimed = async {
        while db.partition("due").await.owner.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("it sees that nobody else is there", claimed).await;
    stop.cancel();
    within("the end", run).await.unwrap().unwrap();
}

/// One watcher whose handler is down, with nothing to do, is as quick to hear of it as another one.
async fn what_becomes_due_is_left_to_those_that_can_send_it(db: Arc<Db>) {
    let (log, stop) = (Log::new(), CancellationToken::new());
    let start = |store, is_up: bool| {
        let inner = log.processor(async |_| Ok(Answer::done()));
        let processor =
            Down { inner, is_up: Arc::new(AtomicBool::new(is_up)), changed: Arc::new(Notify::new()) };
        // Nothing is overdue within this test.
        let watcher = watcher(store).feeds(feeds()).poll_interval(Duration::from_secs(30));
        let watcher = watcher.until_idle(false).shutdown(stop.clone());
        tokio::spawn(watcher.processor(processor).run())
    };
    let watchers = [start(db.another().await, false), start(db.another().await, true)];
    for n in 0..30 {
        push(&db, "a", &format!("a{n:02}"), &[(&format!("i{n:02}"), 0)]).await;
        log.until("it is delivered", |events| {
            events.iter().filter(|event| event.what == What::Accepted).count() > n
        })
        .await;
    }
    stop.cancel();
    for watcher in watchers {
        within("the end", watcher).await.unwrap().unwrap();
    }
    for n in 0..30 {
        assert_eq!(db.partition(&format!("a{n:02}")).await.epoch, 1, "a{n:02} was claimed by both");
    }
}

async fn without_others_what_is_due_is_claimed_and_sent_once_the_handler_is_back(db: Arc<Db>) {
    let log = Log::new();
    let (is_up, changed) = (Arc::new(AtomicBool::new(false)), Arc::new(Notify::new()));
    let down = || Down {
        inner: log.processor(async |_| Ok(Answer::done())),
        is_up: is_up.clone(),
        changed: changed.clone(),
    };
    push(&db, "a", "overdue", &[("overdue", 0)]).await;
    let run = tokio::spawn(watcher(db.another().await).feeds(feeds()).processor(down()).run());
    let claimed = async {
        while db.partition("overdue").await.owner.is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("nobody else takes it", claimed).await;
    is_up.store(true, Ordering::Release);
    changed.notify_waiters();
    within("idle", run).await.unwrap().unwrap();

    // Not at the next poll: the moment that it is back.
    is_up.store(false, Ordering::Release);
    let slow = watcher(db.another().await).feeds(feeds()).poll_interval(Duration::from_secs(3600));
    let run = tokio::spawn(slow.until_idle(false).processor(down()).run());
    push(&db, "a", "due", &[("due", 0)]).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    is_up.store(true, Ordering::Release);
    // Again and again, since it is not always listened to.
    let told = tokio::spawn(async move {
        loop {
            changed.notify_waiters();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    log.until("it is delivered", |events| {
        events.iter().filter(|event| event.what == What::Accepted).count() == 2
    })
    .await;
    told.abort();
    run.abort();
}
