//! The layer that gives each delivery to a target of its route, and keeps an account of how they fare.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use gatefeed_core::answer::Failure;
use pin_project_lite::pin_project;
use tower::{Service, util::Oneshot};

use super::{
    hedge::{self, Graded, Hedge},
    missed::Missed,
    place::{Fared, Flight},
    rotation::{Refused, Rotation},
    target::Target,
};

/// One service for each target of a rotation, in its order. While none may have more, deliveries are put off.
#[derive(Clone)]
pub(super) struct Rotate<S> {
    rotation: Arc<Rotation>,
    targets: Arc<[S]>,
    /// When the services of the targets give up, for the message.
    limit: Duration,
    hedge: Option<Arc<Hedge>>,
}

impl<S: Clone> Rotate<S> {
    /// `to` makes the service of each target, which gives up after `limit`.
    pub(super) fn new(
        rotation: Arc<Rotation>,
        limit: Duration,
        hedge: Option<Hedge>,
        to: impl FnMut(&Arc<Target>) -> S,
    ) -> Self {
        let targets = rotation.targets().map(to).collect();
        Self { rotation, targets, limit, hedge: hedge.map(Arc::new) }
    }

    pub(super) fn service(&self, index: usize) -> S {
        self.targets[index].clone()
    }

    /// Another target that may have the same delivery.
    pub(super) fn another(&self, beside: &[usize]) -> Option<Flight> {
        self.rotation.another(beside)
    }

    /// What the end of a delivery means for its target, and for the item.
    pub(super) fn noted<A>(&self, flight: Flight, sent: Result<A, Missed>) -> Result<A, Failure> {
        noted(&self.rotation, self.limit, flight, sent)
    }
}

fn noted<A>(
    rotation: &Rotation,
    limit: Duration,
    flight: Flight,
    sent: Result<A, Missed>,
) -> Result<A, Failure> {
    let (failure, is_outage) = match sent {
        Ok(answer) => {
            flight.ended(Fared::Well);
            return Ok(answer);
        }
        Err(Missed::Failed(failure)) => {
            flight.ended(Fared::Well);
            return Err(failure);
        }
        Err(Missed::Unreachable(message)) => {
            flight.ended(Fared::Unreachable(&message));
            return Err(Failure::delayed(message, Some(rotation.put_off())));
        }
        Err(Missed::Broken(failure)) => (failure, flight.ended(Fared::Badly)),
        Err(Missed::TimedOut) => {
            let message = format!("no answer within {limit:?} (--request-timeout)");
            (Failure::new(message), flight.ended(Fared::Badly))
        }
    };
    match is_outage {
        false => Err(failure),
        // Somewhat later than the circuit lets in its probe, which is to be another item if there is one.
        true => Err(Failure::delayed(failure.message, Some(rotation.put_off() + AFTER_PROBE))),
    }
}

/// How much later than its probe what met an outage is due again.
const AFTER_PROBE: Duration = Duration::from_secs(1);

impl<S, R> Service<R> for Rotate<S>
where
    S: Service<R, Error = Missed, Future: Send> + Clone + Send + Sync + 'static,
    S::Response: Graded + Send + 'static,
    R: Clone + Send + Sync + 'static,
{
    type Response = S::Response;
    type Error = Failure;
    type Future = Rotating<S, R>;

    /// Always: a delivery that no target may have is put off, since the engine has taken its item already.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        match (self.rotation.turn(), &self.hedge) {
            (Ok(flight), None) => {
                let sent = Oneshot::new(self.service(flight.index), request);
                let rotation = Arc::clone(&self.rotation);
                Rotating::Sent { sent, rotation, limit: self.limit, flight: Some(flight) }
            }
            (Ok(flight), Some(hedge)) => {
                let (rotate, hedge) = (self.clone(), Arc::clone(hedge));
                let race = async move { hedge::race(&rotate, &hedge, flight, request).await };
                Rotating::Raced { race: Box::pin(race) }
            }
            (Err(Refused { remaining, message }), _) => {
                Rotating::Refused { failure: Some(Failure::delayed(message, Some(remaining))) }
            }
        }
    }
}

type Racing<A> = Pin<Box<dyn Future<Output = Result<A, Failure>> + Send>>;

pin_project! {
    /// A delivery on its way to one of the targets.
    #[project = Projected]
    pub(super) enum Rotating<S, R>
    where
        S: Service<R>,
    {
        Refused { failure: Option<Failure> },
        Sent { #[pin] sent: Oneshot<S, R>, rotation: Arc<Rotation>, limit: Duration, flight: Option<Flight> },
        Raced { race: Racing<S::Response> },
    }
}

impl<S, R> Future for Rotating<S, R>
where
    S: Service<R, Error = Missed> + Clone,
{
    type Output = Result<S::Response, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Refused { failure } => {
                Poll::Ready(Err(failure.take().unwrap_or_else(|| Failure::delayed("paused", None))))
            }
            Projected::Raced { race } => race.as_mut().poll(cx),
            Projected::Sent { sent, rotation, limit, flight } => {
                let ended = ready!(sent.poll(cx));
                match flight.take() {
                    Some(flight) => Poll::Ready(noted(rotation, *limit, flight, ended)),
                    // It has been polled after its end.
                    None => Poll::Pending,
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::dispatch::{
        breaker::BreakerOptions,
        place::Place,
        spread::{Spread, TargetLimits},
    };
    use futures_util::{FutureExt, future::BoxFuture};
    use tokio::time::Instant;
    use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn, util::BoxCloneSyncService};
    use url::Url;

    pub(crate) const LIMIT: Duration = Duration::from_secs(60);

    pub(crate) type Reply = Result<u32, Missed>;
    pub(crate) type Route = BoxCloneSyncService<(), u32, Failure>;

    impl Graded for u32 {
        fn grade(&self, _: &str) -> Option<f64> {
            Some(f64::from(*self))
        }
    }

    /// A route to so many targets, each of which answers as `reply` says of its place, in front of tower's timeout.
    pub(crate) fn route_of<F>(
        targets: usize,
        spread: &Spread,
        reply: impl Fn(usize) -> F + Clone + Send + Sync + 'static,
    ) -> Route
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let place = |n| {
            let url = Url::parse(&format!("http://127.0.0.1:{}/", 9000 + n)).unwrap();
            Arc::new(Place::new(Arc::new(Target::new(url).unwrap()), &spread.limits, Arc::default()))
        };
        let places = (0..targets).map(place).collect();
        let rotation = Arc::new(Rotation::new(places, spread, Arc::default()));
        let mut index = 0..;
        let hedge = spread.hedge.clone().map(Hedge::new);
        BoxCloneSyncService::new(Rotate::new(rotation, LIMIT, hedge, move |_| {
            let (reply, index) = (reply.clone(), index.next().unwrap());
            ServiceBuilder::new()
                .map_err(Missed::unbox as fn(BoxError) -> Missed)
                .timeout(LIMIT)
                .service(service_fn(move |()| -> BoxFuture<'static, Reply> { reply(index).boxed() }))
        }))
    }

    fn route<F>(targets: usize, reply: impl Fn() -> F + Clone + Send + Sync + 'static) -> Route
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        route_of(targets, &Spread::default(), move |_| reply())
    }

    fn broken() -> Missed {
        Missed::Broken(Failure::new("HTTP 500 Internal Server Error"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_never_answers_is_abandoned_at_the_timeout_and_that_counts() {
        let route = route(1, std::future::pending::<Reply>);
        let started = Instant::now();
        let failure = route.clone().oneshot(()).await.unwrap_err();
        assert_eq!(started.elapsed(), LIMIT);
        assert!(failure.counted && failure.message.contains("no answer within 60s"), "{failure:?}");
        // It is no reason to leave it alone.
        assert!(route.oneshot(()).now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_cannot_be_reached_is_left_alone_and_that_does_not_count() {
        let route = route(1, async || Err(Missed::Unreachable("refused".into())));
        let mut pause = Duration::ZERO;
        while pause < Duration::from_millis(10) {
            tokio::time::advance(pause).await;
            let failure = route.clone().oneshot(()).await.unwrap_err();
            assert!(!failure.counted && failure.message == "refused", "{failure:?}");
            pause = failure.retry_after.unwrap();
        }
        let put_off = route.clone().oneshot(()).now_or_never().unwrap().unwrap_err();
        assert_eq!((put_off.counted, put_off.retry_after), (false, Some(pause)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_handler_says_is_passed_on() {
        let route = route(2, async || Err(Failure::final_("no such page").into()));
        assert_eq!(route.oneshot(()).await, Err(Failure::final_("no such page")));
        let route = self::route(2, async || Err(broken()));
        assert_eq!(route.oneshot(()).await, Err(Failure::new("HTTP 500 Internal Server Error")));
    }

    /// An hour of it, with deliveries all the time: what counts, and how many got through.
    #[tokio::test(start_paused = true)]
    async fn an_outage_of_an_hour_costs_hardly_a_retry() {
        let breaker = BreakerOptions { failures: Some(5), ..BreakerOptions::default() };
        let limits = TargetLimits { breaker, ..TargetLimits::default() };
        let (began, hour) = (Instant::now(), Duration::from_secs(3600));
        let reply = move |_| async move { if began.elapsed() < hour { Err(broken()) } else { Ok(1) } };
        let route = route_of(1, &Spread { limits, ..Spread::default() }, reply);
        let (mut counted, mut reached) = (0, 0);
        while began.elapsed() < hour {
            let failure = route.clone().oneshot(()).await.unwrap_err();
            counted += u32::from(failure.counted);
            reached += u32::from(failure.message.contains("HTTP 500"));
            tokio::time::advance(Duration::from_millis(500)).await;
        }
        assert_eq!(counted, 4, "those before it opened, and none after");
        assert!((60..=100).contains(&reached), "{reached} probes in an hour");
        let mut waited = 0;
        while route.clone().oneshot(()).await.is_err() {
            tokio::time::advance(Duration::from_secs(1)).await;
            waited += 1;
        }
        assert!(waited <= 60, "it closes within a minute, not after {waited} s");
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_handler_says_of_an_item_opens_no_circuit() {
        let breaker = BreakerOptions { failures: Some(1), ..BreakerOptions::default() };
        let limits = TargetLimits { breaker, ..TargetLimits::default() };
        let route = route_of(1, &Spread { limits, ..Spread::default() }, async |_| {
            Err(Failure::new("bad item").into())
        });
        for _ in 0..10 {
            assert_eq!(route.clone().oneshot(()).await, Err(Failure::new("bad item")));
        }
    }
}
