//! Large data: put into an object store before the row that refers to it is committed, fetched when it is needed, and
//! collected when no row refers to it.
//!
//! | question | file |
//! | --- | --- |
//! | where is the object store? | `objects.rs`, `bucket.rs` |
//! | what goes there, and what comes back? | `mod.rs` |
//! | who may fetch by a link? | `link.rs` |
//! | what is garbage? | `garbage.rs` |

#[cfg(feature = "s3")]
mod bucket;
mod garbage;
mod link;
mod objects;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use gatefeed_core::{
    Result, Store, StoreError,
    blob::{self, Reference, Space},
    callback::Callback,
    gather::{GatheredItem, GatheredPage, PAGE_BYTES_MAX},
    ingest::Arrival,
    inspect::{DataPart, ItemFilter, ItemRow},
    item::{Data, NewItem},
    store::Page,
};
use tokio::{sync::OnceCell, time::timeout};

use self::objects::Objects;
pub use self::objects::{BlobOptions, INLINE_MAX_DEFAULT};

/// Blobs of one call that are on their way at a time.
const AT_A_TIME: usize = 8;

/// For whoever asks why an item is where it is.
const LOOK_MAX: Duration = Duration::from_secs(3);

/// What a listing reads of a row's data at least: all of a reference, unless nested partitions have made it longer.
const REFERENCE_BYTES: u32 = 1024;

/// Large data of a database. Without an object store it leaves all data where it is, and says what is missing when it is
/// to fetch some.
#[derive(Debug)]
pub(crate) struct Depot {
    objects: Option<Objects>,
    /// Asked for references and for the space.
    rows: Arc<dyn Store>,
    space: OnceCell<Space>,
}

impl Depot {
    pub(crate) fn open(rows: Arc<dyn Store>, options: Option<&BlobOptions>) -> Result<Self> {
        let objects = options.map(Objects::open).transpose()?;
        Ok(Self { objects, rows, space: OnceCell::new() })
    }

    pub(crate) fn is_open(&self) -> bool {
        self.objects.is_some()
    }

    fn objects(&self) -> Result<&Objects> {
        self.objects.as_ref().ok_or_else(|| {
            StoreError::Config(
                "its data is in a blob store: start gatefeed with --blob-store and the URL that it was pushed with"
                    .into(),
            )
        })
    }

    async fn space(&self) -> Result<&Space> {
        self.space.get_or_try_init(|| self.rows.blob_space()).await
    }

    /// What rows are to have of this data: that itself, or a reference to what is in the object store by now.
    pub(crate) async fn offload(&self, data: Vec<Data>) -> Result<Vec<Data>> {
        for data in &data {
            blob::check_not_reserved(&data.content_type)?;
        }
        if !data.iter().any(|data| self.is_large(data)) {
            return Ok(data);
        }
        let put = data.into_iter().map(|data| self.put(data));
        stream::iter(put).buffered(AT_A_TIME).try_collect().await
    }

    /// The items as they are to be inserted; `None`: as they are.
    pub(crate) async fn offload_items(&self, items: &[NewItem]) -> Result<Option<Vec<NewItem>>> {
        let stored = self.offload_all(items.iter().map(|item| &item.data)).await?;
        let with_data = |(item, data): (&NewItem, Data)| NewItem { data, ..item.clone() };
        Ok(stored.map(|stored| items.iter().zip(stored).map(with_data).collect()))
    }

    /// As [`Depot::offload_items`].
    pub(crate) async fn offload_arrivals(&self, arrivals: &[Arrival]) -> Result<Option<Vec<Arrival>>> {
        let stored = self.offload_all(arrivals.iter().map(|arrival| &arrival.item.data)).await?;
        let with_data = |(arrival, data): (&Arrival, Data)| {
            let mut arrival = arrival.clone();
            arrival.item.data = data;
            arrival
        };
        Ok(stored.map(|stored| arrivals.iter().zip(stored).map(with_data).collect()))
    }

    /// As [`Depot::offload_items`], of an answer that comes later.
    pub(crate) async fn offload_callback(&self, callback: &Callback) -> Result<Option<Callback>> {
        let Ok(answer) = &callback.verdict else { return Ok(None) };
        let mut answer = answer.clone();
        let data: Vec<Data> = answer.data_mut().map(|data| data.clone()).collect();
        let Some(stored) = self.offload_all(data.iter()).await? else { return Ok(None) };
        answer.data_mut().zip(stored).for_each(|(data, stored)| *data = stored);
        Ok(Some(Callback { verdict: Ok(answer), ..callback.clone() }))
    }

    /// `None`: nothing of it is large.
    async fn offload_all(&self, data: impl Iterator<Item = &Data> + Clone) -> Result<Option<Vec<Data>>> {
        for data in data.clone() {
            blob::check_not_reserved(&data.content_type)?;
        }
        match data.clone().any(|data| self.is_large(data)) {
            true => self.offload(data.cloned().collect()).await.map(Some),
            false => Ok(None),
        }
    }

    fn inline_max(&self) -> u64 {
        self.objects.as_ref().map_or(u64::MAX, |objects| objects.inline_max)
    }

    fn is_large(&self, data: &Data) -> bool {
        data.bytes.len() as u64 > self.inline_max() && Reference::fits(&data.content_type)
    }

    async fn put(&self, data: Data) -> Result<Data> {
        if !self.is_large(&data) {
            return Ok(data);
        }
        let path = blob::new_path(&self.space().await?.id);
        let size = data.bytes.len() as u64;
        self.objects()?.put(&path, data.bytes).await?;
        Ok(Reference::new(path, size, data.content_type).to_data())
    }

    /// Items that refer to blobs say what those are, and have to be loaded.
    pub(crate) fn mark(&self, pages: &mut [Page]) {
        for item in pages.iter_mut().flat_map(|page| &mut page.items) {
            if !item.content_type.starts_with(blob::MARK) {
                continue;
            }
            let read = item.data.as_deref().and_then(|data| Reference::read(&item.content_type, data));
            if let Some(reference) = read {
                item.data = None;
                item.size = reference.shown_size();
                item.content_type = reference.shown_type().to_owned().into();
                item.reference = Some(Box::new(reference));
            }
        }
    }

    /// The data, wherever it lies.
    pub(crate) async fn resolve(&self, data: Data) -> Result<Data> {
        let Some(reference) = Reference::read(&data.content_type, &data.bytes) else { return Ok(data) };
        Ok(reference.resolve(self.fetch(&reference).await?))
    }

    async fn fetch(&self, reference: &Reference) -> Result<Bytes> {
        let bytes = match self.objects()?.get(reference.path()).await {
            // The item is there.
            Err(StoreError::NotFound(why)) => return Err(StoreError::Damaged(why)),
            read => read?,
        };
        match bytes.len() as u64 == reference.size {
            true => Ok(bytes),
            false => Err(StoreError::Damaged(format!(
                "the blob {} is damaged: it has {} bytes instead of {}",
                reference.path(),
                bytes.len(),
                reference.size
            ))),
        }
    }

    /// What was gathered, with data: less of it than the rows' page has, where that would be too much.
    pub(crate) async fn resolve_gathered(&self, page: GatheredPage) -> Result<GatheredPage> {
        let mut resolved = GatheredPage { items: Vec::new(), next: page.next };
        let mut bytes = 0;
        for mut item in page.items {
            let size = size_of(&item.data);
            if bytes > 0 && bytes + size > PAGE_BYTES_MAX as u64 {
                resolved.next = resolved.items.last().map(|item: &GatheredItem| item.id.clone());
                return Ok(resolved);
            }
            bytes += size;
            item.data = self.resolve(item.data).await?;
            resolved.items.push(item);
        }
        Ok(resolved)
    }

    /// What has to be read of rows for references to be whole.
    pub(crate) fn reading(filter: &ItemFilter) -> ItemFilter {
        let data = match filter.data {
            DataPart::All => DataPart::All,
            DataPart::None => DataPart::First(REFERENCE_BYTES),
            DataPart::First(bytes) => DataPart::First(bytes.max(REFERENCE_BYTES)),
        };
        ItemFilter { data, ..filter.clone() }
    }

    /// Rows that refer to blobs as people see them.
    pub(crate) async fn resolve_rows(&self, rows: Vec<ItemRow>, part: DataPart) -> Result<Vec<ItemRow>> {
        let resolved = rows.into_iter().map(|row| self.resolve_row(row, part));
        stream::iter(resolved).buffered(AT_A_TIME).try_collect().await
    }

    async fn resolve_row(&self, mut row: ItemRow, part: DataPart) -> Result<ItemRow> {
        let data = row.data.take().unwrap_or_default();
        let Some(reference) = Reference::read(&row.content_type, &data) else {
            row.data = cut(data, part);
            return Ok(row);
        };
        row.size = reference.shown_size() as i64;
        row.content_type = reference.shown_type().to_owned();
        match self.read_part(&reference, part).await {
            Ok((data, whole)) => {
                row.data = data;
                row.size = whole.unwrap_or(row.size);
            }
            // One that is gone is no reason not to show the others, and none here is known by what they have in common.
            Err(error @ (StoreError::NotFound(_) | StoreError::Damaged(_) | StoreError::Config(_))) => {
                row.data_error = Some(error.to_string());
            }
            Err(error) => return Err(error),
        }
        Ok(row)
    }

    /// Why the data of an item that lies in the blob store cannot be read from here; `None`: it can, or that is unknown.
    pub(crate) async fn trouble(&self, partition: &str, item: &str) -> Option<String> {
        let (partition, id) = (partition.to_owned(), Some(item.to_owned()));
        let filter = ItemFilter { partition, id, limit: 1, ..ItemFilter::default() };
        let row = self.rows.items(&Self::reading(&filter)).await.ok()?.pop()?;
        let reference = Reference::read(&row.content_type, row.data.as_deref().unwrap_or_default())?;
        let looked = async { self.objects()?.size(reference.path()).await };
        match timeout(LOOK_MAX, looked).await {
            Ok(Ok(_)) => None,
            Ok(Err(error @ (StoreError::NotFound(_) | StoreError::Config(_)))) => Some(error.to_string()),
            // Where it lies is for whoever runs this, not for whoever asks.
            Ok(Err(error)) => {
                tracing::debug!(%error, "an item's data could not be looked at");
                Some("the blob store, where its data lies, does nothing just now".to_owned())
            }
            Err(_) => {
                Some(format!("the blob store, where its data lies, does not answer within {LOOK_MAX:?}"))
            }
        }
    }

    /// The part that was asked for, and the size of all of it where that has been seen.
    async fn read_part(
        &self,
        reference: &Reference,
        part: DataPart,
    ) -> Result<(Option<Vec<u8>>, Option<i64>)> {
        match part {
            DataPart::None => Ok((None, None)),
            DataPart::First(bytes) if reference.is_whole() => {
                let read = self.objects()?.get_range(reference.path(), 0, bytes.into()).await?;
                Ok((Some(read.to_vec()), None))
            }
            DataPart::First(_) | DataPart::All => {
                let data = reference.resolve(self.fetch(reference).await?);
                let size = data.bytes.len() as i64;
                Ok((cut(data.bytes.to_vec(), part), Some(size)))
            }
        }
    }
}

/// With what it refers to.
fn size_of(data: &Data) -> u64 {
    let reference = Reference::read(&data.content_type, &data.bytes);
    reference.map_or(data.bytes.len() as u64, |reference| reference.shown_size())
}

/// The part that was asked for.
fn cut(mut data: Vec<u8>, part: DataPart) -> Option<Vec<u8>> {
    match part {
        DataPart::None => return None,
        DataPart::First(bytes) => data.truncate(bytes as usize),
        DataPart::All => {}
    }
    Some(data)
}
