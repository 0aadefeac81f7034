//! What the client asks of whatever is behind it: the database itself, or the API.

use std::{fmt::Debug, sync::Arc, time::Duration};

use async_trait::async_trait;
use gatefeed_core::{
    Result, Store,
    inspect::{DataPart, FeedStatus, GateCounts, ItemFilter, ItemRow, PartitionFilter, PartitionRow},
    item::NewItem,
    partition::NewPartition,
    store::{Push, Pushed, RetryFilter, Rewound, Wakeups},
    why::{Why, explain},
};

/// Rows of a listing, in order of id.
pub(crate) struct Rows<T> {
    pub(crate) rows: Vec<T>,
    /// Whether there may be more after the last one.
    pub(crate) has_more: bool,
}

impl<T> Rows<T> {
    fn of(rows: Vec<T>, limit: usize) -> Self {
        Self { has_more: rows.len() == limit, rows }
    }
}

/// As [`Store`] has it, where nothing else is said.
#[async_trait]
pub(crate) trait Backend: Send + Sync + Debug {
    async fn push(&self, partition: &NewPartition, items: Vec<NewItem>) -> Result<Pushed>;
    async fn begin_push(&self, partition: &NewPartition) -> Result<Box<dyn Push>>;
    async fn retry(&self, partition: &str, filter: &RetryFilter) -> Result<u64>;
    async fn seal(&self, partition: &str) -> Result<()>;
    async fn advance(&self, partition: &str) -> Result<i32>;
    async fn pause(&self, partition: &str) -> Result<()>;
    async fn resume(&self, partition: &str) -> Result<()>;
    async fn cancel(&self, partition: &str) -> Result<u64>;
    async fn rewind(&self, partition: &str, gate: i32) -> Result<Rewound>;
    async fn why(&self, partition: &str, item: Option<&str>) -> Result<Why>;
    async fn status(&self) -> Result<Vec<FeedStatus>>;
    async fn partition(&self, id: &str) -> Result<Option<PartitionRow>>;
    async fn partitions(&self, filter: &PartitionFilter) -> Result<Rows<PartitionRow>>;
    /// With its data.
    async fn item(&self, partition: &str, id: &str) -> Result<Option<ItemRow>>;
    async fn items(&self, filter: &ItemFilter) -> Result<Rows<ItemRow>>;
    async fn gates(&self, partition: &str) -> Result<Vec<GateCounts>>;
    async fn changes(&self, partition: &str) -> Box<dyn Wakeups>;

    /// How long one may rely on [`Backend::changes`] before one looks by oneself.
    fn poll_max(&self) -> Duration;
}

/// The database.
#[derive(Debug)]
pub(crate) struct Direct(pub(crate) Arc<dyn Store>);

#[async_trait]
impl Backend for Direct {
    async fn push(&self, partition: &NewPartition, items: Vec<NewItem>) -> Result<Pushed> {
        self.0.push(partition, &items).await
    }
    async fn begin_push(&self, partition: &NewPartition) -> Result<Box<dyn Push>> {
        self.0.begin_push(partition).await
    }
    async fn retry(&self, partition: &str, filter: &RetryFilter) -> Result<u64> {
        self.0.retry(partition, filter).await
    }
    async fn seal(&self, partition: &str) -> Result<()> {
        self.0.seal(partition).await
    }
    async fn advance(&self, partition: &str) -> Result<i32> {
        self.0.advance(partition).await
    }
    async fn pause(&self, partition: &str) -> Result<()> {
        self.0.pause(partition).await
    }
    async fn resume(&self, partition: &str) -> Result<()> {
        self.0.resume(partition).await
    }
    async fn cancel(&self, partition: &str) -> Result<u64> {
        self.0.cancel(partition).await
    }
    async fn rewind(&self, partition: &str, gate: i32) -> Result<Rewound> {
        self.0.rewind(partition, gate).await
    }
    async fn why(&self, partition: &str, item: Option<&str>) -> Result<Why> {
        Ok(explain(self.0.why(partition, item).await?))
    }
    async fn status(&self) -> Result<Vec<FeedStatus>> {
        self.0.status().await
    }
    async fn partition(&self, id: &str) -> Result<Option<PartitionRow>> {
        self.0.partition(id).await
    }
    async fn partitions(&self, filter: &PartitionFilter) -> Result<Rows<PartitionRow>> {
        Ok(Rows::of(self.0.partitions(filter).await?, filter.limit))
    }
    async fn item(&self, partition: &str, id: &str) -> Result<Option<ItemRow>> {
        let (partition, id) = (partition.to_owned(), Some(id.to_owned()));
        let filter = ItemFilter { partition, id, limit: 1, data: DataPart::All, ..ItemFilter::default() };
        Ok(self.0.items(&filter).await?.pop())
    }
    async fn items(&self, filter: &ItemFilter) -> Result<Rows<ItemRow>> {
        Ok(Rows::of(self.0.items(filter).await?, filter.limit))
    }
    async fn gates(&self, partition: &str) -> Result<Vec<GateCounts>> {
        self.0.gates(partition).await
    }
    async fn changes(&self, partition: &str) -> Box<dyn Wakeups> {
        self.0.changes(partition).await
    }
    fn poll_max(&self) -> Duration {
        Duration::from_secs(1)
    }
}
