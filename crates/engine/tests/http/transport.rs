//! Handlers that answer badly or not at all.

use std::{sync::Arc, time::Duration};

use gatefeed_core::answer::{Answer, Failure};
use gatefeed_engine::{Processor, dispatch::HttpOptions};
use gatefeed_testkit::handler::{Handler, Manner, Reply};

use super::{delivery, failure, hasty, to, to_urls, verdict};

const PAUSE: Duration = Duration::from_millis(100);

fn steps(manner: Manner) -> Reply {
    Reply::json(r#"{"gate":4}"#).manner(manner)
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_a_failed_attempt() {
    for reply in [
        steps(Manner::Hang),
        steps(Manner::SlowHead(PAUSE)),
        steps(Manner::DripBody(PAUSE)),
        steps(Manner::Proper).after(Duration::from_secs(60)),
    ] {
        let handler = Handler::always(reply).await;
        let late = hasty(&handler).process(delivery()).await;
        assert_eq!(late, Err(Failure::new("no answer within 250ms (--request-timeout)")));
        assert_eq!(handler.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_slow_answer_is_an_answer() {
    for reply in [
        steps(Manner::SlowHead(Duration::from_millis(1))),
        steps(Manner::DripBody(Duration::from_millis(1))),
        steps(Manner::Chunked(1)),
        steps(Manner::InformationalFirst),
    ] {
        assert_eq!(verdict(reply.clone()).await, Ok(Answer::to_gate(4)), "{reply:?}");
    }
}

#[tokio::test]
async fn a_connection_that_closes_before_the_answer_counts() {
    for (manner, expected) in [
        (Manner::ResetBeforeHead, "connection closed before the answer (connection error: Connection reset"),
        (Manner::ResetAfterHead, "connection closed before the answer was complete"),
        (Manner::HalfBody, "connection closed before the answer was complete"),
        (Manner::WrongLength(1000), "connection closed before the answer was complete"),
    ] {
        let failure = failure(steps(manner)).await;
        assert!(failure.message.starts_with(expected), "{failure:?}");
        assert_eq!(failure, Failure::new(failure.message.clone()));
    }
    let silent = failure(Reply::ok().manner(Manner::Raw)).await;
    let message = "connection closed before the answer (connection closed before message completed)";
    assert_eq!(silent, Failure::new(message));
}

#[tokio::test]
async fn a_success_whose_body_is_cut_is_no_success() {
    // Four bytes of {"gate":4}.
    let cut = failure(steps(Manner::WrongLength(4))).await;
    assert!(cut.message.starts_with("the answer is not JSON") && cut.counted, "{cut:?}");
    let failed = failure(Reply::status(500).body("half of this").manner(Manner::HalfBody)).await;
    let expected = "HTTP 500 Internal Server Error: connection closed before the answer was complete";
    assert!(failed.message.starts_with(expected), "{failed:?}");
}

#[tokio::test]
async fn what_is_not_http_is_a_failed_attempt() {
    for garbage in ["SSH-2.0-OpenSSH_9.9\r\n", "HTTP/3.7 200 OK\r\n\r\n", "\0\0\0\0\0\0\0\0\r\n\r\n"] {
        let failure = failure(Reply::ok().body(garbage).manner(Manner::Raw)).await;
        assert!(failure.message.starts_with("the answer is not HTTP/1.1 ("), "{failure:?}");
        assert!(failure.counted);
    }
    let endless_head = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(2_000_000));
    let failure = failure(Reply::ok().body(endless_head).manner(Manner::Raw)).await;
    assert!(
        failure.message.starts_with("the answer is not HTTP/1.1 (message head is too large"),
        "{failure:?}"
    );
}

#[tokio::test]
async fn a_large_answer_is_refused_and_its_connection_dropped() {
    let handler = Handler::start(|request| async move {
        let chunked = request.header_text("gatefeed-attempt") == "2";
        let huge = Reply::ok().manner(Manner::Huge { bytes: 100 << 20, chunked });
        match request.header_text("gatefeed-attempt").as_str() {
            "1" | "2" => huge,
            "3" => huge.with_status(500),
            _ => Reply::ok(),
        }
    })
    .await;
    let processor = to(&handler);
    for (attempt, message) in [
        (1, "answer larger than 1048576 bytes (--max-answer)"),
        (2, "answer larger than 1048576 bytes (--max-answer)"),
        (3, "HTTP 500 Internal Server Error: answer larger than 1048576 bytes (--max-answer)"),
    ] {
        let mut delivery = delivery();
        delivery.attempt = attempt;
        assert_eq!(processor.process(delivery).await, Err(Failure::new(message)));
        assert_eq!(handler.connections(), attempt as usize, "each on a new connection");
    }
    assert_eq!(processor.process(delivery()).await, Ok(Answer::done()));
}

/// What is small on its way and large in memory: refused for what it is, or read up to the limit and no further.
#[tokio::test]
async fn a_compressed_answer_that_grows_is_a_failed_attempt() {
    let bomb = Reply::gzip_bomb(100 << 20);
    assert!(bomb.body.len() < 1 << 20, "it would be too large as it is");
    for status in [200, 500] {
        let failure = failure(bomb.clone().with_status(status)).await;
        let is_told =
            ["Content-Encoding", "--max-answer", "500"].iter().any(|why| failure.message.contains(why));
        assert!(is_told && failure.counted && failure.message.len() < 1000, "{failure:?}");
    }
}

#[tokio::test]
async fn the_limit_of_an_answer_is_exact() {
    let body = r#"{"gate":4}"#;
    for (manner, max, fits) in [
        (Manner::Proper, body.len(), true),
        (Manner::Proper, body.len() - 1, false),
        (Manner::Chunked(3), body.len(), true),
        (Manner::Chunked(3), body.len() - 1, false),
    ] {
        let handler = Handler::always(steps(manner)).await;
        let options = HttpOptions { max_answer: max, ..HttpOptions::default() };
        let verdict = to_urls(&[&handler.url()], options).process(delivery()).await;
        let too_large = Failure::new(format!("answer larger than {max} bytes (--max-answer)"));
        assert_eq!(verdict, if fits { Ok(Answer::to_gate(4)) } else { Err(too_large) });
    }
}

#[tokio::test]
async fn a_redirect_loop_is_one_request() {
    let handler = Handler::start(|request| async move { Reply::redirect(&request.path) }).await;
    let failure = to(&handler).process(delivery()).await.unwrap_err();
    assert!(
        failure.message.starts_with("HTTP 302 Found: redirects are not followed (to 127.0.0.1:"),
        "{failure:?}"
    );
    assert_eq!(handler.requests().len(), 1);
}

#[tokio::test]
async fn connections_are_kept() {
    let handler = Handler::always(Reply::json("{}")).await;
    let processor = to(&handler);
    for _ in 0..50 {
        assert_eq!(processor.process(delivery()).await, Ok(Answer::done()));
    }
    assert_eq!(handler.connections(), 1);
}

#[tokio::test]
async fn deliveries_run_side_by_side() {
    let handler = Handler::always(Reply::ok().after(PAUSE)).await;
    let processor = Arc::new(to(&handler));
    let deliveries = (0..30).map(|_| processor.process(delivery()));
    for verdict in futures_util::future::join_all(deliveries).await {
        assert_eq!(verdict, Ok(Answer::done()));
    }
    assert_eq!(handler.in_flight_max(), 30);
}

/// The handler closes each connection right after its answer and does not say so. A request that meets the
/// closing connection may have been read: it is a failed attempt and must never be sent again silently.
#[tokio::test(flavor = "multi_thread")]
async fn connections_closed_under_load_send_nothing_twice() {
    let handler = Handler::always(Reply::ok().manner(Manner::CloseUnannounced)).await;
    let processor = Arc::new(to(&handler));
    let workers = (0..20u32).map(|worker| {
        let processor = Arc::clone(&processor);
        tokio::spawn(async move {
            let mut done = 0;
            for attempt in 0..50 {
                let mut delivery = delivery();
                delivery.attempt = worker * 1000 + attempt;
                match processor.process(delivery).await {
                    Ok(answer) => {
                        assert_eq!(answer, Answer::done());
                        done += 1;
                    }
                    Err(failure) => {
                        assert!(failure.message.contains("connection closed before"), "{failure:?}");
                    }
                }
            }
            done
        })
    });
    let mut done = 0;
    for worker in futures_util::future::join_all(workers).await {
        done += worker.unwrap();
    }
    let attempts: Vec<_> = handler.requests().iter().map(|r| r.header_text("gatefeed-attempt")).collect();
    let distinct: std::collections::HashSet<_> = attempts.iter().collect();
    assert_eq!(distinct.len(), attempts.len(), "a delivery was sent twice");
    assert!(done >= 500, "most get through: {done} of 1000");
}
