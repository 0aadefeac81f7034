//! Lanes: what people look at and do, however slow it is or long it waits, is nothing that a watcher waits for. On
//! Postgres, where calls wait for each other's locks; on SQLite reading waits for nobody, and its own tests take the
//! connections.

use std::{future::Future, sync::Arc, time::Duration};

use gatefeed_core::{
    Result, Store, StoreError, callback::Ticket, inspect::Awaited, item::NewItem, outcome::Settled,
    partition::NewPartition, store::Checkpointed,
};
use tokio::task::JoinHandle;

use super::{callback::ticket, given::*};

/// More than a store has connections for them.
const CROWD: usize = 20;

/// Calls that wait for a lock: at least two do when this returns, or have waited for long enough.
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
    // Pushes wait for a lock that has the schema's name as a parameter only.
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid <> pg_backend_pid()
         AND (query LIKE '%{schema}%' OR query LIKE '%gatefeed push%')"
    );
    while db.count(&waiting).await < 2 && !crowd.iter().any(JoinHandle::is_finished) {
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
    for partition in ["locked", "free", "third"] {
        push(&store, partition, &[("i", 0)]).await;
    }
    db.run("UPDATE gatefeed_partitions SET status = 'paused' WHERE id = 'third'").await;
    let mut other = db.begin().await;
    other.execute("UPDATE gatefeed_partitions SET priority = 1 WHERE id = 'locked'").await.unwrap();
    let crowd = crowd(&db, |store| async move { store.pause("locked").await }).await;
    promptly("a watcher", work(&store)).await;
    promptly("a request", ask(&store)).await;
    assert_eq!(promptly("a look", store.status()).await.unwrap().len(), 1);
    promptly("an action elsewhere", store.resume("third")).await.unwrap();
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

/// Pushes that wait for another one into the same partition, and heartbeats for an item that somebody has locked.
pub async fn who_waits_for_a_partition_leaves_connections_to_the_others(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    let open = store.begin_push(&NewPartition::new("p")).await.unwrap();
    let many: Vec<NewItem> = (0..2_500).map(|n| item("p", &format!("m{n}"), 0)).collect();
    let pushes = crowd(&db, move |store| {
        let many = many.clone();
        async move { store.push(&NewPartition::new("p"), &many).await }
    })
    .await;
    let elsewhere = NewPartition { feed: "elsewhere".into(), ..NewPartition::new("q") };
    promptly("a push elsewhere", store.push(&elsewhere, &[item("q", "i", 0)])).await.unwrap();
    pushes.iter().for_each(JoinHandle::abort);
    drop(open);
    let (_, due) = leased(&db, "p", &[]).await;
    let mut other = db.begin().await;
    other.execute("UPDATE gatefeed_items SET priority = 1 WHERE partition_id = 'p'").await.unwrap();
    let ticket = ticket(&due[0], Duration::from_secs(60));
    let waiting = ticket.clone();
    let heartbeats = crowd(&db, move |store| {
        let ticket = waiting.clone();
        async move { store.heartbeat(&ticket).await }
    })
    .await;
    let elsewhere = Ticket { partition: "q".into(), ..ticket };
    promptly("a heartbeat elsewhere", store.heartbeat(&elsewhere)).await.unwrap();
    other.rollback().await;
    heartbeats.iter().for_each(JoinHandle::abort);
}
