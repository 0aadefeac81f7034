//! Requests with an `Idempotency-Key`: what makes two of them the same one.

use axum::http::{HeaderMap, HeaderName};
use gatefeed_core::{
    id::{DEFAULT_FEED, check_id},
    item::NewItem,
    request::Request,
};
use sha2::{Digest as _, Sha256};

use crate::{post::PostParams, problem::Problem};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Of an answer that was given before.
pub(crate) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The idempotency key, if there is one.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let key = value.to_str().map_err(|_| Problem::bad_request("Idempotency-Key is not ASCII"))?;
    check_id("Idempotency-Key", key).map_err(|error| Problem::bad_request(error.to_string()))?;
    Ok(Some(key))
}

/// What a request with a key gets whose key was used for another one.
pub(crate) fn conflict() -> Problem {
    Problem::conflict(
        "this Idempotency-Key, or the item's id, has been used for another request: use another one for another request",
    )
}

/// What a request asks for. Each part with its length, so that no two requests read the same.
struct Digest(Sha256);

impl Digest {
    fn of(parts: &[&str]) -> Self {
        parts.iter().fold(Self(Sha256::new()), |digest, part| digest.and(part.as_bytes()))
    }

    fn and(mut self, part: &[u8]) -> Self {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
        self
    }

    fn end(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

fn text<T: ToString + Default>(value: Option<&T>) -> String {
    value.map_or_else(|| T::default().to_string(), T::to_string)
}

/// Of one item. It is kept with items, so that it may not change.
pub(crate) fn of_item(key: &str, asked: &PostParams, content_type: &str, body: &[u8]) -> Request {
    let (feed, id, time) =
        (text(asked.feed.as_ref()), text(asked.id.as_ref()), text(asked.available_at.as_ref()));
    let (gate, priority) = (text(asked.gate.as_ref()), text(asked.priority.as_ref()));
    let digest = Digest::of(&[key, &feed, &id, &gate, &priority, &time, content_type]).and(body).end();
    Request { key: key.to_owned(), digest }
}

/// Of lines.
pub(crate) fn of_lines(key: &str, asked: &PostParams, body: &[u8]) -> Request {
    let (feed, gate) = (text(asked.feed.as_ref()), text(asked.gate.as_ref()));
    let envelope = text(asked.envelope.as_ref());
    let digest = Digest::of(&["lines", &feed, &gate, &envelope]).and(body).end();
    Request { key: key.to_owned(), digest }
}

/// Of the parts of a form. What stands between them does not count: clients choose it anew each time.
pub(crate) fn of_parts(key: &str, asked: &PostParams, items: &[NewItem]) -> Request {
    let (feed, gate) = (text(asked.feed.as_ref()), text(asked.gate.as_ref()));
    let digest = items.iter().fold(Digest::of(&["parts", &feed, &gate]), |digest, item| {
        let digest = digest.and(item.id.as_bytes()).and(item.data.content_type.as_bytes());
        digest.and(&item.data.bytes)
    });
    Request { key: key.to_owned(), digest: digest.end() }
}

/// Of a partition with its items, in the feed that it comes into. Requests of the default feed are as those that were kept
/// before the feed counted.
pub(crate) fn of_partition(key: &str, feed: &str, body: &[u8]) -> Request {
    let digest = match feed {
        DEFAULT_FEED => Digest::of(&["partition"]),
        feed => Digest::of(&["partition", feed]),
    };
    Request { key: key.to_owned(), digest: digest.and(body).end() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefeed_core::item::Data;

    #[test]
    fn requests_that_differ_have_other_digests() {
        let plain = PostParams::default();
        let gate = PostParams { gate: Some(1), ..plain.clone() };
        let feed = PostParams { feed: Some("f".into()), ..plain.clone() };
        let of = |asked: &PostParams, content_type: &str, body: &[u8]| {
            of_item("k", asked, content_type, body).digest
        };
        let first = of(&plain, "a/b", b"body");
        assert_eq!(first, of(&PostParams { gate: Some(0), ..plain.clone() }, "a/b", b"body"));
        for other in [of(&gate, "a/b", b"body"), of(&plain, "a/bb", b"ody"), of(&plain, "a/b", b"bod")] {
            assert_ne!(first, other);
        }
        assert_ne!(first, of(&feed, "a/b", b"body"));
        assert_ne!(first, of_item("another key", &plain, "a/b", b"body").digest);
        let lines = of_lines("k", &plain, b"body");
        let envelope = PostParams { envelope: Some(true), ..plain.clone() };
        for other in [&gate, &feed, &envelope].map(|asked| of_lines("k", asked, b"body")) {
            assert_ne!(lines, other);
        }
        assert_ne!(lines, of_lines("k", &plain, b"bod"));
        assert_ne!(lines.digest, of_partition("k", "default", b"body").digest);
        let partition = |feed: &str| of_partition("k", feed, b"body").digest;
        assert_ne!(partition("a"), partition("b"));
        assert_ne!(partition("a"), partition("default"));
    }

    #[test]
    fn items_that_differ_have_other_digests() {
        let item = |id: &str, content_type: &str, bytes: &'static str| {
            NewItem::new("p", id, Data { bytes: bytes.into(), content_type: content_type.into() })
        };
        let of = |items: &[NewItem]| of_parts("k", &PostParams::default(), items).digest;
        let first = of(&[item("a", "t/p", "1"), item("b", "t/p", "2")]);
        assert_eq!(first, of(&[item("a", "t/p", "1"), item("b", "t/p", "2")]));
        for other in [
            &[item("a", "t/p", "1")][..],
            &[item("a", "t/p", "1"), item("b", "t/p", "3")],
            &[item("a", "t/p", "1"), item("c", "t/p", "2")],
            &[item("a", "t/p", "1"), item("b", "t/q", "2")],
            &[item("b", "t/p", "2"), item("a", "t/p", "1")],
        ] {
            assert_ne!(first, of(other));
        }
    }

    /// Digests of items that are there already have to be found again.
    #[test]
    fn the_digest_of_an_item_does_not_change() {
        let asked = PostParams { id: Some("i".into()), gate: Some(2), ..PostParams::default() };
        let Request { digest, .. } = of_item("key", &asked, "text/plain", b"data");
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "dd8237ca2eb385f21a921e7a4e9e14b54a445cd210f74182a3c4ceaa09f596c4");
    }
}
