//! Leases: kept, lost, taken over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gatefeed_core::{
    answer::Answer,
    item::{Data, ItemStatus},
    partition::NewPartition,
};
use gatefeed_testkit::faults::{Call, Fault, FaultStore};
use tokio::sync::Semaphore;

use crate::{
    db::{Db, child, watcher, within},
    record::{Log, What},
};

on_both! {
    a_delivery_is_aborted_when_its_lease_is_taken_over
    an_outcome_is_fenced_after_a_take_over
    long_deliveries_keep_their_lease
    a_skipped_renewal_holds_up_no_other
    a_busy_watcher_hands_over_to_one_that_has_nothing
}

const LEASE: Duration = Duration::from_secs(1);

/// A watcher "A" that cannot renew: it sees what became of its lease by looking.
async fn a_delivery_is_aborted_when_its_lease_is_taken_over(db: Arc<Db>) {
    db.push("p", &[("i", 0)]).await;
    let store =
        FaultStore::with(
            db.another().await,
            |call, _, _| if call == Call::Renew { FOR_EVER } else { Fault::None },
        );
    let log_a = Log::new();
    let stuck = log_a.processor(async |_| std::future::pending().await);
    let a = tokio::spawn(watcher(store.clone()).lease_duration(LEASE).processor(stuck).run());
    log_a.until_in_flight(1).await;
    // It must not win its own partition back.
    store.rule(|call, _, _| match call {
        Call::Renew => FOR_EVER,
        Call::Claim => Fault::Refuse,
        _ => Fault::None,
    });

    let log_b = Log::new();
    let b = watcher(db.another().await).processor(log_b.processor(async |_| Ok(Answer::done())));
    assert!(!within("B is idle", b.run()).await.unwrap().failed);
    log_a.until("A's delivery is aborted", |events| events.iter().any(|e| e.what == What::Dropped)).await;
    within("A is idle", a).await.unwrap().unwrap();
    assert_eq!((log_a.count(What::Began), log_a.count(What::Accepted)), (1, 0));
    log_b.assert_once(1);
    assert!(log_b.events()[0].epoch > log_a.events()[0].epoch);
    let row = db.item("p", "i").await;
    assert_eq!((row.status, row.pass, row.retry_count), (ItemStatus::Complete, 1, 0));
}

const FOR_EVER: Fault = Fault::Hang(Duration::from_secs(3600));

/// A watcher "A" that sees nothing: only the fence tells it.
async fn an_outcome_is_fenced_after_a_take_over(db: Arc<Db>) {
    db.push("p", &[("i", 0), ("next", 1)]).await;
    let store = FaultStore::with(db.another().await, |call, _, _| match call {
        Call::Renew | Call::Observe => FOR_EVER,
        _ => Fault::None,
    });
    let permits = [Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0))];
    let logs = [Log::new(), Log::new()];
    let processor = |n: usize| {
        let permits = permits[n].clone();
        logs[n].processor(move |_| {
            let permits = permits.clone();
            async move {
                permits.acquire().await.unwrap().forget();
                let answer = Answer::done().with_data(Data::json(format!("\"from {n}\"")));
                Ok(if n == 0 { answer.with_item(child(None)) } else { answer })
            }
        })
    };
    let a = tokio::spawn(watcher(store.clone()).lease_duration(LEASE).processor(processor(0)).run());
    logs[0].until_in_flight(1).await;
    store.rule(|call, _, _| match call {
        Call::Renew | Call::Observe => FOR_EVER,
        Call::Claim => Fault::Refuse,
        _ => Fault::None,
    });
    let b = tokio::spawn(watcher(db.another().await).processor(processor(1)).run());
    logs[1].until_in_flight(1).await;

    permits[0].add_permits(1);
    let written = async {
        while store.returned(Call::Complete) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within("A's outcome", written).await;
    assert_eq!(db.item("p", "i").await.status, ItemStatus::Available);
    permits[1].add_permits(2);
    assert!(!within("B is idle", b).await.unwrap().unwrap().failed);
    within("A is idle", a).await.unwrap().unwrap();
    assert_eq!(logs[0].count(What::Began), 1);
    logs[1].assert_once(2);
    db.assert_complete("p", 2).await;
    assert_eq!(db.item("p", "i").await.data.unwrap(), b"\"from 1\"");
}

async fn long_deliveries_keep_their_lease(db: Arc<Db>) {
    db.push("p", &[("i", 0)]).await;
    let [log_a, log_b] = [Log::new(), Log::new()];
    let long = log_a.processor(async |_| {
        tokio::time::sleep(LEASE * 5 / 2).await;
        Ok(Answer::done())
    });
    let a = tokio::spawn(watcher(db.another().await).lease_duration(LEASE).processor(long).run());
    log_a.until_in_flight(1).await;
    let b = watcher(db.another().await).processor(log_b.processor(async |_| Ok(Answer::done())));
    within("B is idle", b.run()).await.unwrap();
    within("A is idle", a).await.unwrap().unwrap();
    log_a.assert_once(1);
    log_b.assert_once(0);
    db.assert_complete("p", 1).await;
}

/// The row of "stuck" is locked by somebody all the time; its delivery goes on, and so does "other".
async fn a_skipped_renewal_holds_up_no_other(db: Arc<Db>) {
    db.push("stuck", &[("i", 0)]).await;
    let one_by_one = NewPartition { max_in_flight: Some(1), ..NewPartition::new("other") };
    let items: Vec<_> = (0..25).map(|n| format!("i{n:02}")).collect();
    db.push_to(&one_by_one, &items.iter().map(|id| (id.as_str(), 0)).collect::<Vec<_>>()).await;
    let store = FaultStore::new(db.another().await);
    store.skip_renewals(|lease| &*lease.partition == "stuck");
    let log = Log::new();
    let released = Arc::new(Semaphore::new(0));
    let permits = released.clone();
    let processor = log.processor(move |delivery| {
        let permits = permits.clone();
        async move {
            match &*delivery.partition {
                "stuck" => permits.acquire().await.unwrap().forget(),
                _ => tokio::time::sleep(LEASE / 10).await,
            }
            Ok(Answer::done())
        }
    });
    let run = tokio::spawn(watcher(store.clone()).lease_duration(LEASE).processor(processor).run());
    log.until("other is through", |events| {
        events.iter().filter(|event| event.is(What::Accepted, "other")).count() >= 25
    })
    .await;
    let epochs: Vec<_> =
        log.of(What::Began).iter().filter(|e| e.partition == "other").map(|e| e.epoch).collect();
    released.add_permits(10);
    within("idle", run).await.unwrap().unwrap();
    assert_eq!(epochs, [1; 25], "the lease of the other partition was not renewed");
    db.assert_complete("stuck", 1).await;
    db.assert_complete("other", 25).await;
}

/// "A" holds all there is, and more than it can send for a long time, when "B" starts.
async fn a_busy_watcher_hands_over_to_one_that_has_nothing(db: Arc<Db>) {
    for partition in ["p", "q"] {
        db.push_many(partition, 1000).await;
    }
    let log = Log::new();
    let is_slow = Arc::new(AtomicBool::new(true));
    let slow = is_slow.clone();
    let processor = log.processor(move |_| {
        let time = if slow.load(Ordering::SeqCst) { Duration::from_millis(200) } else { Duration::ZERO };
        async move {
            tokio::time::sleep(time).await;
            Ok(Answer::done())
        }
    });
    let a = tokio::spawn(watcher(db.another().await).concurrency(20).processor(processor).run());
    log.until("A sends from both", |events| {
        ["p", "q"].iter().all(|p| events.iter().any(|e| e.is(What::Began, p)))
    })
    .await;
    let log_b = Log::new();
    let at_once = log_b.processor(async |_| Ok(Answer::done()));
    let b = tokio::spawn(watcher(db.another().await).processor(at_once).run());
    log_b.until("B has one of them", |events| !events.is_empty()).await;
    is_slow.store(false, Ordering::SeqCst);
    within("A is idle", a).await.unwrap().unwrap();
    within("B is idle", b).await.unwrap().unwrap();
    assert_eq!(log.count(What::Accepted) + log_b.count(What::Accepted), 2000);
    assert_eq!(log.count(What::Began) + log_b.count(What::Began), 2000, "some were sent twice");
    assert!(log.count(What::Accepted) < 2000);
    db.assert_complete("p", 1000).await;
    db.assert_complete("q", 1000).await;
}
