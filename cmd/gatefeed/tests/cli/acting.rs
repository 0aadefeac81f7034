//! What operators do.

use gatefeed_core::partition::NewPartition;

use crate::place::{Place, Running, handler, json};

#[test]
fn acting_tells_what_happened() {
    let place = Place::migrated();
    for command in ["retry", "seal", "advance", "pause", "resume", "cancel", "why"] {
        place.fails(&[command, "nobody"], 1, &["nobody", "gatefeed partitions"]);
    }
    place.fails(&["rewind", "nobody", "--gate", "0"], 1, &["nobody"]);
    place.fails(&["rewind", "nobody"], 2, &["--gate"]);
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
fn setting_aside_and_ending() {
    let place = Place::migrated();
    place.fill(3);
    assert!(place.succeeds(&["pause", "p"]).contains("p is paused"));
    assert_eq!(json(&place.succeeds(&["pause", "p", "--json"]))["status"], "paused");
    assert!(place.succeeds(&["partitions"]).contains("paused"));
    assert!(place.succeeds(&["resume", "p"]).contains("p goes on"));
    place.fails(&["resume", "p"], 1, &["is not paused: it is available"]);
    assert!(place.succeeds(&["cancel", "p"]).contains("p is cancelled, and with it 3 open items"));
    let again = json(&place.succeeds(&["cancel", "p", "--json"]));
    assert_eq!(again, json(r#"{"partition": "p", "cancelled": 0}"#));
    place.fails(&["pause", "p"], 1, &["cannot be paused: it is cancelled"]);
    assert!(place.succeeds(&["why", "p"]).contains("It is cancelled: cancelled by an operator"));
    let partitions = json(&place.succeeds(&["partitions", "--json"]));
    assert_eq!(partitions[0]["reason"], "cancelled by an operator");
}

#[test]
fn going_back() {
    let place = Place::migrated();
    place.fill(1);
    place.fails(&["rewind", "p", "--gate", "0"], 1, &["keeps no history", "keep_history"]);
    std::fs::write(place.path().join("rows"), "1\n2\n").unwrap();
    let settings = ["--keep-history", "--failure-policy", "5%", "--gate-deadline", "2h"];
    place.succeeds(&[&["push", "--partition", "q", "rows"], &settings[..]].concat());
    let row = &json(&place.succeeds(&["partitions", "--id", "q", "--json"]))[0];
    assert_eq!(
        (&row["keep_history"], &row["failure_policy"], &row["gate_deadline_seconds"]),
        (&json("true"), &json(r#""5%""#), &json("7200"))
    );
    let done = place.run(&[&["push", "--partition", "p", "rows"], &settings[..]].concat());
    for flag in ["--keep-history", "--failure-policy", "--gate-deadline"] {
        assert!(done.err.contains(&format!("with another setting: {flag} changed nothing")), "{}", done.err);
    }
    assert!(
        !place.run(&[&["push", "--partition", "q", "rows"], &settings[..]].concat()).err.contains("nothing")
    );
    let url = handler("200 OK");
    place.succeeds(&["run", "--until-idle", "--target", &url]);
    place.fails(&["rewind", "q", "--gate", "1"], 1, &["it is at gate 0"]);
    let text = place.succeeds(&["rewind", "q", "--gate", "0"]);
    assert!(text.contains("q is back at gate 0: 4 items are available again."), "{text}");
    let rewound = json(&place.succeeds(&["rewind", "q", "--gate", "0", "--json"]));
    assert_eq!(rewound, json(r#"{"partition": "q", "gate": 0, "items": 4, "removed": 0}"#));
    for bad in [["--failure-policy", "5 %"], ["--gate-deadline", "1500ms"], ["--gate-deadline", "0s"]] {
        place.fails(&[&["push", "--partition", "r", "rows"], &bad[..]].concat(), 2, &["expected"]);
    }
}

#[test]
fn why_tells_what_holds_a_partition_and_what_to_do() {
    let place = Place::migrated();
    place.fill(2);
    let why = place.succeeds(&["why", "p"]);
    for text in
        ["p: available at gate 0", "held by 2 open items", "item-00000", "No watcher serves", "To do: Start"]
    {
        assert!(why.contains(text), "{text:?} not in {why}");
    }
    let url = handler("500 Internal Server Error");
    place.fails(&["run", "--until-idle", "--max-retries", "0", "--target", &url], 3, &["failed"]);
    let why = place.succeeds(&["why", "p"]);
    for text in ["the failure policy is 'stop'", "The last error of item-00000: HTTP 500", "gatefeed retry p"]
    {
        assert!(why.contains(text), "{text:?} not in {why}");
    }
    let why = place.succeeds(&["why", "p", "item-00001"]);
    assert!(why.contains("item-00001 of p: failed at gate 0") && why.contains("--item item-00001"), "{why}");
    place.fails(&["why", "p", "nothing"], 1, &["has no item", "nothing"]);
    let held = NewPartition { manual_checkpoint: true, ..NewPartition::new("held") };
    place.push(held, &[("late", 7, b"{}")]);
    let why = place.succeeds(&["why", "held"]);
    assert!(why.contains("manual_checkpoint holds it") && why.contains("gatefeed seal held"), "{why}");
}

/// A handler that never answers; the delivery ends when the partition does.
#[test]
fn a_running_watcher_gives_up_what_is_cancelled() {
    let place = Place::migrated();
    place.fill(1);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut watcher = Running::start(place.command(&["run", "--until-idle", "--target", &url]));
    let (_connection, _) = listener.accept().unwrap();
    assert!(place.succeeds(&["why", "p"]).contains("due, in flight or next"));
    assert!(place.succeeds(&["cancel", "p"]).contains("1 open item."));
    assert_eq!(watcher.wait(), Some(0));
}
