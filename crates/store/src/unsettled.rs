//! Items with so many dependents that one batch of outcomes does not settle them all.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use gatefeed_core::Result;

/// How many dependents, and how many bytes that they take over, one batch of outcomes or one checkpoint settles at the most,
/// in all its partitions. It takes some tenths of a second, for which every other partition's outcomes wait.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Piece {
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
}

impl Piece {
    /// Where a statement may take [`Self::WITHIN`].
    const MAX: Self = Self { rows: 10_000, bytes: 8 << 20 };

    /// Some dozens of times what that takes, since what was not done within the limit is begun anew.
    pub(crate) const WITHIN: Duration = Duration::from_secs(10);

    /// What may be settled in each of so many partitions within a limit: as much less as it is shorter.
    pub(crate) fn of(limit: Duration, partitions: usize) -> Self {
        let share = (limit.as_secs_f64() / Self::WITHIN.as_secs_f64()).min(1.0) / partitions.max(1) as f64;
        let part = |max: usize| ((max as f64 * share) as usize).max(1);
        Self { rows: part(Self::MAX.rows), bytes: part(Self::MAX.bytes) }
    }
}

/// The most partitions, and the most items of one of them, that are remembered. What is more is found at the checkpoint,
/// which looks at all that is blocked.
const PARTITIONS_MAX: usize = 1_000;
const ITEMS_MAX: usize = 20_000;

/// Partitions of which something is left, each with the ended items whose dependents are not all settled.
pub(crate) type Left = Vec<(String, Vec<String>)>;

/// How often in a row a piece may fail before the rest is left to the checkpoints.
const FAILED_MAX: u32 = 10;

/// Between two pieces, at the least.
const PAUSE: Duration = Duration::from_millis(1);

/// By partition, in turn, the ended items whose dependents are not all settled, for a task that goes on with them. In memory
/// only: a checkpoint finds them too, but not before nothing of the partition is under way.
#[derive(Debug, Default)]
pub(crate) struct Unsettled(Mutex<Rest>);

#[derive(Debug, Default)]
struct Rest {
    queue: VecDeque<(String, Vec<String>)>,
    is_settling: bool,
}

impl Unsettled {
    /// What is left of a partition after a transaction that was committed. True: nobody goes on with it yet.
    pub(crate) fn note(&self, partition: String, mut left: Vec<String>) -> bool {
        let mut rest = self.rest();
        if !left.is_empty() && rest.queue.len() < PARTITIONS_MAX {
            left.truncate(ITEMS_MAX);
            rest.queue.push_back((partition, left));
        }
        !rest.queue.is_empty() && !std::mem::replace(&mut rest.is_settling, true)
    }

    /// What to go on with; `None`: nothing, and whoever asks has ended.
    fn next(&self) -> Option<(String, Vec<String>)> {
        let mut rest = self.rest();
        let next = rest.queue.pop_front();
        rest.is_settling = next.is_some();
        next
    }

    /// Goes on, piece by piece, until nothing is left. `settle` does one of a partition, and returns whose dependents are left.
    pub(crate) async fn go_on<F: Future<Output = Result<Vec<String>>>>(
        &self,
        settle: impl Fn(String, Vec<String>) -> F,
    ) {
        let mut failed = 0;
        while let Some((partition, items)) = self.next() {
            let started = Instant::now();
            match settle(partition.clone(), items.clone()).await {
                Ok(left) => {
                    failed = 0;
                    self.note(partition, left);
                }
                Err(error) => {
                    failed += 1;
                    tracing::debug!(%partition, %error, "could not settle more dependents; trying again");
                    if failed < FAILED_MAX {
                        // The dependents of fewer are looked at in less time.
                        let (some, others) = items.split_at(items.len() / 2);
                        self.note(partition.clone(), some.to_vec());
                        self.note(partition, others.to_vec());
                    }
                }
            }
            // Others have half of the time.
            tokio::time::sleep(started.elapsed().max(PAUSE)).await;
        }
    }

    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
