//! Signatures: checked by somebody else's library, and by the handlers that people copy.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use gatefeed_testkit::handler::{Handler, Recorded, Reply};
use gatefeed_tests::{Database, Gatefeed, binary, built, gatefeed};
use serde_json::json;

use crate::handlers::{
    queue,
    service::{Service, example},
};

crate::on_both!(the_specifications_own_library_believes_what_is_signed, a_secret_is_never_to_be_seen);

/// The package, and its version, so that a new one does not change what is tested.
const PACKAGE: &str = "standardwebhooks==1.1.0";

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const OTHER: &str = "whsec_plJ3nmyCDGBKInavdOK15jsl7plJ3nmyCDGBKInavdOK";

/// Checks each line: a secret, headers and a body. Prints what it finds.
const CHECK: &str = r#"
import base64, json, sys
from standardwebhooks import Webhook, WebhookVerificationError
for line in sys.stdin:
    given = json.loads(line)
    try:
        Webhook(given["secret"]).verify(base64.b64decode(given["body"]), given["headers"], json_parse=False)
        print("genuine")
    except WebhookVerificationError as error:
        print("refused")
"#;

/// Where the package is; it is fetched once.
fn packages() -> PathBuf {
    let place = binary().parent().unwrap().join("../python");
    if !place.join("standardwebhooks").exists() {
        let pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target"];
        let fetched = Command::new("python3").args(pip).arg(&place).arg(PACKAGE).output().unwrap();
        let error = String::from_utf8_lossy(&fetched.stderr);
        assert!(fetched.status.success(), "pip cannot fetch {PACKAGE} from PyPI: {error}");
    }
    place
}

/// What the package says of these requests with these secrets.
fn checked(requests: &[(&str, &Recorded)]) -> Vec<String> {
    let mut python = Command::new("python3");
    python.args(["-c", CHECK]).env("PYTHONPATH", packages()).env("PYTHONDONTWRITEBYTECODE", "1");
    let mut child = python.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for (secret, request) in requests {
        let name = |name: &str| (name.to_owned(), request.header_text(name));
        let headers: std::collections::BTreeMap<_, _> =
            ["webhook-id", "webhook-timestamp", "webhook-signature"].map(name).into();
        let body = base64(&request.body);
        writeln!(stdin, "{}", json!({"secret": secret, "headers": headers, "body": body})).unwrap();
    }
    drop(stdin);
    let said = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    said.lines().map(str::to_owned).collect()
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |bytes: &[u8]| {
        let word =
            bytes.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - bytes.len()));
        let digit = |n: usize| match n <= bytes.len() {
            true => char::from(ALPHABET[(word >> (18 - 6 * n)) as usize & 63]),
            false => '=',
        };
        [digit(0), digit(1), digit(2), digit(3)]
    };
    bytes.chunks(3).flat_map(group).collect()
}

async fn the_specifications_own_library_believes_what_is_signed(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    database.insert_partition("p");
    database.insert_items("p", "i", 0, 5);
    database.insert_items("p", "later", 1, 7);
    let handler = Handler::start(|request: Recorded| async move {
        // The second gate is sent in batches.
        let items: Vec<serde_json::Value> = serde_json::from_slice(&request.body).unwrap_or_default();
        let names: Vec<_> = items.iter().map(|item| json!({"item": item["item"]})).collect();
        Reply::json(if names.is_empty() { "{}".to_owned() } else { json!(names).to_string() })
    })
    .await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "target = \"{}\"\nsigning_secret_env = \"SECRETS\"\n[[gates]]\ngate = 1\nbatch_size = 3\nbatch_linger = \"0s\"\n",
        handler.url()
    );
    std::fs::write(file.path(), text).unwrap();
    let mut command = Command::new(binary());
    command.args(["run", "--until-idle", "--config"]).arg(file.path());
    command.env("GATEFEED_DATABASE_URL", database.url()).env("SECRETS", format!("{NEW} {OLD}"));
    let mut watcher = Gatefeed::start(command);
    assert!(watcher.ended().await.success(), "{}", watcher.log());
    assert_eq!(database.items("complete"), 12);
    let requests = handler.requests();
    assert_eq!(requests.len(), 8, "five, and three batches");
    let mut changed = requests[0].clone();
    changed.body.push(b' ');
    let mut cases: Vec<(&str, &Recorded)> = Vec::new();
    for secret in [OLD, NEW] {
        cases.extend(requests.iter().map(|request| (secret, request)));
    }
    let believed = cases.len();
    cases.extend([(OTHER, &requests[0]), (NEW, &changed)]);
    let said = checked(&cases);
    assert_eq!(said.len(), cases.len(), "{said:?}");
    assert!(said[..believed].iter().all(|word| word == "genuine"), "{said:?}");
    assert!(said[believed..].iter().all(|word| word == "refused"), "{said:?}");
}

async fn a_secret_is_never_to_be_seen(database: Database) {
    assert!(gatefeed(&database, &["migrate"]).status.success());
    database.insert_partition("p");
    database.insert_items("p", "i", 0, 2);
    let handler = Handler::always(Reply::status(500)).await;
    let mut command = Command::new(binary());
    command.args([
        "run",
        "--until-idle",
        "--max-retries",
        "0",
        "--log-level",
        "trace",
        "--target",
        &handler.url(),
    ]);
    command.env("GATEFEED_DATABASE_URL", database.url()).env("GATEFEED_SIGNING_SECRET", NEW);
    let mut watcher = Gatefeed::start(command);
    assert_eq!(watcher.ended().await.code(), Some(3));
    let errors = database.sql("SELECT error_messages FROM gatefeed_items");
    let seen = format!("{}{errors:?}", watcher.log());
    assert!(!seen.contains(&NEW[6..20]), "{seen}");
    assert!(handler.requests().iter().all(|request| request.header("webhook-signature").is_some()));
    let bad = Command::new(binary())
        .args(["run", "--target", &handler.url()])
        .env("GATEFEED_SIGNING_SECRET", "whsec_hunter2hunter2")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&bad.stderr);
    assert!(
        bad.status.code() == Some(2) && said.contains("signing secret") && !said.contains("hunter2"),
        "{said}"
    );
}

async fn believes_the_watcher_only(mut command: Command) {
    command.env("GATEFEED_SIGNING_SECRET", format!("{OTHER},{NEW}")).env("PYTHONDONTWRITEBYTECODE", "1");
    let service = Service::start(command, &[]);
    let database = Database::sqlite();
    queue::prepare(&database, &["letters"]);
    queue::insert(&database, "letters", "short", 0, br#"{"text": "one two three"}"#);
    let run = async |secret: &str| {
        let mut command = Command::new(binary());
        command.args(["run", "--until-idle", "--max-retries", "0", "--target", &service.url()]);
        command.env("GATEFEED_DATABASE_URL", database.url()).env("GATEFEED_SIGNING_SECRET", secret);
        Gatefeed::start(command).ended().await.code()
    };
    for wrong in ["", OLD] {
        assert_eq!(run(wrong).await, Some(3));
        let refused = queue::item(&database, "letters", "short");
        assert!(
            refused.errors.ends_with("401 Unauthorized: the signature is missing, wrong or old"),
            "{refused:?}"
        );
        assert!(gatefeed(&database, &["retry", "letters"]).status.success());
    }
    assert_eq!(run(NEW).await, Some(0));
    assert_eq!(queue::item(&database, "letters", "short").complete(0), json!({"words": 3}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_python_handler_believes_the_watcher_only() {
    let mut command = Command::new("python3");
    command.arg(example("handlers/python/handler.py"));
    believes_the_watcher_only(command).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_handler_believes_the_watcher_only() {
    let mut command = Command::new("node");
    command.arg(example("handlers/node/handler.mjs"));
    believes_the_watcher_only(command).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_handler_believes_the_watcher_only() {
    believes_the_watcher_only(Command::new(built("gatefeed-example-handler"))).await;
}
