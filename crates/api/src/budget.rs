//! Bodies in flight: what is read and not yet committed, counted in bytes, with a bound.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// What an item takes beside its body.
pub(crate) const ITEM_BYTES: usize = 512;

/// Room for so many bytes.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    taken: Arc<AtomicUsize>,
    max: usize,
}

/// Bytes that are taken from a budget until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// So large.
    pub(crate) fn new(max: usize) -> Self {
        Self { taken: Arc::default(), max }
    }

    /// Room for nothing yet.
    pub(crate) fn none(&self) -> Taken {
        Taken { budget: self.clone(), bytes: 0 }
    }
}

impl Taken {
    /// Whether so many more are over the whole budget, so that waiting for others is of no use.
    pub(crate) fn is_never(&self, bytes: usize) -> bool {
        self.bytes.saturating_add(bytes) > self.budget.max
    }

    /// Takes more; false, at once, where there is no room.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let before = self.budget.taken.fetch_add(bytes, Ordering::Relaxed);
        if before.saturating_add(bytes) > self.budget.max {
            self.budget.taken.fetch_sub(bytes, Ordering::Relaxed);
            return false;
        }
        self.bytes += bytes;
        true
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_much_and_again_when_it_is_given_back() {
        let budget = Budget::new(100);
        let (mut first, mut second) = (budget.none(), budget.none());
        assert!(first.grow(60) && !second.grow(41) && second.grow(40) && !first.grow(1));
        drop(second);
        assert!(first.grow(40) && !first.grow(1));
        drop(first);
        assert!(budget.none().grow(100));
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }
}
