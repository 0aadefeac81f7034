//! Chains: several steps over one delivery, in this process, the output of one becoming the input of the next.
//!
//! A chain is a [`Processor`], and within one delivery: if the watcher dies half way, or a step fails, the delivery is
//! repeated from the first step, under the same idempotency key. Where a step is dear or may not be repeated, let the
//! item move to another gate instead, which is written down.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt, future::select_all, stream::FuturesUnordered};
use gatefeed_core::{
    answer::{Answer, Failure, Next, Verdict},
    circuit::Circuit,
    item::Data,
    share::Peers,
};
use tokio::time::Instant;

use crate::{
    processor::{Delivery, Processor},
    step::{Step, StepRun},
};

/// Steps that follow each other: see [`Chain::new`].
///
/// ```
/// use gatefeed_core::{answer::{Answer, Failure, Verdict}, item::Data};
/// use gatefeed_engine::{Chain, Delivery, Reached, step};
/// # async fn fetch(_: Delivery) -> Verdict { Ok(Answer::done().with_data(Data::json("1"))) }
/// # async fn store(_: Delivery) -> Verdict { Ok(Answer::done()) }
/// # async fn tell(_: Delivery) -> Verdict { Ok(Answer::done()) }
/// # use std::time::Duration;
/// let as_it_is = |reached: &Reached<'_>| Ok(reached.data());
/// let chain = Chain::new(step(fetch).name("fetch").timeout(Duration::from_secs(5)).retry(3))
///     .then_all(as_it_is, [step(store).name("store"), step(tell).name("tell")]);
/// ```
#[derive(Clone)]
pub struct Chain {
    stages: Vec<Stage>,
    observer: Option<Arc<Observer>>,
}

/// Steps that run at the same time, and what makes their input.
#[derive(Clone)]
struct Stage {
    /// None for the first one, which gets the delivery as it came.
    bridge: Option<Arc<Bridge>>,
    steps: Vec<Step>,
}

type Observer = dyn Fn(&Delivery, &ChainRun) + Send + Sync;
type Bridge = dyn Fn(&Reached<'_>) -> Result<Data, Failure> + Send + Sync;

/// How far a chain has come: what a bridge makes the next input of.
#[derive(Clone, Copy, Debug)]
pub struct Reached<'a> {
    /// The delivery as it came to the chain.
    pub delivery: &'a Delivery,
    /// All steps that have run, in order of the stages, and in a stage in the order in which they are given.
    pub runs: &'a [StepRun],
    /// Those of the stage before.
    pub last: &'a [StepRun],
}

/// How a chain went.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ChainRun {
    /// What the delivery comes to.
    pub verdict: Verdict,
    /// The steps that ended, in order; one that was dropped, since another of its stage failed, is not there.
    pub steps: Vec<StepRun>,
    /// From the beginning of the first step.
    pub took: Duration,
}

impl Reached<'_> {
    /// The data that the stage before gave, of its first step that gave some; if none did, what the delivery brought.
    pub fn data(&self) -> Data {
        let given = self.last.iter().filter_map(|run| run.verdict.as_ref().ok()?.data.clone()).next();
        given.unwrap_or_else(|| Data {
            bytes: self.delivery.data.clone(),
            content_type: self.delivery.content_type.to_string(),
        })
    }
}

impl Chain {
    fn steps(&self) -> impl Iterator<Item = &Step> {
        self.stages.iter().flat_map(|stage| &stage.steps)
    }

    /// Begins with a step, which gets each delivery as it came. The chain's verdict is that of its last step; the answers
    /// before it serve the bridges alone. Where several steps are the last, their items and partitions are put together,
    /// and no more than one of them may give data or say where the item goes.
    pub fn new(first: Step) -> Self {
        Self { stages: Vec::new(), observer: None }.with(None, [first])
    }

    /// Goes on with a step. The bridge makes its input (the data, with the content type) of what has been reached; all
    /// else is as in the delivery, but what it gathered, which the first step alone gets. An error of the bridge ends the
    /// chain with that error.
    pub fn then<B>(self, bridge: B, step: Step) -> Self
    where
        B: Fn(&Reached<'_>) -> Result<Data, Failure> + Send + Sync + 'static,
    {
        self.then_all(bridge, [step])
    }

    /// Goes on with several steps at a time, which all get the same input. They share the delivery's task: what computes
    /// for long belongs on `spawn_blocking`. The first that fails ends the chain, and the others are dropped.
    ///
    /// # Panics
    ///
    /// Without a step.
    pub fn then_all<B>(self, bridge: B, steps: impl IntoIterator<Item = Step>) -> Self
    where
        B: Fn(&Reached<'_>) -> Result<Data, Failure> + Send + Sync + 'static,
    {
        self.with(Some(Arc::new(bridge)), steps)
    }

    /// Calls this with each run that came to its end; one that was cancelled does not.
    pub fn observe(mut self, observer: impl Fn(&Delivery, &ChainRun) + Send + Sync + 'static) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    fn with(mut self, bridge: Option<Arc<Bridge>>, steps: impl IntoIterator<Item = Step>) -> Self {
        let stage = self.stages.len() + 1;
        let mut steps: Vec<Step> = steps.into_iter().collect();
        assert!(!steps.is_empty(), "a stage of a chain needs a step");
        let is_single = steps.len() == 1;
        for (index, step) in steps.iter_mut().enumerate() {
            step.set_default_name(|| match is_single {
                true => format!("step {stage}"),
                false => format!("step {stage}.{}", index + 1),
            });
        }
        self.stages.push(Stage { bridge, steps });
        self
    }

    /// Runs all steps over one delivery. Dropping the future drops the steps that are running.
    pub async fn run(&self, delivery: &Delivery) -> ChainRun {
        let started = Instant::now();
        let mut steps = Vec::new();
        let verdict = self.go(delivery, &mut steps).await;
        let run = ChainRun { verdict, steps, took: started.elapsed() };
        if let Some(observer) = &self.observer {
            observer(delivery, &run);
        }
        run
    }

    async fn go(&self, delivery: &Delivery, runs: &mut Vec<StepRun>) -> Verdict {
        let mut last = 0;
        for stage in &self.stages {
            let reached = Reached { delivery, runs, last: &runs[last..] };
            let input = stage.input(&reached)?;
            last = runs.len();
            stage.run(input, runs).await?;
        }
        put_together(&runs[last..])
    }
}

impl Stage {
    fn input(&self, reached: &Reached<'_>) -> Result<Delivery, Failure> {
        let Some(bridge) = &self.bridge else { return Ok(reached.delivery.clone()) };
        let data = bridge(reached)?;
        let delivery = reached.delivery.clone();
        Ok(Delivery { data: data.bytes, content_type: data.content_type.into(), gathering: None, ..delivery })
    }

    /// Runs its steps, and keeps what they came to; the first failure is the error, with the step's name.
    async fn run(&self, input: Delivery, runs: &mut Vec<StepRun>) -> Result<(), Failure> {
        let run = async |index: usize, step: &Step| (index, step.run(input.clone()).await);
        let mut running: FuturesUnordered<_> =
            self.steps.iter().enumerate().map(|(index, step)| run(index, step)).collect();
        let mut ended = Vec::with_capacity(self.steps.len());
        let mut result = Ok(());
        while let Some((index, run)) = running.next().await {
            let failure = run.verdict.as_ref().err().map(|failure| named(&run.name, failure));
            ended.push((index, run));
            if let Some(failure) = failure {
                result = Err(failure);
                break;
            }
        }
        ended.sort_by_key(|(index, _)| *index);
        runs.extend(ended.into_iter().map(|(_, run)| run));
        result
    }
}

fn named(step: &str, failure: &Failure) -> Failure {
    Failure { message: format!("{step}: {}", failure.message), ..failure.clone() }
}

/// The answer of the last stage, whose steps have all succeeded.
fn put_together(last: &[StepRun]) -> Verdict {
    let mut answers = last.iter().filter_map(|run| run.verdict.as_ref().ok());
    let mut whole = answers.next().cloned().unwrap_or_default();
    for answer in answers {
        let Answer { next, data, items, partitions, then } = answer.clone();
        whole.data = one_of("give data", whole.data, data)?;
        let (ours, theirs) = (steering(whole.next), steering(next));
        whole.next = one_of("say where the item goes", ours, theirs)?.unwrap_or_default();
        if !partitions.is_empty() {
            if !whole.partitions.is_empty() && whole.then != then {
                return Err(ambiguous("say what comes after their partitions"));
            }
            whole.then = then;
        }
        whole.items.extend(items);
        whole.partitions.extend(partitions);
    }
    Ok(whole)
}

fn steering(next: Next) -> Option<Next> {
    (next != Next::Done).then_some(next)
}

fn one_of<T>(what: &str, one: Option<T>, other: Option<T>) -> Result<Option<T>, Failure> {
    if one.is_some() && other.is_some() { Err(ambiguous(what)) } else { Ok(one.or(other)) }
}

fn ambiguous(what: &str) -> Failure {
    Failure::final_(format!(
        "the chain ends with several steps that {what}; add a last step that makes one answer of theirs"
    ))
}

impl Processor for Chain {
    async fn process(&self, delivery: Delivery) -> Verdict {
        self.run(&delivery).await.verdict
    }

    /// While every step can go on.
    fn is_ready(&self, feed: &str, gate: i32) -> bool {
        self.steps().all(|step| step.is_ready(feed, gate))
    }

    /// For its first step: what limits the others is asked when they begin.
    fn reserve(&self, feed: &str, gate: i32) -> bool {
        self.is_ready(feed, gate) && self.steps().next().is_some_and(|first| first.reserve(feed, gate))
    }

    fn readiness_changed(&self) -> impl Future<Output = ()> + Send {
        select_all(self.steps().map(Step::readiness_changed)).map(drop)
    }

    /// With any of its steps: no delivery gets through that one, and so none through the chain.
    fn is_down(&self, feed: &str) -> bool {
        self.steps().any(|step| step.is_down(feed))
    }

    /// Those of all steps. A target that several of them have is told once, as it is where it is worst.
    fn circuits(&self, feed: &str) -> Vec<Circuit> {
        let key = |circuit: &Circuit| (circuit.gate, circuit.target.clone());
        let mut circuits: Vec<Circuit> = self.steps().flat_map(|step| step.circuits(feed)).collect();
        circuits.sort_by_key(|circuit| (key(circuit), circuit.state));
        circuits.dedup_by_key(|circuit| key(circuit));
        circuits
    }

    fn is_split(&self) -> bool {
        self.steps().any(Step::is_split)
    }

    fn split(&self, peers: &Peers) {
        self.steps().for_each(|step| step.split(peers));
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.stages.iter().map(|stage| &stage.steps)).finish()
    }
}

#[cfg(test)]
mod tests;
