//! Dependencies, with watchers that die.

use std::{collections::HashMap, fmt::Write as _, fs, time::Duration};

use gatefeed_tests::{Database, Gatefeed, Ledger, eventually, gatefeed};

crate::on_both!(killed_watchers_keep_the_order, what_is_refused_is_named);

const QUICK: [&str; 6] = ["--lease-duration", "2s", "--poll-interval", "100ms", "--concurrency", "20"];

/// (id, what it depends on) of a tree.
const TREE: [(&str, &str); 6] = [
    ("pre", ""),
    ("compute", "pre"),
    ("upload", "compute"),
    ("clean", "upload"),
    ("database", "upload"),
    ("mail", "upload"),
];

/// The items of a tree, the last first.
fn envelopes(tree: usize) -> String {
    let mut text = String::new();
    for (id, on) in TREE.iter().rev() {
        let on = if on.is_empty() { String::new() } else { format!("\"{tree}/{on}\"") };
        writeln!(text, r#"{{"id": "{tree}/{id}", "depends_on": [{on}], "data": 1}}"#).unwrap();
    }
    text
}

fn push(database: &Database, partition: &str, envelopes: &str) -> std::process::Output {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), envelopes).unwrap();
    gatefeed(database, &["push", "--partition", partition, "--envelope", file.path().to_str().unwrap()])
}

async fn killed_watchers_keep_the_order(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    for partition in ["p", "q"] {
        let envelopes: String = (0..30).map(envelopes).collect();
        assert!(push(&database, partition, &envelopes).status.success());
    }
    let ledger = Ledger::start(&[], Duration::from_millis(30)).await;
    let mut watcher = Gatefeed::run(&database, &ledger.url(), &QUICK);
    for round in 1..=4 {
        eventually("deliveries go on", || ledger.len() > round * 60).await;
        watcher.kill();
        watcher = Gatefeed::run(&database, &ledger.url(), &QUICK);
    }
    eventually("everything is complete", || database.items("complete") == 360).await;
    let mut firsts = HashMap::new();
    for entry in ledger.entries() {
        firsts.entry((entry.partition, entry.item)).or_insert(entry.at);
    }
    for (partition, item) in firsts.keys() {
        let (tree, id) = item.split_once('/').unwrap();
        let on = TREE.iter().find(|(name, _)| *name == id).unwrap().1;
        if !on.is_empty() {
            let before = firsts[&(partition.clone(), format!("{tree}/{on}"))];
            let at = firsts[&(partition.clone(), item.clone())];
            assert!(
                at >= before + Duration::from_millis(30),
                "{partition} {item} came before {on} was through"
            );
        }
    }
    assert!(watcher.terminate().await.success());
}

async fn what_is_refused_is_named(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    let circle = r#"{"id": "a", "depends_on": ["c"], "data": 1}
                    {"id": "b", "depends_on": ["a"], "data": 1}
                    {"id": "c", "depends_on": ["b"], "data": 1}"#;
    let nobody = r#"{"id": "a", "depends_on": ["nobody"], "data": 1}"#;
    for (envelopes, expected) in [(circle, "b → a → c"), (circle, "a cycle"), (nobody, "nobody")] {
        let output = push(&database, "p", envelopes);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{envelopes}");
        // A cycle has no beginning.
        let ways = ["a → c → b → a", "b → a → c → b", "c → b → a → c"];
        let is_named =
            error.contains(expected) || (envelopes == circle && ways.iter().any(|way| error.contains(way)));
        assert!(is_named && !error.contains("Defect"), "{error}");
        assert_eq!(database.value("SELECT count(*) FROM gatefeed_items"), "0");
    }
}
