//! `retry`, `seal` and `advance`.

use gatefeed_core::partition::NewPartition;

use crate::place::{Place, handler, json};

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
