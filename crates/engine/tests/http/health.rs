//! What a health check finds.

use std::time::Duration;

use gatefeed_engine::dispatch::{HttpOptions, TargetHealth};
use gatefeed_testkit::handler::{Handler, Manner, Reply};
use tokio::time::timeout;

use super::to_urls;

async fn check(url: &str, path: Option<&str>) -> TargetHealth {
    let options = HttpOptions { health_path: path.map(str::to_owned), ..HttpOptions::default() };
    to_urls(&[url], options).health().await.remove(0)
}

#[tokio::test]
async fn the_path_is_asked_on_the_targets_host_and_the_status_matters() {
    let handler = Handler::start(|request| async move {
        assert_eq!(request.method, "GET");
        match request.path.as_str() {
            "/healthz?deep=1" => Reply::status(204),
            "/moved" => Reply::redirect("/healthz"),
            _ => Reply::status(503),
        }
    })
    .await;
    let target = format!("{}a/b?token=secret", handler.url());
    for (path, ok, detail) in [
        ("/healthz?deep=1", true, "HTTP 204 No Content"),
        ("/moved", false, "HTTP 302 Found"),
        ("/other", false, "HTTP 503 Service Unavailable"),
    ] {
        let health = check(&target, Some(path)).await;
        let shown = format!("{}a/b", handler.url());
        assert_eq!(health, TargetHealth { target: shown, ok, detail: detail.to_owned() });
    }
    let paths: Vec<_> = handler.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/healthz?deep=1", "/moved", "/other"]);
}

#[tokio::test]
async fn a_target_that_does_not_answer_is_not_well() {
    let mut handler = Handler::always(Reply::ok().manner(Manner::Hang)).await;
    let url = handler.url();
    let hanging = check(&url, Some("/healthz"));
    let hanging = timeout(Duration::from_secs(20), hanging).await.unwrap();
    assert_eq!((hanging.ok, hanging.detail.as_str()), (false, "no answer within 2s"));
    handler.stop().await;
    for path in [Some("/healthz"), None] {
        let refused = check(&handler.url(), path).await;
        assert!(!refused.ok && refused.detail.contains("Connection refused"), "{refused:?}");
    }
}

#[tokio::test]
async fn without_a_path_a_connection_is_enough() {
    let (one, mut two) = (Handler::always(Reply::status(500)).await, Handler::always(Reply::ok()).await);
    two.stop().await;
    let processor = to_urls(&[&one.url(), &two.url()], HttpOptions::default());
    let health = processor.health().await;
    assert_eq!(health.iter().map(|target| target.ok).collect::<Vec<_>>(), [true, false]);
    assert_eq!(health[0].detail, "accepts connections");
    assert!(one.requests().is_empty());
}
