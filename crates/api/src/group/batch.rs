//! Items that are written together, or not at all.

use std::collections::BTreeSet;

use gatefeed_core::{
    Result, Store, StoreError,
    ingest::{Arrival, Arrived},
};
use tokio::sync::oneshot;

use crate::{budget::Taken, problem::Problem};

pub(super) type Outcome = std::result::Result<Arrived, Problem>;

/// Who waits for an item.
pub(super) struct Waiting {
    /// Given back when the item is written.
    taken: Taken,
    answer: oneshot::Sender<Outcome>,
}

impl Waiting {
    pub(super) fn new(taken: Taken, answer: oneshot::Sender<Outcome>) -> Self {
        Self { taken, answer }
    }

    fn answer(self, outcome: Outcome) {
        drop(self.taken);
        _ = self.answer.send(outcome);
    }
}

/// Items, and who waits for each.
#[derive(Default)]
pub(super) struct Batch {
    arrivals: Vec<Arrival>,
    waiting: Vec<Waiting>,
}

impl FromIterator<(Arrival, Waiting)> for Batch {
    fn from_iter<I: IntoIterator<Item = (Arrival, Waiting)>>(items: I) -> Self {
        let (arrivals, waiting) = items.into_iter().unzip();
        Self { arrivals, waiting }
    }
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.arrivals.is_empty()
    }

    pub(super) fn is_single(&self) -> bool {
        self.arrivals.len() == 1
    }

    pub(super) fn partitions(&self) -> BTreeSet<&str> {
        self.arrivals.iter().map(|arrival| arrival.item.partition.as_str()).collect()
    }

    pub(super) async fn write(&self, store: &dyn Store) -> Result<Vec<Arrived>> {
        store.ingest(&self.arrivals).await
    }

    /// All have been written.
    pub(super) fn succeed(self, arrived: Vec<Arrived>) {
        self.waiting.into_iter().zip(arrived).for_each(|(waiting, arrived)| waiting.answer(Ok(arrived)));
    }

    /// None was written. Where the database did not answer that is unknown, and its caller has to decide.
    pub(super) fn fail(self, error: &StoreError) {
        for waiting in self.waiting {
            let error = match error {
                StoreError::Data(text) => StoreError::Data(text.clone()),
                StoreError::NotFound(text) => StoreError::NotFound(text.clone()),
                StoreError::Cancelled(text) => StoreError::Cancelled(text.clone()),
                StoreError::BlobStore(text) => StoreError::BlobStore(text.clone()),
                error if error.is_retryable() => StoreError::Unavailable(error.to_string()),
                error => StoreError::Defect(error.to_string()),
            };
            waiting.answer(Err(error.into()));
        }
    }

    /// The first so many, and the rest.
    fn split_at(mut self, count: usize) -> [Self; 2] {
        let rest = Self { arrivals: self.arrivals.split_off(count), waiting: self.waiting.split_off(count) };
        [self, rest]
    }

    pub(super) fn halves(self) -> [Self; 2] {
        let half = self.arrivals.len() / 2;
        self.split_at(half)
    }

    /// As many as have so many bytes together, but one at least; and the rest.
    pub(super) fn fitting(self, bytes_max: usize) -> [Self; 2] {
        let mut sum = 0_usize;
        let fits = self.arrivals.iter().take_while(|arrival| {
            sum = sum.saturating_add(arrival.item.data.bytes.len());
            sum <= bytes_max
        });
        let count = fits.count().max(1).min(self.arrivals.len());
        self.split_at(count)
    }

    /// Those of half of the partitions, and the others.
    pub(super) fn halves_by_partition(self) -> [Self; 2] {
        let partitions = self.partitions();
        let middle = partitions.iter().nth(partitions.len() / 2).map(|id| (*id).to_owned());
        self.split_by(|partition| middle.as_deref().is_some_and(|middle| partition < middle))
    }

    /// Those of the partitions that are wanted, and the others.
    pub(super) fn split_by(self, is_wanted: impl Fn(&str) -> bool) -> [Self; 2] {
        let items = self.arrivals.into_iter().zip(self.waiting);
        let (wanted, others): (Vec<_>, Vec<_>) =
            items.partition(|(arrival, _)| is_wanted(&arrival.item.partition));
        [wanted.into_iter().collect(), others.into_iter().collect()]
    }
}

#[cfg(test)]
mod tests {
    use gatefeed_core::item::{Data, NewItem};

    use super::*;
    use crate::budget::Budget;

    fn batch(items: &[(&str, usize)]) -> Batch {
        let budget = Budget::new(0);
        let item = |(partition, bytes): &(&str, usize)| {
            let item = NewItem::new(*partition, "i", Data::json(" ".repeat(*bytes)));
            let arrival = Arrival { feed: "f".into(), own_feed_only: false, item, request: None };
            (arrival, Waiting::new(budget.none(), oneshot::channel().0))
        };
        items.iter().map(item).collect()
    }

    fn sizes(batches: [Batch; 2]) -> [usize; 2] {
        batches.map(|batch| batch.arrivals.len())
    }

    #[test]
    fn a_batch_has_so_many_bytes_or_one_item() {
        assert_eq!(sizes(batch(&[("p", 3), ("p", 5), ("p", 1)]).fitting(8)), [2, 1]);
        assert_eq!(sizes(batch(&[("p", 9), ("p", 1)]).fitting(8)), [1, 1]);
        assert_eq!(sizes(batch(&[("p", 0); 5]).fitting(8)), [5, 0]);
        assert_eq!(sizes(batch(&[]).fitting(8)), [0, 0]);
    }

    #[test]
    fn items_of_one_partition_stay_together() {
        let [some, others] = batch(&[("a", 1), ("b", 1), ("a", 1), ("c", 1)]).halves_by_partition();
        assert_eq!((some.partitions().len(), others.partitions().len()), (1, 2));
        assert_eq!(sizes([some, others]), [2, 2]);
        assert_eq!(sizes(batch(&[("a", 1), ("a", 1), ("a", 1)]).halves()), [1, 2]);
    }
}
