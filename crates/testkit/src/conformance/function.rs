//! The SQL functions. Postgres only: SQLite has none.

use gatefeed_core::partition::PartitionStatus;

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
