//! Lanes: what people look at and do, however slow it is or long it waits, is nothing that a watcher waits for. On
//! Postgres, where calls wait for each other's locks; on SQLite reading waits for nobody, and its own tests take the
//! connections.

use std::{future::Future, sync::Arc};

use gatefeed_core::{Result, Store, StoreError, inspect::Awaited, outcome::Settled, store::Checkpointed};
use tokio::task::JoinHandle;

use super::given::*;

/// More than a store has connections for them.
const CROWD: usize = 20;

/// Calls that wait for a lock: at least three do when this returns, or have waited for long enough.
async fn crowd<T: Send + 'static, F: Future<Output = Result<T>> + Send + 'static>(
    db: &TestDb,
    call: impl Fn(Arc<dyn Store>) -> F,
) -> Vec<JoinHandle<()>> {
    let crowd = (0..CROWD).map(|_| {
        let call = call(db.store());
        // Some are refused: there are not connections for all.
        tokio::spawn(async move { drop(call.await) })
    });
    let crowd: Vec<JoinHandle<()>> = crowd.collect();
    let schema = db.table("").replace('\'', "''");
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{schema}%' \
         AND pid <> pg_backend_pid()"
    );
    while db.count(&waiting).await < 3 && !crowd.iter().any(JoinHandle::is_finished) {
        tokio::task::yield_now().await;
    }
    crowd
}

/// A watcher's way with the partition "free".
async fn work(store: &Arc<dyn Store>) {
    store.ping().await.unwrap();
    let lease = lease(store, "w", "free").await;
    let leases = std::slice::from_ref(&lease);
    assert_eq!(store.observe(leases).await.unwrap().len(), 1);
    assert_eq!(store.overdue(leases, 10).await.unwrap().len(), 1);
    let due = due(store, &lease).await;
    assert!(store.load("free", &due[0].id, due[0].version).await.unwrap().is_some());
    let child = item("free", "child", 0);
    let outcome = with_children(&lease, &due[0], done(&due[0]), vec![child]);
    assert_eq!(complete_patiently(store, &[outcome]).await, [Settled::Written]);
    complete_all(store, &lease).await;
    assert_eq!(checkpoint(store, &lease).await, Checkpointed::Closed);
}

/// What requests begin with.
async fn ask(store: &Arc<dyn Store>) {
    assert!(store.glance("free").await.unwrap().is_some());
    assert!(store.tokens().await.unwrap().is_empty());
    store.callback_key().await.unwrap();
    let awaited = [Awaited::Partition("free".into())];
    assert_eq!(store.ended(&awaited).await.unwrap(), [true]);
    assert_eq!(item_row(store, "free", "child").await.id, "child");
    push(store, "more", &[("i", 0)]).await;
    assert_eq!(store.backlog("default", 10).await.unwrap(), 2);
}

/// Actions that wait for a partition that somebody has locked.
pub async fn actions_that_wait_hold_up_nobody_else(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    let store = db.store();
    for partition in ["locked", "free"] {
        push(&store, partition, &[("i", 0)]).await;
    }
    let mut other = db.begin().await;
    other.execute("UPDATE gatefeed_partitions SET priority = 1 WHERE id = 'locked'").await.unwrap();
    let crowd = crowd(&db, |store| async move { store.pause("locked").await }).await;
    promptly("a watcher", work(&store)).await;
    promptly("a request", ask(&store)).await;
    assert_eq!(promptly("a look", store.status()).await.unwrap().len(), 1);
    assert!(crowd.iter().any(|call| !call.is_finished()), "nobody waited");
    other.rollback().await;
    crowd.iter().for_each(JoinHandle::abort);
}

/// Looks that take long.
pub async fn slow_looks_hold_up_nobody_else(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    let store = db.store();
    for partition in ["waiting", "free"] {
        push(&store, partition, &[("i", 0)]).await;
    }
    db.run("UPDATE gatefeed_partitions SET status = 'paused' WHERE id = 'waiting'").await;
    // `status` looks at the watchers that are alive.
    let mut other = db.begin().await;
    other.execute("LOCK TABLE gatefeed_watchers IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let crowd = crowd(&db, |store| async move { store.status().await }).await;
    promptly("a watcher", work(&store)).await;
    promptly("an action", store.resume("waiting")).await.unwrap();
    promptly("a request", ask(&store)).await;
    assert!(crowd.iter().any(|call| !call.is_finished()), "nobody waited");
    other.rollback().await;
    crowd.iter().for_each(JoinHandle::abort);
}

/// Items that somebody has locked and a watcher notes an attempt of.
pub async fn locked_suspects_hold_up_nobody_else(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    let store = db.store();
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let mut other = db.begin().await;
    other.execute("UPDATE gatefeed_items SET priority = 1 WHERE id = 'i'").await.unwrap();
    let (noted, version) = (lease.clone(), due[0].version);
    let note = move |store: Arc<dyn Store>| {
        let lease = noted.clone();
        async move { store.begin_suspect(&lease, "i", version).await }
    };
    let noting = crowd(&db, note).await;
    assert_eq!(store.observe(std::slice::from_ref(&lease)).await.unwrap().len(), 1);
    let error = store.begin_suspect(&lease, "i", version).await.unwrap_err();
    assert!(matches!(error, StoreError::Locked(_)), "{error:?}");
    other.rollback().await;
    for call in noting {
        call.await.unwrap();
    }
    assert!(store.begin_suspect(&lease, "i", version).await.unwrap().is_none_or(|now| now > version));
}
