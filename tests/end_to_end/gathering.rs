//! Gathering, with watchers that die: before what is gathered is through, and while it is delivered.

use std::{fs, time::Duration};

use gatefeed_testkit::handler::{Handler, Recorded, Reply};
use gatefeed_tests::{Database, Gatefeed, eventually, free_port, gatefeed, get};
use serde_json::{Value, json};

crate::on_both!(killed_watchers_gather_everything, what_is_too_much_is_fetched_by_its_url);

const QUICK: [&str; 6] = ["--lease-duration", "2s", "--poll-interval", "100ms", "--concurrency", "10"];

const ITEMS: usize = 150;

/// A text at gate 0 becomes its length; the sum takes a while.
async fn answer(request: Recorded) -> Reply {
    match request.header_text("gatefeed-item").as_str() {
        "sum" => Reply::ok().after(Duration::from_millis(300)),
        id => Reply::json(json!({"data": {"length": id.len()}}).to_string()).after(Duration::from_millis(10)),
    }
}

fn sums(handler: &Handler) -> Vec<Value> {
    let sums = handler.requests().into_iter().filter(|r| r.header_text("gatefeed-item") == "sum");
    sums.map(|request| serde_json::from_slice(&request.body).unwrap()).collect()
}

async fn killed_watchers_gather_everything(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    database.insert_partition("p");
    database.insert_items("p", "i", 0, ITEMS);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), r#"{"id": "sum", "gate": 1, "gather": {"gate": 0}, "data": "all"}"#).unwrap();
    let push = ["push", "--partition", "p", "--envelope", file.path().to_str().unwrap()];
    assert!(gatefeed(&database, &push).status.success());
    let handler = Handler::start(answer).await;
    let start = || Gatefeed::run(&database, &handler.url(), &QUICK);
    let mut watcher = start();
    for round in 1..=2 {
        eventually("deliveries go on", || handler.requests().len() > round * 40).await;
        watcher.kill();
        watcher = start();
    }
    eventually("the sum is delivered", || !sums(&handler).is_empty()).await;
    watcher.kill();
    let watcher = start();
    eventually("everything is complete", || database.items("complete") == ITEMS + 1).await;
    let mut expected: Vec<String> = (0..ITEMS).map(|n| format!("i{n}")).collect();
    expected.sort();
    let gathered: Vec<Value> = expected
        .iter()
        .map(|id| json!({"id": id, "status": "complete", "data": {"length": id.len()}}))
        .collect();
    for body in sums(&handler) {
        assert_eq!(body, json!({"data": "all", "gathered": gathered}));
    }
    assert!(watcher.terminate().await.success());
}

async fn what_is_too_much_is_fetched_by_its_url(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    database.insert_partition("p");
    database.insert_items("p", "i", 0, 3);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), r#"{"id": "sum", "gate": 1, "gather": {"gate": 0}, "data": "all"}"#).unwrap();
    let push = ["push", "--partition", "p", "--envelope", file.path().to_str().unwrap()];
    assert!(gatefeed(&database, &push).status.success());
    let handler = Handler::start(answer).await;
    let listen = format!("127.0.0.1:{}", free_port());
    let args = [&["--gather-max", "10B", "--listen", &listen][..], &QUICK].concat();
    let watcher = Gatefeed::run(&database, &handler.url(), &args);
    eventually("everything is complete", || database.items("complete") == 4).await;
    let body = &sums(&handler)[0];
    assert_eq!((&body["data"], &body["gathered"]), (&json!("all"), &Value::Null));
    let url = body["gathered_url"].as_str().unwrap();
    let fetched = get(url);
    let text = String::from_utf8(fetched.body).unwrap();
    let lines = text.lines().filter(|line| line.starts_with('{')).count();
    assert_eq!((fetched.status, lines), (200, 3), "{text}");
    // It is good for these items alone.
    for other in [url.replace("status=complete", "status=any"), url.replace("gathered/0", "gathered/1")] {
        assert_eq!(get(&other).status, 403, "{other}");
    }
    assert_eq!(get(url.split_once("&token=").unwrap().0).status, 403);
    assert!(watcher.terminate().await.success());
}
