//! Items with so many dependents that one batch of outcomes does not settle them all.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The most dependents of a partition that one batch of outcomes, or one checkpoint, settles: some tenths of a second on
/// Postgres, which every other partition's outcomes wait for.
pub(crate) const SETTLED_MAX: usize = 10_000;

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
