//! Items that are handed over together.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use gatefeed_core::{
    answer::{Answer, Failure, Verdict},
    gather::{Ended, Gather},
    item::{Data, NewItem},
    partition::NewPartition,
};
use gatefeed_engine::{Batch, Builder, Delivery, Policy, Processor};

use crate::db::{Db, item, retries, watcher, within};

on_both! {
    batches_are_full_and_of_one_partition_and_gate
    only_what_failed_is_retried
    a_batch_counts_as_its_items
    a_batch_has_no_more_bytes_than_an_item_may_have
    what_gathers_comes_by_itself
    a_processor_that_forgets_an_item_or_panics_fails_attempts
}

/// Keeps what it was handed, and answers by `verdict`.
struct Batches<F> {
    seen: Arc<Mutex<Vec<Vec<Delivery>>>>,
    verdict: F,
}

impl<F: Fn(&Delivery) -> Verdict + Send + Sync + 'static> Processor for Batches<F> {
    async fn process(&self, _: Delivery) -> Verdict {
        panic!("one by one")
    }

    async fn process_batch(&self, deliveries: Vec<Delivery>) -> Vec<Verdict> {
        let verdicts = deliveries.iter().map(&self.verdict).collect();
        self.seen.lock().unwrap().push(deliveries);
        tokio::time::sleep(Duration::from_millis(1)).await;
        verdicts
    }
}

fn batching(db_watcher: Builder, size: usize, linger: Duration) -> Builder {
    let batch = Some(Batch { size, linger });
    db_watcher.feed_policy("default", Policy { batch, retry: retries(Some(5)), ..Policy::default() })
}

/// Runs until idle, and returns the batches.
async fn run(
    builder: Builder,
    verdict: impl Fn(&Delivery) -> Verdict + Send + Sync + 'static,
) -> Vec<Vec<Delivery>> {
    let seen = Arc::default();
    let processor = Batches { seen: Arc::clone(&seen), verdict };
    within("idle", builder.processor(processor).run()).await.unwrap();
    let seen = seen.lock().unwrap();
    seen.clone()
}

fn sizes(batches: &[Vec<Delivery>]) -> Vec<usize> {
    batches.iter().map(Vec::len).collect()
}

async fn batches_are_full_and_of_one_partition_and_gate(db: Arc<Db>) {
    let ids: Vec<String> = (0..500).map(|n| format!("i{n:03}")).collect();
    let items: Vec<(&str, i32)> =
        ids.iter().enumerate().map(|(n, id)| (id.as_str(), (n / 250) as i32)).collect();
    for partition in ["p", "q"] {
        db.push(partition, &items).await;
    }
    // Pages have a hundred items: a batch at the end of one waits for the next.
    let builder = batching(watcher(db.another().await).concurrency(200), 30, Duration::from_secs(10));
    let batches = run(builder, |_| Ok(Answer::done())).await;
    for batch in &batches {
        let first = &batch[0];
        assert!(
            batch
                .iter()
                .all(|d| (&d.partition, d.gate, d.epoch) == (&first.partition, first.gate, first.epoch))
        );
    }
    let sizes = sizes(&batches);
    assert!(sizes.iter().all(|size| *size <= 30), "{sizes:?}");
    assert_eq!(sizes.iter().sum::<usize>(), 1000);
    // 250 are eight full ones and one of ten, unless the budget cut some: no smaller than a tenth of it.
    assert!(sizes.len() <= 4 * 13, "{sizes:?}");
    db.assert_complete("p", 500).await;
    db.assert_complete("q", 500).await;
}

async fn only_what_failed_is_retried(db: Arc<Db>) {
    db.push_many("p", 20).await;
    let verdict = |delivery: &Delivery| match (&*delivery.item, delivery.attempt) {
        ("i003", 1 | 2) => Err(Failure::new("no")),
        ("i007", _) => Err(Failure::final_("never")),
        ("i009", 1) if delivery.gate == 0 => Ok(Answer::to_gate(1)),
        _ => Ok(Answer::done()),
    };
    let batches =
        run(batching(watcher(db.another().await).concurrency(100), 20, Duration::ZERO), verdict).await;
    let deliveries = |id: &str| batches.iter().flatten().filter(|delivery| &*delivery.item == id).count();
    assert_eq!(
        [deliveries("i000"), deliveries("i003"), deliveries("i007"), deliveries("i009")],
        [1, 3, 1, 1]
    );
    assert!(db.item("p", "i007").await.error_messages.unwrap().contains("never"));
}

async fn a_batch_counts_as_its_items(db: Arc<Db>) {
    db.push_to(&NewPartition { max_in_flight: Some(7), ..NewPartition::new("bounded") }, &[]).await;
    let ids: Vec<String> = (0..100).map(|n| format!("i{n:02}")).collect();
    let items: Vec<NewItem> = ids.iter().map(|id| item("bounded", id, 0)).collect();
    db.store.push(&NewPartition::new("bounded"), &items).await.unwrap();
    db.push_many("free", 100).await;
    let batches = run(batching(watcher(db.another().await).concurrency(40), 1000, Duration::ZERO), |_| {
        Ok(Answer::done())
    })
    .await;
    let most = |partition: &str| batches.iter().filter(|b| &*b[0].partition == partition).map(Vec::len).max();
    assert_eq!(most("bounded"), Some(7));
    assert!(most("free").unwrap() <= 40, "{:?}", sizes(&batches));
    assert_eq!(sizes(&batches).iter().sum::<usize>(), 200);
}

async fn a_batch_has_no_more_bytes_than_an_item_may_have(db: Arc<Db>) {
    let sized = |id: &str, bytes: usize| {
        let data = Data { bytes: Bytes::from(vec![b'x'; bytes]), content_type: "text/plain".into() };
        NewItem::new("p", id, data)
    };
    // Some of them are too large to come with their page.
    let items = [
        sized("a", 30_000),
        sized("b", 60_000),
        sized("c", 20_000),
        sized("d", 100_001),
        sized("e", 100_000),
    ];
    db.store.push(&NewPartition::new("p"), &items).await.unwrap();
    let builder = watcher(db.another().await).concurrency(100).max_payload(100_000);
    let batches = run(batching(builder, 10, Duration::ZERO), |_| Ok(Answer::done())).await;
    let mut names: Vec<Vec<&str>> = batches.iter().map(|b| b.iter().map(|d| &*d.item).collect()).collect();
    names.sort();
    assert_eq!(names, [vec!["a", "b"], vec!["c"], vec!["e"]]);
    assert!(batches.iter().flatten().all(|delivery| delivery.data.iter().all(|byte| *byte == b'x')));
    assert!(db.item("p", "d").await.error_messages.unwrap().contains("--max-payload"));
}

async fn what_gathers_comes_by_itself(db: Arc<Db>) {
    let gather = Some(Gather { gate: 0, status: Ended::Any });
    let items =
        [item("p", "a", 0), item("p", "b", 1), NewItem { gather, ..item("p", "c", 1) }, item("p", "d", 1)];
    db.store.push(&NewPartition::new("p"), &items).await.unwrap();
    let batches = run(batching(watcher(db.another().await).concurrency(100), 10, Duration::ZERO), |_| {
        Ok(Answer::done())
    })
    .await;
    let names: Vec<Vec<&str>> = batches.iter().map(|b| b.iter().map(|d| &*d.item).collect()).collect();
    assert!(names.contains(&vec!["c"]) && names.len() >= 3, "{names:?}");
    let of_c = batches.iter().flatten().find(|delivery| &*delivery.item == "c").unwrap();
    assert!(of_c.gathering.is_some());
}

/// Forgets the last, unless it is the only one; panics at the first attempt of `i000`.
struct Forgetful;

impl Processor for Forgetful {
    async fn process(&self, _: Delivery) -> Verdict {
        Ok(Answer::done())
    }

    async fn process_batch(&self, deliveries: Vec<Delivery>) -> Vec<Verdict> {
        assert!(!deliveries.iter().any(|d| &*d.item == "i000" && d.attempt == 1), "panics");
        let count = if deliveries.len() > 1 { deliveries.len() - 1 } else { 1 };
        vec![Ok(Answer::done()); count]
    }
}

async fn a_processor_that_forgets_an_item_or_panics_fails_attempts(db: Arc<Db>) {
    db.push_many("p", 5).await;
    let builder = batching(watcher(db.another().await).concurrency(100), 5, Duration::ZERO);
    within("idle", builder.processor(Forgetful).run()).await.unwrap();
    let errors: Vec<String> = db.items("p").await.into_iter().filter_map(|row| row.error_messages).collect();
    assert!(
        errors.iter().all(|error| error.starts_with("the processor panicked")) && errors.len() == 5,
        "{errors:?}"
    );
    assert!(errors.iter().any(|error| error.contains("no verdict for this item")), "{errors:?}");
    db.assert_complete("p", 5).await;
}
