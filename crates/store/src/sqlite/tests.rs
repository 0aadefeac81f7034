//! What is SQLite's own: plans, timestamps, locks, files. The conformance suite tests the rest on both databases.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{
    Store, StoreError,
    item::{Data, NewItem},
    lease::{Claim, Grant, Renewal},
    outcome::{Change, Completion, Settled},
    partition::NewPartition,
    store::{Checkpointed, PageRequest},
};
use sqlx::{Connection, Executor, Row, SqliteConnection};
use tempfile::TempDir;

use super::{Sqlite, checkpoint, claim, complete, fence, insert, inspect, operate, page, renew};
use crate::{Options, Synchronous};

async fn open(folder: &TempDir) -> Sqlite {
    let url = format!("sqlite://{}", folder.path().join("q.db").display());
    let store = Sqlite::connect(&url, &Options::default()).await.unwrap();
    store.migrate().await.unwrap();
    store
}

async fn shell(folder: &TempDir) -> SqliteConnection {
    let url = format!("sqlite://{}", folder.path().join("q.db").display());
    SqliteConnection::connect(&url).await.unwrap()
}

async fn fill(connection: &mut SqliteConnection) {
    connection
        .execute(
            "WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 199)
             INSERT INTO gatefeed_partitions (id, feed, priority) SELECT 'p' || n, 'f' || (n % 3), n % 5 FROM n;
             WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 4999)
             INSERT INTO gatefeed_items (partition_id, gate, priority, status)
             SELECT 'p' || (n % 200), n % 7, n % 3,
                 CASE n % 10 WHEN 0 THEN 'failed' WHEN 1 THEN 'waiting' WHEN 2 THEN 'available' ELSE 'complete' END
             FROM n;",
        )
        .await
        .unwrap();
}

async fn plan(connection: &mut SqliteConnection, sql: &str) -> Vec<String> {
    let rows = sqlx::query(&format!("EXPLAIN QUERY PLAN {sql}")).fetch_all(connection).await.unwrap();
    rows.iter().map(|row| row.get("detail")).collect()
}

#[tokio::test]
async fn show() {
    let folder = tempfile::tempdir().unwrap();
    open(&folder).await;
    let mut connection = shell(&folder).await;
    for analyzed in [1,2,3,4] {
        match analyzed { 
        1 => {connection.execute("insert into gatefeed_partitions (id) values('a'),('b'); insert into gatefeed_items (partition_id) values ('a'),('a'),('a'),('b'); ANALYZE").await.unwrap();}
        2 => {connection.execute("delete from gatefeed_partitions; drop table sqlite_stat1; drop table if exists sqlite_stat4; ANALYZE sqlite_schema").await.unwrap(); connection=shell(&folder).await;   fill(&mut connection).await;}
        3 => {connection.execute("ANALYZE").await.unwrap(); }
        4 => {connection.execute("update gatefeed_items set status='complete'; update gatefeed_partitions set status='complete'; ANALYZE").await.unwrap();}
        _ => {}
         }
    for sql in [
        claim::FREE.to_owned(), claim::EXPIRED.into(), claim::GRANT.into(), renew::RENEW.into(), renew::RELEASE.into(), fence::look_sql(32, "p.rowid"),
        page::PAGE.into(), checkpoint::LOOK.into(), checkpoint::FIRST_DUE.into(), checkpoint::ADVANCE.into(), checkpoint::RELEASE.into(),
        complete::update_sql(256), complete::update_sql(1), complete::SUSPECT.into(), insert::items_sql(32), insert::PARTITION.into(), operate::RETRY.into(),
        inspect::FEED_ITEMS.into(), inspect::IDLENESS.into(), inspect::which(inspect::PARTITIONS,"p.id","?5",None), inspect::which(inspect::PARTITIONS,"p.id","?5",Some(&String::new())),inspect::which(inspect::ITEMS,"id","?7",Some(&String::new())),inspect::which(inspect::ITEMS,"id","?7",None)
    ] {
        println!("--- {analyzed} {}", &sql[..sql.len().min(90)]);
        for line in plan(&mut connection, &sql).await { println!("    {line}"); }
    }
    }
}
