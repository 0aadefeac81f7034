//! The request of a delivery.

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use bytes::Bytes;
use gatefeed_core::id::JSON;
use http_body_util::Full;

use super::target::Target;
use crate::processor::Delivery;

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(super) const PARTITION: HeaderName = HeaderName::from_static("gatefeed-partition");
const ITEM: HeaderName = HeaderName::from_static("gatefeed-item");
pub(super) const GATE: HeaderName = HeaderName::from_static("gatefeed-gate");
const PASS: HeaderName = HeaderName::from_static("gatefeed-pass");
const ATTEMPT: HeaderName = HeaderName::from_static("gatefeed-attempt");
pub(super) const EPOCH: HeaderName = HeaderName::from_static("gatefeed-epoch");
/// How many items a batch has.
pub(super) const BATCH: HeaderName = HeaderName::from_static("gatefeed-batch");
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(super) const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("gatefeed/", env!("CARGO_PKG_VERSION")));
pub(super) const JSON_TYPE: HeaderValue = HeaderValue::from_static(JSON);

const CALLBACK: HeaderName = HeaderName::from_static("gatefeed-callback");
const DATA_URL: HeaderName = HeaderName::from_static("gatefeed-data-url");

/// Above the number of headers of a delivery, so that the map never grows.
pub(super) const HEADERS: usize = 16;

/// Where a handler finds more than the body.
#[derive(Default)]
pub(super) struct Places {
    /// Where to call back if the answer comes later.
    pub(super) callback: Option<String>,
    /// Where the data is, which is not in the body then.
    pub(super) data: Option<String>,
}

/// `POST target` with the item's bytes as stored, and the places. Errs with what cannot be said in a header.
pub(super) fn build(
    target: &Target,
    delivery: Delivery,
    places: &Places,
) -> Result<Request<Full<Bytes>>, String> {
    let mut headers = headers(target, &delivery)?;
    if let Some(url) = &places.data {
        headers.insert(DATA_URL, secret("URL of its data", url)?);
    }
    if let Some(url) = &places.callback {
        headers.insert(CALLBACK, secret("callback URL", url)?);
    }
    let mut request = Request::new(Full::new(delivery.data));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.uri.clone();
    *request.headers_mut() = headers;
    Ok(request)
}

/// `GET` of a health path.
pub(super) fn probe(uri: ::http::Uri) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = uri;
    request.headers_mut().insert(header::USER_AGENT, USER_AGENT);
    request
}

fn headers(target: &Target, delivery: &Delivery) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::with_capacity(HEADERS);
    headers.insert(header::HOST, target.host.clone());
    headers.insert(header::USER_AGENT, USER_AGENT);
    headers.insert(header::CONTENT_TYPE, content_type(&delivery.content_type)?);
    headers.insert(IDEMPOTENCY_KEY, idempotency_key(delivery)?);
    headers.insert(PARTITION, raw("partition", &delivery.partition)?);
    headers.insert(ITEM, raw("item id", &delivery.item)?);
    headers.insert(GATE, delivery.gate.into());
    headers.insert(PASS, delivery.pass.into());
    headers.insert(ATTEMPT, delivery.attempt.into());
    headers.insert(EPOCH, delivery.epoch.into());
    headers.insert(TRACEPARENT, traceparent()?);
    if delivery.data.is_empty() {
        // The client leaves it out without a body, and some servers refuse a POST that has none.
        headers.insert(header::CONTENT_LENGTH, 0.into());
    }
    Ok(headers)
}

fn content_type(content_type: &str) -> Result<HeaderValue, String> {
    if content_type == JSON { Ok(JSON_TYPE) } else { raw("content type", content_type) }
}

fn idempotency_key(delivery: &Delivery) -> Result<HeaderValue, String> {
    let mut buffer = uuid::Uuid::encode_buffer();
    raw("idempotency key", delivery.idempotency_key().hyphenated().encode_lower(&mut buffer))
}

/// Whoever has it may use it.
fn secret(what: &str, value: &str) -> Result<HeaderValue, String> {
    let mut value = raw(what, value)?;
    value.set_sensitive(true);
    Ok(value)
}

/// UTF-8 bytes as they are: names need no escaping, and a handler compares them with its own.
pub(super) fn raw(what: &str, value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_bytes(value.as_bytes())
        .map_err(|_| format!("the {what} {value:?} cannot be sent as an HTTP header"))
}

/// A fresh trace for each delivery. It is marked as sampled: with the other mark, handlers that follow their
/// caller's decision would record nothing at all.
pub(super) fn traceparent() -> Result<HeaderValue, String> {
    // All zeros would be invalid.
    let (trace, span) = (rand::random::<u128>() | 1, rand::random::<u64>() | 1);
    raw("trace", &format!("00-{trace:032x}-{span:016x}-01"))
}
