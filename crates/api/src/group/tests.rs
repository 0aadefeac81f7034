use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use futures_util::future::join_all;
use gatefeed_core::{
    ingest::Arrived,
    item::{Data, NewItem},
};
use gatefeed_store::{Options, connect};
use gatefeed_testkit::faults::{Call, Fault, FaultStore};
use tempfile::TempDir;

use super::*;
use crate::budget::Budget;

/// A store, and where requests queue for it.
struct Place {
    store: Arc<FaultStore>,
    group: Group,
    _dir: TempDir,
}

impl Place {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/q.db", dir.path().display());
        let store = connect(&url, &Options::default()).await.unwrap();
        store.migrate().await.unwrap();
        let store = FaultStore::new(store);
        let group = Group::start(&(store.clone() as Arc<dyn Store>));
        Self { store, group, _dir: dir }
    }

    /// Items that are posted at the same time, as many as are said into each partition.
    async fn post(&self, partitions: impl IntoIterator<Item = (String, usize)>) -> Vec<Outcome> {
        let budget = Budget::new(0);
        let items = partitions.into_iter().flat_map(|(partition, count)| {
            (0..count).map(move |number| (partition.clone(), number.to_string()))
        });
        join_all(items.map(|(partition, id)| {
            let item = NewItem::new(partition, id, Data::json("1"));
            let arrival = Arrival { feed: "default".into(), own_feed_only: false, item, request: None };
            self.group.add(arrival, budget.none())
        }))
        .await
    }

    /// How often the store was asked to write while this went on.
    async fn tries(&self, posting: impl Future<Output = ()>) -> u64 {
        let before = self.store.count(Call::Ingest);
        posting.await;
        self.store.count(Call::Ingest) - before
    }
}

fn is_added(outcome: &Outcome) -> bool {
    matches!(outcome, Ok(Arrived::Added))
}

fn locked(is_locked: &Arc<AtomicBool>) -> impl Fn(&Arrival) -> Option<StoreError> + Send + Sync + use<> {
    let is_locked = is_locked.clone();
    move |arrival| {
        let is_in_the_way = arrival.item.partition.starts_with("locked") && is_locked.load(Ordering::Relaxed);
        is_in_the_way.then(|| StoreError::Locked("by the test".into()))
    }
}

#[tokio::test]
async fn items_of_a_locked_partition_wait_together_and_hold_up_no_others() {
    let place = Place::new().await;
    let is_locked = Arc::new(AtomicBool::new(true));
    place.store.unwelcome(locked(&is_locked));
    let tries = place.tries(async {
        let others = async {
            // Queued last, in the same batch.
            let others = place.post((0..30).map(|n| (format!("other-{n}"), 10))).await;
            assert!(others.iter().all(is_added));
            is_locked.store(false, Ordering::Relaxed);
        };
        let waiting = place.post([("locked".into(), 300), ("locked-too".into(), 300)]);
        let (waiting, ()) = tokio::join!(waiting, others);
        assert!(waiting.len() == 600 && waiting.iter().all(is_added));
    });
    // Halved by partitions, not by items; and then those of each together.
    let tries = tries.await;
    assert!(tries < 40, "{tries}");
}

#[tokio::test]
async fn with_very_many_locked_partitions_all_wait_on_the_side() {
    let place = Place::new().await;
    let is_locked = Arc::new(AtomicBool::new(true));
    place.store.unwelcome(locked(&is_locked));
    // As a try that waits for a lock does, it takes its time.
    place.store.rule(|_, _, _| Fault::Hang(Duration::from_millis(5)));
    let waiting = place.post((0..500).map(|n| (format!("locked-{n}"), 1)));
    let later = async {
        // The queue is free again after a few tries.
        while place.store.count(Call::Ingest) < u64::from(TRIES_MAX) {
            pause().await;
        }
        let tries =
            place.tries(async { assert!(place.post([("other".into(), 1)]).await.iter().all(is_added)) });
        let tries = tries.await;
        assert!(tries < 40, "{tries}");
        is_locked.store(false, Ordering::Relaxed);
    };
    let (waiting, ()) = tokio::join!(waiting, later);
    assert!(waiting.iter().all(is_added));
}

#[tokio::test]
async fn a_conflict_is_about_the_whole_batch() {
    let place = Place::new().await;
    let left = AtomicU32::new(3);
    place.store.unwelcome(move |_| {
        let is_left =
            left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        is_left.then(|| StoreError::Conflict("by the test".into()))
    });
    let tries = place.tries(async {
        let posted = place.post((0..50).map(|n| (format!("p-{n}"), 4))).await;
        assert!(posted.iter().all(is_added));
    });
    assert_eq!(tries.await, 4);
}

#[tokio::test]
async fn what_is_refused_fails_alone() {
    let place = Place::new().await;
    place.store.unwelcome(|arrival| {
        (arrival.item.partition == "bad" && arrival.item.id == "7")
            .then(|| StoreError::Data("by the test".into()))
    });
    let posted = place.post([("good".into(), 10), ("bad".into(), 10)]).await;
    let refused: Vec<usize> = (0..posted.len()).filter(|place| !is_added(&posted[*place])).collect();
    assert_eq!(refused, [17]);
}
