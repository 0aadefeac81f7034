//! Nested partitions, with watchers that die.

use std::time::Duration;

use gatefeed_testkit::handler::{Handler, Recorded, Reply};
use gatefeed_tests::{Database, Gatefeed, eventually, gatefeed};

crate::on_both!(killed_watchers_lose_no_closing);

const QUICK: [&str; 6] = ["--lease-duration", "2s", "--poll-interval", "100ms", "--concurrency", "20"];

/// Items of "p" nest two partitions, and are done when they come again; all others are done at once.
const NEST: &str = r#"{"partitions": [{"items": [{"data": 1}, {"data": 2}, {"data": 3}]},
    {"items": [{"data": 4, "gate": 1}, {"data": 5}]}]}"#;

async fn killed_watchers_lose_no_closing(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    database.insert_partition("p");
    database.insert_items("p", "i", 0, 40);
    let answer = |request: Recorded| async move {
        let is_parent = request.header_text("gatefeed-partition") == "p";
        let is_first = is_parent && request.header_text("gatefeed-pass") == "0";
        Reply::json(if is_first { NEST } else { "{}" }).after(Duration::from_millis(20))
    };
    let handler = Handler::start(answer).await;
    let mut watcher = Gatefeed::run(&database, &handler.url(), &QUICK);
    for round in 1..=4 {
        eventually("deliveries go on", || handler.requests().len() > round * 50).await;
        watcher.kill();
        watcher = Gatefeed::run(&database, &handler.url(), &QUICK);
    }
    // 40 in p, and 5 under each.
    eventually("everything is complete", || database.items("complete") == 240).await;
    let open = "SELECT count(*) FROM gatefeed_partitions WHERE status <> 'complete'";
    eventually("every partition closes", || database.value(open) == "0").await;
    assert_eq!(database.value("SELECT count(*) FROM gatefeed_partitions"), "81", "nothing twice");
    assert_eq!(database.value("SELECT count(*) FROM gatefeed_closed"), "0");
    let passes = "SELECT count(*) FROM gatefeed_items WHERE partition_id = 'p' AND pass = 2";
    assert_eq!(database.value(passes), "40");
    assert!(watcher.terminate().await.success());
}
