//! Several items in one request: a JSON array of them, and an array of answers.

use std::sync::Arc;

use ::http::{HeaderMap, HeaderValue, Method, Request, header, response::Parts};
use bytes::Bytes;
use gatefeed_core::{
    answer::{Failure, Verdict},
    batch::{self, Entry},
};
use http_body_util::Full;
use url::Url;

use super::{answer, request, target::Target};
use crate::processor::Delivery;

/// A batch: at least one delivery, all of one partition and gate under one lease.
#[derive(Clone)]
pub(super) struct Together(pub(super) Vec<Delivery>);

/// `POST target` with all of them, and its body. Errs with what cannot be said in a header.
pub(super) fn build(target: &Target, batch: &Together) -> Result<(Request<Full<Bytes>>, Bytes), String> {
    let entries = batch.0.iter().map(|delivery| Entry {
        partition: &delivery.partition,
        item: &delivery.item,
        gate: delivery.gate,
        pass: delivery.pass,
        attempt: delivery.attempt,
        content_type: &delivery.content_type,
        data: &delivery.data,
    });
    let body = Bytes::from(batch::body(entries));
    let mut request = Request::new(Full::new(body.clone()));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = target.uri.clone();
    *request.headers_mut() = headers(target, batch)?;
    Ok((request, body))
}

/// What all of them have in common.
fn headers(target: &Target, batch: &Together) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::with_capacity(request::HEADERS);
    headers.insert(header::HOST, target.host.clone());
    headers.insert(header::USER_AGENT, request::USER_AGENT);
    headers.insert(header::CONTENT_TYPE, request::JSON_TYPE);
    let key = batch::batch_key(batch.0.iter().map(Delivery::idempotency_key)).to_string();
    headers.insert(request::IDEMPOTENCY_KEY, request::raw("idempotency key", &key)?);
    if let Some(first) = batch.0.first() {
        headers.insert(request::PARTITION, request::raw("partition", &first.partition)?);
        headers.insert(request::GATE, first.gate.into());
        headers.insert(request::EPOCH, first.epoch.into());
    }
    headers.insert(request::BATCH, HeaderValue::from(batch.0.len()));
    headers.insert(request::TRACEPARENT, request::traceparent()?);
    Ok(headers)
}

/// Reads an answer: a verdict for each item, or what they all failed with.
pub(super) fn read(
    target: &Url,
    head: &Parts,
    body: Result<Bytes, String>,
    items: &[Arc<str>],
) -> Result<Vec<Verdict>, Failure> {
    if !head.status.is_success() {
        return Err(answer::failed(target, head, body));
    }
    if answer::is_later(head)? {
        return Err(Failure::new(
            "the handler answered Gatefeed-Async: true to a batch, whose answers cannot come later: answer with an array, \
             or set batch_size to 1 or leave it out",
        ));
    }
    let body = body.map_err(Failure::new)?;
    let items: Vec<&str> = items.iter().map(|item| &**item).collect();
    Ok(batch::parse(&body, &items))
}
