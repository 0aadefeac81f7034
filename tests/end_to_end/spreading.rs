//! Several targets, limits and circuits: targets that slow down, fail and return.

use std::{
    fs,
    net::TcpListener,
    sync::{
        Arc, Mutex,
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
    a_rate_is_kept_by_two_watchers_together,
    who_cannot_reach_a_handler_leaves_the_work_to_those_who_can,
    a_slow_target_gets_less_and_none_more_than_it_may,
    a_target_that_slows_down_fails_and_returns_is_avoided_and_used_again,
    what_has_waited_does_not_fall_upon_a_target_that_comes_back,
    a_target_that_hangs_is_hedged_and_each_item_has_one_outcome,
    the_concurrency_is_read_again,
    the_watcher_finds_its_concurrency_within_its_bounds,
    the_bounds_of_the_concurrency_are_read_again_and_its_number_is_told,
    a_handler_that_puts_off_gets_fewer_at_a_time
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

/// The only feed's watchers.
fn watchers(database: &Database) -> Vec<Value> {
    let told = gatefeed(database, &["status", "--json"]);
    let feeds: Value = serde_json::from_slice(&told.stdout).unwrap();
    feeds[0]["watchers"].as_array().cloned().unwrap_or_default()
}

async fn a_rate_is_kept_by_two_watchers_together(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    let handler = Handler::always(Reply::ok()).await;
    let start = || Gatefeed::run(&database, &handler.url(), &["--rate-limit", "20", "--burst", "2"]);
    let first = start();
    eventually("the first is there", || watchers(&database).len() == 1).await;
    let second = start();
    // Which it sees when it reports.
    eventually("the first knows of the second", || {
        let watchers = watchers(&database);
        let latest = watchers.iter().map(|of| of["started_at"].as_str()).max();
        watchers.len() == 2 && watchers.iter().all(|of| of["seen_at"].as_str() > latest.flatten())
    })
    .await;
    for n in 0..8 {
        database.insert_partition(&format!("p{n}"));
        database.insert_items(&format!("p{n}"), "i", 0, 15);
    }
    handler.received(1).await;
    let began = Instant::now();
    handler.received(120).await;
    let took = began.elapsed();
    eventually("both have worked", || watchers(&database).iter().all(|of| of["outcomes"].as_u64() > Some(0)))
        .await;
    eventually("all are through", || database.items("complete") == 120).await;
    // With a limit each it would be three seconds.
    assert!(took >= Duration::from_secs(5), "120 of them at 20 a second, in {took:?}");
    assert!(first.terminate().await.success() && second.terminate().await.success());
}

/// The first holds all there is, and its handler is not there; the second comes later.
async fn who_cannot_reach_a_handler_leaves_the_work_to_those_who_can(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    for n in 0..3 {
        database.insert_partition(&format!("p{n}"));
        database.insert_items(&format!("p{n}"), "i", 0, 20);
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cut_off = Gatefeed::run(&database, &format!("http://{nobody}/"), &[]);
    eventually("the first holds all", || watchers(&database).iter().any(|of| of["partitions"] == 3)).await;
    let handler = Handler::always(Reply::ok()).await;
    let well = Gatefeed::run(&database, &handler.url(), &[]);
    eventually("all are through", || database.items("complete") == 60).await;
    assert!(cut_off.terminate().await.success() && well.terminate().await.success());
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

/// A handler that takes some milliseconds, and for as long as it is told so answers this status.
async fn changing(takes_ms: &Arc<AtomicUsize>, status: &Arc<AtomicUsize>) -> Handler {
    let (takes_ms, status) = (takes_ms.clone(), status.clone());
    Handler::start(move |_: Recorded| {
        let time = Duration::from_millis(takes_ms.load(Ordering::SeqCst) as u64);
        let reply = match status.load(Ordering::SeqCst) {
            200 => Reply::ok(),
            other => Reply::status(u16::try_from(other).unwrap()),
        };
        async move { reply.after(time) }
    })
    .await
}

async fn a_target_that_slows_down_fails_and_returns_is_avoided_and_used_again(database: Database) {
    prepare(&database, 4000);
    let (takes_ms, status) = (Arc::new(AtomicUsize::new(40)), Arc::new(AtomicUsize::new(200)));
    let steady = Handler::always(Reply::ok().after(Duration::from_millis(40))).await;
    let other = changing(&takes_ms, &status).await;
    let file = file(&format!(
        "target = [\"{}\", \"{}\"]\nconcurrency = 8\nbreaker_failures = 3\nbreaker_open = \"200ms\"\n\
         breaker_open_max = \"400ms\"\nretry_base = \"1ms\"\n",
        steady.url(),
        other.url()
    ));
    let mut watcher = configured(&database, &file);
    // How many the other one gets while the steady one gets so many.
    let beside = async |count: usize| {
        let (before, of_other) = (steady.requests().len(), other.requests().len());
        steady.received(before + count).await;
        other.requests().len() - of_other
    };
    let alike = beside(150).await;
    assert!(alike >= 50, "{alike} of the other beside 150");
    takes_ms.store(1500, Ordering::SeqCst);
    beside(20).await;
    let slow = beside(150).await;
    assert!(slow <= 40, "{slow} of the slow one beside 150");
    takes_ms.store(1, Ordering::SeqCst);
    status.store(500, Ordering::SeqCst);
    beside(20).await;
    let failing = beside(150).await;
    assert!(failing <= 30, "{failing} of the failing one beside 150");
    takes_ms.store(40, Ordering::SeqCst);
    status.store(200, Ordering::SeqCst);
    let mut back = 0;
    while back < 25 {
        assert!(watcher.is_running(), "it is not used again: {back} beside 100");
        back = beside(100).await;
    }
    assert!(watcher.ended().await.success(), "{}", watcher.log());
    assert_eq!(database.items("complete"), 4000);
    let failed: usize = database.value("SELECT sum(retry_count) FROM gatefeed_items").parse().unwrap();
    assert!(failed <= 30, "{failed} failed attempts that count");
}

/// A handler that fails what is in flight when its circuit opens, some probes, and then takes 200 ms.
async fn what_has_waited_does_not_fall_upon_a_target_that_comes_back(database: Database) {
    prepare(&database, 300);
    let failures = Arc::new(AtomicUsize::new(66));
    let arrivals: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let shared = arrivals.clone();
    let handler = Handler::start(move |_: Recorded| {
        let is_down =
            failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if !is_down {
            shared.lock().unwrap().push(Instant::now());
        }
        async move { if is_down { Reply::status(500) } else { Reply::ok().after(Duration::from_millis(200)) } }
    })
    .await;
    let file = file(&format!(
        "target = \"{}\"\nconcurrency = 64\nbreaker_failures = 3\nbreaker_open = \"50ms\"\n\
         breaker_open_max = \"50ms\"\n",
        handler.url()
    ));
    let mut watcher = configured(&database, &file);
    assert!(watcher.ended().await.success(), "{}", watcher.log());
    let arrivals = arrivals.lock().unwrap();
    let soon = arrivals.iter().filter(|at| **at < arrivals[0] + Duration::from_millis(350)).count();
    assert!(soon <= 3, "the probe and two, and four after the next 200 ms; not {soon}");
    assert!(handler.in_flight_max() > 8, "all of it comes in the end");
    assert_eq!((database.items("complete"), arrivals.len()), (300, 300));
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

/// The only watcher's budget.
fn concurrency(database: &Database) -> Option<u64> {
    watchers(database).first()?["concurrency"].as_u64()
}

async fn the_bounds_of_the_concurrency_are_read_again_and_its_number_is_told(database: Database) {
    prepare(&database, 20_000);
    let handler = Handler::always(Reply::ok().after(Duration::from_millis(30))).await;
    let text = |max: u32| format!("target = \"{}\"\nmax_concurrency = {max}\n", handler.url());
    let file = file(&text(4));
    let watcher = configured(&database, &file);
    eventually("it grows to its bound", || concurrency(&database) == Some(4)).await;
    for max in [9, 2] {
        fs::write(file.path(), text(max)).unwrap();
        watcher.signal(Signal::HUP);
        eventually("it goes to the new one", || concurrency(&database) == Some(max.into())).await;
    }
    assert!(watcher.terminate().await.success());
    assert!(handler.in_flight_max() <= 9, "{}", handler.in_flight_max());
}

/// It takes so many at a time, and says to all others that they come too soon.
async fn a_handler_that_puts_off_gets_fewer_at_a_time(database: Database) {
    prepare(&database, 20_000);
    let (room, under_way) = (Arc::new(AtomicUsize::new(1000)), Arc::new(AtomicUsize::new(0)));
    let limit = room.clone();
    let handler = Handler::start(move |_: Recorded| {
        let (limit, under_way) = (limit.clone(), under_way.clone());
        async move {
            let before = under_way.fetch_add(1, Ordering::SeqCst);
            let reply = match before < limit.load(Ordering::SeqCst) {
                true => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    Reply::ok()
                }
                false => Reply::status(503).header("Retry-After", "1"),
            };
            under_way.fetch_sub(1, Ordering::SeqCst);
            reply
        }
    })
    .await;
    let args = ["--min-concurrency", "1", "--max-concurrency", "24"];
    let watcher = Gatefeed::run(&database, &handler.url(), &args);
    eventually("it grows", || concurrency(&database) > Some(12)).await;
    room.store(3, Ordering::SeqCst);
    eventually("it goes down", || concurrency(&database) < Some(8)).await;
    room.store(1000, Ordering::SeqCst);
    eventually("it grows again", || concurrency(&database) > Some(12)).await;
    assert!(watcher.terminate().await.success());
    assert_eq!(database.value("SELECT sum(retry_count) FROM gatefeed_items"), "0");
}
