//! The way that the README shows: migrate, insert, run, look, act.

use std::time::Duration;

use gatefeed_tests::{Database, Gatefeed, Ledger, eventually, gatefeed};

crate::on_both!(
    plain_inserts_go_through_their_gates,
    a_failed_partition_is_told_and_retried,
    a_held_partition_waits_for_people,
    a_pause_is_noticed_at_once,
);

fn ok(database: &Database, args: &[&str]) -> String {
    let output = gatefeed(database, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn plain_inserts_go_through_their_gates(database: Database) {
    ok(&database, &["migrate"]);
    database.insert_partition("batch-1");
    database.insert_items("batch-1", "i", 0, 50);
    database.insert_items("batch-1", "late", 1_000_000, 3);
    let ledger = Ledger::start(&[0, 1, 2], Duration::ZERO).await;
    let mut watcher = Gatefeed::run(&database, &ledger.url(), &["--until-idle"]);
    assert!(watcher.ended().await.success(), "{}", watcher.log());
    assert_eq!(ledger.len(), 50 * 3 + 3);
    ledger.assert_barrier();
    assert_eq!(database.items("complete"), 53);
    assert_eq!(database.value("SELECT status FROM gatefeed_partitions"), "complete");
    assert_eq!(database.value("SELECT gate FROM gatefeed_partitions"), "1000000");
    let keys: std::collections::HashSet<String> = ledger.entries().into_iter().map(|e| e.key).collect();
    assert_eq!(keys.len(), 153, "one key a pass");
    assert!(ok(&database, &["partitions", "--json"]).contains("\"batch-1\""));
    assert!(ok(&database, &["items", "batch-1", "--limit", "5"]).contains("complete"));
    // A late insert reopens it.
    database.insert_items("batch-1", "reopened", 0, 1);
    assert_eq!(database.value("SELECT status FROM gatefeed_partitions"), "available");
    let mut watcher = Gatefeed::run(&database, &ledger.url(), &["--until-idle"]);
    assert!(watcher.ended().await.success(), "{}", watcher.log());
    assert_eq!(database.items("complete"), 54);
}

async fn a_failed_partition_is_told_and_retried(database: Database) {
    use gatefeed_testkit::handler::{Handler, Recorded, Reply};
    ok(&database, &["migrate"]);
    database.insert_partition("p");
    database.insert_items("p", "i", 0, 4);
    database.insert_items("p", "next", 1, 1);
    let failing = |request: Recorded| async move {
        match request.header_text("gatefeed-item").as_str() {
            "i2" => Reply::json(r#"{"error": {"message": "no such page", "no_retry": true}}"#),
            _ => Reply::json("{}"),
        }
    };
    let handler = Handler::start(failing).await;
    let mut watcher = Gatefeed::run(&database, &handler.url(), &["--until-idle"]);
    assert_eq!(watcher.ended().await.code(), Some(3), "{}", watcher.log());
    assert_eq!(database.value("SELECT status FROM gatefeed_partitions"), "failed");
    assert_eq!(database.items("available"), 1, "the next gate is not reached");
    let failed = "SELECT id, error_messages FROM gatefeed_items WHERE status = 'failed'";
    assert_eq!(database.value(failed), "i2|no such page");
    assert!(ok(&database, &["retry", "p", "--json"]).contains('1'));
    let ledger = Ledger::start(&[], Duration::ZERO).await;
    let mut watcher = Gatefeed::run(&database, &ledger.url(), &["--until-idle"]);
    assert!(watcher.ended().await.success(), "{}", watcher.log());
    assert_eq!(database.items("complete"), 5);
    assert_eq!(ledger.len(), 2, "only the failed one, and then the next gate");
}

async fn a_held_partition_waits_for_people(database: Database) {
    ok(&database, &["migrate"]);
    database
        .sql("INSERT INTO gatefeed_partitions (id, manual_checkpoint, auto_close) VALUES ('p', true, false)");
    for gate in 0..3 {
        database.insert_items("p", &format!("g{gate}-"), gate, 2);
    }
    let ledger = Ledger::start(&[], Duration::ZERO).await;
    let run = || Gatefeed::run(&database, &ledger.url(), &["--until-idle"]);
    assert!(run().ended().await.success());
    assert_eq!((ledger.len(), database.items("complete")), (2, 2));
    ok(&database, &["advance", "p"]);
    assert!(run().ended().await.success());
    assert_eq!(ledger.len(), 4);
    let refused = gatefeed(&database, &["advance", "nobody"]);
    assert_eq!(refused.status.code(), Some(1));
    ok(&database, &["seal", "p"]);
    assert!(run().ended().await.success());
    assert_eq!(ledger.len(), 6);
    assert_eq!(database.value("SELECT status FROM gatefeed_partitions"), "complete");
}

async fn a_pause_is_noticed_at_once(database: Database) {
    ok(&database, &["migrate"]);
    database.insert_partition("p");
    database.insert_items("p", "i", 0, 2_000);
    let ledger = Ledger::start(&[], Duration::from_millis(20)).await;
    let watcher = Gatefeed::run(&database, &ledger.url(), &["--concurrency", "4"]);
    eventually("deliveries begin", || ledger.len() > 10).await;
    database.sql("UPDATE gatefeed_partitions SET status = 'paused'");
    eventually("the lease is given back", || {
        database.value("SELECT owner FROM gatefeed_partitions").is_empty()
    })
    .await;
    let paused_at = ledger.len();
    assert!(paused_at < 2_000);
    assert_eq!(database.items("complete"), paused_at, "what was in flight is written");
    database.sql("UPDATE gatefeed_partitions SET status = 'available'");
    eventually("it goes on", || ledger.len() > paused_at).await;
    assert!(watcher.terminate().await.success());
}

/// Whoever looks into the folder finds the database and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_leave_one_file_behind() {
    let database = Database::sqlite();
    let Database::Sqlite { dir } = &database else { return };
    let files = || std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name()).collect::<Vec<_>>();
    ok(&database, &["migrate"]);
    assert_eq!(files(), ["gatefeed.db"]);
    database.insert_partition("p");
    database.insert_items("p", "i", 0, 10);
    let ledger = Ledger::start(&[], Duration::ZERO).await;
    let mut watcher = Gatefeed::run(&database, &ledger.url(), &["--until-idle"]);
    assert!(watcher.ended().await.success(), "{}", watcher.log());
    assert_eq!(files(), ["gatefeed.db"]);
}
