//! Checkpoints: partitions with nothing left to do take their next step, several at a time.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{Result, lease::Lease, store::Checkpointed};
use tokio::time::Instant;

use crate::context::{Backoff, Context};

/// For how long an owner would rather wait for a delayed item than release and claim again.
const HOLD: Duration = Duration::from_secs(2);

/// A checkpoint that failed by itself, again, is made again after so many times what it took …
const REST: u32 = 6;
/// … but no sooner and no later than this.
const REST_MIN: Duration = Duration::from_millis(100);
const REST_MAX: Duration = Duration::from_secs(60);

/// Steps until told to stop.
pub(crate) async fn run(context: Arc<Context>) {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));
    while !context.stop.is_cancelled() {
        give_back(&context).await;
        let leases = context.board().checks();
        if leases.is_empty() {
            tokio::select! {
                () = context.check_bell.notified() => {}
                () = context.stop.cancelled() => {}
            }
            continue;
        }
        if check_all(&context, &leases).await {
            backoff.reset();
        } else {
            context.pause(&mut backoff).await;
        }
        context.ring();
    }
}

/// Returns whether the database does what it is asked to, as far as can be seen.
async fn check_all(context: &Context, leases: &[Arc<Lease>]) -> bool {
    match leases {
        [lease] => check_alone(context, lease).await,
        leases => match check(context, leases).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "could not make a checkpoint; trying each by itself");
                check_each(context, leases).await
            }
        },
    }
}

async fn check(context: &Context, leases: &[Arc<Lease>]) -> Result<()> {
    let results = context.store.checkpoint(leases, HOLD).await?;
    for (lease, result) in leases.iter().zip(results) {
        report(lease, result);
        if result == Checkpointed::Overdue {
            context.overdue_bell.notify_one();
        }
        context.board().checked(lease, result);
    }
    Ok(())
}

/// One of the partitions may take the database too long: it must not hold up the others.
async fn check_each(context: &Context, leases: &[Arc<Lease>]) -> bool {
    for (number, lease) in leases.iter().enumerate() {
        if !check_alone(context, lease).await {
            let rest = &leases[number + 1..];
            rest.iter().for_each(|lease| context.board().check_failed(lease, REST_MIN));
            return false;
        }
    }
    true
}

/// Returns whether the database answers.
async fn check_alone(context: &Context, lease: &Arc<Lease>) -> bool {
    let started = Instant::now();
    let Err(error) = check(context, std::slice::from_ref(lease)).await else { return true };
    let partition = &lease.partition;
    tracing::warn!(%partition, %error, "could not make the checkpoint of this partition; trying again");
    let rest = (started.elapsed() * REST).clamp(REST_MIN, REST_MAX);
    let answers = context.store.ping().await.is_ok();
    let mut board = context.board();
    let is_again = answers && board.check_has_failed(lease);
    board.check_failed(lease, if is_again { rest } else { REST_MIN });
    answers
}

/// Gives back partitions whose turn in being held is over.
async fn give_back(context: &Context) {
    let leavers = context.board().leavers();
    if leavers.is_empty() {
        return;
    }
    match context.store.release(&leavers).await {
        Ok(()) => tracing::debug!(partitions = leavers.len(), "given back for others to have their turn"),
        Err(error) => tracing::warn!(%error, "could not give partitions back; they will expire"),
    }
    context.board().released(&leavers);
    context.ring();
}

fn report(lease: &Lease, result: Checkpointed) {
    let partition = &lease.partition;
    match result {
        Checkpointed::Advanced(gate) => tracing::info!(%partition, gate, "advanced"),
        Checkpointed::Closed => tracing::info!(%partition, "complete"),
        Checkpointed::Failed => {
            tracing::warn!(%partition, "failed; `gatefeed why` tells the reason")
        }
        Checkpointed::Fenced => {
            tracing::warn!(%partition, "the lease is over: cancelled, rewound or taken over")
        }
        Checkpointed::Slept => tracing::debug!(%partition, "released: nothing is due"),
        Checkpointed::Due | Checkpointed::Wait(_) | Checkpointed::Overdue | Checkpointed::Busy => {}
    }
}

#[cfg(test)]
mod tests {
    use gatefeed_core::{
        Store,
        item::{Data, NewItem},
        lease::Claim,
        partition::NewPartition,
    };
    use gatefeed_store::{Options, connect};
    use gatefeed_testkit::faults::{Call, Fault, FaultStore};
    use tempfile::TempDir;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{Watcher, clock, held::Trust, lanes::Lanes};

    /// Four partitions that are held, in a store that fails on demand.
    async fn held() -> (Arc<FaultStore>, Context, Vec<Arc<Lease>>, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/q.db", dir.path().display());
        let store = FaultStore::new(connect(&url, &Options::default()).await.unwrap());
        store.migrate().await.unwrap();
        for n in 0..4 {
            let item = NewItem::new(n.to_string(), "i", Data::json("1"));
            store.push(&NewPartition::new(n.to_string()), &[item]).await.unwrap();
        }
        let (owner, feeds, duration) = ("w".into(), vec!["default".to_owned()], Duration::from_secs(60));
        let claim = Claim { owner, feeds, duration, limit: 4, due_for: Duration::ZERO };
        let grants = store.claim(&claim).await.unwrap();
        let (inner, settings) = Watcher::builder(store.clone()).into_parts();
        let context = Context::new(inner, settings, Lanes::default(), CancellationToken::new());
        let leases = grants.iter().map(|grant| grant.lease.clone()).collect();
        for grant in grants {
            context.board().granted(grant, Trust::new(clock::now(), duration, 0.0), CancellationToken::new());
        }
        (store, context, leases, dir)
    }

    fn failed(context: &Context, leases: &[Arc<Lease>]) -> Vec<String> {
        let failed = leases.iter().filter(|lease| context.board().check_has_failed(lease));
        failed.map(|lease| lease.partition.to_string()).collect()
    }

    #[tokio::test]
    async fn one_that_takes_too_long_is_found() {
        let (store, context, leases, _dir) = held().await;
        store.unsteppable(|lease| &*lease.partition == "1");
        assert!(check_all(&context, &leases).await);
        assert_eq!(store.count(Call::Checkpoint), 5, "together, and each by itself");
        assert_eq!(failed(&context, &leases), ["1"]);
        store.unsteppable(|_| false);
        assert!(check_all(&context, &leases).await);
        assert!(failed(&context, &leases).is_empty());
    }

    #[tokio::test]
    async fn nothing_is_asked_for_each_while_the_database_is_away() {
        let (store, context, leases, _dir) = held().await;
        store.rule(|_, _, _| Fault::Refuse);
        assert!(!check_all(&context, &leases).await);
        assert_eq!(store.count(Call::Checkpoint), 2);
        assert_eq!(failed(&context, &leases).len(), 4);
    }
}
