//! Databases that go away and come back.

use std::time::Duration;

use gatefeed_tests::{Database, Gatefeed, Ledger, eventually, gatefeed};

const ARGS: [&str; 6] = ["--lease-duration", "3s", "--poll-interval", "100ms", "--concurrency", "20"];

fn prepare(database: &Database) {
    assert!(gatefeed(database, &["migrate"]).status.success());
    for partition in ["a", "b", "c"] {
        database.insert_partition(partition);
        database.insert_items(partition, "i", 0, 200);
    }
}

async fn finish(database: &Database, ledger: &Ledger, watchers: Vec<Gatefeed>) {
    eventually("everything is complete", || {
        database.try_sql("SELECT count(*) FROM gatefeed_items WHERE status = 'complete'")
            == Ok(vec!["600".into()])
            && database.value("SELECT count(*) FROM gatefeed_partitions WHERE status <> 'complete'") == "0"
    })
    .await;
    ledger.assert_barrier();
    for watcher in watchers {
        assert!(watcher.terminate().await.success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_stops_and_starts() {
    let database = Database::postgres();
    prepare(&database);
    let ledger = Ledger::start(&[0, 1], Duration::from_millis(20)).await;
    let watchers: Vec<Gatefeed> = (0..3).map(|_| Gatefeed::run(&database, &ledger.url(), &ARGS)).collect();
    for round in 1..=2 {
        eventually("deliveries go on", || ledger.len() > round * 200).await;
        database.cluster().stop_immediately();
        // Long enough that trust ends and sending stops.
        let mut seen = ledger.len();
        let mut quiet = 0;
        eventually("sending stops", || {
            quiet = if ledger.len() == seen { quiet + 1 } else { 0 };
            seen = ledger.len();
            quiet > 25
        })
        .await;
        database.cluster().up();
    }
    finish(&database, &ledger, watchers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backends_are_terminated_at_random() {
    let database = Database::postgres();
    prepare(&database);
    let ledger = Ledger::start(&[0, 1], Duration::from_millis(20)).await;
    let watchers: Vec<Gatefeed> = (0..3).map(|_| Gatefeed::run(&database, &ledger.url(), &ARGS)).collect();
    for round in 1..=10 {
        eventually("deliveries go on", || ledger.len() > round * 80).await;
        database.sql(
            "SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity \
             WHERE application_name = 'gatefeed' ORDER BY random() LIMIT 4) victims",
        );
    }
    finish(&database, &ledger, watchers).await;
}

/// Somebody leaves a transaction open that has a partition's row locked: the others go on, and a stop writes
/// what can be written and says that something could not be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_transaction_holds_up_its_own_partition_only() {
    let database = Database::postgres();
    prepare(&database);
    let ledger = Ledger::start(&[], Duration::from_millis(10)).await;
    let forgotten =
        database.cluster().hold_open("UPDATE gatefeed_partitions SET priority = 1 WHERE id = 'a'");
    let watcher = Gatefeed::run(&database, &ledger.url(), &["--concurrency", "4"]);
    // The lock keeps 'a' from being claimed; the one on 'b' comes while it is held.
    eventually("b is under way", || ledger.entries().iter().any(|e| e.partition == "b")).await;
    let also = database.cluster().hold_open("UPDATE gatefeed_partitions SET priority = 1 WHERE id = 'b'");
    let status =
        |id: &str| database.value(&format!("SELECT status FROM gatefeed_partitions WHERE id = '{id}'"));
    eventually("c is complete", || status("c") == "complete").await;
    assert_ne!((status("a").as_str(), status("b").as_str()), ("complete", "complete"));
    drop((forgotten, also));
    eventually("all are complete", || database.items("complete") == 600).await;
    assert_eq!(ledger.duplicates(), 0);
    assert!(watcher.terminate().await.success());
}
