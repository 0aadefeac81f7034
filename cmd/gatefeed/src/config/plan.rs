//! What a watcher does, by its flags and its file: flags go before the file, and the file before the defaults. What a gate
//! says goes before what its feed says, and that before what is said for all.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use gatefeed_core::{
    StoreError, budget::Bounds, id::DEFAULT_FEED, lease::DURATION_DEFAULT, retry::RetryPolicy,
};
use gatefeed_engine::{
    Batch, Builder, Policy,
    dispatch::{HttpOptions, RateLimit, Route},
};
use gatefeed_store::BlobOptions;
use url::Url;

use super::{
    check::check,
    file::{File, Handling},
};

/// Everything that is decided before a watcher starts.
pub(crate) struct Plan {
    pub(super) file: File,
    /// The feeds to serve.
    pub(crate) feeds: Vec<String>,
    /// How requests go, of each feed and gate that has a target.
    options: BTreeMap<Level, HttpOptions>,
}

/// A feed, and one of its gates if that has something of its own.
pub(super) type Level = (String, Option<i32>);

impl Plan {
    /// Of a file in which the flags have been entered. `feeds`: those that were named, if any were. `blobs`: the blob store.
    /// Reads secrets and certificates. Errs with everything that is wrong, each with its place, also where nothing can be
    /// delivered.
    pub(crate) fn new(
        file: File,
        feeds: Vec<String>,
        blobs: Option<&BlobOptions>,
    ) -> Result<Self, StoreError> {
        let feeds = match feeds.is_empty() {
            false => feeds,
            true if file.feeds.is_empty() => vec![DEFAULT_FEED.to_owned()],
            true => file.feeds.keys().cloned().collect(),
        };
        let mut plan = Self { file, feeds, options: BTreeMap::new() };
        plan.options = check(&plan, blobs)?;
        Ok(plan)
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

    /// How many deliveries may be in flight at a time: between which numbers, where that is left to the watcher.
    pub(crate) fn concurrency(&self) -> Bounds {
        let File { min_concurrency, max_concurrency, handling, .. } = &self.file;
        let fixed = handling.concurrency.unwrap_or(CONCURRENCY_DEFAULT);
        match (min_concurrency, max_concurrency) {
            (None, None) => Bounds::fixed(fixed),
            (min, max) => Bounds { min: min.unwrap_or(1), max: max.unwrap_or(fixed) },
        }
    }

    /// Where items go. `listening`: where this watcher serves what is gathered.
    pub(crate) fn routes(&self, listening: Option<SocketAddr>) -> Vec<Route> {
        let own_url = listening.and_then(own_url);
        let mut routes = Vec::new();
        let limits = self.rate_limits();
        for feed in &self.feeds {
            for (gate, handling) in self.levels(feed) {
                let options = self.options.get(&(feed.clone(), gate));
                if let Some((targets, options)) = handling.targets.zip(options) {
                    let mut options = options.clone();
                    options.public_url = options.public_url.or_else(|| own_url.clone());
                    // The narrowest first; without a gate there are two levels.
                    let levels = [(Some(feed), gate), (None, gate), (Some(feed), None), (None, None)];
                    let levels = &levels[if gate.is_some() { 0 } else { 2 }..];
                    options.spread.rates =
                        levels.iter().filter_map(|level| limits.get(level).cloned()).collect();
                    routes.push(Route { feed: Some(feed.clone()), gate, targets, options });
                }
            }
        }
        routes
    }

    /// The limits that stand at each level. Those who share a level share its limit.
    fn rate_limits(&self) -> BTreeMap<(Option<&String>, Option<i32>), RateLimit> {
        let File { handling, gates, feeds, .. } = &self.file;
        let of_all = gates.iter().map(|(gate, handling)| ((None, Some(*gate)), handling));
        let of_feeds = feeds.iter().flat_map(|(name, feed)| {
            let gates = feed.gates.iter().map(move |(gate, handling)| ((Some(name), Some(*gate)), handling));
            gates.chain([((Some(name), None), &feed.handling)])
        });
        let levels = of_all.chain(of_feeds).chain([((None, None), handling)]);
        levels.filter_map(|(level, handling)| Some((level, handling.spread.rate_limit()?))).collect()
    }

    /// Sets up a watcher.
    pub(crate) fn apply(&self, mut builder: Builder) -> Builder {
        let file = &self.file;
        builder = builder
            .feeds(self.feeds.clone())
            .retry(retry_policy(&file.handling))
            .concurrency_between(self.concurrency().min, self.concurrency().max)
            .lease_duration(file.lease_duration.unwrap_or(DURATION_DEFAULT));
        for feed in &self.feeds {
            for (gate, handling) in self.levels(feed) {
                let (concurrency, batch) = (handling.concurrency, batch(&handling));
                let (retry, blob_links) = (retry_policy(&handling), handling.blob_links.unwrap_or(false));
                let policy = Policy { retry, concurrency, batch, blob_links };
                builder = match gate {
                    Some(gate) => builder.gate_policy(feed, gate, policy),
                    None => builder.feed_policy(feed, policy),
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

    /// Whether handlers can reach gatefeed by some address.
    pub(crate) fn is_reached(&self) -> bool {
        self.file.listen.is_some() || self.file.public_url.is_some()
    }

    /// What the watcher is to be called.
    pub(crate) fn name(&self) -> Option<&str> {
        self.file.name.as_deref()
    }
}

/// Deliveries in flight of a watcher that is not told.
const CONCURRENCY_DEFAULT: usize = 100;

/// How items are batched.
pub(crate) fn batch(handling: &Handling) -> Option<Batch> {
    handling.batch_size.map(|size| Batch { size, linger: handling.batch_linger.unwrap_or(LINGER_DEFAULT) })
}

/// How long a batch waits that is not told.
const LINGER_DEFAULT: Duration = Duration::from_millis(10);

/// How long a request may take.
pub(crate) fn request_timeout(handling: &Handling) -> Duration {
    handling.request_timeout.unwrap_or(HttpOptions::default().request_timeout)
}

/// How often failed attempts are repeated.
pub(crate) fn retry_policy(handling: &Handling) -> RetryPolicy {
    let defaults = RetryPolicy::default();
    // Where one of two is said, the default of the other gives way to it.
    let base = handling.retry_base.unwrap_or(defaults.base);
    let cap = handling.retry_cap.unwrap_or(defaults.cap.max(base));
    RetryPolicy {
        // Every negative number has been refused but -1, which is no u32 and means for ever.
        max_retries: handling.max_retries.map_or(defaults.max_retries, |max| u32::try_from(max).ok()),
        base: base.min(cap),
        cap,
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
