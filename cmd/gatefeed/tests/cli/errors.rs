//! What is said when something is wrong.

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt};

use crate::{
    help::commands,
    place::{Done, Place, json},
};

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
    place.fails(&["partitions", "--limit", "-1"], 2, &["--limit", "from 1 to 9999"]);
    place.fails(&["bench", "drain", "--items", "-1"], 2, &["--items", "from 1 to"]);
    place.fails(&["bench", "http", "--payload", "10GB"], 2, &["--payload", "at most 100MB"]);
    for (args, expected) in [
        (["--connections", "513", "--payload", "1"], "takes 512 connections"),
        (["--connections", "1", "--payload", "20MB"], "up to 16777216 bytes"),
        (["--connections", "64", "--payload", "10MB"], "fewer --connections, or a smaller --payload"),
    ] {
        place.fails(&[&["bench", "ingest"], &args[..]].concat(), 2, &[expected]);
    }
    place.fails(&["partitions", "--status", "waiting"], 2, &["paused"]);
    place.fails(&["items", "p", "--status", "paused"], 2, &["blocked"]);
    place.fails(&["items", "p", "--gate", "-1"], 2, &["from 0 to"]);
    place.fails(&["items"], 2, &["PARTITION"]);
    place.fails(&["demo", "--top", "0"], 2, &["from 1 to 1000"]);
    place.fails(&["demo", "--query", "!!"], 1, &["no word to look for"]);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn words_that_were_taken_for_something_else_are_named_with_what_to_write() {
    let place = Place::migrated();
    place.fails(&["status", "--watch", "5s"], 2, &["'5s'", "--watch=5s"]);
    place.fails(&["items", "p", "--watch", "5s"], 2, &["--watch=5s"]);
    place.fails(&["items", "-dash"], 2, &["-- -dash\n"]);
    place.fails(&["items", "--", "-dash"], 1, &["-dash", "does not exist"]);
    assert!(!place.run(&["status", "5s", "--watch"]).err.contains("--watch=5s"));
    let refused = |mut command: std::process::Command| {
        let done = Done::from(command.output().unwrap());
        assert_eq!(done.code, Some(2));
        done.err
    };
    let not_utf8 = OsStr::from_bytes(b"a\xffb");
    let mut typed = place.command(&["items"]);
    typed.arg(not_utf8);
    assert!(refused(typed).contains(r#"Not UTF-8: "a\xFFb""#));
    let mut from_environment = place.command(&["items"]);
    from_environment.env("GATEFEED_PARTITION", not_utf8);
    assert!(refused(from_environment).contains("variable GATEFEED_PARTITION"));
    assert!(place.run(&["bench", "drain", "--items", "none"]).err.contains("from 1 to"));
}

#[test]
fn a_value_that_was_not_typed_is_told_with_its_variable() {
    let place = Place::new();
    for (args, variable) in [(&["partitions"][..], "GATEFEED_LIMIT"), (&["bench", "drain"], "GATEFEED_GATES")]
    {
        let done = Done::from(place.command(args).env(variable, "many").output().unwrap());
        assert!(done.code == Some(2) && done.err.contains(&format!("variable {variable}")), "{}", done.err);
    }
}

/// The flags without a value of a command that its help tells of, each with its variable.
fn switches(help: &str) -> Vec<(String, String)> {
    let mut switches = Vec::new();
    let mut flag = None;
    for line in help.lines().map(str::trim_start) {
        if line.starts_with('-') {
            let is_switch = !line.contains('<');
            flag = line.split_whitespace().find(|word| word.starts_with("--")).filter(|_| is_switch);
        }
        let variable = line.split_once("[env: ").and_then(|(_, rest)| rest.split([']', '=']).next());
        if let Some((flag, variable)) = flag.zip(variable) {
            switches.push((flag.to_owned(), variable.to_owned()));
        }
    }
    switches
}

#[test]
fn the_variable_of_a_flag_without_a_value_is_true_or_false() {
    let place = Place::new();
    let mut count = 0;
    for command in commands() {
        for (flag, variable) in switches(&place.succeeds(&[&command[..], &["--help"]].concat())) {
            let done = Done::from(place.command(&command).env(&variable, "maybe").output().unwrap());
            let texts = [&format!("'maybe' for '{flag}': expected true or false"), &variable];
            assert!(
                done.code == Some(2) && texts.iter().all(|text| done.err.contains(*text)),
                "{}",
                done.err
            );
            count += 1;
        }
    }
    // A dozen listings and what acts have --json alone.
    assert!(count > 25, "only {count} were found");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "something was done");
}

#[test]
fn a_flag_whose_variable_says_no_is_as_if_it_were_not_there() {
    let place = Place::migrated();
    let listed = |value: &str| {
        let mut command = place.command(&["partitions"]);
        let done = Done::from(command.env("GATEFEED_JSON", value).output().unwrap());
        assert_eq!(done.code, Some(0), "{value:?}: {}", done.err);
        done.out.trim_start().starts_with('[')
    };
    for (value, is_json) in
        [("true", true), ("YES", true), ("1", true), ("no", false), ("0", false), ("", false)]
    {
        assert_eq!(listed(value), is_json, "{value:?}");
    }
    // Neither in the place of a flag that is required …
    let done = Done::from(place.command(&["prune"]).env("GATEFEED_PRUNE_BLOBS", "no").output().unwrap());
    assert!(done.code == Some(2) && done.err.contains("--blobs"), "{}", done.err);
    // … nor at odds with another one.
    fs::write(place.path().join("one"), "1").unwrap();
    let push = ["push", "--partition", "p", "--files", "one"];
    let done = Done::from(place.command(&push).env("GATEFEED_ENVELOPE", "off").output().unwrap());
    assert_eq!(done.code, Some(0), "{}", done.err);
}

#[test]
fn databases_that_will_not_do() {
    let place = Place::new();
    let url = |url: &'static str| ["status", "--database-url", url];
    place.fails(&url("mysql://root@localhost/x"), 2, &["sqlite://", "postgres://"]);
    place.fails(&url("gatefeed.db"), 2, &["sqlite://", "postgres://"]);
    fs::write(place.path().join("text"), "a page of text that is surely not a database").unwrap();
    place.fails(&url("sqlite://text"), 2, &["is not a SQLite database"]);
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
fn logs_can_be_json_and_so_are_errors() {
    let place = Place::new();
    let done = place.run(&["status", "--log-format", "json"]);
    assert_eq!(done.code, Some(1));
    assert!(json(done.err.trim())["error"].as_str().unwrap().contains("does not exist"), "{}", done.err);
}
