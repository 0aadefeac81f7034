//! The calls as requests.

use std::time::Duration;

use async_trait::async_trait;
use gatefeed_core::{
    Result, StoreError,
    inspect::{
        DataPart, FeedStatus, GateCounts, ItemFilter, ItemRow, LIMIT_MAX, PartitionFilter, PartitionRow,
    },
    item::NewItem,
    partition::NewPartition,
    store::{Push, Pushed, RetryFilter, Rewound, Wakeups},
    why::Why,
};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::json;
use std::sync::Arc;
use tokio::time::sleep;

use super::{body, remote::Remote};
use crate::backend::{Backend, Rows};

/// What one request may have of data: as much as the API takes, unless it is told otherwise.
const PUSH_BYTES_MAX: usize = 64 << 20;

/// How often an item is read that changes meanwhile.
const VERSION_TRIES: usize = 10;

/// How long one request waits for an end.
const WAIT: Duration = Duration::from_secs(30);

/// The pause after a request to wait that failed.
const PAUSE: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
struct Added {
    created: bool,
    added: u64,
    existing: u64,
}

#[derive(Deserialize)]
struct Feeds {
    feeds: Vec<FeedStatus>,
}

#[derive(Deserialize)]
struct Gates {
    gates: Vec<GateCounts>,
}

#[derive(Deserialize)]
struct Partitions {
    partitions: Vec<PartitionRow>,
    next: Option<String>,
}

#[derive(Deserialize)]
struct Items {
    items: Vec<Item>,
    next: Option<String>,
}

/// An item with the data that was asked for.
#[derive(Deserialize)]
struct Item {
    #[serde(flatten)]
    row: ItemRow,
    data: Option<String>,
    data_base64: Option<String>,
}

impl Item {
    fn into_row(self, part: DataPart) -> Result<ItemRow> {
        use base64::{Engine, prelude::BASE64_STANDARD};
        let decoded = self.data_base64.map(|text| BASE64_STANDARD.decode(text)).transpose();
        let decoded =
            decoded.map_err(|error| StoreError::Defect(format!("data_base64 is not base64: {error}")))?;
        let data = self.data.map(String::into_bytes).or(decoded).filter(|_| part != DataPart::None);
        Ok(ItemRow { data, ..self.row })
    }
}

#[derive(Deserialize)]
struct Retried {
    retried: u64,
}

#[derive(Deserialize)]
struct Advanced {
    gate: i32,
}

#[derive(Deserialize)]
struct Cancelled {
    cancelled: u64,
}

#[derive(Deserialize)]
struct RewoundTo {
    items: u64,
    removed: u64,
}

impl Remote {
    async fn add(&self, partition: &NewPartition, items: &[NewItem]) -> Result<Pushed> {
        let body = body::partition(partition, items)?;
        let Added { created, added, existing } = self.post(&["partitions"]).json(body).send().await?;
        Ok(Pushed { created, added, existing })
    }

    async fn act(&self, partition: &str, action: &str) -> Result<()> {
        self.post(&["partitions", partition, action]).send::<IgnoredAny>().await.map(drop)
    }
}

#[async_trait]
impl Backend for Arc<Remote> {
    async fn push(&self, partition: &NewPartition, items: Vec<NewItem>) -> Result<Pushed> {
        self.add(partition, &items).await
    }
    async fn begin_push(&self, partition: &NewPartition) -> Result<Box<dyn Push>> {
        Ok(Box::new(OneRequest {
            remote: self.clone(),
            partition: partition.clone(),
            items: Vec::new(),
            bytes: 0,
        }))
    }
    async fn retry(&self, partition: &str, filter: &RetryFilter) -> Result<u64> {
        let body = json!({"item": filter.item, "gate": filter.gate});
        let call = self.post(&["partitions", partition, "retry"]).json(body.to_string().into());
        Ok(call.send::<Retried>().await?.retried)
    }
    async fn seal(&self, partition: &str) -> Result<()> {
        self.act(partition, "seal").await
    }
    async fn advance(&self, partition: &str) -> Result<i32> {
        Ok(self.post(&["partitions", partition, "advance"]).send::<Advanced>().await?.gate)
    }
    async fn pause(&self, partition: &str) -> Result<()> {
        self.act(partition, "pause").await
    }
    async fn resume(&self, partition: &str) -> Result<()> {
        self.act(partition, "resume").await
    }
    async fn cancel(&self, partition: &str) -> Result<u64> {
        Ok(self.post(&["partitions", partition, "cancel"]).send::<Cancelled>().await?.cancelled)
    }
    async fn rewind(&self, partition: &str, gate: i32) -> Result<Rewound> {
        let body = json!({"gate": gate}).to_string().into();
        let RewoundTo { items, removed } =
            self.post(&["partitions", partition, "rewind"]).json(body).send().await?;
        Ok(Rewound { items, removed })
    }
    async fn why(&self, partition: &str, item: Option<&str>) -> Result<Why> {
        self.get(&["partitions", partition, "why"]).with("item", item).send().await
    }
    async fn status(&self) -> Result<Vec<FeedStatus>> {
        Ok(self.get(&["feeds"]).send::<Feeds>().await?.feeds)
    }
    async fn partition(&self, id: &str) -> Result<Option<PartitionRow>> {
        self.get(&["partitions", id]).find().await
    }
    async fn partitions(&self, filter: &PartitionFilter) -> Result<Rows<PartitionRow>> {
        let call = self.get(&["partitions"]).with("feed", filter.feed.as_deref());
        let call = call.with("status", filter.status.map(|status| status.as_str()));
        let call =
            call.with("after", filter.after.as_deref()).with("limit", Some(filter.limit.min(LIMIT_MAX - 1)));
        let Partitions { partitions: rows, next } = call.send().await?;
        Ok(Rows { rows, has_more: next.is_some() })
    }
    async fn item(&self, partition: &str, id: &str) -> Result<Option<ItemRow>> {
        // Two requests, until both have seen the same version.
        for _ in 0..VERSION_TRIES {
            let row = self.get(&["partitions", partition, "items", id]).find::<ItemRow>().await?;
            let Some(before) = row else { return Ok(None) };
            let read = self.get(&["partitions", partition, "items", id, "data"]).data().await;
            if let Err(StoreError::Refused(why)) = read {
                return Ok(Some(ItemRow { data_error: Some(why), ..before }));
            }
            let Some((version, data)) = read? else { return Ok(None) };
            if version == before.version {
                return Ok(Some(ItemRow { data: Some(data), ..before }));
            }
        }
        Err(StoreError::Conflict(format!("item {id:?} changes too often to be read whole")))
    }
    async fn items(&self, filter: &ItemFilter) -> Result<Rows<ItemRow>> {
        let call = self.get(&["partitions", &filter.partition, "items"]);
        let call = call.with("status", filter.status.map(|status| status.as_str())).with("gate", filter.gate);
        let call =
            call.with("after", filter.after.as_deref()).with("limit", Some(filter.limit.min(LIMIT_MAX - 1)));
        let call = call.with("data", (filter.data != DataPart::None).then_some(true));
        let Items { items, next } = call.send().await?;
        let rows = items.into_iter().map(|item| item.into_row(filter.data)).collect::<Result<_>>()?;
        Ok(Rows { rows, has_more: next.is_some() })
    }
    async fn gates(&self, partition: &str) -> Result<Vec<GateCounts>> {
        Ok(self.get(&["partitions", partition, "gates"]).send::<Gates>().await?.gates)
    }
    async fn changes(&self, partition: &str) -> Box<dyn Wakeups> {
        Box::new(Waiting { remote: self.clone(), partition: partition.to_owned() })
    }
    fn poll_max(&self) -> Duration {
        WAIT
    }
}

/// A push that is one request at its end, since a transaction does not outlive one.
struct OneRequest {
    remote: Arc<Remote>,
    partition: NewPartition,
    items: Vec<NewItem>,
    bytes: usize,
}

#[async_trait]
impl Push for OneRequest {
    async fn add(&mut self, items: &[NewItem]) -> Result<()> {
        self.bytes += items.iter().map(|item| item.data.bytes.len()).sum::<usize>();
        if self.bytes > PUSH_BYTES_MAX {
            return Err(StoreError::Refused(format!(
                "a push over HTTP is one request, and this one has more than {PUSH_BYTES_MAX} bytes: push in parts, whose \
                 items have ids of their own, or connect to the database"
            )));
        }
        self.items.extend_from_slice(items);
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<Pushed> {
        self.remote.add(&self.partition, &self.items).await
    }
}

/// Asks again and again for a partition's end.
struct Waiting {
    remote: Arc<Remote>,
    partition: String,
}

#[async_trait]
impl Wakeups for Waiting {
    async fn next(&mut self) {
        let call = self.remote.get(&["partitions", &self.partition]).waiting(WAIT);
        if call.send::<IgnoredAny>().await.is_err() {
            sleep(PAUSE).await;
        }
    }
}
