//! Several targets, limits and circuits: targets that slow down, fail and return.

use std::{
    fs,
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use gatefeed_testkit::handler::{Handler, Recorded, Reply};
use gatefeed_tests::{Database, Gatefeed, eventually, gatefeed};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::NamedTempFile;

crate::on_both!(
    an_outage_costs_no_item_its_retries,
    an_open_circuit_is_told_until_it_closes,
    a_target_that_cannot_be_reached_is_told,
    a_rate_is_kept,
    a_slow_target_gets_less_and_none_more_than_it_may,
    a_target_that_hangs_is_hedged_and_each_item_has_one_outcome,
    the_concurrency_is_read_again,
    the_watcher_finds_its_concurrency_within_its_bounds
);

fn prepare(database: &Database, items: usize) {
    assert!(gatefeed(database, &["migrate"]).status.success());
    database.insert_partition("p");
    database.insert_items("p", "i", 0, items);
}

fn file(text: &str) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

fn configured(database: &Database, file: &NamedTempFile) -> Gatefeed {
    let mut command = std::process::Command::new(gatefeed_tests::binary());
    command.args(["run", "--until-idle", "--config"]).arg(file.path());
    command.env("GATEFEED_DATABASE_URL", database.url());
    Gatefeed::start(command)
}

/// Two items, and a handler that answers its first twelve requests with 500: more than their retries together.
async fn an_outage_costs_no_item_its_retries(database: Database) {
    prepare(&database, 2);
    let failures = Arc::new(AtomicUsize::new(12));
    let handler = Handler::start(move |_: Recorded| {
        let is_down =
            failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        async move { if is_down { Reply::status(500) } else { Reply::ok() } }
    })
    .await;
    let file = file(&format!(
        "target = \"{}\"\nmax_retries = 4\nretry_base = \"1ms\"\nbreaker_failures = 3\nbreaker_open = \"100ms\"\n\
         breaker_open_max = \"200ms\"\n",
        handler.url()
    ));
    let mut watcher = configured(&database, &file);
    assert!(watcher.ended().await.success(), "{}", watcher.log());
    assert_eq!((database.items("complete"), handler.requests().len()), (2, 14));
    assert_eq!(database.value("SELECT sum(retry_count) FROM gatefeed_items"), "2", "those before it opened");
    assert!(watcher.log().contains("a circuit is open") && watcher.log().contains("closed again"));
}

/// What `gatefeed status` says of the only watcher's circuits.
fn circuits(database: &Database) -> Vec<Value> {
    let told = gatefeed(database, &["status", "--json"]);
    let feeds: Value = serde_json::from_slice(&told.stdout).unwrap();
    feeds[0]["watchers"][0]["circuits"].as_array().cloned().unwrap_or_default()
}

fn told(database: &Database, args: &[&str]) -> String {
    String::from_utf8(gatefeed(database, args).stdout).unwrap()
}

async fn an_open_circuit_is_told_until_it_closes(database: Database) {
    prepare(&database, 3);
    let is_down = Arc::new(AtomicBool::new(true));
    let down = is_down.clone();
    let handler = Handler::start(move |_: Recorded| {
        let down = down.clone();
        async move { if down.load(Ordering::SeqCst) { Reply::status(500) } else { Reply::ok() } }
    })
    .await;
    let file = file(&format!(
        "target = \"{}?key=secret\"\nretry_base = \"1ms\"\nbreaker_failures = 2\nbreaker_open = \"2s\"\n\
         breaker_open_max = \"2s\"\n",
        handler.url()
    ));
    let mut watcher = configured(&database, &file);
    eventually("the circuit is listed", || circuits(&database).len() == 1).await;
    let circuit = circuits(&database).remove(0);
    assert_eq!((&circuit["target"], &circuit["gate"]), (&Value::from(handler.url()), &Value::Null));
    assert!(["open", "half-open"].iter().any(|state| circuit["state"] == *state), "{circuit}");
    assert!(
        circuit["since"].as_str() <= circuit["until"].as_str() && circuit["targets_left"] == 0,
        "{circuit}"
    );
    let status = told(&database, &["status"]);
    assert!(status.contains("CIRCUIT") && status.contains("1 of 1"), "{status}");
    for args in [&["why", "p"][..], &["why", "p", "i0"]] {
        let why = told(&database, args);
        assert!(
            why.contains(&format!("The target {}", handler.url())) && why.contains("loses no retry"),
            "{why}"
        );
    }
    is_down.store(false, Ordering::SeqCst);
    eventually("it is listed no more", || circuits(&database).is_empty()).await;
    assert!(watcher.ended().await.success(), "{}", watcher.log());
    assert_eq!((database.items("complete"), circuits(&database).len()), (3, 0));
    assert!(!told(&database, &["status"]).contains("CIRCUIT"));
    assert_eq!(database.value("SELECT sum(retry_count) FROM gatefeed_items"), "1", "before it opened");
}

async fn a_target_that_cannot_be_reached_is_told(database: Database) {
    prepare(&database, 1);
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    let watcher = Gatefeed::run(&database, &nobody, &[]);
    eventually("it is listed", || circuits(&database).iter().any(|of| of["state"] == "unreachable")).await;
    let why = told(&database, &["why", "p"]);
    assert!(why.contains(&format!("The target {nobody}")) && why.contains("cannot be reached"), "{why}");
    assert!(watcher.terminate().await.success());
    assert_eq!(database.value("SELECT sum(retry_count) FROM gatefeed_items"), "0");
}

async fn a_rate_is_kept(database: Database) {
    prepare(&database, 60);
    let handler = Handler::always(Reply::ok()).await;
    let started = Instant::now();
    let mut watcher =
        Gatefeed::run(&database, &handler.url(), &["--rate-limit", "50", "--burst", "5", "--until-idle"]);
    assert!(watcher.ended().await.success(), "{}", watcher.log());
    assert!(
        started.elapsed() >= Duration::from_secs(1),
        "55 of them at 50 a second, in {:?}",
        started.elapsed()
    );
    assert_eq!((database.items("complete"), handler.requests().len()), (60, 60));
}

async fn a_slow_target_gets_less_and_none_more_than_it_may(database: Database) {
    prepare(&database, 300);
    let quick = Handler::always(Reply::ok().after(Duration::from_millis(5))).await;
    let slow = Handler::always(Reply::ok().after(Duration::from_millis(300))).await;
    let both = format!("{},{}", quick.url(), slow.url());
    let mut watcher = Gatefeed::run(&database, &both, &["--target-max-in-flight", "3", "--until-idle"]);
    assert!(watcher.ended().await.success(), "{}", watcher.log());
    assert_eq!((quick.in_flight_max(), slow.in_flight_max()), (3, 3));
    let (quick, slow) = (quick.requests().len(), slow.requests().len());
    assert_eq!((database.items("complete"), quick + slow), (300, 300), "each of them once");
    assert!(slow < quick, "{slow} of {quick}");
}

async fn a_target_that_hangs_is_hedged_and_each_item_has_one_outcome(database: Database) {
    prepare(&database, 10);
    let hanging = Handler::start(|_: Recorded| async { Reply::ok().after(Duration::from_secs(600)) }).await;
    let well = Handler::always(Reply::json(r#"{"data": "from the other"}"#)).await;
    let file = file(&format!(
        "target = [\"{}\", \"{}\"]\nbalance = \"turns\"\nidempotent = true\nhedge_after = \"50ms\"\n\
         hedge_budget = \"100%\"\n",
        hanging.url(),
        well.url()
    ));
    let mut watcher = configured(&database, &file);
    assert!(watcher.ended().await.success(), "{}", watcher.log());
    assert_eq!(database.items("complete"), 10);
    assert_eq!(well.requests().len(), 10, "each of them once");
    assert!((1..=10).contains(&hanging.requests().len()));
    assert_eq!(database.value("SELECT count(*) FROM gatefeed_items WHERE retry_count = 0"), "10");
}

async fn the_concurrency_is_read_again(database: Database) {
    prepare(&database, 40);
    let is_open = Arc::new(AtomicBool::new(false));
    let gate = is_open.clone();
    let handler = Handler::start(move |_: Recorded| {
        let gate = gate.clone();
        async move {
            while !gate.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Reply::ok()
        }
    })
    .await;
    let text = |concurrency: u32| format!("target = \"{}\"\nconcurrency = {concurrency}\n", handler.url());
    let file = file(&text(2));
    let mut watcher = configured(&database, &file);
    handler.received(2).await;
    fs::write(file.path(), "concurrency = 0\n").unwrap();
    watcher.signal(Signal::HUP);
    eventually("a wrong file is told", || watcher.log().contains("was not read again")).await;
    assert_eq!(handler.requests().len(), 2);
    fs::write(file.path(), text(6)).unwrap();
    watcher.signal(Signal::HUP);
    handler.received(6).await;
    is_open.store(true, Ordering::SeqCst);
    assert!(watcher.ended().await.success(), "{}", watcher.log());
    assert_eq!((database.items("complete"), handler.in_flight_max()), (40, 6));
}

async fn the_watcher_finds_its_concurrency_within_its_bounds(database: Database) {
    prepare(&database, 400);
    let handler = Handler::always(Reply::ok().after(Duration::from_millis(20))).await;
    let args = ["--min-concurrency", "2", "--max-concurrency", "8", "--until-idle"];
    let mut watcher = Gatefeed::run(&database, &handler.url(), &args);
    assert!(watcher.ended().await.success(), "{}", watcher.log());
    assert_eq!((database.items("complete"), handler.requests().len()), (400, 400));
    assert!((3..=8).contains(&handler.in_flight_max()), "{}", handler.in_flight_max());
}
