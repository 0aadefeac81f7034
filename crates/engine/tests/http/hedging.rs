//! The same delivery to several handlers.

use std::time::Duration;

use gatefeed_core::item::Data;
use gatefeed_engine::{
    Processor,
    dispatch::{Balance, HedgeAfter, HedgeOptions, HttpOptions, HttpProcessor, Spread},
};
use gatefeed_testkit::handler::{Handler, Reply};

use super::{delivery, to_urls};

fn options() -> HedgeOptions {
    HedgeOptions {
        after: HedgeAfter::Time(Duration::from_millis(20)),
        targets: 2,
        budget: 100,
        greatest: None,
        accept: Vec::new(),
    }
}

/// To these handlers, the first of which is asked first.
fn hedged(handlers: &[&Handler], hedge: HedgeOptions) -> HttpProcessor {
    let urls: Vec<String> = handlers.iter().map(|handler| handler.url()).collect();
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let spread = Spread { hedge: Some(hedge), balance: Balance::Turns, ..Spread::default() };
    to_urls(&urls, HttpOptions { spread, ..HttpOptions::default() })
}

fn version(number: u32) -> Reply {
    Reply::json(format!(r#"{{"data": {{"version": {number}}}}}"#))
}

#[tokio::test]
async fn the_loser_is_hung_up_on() {
    let slow = Handler::always(Reply::ok().after(Duration::from_secs(600))).await;
    let quick = Handler::always(version(2)).await;
    let answer = hedged(&[&slow, &quick], options()).process(delivery()).await.unwrap();
    assert_eq!(answer.data, Some(Data::json(r#"{"version": 2}"#)));
    let [slow, quick] = [slow.requests(), quick.requests()];
    assert_eq!((slow.len(), quick.len()), (1, 1));
    let same = |name| (slow[0].header_text(name), quick[0].header_text(name));
    let (one, other) = same("idempotency-key");
    assert!(one == other && slow[0].body == quick[0].body, "it is the same delivery");
}

#[tokio::test]
async fn a_status_that_is_not_acceptable_waits_for_a_better_answer() {
    let stale = Handler::always(version(1).with_status(203)).await;
    let fresh = Handler::always(version(2)).await;
    let accept = HedgeOptions { accept: vec![200], ..options() };
    let answer = hedged(&[&stale, &fresh], accept.clone()).process(delivery()).await.unwrap();
    assert_eq!(answer.data, Some(Data::json(r#"{"version": 2}"#)));
    let failure = hedged(&[&stale], accept).process(delivery()).await.unwrap_err();
    assert!(failure.counted && failure.message.contains("HTTP 203"), "{failure:?}");
}

#[tokio::test]
async fn the_greatest_version_wins_over_real_connections() {
    let (one, two) = (Handler::always(version(7)).await, Handler::always(version(9)).await);
    let hedge = HedgeOptions { greatest: Some("/version".into()), ..options() };
    let answer = hedged(&[&one, &two], hedge).process(delivery()).await.unwrap();
    assert_eq!(answer.data, Some(Data::json(r#"{"version": 9}"#)));
}

#[tokio::test]
async fn what_cannot_work_is_refused() {
    let zero = HedgeAfter::Time(Duration::ZERO);
    for (hedge, expected) in [
        (HedgeOptions { after: zero, ..options() }, "above zero"),
        (HedgeOptions { after: HedgeAfter::Percentile(100), ..options() }, "p1 to p99"),
        (HedgeOptions { targets: 1, ..options() }, "at least two targets"),
        (HedgeOptions { budget: 0, ..options() }, "budget above zero"),
        (HedgeOptions { greatest: Some("version".into()), ..options() }, "JSON pointer"),
        (HedgeOptions { accept: vec![404], ..options() }, "200 to 299"),
    ] {
        let spread = Spread { hedge: Some(hedge), ..Spread::default() };
        let target = gatefeed_engine::dispatch::parse_target("http://127.0.0.1:9/").unwrap();
        let options = HttpOptions { spread, ..HttpOptions::default() };
        let refused = HttpProcessor::new(vec![target], options).err().unwrap().to_string();
        assert!(refused.contains(expected), "{refused}");
    }
}
