//! No double delivery while the lease holds: whatever is read again, and however late it comes.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use gatefeed_core::{
    answer::{Answer, Next, Verdict},
    partition::NewPartition,
};
use gatefeed_engine::Delivery;
use gatefeed_testkit::faults::{Call, Fault, FaultStore};

use crate::{
    db::{Db, retries, watcher, within},
    record::{Log, What},
};

on_both! { no_attempt_is_delivered_twice }

const PARTITIONS: [&str; 3] = ["p", "q", "r"];
const ITEMS: usize = 60;

async fn no_attempt_is_delivered_twice(db: Arc<Db>) {
    let seed: u64 = rand::random();
    // Shown when the test fails.
    #[allow(clippy::print_stderr, reason = "to repeat a failure")]
    let () = eprintln!("seed {seed}");
    let ids: Vec<_> = (0..ITEMS).map(|n| (format!("i{n:02}"), (n % 3) as i32)).collect();
    let items: Vec<_> = ids.iter().map(|(id, gate)| (id.as_str(), *gate)).collect();
    for partition in PARTITIONS {
        let max_in_flight = (partition == "r").then_some(3);
        db.push_to(&NewPartition { max_in_flight, ..NewPartition::new(partition) }, &items).await;
    }
    // Some pages come when what they show is long over.
    let store = FaultStore::with(db.another().await, move |call, nth, _| match call {
        Call::Page => Fault::Late(Duration::from_millis(chance(seed, &nth) % 30)),
        _ => Fault::None,
    });
    let log = Log::new();
    let processor = log.processor(move |delivery| work(seed, delivery));
    let builder = watcher(store.clone()).concurrency(20).retry(retries(None));
    let run = builder.poll_interval(Duration::from_millis(3)).processor(processor).run();
    assert!(!within("idle", run).await.unwrap().failed);
    for partition in PARTITIONS {
        db.assert_complete(partition, ITEMS).await;
    }
    assert!(store.count(Call::Page) > 50, "read {} times only", store.count(Call::Page));
    let mut seen = HashSet::new();
    for event in log.of(What::Began) {
        let attempt = (event.partition.clone(), event.item.clone(), event.pass, event.attempt);
        assert!(seen.insert(attempt), "delivered twice: {event:?}");
    }
    assert!(seen.len() > 3 * ITEMS * 3 / 2, "too few loops and retries: {}", seen.len());
}

/// The same for the same seed and attempt.
fn chance(seed: u64, what: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, what).hash(&mut hasher);
    hasher.finish()
}

async fn work(seed: u64, delivery: Delivery) -> Verdict {
    let chance = chance(seed, &(&delivery.partition, &delivery.item, delivery.pass, delivery.attempt));
    tokio::time::sleep(Duration::from_millis(chance % 7)).await;
    let again = |gate, after| Answer { next: Next::Again { gate, after }, ..Answer::default() };
    Ok(match (chance >> 8) % 10 {
        0..2 => return Err("now and then".into()),
        2..4 => again(None, None),
        4 => again(None, Some(Duration::from_millis(chance % 11))),
        5 => Answer::to_gate((chance % 4) as i32),
        _ => Answer::done(),
    })
}
