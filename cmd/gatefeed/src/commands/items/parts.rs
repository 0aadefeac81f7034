//! A page of items for programs, a few megabytes at a time.

use std::collections::VecDeque;

use anyhow::Result;
use gatefeed_core::{
    Store,
    inspect::{DataPart, ItemFilter, ItemRow},
};

use crate::commands::listing::Parts;

/// Items of one part at most.
const ITEMS_MAX: usize = 500;

/// Data of one part, unless a single item has more.
const BYTES_MAX: u64 = 4 << 20;

/// Reads the sizes of the items that come next, and then as many of them, with their data, as make a part.
pub(super) struct ItemParts {
    /// What is left of the page.
    filter: ItemFilter,
    with_data: bool,
    /// Ids and sizes of items that come next, as far as they are known.
    ahead: VecDeque<(String, i64)>,
    more_after: Option<String>,
}

impl ItemParts {
    /// A page of at most `limit` items.
    pub(super) fn new(filter: ItemFilter, limit: usize, with_data: bool) -> Self {
        let filter = ItemFilter { limit, ..filter };
        Self { filter, with_data, ahead: VecDeque::new(), more_after: None }
    }

    async fn read(&self, store: &dyn Store, limit: usize, data: DataPart) -> Result<Vec<ItemRow>> {
        let limit = limit.min(ITEMS_MAX);
        Ok(store.items(&ItemFilter { limit, data, ..self.filter.clone() }).await?)
    }

    /// The next rows, without their data if they come without.
    async fn part(&mut self, store: &dyn Store) -> Result<Vec<ItemRow>> {
        if !self.with_data {
            return self.read(store, self.filter.limit, DataPart::None).await;
        }
        if self.ahead.is_empty() {
            let rows = self.read(store, self.filter.limit, DataPart::None).await?;
            self.ahead = rows.into_iter().map(|row| (row.id, row.size)).collect();
        }
        match items_of_a_part(self.ahead.iter().map(|(_, size)| *size)) {
            0 => Ok(Vec::new()),
            items => self.read(store, items.min(self.filter.limit), DataPart::All).await,
        }
    }

    /// Goes on behind these. Rows may have come and gone since one looked ahead.
    fn take(&mut self, rows: &[ItemRow]) {
        let Some(last) = rows.last() else { return };
        while self.ahead.front().is_some_and(|(id, _)| *id <= last.id) {
            self.ahead.pop_front();
        }
        self.filter.limit = self.filter.limit.saturating_sub(rows.len());
        self.filter.after = Some(last.id.clone());
    }
}

impl Parts for ItemParts {
    type Row = ItemRow;

    async fn next(&mut self, store: &dyn Store) -> Result<Option<Vec<ItemRow>>> {
        if self.filter.limit == 0 {
            let has_more = !self.read(store, 1, DataPart::None).await?.is_empty();
            self.more_after = self.filter.after.clone().filter(|_| has_more);
            return Ok(None);
        }
        let rows = self.part(store).await?;
        self.take(&rows);
        Ok(Some(rows).filter(|rows| !rows.is_empty()))
    }

    fn more_after(&self) -> Option<&str> {
        self.more_after.as_deref()
    }
}

/// How many items of these sizes, from the first on, make a part: one at least, if there is one.
fn items_of_a_part(sizes: impl Iterator<Item = i64>) -> usize {
    let sums = sizes.scan(0u64, |sum, size| {
        *sum = sum.saturating_add(size.unsigned_abs());
        Some(*sum)
    });
    sums.enumerate().take_while(|(index, sum)| *index == 0 || *sum <= BYTES_MAX).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefeed_core::{
        item::{Data, NewItem},
        partition::NewPartition,
    };
    use std::sync::Arc;

    async fn push(store: &dyn Store, items: &[(&str, usize)]) {
        let item = |(id, size): &(&str, usize)| NewItem::new("p", *id, Data::json(vec![b'1'; *size]));
        let items: Vec<_> = items.iter().map(item).collect();
        store.push(&NewPartition::new("p"), &items).await.unwrap();
    }

    async fn store(dir: &tempfile::TempDir) -> Arc<dyn Store> {
        let url = format!("sqlite://{}", dir.path().join("gatefeed.db").display());
        let store = gatefeed_store::connect(&url, &gatefeed_store::Options::default()).await.unwrap();
        store.migrate().await.unwrap();
        store
    }

    #[tokio::test]
    async fn what_comes_in_between_is_read_and_nothing_twice() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir).await;
        push(&*store, &[("a", 3 << 20), ("c", 3 << 20), ("e", 1), ("f", 1), ("g", 1)]).await;
        let filter = ItemFilter { partition: "p".into(), ..ItemFilter::default() };
        let mut parts = ItemParts::new(filter, 6, true);
        let mut parts_of_ids = Vec::new();
        while let Some(rows) = parts.next(&*store).await.unwrap() {
            assert!(rows.iter().all(|row| row.data.as_ref().unwrap().len() as i64 == row.size));
            parts_of_ids.push(rows.into_iter().map(|row| row.id).collect::<String>());
            push(&*store, &[("b", 1), ("d", 1)]).await;
        }
        assert_eq!(parts_of_ids, ["a", "bcde", "f"]);
        assert_eq!(parts.more_after(), Some("f"));
    }

    #[test]
    fn a_part_has_few_bytes_or_one_item() {
        let of = |sizes: &[i64]| items_of_a_part(sizes.iter().copied());
        assert_eq!((of(&[]), of(&[0; 9]), of(&[64 << 20; 3])), (0, 9, 1));
        assert_eq!((of(&[1 << 20; 9]), of(&[100, 5 << 20, 100]), of(&[i64::MAX; 3])), (4, 1, 1));
    }
}
