//! Pushes: in a transaction of the caller, and open ones that are dropped.

use std::time::Duration;

use gatefeed_core::{
    Store, StoreError, inspect::PartitionFilter, item::NewItem, partition::NewPartition, store::Pushed,
};
use sqlx::{Connection, Executor, SqliteConnection};
use tempfile::TempDir;

use super::{claim_all, item, open, shell};
use crate::sqlite::push_into;

/// Somebody else's connection, before there is anything.
async fn shell_of_new_file(folder: &TempDir) -> SqliteConnection {
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("q.db").display());
    SqliteConnection::connect(&url).await.unwrap()
}

#[tokio::test]
async fn a_push_in_a_callers_transaction_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut shell = shell(&folder).await;
    let count = async || claim_all(&store).await.len();
    for (end, added) in [("ROLLBACK", 0), ("COMMIT", 1)] {
        shell.execute("BEGIN; CREATE TABLE IF NOT EXISTS orders (id INTEGER)").await.unwrap();
        let pushed = push_into(&mut shell, &NewPartition::new("p"), &[item(0, 1), item(1, 1)]).await.unwrap();
        assert_eq!(pushed, Pushed { created: true, added: 2, existing: 0 });
        let again = push_into(&mut shell, &NewPartition::new("p"), &[item(1, 1), item(2, 1)]).await.unwrap();
        assert_eq!(again, Pushed { created: false, added: 1, existing: 1 });
        assert_eq!(count().await, 0, "before the {end}");
        shell.execute(end).await.unwrap();
        assert_eq!(count().await, added, "after the {end}");
    }
    // sqlx's own transactions are savepoints too, when they are nested.
    let mut tx = shell.begin().await.unwrap();
    let mut nested = tx.begin().await.unwrap();
    push_into(&mut nested, &NewPartition::new("p"), &[item(3, 1)]).await.unwrap();
    nested.commit().await.unwrap();
    tx.commit().await.unwrap();
    let items: i64 =
        sqlx::query_scalar("SELECT count(*) FROM gatefeed_items").fetch_one(&mut shell).await.unwrap();
    assert_eq!(items, 4);
}

#[tokio::test]
async fn a_push_that_is_refused_leaves_a_callers_transaction_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut shell = shell_of_new_file(&folder).await;
    shell.execute("BEGIN").await.unwrap();
    let missing = push_into(&mut shell, &NewPartition::new("p"), &[]).await.unwrap_err();
    assert!(matches!(missing, StoreError::SchemaMissing { .. }), "{missing:?}");
    shell.execute("ROLLBACK").await.unwrap();
    open(&folder).await;
    shell.execute("BEGIN; CREATE TABLE orders (id INTEGER); INSERT INTO orders VALUES (1)").await.unwrap();
    let mut items: Vec<NewItem> = (0..300).map(|id| item(id, 1)).collect();
    items[299].gate = -1;
    let refused = push_into(&mut shell, &NewPartition::new("p"), &items).await.unwrap_err();
    assert!(
        matches!(&refused, StoreError::Data(text) if text.contains("gate_is_not_negative")),
        "{refused:?}"
    );
    let other = push_into(&mut shell, &NewPartition::new("q"), &items[..1]).await.unwrap_err();
    assert!(matches!(other, StoreError::Refused(_)), "{other:?}");
    shell.execute("COMMIT").await.unwrap();
    let left = "SELECT (SELECT count(*) FROM orders) * 100 + (SELECT count(*) FROM gatefeed_items) * 10
        + (SELECT count(*) FROM gatefeed_partitions)";
    assert_eq!(sqlx::query_scalar::<_, i64>(left).fetch_one(&mut shell).await.unwrap(), 100);
}

#[tokio::test]
async fn a_push_in_a_callers_transaction_says_what_is_in_its_way() {
    let folder = tempfile::tempdir().unwrap();
    open(&folder).await;
    let (mut shell, mut other) = (shell(&folder).await, shell(&folder).await);
    shell.execute("PRAGMA busy_timeout = 0").await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    shell.execute("BEGIN").await.unwrap();
    let error = push_into(&mut shell, &NewPartition::new("p"), &[item(0, 1)]).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Conflict(text) if text.contains("this connection is locked")),
        "{error}"
    );
}

#[tokio::test]
async fn an_open_push_that_is_dropped_halfway_frees_the_lock() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let items: Vec<NewItem> = (0..2000).map(|id| item(id, 100)).collect();
    for time_us in (0..3000).step_by(300) {
        let mut push = store.begin_push(&NewPartition::new("p")).await.unwrap();
        let added = tokio::time::timeout(Duration::from_micros(time_us), push.add(&items)).await;
        if added.is_err() {
            assert!(matches!(push.commit().await, Err(StoreError::Refused(_))), "after {time_us} µs");
        }
        assert!(
            store.partitions(&PartitionFilter { limit: 9, ..Default::default() }).await.unwrap().is_empty()
        );
    }
    assert_eq!(store.push(&NewPartition::new("p"), &items).await.unwrap().added, 2000);
}

#[tokio::test]
async fn a_push_on_a_connection_without_a_transaction_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut shell = shell(&folder).await;
    let bad = NewItem { gate: -1, ..item(1, 1) };
    push_into(&mut shell, &NewPartition::new("p"), &[item(0, 1), bad]).await.unwrap_err();
    push_into(&mut shell, &NewPartition::new("p"), &[item(0, 1)]).await.unwrap();
    assert_eq!(claim_all(&store).await.len(), 1);
    shell.execute("BEGIN; COMMIT").await.unwrap();
}
