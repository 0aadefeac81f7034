//! What is seen of a partition for people who ask why.

use std::sync::Arc;

use gatefeed_core::{
    Store, StoreError,
    item::ItemStatus,
    partition::NewPartition,
    watcher::{FeedReport, Report},
    why::{Facts, LOOK_MAX, Seen, explain},
};

use super::{given::*, watchers::circuit};

async fn facts(store: &Arc<dyn Store>, partition: &str) -> Facts {
    store.why(partition, None).await.unwrap()
}

fn ids(seen: &[Seen]) -> Vec<&str> {
    seen.iter().map(|item| item.id.as_str()).collect()
}

/// Open items at or below the gate, by kind, in order; what is beyond it is only known by its gate.
pub async fn what_holds_the_gate(db: TestDb) {
    let store = db.store();
    let items = [("a", 1), ("b", 0), ("c", 1), ("d", 1), ("e", 1), ("f", 2), ("g", 4), ("x", 1)];
    push(&store, "p", &items).await;
    db.run("UPDATE gatefeed_partitions SET gate = 1").await;
    for (id, change) in [
        ("c", "status = 'waiting'"),
        ("d", "status = 'blocked'"),
        ("e", "status = 'failed', error_messages = 'first\nlast'"),
        ("g", "status = 'waiting'"),
        ("x", "status = 'complete'"),
        ("b", "retry_count = 2, error_messages = 'HTTP 500'"),
    ] {
        db.run(&format!("UPDATE gatefeed_items SET {change} WHERE id = '{id}'")).await;
    }
    let facts = facts(&store, "p").await;
    assert_eq!(ids(&facts.available), ["b", "a"]);
    assert_eq!(
        (facts.available[0].retry_count, facts.available[0].last_error.as_deref()),
        (2, Some("HTTP 500"))
    );
    let mut parked = ids(&facts.parked);
    parked.sort_unstable();
    assert_eq!((parked, ids(&facts.failed)), (vec!["c", "d"], vec!["e"]));
    assert_eq!(facts.failed[0].last_error.as_deref(), Some("last"));
    assert_eq!((facts.next_gate, facts.any_item), (Some(2), true));
    let why = explain(facts);
    assert!(why.because[0].contains("Gate 1 is held by 4 open items"), "{why:?}");
}

/// An item beyond the gate, parked or not, is where it goes next.
pub async fn the_next_gate(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[]).await;
    let empty = facts(&store, "p").await;
    assert_eq!((empty.next_gate, empty.any_item), (None, false));
    push(&store, "p", &[("far", 9), ("near", 3)]).await;
    assert_eq!(facts(&store, "p").await.next_gate, Some(3));
    db.run("UPDATE gatefeed_items SET status = 'waiting' WHERE id = 'near'").await;
    assert_eq!(facts(&store, "p").await.next_gate, Some(3));
    db.run("UPDATE gatefeed_items SET status = 'complete' WHERE id = 'near'").await;
    assert_eq!(facts(&store, "p").await.next_gate, Some(9));
}

/// One item, whatever its status; what does not exist is named.
pub async fn an_item(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("a", 3)]).await;
    db.run("UPDATE gatefeed_items SET status = 'complete'").await;
    let item = store.why("p", Some("a")).await.unwrap().item.unwrap();
    assert_eq!((item.id.as_str(), item.gate, item.status), ("a", 3, ItemStatus::Complete));
    let missing = store.why("p", Some("nothing")).await.unwrap_err();
    assert!(matches!(&missing, StoreError::NotFound(text) if text.contains("nothing")), "{missing:?}");
    let nowhere = store.why("nowhere", None).await.unwrap_err();
    assert!(matches!(&nowhere, StoreError::NotFound(text) if text.contains("nowhere")), "{nowhere:?}");
}

/// Those that serve the partition's feed, not others, and the targets that they leave alone.
pub async fn the_watchers_of_its_feed(db: TestDb) {
    let store = db.store();
    push_to(&store, &NewPartition { feed: "video".into(), ..NewPartition::new("p") }, &[("a", 0)]).await;
    assert!(facts(&store, "p").await.watchers.is_empty());
    for (watcher, feed) in [("w1", "default"), ("w2", "video")] {
        let feed = FeedReport {
            feed: feed.into(),
            partitions: 0,
            in_flight: 0,
            outcomes: 0,
            outcomes_per_second: 0.0,
            circuits: vec![circuit(&format!("http://{watcher}/"))],
        };
        let report = Report { watcher: watcher.into(), version: "1", concurrency: 1, feeds: vec![feed] };
        store.report(&report).await.unwrap();
    }
    let facts = facts(&store, "p").await;
    assert_eq!(facts.watchers, ["w2"]);
    let targets: Vec<_> = facts.circuits.iter().map(|circuit| circuit.target.as_str()).collect();
    assert_eq!(targets, ["http://w2/"]);
}

/// However many there are, so many are looked at.
pub async fn looks_are_bounded(db: TestDb) {
    let store = db.store();
    let items: Vec<_> = (0..LOOK_MAX + 50).map(|n| item("p", &format!("i{n:05}"), 0)).collect();
    store.push(&NewPartition::new("p"), &items).await.unwrap();
    let facts = facts(&store, "p").await;
    assert_eq!(facts.available.len(), LOOK_MAX + 1);
    assert!(explain(facts).because[0].contains("over 1000"));
}
