//! The examples that people copy, each as a process behind a real watcher: the same handler in three languages, and
//! the recipes of the cookbook.

mod connection;
mod queue;
mod recipes;
mod service;

use std::{net::TcpStream, process::Command};

use gatefeed_tests::{Database, built, eventually};
use rustix::process::Signal;
use serde_json::json;

use self::{connection::Connection, service::Service};

crate::on_both!(the_python_handler_counts);

fn python() -> Service {
    Service::script("python3", "handlers/python/handler.py", &[])
}

fn node() -> Service {
    Service::script("node", "handlers/node/handler.mjs", &[])
}

fn rust() -> Service {
    Service::start(Command::new(built("gatefeed-example-handler")), &[])
}

async fn the_python_handler_counts(database: Database) {
    counts(&database, &python()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_handler_counts() {
    counts(&Database::sqlite(), &node()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_handler_counts() {
    counts(&Database::sqlite(), &rust()).await;
}

/// An item that is not ASCII, with bytes that Latin-1 takes for white space.
const LETTER: &str = "Ångström 日本 à";

const EXPECTED: &str = r#"HTTP 400 Bad Request: expected {"text": "…"} or {"texts": ["…"]} at gate 0"#;

async fn counts(database: &Database, service: &Service) {
    queue::prepare(database, &["letters", "bad", "worse", "late"]);
    queue::insert(database, "letters", "short", 0, br#"{"text": " one  two\nthree "}"#);
    queue::insert(database, "letters", LETTER, 0, br#"{"texts": ["a b", "c", ""]}"#);
    queue::insert(database, "bad", "shape", 0, br#"{"txt": "a b"}"#);
    queue::insert(database, "bad", "list", 0, b"[1]");
    queue::insert(database, "worse", "json", 0, br#"{"text": "#);
    queue::insert(database, "late", "unknown", 1, br#"{"texts": 2}"#);
    queue::run(database, &service.url(), 3).await;
    let item = |partition, id: &str| queue::item(database, partition, id);
    assert_eq!(queue::status(database, "letters"), "complete");
    assert_eq!(item("letters", "short").complete(0), json!({"words": 3}));
    for (n, words) in [2, 1, 0].into_iter().enumerate() {
        assert_eq!(item("letters", &format!("{LETTER}/{n}")).complete(0), json!({"words": words}));
    }
    assert_eq!(item("letters", LETTER).complete(1), json!({"texts": 3, "words": 3}));
    assert_eq!(queue::status(database, "bad"), "failed");
    item("bad", "shape").assert_refused(EXPECTED);
    item("bad", "list").assert_refused(EXPECTED);
    item("worse", "json").assert_refused("HTTP 400 Bad Request: the body is not JSON");
    item("late", "unknown").assert_refused("they were counted before this handler was started");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_handler_keeps_its_manners() {
    manners(python()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_handler_keeps_its_manners() {
    manners(node()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_handler_keeps_its_manners() {
    manners(rust()).await;
}

/// Redeliveries, kept connections, bounds, and a clean end.
async fn manners(service: Service) {
    let mut kept = Connection::open(&service.address);
    let first = kept.post("Idempotency-Key: k1\r\nGatefeed-Item: i\r\n", br#"{"text": "a b c"}"#);
    assert_eq!((first.status, first.json()), (200, json!({"data": {"words": 3}})));
    assert_eq!(first.header("Content-Type"), Some("application/json"));
    // The same key on the same connection: not done again, whatever the body says now.
    let again = kept.post("Idempotency-Key: k1\r\nGatefeed-Item: i\r\n", br#"{"text": "other"}"#);
    assert_eq!((again.status, again.json()), (200, first.json()));
    let other = kept.post("Idempotency-Key: k2\r\nGatefeed-Item: i\r\n", br#"{"text": "other"}"#);
    assert_eq!(other.json(), json!({"data": {"words": 1}}));
    let too_long = kept.post("", &vec![b' '; (1 << 20) + 1]);
    assert_eq!((too_long.status, &too_long.json()["error"]["no_retry"]), (413, &json!(true)));
    assert_eq!(kept.post("", br#"{"text": "still there"}"#).status, 200);
    let slow = busy_ones_say_so(&service, &mut kept).await;
    what_is_in_work_ends_first(service, slow).await;
}

/// Takes all slots with requests whose bodies do not come; those that hold one, and maybe some that do not.
async fn busy_ones_say_so(service: &Service, kept: &mut Connection) -> Vec<Connection> {
    let mut slow = Vec::new();
    let mut answer = None;
    eventually("all slots are taken", || {
        // One of these may itself have been told that we are busy, so more follow.
        slow.push(Connection::open(&service.address));
        slow.last_mut().unwrap().begin("", SLOW.len());
        let latest = kept.post("", br#"{"text": "a"}"#);
        let is_busy = latest.status != 200;
        answer = Some(latest);
        is_busy
    })
    .await;
    let answer = answer.unwrap();
    assert_eq!((answer.status, answer.header("Retry-After")), (503, Some("1")));
    slow
}

const SLOW: &[u8] = br#"{"text": "a b"}"#;

/// A stop refuses new connections, finishes what it has, and is not held up by those that are idle.
async fn what_is_in_work_ends_first(service: Service, slow: Vec<Connection>) {
    service.signal(Signal::TERM);
    eventually("new connections are refused", || TcpStream::connect(&service.address).is_err()).await;
    let answers = slow.into_iter().map(|connection| connection.finish(SLOW));
    let statuses: Vec<Option<u16>> = answers.map(|answer| answer.map(|answer| answer.status)).collect();
    assert_eq!(statuses.iter().filter(|status| **status == Some(200)).count(), 32, "{statuses:?}");
    assert!(service.ended().await.success());
}
