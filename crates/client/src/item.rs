//! Items as an application writes them.

use std::fmt;

use bytes::Bytes;
use chrono::{DateTime, Datelike, Utc};
use gatefeed_core::{
    dependency::{Dependencies, Input, OnDependencyFailure},
    gather::{Ended, Gather},
    id::{check_content_type, check_id},
    item::{Data, NewItem},
};
use serde::{Serialize, de::IgnoredAny};

use crate::error::{Error, Result};

/// One unit of work, to be pushed. Without an id it gets a fresh one (a uuid of version 7, so that ids grow).
#[derive(Clone)]
pub struct Item {
    id: Option<String>,
    gate: i32,
    priority: i32,
    available_at: Option<DateTime<Utc>>,
    dependencies: Dependencies,
    gather: Option<Gather>,
    /// Or why it is no data.
    data: Result<Data, String>,
}

impl Item {
    /// An item whose handler gets this value as JSON. A value that cannot be written as JSON is reported where
    /// the item is used: by `build()`, `add()` or `push_many()`.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Self {
        let text = serde_json::to_vec(value);
        let data =
            text.map(Data::json).map_err(|error| format!("its data cannot be written as JSON: {error}"));
        Self::made(data)
    }

    /// An item whose handler gets these bytes as they are: a file, an image, text.
    ///
    /// ```
    /// # use gatefeed_client::Item;
    /// let page = Item::bytes("image/png", b"\x89PNG\r\n\x1a\n".as_slice()).id("page-1");
    /// ```
    pub fn bytes(content_type: impl Into<String>, bytes: impl Into<Bytes>) -> Self {
        Self::new(Data { bytes: bytes.into(), content_type: content_type.into() })
    }

    /// An item whose handler gets this JSON to the letter: what is JSON already, with its order, its spaces and
    /// all digits of its numbers. Text that is not one JSON value is reported where the item is used, as by
    /// [`json`](Self::json).
    ///
    /// ```
    /// # use gatefeed_client::Item;
    /// let order = Item::raw_json(r#"{"id": 12345678901234567890123, "total": 10.00}"#);
    /// ```
    pub fn raw_json(text: impl Into<String>) -> Self {
        let text = text.into();
        let checked = serde_json::from_str::<IgnoredAny>(&text);
        Self::made(
            checked.map(|_| Data::json(text)).map_err(|error| format!("its data is not JSON: {error}")),
        )
    }

    /// An item that depends on this one, and whose handler gets the data that it was left with.
    pub fn of_parent(id: impl Into<String>) -> Self {
        let dependencies = Dependencies { input: Input::Parent, ..Dependencies::on([id]) };
        Self { dependencies, ..Self::raw_json("null") }
    }

    /// An item whose handler gets this data.
    pub fn new(data: Data) -> Self {
        Self::made(Ok(data))
    }

    fn made(data: Result<Data, String>) -> Self {
        let dependencies = Dependencies::default();
        Self { id: None, gate: 0, priority: 0, available_at: None, dependencies, gather: None, data }
    }

    /// With this id: 1 to 512 bytes without control characters, unique in its partition. Pushing an id that
    /// exists already leaves the item as it is, so that a push can be repeated.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Delivered at this gate first (≥ 0; default 0).
    pub fn gate(mut self, gate: i32) -> Self {
        self.gate = gate;
        self
    }

    /// Higher is sooner, within a gate (default 0).
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Not delivered before this time, by the database's clock (default: due at once). Its gate waits for it.
    pub fn available_at(mut self, time: DateTime<Utc>) -> Self {
        self.available_at = Some(time);
        self
    }

    /// Blocked until these items of its partition are complete; they are there already or come with the same push, in
    /// any order. Adds to those named before.
    ///
    /// A push is refused whose dependencies form a cycle, lead nowhere, or lead to an open item at a higher gate.
    ///
    /// ```
    /// # use gatefeed_client::{Item, Partition};
    /// # fn main() -> gatefeed_client::Result<()> {
    /// let video = Partition::builder("video-7")
    ///     .item(Item::json("film.mov").id("cut"))
    ///     .item(Item::of_parent("cut").id("encode"))
    ///     .item(Item::json("the team").id("mail").depends_on(["encode"]))
    ///     .build()?;
    /// # assert_eq!(video.len(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn depends_on(mut self, ids: impl IntoIterator<Item: Into<String>>) -> Self {
        self.dependencies.on.extend(ids.into_iter().map(Into::into));
        self
    }

    /// What becomes of it when one that it depends on fails or is cancelled (default: it fails too).
    pub fn on_dependency_failure(mut self, policy: OnDependencyFailure) -> Self {
        self.dependencies.on_failure = policy;
        self
    }

    /// Its handler gets, beside its data, the items that ended at this gate in this way: the body is
    /// `{"data": …, "gathered": [{"id", "status", "data"}, …]}`.
    ///
    /// ```
    /// # use gatefeed_client::{Ended, Item};
    /// let rank = Item::json("rank them").gate(1).gather(0, Ended::Complete);
    /// ```
    pub fn gather(mut self, gate: i32, status: Ended) -> Self {
        self.gather = Some(Gather { gate, status });
        self
    }

    /// Checked and as the store takes it; `index` is its place in the push.
    pub(crate) fn finish(self, partition: &str, index: usize) -> Result<NewItem> {
        if let Err(why) = self.check() {
            return Err(Error::Item { index, id: self.id, why });
        }
        let Self { id, gate, priority, available_at, dependencies, gather, data } = self;
        let data = data.map_err(|why| Error::Item { index, id: id.clone(), why })?;
        let id = id.unwrap_or_else(fresh_id);
        let partition = partition.to_owned();
        Ok(NewItem { partition, id, gate, priority, available_at, data, creator: None, dependencies, gather })
    }

    fn check(&self) -> Result<(), String> {
        if let Some(id) = &self.id {
            check_id("item id", id).map_err(|e| e.to_string())?;
        }
        check_gate(self.gate)?;
        self.dependencies.check(self.id.as_deref())?;
        self.gather.map_or(Ok(()), |gather| check_gate(gather.gate))?;
        if let Some(time) = self.available_at {
            check_time(time)?;
        }
        match &self.data {
            Ok(data) => check_content_type(&data.content_type).map_err(|e| e.to_string()),
            Err(why) => Err(why.clone()),
        }
    }
}

/// Its data is not shown: it does not belong into logs.
impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("id", &self.id).field("gate", &self.gate).finish_non_exhaustive()
    }
}

/// Growing ids keep the index's last page warm: ten thousand of them are faster than random ones.
fn fresh_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

fn check_gate(gate: i32) -> Result<(), String> {
    if gate < 0 {
        return Err(format!("gate is {gate}; it must be from 0 to {}", i32::MAX));
    }
    Ok(())
}

fn check_time(time: DateTime<Utc>) -> Result<(), String> {
    if !(1..=9999).contains(&time.year()) {
        return Err(format!("available_at is {time}; it must be in the years 1 to 9999"));
    }
    Ok(())
}

/// What can be pushed: an [`Item`], or anything that serde writes, which becomes JSON at gate 0.
///
/// Bytes and text are values to serde too. A `Vec<u8>` becomes a JSON array of numbers (`[137,80,…]`), and a string
/// that holds JSON becomes a JSON string, encoded twice: nothing complains but the handler. Push them as
/// [`Item::bytes`] and [`Item::raw_json`].
pub trait IntoItem {
    /// The item.
    fn into_item(self) -> Item;
}

impl IntoItem for Item {
    fn into_item(self) -> Item {
        self
    }
}

impl IntoItem for &Item {
    fn into_item(self) -> Item {
        self.clone()
    }
}

impl<T: Serialize> IntoItem for T {
    fn into_item(self) -> Item {
        Item::json(&self)
    }
}
