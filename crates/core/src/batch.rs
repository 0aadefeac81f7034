//! A batch as handlers see it: a JSON array of items, and the array of what becomes of them.

use std::{borrow::Cow, collections::HashMap};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    answer::{self, Answer, Failure, Verdict, is_json},
    id::idempotency_key,
};

/// An item of a batch, as it is sent.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// The partition, the same for the whole batch.
    pub partition: &'a str,
    /// The item's id.
    pub item: &'a str,
    /// The gate, the same for the whole batch.
    pub gate: i32,
    /// How often it has been accepted.
    pub pass: i32,
    /// 1 for the first delivery at this gate.
    pub attempt: u32,
    /// What the data is.
    pub content_type: &'a str,
    /// The data.
    pub data: &'a [u8],
}

/// Bytes of an entry beside its data, about.
const ENTRY_BYTES: usize = 200;

/// The body of a batch: `[{"partition", "item", "gate", "attempt", "idempotency_key", "data"}, …]`; data that is no JSON as
/// `"data_base64"` and `"content_type"`, none as null.
pub fn body<'a>(entries: impl ExactSizeIterator<Item = Entry<'a>> + Clone) -> Vec<u8> {
    let bytes: usize = entries.clone().map(|entry| ENTRY_BYTES + entry.data.len()).sum();
    let mut body = Vec::with_capacity(bytes);
    body.push(b'[');
    for (index, entry) in entries.enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write(&mut body, &entry);
    }
    body.push(b']');
    body
}

fn write(body: &mut Vec<u8>, entry: &Entry<'_>) {
    let Entry { partition, item, gate, pass, attempt, content_type, data } = *entry;
    let key = idempotency_key(partition, item, pass);
    let mut key_text = Uuid::encode_buffer();
    let key_text = key.hyphenated().encode_lower(&mut key_text);
    body.extend_from_slice(b"{\"partition\":");
    write_text(body, partition);
    body.extend_from_slice(b",\"item\":");
    write_text(body, item);
    body.extend_from_slice(b",\"gate\":");
    body.extend_from_slice(gate.to_string().as_bytes());
    body.extend_from_slice(b",\"attempt\":");
    body.extend_from_slice(attempt.to_string().as_bytes());
    body.extend_from_slice(b",\"idempotency_key\":\"");
    body.extend_from_slice(key_text.as_bytes());
    body.extend_from_slice(b"\",");
    if is_json(content_type) && data.is_empty() {
        body.extend_from_slice(b"\"data\":null");
    } else if is_json(content_type) && is_value(data) {
        body.extend_from_slice(b"\"data\":");
        body.extend_from_slice(data);
    } else {
        body.extend_from_slice(b"\"data_base64\":\"");
        body.extend_from_slice(BASE64_STANDARD.encode(data).as_bytes());
        body.extend_from_slice(b"\",\"content_type\":");
        write_text(body, content_type);
    }
    body.push(b'}');
}

/// Whether these bytes are one JSON value, so that they can stand in the body as they are.
fn is_value(data: &[u8]) -> bool {
    // What is ignored is not checked for UTF-8.
    std::str::from_utf8(data).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

fn write_text(body: &mut Vec<u8>, text: &str) {
    // Writing to memory does not fail.
    _ = serde_json::to_writer(body, text);
}

/// What an answer has to look like, for messages.
const EXPECTED: &str = "expected a JSON array with an object such as {\"item\": \"…\", \"done\": true} for each item of the batch";

/// The key of a batch: of the same items in the same passes the same one.
pub fn batch_key(keys: impl Iterator<Item = Uuid>) -> Uuid {
    let bytes: Vec<u8> = keys.flat_map(|key| key.into_bytes()).collect();
    Uuid::new_v5(&Uuid::NAMESPACE_OID, &bytes)
}

/// Reads a 2xx answer to a batch of these items; the verdicts are in their order. What it says nothing of, or two things, is
/// a failed attempt, and so is each item of an answer that is no array.
pub fn parse(body: &[u8], items: &[&str]) -> Vec<Verdict> {
    match entries(body) {
        Ok(entries) => verdicts(entries, items),
        Err(message) => items.iter().map(|_| Err(Failure::new(message.clone()))).collect(),
    }
}

fn entries(body: &[u8]) -> Result<Vec<&RawValue>, String> {
    let text = std::str::from_utf8(body).map_err(|_| format!("the answer is not UTF-8 text; {EXPECTED}"))?;
    serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => format!("the answer to the batch is not an array; {EXPECTED}"),
        _ => format!("the answer is not JSON ({error}); {EXPECTED}"),
    })
}

fn verdicts(entries: Vec<&RawValue>, items: &[&str]) -> Vec<Verdict> {
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(items.len());
    places.extend(items.iter().enumerate().map(|(place, item)| (*item, place)));
    let mut verdicts: Vec<Option<Verdict>> = items.iter().map(|_| None).collect();
    for entry in entries {
        let Some((item, verdict)) = verdict(entry) else { continue };
        let Some(place) = places.get(&*item) else { continue };
        let told = &mut verdicts[*place];
        *told = Some(match told {
            None => verdict,
            Some(_) => Err(Failure::new("the answer to the batch names this item twice")),
        });
    }
    let missing =
        || Err(Failure::new(format!("the answer to the batch says nothing of this item; {EXPECTED}")));
    verdicts.into_iter().map(|verdict| verdict.unwrap_or_else(missing)).collect()
}

/// The item that an entry names, and what becomes of it. `None`: it names none.
fn verdict<'a>(entry: &'a RawValue) -> Option<(Cow<'a, str>, Verdict)> {
    let fields: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(entry.get()).ok()?;
    let item: Text<'a> = serde_json::from_str(fields.get("item")?.get()).ok()?;
    // As {} means done for a single item.
    let verdict = if fields.len() == 1 { Ok(Answer::done()) } else { answer::parse(entry.get().as_bytes()) };
    Some((item.0, verdict))
}

/// A string that is not copied unless it has escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry<'a>(item: &'a str, content_type: &'a str, data: &'a [u8]) -> Entry<'a> {
        Entry { partition: "p\"q", item, gate: 2, pass: 3, attempt: 4, content_type, data }
    }

    #[test]
    fn json_stands_as_it_is_and_bytes_as_base64() {
        let json = "application/json";
        let entries = [
            entry("a", json, b"{\"n\": 123456789012345678901234567890.10}\n"),
            entry("b\n", json, b""),
            entry("c", "image/png", b"\0\xff"),
            entry("d", json, b"{broken"),
            entry("e", json, b"\"\xff\""),
        ];
        let body = String::from_utf8(body(entries.into_iter())).unwrap();
        let a = "{\"partition\":\"p\\\"q\",\"item\":\"a\",\"gate\":2,\"attempt\":4,\"idempotency_key\":\"";
        assert!(body.starts_with(&format!("[{a}{}\",", idempotency_key("p\"q", "a", 3))), "{body}");
        assert!(body.contains("\"data\":{\"n\": 123456789012345678901234567890.10}\n}"), "{body}");
        let values: Vec<serde_json::Value> = serde_json::from_str(&body).unwrap();
        assert_eq!((&values[1]["item"], &values[1]["data"]), (&"b\n".into(), &serde_json::Value::Null));
        assert!(values[1].as_object().unwrap().contains_key("data"));
        let bytes = |n: usize| (values[n]["data_base64"].as_str(), values[n]["content_type"].as_str());
        assert_eq!(bytes(2), (Some("AP8="), Some("image/png")));
        assert_eq!((bytes(3).1, bytes(4)), (Some(json), (Some("Iv8i"), Some(json))));
    }

    #[test]
    fn each_item_gets_its_verdict_in_whatever_order() {
        let body = r#"[{"item":"c","error":{"message":"no"}},{"item":"a"},{"item":"b","gate":1,"data":2},
                       {"item":"stranger"},{"item":"twice"},{"item":"twice","gate":2},7,{"done":true}]"#;
        let verdicts = parse(body.as_bytes(), &["a", "b", "c", "d", "twice"]);
        assert_eq!(verdicts[0], Ok(Answer::done()));
        assert_eq!(verdicts[1], Ok(Answer::to_gate(1).with_data(crate::item::Data::json("2"))));
        assert_eq!(verdicts[2], Err(Failure::new("no")));
        let message = |n: usize| verdicts[n].as_ref().unwrap_err().message.clone();
        assert!(message(3).contains("says nothing of this item") && message(4).contains("twice"));
    }

    #[test]
    fn an_answer_that_is_no_array_is_a_failed_attempt_of_each() {
        for (body, expected) in [
            ("", "not JSON"),
            ("{}", "not an array"),
            ("ok", "not JSON"),
            ("[{\"item\":\"a\"}", "not JSON"),
            ("[] []", "not JSON"),
            ("null", "not an array"),
        ] {
            let verdicts = parse(body.as_bytes(), &["a", "b"]);
            assert_eq!(verdicts.len(), 2);
            for verdict in verdicts {
                let failure = verdict.unwrap_err();
                assert!(failure.counted && failure.message.contains(expected), "{body}: {failure:?}");
            }
        }
        assert!(parse(b"[\"\xff\"]", &["a"])[0].as_ref().unwrap_err().message.contains("UTF-8"));
    }

    #[test]
    fn a_batchs_key_is_that_of_its_items_and_passes() {
        let key =
            |passes: [i32; 2]| batch_key(passes.into_iter().map(|pass| idempotency_key("p", "i", pass)));
        assert_eq!(key([0, 1]), key([0, 1]));
        assert_ne!(key([0, 1]), key([1, 1]));
    }

    proptest! {
        #[test]
        fn any_bytes_get_as_many_verdicts_as_there_are_items(body in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(parse(&body, &["a", "b"]).len(), 2);
        }

        #[test]
        fn any_data_makes_a_body_that_is_json(data in prop::collection::vec(any::<u8>(), 0..50), id in ".{1,20}") {
            let entries = [entry(&id, "application/json", &data), entry(&id, "x/y", &data)];
            let values: Vec<serde_json::Value> = serde_json::from_slice(&body(entries.into_iter())).unwrap();
            prop_assert!(values.iter().all(|value| value["item"] == id.as_str()));
        }
    }
}
