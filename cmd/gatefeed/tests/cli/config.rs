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
    fs::write(place.path().join("links.toml"), "target = \"http://h/\"\n[feeds.a]\nblob_links = true\n")
        .unwrap();
    place.fails(&["run", "--config", "links.toml", "--feed", "a"], 1, &["blob_links needs --blob-store"]);
    place.fails(&["config", "check", "missing.toml"], 2, &["missing.toml", "No such file"]);
    place.fails(&["config", "check"], 2, &["FILE"]);
    place.fails(&["run"], 2, &["--target", "--gate-target", "--config"]);
    place.fails(&["run", "--gate-target", "http://h/"], 2, &["--gate-target", "1=http://127.0.0.1:8000/"]);
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
