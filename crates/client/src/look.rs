//! Looking: partitions and items, one or all of them.

use futures_util::{Stream, stream};
use gatefeed_core::{
    StoreError,
    inspect::{DataPart, GateCounts, ItemFilter, ItemRow, PartitionFilter, PartitionRow},
    item::ItemStatus,
    partition::PartitionStatus,
};

use crate::{backend::Rows, client::Client, error::Result};

/// Rows of one page.
const PAGE: usize = 500;

/// Items of the first page with data: their sizes are not known yet.
const FIRST_PAGE_WITH_DATA: usize = 16;

/// Bytes of data that a page should come to, judged by the page before.
const PAGE_BYTES: u64 = 4 << 20;

impl Client {
    /// One partition. Counts its open and failed items, whatever is asked for. Errs with [`StoreError::NotFound`]
    /// where there is none of this id.
    pub async fn partition(&self, id: &str) -> Result<PartitionRow> {
        let row = self.backend().partition(id).await?;
        Ok(row.ok_or_else(|| StoreError::NotFound(format!("partition {id:?} does not exist")))?)
    }

    /// One item with its data. Errs with [`StoreError::NotFound`] without the partition or the item.
    pub async fn item(&self, partition: &str, id: &str) -> Result<ItemRow> {
        let row = self.backend().item(partition, id).await?;
        let missing = || StoreError::NotFound(format!("partition {partition:?} has no item {id:?}"));
        Ok(row.ok_or_else(missing)?)
    }

    /// The gates of a partition that have items, in order, with their items by status. Counts every item of the
    /// partition. Errs with [`StoreError::NotFound`] without the partition.
    pub async fn gates(&self, partition: &str) -> Result<Vec<GateCounts>> {
        Ok(self.backend().gates(partition).await?)
    }

    /// All partitions, to be narrowed and streamed.
    pub fn partitions(&self) -> Partitions {
        let filter = PartitionFilter { limit: PAGE, ..PartitionFilter::default() };
        Partitions { client: self.clone(), filter }
    }

    /// The items of a partition, to be narrowed and streamed.
    pub fn items(&self, partition: impl Into<String>) -> Items {
        let filter = ItemFilter { partition: partition.into(), limit: PAGE, ..ItemFilter::default() };
        Items { client: self.clone(), filter }
    }
}

/// Which partitions to look at ([`Client::partitions`]).
#[derive(Clone, Debug)]
#[must_use = "stream() reads them"]
pub struct Partitions {
    client: Client,
    filter: PartitionFilter,
}

impl Partitions {
    /// Only those of this feed.
    pub fn feed(mut self, feed: impl Into<String>) -> Self {
        self.filter.feed = Some(feed.into());
        self
    }

    /// Only those of this status.
    pub fn status(mut self, status: PartitionStatus) -> Self {
        self.filter.status = Some(status);
        self
    }

    /// Only those whose id is greater than this one.
    pub fn after(mut self, id: impl Into<String>) -> Self {
        self.filter.after = Some(id.into());
        self
    }

    /// The partitions in order of id (its bytes), read in pages as the stream is. No transaction stays open between
    /// pages: what is added or changed meanwhile is seen if it lies ahead. After an error the stream is over.
    pub fn stream(self) -> impl Stream<Item = Result<PartitionRow>> + Send + Unpin + 'static {
        let Self { client, filter } = self;
        let pages = stream::try_unfold(Some(filter), move |filter| {
            let client = client.clone();
            async move {
                let Some(filter) = filter else { return Ok(None) };
                let Rows { rows, has_more } = client.backend().partitions(&filter).await?;
                let next = rows.last().filter(|_| has_more);
                let next = next.map(|row| PartitionFilter { after: Some(row.id.clone()), ..filter });
                Ok(Some((rows, next)))
            }
        });
        flat(pages)
    }
}

/// Which items to look at ([`Client::items`]).
#[derive(Clone, Debug)]
#[must_use = "stream() reads them"]
pub struct Items {
    client: Client,
    filter: ItemFilter,
}

impl Items {
    /// Only those of this status.
    pub fn status(mut self, status: ItemStatus) -> Self {
        self.filter.status = Some(status);
        self
    }

    /// Only those at this gate.
    pub fn gate(mut self, gate: i32) -> Self {
        self.filter.gate = Some(gate);
        self
    }

    /// Only those whose id is greater than this one.
    pub fn after(mut self, id: impl Into<String>) -> Self {
        self.filter.after = Some(id.into());
        self
    }

    /// With their data ([`ItemRow::json`] reads it as a type of one's own).
    pub fn with_data(mut self) -> Self {
        self.filter.data = DataPart::All;
        self.filter.limit = FIRST_PAGE_WITH_DATA;
        self
    }

    /// The items in order of id (its bytes), read in pages as the stream is. No transaction stays open between pages:
    /// what is added or changed meanwhile is seen if it lies ahead. After an error the stream is over. Errs with
    /// [`StoreError::NotFound`] without the partition.
    ///
    /// ```
    /// # use futures_util::TryStreamExt;
    /// # use gatefeed_client::{Client, ItemStatus, Options, Partition};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let url = format!("sqlite://{}", dir.path().join("gatefeed.db").display());
    /// # let client = Client::connect_and_migrate(&url, &Options::default()).await?;
    /// # client.push(&Partition::builder("batch-42").item("page 1").build()?).await?;
    /// let mut failed = client.items("batch-42").status(ItemStatus::Failed).stream();
    /// while let Some(item) = failed.try_next().await? {
    ///     println!("{}: {}", item.id, item.error_messages.unwrap_or_default());
    /// }
    /// let texts: Vec<String> = client
    ///     .items("batch-42")
    ///     .with_data()
    ///     .stream()
    ///     .and_then(|item| async move { Ok(item.json::<String>()?) })
    ///     .try_collect()
    ///     .await?;
    /// assert_eq!(texts, ["page 1"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn stream(self) -> impl Stream<Item = Result<ItemRow>> + Send + Unpin + 'static {
        let Self { client, filter } = self;
        let pages = stream::try_unfold(Some(filter), move |filter| {
            let client = client.clone();
            async move {
                let Some(filter) = filter else { return Ok(None) };
                let Rows { rows, has_more } = client.backend().items(&filter).await?;
                let next = after_items(&rows, has_more, filter);
                Ok(Some((rows, next)))
            }
        });
        flat(pages)
    }
}

/// The page after this one, if there may be one.
fn after_items(rows: &[ItemRow], has_more: bool, filter: ItemFilter) -> Option<ItemFilter> {
    let last = rows.last().filter(|_| has_more)?;
    let limit = if filter.data != DataPart::None { page_of(rows.iter().map(|row| row.size)) } else { PAGE };
    Some(ItemFilter { after: Some(last.id.clone()), limit, ..filter })
}

/// As many items of these sizes as make a page.
fn page_of(sizes: impl ExactSizeIterator<Item = i64>) -> usize {
    let items = sizes.len() as u64;
    let bytes: u64 = sizes.map(i64::unsigned_abs).sum();
    usize::try_from(items * PAGE_BYTES / bytes.max(1)).unwrap_or(PAGE).clamp(1, PAGE)
}

/// The rows of pages.
fn flat<T: Send + 'static>(
    pages: impl Stream<Item = Result<Vec<T>>> + Send + 'static,
) -> impl Stream<Item = Result<T>> + Send + Unpin + 'static {
    use futures_util::{StreamExt, TryStreamExt};
    pages.map_ok(|rows| stream::iter(rows.into_iter().map(Ok))).try_flatten().boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_with_data_stay_small_however_large_the_items_are() {
        assert_eq!(page_of([100; 16].into_iter()), PAGE);
        assert_eq!(page_of([1 << 20; 16].into_iter()), 4);
        assert_eq!(page_of([64 << 20; 16].into_iter()), 1);
        assert_eq!(page_of([0; 16].into_iter()), PAGE);
    }
}
