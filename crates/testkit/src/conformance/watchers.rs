//! What watchers report of themselves.

use std::time::{Duration, Instant};

use gatefeed_core::{
    circuit::{CIRCUITS_MAX, Circuit, CircuitState},
    inspect::FeedStatus,
    share::{PeerGroup, Peers},
    watcher::{ASKS_FOR, FeedReport, Report},
};

use super::given::*;

fn feed(feed: &str, in_flight: usize, outcomes: u64, outcomes_per_second: f64) -> FeedReport {
    let circuits = vec![];
    FeedReport { feed: feed.to_owned(), partitions: 3, in_flight, outcomes, outcomes_per_second, circuits }
}

fn report(watcher: &str, feeds: Vec<FeedReport>) -> Report {
    Report { watcher: watcher.into(), version: "1.2.3", concurrency: 100, feeds }
}

/// Open for a minute.
pub(super) fn circuit(target: &str) -> Circuit {
    Circuit {
        target: target.to_owned(),
        gate: None,
        state: CircuitState::Open,
        for_secs: 60.0,
        next_try_secs: 0.0,
        targets_left: 0,
    }
}

async fn tell(db: &TestDb, watcher: &str, feeds: Vec<FeedReport>) {
    db.store().report(&report(watcher, feeds)).await.unwrap();
}

async fn status(db: &TestDb) -> Vec<FeedStatus> {
    db.another_store().await.status().await.unwrap()
}

/// Each feed with its watchers.
fn names(status: &[FeedStatus]) -> Vec<(&str, Vec<&str>)> {
    status.iter().map(|f| (f.feed.as_str(), f.watchers.iter().map(|w| w.id.as_str()).collect())).collect()
}

/// Lets so many seconds pass since a watcher's last report.
async fn last_seen(db: &TestDb, watcher: &str, secs_ago: f64) {
    let at = db.in_secs(-secs_ago);
    assert!(db.run(&format!("UPDATE gatefeed_watchers SET seen_at = {at} WHERE id = '{watcher}'")).await > 0);
}

/// Every figure, for a feed that has no partition yet, by the database's clock.
pub async fn a_report_is_listed(db: TestDb) {
    tell(&db, "host-1", vec![feed("a", 7, 1_000_000_000_000, 12.5)]).await;
    let status = status(&db).await;
    assert_eq!(names(&status), [("a", vec!["host-1"])]);
    let (feed, watcher) = (&status[0], &status[0].watchers[0]);
    assert_eq!((watcher.version.as_str(), watcher.concurrency, watcher.partitions), ("1.2.3", 100, 3));
    assert_eq!((watcher.in_flight, watcher.outcomes), (7, 1_000_000_000_000));
    assert_eq!((watcher.outcomes_per_second, feed.outcomes_per_second, feed.in_flight), (12.5, 12.5, 7));
    assert_eq!((feed.partitions.available, feed.leased, feed.oldest_due_at), (0, 0, None));
    let now = format!("BETWEEN {} AND {}", db.in_secs(-60.0), db.in_secs(0.1));
    let rows = format!("SELECT count(*) FROM gatefeed_watchers WHERE seen_at {now} AND started_at {now}");
    assert_eq!(db.count(&rows).await, 1);
    assert_eq!(watcher.started_at, watcher.seen_at);
}

/// By the database's clock, until the next report.
pub async fn targets_that_are_left_alone_are_listed(db: TestDb) {
    let two = ["http://b/", "http://a/?x=\"'"].map(|target| Circuit {
        gate: Some(3),
        next_try_secs: 5.0,
        targets_left: 2,
        ..circuit(target)
    });
    tell(&db, "w", vec![FeedReport { circuits: two.to_vec(), ..feed("a", 0, 0, 0.0) }, feed("b", 0, 0, 0.0)])
        .await;
    let before = status(&db).await;
    assert!(before[1].watchers[0].circuits.is_empty(), "of another feed");
    let watcher = &before[0].watchers[0];
    let seen: Vec<_> =
        watcher.circuits.iter().map(|c| (c.target.as_str(), c.gate, c.state, c.targets_left)).collect();
    assert_eq!(seen, two.each_ref().map(|c| (c.target.as_str(), Some(3), CircuitState::Open, 2)));
    for circuit in &watcher.circuits {
        let times = (watcher.seen_at - circuit.since, circuit.until - watcher.seen_at);
        assert_eq!((times.0.num_milliseconds(), times.1.num_milliseconds()), (60_000, 5_000));
    }
    let many: Vec<_> = (0..200).map(|n| circuit(&format!("http://{n}/"))).collect();
    tell(&db, "w", vec![FeedReport { circuits: many, ..feed("a", 0, 0, 0.0) }]).await;
    assert_eq!(status(&db).await[0].watchers[0].circuits.len(), CIRCUITS_MAX);
    tell(&db, "w", vec![feed("a", 0, 0, 0.0)]).await;
    assert!(status(&db).await[0].watchers[0].circuits.is_empty());
}

/// Each once, by what they serve of these feeds, and with those that come before; not oneself, nor who is silent.
pub async fn peers_are_those_who_are_alive_and_serve_the_same(db: TestDb) {
    let store = db.store();
    let served = |feeds: &[&str]| feeds.iter().map(|name| feed(name, 0, 0, 0.0)).collect();
    assert_eq!(store.peers("w", &feeds(&["a"])).await.unwrap(), Peers::default());
    for (watcher, feeds) in [
        ("Z", &["a", "b"][..]),
        ("v", &["b", "a", "x"]),
        ("w", &["a", "b"]),
        ("x", &["a"]),
        ("y", &["x"]),
        ("silent", &["a"]),
    ] {
        tell(&db, watcher, served(feeds)).await;
    }
    last_seen(&db, "silent", 20.5).await;
    let group = |feeds: &[&str], watchers, before| PeerGroup { feeds: self::feeds(feeds), watchers, before };
    let both = group(&["a", "b"], 2, 2);
    assert_eq!(
        store.peers("w", &feeds(&["a", "b"])).await.unwrap(),
        Peers::new(vec![both, group(&["a"], 1, 0)])
    );
    assert_eq!(store.peers("w", &feeds(&["a"])).await.unwrap(), Peers::new(vec![group(&["a"], 3, 2)]));
    assert_eq!(store.peers("A", &feeds(&["b"])).await.unwrap(), Peers::new(vec![group(&["b"], 3, 0)]));
    store.farewell("x").await.unwrap();
    assert_eq!(store.peers("w", &feeds(&["a"])).await.unwrap(), Peers::new(vec![group(&["a"], 2, 2)]));
}

/// What counts is the last one; when it started stays.
pub async fn a_second_report_replaces_the_first(db: TestDb) {
    tell(&db, "w", vec![feed("a", 7, 10, 12.5)]).await;
    let started = db.in_secs(-3000.0);
    db.run(&format!("UPDATE gatefeed_watchers SET started_at = {started}")).await;
    last_seen(&db, "w", 2000.0).await;
    let second = Report { version: "1.3.0", concurrency: 5, ..report("w", vec![feed("a", 2, 20, 0.5)]) };
    db.store().report(&second).await.unwrap();
    let status = status(&db).await;
    assert_eq!(names(&status), [("a", vec!["w"])]);
    let watcher = &status[0].watchers[0];
    assert_eq!((watcher.version.as_str(), watcher.concurrency), ("1.3.0", 5));
    assert_eq!((watcher.in_flight, watcher.outcomes, watcher.outcomes_per_second), (2, 20, 0.5));
    assert_eq!((watcher.seen_at - watcher.started_at).num_minutes(), 50);
    assert_eq!((status[0].in_flight, status[0].outcomes_per_second), (2, 0.5));
}

/// Sums by feed, watchers in order of id, next to what is known of partitions.
pub async fn watchers_and_feeds_sum_up(db: TestDb) {
    push(&db.store(), "p", &[("i", 0)]).await;
    tell(&db, "w2", vec![feed("default", 1, 1, 0.25), feed("a", 2, 2, 0.5)]).await;
    tell(&db, "w1", vec![feed("default", 10, 5, 1.0)]).await;
    let status = status(&db).await;
    assert_eq!(names(&status), [("a", vec!["w2"]), ("default", vec!["w1", "w2"])]);
    let sums: Vec<_> = status.iter().map(|f| (f.in_flight, f.outcomes_per_second)).collect();
    assert_eq!(sums, [(2, 0.5), (11, 1.25)]);
    let items: Vec<_> = status.iter().map(|f| (f.partitions.available, f.items.available)).collect();
    assert_eq!(items, [(0, 0), (1, 1)]);
}

/// A watcher that stops says so, in all its feeds; nobody else is touched.
pub async fn farewell_takes_a_watcher_away(db: TestDb) {
    for watcher in ["w1", "w2"] {
        tell(&db, watcher, vec![feed("a", 1, 1, 1.0), feed("b", 1, 1, 1.0)]).await;
    }
    db.store().farewell("w1").await.unwrap();
    assert_eq!(names(&status(&db).await), [("a", vec!["w2"]), ("b", vec!["w2"])]);
    db.store().farewell("w1").await.unwrap();
    db.store().farewell("unknown").await.unwrap();
    db.store().farewell("w2").await.unwrap();
    assert!(status(&db).await.is_empty());
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_watchers").await, 0);
}

/// Who has not been heard of for a while does not count, until the next report.
pub async fn a_silent_watcher_does_not_count(db: TestDb) {
    for watcher in ["late", "silent", "well"] {
        tell(&db, watcher, vec![feed("a", 1, 1, 1.0)]).await;
    }
    last_seen(&db, "late", 8.0).await;
    last_seen(&db, "silent", 20.5).await;
    let seen = status(&db).await;
    assert_eq!(names(&seen), [("a", vec!["late", "well"])]);
    assert_eq!((seen[0].in_flight, seen[0].outcomes_per_second), (2, 2.0));
    tell(&db, "silent", vec![feed("a", 1, 1, 1.0)]).await;
    assert_eq!(names(&status(&db).await), [("a", vec!["late", "silent", "well"])]);
    db.store().farewell("late").await.unwrap();
    db.store().farewell("well").await.unwrap();
    last_seen(&db, "silent", 20.5).await;
    assert!(status(&db).await.is_empty(), "a feed that nobody serves");
}

/// Who ended without a farewell is forgotten by the others' reports.
pub async fn an_old_report_is_forgotten(db: TestDb) {
    for watcher in ["old", "dead", "well"] {
        tell(&db, watcher, vec![feed("a", 1, 1, 1.0), feed("b", 1, 1, 1.0)]).await;
    }
    last_seen(&db, "old", 3500.0).await;
    last_seen(&db, "dead", 3601.0).await;
    tell(&db, "well", vec![feed("a", 1, 1, 1.0), feed("b", 1, 1, 1.0)]).await;
    let rows = db.rows("SELECT DISTINCT id FROM gatefeed_watchers ORDER BY id").await;
    assert_eq!(rows.concat(), [Some("old".to_owned()), Some("well".to_owned())]);
}

fn feeds(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// By whom has another feed nothing to do with it, and it is over soon.
pub async fn what_others_hold_is_asked_for(db: TestDb) {
    let store = db.store();
    leased(&db, "p", &[("a", 0)]).await;
    for watcher in ["w", "hungry"] {
        tell(&db, watcher, vec![feed("default", 0, 0, 0.0), feed("other", 0, 0, 0.0)]).await;
    }
    let asked_at = Instant::now();
    store.ask("hungry", &feeds(&["default", "other"])).await.unwrap();
    let asked = store.asked("w", &feeds(&["default", "other"])).await.unwrap();
    assert!(asked == [("default".to_owned(), 1)] || asked_at.elapsed() > ASKS_FOR, "{asked:?}");
    assert_eq!(store.asked("w", &feeds(&["other"])).await.unwrap(), []);
    assert_eq!(store.asked("hungry", &feeds(&["default"])).await.unwrap(), [], "of itself");
    while !store.asked("w", &feeds(&["default"])).await.unwrap().is_empty() {
        assert!(asked_at.elapsed() < Duration::from_secs(30), "it goes on for ever");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(asked_at.elapsed() >= ASKS_FOR);
}

/// Nothing is written where nobody holds anything due: an idle database stays idle.
pub async fn nothing_is_asked_for_in_vain(db: TestDb) {
    let store = db.store();
    tell(&db, "hungry", vec![feed("default", 0, 0, 0.0)]).await;
    let asks = "SELECT count(*) FROM gatefeed_watchers WHERE asks_until IS NOT NULL";
    store.ask("hungry", &feeds(&["default"])).await.unwrap();
    push(&store, "free", &[("a", 0)]).await;
    store.ask("hungry", &feeds(&["default"])).await.unwrap();
    lease(&store, "hungry", "free").await;
    store.ask("hungry", &feeds(&["default"])).await.unwrap();
    assert_eq!(db.count(asks).await, 0);
    leased(&db, "p", &[("a", 0)]).await;
    store.ask("hungry", &feeds(&["default"])).await.unwrap();
    assert_eq!(db.count(asks).await, 1);
}
