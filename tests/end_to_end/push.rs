//! `gatefeed push`: lines, envelopes and files into both databases, all or nothing, and waiting for the end.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use gatefeed_testkit::handler::{Handler, Recorded, Reply};
use gatefeed_tests::{Database, Gatefeed, Ledger, eventually, gatefeed};
use rustix::process::{Pid, Signal, kill_process};

crate::on_both!(
    lines_are_stored_to_the_letter,
    envelopes_say_every_column_and_come_twice_for_nothing,
    files_are_items_with_their_paths,
    bad_lines_write_nothing_unless_left_out,
    with_chunks_what_came_before_a_bad_line_of_a_stream_stays,
    what_will_not_do_is_refused_and_says_why,
    held_then_sealed_and_waited_for,
    a_failure_is_waited_for_and_told,
    waiting_without_a_watcher_says_so_and_may_be_given_up,
    an_interrupt_leaves_nothing,
    an_error_after_the_items_does_not_hide_that_they_are_in,
    memory_does_not_grow_with_the_input,
);

/// A push that has ended.
struct Done {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Done {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let done = Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
        assert!(!done.err.contains("panicked") && !done.err.contains("backtrace"), "{}", done.err);
        done
    }

    /// Asserts the exit code and that stderr has each text.
    fn failed(&self, code: i32, texts: &[&str]) {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        for text in texts {
            assert!(self.err.contains(text), "{text:?} is not in {:?}", self.err);
        }
    }

    /// Asserts success and returns stdout.
    fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }
}

fn command(database: &Database, args: &[&str]) -> Command {
    let test = std::env::current_exe().unwrap();
    let profile: PathBuf = test.parent().and_then(Path::parent).unwrap().into();
    let mut command = Command::new(profile.join("gatefeed"));
    command.args(["push", "--partition", "p"]).args(args);
    command.env("GATEFEED_DATABASE_URL", database.url()).env("NO_COLOR", "1");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// `gatefeed push --partition p` with these further arguments and this on stdin.
fn push(database: &Database, args: &[&str], stdin: impl AsRef<[u8]>) -> Done {
    let mut child = command(database, args).spawn().unwrap();
    // It may end before it has read everything.
    _ = child.stdin.take().unwrap().write_all(stdin.as_ref());
    Done::of(child.wait_with_output().unwrap())
}

fn migrated(database: &Database) -> tempfile::TempDir {
    assert!(gatefeed(database, &["migrate"]).status.success());
    tempfile::tempdir().unwrap()
}

/// The items' data as text, in order of id.
fn data(database: &Database, partition: &str) -> Vec<String> {
    let text = match database {
        Database::Sqlite { .. } => "CAST(data AS text)",
        Database::Postgres(_) => "convert_from(data, 'UTF8')",
    };
    database.sql(&format!("SELECT {text} FROM gatefeed_items WHERE partition_id = '{partition}' ORDER BY id"))
}

fn count(database: &Database) -> usize {
    database.value("SELECT count(*) FROM gatefeed_items").parse().unwrap()
}

fn assert_nothing_written(database: &Database) {
    assert_eq!(count(database), 0);
    assert_eq!(database.value("SELECT count(*) FROM gatefeed_partitions"), "0");
}

async fn lines_are_stored_to_the_letter(database: Database) {
    let dir = migrated(&database);
    let file = dir.path().join("a.ndjson");
    let file = file.to_str().unwrap();
    fs::write(
        file,
        b"\xef\xbb\xbf{\"n\": 12345678901234567890123.10}\r\n\r\n  \"\\u00fc \\\\ {\"  \n\nnull\n[1,  2]",
    )
    .unwrap();
    assert_eq!(push(&database, &["--feed", "f", "--gate", "2", file], "").ok(), "pushed 4 items into p\n");
    let lines = ["{\"n\": 12345678901234567890123.10}", "\"\\u00fc \\\\ {\"", "null", "[1,  2]"];
    assert_eq!(data(&database, "p"), lines, "ids grow in the order of the lines");
    let rows = "SELECT DISTINCT feed, i.gate, content_type, i.status FROM gatefeed_items i
                JOIN gatefeed_partitions p ON p.id = partition_id";
    assert_eq!(database.sql(rows), ["f|2|application/json|available"]);
    // Again adds again; stdin is a file named -, or no file.
    let json = "{\"partition\":\"p\",\"created\":false,\"added\":5,\"existing\":0,\"skipped\":0}\n";
    assert_eq!(push(&database, &["--json", file, "-"], "7").ok(), json);
    assert_eq!(push(&database, &["--chunk", "2"], "1\n2\n3\n4\n5").ok(), "pushed 5 items into p\n");
    assert_eq!(count(&database), 14);
    // Nothing is something too.
    let done = push(&database, &["--partition", "p", "--json"], "\n");
    assert!(done.code == Some(2) && done.err.contains("--partition"), "{}", done.err);
    assert!(push(&database, &[], "").ok().contains("nothing to push"));
}

async fn envelopes_say_every_column_and_come_twice_for_nothing(database: Database) {
    migrated(&database);
    let lines = r#"{"id":"a/1","gate":3,"priority":-2,"available_at":"2999-01-31T08:00:00.25+01:00","content_type":"application/x+json","data":{"n":1.0}}
{"id":"b","data":"a\tb","content_type":"text/plain"}
{"id":"c","data":null,"available_at":"2001-02-03 04:05:06"}"#;
    let first = push(&database, &["--envelope", "--gate", "1"], lines).ok();
    assert_eq!(first, "pushed 3 items into p\n");
    let columns = match database {
        Database::Sqlite { .. } => "available_at",
        Database::Postgres(_) => "to_char(available_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS')",
    };
    let rows = database
        .sql(&format!("SELECT id, gate, priority, content_type, {columns} FROM gatefeed_items ORDER BY id"));
    assert_eq!(rows[0], "a/1|3|-2|application/x+json|2999-01-31 07:00:00.250");
    assert!(rows[1].starts_with("b|1|0|text/plain|20"), "{rows:?}");
    assert!(rows[2].starts_with("c|1|0|application/json|2001-02-03 04:05:06"), "{rows:?}");
    assert_eq!(data(&database, "p"), ["{\"n\":1.0}", "a\tb", "null"]);
    let again = push(&database, &["--envelope"], format!("{lines}\n{{\"id\":\"d\",\"data\":1}}"));
    assert_eq!(again.ok(), "pushed 1 item into p (3 were there already)\n");
    let again = push(&database, &["--envelope"], lines).ok();
    assert_eq!(again, "pushed nothing new into p: all 3 items were there already\n");
    let typo = push(&database, &["--envelope"], "{\"data\":1}\n{\"data\":1,\"prioriti\":2}");
    typo.failed(1, &["stdin:2: unknown field `prioriti`", "nothing was written"]);
    assert_eq!(count(&database), 4);
}

async fn files_are_items_with_their_paths(database: Database) {
    let dir = migrated(&database);
    let docs = dir.path().join("docs");
    fs::create_dir_all(docs.join("sub")).unwrap();
    let bytes: Vec<u8> = (0..=255).collect();
    fs::write(docs.join("it's \"ü\" %.PDF"), &bytes).unwrap();
    fs::write(docs.join("sub/x.json"), "not json").unwrap();
    fs::write(docs.join("plain.txt"), "").unwrap();
    fs::write(docs.join("noext"), "12345").unwrap();
    symlink(&docs, docs.join("sub/loop")).unwrap();
    let run = |args: &[&str]| {
        let child = command(&database, args).current_dir(dir.path()).stdin(Stdio::null()).spawn().unwrap();
        Done::of(child.wait_with_output().unwrap())
    };
    // However a file is spelled, it is one item.
    let spelled = ["--files", "./docs/", "docs/noext", ".//docs/sub/../noext"];
    assert_eq!(run(&spelled).ok(), "pushed 4 items into p (2 were there already)\n");
    let types = "SELECT id, content_type FROM gatefeed_items ORDER BY content_type, id";
    let mut rows = database.sql(types);
    rows.sort();
    let expected = [
        "docs/it's \"ü\" %.PDF|application/pdf",
        "docs/noext|application/octet-stream",
        "docs/plain.txt|text/plain",
        "docs/sub/x.json|application/json",
    ];
    assert_eq!(rows, expected);
    let hex = match database {
        Database::Sqlite { .. } => "lower(hex(data))",
        Database::Postgres(_) => "encode(data, 'hex')",
    };
    let stored = database.value(&format!("SELECT {hex} FROM gatefeed_items WHERE id LIKE '%PDF'"));
    assert_eq!(stored, bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    assert!(run(&["--files", "docs"]).ok().contains("all 4 items were there already"));
    // What cannot be an item.
    fs::write(docs.join("large.bin"), "123456").unwrap();
    fs::write(docs.join(std::ffi::OsStr::from_bytes(b"bad\xff")), "").unwrap();
    fs::write(docs.join("line\nbreak"), "").unwrap();
    fs::write(docs.join("new"), "").unwrap();
    let args = ["--files", "docs", "--max-payload", "5"];
    run(&args).failed(1, &["nothing was written", "large.bin: has 6 B", "not UTF-8", "control character"]);
    assert_eq!(count(&database), 4);
    let skipping = run(&["--files", "docs", "--skip-bad", "--max-payload", "5", "--json"]);
    assert!(skipping.out.contains("\"added\":1,\"existing\":2,\"skipped\":5"), "{}", skipping.out);
    run(&["docs"]).failed(2, &["docs is a folder", "--files"]);
}

async fn bad_lines_write_nothing_unless_left_out(database: Database) {
    let dir = migrated(&database);
    let file = dir.path().join("b.ndjson");
    // More than a batch, so that a transaction is open when the first bad line comes.
    let line = |n: usize| if n % 100 == 99 { format!("{{bad {n}\n") } else { format!("{n}\n") };
    let lines: String = (0..2_500).map(line).collect();
    fs::write(&file, &lines).unwrap();
    let file = file.to_str().unwrap();
    for (done, name) in [(push(&database, &[file], ""), "b.ndjson"), (push(&database, &[], &lines), "stdin")]
    {
        done.failed(1, &["25 bad lines: nothing was written", "--skip-bad", "and 5 more"]);
        assert!(done.err.contains(&format!("{name}:100: not JSON: ")), "{}", done.err);
        assert!(!done.err.contains(":2100:"), "only twenty are shown: {}", done.err);
        assert_nothing_written(&database);
    }
    push(&database, &[file, "--chunk", "10"], "").failed(1, &["25 bad lines: nothing was written"]);
    assert_nothing_written(&database);
    let late = lines.replace("{bad", "7") + "{late";
    push(&database, &[], late.replace(' ', "")).failed(1, &["stdin:2501: not JSON"]);
    assert_nothing_written(&database);
    let long = format!("1\n\"{}\"\n", "x".repeat(100));
    push(&database, &["--max-payload", "100"], &long).failed(1, &["stdin:2: has 102 B", "--max-payload"]);
    push(&database, &[], b"1\n\"\xff\"\n").failed(1, &["stdin:2: not UTF-8"]);
    assert_nothing_written(&database);
    let done = push(&database, &[file, "--skip-bad"], "");
    done.failed(0, &["left out 25 bad lines", "b.ndjson:100: not JSON", "and 5 more"]);
    assert_eq!(done.out, "pushed 2,475 items into p; left out 25 bad lines\n");
    assert_eq!(count(&database), 2_475);
}

async fn with_chunks_what_came_before_a_bad_line_of_a_stream_stays(database: Database) {
    migrated(&database);
    let done = push(&database, &["--chunk", "2"], "1\n\n2\n3\n4\n5\n{bad\n7\n8\n");
    done.failed(
        1,
        &["1 bad line", "everything up to stdin:5 is in (4 items)", "tail -n +6", "stdin:7: not JSON"],
    );
    assert_eq!(data(&database, "p"), ["1", "2", "3", "4"]);
    let skipping = push(&database, &["--chunk", "2", "--skip-bad"], "5\n{bad\n7\n8\n");
    assert_eq!(skipping.ok(), "pushed 3 items into p; left out 1 bad line\n");
    assert_eq!(data(&database, "p"), ["1", "2", "3", "4", "5", "7", "8"]);
}

async fn what_will_not_do_is_refused_and_says_why(database: Database) {
    let dir = migrated(&database);
    push(&database, &["--hold", "--seal"], "1").failed(2, &["--hold and --seal"]);
    push(&database, &["--hold", "--wait"], "1").failed(2, &["--hold and --wait"]);
    push(&database, &["--files", "--envelope", "x"], "").failed(2, &["--files and --envelope"]);
    push(&database, &["--files"], "1").failed(2, &["no file to push", "--files a.pdf"]);
    push(&database, &["--chunk", "0"], "1").failed(2, &["whole number from 1"]);
    push(&database, &["--gate", "-1"], "1").failed(2, &["from 0 to"]);
    push(&database, &["-", "-"], "1").failed(2, &["once only"]);
    push(&database, &["no such file"], "").failed(1, &["cannot read no such file: No such file"]);
    push(&database, &[dir.path().to_str().unwrap()], "").failed(2, &["is a folder", "--files"]);
    let output = gatefeed(&database, &["push", "--partition", "a\nb"]);
    Done::of(output).failed(2, &["control character"]);
    assert_nothing_written(&database);
    database.sql("INSERT INTO gatefeed_partitions (id, status) VALUES ('p', 'cancelled')");
    push(&database, &[], "1").failed(1, &["p is cancelled", "takes no items"]);
    assert_eq!(count(&database), 0);
}

async fn held_then_sealed_and_waited_for(database: Database) {
    migrated(&database);
    let ledger = Ledger::start(&[0, 1], Duration::ZERO).await;
    let watcher = Gatefeed::run(&database, &ledger.url(), &[]);
    push(&database, &["--hold", "--chunk", "5"], "1\n".repeat(10)).failed(0, &["gatefeed seal p"]);
    let state = "SELECT manual_checkpoint, auto_close FROM gatefeed_partitions";
    assert!(["t|f", "1|0"].contains(&database.value(state).as_str()));
    eventually("gate 0 is through", || ledger.len() == 10).await;
    let done = push(&database, &["--seal", "--feed", "other", "--wait", "--json"], "1\n".repeat(5));
    let json = "{\"partition\":\"p\",\"created\":false,\"added\":5,\"existing\":0,\"skipped\":0,\"status\":\"complete\",\"gates\":[{\"gate\":1,";
    assert!(done.out.starts_with(json) && done.out.lines().count() == 1, "{}", done.out);
    done.failed(0, &["p was there already, in the feed default: --feed other changed nothing"]);
    assert_eq!((ledger.len(), database.items("complete")), (30, 15));
    ledger.assert_barrier();
    assert!(["f|t", "0|1"].contains(&database.value(state).as_str()));
    // It is open again, and --hold comes too late.
    let late = push(&database, &["--hold"], "1");
    late.failed(0, &["p was there already and is not held: --hold changed nothing"]);
    assert!(watcher.terminate().await.success());
}

async fn a_failure_is_waited_for_and_told(database: Database) {
    migrated(&database);
    let failing = |request: Recorded| async move {
        match request.header_text("gatefeed-item").as_str() {
            "i2" => Reply::json(r#"{"error": {"message": "no such page", "no_retry": true}}"#),
            _ => Reply::json("{}"),
        }
    };
    let handler = Handler::start(failing).await;
    let _watcher = Gatefeed::run(&database, &handler.url(), &[]);
    let lines: String = (0..4).map(|n| format!("{{\"id\":\"i{n}\",\"data\":{n}}}\n")).collect();
    let done = push(&database, &["--envelope", "--wait"], &lines);
    assert_eq!(done.out, "pushed 4 items into p\np has failed: 1 item failed\n");
    let told = ["i2 at gate 0: no such page", "gatefeed items p --status failed", "gatefeed retry p"];
    done.failed(3, &told);
    // Nothing new: it is failed as it was.
    push(&database, &["--envelope", "--wait"], &lines)
        .failed(3, &["p has failed: nothing is delivered until", "Why: an item at gate 0 is failed"]);
}

/// A push that goes on, with what it writes to stderr.
struct Pushing {
    child: Child,
    stdin: Option<ChildStdin>,
    err: Arc<Mutex<String>>,
}

impl Pushing {
    fn start(database: &Database, args: &[&str]) -> Self {
        let mut child = command(database, args).spawn().unwrap();
        let (mut stderr, err) = (child.stderr.take().unwrap(), Arc::new(Mutex::new(String::new())));
        let seen = Arc::clone(&err);
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = stderr.read(&mut piece) {
                seen.lock().unwrap().push_str(&String::from_utf8_lossy(&piece[..length]));
            }
        });
        Self { stdin: child.stdin.take(), child, err }
    }

    fn err(&self) -> String {
        self.err.lock().unwrap().clone()
    }

    fn interrupt(&self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }

    async fn ended(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("the push ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap().code()
    }

    /// The most memory it has used so far, in KiB.
    fn memory_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    }
}

impl Drop for Pushing {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

async fn waiting_without_a_watcher_says_so_and_may_be_given_up(database: Database) {
    migrated(&database);
    let mut pushing = Pushing::start(&database, &["--wait", "--feed", "f"]);
    pushing.stdin.take().unwrap().write_all(b"1").unwrap();
    eventually("it says so", || pushing.err().contains("gatefeed run --target URL --feed f")).await;
    pushing.interrupt();
    assert_eq!(pushing.ended().await, Some(130));
    eventually("it says what that means", || pushing.err().contains("goes on without you")).await;
    assert_eq!(database.items("available"), 1);
}

/// Whether a transaction that writes is open.
fn is_writing(database: &Database) -> bool {
    match database {
        Database::Sqlite { .. } => {
            let url = database.url();
            let file = url.strip_prefix("sqlite://").unwrap();
            !Command::new("sqlite3").args([file, "BEGIN IMMEDIATE"]).output().unwrap().status.success()
        }
        Database::Postgres(_) => {
            let sessions = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction'
                            AND backend_xid IS NOT NULL";
            database.value(sessions) != "0"
        }
    }
}

async fn an_interrupt_leaves_nothing(database: Database) {
    migrated(&database);
    let mut pushing = Pushing::start(&database, &[]);
    pushing.stdin.as_mut().unwrap().write_all("{\"n\": 1}\n".repeat(3_000).as_bytes()).unwrap();
    eventually("a transaction is open", || is_writing(&database)).await;
    pushing.interrupt();
    assert_eq!(pushing.ended().await, Some(130));
    eventually("it says so", || pushing.err().contains("interrupted: nothing was written")).await;
    eventually("the database has noticed", || !is_writing(&database)).await;
    assert_nothing_written(&database);
}

async fn an_error_after_the_items_does_not_hide_that_they_are_in(database: Database) {
    migrated(&database);
    for args in [&[][..], &["--json"], &["--seal", "--wait"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let mut child = command(&database, args).stdout(full).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"1\n2\n").unwrap();
        let done = Done::of(child.wait_with_output().unwrap());
        done.failed(1, &["error: all 2 items are in; after that: cannot write to stdout: No space left"]);
    }
    assert_eq!(count(&database), 6);
}

/// Postgres, with a partition's table that cannot be looked at or sealed from the commit of the first item on.
fn breaking_at_the_commit() -> Database {
    let database = Database::postgres();
    migrated(&database);
    database.sql(
        "CREATE FUNCTION break() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN ALTER TABLE gatefeed_partitions RENAME auto_close TO broken; RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER break AFTER INSERT ON gatefeed_items DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION break()",
    );
    database
}

#[test]
fn a_look_that_fails_after_the_commit_is_no_error() {
    let done = push(&breaking_at_the_commit(), &[], "1");
    done.failed(0, &["cannot look at p now: "]);
    assert_eq!(done.out, "pushed 1 item into p\n");
    let done = push(&breaking_at_the_commit(), &["--json"], "1");
    done.failed(0, &["cannot look at p now: "]);
    let json = "{\"partition\":\"p\",\"created\":true,\"added\":1,\"existing\":0,\"skipped\":0}\n";
    assert_eq!(done.out, json);
    let done = push(&breaking_at_the_commit(), &["--json", "--seal"], "1");
    done.failed(1, &["error: the item is in; after that: p is not sealed (`gatefeed seal p` does that): "]);
    assert_eq!(done.out, json);
}

/// What a push says whose connection is cut after so many lines, these many of them committed, while a transaction
/// is open.
async fn cut_off(database: &Database, args: &[&str], lines: usize, committed: usize) -> String {
    const CUT: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_xid IS NOT NULL";
    let mut pushing = Pushing::start(database, args);
    let mut stdin = pushing.stdin.take().unwrap();
    stdin.write_all("1\n".repeat(lines).as_bytes()).unwrap();
    // Not before that: the transaction that is open then waits for more lines.
    eventually("what has to be is committed", || count(database) == committed).await;
    eventually("the connection is cut", || database.value(CUT) == "t").await;
    // It may end before it has read this.
    _ = stdin.write_all("2\n".repeat(2_000).as_bytes());
    drop(stdin);
    assert_eq!(pushing.ended().await, Some(1));
    eventually("it says why", || pushing.err().contains("error: ")).await;
    pushing.err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cut_a_push_off_comes_first_then_what_is_in_and_how_to_go_on() {
    let database = Database::postgres();
    migrated(&database);
    let err = cut_off(&database, &[], 2_500, 0).await;
    assert!(err.trim_end().ends_with("; nothing was written: push it again"), "{err}");
    assert_eq!(count(&database), 0);
    let err = cut_off(&database, &["--chunk", "3000"], 5_500, 3_000).await;
    let left = "; everything up to stdin:3000 is in (3,000 items). To go on, leave that out: `tail -n +3001` \
                begins with the next line";
    assert!(err.trim_end().ends_with(left) && !err.starts_with("error: everything"), "{err}");
    assert_eq!(count(&database), 3_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_keeps_watchers_from_writing_says_so_once() {
    let database = Database::sqlite();
    migrated(&database);
    let mut pushing = Pushing::start(&database, &[]);
    let stdin = pushing.stdin.as_mut().unwrap();
    stdin.write_all("1\n".repeat(2_500).as_bytes()).unwrap();
    eventually("it says so", || pushing.err().contains("watchers cannot write")).await;
    assert!(is_writing(&database), "they cannot");
    pushing.stdin.as_mut().unwrap().write_all("2\n".repeat(2_500).as_bytes()).unwrap();
    drop(pushing.stdin.take());
    assert_eq!(pushing.ended().await, Some(0));
    let expected =
        "watchers cannot write while this transaction is open on SQLite: --chunk 10000 lets them\n";
    assert_eq!(pushing.err(), expected);
    assert_eq!(count(&database), 5_000);
}

async fn memory_does_not_grow_with_the_input(database: Database) {
    const LINES: usize = 10_000;
    migrated(&database);
    let mut pushing = Pushing::start(&database, &["--skip-bad"]);
    let mut stdin = pushing.stdin.take().unwrap();
    // 200 MB in lines, and 100 MB in one.
    let writer = std::thread::spawn(move || {
        let line = format!("\"{}\"\n", "x".repeat(20_000));
        (0..LINES).for_each(|_| stdin.write_all(line.as_bytes()).unwrap());
        (0..100).for_each(|_| stdin.write_all(&[b'1'; 1_000_000]).unwrap());
    });
    let (mut code, mut memory_kib_max) = (None, 0);
    eventually("the push ends", || {
        memory_kib_max = memory_kib_max.max(pushing.memory_kib().unwrap_or(0));
        code = pushing.child.try_wait().unwrap();
        code.is_some()
    })
    .await;
    writer.join().unwrap();
    assert!(code.unwrap().success(), "{}", pushing.err());
    assert_eq!(count(&database), LINES);
    assert!((1..200_000).contains(&memory_kib_max), "{memory_kib_max} KiB");
}
