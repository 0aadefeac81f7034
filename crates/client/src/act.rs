//! What an operator does, from an application.

use gatefeed_core::{inspect::FeedStatus, store::RetryFilter};

use crate::{client::Client, error::Result};

impl Client {
    /// Makes failed items available again and reopens a failed or complete partition; returns how many items.
    /// `RetryFilter::default()` means all of them. Errs with `NotFound` without the partition or the item named,
    /// and with `Refused` where the partition is cancelled.
    pub async fn retry(&self, partition: &str, filter: &RetryFilter) -> Result<u64> {
        Ok(self.store().retry(partition, filter).await?)
    }

    /// Lets a held partition go: its gate advances by itself, and it completes once everything is through. Later
    /// pushes stay legal; twice is once. Errs with `NotFound` without the partition.
    pub async fn seal(&self, partition: &str) -> Result<()> {
        Ok(self.store().seal(partition).await?)
    }

    /// Raises the gate by hand to the lowest open one, and returns that. Errs with `Refused`, saying why, while an
    /// item at or below the gate is open, past a failed item under 'stop', or when nothing is open above it; with
    /// `NotFound` without the partition.
    pub async fn advance(&self, partition: &str) -> Result<i32> {
        Ok(self.store().advance(partition).await?)
    }

    /// The feeds with their partitions, items and watchers, in order of name.
    pub async fn status(&self) -> Result<Vec<FeedStatus>> {
        Ok(self.store().status().await?)
    }
}
