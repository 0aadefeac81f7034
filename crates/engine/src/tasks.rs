//! Tasks of a loop of the watcher: deliveries, and notes of what was written.

use tokio::task::{JoinError, JoinSet};

/// Lets those go that have ended.
pub(crate) fn reap(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.try_join_next() {
        pass_on(ended);
    }
}

/// Waits for all.
pub(crate) async fn finish(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        pass_on(ended);
    }
}

/// A panic is a defect, and ends the watcher: what its task had in hand would never be given back, and its partition never
/// be through.
fn pass_on(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loop with a task that panics, or is aborted.
    async fn ends(is_reaped: bool, panics: bool) -> Result<(), JoinError> {
        let of_loop = async move {
            let mut tasks = JoinSet::new();
            tasks.spawn(async move {
                if panics {
                    panic!("a defect");
                }
                std::future::pending().await
            });
            tokio::task::yield_now().await;
            tasks.abort_all();
            if is_reaped {
                tokio::task::yield_now().await;
                reap(&mut tasks);
            } else {
                finish(&mut tasks).await;
            }
        };
        tokio::spawn(of_loop).await
    }

    #[tokio::test]
    async fn a_panic_is_passed_on_and_an_abort_is_none() {
        for is_reaped in [false, true] {
            assert!(ends(is_reaped, true).await.unwrap_err().is_panic());
            assert!(ends(is_reaped, false).await.is_ok());
        }
    }
}
