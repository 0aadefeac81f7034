//! Several items in one request.

use gatefeed_core::{
    answer::{Answer, Failure},
    batch::batch_key,
};
use gatefeed_engine::{
    Delivery, Processor,
    dispatch::{HttpOptions, Signer},
};
use gatefeed_testkit::handler::{Handler, Reply};

use super::{delivery, to, to_urls};

fn batch(items: &[&str]) -> Vec<Delivery> {
    items.iter().map(|item| Delivery { item: (*item).into(), ..delivery() }).collect()
}

#[tokio::test]
async fn a_batch_is_an_array_with_what_all_have_in_common_in_headers() {
    let handler = Handler::always(Reply::json(r#"[{"item":"a"},{"item":"b"}]"#)).await;
    let mut deliveries = batch(&["a", "b"]);
    deliveries[1].content_type = "image/png".into();
    deliveries[1].data = vec![0, 255].into();
    let verdicts = to(&handler).process_batch(deliveries.clone()).await;
    assert_eq!(verdicts, [Ok(Answer::done()), Ok(Answer::done())]);
    let request = handler.requests().remove(0);
    let key = batch_key(deliveries.iter().map(Delivery::idempotency_key)).to_string();
    for (name, value) in [
        ("content-type", "application/json"),
        ("idempotency-key", key.as_str()),
        ("gatefeed-partition", "import-7"),
        ("gatefeed-gate", "2"),
        ("gatefeed-epoch", "5"),
        ("gatefeed-batch", "2"),
    ] {
        assert_eq!(request.header_text(name), value, "{name}");
    }
    assert_eq!(
        request.headers.len(),
        10,
        "and host, user-agent, content-length, traceparent: {:?}",
        request.headers
    );
    let body: serde_json::Value = serde_json::from_slice(&request.body).unwrap();
    let keys: Vec<String> =
        deliveries.iter().map(|delivery| delivery.idempotency_key().to_string()).collect();
    let expected = serde_json::json!([
        {"partition": "import-7", "item": "a", "gate": 2, "attempt": 4, "idempotency_key": keys[0], "data": {"n": 1}},
        {"partition": "import-7", "item": "b", "gate": 2, "attempt": 4, "idempotency_key": keys[1],
         "data_base64": "AP8=", "content_type": "image/png"},
    ]);
    assert_eq!(body, expected);
}

#[tokio::test]
async fn a_batch_is_signed_as_a_whole() {
    let handler = Handler::always(Reply::json("[]")).await;
    let signer = Some(Signer::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap());
    let processor = to_urls(&[&handler.url()], HttpOptions { signer, ..HttpOptions::default() });
    processor.process_batch(batch(&["a"])).await;
    let request = handler.requests().remove(0);
    assert_eq!(request.header("webhook-id"), request.header("idempotency-key"));
    assert!(request.header_text("webhook-signature").starts_with("v1,"));
}

#[tokio::test]
async fn what_fails_by_itself_fails_alone_and_what_fails_as_a_whole_fails_for_each() {
    let answer = r#"[{"item":"a","gate":3},{"item":"b","error":{"message":"no","no_retry":true}}]"#;
    let handler = Handler::always(Reply::json(answer)).await;
    let verdicts = to(&handler).process_batch(batch(&["a", "b", "c"])).await;
    assert_eq!(verdicts[..2], [Ok(Answer::to_gate(3)), Err(Failure::final_("no"))]);
    let missing = verdicts[2].as_ref().unwrap_err();
    assert!(missing.counted && missing.message.contains("says nothing of this item"), "{missing:?}");

    let refused = async |reply: Reply| {
        let handler = Handler::always(reply).await;
        let verdicts = to(&handler).process_batch(batch(&["a", "b"])).await;
        assert!(verdicts.len() == 2 && verdicts[0] == verdicts[1], "{verdicts:?}");
        verdicts[0].clone().unwrap_err()
    };
    assert!(refused(Reply::status(500)).await.counted);
    assert!(refused(Reply::json("{}")).await.message.contains("not an array"));
    let later = Reply::status(202).header("Gatefeed-Async", "true");
    assert!(refused(later).await.message.contains("answers cannot come later"));
    let busy = refused(Reply::status(503).header("Retry-After", "7")).await;
    assert!(!busy.counted && busy.retry_after.unwrap().as_secs() == 7, "{busy:?}");
}

#[tokio::test]
async fn a_batch_that_never_arrived_counts_for_none() {
    let mut handler = Handler::always(Reply::json("[]")).await;
    handler.stop().await;
    let verdicts = to(&handler).process_batch(batch(&["a", "b"])).await;
    assert!(verdicts.len() == 2 && verdicts.iter().all(|v| !v.as_ref().unwrap_err().counted), "{verdicts:?}");
}
