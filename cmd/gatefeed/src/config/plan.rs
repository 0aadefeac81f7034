//! What a watcher does, by its flags and its file: flags go before the file, and the file before the defaults. What a gate
//! says goes before what its feed says, and that before what is said for all.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use gatefeed_core::{StoreError, id::DEFAULT_FEED, lease::DURATION_DEFAULT, retry::RetryPolicy};
use gatefeed_engine::{
    Builder, Policy,
    dispatch::{HttpOptions, Route},
};
use url::Url;

use super::file::{File, Handling};

/// Everything that is decided before a watcher starts.
pub(crate) struct Plan {
    file: File,
    /// The feeds to serve.
    pub(crate) feeds: Vec<String>,
}

impl Plan {
    /// Of a file in which the flags have been entered. `feeds`: those that were named, if any were. Errs where nothing
    /// can be delivered.
    pub(crate) fn new(file: File, feeds: Vec<String>) -> Result<Self, StoreError> {
        let feeds = match feeds.is_empty() {
            false => feeds,
            true if file.feeds.is_empty() => vec![DEFAULT_FEED.to_owned()],
            true => file.feeds.keys().cloned().collect(),
        };
        if file.public_url.is_some() && file.listen.is_none() {
            return Err(StoreError::Config(
                "--public-url needs --listen: it says how handlers reach that".into(),
            ));
        }
        let plan = Self { file, feeds };
        match plan.feeds.iter().find(|feed| !plan.has_target(feed)) {
            Some(feed) => Err(StoreError::Config(format!(
                "feed {feed:?} has no handler: name one with --target URL or --gate-target GATE=URL, or in the file \
                 of --config"
            ))),
            None => Ok(plan),
        }
    }

    fn has_target(&self, feed: &str) -> bool {
        self.levels(feed).iter().any(|(_, handling)| handling.targets.is_some())
    }

    /// Whether the file has the feed.
    pub(crate) fn has_feed(&self, feed: &str) -> bool {
        self.file.feeds.contains_key(feed)
    }

    /// How a feed is handled (`None`), and each of its gates that has something of its own, with what holds for all.
    pub(crate) fn levels(&self, feed: &str) -> BTreeMap<Option<i32>, Handling> {
        let none = Default::default();
        let own = self.file.feeds.get(feed).unwrap_or(&none);
        let top = &self.file.handling;
        let mut levels = BTreeMap::new();
        levels.insert(None, own.handling.or(top));
        for gate in self.file.gates.keys().chain(own.gates.keys()) {
            let nothing = Handling::default();
            let of_gate = own.gates.get(gate).unwrap_or(&nothing);
            let of_all = self.file.gates.get(gate).unwrap_or(&nothing);
            let handling = of_gate.or(&own.handling).or(of_all).or(top);
            let concurrency = of_gate.concurrency.or(of_all.concurrency);
            levels.insert(Some(*gate), Handling { concurrency, ..handling });
        }
        levels
    }

    /// Where items go. `listening`: where this watcher serves what is gathered.
    pub(crate) fn routes(&self, listening: Option<SocketAddr>) -> Vec<Route> {
        let own_url = self.file.public_url.clone().or_else(|| listening.and_then(own_url));
        let mut routes = Vec::new();
        for feed in &self.feeds {
            for (gate, handling) in self.levels(feed) {
                let options = self.http_options(&handling, own_url.clone());
                if let Some(targets) = handling.targets {
                    routes.push(Route { feed: Some(feed.clone()), gate, targets, options });
                }
            }
        }
        routes
    }

    /// How a request goes.
    pub(crate) fn http_options(&self, handling: &Handling, gather_url: Option<Url>) -> HttpOptions {
        let defaults = HttpOptions::default();
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        HttpOptions {
            request_timeout: handling.request_timeout.unwrap_or(defaults.request_timeout),
            connect_timeout: handling.connect_timeout.unwrap_or(defaults.connect_timeout),
            max_answer: handling.max_answer.map_or(defaults.max_answer, bytes),
            health_path: handling.target_health.clone(),
            gather_max: self.file.gather_max.map_or(defaults.gather_max, bytes),
            gather_url,
        }
    }

    /// Sets up a watcher.
    pub(crate) fn apply(&self, mut builder: Builder) -> Builder {
        let file = &self.file;
        builder = builder
            .feeds(self.feeds.clone())
            .retry(retry_policy(&file.handling))
            .concurrency(file.handling.concurrency.unwrap_or(CONCURRENCY_DEFAULT))
            .lease_duration(file.lease_duration.unwrap_or(DURATION_DEFAULT));
        for feed in &self.feeds {
            for (gate, handling) in self.levels(feed) {
                let policy = Policy { retry: retry_policy(&handling), concurrency: handling.concurrency };
                builder = match gate {
                    Some(gate) => builder.gate_policy(feed, gate, policy),
                    None if self.has_feed(feed) => builder.feed_policy(feed, policy),
                    None => builder,
                };
            }
        }
        if let Some(interval) = file.poll_interval {
            builder = builder.poll_interval(interval);
        }
        if let Some(grace) = file.grace {
            builder = builder.grace(grace);
        }
        if let Some(bytes) = file.max_payload {
            builder = builder.max_payload(bytes);
        }
        builder
    }

    /// Where to listen, if anywhere.
    pub(crate) fn listen(&self) -> Option<&str> {
        self.file.listen.as_deref()
    }

    /// What the watcher is to be called.
    pub(crate) fn name(&self) -> Option<&str> {
        self.file.name.as_deref()
    }
}

/// Deliveries in flight of a watcher that is not told.
const CONCURRENCY_DEFAULT: usize = 100;

/// How often failed attempts are repeated.
pub(crate) fn retry_policy(handling: &Handling) -> RetryPolicy {
    let defaults = RetryPolicy::default();
    RetryPolicy {
        // Every negative number has been refused but -1, which is no u32 and means for ever.
        max_retries: handling.max_retries.map_or(defaults.max_retries, |max| u32::try_from(max).ok()),
        base: handling.retry_base.unwrap_or(defaults.base),
        cap: handling.retry_cap.unwrap_or(defaults.cap),
    }
}

/// How a handler on this machine reaches an address that is listened on.
fn own_url(mut address: SocketAddr) -> Option<Url> {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Url::parse(&format!("http://{address}/")).ok()
}
