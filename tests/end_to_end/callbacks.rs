//! Handlers that answer later, through whatever process is there, while watchers die.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gatefeed_testkit::handler::{Handler, Recorded, Reply};
use gatefeed_tests::{Answer, Database, Gatefeed, eventually, free_port, gatefeed, post, try_post};
use serde_json::json;

crate::on_both!(
    an_answer_comes_through_another_process,
    an_answer_may_come_before_the_202,
    without_an_answer_the_attempt_has_failed,
    what_operators_do_counts,
    killed_watchers_lose_no_answer,
    the_example_answers_later,
);

const QUICK: [&str; 4] = ["--lease-duration", "2s", "--poll-interval", "100ms"];

fn later() -> Reply {
    Reply::status(202).header("Gatefeed-Async", "true").body("accepted")
}

/// Where the handler was told to call, for each delivery.
fn urls(handler: &Handler) -> Vec<String> {
    handler.requests().iter().map(|request| request.header_text("gatefeed-callback")).collect()
}

/// A watcher that handlers reach at this port.
fn watcher(database: &Database, target: &str, port: u16, args: &[&str]) -> Gatefeed {
    let listen = format!("127.0.0.1:{port}");
    let args = [&["--listen", &listen], &QUICK[..], args].concat();
    Gatefeed::run(database, target, &args)
}

/// The same URL at another process.
fn at(url: &str, port: u16) -> String {
    let (_, path) = url.split_once("/v1/").unwrap();
    format!("http://127.0.0.1:{port}/v1/{path}")
}

/// The word that a problem's type ends with, and its status.
fn problem(answer: &Answer) -> (u16, String) {
    assert!(answer.head.contains("content-type: application/problem+json"), "{}", answer.head);
    let body = answer.json();
    assert_eq!(body["status"], answer.status);
    assert!(body["title"].is_string() && body["detail"].is_string(), "{body}");
    (answer.status, body["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned())
}

fn item(database: &Database, id: &str, columns: &str) -> String {
    database.value(&format!("SELECT {columns} FROM gatefeed_items WHERE id = '{id}'"))
}

async fn an_answer_comes_through_another_process(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    database.insert_partition("p");
    database.insert_items("p", "i", 0, 3);
    let handler = Handler::always(later()).await;
    let [first, second] = [free_port(), free_port()];
    let dies = watcher(&database, &handler.url(), first, &["--max-answer", "1000B"]);
    eventually("all wait", || database.items("waiting") == 3).await;
    let urls: Vec<(String, String)> = handler
        .requests()
        .iter()
        .map(|request| (request.header_text("gatefeed-item"), request.header_text("gatefeed-callback")))
        .collect();
    let url_of = |id: &str| &urls.iter().find(|(item, _)| item == id).unwrap().1;
    assert!(url_of("i0").starts_with(&format!("http://127.0.0.1:{first}/v1/callbacks/")), "{urls:?}");

    let until = item(&database, "i0", "waiting_until");
    assert!(!until.is_empty());
    let beat = post(&format!("{}/heartbeat", url_of("i0")), "", b"");
    assert_eq!(beat.status, 200, "{beat:?}");
    assert!(beat.json()["waiting_until"].as_str().unwrap().ends_with('Z'), "{beat:?}");
    assert!(item(&database, "i0", "waiting_until") > until);
    let why = gatefeed(&database, &["why", "p"]);
    let why = String::from_utf8(why.stdout).unwrap();
    assert!(why.contains("3 are waiting for a callback, the first one's time ends in 59 min"), "{why}");
    let row = gatefeed(&database, &["items", "p", "--json"]);
    assert!(String::from_utf8(row.stdout).unwrap().contains("\"waiting_until\":\"20"));

    // What cannot be taken changes nothing.
    let url = url_of("i0");
    let mut forged = url.clone();
    forged.pop();
    for unknown in [&forged, &format!("{url}x"), &at("http://h/v1/callbacks/%FF", first)] {
        assert_eq!(problem(&post(unknown, "", b"")), (404, "callback-unknown".into()), "{unknown}");
        assert_eq!(problem(&post(&format!("{unknown}/heartbeat"), "", b"")).0, 404);
    }
    let bad = post(url, "", br#"{"gates": 1}"#);
    assert_eq!(problem(&bad), (400, "bad-request".into()));
    assert!(
        bad.json()["detail"].as_str().unwrap().contains("expected an empty body or a JSON object"),
        "{bad:?}"
    );
    for body in
        ["[]", "done", r#"{"gate": -1}"#, r#"{"items": [{"id": "x", "data": 1, "depends_on": ["nobody"]}]}"#]
    {
        assert_eq!(problem(&post(url, "", body.as_bytes())), (400, "bad-request".into()), "{body}");
    }
    assert_eq!(problem(&post(url, "Gatefeed-Gate: here\r\n", b"")).0, 400);
    assert_eq!(problem(&post(url, "Content-Encoding: gzip\r\n", b"{}")), (415, "media-type".into()));
    assert_eq!(problem(&post(url, "", &[b' '; 1001])), (413, "too-large".into()));
    assert_eq!(database.items("waiting"), 3);

    dies.kill();
    // It serves another feed, and takes the calls all the same.
    let other = watcher(&database, &handler.url(), second, &["--feed", "other"]);
    eventually("it listens", || try_post(&at("http://h/v1/callbacks/x", second), "", b"").is_some()).await;
    let steered = post(&at(url, second), "Gatefeed-Gate: 1\r\nContent-Type: text/csv\r\n", b"a,b");
    assert_eq!((steered.status, steered.json()), (200, json!({"status": "available", "gate": 1})));
    let done = post(&at(url_of("i1"), second), "", br#"{"data": {"big": 12345678901234567890}}"#);
    assert_eq!((done.status, done.json()), (200, json!({"status": "complete", "gate": 0})));
    let failed = post(&at(url_of("i2"), second), "", br#"{"error": {"message": "no", "no_retry": true}}"#);
    assert_eq!((failed.status, failed.json()), (200, json!({"status": "failed", "gate": 0})));
    let again = post(&at(url, second), "Gatefeed-Gate: 1\r\n", b"a,b");
    assert_eq!(problem(&again), (409, "callback-used".into()));
    assert_eq!(item(&database, "i0", "content_type"), "text/csv");
    assert_eq!(item(&database, "i2", "error_messages"), "no");
    assert!(gatefeed(&database, &["retry", "p"]).status.success());

    let last = Handler::always(Reply::ok()).await;
    let ends = Gatefeed::run(&database, &last.url(), &QUICK);
    eventually("all are through", || database.items("complete") == 3).await;
    let seen: HashSet<_> = last.requests().iter().map(|r| r.header_text("gatefeed-item")).collect();
    assert_eq!(seen, HashSet::from(["i0".to_owned(), "i2".to_owned()]));
    let csv = last.requests().into_iter().find(|r| r.header_text("gatefeed-item") == "i0").unwrap();
    assert_eq!((&csv.body[..], csv.header_text("gatefeed-gate").as_str()), (&b"a,b"[..], "1"));
    assert!(!other.log().contains(url.rsplit('/').next().unwrap()), "tokens are not logged");
    assert!(other.terminate().await.success() && ends.terminate().await.success());
}

async fn an_answer_may_come_before_the_202(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    database.insert_partition("p");
    database.insert_items("p", "i", 0, 20);
    let answer = |request: Recorded| async move {
        let url = request.header_text("gatefeed-callback");
        let beat = format!("{url}/heartbeat");
        let early = tokio::task::spawn_blocking(move || (post(&beat, "", b""), post(&url, "", b"")));
        let (beat, early) = early.await.unwrap();
        assert_eq!((beat.status, beat.json()), (200, json!({"waiting_until": null})));
        assert_eq!(early.status, 200, "{early:?}");
        later()
    };
    let handler = Handler::start(answer).await;
    let mut run = watcher(&database, &handler.url(), free_port(), &["--until-idle"]);
    assert!(run.ended().await.success());
    assert_eq!((database.items("complete"), handler.requests().len()), (20, 20));
    assert_eq!(database.value("SELECT status FROM gatefeed_partitions"), "complete");
}

async fn without_an_answer_the_attempt_has_failed(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    database.insert_partition("p");
    database.insert_items("p", "i", 0, 1);
    let handler = Handler::start(|request: Recorded| async move {
        if request.header_text("gatefeed-attempt") == "1" { later() } else { Reply::ok() }
    })
    .await;
    let port = free_port();
    let run = watcher(&database, &handler.url(), port, &["--callback-timeout", "1s"]);
    eventually("it waits", || database.items("waiting") == 1).await;
    let url = urls(&handler).remove(0);
    // The next one finds that its time is over.
    run.kill();
    let run = watcher(&database, &handler.url(), port, &["--callback-timeout", "1s"]);
    eventually("the second attempt is through", || database.items("complete") == 1).await;
    assert_eq!(handler.requests().len(), 2);
    let row = item(&database, "i0", "error_messages || ' ' || retry_count || ' ' || pass");
    assert_eq!(row, "no callback came in time (--callback-timeout) 1 1");
    assert_eq!(problem(&post(&url, "", b"")), (410, "callback-expired".into()), "the next one has its own");
    assert!(run.terminate().await.success());

    // Of the last attempt it is told as what it is.
    database.sql("UPDATE gatefeed_items SET status = 'available', retry_count = 0, version = version + 1");
    let fails = ["--callback-timeout", "300ms", "--max-retries", "0", "--until-idle"];
    let silent = Handler::always(later()).await;
    let mut run = watcher(&database, &silent.url(), port, &fails);
    assert_eq!(run.ended().await.code(), Some(3));
    assert_eq!(item(&database, "i0", "status"), "failed");
    let _listens = watcher(&database, &silent.url(), port, &["--feed", "other"]);
    let url = urls(&silent).remove(0);
    eventually("it listens", || try_post(&url, "", b"").is_some()).await;
    assert_eq!(problem(&post(&url, "", b"")), (410, "callback-expired".into()));
    assert_eq!(problem(&post(&format!("{url}/heartbeat"), "", b"")), (410, "callback-expired".into()));
}

async fn what_operators_do_counts(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    database.sql("INSERT INTO gatefeed_partitions (id, keep_history) VALUES ('p', true)");
    database.insert_items("p", "i", 0, 1);
    let handler = Handler::always(later()).await;
    // Where others take the calls, it need not listen itself.
    let port = free_port();
    let public = format!("http://127.0.0.1:{port}/");
    let run = Gatefeed::run(&database, &handler.url(), &[&["--public-url", &public], &QUICK[..]].concat());
    let listens = watcher(&database, &handler.url(), port, &["--feed", "other"]);
    let wait = async |count: usize| {
        eventually("it waits", || handler.requests().len() == count && database.items("waiting") == 1).await;
        urls(&handler).pop().unwrap()
    };
    let first = wait(1).await;
    assert!(gatefeed(&database, &["retry", "p"]).status.success());
    assert!(gatefeed(&database, &["retry", "p", "--item", "i0"]).status.success());
    assert_eq!((database.items("waiting"), handler.requests().len()), (1, 1), "it has not failed");
    assert!(gatefeed(&database, &["rewind", "p", "--gate", "0"]).status.success());
    let second = wait(2).await;
    assert_eq!(problem(&post(&first, "", b"")), (409, "callback-used".into()));
    assert_eq!(database.items("waiting"), 1, "it is another attempt's");
    assert!(gatefeed(&database, &["pause", "p"]).status.success());
    assert_eq!(post(&second, "", br#"{"gate": 1}"#).status, 200, "what was under way ends");
    assert!(gatefeed(&database, &["resume", "p"]).status.success());
    let third = wait(3).await;
    database.sql("UPDATE gatefeed_partitions SET status = 'failed'");
    assert_eq!(problem(&post(&third, "", b"")), (409, "callback-closed".into()));
    database.sql("UPDATE gatefeed_partitions SET status = 'available'");
    assert!(gatefeed(&database, &["cancel", "p"]).status.success());
    assert_eq!(problem(&post(&third, "", b"")), (409, "callback-used".into()));
    assert_eq!(item(&database, "i0", "status"), "cancelled");
    assert_eq!(item(&database, "i0", "waiting_until"), "");
    assert!(run.terminate().await.success() && listens.terminate().await.success());
}

/// Every item is answered a while after its delivery, through one of two processes, one of which is killed again and
/// again. Each has one outcome a gate, and none is lost.
async fn killed_watchers_lose_no_answer(database: Database) {
    const ITEMS: usize = 120;
    assert!(gatefeed(&database, &["migrate"]).status.success());
    database.insert_partition("p");
    database.insert_items("p", "i", 0, ITEMS);
    let stays = free_port();
    let calls = Arc::new(AtomicBool::new(true));
    let go_on = calls.clone();
    let handler = Handler::start(move |request: Recorded| {
        let go_on = go_on.clone();
        async move {
            let url = at(&request.header_text("gatefeed-callback"), stays);
            let gate = request.header_text("gatefeed-gate");
            let body = if gate == "0" { r#"{"gate": 1, "items": [{"gate": 1, "data": 1}]}"# } else { "" };
            tokio::spawn(async move {
                let delay = u64::from(request.header_text("idempotency-key").as_bytes()[0] % 16) * 10;
                tokio::time::sleep(Duration::from_millis(delay)).await;
                while go_on.load(Ordering::SeqCst) {
                    let url = url.clone();
                    let call = tokio::task::spawn_blocking(move || try_post(&url, "", body.as_bytes()));
                    match call.await.unwrap().map(|answer| answer.status) {
                        Some(200 | 409) => return,
                        Some(503) | None => tokio::time::sleep(Duration::from_millis(50)).await,
                        Some(status) => panic!("{status}"),
                    }
                }
            });
            later()
        }
    })
    .await;
    let listens = watcher(&database, &handler.url(), stays, &["--feed", "other"]);
    let public = format!("http://127.0.0.1:{stays}/");
    let start = || {
        let args = [&["--public-url", &public, "--concurrency", "20"], &QUICK[..]].concat();
        Gatefeed::run(&database, &handler.url(), &args)
    };
    let mut run = start();
    for round in 1..=4 {
        eventually("deliveries go on", || handler.requests().len() > round * 60).await;
        run.kill();
        run = start();
    }
    eventually("everything is complete", || database.items("complete") == 2 * ITEMS).await;
    eventually("it closes", || database.value("SELECT status FROM gatefeed_partitions") == "complete").await;
    calls.store(false, Ordering::SeqCst);
    let of = |which: &str| database.value(&format!("SELECT count(*) FROM gatefeed_items WHERE {which}"));
    assert_eq!(of("gate = 1 AND creator_id IS NULL AND pass = 2"), ITEMS.to_string());
    assert_eq!(of("gate = 1 AND creator_id IS NOT NULL AND pass = 1"), ITEMS.to_string());
    assert!(run.terminate().await.success() && listens.terminate().await.success());
}

async fn the_example_answers_later(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    database.insert_partition("p");
    for (id, data) in [("short", r#"{"seconds": 0.1}"#), ("odd", r#"{"minutes": 1}"#)] {
        let insert = "INSERT INTO gatefeed_items (partition_id, id, data) VALUES";
        database.sql(&format!("{insert} ('p', '{id}', '{data}')"));
    }
    let service = crate::handlers::later();
    let mut run = watcher(&database, &service.url(), free_port(), &["--until-idle"]);
    assert_eq!(run.ended().await.code(), Some(3), "one has failed");
    assert_eq!(item(&database, "short", "status"), "complete");
    let data = gatefeed(&database, &["items", "p", "--data", "--json"]);
    let data = String::from_utf8(data.stdout).unwrap();
    assert!(data.contains(r#"{\"seconds\": 0.1, \"done\": true}"#), "{data}");
    assert!(item(&database, "odd", "error_messages").contains("expected {\"seconds\": 3}"));
}
