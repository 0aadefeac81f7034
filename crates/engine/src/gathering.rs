//! What came before an item, for its delivery.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream};
use gatefeed_core::{
    Result, Store,
    gather::{Gather, GatherRequest, GatheredItem, data_fields},
    item::Data,
};

/// What an item has asked for: the items of its partition that have ended at a gate, read as they are needed.
#[derive(Clone)]
pub struct Gathering {
    store: Arc<dyn Store>,
    partition: Arc<str>,
    gather: Gather,
}

impl Gathering {
    /// Of a partition in this store.
    pub fn new(store: Arc<dyn Store>, partition: Arc<str>, gather: Gather) -> Self {
        Self { store, partition, gather }
    }

    /// What was asked for.
    pub fn gather(&self) -> Gather {
        self.gather
    }

    /// The items, in order of id, some of them in memory at a time. After an error it ends.
    pub fn stream(&self) -> impl Stream<Item = Result<GatheredItem>> + Send + 'static {
        let begin = GatherRequest { partition: self.partition.to_string(), gather: self.gather, after: None };
        let store = self.store.clone();
        let pages = stream::try_unfold(Some(begin), move |request| {
            let store = store.clone();
            async move {
                let Some(request) = request else { return Ok(None) };
                let page = store.gathered(&request).await?;
                let next = page.next.map(|after| GatherRequest { after: Some(after), ..request });
                Ok(Some((stream::iter(page.items.into_iter().map(Ok)), next)))
            }
        });
        futures_util::TryStreamExt::try_flatten(pages)
    }

    /// `{"data": …, "gathered": […]}`; `None`: what is gathered has more than `max` bytes.
    pub(crate) async fn body(&self, data: &Data, max: usize) -> Result<Option<Bytes>> {
        let mut body = format!("{{{},\"gathered\":[", data_fields(data)).into_bytes();
        let own = body.len();
        let mut items = std::pin::pin!(self.stream());
        while let Some(item) = items.next().await {
            if body.len() > own {
                body.push(b',');
            }
            body.extend_from_slice(item?.to_json().as_bytes());
            if body.len() - own > max {
                return Ok(None);
            }
        }
        body.extend_from_slice(b"]}");
        Ok(Some(body.into()))
    }
}

impl fmt::Debug for Gathering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gathering").field("gather", &self.gather).finish_non_exhaustive()
    }
}
