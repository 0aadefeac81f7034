//! Blobs, with pushes and watchers that die: no row refers to what is not there, and what nothing refers to goes.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use gatefeed_testkit::handler::{Handler, Recorded, Reply};
use gatefeed_tests::{Database, Gatefeed, binary, eventually, gatefeed};
use serde_json::{Value, json};

crate::on_both!(
    a_crash_leaves_no_reference_without_its_blob,
    a_collection_that_dies_among_pushes_takes_nothing_that_is_needed,
    a_server_collects_too,
    handlers_fetch_what_they_get_a_link_to
);

const ITEMS: usize = 120;

/// As many characters as the data of item n has, and in its answer twice as many.
fn length(n: usize) -> usize {
    10_000 + n
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The flags of the blob store in this folder.
fn flags(folder: &Path) -> [String; 4] {
    let url = format!("file://{}", folder.display());
    ["--blob-store".to_owned(), url, "--inline-max".to_owned(), "1KiB".to_owned()]
}

fn with(args: &[&str], flags: &[String]) -> Vec<String> {
    args.iter().map(|arg| (*arg).to_owned()).chain(flags.iter().cloned()).collect()
}

fn run_command(database: &Database, args: &[String]) -> String {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let output = gatefeed(database, &args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn start(database: &Database, args: &[String]) -> Gatefeed {
    let mut command = Command::new(binary());
    command.args(args).env("GATEFEED_DATABASE_URL", database.url()).env("NO_COLOR", "1");
    Gatefeed::start(command)
}

/// A file of envelopes.
fn envelopes(folder: &Path) -> String {
    let line = |n: usize| json!({"id": format!("{n:03}"), "data": "a".repeat(length(n))}).to_string();
    let lines: Vec<String> = (0..ITEMS).map(line).collect();
    let path = folder.join("items.jsonl");
    fs::write(&path, lines.join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
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

/// Whatever is referred to is there.
fn assert_nothing_dangles(database: &Database, blobs: &Path) -> BTreeSet<String> {
    let references = references(database);
    for path in &references {
        assert!(blobs.join(path).is_file(), "{path} is not there");
    }
    references
}

async fn answer(request: Recorded) -> Reply {
    let data: String = serde_json::from_slice(&request.body).unwrap();
    let n: usize = request.header_text("gatefeed-item").parse().unwrap();
    match request.header_text("gatefeed-gate").as_str() {
        "0" => {
            assert_eq!(data, "a".repeat(length(n)));
            let answer = json!({"gate": 1, "data": "b".repeat(2 * length(n))});
            Reply::json(answer.to_string()).after(Duration::from_millis(20))
        }
        _ => {
            assert_eq!(data, "b".repeat(2 * length(n)));
            Reply::ok()
        }
    }
}

async fn a_crash_leaves_no_reference_without_its_blob(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("blobs");
    let (flags, input) = (flags(&blobs), envelopes(dir.path()));
    let push = with(&["push", "--partition", "p", "--envelope", "--chunk", "1000", &input], &flags);
    for round in 0..3 {
        let before = files(&blobs).len();
        let pushing = start(&database, &push);
        eventually("blobs are put", || files(&blobs).len() > before + 10 * round).await;
        pushing.kill();
        assert_nothing_dangles(&database, &blobs);
    }
    run_command(&database, &push);
    assert_eq!(assert_nothing_dangles(&database, &blobs).len(), ITEMS);

    let handler = Handler::start(answer).await;
    let quick = ["run", "--lease-duration", "2s", "--poll-interval", "100ms", "--concurrency", "10"];
    let run = with(&[&quick[..], &["--target", &handler.url()]].concat(), &flags);
    for round in 1..=2 {
        let watcher = start(&database, &run);
        eventually("deliveries go on", || handler.requests().len() > round * 40).await;
        watcher.kill();
        assert_nothing_dangles(&database, &blobs);
    }
    let watcher = start(&database, &run);
    eventually("everything is complete", || database.items("complete") == ITEMS).await;
    assert!(watcher.terminate().await.success());

    let references = assert_nothing_dangles(&database, &blobs);
    assert_eq!(references.len(), ITEMS);
    let prune = with(&["prune", "--blobs", "--older-than", "0s", "--json"], &flags);
    let pruned: Value = serde_json::from_str(&run_command(&database, &prune)).unwrap();
    // At the least what all items had before they were answered.
    assert!(pruned["kept"] == ITEMS && pruned["blobs"].as_u64().unwrap() >= ITEMS as u64, "{pruned}");
    let left = files(&blobs).into_iter().map(|file| file.strip_prefix(&blobs).unwrap().display().to_string());
    assert_eq!(left.collect::<BTreeSet<_>>(), references);
    let items = with(&["items", "p", "--id", "007", "--data", "--json"], &flags);
    let items: Value = serde_json::from_str(&run_command(&database, &items)).unwrap();
    assert_eq!(items[0]["data"], json!("b".repeat(2 * length(7))).to_string());
}

/// What nobody refers to any more goes without a watcher; what somebody does stays.
async fn a_server_collects_too(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("blobs");
    let (flags, input) = (flags(&blobs), envelopes(dir.path()));
    run_command(&database, &with(&["push", "--partition", "p", "--envelope", &input], &flags));
    database.sql("DELETE FROM gatefeed_items WHERE id > '009'");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--blob-grace", "1s"];
    let server = start(&database, &with(&serve, &flags));
    eventually("the garbage is gone", || files(&blobs).len() == 10).await;
    assert_eq!(assert_nothing_dangles(&database, &blobs).len(), 10);
    assert!(server.terminate().await.success());
}

/// As if it had lain there for longer than any push takes.
fn make_old(blobs: &Path) {
    let then = SystemTime::now() - Duration::from_secs(2 * 3600);
    for file in files(blobs) {
        fs::File::options().write(true).open(file).unwrap().set_modified(then).unwrap();
    }
}

/// Collections are killed at any moment while producers bring the same data again and again, some of which is given up.
async fn a_collection_that_dies_among_pushes_takes_nothing_that_is_needed(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    let dir = tempfile::tempdir().unwrap();
    let blobs = dir.path().join("blobs");
    let (flags, input) = (flags(&blobs), envelopes(dir.path()));
    let push = |partition: &str| with(&["push", "--partition", partition, "--envelope", &input], &flags);
    run_command(&database, &push("first"));
    database.sql("DELETE FROM gatefeed_items WHERE partition_id = 'first' AND id > '059'");
    make_old(&blobs);
    let prune = with(&["prune", "--blobs", "--older-than", "1h", "--json"], &flags);
    for round in 0..4 {
        let partition = format!("p{round}");
        let mut pushing = start(&database, &push(&partition));
        let (before, pruning) = (files(&blobs).len(), start(&database, &prune));
        eventually("blobs come or go", || files(&blobs).len() != before).await;
        pruning.kill();
        if round % 2 == 0 {
            pushing.kill();
        } else {
            assert!(pushing.ended().await.success());
        }
        assert_nothing_dangles(&database, &blobs);
    }
    make_old(&blobs);
    run_command(&database, &prune);
    let references = assert_nothing_dangles(&database, &blobs);
    let left = files(&blobs).into_iter().map(|file| file.strip_prefix(&blobs).unwrap().display().to_string());
    assert_eq!(left.collect::<BTreeSet<_>>(), references);
    // All of the first that was kept, and the pushes that ended.
    assert!(references.len() >= 60 + 2 * ITEMS, "{}", references.len());
}

/// Status and body of a GET.
fn get(url: &str) -> (u16, Vec<u8>) {
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer[end + 4..].to_vec())
}

async fn handlers_fetch_what_they_get_a_link_to(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    let dir = tempfile::tempdir().unwrap();
    let (flags, input) = (flags(&dir.path().join("blobs")), envelopes(dir.path()));
    // More than is read at a time.
    let film = "f".repeat(3_000_000);
    let more = format!("{}\n{}", json!({"id": "film", "data": film}), json!({"id": "small", "data": 1}));
    fs::write(&input, more).unwrap();
    run_command(&database, &with(&["push", "--partition", "p", "--envelope", &input], &flags));
    let fetched = Arc::new(Mutex::new(Vec::new()));
    let seen = fetched.clone();
    let handler = Handler::start(move |request: Recorded| {
        let seen = seen.clone();
        async move {
            let url = request.header_text("gatefeed-data-url");
            if request.header_text("gatefeed-item") == "film" {
                assert!(request.body.is_empty() && request.header_text("content-type") == "application/json");
                let from = url.clone();
                let body = tokio::task::spawn_blocking(move || get(&from)).await.unwrap();
                seen.lock().unwrap().push((url, body));
            } else {
                assert!(request.body == b"1" && url.is_empty());
            }
            Reply::ok()
        }
    })
    .await;
    let url = handler.url();
    let run = ["run", "--until-idle", "--blob-links", "--target", &url];
    let nowhere = gatefeed(&database, &with(&run, &flags).iter().map(String::as_str).collect::<Vec<_>>());
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("needs --listen"));
    run_command(&database, &with(&[&run[..], &["--listen", "127.0.0.1:0"]].concat(), &flags));
    let fetched = fetched.lock().unwrap().clone();
    let [(link, (200, body))] = &fetched[..] else { panic!("{fetched:?}") };
    assert_eq!(serde_json::from_slice::<String>(body).unwrap(), film);

    let serving = [&["--listen", "127.0.0.1:0"], &flags.each_ref().map(String::as_str)[..]].concat();
    let watcher = Gatefeed::run(&database, &url, &serving);
    let mut base = String::new();
    eventually("it listens", || {
        base = watcher
            .log()
            .split("listening on ")
            .nth(1)
            .and_then(|rest| rest.lines().next())
            .unwrap_or("")
            .to_owned();
        !base.is_empty()
    })
    .await;
    // As of another process: the link is this database's.
    let path = link.splitn(4, '/').nth(3).unwrap();
    assert_eq!(get(&format!("{base}/{path}")).0, 200);
    assert_eq!(get(&format!("{base}/{}", path.replace("signature=", "signature=00"))).0, 403);
    assert_eq!(get(&format!("{base}/v1/blobs/a/b/c?expires=1&signature=00")).0, 403);
    assert_eq!(get(&format!("{base}/v1/blobs/a/b/c")).0, 400);
    assert!(watcher.terminate().await.success());
}
