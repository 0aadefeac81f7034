//! The SQL functions. Postgres only: SQLite has none.

use gatefeed_core::{partition::PartitionStatus, store::Checkpointed};

use super::given::*;

/// Makes the partition, keeps the JSON to the letter, leaves an existing id alone.
pub async fn push_makes_what_is_missing(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    let json = r#"{"path": "C:\\tmp", "n": 12345678901234567890}"#;
    let id = db.value(&format!("SELECT gatefeed_push('p', '{json}')")).await.unwrap();
    uuid::Uuid::parse_str(&id).unwrap();
    let store = db.store();
    assert_eq!(item_row(&store, "p", &id).await.data.as_deref(), Some(json.as_bytes()));
    assert_eq!(db.value("SELECT gatefeed_push('p', '1', 3, 'mine')").await.as_deref(), Some("mine"));
    assert_eq!(db.value("SELECT gatefeed_push('p', '2', 4, 'mine')").await.as_deref(), Some("mine"));
    let mine = item_row(&store, "p", "mine").await;
    assert_eq!((mine.gate, mine.data.as_deref()), (3, Some(b"1".as_slice())));
    assert_eq!(claim(&store, "w", 10).await.len(), 1);
    db.refused("SELECT gatefeed_push('p', 'no json')").await;
    db.refused("SELECT gatefeed_push('p', '1', -1)").await;
}

/// The same as the store's seal.
pub async fn seal_lets_go(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    db.run("INSERT INTO gatefeed_partitions (id, manual_checkpoint, auto_close) VALUES ('p', true, false)")
        .await;
    db.run("SELECT gatefeed_seal('p')").await;
    let sealed = "NOT manual_checkpoint AND auto_close AND version = 1 AND next_run_at IS NOT NULL";
    assert!(db.partition_is("p", sealed).await);
    db.run("SELECT gatefeed_seal('p')").await;
    assert!(db.partition_is("p", sealed).await);
    let error = db.refused("SELECT gatefeed_seal('nowhere')").await;
    assert!(error.contains("does not exist"), "{error}");
}

/// The same as the store's retry.
pub async fn retry_makes_failed_items_available(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    db.run("INSERT INTO gatefeed_partitions (id, status) VALUES ('p', 'failed'), ('c', 'cancelled')").await;
    let items = "('p', 'a', 0, 'failed', 4), ('p', 'b', 1, 'failed', 4), ('p', 'c', 0, 'complete', 4)";
    db.run(&format!(
        "INSERT INTO gatefeed_items (partition_id, id, gate, status, retry_count) VALUES {items}"
    ))
    .await;
    assert_eq!(db.count("SELECT gatefeed_retry('p', gate => 1)").await, 1);
    assert!(db.item_is("p", "b", "status = 'available' AND pass = 1 AND retry_count = 0").await);
    assert_eq!(partition(&db.store(), "p").await.status, PartitionStatus::Available);
    assert_eq!(db.count("SELECT gatefeed_retry('p')").await, 1);
    assert_eq!(db.count("SELECT gatefeed_retry('p')").await, 0);
    assert!(db.item_is("p", "c", "status = 'complete' AND version = 0").await);
    db.refused("SELECT gatefeed_retry('nowhere')").await;
    db.refused("SELECT gatefeed_retry('c')").await;
}

/// The same as the store's pause, resume, advance and cancel, in the same words.
pub async fn operators_act(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    let store = db.store();
    let hold = "INSERT INTO gatefeed_partitions (id, manual_checkpoint) VALUES ('p', true)";
    db.run(hold).await;
    push(&store, "p", &[("a", 3), ("b", 5)]).await;
    db.run("SELECT gatefeed_pause('p')").await;
    assert_eq!(partition(&store, "p").await.status, PartitionStatus::Paused);
    assert_eq!(db.count("SELECT gatefeed_advance('p')").await, 3);
    let error = db.refused("SELECT gatefeed_advance('p')").await;
    assert!(
        error.contains("an item at gate 3 is still open") && error.contains("`gatefeed items"),
        "{error}"
    );
    db.run("SELECT gatefeed_resume('p')").await;
    let error = db.refused("SELECT gatefeed_resume('p')").await;
    assert!(error.contains("is not paused: it is available"), "{error}");
    let lease = lease(&store, "w", "p").await;
    assert_eq!(db.count("SELECT gatefeed_cancel('p', 'no longer wanted')").await, 2);
    assert_eq!(partition(&store, "p").await.reason.as_deref(), Some("no longer wanted"));
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Fenced);
    for function in ["pause", "resume", "cancel", "advance"] {
        let error = db.refused(&format!("SELECT gatefeed_{function}('nowhere')")).await;
        assert!(error.contains("does not exist"), "{error}");
    }
}

/// The same as the store's rewind; returns what it did.
pub async fn rewind_goes_back(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    db.run(
        "INSERT INTO gatefeed_partitions (id, keep_history, gate, status) VALUES ('p', true, 2, 'complete')",
    )
    .await;
    let columns = "partition_id, id, gate, status, creator_id, creator_gate";
    let items = "('p', 'a', 2, 'complete', NULL, NULL), ('p', 'made', 2, 'complete', 'a', 1)";
    db.run(&format!("INSERT INTO gatefeed_items ({columns}) VALUES {items}")).await;
    let rows = db.rows("SELECT * FROM gatefeed_rewind('p', 1)").await;
    assert_eq!(rows, [[Some("1".to_owned()), Some("1".to_owned())]]);
    assert_eq!(item_ids(&db.store(), "p").await, ["a"]);
    let error = db.refused("SELECT gatefeed_rewind('p', NULL)").await;
    assert!(error.contains("it is at gate 1"), "{error}");
}

/// Nothing relies on search_path: whoever names the schema needs nothing else.
pub async fn the_schema_is_all_one_has_to_name(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    let mut tx = db.begin().await;
    tx.execute("SET LOCAL search_path = pg_catalog").await.unwrap();
    let (push, seal, retry) =
        (db.table("gatefeed_push"), db.table("gatefeed_seal"), db.table("gatefeed_retry"));
    for sql in [
        format!("SELECT {push}('p', '1', item_id => 'i')"),
        format!("UPDATE {} SET status = 'failed'", db.table("gatefeed_items")),
        format!("SELECT {retry}('p')"),
        format!("SELECT {seal}('p')"),
        format!("SELECT {}('p')", db.table("gatefeed_pause")),
        format!("SELECT {}('p')", db.table("gatefeed_resume")),
        format!("UPDATE {} SET gate = 1", db.table("gatefeed_items")),
        format!("SELECT {}('p')", db.table("gatefeed_advance")),
        format!("INSERT INTO {} (id, keep_history) VALUES ('q', true)", db.table("gatefeed_partitions")),
        format!("SELECT {}('q', 0)", db.table("gatefeed_rewind")),
        format!("SELECT {}('q')", db.table("gatefeed_cancel")),
        format!("INSERT INTO {} (partition_id) VALUES ('p')", db.table("gatefeed_items")),
        format!("DELETE FROM {}", db.table("gatefeed_partitions")),
        format!("SELECT {push}('p', '1', item_id => 'i')"),
    ] {
        tx.execute(&sql).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    tx.commit().await.unwrap();
    assert_eq!(item_ids(&db.store(), "p").await, ["i"]);
    let error = db.refused(&format!("UPDATE {} SET id = 'q'", db.table("gatefeed_partitions"))).await;
    assert!(error.contains("cannot change"), "{error}");
}
