//! docs/json.md and docs/errors.md say what the binary does.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    net::TcpListener,
    os::unix::ffi::OsStrExt,
};

use gatefeed_core::{
    circuit::{Circuit, CircuitState},
    partition::{FailurePolicy, NewPartition},
    watcher::{FeedReport, Report},
};
use gatefeed_store::Options;
use serde_json::Value;

use crate::place::{Done, Place, Running, handler, json};

fn page(name: &str) -> String {
    fs::read_to_string(format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The first cell of each row of the tables, without its code marks.
fn first_cells(text: &str) -> Vec<String> {
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| row[2..].split(" | ").next().unwrap().trim().to_owned()).collect()
}

/// What stands between the marks of code.
fn code(cell: &str) -> &str {
    let between = |mark: &str, end: &str| cell.strip_prefix(mark)?.strip_suffix(end);
    between("`` ", " ``").or_else(|| between("`", "`")).unwrap_or_else(|| panic!("{cell:?} is no code"))
}

/// The fields in the section of a command.
fn documented(command: &str) -> BTreeSet<String> {
    let page = page("json.md");
    let heading = format!("\n## `gatefeed {command} --json`\n");
    let section = page.split_once(&heading).unwrap_or_else(|| panic!("no section for {command}")).1;
    let section = section.split("\n## ").next().unwrap();
    first_cells(section).iter().map(|cell| code(cell).to_owned()).collect()
}

/// The fields of a value: `items.available`, `watchers[].id`.
fn fields(value: &Value, path: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            let below = |name: &String| if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            object.iter().for_each(|(name, value)| fields(value, &below(name), found));
        }
        Value::Array(array) => array.iter().for_each(|value| fields(value, &format!("{path}[]"), found)),
        _ => drop(found.insert(path.to_owned())),
    }
}

/// Asserts that these outputs have, together, the fields that are documented.
fn keeps_its_word(command: &str, outputs: &[String]) {
    let mut printed = BTreeSet::new();
    for output in outputs {
        match json(output) {
            Value::Array(rows) => rows.iter().for_each(|row| fields(row, "", &mut printed)),
            object => fields(&object, "", &mut printed),
        }
    }
    assert_eq!(printed, documented(command), "`gatefeed {command} --json` and docs/json.md differ");
}

#[test]
fn json_has_the_documented_fields() {
    let place = Place::migrated();
    place.push(NewPartition::new("p"), &[("text", 0, b"{}"), ("bytes", 0, b"\xff")]);
    // Not to be read without the blob store.
    let blobs = format!("file://{}", place.path().join("blobs").display());
    fs::write(place.path().join("large.txt"), "large").unwrap();
    let push =
        ["push", "--partition", "p", "--files", "large.txt", "--blob-store", &blobs, "--inline-max", "1"];
    place.succeeds(&push);
    let held = NewPartition { manual_checkpoint: true, ..NewPartition::new("held") };
    place.push(held, &[("late", 1, b"{}")]);
    let kept = NewPartition { keep_history: true, ..NewPartition::new("kept") };
    place.push(kept, &[("a", 0, b"{}")]);
    let circuit = Circuit {
        target: "http://127.0.0.1:9/".into(),
        gate: None,
        state: CircuitState::Open,
        for_secs: 1.0,
        next_try_secs: 1.0,
        targets_left: 0,
    };
    let feed = FeedReport {
        feed: "default".into(),
        partitions: 1,
        in_flight: 1,
        outcomes: 1,
        outcomes_per_second: 0.5,
        circuits: vec![circuit],
    };
    let report = Report { watcher: "w".into(), version: "1", concurrency: 1, feeds: vec![feed] };
    let url = format!("sqlite://{}", place.path().join("gatefeed.db").display());
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = gatefeed_store::connect(&url, &Options::default()).await.unwrap();
        store.report(&report).await.unwrap();
    });
    for (command, args) in [
        ("status", &[][..]),
        ("partitions", &[]),
        ("items", &["p", "--data"]),
        ("advance", &["held"]),
        ("seal", &["held"]),
        ("retry", &["p"]),
        ("pause", &["p"]),
        ("resume", &["p"]),
        ("rewind", &["kept", "--gate", "0"]),
        ("cancel", &["p"]),
        ("prune", &["--blobs", "--blob-store", &format!("file://{}", place.path().join("blobs").display())]),
    ] {
        let args = [&[command], args, &["--json"]].concat();
        keeps_its_word(command, &[place.succeeds(&args)]);
    }
    let made = place.succeeds(&["token", "create", "--role", "push", "--json"]);
    keeps_its_word("token create", std::slice::from_ref(&made));
    keeps_its_word("token list", &[place.succeeds(&["token", "list", "--json"])]);
    let id = json(&made)["id"].as_str().unwrap().to_owned();
    keeps_its_word("token revoke", &[place.succeeds(&["token", "revoke", &id, "--json"])]);
    let partition = place.succeeds(&["why", "kept", "--json"]);
    place.succeeds(&["pause", "kept"]);
    keeps_its_word("why", &[partition, place.succeeds(&["why", "kept", "a", "--json"])]);
}

#[test]
fn push_prints_the_documented_fields() {
    let place = Place::migrated();
    fs::write(place.path().join("rows"), "{}\n").unwrap();
    let url = handler("200 OK");
    let _watcher = Running::start(place.command(&["run", "--log-level", "off", "--target", &url]));
    let push = place.succeeds(&["push", "--partition", "q", "--wait", "--json", "rows"]);
    keeps_its_word("push", &[push]);
}

#[test]
fn bench_prints_the_documented_fields() {
    let place = Place::new();
    let small = ["--items", "20", "--partitions", "2", "--duration", "1ms", "--json"];
    for bench in ["drain", "http"] {
        let printed = place.succeeds(&[&["bench", bench], &small[..]].concat());
        keeps_its_word("bench drain", &[printed]);
    }
    let ingest = ["bench", "ingest", "--connections", "4", "--duration", "1ms", "--json"];
    keeps_its_word("bench ingest", &[place.succeeds(&ingest)]);
    keeps_its_word("bench latency", &[place.succeeds(&["bench", "latency", "--duration", "1ms", "--json"])]);
    let idle = place.succeeds(&["bench", "idle", "--partitions", "5", "--duration", "10ms", "--json"]);
    // SQLite has no server to measure.
    keeps_its_word("bench idle", &[idle, r#"{"database_cpu_percent": 0.5}"#.to_owned()]);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "something was left behind");
}

/// What people see in many situations.
struct Seen {
    place: Place,
    texts: Vec<String>,
}

impl Seen {
    fn new(place: Place) -> Self {
        Self { place, texts: Vec::new() }
    }

    fn add(&mut self, done: Done) {
        // clap breaks lines where a message here does not.
        let text = format!("{}{}", done.out, done.err);
        self.texts.push(text.split_whitespace().collect::<Vec<_>>().join(" "));
    }

    fn run(&mut self, args: &[&str]) {
        let done = self.place.run(args);
        self.add(done);
    }

    fn run_with(&mut self, args: &[&str], variable: &str, value: &str) {
        let done = self.place.command(args).env(variable, value).output().unwrap();
        self.add(done.into());
    }

    fn status_of(&mut self, url: &str) {
        self.run(&["status", "--database-url", url]);
    }

    /// Whether anything had this text, where … stands for anything.
    fn has(&self, pattern: &str) -> bool {
        let parts: Vec<_> = pattern.split('…').map(str::trim).collect();
        self.texts.iter().any(|text| {
            let mut rest = text.as_str();
            parts.iter().all(|part| match rest.split_once(part) {
                Some((_, after)) => {
                    rest = after;
                    true
                }
                None => false,
            })
        })
    }
}

fn opening(seen: &mut Seen) {
    let dir = seen.place.path().to_owned();
    seen.run(&["status"]);
    File::create(dir.join("gatefeed.db")).unwrap();
    seen.run(&["status"]);
    fs::write(dir.join("text"), "a page of text that is surely not a database of any kind").unwrap();
    for url in [
        "mysql://h/d",
        "postgres://h:port/d",
        "postgres://127.0.0.1:9/d",
        "sqlite://.",
        "sqlite://:memory:",
        "sqlite://text",
    ] {
        seen.status_of(url);
    }
    seen.run(&["migrate", "--database-url", "sqlite://no/where.db"]);
    seen.run(&["migrate", "--schema", "s"]);
    seen.run(&["migrate"]);
    seen.place.sql("INSERT INTO gatefeed_migrations (version, name) VALUES (99, 'x')");
    seen.run(&["status"]);
    seen.place.sql("DELETE FROM gatefeed_migrations WHERE version = 99");
    seen.place.sql("UPDATE gatefeed_migrations SET version = -version");
    seen.run(&["status"]);
    for file in ["gatefeed.db", "gatefeed.db-wal", "gatefeed.db-shm"] {
        fs::remove_file(dir.join(file)).ok();
    }
    seen.run(&["migrate"]);
}

fn naming(seen: &mut Seen) {
    seen.place.push(NewPartition::new("p"), &[("a", 0, b"{}")]);
    seen.run(&["items", "nobody"]);
    seen.run(&["retry", "p", "--item", "nobody"]);
    seen.run(&["stats"]);
    seen.run_with(&["partitions"], "GATEFEED_LIMIT", "many");
    seen.run(&["status", "--watch", "5s"]);
    seen.run(&["items", "-dash"]);
    let mut command = seen.place.command(&["items"]);
    seen.add(command.arg(OsStr::from_bytes(b"a\xff")).output().unwrap().into());
    let mut command = seen.place.command(&["status"]);
    let done = command.env("DATABASE_URL", OsStr::from_bytes(b"\xff")).output().unwrap();
    seen.add(done.into());
}

fn acting(seen: &mut Seen) {
    let held = |id| NewPartition { manual_checkpoint: true, ..NewPartition::new(id) };
    seen.place.push(held("held"), &[("a", 0, b"{}"), ("b", 1, b"{}")]);
    seen.run(&["advance", "held"]);
    seen.place.sql("UPDATE gatefeed_items SET status = 'failed' WHERE partition_id = 'held' AND id = 'a'");
    seen.run(&["advance", "held"]);
    seen.place.push(held("empty"), &[]);
    seen.run(&["advance", "empty"]);
    seen.place.push(
        NewPartition { failure_policy: FailurePolicy::UpTo(0), ..held("counted") },
        &[("a", 0, b"{}"), ("b", 1, b"{}")],
    );
    seen.place.sql("UPDATE gatefeed_items SET status = 'failed' WHERE partition_id = 'counted' AND id = 'a'");
    seen.run(&["advance", "counted"]);
    seen.run(&["resume", "empty"]);
    seen.run(&["rewind", "empty", "--gate", "0"]);
    seen.place.push(NewPartition { keep_history: true, ..NewPartition::new("kept") }, &[]);
    seen.run(&["rewind", "kept", "--gate", "3"]);
    seen.place.sql("UPDATE gatefeed_partitions SET status = 'failed' WHERE id = 'empty'");
    seen.run(&["resume", "empty"]);
    seen.run(&["pause", "empty"]);
    seen.place.sql("UPDATE gatefeed_partitions SET status = 'complete' WHERE id = 'empty'");
    seen.run(&["cancel", "empty"]);
    seen.run(&["status"]);
}

fn running(seen: &mut Seen) {
    seen.run(&["run"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    seen.run(&["run", "--target", "http://127.0.0.1:9/", "--listen", &address]);
    let mut command = seen.place.command(&["status"]);
    let done = command.stdout(File::options().write(true).open("/dev/full").unwrap()).output().unwrap();
    seen.add(done.into());
}

/// Pushes envelopes, a line each.
fn push(seen: &mut Seen, partition: &str, envelopes: &[&str]) {
    let file = seen.place.path().join("envelopes");
    fs::write(&file, envelopes.join("\n")).unwrap();
    let place = ["push", "--partition", partition, "--feed", partition, "--envelope"];
    seen.run(&[&place[..], &[file.to_str().unwrap()]].concat());
}

fn pushing(seen: &mut Seen) {
    let one = r#"{"id": "a", "depends_on": ["b"], "data": 1}"#;
    push(seen, "refused", &[one]);
    assert!(seen.has("nothing was written"), "{:?}", seen.texts.last());
    push(seen, "refused", &[one, r#"{"id": "b", "depends_on": ["a"], "data": 1}"#]);
    push(seen, "refused", &[one, r#"{"id": "b", "gate": 1, "data": 1}"#]);
}

/// What becomes of items that wait for others and of one that gathers.
fn waiting(seen: &mut Seen) {
    for (partition, answer, last) in [
        ("dependency-fails", "500 Internal Server Error", r#"{"id": "b", "depends_on": ["a"], "data": 1}"#),
        (
            "dependency-passes",
            "200 OK\r\n\r\n{\"gate\": 2}",
            r#"{"id": "b", "depends_on": ["a"], "data": 1}"#,
        ),
        ("gathers", "200 OK", r#"{"id": "b", "gate": 1, "gather": {"gate": 0}, "data": 1}"#),
    ] {
        push(seen, partition, &[r#"{"id": "a", "data": 1}"#, last]);
        let target = handler(answer);
        let run = ["run", "--until-idle", "--max-retries", "0", "--gather-max", "1", "--feed", partition];
        seen.run(&[&run[..], &["--target", &target]].concat());
        seen.run(&["items", partition, "--json"]);
    }
}

/// Runs a fresh partition against a handler and shows how its item failed.
fn failing(seen: &mut Seen, target: &str, flags: &[&str]) {
    let id = format!("failing-{}", seen.texts.len());
    seen.place.push(NewPartition { feed: id.clone(), ..NewPartition::new(&id) }, &[("a", 0, b"12345")]);
    let run = ["run", "--until-idle", "--max-retries", "0", "--feed", &id, "--target", target];
    seen.run(&[&run[..], flags].concat());
    seen.run(&["items", &id]);
}

#[test]
fn the_errors_of_the_page_are_those_that_people_see() {
    let mut seen = Seen::new(Place::new());
    opening(&mut seen);
    naming(&mut seen);
    acting(&mut seen);
    pushing(&mut seen);
    running(&mut seen);
    waiting(&mut seen);
    for answer in [
        "500 Internal Server Error",
        "302 Found\r\nLocation: http://h/x",
        "200 OK\r\nGatefeed-Async: true",
        "200 OK\r\n\r\nhello",
        "200 OK\r\n\r\n{\"x\": 1}",
    ] {
        failing(&mut seen, &handler(answer), &[]);
    }
    let long = handler("200 OK\r\n\r\n{\"data\": \"something longer\"}");
    failing(&mut seen, &long, &["--max-answer", "10"]);
    failing(&mut seen, &long, &["--max-payload", "4"]);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    failing(&mut seen, &url, &["--request-timeout", "200ms"]);

    seen.run(&["status", "--blob-store", "ftp://h/"]);
    fs::write(seen.place.path().join("gatefeed.toml"), "target = \"http://h/\"\nblob_links = true").unwrap();
    seen.run(&["config", "check", "gatefeed.toml"]);
    let text = "concurency = 5\nretry_base = \"5s\"\nretry_cap = \"1s\"";
    fs::write(seen.place.path().join("gatefeed.toml"), text).unwrap();
    seen.run(&["config", "check", "gatefeed.toml"]);
    for variable in ["NO_SUCH_SECRET", "PATH"] {
        let text = format!("target = \"http://h/\"\nsigning_secret_env = \"{variable}\"");
        fs::write(seen.place.path().join("gatefeed.toml"), text).unwrap();
        seen.run(&["config", "check", "gatefeed.toml"]);
    }

    let page = page("errors.md");
    let cells = first_cells(&page);
    let expected: Vec<_> = cells.iter().filter(|cell| !cell.ends_with('†')).collect();
    assert!(expected.len() > 25, "the page's tables were not found");
    for cell in expected {
        let message = code(cell);
        assert!(seen.has(message), "nobody saw {message:?}: {:#?}", seen.texts);
    }
}
