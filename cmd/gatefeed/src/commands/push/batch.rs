//! From the input to batches of items, on a thread that may block.

use anyhow::Result;
use gatefeed_core::item::NewItem;
use tokio::sync::mpsc::Sender;

use super::{
    bad::Bad,
    entry::{Entries, Place},
};

/// A batch is full with this many items or bytes, whichever comes first.
const ITEMS_MAX: usize = 2000;
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Items on their way into the database.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) items: Vec<NewItem>,
    /// Where the last of them stands.
    pub(super) end: Option<Place>,
    /// How much of the input has been read with them, in bytes.
    pub(super) bytes_read: u64,
    /// Whether a transaction ends with them.
    pub(super) is_commit: bool,
}

/// Makes batches.
pub(super) struct Batcher {
    pub(super) entries: Entries,
    /// Items of a transaction; `None`: all.
    pub(super) chunk: Option<u64>,
    pub(super) skip_bad: bool,
    /// `None`: a bad line was met, so nothing more is sent.
    pub(super) batches: Option<Sender<Batch>>,
}

impl Batcher {
    /// Reads the input to its end, or until nobody takes batches any more, and returns what was bad. At a bad line
    /// sending ends. Then with a chunk, as of an input without an end, reading does too; otherwise it goes on to
    /// find the other bad lines.
    pub(super) fn run(mut self) -> Result<Bad> {
        let mut bad = Bad::default();
        let mut filling = Filling::default();
        while let Some(entry) = self.entries.next() {
            let entry = entry?;
            filling.batch.bytes_read += entry.bytes;
            match entry.item {
                Ok(item) => filling.add(item, entry.place),
                Err(problem) => bad.add(&entry.place, &problem),
            }
            if !bad.is_empty() && !self.skip_bad {
                self.batches = None;
                if self.chunk.is_some() {
                    return Ok(bad);
                }
            }
            if filling.is_full(self.chunk) && !self.send(filling.take(self.chunk, false)) {
                return Ok(bad);
            }
        }
        self.send(filling.take(self.chunk, true));
        Ok(bad)
    }

    /// False when nobody is there any more; after a bad line the batch is dropped.
    fn send(&self, batch: Batch) -> bool {
        match &self.batches {
            Some(batches) => batches.blocking_send(batch).is_ok(),
            None => true,
        }
    }
}

/// A batch in the making.
#[derive(Default)]
struct Filling {
    batch: Batch,
    bytes: usize,
    /// Items of the open transaction, those of this batch included.
    uncommitted: u64,
}

impl Filling {
    fn add(&mut self, item: NewItem, place: Place) {
        self.bytes += item.data.bytes.len();
        self.uncommitted += 1;
        self.batch.items.push(item);
        self.batch.end = Some(place);
    }

    fn is_full(&self, chunk: Option<u64>) -> bool {
        self.batch.items.len() >= ITEMS_MAX || self.bytes >= BYTES_MAX || self.ends(chunk)
    }

    fn ends(&self, chunk: Option<u64>) -> bool {
        chunk.is_some_and(|chunk| self.uncommitted >= chunk)
    }

    fn take(&mut self, chunk: Option<u64>, is_last: bool) -> Batch {
        let is_commit = is_last || self.ends(chunk);
        if is_commit {
            self.uncommitted = 0;
        }
        self.bytes = 0;
        let next = Batch { bytes_read: self.batch.bytes_read, ..Batch::default() };
        Batch { is_commit, ..std::mem::replace(&mut self.batch, next) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::push::entry::Entry;
    use gatefeed_core::item::Data;

    /// Batches of these entries (false: a bad line): how many items, and whether a transaction ends.
    fn batches(entries: Vec<bool>, chunk: Option<u64>, skip_bad: bool) -> (Vec<(usize, bool)>, u64) {
        let entry = |(index, is_good): (usize, bool)| {
            let place = Place { source: "f".into(), line: Some(index as u64 + 1) };
            let item = NewItem::new("p", index.to_string(), Data::json("1"));
            Ok(Entry { place, item: is_good.then_some(item).ok_or("bad".to_owned()), bytes: 2 })
        };
        let (sender, mut receiver) = tokio::sync::mpsc::channel(100);
        let entries: Entries = Box::new(entries.into_iter().enumerate().map(entry));
        let bad = Batcher { entries, chunk, skip_bad, batches: Some(sender) }.run().unwrap();
        let sent = std::iter::from_fn(|| receiver.blocking_recv());
        (sent.map(|batch| (batch.items.len(), batch.is_commit)).collect(), bad.number())
    }

    #[test]
    fn one_transaction_ends_with_the_input_and_chunks_end_on_time() {
        assert_eq!(batches(vec![true; 4500], None, false).0, [(2000, false), (2000, false), (500, true)]);
        assert_eq!(batches(vec![true; 5], Some(2), false).0, [(2, true), (2, true), (1, true)]);
        let sent = batches(vec![true; 4500], Some(3000), false).0;
        assert_eq!(sent, [(2000, false), (1000, true), (1500, true)]);
        assert_eq!(batches(vec![], None, false).0, [(0, true)]);
    }

    #[test]
    fn a_bad_line_ends_the_sending_or_is_left_out() {
        let mut entries = vec![true; 10];
        (entries[4], entries[7]) = (false, false);
        assert_eq!(batches(entries.clone(), None, false), (vec![], 2));
        assert_eq!(batches(entries.clone(), Some(2), false), (vec![(2, true), (2, true)], 1));
        assert_eq!(batches(entries, Some(5), true), (vec![(5, true), (3, true)], 2));
    }
}
