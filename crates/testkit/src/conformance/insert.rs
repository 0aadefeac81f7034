//! The SQL contract: what a plain INSERT does.

use gatefeed_core::{
    item::{Data, ItemStatus},
    partition::{FailurePolicy, NewPartition, PartitionStatus},
};

use super::given::*;

/// Every column but the bold ones of the contract has a default that makes the insert safe.
pub async fn partition_defaults(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p')").await;
    let row = partition(&db.store(), "p").await;
    assert_eq!((row.feed.as_str(), row.status), ("default", PartitionStatus::Available));
    assert_eq!((row.gate, row.priority, row.epoch, row.version), (0, 0, 0, 0));
    assert!(!row.manual_checkpoint && row.auto_close);
    assert_eq!((row.max_in_flight, row.failure_policy), (None, FailurePolicy::Stop));
    assert_eq!((row.owner, row.until, row.next_run_at), (None, None, None));
    let now = format!("created_at <= {0} AND updated_at <= {0}", db.in_secs(1.0));
    assert!(db.partition_is("p", &format!("lease_id IS NULL AND {now}")).await);
}

/// An item needs no more than its partition.
pub async fn item_defaults(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p')").await;
    db.run("INSERT INTO gatefeed_items (partition_id) VALUES ('p'), ('p')").await;
    let rows = db.store().items(&all_items("p")).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_ne!(rows[0].id, rows[1].id);
    for row in rows {
        uuid::Uuid::parse_str(&row.id).unwrap();
        assert_eq!((row.status, row.gate, row.priority), (ItemStatus::Available, 0, 0));
        assert_eq!((row.pass, row.retry_count, row.version), (0, 0, 0));
        assert_eq!((row.content_type.as_str(), row.size, row.data), ("application/json", 0, Some(vec![])));
        assert_eq!(row.error_messages, None);
    }
    let soon = db.in_secs(1.0);
    let past =
        format!("SELECT count(*) FROM gatefeed_items WHERE available_at <= {soon} AND created_at <= {soon}");
    assert_eq!(db.count(&past).await, 2);
}

/// A JSON literal without a backslash is the same bytes on both databases.
pub async fn a_json_literal_arrives_as_bytes(db: TestDb) {
    let json = r#"{"n": 12345678901234567890, "s": "é"}"#;
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p')").await;
    db.run(&format!("INSERT INTO gatefeed_items (partition_id, id, data) VALUES ('p', 'i', '{json}')")).await;
    let store = db.store();
    let lease = lease(&store, "w", "p").await;
    let due = due(&store, &lease).await;
    assert_eq!(due[0].data.as_deref(), Some(json.as_bytes()));
    assert_eq!(due[0].size, json.len() as u64);
    assert_eq!(store.load("p", "i", due[0].version).await.unwrap(), Some(Data::json(json)));
    assert_eq!(item_row(&store, "p", "i").await.data.as_deref(), Some(json.as_bytes()));
}

/// A move of next_run_at is no visible change: the version stays.
pub async fn an_idle_partition_wakes(db: TestDb) {
    let store = db.store();
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p'), ('q'), ('r')").await;
    assert!(claim(&store, "w", 10).await.is_empty());
    db.run("INSERT INTO gatefeed_items (partition_id) VALUES ('p'), ('q'), ('p')").await;
    for id in ["p", "q"] {
        assert!(db.partition_is(id, &format!("version = 0 AND next_run_at <= {}", db.in_secs(0.1))).await);
    }
    assert!(db.partition_is("r", "next_run_at IS NULL").await);
    assert_eq!(claim(&store, "w", 10).await.len(), 2);
}

/// A complete partition is open again, visibly.
pub async fn a_complete_partition_reopens(db: TestDb) {
    let insert = "INSERT INTO gatefeed_partitions (id, status, version) VALUES ('p', 'complete', 7)";
    db.run(insert).await;
    db.run("INSERT INTO gatefeed_items (partition_id) VALUES ('p')").await;
    assert!(db.partition_is("p", "status = 'available' AND version = 8 AND next_run_at IS NOT NULL").await);
    assert_eq!(claim(&db.store(), "w", 10).await.len(), 1);
}

/// Items are stored and wait until an operator lets the partition go.
pub async fn paused_and_failed_partitions_store_and_sleep(db: TestDb) {
    for status in ["paused", "failed"] {
        db.run(&format!("INSERT INTO gatefeed_partitions (id, status) VALUES ('{status}', '{status}')"))
            .await;
        db.run(&format!("INSERT INTO gatefeed_items (partition_id) VALUES ('{status}')")).await;
        let unchanged = format!("status = '{status}' AND next_run_at IS NULL AND version = 0");
        assert!(db.partition_is(status, &unchanged).await, "{status}");
    }
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items").await, 2);
    assert!(claim(&db.store(), "w", 10).await.is_empty());
}

/// The earliest item decides when a sleeping partition wakes.
pub async fn a_delayed_item_sets_the_alarm(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p')").await;
    for (id, secs, alarm) in [("hour", 3600.0, "hour"), ("half", 1800.0, "half"), ("two", 7200.0, "half")] {
        let at = db.in_secs(secs);
        db.run(&format!(
            "INSERT INTO gatefeed_items (partition_id, id, available_at) VALUES ('p', '{id}', {at})"
        ))
        .await;
        let store = db.store();
        let expected = item_row(&store, "p", alarm).await.available_at;
        assert_eq!(partition(&store, "p").await.next_run_at, Some(expected), "after {id}");
    }
    db.run("INSERT INTO gatefeed_items (partition_id, available_at) VALUES ('p', '2020-01-01 00:00:00')")
        .await;
    assert!(
        db.partition_is("p", &format!("next_run_at BETWEEN {} AND {}", db.in_secs(-60.0), db.in_secs(0.1)))
            .await
    );
}

/// Only work wakes: history that is copied in does not, nor does a conflict that adds nothing.
pub async fn what_is_no_work_wakes_nothing(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id, status) VALUES ('p', 'available'), ('c', 'complete')").await;
    for status in ["complete", "failed", "cancelled", "waiting", "blocked"] {
        for partition in ["p", "c"] {
            let values = format!("('{partition}', '{status}', '{status}')");
            db.run(&format!("INSERT INTO gatefeed_items (partition_id, id, status) VALUES {values}")).await;
        }
    }
    db.run("INSERT INTO gatefeed_items (partition_id, id) VALUES ('p', 'complete') ON CONFLICT DO NOTHING")
        .await;
    assert!(db.partition_is("p", "next_run_at IS NULL AND version = 0").await);
    assert!(db.partition_is("c", "next_run_at IS NULL AND version = 0 AND status = 'complete'").await);
}

/// Items go with their partition, whatever the connection says about foreign keys.
pub async fn a_deleted_partition_takes_its_items(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p'), ('q')").await;
    db.run("INSERT INTO gatefeed_items (partition_id) VALUES ('p'), ('p'), ('q')").await;
    db.run("DELETE FROM gatefeed_partitions WHERE id = 'p'").await;
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items WHERE partition_id = 'p'").await, 0);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items").await, 1);
}

/// A transaction that has looked while the partition was awake, and inserts after it has gone to sleep, wakes it
/// or is asked to try again: what it sees of the partition is of the past.
pub async fn an_old_snapshot_loses_no_wakeup(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    for (level, auto_close) in [("REPEATABLE READ", true), ("REPEATABLE READ", false), ("SERIALIZABLE", true)]
    {
        let store = db.store();
        let id = format!("{level} {auto_close}");
        push_to(&store, &NewPartition { auto_close, ..NewPartition::new(&id) }, &[("i", 0)]).await;
        let mut producer = db.begin().await;
        producer.execute(&format!("SET TRANSACTION ISOLATION LEVEL {level}")).await.unwrap();
        producer.execute("SELECT count(*) FROM gatefeed_partitions").await.unwrap();
        assert_eq!(drain(&store, "w").await, 1);
        assert!(db.partition_is(&id, "next_run_at IS NULL").await);
        let insert = format!("INSERT INTO gatefeed_items (partition_id, id) VALUES ('{id}', 'late')");
        match producer.execute(&insert).await {
            Ok(_) => {
                producer.commit().await.unwrap();
                assert!(
                    db.partition_is(&id, "next_run_at IS NOT NULL AND status = 'available'").await,
                    "{id}"
                );
            }
            Err(error) => assert!(error.starts_with("40001"), "{id}: {error}"),
        }
        drain(&store, "w").await;
    }
}

/// Whoever reopens a partition with a plain UPDATE, or lets its gate go, need not know of `next_run_at`.
pub async fn a_change_by_hand_wakes(db: TestDb) {
    let (later, due) = (db.in_secs(3600.0), format!("next_run_at <= {}", db.in_secs(1.0)));
    for (id, before, change) in [
        ("paused", "status = 'paused'", "status = 'available'"),
        ("failed", "status = 'failed'", "status = 'available'"),
        ("held", "manual_checkpoint = true", "manual_checkpoint = false"),
        ("stopped", "failure_policy = 'stop'", "failure_policy = 'continue'"),
        ("raised", "gate = 1", "gate = 2"),
    ] {
        db.run(&format!("INSERT INTO gatefeed_partitions (id) VALUES ('{id}')")).await;
        for asleep in ["NULL", &later] {
            db.run(&format!("UPDATE gatefeed_partitions SET {before} WHERE id = '{id}'")).await;
            db.run(&format!("UPDATE gatefeed_partitions SET next_run_at = {asleep} WHERE id = '{id}'")).await;
            assert!(!db.partition_is(id, &due).await, "{id} {asleep}");
            db.run(&format!("UPDATE gatefeed_partitions SET {change} WHERE id = '{id}'")).await;
            assert!(db.partition_is(id, &due).await, "{id} {asleep}");
        }
        // Who says when it is to be looked at is heard.
        let change = format!("{before}, next_run_at = {later}");
        db.run(&format!("UPDATE gatefeed_partitions SET {change} WHERE id = '{id}'")).await;
        assert!(
            db.partition_is(id, "next_run_at IS NOT NULL").await && !db.partition_is(id, &due).await,
            "{id}"
        );
    }
    db.run("UPDATE gatefeed_partitions SET status = 'cancelled', next_run_at = NULL WHERE id = 'held'").await;
    assert!(db.partition_is("held", "next_run_at IS NULL").await);
}

/// The same for a plain UPDATE or an upsert of items.
pub async fn an_item_changed_by_hand_wakes(db: TestDb) {
    let later = db.in_secs(3600.0);
    db.run("INSERT INTO gatefeed_partitions (id, gate) VALUES ('p', 5)").await;
    db.run(&format!(
        "INSERT INTO gatefeed_items (partition_id, id, gate, status, available_at) VALUES \
         ('p', 'failed', 0, 'failed', {later}), ('p', 'delayed', 0, 'available', {later}), \
         ('p', 'ahead', 9, 'available', {later})"
    ))
    .await;
    let sleep = "UPDATE gatefeed_partitions SET next_run_at = NULL, status = 'complete'";
    let now = db.in_secs(-1.0);
    for change in [
        format!("UPDATE gatefeed_items SET available_at = {now} WHERE id = 'delayed'"),
        "UPDATE gatefeed_items SET status = 'available' WHERE id = 'failed'".to_owned(),
        "UPDATE gatefeed_items SET gate = 1 WHERE id = 'ahead'".to_owned(),
        "INSERT INTO gatefeed_items (partition_id, id) VALUES ('p', 'failed') \
         ON CONFLICT (partition_id, id) DO UPDATE SET status = 'available'"
            .to_owned(),
    ] {
        db.run("UPDATE gatefeed_items SET status = 'failed' WHERE id = 'failed' AND gate = 0").await;
        db.run(sleep).await;
        db.run(&change).await;
        assert!(db.partition_is("p", "status = 'available' AND next_run_at IS NOT NULL").await, "{change}");
        if change.starts_with("UPDATE gatefeed_items SET status") {
            db.run("UPDATE gatefeed_items SET status = 'failed' WHERE id = 'failed'").await;
        }
    }
    db.run(sleep).await;
    db.run("UPDATE gatefeed_items SET priority = 3, gate = 10, status = 'complete'").await;
    assert!(db.partition_is("p", "status = 'complete' AND next_run_at IS NULL").await, "nothing to do");
}
