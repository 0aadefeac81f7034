//! Partitions and items as the API takes them.

use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::SecondsFormat;
use gatefeed_core::{
    Result, StoreError,
    envelope::is_json,
    item::{Data, NewItem},
    partition::NewPartition,
};
use serde::Serialize;
use serde_json::value::RawValue;

#[derive(Serialize)]
struct Body<'a> {
    id: &'a str,
    feed: &'a str,
    priority: i32,
    manual_checkpoint: bool,
    auto_close: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_in_flight: Option<u32>,
    failure_policy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    gate_deadline_seconds: Option<i32>,
    keep_history: bool,
    items: Vec<Envelope<'a>>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    id: &'a str,
    gate: i32,
    priority: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    available_at: Option<String>,
    content_type: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    depends_on: &'a [String],
    on_dependency_failure: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gather: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

/// A partition with its items, as one request.
pub(super) fn partition(partition: &NewPartition, items: &[NewItem]) -> Result<Vec<u8>> {
    let body = Body {
        id: &partition.id,
        feed: &partition.feed,
        priority: partition.priority,
        manual_checkpoint: partition.manual_checkpoint,
        auto_close: partition.auto_close,
        max_in_flight: partition.max_in_flight,
        failure_policy: partition.failure_policy.to_string(),
        gate_deadline_seconds: partition.gate_deadline_seconds()?,
        keep_history: partition.keep_history,
        items: items.iter().map(envelope).collect::<Result<_>>()?,
    };
    serde_json::to_vec(&body).map_err(|error| unwritable(&error))
}

fn envelope(item: &NewItem) -> Result<Envelope<'_>> {
    let raw = |text: String| RawValue::from_string(text).map_err(|error| unwritable(&error));
    let data = text_of(&item.data)?;
    Ok(Envelope {
        id: &item.id,
        gate: item.gate,
        priority: item.priority,
        available_at: item.available_at.map(|time| time.to_rfc3339_opts(SecondsFormat::AutoSi, true)),
        content_type: &item.data.content_type,
        depends_on: &item.dependencies.on,
        on_dependency_failure: item.dependencies.on_failure.as_str(),
        input: item.dependencies.input.as_str(),
        gather: item.gather.map(|gather| raw(gather.to_json())).transpose()?,
        data_base64: data.is_none().then(|| BASE64_STANDARD.encode(&item.data.bytes)),
        data,
    })
}

/// Data as JSON that is read as the same bytes; `None`: there is none.
fn text_of(data: &Data) -> Result<Option<Box<RawValue>>> {
    let Ok(text) = std::str::from_utf8(&data.bytes) else { return Ok(None) };
    if is_json(&data.content_type) {
        // With space around it, it would arrive without.
        let raw = serde_json::from_str::<Box<RawValue>>(text).ok();
        return Ok(raw.filter(|raw| raw.get().len() == text.len()));
    }
    serde_json::value::to_raw_value(text).map(Some).map_err(|error| unwritable(&error))
}

fn unwritable(error: &serde_json::Error) -> StoreError {
    StoreError::data(format!("this cannot be written as JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefeed_core::envelope::Format;

    #[test]
    fn the_api_reads_the_bytes_that_were_meant() {
        for (content_type, bytes) in [
            ("application/json", &b"{\"n\": 12345678901234567890.10}"[..]),
            ("application/json", b" [1]\n"),
            ("application/problem+json", b"null"),
            ("text/plain; charset=utf-8", "é\n\"quoted\" \u{1}".as_bytes()),
            ("image/png", &[0x89, 0, 255, b'\n']),
            ("text/plain", b""),
        ] {
            let data = Data { bytes: bytes.to_vec().into(), content_type: content_type.into() };
            let item = NewItem { gate: 3, ..NewItem::new("p", "i", data) };
            let text = serde_json::to_vec(&envelope(&item).unwrap()).unwrap();
            let format = Format { partition: "p".into(), gate: 0, is_envelope: true };
            assert_eq!(format.item(text, 0).unwrap(), item, "{content_type}");
        }
    }
}
