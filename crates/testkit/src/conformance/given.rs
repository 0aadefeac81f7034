//! What the cases share: making partitions, taking leases, completing items.

use std::{future::Future, sync::Arc, time::Duration};

use gatefeed_core::{
    Result, Store,
    inspect::{DataPart, ItemFilter, ItemRow, PartitionFilter, PartitionRow},
    item::{Data, DueItem, ItemStatus, NewItem},
    lease::{Claim, Grant, Lease},
    outcome::{Change, Completion, Settled},
    partition::NewPartition,
    store::{Checkpointed, Page, PageRequest},
};

use crate::Db;

/// The namespace of a case.
pub type TestDb = Arc<dyn Db>;

/// How long an owner of these tests keeps an idle partition.
pub const HOLD: Duration = Duration::from_secs(2);

/// How long a lease of these tests lasts: longer than any case.
pub const LEASE: Duration = Duration::from_secs(600);

/// What must not wait for a lock is given this long; the lock is held until it is over.
pub async fn promptly<T>(what: &str, call: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(Duration::from_secs(20), call).await;
    outcome.unwrap_or_else(|_| panic!("{what} waited for a lock"))
}

/// Repeats a call while the database asks for it, as the engine does.
pub async fn patiently<T, F: Future<Output = Result<T>>>(mut call: impl FnMut() -> F) -> T {
    loop {
        match call().await {
            Ok(value) => return value,
            Err(e) if e.is_retryable() => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(e) => panic!("{e:?}"),
        }
    }
}

/// Completes, asking again for what is busy, as the engine does.
pub async fn complete_patiently(store: &Arc<dyn Store>, batch: &[Completion]) -> Vec<Settled> {
    let mut settled = patiently(|| store.complete(batch)).await;
    while let Some(busy) = settled.iter().position(|s| *s == Settled::Busy) {
        settled[busy] = patiently(|| store.complete(std::slice::from_ref(&batch[busy]))).await[0];
    }
    settled
}

/// An item with some JSON that names it.
pub fn item(partition: &str, id: &str, gate: i32) -> NewItem {
    let data = Data::json(format!("{{\"id\":\"{id}\"}}"));
    NewItem { gate, ..NewItem::new(partition, id, data) }
}

/// Pushes items, given as (id, gate), into a partition with default settings.
pub async fn push(store: &Arc<dyn Store>, partition: &str, items: &[(&str, i32)]) {
    push_to(store, &NewPartition::new(partition), items).await;
}

/// Pushes items, given as (id, gate), into a partition.
pub async fn push_to(store: &Arc<dyn Store>, partition: &NewPartition, items: &[(&str, i32)]) {
    let items: Vec<_> = items.iter().map(|(id, gate)| item(&partition.id, id, *gate)).collect();
    store.push(partition, &items).await.unwrap();
}

/// The partition as people see it.
pub async fn partition(store: &Arc<dyn Store>, id: &str) -> PartitionRow {
    let filter = PartitionFilter { id: Some(id.to_owned()), limit: 10, ..PartitionFilter::default() };
    let mut rows = store.partitions(&filter).await.unwrap();
    assert_eq!(rows.len(), 1, "partition {id}");
    rows.remove(0)
}

/// The item as people see it, with its data.
pub async fn item_row(store: &Arc<dyn Store>, partition: &str, id: &str) -> ItemRow {
    let filter = ItemFilter { id: Some(id.to_owned()), ..all_items(partition) };
    let mut rows = store.items(&filter).await.unwrap();
    assert_eq!(rows.len(), 1, "item {id} of {partition}");
    rows.remove(0)
}

/// Every item of a partition, with data.
pub fn all_items(partition: &str) -> ItemFilter {
    ItemFilter {
        partition: partition.to_owned(),
        limit: 10_000,
        data: DataPart::All,
        ..ItemFilter::default()
    }
}

/// The ids of a partition's items, in order.
pub async fn item_ids(store: &Arc<dyn Store>, partition: &str) -> Vec<String> {
    store.items(&all_items(partition)).await.unwrap().into_iter().map(|i| i.id.to_string()).collect()
}

/// Asks for up to `limit` partitions of some feeds.
pub async fn claim_feeds(store: &Arc<dyn Store>, owner: &str, feeds: &[&str], limit: usize) -> Vec<Grant> {
    let feeds = feeds.iter().map(|f| (*f).to_owned()).collect();
    let claim = Claim { owner: owner.into(), feeds, duration: LEASE, limit, due_for: Duration::ZERO };
    patiently(|| store.claim(&claim)).await
}

/// Asks for up to `limit` partitions of the default feed.
pub async fn claim(store: &Arc<dyn Store>, owner: &str, limit: usize) -> Vec<Grant> {
    claim_feeds(store, owner, &["default"], limit).await
}

/// Leases this partition, the only one there is to lease.
pub async fn grant(store: &Arc<dyn Store>, owner: &str, partition: &str) -> Grant {
    let mut grants = claim(store, owner, 10).await;
    let granted: Vec<_> = grants.iter().map(|g| g.lease.partition.to_string()).collect();
    assert_eq!(granted, [partition]);
    grants.remove(0)
}

/// As [`grant`], the lease only.
pub async fn lease(store: &Arc<dyn Store>, owner: &str, partition: &str) -> Arc<Lease> {
    grant(store, owner, partition).await.lease
}

/// Lets the lease of a partition run out.
pub async fn expire(db: &TestDb, partition: &str) {
    let past = db.in_secs(-5.0);
    let sql = format!("UPDATE gatefeed_partitions SET until = {past} WHERE id = '{partition}'");
    assert_eq!(db.run(&sql).await, 1);
}

/// Lets a lease run out and takes the partition over.
pub async fn steal(db: &TestDb, partition: &str, owner: &str) -> Grant {
    expire(db, partition).await;
    grant(&db.store(), owner, partition).await
}

/// A partition with these items, leased by "w", and its due items.
pub async fn leased(db: &TestDb, id: &str, items: &[(&str, i32)]) -> (Arc<Lease>, Vec<DueItem>) {
    let store = db.store();
    push(&store, id, items).await;
    let lease = lease(&store, "w", id).await;
    let due = due(&store, &lease).await;
    (lease, due)
}

/// One page.
pub async fn page(store: &Arc<dyn Store>, lease: &Arc<Lease>, limit: usize) -> Page {
    let request = PageRequest { lease: lease.clone(), after: None, limit };
    let mut pages = patiently(|| store.page(std::slice::from_ref(&request))).await;
    assert_eq!(pages.len(), 1);
    pages.remove(0)
}

/// Everything that is due, read in pages of `limit`.
pub async fn due_by(store: &Arc<dyn Store>, lease: &Arc<Lease>, limit: usize) -> Vec<DueItem> {
    let mut items = Vec::new();
    let mut after = None;
    loop {
        let request = PageRequest { lease: lease.clone(), after, limit };
        let mut pages = patiently(|| store.page(std::slice::from_ref(&request))).await;
        let page = pages.remove(0);
        assert!(page.items.len() <= limit);
        items.extend(page.items);
        match page.next {
            Some(next) => after = Some(next),
            None => return items,
        }
    }
}

/// Everything that is due.
pub async fn due(store: &Arc<dyn Store>, lease: &Arc<Lease>) -> Vec<DueItem> {
    due_by(store, lease, 1000).await
}

/// The ids of what is due.
pub async fn due_ids(store: &Arc<dyn Store>, lease: &Arc<Lease>) -> Vec<String> {
    due(store, lease).await.into_iter().map(|i| i.id.to_string()).collect()
}

/// The item is through.
pub fn done(item: &DueItem) -> Change {
    with_status(item, ItemStatus::Complete)
}

/// The item gets another status and is otherwise left alone.
pub fn with_status(item: &DueItem, status: ItemStatus) -> Change {
    Change {
        status,
        gate: item.gate,
        pass: item.pass + i32::from(status == ItemStatus::Complete),
        retry_count: item.retry_count,
        delay: None,
        data: None,
        error_messages: None,
        wait: None,
    }
}

/// A completion without children.
pub fn completion(lease: &Arc<Lease>, item: &DueItem, change: Change) -> Completion {
    with_children(lease, item, change, Vec::new())
}

/// A completion with children.
pub fn with_children(
    lease: &Arc<Lease>,
    item: &DueItem,
    change: Change,
    children: Vec<NewItem>,
) -> Completion {
    let version = item.version;
    let feed = "default".into();
    Completion {
        lease: lease.clone(),
        feed,
        item: item.id.clone(),
        version,
        change,
        children,
        nested: Vec::new(),
        kept: None,
    }
}

/// Gives every due item this status; returns how many there were.
pub async fn settle_all(store: &Arc<dyn Store>, lease: &Arc<Lease>, status: ItemStatus) -> usize {
    let due = due(store, lease).await;
    let batch: Vec<_> = due.iter().map(|i| completion(lease, i, with_status(i, status))).collect();
    let settled = complete_patiently(store, &batch).await;
    assert_eq!(settled, vec![Settled::Written; due.len()]);
    due.len()
}

/// Completes everything that is due; returns how many there were.
pub async fn complete_all(store: &Arc<dyn Store>, lease: &Arc<Lease>) -> usize {
    settle_all(store, lease, ItemStatus::Complete).await
}

/// One checkpoint of one partition.
pub async fn checkpoint(store: &Arc<dyn Store>, lease: &Arc<Lease>) -> Checkpointed {
    let steps = patiently(|| store.checkpoint(std::slice::from_ref(lease), HOLD)).await;
    assert_eq!(steps.len(), 1);
    steps[0]
}

/// Works on everything that can be claimed until nothing is left; returns how many items were completed.
pub async fn drain(store: &Arc<dyn Store>, owner: &str) -> usize {
    let mut completed = 0;
    loop {
        let grants = claim(store, owner, 10).await;
        if grants.is_empty() {
            return completed;
        }
        for grant in grants {
            completed += drain_lease(store, &grant.lease).await;
        }
    }
}

/// Works on a partition until it sleeps, closes or fails; returns how many items were completed.
pub async fn drain_lease(store: &Arc<dyn Store>, lease: &Arc<Lease>) -> usize {
    let mut completed = 0;
    loop {
        completed += complete_all(store, lease).await;
        match checkpoint(store, lease).await {
            Checkpointed::Due | Checkpointed::Advanced(_) => tokio::task::yield_now().await,
            Checkpointed::Busy | Checkpointed::Wait(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            Checkpointed::Slept | Checkpointed::Closed | Checkpointed::Failed => return completed,
            Checkpointed::Overdue => panic!("nothing waits for a callback here"),
            Checkpointed::Fenced => panic!("fenced, but nobody steals here"),
        }
    }
}
