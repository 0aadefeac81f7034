//! What a line means: an item's data as it stands, or an envelope around it.

use std::str::FromStr;

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike, Utc};
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::IgnoredAny};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    dependency::{Dependencies, Input, OnDependencyFailure},
    gather::{self, Gather},
    id::{JSON, check_content_type, check_id},
    item::{Data, NewItem},
};

/// How much of a value a message shows.
const SHOWN_CHARS_MAX: usize = 60;

/// How the lines of the input are read.
#[derive(Clone, Debug)]
pub struct Format {
    /// The partition of the items.
    pub partition: String,
    /// The gate of items that name none.
    pub gate: i32,
    /// Whether each line is an envelope.
    pub is_envelope: bool,
}

impl Format {
    /// The item that a line stands for, or what is wrong with the line. `indent` is what stood before the text.
    pub fn item(&self, line: Vec<u8>, indent: u64) -> Result<NewItem, String> {
        let text = String::from_utf8(line).map_err(|error| {
            let place = error.utf8_error().valid_up_to() as u64 + indent + 1;
            format!("not UTF-8 from byte {place} on; expected JSON in UTF-8")
        })?;
        if self.is_envelope { self.envelope(&text, indent) } else { self.plain(text, indent) }
    }

    fn plain(&self, text: String, indent: u64) -> Result<NewItem, String> {
        serde_json::from_str::<IgnoredAny>(&text)
            .map_err(|error| format!("not JSON: {}; expected one JSON value", problem(&error, indent)))?;
        Ok(self.with_id(None, Data::json(text)))
    }

    fn envelope(&self, text: &str, indent: u64) -> Result<NewItem, String> {
        if !text.starts_with('{') {
            return Err(format!("not an envelope: expected {EXPECTED}"));
        }
        let fields: Fields<'_> = serde_json::from_str(text)
            .map_err(|error| format!("{}; expected {EXPECTED}", problem(&error, indent)))?;
        let id: Option<String> = typed("id", fields.id, "a string")?;
        if let Some(id) = &id {
            check_id("id", id).map_err(|error| error.to_string())?;
        }
        let gate: Option<i32> = typed("gate", fields.gate, GATE)?;
        let gate = gate.unwrap_or(self.gate);
        if gate < 0 {
            return Err(format!("gate is {gate}, expected {GATE}"));
        }
        Ok(NewItem {
            gate,
            priority: typed("priority", fields.priority, "a whole number of 32 bits")?.unwrap_or(0),
            available_at: fields.available_at.map(available_at).transpose()?,
            dependencies: fields.dependencies(id.as_deref())?,
            gather: fields.gather()?,
            ..self.with_id(id, fields.data()?)
        })
    }

    /// Ids that grow keep the database's index warm.
    fn with_id(&self, id: Option<String>, data: Data) -> NewItem {
        let id = id.unwrap_or_else(|| Uuid::now_v7().to_string());
        NewItem { gate: self.gate, ..NewItem::new(&self.partition, id, data) }
    }
}

/// What an envelope looks like, for messages.
pub const EXPECTED: &str = "a JSON object with data and, if need be, id, gate, priority, available_at, content_type, depends_on, \
     on_dependency_failure, input and gather";

/// What a gate looks like, for messages.
pub const GATE: &str = "a whole number from 0 to 2147483647";

/// What a time looks like, for messages.
pub const TIME: &str = "a time such as 2030-01-31T08:00:00Z, or 2030-01-31 08:00:00 for UTC";

/// An envelope. An unknown field and one that comes twice are errors: a typing error must not lose a value.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    gate: Option<&'a RawValue>,
    #[serde(borrow)]
    priority: Option<&'a RawValue>,
    #[serde(borrow)]
    available_at: Option<&'a RawValue>,
    #[serde(borrow)]
    content_type: Option<&'a RawValue>,
    #[serde(borrow)]
    depends_on: Option<&'a RawValue>,
    #[serde(borrow)]
    on_dependency_failure: Option<&'a RawValue>,
    #[serde(borrow)]
    gather: Option<&'a RawValue>,
    #[serde(borrow)]
    input: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "even_null")]
    data: Option<&'a RawValue>,
}

/// null is data like any other.
fn even_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(deserializer).map(Some)
}

impl Fields<'_> {
    fn gather(&self) -> Result<Option<Gather>, String> {
        let parse = |raw: &RawValue| {
            Gather::parse(raw.get()).map_err(|_| unexpected("gather", raw, gather::EXPECTED))
        };
        self.gather.map(parse).transpose()
    }

    fn dependencies(&self, id: Option<&str>) -> Result<Dependencies, String> {
        let dependencies = Dependencies {
            on: typed("depends_on", self.depends_on, "an array of ids")?.unwrap_or_default(),
            on_failure: word("on_dependency_failure", self.on_dependency_failure, "fail, skip or run")?
                .unwrap_or(OnDependencyFailure::Fail),
            input: word("input", self.input, "\"parent\"")?.unwrap_or(Input::Own),
        };
        if dependencies.input == Input::Parent && dependencies.is_empty() {
            return Err("input is \"parent\", but depends_on names nobody: name one item".to_owned());
        }
        dependencies.check(id).map(|()| dependencies)
    }

    /// JSON as it stands; with another content type, the text of a string: as in the items of an answer.
    fn data(&self) -> Result<Data, String> {
        let raw = match self.data {
            Some(raw) => raw,
            None if self.input.is_some() => return Ok(Data::json("null")),
            None => return Err(format!("data is missing; expected {EXPECTED}")),
        };
        let content_type: Option<String> = typed("content_type", self.content_type, "a string")?;
        let content_type = content_type.unwrap_or_else(|| JSON.to_owned());
        check_content_type(&content_type).map_err(|error| error.to_string())?;
        let bytes = if is_json(&content_type) {
            raw.get().to_owned()
        } else {
            let text = serde_json::from_str::<String>(raw.get());
            text.map_err(|_| format!("data must be a string where content_type is {content_type}"))?
        };
        Ok(Data { bytes: bytes.into(), content_type })
    }
}

/// Whether it is JSON, as answers see it: `application/json`, `application/problem+json; charset=utf-8`.
pub fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    essence == JSON || essence.ends_with("+json")
}

/// What is over `max` characters is cut.
fn shortened(text: &str, max: usize) -> String {
    let mut shown: String = text.chars().take(max).collect();
    if text.chars().nth(max).is_some() {
        shown.push('…');
    }
    shown
}

fn typed<T: DeserializeOwned>(
    name: &str,
    raw: Option<&RawValue>,
    expected: &str,
) -> Result<Option<T>, String> {
    let Some(raw) = raw else { return Ok(None) };
    serde_json::from_str(raw.get()).map(Some).map_err(|_| unexpected(name, raw, expected))
}

/// One of a few words.
fn word<T: FromStr>(name: &str, raw: Option<&RawValue>, expected: &str) -> Result<Option<T>, String> {
    let Some(text) = typed::<String>(name, raw, expected)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| format!("{name} is {text:?}, expected {expected}"))
}

fn unexpected(name: &str, raw: &RawValue, expected: &str) -> String {
    format!("{name} is {}, expected {expected}", shortened(raw.get(), SHOWN_CHARS_MAX))
}

fn available_at(raw: &RawValue) -> Result<DateTime<Utc>, String> {
    let text = serde_json::from_str::<String>(raw.get()).ok();
    text.and_then(|text| parse_time(&text)).ok_or_else(|| unexpected("available_at", raw, TIME))
}

/// A time that both databases can hold: no leap second, a year of four digits.
pub fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let plain = || NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok().map(|at| at.and_utc());
    let zoned = DateTime::parse_from_rfc3339(text).ok().map(|at| at.to_utc());
    zoned.or_else(plain).filter(|at| (1..=9999).contains(&at.year()) && at.nanosecond() < 1_000_000_000)
}

/// serde_json's message, with the column as an editor counts it.
fn problem(error: &serde_json::Error, indent: u64) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(text) if error.column() > 0 => format!("{text} at column {}", error.column() as u64 + indent),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn format(is_envelope: bool) -> Format {
        Format { partition: "p".into(), gate: 3, is_envelope }
    }

    fn plain(line: &str) -> Result<NewItem, String> {
        format(false).item(line.into(), 0)
    }

    fn envelope(line: &str) -> Result<NewItem, String> {
        format(true).item(line.into(), 0)
    }

    #[test]
    fn a_line_is_kept_to_the_letter_and_gets_an_id_of_its_own() {
        for line in [r#"{"n": 123456789012345678901234567890.10}"#, "1e400", r#""ü""#, "null", "[ ]"] {
            let item = plain(line).unwrap();
            assert_eq!((item.data, item.gate), (Data::json(line.to_owned()), 3));
            assert!(plain(line).unwrap().id > item.id, "ids grow");
        }
    }

    #[test]
    fn what_is_not_json_says_where() {
        for (line, expected) in [
            ("{\"a\":1", "not JSON: EOF while parsing an object at column 6; expected one JSON value"),
            ("1 2", "trailing characters at column 3"),
            ("{'a':1}", "key must be a string at column 2"),
            ("\u{feff}1", "expected value at column 1"),
        ] {
            let error = plain(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
        let error = format(false).item(b"\"\xff\"".to_vec(), 2).unwrap_err();
        assert!(error.starts_with("not UTF-8 from byte 4 on"), "{error}");
        assert!(format(false).item(b"{".to_vec(), 4).unwrap_err().contains("at column 5"));
    }

    #[test]
    fn an_envelope_has_every_column() {
        let item = envelope(
            r#"{"id":"a/1","gate":2,"priority":-7,"available_at":"2030-01-31T08:00:00.5+01:00",
                "content_type":"application/vnd.x+json","data":{"n":1.0}}"#,
        )
        .unwrap();
        assert_eq!((item.id.as_str(), item.gate, item.priority), ("a/1", 2, -7));
        assert_eq!(item.available_at.unwrap().to_rfc3339(), "2030-01-31T07:00:00.500+00:00");
        assert_eq!(item.data.bytes, r#"{"n":1.0}"#);
        assert_eq!(item.data.content_type, "application/vnd.x+json");
        let item = envelope(r#"{"data":null,"id":null}"#).unwrap();
        assert_eq!((item.gate, item.priority, item.available_at), (3, 0, None));
        assert_eq!(item.data, Data::json("null"));
        let item = envelope(r#"{"data":"a\u0000\n","content_type":"text/plain"}"#).unwrap();
        assert_eq!(item.data, Data { bytes: "a\0\n".into(), content_type: "text/plain".into() });
    }

    #[test]
    fn an_envelope_says_what_it_gathers() {
        let item = envelope(r#"{"gather":{"gate":2},"data":1}"#).unwrap();
        assert_eq!(item.gather, Some(Gather { gate: 2, status: gather::Ended::Complete }));
        assert_eq!(envelope(r#"{"gather":null,"data":1}"#).unwrap().gather, None);
    }

    #[test]
    fn an_envelope_names_what_it_depends_on() {
        let item =
            envelope(r#"{"id":"c","depends_on":["a","b"],"on_dependency_failure":"skip","data":1}"#).unwrap();
        let on_failure = OnDependencyFailure::Skip;
        assert_eq!(item.dependencies, Dependencies { on_failure, ..Dependencies::on(["a", "b"]) });
        let item = envelope(r#"{"id":"c","depends_on":["a"],"input":"parent"}"#).unwrap();
        assert_eq!(item.dependencies, Dependencies { input: Input::Parent, ..Dependencies::on(["a"]) });
        assert!(envelope(r#"{"data":1}"#).unwrap().dependencies.is_empty());
    }

    #[test]
    fn a_bad_envelope_names_the_field() {
        for (line, expected) in [
            ("[1]", "not an envelope: expected a JSON object with data"),
            ("{}", "data is missing"),
            (r#"{"data":1,"prio":1}"#, "unknown field `prio`"),
            (r#"{"data":1,"data":2}"#, "duplicate field `data`"),
            (r#"{"data":1,"id":1}"#, "id is 1, expected a string"),
            (r#"{"data":1,"id":"a\nb"}"#, "id has the control character"),
            (r#"{"data":1,"id":""}"#, "id is empty"),
            (r#"{"data":1,"gate":-1}"#, "gate is -1, expected a whole number from 0"),
            (r#"{"data":1,"gate":1.5}"#, "gate is 1.5, expected"),
            (r#"{"data":1,"priority":"high"}"#, "priority is \"high\", expected a whole number"),
            (r#"{"data":1,"available_at":"soon"}"#, "available_at is \"soon\", expected a time such as"),
            (r#"{"data":1,"available_at":5}"#, "available_at is 5, expected"),
            (r#"{"data":1,"content_type":""}"#, "content type is empty"),
            (r#"{"data":1,"content_type":"text/plain"}"#, "data must be a string where content_type"),
            (r#"{"data":1,"depends_on":"a"}"#, "depends_on is \"a\", expected an array of ids"),
            (r#"{"data":1,"depends_on":["a","a"]}"#, "names \"a\" twice"),
            (r#"{"data":1,"id":"a","depends_on":["a"]}"#, "itself: a → a"),
            (r#"{"data":1,"on_dependency_failure":"stop"}"#, "is \"stop\", expected fail, skip or run"),
            (r#"{"data":1,"gather":1}"#, "gather is 1, expected {\"gate\": 0"),
            (r#"{"input":"parent"}"#, "depends_on names nobody"),
            (r#"{"data":1,"input":"child","depends_on":["a"]}"#, "input is \"child\", expected \"parent\""),
            (r#"{"data":1"#, "EOF while parsing an object at column 9"),
        ] {
            let error = envelope(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn times_are_what_both_databases_hold() {
        let shown = |text| parse_time(text).map(|at| at.format("%Y-%m-%d %H:%M:%S%.3f").to_string());
        assert_eq!(shown("2030-01-31 08:00:00").unwrap(), "2030-01-31 08:00:00.000");
        assert_eq!(shown("2030-01-31 08:00:00.25").unwrap(), "2030-01-31 08:00:00.250");
        assert_eq!(shown("2030-01-31T08:00:00Z").unwrap(), "2030-01-31 08:00:00.000");
        for bad in
            ["", "2030-01-31", "2030-02-30 08:00:00", "2030-12-31T23:59:60Z", "9999-12-31T23:00:00-02:00"]
        {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_item_or_a_message(line in prop::collection::vec(any::<u8>(), 0..60), envelope: bool) {
            if let Ok(item) = format(envelope).item(line, 0) {
                prop_assert!(check_id("id", &item.id).is_ok() && item.gate >= 0);
            }
        }

        #[test]
        fn any_json_is_data(line in r#"(\{"a":[1-9]{1,40}\}|\[("x",){0,3}true\]|"[a-z ]{0,9}"|-[1-9]{1,40}\.5)"#) {
            prop_assert_eq!(&plain(&line).unwrap().data.bytes[..], line.as_bytes());
            let item = envelope(&format!("{{\"data\": {line} }}")).unwrap();
            prop_assert_eq!(&item.data.bytes[..], line.as_bytes());
        }
    }
}
