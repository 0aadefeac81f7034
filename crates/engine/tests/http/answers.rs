//! What an answer means.

use std::time::{Duration, SystemTime};

use gatefeed_core::{
    answer::{Answer, Failure},
    duration::DURATION_MAX,
    item::Data,
};
use gatefeed_testkit::handler::Reply;

use super::{failure, verdict};

fn bytes(content_type: &str, bytes: &'static [u8]) -> Data {
    Data { bytes: bytes.into(), content_type: content_type.into() }
}

#[tokio::test]
async fn json_answers_steer() {
    let again = Answer::again_after(Duration::from_secs(2));
    for (reply, expected) in [
        (Reply::ok(), Answer::done()),
        (Reply::status(204), Answer::done()),
        (Reply::status(202), Answer::done()),
        (Reply::json("{}"), Answer::done()),
        (Reply::json(r#"{"gate":4}"#), Answer::to_gate(4)),
        (Reply::json(r#"{"retry_after":2}"#).with_status(201), again),
        (Reply::json(r#"{"data":[1]}"#), Answer::done().with_data(Data::json("[1]"))),
        (Reply::ok().header("Content-Type", "text/html").body(r#"{"gate":4}"#), Answer::to_gate(4)),
        (Reply::ok().header("Content-Encoding", "identity").body(r#"{"gate":4}"#), Answer::to_gate(4)),
        (Reply::ok().header("Content-Encoding", "gzip"), Answer::done()),
        (Reply::gzip(), Answer::done()),
        (Reply::ok().header("Gatefeed-Async", "false").body(r#"{"gate":4}"#), Answer::to_gate(4)),
    ] {
        assert_eq!(verdict(reply.clone()).await, Ok(expected), "{reply:?}");
    }
}

#[tokio::test]
async fn headers_steer_and_the_body_becomes_the_data() {
    let png = |reply: Reply| reply.header("Content-Type", "image/png").body(&b"\x89PNG\0"[..]);
    let data = bytes("image/png", b"\x89PNG\0");
    for (reply, expected) in [
        (png(Reply::ok().header("Gatefeed-Done", "true")), Answer::done().with_data(data.clone())),
        (png(Reply::ok().header("gatefeed-gate", "3")), Answer::to_gate(3).with_data(data.clone())),
        (png(Reply::ok().header("Gatefeed-Anything", "")), Answer::done().with_data(data.clone())),
        (
            png(Reply::ok().header("Gatefeed-Gate", "3").header("Gatefeed-Done", "TRUE")),
            Answer::done().with_data(data.clone()),
        ),
        (
            Reply::json(r#"{"gate":9}"#).header("Gatefeed-Done", "1"),
            Answer::done().with_data(Data::json(r#"{"gate":9}"#)),
        ),
        (
            Reply::ok().header("Gatefeed-Gate", " 0 ").body("x"),
            Answer::to_gate(0).with_data(bytes("application/octet-stream", b"x")),
        ),
        (Reply::status(204).header("Gatefeed-Gate", "3"), Answer::to_gate(3)),
        (Reply::ok().header("Gatefeed-Done", "true"), Answer::done()),
    ] {
        assert_eq!(verdict(reply.clone()).await, Ok(expected), "{reply:?}");
    }
    let stays = verdict(Reply::ok().header("Gatefeed-Done", "0")).await.unwrap();
    assert_eq!(stays.next, gatefeed_core::answer::Next::Again { gate: None, after: None });
}

#[tokio::test]
async fn an_answer_outside_the_contract_is_a_failed_attempt_that_says_why() {
    let long_type = "x/".repeat(200);
    for (reply, expected) in [
        (Reply::ok().body("OK"), "the answer is not JSON"),
        (Reply::ok().body("<html>welcome to the Wi-Fi</html>"), "the answer is not JSON"),
        (Reply::json("[1]"), "the answer is an array, not an object"),
        (Reply::json(r#"{"status":"ok"}"#), "an object without a known field"),
        (Reply::json(r#"{"gate":-1}"#), "gate is -1"),
        (
            Reply::ok().header("Gatefeed-Gate", "-1"),
            "header gatefeed-gate is \"-1\", expected an integer from 0",
        ),
        (Reply::ok().header("Gatefeed-Gate", "one"), "header gatefeed-gate is \"one\""),
        (Reply::ok().header("Gatefeed-Gate", "99999999999"), "header gatefeed-gate is \"99999999999\""),
        (Reply::ok().header("Gatefeed-Gate", "1").header("Gatefeed-Gate", "2"), "more than once"),
        (
            Reply::ok().header("Gatefeed-Done", "yes"),
            "header gatefeed-done is \"yes\", expected true or false",
        ),
        (Reply::ok().header("Gatefeed-Done", b"\xff"), "header gatefeed-done is not UTF-8"),
        (
            Reply::ok().header("Gatefeed-Done", "1").header("Content-Type", &long_type).body("x"),
            "the answer's content type has 400 bytes",
        ),
        (
            Reply::ok().header("Gatefeed-Done", "1").header("Content-Type", b"a/\xff").body("x"),
            "header content-type is not UTF-8",
        ),
        (
            Reply::json("{}").header("Content-Encoding", "br"),
            "the answer has Content-Encoding \"br\", although",
        ),
        (Reply::json("{}").header("Content-Encoding", "gzip"), "the answer is no gzip"),
        (Reply::status(202).header("Gatefeed-Async", "true"), "was not told where to call back"),
        (Reply::status(200).header("Gatefeed-Async", "1").body("x"), "is told by 202"),
    ] {
        let failure = failure(reply).await;
        assert!(failure.message.contains(expected), "{expected}: {failure:?}");
        assert_eq!(failure, Failure::new(failure.message.clone()), "counted, retried with backoff");
    }
}

#[tokio::test]
async fn an_error_in_a_success_is_a_failed_attempt() {
    let said = failure(Reply::json(r#"{"error":{"message":"bad row","no_retry":true},"done":true}"#)).await;
    assert_eq!(said, Failure::final_("bad row"));
    let later = failure(Reply::json(r#"{"error":{"message":"busy"},"retry_after":9}"#)).await;
    assert_eq!(later, Failure { retry_after: Some(Duration::from_secs(9)), ..Failure::new("busy") });
}

#[tokio::test]
async fn a_status_that_is_no_success_is_a_failed_attempt_with_what_it_said() {
    let cut = format!("HTTP 500 Internal Server Error: {}…", "é".repeat(200));
    for (reply, expected) in [
        (Reply::status(500), "HTTP 500 Internal Server Error"),
        (Reply::status(500).body("  boom\n at line 3\n"), "HTTP 500 Internal Server Error: boom\n at line 3"),
        (Reply::status(500).body("é".repeat(201)), &cut),
        (Reply::status(500).body(&b"\0\x01binary"[..]), "HTTP 500 Internal Server Error"),
        (Reply::status(500).body(&b"\xff\xfe"[..]), "HTTP 500 Internal Server Error"),
        (Reply::gzip().with_status(500), "HTTP 500 Internal Server Error: {}"),
        (Reply::json(r#"{"error":{"message":"no row"}}"#).with_status(404), "HTTP 404 Not Found: no row"),
        (
            Reply::json(r#"{"detail":"no"}"#).with_status(422),
            "HTTP 422 Unprocessable Entity: {\"detail\":\"no\"}",
        ),
        (Reply::json(r#"{"done":true}"#).with_status(500), "HTTP 500 Internal Server Error: {\"done\":true}"),
        (Reply::status(599), "HTTP 599"),
        (Reply::status(304), "HTTP 304 Not Modified"),
        (Reply::status(500).header("Gatefeed-Done", "true"), "HTTP 500 Internal Server Error"),
        (Reply::status(500).header("Retry-After", "7"), "HTTP 500 Internal Server Error"),
    ] {
        assert_eq!(failure(reply).await, Failure::new(expected));
    }
}

#[tokio::test]
async fn an_error_body_says_whether_and_when_to_retry() {
    let body = r#"{"error":{"message":"gone","no_retry":true}}"#;
    assert_eq!(failure(Reply::json(body).with_status(410)).await, Failure::final_("HTTP 410 Gone: gone"));
    let body = r#"{"error":{"message":"later"},"retry_after":1.5}"#;
    let later = Failure {
        retry_after: Some(Duration::from_millis(1500)),
        ..Failure::new("HTTP 500 Internal Server Error: later")
    };
    assert_eq!(failure(Reply::json(body).with_status(500)).await, later);
}

#[tokio::test]
async fn redirects_are_not_followed_and_their_secrets_not_kept() {
    for (location, expected) in [
        ("https://user:pw@example.com:8443/login?token=secret#x", "example.com:8443/login"),
        ("//other.example/a", "other.example/a"),
        ("http://[", "an unknown place"),
    ] {
        for status in [301, 302, 303, 307, 308] {
            let failure = failure(Reply::redirect(location).with_status(status).body("moved")).await;
            let end = format!(": redirects are not followed (to {expected})");
            assert!(failure.message.starts_with(&format!("HTTP {status} ")), "{failure:?}");
            assert!(failure.message.ends_with(&end) && failure.counted, "{failure:?}");
        }
    }
}

#[tokio::test]
async fn retry_after_of_429_and_503_delays_without_counting() {
    let now = SystemTime::now();
    let date = |at: SystemTime| httpdate::fmt_http_date(at);
    let in_an_hour = date(now + Duration::from_secs(3600));
    let skewed = now - Duration::from_secs(86_400);
    for (reply, expected) in [
        (Reply::status(429).header("Retry-After", "7"), Duration::from_secs(7)),
        (Reply::status(503).header("Retry-After", "7"), Duration::from_secs(7)),
        (Reply::status(503).header("Retry-After", "0"), Duration::from_millis(100)),
        (Reply::status(429).header("Retry-After", "99999999999999999999999"), DURATION_MAX),
        (
            Reply::status(503).header("Date", date(now)).header("Retry-After", &in_an_hour),
            Duration::from_secs(3600),
        ),
        (
            Reply::status(503)
                .header("Date", date(skewed))
                .header("Retry-After", date(skewed + Duration::from_secs(60))),
            Duration::from_secs(60),
        ),
        (Reply::status(503).header("Retry-After", date(skewed)), Duration::from_millis(100)),
        (
            Reply::json(r#"{"retry_after":99}"#).with_status(429).header("Retry-After", "7"),
            Duration::from_secs(7),
        ),
    ] {
        let failure = failure(reply.clone()).await;
        assert_eq!(failure.retry_after, Some(expected), "{reply:?}");
        assert!(!failure.counted && !failure.no_retry && failure.message.starts_with("HTTP "), "{failure:?}");
    }
    let without_date =
        failure(Reply::status(503).header("Retry-After", &in_an_hour)).await.retry_after.unwrap();
    assert!(
        without_date > Duration::from_secs(3000) && without_date <= Duration::from_secs(3601),
        "{without_date:?}"
    );
}

#[tokio::test]
async fn a_429_or_503_counts_when_it_says_so_or_gives_no_header() {
    let final_ = r#"{"error":{"message":"quota gone","no_retry":true}}"#;
    let reply = Reply::json(final_).with_status(429).header("Retry-After", "7");
    assert_eq!(failure(reply).await, Failure::final_("HTTP 429 Too Many Requests: quota gone"));

    let only_json = failure(Reply::json(r#"{"retry_after":3}"#).with_status(503)).await;
    assert_eq!((only_json.counted, only_json.retry_after), (true, Some(Duration::from_secs(3))));

    for value in ["soon", "-1", "", "1.5"] {
        let unread = failure(Reply::status(429).header("Retry-After", value)).await;
        assert_eq!(unread, Failure::new("HTTP 429 Too Many Requests"), "{value:?}");
    }
}
