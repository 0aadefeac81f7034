//! Group commit: items of requests that are here at the same time share one transaction. There is no linger: what has
//! queued while one batch was written is the next one. One that the database refuses fails alone, and those of a partition
//! that somebody else has locked wait by themselves.
//!
//! One batch at a time: two writers make two smaller batches, and every statement costs the database as much as ten
//! rows. On two cores with 64 connections one wrote 27,000 items a second, two 18,000 and three 16,000.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use gatefeed_core::{
    Store, StoreError,
    ingest::{ARRIVALS_MAX, Arrival},
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::sleep,
};

use self::batch::{Batch, Outcome, Waiting};
use crate::{budget::Taken, problem::Problem};

mod batch;

/// Bytes of one batch, unless a single item has more.
const BYTES_MAX: usize = 8 << 20;

/// For how long items wait for a lock.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two tries, about.
const PAUSE: Duration = Duration::from_millis(50);

/// Times that a batch and its parts wait for locks while everybody else waits for them.
const TRIES_MAX: u32 = 10;

/// Batches that wait for locks and are tried at a time.
const ASIDE_MAX: usize = 3;

/// For how long the items of a partition are set aside that had to wait for a lock.
const SLOW_FOR: Duration = Duration::from_secs(2);

/// Such partitions that are remembered.
const SLOW_MAX: usize = 1_000;

/// Where items queue. The queue itself has no bound: the budget of bytes, of which every item takes some, is one.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    queue: mpsc::UnboundedSender<(Arrival, Waiting)>,
}

impl Group {
    /// Starts the task that writes; it ends when nobody can queue any more.
    pub(crate) fn start(store: &Arc<dyn Store>) -> Self {
        let (queue, waiting) = mpsc::unbounded_channel();
        let writer = Writer {
            store: Arc::clone(store),
            aside: Arc::new(Semaphore::new(ASIDE_MAX)),
            slow: HashMap::new(),
        };
        tokio::spawn(writer.run(waiting));
        Self { queue }
    }

    /// Resolves when the item is committed, or was refused. Dropped, the item is written all the same.
    pub(crate) async fn add(&self, arrival: Arrival, taken: Taken) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let ending = || Problem::busy("this server is about to end: ask again");
        self.queue.send((arrival, Waiting::new(taken, answer))).map_err(|_| ending())?;
        answered.await.map_err(|_| ending())?
    }
}

struct Writer {
    store: Arc<dyn Store>,
    /// Room for batches that are tried on the side.
    aside: Arc<Semaphore>,
    /// Partitions with a lock that was waited for, and when.
    slow: HashMap<String, Instant>,
}

impl Writer {
    async fn run(mut self, mut queue: mpsc::UnboundedReceiver<(Arrival, Waiting)>) {
        let mut queued = Vec::new();
        while queue.recv_many(&mut queued, ARRIVALS_MAX).await > 0 {
            self.slow.retain(|_, since| since.elapsed() < SLOW_FOR);
            let mut rest: Batch = std::mem::take(&mut queued).into_iter().collect();
            while !rest.is_empty() {
                let [batch, more] = rest.fitting(BYTES_MAX);
                self.write(batch).await;
                rest = more;
            }
        }
    }

    /// Writes a batch; where something is in the way, its parts, until that stands alone. It looks for locks for so long,
    /// and then everything that is left waits on the side, since all others wait along.
    async fn write(&mut self, batch: Batch) {
        let (started, mut batches, mut tries_left) = (Instant::now(), vec![batch], TRIES_MAX);
        while let Some(batch) = batches.pop() {
            let batch = self.without_slow(batch);
            if batch.is_empty() {
                continue;
            }
            if tries_left == 0 {
                self.set_aside(batch);
                continue;
            }
            match batch.write(&*self.store).await {
                Ok(arrived) => batch.succeed(arrived),
                Err(error) if error.is_data() && !batch.is_single() => batches.extend(batch.halves()),
                Err(StoreError::Locked(_)) => {
                    tries_left -= 1;
                    batches.extend(self.without_locked(batch));
                }
                // About the whole database: no part of the batch would fare better.
                Err(StoreError::Conflict(_)) if started.elapsed() < PATIENCE => {
                    batches.push(batch);
                    pause().await;
                }
                Err(error) => batch.fail(&error),
            }
        }
    }

    /// A batch that had to wait for somebody: what is not known to be in its way.
    fn without_locked(&mut self, batch: Batch) -> Vec<Batch> {
        let partitions = batch.partitions();
        if partitions.len() > 1 {
            return batch.halves_by_partition().into();
        }
        if self.slow.len() < SLOW_MAX {
            let now = Instant::now();
            self.slow.extend(partitions.into_iter().map(|partition| (partition.to_owned(), now)));
        }
        self.set_aside(batch);
        Vec::new()
    }

    /// Sets items aside whose partition is locked: those of one partition together, since they wait for the same.
    fn without_slow(&self, batch: Batch) -> Batch {
        if self.slow.is_empty() {
            return batch;
        }
        let [mut slow, others] = batch.split_by(|partition| self.slow.contains_key(partition));
        while let Some(first) = slow.partitions().first().map(|id| (*id).to_owned()) {
            let [own, more] = slow.split_by(|partition| partition == first);
            self.set_aside(own);
            slow = more;
        }
        others
    }

    fn set_aside(&self, batch: Batch) {
        tokio::spawn(wait(Arc::clone(&self.store), Arc::clone(&self.aside), batch));
    }
}

/// Whether nothing was written, since somebody else was writing.
fn is_in_the_way(error: &StoreError) -> bool {
    matches!(error, StoreError::Conflict(_) | StoreError::Locked(_))
}

/// Tries again and again, each in its turn, for a while.
async fn wait(store: Arc<dyn Store>, aside: Arc<Semaphore>, batch: Batch) {
    let (started, mut batches) = (Instant::now(), VecDeque::from([batch]));
    while let Some(batch) = batches.pop_front() {
        let tried = {
            let _room = aside.acquire().await;
            batch.write(&*store).await
        };
        let is_in_time = started.elapsed() < PATIENCE;
        match tried {
            Ok(arrived) => batch.succeed(arrived),
            Err(error) if error.is_data() && !batch.is_single() => batches.extend(batch.halves()),
            Err(StoreError::Locked(_)) if is_in_time && batch.partitions().len() > 1 => {
                batches.extend(batch.halves_by_partition());
            }
            Err(error) if is_in_the_way(&error) && is_in_time => {
                batches.push_back(batch);
                pause().await;
            }
            Err(error) => batch.fail(&error),
        }
    }
}

async fn pause() {
    sleep(PAUSE.mul_f64(rand::random_range(0.5..1.5))).await;
}

#[cfg(test)]
mod tests;
