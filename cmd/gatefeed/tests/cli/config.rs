//! `--config` and `config check`.

use std::fs;

use crate::place::{Place, handler, json};

const GOOD: &str = r#"
request_timeout = "5s"

[feeds.scans]
target = "http://127.0.0.1:9/ocr?token=secret"
concurrency = 7
batch_size = 25

[[feeds.scans.gates]]
gate = 1
target = ["http://127.0.0.1:9/rank", "http://127.0.0.1:10/rank"]
max_retries = -1

[feeds.mail]
target = "http://127.0.0.1:9/mail"
request_timeout = "1m"
"#;

#[test]
fn what_a_file_comes_to_is_listed_without_secrets() {
    let place = Place::new();
    fs::write(place.path().join("good.toml"), GOOD).unwrap();
    let text = place.succeeds(&["config", "check", "good.toml"]);
    assert!(text.starts_with("good.toml is valid.\n") && text.contains("for ever"), "{text}");
    let checked = place.succeeds(&["config", "check", "--config", "good.toml", "--json"]);
    assert!(!text.contains("secret") && !checked.contains("secret"), "{text}{checked}");
    let routes = &json(&checked)["routes"];
    let expected = r#"[
        {"feed":"mail","gate":null,"targets":["http://127.0.0.1:9/mail"],"request_timeout_ms":60000,"max_retries":5,
         "concurrency":null,"batch_size":null},
        {"feed":"scans","gate":null,"targets":["http://127.0.0.1:9/ocr"],"request_timeout_ms":5000,"max_retries":5,
         "concurrency":7,"batch_size":25},
        {"feed":"scans","gate":1,"targets":["http://127.0.0.1:9/rank","http://127.0.0.1:10/rank"],
         "request_timeout_ms":5000,"max_retries":null,"concurrency":null,"batch_size":25}]"#;
    assert_eq!(routes, &json(expected));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "a database was made");
}

#[test]
fn mistakes_are_told_with_their_place_and_what_was_meant() {
    let place = Place::new();
    let refused = |text: &str, expected: &[&str]| {
        fs::write(place.path().join("bad.toml"), text).unwrap();
        place.fails(&["config", "check", "bad.toml"], 2, expected);
        place.fails(&["run", "--config", "bad.toml"], 2, expected);
    };
    refused(
        "[feeds.a]\ntarget = \"http://h/\"\nrequest_timout = \"5s\"\nmax_retries = -2\n",
        &[
            "bad.toml:3:1: unknown key \"request_timout\" in [feeds.a]; did you mean \"request_timeout\"?",
            "bad.toml:4:15: max_retries",
        ],
    );
    refused("target = \"http://h/\"\nrequest_timeout = \"0s\"\n", &["bad.toml:2:19", "more than zero"]);
    refused("target = \n", &["bad.toml:1:"]);
    refused("[feeds.a]\n", &["feed \"a\" has no handler", "--target"]);
    refused("target = \"http://h/\"\ntarget_health = \"//elsewhere/\"\n", &["health path"]);
    place.fails(&["config", "check", "missing.toml"], 2, &["missing.toml", "No such file"]);
    place.fails(&["config", "check"], 2, &["FILE"]);
    place.fails(&["run"], 2, &["--target", "--gate-target", "--config"]);
    place.fails(&["run", "--gate-target", "http://h/"], 2, &["--gate-target", "1=http://127.0.0.1:8000/"]);
}

/// What cannot work although each value by itself is one: by text, what has to be told of it.
const AT_FAULT: [(&str, &[&str]); 31] = [
    (
        "listen = \":0\"\nbatch_size = 5\ncallback_timeout = \"5m\"\n",
        &["bad.toml:4:1: callback_timeout does nothing with batch_size: a batch cannot be answered later"],
    ),
    (
        "hedge_after = \"1s\"\n[feeds.a]\ntarget = \"http://8.8.8.8/\"\n",
        &["bad.toml:2:1: hedge_after does nothing with a single target"],
    ),
    (
        "idempotent = true\nhedge_after = \"1s\"\nbatch_size = 5\nhedge_greatest = \"/v\"\n",
        &["bad.toml:5:1: hedge_greatest does nothing with batch_size"],
    ),
    ("[[gates]]\ngate = -1\n", &["bad.toml:3:8: gate: expected a whole number from 0"]),
    (
        "min_concurrency = 5\nmax_concurrency = 4\n",
        &["bad.toml:2:1: the least concurrency, 5, is above the greatest, 4"],
    ),
    (
        "concurrency = 3\nmin_concurrency = 9\n",
        &["bad.toml:3:1: the least concurrency, 9, is above the greatest, 3"],
    ),
    ("retry_base = \"5s\"\nretry_cap = \"1s\"\n", &["bad.toml:3:1: retry_cap, 1s, is below retry_base, 5s"]),
    (
        "retry_cap = \"1s\"\n[feeds.a]\nretry_base = \"5s\"\n",
        &["bad.toml:4:1: retry_cap, 1s, is below retry_base, 5s"],
    ),
    (
        "breaker_failures = 3\nbreaker_open = \"2m\"\nbreaker_open_max = \"1m\"\n",
        &["bad.toml:4:1: breaker_open_max, 1m, is below breaker_open, 2m"],
    ),
    ("[feeds.a]\n  hedge_after = \"1s\"\n", &["bad.toml:3:3: with hedge_after", "say idempotent = true"]),
    ("hedge_after = \"1s\"\n[feeds.a]\n[feeds.b]\nidempotent = true\n", &["bad.toml:2:1: with hedge_after"]),
    (
        "hedge_after = \"2m\"\nidempotent = true\n",
        &["bad.toml:2:1: hedge_after is a time above zero and below"],
    ),
    (
        "hedge_after = \"2s\"\nidempotent = true\n[[gates]]\ngate = 1\nrequest_timeout = \"1s\"\n",
        &["bad.toml:6:1: hedge_after is a time above zero and below"],
    ),
    ("bearer_file = \"none\"\n", &["bad.toml:2:1: bearer_file: cannot read none", "No such file"]),
    (
        "bearer_env = \"GATEFEED_UNSET\"\n",
        &["bad.toml:2:1: bearer_env: the variable GATEFEED_UNSET is not set"],
    ),
    ("bearer_file = \"empty\"\n", &["bad.toml:2:1: bearer_file: the file empty is empty"]),
    ("basic_file = \"word\"\n", &["bad.toml:2:1: basic_file: the basic credential has to be user:password"]),
    (
        "[feeds.a]\nsigning_secret_file = \"word\"\n",
        &["bad.toml:3:1: signing_secret_file: signing secret 1 of 1"],
    ),
    ("signing_secret_env = \"GATEFEED_UNSET\"\n", &["bad.toml:2:1: signing_secret_env: the variable"]),
    (
        "headers = { X-Team = \"blue\", X-Key = { file = \"empty\" } }\n",
        &["bad.toml:2:30: headers.X-Key: the file empty is empty"],
    ),
    ("headers = { X-Team = \"blue\\n\" }\n", &["bad.toml:2:22: headers: the value of the header X-Team"]),
    ("ca_file = \"word\"\n", &["bad.toml:2:1: the CA file has no certificate"]),
    ("ca_file = \"none\"\n", &["bad.toml:2:1: ca_file: cannot read none"]),
    ("target_health = \"//elsewhere/\"\n", &["bad.toml:2:1: the health path"]),
    (
        "deny_private = true\n[feeds.a]\ntarget = \"http://10.0.0.1/\"\n",
        &["bad.toml:4:1: the target http://10.0.0.1/ will not do"],
    ),
    ("callback_timeout = \"5m\"\n", &["bad.toml:2:1: callback_timeout needs --listen or --public-url"]),
    ("[feeds.a]\nblob_links = true\n", &["bad.toml:3:1: blob_links needs --blob-store"]),
    (
        "breaker_open = \"5s\"\n",
        &["bad.toml:2:1: breaker_open does nothing without breaker_failures or breaker_share"],
    ),
    ("batch_linger = \"5ms\"\n", &["bad.toml:2:1: batch_linger does nothing without batch_size"]),
    ("request_timeout = \"200us\"\n", &["bad.toml:2:19: request_timeout: expected whole milliseconds"]),
    (
        "bearer_file = \"word\"\nbasic_file = \"word\"\n",
        &["bad.toml:3:1: basic_file stands beside a bearer token"],
    ),
];

#[test]
fn what_cannot_work_together_is_told_with_its_place_too() {
    let place = Place::new();
    fs::write(place.path().join("empty"), "\n").unwrap();
    fs::write(place.path().join("word"), "hunter2").unwrap();
    for (text, expected) in AT_FAULT {
        let text = format!("target = [\"http://8.8.8.8/\", \"http://8.8.4.4/\"]\n{text}");
        fs::write(place.path().join("bad.toml"), &text).unwrap();
        for args in [["config", "check", "bad.toml"].as_slice(), &["run", "--config", "bad.toml"]] {
            let done = place.run(args);
            assert_eq!(done.code, Some(2), "{text}: {}", done.err);
            assert!(!done.err.contains("hunter2"), "{}", done.err);
            for expected in expected {
                assert!(done.err.contains(expected), "{text}: {} instead of {expected}", done.err);
            }
            assert_eq!(done.err.matches("bad.toml:").count(), 1, "once: {}", done.err);
        }
    }
}

#[test]
fn everything_is_told_at_once_in_the_order_of_the_file() {
    let place = Place::new();
    let text = "\
max_concurrency = 2
min_concurrency = 3
retry_cap = \"1x\"
[feeds.b]
bearer_env = \"GATEFEED_UNSET\"
max_retrys = 3
[feeds.a]
target = [\"http://127.0.0.1:9/\", \"http://127.0.0.1:10/\"]
target_health = \"//elsewhere/\"
[[feeds.a.gates]]
gate = 1
hedge_after = \"1s\"
[[feeds.a.gates]]
gate = 1
";
    fs::write(place.path().join("bad.toml"), text).unwrap();
    let expected = [
        "bad.toml:2:1: the least concurrency, 3",
        "bad.toml:3:13: retry_cap: expected a duration",
        "bad.toml:4:1: feed \"b\" has no handler",
        "bad.toml:5:1: bearer_env: the variable GATEFEED_UNSET is not set",
        "bad.toml:6:1: unknown key \"max_retrys\" in [feeds.b]; did you mean \"max_retries\"?",
        "bad.toml:9:1: the health path",
        "bad.toml:12:1: with hedge_after",
        "bad.toml:14:1: gate 1 is there twice",
    ];
    for args in [["config", "check", "bad.toml"].as_slice(), &["run", "--config", "bad.toml"]] {
        let said = place.run(args).err;
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("bad.toml:")).collect();
        assert_eq!(lines.len(), expected.len(), "{said}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.contains(expected), "{line} instead of {expected}");
        }
    }
}

#[test]
fn what_flags_bring_about_is_told_too_and_what_they_mend_is_not() {
    let place = Place::new();
    let file = |text: &str| fs::write(place.path().join("a.toml"), text).unwrap();
    let refused = |args: &[&str], expected: &str| place.fails(&[&["run"], args].concat(), 2, &[expected]);
    let to = ["--target", "http://127.0.0.1:9/"];
    let with = |args: &[&'static str]| [&to, args].concat();
    refused(&with(&["--callback-timeout", "5m"]), "callback_timeout needs --listen");
    refused(&with(&["--batch-linger", "5ms"]), "batch_linger does nothing without batch_size");
    refused(&with(&["--request-timeout", "200us"]), "expected whole milliseconds");
    refused(&with(&["--ca-file", "none"]), "the certificate authorities: cannot read");
    refused(&with(&["--deny-private"]), "the target http://127.0.0.1:9/ will not do");
    refused(&with(&["--signing-secret-file", "none"]), "the signing secret: cannot read");
    file("max_concurrency = 2\n");
    refused(&with(&["--config", "a.toml", "--min-concurrency", "3"]), "a.toml:1:1: the least concurrency, 3");
    file("request_timeout = \"1s\"\nidempotent = true\nhedge_after = \"5s\"\ncallback_timeout = \"1m\"\n");
    let args = [&["run", "--config", "a.toml", "--until-idle"], to.as_slice()].concat();
    place.fails(&args, 2, &["a.toml:3:1: hedge_after", "a.toml:4:1: callback_timeout"]);
    place.succeeds(&[&args, ["--request-timeout", "1m", "--listen", "127.0.0.1:0"].as_slice()].concat());
    let both = place
        .command(&[&args, ["--signing-secret-file", "none"].as_slice()].concat())
        .env("GATEFEED_SIGNING_SECRET", "x")
        .output();
    let said = String::from_utf8(both.unwrap().stderr).unwrap();
    assert!(said.contains("--signing-secret-file and GATEFEED_SIGNING_SECRET are both there"), "{said}");
}

/// A key for all is of use if it is to one of those that inherit it, whoever serves that one; and how many targets a flag
/// names is not the file's.
#[test]
fn what_is_of_use_somewhere_is_not_refused() {
    let place = Place::new();
    let file = |text: &str| fs::write(place.path().join("good.toml"), text).unwrap();
    file(
        "listen = \"127.0.0.1:0\"\ncallback_timeout = \"5m\"\nhedge_after = \"1s\"\nhedge_greatest = \"/v\"\n\
         idempotent = true\n[feeds.a]\ntarget = \"http://a/\"\nbatch_size = 5\n\
         [feeds.b]\ntarget = [\"http://a/\", \"http://b/\"]\n",
    );
    place.succeeds(&["config", "check", "good.toml"]);
    place.succeeds(&["run", "--config", "good.toml", "--feed", "a", "--until-idle"]);
    file("hedge_after = \"1s\"\nidempotent = true\n");
    place.succeeds(&["run", "--config", "good.toml", "--target", "http://127.0.0.1:9/", "--until-idle"]);
    let args = ["--listen", "127.0.0.1:0", "--batch-size", "5", "--callback-timeout", "5m"];
    let args = [["run", "--target", "http://127.0.0.1:9/"].as_slice(), &args].concat();
    place.fails(&args, 2, &["callback_timeout does nothing with batch_size"]);
}

#[test]
fn a_file_that_is_not_utf8_is_told_with_its_place() {
    let place = Place::new();
    fs::write(place.path().join("bad.toml"), b"target = \"http://h/\"\nname = \"\xff\"\n").unwrap();
    place.fails(&["config", "check", "bad.toml"], 2, &["bad.toml:2:9: the file is not UTF-8 here"]);
}

/// Of two keys of which one is above the other's default, that one is said; the default gives way.
#[test]
fn a_default_gives_way_to_what_is_said() {
    let place = Place::new();
    for text in
        ["retry_cap = \"100ms\"", "retry_base = \"10m\"", "breaker_failures = 1\nbreaker_open = \"10m\""]
    {
        fs::write(place.path().join("good.toml"), format!("target = \"http://h/\"\n{text}\n")).unwrap();
        place.succeeds(&["config", "check", "good.toml"]);
    }
}

#[test]
fn flags_and_variables_go_before_the_file_and_gates_and_feeds_before_what_is_for_all() {
    let place = Place::migrated();
    place.fill(3);
    let url = handler("200 OK");
    let text = format!(
        "target = \"http://127.0.0.1:9/\"\n[feeds.default]\nmax_retries = 0\n[feeds.other]\ntarget = \"{url}\"\n"
    );
    fs::write(place.path().join("gatefeed.toml"), text).unwrap();
    let args = ["run", "--config", "gatefeed.toml", "--until-idle"];
    let mut command = place.command(&args);
    let done = command.env("GATEFEED_TARGET", &url).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let items = json(&place.succeeds(&["items", "p", "--json"]));
    assert!(items.as_array().unwrap().iter().all(|item| item["status"] == "complete"), "{items}");
}

#[test]
fn the_example_of_the_page_is_valid() {
    let page = include_str!("../../../../docs/configuration.md");
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let place = Place::new();
    fs::write(place.path().join("gatefeed.toml"), example).unwrap();
    let checked = json(&place.succeeds(&["config", "check", "gatefeed.toml", "--json"]));
    assert!(checked["routes"].as_array().unwrap().len() >= 4, "{checked}");
}
