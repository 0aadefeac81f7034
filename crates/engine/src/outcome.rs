//! Outcomes: gathered for some milliseconds and written by one task, one statement for many items.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{
    StoreError,
    answer::Failure,
    item::{DueItem, ItemStatus},
    outcome::{Completion, Settled, decide},
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};

use crate::{
    board::BATCH_MAX,
    context::{Backoff, Context, jittered},
    tasks,
};

/// The most bytes of one batch.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How long a batch waits to fill, while deliveries are under way that may add to it. A batch costs about as much as a
/// hundred outcomes, so that much less makes the database the bottleneck.
const LINGER: Duration = Duration::from_millis(10);
/// How long outcomes wait whose rows somebody has locked, at first …
const PAUSE: Duration = Duration::from_millis(25);
/// … and at most.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// An outcome that took the database this long, alone and in vain, is tried again after so many times that, since all others
/// wait meanwhile …
const SLOW: Duration = Duration::from_secs(1);
const SLOW_REST: u32 = 5;
/// … and after this at the most.
const SLOW_REST_MAX: Duration = Duration::from_secs(60);
/// How long a partition rests of which the database takes no outcome.
const REST: Duration = Duration::from_secs(1);

/// A completion on its way, and what is needed to decide again if the database refuses it.
pub(crate) struct Outcome {
    completion: Completion,
    item: DueItem,
    /// What it takes in memory, about.
    pub(crate) bytes: usize,
    /// Its write, alone, took the database too long before.
    was_slow: bool,
}

impl Outcome {
    pub(crate) fn new(completion: Completion, item: DueItem) -> Self {
        let data = completion.change.data.as_ref().map_or(0, |data| data.bytes.len());
        let children: usize = completion.children.iter().map(|c| c.data.bytes.len() + 256).sum();
        let kept = completion.kept.as_ref().map_or(0, |kept| kept.data.bytes.len());
        Self { completion, item, bytes: data + children + kept + 512, was_slow: false }
    }

    /// The completion, and the rest.
    fn split(self) -> (Completion, (DueItem, usize, bool)) {
        (self.completion, (self.item, self.bytes, self.was_slow))
    }

    fn join(completion: Completion, (item, bytes, was_slow): (DueItem, usize, bool)) -> Self {
        Self { completion, item, bytes, was_slow }
    }

    /// The lowest gate of its partition at which it makes something due at once.
    fn due_gate(&self) -> Option<i32> {
        let Completion { change, children, lease, .. } = &self.completion;
        let again =
            change.status == ItemStatus::Available && change.delay.is_none_or(|delay| delay.is_zero());
        let own =
            children.iter().filter(|child| *child.partition == *lease.partition).map(|child| child.gate);
        own.chain(again.then_some(change.gate)).min()
    }
}

/// Writes until the last sender is gone and everything is written.
pub(crate) async fn run(context: Arc<Context>, outcomes: mpsc::UnboundedReceiver<Outcome>) {
    let mut desk = Desk {
        outcomes,
        waiting: None,
        parked: Vec::new(),
        retry_at: Instant::now(),
        pause: PAUSE,
        slow: Vec::new(),
    };
    // The board takes note of one batch while the database writes the next.
    let mut notes = JoinSet::new();
    while let Some(batch) = desk.next(&context).await {
        let left = write(&context, batch, &mut notes).await;
        desk.park(&context, left.busy);
        desk.slow.extend(left.slow);
        tasks::reap(&mut notes);
    }
    tasks::finish(&mut notes).await;
}

/// What is to be written.
struct Desk {
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    /// What did not fit into the batch before.
    waiting: Option<Outcome>,
    /// Outcomes whose rows somebody has locked, to be tried again at `retry_at`.
    parked: Vec<Outcome>,
    retry_at: Instant,
    pause: Duration,
    /// Outcomes that take the database too long, and when each is tried again.
    slow: Vec<(Instant, Outcome)>,
}

/// What a batch leaves over.
#[derive(Default)]
struct Left {
    /// Their rows are locked by somebody, or the database was not there.
    busy: Vec<Outcome>,
    /// Each takes the database too long.
    slow: Vec<(Instant, Outcome)>,
}

impl Desk {
    /// The next batch; `None`: no more will come, and nothing is left.
    async fn next(&mut self, context: &Context) -> Option<Vec<Outcome>> {
        let next_try = self.next_try();
        if next_try.is_some_and(|at| at <= Instant::now()) {
            return Some(self.unpark());
        }
        if let Some(first) = self.waiting.take() {
            return Some(self.fill(context, first).await);
        }
        let next_try_comes = async {
            match next_try {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = next_try_comes => Some(self.unpark()),
            first = self.outcomes.recv() => match (first, next_try) {
                (Some(first), _) => Some(self.fill(context, first).await),
                // Whoever stops does not wait for what is slow to have rested.
                (None, Some(at)) => {
                    tokio::time::sleep_until(at.min(Instant::now() + PAUSE_MAX)).await;
                    Some(self.unpark())
                }
                (None, None) => None,
            }
        }
    }

    /// When something that is left is to be tried again.
    fn next_try(&self) -> Option<Instant> {
        let parked = (!self.parked.is_empty()).then_some(self.retry_at);
        self.slow.iter().map(|(at, _)| *at).chain(parked).min()
    }

    /// A batch that begins with this outcome: with what is there, and with what comes while lingering makes sense.
    async fn fill(&mut self, context: &Context, first: Outcome) -> Vec<Outcome> {
        let mut bytes = first.bytes;
        let mut batch = vec![first];
        let full_at = Instant::now() + LINGER;
        let mut is_lingering = true;
        loop {
            while batch.len() < BATCH_MAX {
                let Ok(next) = self.outcomes.try_recv() else { break };
                bytes += next.bytes;
                if bytes > BATCH_BYTES_MAX {
                    self.waiting = Some(next);
                    return batch;
                }
                batch.push(next);
            }
            if !is_lingering || batch.len() == BATCH_MAX {
                return batch;
            }
            // Not woken by each outcome, of which there may be a hundred thousand a second.
            is_lingering = tokio::select! {
                () = context.write_bell.notified() => false,
                () = tokio::time::sleep_until(full_at) => false,
            };
        }
    }

    fn park(&mut self, context: &Context, busy: Vec<Outcome>) {
        if !busy.is_empty() {
            let mut board = context.board();
            busy.iter().for_each(|outcome| board.locked(&outcome.completion.lease));
            // What is locked anew does not put off the rest.
            if self.retry_at <= Instant::now() {
                self.retry_at = Instant::now() + jittered(self.pause);
                self.pause = (self.pause * 2).min(PAUSE_MAX);
            }
            self.parked.extend(busy);
        } else if self.parked.is_empty() {
            self.pause = PAUSE;
        }
    }

    /// What is to be tried again first: what is slow, alone.
    fn unpark(&mut self) -> Vec<Outcome> {
        let slow = (0..self.slow.len()).min_by_key(|&index| self.slow[index].0);
        if let Some(slow) = slow.filter(|&slow| Some(self.slow[slow].0) == self.next_try()) {
            return vec![self.slow.swap_remove(slow).1];
        }
        let rest = self.parked.split_off(self.parked.len().min(BATCH_MAX));
        std::mem::replace(&mut self.parked, rest)
    }
}

/// Writes a batch, however long it takes: an outcome is work that was done. Input that the database refuses is
/// found by halving, so that only the culprit fails; and so is what somebody has locked, or what takes the database too
/// long, which is returned. After an outage the halves are written as they are.
async fn write(context: &Arc<Context>, batch: Vec<Outcome>, notes: &mut JoinSet<()>) -> Left {
    let mut left = Left::default();
    let mut stack = vec![batch];
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(2));
    while let Some(batch) = stack.pop() {
        let (completions, rest): (Vec<_>, Vec<_>) = batch.into_iter().map(Outcome::split).unzip();
        let started = Instant::now();
        let written = context.store.complete(&completions).await;
        let batch = completions.into_iter().zip(rest);
        let batch: Vec<Outcome> = batch.map(|(completion, rest)| Outcome::join(completion, rest)).collect();
        match written {
            Ok(settled) => {
                let (locked, decided) = batch.into_iter().zip(settled).partition::<Vec<_>, _>(is_busy);
                left.busy.extend(locked.into_iter().map(|(outcome, _)| outcome));
                notes.spawn(settle(context.clone(), decided));
            }
            Err(StoreError::Locked(_)) if batch.len() == 1 => left.busy.extend(batch),
            Err(error) if batch.len() > 1 && (error.is_data() || matches!(error, StoreError::Locked(_))) => {
                stack.extend(halves(batch));
            }
            Err(error) if error.is_data() => stack.extend(refused(context, batch, &error)),
            Err(error) => {
                tracing::warn!(outcomes = batch.len(), %error, "could not write outcomes; trying again");
                let took = started.elapsed();
                backoff.pause().await;
                match batch.len() {
                    1 => left.alone(context, batch, took).await,
                    _ => stack.extend(halves(batch)),
                }
            }
        }
    }
    left
}

impl Left {
    /// An outcome could not be written, alone. It is slow if that happens again while the database answers.
    async fn alone(&mut self, context: &Context, batch: Vec<Outcome>, took: Duration) {
        let Some(rest) = slow_rest(took) else { return self.busy.extend(batch) };
        let answers = context.store.ping().await.is_ok();
        for outcome in batch {
            match outcome.was_slow && answers {
                true => self.slow.push((Instant::now() + rest, outcome)),
                false => self.busy.push(Outcome { was_slow: answers, ..outcome }),
            }
        }
    }
}

/// How long to wait with an outcome whose write took so long, in vain; `None`: not for that.
fn slow_rest(took: Duration) -> Option<Duration> {
    (took >= SLOW).then(|| (took * SLOW_REST).min(SLOW_REST_MAX))
}

fn is_busy((_, settled): &(Outcome, Settled)) -> bool {
    *settled == Settled::Busy
}

/// Two batches, the outcomes of a partition together as far as possible: a lock is one partition's, mostly.
fn halves(mut batch: Vec<Outcome>) -> [Vec<Outcome>; 2] {
    batch.sort_by(|one, other| one.completion.lease.partition.cmp(&other.completion.lease.partition));
    let rest = batch.split_off(batch.len() / 2);
    [rest, batch]
}

/// The one outcome that the database refuses becomes a failed attempt. If it refuses that as well, the item stays as it is,
/// and its partition rests: its handler would be called on and on, and nobody would count.
fn refused(context: &Context, mut batch: Vec<Outcome>, error: &StoreError) -> Option<Vec<Outcome>> {
    let mut outcome = batch.pop()?;
    let (partition, item) = (outcome.completion.lease.partition.clone(), outcome.item.id.clone());
    let is_failure = outcome.completion.change.error_messages.is_some();
    tracing::warn!(%partition, %item, is_failure, "the database refused an outcome");
    if is_failure {
        context.board().refused(&outcome.completion.lease, &item, outcome.bytes, REST);
        return None;
    }
    let failure = Failure::new(format!("the database refused the answer: {error}"));
    let policy = context.settings.policies.retry(&outcome.completion.feed, outcome.item.gate);
    let (change, children, nested) =
        decide(&outcome.completion.lease.partition, &outcome.item, Err(failure), policy, rand::random());
    outcome.completion.change = change;
    outcome.completion.children = children;
    outcome.completion.nested = nested;
    outcome.completion.kept = None;
    Some(vec![outcome])
}

/// Takes note of what was written, or turned out to be nobody's.
async fn settle(context: Arc<Context>, decided: Vec<(Outcome, Settled)>) {
    let mut progressed = Vec::new();
    {
        let mut board = context.board();
        for (outcome, settled) in &decided {
            let lease = &outcome.completion.lease;
            if board.settled(lease, &outcome.completion.item, *settled, outcome.due_gate(), outcome.bytes) {
                let partition = &lease.partition;
                tracing::warn!(%partition, "the lease is over: cancelled, rewound or taken over; outcomes dropped");
            }
            if *settled == Settled::Written {
                board.count_written(&outcome.completion.feed);
                progressed.extend(board.progressed(lease).then(|| lease.clone()));
            }
        }
    }
    context.ring();
    for lease in progressed {
        if let Err(error) = context.store.progressed(&lease).await {
            tracing::debug!(partition = %lease.partition, %error, "could not note progress");
        }
    }
}

#[cfg(test)]
mod tests {
    use gatefeed_core::{lease::Lease, outcome::Change};
    use gatefeed_store::{Options, connect};
    use tokio_util::sync::CancellationToken;
    use uuid::Uuid;

    use super::*;
    use crate::{Watcher, lanes::Lanes};

    fn outcome(id: &str) -> Outcome {
        let lease = Lease { partition: "p".into(), owner: "w".into(), lease_id: Uuid::nil(), epoch: 1 };
        let change = Change {
            status: ItemStatus::Complete,
            gate: 0,
            pass: 0,
            retry_count: 0,
            delay: None,
            data: None,
            error_messages: None,
            wait: None,
        };
        let completion = Completion {
            lease: Arc::new(lease),
            feed: "default".into(),
            item: id.into(),
            version: 0,
            change,
            children: Vec::new(),
            nested: Vec::new(),
            kept: None,
        };
        let item = DueItem {
            id: id.into(),
            gate: 0,
            pass: 0,
            retry_count: 0,
            suspect_count: 0,
            version: 0,
            content_type: "application/json".into(),
            size: 0,
            data: None,
            error_messages: None,
            gather: None,
            born: 0,
            reference: None,
        };
        Outcome::new(completion, item)
    }

    fn ids(batch: Option<Vec<Outcome>>) -> Vec<String> {
        batch.unwrap().iter().map(|outcome| outcome.item.id.to_string()).collect()
    }

    #[tokio::test]
    async fn what_is_slow_is_tried_alone_and_after_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let store = connect(&format!("sqlite://{}/q.db", dir.path().display()), &Options::default()).await;
        let settings = Watcher::builder(store.unwrap()).into_parts();
        let context = Context::new(settings.0, settings.1, Lanes::default(), CancellationToken::new());
        tokio::time::pause();
        let (sender, outcomes) = mpsc::unbounded_channel();
        let now = Instant::now();
        let mut desk = Desk {
            outcomes,
            waiting: None,
            parked: Vec::new(),
            retry_at: now,
            pause: PAUSE,
            slow: Vec::new(),
        };
        for (id, secs) in [("slow", 50), ("slower", 60)] {
            desk.slow.push((now + Duration::from_secs(secs), outcome(id)));
        }
        desk.park(&context, vec![outcome("busy")]);
        sender.send(outcome("new")).ok().unwrap();
        assert_eq!(ids(desk.next(&context).await), ["new"]);
        assert_eq!(ids(desk.next(&context).await), ["busy"]);
        assert!(now.elapsed() < Duration::from_secs(1));
        desk.slow.push((now + Duration::from_secs(10), outcome("rested")));
        assert_eq!(ids(desk.next(&context).await), ["rested"]);
        assert!(now.elapsed() >= Duration::from_secs(10));
        let now = Instant::now();
        drop(sender);
        // Nobody waits for that at the end.
        assert_eq!(ids(desk.next(&context).await), ["slow"]);
        assert_eq!(ids(desk.next(&context).await), ["slower"]);
        assert!(now.elapsed() < Duration::from_secs(5));
        assert!(desk.next(&context).await.is_none());
    }

    #[test]
    fn a_try_that_took_long_is_not_repeated_soon() {
        assert_eq!(slow_rest(Duration::from_millis(20)), None);
        assert_eq!(slow_rest(Duration::from_secs(2)), Some(Duration::from_secs(10)));
        assert_eq!(slow_rest(Duration::from_secs(15)), Some(SLOW_REST_MAX));
    }
}
