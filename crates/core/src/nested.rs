//! Nested partitions: what an answer makes, and what becomes of the item that waits for them.

use std::str::FromStr;

use serde::Serialize;

use crate::{
    answer::Child, blob::with_partitions, error::StoreError, error_log, item::Data,
    partition::PartitionStatus,
};

/// How deep partitions nest at the most; one that no answer has nested is at 0.
pub const DEPTH_MAX: i32 = 8;

/// The most partitions that one answer may make.
pub const PARTITIONS_MAX: usize = 1_000;

/// Items of a closed partition are counted up to this many.
pub const COUNTED_MAX: i64 = 1_000;

/// What becomes of an item once the partitions that it waits for have closed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Then {
    /// It is delivered again, with what became of them.
    #[default]
    Deliver,
    /// It is complete, or failed if one of them did not complete.
    Complete,
}

impl Then {
    /// The word in answers and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deliver => "deliver",
            Self::Complete => "complete",
        }
    }
}

impl FromStr for Then {
    type Err = StoreError;

    fn from_str(word: &str) -> Result<Self, StoreError> {
        [Self::Deliver, Self::Complete]
            .into_iter()
            .find(|then| then.as_str() == word)
            .ok_or_else(|| StoreError::data(format!("{word:?} is neither \"deliver\" nor \"complete\"")))
    }
}

/// A partition that an answer makes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Nested {
    /// Its id; `None` derives one from partition, item, pass and index.
    pub id: Option<String>,
    /// Its feed; `None` means that of its parent's partition.
    pub feed: Option<String>,
    /// Its items, at least one: an empty partition never closes.
    pub items: Vec<Child>,
}

/// A nested partition to be made with an outcome.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewNested {
    /// Its id, which no partition has yet.
    pub id: String,
    /// Its feed; `None`: its parent's.
    pub feed: Option<String>,
    /// The gate at which the item was delivered.
    pub gate: i32,
    /// The item's pass while it waits.
    pub pass: i32,
    /// What becomes of the item.
    pub then: Then,
}

/// A nested partition that has closed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Closed {
    /// Its id.
    pub id: String,
    /// What becomes of the item that waits.
    pub then: Then,
    /// How it closed.
    pub status: PartitionStatus,
    /// Why it has failed or was cancelled.
    pub reason: Option<String>,
    /// Its terminal items, unless it has more than [`COUNTED_MAX`].
    pub counts: Option<Counts>,
}

/// Items of a closed partition.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// Those that are through.
    pub complete: i64,
    /// Those that failed.
    pub failed: i64,
    /// Those that were cancelled or skipped.
    pub cancelled: i64,
}

/// What becomes of the item.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Settlement {
    /// It is delivered again, with this data.
    Deliver(Data),
    /// It is through, its data as it is.
    Complete,
    /// It has failed, with this error log.
    Fail(String),
}

/// Decides, once all that an item waits for have closed.
pub fn settle(data: &Data, error_messages: Option<&str>, closed: &[Closed]) -> Settlement {
    if closed.iter().any(|closed| closed.then == Then::Deliver) {
        return Settlement::Deliver(with_summary(data, closed));
    }
    match closed.iter().find(|closed| closed.status != PartitionStatus::Complete) {
        None => Settlement::Complete,
        Some(closed) => Settlement::Fail(error_log::append(error_messages, &why(closed))),
    }
}

fn why(closed: &Closed) -> String {
    let reason = closed.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("partition {:?} is {}{reason}", closed.id, closed.status.as_str())
}

/// `{"data": …, "partitions": […]}`.
fn with_summary(data: &Data, closed: &[Closed]) -> Data {
    let partitions: Vec<Summary<'_>> = closed.iter().map(Summary::of).collect();
    // Of strings and numbers, which are always JSON.
    let partitions = serde_json::to_string(&partitions).unwrap_or_default();
    with_partitions(data, &partitions)
}

/// A closed partition as handlers see it.
#[derive(Serialize)]
struct Summary<'a> {
    id: &'a str,
    status: PartitionStatus,
    reason: Option<&'a str>,
    complete: Option<i64>,
    failed: Option<i64>,
    cancelled: Option<i64>,
}

impl<'a> Summary<'a> {
    fn of(closed: &'a Closed) -> Self {
        Self {
            id: &closed.id,
            status: closed.status,
            reason: closed.reason.as_deref(),
            complete: closed.counts.map(|counts| counts.complete),
            failed: closed.counts.map(|counts| counts.failed),
            cancelled: closed.counts.map(|counts| counts.cancelled),
        }
    }
}

/// The outcomes of a nested partition that is too deep are refused with this.
pub fn too_deep(partition: &str) -> StoreError {
    StoreError::data(format!(
        "partition {partition:?} is nested {DEPTH_MAX} deep, and partitions nest no deeper: give the items to \
         partitions beside it"
    ))
}

/// As is one whose id is taken.
pub fn id_taken(id: &str) -> StoreError {
    StoreError::data(format!(
        "partition {id:?} exists already, and an answer nests new ones only: leave its id out, or choose another"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(id: &str, then: Then, status: PartitionStatus) -> Closed {
        let is_complete = status == PartitionStatus::Complete;
        let reason = (!is_complete).then(|| "no \"luck\"".to_owned());
        Closed { id: id.into(), then, status, reason, counts: None }
    }

    #[test]
    fn it_is_delivered_with_what_became_of_them() {
        let counts = Some(Counts { complete: 3, failed: 0, cancelled: 1 });
        let all = [
            Closed { counts, ..closed("a", Then::Deliver, PartitionStatus::Complete) },
            closed("b", Then::Deliver, PartitionStatus::Failed),
        ];
        let expected = concat!(
            r#"{"data":12345678901234567890,"partitions":[{"id":"a","status":"complete","reason":null,"complete":3,"#,
            r#""failed":0,"cancelled":1},{"id":"b","status":"failed","reason":"no \"luck\"","complete":null,"#,
            r#""failed":null,"cancelled":null}]}"#
        );
        let settled = settle(&Data::json("12345678901234567890"), None, &all);
        assert_eq!(settled, Settlement::Deliver(Data::json(expected)));
        let text = Data { bytes: "hi".into(), content_type: "text/plain".into() };
        let Settlement::Deliver(data) = settle(&text, None, &all) else { panic!("not delivered") };
        assert!(
            data.bytes.starts_with(br#"{"data_base64":"aGk=","content_type":"text/plain","partitions":["#)
        );
    }

    #[test]
    fn it_completes_or_fails_with_them() {
        use PartitionStatus::{Cancelled, Complete};
        let data = Data::json("1");
        let settled = |statuses: &[PartitionStatus]| {
            let all: Vec<_> = statuses.iter().map(|status| closed("a", Then::Complete, *status)).collect();
            settle(&data, Some("earlier"), &all)
        };
        assert_eq!(settled(&[Complete, Complete]), Settlement::Complete);
        let expected = "earlier\npartition \"a\" is cancelled: no \"luck\"";
        assert_eq!(settled(&[Complete, Cancelled]), Settlement::Fail(expected.into()));
    }
}
