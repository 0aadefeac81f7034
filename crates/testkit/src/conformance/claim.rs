//! Who gets which partition.

use std::{collections::HashSet, sync::Arc, time::Duration};

use gatefeed_core::{
    Store,
    lease::Claim,
    partition::{FailurePolicy, NewPartition, PartitionStatus},
};

use super::given::*;

async fn claim_one(store: &Arc<dyn Store>) -> Option<String> {
    claim(store, "w", 1).await.pop().map(|g| g.lease.partition.to_string())
}

/// Higher priority first; among equals the one that has been due for longest.
pub async fn by_priority_and_age(db: TestDb) {
    for (id, priority, age) in [("young", 0, 1), ("low", -5, 900), ("old", 0, 60), ("high", 9, 0)] {
        let due = db.in_secs(-f64::from(age) - 1.0);
        let values = format!("('{id}', {priority}, {due})");
        db.run(&format!("INSERT INTO gatefeed_partitions (id, priority, next_run_at) VALUES {values}")).await;
    }
    let store = db.store();
    for expected in ["high", "old", "young", "low"] {
        assert_eq!(claim_one(&store).await.as_deref(), Some(expected));
    }
    assert_eq!(claim_one(&store).await, None);
}

/// A claim with room for some takes the foremost.
pub async fn a_limit_takes_the_foremost(db: TestDb) {
    for priority in 0..9 {
        let values = format!("('p{priority}', {priority}, {})", db.in_secs(-1.0));
        db.run(&format!("INSERT INTO gatefeed_partitions (id, priority, next_run_at) VALUES {values}")).await;
    }
    let granted: HashSet<_> =
        claim(&db.store(), "w", 3).await.iter().map(|g| g.lease.partition.to_string()).collect();
    assert_eq!(granted, ["p6", "p7", "p8"].map(str::to_owned).into());
}

/// A watcher gets what belongs to its feeds, and nothing else.
pub async fn feeds_are_separate(db: TestDb) {
    let store = db.store();
    for feed in ["a", "b", "c"] {
        let partition = NewPartition { feed: feed.into(), ..NewPartition::new(format!("in {feed}")) };
        push_to(&store, &partition, &[("i", 0)]).await;
    }
    assert!(claim_feeds(&store, "w", &[], 10).await.is_empty());
    assert!(claim_feeds(&store, "w", &["default", "A"], 10).await.is_empty());
    let granted = claim_feeds(&store, "w", &["a"], 10).await;
    assert_eq!(granted.len(), 1);
    assert_eq!((&*granted[0].lease.partition, granted[0].state.feed.as_str()), ("in a", "a"));
    assert_eq!(claim_feeds(&store, "w", &["a", "b", "c", "b"], 10).await.len(), 2);
}

/// Zero is zero, not "no limit".
pub async fn a_limit_of_zero_claims_none(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    assert!(claim(&store, "w", 0).await.is_empty());
    assert!(db.partition_is("p", "owner IS NULL AND epoch = 0").await);
    assert_eq!(claim(&store, "w", 1).await.len(), 1);
}

/// Only what is available and due.
pub async fn idle_future_and_ended_ones_are_left(db: TestDb) {
    let (past, future) = (db.in_secs(-1.0), db.in_secs(600.0));
    for (id, status, next_run_at) in [
        ("idle", "available", "NULL"),
        ("future", "available", &future),
        ("paused", "paused", &past),
        ("complete", "complete", &past),
        ("failed", "failed", &past),
        ("cancelled", "cancelled", &past),
    ] {
        let values = format!("('{id}', '{status}', {next_run_at})");
        db.run(&format!("INSERT INTO gatefeed_partitions (id, status, next_run_at) VALUES {values}")).await;
    }
    assert!(claim(&db.store(), "w", 10).await.is_empty());
    assert_eq!(
        db.count("SELECT count(*) FROM gatefeed_partitions WHERE owner IS NULL AND epoch = 0").await,
        6
    );
}

/// A grant raises epoch and version, names its owner, lasts as long as asked by the database's clock, and
/// tells the owner what it has to know.
pub async fn a_grant_is_complete(db: TestDb) {
    let store = db.store();
    let made = NewPartition {
        priority: 3,
        manual_checkpoint: true,
        auto_close: false,
        max_in_flight: Some(7),
        failure_policy: FailurePolicy::Continue,
        ..NewPartition::new("p")
    };
    push_to(&store, &made, &[("i", 0)]).await;
    db.run("UPDATE gatefeed_partitions SET gate = 4").await;
    let duration = Duration::from_secs(45);
    let claim = Claim {
        owner: "watcher 1".into(),
        feeds: vec!["default".into()],
        duration,
        limit: 5,
        overdue: Duration::ZERO,
    };
    let grants = store.claim(&claim).await.unwrap();
    assert_eq!(grants.len(), 1);
    let (lease, state) = (&grants[0].lease, &grants[0].state);
    assert_eq!((&*lease.partition, &*lease.owner, lease.epoch), ("p", "watcher 1", 1));
    assert_eq!(grants[0].expiries, 0);
    assert_eq!((state.status, state.gate, state.version), (PartitionStatus::Available, 4, 2));
    assert!(state.manual_checkpoint && !state.auto_close);
    assert_eq!((state.max_in_flight, state.failure_policy), (Some(7), FailurePolicy::Continue));
    let until = format!("until BETWEEN {} AND {}", db.in_secs(15.0), db.in_secs(45.5));
    let held = "owner = 'watcher 1' AND epoch = 1 AND version = 2 AND next_run_at IS NOT NULL";
    assert!(db.partition_is("p", &format!("{held} AND {until}")).await);
}

/// A lease keeps others away until it has expired.
pub async fn leased_ones_are_left(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    lease(&store, "w", "p").await;
    assert!(claim(&store, "w", 10).await.is_empty(), "not even to its own owner");
    assert!(claim(&db.another_store().await, "v", 10).await.is_empty());
}

/// A take-over has a new lease id, a higher epoch and version, and counts; a release does not count.
pub async fn expired_ones_are_taken_over(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    let first = grant(&store, "w1", "p").await;
    let second = steal(&db, "p", "w2").await;
    let third = steal(&db, "p", "w3").await;
    assert_eq!([first.lease.epoch, second.lease.epoch, third.lease.epoch], [1, 2, 3]);
    assert_eq!([first.expiries, second.expiries, third.expiries], [0, 1, 2]);
    assert_eq!([first.state.version, second.state.version, third.state.version], [1, 2, 3]);
    let ids = HashSet::from([first.lease.lease_id, second.lease.lease_id, third.lease.lease_id]);
    assert_eq!(ids.len(), 3);
    store.release(&[third.lease]).await.unwrap();
    assert_eq!(grant(&store, "w4", "p").await.expiries, 2);
}

/// What a dead watcher left behind neither jumps the queue nor waits behind what is less urgent.
pub async fn expired_and_free_ones_compete_by_priority(db: TestDb) {
    let store = db.store();
    push_to(&store, &NewPartition { priority: 3, ..NewPartition::new("expired 3") }, &[("i", 0)]).await;
    assert_eq!(claim_one(&store).await.as_deref(), Some("expired 3"));
    for (id, priority) in [("free 2", 2), ("free 4", 4)] {
        push_to(&store, &NewPartition { priority, ..NewPartition::new(id) }, &[("i", 0)]).await;
    }
    expire(&db, "expired 3").await;
    for expected in ["free 4", "expired 3", "free 2"] {
        assert_eq!(claim_one(&store).await.as_deref(), Some(expected));
    }
}

/// Free and expired ones together stay within the limit.
pub async fn a_limit_is_for_both_kinds(db: TestDb) {
    let store = db.store();
    for id in ["a", "b"] {
        push(&store, id, &[("i", 0)]).await;
    }
    assert_eq!(claim(&store, "gone", 10).await.len(), 2);
    for id in ["c", "d"] {
        push(&store, id, &[("i", 0)]).await;
    }
    expire(&db, "a").await;
    expire(&db, "b").await;
    assert_eq!(claim(&store, "w", 3).await.len(), 3);
    assert_eq!(claim(&store, "w", 3).await.len(), 1);
}

/// Feeds do not take turns: the most urgent partition of all the feeds comes first.
pub async fn by_priority_over_all_feeds(db: TestDb) {
    let store = db.store();
    for (id, feed, priority) in [("a1", "a", 1), ("a0", "a", 0), ("b9", "b", 9), ("b8", "b", 8)] {
        let partition = NewPartition { feed: feed.into(), priority, ..NewPartition::new(id) };
        push_to(&store, &partition, &[("i", 0)]).await;
    }
    for expected in ["b9", "b8", "a1", "a0"] {
        let granted = claim_feeds(&store, "w", &["a", "b"], 1).await;
        assert_eq!(granted.iter().map(|g| &*g.lease.partition).collect::<Vec<_>>(), [expected]);
    }
}

/// Two watchers that ask at the same time share the work: nothing twice, nothing left.
pub async fn concurrent_claims_are_disjoint(db: TestDb) {
    let partitions: Vec<_> = (0..100).map(|n| format!("('p{n:03}', {})", db.in_secs(-1.0))).collect();
    let insert = "INSERT INTO gatefeed_partitions (id, next_run_at) VALUES";
    db.run(&format!("{insert} {}", partitions.join(", "))).await;
    let stores = [db.store(), db.another_store().await];
    let tasks = stores.map(|store| tokio::spawn(claim_until_none(store)));
    let mut granted = Vec::new();
    for task in tasks {
        granted.extend(task.await.unwrap());
    }
    assert_eq!(granted.len(), 100);
    assert_eq!(granted.iter().collect::<HashSet<_>>().len(), 100);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_partitions WHERE epoch = 1").await, 100);
}

async fn claim_until_none(store: Arc<dyn Store>) -> Vec<String> {
    let mut granted = Vec::new();
    loop {
        let grants = claim(&store, "w", 3).await;
        if grants.is_empty() {
            return granted;
        }
        granted.extend(grants.iter().map(|g| g.lease.partition.to_string()));
    }
}

/// A producer that has inserted and not committed does not hide a partition that is due, and holds up nobody
/// who works on it. (SQLite has one writer at a time.)
pub async fn an_open_producer_blocks_nobody(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    let store = db.store();
    push(&store, "p", &[("i", 0), ("j", 0), ("next", 1)]).await;
    let mut producer = db.begin().await;
    producer.execute("INSERT INTO gatefeed_items (partition_id, id) VALUES ('p', 'late')").await.unwrap();
    let work = async {
        let lease = lease(&store, "w", "p").await;
        assert_eq!(complete_all(&store, &lease).await, 2);
        let renewed = store.renew(std::slice::from_ref(&lease), LEASE).await.unwrap();
        assert_eq!(renewed, [gatefeed_core::lease::Renewal::Renewed]);
        store.progressed(&lease).await.unwrap();
        store.retry("p", &Default::default()).await.unwrap();
        push(&store, "p", &[("more", 0)]).await;
        store.release(&[lease]).await.unwrap();
    };
    promptly("the owner of a partition with an open producer", work).await;
    producer.commit().await.unwrap();
    let lease = lease(&store, "w", "p").await;
    assert_eq!(due_ids(&store, &lease).await.len(), 2);
}

/// A full watcher leaves to others what they may still take; what is given back queues up behind the rest.
pub async fn only_what_is_overdue(db: TestDb) {
    let store = db.store();
    for (id, since) in [("long", -60.0), ("just now", -1.0)] {
        let at = db.in_secs(since);
        db.run(&format!("INSERT INTO gatefeed_partitions (id, next_run_at) VALUES ('{id}', {at})")).await;
    }
    let overdue = |secs| Claim {
        owner: "w".into(),
        feeds: vec!["default".into()],
        duration: LEASE,
        limit: 10,
        overdue: Duration::from_secs(secs),
    };
    assert!(store.claim(&overdue(90)).await.unwrap().is_empty());
    let grants = store.claim(&overdue(30)).await.unwrap();
    assert_eq!(grants.len(), 1);
    assert_eq!(&*grants[0].lease.partition, "long");
    store.release(&[grants[0].lease.clone()]).await.unwrap();
    assert!(store.claim(&overdue(30)).await.unwrap().is_empty(), "it had its turn");
    let grants = store.claim(&overdue(0)).await.unwrap();
    assert_eq!(grants.len(), 2);
}
