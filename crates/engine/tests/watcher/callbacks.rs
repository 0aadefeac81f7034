//! Items whose handler answers later: they are delivered once an attempt, and none waits for ever.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gatefeed_core::{
    Store,
    answer::{Answer, Failure},
    callback::{Callback, CalledBack, TIMED_OUT, Ticket},
    item::ItemStatus,
};
use gatefeed_engine::Delivery;
use tokio::sync::Notify;

use crate::{
    db::{Db, watcher, within},
    record::{Log, What},
};

on_both! {
    an_answer_that_comes_later
    an_answer_that_comes_first
    one_that_never_comes_is_a_failed_attempt
    one_that_never_comes_while_others_are_under_way
    one_that_never_comes_to_a_watcher_that_died
}

const HOUR: Duration = Duration::from_secs(3600);

fn ticket(delivery: &Delivery) -> Ticket {
    delivery.ticket(HOUR, 1024)
}

async fn call_back(store: &Arc<dyn Store>, ticket: Ticket, answer: Answer) -> CalledBack {
    let callback = Callback { ticket, verdict: Ok(answer), jitter: 0.5 };
    loop {
        match store.call_back(&callback).await {
            Ok(called) => return called,
            Err(error) => assert!(error.is_retryable(), "{error}"),
        }
    }
}

/// It moves to another gate, where it is delivered again, and its partition goes on with it.
async fn an_answer_that_comes_later(db: Arc<Db>) {
    db.push("p", &[("i", 0), ("j", 1)]).await;
    let log = Log::new();
    let (other, elsewhere) = (db.another().await, db.clone());
    let processor = log.processor(move |delivery: Delivery| {
        let (other, db) = (other.clone(), elsewhere.clone());
        async move {
            if (&*delivery.item, delivery.gate) != ("i", 0) {
                return Ok(Answer::done());
            }
            tokio::spawn(async move {
                while db.item("p", "i").await.status != ItemStatus::Waiting {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                call_back(&other, ticket(&delivery), Answer::to_gate(1)).await;
            });
            Ok(Answer::by_callback(HOUR))
        }
    });
    let run = watcher(db.another().await).processor(processor).run();
    assert!(!within("idle", run).await.unwrap().failed);
    db.assert_complete("p", 2).await;
    let began = log.of(What::Began);
    assert_eq!(began.len(), 3, "{began:?}");
    assert_eq!((began[0].item.as_str(), began[0].pass), ("i", 0));
    assert_eq!(began.iter().find(|event| event.item == "i" && event.gate == 1).unwrap().pass, 1);
}

/// Before the handler has said that it would come later: the item is neither forgotten nor delivered twice.
async fn an_answer_that_comes_first(db: Arc<Db>) {
    db.push_many("p", 30).await;
    let log = Log::new();
    let other = db.another().await;
    let processor = log.processor(move |delivery: Delivery| {
        let other = other.clone();
        async move {
            let answer = if delivery.gate == 0 { Answer::to_gate(1) } else { Answer::done() };
            let called = call_back(&other, ticket(&delivery), answer).await;
            assert!(matches!(called, CalledBack::Written { .. }), "{called:?}");
            Ok(Answer::by_callback(HOUR))
        }
    });
    let run = watcher(db.another().await).processor(processor).run();
    assert!(!within("idle", run).await.unwrap().failed);
    db.assert_complete("p", 30).await;
    assert_eq!(log.of(What::Began).len(), 60, "each once a gate");
}

/// It is repeated like one that was answered with an error, and counts.
async fn one_that_never_comes_is_a_failed_attempt(db: Arc<Db>) {
    db.push("p", &[("i", 0)]).await;
    let attempts: Arc<Mutex<Vec<(u32, i32)>>> = Arc::default();
    let log = attempts.clone();
    let processor = move |delivery: Delivery| {
        log.lock().unwrap().push((delivery.attempt, delivery.pass));
        async { Ok(Answer::by_callback(Duration::from_millis(30))) }
    };
    let builder = watcher(db.another().await).retry(crate::db::retries(Some(2)));
    assert!(within("idle", builder.processor(processor).run()).await.unwrap().failed);
    let item = db.item("p", "i").await;
    assert_eq!((item.status, item.retry_count), (ItemStatus::Failed, 2));
    assert_eq!(item.error_messages.as_deref(), Some(TIMED_OUT));
    assert_eq!(*attempts.lock().unwrap(), [(1, 0), (2, 0), (3, 0)]);
}

/// A partition that has something under way all the time comes to no checkpoint.
async fn one_that_never_comes_while_others_are_under_way(db: Arc<Db>) {
    db.push("p", &[("slow", 0), ("waits", 0)]).await;
    let seen = Arc::new(AtomicUsize::new(0));
    let again = Arc::new(Notify::new());
    let processor = move |delivery: Delivery| {
        let (seen, again) = (seen.clone(), again.clone());
        async move {
            if &*delivery.item == "slow" {
                again.notified().await;
            } else if seen.fetch_add(1, Ordering::SeqCst) == 0 {
                return Ok(Answer::by_callback(Duration::from_millis(1)));
            } else {
                again.notify_one();
            }
            Ok(Answer::done())
        }
    };
    let run = watcher(db.another().await).processor(processor).run();
    assert!(!within("idle", run).await.unwrap().failed);
    db.assert_complete("p", 2).await;
    assert_eq!(db.item("p", "waits").await.error_messages.as_deref(), Some(TIMED_OUT));
}

/// Another one takes the partition over when the time is up, and no sooner than that.
async fn one_that_never_comes_to_a_watcher_that_died(db: Arc<Db>) {
    db.push("p", &[("i", 0)]).await;
    let waits = |_| async { Ok(Answer::by_callback(Duration::from_millis(700))) };
    let first = watcher(db.another().await).lease_duration(Duration::from_secs(1)).processor(waits).run();
    let first = tokio::spawn(first);
    while db.item("p", "i").await.status != ItemStatus::Waiting {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    first.abort();
    assert!(first.await.is_err_and(|error| error.is_cancelled()));
    let answers = |delivery: Delivery| async move {
        if delivery.attempt == 2 {
            Ok(Answer::done())
        } else {
            Err(Failure::final_("not the second attempt"))
        }
    };
    let run = watcher(db.another().await).processor(answers).run();
    assert!(!within("idle", run).await.unwrap().failed);
    db.assert_complete("p", 1).await;
}
