//! Delivery over HTTP, on real sockets, against a handler that misbehaves in every way we know.

#![allow(clippy::unwrap_used, reason = "tests state what they expect by unwrapping")]

mod answers;
mod batch;
mod callbacks;
mod health;
mod hedging;
mod reach;
mod request;
mod routes;
mod transport;
mod trust;

use std::time::Duration;

use gatefeed_core::answer::{Failure, Verdict};
use gatefeed_engine::{
    Delivery, Processor,
    dispatch::{HttpOptions, HttpProcessor, parse_target},
};
use gatefeed_testkit::handler::{Handler, Reply};

/// A delivery of a small JSON item.
fn delivery() -> Delivery {
    Delivery {
        feed: "default".into(),
        partition: "import-7".into(),
        item: "row 1".into(),
        gate: 2,
        pass: 3,
        attempt: 4,
        epoch: 5,
        content_type: "application/json".into(),
        version: 0,
        born: 0,
        retry: gatefeed_core::retry::RetryPolicy::default(),
        link: None,
        gathering: None,
        data: r#"{"n":1}"#.into(),
    }
}

fn to_urls(urls: &[&str], options: HttpOptions) -> HttpProcessor {
    HttpProcessor::new(urls.iter().map(|url| parse_target(url).unwrap()).collect(), options).unwrap()
}

fn to(handler: &Handler) -> HttpProcessor {
    to_urls(&[&handler.url()], HttpOptions::default())
}

/// A processor that gives up soon, for handlers that never answer.
fn hasty(handler: &Handler) -> HttpProcessor {
    let options = HttpOptions { request_timeout: Duration::from_millis(250), ..HttpOptions::default() };
    to_urls(&[&handler.url()], options)
}

/// What a handler that answers so makes of a delivery.
async fn verdict(reply: Reply) -> Verdict {
    let handler = Handler::always(reply).await;
    to(&handler).process(delivery()).await
}

/// The failed attempt that such an answer is.
async fn failure(reply: Reply) -> Failure {
    verdict(reply).await.expect_err("a failed attempt")
}
