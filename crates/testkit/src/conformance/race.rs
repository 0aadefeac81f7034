//! What must hold while several act at the same time: the lease protocol, as stories against the real database.
//! Each runs for a bounded time; what it checks holds at every moment of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use gatefeed_core::{
    Store,
    item::{Data, DueItem, ItemStatus},
    lease::Lease,
    outcome::{Change, Completion, Kept, Settled},
    partition::NewPartition,
    store::{Checkpointed, RetryFilter},
};
use rand::{Rng, rngs::StdRng};

use super::{
    callback::{DONE, done_by, later, ticket},
    given::*,
    seed,
};

pub(super) const RACE: Duration = Duration::from_secs(3);

/// Lets others run for up to a few milliseconds.
pub(super) async fn dawdle(rng: &mut StdRng) {
    tokio::time::sleep(Duration::from_micros(rng.random_range(0..3000))).await;
}

/// The fence: once a steal has committed, no completion of the previous owner is accepted; and what
/// was reported as written is what is in the database.
pub async fn no_stale_completion_after_a_steal(db: TestDb) {
    let mut rng = seed::rng("race::no_stale_completion_after_a_steal");
    let until = Instant::now() + RACE;
    let (store, thief) = (db.store(), db.another_store().await);
    let mut round = 0;
    while Instant::now() < until || round == 0 {
        round += 1;
        let id = format!("p{round:05}");
        let ids: Vec<_> = (0..40).map(|n| format!("i{n:02}")).collect();
        push(&store, &id, &ids.iter().map(|i| (i.as_str(), 0)).collect::<Vec<_>>()).await;
        let lease = lease(&store, "owner", &id).await;
        let mut due = due(&store, &lease).await;
        let rest = due.split_off(20);
        let owners =
            [due, rest].map(|items| tokio::spawn(complete_in_threes(store.clone(), lease.clone(), items)));
        dawdle(&mut rng).await;
        expire(&db, &id).await;
        while claim(&thief, "thief", 1).await.is_empty() {
            tokio::task::yield_now().await;
        }
        let complete =
            format!("SELECT count(*) FROM gatefeed_items WHERE partition_id = '{id}' AND version > 0");
        let at_the_steal = db.count(&complete).await;
        let mut written = 0;
        for owner in owners {
            written += owner.await.unwrap();
        }
        let in_the_end = db.count(&complete).await;
        assert_eq!(in_the_end, at_the_steal, "round {round}: accepted after the steal had committed");
        assert_eq!(written, in_the_end, "round {round}: what was reported is not what was written");
        db.run(&format!("DELETE FROM gatefeed_partitions WHERE id = '{id}'")).await;
    }
}

/// Completes until fenced; returns how many were reported as written.
async fn complete_in_threes(store: Arc<dyn Store>, lease: Arc<Lease>, items: Vec<DueItem>) -> i64 {
    let mut written = 0;
    for items in items.chunks(3) {
        let batch: Vec<_> = items.iter().map(|i| completion(&lease, i, done(i))).collect();
        for settled in complete_patiently(&store, &batch).await {
            match settled {
                Settled::Written => written += 1,
                Settled::Fenced => {}
                Settled::Stale | Settled::Busy => panic!("nobody else completes these"),
            }
        }
    }
    written
}

/// A cancellation that has committed is final: what was written before it stays, everything else is cancelled, and
/// no item is both.
pub async fn outcomes_against_a_cancellation(db: TestDb) {
    let mut rng = seed::rng("race::outcomes_against_a_cancellation");
    let until = Instant::now() + RACE;
    let (store, operator) = (db.store(), db.another_store().await);
    let mut round = 0;
    while Instant::now() < until || round == 0 {
        round += 1;
        let id = format!("p{round:05}");
        let ids: Vec<_> = (0..40).map(|n| format!("i{n:02}")).collect();
        push(&store, &id, &ids.iter().map(|i| (i.as_str(), 0)).collect::<Vec<_>>()).await;
        let lease = lease(&store, "owner", &id).await;
        let due = due(&store, &lease).await;
        let owner = tokio::spawn(complete_in_threes(store.clone(), lease, due));
        dawdle(&mut rng).await;
        let cancelled = patiently(|| operator.cancel(&id)).await as i64;
        let of = format!("FROM gatefeed_items WHERE partition_id = '{id}' AND version = 1 AND status");
        let complete = db.count(&format!("SELECT count(*) {of} = 'complete'")).await;
        assert_eq!(owner.await.unwrap(), complete, "round {round}: accepted after the cancellation");
        assert_eq!(db.count(&format!("SELECT count(*) {of} = 'complete'")).await, complete, "round {round}");
        assert_eq!(
            db.count(&format!("SELECT count(*) {of} = 'cancelled'")).await,
            cancelled,
            "round {round}"
        );
        assert_eq!(complete + cancelled, 40, "round {round}");
    }
}

/// Whether an outcome came before a rewind or after it: the item is as it was, and nothing is kept of what was undone.
pub async fn outcomes_against_a_rewind(db: TestDb) {
    let mut rng = seed::rng("race::outcomes_against_a_rewind");
    let until = Instant::now() + RACE;
    let (store, operator) = (db.store(), db.another_store().await);
    let keeping = NewPartition { keep_history: true, ..NewPartition::new("p") };
    let ids: Vec<_> = (0..40).map(|n| format!("i{n:02}")).collect();
    push_to(&store, &keeping, &ids.iter().map(|i| (i.as_str(), 0)).collect::<Vec<_>>()).await;
    let mut rewinds = 0;
    while Instant::now() < until || rewinds == 0 {
        let lease = lease(&store, "owner", "p").await;
        let due = due(&store, &lease).await;
        let owner = tokio::spawn(move_in_threes(store.clone(), lease, due));
        dawdle(&mut rng).await;
        assert_eq!(patiently(|| operator.rewind("p", 0)).await.items, 40);
        rewinds += 1;
        owner.await.unwrap();
        for row in store.items(&all_items("p")).await.unwrap() {
            assert_eq!((row.status, row.gate), (ItemStatus::Available, 0), "{}", row.id);
            let original = format!("{{\"id\":\"{}\"}}", row.id);
            assert_eq!(row.data.as_deref(), Some(original.as_bytes()), "{}", row.id);
            assert!(row.pass >= rewinds, "{}", row.id);
        }
        assert_eq!(db.count("SELECT count(*) FROM gatefeed_history").await, 0);
    }
}

/// Sends items to gate 1 with other data, until fenced.
async fn move_in_threes(store: Arc<dyn Store>, lease: Arc<Lease>, items: Vec<DueItem>) {
    for items in items.chunks(3) {
        let moved = |item: &DueItem| {
            let data = Some(Data::json("\"moved\""));
            let change = Change { status: ItemStatus::Available, gate: 1, data, ..done(item) };
            let kept = Kept::of(item, item.data.clone().unwrap(), &change);
            Completion { kept, ..completion(&lease, item, change) }
        };
        let batch: Vec<_> = items.iter().map(moved).collect();
        complete_patiently(&store, &batch).await;
    }
}

/// Items that nobody would ever look at: their partition has no alarm, whatever its status says.
pub(super) const STRANDED: &str = "SELECT count(*) FROM gatefeed_partitions p JOIN gatefeed_items i ON i.partition_id = p.id \
                        WHERE p.next_run_at IS NULL AND i.status = 'available'";

/// Operators who do not own the lease and the owner count each item's outcomes and retries exactly
/// once, and no retried item is stranded.
pub async fn retries_against_outcomes(db: TestDb) {
    let mut rng = seed::rng("race::retries_against_outcomes");
    let store = db.store();
    let ids: Vec<_> = (0..30).map(|n| format!("i{n:02}")).collect();
    push(&store, "p", &ids.iter().map(|i| (i.as_str(), 0)).collect::<Vec<_>>()).await;
    let until = Instant::now() + RACE;
    let operator = tokio::spawn(retry_until(db.another_store().await, until));
    let mut written = 0;
    while Instant::now() < until {
        for grant in claim(&store, "w", 1).await {
            written += fail_until_it_sleeps(&store, &grant.lease, &mut rng).await;
        }
        assert_eq!(db.count(STRANDED).await, 0, "stranded during the race");
    }
    let retried = operator.await.unwrap();
    assert!(retried > 0);
    assert_eq!(db.count("SELECT sum(version) FROM gatefeed_items").await, written + retried);
    assert_eq!(db.count("SELECT sum(pass) FROM gatefeed_items").await, retried);
    let all = RetryFilter::default();
    patiently(|| store.retry("p", &all)).await;
    assert_eq!(drain(&store, "w").await, 30);
}

async fn retry_until(store: Arc<dyn Store>, until: Instant) -> i64 {
    let all = RetryFilter::default();
    let mut retried = 0;
    while Instant::now() < until {
        retried += patiently(|| store.retry("p", &all)).await as i64;
        tokio::task::yield_now().await;
    }
    retried
}

/// Fails everything that is due, in batches, until the partition is released; returns how many were written.
async fn fail_until_it_sleeps(store: &Arc<dyn Store>, lease: &Arc<Lease>, rng: &mut StdRng) -> i64 {
    let mut written = 0;
    loop {
        let due = due(store, lease).await;
        for items in due.chunks(rng.random_range(1..10)) {
            let fail = |i| completion(lease, i, with_status(i, ItemStatus::Failed));
            let batch: Vec<_> = items.iter().map(fail).collect();
            let settled = complete_patiently(store, &batch).await;
            assert!(!settled.contains(&Settled::Fenced));
            written += settled.iter().filter(|s| **s == Settled::Written).count() as i64;
        }
        if matches!(checkpoint(store, lease).await, Checkpointed::Failed | Checkpointed::Slept) {
            return written;
        }
    }
}

/// Eight claimers, and no partition has two owners at any time; epochs only grow.
pub async fn eight_claimers(db: TestDb) {
    let due = db.in_secs(-1.0);
    let values: Vec<_> = (0..40).map(|n| format!("('p{n:02}', {due}, {})", n % 3)).collect();
    let insert = "INSERT INTO gatefeed_partitions (id, next_run_at, priority) VALUES";
    db.run(&format!("{insert} {}", values.join(", "))).await;
    let held: Arc<Held> = Arc::default();
    let until = Instant::now() + RACE;
    let mut claimers = Vec::new();
    for n in 0..8 {
        let store = if n % 2 == 0 { db.store() } else { db.another_store().await };
        claimers.push(tokio::spawn(claim_and_release(store, format!("w{n}"), held.clone(), until)));
    }
    let mut grants = 0;
    for claimer in claimers {
        grants += claimer.await.unwrap();
    }
    assert!(grants >= 40);
    assert_eq!(db.count("SELECT sum(epoch) FROM gatefeed_partitions").await, grants);
}

/// The epoch that holds each partition, negative once it was given back.
type Held = Mutex<HashMap<Arc<str>, i64>>;

async fn claim_and_release(store: Arc<dyn Store>, owner: String, held: Arc<Held>, until: Instant) -> i64 {
    let mut grants = 0;
    while Instant::now() < until {
        let granted: Vec<_> = claim(&store, &owner, 6).await.into_iter().map(|g| g.lease).collect();
        grants += granted.len() as i64;
        for lease in &granted {
            let before = held.lock().unwrap().insert(lease.partition.clone(), lease.epoch).unwrap_or(0);
            assert!(before <= 0, "{} has two owners", lease.partition);
            assert_eq!(lease.epoch, 1 - before, "{}", lease.partition);
        }
        tokio::task::yield_now().await;
        for lease in &granted {
            held.lock().unwrap().insert(lease.partition.clone(), -lease.epoch);
        }
        patiently(|| store.release(&granted)).await;
    }
    grants
}

/// A callback may come before 'waiting' is written. Both match the version: the late write loses, or the callback
/// finds the item parked.
pub async fn callbacks_against_waiting(db: TestDb) {
    let mut rng = seed::rng("race::callbacks_against_waiting");
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    let lease = lease(&store, "w", "p").await;
    let until = Instant::now() + RACE;
    let mut written = 0;
    while Instant::now() < until {
        let item = due(&store, &lease).await.remove(0);
        let (other, ticket) = (db.store(), ticket(&item, LEASE));
        let outside = tokio::spawn(async move { done_by(&other, &ticket).await });
        if rng.random_bool(0.7) {
            dawdle(&mut rng).await;
        }
        let waiting = later(&lease, &item, LEASE);
        let settled = complete_patiently(&store, std::slice::from_ref(&waiting)).await[0];
        assert_eq!(outside.await.unwrap(), DONE, "it is taken whichever is first");
        let was_parked = settled == Settled::Written;
        assert!(was_parked || settled == Settled::Stale, "{settled:?}");
        let version = item.version + 1 + i64::from(was_parked);
        let outcome = format!("status = 'complete' AND waiting_until IS NULL AND version = {version}");
        assert!(db.item_is("p", "i", &outcome).await);
        written += i64::from(was_parked);
        db.run("UPDATE gatefeed_items SET status = 'available', version = version + 1").await;
    }
    eprintln!("{written} times 'waiting' was first");
}
