//! What the documents tell people to type works as it stands there.

use std::{collections::HashMap, process::Command};

use gatefeed_tests::{Database, Gatefeed, binary, eventually, free_port, gatefeed};
use serde_json::json;

use crate::handlers::{self, queue};

crate::on_both!(
    sql_that_is_shown_works,
    sql_for_operators_works,
    who_follows_the_readme_ends_complete,
    requests_that_are_shown_work
);

const SQL: &str = include_str!("../../docs/sql.md");
const OPERATIONS: &str = include_str!("../../docs/operations.md");
const API: &str = include_str!("../../docs/api.md");
const README: &str = include_str!("../../README.md");

/// The fenced blocks of a page, by what stands after the fence, in order.
fn blocks(page: &str) -> HashMap<&str, Vec<String>> {
    let mut blocks: HashMap<&str, Vec<String>> = HashMap::new();
    let mut open: Option<(&str, String)> = None;
    for line in page.lines() {
        match (line.trim_start().strip_prefix("```"), open.take()) {
            (Some(_), Some((kind, text))) => blocks.entry(kind).or_default().push(text),
            (Some(kind), None) => open = Some((kind, String::new())),
            (None, Some((kind, text))) => open = Some((kind, text + line + "\n")),
            (None, None) => {}
        }
    }
    blocks
}

async fn sql_that_is_shown_works(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    let blocks = blocks(SQL);
    assert_eq!(blocks["sql"].len(), 3);
    blocks["sql"].iter().for_each(|sql| _ = database.sql(sql));
    assert_eq!(database.value("SELECT count(*) FROM gatefeed_items WHERE partition_id = 'scans-1'"), "2");
    match &database {
        Database::Postgres(_) => postgres(&database, &blocks),
        Database::Sqlite { .. } => sqlite(&database, &blocks),
    }
}

/// Every request is answered with a success, and what it is said to do is done.
async fn requests_that_are_shown_work(database: Database) {
    let address = format!("127.0.0.1:{}", free_port());
    let mut serve = Command::new(binary());
    serve.args(["serve", "--listen", &address]).env("GATEFEED_DATABASE_URL", database.url());
    let server = Gatefeed::start(serve);
    eventually("it serves", || std::net::TcpStream::connect(&address).is_ok()).await;
    let dir = tempfile::tempdir().unwrap();
    let photo = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0, 255];
    std::fs::write(dir.path().join("photo.png"), photo).unwrap();
    // What is no success is an error.
    std::fs::write(dir.path().join(".curlrc"), "fail-with-body\nsilent\nshow-error\n").unwrap();
    let typed = blocks(API)["sh curl"].concat().replace("127.0.0.1:8080", &address);
    let output = Command::new("bash")
        .args(["-e", "-o", "pipefail", "-c", &typed])
        .current_dir(dir.path())
        .env("CURL_HOME", dir.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let items = "SELECT count(*) FROM gatefeed_items WHERE partition_id = ";
    for (partition, expected) in [("album", "3"), ("numbers", "2"), ("steps", "2"), ("letters", "1")] {
        assert_eq!(database.value(&format!("{items}'{partition}'")), expected, "{partition}");
    }
    let whole = "SELECT count(*) FROM gatefeed_items WHERE partition_id = 'album' AND length(data) = 8";
    assert_eq!(database.value(whole), "2");
    assert_eq!(std::fs::read_to_string(dir.path().join("out.json")).unwrap(), "{\"text\": \"one two\"}");
    let status = "SELECT status FROM gatefeed_partitions WHERE id = 'letters'";
    assert_eq!(database.value(status), "cancelled");
    assert!(server.terminate().await.success());
}

/// Its push and its SQL, the handler that it starts, and a watcher.
async fn who_follows_the_readme_ends_complete(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    let readme = blocks(README);
    let typed: Vec<&str> = readme["sh"].iter().flat_map(|block| block.lines()).collect();
    assert!(typed.iter().any(|line| line.starts_with("python3 examples/handlers/python/handler.py ")));
    let pushes: Vec<&str> = typed.into_iter().filter(|line| line.contains("gatefeed push")).collect();
    assert_eq!((pushes.len(), readme["sql"].len()), (1, 1));
    queue::sh(&database, pushes[0]);
    assert_eq!(database.items("available"), 1);
    database.sql(&readme["sql"][0]);
    assert_eq!(database.items("available"), 1 + 3);
    queue::run(&database, &handlers::python().url(), 0).await;
    assert_eq!(database.items("complete"), 1 + 3);
    assert_eq!(database.sql("SELECT DISTINCT status FROM gatefeed_partitions"), ["complete"]);
    let data = |partition: &str, gate| {
        let ids =
            format!("SELECT id FROM gatefeed_items WHERE partition_id = '{partition}' AND gate = {gate}");
        queue::item(&database, partition, &database.value(&ids)).complete(gate)
    };
    assert_eq!(data("letters", 0), json!({"words": 3}));
    assert_eq!(data("batch-42", 1), json!({"total": 5}));
}

fn postgres(database: &Database, blocks: &HashMap<&str, Vec<String>>) {
    blocks["sql postgres"].iter().for_each(|sql| _ = database.sql(sql));
    let data = "SELECT convert_from(data, 'UTF8') FROM gatefeed_items WHERE partition_id = 'batch-43'";
    assert_eq!(database.sql(data), [r#"{"path": "C:\\scans"}"#; 2]);
    let trap =
        "INSERT INTO gatefeed_items (partition_id, data) VALUES ('batch-43', '{\"path\": \"C:\\scans\"}')";
    assert!(database.try_sql(trap).is_err(), "then the page need not warn of it");
}

fn sqlite(database: &Database, blocks: &HashMap<&str, Vec<String>>) {
    let url = database.url();
    let file = url.strip_prefix("sqlite://").unwrap();
    let program = format!("DATABASE_FILE = {file:?}\n{}", blocks["python sqlite3"][0]);
    let output = Command::new("python3").args(["-c", &program]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(database.value("SELECT count(*) FROM gatefeed_items WHERE partition_id = 'batch-44'"), "100");
}

async fn sql_for_operators_works(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    let blocks = blocks(OPERATIONS);
    let run = |kind: &str| blocks[kind].iter().for_each(|sql| _ = database.sql(sql));
    database.insert_partition("old");
    database.insert_items("old", "i", 0, 3);
    run("sql watching");
    match &database {
        Database::Postgres(_) => {
            grants(&database, &blocks["sql grants"][0]);
            run("sql vacuum");
            database.sql(
                "UPDATE gatefeed_partitions SET status = 'complete', updated_at = now() - interval '31 days'",
            );
            run("sql delete postgres");
        }
        Database::Sqlite { .. } => {
            let old = "updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now', '-31 days')";
            database.sql(&format!("UPDATE gatefeed_partitions SET status = 'complete', {old}"));
            run("sql delete sqlite");
        }
    }
    assert_eq!(database.value("SELECT count(*) FROM gatefeed_items"), "0");
}

/// A producer can insert and wake, and neither read nor insert what is finished.
fn grants(database: &Database, sql: &str) {
    assert!(gatefeed(database, &["migrate", "--schema", "gatefeed"]).status.success());
    database.sql("CREATE ROLE producer; CREATE ROLE watcher; CREATE ROLE operator; CREATE ROLE reader");
    database.sql(sql);
    let items = "gatefeed.gatefeed_items";
    database.sql(&format!(
        "SET ROLE producer; INSERT INTO gatefeed.gatefeed_partitions (id) VALUES ('p'); \
         INSERT INTO {items} (partition_id, data) VALUES ('p', '{{}}'); SELECT gatefeed.gatefeed_push('p', '1')"
    ));
    let woken = "SELECT count(*) FROM gatefeed.gatefeed_partitions WHERE next_run_at IS NOT NULL";
    assert_eq!(database.value(woken), "1");
    for refused in [
        format!("SELECT * FROM {items}"),
        format!("INSERT INTO {items} (partition_id, status) VALUES ('p', 'complete')"),
    ] {
        assert!(database.try_sql(&format!("SET ROLE producer; {refused}")).is_err(), "{refused}");
    }
}
