//! Processes that die, sleep and are replaced.

use std::time::Duration;

use gatefeed_tests::{Database, Gatefeed, Ledger, eventually, gatefeed};
use rustix::process::Signal;

crate::on_both!(
    killed_watchers_lose_nothing,
    a_sleeper_is_replaced_and_fenced,
    a_rolling_restart_delivers_nothing_twice,
    a_late_watcher_gets_its_share,
    endless_loops_starve_nobody,
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

/// Stops a watcher, but not in the middle of a write to SQLite: nobody could write until it goes on.
async fn put_to_sleep(database: &Database, watcher: &Gatefeed) {
    watcher.signal(Signal::STOP);
    while !database.can_be_written() {
        watcher.signal(Signal::CONT);
        tokio::time::sleep(Duration::from_millis(10)).await;
        watcher.signal(Signal::STOP);
    }
}

async fn a_sleeper_is_replaced_and_fenced(database: Database) {
    prepare(&database, 1, 200);
    let ledger = Ledger::start(&[0, 1], Duration::from_millis(30)).await;
    let mut sleeper = Gatefeed::run(&database, &ledger.url(), &QUICK);
    eventually("deliveries begin", || ledger.len() > 40).await;
    put_to_sleep(&database, &sleeper).await;
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

async fn a_late_watcher_gets_its_share(database: Database) {
    prepare(&database, 12, 200);
    let ledger = Ledger::start(&[], Duration::from_millis(100)).await;
    let start = || {
        let args = ["--lease-duration", "5s", "--poll-interval", "50ms", "--concurrency", "8"];
        Gatefeed::run(&database, &ledger.url(), &args)
    };
    let first = start();
    // Long enough for a watcher that hoards to have taken everything.
    eventually("the first is busy for many polls", || ledger.len() > 250).await;
    let second = start();
    let owners = "SELECT count(DISTINCT owner) FROM gatefeed_partitions";
    eventually("both own partitions", || database.value(owners) == "2").await;
    for watcher in [first, second] {
        assert!(watcher.terminate().await.success());
    }
    assert_eq!(ledger.duplicates(), 0);
}

async fn endless_loops_starve_nobody(database: Database) {
    use gatefeed_testkit::handler::{Handler, Recorded, Reply};
    prepare(&database, 4, 20);
    let looping = |request: Recorded| async move {
        let is_endless = request.header_text("gatefeed-partition").starts_with('p');
        Reply::json(if is_endless { r#"{"gate": 0}"# } else { "{}" }).after(Duration::from_millis(5))
    };
    let handler = Handler::start(looping).await;
    let watcher =
        Gatefeed::run(&database, &handler.url(), &["--concurrency", "2", "--poll-interval", "100ms"]);
    eventually("they loop", || handler.requests().len() > 200).await;
    database.insert_partition("other");
    database.insert_items("other", "i", 0, 5);
    let done = "SELECT status FROM gatefeed_partitions WHERE id = 'other'";
    eventually("another gets its turn", || database.value(done) == "complete").await;
    assert!(watcher.terminate().await.success());
}
