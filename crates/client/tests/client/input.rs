//! Bad input: each with a text that names the thing, what was expected and where it is.

use chrono::{DateTime, TimeDelta, Utc};
use gatefeed_client::{Data, Error, IntoItem, Item, Partition, PartitionBuilder};
use serde::{Serialize, Serializer, ser::Error as _};

fn refused(builder: PartitionBuilder) -> String {
    let error = builder.build().unwrap_err();
    assert!(!error.is_retryable());
    error.to_string()
}

/// The text of an item that is third in its partition.
fn item(item: impl IntoItem) -> String {
    let error = Partition::builder("p").items(["a", "b"]).item(item).build().unwrap_err();
    assert!(matches!(error, Error::Item { index: 2, .. }), "{error:?}");
    error.to_string()
}

/// What has no JSON.
struct Broken;

impl Serialize for Broken {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(S::Error::custom("the disk is full"))
    }
}

#[test]
fn partitions_are_checked() {
    let name = "must be 1 to 512 bytes of UTF-8 without control characters";
    let text = refused(Partition::builder(""));
    assert_eq!(text, format!("partition \"\": partition id is empty; it {name}"));
    let text = refused(Partition::builder("a\nb"));
    assert_eq!(text, format!("partition \"a\\nb\": partition id has the control character '\\n'; it {name}"));
    let text = refused(Partition::builder("p").feed("f".repeat(513)));
    assert_eq!(text, format!("partition \"p\": feed has 513 bytes; it {name}"));
    let text = refused(Partition::builder("p").max_in_flight(0));
    assert_eq!(text, "partition \"p\": max_in_flight is 0; it must be from 1 to 2147483647");
    let text = refused(Partition::builder("p").max_in_flight(u32::MAX));
    assert_eq!(text, "partition \"p\": max_in_flight is 4294967295; it must be from 1 to 2147483647");
}

#[test]
fn items_are_checked() {
    let json = || Item::json("secret");
    assert_eq!(
        item(json().id("")),
        "items[2] (\"\"): item id is empty; it must be 1 to 512 bytes of UTF-8 without control characters"
    );
    assert_eq!(item(json().gate(-7)), "items[2]: gate is -7; it must be from 0 to 2147483647");
    let data = Data { bytes: "secret".into(), content_type: "text/plain\r\nX: y".into() };
    assert_eq!(
        item(Item::new(data).id("x")),
        "items[2] (\"x\"): content type has the control character '\\r'; it must be 1 to 255 bytes of UTF-8 without \
         control characters"
    );
    let late: DateTime<Utc> = "9999-12-31T23:59:59Z".parse().unwrap();
    assert_eq!(
        item(json().available_at(late + TimeDelta::seconds(1))),
        "items[2]: available_at is +10000-01-01 00:00:00 UTC; it must be in the years 1 to 9999"
    );
    assert!(Partition::builder("p").item(json().available_at(late)).build().is_ok());
}

#[test]
fn what_has_no_json_is_named() {
    assert_eq!(item(Broken), "items[2]: its data cannot be written as JSON: the disk is full");
    let text = item(Item::json(&Broken).id("x"));
    assert_eq!(text, "items[2] (\"x\"): its data cannot be written as JSON: the disk is full");
}

#[test]
fn text_that_is_not_json_is_named() {
    let text = item(Item::raw_json("{\"secret\": tru}").id("x"));
    assert_eq!(text, "items[2] (\"x\"): its data is not JSON: expected ident at line 1 column 15");
    let text = item(Item::raw_json("{} {}"));
    assert_eq!(text, "items[2]: its data is not JSON: trailing characters at line 1 column 4");
    let text = item(Item::raw_json(""));
    assert_eq!(text, "items[2]: its data is not JSON: EOF while parsing a value at line 1 column 0");
    let text = item(Item::bytes("", "x"));
    assert!(text.starts_with("items[2]: content type is empty"), "{text}");
}

#[test]
fn data_is_not_shown() {
    let partition = Partition::builder("p").item(Item::json("secret").id("x"));
    let shown = format!("{partition:?} {:?} {:?}", Item::json("secret"), partition.clone().build().unwrap());
    assert!(shown.contains("\"p\"") && !shown.contains("secret"), "{shown}");
}
