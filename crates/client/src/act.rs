//! What an operator does, from an application.

use gatefeed_core::{
    inspect::FeedStatus,
    store::{RetryFilter, Rewound},
    why::Why,
};

use crate::{client::Client, error::Result};

impl Client {
    /// Makes failed items available again and reopens a failed or complete partition; returns how many items.
    /// `RetryFilter::default()` means all of them. Errs with `NotFound` without the partition or the item named,
    /// and with `Refused` where the partition is cancelled.
    pub async fn retry(&self, partition: &str, filter: &RetryFilter) -> Result<u64> {
        Ok(self.backend().retry(partition, filter).await?)
    }

    /// Lets a held partition go: its gate advances by itself, and it completes once everything is through. Later
    /// pushes stay legal; twice is once. Errs with `NotFound` without the partition.
    pub async fn seal(&self, partition: &str) -> Result<()> {
        Ok(self.backend().seal(partition).await?)
    }

    /// Raises the gate by hand to the lowest open one, and returns that. Errs with `Refused`, saying why, while an
    /// item at or below the gate is open, past a failed item under 'stop', or when nothing is open above it; with
    /// `NotFound` without the partition.
    pub async fn advance(&self, partition: &str) -> Result<i32> {
        Ok(self.backend().advance(partition).await?)
    }

    /// Sets a partition aside: its watcher sends nothing more within a second, and what is in flight ends. Twice is
    /// once. Errs with `Refused` for a partition that has ended, with `NotFound` without it.
    pub async fn pause(&self, partition: &str) -> Result<()> {
        Ok(self.backend().pause(partition).await?)
    }

    /// Lets a paused partition go on, or one that has failed with open items at its gate, as after a deadline. Errs
    /// with `Refused` for others, with `NotFound` without the partition.
    pub async fn resume(&self, partition: &str) -> Result<()> {
        Ok(self.backend().resume(partition).await?)
    }

    /// Ends a partition for good and cancels its open items; returns how many. What is in flight is aborted, and
    /// later answers change nothing. Errs with `Refused` for a complete partition, with `NotFound` without it.
    pub async fn cancel(&self, partition: &str) -> Result<u64> {
        Ok(self.backend().cancel(partition).await?)
    }

    /// Goes back to a gate and delivers again from there, with what each item came to it with; for partitions made
    /// with [`keep_history`](crate::PartitionBuilder::keep_history). What is in flight is aborted. Errs with
    /// `Refused`, saying why, without a history or for a gate that was not reached; with `NotFound` without the
    /// partition.
    pub async fn rewind(&self, partition: &str, gate: i32) -> Result<Rewound> {
        Ok(self.backend().rewind(partition, gate).await?)
    }

    /// Why a partition, or one of its items, is where it is, and what to do. Its cost does not grow with the
    /// partition. Errs with `NotFound` without the partition or the item.
    pub async fn why(&self, partition: &str, item: Option<&str>) -> Result<Why> {
        Ok(self.backend().why(partition, item).await?)
    }

    /// The feeds with their partitions, items and watchers, in order of name.
    pub async fn status(&self) -> Result<Vec<FeedStatus>> {
        Ok(self.backend().status().await?)
    }
}
