//! The binary as people meet it: a process with arguments, an environment, two streams and an exit code.
#![allow(clippy::unwrap_used, reason = "a test states what it expects by unwrapping")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use gatefeed_core::{
    item::{Data, NewItem},
    partition::NewPartition,
};
use gatefeed_store::Options;
use serde_json::Value;
use tempfile::TempDir;

/// Nothing that a test waits for takes this long, even on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A folder of its own in which gatefeed runs, without the environment's settings.
struct Place {
    dir: TempDir,
}

/// What a finished process left.
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    /// A place whose database has the tables.
    fn migrated() -> Self {
        let place = Self::new();
        place.succeeds(&["migrate"]);
        place
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gatefeed"));
        command.args(args).current_dir(self.path()).stdin(Stdio::null());
        let settings = std::env::vars_os().map(|(name, _)| name);
        for name in settings.filter(|name| name.to_string_lossy().contains("GATEFEED_")) {
            command.env_remove(name);
        }
        command.env_remove("DATABASE_URL");
        command
    }

    fn run(&self, args: &[&str]) -> Done {
        Done::from(self.command(args).output().unwrap())
    }

    fn succeeds(&self, args: &[&str]) -> String {
        let done = self.run(args);
        assert_eq!(done.code, Some(0), "{args:?}: {}{}", done.out, done.err);
        done.out
    }

    /// Asserts the exit code and that stderr has each text, and no panic.
    fn fails(&self, args: &[&str], code: i32, texts: &[&str]) {
        let done = self.run(args);
        assert_eq!(done.code, Some(code), "{args:?}: {}{}", done.out, done.err);
        for text in texts {
            assert!(done.err.contains(text), "{args:?}: {:?} is not in {:?}", text, done.err);
        }
        assert!(!done.err.contains("panicked"), "{}", done.err);
    }

    /// Adds items, and the partition if it is missing.
    fn push(&self, partition: NewPartition, items: &[(&str, i32, &[u8])]) {
        let url = format!("sqlite://{}", self.path().join("gatefeed.db").display());
        let item = |(id, gate, data): &(&str, i32, &[u8])| NewItem {
            partition: partition.id.clone(),
            id: (*id).to_owned(),
            gate: *gate,
            priority: 0,
            data: Data::json(data.to_vec()),
        };
        let items: Vec<_> = items.iter().map(item).collect();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let store = gatefeed_store::connect(&url, &Options::default()).await.unwrap();
            store.push(&partition, &items).await.unwrap();
        });
    }

    /// `number` items in the partition `p`.
    fn fill(&self, number: usize) {
        let ids: Vec<_> = (0..number).map(|n| format!("item-{n:05}")).collect();
        let items: Vec<_> = ids.iter().map(|id| (id.as_str(), 0, &b"{}"[..])).collect();
        self.push(NewPartition::new("p"), &items);
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// A process that is killed when a test ends early.
struct Running(Child);

impl Running {
    fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Reads stderr until a line has this text, and returns the line.
    fn wait_for_log(&mut self, text: &str) -> String {
        let stderr = self.0.stderr.take().unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        // Goes on reading afterwards, so that the process never meets a full or closed pipe.
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|line| drop(sender.send(line)));
        });
        let started = Instant::now();
        loop {
            let left = DEADLINE.saturating_sub(started.elapsed());
            let line = lines.recv_timeout(left).unwrap_or_else(|_| panic!("no log line with {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    fn wait(&mut self) -> Option<i32> {
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the process does not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A handler that answers every request with this status line and no body.
fn handler(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || answer(stream.unwrap(), status));
        }
    });
    url
}

fn answer(mut stream: TcpStream, status: &str) {
    let mut seen = Vec::new();
    let mut part = [0; 4096];
    while !seen.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut part) {
            Ok(0) | Err(_) => return,
            Ok(length) => seen.extend_from_slice(&part[..length]),
        }
    }
    let _ = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

/// A plain GET; the status and the body.
fn get(address: &str, path: &str, method: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

const COMMANDS: [&str; 9] =
    ["demo", "migrate", "run", "status", "partitions", "items", "retry", "seal", "advance"];

#[test]
fn help_tells_what_each_command_and_flag_is_for() {
    let place = Place::new();
    let help = place.succeeds(&["--help"]);
    assert!(help.contains("Exit codes:") && help.contains("--database-url"), "{help}");
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in {help}");
        let own = place.succeeds(&[command, "--help"]);
        assert!(own.contains("Example") && own.contains("Usage:"), "{own}");
        let flags = own.lines().filter(|line| line.starts_with("      --")).count();
        let variables = own.matches("[env: GATEFEED_").count();
        assert_eq!(flags, variables, "a flag of {command} has no variable: {own}");
    }
    assert!(place.succeeds(&["--version"]).starts_with("gatefeed "));
    assert_eq!(place.run(&[]).code, Some(2));
}

#[test]
fn help_never_shows_the_password_of_the_environment() {
    let place = Place::new();
    let mut command = place.command(&["status", "--help"]);
    command.env("GATEFEED_DATABASE_URL", "postgres://u:hunter2@h/d");
    command.env("GATEFEED_NOTIFY_URL", "postgres://u:hunter2@h/d");
    assert!(!Done::from(command.output().unwrap()).out.contains("hunter2"));
}

#[test]
fn bad_values_say_what_was_expected() {
    let place = Place::new();
    let run = |flag: &'static str| ["run", "--target", "http://127.0.0.1:9/", flag];
    for (flag, expected) in [
        ("--request-timeout=0s", "more than zero"),
        ("--connect-timeout=0ms", "more than zero"),
        ("--request-timeout=soon", "200ms"),
        ("--lease-duration=500ms", "between 1s and 24h"),
        ("--poll-interval=1ms", "at least 10ms"),
        ("--concurrency=0", "from 1 to"),
        ("--max-retries=-2", "-1 for ever"),
        ("--max-payload=1.5MB", "16MiB"),
        ("--max-answer=0", "at least one byte"),
        ("--target-health=healthz", "/healthz"),
        ("--listen=8080", "127.0.0.1:8080"),
        ("--name=", "1 to 512 bytes"),
        ("--log-level=loud", "info"),
        ("--log-format=xml", "json"),
        ("--sqlite-synchronous=off", "normal"),
    ] {
        place.fails(&run(flag), 2, &[flag.split('=').next().unwrap(), expected]);
    }
    place.fails(&["run", "--target", "localhost:8000"], 2, &["--target", "http"]);
    place.fails(&["run", "--target", "not a url"], 2, &["--target", "http://127.0.0.1:8000/path"]);
    place.fails(&["run"], 2, &["--target"]);
    place.fails(&["frobnicate"], 2, &["frobnicate"]);
    place.fails(&["status", "--frobnicate"], 2, &["--frobnicate"]);
    place.fails(&["partitions", "--limit", "0"], 2, &["from 1 to 9999"]);
    place.fails(&["partitions", "--status", "waiting"], 2, &["paused"]);
    place.fails(&["items", "p", "--status", "paused"], 2, &["blocked"]);
    place.fails(&["items", "p", "--gate", "-1"], 2, &["from 0 to"]);
    place.fails(&["items"], 2, &["PARTITION"]);
    place.fails(&["demo", "--top", "0"], 2, &["from 1 to 1000"]);
    place.fails(&["demo", "--query", "!!"], 1, &["no word to look for"]);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn databases_that_will_not_do() {
    let place = Place::new();
    let url = |url: &'static str| ["status", "--database-url", url];
    place.fails(&url("mysql://root@localhost/x"), 2, &["sqlite://", "postgres://"]);
    place.fails(&url("gatefeed.db"), 2, &["sqlite://", "postgres://"]);
    place.fails(&["migrate", "--schema", "s"], 2, &["--schema is for Postgres"]);
    let unreachable = ["migrate", "--database-url", "postgres://u:hunter2@127.0.0.1:9/d"];
    place.fails(&unreachable, 1, &["127.0.0.1:9"]);
    assert!(!place.run(&unreachable).err.contains("hunter2"));
}

#[test]
fn looking_at_nothing_says_what_to_do_and_makes_no_file() {
    let place = Place::new();
    let commands: [&[&str]; 7] = [
        &["status"],
        &["partitions"],
        &["items", "p"],
        &["retry", "p"],
        &["seal", "p"],
        &["advance", "p"],
        &["run", "--no-migrate", "--target", "http://127.0.0.1:9/"],
    ];
    for command in commands {
        place.fails(command, 1, &["gatefeed.db does not exist", "gatefeed migrate"]);
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "a file was made");
    fs::write(place.path().join("gatefeed.db"), "").unwrap();
    for command in commands {
        place.fails(command, 1, &["no gatefeed tables", "gatefeed migrate"]);
    }
}

#[test]
fn the_database_comes_from_the_flag_then_ours_then_the_common_variable() {
    let place = Place::new();
    let migrated = |args: &[&str], variables: &[(&str, &str)], file: &str| {
        let mut command = place.command(args);
        command.envs(variables.iter().copied());
        assert_eq!(Done::from(command.output().unwrap()).code, Some(0));
        assert!(place.path().join(file).exists(), "{file} was not made");
    };
    let common = ("DATABASE_URL", "sqlite://common.db");
    let ours = ("GATEFEED_DATABASE_URL", "sqlite://ours.db");
    migrated(&["migrate"], &[common], "common.db");
    migrated(&["migrate"], &[common, ours], "ours.db");
    migrated(&["migrate"], &[("GATEFEED_DATABASE_URL", ""), ("DATABASE_URL", "")], "gatefeed.db");
    migrated(&["--database-url", "sqlite://flag.db", "migrate"], &[common, ours], "flag.db");
}

#[test]
fn migrating_twice_is_once() {
    let place = Place::new();
    assert!(place.succeeds(&["migrate"]).starts_with("made gatefeed's tables"));
    assert!(place.succeeds(&["migrate"]).contains("already"));
}

#[test]
fn empty_lists() {
    let place = Place::migrated();
    for command in ["status", "partitions"] {
        assert_eq!(json(&place.succeeds(&[command, "--json"])), json("[]"));
        assert!(place.succeeds(&[command]).contains("gatefeed_partitions"));
    }
    place.push(NewPartition::new("p"), &[]);
    assert_eq!(json(&place.succeeds(&["items", "p", "--json"])), json("[]"));
    assert!(place.succeeds(&["items", "p"]).contains("gatefeed_items"));
    assert!(place.succeeds(&["items", "p", "--gate", "3"]).contains("No item fits"));
    assert!(place.succeeds(&["partitions", "--feed", "x"]).contains("No partition fits"));
    place.fails(&["items", "q"], 1, &["q"]);
}

#[test]
fn lists_show_what_is_there_and_go_on_page_by_page() {
    let place = Place::migrated();
    place.fill(5);
    let status = json(&place.succeeds(&["status", "--json"]));
    assert_eq!((&status[0]["feed"], &status[0]["items"]["available"]), (&json("\"default\""), &json("5")));
    let partitions = json(&place.succeeds(&["partitions", "--json", "--status", "available"]));
    assert_eq!((&partitions[0]["id"], &partitions[0]["gate"]), (&json("\"p\""), &json("0")));
    assert!(place.succeeds(&["partitions"]).starts_with("ID "));

    let page = place.run(&["items", "p", "--limit", "2", "--json"]);
    assert_eq!(json(&page.out).as_array().unwrap().len(), 2);
    assert!(page.err.contains("--after item-00001"), "{}", page.err);
    let rest = place.run(&["items", "--partition", "p", "--after", "item-00001", "--limit", "3", "--json"]);
    assert_eq!((json(&rest.out).as_array().unwrap().len(), rest.err.as_str()), (3, ""));
    assert!(place.succeeds(&["items", "p", "--after", "item-00004"]).contains("No items after"));
}

#[test]
fn data_is_text_or_base64_and_harms_no_terminal() {
    let place = Place::migrated();
    let data: [&[u8]; 3] = [b"{\"n\": 12345678901234567890.10}", b"\xff\x00", b"\x1b[31m"];
    place.push(NewPartition::new("p"), &[("1", 0, data[0]), ("2", 0, data[1]), ("3", 0, data[2])]);
    let items = json(&place.succeeds(&["items", "p", "--data", "--json"]));
    assert_eq!(items[0]["data"], "{\"n\": 12345678901234567890.10}");
    assert_eq!((&items[1]["data_base64"], &items[1]["data"]), (&json("\"/wA=\""), &Value::Null));
    assert_eq!(items[2]["data"], "\u{1b}[31m");
    let shown = place.succeeds(&["items", "p", "--data"]);
    assert!(shown.contains("12345678901234567890.10") && !shown.contains('\u{1b}'), "{shown:?}");
    let without = json(&place.succeeds(&["items", "p", "--json"]));
    assert!(without[0].get("data").is_none(), "{without}");
}

#[test]
fn acting_tells_what_happened() {
    let place = Place::migrated();
    for command in ["retry", "seal", "advance"] {
        place.fails(&[command, "nobody"], 1, &["nobody"]);
    }
    let held = NewPartition { manual_checkpoint: true, ..NewPartition::new("held") };
    place.push(held, &[("late", 7, b"{}")]);
    assert_eq!(
        json(&place.succeeds(&["advance", "held", "--json"])),
        json(r#"{"partition":"held","gate":7}"#)
    );
    place.fails(&["advance", "held"], 1, &["held"]);
    assert!(place.succeeds(&["partitions"]).contains("(held)"));
    assert!(place.succeeds(&["seal", "held"]).contains("held is sealed"));
    assert!(!place.succeeds(&["partitions"]).contains("(held)"));
    let sealed = place.succeeds(&["seal", "held", "--json"]);
    assert_eq!(json(&sealed), json(r#"{"partition": "held", "sealed": true}"#));
}

#[test]
fn retrying_failed_items() {
    let place = Place::migrated();
    place.fill(2);
    assert!(place.succeeds(&["retry", "p"]).contains("Nothing to retry in p"));
    place.fails(&["retry", "p", "--item", "nothing"], 1, &["nothing"]);
    let url = handler("500 Internal Server Error");
    place.fails(&["run", "--until-idle", "--max-retries", "0", "--target", &url], 3, &["failed"]);
    assert!(place.succeeds(&["retry", "p", "--gate", "1"]).contains("Nothing to retry"));
    let retried = json(&place.succeeds(&["retry", "p", "--item", "item-00000", "--json"]));
    assert_eq!(retried, json(r#"{"partition": "p", "retried": 1}"#));
    assert!(place.succeeds(&["retry", "p"]).contains("1 failed item of p is available again"));
    let items = json(&place.succeeds(&["items", "p", "--status", "available", "--json"]));
    assert_eq!((items.as_array().unwrap().len(), &items[0]["pass"]), (2, &json("1")));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::migrated();
    place.fill(5000);
    for extra in ["--json", "--data"] {
        let mut command = place.command(&["items", "p", "--limit", "5000", extra]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // More comes than a pipe holds, so that the writer meets the closed end.
        let mut first = [0; 1];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let done = Done::from(child.wait_with_output().unwrap());
        assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
    }
}

#[test]
fn run_until_idle_ends_with_0_or_3() {
    let place = Place::new();
    place.succeeds(&["run", "--until-idle", "--target", "http://127.0.0.1:9/"]);
    place.fill(3);
    let url = handler("200 OK");
    place.succeeds(&["run", "--until-idle", "--target", &url]);
    let items = json(&place.succeeds(&["items", "p", "--json"]));
    assert!(items.as_array().unwrap().iter().all(|item| item["status"] == "complete"), "{items}");

    place.push(NewPartition::new("p"), &[("poison", 0, b"")]);
    let url = handler("500 Internal Server Error");
    place.fails(&["run", "--until-idle", "--max-retries", "0", "--target", &url], 3, &["failed"]);
    let items = json(&place.succeeds(&["items", "p", "--status", "failed", "--json"]));
    assert!(items[0]["error_messages"].as_str().unwrap().contains("500"), "{items}");
    assert!(place.succeeds(&["items", "p"]).contains("500"));
}

#[test]
fn a_log_that_nobody_reads_costs_no_item() {
    let place = Place::migrated();
    place.fill(20);
    let url = handler("200 OK");
    let mut command = place.command(&["run", "--until-idle", "--log-level", "trace", "--target", &url]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    assert!(child.wait().unwrap().success());
    let items = json(&place.succeeds(&["items", "p", "--json"]));
    let is_clean = |item: &Value| item["status"] == "complete" && item["error_messages"].is_null();
    assert!(items.as_array().unwrap().iter().all(is_clean), "{items}");
}

#[test]
fn run_serves_health_and_stops_cleanly() {
    let place = Place::new();
    let args = ["run", "--target", "http://127.0.0.1:9/", "--listen", "127.0.0.1:0"];
    let mut running = Running::start(place.command(&args));
    let line = running.wait_for_log("listening on http://");
    let address = line.rsplit_once("http://").unwrap().1.trim().to_owned();
    assert_eq!(get(&address, "/livez", "GET"), (200, "ok".to_owned()));
    let (status, body) = get(&address, "/readyz", "GET");
    let body = json(&body);
    assert_eq!((status, &body["ready"], &body["database"]["ok"]), (200, &json("true"), &json("true")));
    assert_eq!(body["targets"][0]["ok"], false, "{body}");
    assert_eq!(get(&address, "/nothing", "GET").0, 404);
    assert_eq!(get(&address, "/livez", "DELETE").0, 405);

    place.fails(
        &["run", "--target", "http://127.0.0.1:9/", "--listen", &address],
        1,
        &["cannot listen on", &address],
    );
    running.signal("TERM");
    assert_eq!(running.wait(), Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let place = Place::migrated();
    place.fill(1);
    // A handler that takes connections and never answers keeps the clean stop waiting.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let args = ["run", "--target", &url, "--grace", "1h", "--request-timeout", "1h"];
    let mut running = Running::start(place.command(&args));
    let _held = silent.accept().unwrap();
    running.signal("INT");
    running.wait_for_log("stopping");
    running.signal("TERM");
    assert_eq!(running.wait(), Some(143));
}

#[test]
fn logs_can_be_json_and_so_are_errors() {
    let place = Place::new();
    let done = place.run(&["status", "--log-format", "json"]);
    assert_eq!(done.code, Some(1));
    assert!(json(done.err.trim())["error"].as_str().unwrap().contains("does not exist"), "{}", done.err);
}

#[test]
fn the_demo_ranks_the_documents_that_come_with_it() {
    let place = Place::new();
    let done = place.run(&["demo"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.out.contains("60 documents read and ranked"), "{}", done.out);
    assert!(done.out.contains("postgres ×") && done.out.contains("Next: "), "{}", done.out);
    let places = done.out.lines().filter(|line| line.contains(".txt")).count();
    assert_eq!(places, 10, "{}", done.out);
    assert!(done.err.contains("gate 0: 60 of 60") && done.err.contains("gate 1: ranked"), "{}", done.err);
}

#[test]
fn the_demo_takes_a_folder_as_it_is() {
    let place = Place::new();
    let dir = place.path().join("docs");
    fs::create_dir_all(dir.join("deep/er")).unwrap();
    fs::write(dir.join("empty"), "").unwrap();
    fs::write(dir.join("latin1.txt"), b"caf\xe9 zebra zebra\x00").unwrap();
    fs::write(dir.join("deep/er/zürich.md"), "one zebra among many other words that are here").unwrap();
    fs::write(dir.join("a\nb"), "a zebra with a bad name").unwrap();
    fs::write(dir.join("ranking"), "a file that is called as the ranking item is").unwrap();
    fs::File::create(dir.join("huge")).unwrap().set_len(17 * 1024 * 1024).unwrap();
    std::os::unix::fs::symlink("/nowhere", dir.join("dangling")).unwrap();
    let done = place.run(&["demo", "docs", "--query", "Zebra?", "--keep"]);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.out.contains("5 documents read and ranked"), "{}", done.out);
    assert!(done.err.contains("skipped files: 1 cannot be read, 1 over 16 MiB"), "{}", done.err);
    let ranked: Vec<_> = done.out.lines().filter(|line| line.contains("zebra ×")).collect();
    assert_eq!(ranked.len(), 3, "{}", done.out);
    assert!(ranked[0].contains("latin1.txt") && ranked[0].contains("zebra ×2"), "{}", done.out);

    let kept = done.out.lines().find_map(|line| line.strip_prefix("Kept the queue in ")).unwrap();
    let url = format!("sqlite://{kept}");
    let items = ["items", "demo", "--data", "--json", "--database-url", &url];
    let items = json(&place.succeeds(&items));
    let data = items.as_array().unwrap().iter().find(|item| item["id"] == "ranking").unwrap()["data"].clone();
    assert_eq!(json(data.as_str().unwrap())["documents"], 5);
    fs::remove_dir_all(Path::new(kept).parent().unwrap()).unwrap();
}

#[test]
fn the_demo_refuses_what_is_no_folder_of_files() {
    let place = Place::new();
    fs::write(place.path().join("file"), "x").unwrap();
    fs::create_dir(place.path().join("empty")).unwrap();
    place.fails(&["demo", "nowhere"], 1, &["nowhere"]);
    place.fails(&["demo", "file"], 1, &["file is a file"]);
    place.fails(&["demo", "empty"], 1, &["no files to rank"]);
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let place = Place::new();
    let (docs, temp) = (place.path().join("docs"), place.path().join("temp"));
    fs::create_dir(&docs).unwrap();
    fs::create_dir(&temp).unwrap();
    for n in 0..300 {
        fs::write(docs.join(format!("{n}.txt")), "word ".repeat(50_000)).unwrap();
    }
    let mut command = place.command(&["demo", "docs"]);
    command.env("TMPDIR", &temp);
    let mut running = Running::start(command);
    let started = Instant::now();
    while fs::read_dir(&temp).unwrap().count() == 0 {
        assert!(started.elapsed() < DEADLINE, "it does not start");
        std::thread::sleep(Duration::from_millis(2));
    }
    running.signal("INT");
    assert_eq!(running.wait(), Some(130));
    assert_eq!(fs::read_dir(&temp).unwrap().count(), 0);
}
