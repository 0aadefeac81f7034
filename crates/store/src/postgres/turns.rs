//! Turns: of the connections of a lane, no partition has all, so that whoever waits for one that is locked leaves some to the
//! others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use gatefeed_core::{Result, StoreError};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::pool::Lane;

/// Entries that are gone are looked for from so many on.
const SWEPT_FROM: usize = 64;

/// One of those that a partition may have, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(#[expect(dead_code, reason = "held, not asked")] OwnedSemaphorePermit);

/// Whose turn it is, by lane and partition: those that anybody has or waits for.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    turns: HashMap<(usize, String), Weak<Semaphore>>,
    swept: usize,
}

impl Turns {
    /// Waits as long as for a connection of the lane. `Locked` after that.
    pub(super) async fn wait(&self, lane: Lane, partition: &str) -> Result<Turn> {
        let turn = timeout(lane.patience(), self.of(lane, partition).acquire_owned()).await;
        turn.ok()
            .and_then(std::result::Result::ok)
            .map(Turn)
            .ok_or_else(|| StoreError::Locked(format!("others wait for partition {partition:?} already")))
    }

    fn of(&self, lane: Lane, partition: &str) -> Arc<Semaphore> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.sweep();
        let entry = entries.turns.entry((lane as usize, partition.to_owned())).or_default();
        entry.upgrade().unwrap_or_else(|| {
            let turns = Arc::new(Semaphore::new(lane.turns()));
            *entry = Arc::downgrade(&turns);
            turns
        })
    }
}

impl Entries {
    /// Each time that there are twice as many as the last time.
    fn sweep(&mut self) {
        if self.turns.len() >= SWEPT_FROM.max(2 * self.swept) {
            self.turns.retain(|_, turns| turns.strong_count() > 0);
            self.swept = self.turns.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_partition_has_so_many_and_leaves_the_others_alone() {
        let turns = Turns::default();
        let mut taken = Vec::new();
        for _ in 0..Lane::Call.turns() {
            taken.push(turns.wait(Lane::Call, "p").await.unwrap());
        }
        assert!(timeout(Duration::ZERO, turns.wait(Lane::Call, "p")).await.is_err());
        turns.wait(Lane::Call, "q").await.unwrap();
        turns.wait(Lane::Act, "p").await.unwrap();
        taken.pop();
        turns.wait(Lane::Call, "p").await.unwrap();
    }

    #[tokio::test]
    async fn what_nobody_has_is_forgotten() {
        let turns = Turns::default();
        let kept = turns.wait(Lane::Push, "kept").await.unwrap();
        for n in 0..10 * SWEPT_FROM {
            turns.wait(Lane::Push, &n.to_string()).await.unwrap();
        }
        let entries = turns.0.lock().unwrap();
        assert!(entries.turns.len() <= SWEPT_FROM, "{}", entries.turns.len());
        assert!(entries.turns.contains_key(&(Lane::Push as usize, "kept".to_owned())));
        drop(kept);
    }
}
