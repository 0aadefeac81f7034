//! Gathering: an item may ask for what came before it, and gets that with its delivery.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    answer::is_json,
    error::StoreError,
    item::{Data, ItemStatus},
};

/// Items of a partition that are looked at for one page.
pub const SCAN_MAX: usize = 1_000;

/// Bytes of data of one page, unless its first item has more.
pub const PAGE_BYTES_MAX: usize = 4 << 20;

/// How the items that are gathered have ended.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// They are through.
    #[default]
    Complete,
    /// They have failed.
    Failed,
    /// They were cancelled.
    Cancelled,
    /// In whatever way.
    Any,
}

impl Ended {
    /// The word in JSON and in URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Any => "any",
        }
    }

    /// Whether an item of this status is one of them.
    pub fn is(self, status: ItemStatus) -> bool {
        match self {
            Self::Complete => status == ItemStatus::Complete,
            Self::Failed => status == ItemStatus::Failed,
            Self::Cancelled => status == ItemStatus::Cancelled,
            Self::Any => !status.is_open(),
        }
    }
}

impl std::str::FromStr for Ended {
    type Err = StoreError;

    fn from_str(word: &str) -> Result<Self, StoreError> {
        let known = [Self::Complete, Self::Failed, Self::Cancelled, Self::Any].into_iter();
        known
            .into_iter()
            .find(|ended| ended.as_str() == word)
            .ok_or_else(|| StoreError::data(format!("{word:?} is not complete, failed, cancelled or any")))
    }
}

/// Which items of its partition an item asks for.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Gather {
    /// Those that became terminal at this gate; ≥ 0.
    pub gate: i32,
    /// How they have ended.
    #[serde(default)]
    pub status: Ended,
}

/// What a `gather` has to look like, for messages.
pub const EXPECTED: &str = "{\"gate\": 0, \"status\": \"complete\"}, where status may be left out and be complete, failed, cancelled or any";

impl Gather {
    /// Reads the JSON of a column or an answer. Errs with what is expected.
    pub fn parse(json: &str) -> Result<Self, StoreError> {
        let read = serde_json::from_str::<Self>(json).ok().filter(|gather| gather.gate >= 0);
        read.ok_or_else(|| StoreError::data(format!("expected {EXPECTED}")))
    }

    /// The JSON of the column.
    pub fn to_json(self) -> String {
        format!("{{\"gate\": {}, \"status\": \"{}\"}}", self.gate, self.status.as_str())
    }
}

/// What is gathered, read on after an item.
#[derive(Clone, Debug)]
pub struct GatherRequest {
    /// The partition.
    pub partition: String,
    /// Which of its items.
    pub gather: Gather,
    /// The `next` of the page before; `None` begins.
    pub after: Option<String>,
}

/// Some of what is gathered, in order of id.
#[derive(Clone, Debug, Default)]
pub struct GatheredPage {
    /// The items; there may be none although more follow.
    pub items: Vec<GatheredItem>,
    /// Where to go on; `None`: that was all.
    pub next: Option<String>,
}

/// An item that was gathered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GatheredItem {
    /// Its id.
    pub id: String,
    /// How it has ended.
    pub status: ItemStatus,
    /// Its data, as it was left.
    pub data: Data,
}

impl GatheredItem {
    /// As a handler gets it, on one line: `{"id", "status", "data"}`; data that is not JSON as `data_base64` and
    /// `content_type`.
    pub fn to_json(&self) -> String {
        let id = serde_json::Value::from(self.id.as_str());
        format!("{{\"id\":{id},\"status\":\"{}\",{}}}", self.status.as_str(), data_fields(&self.data))
    }
}

/// Data as the fields of a JSON object, on one line: JSON as it stands, none as null, and all else in base64.
pub fn data_fields(data: &Data) -> String {
    if is_json(&data.content_type) {
        if data.bytes.is_empty() {
            return "\"data\":null".to_owned();
        }
        if let Ok(raw) = serde_json::from_slice::<&RawValue>(&data.bytes) {
            // Between the values of JSON only: within its strings they are written as escapes.
            return format!("\"data\":{}", raw.get().replace(['\n', '\r'], " "));
        }
    }
    let content_type = serde_json::Value::from(data.content_type.as_str());
    format!("\"data_base64\":\"{}\",\"content_type\":{content_type}", BASE64_STANDARD.encode(&data.bytes))
}

/// How many rows of a scan fit into a page: given whether each is wanted and its size, the number of rows and
/// whether that is all of them.
pub fn fitting(rows: impl IntoIterator<Item = (bool, usize)>) -> (usize, bool) {
    let (mut count, mut bytes) = (0, 0usize);
    for (is_wanted, size) in rows {
        if is_wanted {
            if bytes > 0 && bytes.saturating_add(size) > PAGE_BYTES_MAX {
                return (count, false);
            }
            bytes = bytes.saturating_add(size.max(1));
        }
        count += 1;
    }
    (count, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gather_is_an_object_with_a_gate() {
        let gather = Gather { gate: 3, status: Ended::Any };
        assert_eq!(Gather::parse(&gather.to_json()).unwrap(), gather);
        assert_eq!(Gather::parse(r#"{"gate":0}"#).unwrap(), Gather { gate: 0, status: Ended::Complete });
        for bad in ["", "0", "{}", r#"{"gate":-1}"#, r#"{"gate":0,"status":"open"}"#, r#"{"gate":0,"x":1}"#] {
            assert!(Gather::parse(bad).unwrap_err().to_string().contains("expected {\"gate\": 0"), "{bad}");
        }
    }

    #[test]
    fn an_item_is_one_line_whatever_its_data_is() {
        let json =
            |data: Data| GatheredItem { id: "a\"b".into(), status: ItemStatus::Complete, data }.to_json();
        let head = r#"{"id":"a\"b","status":"complete","#;
        assert_eq!(
            json(Data::json("{\n\"n\": 12345678901234567890.10\r\n}")),
            format!(r#"{head}"data":{{ "n": 12345678901234567890.10  }}}}"#)
        );
        assert_eq!(json(Data::json("")), format!(r#"{head}"data":null}}"#));
        let base64 = format!(r#"{head}"data_base64":"AP8=","content_type":"image/png"}}"#);
        assert_eq!(json(Data { bytes: vec![0, 255].into(), content_type: "image/png".into() }), base64);
        let broken = json(Data::json("{"));
        assert_eq!(broken, format!(r#"{head}"data_base64":"ew==","content_type":"application/json"}}"#));
        assert!(serde_json::from_str::<serde_json::Value>(&broken).is_ok());
    }

    #[test]
    fn a_page_ends_before_it_has_too_many_bytes() {
        let mib = 1 << 20;
        assert_eq!(fitting([(true, mib), (false, 9 * mib), (true, 3 * mib), (true, 1)]), (3, false));
        assert_eq!(fitting([(true, 9 * mib), (true, 1)]), (1, false), "one goes always");
        assert_eq!(fitting([(true, mib), (false, 0)]), (2, true));
        assert_eq!(fitting([]), (0, true));
    }
}
