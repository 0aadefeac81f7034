//! Which handler is whose: a route for each feed, and for each gate that has one of its own.

use std::{
    future::Future,
    sync::{Arc, OnceLock},
};

use foldhash::{HashMap, HashMapExt};
use gatefeed_core::{
    answer::{Failure, Verdict},
    callback::Key,
    circuit::Circuit,
    share::Peers,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use url::Url;

use super::{
    HttpOptions, HttpProcessor, InvalidTarget, TargetHealth, http::Shared, rotation::Rotation, split::Splits,
};
use crate::processor::{Delivery, Processor};

/// What leads the items of a feed, or of one of its gates, to a handler.
#[derive(Clone, Debug)]
pub struct Route {
    /// Of which feed; `None`: of all that have none of their own.
    pub feed: Option<String>,
    /// Of which gate; `None`: of all that have none of their own in the same feed. One of a feed goes before one of
    /// a gate of all feeds.
    pub gate: Option<i32>,
    /// Where to; several share the work.
    pub targets: Vec<Url>,
    /// How.
    pub options: HttpOptions,
}

/// Hands items to the handlers of their feeds and gates. A handler that is down holds up its own route only.
pub struct HttpRoutes {
    routes: Vec<HttpProcessor>,
    feeds: HashMap<String, ByGate>,
    others: ByGate,
    changed: Arc<Notify>,
    /// Some route has limits.
    is_guarded: bool,
    /// What they limit for all watchers together.
    splits: Splits,
    callback_key: Arc<OnceLock<Key>>,
}

/// The routes of a feed, by their place among all.
#[derive(Debug, Default)]
struct ByGate {
    gates: Vec<(i32, usize)>,
    others: Option<usize>,
}

impl ByGate {
    fn of(&self, gate: i32) -> Option<usize> {
        self.of_gate(gate).or(self.others)
    }

    fn of_gate(&self, gate: i32) -> Option<usize> {
        self.gates.iter().find(|(own, _)| *own == gate).map(|(_, route)| *route)
    }

    /// Each with the gate that has it for its own.
    fn all(&self) -> impl Iterator<Item = (Option<i32>, usize)> {
        let others = self.others.map(|route| (None, route));
        self.gates.iter().map(|(gate, route)| (Some(*gate), *route)).chain(others)
    }
}

impl HttpRoutes {
    /// Errs where a route cannot work ([`HttpProcessor::new`]), saying which, and where two are for the same. Within a
    /// Tokio runtime only.
    pub fn new(routes: Vec<Route>) -> Result<Self, InvalidTarget> {
        let gather_max = routes.iter().map(|route| route.options.gather_max).max().unwrap_or_default();
        let shared = Shared::new(gather_max);
        let mut all = Self {
            routes: Vec::with_capacity(routes.len()),
            feeds: HashMap::new(),
            others: ByGate::default(),
            changed: Arc::clone(&shared.changed),
            is_guarded: false,
            splits: Splits::default(),
            callback_key: Arc::clone(&shared.callback_key),
        };
        for route in routes {
            let name = name(&route);
            let index =
                all.place(&route, &shared).map_err(|error| InvalidTarget(format!("{name}: {error}")))?;
            let limits = all.routes.get(index).into_iter().flat_map(|route| route.rotation.limits());
            all.splits.add(route.feed.as_deref(), limits);
            let by_gate = match route.feed {
                Some(feed) => all.feeds.entry(feed).or_default(),
                None => &mut all.others,
            };
            let is_twice = match route.gate {
                Some(gate) if by_gate.gates.iter().any(|(own, _)| *own == gate) => true,
                Some(gate) => {
                    by_gate.gates.push((gate, index));
                    false
                }
                None => by_gate.others.replace(index).is_some(),
            };
            if is_twice {
                return Err(InvalidTarget(format!("{name} has two routes")));
            }
        }
        all.is_guarded = all.routes.iter().any(|route| route.rotation.is_guarded());
        Ok(all)
    }

    /// Lets handlers answer later ([`HttpProcessor::with_callbacks`]).
    pub fn with_callbacks(self, key: Key) -> Self {
        _ = self.callback_key.set(key);
        self
    }

    /// Where a route is among all: one that is as another shares its connections, and what is known of its targets.
    fn place(&mut self, route: &Route, shared: &Shared) -> Result<usize, InvalidTarget> {
        let is_same =
            |other: &HttpProcessor| other.urls().eq(&route.targets) && other.options == route.options;
        if let Some(index) = self.routes.iter().position(is_same) {
            return Ok(index);
        }
        self.routes.push(HttpProcessor::sharing(route.targets.clone(), route.options.clone(), shared)?);
        Ok(self.routes.len() - 1)
    }

    fn route(&self, feed: &str, gate: i32) -> Option<&HttpProcessor> {
        let own = if self.feeds.is_empty() { None } else { self.feeds.get(feed) };
        let index = own.and_then(|own| own.of(gate)).or_else(|| self.others.of(gate))?;
        self.routes.get(index)
    }

    /// The routes that items of a feed take, by gate; `None`: at all other gates.
    fn routes_of(&self, feed: &str) -> impl Iterator<Item = (Option<i32>, usize)> {
        let own = self.feeds.get(feed);
        let has_own = move |gate| own.is_some_and(|own| own.others.is_some() || own.of_gate(gate).is_some());
        let of_all = self.others.all().filter(move |(gate, _)| match gate {
            Some(gate) => !has_own(*gate),
            None => own.is_none_or(|own| own.others.is_none()),
        });
        own.into_iter().flat_map(ByGate::all).chain(of_all)
    }

    /// Asks every target of every route at the same time, for up to two seconds; the same one once.
    pub async fn health(&self) -> Vec<TargetHealth> {
        let asked = self.routes.iter().map(HttpProcessor::health);
        let mut health: Vec<_> = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
        let mut seen = std::collections::HashSet::new();
        health.retain(|target| seen.insert((target.target.clone(), target.ok)));
        health
    }
}

/// For messages: "feed \"ocr\", gate 1".
fn name(route: &Route) -> String {
    let feed = route.feed.as_ref().map(|feed| format!("feed {feed:?}"));
    let gate = route.gate.map(|gate| format!("gate {gate}"));
    let parts: Vec<String> = feed.into_iter().chain(gate).collect();
    if parts.is_empty() { "the route of all feeds".to_owned() } else { parts.join(", ") }
}

fn no_target(delivery: &Delivery) -> Failure {
    Failure::new(format!(
        "there is no target for gate {} of feed {:?}: name one with --target, --gate-target or in the configuration",
        delivery.gate, delivery.feed
    ))
}

impl Processor for HttpRoutes {
    async fn process(&self, delivery: Delivery) -> Verdict {
        match self.route(&delivery.feed, delivery.gate) {
            Some(route) => route.process(delivery).await,
            None => Err(no_target(&delivery)),
        }
    }

    async fn process_batch(&self, deliveries: Vec<Delivery>) -> Vec<Verdict> {
        let first = deliveries.first();
        match first.and_then(|first| self.route(&first.feed, first.gate)) {
            Some(route) => route.process_batch(deliveries).await,
            None => deliveries.iter().map(|delivery| Err(no_target(delivery))).collect(),
        }
    }

    fn is_ready(&self, feed: &str, gate: i32) -> bool {
        self.route(feed, gate).is_none_or(|route| route.rotation.is_ready())
    }

    fn reserve(&self, feed: &str, gate: i32) -> bool {
        !self.is_guarded || self.route(feed, gate).is_none_or(|route| route.rotation.reserve())
    }

    fn is_down(&self, feed: &str) -> bool {
        let mut routes = self.routes_of(feed).filter_map(|(_, index)| self.routes.get(index)).peekable();
        routes.peek().is_some() && routes.all(|route| route.rotation.is_down())
    }

    fn circuits(&self, feed: &str) -> Vec<Circuit> {
        let of_route = |(gate, index): (Option<i32>, usize)| {
            self.routes.get(index).map(|route| route.rotation.shunned(gate)).unwrap_or_default()
        };
        let mut circuits: Vec<Circuit> = self.routes_of(feed).flat_map(of_route).collect();
        circuits.sort_by(|one, other| (one.gate, &one.target).cmp(&(other.gate, &other.target)));
        circuits
    }

    fn is_split(&self) -> bool {
        self.splits.is_any()
    }

    fn split(&self, peers: &Peers) {
        if self.splits.split(peers) {
            self.changed.notify_waiters();
        }
    }

    fn readiness_changed(&self) -> impl Future<Output = ()> + Send {
        readiness_changed(&self.changed, self.routes.iter().map(|route| &*route.rotation))
    }
}

/// Resolves when a pause has begun or ended since this was called.
pub(super) fn readiness_changed<'a, I>(changed: &'a Notify, rotations: I) -> impl Future<Output = ()> + Send
where
    I: IntoIterator<Item = &'a Rotation> + Send,
    I::IntoIter: Send,
{
    // From here on it hears of what happens, also before it is polled.
    let changed = changed.notified();
    async move {
        // Only then, since a look in between may have been refused.
        let now = Instant::now();
        let soonest = rotations.into_iter().filter_map(|rotation| rotation.remaining(now)).min();
        match soonest {
            Some(remaining) => {
                tokio::select! {
                    () = sleep_until(now + remaining) => {}
                    () = changed => {}
                }
            }
            None => changed.await,
        }
    }
}
