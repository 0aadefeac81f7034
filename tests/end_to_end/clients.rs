//! The examples of clients in Python and TypeScript, against the binary. What they need comes from PyPI and npm, into
//! target/; without those the test says so and is skipped.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use gatefeed_testkit::handler::{Handler, Recorded, Reply};
use gatefeed_tests::{Database, Gatefeed, binary, eventually, gatefeed};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Runs a command that may fail for want of a network.
#[expect(clippy::print_stderr, reason = "who runs the tests should hear of what they leave out")]
fn prepared(command: &mut Command) -> bool {
    let output = command.output();
    let done = output.as_ref().is_ok_and(|output| output.status.success());
    if !done {
        eprintln!("SKIPPED: {command:?} failed, as without PyPI or npm: {output:?}");
    }
    done
}

fn python() -> Option<PathBuf> {
    let venv = root().join("target/clients/python");
    let python = venv.join("bin/python3");
    let requirements = root().join("examples/clients/python/requirements.txt");
    let has_venv = python.exists() || prepared(Command::new("python3").args(["-m", "venv"]).arg(&venv));
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(requirements);
    (has_venv && prepared(&mut pip)).then_some(python)
}

/// The folder with the examples and what they need.
fn typescript() -> Option<PathBuf> {
    let folder = root().join("target/clients/typescript");
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["package.json", "api.ts", "sql.ts"] {
        std::fs::copy(root().join("examples/clients/typescript").join(file), folder.join(file)).unwrap();
    }
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]).current_dir(&folder);
    prepared(&mut npm).then_some(folder)
}

fn prints(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// The data becomes its length.
async fn count(request: Recorded) -> Reply {
    Reply::json(format!("{{\"data\": {{\"bytes\": {}}}}}", request.body.len()))
}

/// Runs both examples of a language: `run` makes the command of one of them.
async fn work(run: impl Fn(&str) -> Command) {
    let database = Database::postgres();
    assert!(gatefeed(&database, &["migrate"]).status.success());
    let handler = Handler::start(count).await;
    let _watcher = Gatefeed::run(&database, &handler.url(), &["--poll-interval", "100ms"]);
    let mut serve = Command::new(binary());
    serve
        .args(["serve", "--listen", "127.0.0.1:0"])
        .env("GATEFEED_DATABASE_URL", database.url())
        .env("NO_COLOR", "1");
    let server = Gatefeed::start(serve);
    let mut url = String::new();
    eventually("it listens", || {
        let log = server.log();
        let rest = log.split("http://").nth(1).unwrap_or("");
        url = rest.split(|c: char| c.is_whitespace() || c == '\u{1b}').next().unwrap_or("").to_owned();
        !url.is_empty()
    })
    .await;
    let url = format!("http://{url}");

    let printed = prints(run("api").args([url.as_str(), "batch 1/ü"]));
    assert!(
        printed.starts_with("added 2, there already 0\nbatch 1/ü is complete\nnote complete {\"bytes\""),
        "{printed}"
    );
    assert!(printed.contains("page-1 complete {\"bytes\""), "{printed}");
    let again = prints(run("api").args([url.as_str(), "batch 1/ü"]));
    assert!(again.starts_with("added 0, there already 2\n"), "{again}");

    let printed = prints(run("sql").args([database.url().as_str(), "order-1"]));
    assert_eq!(printed, "placed order-1\nrolled back: the order will not do\n");
    assert_eq!(database.sql("SELECT id FROM orders"), ["order-1"]);
    let complete =
        "SELECT count(*) FROM gatefeed_items WHERE partition_id = 'order-1' AND status = 'complete'";
    eventually("the order is worked on", || database.value(complete) == "3").await;
    assert_eq!(database.value("SELECT count(*) FROM gatefeed_partitions WHERE id LIKE '%refused'"), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn python_pushes_over_the_api_and_by_sql() {
    let Some(python) = python() else { return };
    let folder = root().join("examples/clients/python");
    work(|example| {
        let mut command = Command::new(&python);
        command.arg(folder.join(format!("{example}.py")));
        command
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typescript_pushes_over_the_api_and_by_sql() {
    let Some(folder) = typescript() else { return };
    assert!(prepared(
        Command::new("node_modules/.bin/tsc")
            .args(["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "api.ts", "sql.ts"])
            .current_dir(&folder)
    ));
    work(|example| {
        let mut command = Command::new("node_modules/.bin/tsx");
        command.arg(format!("{example}.ts")).current_dir(&folder);
        command
    })
    .await;
}
