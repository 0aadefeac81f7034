//! Waiting until a partition is through.

use std::time::Duration;

use gatefeed_core::{StoreError, inspect::PartitionRow};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    client::Client,
    error::{Error, Result},
};

/// How long to wait for a hint before looking anyway: grows from this to what the backend says.
const POLL_MIN: Duration = Duration::from_millis(50);

/// A look counts the open items; between two of them it stays away for this many times as long as one took, so that
/// many hints and large partitions cost the database little.
const REST: u32 = 4;

/// How long a look may take over the deadline, so that a short wait looks too.
const LOOK: Duration = Duration::from_secs(5);

impl Client {
    /// Waits until a partition is complete, failed or cancelled, and returns it as it is then; at once if it is
    /// that already. It may have been reopened since.
    ///
    /// Errs with [`StoreError::NotFound`](crate::StoreError::NotFound) at once where there is none of this id, and
    /// with [`Error::TimedOut`] after `timeout` (zero: looks once), which says where it stands: a paused or a
    /// held partition, and one whose feed no watcher serves, are not through however long one waits. A database that
    /// is away is waited for as well. Cancel-safe.
    ///
    /// It looks when the database hints that the partition may have ended, and at least every second. A look counts
    /// the partition's open and failed items by an index, about 10 ms for 100,000 of them, and between two looks it
    /// rests four times as long as the last one took.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use gatefeed_client::{Client, Error, Options, Partition};
    /// # #[tokio::main]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # let url = format!("sqlite://{}", dir.path().join("gatefeed.db").display());
    /// # let client = Client::connect_and_migrate(&url, &Options::default()).await?;
    /// client.push(&Partition::builder("batch-42").item("page 1").build()?).await?;
    /// match client.wait_for("batch-42", Duration::from_millis(10)).await {
    ///     Ok(partition) => println!("it is {}", partition.status.as_str()),
    ///     // No watcher runs here.
    ///     Err(error @ Error::TimedOut { .. }) => println!("{error}"),
    ///     Err(error) => return Err(error.into()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_for(&self, partition: &str, timeout: Duration) -> Result<PartitionRow> {
        let wait = Wait::new(timeout);
        let mut seen = wait.look(self, partition).await;
        if wait.is_over(&seen) {
            return wait.end(seen);
        }
        // What happens from here on is hinted at; what happened before, the next look sees.
        let mut changes = self.backend().changes(partition).await;
        let mut pause = Duration::ZERO;
        loop {
            // With or without a hint.
            let _ = tokio::time::timeout(wait.at_most(pause), changes.next()).await;
            let started = Instant::now();
            seen = wait.look(self, partition).await;
            if wait.is_over(&seen) {
                return wait.end(seen);
            }
            sleep(wait.at_most(started.elapsed() * REST)).await;
            pause = (pause * 2).clamp(POLL_MIN, self.backend().poll_max());
        }
    }
}

/// One call's patience.
struct Wait {
    timeout: Duration,
    /// `None`: longer than clocks go.
    deadline: Option<Instant>,
}

impl Wait {
    fn new(timeout: Duration) -> Self {
        Self { timeout, deadline: Instant::now().checked_add(timeout) }
    }

    fn at_most(&self, pause: Duration) -> Duration {
        self.deadline.map_or(pause, |deadline| pause.min(deadline.saturating_duration_since(Instant::now())))
    }

    async fn look(&self, client: &Client, partition: &str) -> Result<PartitionRow> {
        let limit = self.at_most(Duration::MAX).saturating_add(LOOK);
        let looked = timeout(limit, client.partition(partition)).await;
        looked.unwrap_or_else(|_| Err(StoreError::Unavailable("the database does not answer".into()).into()))
    }

    /// Whether this is the answer, or the last one that can be waited for.
    fn is_over(&self, seen: &Result<PartitionRow>) -> bool {
        self.at_most(Duration::MAX).is_zero()
            || match seen {
                Ok(partition) => partition.status.is_closed(),
                Err(error) => !error.is_retryable(),
            }
    }

    fn end(&self, seen: Result<PartitionRow>) -> Result<PartitionRow> {
        match seen {
            Ok(partition) if !partition.status.is_closed() => {
                Err(Error::TimedOut { partition: partition.into(), waited: self.timeout })
            }
            seen => seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_that_is_away_is_waited_for_until_the_time_is_over() {
        let away = || Err(StoreError::Unavailable("away".into()).into());
        assert!(!Wait::new(Duration::from_secs(60)).is_over(&away()));
        assert!(!Wait::new(Duration::MAX).is_over(&away()));
        let over = Wait::new(Duration::ZERO);
        assert!(over.is_over(&away()));
        assert!(matches!(over.end(away()), Err(Error::Store(StoreError::Unavailable(_)))));
        let missing = Err(StoreError::NotFound("p".into()).into());
        assert!(Wait::new(Duration::MAX).is_over(&missing));
    }
}
