//! What the database refuses, an outcome or a page, takes no other with it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use gatefeed_core::{
    answer::{Answer, Child},
    item::ItemStatus,
    partition::{FailurePolicy, NewPartition},
};
use gatefeed_testkit::faults::{Call, FaultStore};
use tokio::sync::Barrier;

use crate::{
    db::{Db, child, retries, watcher, within},
    record::{Log, What},
};

on_both! {
    only_the_culprit_fails what_may_not_be_complete_fails what_takes_no_outcome_rests an_outcome_that_takes_too_long_holds_up_no_other an_unreadable_partition_holds_up_no_other a_partition_without_a_checkpoint_holds_up_no_other an_unreadable_partition_rests_alone
}

async fn only_the_culprit_fails(db: Arc<Db>) {
    let ids: Vec<_> = (0..20).map(|n| format!("i{n:02}")).collect();
    let items: Vec<_> = ids.iter().map(|id| (id.as_str(), 0)).collect();
    let lenient = NewPartition { failure_policy: FailurePolicy::Continue, ..NewPartition::new("p") };
    db.push_to(&lenient, &items).await;
    let store = FaultStore::new(db.another().await);
    store
        .refuse_outcomes(|completion| completion.children.iter().any(|child| child.partition == "cancelled"));
    let log = Log::new();
    // All come to an end at once, and so in a batch.
    let together = Arc::new(Barrier::new(20));
    let processor = log.processor(move |delivery| {
        let together = together.clone();
        async move {
            if delivery.attempt == 1 && delivery.pass == 0 && delivery.item.starts_with('i') {
                together.wait().await;
            }
            let partition = (&*delivery.item == "i07").then(|| "cancelled".to_owned());
            let is_child = !delivery.item.starts_with('i');
            let child = Child { partition, id: Some(format!("child of {}", delivery.item)), ..child(None) };
            Ok(if is_child { Answer::done() } else { Answer::done().with_item(child) })
        }
    });
    let builder = watcher(store.clone()).concurrency(40).retry(retries(Some(2)));
    assert!(!within("idle", builder.processor(processor).run()).await.unwrap().failed);

    let culprit = db.item("p", "i07").await;
    assert_eq!((culprit.status, culprit.pass, culprit.retry_count), (ItemStatus::Failed, 0, 2));
    let message = culprit.error_messages.unwrap();
    assert!(message.contains("refused") && message.lines().count() == 1, "{message}");
    assert_eq!(log.attempts("i07"), [1, 2, 3]);
    let others: Vec<_> = db.items("p").await.into_iter().filter(|row| row.id != "i07").collect();
    assert_eq!(others.len(), 2 * 19);
    for row in &others {
        assert_eq!((row.status, row.error_messages.as_deref()), (ItemStatus::Complete, None), "{}", row.id);
    }
    assert_eq!(log.count(What::Began), 2 * 19 + 3);
    assert!(store.count(Call::Complete) > 5, "they were never in one batch");
}

/// As by a CHECK or a trigger of the user's.
async fn what_may_not_be_complete_fails(db: Arc<Db>) {
    db.push("p", &[("bad", 0), ("good", 0)]).await;
    let store = FaultStore::new(db.another().await);
    store.refuse_outcomes(|completion| {
        &*completion.item == "bad" && completion.change.status == ItemStatus::Complete
    });
    let log = Log::new();
    let builder = watcher(store).retry(retries(Some(2)));
    let run = builder.processor(log.processor(async |_| Ok(Answer::done()))).run();
    assert!(within("idle", run).await.unwrap().failed);
    let (bad, good) = (db.item("p", "bad").await, db.item("p", "good").await);
    assert_eq!((bad.status, good.status), (ItemStatus::Failed, ItemStatus::Complete));
    assert!(bad.error_messages.unwrap().contains("refused"));
    assert_eq!(log.attempts("bad"), [1, 2, 3]);
}

async fn what_takes_no_outcome_rests(db: Arc<Db>) {
    db.push("p", &[("bad", 0), ("good", 0)]).await;
    db.push("q", &[("other", 0)]).await;
    let store = FaultStore::new(db.another().await);
    store.refuse_outcomes(|completion| &*completion.item == "bad");
    let log = Log::new();
    let run = watcher(store.clone()).processor(log.processor(async |_| Ok(Answer::done()))).run();
    let run = tokio::spawn(run);
    // Twice is enough to see that it does not end, and that the others are through by then.
    log.until("a second try", |events| events.iter().filter(|e| e.item == "bad").count() > 2).await;
    let pages = store.count(Call::Page);
    log.until("a third try", |events| events.iter().filter(|e| e.item == "bad").count() > 4).await;
    let pages = store.count(Call::Page) - pages;
    assert!(pages < 10, "{pages}");
    assert_eq!(db.item("p", "good").await.status, ItemStatus::Complete);
    assert_eq!(db.item("q", "other").await.status, ItemStatus::Complete);
    let bad = db.item("p", "bad").await;
    assert_eq!((bad.status, bad.retry_count), (ItemStatus::Available, 0));
    store.refuse_outcomes(|_| false);
    within("idle", run).await.unwrap().unwrap();
    db.assert_complete("p", 2).await;
}

async fn an_outcome_that_takes_too_long_holds_up_no_other(db: Arc<Db>) {
    db.push_many("p", 20).await;
    let store = FaultStore::new(db.another().await);
    store.too_slow_outcomes(|completion| &*completion.item == "i007");
    let log = Log::new();
    let together = Arc::new(Barrier::new(20));
    let processor = log.processor(move |_| {
        let together = together.clone();
        async move {
            together.wait().await;
            Ok(Answer::done())
        }
    });
    let run = tokio::spawn(watcher(store.clone()).concurrency(40).processor(processor).run());
    within("the others", async {
        while db.items("p").await.iter().filter(|row| row.status == ItemStatus::Complete).count() < 19 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert_eq!(db.item("p", "i007").await.status, ItemStatus::Available);
    store.too_slow_outcomes(|_| false);
    within("idle", run).await.unwrap().unwrap();
    log.assert_once(20);
    db.assert_complete("p", 20).await;
}

async fn an_unreadable_partition_holds_up_no_other(db: Arc<Db>) {
    db.push("bad", &[("i", 0)]).await;
    db.push("good", &[("i", 0), ("j", 1)]).await;
    let store = FaultStore::new(db.another().await);
    store.unreadable(|lease| &*lease.partition == "bad");
    let log = Log::new();
    let processor = log.processor(async |_| Ok(Answer::done()));
    let run = tokio::spawn(watcher(store.clone()).processor(processor).run());
    log.until("good is through", |events| {
        events.iter().filter(|e| e.is(What::Accepted, "good")).count() == 2
    })
    .await;
    assert_eq!(log.count(What::Accepted), 2);
    store.unreadable(|_| false);
    within("idle", run).await.unwrap().unwrap();
    log.assert_once(3);
    db.assert_complete("bad", 1).await;
}

async fn a_partition_without_a_checkpoint_holds_up_no_other(db: Arc<Db>) {
    const GOOD: usize = 20;
    db.push("bad", &[("i", 0), ("j", 1)]).await;
    for n in 0..GOOD {
        db.push(&format!("good{n}"), &[("i", 0), ("j", 1)]).await;
    }
    let store = FaultStore::new(db.another().await);
    store.unsteppable(|lease| &*lease.partition == "bad");
    let log = Log::new();
    let processor = log.processor(async |_| Ok(Answer::done()));
    let run = tokio::spawn(watcher(store.clone()).processor(processor).run());
    log.until("the others are through", |events| {
        events.iter().filter(|e| e.what == What::Accepted).count() == 1 + 2 * GOOD
    })
    .await;
    store.unsteppable(|_| false);
    within("idle", run).await.unwrap().unwrap();
    log.assert_once(2 + 2 * GOOD);
    db.assert_complete("bad", 2).await;
}

/// One that is read by itself is not asked for again and again either, with a pause for all in between.
async fn an_unreadable_partition_rests_alone(db: Arc<Db>) {
    db.push("bad", &[("i", 0)]).await;
    let store = FaultStore::new(db.another().await);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    store.unreadable(move |lease| {
        &*lease.partition == "bad" && {
            count.fetch_add(1, Ordering::Relaxed);
            true
        }
    });
    let log = Log::new();
    let began = Instant::now();
    let run =
        tokio::spawn(watcher(store.clone()).processor(log.processor(async |_| Ok(Answer::done()))).run());
    within("a first look", async {
        while asked.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    for n in 1..=10 {
        db.push(&format!("good{n}"), &[("i", 0)]).await;
        log.until("good is through", |events| {
            events.iter().filter(|e| matches!(e.what, What::Accepted)).count() == n
        })
        .await;
    }
    let asked = asked.load(Ordering::Relaxed);
    // Its rest is 5 s. On a machine that has taken that long nothing is known.
    assert!(asked == 1 || began.elapsed() >= Duration::from_secs(5), "asked for {asked} times");
    store.unreadable(|_| false);
    within("idle", run).await.unwrap().unwrap();
    db.assert_complete("bad", 1).await;
}
