//! The layer that gives each delivery to the next target of a route, and keeps an account of how they fare.

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
    missed::Missed,
    rotation::{AllPaused, Rotation, Turn},
    target::Target,
};

/// One service for each target of a rotation, in its order. While all of them are paused, deliveries are put off.
#[derive(Clone)]
pub(super) struct Rotate<S> {
    rotation: Arc<Rotation>,
    targets: Arc<[S]>,
    /// When the services of the targets give up, for the message.
    limit: Duration,
}

impl<S> Rotate<S> {
    /// `to` makes the service of each target, which gives up after `limit`.
    pub(super) fn new(rotation: Arc<Rotation>, limit: Duration, to: impl FnMut(&Arc<Target>) -> S) -> Self {
        let targets = rotation.targets().map(to).collect();
        Self { rotation, targets, limit }
    }
}

impl<S, R> Service<R> for Rotate<S>
where
    S: Service<R, Error = Missed> + Clone,
{
    type Response = S::Response;
    type Error = Failure;
    type Future = Rotating<S, R>;

    /// Always: a delivery whose targets are all paused is put off, since the engine has taken its item already.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        match self.rotation.turn() {
            Ok(turn) => {
                let sent = Oneshot::new(self.targets[turn.index()].clone(), request);
                Rotating::Sent { sent, rotation: Arc::clone(&self.rotation), turn, limit: self.limit }
            }
            Err(AllPaused { remaining, message }) => {
                Rotating::Paused { failure: Some(Failure::delayed(message, Some(remaining))) }
            }
        }
    }
}

pin_project! {
    /// A delivery on its way to one of the targets.
    #[project = Projected]
    pub(super) enum Rotating<S, R>
    where
        S: Service<R>,
    {
        Paused { failure: Option<Failure> },
        Sent { #[pin] sent: Oneshot<S, R>, rotation: Arc<Rotation>, turn: Turn, limit: Duration },
    }
}

impl<S, R> Future for Rotating<S, R>
where
    S: Service<R, Error = Missed>,
{
    type Output = Result<S::Response, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::Paused { failure } => {
                Poll::Ready(Err(failure.take().unwrap_or_else(|| Failure::delayed("paused", None))))
            }
            Projected::Sent { sent, rotation, turn, limit } => {
                let ended = ready!(sent.poll(cx));
                Poll::Ready(ended.map_or_else(
                    |missed| Err(noted(rotation, turn, *limit, missed)),
                    |response| {
                        rotation.reached(turn);
                        Ok(response)
                    },
                ))
            }
        }
    }
}

/// What it means for the target, and for the item.
fn noted(rotation: &Rotation, turn: &Turn, limit: Duration, missed: Missed) -> Failure {
    match missed {
        Missed::Unreachable(message) => {
            let delay = rotation.unreachable(turn, &message);
            Failure::delayed(message, Some(delay))
        }
        // It says nothing of whether the target can be reached.
        Missed::TimedOut => Failure::new(format!("no answer within {limit:?} (--request-timeout)")),
        Missed::Failed(failure) => {
            rotation.reached(turn);
            failure
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use tokio::time::Instant;
    use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
    use url::Url;

    const LIMIT: Duration = Duration::from_secs(60);

    type Reply = Result<u32, Missed>;

    /// A route to so many targets that never answer, or as `reply` says, in front of tower's timeout.
    fn route<F>(
        targets: usize,
        reply: impl Fn() -> F + Clone + Send + 'static,
    ) -> impl Service<(), Response = u32, Error = Failure, Future: Send> + Clone
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let url = |n| Url::parse(&format!("http://127.0.0.1:{}/", 9000 + n)).unwrap();
        let rotation = Arc::new(Rotation::new((0..targets).map(url).collect(), Arc::default()).unwrap());
        Rotate::new(rotation, LIMIT, move |_| {
            let reply = reply.clone();
            ServiceBuilder::new()
                .map_err(Missed::unbox as fn(BoxError) -> Missed)
                .timeout(LIMIT)
                .service(service_fn(move |()| reply()))
        })
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
    }
}
