//! `run` as a process.

use std::{fs, net::TcpListener, process::Stdio};

use gatefeed_core::partition::NewPartition;
use serde_json::Value;

use crate::place::{Place, Running, get, handler, json};

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

    place.push(NewPartition::new("a/b"), &[("i", 0, b"{\n}")]);
    let gathered = |path: &str| get(&address, &format!("/v1/partitions/{path}"), "GET");
    let (status, body) = gathered("a%2Fb/gathered/0");
    assert!(status == 403 && body.contains("gathered_url"), "{body}");
    let (status, body) = gathered("a%2Fb/gathered/0?status=open");
    assert!(status == 400 && body.contains("complete, failed, cancelled or any"), "{body}");
    assert_eq!(gathered("a%2Fb/gathered/first").0, 400);

    place.fails(
        &["run", "--target", "http://127.0.0.1:9/", "--listen", &address],
        1,
        &["cannot listen on", &address],
    );
    running.signal("TERM");
    assert_eq!(running.wait(), Some(0));
}

#[test]
fn a_certificate_that_is_not_there_is_known_before_the_database_is_touched() {
    let place = Place::new();
    let tls = ["--listen", "127.0.0.1:0", "--tls-cert", "none.pem", "--tls-key", "none.key"];
    for command in [&["run", "--target", "http://127.0.0.1:9/"][..], &["serve"]] {
        place.fails(&[command, &tls].concat(), 2, &["cannot serve over TLS", "none."]);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "{command:?} made a database");
    }
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
