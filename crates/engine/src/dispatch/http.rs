//! One route: the targets of a feed or a gate, and the stack of layers that leads to them.
//!
//! ```text
//! gather            gives an item that gathers its body
//!   rotate          chooses the target, and leaves alone one that cannot be reached, keeps failing or has enough;
//!                   with hedging, chooses another one beside it when that takes too long
//!     timeout       tower's own, one for each target
//!       exchange    the request and its answer, also one for each target
//! ```
//!
//! The stack is put together when the watcher starts, of what is configured. A delivery clones it (some counters), and
//! has one box, that of the exchange.

use std::{
    future::Future,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::FutureExt;
use gatefeed_core::{
    answer::Verdict,
    callback::{Key, TIMEOUT_DEFAULT},
    circuit::Circuit,
    share::Peers,
};
use tokio::sync::{Notify, Semaphore};
use tower::{
    BoxError, ServiceBuilder,
    timeout::Timeout,
    util::{MapErr, Oneshot},
};
use url::Url;

use super::{
    access::Access,
    batch::Together,
    connect::{self, ConnectOptions},
    exchange::Exchange,
    gather::{self, GatherLayer, Gathered},
    hedge::Hedge,
    missed::Missed,
    place::Place,
    rotate::Rotate,
    rotation::Rotation,
    sign::Signer,
    split::Splits,
    spread::{Spread, TargetLimits},
    target::{InvalidTarget, Target},
};
use crate::processor::{Delivery, Processor};

/// Limits of a delivery.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HttpOptions {
    /// For the whole request, the reading of the answer included; more than zero.
    pub request_timeout: Duration,
    /// For a connection: name lookup, TCP and TLS; more than zero. It never exceeds nine tenths of
    /// `request_timeout`, so that a target that cannot be reached is told from one that does not answer.
    pub connect_timeout: Duration,
    /// The most bytes of an answer's body.
    pub max_answer: usize,
    /// What a health check asks for (`/healthz`), on each target's host; without it, it only connects.
    pub health_path: Option<String>,
    /// The most bytes of what an item gathers that are sent with it.
    pub gather_max: usize,
    /// How deliveries are spread over the targets, and what keeps them back.
    pub spread: Spread,
    /// How handlers reach gatefeed. Below this, `/v1/partitions/{id}/gathered/{gate}` serves what is more than that,
    /// `/v1/callbacks/{token}` takes answers that come later, and `/v1/blobs/…` serves data that a handler gets a link to;
    /// without it a delivery with so much, such an answer, or such a link is a failed attempt.
    pub public_url: Option<Url>,
    /// How long an item waits for its callback; more than zero.
    pub callback_timeout: Duration,
    /// Signs each delivery; without it none is.
    pub signer: Option<Signer>,
    /// What the targets want to see with each request.
    pub access: Access,
    /// The only certificate authorities that are trusted, as PEM; without it, those of this machine.
    pub ca: Option<Bytes>,
    /// Connects to addresses of the public internet only, whatever a target's name leads to.
    pub deny_private: bool,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            max_answer: 1024 * 1024,
            health_path: None,
            gather_max: 8 * 1024 * 1024,
            public_url: None,
            callback_timeout: TIMEOUT_DEFAULT,
            signer: None,
            access: Access::default(),
            ca: None,
            deny_private: false,
            spread: Spread::default(),
        }
    }
}

/// What leads to one target.
type ToTarget = MapErr<Timeout<Exchange>, Unbox>;
type Unbox = fn(BoxError) -> Missed;
/// What leads to all targets of a route.
type Stack = Gathered<Rotate<ToTarget>>;

/// Hands items to one or several handlers by HTTP. A target that cannot be reached is left alone for a while, and such a
/// delivery does not count as an attempt.
pub struct HttpProcessor {
    pub(super) client: connect::HttpClient,
    pub(super) rotation: Arc<Rotation>,
    pub(super) options: HttpOptions,
    changed: Arc<Notify>,
    callback_key: Arc<OnceLock<Key>>,
    splits: Splits,
    stack: Stack,
}

/// What routes have in common.
#[derive(Clone)]
pub(super) struct Shared {
    /// Rung when a target was paused, or is so no more.
    pub(super) changed: Arc<Notify>,
    gather_room: Arc<Semaphore>,
    /// Targets, and what they are limited to.
    places: Arc<Mutex<Vec<Known>>>,
    /// With which callbacks are signed, once it is known.
    pub(super) callback_key: Arc<OnceLock<Key>>,
}

type Known = (Url, TargetLimits, Arc<Place>);

impl Shared {
    pub(super) fn new(gather_max: usize) -> Self {
        let (changed, places, callback_key) = (Arc::default(), Arc::default(), Arc::default());
        Self { changed, gather_room: gather::room(gather_max), places, callback_key }
    }

    /// What is known of a target, which all routes share that limit it alike.
    fn place(&self, url: Url, limits: &TargetLimits) -> Result<Arc<Place>, InvalidTarget> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let known = places.iter().find(|(known, alike, _)| *known == url && alike == limits);
        if let Some((_, _, place)) = known {
            return Ok(Arc::clone(place));
        }
        let target = Arc::new(Target::new(url.clone())?);
        let place = Arc::new(Place::new(target, limits, Arc::clone(&self.changed)));
        places.push((url, limits.clone(), Arc::clone(&place)));
        Ok(place)
    }
}

impl HttpProcessor {
    /// Errs with the first of [`HttpOptions::flaws`], and where `https` finds no root certificates. Within a Tokio
    /// runtime only.
    pub fn new(targets: Vec<Url>, options: HttpOptions) -> Result<Self, InvalidTarget> {
        let shared = Shared::new(options.gather_max);
        Self::sharing(targets, options, &shared)
    }

    /// One of several routes.
    pub(super) fn sharing(
        targets: Vec<Url>,
        options: HttpOptions,
        shared: &Shared,
    ) -> Result<Self, InvalidTarget> {
        if let Some(flaw) = options.flaws(&targets).into_iter().next() {
            return Err(InvalidTarget(flaw.message));
        }
        let tls = targets.iter().any(|url| url.scheme() == "https");
        let place = |url| shared.place(url, &options.spread.limits);
        let places = targets.into_iter().map(place).collect::<Result<_, _>>()?;
        let rotation = Arc::new(Rotation::new(places, &options.spread, Arc::clone(&shared.changed)));
        let limit = options.connect_timeout.min(options.request_timeout / 10 * 9);
        let connecting =
            ConnectOptions { limit, tls, ca: options.ca.as_deref(), deny_private: options.deny_private };
        let client = connect::client(&connecting)
            .map_err(|error| InvalidTarget(format!("cannot prepare for https targets: {error}")))?;
        let stack = stack(&rotation, &client, &options, shared);
        let (changed, callback_key) = (Arc::clone(&shared.changed), Arc::clone(&shared.callback_key));
        let mut splits = Splits::default();
        splits.add(None, rotation.limits());
        Ok(Self { client, rotation, options, changed, callback_key, splits, stack })
    }

    /// Lets handlers answer later, by the key of the database ([`gatefeed_core::Store::callback_key`]). Nothing changes
    /// without [`HttpOptions::public_url`].
    pub fn with_callbacks(self, key: Key) -> Self {
        _ = self.callback_key.set(key);
        self
    }

    /// The targets.
    pub(super) fn urls(&self) -> impl Iterator<Item = &Url> {
        self.rotation.targets().map(|target| &target.url)
    }

    /// Resolves when a delivery makes sense: not while every target is left alone.
    pub async fn ready(&self) {
        self.rotation.ready().await;
    }
}

/// The layers of a route.
fn stack(
    rotation: &Arc<Rotation>,
    client: &connect::HttpClient,
    options: &HttpOptions,
    shared: &Shared,
) -> Stack {
    let hedge = options.spread.hedge.clone().map(Hedge::new);
    let rotate = Rotate::new(Arc::clone(rotation), options.request_timeout, hedge, |target| {
        ServiceBuilder::new()
            .map_err(Missed::unbox as Unbox)
            .timeout(options.request_timeout)
            .service(Exchange::new(Arc::clone(target), client.clone(), options, shared))
    });
    let gather =
        GatherLayer::new(options.clone(), Arc::clone(&shared.gather_room), Arc::clone(&shared.callback_key));
    ServiceBuilder::new().layer(gather).service(rotate)
}

impl Processor for HttpProcessor {
    fn process(&self, delivery: Delivery) -> impl Future<Output = Verdict> + Send {
        Oneshot::new(self.stack.clone(), delivery)
    }

    fn process_batch(&self, deliveries: Vec<Delivery>) -> impl Future<Output = Vec<Verdict>> + Send {
        let count = deliveries.len();
        let sent = Oneshot::new(self.stack.clone(), Together(deliveries));
        sent.map(move |answered| answered.unwrap_or_else(|failure| vec![Err(failure); count]))
    }

    fn is_ready(&self, _: &str, _: i32) -> bool {
        self.rotation.is_ready()
    }

    fn is_down(&self, _: &str) -> bool {
        self.rotation.is_down()
    }

    fn reserve(&self, _: &str, _: i32) -> bool {
        self.rotation.reserve()
    }

    fn circuits(&self, _: &str) -> Vec<Circuit> {
        self.rotation.shunned(None)
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
        super::routes::readiness_changed(&self.changed, [&*self.rotation])
    }
}
