//! Versions of what plain SQL changes.

use gatefeed_core::{item::ItemStatus, outcome::Settled};

use super::given::*;

/// Of the only item, as an operator would change it while it is in flight: its outcome is void then, and it stays as it
/// was written.
async fn item_is_changed(db: TestDb, statement: &str, expected: &str) {
    let store = db.store();
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    db.run(statement).await;
    assert!(db.item_is("p", "i", "version = 1").await, "{statement}");
    let settled = complete_patiently(&store, &[completion(&lease, &due[0], done(&due[0]))]).await;
    assert_eq!(settled, [Settled::Stale], "{statement}");
    assert!(db.item_is("p", "i", expected).await, "{statement}");
}

/// Ended by hand.
pub async fn an_item_that_is_cancelled_in_flight_stays_so(db: TestDb) {
    item_is_changed(db, "UPDATE gatefeed_items SET status = 'cancelled'", "status = 'cancelled'").await;
}

/// Sent elsewhere by hand.
pub async fn an_item_that_is_moved_in_flight_is_delivered_there(db: TestDb) {
    item_is_changed(db, "UPDATE gatefeed_items SET gate = 4", "status = 'available' AND gate = 4").await;
}

/// Given other data.
pub async fn new_data_in_flight_is_delivered(db: TestDb) {
    item_is_changed(db, "UPDATE gatefeed_items SET data = '{}'", "status = 'available'").await;
}

/// As a producer does who has a newer state of the same thing.
pub async fn an_upsert_in_flight_is_delivered(db: TestDb) {
    let upsert = "INSERT INTO gatefeed_items (partition_id, id, data) VALUES ('p', 'i', '{}')
        ON CONFLICT (partition_id, id) DO UPDATE SET data = excluded.data, status = 'available'";
    item_is_changed(db, upsert, "status = 'available'").await;
}

/// Everything that people see but its priority, for which nothing under way is done again.
pub async fn each_change_of_an_item_is_a_version(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    let later = format!("available_at = {}", db.in_secs(60.0));
    let changes = [
        "gate = 1",
        "status = 'failed'",
        "pass = 1",
        "retry_count = 1",
        later.as_str(),
        "data = '{}'",
        "content_type = 'a/b'",
        "error_messages = 'x'",
        "error_messages = NULL",
        "status = 'available', gate = 2, data = '[]'",
        // Who says so himself says it once.
        "gate = 3, version = version + 1",
    ];
    for (before, change) in changes.into_iter().enumerate() {
        assert_eq!(item_row(&store, "p", "i").await.version, before as i64, "{change}");
        db.run(&format!("UPDATE gatefeed_items SET {change}")).await;
    }
    db.run("UPDATE gatefeed_items SET gate = gate, data = data, status = status, priority = 9").await;
    let row = item_row(&store, "p", "i").await;
    assert_eq!(
        (row.version, row.status),
        (changes.len() as i64, ItemStatus::Available),
        "nothing that counts"
    );
}

/// Everything that people see; not when it is looked at next.
pub async fn each_change_of_a_partition_is_a_version(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    let changes = [
        "feed = 'f'",
        "status = 'paused'",
        "gate = 1",
        "priority = 1",
        "manual_checkpoint = true",
        "auto_close = false",
        "max_in_flight = 1",
        "failure_policy = 'continue'",
        "gate_deadline_seconds = 60",
        "status = 'available', gate = 2",
        "gate = 3, version = version + 1",
    ];
    for (before, change) in changes.into_iter().enumerate() {
        assert_eq!(partition(&store, "p").await.version, before as i64, "{change}");
        db.run(&format!("UPDATE gatefeed_partitions SET {change}")).await;
    }
    for change in ["gate = gate, feed = feed", "next_run_at = NULL", "expiries = 1"] {
        db.run(&format!("UPDATE gatefeed_partitions SET {change}")).await;
        assert_eq!(partition(&store, "p").await.version, changes.len() as i64, "{change}");
    }
}

/// When that was, unless the statement says it itself.
pub async fn a_change_says_when_it_was(db: TestDb) {
    push(&db.store(), "p", &[("i", 0)]).await;
    let long_ago = "updated_at = '2020-01-01 00:00:00'";
    for (table, is) in [("gatefeed_items", "status = 'failed'"), ("gatefeed_partitions", "status = 'paused'")]
    {
        db.run(&format!("UPDATE {table} SET {long_ago}")).await;
        db.run(&format!("UPDATE {table} SET {is}")).await;
        let now = format!("SELECT count(*) FROM {table} WHERE updated_at > {}", db.in_secs(-60.0));
        assert_eq!(db.count(&now).await, 1, "{table}");
        db.run(&format!("UPDATE {table} SET gate = 7, {long_ago}")).await;
        let as_said = format!("SELECT count(*) FROM {table} WHERE {long_ago} AND version = 2");
        assert_eq!(db.count(&as_said).await, 1, "{table}");
    }
}

/// A name is what everything else refers to.
pub async fn names_do_not_change(db: TestDb) {
    push(&db.store(), "p", &[("i", 0)]).await;
    for statement in [
        "UPDATE gatefeed_items SET id = 'j'",
        "UPDATE gatefeed_items SET partition_id = 'q'",
        "UPDATE gatefeed_partitions SET id = 'q'",
    ] {
        let error = db.refused(statement).await;
        assert!(error.contains("cannot change"), "{error}");
    }
    db.run("UPDATE gatefeed_items SET id = 'i', partition_id = 'p'").await;
}
