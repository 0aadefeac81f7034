//! On SQLite an open transaction keeps everybody else from writing: a remark when that lasts.

use std::{future::pending, time::Duration};

use tokio::time::{Instant, sleep_until};

/// Others wait for the write lock about as long before they give up.
const LASTING: Duration = Duration::from_secs(5);

/// Small enough to let watchers write in between.
const CHUNK: u64 = 10_000;

/// What there is to say of the write lock; `None`: it has been said, or nobody is kept out.
pub(super) struct Locking(Option<String>);

impl Locking {
    pub(super) fn new(is_sqlite: bool, chunk: Option<u64>) -> Self {
        Self(is_sqlite.then(|| remark(chunk)))
    }

    /// When to say it of a transaction that is open since then.
    fn due_at(&self, since: Option<Instant>) -> Option<Instant> {
        self.0.as_ref().and(since).map(|since| since + LASTING)
    }

    /// Waits until the transaction has lasted, and returns what to say, once. Cancel-safe.
    pub(super) async fn lasts(&mut self, since: Option<Instant>) -> String {
        if let Some(due_at) = self.due_at(since) {
            sleep_until(due_at).await;
            if let Some(remark) = self.0.take() {
                return remark;
            }
        }
        pending().await
    }
}

fn remark(chunk: Option<u64>) -> String {
    let advice = match chunk {
        Some(..=CHUNK) => "a smaller --chunk lets them".to_owned(),
        _ => format!("--chunk {CHUNK} lets them"),
    };
    format!("watchers cannot write while this transaction is open on SQLite: {advice}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it says of a transaction that has lasted.
    async fn said(chunk: Option<u64>) -> String {
        let mut locking = Locking::new(true, chunk);
        let since = Some(Instant::now() - LASTING);
        let said = locking.lasts(since).await;
        assert_eq!(locking.due_at(since), None, "it is said once");
        said
    }

    #[tokio::test]
    async fn a_transaction_that_lasts_is_remarked_on_once() {
        for chunk in [None, Some(10_001)] {
            assert!(said(chunk).await.ends_with(": --chunk 10000 lets them"));
        }
        assert!(said(Some(10_000)).await.ends_with(": a smaller --chunk lets them"));
    }

    #[test]
    fn only_an_open_one_on_sqlite_counts() {
        let (sqlite, postgres) = (Locking::new(true, None), Locking::new(false, None));
        let now = Instant::now();
        assert_eq!(sqlite.due_at(Some(now)), Some(now + LASTING));
        assert_eq!((sqlite.due_at(None), postgres.due_at(Some(now))), (None, None));
    }
}
