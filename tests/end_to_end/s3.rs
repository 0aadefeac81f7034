//! Blobs in a bucket, with processes that die.

use std::{collections::BTreeSet, fs, process::Command, time::Duration};

use gatefeed_testkit::{
    bucket::{Bucket, fetch},
    handler::{Handler, Recorded, Reply},
};
use gatefeed_tests::{Database, Gatefeed, binary, eventually, free_port, gatefeed};
use serde_json::{Value, json};

crate::on_both!(a_bucket_holds_what_is_large);

const ITEMS: usize = 40;

fn data(n: usize) -> String {
    "a".repeat(10_000 + n)
}

fn succeeds(database: &Database, args: &[&str]) -> String {
    let output = gatefeed(database, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn start(database: &Database, args: &[&str]) -> Gatefeed {
    let mut command = Command::new(binary());
    command.args(args).env("GATEFEED_DATABASE_URL", database.url()).env("NO_COLOR", "1");
    Gatefeed::start(command)
}

/// The paths that rows refer to.
fn references(database: &Database) -> BTreeSet<String> {
    let text = match database {
        Database::Sqlite { .. } => "CAST(data AS TEXT)",
        Database::Postgres(_) => "convert_from(data, 'UTF8')",
    };
    let of = "WHERE content_type LIKE 'application/vnd.gatefeed.blob;%'";
    database.sql(&format!("SELECT {text} FROM gatefeed_items {of}")).into_iter().collect()
}

/// At gate 0 it gets the bytes and answers with as many, at gate 1 a link.
async fn answer(request: Recorded) -> Reply {
    let n: usize = request.header_text("gatefeed-item").parse().unwrap();
    if request.header_text("gatefeed-gate") == "0" {
        assert_eq!(serde_json::from_slice::<String>(&request.body).unwrap(), data(n));
        let answer = json!({"gate": 1, "data": data(n).replace('a', "b")});
        return Reply::json(answer.to_string()).after(Duration::from_millis(20));
    }
    let fetched = fetch(&request.header_text("gatefeed-data-url")).await;
    assert_eq!(serde_json::from_slice::<String>(&fetched).unwrap(), data(n).replace('a', "b"));
    Reply::ok()
}

async fn a_bucket_holds_what_is_large(database: Database) {
    let Some(bucket) = Bucket::make().await else { return };
    succeeds(&database, &["migrate"]);
    let dir = tempfile::tempdir().unwrap();
    let url = bucket.url();
    let blobs = ["--blob-store", &url, "--inline-max", "1KiB"];
    let line = |n: usize| json!({"id": format!("{n:02}"), "data": data(n)}).to_string();
    let input = dir.path().join("items.jsonl");
    fs::write(&input, (0..ITEMS).map(line).collect::<Vec<_>>().join("\n")).unwrap();
    let push = ["push", "--partition", "p", "--envelope", input.to_str().unwrap()];
    let push = [&push[..], &blobs].concat();

    let pushing = start(&database, &push);
    let some = async {
        while bucket.paths().await.len() < 5 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), some).await.expect("blobs are put");
    pushing.kill();
    let there: BTreeSet<String> = bucket.paths().await.into_iter().collect();
    assert!(references(&database).is_subset(&there), "a row refers to what is not there");
    succeeds(&database, &push);

    let handler = Handler::start(answer).await;
    let target = handler.url();
    let config = dir.path().join("gatefeed.toml");
    fs::write(&config, format!("target = {target:?}\n[[gates]]\ngate = 1\nblob_links = true\n")).unwrap();
    let run =
        ["run", "--config", config.to_str().unwrap(), "--lease-duration", "2s", "--poll-interval", "100ms"];
    let run = [&run[..], &["--concurrency", "4"], &blobs].concat();
    let watcher = start(&database, &run);
    eventually("deliveries go on", || handler.requests().len() > 10).await;
    watcher.kill();
    let watcher = start(&database, &run);
    eventually("everything is complete", || database.items("complete") == ITEMS).await;
    assert!(watcher.terminate().await.success());

    let prune = [&["prune", "--blobs", "--older-than", "0s", "--json"][..], &blobs].concat();
    let pruned: Value = serde_json::from_str(&succeeds(&database, &prune)).unwrap();
    assert!(pruned["kept"] == ITEMS && pruned["blobs"].as_u64().unwrap() >= ITEMS as u64, "{pruned}");
    let left: BTreeSet<String> = bucket.paths().await.into_iter().collect();
    assert_eq!(left, references(&database));

    let listen = format!("127.0.0.1:{}", free_port());
    let server = start(&database, &[&["serve", "--listen", &listen][..], &blobs].concat());
    eventually("it serves", || std::net::TcpStream::connect(&listen).is_ok()).await;
    let got = fetch(&format!("http://{listen}/v1/partitions/p/items/07/data")).await;
    assert_eq!(serde_json::from_slice::<String>(&got).unwrap(), data(7).replace('a', "b"));
    assert!(server.terminate().await.success());
}
