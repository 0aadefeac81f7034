//! Processes that die, sleep and are replaced.

use std::time::Duration;

use gatefeed_tests::{Database, Gatefeed, Ledger, eventually, gatefeed};
use rustix::process::Signal;

crate::on_both!(
    killed_watchers_lose_nothing,
    a_sleeper_is_replaced_and_fenced,
    a_rolling_restart_delivers_nothing_twice,
);

const QUICK: [&str; 6] = ["--lease-duration", "2s", "--poll-interval", "100ms", "--concurrency", "20"];

fn prepare(database: &Database, partitions: usize, items: usize) {
    assert!(gatefeed(database, &["migrate"]).status.success());
    for partition in 0..partitions {
        database.insert_partition(&format!("p{partition}"));
        database.insert_items(&format!("p{partition}"), "i", 0, items);
    }
}

fn all_complete(database: &Database, items: usize) -> bool {
    database.items("complete") == items
        && database.value("SELECT count(*) FROM gatefeed_partitions WHERE status <> 'complete'") == "0"
}

async fn killed_watchers_lose_nothing(database: Database) {
    prepare(&database, 6, 150);
    let ledger = Ledger::start(&[0, 1], Duration::from_millis(15)).await;
    let start = || Gatefeed::run(&database, &ledger.url(), &QUICK);
    let count = if matches!(database, Database::Sqlite { .. }) { 2 } else { 3 };
    let mut watchers: Vec<Gatefeed> = (0..count).map(|_| start()).collect();
    for round in 1..=4 {
        eventually("deliveries go on", || ledger.len() > round * 150).await;
        watchers.remove(0).kill();
        watchers.push(start());
    }
    eventually("everything is complete", || all_complete(&database, 900)).await;
    ledger.assert_barrier();
    for watcher in watchers {
        assert!(watcher.terminate().await.success());
    }
    let delivered: std::collections::HashSet<_> =
        ledger.entries().into_iter().map(|e| (e.partition, e.item, e.gate)).collect();
    assert_eq!(delivered.len(), 1800);
}

async fn a_sleeper_is_replaced_and_fenced(database: Database) {
    prepare(&database, 1, 200);
    let ledger = Ledger::start(&[0, 1], Duration::from_millis(30)).await;
    let mut sleeper = Gatefeed::run(&database, &ledger.url(), &QUICK);
    eventually("deliveries begin", || ledger.len() > 40).await;
    sleeper.signal(Signal::STOP);
    let other = Gatefeed::run(&database, &ledger.url(), &QUICK);
    eventually("the other takes over", || ledger.epochs("p0").len() > 1).await;
    sleeper.signal(Signal::CONT);
    eventually("everything is complete", || all_complete(&database, 200)).await;
    ledger.assert_barrier();
    assert!(sleeper.is_running());
    // Whatever the sleeper still sent on waking, it was under the old epoch, and nothing of it was written:
    // each item was accepted once a gate.
    assert_eq!(database.value("SELECT count(*) FROM gatefeed_items WHERE pass = 2"), "200");
    assert!(other.terminate().await.success());
    assert!(sleeper.terminate().await.success());
}

async fn a_rolling_restart_delivers_nothing_twice(database: Database) {
    prepare(&database, 8, 150);
    let ledger = Ledger::start(&[0, 1], Duration::from_millis(10)).await;
    let start = || Gatefeed::run(&database, &ledger.url(), &QUICK);
    let mut watchers: Vec<Gatefeed> = (0..2).map(|_| start()).collect();
    for round in 1..=4 {
        eventually("deliveries go on", || ledger.len() > round * 200).await;
        watchers.push(start());
        let old = watchers.remove(0);
        assert!(old.terminate().await.success());
    }
    eventually("everything is complete", || all_complete(&database, 1200)).await;
    assert_eq!(ledger.duplicates(), 0);
    assert_eq!(ledger.len(), 2400);
    ledger.assert_barrier();
}
