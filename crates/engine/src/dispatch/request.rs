//! The request of a delivery.

use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, header};
use bytes::Bytes;
use gatefeed_core::id::JSON;
use http_body_util::Full;

use super::target::Target;
use crate::processor::Delivery;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const PARTITION: HeaderName = HeaderName::from_static("gatefeed-partition");
const ITEM: HeaderName = HeaderName::from_static("gatefeed-item");
const GATE: HeaderName = HeaderName::from_static("gatefeed-gate");
const PASS: HeaderName = HeaderName::from_static("gatefeed-pass");
const ATTEMPT: HeaderName = HeaderName::from_static("gatefeed-attempt");
const EPOCH: HeaderName = HeaderName::from_static("gatefeed-epoch");
const DATA_URL: HeaderName = HeaderName::from_static("gatefeed-data-url");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("gatefeed/", env!("CARGO_PKG_VERSION")));
const JSON_TYPE: HeaderValue = HeaderValue::from_static(JSON);

/// Above the number of headers of a delivery, so that the map never grows.
const HEADERS: usize = 16;

/// `POST target` with the item's bytes as stored. Errs with what cannot be said in a header.
pub(super) fn build(
    target: &Target,
    delivery: Delivery,
    data_url: Option<String>,
) -> Result<Request<Full<Bytes>>, String> {
    let mut headers = headers(target, &delivery)?;
    if let Some(url) = data_url {
        headers.insert(DATA_URL, raw("URL of its data", &url)?);
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

/// UTF-8 bytes as they are: names need no escaping, and a handler compares them with its own.
fn raw(what: &str, value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_bytes(value.as_bytes())
        .map_err(|_| format!("the {what} {value:?} cannot be sent as an HTTP header"))
}

/// A fresh trace for each delivery. It is marked as sampled: with the other mark, handlers that follow their
/// caller's decision would record nothing at all.
fn traceparent() -> Result<HeaderValue, String> {
    // All zeros would be invalid.
    let (trace, span) = (rand::random::<u128>() | 1, rand::random::<u64>() | 1);
    raw("trace", &format!("00-{trace:032x}-{span:016x}-01"))
}
