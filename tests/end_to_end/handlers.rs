//! The examples that people copy, each as a process behind a real watcher: the same handler in three languages, and
//! the recipes of the cookbook.

mod connection;
pub(crate) mod queue;
mod recipes;
pub(crate) mod service;

use std::{collections::HashMap, fs, net::TcpStream, path::Path, process::Command};

use gatefeed_tests::{Database, built, eventually};
use rustix::process::Signal;
use serde_json::{Value, json};

use self::{
    connection::Connection,
    service::{Service, example},
};

crate::on_both!(the_python_handler_counts);

/// The one that answers later.
pub(crate) fn later() -> Service {
    Service::script("python3", "handlers/python/later.py", &[])
}

pub(crate) fn python() -> Service {
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

const EXPECTED: &str =
    r#"HTTP 400 Bad Request: expected a text or {"texts": ["…"]} at gate 0, or {"total": true} after it"#;

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
async fn the_python_handler_takes_whole_files() {
    whole_files(python()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_handler_takes_whole_files() {
    whole_files(node()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_handler_takes_whole_files() {
    whole_files(rust()).await;
}

/// A folder as it is, with files whose names say `text/…`, something else, and nothing; and their total.
async fn whole_files(service: Service) {
    let database = Database::sqlite();
    queue::prepare(&database, &["bad"]);
    let docs = files(&example("../docs"));
    assert!(docs.contains_key("docs/handlers.md") && docs.keys().any(|path| path.ends_with(".svg")));
    queue::sh(&database, "gatefeed push --partition first --hold --files docs");
    queue::sh(&database, "gatefeed push --partition bad --files examples/cookbook/pictures/boat.png");
    queue::sh(&database, r#"echo '{"total": true}' | gatefeed push --partition first --gate 1 --seal"#);
    queue::run(&database, &service.url(), 3).await;
    assert_eq!(queue::status(&database, "first"), "complete");
    for (path, words) in &docs {
        assert_eq!(queue::item(&database, "first", path).complete(0), json!({"words": words}), "{path}");
    }
    let total = database.value("SELECT id FROM gatefeed_items WHERE partition_id = 'first' AND gate = 1");
    let total = queue::item(&database, "first", &total).complete(1);
    assert_eq!(total, json!({"total": docs.values().sum::<usize>()}));
    let picture = queue::item(&database, "bad", "examples/cookbook/pictures/boat.png");
    picture.assert_refused("HTTP 400 Bad Request: the body is not text in UTF-8");
}

/// How many words each file of this folder has, by its path from the repository's folder.
fn files(folder: &Path) -> HashMap<String, usize> {
    let mut files = HashMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            let id = path.strip_prefix(example("..")).unwrap().to_str().unwrap().to_owned();
            files.insert(id, fs::read_to_string(&path).unwrap().split_whitespace().count());
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_handlers_agree_on_what_is_a_text() {
    for service in [python(), node(), rust()] {
        what_is_a_text(&mut Connection::open(&service.address));
        what_a_total_counts(&mut Connection::open(&service.address));
    }
}

fn what_is_a_text(handler: &mut Connection) {
    let words = |words: usize| json!({"data": {"words": words}});
    let refused = |message: &str| json!({"error": {"message": message, "no_retry": true}});
    let (not_json, not_utf8) = ("the body is not JSON", "the body is not text in UTF-8");
    let expected = EXPECTED.split_once(": ").unwrap().1;
    let cases: [(&str, &[u8], Value); 16] = [
        ("text/plain", b" one\ttwo\n", words(2)),
        ("Text/Markdown; charset=utf-8", b"# one two", words(3)),
        ("text/plain", br#"{"text": "one"}"#, words(2)),
        ("text/plain", b"[1]", words(1)),
        ("text/plain", b"", words(0)),
        ("text/plain", b"one \xff", refused(not_utf8)),
        ("", b"one two", words(2)),
        ("image/svg+xml", "\u{feff} <svg />".as_bytes(), words(2)),
        ("", br#"{"text": "one"}"#, words(1)),
        ("", b"[1]", refused(expected)),
        ("application/octet-stream", b"one \xff", refused(not_utf8)),
        ("application/json", br#""one \n two""#, words(2)),
        ("application/json; charset=utf-8", b"one two", refused(not_json)),
        ("application/ld+json", b"one two", refused(not_json)),
        ("application/json", b"\"\xff\"", refused(not_utf8)),
        ("application/json", b"", refused(not_json)),
    ];
    for (kind, body, answer) in cases {
        let header = if kind.is_empty() { String::new() } else { format!("Content-Type: {kind}\r\n") };
        assert_eq!(handler.post(&header, body).json(), answer, "{kind} {}", body.escape_ascii());
    }
}

/// All of its partition, each item once; at any gate but the first.
fn what_a_total_counts(handler: &mut Connection) {
    let mut post = |partition: &str, item: &str, gate: i32, body: &str| {
        let headers =
            format!("Gatefeed-Partition: {partition}\r\nGatefeed-Item: {item}\r\nGatefeed-Gate: {gate}\r\n");
        handler.post(&headers, body.as_bytes()).json()
    };
    post("p", "a", 0, "one two three");
    post("p", "a", 0, "one two");
    post("p", "b", 0, r#""three""#);
    post("other", "a", 0, "one two three four");
    for gate in [1, 7] {
        assert_eq!(post("p", "sum", gate, r#"{"total": true}"#), json!({"data": {"total": 3}}));
    }
    for (gate, body) in [(0, r#"{"total": true}"#), (1, r#"{"total": 1}"#), (1, "one two")] {
        assert_eq!(post("p", "sum", gate, body)["error"]["no_retry"], json!(true), "{gate} {body}");
    }
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
