//! Pushing inside the caller's own transaction.

use std::{sync::Arc, time::Duration};

use gatefeed_client::{
    Client, Error, Item, Partition, StoreError,
    sqlx::{self, Executor, PgPool},
};

use tokio::time::timeout;

use crate::db::{Db, PATIENCE, Pool, pushed};

on_both! {
    a_commit_makes_it_visible_and_wakes,
    a_rollback_leaves_nothing,
    existing_items_are_left_alone,
    many_items_fit_into_it,
}

fn order(id: &str) -> Partition {
    Partition::builder(id)
        .items(["invoice", "parcel"])
        .gate(1, Item::json("mail").id("mail"))
        .build()
        .unwrap()
}

/// Inserts a row of the application and pushes, in one transaction that it ends.
async fn place(
    db: &Db,
    partition: &Partition,
    commit: bool,
) -> gatefeed_client::Result<gatefeed_client::Pushed> {
    const ROW: &str = "INSERT INTO {} (id) VALUES ('o')";
    let sql = ROW.replace("{}", &db.table("orders"));
    match &db.pool {
        Pool::Postgres(pool) => {
            let mut tx = pool.begin().await.unwrap();
            tx.execute(sql.as_str()).await.unwrap();
            let pushed = db.client.push_in(&mut *tx, partition).await;
            if commit {
                tx.commit().await.unwrap()
            } else {
                tx.rollback().await.unwrap()
            }
            pushed
        }
        Pool::Sqlite(pool) => {
            let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
            tx.execute(sql.as_str()).await.unwrap();
            let pushed = db.client.push_in(&mut *tx, partition).await;
            if commit {
                tx.commit().await.unwrap()
            } else {
                tx.rollback().await.unwrap()
            }
            pushed
        }
    }
}

async fn make_orders(db: &Db) {
    db.execute(&format!("CREATE TABLE {} (id text)", db.table("orders"))).await;
}

async fn counts(db: &Db) -> [i64; 3] {
    [db.count("orders").await, db.count("gatefeed_partitions").await, db.count("gatefeed_items").await]
}

async fn a_commit_makes_it_visible_and_wakes(db: Arc<Db>) {
    make_orders(&db).await;
    let mut wakeups = db.store().wakeups(&["default".to_owned()]).await;
    // The first hint is that of the subscription; then nothing happens.
    wakeups.next().await;
    while timeout(Duration::from_millis(300), wakeups.next()).await.is_ok() {}
    assert_eq!(place(&db, &order("p"), true).await.unwrap(), pushed(true, 3, 0));
    timeout(PATIENCE, wakeups.next()).await.expect("a hint");
    assert_eq!(counts(&db).await, [1, 1, 3]);
    assert!(db.client.partition("p").await.unwrap().next_run_at.is_some());
}

async fn a_rollback_leaves_nothing(db: Arc<Db>) {
    make_orders(&db).await;
    assert_eq!(place(&db, &order("p"), false).await.unwrap(), pushed(true, 3, 0));
    assert_eq!(counts(&db).await, [0, 0, 0]);
}

async fn existing_items_are_left_alone(db: Arc<Db>) {
    make_orders(&db).await;
    let order = order("p");
    place(&db, &order, true).await.unwrap();
    assert_eq!(place(&db, &order, true).await.unwrap(), pushed(false, 0, 3));
    assert_eq!(counts(&db).await, [2, 1, 3]);
}

async fn many_items_fit_into_it(db: Arc<Db>) {
    make_orders(&db).await;
    let large = Partition::builder("p").items(0..10_500).build().unwrap();
    assert_eq!(place(&db, &large, true).await.unwrap(), pushed(true, 10_500, 0));
    assert_eq!(counts(&db).await, [1, 1, 10_500]);
}

fn postgres(db: &Db) -> &PgPool {
    match &db.pool {
        Pool::Postgres(pool) => pool,
        Pool::Sqlite(_) => panic!("a case for Postgres"),
    }
}

#[tokio::test]
async fn repeatable_read_conflicts_rather_than_lose_a_wakeup() {
    crate::db::run(Db::postgres().await, repeatable_read).await;
}

async fn repeatable_read(db: Arc<Db>) {
    let pool = postgres(&db);
    let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ";
    let mut tx = pool.begin_with(begin).await.unwrap();
    assert_eq!(db.client.push_in(&mut *tx, &order("p")).await.unwrap(), pushed(true, 3, 0));
    tx.commit().await.unwrap();
    assert!(db.client.partition("p").await.unwrap().next_run_at.is_some());

    // Into one that has changed since the snapshot, as when it went idle meanwhile.
    let mut tx = pool.begin_with(begin).await.unwrap();
    tx.execute("SELECT 1").await.unwrap();
    let row = format!("SELECT 1 FROM {}", db.table("gatefeed_partitions"));
    tx.execute(row.as_str()).await.unwrap();
    db.client.push(&Partition::builder("p").item("another").build().unwrap()).await.unwrap();
    let change = format!("UPDATE {} SET next_run_at = NULL", db.table("gatefeed_partitions"));
    db.execute(&change).await;
    let late = Partition::builder("p").item(Item::json("late").id("late")).build().unwrap();
    let error = db.client.push_in(&mut *tx, &late).await.unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::Conflict(_))) && error.is_retryable(), "{error:?}");
    // The transaction is aborted; rolled back, its connection is as good as new.
    assert!(tx.execute("SELECT 1").await.is_err());
    tx.rollback().await.unwrap();
    let mut tx = pool.begin_with(begin).await.unwrap();
    assert_eq!(db.client.push_in(&mut *tx, &late).await.unwrap(), pushed(false, 1, 0));
    tx.commit().await.unwrap();
    assert!(db.client.partition("p").await.unwrap().next_run_at.is_some());
}

#[tokio::test]
async fn a_client_over_a_store_can_name_its_schema() {
    crate::db::run(Db::postgres().await, over_a_store).await;
}

async fn over_a_store(db: Arc<Db>) {
    let over = Client::over(db.store()).in_schema(db.options.schema.as_ref().unwrap());
    let mut tx = postgres(&db).begin().await.unwrap();
    // Nobody's tables are found by search_path.
    sqlx::query("SET LOCAL search_path = pg_catalog").execute(&mut *tx).await.unwrap();
    over.push_in(&mut *tx, &order("p")).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(db.client.partition("p").await.unwrap().items.available, 3);
}
