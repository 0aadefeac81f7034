//! Targets that cannot be reached: what never arrived does not count.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gatefeed_core::answer::{Answer, Failure};
use gatefeed_engine::{
    Processor,
    dispatch::{HttpOptions, HttpProcessor, parse_target},
};
use gatefeed_testkit::handler::{FullQueue, Handler, Reply};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use super::{delivery, hasty, to, to_urls};

/// Longer than any pause, and than a slow machine takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest pause of a target.
const PAUSE_MAX: Duration = Duration::from_secs(5);

fn assert_not_counted(failure: &Failure, expected: &str) {
    assert!(!failure.counted && !failure.no_retry, "{failure:?}");
    assert!(
        failure.message.starts_with("cannot reach ") && failure.message.contains(expected),
        "{failure:?}"
    );
    assert!(failure.retry_after.is_some_and(|delay| delay <= PAUSE_MAX), "{failure:?}");
}

/// Fails until there is a pause that outlasts a test's next steps.
async fn pause(processor: &HttpProcessor) -> Failure {
    loop {
        processor.ready().await;
        let failure = processor.process(delivery()).await.unwrap_err();
        if failure.retry_after.unwrap() > Duration::from_secs(1) {
            return failure;
        }
    }
}

#[tokio::test]
async fn a_refused_connection_does_not_count() {
    let mut handler = Handler::always(Reply::ok()).await;
    handler.stop().await;
    let url = format!("{}hook?token=secret", handler.url());
    let failure = to_urls(&[&url], HttpOptions::default()).process(delivery()).await.unwrap_err();
    assert_not_counted(&failure, "Connection refused");
    let shown = format!("cannot reach {}hook: ", handler.url());
    assert!(failure.message.starts_with(&shown) && !failure.message.contains("secret"), "{failure:?}");
}

#[tokio::test]
async fn a_name_that_does_not_exist_does_not_count() {
    let options = HttpOptions { connect_timeout: Duration::from_secs(2), ..HttpOptions::default() };
    let failure = to_urls(&["http://gatefeed.invalid/"], options).process(delivery()).await.unwrap_err();
    assert_not_counted(&failure, "cannot reach http://gatefeed.invalid/: ");
}

#[tokio::test]
async fn a_connection_that_takes_too_long_does_not_count() {
    // The handshake's first message is no HTTP request, so the handler waits for more of it for ever.
    let handler = Handler::always(Reply::ok()).await;
    let url = handler.url().replace("http://", "https://");
    let options = HttpOptions { connect_timeout: Duration::from_millis(200), ..HttpOptions::default() };
    let failure = to_urls(&[&url], options).process(delivery()).await.unwrap_err();
    assert_not_counted(&failure, "no connection within 200ms");
    let options = HttpOptions { request_timeout: Duration::from_millis(200), ..HttpOptions::default() };
    let failure = to_urls(&[&url], options).process(delivery()).await.unwrap_err();
    assert_not_counted(&failure, "no connection within 180ms");
}

#[tokio::test]
async fn a_full_accept_queue_does_not_count() {
    let full = FullQueue::new().await;
    let options = HttpOptions { connect_timeout: Duration::from_millis(200), ..HttpOptions::default() };
    let failure = to_urls(&[&full.url()], options).process(delivery()).await.unwrap_err();
    assert_not_counted(&failure, "no connection within 200ms");
}

#[tokio::test]
async fn a_failed_tls_handshake_does_not_count() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    let plain_http = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 4096]).await;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    });
    let failure = to_urls(&[&url], HttpOptions::default()).process(delivery()).await.unwrap_err();
    assert_not_counted(&failure, "InvalidContentType");
    plain_http.await.unwrap();
}

/// Kept connections end with the handler; the client notices, and makes a new one.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_between_two_requests_is_not_noticed() {
    let mut handler = Handler::always(Reply::ok()).await;
    let processor = to(&handler);
    for round in 1..=20 {
        assert_eq!(processor.process(delivery()).await, Ok(Answer::done()), "round {round}");
        handler.drain().await;
        handler.restart().await;
    }
    assert_eq!((handler.requests().len(), handler.connections()), (20, 20));
}

#[tokio::test]
async fn a_target_that_comes_back_is_found_and_no_attempt_was_counted() {
    let mut handler = Handler::always(Reply::ok()).await;
    let processor = to(&handler);
    assert_eq!(processor.process(delivery()).await, Ok(Answer::done()));
    handler.stop().await;
    for _ in 0..3 {
        timeout(PATIENCE, processor.ready()).await.unwrap();
        assert_not_counted(&processor.process(delivery()).await.unwrap_err(), "");
    }
    handler.restart().await;
    let found = async {
        loop {
            processor.ready().await;
            match processor.process(delivery()).await {
                Ok(answer) => return answer,
                Err(failure) => assert_not_counted(&failure, ""),
            }
        }
    };
    assert_eq!(timeout(PATIENCE, found).await.unwrap(), Answer::done());
    assert_eq!(handler.requests().len(), 2);
}

/// However fast deliveries come, a target that is down is asked a few times a second at most.
#[tokio::test]
async fn a_paused_target_is_not_asked() {
    let mut handler = Handler::always(Reply::ok()).await;
    handler.stop().await;
    let processor = to(&handler);
    let paused = pause(&processor).await;
    handler.restart().await;
    let again = processor.process(delivery()).await.unwrap_err();
    assert_not_counted(&again, "Connection refused");
    assert!(again.message == paused.message && again.retry_after <= paused.retry_after, "{again:?}");
    assert_eq!(handler.connections(), 0);
    let started = Instant::now();
    timeout(PATIENCE, processor.ready()).await.unwrap();
    assert!(started.elapsed() < PAUSE_MAX * 2);
    assert_eq!(processor.process(delivery()).await, Ok(Answer::done()));
}

/// The handler listens no more, but still answers what it has in work.
#[tokio::test]
async fn an_answer_ends_the_pause() {
    let release = Arc::new(Semaphore::new(0));
    let behaviour = {
        let release = Arc::clone(&release);
        move |_| {
            let release = Arc::clone(&release);
            async move {
                release.acquire().await.unwrap().forget();
                Reply::ok()
            }
        }
    };
    let mut handler = Handler::start(behaviour).await;
    let address = handler.url().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let processor = to(&handler);
    let slow = async {
        let answered = processor.process(delivery()).await;
        assert_eq!(answered, Ok(Answer::done()));
        let ready = timeout(Duration::from_millis(10), processor.ready()).await;
        ready.expect("a target that answers is not paused");
    };
    let meanwhile = async {
        handler.received(1).await;
        let drained = handler.drain();
        let refused = async {
            while TcpStream::connect(&address).await.is_ok() {
                tokio::task::yield_now().await;
            }
            pause(&processor).await;
            release.add_permits(1);
        };
        tokio::join!(drained, refused);
    };
    timeout(PATIENCE, async { tokio::join!(slow, meanwhile) }).await.unwrap();
}

#[tokio::test]
async fn several_targets_take_turns_and_one_that_is_down_costs_no_attempt() {
    let (mut one, two) = (Handler::always(Reply::ok()).await, Handler::always(Reply::ok()).await);
    let processor = to_urls(&[&one.url(), &two.url()], HttpOptions::default());
    for _ in 0..10 {
        processor.process(delivery()).await.unwrap();
    }
    assert_eq!((one.requests().len(), two.requests().len()), (5, 5));

    one.stop().await;
    let mut through = 0;
    while through < 20 {
        timeout(Duration::from_millis(10), processor.ready()).await.expect("the other target is well");
        match processor.process(delivery()).await {
            Ok(_) => through += 1,
            Err(failure) => {
                assert_not_counted(&failure, &one.url());
                assert_eq!(failure.retry_after, Some(Duration::ZERO), "the other one can take it at once");
            }
        }
    }
    assert_eq!(two.requests().len(), 25);
}

#[tokio::test]
async fn a_slow_target_is_not_held_to_be_unreachable() {
    let handler = Handler::always(Reply::ok().after(Duration::from_secs(60))).await;
    let processor = hasty(&handler);
    for _ in 0..2 {
        assert!(processor.process(delivery()).await.unwrap_err().counted);
        timeout(Duration::from_millis(10), processor.ready()).await.expect("not paused");
    }
    assert_eq!(handler.requests().len(), 2);
}

#[tokio::test]
async fn options_that_cannot_work_are_refused() {
    let refused = |urls: &[&str], options: HttpOptions| {
        let urls = urls.iter().map(|url| parse_target(url).unwrap()).collect();
        HttpProcessor::new(urls, options).err().expect("refused").to_string()
    };
    let zero = Duration::ZERO;
    assert!(refused(&[], HttpOptions::default()).contains("at least one URL"));
    for options in [
        HttpOptions { request_timeout: zero, ..HttpOptions::default() },
        HttpOptions { connect_timeout: zero, ..HttpOptions::default() },
    ] {
        assert!(refused(&["http://localhost/"], options).contains("timeout of zero"));
    }
    for path in ["healthz", "", "//elsewhere.example/x", "http://elsewhere.example/"] {
        let options = HttpOptions { health_path: Some(path.into()), ..HttpOptions::default() };
        assert!(refused(&["http://localhost/"], options).contains("health path"), "{path}");
    }
}
