//! Items with so many dependents that one batch of outcomes does not settle them all.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

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

/// By partition, the ended items whose dependents are not all settled. In memory: it only spares the next batch a search.
#[derive(Debug, Default)]
pub(crate) struct Unsettled(Mutex<HashMap<String, Vec<String>>>);

impl Unsettled {
    /// Those of a partition.
    pub(crate) fn of(&self, partition: &str) -> Vec<String> {
        self.all().get(partition).cloned().unwrap_or_default()
    }

    /// What is left of a partition after a batch that was committed.
    pub(crate) fn note(&self, partition: &str, mut left: Vec<String>) {
        let mut all = self.all();
        all.remove(partition);
        if !left.is_empty() && all.len() < PARTITIONS_MAX {
            left.truncate(ITEMS_MAX);
            all.insert(partition.to_owned(), left);
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Vec<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
