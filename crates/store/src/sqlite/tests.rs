//! What is SQLite's own: plans, timestamps, locks, files. The conformance suite tests the rest on both databases.

use std::{path::Path, sync::Arc, time::Duration};

use gatefeed_core::{
    Store, StoreError,
    item::{Data, NewItem},
    lease::{Claim, Grant, Renewal},
    partition::NewPartition,
    store::Checkpointed,
};
use sqlx::{Connection, Executor, Row, SqliteConnection};
use tempfile::TempDir;

use super::{
    Sqlite, callback, checkpoint, claim, complete, dependencies, fence, gather, history, insert, inspect,
    nested, operate, page, renew, status, values::values, watchers, why,
};
use crate::Options;

mod file;
mod lanes;
mod push;
mod text;

async fn connect(path: &Path) -> Result<Sqlite, StoreError> {
    Sqlite::connect(&format!("sqlite://{}", path.display()), &Options::default()).await
}

async fn open(folder: &TempDir) -> Sqlite {
    let store = connect(&folder.path().join("q.db")).await.unwrap();
    store.migrate().await.unwrap();
    store
}

/// Somebody else's connection.
async fn shell(folder: &TempDir) -> SqliteConnection {
    SqliteConnection::connect(&format!("sqlite://{}", folder.path().join("q.db").display())).await.unwrap()
}

async fn claim_all(store: &Sqlite) -> Vec<Grant> {
    let feeds = vec!["default".to_owned()];
    let duration = Duration::from_secs(30);
    store
        .claim(&Claim { owner: "w".into(), feeds, duration, limit: 10, due_for: Duration::ZERO })
        .await
        .unwrap()
}

fn item(id: usize, bytes: usize) -> NewItem {
    let (partition, id) = ("p".to_owned(), id.to_string());
    NewItem::new(partition, id, Data::json(vec![b'1'; bytes]))
}

/// The statements of the hot path, and the trigger's.
async fn hot_statements(connection: &mut SqliteConnection) -> Vec<String> {
    let mut all: Vec<String> =
        [claim::FREE, claim::EXPIRED, page::PAGE, checkpoint::LOOK, checkpoint::FIRST_DUE]
            .into_iter()
            .chain([
                checkpoint::ADVANCE,
                checkpoint::RELEASE,
                complete::SUSPECT,
                callback::OVERDUE,
                operate::RETRY,
                history::FORGET,
            ])
            .chain(operate::CANCEL_ITEMS)
            .chain([nested::DROP, nested::APPLY, nested::READY, nested::COUNT, operate::NESTED])
            .chain([
                watchers::OTHERS_HOLD,
                checkpoint::FAILURES,
                checkpoint::CAME,
                operate::REMOVE_MADE,
                operate::AGAIN,
            ])
            .map(str::to_owned)
            .collect();
    for rows in [1, 4, 32, 256] {
        let of_ids = [claim::GRANT, renew::RENEW, renew::RELEASE];
        all.extend(of_ids.map(|sql| sql.replace("{ids}", &values(rows, 1))));
        all.extend([
            fence::look_sql(rows, "p.id"),
            complete::done_sql(rows),
            complete::change_sql(rows),
            insert::items_sql(rows),
            history::keep_sql(rows),
        ]);
    }
    let trigger = "SELECT sql FROM sqlite_schema WHERE name = 'gatefeed_items_inserted'";
    let trigger: String = sqlx::query_scalar(trigger).fetch_one(connection).await.unwrap();
    let wake = &trigger[trigger.find("UPDATE").unwrap()..trigger.rfind("END").unwrap()];
    let wake = ["partition_id", "available_at", "status"]
        .iter()
        .fold(wake.to_owned(), |sql, column| sql.replace(&format!("NEW.{column}"), "?"));
    assert!(!wake.contains("NEW."));
    all.push(wake);
    all
}

/// No table is walked, nothing sorted, no index built for the occasion. CTEs and lists are walked.
fn is_bad(step: &str) -> bool {
    let walked = step.strip_prefix("SCAN ").and_then(|rest| rest.split(' ').next());
    walked.is_some_and(|table| ["p", "i", "n"].contains(&table) || table.starts_with("gatefeed_"))
        || step.contains("TEMP B-TREE")
        || step.contains("AUTOMATIC")
}

/// What people ask for may walk the partitions and sort what it has counted, but not walk all items.
fn walks_items(step: &str) -> bool {
    ["SCAN i", "SCAN n", "SCAN gatefeed_items"].iter().any(|walk| step.starts_with(walk))
        || step.contains("AUTOMATIC")
}

async fn check_plans(connection: &mut SqliteConnection, when: &str) {
    for sql in hot_statements(connection).await {
        check_plan(connection, &sql, is_bad, when).await;
    }
    let of_people = [status::OLDEST, inspect::GATES, gather::SCAN];
    for sql in of_people.into_iter().chain([
        why::PARTITION,
        why::AVAILABLE,
        why::PARKED,
        why::FAILED,
        why::WAITS_FOR,
    ]) {
        check_plan(connection, sql, walks_items, when).await;
    }
    for candidates in [dependencies::OF_CHANGED, dependencies::ALL] {
        let sql = dependencies::UNBLOCK.replace("{candidates}", candidates);
        check_plan(connection, &sql, walks_items, when).await;
    }
}

async fn check_plan(connection: &mut SqliteConnection, sql: &str, is_bad: fn(&str) -> bool, when: &str) {
    let explain = format!("EXPLAIN QUERY PLAN {sql}");
    let rows = sqlx::query(&explain).fetch_all(&mut *connection).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
    assert!(!plan.iter().any(|step| is_bad(step)), "after {when:?}: {sql}\n{plan:#?}");
}

const FEW: &str = "INSERT INTO gatefeed_partitions (id) VALUES ('a');
    INSERT INTO gatefeed_items (partition_id) VALUES ('a');
    ANALYZE";

const MANY: &str = "WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 199)
    INSERT INTO gatefeed_partitions (id, feed, priority) SELECT 'p' || n, 'f' || (n % 3), n % 5 FROM n;
    WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < 4999)
    INSERT INTO gatefeed_items (partition_id, gate, priority, status)
    SELECT 'p' || (n % 200), n % 7, n % 3,
        CASE n % 10 WHEN 0 THEN 'failed' WHEN 1 THEN 'waiting' WHEN 2 THEN 'available' ELSE 'complete' END
    FROM n";

const DRAINED: &str = "UPDATE gatefeed_items SET status = 'complete';
    UPDATE gatefeed_partitions SET status = 'complete', next_run_at = NULL;
    ANALYZE";

#[tokio::test]
async fn no_statement_walks_what_it_need_not_whatever_the_statistics_say() {
    for steps in [[MANY, "ANALYZE", DRAINED], [FEW, MANY, DRAINED]] {
        let folder = tempfile::tempdir().unwrap();
        open(&folder).await;
        check_plans(&mut shell(&folder).await, "nothing").await;
        for step in steps {
            shell(&folder).await.execute(step).await.unwrap();
            // Opened again, it forgets what would mislead; a new connection reads the rest.
            open(&folder).await;
            check_plans(&mut shell(&folder).await, step).await;
        }
    }
}

#[tokio::test]
async fn columns_take_moments_and_names_as_they_are_described_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    open(&folder).await;
    let mut shell = shell(&folder).await;
    shell.execute("INSERT INTO gatefeed_partitions (id) VALUES ('p')").await.unwrap();
    let insert = |column: &str, value: &str| {
        format!("INSERT INTO gatefeed_items (partition_id, {column}) VALUES ('p', {value})")
    };
    for value in
        ["'2026-01-31 23:59:59'", "'2026-01-31 23:59:59.123'", "datetime('now')", "'9999-12-31 23:59:59.999'"]
    {
        shell.execute(insert("available_at", value).as_str()).await.unwrap();
    }
    for value in
        ["'now'", "'2026-02-30 00:00:00'", "'2026-01-31'", "'2026-01-31T23:59:59Z'", "1769903999", "''"]
            .into_iter()
            .chain([
                "'2026-01-31 24:00:00'",
                "'2026-01-31 23:59:59.1'",
                "'2026-01-31 23:59:59' || char(0)",
                "NULL",
            ])
    {
        let error = shell.execute(insert("available_at", value).as_str()).await.unwrap_err().to_string();
        assert!(error.contains("available_at"), "{value}: {error}");
    }
    for value in ["'résumé 1 / π'", "char(160)", "'a]-b'", "7"] {
        shell.execute(insert("id", value).as_str()).await.unwrap();
    }
    for value in ["''", "char(10)", "'a' || char(0)", "char(127)", "char(133)", "hex(zeroblob(257))"] {
        let error = shell.execute(insert("id", value).as_str()).await.unwrap_err().to_string();
        assert!(error.contains("item_id_is_1_to_512_bytes_no_control_chars"), "{value}: {error}");
    }
}

#[tokio::test]
async fn a_url_that_is_no_file_of_ours_is_refused_with_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.txt");
    std::fs::write(
        &text,
        "These are notes, longer than the header of a SQLite database, which has a hundred bytes; ",
    )
    .unwrap();
    let at = |path: &Path| format!("sqlite://{}", path.display());
    for (url, reason) in [
        ("sqlite::memory:".to_owned(), "names no file"),
        ("sqlite://".to_owned(), "names no file"),
        ("sqlite://q.db?mode=memory".to_owned(), "has the parameter"),
        (at(folder.path()), "is a directory"),
        (at(&folder.path().join("missing/q.db")), "there is no directory"),
        (at(&text), "notes.txt is not a SQLite database"),
    ] {
        match Sqlite::connect(&url, &Options::default()).await {
            Err(StoreError::Config(message)) => assert!(message.contains(reason), "{url}: {message}"),
            other => panic!("{url}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn while_another_process_writes_renewals_are_skipped_and_checkpoints_busy() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    store.push(&NewPartition::new("p"), &[item(0, 1)]).await.unwrap();
    let lease = claim_all(&store).await.remove(0).lease;
    let mut shell = shell(&folder).await;
    shell.execute("UPDATE gatefeed_items SET status = 'complete'; BEGIN IMMEDIATE").await.unwrap();
    let leases = [lease];
    let hold = Duration::ZERO;
    assert_eq!(store.renew(&leases, Duration::from_secs(30)).await.unwrap(), [Renewal::Skipped]);
    assert_eq!(store.checkpoint(&leases, hold).await.unwrap(), [Checkpointed::Busy]);
    assert!(matches!(store.push(&NewPartition::new("q"), &[]).await, Err(StoreError::Conflict(_))));
    shell.execute("COMMIT").await.unwrap();
    assert_eq!(store.renew(&leases, Duration::from_secs(30)).await.unwrap(), [Renewal::Renewed]);
    assert_eq!(store.checkpoint(&leases, hold).await.unwrap(), [Checkpointed::Closed]);
}

#[tokio::test]
async fn a_call_that_is_dropped_leaves_no_lock_and_writes_all_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let items: Vec<NewItem> = (0..2000).map(|id| item(id, 100)).collect();
    let partition = NewPartition::new("p");
    let mut shell = shell(&folder).await;
    // At every stage, from waiting for the lock to the commit, whose answer may be what is dropped.
    for time_us in (0..6000).step_by(100) {
        let push = store.push(&partition, &items);
        tokio::time::timeout(Duration::from_micros(time_us), push).await.ok();
        let count = "SELECT count(*) FROM gatefeed_items";
        let written: i64 = sqlx::query_scalar(count).fetch_one(&mut shell).await.unwrap();
        assert!(written == 0 || written == 2000, "{written} after {time_us} µs");
        shell.execute("DELETE FROM gatefeed_partitions").await.unwrap();
    }
    assert!(store.push(&partition, &items).await.unwrap().created);
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_wedges_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut tx = store.lanes.write().await.unwrap();
    tx.conn().unwrap().execute("PRAGMA max_page_count = 60").await.unwrap();
    tx.commit().await.unwrap();
    let items: Vec<NewItem> = (0..100).map(|id| item(id, 10_000)).collect();
    let partition = NewPartition::new("p");
    match store.push(&partition, &items).await {
        Err(StoreError::Unavailable(message)) => assert!(message.contains("full"), "{message}"),
        other => panic!("{other:?}"),
    }
    // A statement of one row makes SQLite end the whole transaction by itself.
    let mut tx = store.lanes.write().await.unwrap();
    let row = "CREATE TABLE filler (a); INSERT INTO filler VALUES (zeroblob(1000000))";
    tx.conn().unwrap().execute(row).await.unwrap_err();
    drop(tx);
    assert!(store.push(&partition, &items[..1]).await.unwrap().created);
}
