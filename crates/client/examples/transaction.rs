//! An application's own row and the work that it asks for, in one transaction: committed together, or not at all.
//!
//! ```sh
//! cargo run -p gatefeed-client --example transaction                               # on a temporary SQLite file
//! DATABASE_URL=postgres://me@localhost/mydb cargo run -p gatefeed-client --example transaction
//! ```

#![allow(clippy::print_stdout, missing_docs, unreachable_pub, reason = "an example")]

mod common;

use gatefeed_client::{
    Client, Error, Partition, Pushed, StoreError,
    sqlx::{self, Executor, PgPool, SqlitePool},
};

const TABLE: &str = "CREATE TABLE IF NOT EXISTS example_orders (id TEXT PRIMARY KEY)";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let db = common::open().await?;
    for commit in [true, false] {
        let order = common::fresh("order");
        let (pushed, rows) = if db.url.starts_with("sqlite") {
            on_sqlite(&db, &order, commit).await?
        } else {
            on_postgres(&db, &order, commit).await?
        };
        println!("{}: {pushed:?}", if commit { "committed" } else { "rolled back" });
        println!("  rows of the application: {rows}; work: {}", work(&db.client, &order).await?);
    }
    Ok(())
}

/// What an order asks for: two things to do, and a mail when both are through.
fn work_of(order: &str) -> gatefeed_client::Result<Partition> {
    Partition::builder(order).items(["invoice", "parcel"]).gate(1, "mail").build()
}

async fn on_sqlite(db: &common::Db, order: &str, commit: bool) -> anyhow::Result<(Pushed, i64)> {
    let pool = SqlitePool::connect(&db.url).await?;
    pool.execute(TABLE).await?;
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("INSERT INTO example_orders VALUES (?)").bind(order).execute(&mut *tx).await?;
    let pushed = db.client.push_in(&mut *tx, &work_of(order)?).await?;
    if commit {
        tx.commit().await?
    } else {
        tx.rollback().await?
    }
    let rows = "SELECT count(*) FROM example_orders WHERE id = ?";
    Ok((pushed, sqlx::query_scalar(rows).bind(order).fetch_one(&pool).await?))
}

async fn on_postgres(db: &common::Db, order: &str, commit: bool) -> anyhow::Result<(Pushed, i64)> {
    let pool = PgPool::connect(&db.url).await?;
    pool.execute(TABLE).await?;
    let mut tx = pool.begin().await?;
    sqlx::query("INSERT INTO example_orders VALUES ($1)").bind(order).execute(&mut *tx).await?;
    let pushed = db.client.push_in(&mut *tx, &work_of(order)?).await?;
    if commit {
        tx.commit().await?
    } else {
        tx.rollback().await?
    }
    let rows = "SELECT count(*) FROM example_orders WHERE id = $1";
    Ok((pushed, sqlx::query_scalar(rows).bind(order).fetch_one(&pool).await?))
}

async fn work(client: &Client, order: &str) -> gatefeed_client::Result<String> {
    match client.partition(order).await {
        Ok(partition) => Ok(format!("{} items", partition.items.available)),
        Err(Error::Store(StoreError::NotFound(_))) => Ok("none".to_owned()),
        Err(error) => Err(error),
    }
}
