//! One step of a [`crate::Chain`]: a processor with a name, a time limit and retries of its own.

use std::{fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

use gatefeed_core::{
    answer::{Failure, Verdict},
    circuit::Circuit,
    retry::RetryPolicy,
    share::Peers,
};
use tokio::time::{Instant, sleep, timeout};

use crate::processor::{Delivery, Processor};

/// Retries of a step without a policy of its own: soon, since a slot of the watcher's budget waits meanwhile.
const RETRY: RetryPolicy =
    RetryPolicy { max_retries: Some(0), base: Duration::from_millis(100), cap: Duration::from_secs(5) };

/// A processor as a step of a chain: see [`step`].
#[derive(Clone)]
pub struct Step {
    name: Option<Arc<str>>,
    work: Arc<dyn Work>,
    timeout: Option<Duration>,
    retry: RetryPolicy,
}

/// How a step went.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StepRun {
    /// The step's name.
    pub name: Arc<str>,
    /// What it came to: the answer of its last attempt, or why there is none.
    pub verdict: Verdict,
    /// How often it was tried.
    pub attempts: u32,
    /// From the beginning of the first attempt to the end of the last one.
    pub took: Duration,
}

/// Makes a step of a function or of any other processor, with neither time limit nor retries. One that several chains or
/// stages share is cloned, and keeps one set of limits. A closure around a processor (`step(move |delivery|
/// shared.process(delivery))`) does the work alone: the chain sees nothing of what limits it, or whether it is down.
pub fn step(processor: impl Processor) -> Step {
    Step { name: None, work: Arc::new(processor), timeout: None, retry: RETRY }
}

impl Step {
    /// What it is called in [`StepRun`], in logs and in the item's errors; without one, its place in the chain.
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How long each attempt may take: then it is dropped and has failed.
    ///
    /// # Panics
    ///
    /// At zero, which would end every attempt at once; leave it out for no limit.
    pub fn timeout(mut self, limit: Duration) -> Self {
        assert!(!limit.is_zero(), "a timeout of zero would end every attempt of a step at once");
        self.timeout = Some(limit);
        self
    }

    /// How often an attempt that failed is repeated within the delivery, after a pause with full jitter over 100 ms that
    /// doubles up to 5 s. What says `no_retry` or asks for time (`retry_after`, or a failure that does not count) is not:
    /// the item waits for that in the database, where it takes no slot.
    pub fn retry(self, retries: u32) -> Self {
        self.retry_policy(RetryPolicy { max_retries: Some(retries), ..RETRY })
    }

    /// The same with other pauses. Endless retries (`max_retries: None`) end with the lease only.
    pub fn retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    pub(crate) fn set_default_name(&mut self, name: impl FnOnce() -> String) {
        self.name.get_or_insert_with(|| name().into());
    }

    pub(crate) fn is_ready(&self, feed: &str, gate: i32) -> bool {
        self.work.is_ready(feed, gate)
    }

    pub(crate) fn reserve(&self, feed: &str, gate: i32) -> bool {
        self.work.reserve(feed, gate)
    }

    pub(crate) fn readiness_changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.work.readiness_changed()
    }

    pub(crate) fn is_down(&self, feed: &str) -> bool {
        self.work.is_down(feed)
    }

    pub(crate) fn circuits(&self, feed: &str) -> Vec<Circuit> {
        self.work.circuits(feed)
    }

    pub(crate) fn is_split(&self) -> bool {
        self.work.is_split()
    }

    pub(crate) fn split(&self, peers: &Peers) {
        self.work.split(peers);
    }

    /// Runs it to the end of its last attempt.
    pub(crate) async fn run(&self, input: Delivery) -> StepRun {
        let started = Instant::now();
        let mut attempts = 1;
        let verdict = loop {
            let verdict = self.attempt(input.clone()).await;
            let retries = retries_before(attempts);
            match &verdict {
                Err(failure) if is_worth_another(failure) && self.retry.allows_another(retries) => {
                    sleep(self.retry.backoff(retries, rand::random())).await;
                    attempts += 1;
                }
                _ => break verdict,
            }
        };
        let (step, took) = (self.name.clone().unwrap_or_default(), started.elapsed());
        let Delivery { partition, item, .. } = &input;
        tracing::debug!(%partition, %item, %step, attempts, is_ok = verdict.is_ok(), ?took, "a step has ended");
        StepRun { name: step, verdict, attempts, took }
    }

    async fn attempt(&self, input: Delivery) -> Verdict {
        let Some(limit) = self.timeout else { return self.work.work(input).await };
        let ended = timeout(limit, self.work.work(input)).await;
        ended.unwrap_or_else(|_| Err(Failure::new(format!("no answer within {limit:?}"))))
    }
}

/// Retries before this attempt.
fn retries_before(attempts: u32) -> i32 {
    i32::try_from(attempts - 1).unwrap_or(i32::MAX)
}

fn is_worth_another(failure: &Failure) -> bool {
    failure.counted && !failure.no_retry && failure.retry_after.is_none()
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step")
            .field("name", &self.name)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// A processor whose type is forgotten.
trait Work: Send + Sync {
    fn work(&self, delivery: Delivery) -> Pin<Box<dyn Future<Output = Verdict> + Send + '_>>;

    fn is_ready(&self, feed: &str, gate: i32) -> bool;

    fn reserve(&self, feed: &str, gate: i32) -> bool;

    fn readiness_changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    fn is_down(&self, feed: &str) -> bool;

    fn circuits(&self, feed: &str) -> Vec<Circuit>;

    fn is_split(&self) -> bool;

    fn split(&self, peers: &Peers);
}

impl<P: Processor> Work for P {
    fn work(&self, delivery: Delivery) -> Pin<Box<dyn Future<Output = Verdict> + Send + '_>> {
        Box::pin(self.process(delivery))
    }

    fn is_ready(&self, feed: &str, gate: i32) -> bool {
        Processor::is_ready(self, feed, gate)
    }

    fn reserve(&self, feed: &str, gate: i32) -> bool {
        Processor::reserve(self, feed, gate)
    }

    fn readiness_changed(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(Processor::readiness_changed(self))
    }

    fn is_down(&self, feed: &str) -> bool {
        Processor::is_down(self, feed)
    }

    fn circuits(&self, feed: &str) -> Vec<Circuit> {
        Processor::circuits(self, feed)
    }

    fn is_split(&self) -> bool {
        Processor::is_split(self)
    }

    fn split(&self, peers: &Peers) {
        Processor::split(self, peers);
    }
}
