//! A fresh namespace for each test, and looking into it.

use std::{future::Future, path::Path, sync::Arc, time::Duration};

use gatefeed_core::{
    Store,
    answer::Child,
    inspect::{DataPart, ItemFilter, ItemRow, PartitionFilter, PartitionRow},
    item::{Data, ItemStatus, NewItem},
    lease::{Claim, Grant},
    partition::{NewPartition, PartitionStatus},
    retry::RetryPolicy,
};
use gatefeed_engine::{Builder, Watcher};
use gatefeed_store::{BlobOptions, Options, connect};
use tempfile::TempDir;
use tokio::time::timeout;

/// No case takes longer, on however slow a machine: what does hangs.
const CASE_MAX: Duration = Duration::from_secs(120);
/// No single thing that a case waits for takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A SQLite file or a Postgres schema, migrated.
pub(crate) struct Db {
    url: String,
    options: Options,
    pub(crate) store: Arc<dyn Store>,
    /// Goes last, with the file in it.
    _dir: Option<TempDir>,
}

/// Runs one case.
pub(crate) async fn run<F: Future<Output = ()>>(db: Db, case: impl FnOnce(Arc<Db>) -> F) {
    assert!(timeout(CASE_MAX, case(Arc::new(db))).await.is_ok(), "not over after {CASE_MAX:?}");
}

/// Waits for something that has to happen.
pub(crate) async fn within<T>(what: &str, wait: impl Future<Output = T>) -> T {
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}: not after {PATIENCE:?}"))
}

impl Db {
    pub(crate) async fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", dir.path().join("gatefeed.db").display());
        Self::open(url, Options::default(), Some(dir)).await
    }

    pub(crate) async fn postgres() -> Self {
        let Ok(url) = std::env::var("GATEFEED_TEST_POSTGRES_URL") else {
            panic!(
                "GATEFEED_TEST_POSTGRES_URL is not set: run ./scripts/test, which starts a Postgres for the tests"
            )
        };
        let schema = Some(format!("watcher_{}", uuid::Uuid::new_v4().simple()));
        Self::open(url, Options { schema, ..Options::default() }, None).await
    }

    async fn open(url: String, options: Options, dir: Option<TempDir>) -> Self {
        let store = connect(&url, &options).await.unwrap();
        store.migrate().await.unwrap();
        Self { url, options, store, _dir: dir }
    }

    /// A second process's view of the same namespace.
    pub(crate) async fn another(&self) -> Arc<dyn Store> {
        connect(&self.url, &self.options).await.unwrap()
    }

    /// As [`Db::another`], with data of more than `inline_max` bytes in this folder.
    pub(crate) async fn with_blobs(&self, folder: &Path, inline_max: u64) -> Arc<dyn Store> {
        let blobs = Some(BlobOptions { url: format!("file://{}", folder.display()), inline_max });
        connect(&self.url, &Options { blobs, ..self.options.clone() }).await.unwrap()
    }

    /// Pushes items, given as (id, gate), into a partition with the default settings.
    pub(crate) async fn push(&self, partition: &str, items: &[(&str, i32)]) {
        self.push_to(&NewPartition::new(partition), items).await;
    }

    /// Pushes items, given as (id, gate).
    pub(crate) async fn push_to(&self, partition: &NewPartition, items: &[(&str, i32)]) {
        let items: Vec<_> = items.iter().map(|(id, gate)| item(&partition.id, id, *gate)).collect();
        self.store.push(partition, &items).await.unwrap();
    }

    /// Pushes `count` items `i000`, `i001`, … at gate 0.
    pub(crate) async fn push_many(&self, partition: &str, count: usize) {
        let items: Vec<_> = (0..count).map(|n| item(partition, &format!("i{n:03}"), 0)).collect();
        self.store.push(&NewPartition::new(partition), &items).await.unwrap();
    }

    pub(crate) async fn partition(&self, id: &str) -> PartitionRow {
        let filter = PartitionFilter { id: Some(id.to_owned()), limit: 2, ..PartitionFilter::default() };
        let mut rows = self.store.partitions(&filter).await.unwrap();
        assert_eq!(rows.len(), 1, "partition {id}");
        rows.remove(0)
    }

    /// Every item of a partition, with data, in order of id.
    pub(crate) async fn items(&self, partition: &str) -> Vec<ItemRow> {
        let partition = partition.to_owned();
        let filter = ItemFilter { partition, limit: 10_000, data: DataPart::All, ..ItemFilter::default() };
        self.store.items(&filter).await.unwrap()
    }

    pub(crate) async fn item(&self, partition: &str, id: &str) -> ItemRow {
        let found = self.items(partition).await.into_iter().find(|row| row.id == id);
        found.unwrap_or_else(|| panic!("item {id} of {partition}"))
    }

    /// Asserts that a partition and all its items, so many, are complete.
    pub(crate) async fn assert_complete(&self, partition: &str, count: usize) {
        let items = self.items(partition).await;
        let open: Vec<_> = items.iter().filter(|row| row.status != ItemStatus::Complete).collect();
        assert!(open.is_empty(), "{partition}: {open:?}");
        assert_eq!(items.len(), count, "{partition}");
        assert_eq!(self.partition(partition).await.status, PartitionStatus::Complete, "{partition}");
    }

    /// What somebody else could lease this moment.
    pub(crate) async fn claim_now(&self) -> Vec<Grant> {
        let claim = Claim {
            owner: "somebody else".into(),
            feeds: vec!["default".to_owned()],
            duration: Duration::from_secs(30),
            limit: 100,
            due_for: Duration::ZERO,
        };
        self.store.claim(&claim).await.unwrap()
    }

    /// Claims everything that is free this moment, gives it back, and says what it was: (partition, expiries).
    pub(crate) async fn free_now(&self) -> Vec<(String, i32)> {
        let grants = self.claim_now().await;
        let leases: Vec<_> = grants.iter().map(|grant| grant.lease.clone()).collect();
        self.store.release(&leases).await.unwrap();
        let mut free: Vec<_> = grants.iter().map(|g| (g.lease.partition.to_string(), g.expiries)).collect();
        free.sort();
        free
    }
}

/// A watcher for tests: looks often, retries soon, ends when nothing is left.
pub(crate) fn watcher(store: Arc<dyn Store>) -> Builder {
    Watcher::builder(store)
        .concurrency(10)
        .poll_interval(Duration::from_millis(20))
        .retry(retries(Some(5)))
        .until_idle(true)
}

/// Retries at once.
pub(crate) fn retries(max_retries: Option<u32>) -> RetryPolicy {
    RetryPolicy { max_retries, base: Duration::from_millis(1), cap: Duration::from_millis(5) }
}

/// An item with some JSON that names it.
pub(crate) fn item(partition: &str, id: &str, gate: i32) -> NewItem {
    let data = Data::json(format!("{{\"id\":\"{id}\"}}"));
    NewItem { gate, ..NewItem::new(partition, id, data) }
}

/// A child in its parent's partition without an id.
pub(crate) fn child(gate: Option<i32>) -> Child {
    Child {
        id: None,
        gate,
        priority: 0,
        partition: None,
        data: Data::json("1"),
        dependencies: Default::default(),
        gather: None,
    }
}
