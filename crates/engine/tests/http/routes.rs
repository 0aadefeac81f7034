//! Routes: each feed and gate has its handler.

use std::{num::NonZeroU32, time::Duration};

use gatefeed_core::{
    answer::Answer,
    circuit::{Circuit, CircuitState},
    share::{PeerGroup, Peers},
};
use gatefeed_engine::{
    Delivery, Processor,
    dispatch::{BreakerOptions, HttpOptions, HttpRoutes, Rate, RateLimit, Route, TargetLimits, parse_target},
};
use gatefeed_testkit::handler::{Handler, Reply};
use tokio::time::timeout;

use super::delivery;

fn route(feed: Option<&str>, gate: Option<i32>, url: &str) -> Route {
    let targets = vec![parse_target(url).unwrap()];
    Route { feed: feed.map(str::to_owned), gate, targets, options: HttpOptions::default() }
}

fn of(feed: &str, gate: i32) -> Delivery {
    Delivery { feed: feed.into(), gate, ..delivery() }
}

#[tokio::test]
async fn a_gate_goes_before_its_feed_and_a_feed_before_all_others() {
    let handler = Handler::always(Reply::ok()).await;
    let to = |feed, gate, path: &str| route(feed, gate, &format!("{}{path}", handler.url()));
    let routes = HttpRoutes::new(vec![
        to(None, None, "all"),
        to(None, Some(1), "all-1"),
        to(Some("scans"), None, "scans"),
        to(Some("scans"), Some(2), "scans-2"),
        to(Some("mail"), Some(1), "mail-1"),
    ])
    .unwrap();
    for (feed, gate) in
        [("x", 0), ("x", 1), ("scans", 0), ("scans", 1), ("scans", 2), ("mail", 1), ("mail", 0)]
    {
        assert_eq!(routes.process(of(feed, gate)).await, Ok(Answer::done()));
    }
    let paths: Vec<String> = handler.requests().iter().map(|request| request.path.clone()).collect();
    assert_eq!(paths, ["/all", "/all-1", "/scans", "/scans", "/scans-2", "/mail-1", "/all"]);
}

#[tokio::test]
async fn without_a_target_an_item_fails_and_says_so() {
    let routes = HttpRoutes::new(vec![route(Some("a"), Some(0), "http://127.0.0.1:9/")]).unwrap();
    let failure = routes.process(of("a", 7)).await.unwrap_err();
    assert!(failure.counted && failure.message.contains("no target for gate 7 of feed \"a\""), "{failure:?}");
    assert!(routes.is_ready("a", 7), "else it would wait for ever");
}

#[tokio::test]
async fn two_routes_for_the_same_are_refused_and_a_bad_one_is_named() {
    let twice = || route(Some("a"), Some(1), "http://127.0.0.1:9/");
    let refused = HttpRoutes::new(vec![twice(), twice()]).err().unwrap().to_string();
    assert_eq!(refused, "feed \"a\", gate 1 has two routes");
    let mut bad = twice();
    bad.options.request_timeout = Duration::ZERO;
    let refused = HttpRoutes::new(vec![bad]).err().unwrap().to_string();
    assert!(refused.starts_with("feed \"a\", gate 1: a timeout of zero"), "{refused}");
}

#[tokio::test]
async fn a_handler_that_is_down_holds_up_its_own_route_until_it_is_back() {
    let up = Handler::always(Reply::ok()).await;
    let mut down = Handler::always(Reply::ok()).await;
    down.stop().await;
    let routes =
        HttpRoutes::new(vec![route(Some("a"), None, &up.url()), route(Some("a"), Some(1), &down.url())])
            .unwrap();
    while routes.is_ready("a", 1) {
        assert!(!routes.process(of("a", 1)).await.unwrap_err().counted);
    }
    assert!(routes.is_ready("a", 0));
    assert_eq!(routes.process(of("a", 0)).await, Ok(Answer::done()));
    down.restart().await;
    let back = async {
        loop {
            let changed = routes.readiness_changed();
            if routes.is_ready("a", 1) && routes.process(of("a", 1)).await.is_ok() {
                return;
            }
            changed.await;
        }
    };
    timeout(Duration::from_secs(30), back).await.expect("its pause ends");
}

#[tokio::test]
async fn routes_that_are_the_same_share_their_connections() {
    let handler = Handler::always(Reply::ok()).await;
    let routes =
        HttpRoutes::new(vec![route(Some("a"), None, &handler.url()), route(Some("b"), None, &handler.url())])
            .unwrap();
    for feed in ["a", "b", "a"] {
        assert_eq!(routes.process(of(feed, 0)).await, Ok(Answer::done()));
    }
    assert_eq!((handler.requests().len(), handler.connections()), (3, 1));
    assert_eq!(routes.health().await.len(), 1);
}

/// By the feeds and gates whose items go there, and without what may be a secret.
#[tokio::test]
async fn targets_that_are_left_alone_are_told_by_feed_and_gate() {
    let handler = Handler::always(Reply::status(500)).await;
    let breaker = BreakerOptions { failures: Some(1), ..BreakerOptions::default() };
    let limits = TargetLimits { breaker, ..TargetLimits::default() };
    let to = |feed: Option<&str>, gate, path: &str| {
        let mut route = route(feed, gate, &format!("{}{path}?key=secret", handler.url()));
        route.options.spread.limits = limits.clone();
        route
    };
    let routes = HttpRoutes::new(vec![
        to(None, None, "all"),
        to(None, Some(1), "all-1"),
        to(Some("scans"), None, "scans"),
        to(Some("mail"), Some(2), "mail-2"),
    ])
    .unwrap();
    let told = |feed: &str| {
        let told = |circuit: Circuit| (circuit.gate, circuit.target.rsplit('/').next().unwrap().to_owned());
        routes.circuits(feed).into_iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(told("scans"), []);
    for (feed, gate) in [("x", 0), ("x", 1), ("scans", 0), ("mail", 2)] {
        assert!(!routes.is_down(feed), "{feed}: not at every gate");
        assert!(routes.process(of(feed, gate)).await.is_err());
    }
    assert!(["x", "scans", "mail"].iter().all(|feed| routes.is_down(feed)));
    let expected = |expected: &[(Option<i32>, &str)]| {
        expected.iter().map(|(gate, path)| (*gate, (*path).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(told("x"), expected(&[(None, "all"), (Some(1), "all-1")]));
    assert_eq!(told("scans"), expected(&[(None, "scans")]));
    assert_eq!(told("mail"), expected(&[(None, "all"), (Some(1), "all-1"), (Some(2), "mail-2")]));
    let circuit = routes.circuits("scans").remove(0);
    assert!(
        !circuit.target.contains("secret") && circuit.target.starts_with("http://127.0.0.1"),
        "{circuit:?}"
    );
    assert_eq!((circuit.state, circuit.targets_left), (CircuitState::Open, 0));
    assert!(circuit.next_try_secs > 1.0 && circuit.for_secs < 60.0, "{circuit:?}");
}

/// Each of the feeds concerned over those who serve it, what holds for both over those who serve any of them; as long as
/// they are there.
#[tokio::test(start_paused = true)]
async fn limits_are_split_over_those_who_serve_their_feeds() {
    let rate = |burst: u32| {
        let burst = NonZeroU32::new(burst).unwrap();
        RateLimit::new(Rate { every: Duration::from_secs(36_000), burst })
    };
    let (of_mail, of_both) = (rate(8), rate(30));
    let limited = |feed: &str, max_in_flight, rates| {
        let mut route = route(Some(feed), None, &format!("http://127.0.0.1:9/{feed}"));
        route.options.spread.limits.max_in_flight = max_in_flight;
        route.options.spread.rates = rates;
        route
    };
    let routes = HttpRoutes::new(vec![
        limited("scans", Some(7), vec![of_both.clone()]),
        limited("mail", None, vec![of_mail, of_both]),
        limited("free", None, vec![]),
    ])
    .unwrap();
    assert!(routes.is_split());
    let peers = |groups: &[(&[&str], usize)]| {
        let group = |(feeds, watchers): &(&[&str], usize)| PeerGroup {
            feeds: feeds.iter().map(|feed| (*feed).to_owned()).collect(),
            watchers: *watchers,
            before: 0,
        };
        Peers::new(groups.iter().map(group).collect())
    };
    let reserved = |feed: &str| (0..100).filter(|_| routes.reserve(feed, 0)).count();
    routes.split(&peers(&[(&["scans"], 1), (&["mail"], 2), (&["free"], 50)]));
    assert_eq!(reserved("scans"), 4, "7 for two of them, of which the first gets what is left");
    assert_eq!(reserved("mail"), 3, "8 for three of them");
    assert_eq!(reserved("free"), 100);
    // What is in flight goes on, and more only once it has ended.
    let changed = routes.readiness_changed();
    routes.split(&peers(&[]));
    changed.await;
    assert_eq!(reserved("scans"), 1, "7 without the 4, but no more than 8 of both at once");

    let breaker = BreakerOptions { failures: Some(1), ..BreakerOptions::default() };
    let mut alone = limited("scans", None, vec![]);
    alone.options.spread.limits.breaker = breaker;
    assert!(!HttpRoutes::new(vec![alone]).unwrap().is_split(), "a circuit is each watcher's own");
}
