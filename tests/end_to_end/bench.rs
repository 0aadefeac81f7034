//! `gatefeed bench`: that it measures something, checks it, and leaves nothing behind. Never how fast.

use gatefeed_tests::{Database, gatefeed};
use serde_json::Value;

crate::on_both!(every_bench_measures_and_leaves_nothing_behind, what_is_there_is_left_alone);

fn bench(database: &Database, args: &[&str]) -> Value {
    let output = gatefeed(database, &[&["bench"], args, &["--duration", "1ms", "--json"]].concat());
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Schemas and files of benches.
fn remains(database: &Database) -> usize {
    match database {
        Database::Postgres(_) => {
            database.sql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'gatefeed_bench%'").len()
        }
        Database::Sqlite { dir } => {
            let names = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name.to_string_lossy().contains("bench")).count()
        }
    }
}

async fn every_bench_measures_and_leaves_nothing_behind(database: Database) {
    for kind in ["drain", "http"] {
        let load = ["--items", "500", "--partitions", "3", "--gates", "2", "--payload", "2KB"];
        let figures = bench(&database, &[&[kind], &load[..]].concat());
        assert_eq!((figures["bench"].as_str(), figures["items"].as_u64()), (Some(kind), Some(500)));
        for figure in ["per_second", "limit_per_second", "ratio"] {
            assert!(figures[figure].as_f64().unwrap() > 0.0, "{kind}: {figures}");
        }
        assert!(!figures["rounds"].as_array().unwrap().is_empty());
        assert_eq!(remains(&database), 0, "{kind}");
    }
    let figures =
        bench(&database, &["http", "--batch", "7", "--items", "500", "--partitions", "3", "--gates", "2"]);
    assert!(figures["ratio"].as_f64().unwrap() > 0.0, "{figures}");
    assert_eq!(remains(&database), 0);
    // More than an API serves at a time.
    let figures = bench(&database, &["http", "--concurrency", "530", "--items", "2000"]);
    assert!(figures["ratio"].as_f64().unwrap() > 0.0, "{figures}");
    let figures = bench(&database, &["ingest", "--connections", "8", "--partitions", "3"]);
    assert!(
        figures["ratio"].as_f64().unwrap() > 0.0 && figures["p99_ms"].as_f64().unwrap() > 0.0,
        "{figures}"
    );
    assert_eq!(remains(&database), 0, "ingest");
    let figures = bench(&database, &["latency"]);
    assert!(figures["samples"].as_u64().unwrap() >= 1 && figures["p99_ms"].as_f64().unwrap() > 0.0);
    let figures = bench(&database, &["idle", "--partitions", "50"]);
    assert!(figures["watcher_cpu_percent"].as_f64().unwrap() >= 0.0);
    assert_eq!(figures.get("database_cpu_percent").is_some(), matches!(database, Database::Postgres(_)));
    assert_eq!(remains(&database), 0);
}

async fn what_is_there_is_left_alone(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    database.insert_partition("mine");
    database.insert_items("mine", "i", 0, 5);
    bench(&database, &["drain", "--items", "100"]);
    assert_eq!(database.items("available"), 5);
    assert_eq!(database.value("SELECT count(*) FROM gatefeed_partitions"), "1");
    for wrong in
        [&["drain", "--items", "0"][..], &["http", "--payload", "-1"], &["idle", "--duration", "0s"], &[]]
    {
        let output = gatefeed(&database, &[&["bench"], wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}
