//! Operators' commands that are killed, and watchers that are killed around them.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use gatefeed_testkit::handler::{Handler, Recorded, Reply};
use gatefeed_tests::{Database, Gatefeed, binary, eventually, gatefeed};

crate::on_both!(
    a_killed_rewind_is_whole_or_not_at_all,
    a_killed_cancellation_is_whole_or_not_at_all,
    watchers_killed_around_rewinds_lose_nothing,
    a_cancellation_aborts_what_a_watcher_has_in_flight,
);

const QUICK: [&str; 6] = ["--lease-duration", "2s", "--poll-interval", "100ms", "--concurrency", "50"];
const ITEMS: usize = 2_000;

/// An empty partition "p" that keeps its history.
fn prepare(database: &Database) {
    assert!(gatefeed(database, &["migrate"]).status.success());
    database.sql("INSERT INTO gatefeed_partitions (id, keep_history) VALUES ('p', true)");
}

/// Items that come with `{"n": …}` go to gate 1 with other data and one child, and are done there with yet other
/// data; a child is done at gate 1. Anything else is a failure that is not tried again.
async fn handler(delay: Duration) -> Handler {
    let answer = move |request: Recorded| async move {
        let gate = request.header_text("gatefeed-gate");
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        let answer = match (gate.as_str(), body.as_str()) {
            ("0", body) if body.starts_with("{\"n\"") => {
                r#"{"gate": 1, "data": "moved", "items": [{"data": "child"}]}"#
            }
            ("0", "\"child\"") => r#"{"gate": 1}"#,
            ("1", "\"moved\"") => r#"{"data": "end"}"#,
            ("1", "\"child\"") => "{}",
            _ => r#"{"error": {"message": "this is not what it came with", "no_retry": true}}"#,
        };
        Reply::json(answer).after(delay)
    };
    Handler::start(answer).await
}

/// Starts a command and kills it after this time, if it is still there.
fn kill_after(database: &Database, args: &[&str], time: Duration) {
    let mut command = Command::new(binary());
    command.args(args).env("GATEFEED_DATABASE_URL", database.url());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(time);
    child.kill().unwrap();
    child.wait().unwrap();
}

fn until_idle(database: &Database, handler: &Handler) {
    let run = ["run", "--until-idle", "--max-retries", "0", "--target", &handler.url()];
    let done = gatefeed(database, &[&run[..], &QUICK].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Everything in one look: no writer can be between its numbers.
fn look(database: &Database) -> String {
    database.value(
        "SELECT p.status || ' at ' || p.gate || ': ' || count(*) || ' items, ' \
         || count(CASE WHEN i.status = 'available' AND i.gate = 0 AND length(i.data) > 7 THEN 1 END) || ' again, ' \
         || count(CASE WHEN i.status = 'complete' AND i.gate = 1 THEN 1 END) || ' complete' \
         FROM gatefeed_partitions p LEFT JOIN gatefeed_items i ON i.partition_id = p.id WHERE p.id = 'p' \
         GROUP BY p.status, p.gate",
    )
}

async fn a_killed_rewind_is_whole_or_not_at_all(database: Database) {
    prepare(&database);
    database.insert_items("p", "i", 0, ITEMS);
    let handler = handler(Duration::ZERO).await;
    until_idle(&database, &handler);
    let through = format!("complete at 1: {0} items, 0 again, {0} complete", 2 * ITEMS);
    let rewound = format!("available at 0: {ITEMS} items, {ITEMS} again, 0 complete");
    assert_eq!(look(&database), through);
    let rewind = ["rewind", "p", "--gate", "0"];
    // From before it has connected to after it has ended.
    for ms in [5, 15, 25, 40, 60, 90, 140, 250] {
        kill_after(&database, &rewind, Duration::from_millis(ms));
        let seen = look(&database);
        assert!(seen == through || seen == rewound, "killed after {ms} ms: {seen}");
    }
    // What the last one had sent may still be on its way.
    eventually("the rewind is through", || gatefeed(&database, &rewind).status.success()).await;
    until_idle(&database, &handler);
    assert_eq!(look(&database), through);
    assert_eq!(database.items("failed"), 0);
    let end = database.value("SELECT count(*) FROM gatefeed_items WHERE id LIKE 'i%' AND length(data) = 5");
    assert_eq!(end, ITEMS.to_string(), "every item ends with its own end");
}

async fn a_killed_cancellation_is_whole_or_not_at_all(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    for ms in [5, 15, 25, 40, 60, 90, 250] {
        let id = format!("p{ms}");
        database.insert_partition(&id);
        database.insert_items(&id, "i", 0, ITEMS);
        kill_after(&database, &["cancel", &id], Duration::from_millis(ms));
        let seen = database.sql(&format!(
            "SELECT DISTINCT p.status || ' ' || i.status FROM gatefeed_partitions p \
             JOIN gatefeed_items i ON i.partition_id = p.id WHERE p.id = '{id}'"
        ));
        assert!(
            seen == ["available available"] || seen == ["cancelled cancelled"],
            "after {ms} ms: {seen:?}"
        );
        eventually("it is through", || gatefeed(&database, &["cancel", &id]).status.success()).await;
    }
    assert_eq!(database.items("cancelled"), 7 * ITEMS);
}

async fn watchers_killed_around_rewinds_lose_nothing(database: Database) {
    prepare(&database);
    database.insert_items("p", "i", 0, 200);
    let handler = handler(Duration::from_millis(20)).await;
    let start = || {
        let args = [&QUICK[..], &["--max-retries", "0"]].concat();
        Gatefeed::run(&database, &handler.url(), &args)
    };
    let mut watcher = start();
    for round in 1..=4 {
        let before = handler.requests().len();
        eventually("deliveries go on", || handler.requests().len() > before + 60 * round).await;
        assert!(gatefeed(&database, &["rewind", "p", "--gate", "0"]).status.success());
        if round % 2 == 0 {
            watcher.kill();
            watcher = start();
        }
    }
    let through = "complete at 1: 400 items, 0 again, 400 complete";
    eventually("everything is complete", || look(&database) == through).await;
    assert!(watcher.terminate().await.success());
    assert_eq!(database.items("failed"), 0, "an item came with other data than it had at that gate");
}

async fn a_cancellation_aborts_what_a_watcher_has_in_flight(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    for partition in ["p", "other"] {
        database.insert_partition(partition);
        database.insert_items(partition, "i", 0, 20);
    }
    // Those of "p" never end by themselves.
    let answer = |request: Recorded| async move {
        let hangs = request.header_text("gatefeed-partition") == "p";
        Reply::json("{}").after(Duration::from_secs(if hangs { 3600 } else { 0 }))
    };
    let handler = Handler::start(answer).await;
    let hanging = || {
        handler.requests().iter().filter(|request| request.header_text("gatefeed-partition") == "p").count()
    };
    let args = ["--until-idle", "--poll-interval", "100ms", "--concurrency", "50", "--request-timeout", "1h"];
    let mut watcher = Gatefeed::run(&database, &handler.url(), &args);
    eventually("they hang", || hanging() == 20).await;
    assert!(gatefeed(&database, &["cancel", "p"]).status.success());
    assert!(watcher.ended().await.success(), "nothing is left");
    assert_eq!((database.items("cancelled"), database.items("complete"), hanging()), (20, 20, 20));
}
