//! The API against its own description: schemathesis (<https://schemathesis.readthedocs.io>) makes requests of it, wild ones
//! too, and finds answers that it does not describe, and server errors.

use std::{path::PathBuf, process::Command};

use gatefeed_tests::{Database, Gatefeed, binary, eventually, free_port};

crate::on_both!(every_answer_is_described);

/// Set by `scripts/test` where schemathesis could be installed.
const PROGRAM: &str = "GATEFEED_TEST_SCHEMATHESIS";

/// A budget, not a wait: what was tried until then is judged.
const SECONDS: &str = "40";

const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";

#[expect(clippy::print_stderr, reason = "a test that does not run has to say so")]
async fn every_answer_is_described(database: Database) {
    let Some(program) = std::env::var_os(PROGRAM).map(PathBuf::from).filter(|program| program.exists())
    else {
        eprintln!(
            "skipped: {PROGRAM} names no schemathesis (scripts/test installs it where there is a network)"
        );
        return;
    };
    let port = free_port();
    let mut command = Command::new(binary());
    command
        .args(["serve", "--listen", &format!("127.0.0.1:{port}")])
        .env("GATEFEED_DATABASE_URL", database.url());
    let server = Gatefeed::start(command);
    eventually("it serves", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()).await;
    let tried = tokio::task::spawn_blocking(move || {
        let mut command = Command::new(program);
        command.args(["run", &format!("http://127.0.0.1:{port}/openapi.json")]);
        command.args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing", "--max-examples", "15"]);
        command.args([
            "--max-time",
            SECONDS,
            "--request-timeout",
            "150",
            "--generation-deterministic",
            "--no-color",
        ]);
        // It ends with its partition only.
        command.args(["--exclude-path", "/v1/partitions/{id}/events"]);
        command.output().unwrap()
    });
    let tried = tried.await.unwrap();
    let told = String::from_utf8_lossy(&tried.stdout);
    assert!(tried.status.success(), "{told}\n{}", String::from_utf8_lossy(&tried.stderr));
    assert!(told.contains("passed") || told.contains("No issues found"), "nothing was tried: {told}");
    assert!(!server.log().contains("could not be answered"), "{}", server.log());
}
