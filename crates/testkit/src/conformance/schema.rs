//! Migrations: forward only, one at a time, and never over a newer schema.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{StoreError, lease::Lease};

use super::given::*;

const FIRST_POSTGRES: &str = include_str!("../../../../migrations/postgres/0001_init.sql");
const FIRST_SQLITE: &str = include_str!("../../../../migrations/sqlite/0001_init.sql");

const UNKNOWN: &str = "INSERT INTO gatefeed_migrations (version, name) VALUES (999, 'from_the_future')";

/// The second time there is nothing to do.
pub async fn migrate_twice(db: TestDb) {
    let store = db.store();
    let first = store.migrate().await.unwrap();
    assert_eq!(first.from, 0);
    assert!(first.to >= 1);
    let second = store.migrate().await.unwrap();
    assert_eq!((second.from, second.to), (first.to, first.to));
    store.check_schema().await.unwrap();
}

/// Watchers of a new deployment start together: one migrates, the others find it done.
pub async fn migrate_by_several_at_once(db: TestDb) {
    let mut stores = vec![db.store()];
    for _ in 0..3 {
        stores.push(db.another_store().await);
    }
    let tasks: Vec<_> =
        stores.into_iter().map(|store| tokio::spawn(async move { store.migrate().await })).collect();
    let mut migrated = 0;
    for task in tasks {
        let outcome = task.await.unwrap().unwrap();
        migrated += usize::from(outcome.from == 0);
        assert!(outcome.to >= 1);
    }
    assert_eq!(migrated, 1);
    db.store().check_schema().await.unwrap();
}

/// Without tables: said so, with what to do.
pub async fn missing_is_named(db: TestDb) {
    let store = db.store();
    store.ping().await.unwrap();
    let error = store.check_schema().await.unwrap_err();
    assert!(matches!(error, StoreError::SchemaMissing { .. }), "{error:?}");
    assert!(error.to_string().contains("gatefeed migrate"), "{error}");
}

/// A schema that this binary would have to migrate first.
pub async fn older_is_named(db: TestDb) {
    let store = db.store();
    let newest = store.migrate().await.unwrap().to;
    // Version 0 is an empty schema, so that before the first migration there is only this.
    let older = if newest == 1 { -1 } else { newest - 1 };
    db.run("DELETE FROM gatefeed_migrations").await;
    db.run(&format!("INSERT INTO gatefeed_migrations (version, name) VALUES ({older}, 'older')")).await;
    let error = store.check_schema().await.unwrap_err();
    assert!(
        matches!(error, StoreError::SchemaOlder { found, needed } if found == older && needed == newest),
        "{error:?}"
    );
    assert!(error.to_string().contains("gatefeed migrate"), "{error}");
}

/// A schema from the future is refused and left as it is.
pub async fn newer_is_refused_and_untouched(db: TestDb) {
    let store = db.store();
    let newest = store.migrate().await.unwrap().to;
    db.run(UNKNOWN).await;
    db.run("DROP TABLE gatefeed_items").await;
    let before = db.rows("SELECT version FROM gatefeed_migrations ORDER BY version").await;
    for error in [store.check_schema().await.unwrap_err(), store.migrate().await.unwrap_err()] {
        assert!(
            matches!(error, StoreError::SchemaNewer { found: 999, known } if known == newest),
            "{error:?}"
        );
    }
    assert_eq!(db.rows("SELECT version FROM gatefeed_migrations ORDER BY version").await, before);
    assert!(db.execute("SELECT 1 FROM gatefeed_items").await.is_err(), "the table came back");
}

/// The schema as the first release made it.
async fn make_version_1(db: &TestDb) {
    if db.is_postgres() {
        let schema = db.table("").trim_end_matches('.').to_owned();
        let channel = format!("'gatefeed.{}'", schema.trim_matches('"'));
        db.run(&format!("CREATE SCHEMA {schema}")).await;
        db.run(&FIRST_POSTGRES.replace("{schema}", &schema).replace("{channel}", &channel)).await;
    } else {
        db.run(FIRST_SQLITE).await;
    }
    let table = db.table("gatefeed_migrations");
    db.run(&format!("CREATE TABLE {table} (version bigint PRIMARY KEY, name text NOT NULL)")).await;
    db.run(&format!("INSERT INTO {table} (version, name) VALUES (1, '0001_init')")).await;
}

/// The lease of "p" that a watcher of the first release has taken.
async fn lease_of_version_1(db: &TestDb) -> Arc<Lease> {
    let lease_id = uuid::Uuid::now_v7();
    let lease = format!("owner = 'w', lease_id = '{lease_id}', until = {}, epoch = 1", db.in_secs(600.0));
    db.run(&format!("UPDATE gatefeed_partitions SET {lease} WHERE id = 'p'")).await;
    Arc::new(Lease { partition: "p".into(), owner: "w".into(), lease_id, epoch: 1 })
}

/// Everything there was in version 1, as text.
async fn content(db: &TestDb) -> Vec<Vec<Option<String>>> {
    let partitions = "id, feed, status, gate, priority, manual_checkpoint, auto_close, max_in_flight, failure_policy, \
                      owner, lease_id, until, epoch, expiries, next_run_at, version, created_at, updated_at";
    let items = "partition_id, id, gate, status, priority, pass, retry_count, suspect_count, available_at, data, \
                 content_type, error_messages, version, created_at, updated_at";
    let mut rows = db.rows(&format!("SELECT {partitions} FROM gatefeed_partitions ORDER BY id")).await;
    rows.extend(db.rows(&format!("SELECT {items} FROM gatefeed_items ORDER BY partition_id, id")).await);
    rows
}

/// Work that was there before a migration is there afterwards, to the letter, and goes on; a lease stays too.
pub async fn a_migration_from_version_1_keeps_everything(db: TestDb) {
    let store = db.store();
    make_version_1(&db).await;
    let error = store.check_schema().await.unwrap_err();
    assert!(matches!(error, StoreError::SchemaOlder { found: 1, .. }), "{error:?}");
    db.run(
        "INSERT INTO gatefeed_partitions (id, gate, status) VALUES ('p', 2, 'available'), ('q', 0, 'failed')",
    )
    .await;
    db.run("INSERT INTO gatefeed_partitions (id, failure_policy) VALUES ('lenient', 'continue')").await;
    for status in ["available", "waiting", "blocked", "complete", "failed", "cancelled"] {
        let columns = "partition_id, id, gate, status, data, error_messages";
        let values = format!("('p', '{status}', 2, '{status}', '{{\"n\": 1}}', 'no')");
        db.run(&format!("INSERT INTO gatefeed_items ({columns}) VALUES {values}")).await;
    }
    let lease = lease_of_version_1(&db).await;
    let before = content(&db).await;
    let migrated = store.migrate().await.unwrap();
    assert!(migrated.from == 1 && migrated.to >= 2, "{migrated:?}");
    store.check_schema().await.unwrap();
    assert_eq!(content(&db).await, before);
    assert_eq!(due_ids(&store, &lease).await, ["available"]);
    assert_eq!(complete_all(&store, &lease).await, 1);
    assert!(store.status().await.unwrap()[0].watchers.is_empty());
    push(&store, "p", &[("new", 0)]).await;
    assert_eq!(due_ids(&store, &lease).await, ["new"]);
}

/// Whoever has something open keeps the migration waiting, and nobody else behind it.
pub async fn a_migration_that_waits_holds_up_nobody(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    make_version_1(&db).await;
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p'), ('q')").await;
    let mut producer = db.begin().await;
    producer.execute("INSERT INTO gatefeed_items (partition_id, id) VALUES ('p', 'open')").await.unwrap();
    let store = db.store();
    let migration = tokio::spawn(async move { store.migrate().await });
    let schema = db.table("").replace('\'', "''");
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{schema}%' \
         AND pid <> pg_backend_pid()"
    );
    while db.count(&waiting).await == 0 {
        assert!(!migration.is_finished(), "it waits for nobody");
        tokio::task::yield_now().await;
    }
    let insert = db.run("INSERT INTO gatefeed_items (partition_id, id) VALUES ('q', 'behind it')");
    tokio::time::timeout(Duration::from_secs(20), insert).await.expect("a producer waits for the migration");
    producer.commit().await.unwrap();
    assert_eq!(migration.await.unwrap().unwrap().from, 1);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items").await, 2);
}
