//! From batches to the database: one transaction, or one a chunk.

use gatefeed_core::{
    Result, Store,
    partition::NewPartition,
    store::{Push, Pushed},
};
use tokio::sync::mpsc::Receiver;

use super::{batch::Batch, entry::Place, progress::Progress};

/// What has reached the database so far; true at any moment, since a signal may come at any.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// What is committed.
    pub(super) pushed: Pushed,
    /// Where the last item stands that is committed.
    pub(super) end: Option<Place>,
    pub(super) stage: Stage,
}

/// What a push is doing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum Stage {
    /// Nothing has been asked of the database yet.
    #[default]
    Reading,
    /// What is not committed will not be.
    Writing,
    /// Only the database knows what becomes of the transaction.
    Committing,
}

impl Sent {
    async fn commit(&mut self, push: Box<dyn Push>, end: Option<Place>) -> Result<()> {
        self.stage = Stage::Committing;
        let pushed = push.commit().await?;
        self.pushed.created |= pushed.created;
        self.pushed.added += pushed.added;
        self.pushed.existing += pushed.existing;
        self.end = end.or(self.end.take());
        self.stage = Stage::Writing;
        Ok(())
    }
}

/// Writes batches until the last one is in, or until no more come because of a bad line: then what is not committed
/// is rolled back. A transaction begins with its first batch, since on SQLite it keeps other writers out.
pub(super) async fn send(
    store: &dyn Store,
    partition: &NewPartition,
    mut batches: Receiver<Batch>,
    progress: &mut Progress,
    sent: &mut Sent,
) -> Result<()> {
    let mut open: Option<Box<dyn Push>> = None;
    let mut has_committed = false;
    while let Some(batch) = batches.recv().await {
        if has_committed && open.is_none() && batch.items.is_empty() {
            continue;
        }
        sent.stage = Stage::Writing;
        let mut push = match open.take() {
            Some(push) => push,
            None => store.begin_push(partition).await?,
        };
        push.add(&batch.items).await?;
        progress.advance(batch.items.len() as u64, batch.bytes_read);
        if batch.is_commit {
            sent.commit(push, batch.end).await?;
            has_committed = true;
        } else {
            open = Some(push);
        }
    }
    Ok(())
}
