//! Callbacks: an item whose handler answers later. What stands in the token that comes with a delivery, who has signed
//! it, and what a call with it comes to.
//!
//! Nothing is written before a send. A token says for itself which attempt it is for, and is good from then on: a call
//! may come before the item is parked. Whoever has the database's key can check it.

use std::{fmt, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, Mac};
use serde::Serialize;
use sha2::Sha256;

use crate::{
    answer::Verdict,
    error::StoreError,
    gather::Gather,
    id::ID_BYTES_MAX,
    item::{DueItem, ItemStatus},
    lease::Lease,
    outcome::{Completion, Kept, decide},
    partition::PartitionStatus,
    retry::RetryPolicy,
};

/// How long an item waits for its callback unless told otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(3600);

/// The bytes of a key.
pub const KEY_BYTES: usize = 32;

/// The bytes of a signature.
const TAG_BYTES: usize = 32;

/// The form of the text that is signed; another one would get another number.
const FORM: u8 = 1;

/// The first byte of what is signed for gathered items, which no ticket begins with.
const GATHERED: u8 = 2;

/// No token is longer than this: two names, a few numbers and the signature, in base64.
pub const TOKEN_CHARS_MAX: usize = (2 * ID_BYTES_MAX + TAG_BYTES + 128) * 4 / 3;

type HmacSha256 = Hmac<Sha256>;

/// The secret of a database, with which its tokens are signed.
#[derive(Clone)]
pub struct Key(HmacSha256);

impl Key {
    /// From its bytes; `Config` unless there are [`KEY_BYTES`] of them.
    pub fn new(bytes: &[u8]) -> Result<Self, StoreError> {
        let is_whole = bytes.len() == KEY_BYTES;
        let mac = HmacSha256::new_from_slice(bytes).ok().filter(|_| is_whole).ok_or_else(|| {
            StoreError::Config(format!(
                "the key in gatefeed_keys has {} bytes instead of {KEY_BYTES}: delete its row, and a new one is made",
                bytes.len()
            ))
        })?;
        Ok(Self(mac))
    }

    /// The token of an attempt, fit for a URL's path.
    pub fn sign(&self, ticket: &Ticket) -> String {
        let mut bytes = ticket.to_bytes();
        let tag = self.tag(&bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What a token says; `None` for one that this key has not signed, to the bit.
    pub fn read(&self, token: &str) -> Option<Ticket> {
        if token.len() > TOKEN_CHARS_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (text, tag) = bytes.split_at_checked(bytes.len().checked_sub(TAG_BYTES)?)?;
        // In constant time.
        self.tag(text).verify_slice(tag).ok()?;
        Ticket::from_bytes(text)
    }

    /// What lets a handler fetch what its item gathers; good for as long as the key.
    pub fn sign_gathered(&self, partition: &str, gather: Gather) -> String {
        URL_SAFE_NO_PAD.encode(self.tag(&gathered(partition, gather)).finalize().into_bytes())
    }

    /// Whether this key has signed that for these items.
    pub fn admits_gathered(&self, token: &str, partition: &str, gather: Gather) -> bool {
        let tag = URL_SAFE_NO_PAD.decode(token).unwrap_or_default();
        // In constant time.
        self.tag(&gathered(partition, gather)).verify_slice(&tag).is_ok()
    }

    fn tag(&self, text: &[u8]) -> HmacSha256 {
        let mut mac = self.0.clone();
        mac.update(text);
        mac
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// Which attempt a token is for, and the terms under which it was sent: whoever takes the call need not know the
/// watcher's settings.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ticket {
    /// The partition.
    pub partition: Arc<str>,
    /// The item.
    pub item: Arc<str>,
    /// The version that was delivered. It tells pass and attempt, since it grows with both.
    pub version: i64,
    /// [`crate::item::DueItem::born`].
    pub born: i64,
    /// How long the item waits, from being parked or from a heartbeat on; to the millisecond.
    pub timeout: Duration,
    /// How failed attempts are repeated; to the millisecond.
    pub retry: RetryPolicy,
    /// The most bytes of an answer.
    pub max_answer: u64,
}

impl Ticket {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 + self.partition.len() + self.item.len() + TAG_BYTES);
        bytes.push(FORM);
        bytes.extend_from_slice(&self.version.to_be_bytes());
        bytes.extend_from_slice(&self.born.to_be_bytes());
        for time in [self.timeout, self.retry.base, self.retry.cap] {
            let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            bytes.extend_from_slice(&ms.to_be_bytes());
        }
        let max_retries = self.retry.max_retries.map_or(-1, i64::from);
        bytes.extend_from_slice(&max_retries.to_be_bytes());
        bytes.extend_from_slice(&self.max_answer.to_be_bytes());
        let partition_bytes = u16::try_from(self.partition.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&partition_bytes.to_be_bytes());
        bytes.extend_from_slice(self.partition.as_bytes());
        bytes.extend_from_slice(self.item.as_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(&[FORM])?;
        let version = i64::from_be_bytes(take(&mut rest)?);
        let born = i64::from_be_bytes(take(&mut rest)?);
        let timeout = Duration::from_millis(u64::from_be_bytes(take(&mut rest)?));
        let base = Duration::from_millis(u64::from_be_bytes(take(&mut rest)?));
        let cap = Duration::from_millis(u64::from_be_bytes(take(&mut rest)?));
        let max_retries = u32::try_from(i64::from_be_bytes(take(&mut rest)?)).ok();
        let max_answer = u64::from_be_bytes(take(&mut rest)?);
        let partition_bytes = u16::from_be_bytes(take(&mut rest)?);
        let (partition, item) = rest.split_at_checked(partition_bytes.into())?;
        Some(Self {
            partition: std::str::from_utf8(partition).ok()?.into(),
            item: std::str::from_utf8(item).ok()?.into(),
            version,
            born,
            timeout,
            retry: RetryPolicy { max_retries, base, cap },
            max_answer,
        })
    }
}

/// What is signed for the items that ended at a gate.
fn gathered(partition: &str, gather: Gather) -> Vec<u8> {
    let gate = gather.gate.to_be_bytes();
    [&[GATHERED], &gate[..], gather.status.as_str().as_bytes(), b"\n", partition.as_bytes()].concat()
}

/// The next bytes.
fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, others) = rest.split_first_chunk()?;
    *rest = others;
    Some(*first)
}

/// An answer that comes by a callback.
#[derive(Clone, Debug)]
pub struct Callback {
    /// The attempt that it is for.
    pub ticket: Ticket,
    /// The answer.
    pub verdict: Verdict,
    /// Uniform in [0, 1), for a failed attempt's delay.
    pub jitter: f64,
}

impl Callback {
    /// The outcome of an item that is as it was delivered; its data is there in a partition with `keep_history`.
    pub fn completion(&self, feed: Arc<str>, item: &DueItem, keep_history: bool) -> Completion {
        let Ticket { partition, retry, .. } = &self.ticket;
        let (change, children, nested) = decide(partition, item, self.verdict.clone(), retry, self.jitter);
        let delivered = item.data.clone().filter(|_| keep_history);
        let kept = delivered.and_then(|data| Kept::of(item, data, &change));
        let lease = Arc::new(Lease::nobodys(partition.clone()));
        let (item, version) = (item.id.clone(), item.version);
        Completion { lease, feed, item, version, change, children, nested, kept }
    }
}

/// What a callback came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CalledBack {
    /// It is the attempt's outcome, and committed.
    Written {
        /// The item's status now.
        status: ItemStatus,
        /// Its gate.
        gate: i32,
    },
    /// Nothing was changed.
    Refused(Refusal),
}

/// What a heartbeat came to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Heartbeat {
    /// The item waits until then.
    Extended(DateTime<Utc>),
    /// The item is not parked yet: its time begins when it is.
    InFlight,
    /// Nothing was changed.
    Refused(Refusal),
}

/// Why a callback or a heartbeat is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub enum Refusal {
    /// The attempt has its outcome: it was answered before, or its item was retried, rewound, cancelled or removed since.
    Used,
    /// It came too late: the item's time was over, and the attempt has failed, or is about to.
    Expired,
    /// Its partition is failed (or complete, by somebody's hand): nothing is taken until it is opened again. Until its time
    /// is over the token stays good.
    Closed(PartitionStatus),
}

/// What a store has seen of the item of a ticket, under its partition's lock.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Standing {
    /// Its partition's status.
    pub partition: PartitionStatus,
    /// Its status.
    pub status: ItemStatus,
    /// Its version.
    pub version: i64,
    /// [`crate::item::DueItem::born`].
    pub born: i64,
    /// Whether the time in which it waits for a callback is over; `None`: it waits for none.
    pub is_overdue: Option<bool>,
    /// The delivered version of the last attempt that failed for want of a callback.
    pub expired_version: Option<i64>,
}

/// Whether an item is still that of a ticket, with no outcome yet: true if it is parked, false if its delivery may still be
/// under way.
pub fn judge(ticket: &Ticket, standing: Option<&Standing>) -> Result<bool, Refusal> {
    let standing = standing.filter(|standing| standing.born == ticket.born).ok_or(Refusal::Used)?;
    let is_as_delivered = standing.version == ticket.version && standing.status == ItemStatus::Available;
    // Being parked is the one change after the delivery.
    let is_parked =
        standing.version == ticket.version.saturating_add(1) && standing.status == ItemStatus::Waiting;
    match (is_as_delivered, standing.is_overdue.filter(|_| is_parked)) {
        (false, Some(true)) => Err(Refusal::Expired),
        (false, None) if standing.expired_version == Some(ticket.version) => Err(Refusal::Expired),
        (false, None) => Err(Refusal::Used),
        (_, parked) => match standing.partition {
            PartitionStatus::Available | PartitionStatus::Paused => Ok(parked.is_some()),
            PartitionStatus::Cancelled => Err(Refusal::Used),
            status @ (PartitionStatus::Complete | PartitionStatus::Failed) => Err(Refusal::Closed(status)),
        },
    }
}

/// What an attempt without a callback fails with.
pub const TIMED_OUT: &str = "no callback came in time (--callback-timeout)";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gather::Ended;
    use proptest::prelude::*;

    fn key(byte: u8) -> Key {
        Key::new(&[byte; KEY_BYTES]).unwrap()
    }

    fn ticket() -> Ticket {
        Ticket {
            partition: "p".into(),
            item: "i".into(),
            version: 7,
            born: 1_700_000_000_123_456,
            timeout: Duration::from_secs(60),
            retry: RetryPolicy::default(),
            max_answer: 1024,
        }
    }

    fn parked() -> Standing {
        Standing {
            partition: PartitionStatus::Available,
            status: ItemStatus::Waiting,
            version: 8,
            born: ticket().born,
            is_overdue: Some(false),
            expired_version: None,
        }
    }

    fn judged(standing: Standing) -> Result<bool, Refusal> {
        judge(&ticket(), Some(&standing))
    }

    #[test]
    fn what_is_gathered_is_signed_for_one_partition_gate_and_status() {
        let gather = |gate, status| Gather { gate, status };
        let all = gather(0, Ended::Any);
        let token = key(1).sign_gathered("p", all);
        assert!(key(1).admits_gathered(&token, "p", all));
        assert!(!key(2).admits_gathered(&token, "p", all));
        assert!(!key(1).admits_gathered(&token, "q", all));
        assert!(!key(1).admits_gathered(&token, "p", gather(1, Ended::Any)));
        assert!(!key(1).admits_gathered(&token, "p", gather(0, Ended::Complete)));
        assert!(!key(1).admits_gathered("", "p", all) && !key(1).admits_gathered("ü", "p", all));
    }

    #[test]
    fn a_key_is_whole_and_shows_nothing() {
        assert!(Key::new(&[7; 31]).is_err() && Key::new(&[]).is_err());
        assert_eq!(format!("{:?}", key(7)), "Key");
    }

    #[test]
    fn no_bit_of_a_token_may_change() {
        let token = key(1).sign(&ticket());
        assert_eq!(key(1).read(&token), Some(ticket()));
        assert_eq!(key(2).read(&token), None, "another database's");
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(key(1).read(&URL_SAFE_NO_PAD.encode(bytes)), None, "bit {bit}");
        }
        for cut in 0..token.len() {
            assert_eq!(key(1).read(&token[..cut]), None);
        }
    }

    #[test]
    fn it_is_taken_from_the_send_until_its_time_is_over() {
        let in_flight = Standing { status: ItemStatus::Available, version: 7, is_overdue: None, ..parked() };
        assert_eq!(judged(in_flight.clone()), Ok(false));
        assert_eq!(judged(parked()), Ok(true));
        assert_eq!(judged(Standing { partition: PartitionStatus::Paused, ..parked() }), Ok(true));
        assert_eq!(judged(Standing { is_overdue: Some(true), ..parked() }), Err(Refusal::Expired));
        let failed = Standing { version: 9, expired_version: Some(7), ..in_flight.clone() };
        assert_eq!(judged(failed.clone()), Err(Refusal::Expired));
        let by_an_earlier_one = Standing { expired_version: Some(5), ..failed };
        assert_eq!(judged(by_an_earlier_one), Err(Refusal::Used));
        let stale = Standing { is_overdue: Some(false), ..in_flight };
        assert_eq!(judged(stale), Ok(false), "what an UPDATE by hand has left does not matter");
    }

    #[test]
    fn it_is_used_once_something_else_has_become_of_the_attempt() {
        assert_eq!(judge(&ticket(), None), Err(Refusal::Used), "removed");
        assert_eq!(judged(Standing { born: 1, ..parked() }), Err(Refusal::Used), "another of the same name");
        let waits_for_partitions = Standing { is_overdue: None, ..parked() };
        assert_eq!(judged(waits_for_partitions), Err(Refusal::Used));
        for status in [ItemStatus::Complete, ItemStatus::Failed, ItemStatus::Cancelled, ItemStatus::Available]
        {
            assert_eq!(judged(Standing { status, ..parked() }), Err(Refusal::Used), "{status:?}");
        }
        let failed = PartitionStatus::Failed;
        assert_eq!(judged(Standing { partition: failed, ..parked() }), Err(Refusal::Closed(failed)));
        assert_eq!(
            judged(Standing { partition: PartitionStatus::Cancelled, ..parked() }),
            Err(Refusal::Used)
        );
    }

    proptest! {
        #[test]
        fn a_token_says_what_was_signed_and_is_bounded(
            names in ("\\PC{1,128}", "\\PC{1,128}"), version in any::<i64>(), born in any::<i64>(),
            ms in 0..u64::from(u32::MAX), max_retries in prop::option::of(any::<u32>()), max_answer in any::<u64>(),
        ) {
            let time = Duration::from_millis(ms);
            let retry = RetryPolicy { max_retries, base: time, cap: time };
            let (partition, item) = (names.0.as_str().into(), names.1.as_str().into());
            let ticket = Ticket { partition, item, version, born, timeout: time, retry, max_answer };
            let token = key(3).sign(&ticket);
            prop_assert!(token.len() <= TOKEN_CHARS_MAX);
            prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
            prop_assert_eq!(key(3).read(&token), Some(ticket));
        }

        #[test]
        fn garbage_is_no_token(text in "\\PC{0,200}") {
            prop_assert_eq!(key(3).read(&text), None);
        }
    }
}
