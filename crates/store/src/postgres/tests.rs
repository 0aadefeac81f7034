//! Plans: no statement of the hot path scans the items or sorts a partition, whatever the planner knows of the
//! table. Without statistics it takes any index that comes near; the schema must not offer one that is wrong.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::{Row, raw_sql};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use url::Url;

use super::{
    Postgres,
    batch::{AT_ONCE, AT_ONCE_PLAIN, CHANGE, DONE, LOOK},
    callback::OVERDUE,
    checkpoint::PROBE,
    claim::CLAIM,
    load::LOAD,
    page::PAGE,
    pool::{ACQUIRE_TIMEOUT, Lane},
    watchers::ASK,
};
use crate::Options;

mod encoding;
mod lanes;
mod listener;

const ITEMS: &str = "
    INSERT INTO {schema}.gatefeed_partitions (id) SELECT 'p' || i FROM generate_series(0, 3) AS n (i);
    INSERT INTO {schema}.gatefeed_items (partition_id, id, gate) SELECT 'p' || i % 4, 'i' || i, i % 3
    FROM generate_series(1, 20000) AS n (i)";

/// The page and the probe with their parameters written out: the statements' own plans, not generic ones.
fn statements() -> [String; 2] {
    let lease = "'{p0}', '{w}', '{00000000-0000-0000-0000-000000000000}', '{1}'";
    let page = format!(
        "PREPARE page AS {PAGE}; EXPLAIN (COSTS OFF) EXECUTE page ({lease}, '{{0}}', '{{0}}', '{{2000-01-01}}', \
         '{{x}}', '{{500}}', 16384); DEALLOCATE page"
    );
    let probe = format!(
        "PREPARE probe AS {PROBE}; EXPLAIN (COSTS OFF) EXECUTE probe ('{{p0}}', '{{1}}'); DEALLOCATE probe"
    );
    [page, probe]
}

/// Large data of as many items as are loaded together.
fn load() -> String {
    let list = |value: &str| format!("array_fill({value}, ARRAY[16])");
    let (partitions, items, versions) = (list("'p0'::text"), list("'i4'::text"), list("0::bigint"));
    format!(
        "PREPARE load AS {LOAD}; EXPLAIN (COSTS OFF) EXECUTE load ({partitions}, {items}, {versions}); DEALLOCATE load"
    )
}

/// What has waited for too long.
fn overdue() -> String {
    let lease = "'{p0}', '{w}', '{00000000-0000-0000-0000-000000000000}', '{1}'";
    format!(
        "PREPARE overdue AS {OVERDUE}; EXPLAIN (COSTS OFF) EXECUTE overdue ({lease}, 100); DEALLOCATE overdue"
    )
}

/// Outcomes of a batch as large as they get, which makes joining with the whole table look cheap.
fn batches() -> [String; 5] {
    let lease = "'{p0}', '{w}', '{00000000-0000-0000-0000-000000000000}', '{1}'";
    let list = |value: &str| format!("array_fill({value}, ARRAY[2000])");
    let ids: Vec<String> = (1..=2000).map(|n| format!("i{n}")).collect();
    let ids = format!("'{{{}}}'", ids.join(","));
    let keys = format!("{lease}, {}, {ids}, {}", list("1::bigint"), list("0::bigint"));
    let change = ["'failed'::text", "0", "0", "0", "NULL::bigint", "NULL::bytea", "NULL::text", "NULL::text"];
    let change = [&change[..], &["NULL::bigint"]].concat();
    let change = change.into_iter().map(list).collect::<Vec<_>>().join(", ");
    let (plain, change) = (String::new(), format!(", {change}"));
    let statements =
        [(DONE, &plain), (CHANGE, &change), (AT_ONCE_PLAIN, &plain), (AT_ONCE, &change), (LOOK, &plain)];
    statements.map(|(sql, more)| {
        format!("PREPARE batch AS {sql}; EXPLAIN (COSTS OFF) EXECUTE batch ({keys}{more}); DEALLOCATE batch")
    })
}

async fn assert_batch_plans(store: &Postgres, when: &str) {
    for statement in batches() {
        let plan = plan(store, &statement).await;
        // By the whole key: by half of it, the index is walked over a whole partition.
        assert!(
            plan.contains("AND (id = (o.id)::text))") || plan.contains("AND (id = o.id))"),
            "{when}:\n{plan}"
        );
        assert!(!plan.contains("Seq Scan on gatefeed_items"), "{when}:\n{plan}");
    }
}

async fn plan(store: &Postgres, statement: &str) -> String {
    let mut tx = store.begin(Lane::Work, ACQUIRE_TIMEOUT).await.unwrap();
    let rows = raw_sql(&store.sql.fill(statement)).fetch_all(tx.conn().unwrap()).await.unwrap();
    tx.commit().await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect::<Vec<_>>().join("\n")
}

async fn run(store: &Postgres, sql: &str) {
    let mut tx = store.begin(Lane::Work, ACQUIRE_TIMEOUT).await.unwrap();
    raw_sql(&store.sql.fill(sql)).execute(tx.conn().unwrap()).await.unwrap();
    tx.commit().await.unwrap();
}

async fn assert_plans(store: &Postgres, when: &str) {
    assert_batch_plans(store, when).await;
    let overdue = plan(store, &overdue()).await;
    assert!(overdue.contains("gatefeed_items_waiting"), "{when}:\n{overdue}");
    assert!(!overdue.contains("Seq Scan on gatefeed_items"), "{when}:\n{overdue}");
    let load = plan(store, &load()).await;
    assert!(load.contains("Index Scan using gatefeed_items_pkey"), "{when}:\n{load}");
    for statement in statements() {
        let plan = plan(store, &statement).await;
        assert!(plan.contains("gatefeed_items_due"), "{when}:\n{plan}");
        assert!(!plan.contains("Seq Scan on gatefeed_items"), "{when}:\n{plan}");
        assert!(!plan.contains("Sort"), "{when}:\n{plan}");
    }
}

async fn store() -> Postgres {
    let url = std::env::var("GATEFEED_TEST_POSTGRES_URL").expect("run ./scripts/test");
    let schema = format!("plans_{}", uuid::Uuid::new_v4().simple());
    let options = Options { schema: Some(schema), ..Options::default() };
    let store = Postgres::connect(&url, &options).await.unwrap();
    store.migrate_schema().await.unwrap();
    store
}

/// The server ends this connection, and waits until it is gone.
const END: &str = "SELECT pg_terminate_backend($1, 5000)";

#[tokio::test]
async fn a_connection_that_the_server_has_ended_is_replaced() {
    let store = store().await;
    let mut tx = store.begin(Lane::Renew, ACQUIRE_TIMEOUT).await.unwrap();
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(tx.conn().unwrap()).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.begin(Lane::Work, ACQUIRE_TIMEOUT).await.unwrap();
    sqlx::query(END).bind(pid).execute(tx.conn().unwrap()).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = store.begin(Lane::Renew, ACQUIRE_TIMEOUT).await.unwrap();
    let other: i32 =
        sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(tx.conn().unwrap()).await.unwrap();
    assert_ne!(pid, other);
    tx.commit().await.unwrap();
    run(&store, "DROP SCHEMA {schema} CASCADE").await;
}

/// Leads connections on to the database of the tests; its own URL for that, and how many there were.
async fn count_connections() -> (String, Arc<AtomicUsize>) {
    let mut url =
        Url::parse(&std::env::var("GATEFEED_TEST_POSTGRES_URL").expect("run ./scripts/test")).unwrap();
    let server = (url.host_str().unwrap().to_owned(), url.port().unwrap_or(5432));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    url.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    let count = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
            let mut server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    (url.to_string(), count)
}

/// Each command connects anew.
#[tokio::test]
async fn whether_a_pooler_is_there_takes_one_connection_more() {
    let (url, count) = count_connections().await;
    let store = Postgres::connect(&url, &Options::default()).await.unwrap();
    assert_eq!(count.load(Ordering::SeqCst), 2);
    let tx = store.begin(Lane::Work, ACQUIRE_TIMEOUT).await.unwrap();
    assert!(tx.is_prepared(), "taken for a pooler");
    tx.commit().await.unwrap();
}

/// Its limits are those of its own call, and not of the one before on the same connection.
#[tokio::test]
async fn a_single_statement_has_limits_of_its_own() {
    let store = store().await;
    let limits = async |ms: u64| {
        let mut tx =
            store.begin_single(Lane::Renew, Duration::from_millis(ms), ACQUIRE_TIMEOUT).await.unwrap();
        let sql =
            "SELECT concat_ws(' ', current_setting('statement_timeout'), current_setting('lock_timeout'),
            current_setting('transaction_isolation'), current_setting('gatefeed.ours'))";
        let seen: String = sqlx::query_scalar(sql).fetch_one(tx.conn().unwrap()).await.unwrap();
        tx.commit().await.unwrap();
        seen
    };
    assert_eq!(limits(7000).await, "7s 5s read committed on");
    store.begin(Lane::Renew, Duration::from_millis(900)).await.unwrap().commit().await.unwrap();
    assert_eq!(limits(7000).await, "7s 5s read committed on");
    assert_eq!(limits(1000).await, "1s 900ms read committed on");
    run(&store, "DROP SCHEMA {schema} CASCADE").await;
}

/// Partitions that wait for tomorrow, that are due, that are complete, and that others hold.
const IDLE: &str = "
    INSERT INTO {schema}.gatefeed_partitions (id, next_run_at)
        SELECT 'waiting' || i, now() + interval '1 day' FROM generate_series(1, 5000) AS n (i);
    INSERT INTO {schema}.gatefeed_partitions (id, next_run_at) VALUES ('due1', now()), ('due2', now()), ('due3', now());
    INSERT INTO {schema}.gatefeed_partitions (id, status)
        SELECT 'complete' || i, 'complete' FROM generate_series(1, 5000) AS n (i);
    INSERT INTO {schema}.gatefeed_partitions (id, next_run_at, owner, lease_id, until)
        SELECT 'held' || i, now(), 'other', gen_random_uuid(), now() + interval '1 hour'
        FROM generate_series(1, 5000) AS n (i)";

#[tokio::test]
async fn a_claim_reads_no_partition_that_it_does_not_take() {
    let store = store().await;
    run(&store, "ALTER TABLE {schema}.gatefeed_partitions SET (autovacuum_enabled = off)").await;
    run(&store, IDLE).await;
    let claim = format!(
        "PREPARE claim AS {CLAIM}; EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE claim \
         ('{{default}}', '100', 'w', '00000000-0000-0000-0000-000000000001', '30000000', '0'); DEALLOCATE claim"
    );
    for when in ["freshly loaded", "analysed"] {
        let plan = plan(&store, &claim).await;
        let removed = plan.lines().filter_map(|line| line.split("Rows Removed by Filter: ").nth(1));
        let removed: u64 = removed.map(|rows| rows.trim().parse::<u64>().unwrap()).sum();
        assert!(removed < 10, "{when}:\n{plan}");
        assert!(!plan.contains("Seq Scan on gatefeed_partitions"), "{when}:\n{plan}");
        assert!(plan.contains("Update on gatefeed_partitions p (actual rows=3"), "{when}:\n{plan}");
        assert_asking_is_one_probe(&store, when).await;
        run(
            &store,
            "UPDATE {schema}.gatefeed_partitions SET owner = NULL, lease_id = NULL, until = NULL \
                     WHERE id LIKE 'due%'",
        )
        .await;
        run(&store, "ANALYZE {schema}.gatefeed_partitions").await;
    }
    run(&store, "DROP SCHEMA {schema} CASCADE").await;
}

/// Each watcher with nothing to do asks now and then.
async fn assert_asking_is_one_probe(store: &Postgres, when: &str) {
    let ask = format!(
        "PREPARE ask AS {ASK}; EXPLAIN (COSTS OFF) EXECUTE ask ('w', '{{default}}', '0.8'); DEALLOCATE ask"
    );
    let plan = plan(store, &ask).await;
    assert!(plan.contains("gatefeed_partitions_leased"), "{when}:\n{plan}");
    assert!(!plan.contains("Seq Scan on gatefeed_partitions") && !plan.contains("Sort"), "{when}:\n{plan}");
}

#[tokio::test]
async fn pages_and_probes_follow_the_index() {
    let store = store().await;
    // Statistics come when this test says so.
    run(&store, "ALTER TABLE {schema}.gatefeed_items SET (autovacuum_enabled = off)").await;
    run(&store, ITEMS).await;
    assert_plans(&store, "freshly loaded").await;
    run(&store, "ANALYZE {schema}.gatefeed_items").await;
    assert_plans(&store, "analysed").await;
    run(&store, "UPDATE {schema}.gatefeed_items SET status = 'complete'").await;
    assert_plans(&store, "drained").await;
    run(&store, "ANALYZE {schema}.gatefeed_items").await;
    assert_plans(&store, "drained and analysed").await;
    run(&store, "DROP SCHEMA {schema} CASCADE").await;
}
