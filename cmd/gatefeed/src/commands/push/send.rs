//! From batches to the database: one transaction, or one a chunk.

use gatefeed_core::{
    Result, Store,
    partition::NewPartition,
    store::{Push, Pushed},
};
use tokio::{sync::mpsc::Receiver, time::Instant};

use super::{batch::Batch, entry::Place, locking::Locking, progress::Progress};

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
        let pushed = match push.commit().await {
            Ok(pushed) => pushed,
            Err(error) => {
                if !error.is_retryable() {
                    // Refused, such as dependencies that form a cycle.
                    self.stage = Stage::Writing;
                }
                return Err(error);
            }
        };
        self.pushed.created |= pushed.created;
        self.pushed.added += pushed.added;
        self.pushed.existing += pushed.existing;
        self.end = end.or(self.end.take());
        self.stage = Stage::Writing;
        Ok(())
    }
}

/// A transaction.
struct Open {
    push: Box<dyn Push>,
    since: Instant,
}

/// Writes batches until the last one is in, or until no more come because of a bad line: then what is not committed
/// is rolled back. A transaction begins with its first batch, since on SQLite it keeps other writers out.
pub(super) async fn send(
    store: &dyn Store,
    partition: &NewPartition,
    mut batches: Receiver<Batch>,
    progress: &mut Progress,
    locking: &mut Locking,
    sent: &mut Sent,
) -> Result<()> {
    let mut open: Option<Open> = None;
    let mut has_committed = false;
    while let Some(batch) = next(&mut batches, progress, locking, open.as_ref()).await {
        if has_committed && open.is_none() && batch.items.is_empty() {
            continue;
        }
        sent.stage = Stage::Writing;
        let Open { mut push, since } = match open.take() {
            Some(open) => open,
            None => Open { push: store.begin_push(partition).await?, since: Instant::now() },
        };
        push.add(&batch.items).await?;
        progress.advance(batch.items.len() as u64, batch.bytes_read);
        if batch.is_commit {
            sent.commit(push, batch.end).await?;
            has_committed = true;
        } else {
            open = Some(Open { push, since });
        }
    }
    Ok(())
}

/// The next batch; while it is waited for, and before it, what there is to say of the open transaction.
async fn next(
    batches: &mut Receiver<Batch>,
    progress: &Progress,
    locking: &mut Locking,
    open: Option<&Open>,
) -> Option<Batch> {
    let since = open.map(|open| open.since);
    loop {
        tokio::select! {
            biased;
            remark = locking.lasts(since) => progress.note(&remark),
            batch = batches.recv() => return batch,
        }
    }
}
