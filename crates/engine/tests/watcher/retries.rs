//! How often, and what is written down.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{
    answer::{Answer, Failure, Verdict},
    item::ItemStatus,
};
use gatefeed_engine::Delivery;

use crate::{
    db::{Db, retries, watcher, within},
    record::{Log, What},
};

on_both! {
    one_plus_max_retries_deliveries
    for_ever_is_for_ever
    the_count_starts_again_at_each_gate
    no_retry_ends_it
    uncounted_failures_never_use_retries
    a_panic_is_a_failed_attempt
}

async fn one_plus_max_retries_deliveries(db: Arc<Db>) {
    for max in [0, 1, 4] {
        let partition = format!("p{max}");
        db.push(&partition, &[(&partition, 0)]).await;
        let log = Log::new();
        let processor = log.processor(async |delivery| Err(Failure::new(format!("no {}", delivery.attempt))));
        let run = watcher(db.another().await).retry(retries(Some(max))).processor(processor).run();
        assert!(within("idle", run).await.unwrap().failed);
        assert_eq!(log.attempts(&partition), (1..=max + 1).collect::<Vec<_>>());
        let row = db.item(&partition, &partition).await;
        assert_eq!((row.status, row.retry_count, row.pass), (ItemStatus::Failed, max as i32, 0));
        let lines: Vec<_> = (1..=max + 1).map(|attempt| format!("no {attempt}")).collect();
        assert_eq!(row.error_messages.unwrap(), lines.join("\n"));
    }
}

async fn for_ever_is_for_ever(db: Arc<Db>) {
    db.push("p", &[("i", 0)]).await;
    let log = Log::new();
    let processor =
        log.processor(async |d| if d.attempt < 15 { Err("no".into()) } else { Ok(Answer::done()) });
    let run = watcher(db.another().await).retry(retries(None)).processor(processor).run();
    within("idle", run).await.unwrap();
    assert_eq!(log.attempts("i"), (1..=15).collect::<Vec<_>>());
    db.assert_complete("p", 1).await;
}

async fn the_count_starts_again_at_each_gate(db: Arc<Db>) {
    db.push("p", &[("i", 0)]).await;
    let log = Log::new();
    let processor = log.processor(async |d| match (d.attempt, d.gate) {
        (1 | 2, _) => Err("not yet".into()),
        (_, 0) => Ok(Answer::to_gate(1)),
        _ => Ok(Answer::done()),
    });
    let run = watcher(db.another().await).retry(retries(Some(2))).processor(processor).run();
    assert!(!within("idle", run).await.unwrap().failed);
    assert_eq!(log.gates("i"), [0, 0, 0, 1, 1, 1]);
    assert_eq!(log.attempts("i"), [1, 2, 3, 1, 2, 3]);
    db.assert_complete("p", 1).await;
    assert_eq!(db.item("p", "i").await.error_messages.unwrap(), "not yet");
}

async fn no_retry_ends_it(db: Arc<Db>) {
    db.push("p", &[("i", 0)]).await;
    let log = Log::new();
    let processor = log.processor(async |_| Err(Failure::final_("never")));
    let run = watcher(db.another().await).retry(retries(None)).processor(processor).run();
    assert!(within("idle", run).await.unwrap().failed);
    assert_eq!(log.attempts("i"), [1]);
    assert_eq!(db.item("p", "i").await.error_messages.unwrap(), "never");
}

async fn uncounted_failures_never_use_retries(db: Arc<Db>) {
    db.push("p", &[("i", 0)]).await;
    let log = Log::new();
    let seen = log.clone();
    let processor = log.processor(move |_| {
        let begun = seen.count(What::Began);
        async move {
            let soon = Some(Duration::from_millis(1));
            if begun <= 10 { Err(Failure::delayed("busy", soon)) } else { Ok(Answer::done()) }
        }
    });
    let run = watcher(db.another().await).retry(retries(Some(0))).processor(processor).run();
    assert!(!within("idle", run).await.unwrap().failed);
    assert_eq!(log.attempts("i"), [1; 11]);
    let row = db.item("p", "i").await;
    assert_eq!((row.status, row.retry_count), (ItemStatus::Complete, 0));
    assert_eq!(row.error_messages.unwrap(), "busy");
}

/// Whether it panics when it is polled or when it is called, as a closure can.
async fn a_panic_is_a_failed_attempt(db: Arc<Db>) {
    async fn polled(delivery: Delivery) -> Verdict {
        assert_ne!(&*delivery.item, "bad", "made to panic by the test");
        Ok(Answer::done())
    }
    let called = |delivery: Delivery| {
        assert_ne!(&*delivery.item, "bad", "made to panic by the test");
        std::future::ready(Verdict::Ok(Answer::done()))
    };
    let quick = |store| watcher(store).retry(retries(Some(1)));

    db.push("polled", &[("bad", 0), ("good", 0)]).await;
    assert!(within("polled", quick(db.another().await).processor(polled).run()).await.unwrap().failed);
    db.push("called", &[("bad", 0), ("good", 0)]).await;
    assert!(within("called", quick(db.another().await).processor(called).run()).await.unwrap().failed);
    for partition in ["polled", "called"] {
        let bad = db.item(partition, "bad").await;
        assert_eq!((bad.status, bad.retry_count), (ItemStatus::Failed, 1));
        assert!(bad.error_messages.unwrap().contains("panicked"));
        assert_eq!(db.item(partition, "good").await.status, ItemStatus::Complete);
    }
}
