//! Pushing bit by bit, in one transaction.

use std::fmt;

use gatefeed_core::{
    item::NewItem,
    store::{Push, Pushed},
};

use crate::{backend::Backend, error::Result, item::IntoItem, partition::Partition};

/// Items of one statement.
const ITEMS_MAX: usize = 2_000;

/// Bytes of data of one statement, unless a single item has more.
const BYTES_MAX: usize = 4 << 20;

/// A push whose items come bit by bit ([`Client::begin`](crate::Client::begin)). Nothing is visible before
/// [`commit`](Self::commit), and dropping it leaves nothing behind.
///
/// ```
/// # use gatefeed_client::{Client, Item, Options, Partition};
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let url = format!("sqlite://{}", dir.path().join("gatefeed.db").display());
/// # let client = Client::connect_and_migrate(&url, &Options::default()).await?;
/// let mut pusher = client.begin(&Partition::builder("batch-42").build()?).await?;
/// for line in "one\ntwo\nthree".lines() {
///     pusher.add(Item::json(line).id(line)).await?;
/// }
/// assert_eq!(pusher.commit().await?.added, 3);
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is pushed before commit()"]
pub struct Pusher {
    push: Box<dyn Push>,
    partition: String,
    waiting: Vec<NewItem>,
    bytes: usize,
    /// Items so far, for errors.
    items: usize,
}

impl Pusher {
    pub(crate) async fn begin(backend: &dyn Backend, partition: &Partition) -> Result<Self> {
        let mut pusher = Self::over(backend.begin_push(partition.row()).await?, partition);
        for item in partition.in_order() {
            pusher.take(item).await?;
        }
        Ok(pusher)
    }

    fn over(push: Box<dyn Push>, partition: &Partition) -> Self {
        Self { push, partition: partition.id().to_owned(), waiting: Vec::new(), bytes: 0, items: 0 }
    }

    /// Adds an item; one whose id exists is left as it is. Errs with [`Error::Item`](crate::Error::Item) for an
    /// item that will not do: it was not taken, and the push can go on without it. Any other error may be of an item
    /// before this one, and only dropping is left then.
    pub async fn add(&mut self, item: impl IntoItem) -> Result<()> {
        let item = item.into_item().finish(&self.partition, self.items)?;
        self.take(item).await
    }

    /// Makes all of it visible, and wakes watchers. When the database goes away meanwhile, whether it took effect is
    /// unknown; pushed again, items with ids of their own are added once.
    pub async fn commit(mut self) -> Result<Pushed> {
        self.send().await?;
        Ok(self.push.commit().await?)
    }

    async fn take(&mut self, item: NewItem) -> Result<()> {
        let size = item.data.bytes.len();
        if self.waiting.len() == ITEMS_MAX || (self.bytes + size > BYTES_MAX && !self.waiting.is_empty()) {
            self.send().await?;
        }
        self.items += 1;
        self.bytes += size;
        self.waiting.push(item);
        Ok(())
    }

    async fn send(&mut self) -> Result<()> {
        if !self.waiting.is_empty() {
            // As far as one can, in the order in which others who push the same ids wait for each other's rows.
            self.waiting.sort_by(|a, b| a.id.cmp(&b.id));
            self.push.add(&self.waiting).await?;
            self.waiting.clear();
            self.bytes = 0;
        }
        Ok(())
    }
}

impl fmt::Debug for Pusher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pusher")
            .field("partition", &self.partition)
            .field("items", &self.items)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;

    use super::*;
    use crate::Item;

    /// Notes the ids of each statement.
    #[derive(Clone, Default)]
    struct Statements(Arc<Mutex<Vec<Vec<String>>>>);

    #[async_trait]
    impl Push for Statements {
        async fn add(&mut self, items: &[NewItem]) -> gatefeed_core::Result<()> {
            self.0.lock().unwrap().push(items.iter().map(|item| item.id.clone()).collect());
            Ok(())
        }

        async fn commit(self: Box<Self>) -> gatefeed_core::Result<Pushed> {
            Ok(Pushed::default())
        }
    }

    async fn statements(items: impl IntoIterator<Item = Item>) -> Vec<Vec<String>> {
        let statements = Statements::default();
        let partition = Partition::builder("p").build().unwrap();
        let mut pusher = Pusher::over(Box::new(statements.clone()), &partition);
        for item in items {
            pusher.add(item).await.unwrap();
        }
        pusher.commit().await.unwrap();
        let statements = statements.0.lock().unwrap();
        statements.clone()
    }

    #[tokio::test]
    async fn a_statement_has_so_many_items_or_bytes_at_the_most() {
        let small = statements((0..4_500).map(|n| Item::json(&n))).await;
        assert_eq!(small.iter().map(Vec::len).collect::<Vec<_>>(), [2_000, 2_000, 500]);
        let sized = |mib: usize| Item::json(&"x".repeat((mib << 20) - 2));
        let large = statements([1, 2, 1, 1, 9, 1, 3].map(sized)).await;
        assert_eq!(large.iter().map(Vec::len).collect::<Vec<_>>(), [3, 1, 1, 2]);
        assert_eq!(statements([]).await, Vec::<Vec<String>>::new());
    }

    #[tokio::test]
    async fn fresh_ids_grow_and_others_are_sent_in_order() {
        let fresh = statements((0..2_000).map(|n| Item::json(&n))).await;
        assert!(fresh[0].is_sorted_by(|a, b| a < b));
        let named = statements(["c", "a", "b"].map(|id| Item::json(id).id(id))).await;
        assert_eq!(named, [["a", "b", "c"]]);
    }
}
