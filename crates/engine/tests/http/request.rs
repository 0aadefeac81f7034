//! What a handler gets.

use std::collections::HashSet;

use gatefeed_core::{answer::Answer, id::idempotency_key};
use gatefeed_engine::{Delivery, Processor, dispatch::HttpOptions};
use gatefeed_testkit::handler::{Handler, Recorded, Reply};

use super::{delivery, to, to_urls};

async fn received(delivery: Delivery) -> Recorded {
    let handler = Handler::always(Reply::ok()).await;
    assert_eq!(to(&handler).process(delivery).await, Ok(Answer::done()));
    handler.requests().remove(0)
}

#[tokio::test]
async fn the_request_has_the_items_bytes_and_exactly_these_headers() {
    let handler = Handler::always(Reply::ok()).await;
    let url = format!("{}hook/a%20b?token=x&y", handler.url());
    let processor = to_urls(&[&url], HttpOptions::default());
    processor.process(delivery()).await.unwrap();
    let request = handler.requests().remove(0);
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hook/a%20b?token=x&y"));
    assert_eq!(request.body, br#"{"n":1}"#);

    let host = handler.url().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let key = idempotency_key("import-7", "row 1", 3).to_string();
    for (name, value) in [
        ("host", host.as_str()),
        ("content-type", "application/json"),
        ("content-length", "7"),
        ("idempotency-key", &key),
        ("gatefeed-partition", "import-7"),
        ("gatefeed-item", "row 1"),
        ("gatefeed-gate", "2"),
        ("gatefeed-pass", "3"),
        ("gatefeed-attempt", "4"),
        ("gatefeed-epoch", "5"),
        ("user-agent", concat!("gatefeed/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(request.header_text(name), value, "{name}");
    }
    assert_eq!(request.headers.len(), 12, "these and traceparent: {:?}", request.headers);
}

#[tokio::test]
async fn names_and_data_arrive_as_the_bytes_they_are() {
    let mut odd = delivery();
    odd.partition = "résumés/π \"x\"; a=b".into();
    odd.item = "行 1".into();
    odd.content_type = "text/plain; charset=latin-1".into();
    odd.data = vec![0, 255, 13, 10, 13, 10, 0].into();
    (odd.gate, odd.pass, odd.attempt, odd.epoch) = (i32::MAX, i32::MAX, u32::MAX, i64::MAX);
    let request = received(odd.clone()).await;
    assert_eq!(request.header("gatefeed-partition"), Some(odd.partition.as_bytes()));
    assert_eq!(request.header("gatefeed-item"), Some(odd.item.as_bytes()));
    assert_eq!(request.header_text("content-type"), odd.content_type);
    assert_eq!(request.body, odd.data);
    assert_eq!(request.header_text("gatefeed-gate"), "2147483647");
    assert_eq!(request.header_text("gatefeed-attempt"), "4294967295");
    assert_eq!(request.header_text("gatefeed-epoch"), "9223372036854775807");
}

#[tokio::test]
async fn an_item_without_data_is_an_empty_body() {
    let request = received(Delivery { data: Default::default(), ..delivery() }).await;
    assert_eq!((request.header_text("content-length").as_str(), request.body.len()), ("0", 0));
}

#[tokio::test]
async fn large_items_arrive_whole() {
    let data: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
    let request = received(Delivery { data: data.clone().into(), ..delivery() }).await;
    assert!(request.body == data);
}

#[tokio::test]
async fn the_key_stays_for_a_retry_and_changes_with_the_pass() {
    let handler = Handler::always(Reply::ok()).await;
    let processor = to(&handler);
    for (pass, attempt) in [(0, 1), (0, 2), (1, 1)] {
        processor.process(Delivery { pass, attempt, ..delivery() }).await.unwrap();
    }
    let keys: Vec<_> = handler.requests().iter().map(|r| r.header_text("idempotency-key")).collect();
    assert!(keys[0] == keys[1] && keys[1] != keys[2], "{keys:?}");
}

#[tokio::test]
async fn each_delivery_starts_a_trace_of_its_own() {
    let handler = Handler::always(Reply::ok()).await;
    let processor = to(&handler);
    for _ in 0..20 {
        processor.process(delivery()).await.unwrap();
    }
    let mut seen = HashSet::new();
    for request in handler.requests() {
        let trace = request.header_text("traceparent");
        let parts: Vec<_> = trace.split('-').collect();
        assert_eq!(parts.iter().map(|part| part.len()).collect::<Vec<_>>(), [2, 32, 16, 2], "{trace}");
        assert!(trace.chars().all(|c| c == '-' || matches!(c, '0'..='9' | 'a'..='f')), "{trace}");
        assert!((parts[0], parts[3]) == ("00", "01"), "{trace}");
        assert!(seen.insert(parts[1].to_owned()) && seen.insert(parts[2].to_owned()), "{trace}");
    }
}

#[tokio::test]
async fn what_cannot_be_a_header_fails_for_good_and_is_not_sent() {
    let handler = Handler::always(Reply::ok()).await;
    let bad = Delivery { content_type: "text/plain\r\nX-Evil: 1".into(), ..delivery() };
    let failure = to(&handler).process(bad).await.unwrap_err();
    assert!(failure.no_retry && failure.counted, "{failure:?}");
    assert!(failure.message.starts_with("the content type \"text/plain\\r\\nX-Evil"), "{failure:?}");
    assert!(handler.requests().is_empty());
}
