//! Answers that come later: what the handler is told, and what its 202 means.

use std::time::Duration;

use gatefeed_core::{
    answer::Answer,
    callback::{KEY_BYTES, Key, Ticket},
    retry::RetryPolicy,
};
use gatefeed_engine::{
    Processor,
    dispatch::{HttpOptions, HttpProcessor},
};
use gatefeed_testkit::handler::{Handler, Reply};

use super::{delivery, failure, to_urls};

const TIMEOUT: Duration = Duration::from_secs(90);

fn key() -> Key {
    Key::new(&[7; KEY_BYTES]).unwrap()
}

fn calling_back(handler: &Handler, base: &str) -> HttpProcessor {
    let options = HttpOptions {
        public_url: Some(base.parse().unwrap()),
        callback_timeout: TIMEOUT,
        max_answer: 4096,
        ..HttpOptions::default()
    };
    to_urls(&[&handler.url()], options).with_callbacks(key())
}

fn later() -> Reply {
    Reply::status(202).header("Gatefeed-Async", "true")
}

#[tokio::test]
async fn a_handler_is_told_where_to_call_back() {
    for (base, prefix) in [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1/callbacks/"),
        ("https://h/queue/?x=1", "https://h/queue/v1/callbacks/"),
    ] {
        let handler = Handler::always(later()).await;
        let mut delivery = delivery();
        (delivery.version, delivery.born) = (17, 42);
        delivery.retry = RetryPolicy { max_retries: None, ..RetryPolicy::default() };
        let verdict = calling_back(&handler, base).process(delivery.clone()).await;
        assert_eq!(verdict, Ok(Answer::by_callback(TIMEOUT)));
        let url = handler.requests().remove(0).header_text("gatefeed-callback");
        let token = url.strip_prefix(prefix).unwrap_or_else(|| panic!("{url}"));
        let expected = Ticket {
            partition: "import-7".into(),
            item: "row 1".into(),
            version: 17,
            born: 42,
            timeout: TIMEOUT,
            retry: delivery.retry,
            max_answer: 4096,
        };
        assert_eq!(key().read(token), Some(expected));
    }
}

#[tokio::test]
async fn the_body_of_a_202_does_not_count() {
    for reply in [
        later().body("accepted"),
        later().body("x".repeat(10_000)),
        later().header("Content-Encoding", "br").body("?"),
        Reply::json(r#"{"status":"queued"}"#).with_status(202).header("gatefeed-async", "1"),
        later().header("Gatefeed-Gate", "9"),
    ] {
        let handler = Handler::always(reply).await;
        let verdict = calling_back(&handler, "http://h/").process(delivery()).await;
        assert_eq!(verdict, Ok(Answer::by_callback(TIMEOUT)));
    }
}

#[tokio::test]
async fn only_a_202_that_says_so_is_waited_for() {
    for (reply, expected) in [
        (Reply::status(202), Ok(Answer::done())),
        (Reply::status(202).header("Gatefeed-Async", "false"), Ok(Answer::done())),
        (later().with_status(500), Err("HTTP 500 Internal Server Error")),
        (later().with_status(200), Err("with HTTP 200 OK: an answer that comes later is told by 202")),
        (
            later().with_status(204),
            Err("with HTTP 204 No Content: an answer that comes later is told by 202"),
        ),
        (
            Reply::json(r#"{"gate":4}"#).header("Gatefeed-Async", "true").header("Gatefeed-Gate", "9"),
            Err("is told by 202"),
        ),
        (Reply::status(202).header("Gatefeed-Async", "maybe"), Err("expected true or false")),
    ] {
        let handler = Handler::always(reply).await;
        match (calling_back(&handler, "http://h/").process(delivery()).await, expected) {
            (Ok(answer), Ok(expected)) => assert_eq!(answer, expected),
            (Err(failure), Err(expected)) => assert!(failure.message.contains(expected), "{failure:?}"),
            (verdict, expected) => panic!("{verdict:?} instead of {expected:?}"),
        }
    }
}

#[tokio::test]
async fn who_was_not_told_where_to_call_cannot_answer_later() {
    let failure = failure(later()).await;
    assert!(failure.counted && failure.message.contains("--public-url"), "{failure:?}");
    let handler = Handler::always(later()).await;
    let no_url = to_urls(&[&handler.url()], HttpOptions::default()).with_callbacks(key());
    let failure = no_url.process(delivery()).await.unwrap_err();
    assert!(failure.message.contains("was not told where to call back"), "{failure:?}");
    assert_eq!(handler.requests().remove(0).header("gatefeed-callback"), None);
}
