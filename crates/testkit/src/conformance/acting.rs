//! Pausing, resuming and cancelling, also while a watcher holds the lease.

use std::time::Duration;

use gatefeed_core::{
    StoreError,
    acting::Action,
    item::ItemStatus,
    lease::Observed,
    outcome::Settled,
    partition::{NewPartition, PartitionStatus},
    store::{Checkpointed, RetryFilter},
};

use super::{checkpoint::RELEASED, given::*};

/// Asserts that it is refused, and that the text has each of these.
pub(super) fn assert_refused<T: std::fmt::Debug>(outcome: gatefeed_core::Result<T>, texts: &[&str]) {
    match outcome {
        Err(StoreError::Refused(text)) => {
            assert!(texts.iter().all(|part| text.contains(part)), "{texts:?} not in {text}");
        }
        other => panic!("not refused: {other:?}"),
    }
}

async fn set_status(db: &TestDb, status: &str) {
    db.run(&format!("UPDATE gatefeed_partitions SET status = '{status}' WHERE id = 'p'")).await;
}

/// Nobody leases it; inserts are stored. Twice is once.
pub async fn pause_sets_aside(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("a", 0)]).await;
    let before = partition(&store, "p").await;
    store.pause("p").await.unwrap();
    let paused = partition(&store, "p").await;
    assert_eq!((paused.status, paused.version), (PartitionStatus::Paused, before.version + 1));
    store.pause("p").await.unwrap();
    assert_eq!(partition(&store, "p").await.version, paused.version);
    push(&store, "p", &[("b", 0)]).await;
    assert!(claim(&store, "w", 10).await.is_empty());
    let nowhere = store.pause("nowhere").await.unwrap_err();
    assert!(matches!(&nowhere, StoreError::NotFound(text) if text.contains("nowhere")), "{nowhere:?}");
}

/// Its owner keeps the lease, reads nothing more, writes what was in flight, and then gives it back.
pub async fn pause_while_leased(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("a", 0), ("b", 0)]).await;
    let store = db.store();
    db.another_store().await.pause("p").await.unwrap();
    let seen = store.observe(std::slice::from_ref(&lease)).await.unwrap();
    assert!(matches!(&seen[0], Observed::Held(state) if state.status == PartitionStatus::Paused), "{seen:?}");
    assert!(!seen[0].is_workable());
    assert!(due_ids(&store, &lease).await.is_empty());
    let late = completion(&lease, &due[0], done(&due[0]));
    assert_eq!(complete_patiently(&store, &[late]).await, [Settled::Written]);
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Slept);
    assert!(db.partition_is("p", &format!("{RELEASED} AND status = 'paused' AND epoch = 1")).await);
    store.resume("p").await.unwrap();
    assert_eq!(drain(&store, "v").await, 1);
}

/// What has ended cannot be paused; the text says what it is.
pub async fn pause_is_refused_with_a_reason(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[]).await;
    for status in ["complete", "failed", "cancelled"] {
        set_status(&db, status).await;
        let version = partition(&store, "p").await.version;
        assert_refused(store.pause("p").await, &["\"p\" cannot be paused", status]);
        assert_eq!(partition(&store, "p").await.version, version);
    }
}

/// A paused partition goes on where it was, due at once.
pub async fn resume_goes_on(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("a", 0), ("b", 1)]).await;
    store.pause("p").await.unwrap();
    let before = partition(&store, "p").await;
    db.run("UPDATE gatefeed_partitions SET next_run_at = NULL").await;
    store.resume("p").await.unwrap();
    let after = partition(&store, "p").await;
    assert_eq!((after.status, after.version), (PartitionStatus::Available, before.version + 1));
    assert!(after.next_run_at.is_some());
    assert_eq!(drain(&store, "w").await, 2);
}

/// Only what is paused, or failed with something to go on with.
pub async fn resume_is_refused_with_a_reason(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("a", 0), ("ahead", 1)]).await;
    assert_refused(store.resume("p").await, &["\"p\" is not paused: it is available"]);
    for status in ["complete", "cancelled"] {
        set_status(&db, status).await;
        assert_refused(store.resume("p").await, &["not paused", status]);
    }
    db.run("UPDATE gatefeed_items SET status = 'failed' WHERE id = 'a'").await;
    set_status(&db, "failed").await;
    assert_refused(store.resume("p").await, &["cannot be resumed", "nothing at its gate is open", "retry"]);
    assert!(matches!(store.resume("nowhere").await, Err(StoreError::NotFound(_))));
    push(&store, "p", &[("late", 0)]).await;
    store.resume("p").await.unwrap();
    assert_eq!(due_ids(&store, &lease(&store, "w", "p").await).await, ["late"]);
}

/// Every open item is cancelled, the others stay; nobody leases it, and inserts are refused.
pub async fn cancel_ends_it(db: TestDb) {
    let store = db.store();
    let statuses = ["available", "waiting", "blocked", "complete", "failed", "cancelled"];
    push(&store, "p", &statuses.map(|status| (status, 0))).await;
    for status in statuses {
        db.run(&format!("UPDATE gatefeed_items SET status = '{status}', version = 3 WHERE id = '{status}'"))
            .await;
    }
    let before = partition(&store, "p").await;
    assert_eq!(store.cancel("p").await.unwrap(), 3);
    let after = partition(&store, "p").await;
    assert_eq!((after.status, after.next_run_at), (PartitionStatus::Cancelled, None));
    assert_eq!((after.epoch, after.version), (before.epoch + 1, before.version + 1));
    assert_eq!(after.reason.as_deref(), Some("cancelled by an operator"));
    for status in &statuses[..3] {
        assert!(db.item_is("p", status, "status = 'cancelled' AND version = 4").await, "{status}");
    }
    for status in &statuses[3..] {
        assert!(db.item_is("p", status, &format!("status = '{status}' AND version = 3")).await, "{status}");
    }
    assert!(claim(&store, "w", 10).await.is_empty());
    db.refused("INSERT INTO gatefeed_items (partition_id) VALUES ('p')").await;
    assert_refused(store.retry("p", &RetryFilter::default()).await, &["cancelled"]);
}

/// Its owner loses the lease: what it still writes, reads and decides changes nothing.
pub async fn cancel_while_leased(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("a", 0), ("b", 0)]).await;
    let store = db.store();
    assert_eq!(db.another_store().await.cancel("p").await.unwrap(), 2);
    assert!(db.partition_is("p", &format!("{RELEASED} AND epoch = 2")).await);
    assert_eq!(store.observe(std::slice::from_ref(&lease)).await.unwrap(), [Observed::Lost]);
    let child = item("p", "child", 0);
    let late = with_children(&lease, &due[0], done(&due[0]), vec![child]);
    assert_eq!(complete_patiently(&store, &[late]).await, [Settled::Fenced]);
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Fenced);
    let statuses: Vec<_> =
        store.items(&all_items("p")).await.unwrap().into_iter().map(|row| row.status).collect();
    assert_eq!(statuses, [ItemStatus::Cancelled; 2]);
}

/// Cancelling again changes nothing of the partition; a complete one is left alone.
pub async fn cancel_twice_is_once(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("a", 0)]).await;
    assert_eq!(store.cancel("p").await.unwrap(), 1);
    let before = partition(&store, "p").await;
    assert_eq!(store.cancel("p").await.unwrap(), 0);
    let after = partition(&store, "p").await;
    assert_eq!((after.version, after.epoch), (before.version, before.epoch));
    assert!(matches!(store.cancel("nowhere").await, Err(StoreError::NotFound(_))));
    set_status(&db, "complete").await;
    assert_refused(store.cancel("p").await, &["\"p\" is complete"]);
}

/// What an open transaction had inserted before is never delivered, and the next cancellation finds it.
pub async fn cancel_beside_an_open_producer(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    let store = db.store();
    push(&store, "p", &[("a", 0)]).await;
    let mut producer = db.begin().await;
    producer.execute("INSERT INTO gatefeed_items (partition_id, id) VALUES ('p', 'late')").await.unwrap();
    assert_eq!(promptly("the cancellation", store.cancel("p")).await.unwrap(), 1);
    producer.commit().await.unwrap();
    assert!(claim(&store, "w", 10).await.is_empty());
    assert_eq!(store.cancel("p").await.unwrap(), 1);
    assert!(db.item_is("p", "late", "status = 'cancelled'").await);
}

/// Paused and failed ones too.
pub async fn cancel_of_paused_and_failed_ones(db: TestDb) {
    let store = db.store();
    for status in ["paused", "failed"] {
        push(&store, status, &[("a", 0), ("b", 1)]).await;
        db.run(&format!("UPDATE gatefeed_partitions SET status = '{status}' WHERE id = '{status}'")).await;
        assert_eq!(store.cancel(status).await.unwrap(), 2);
        assert_eq!(partition(&store, status).await.status, PartitionStatus::Cancelled);
    }
}

/// Whoever waits for it hears of it.
pub async fn cancel_wakes_waiters(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("a", 0)]).await;
    let mut waiter = db.another_store().await.changes("p").await;
    // The first hint: it listens.
    tokio::time::timeout(Duration::from_secs(30), waiter.next()).await.unwrap();
    store.cancel("p").await.unwrap();
    tokio::time::timeout(Duration::from_secs(30), waiter.next()).await.unwrap();
}

/// Nothing changes where the partition is at another one.
pub async fn an_action_is_for_a_version(db: TestDb) {
    let store = db.store();
    let held = NewPartition { manual_checkpoint: true, keep_history: true, ..NewPartition::new("p") };
    push_to(&store, &held, &[("a", 2)]).await;
    let all = RetryFilter::default();
    let actions = [
        Action::Pause,
        Action::Resume,
        Action::Advance,
        Action::Rewind(0),
        Action::Seal,
        Action::Retry(all),
        Action::Cancel,
    ];
    for action in &actions {
        let before = partition(&store, "p").await;
        for stale in [before.version - 1, before.version + 1] {
            let changed = store.act("p", Some(stale), action).await.unwrap_err();
            let told = format!("at version {}, not {stale}", before.version);
            assert!(
                matches!(&changed, StoreError::Changed(text) if text.contains(&told)),
                "{action:?}: {changed:?}"
            );
        }
        let after = partition(&store, "p").await;
        assert_eq!((after.version, after.updated_at), (before.version, before.updated_at), "{action:?}");
        store.act("p", Some(before.version), action).await.unwrap();
    }
    assert_eq!(partition(&store, "p").await.status, PartitionStatus::Cancelled);
    let nowhere = store.act("nowhere", Some(0), &Action::Pause).await.unwrap_err();
    assert!(matches!(nowhere, StoreError::NotFound(_)), "{nowhere:?}");
}

/// Both have seen the same version, and come at the same time: what one does is not done over by the other.
pub async fn of_two_for_a_version_one_acts(db: TestDb) {
    let (one, another) = (db.store(), db.another_store().await);
    push(&one, "p", &[("a", 0)]).await;
    for _ in 0..20 {
        let version = partition(&one, "p").await.version;
        let acts = [&one, &another].map(|store| {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    match store.act("p", Some(version), &Action::Pause).await {
                        Err(error) if error.is_retryable() => {}
                        acted => return acted.map(drop),
                    }
                }
            })
        });
        let mut acted = 0;
        for act in acts {
            match act.await.unwrap() {
                Ok(()) => acted += 1,
                Err(error) => assert!(matches!(error, StoreError::Changed(_)), "{error:?}"),
            }
        }
        assert_eq!(acted, 1);
        one.resume("p").await.unwrap();
    }
    if !db.is_postgres() {
        return;
    }
    // A change that has not been committed decides too.
    let version = partition(&one, "p").await.version;
    let mut open = db.begin().await;
    open.execute("UPDATE gatefeed_partitions SET version = version + 1 WHERE id = 'p'").await.unwrap();
    let store = one.clone();
    let waiting = tokio::spawn(async move { store.act("p", Some(version), &Action::Cancel).await });
    // Of this test's schema alone.
    let table = db.table("gatefeed_partitions");
    let is_waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND position('{table}' in query) > 0"
    );
    while db.count(&is_waiting).await == 0 {
        assert!(!waiting.is_finished(), "it did not wait for the row");
        tokio::task::yield_now().await;
    }
    open.commit().await.unwrap();
    let changed = waiting.await.unwrap().unwrap_err();
    assert!(matches!(changed, StoreError::Changed(_)), "{changed:?}");
    assert_eq!(partition(&one, "p").await.status, PartitionStatus::Available);
}
