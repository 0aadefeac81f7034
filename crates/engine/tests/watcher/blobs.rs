//! Large data, which lies in a blob store.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use gatefeed_core::{
    Store, StoreError,
    answer::Answer,
    blob::{BLOB_TYPE, Link},
    gather::{Ended, Gather},
    inspect::{DataPart, ItemFilter},
    item::{Data, ItemStatus, NewItem},
    partition::NewPartition,
    store::{RetryFilter, Rewound},
};
use gatefeed_engine::{
    Batch, Policy,
    dispatch::{HttpOptions, HttpProcessor, parse_target},
};
use gatefeed_testkit::handler::{Handler, Reply};

use crate::{
    db::{Db, child, item, retries, watcher, within},
    record::{Log, What},
};

on_both! {
    handlers_get_the_bytes handlers_get_links a_gate_gets_links a_rewind_brings_the_first_data_back a_blob_that_is_gone_fails_its_item
    a_damaged_blob_fails_its_item what_gathers_a_blob_that_is_gone_fails
    a_blob_store_that_is_away_fails_nothing an_answer_cannot_refer_to_blobs a_full_blob_store_delays_only
}

const LARGE: usize = 50_000;

fn large(letter: u8) -> Data {
    Data { bytes: vec![letter; LARGE].into(), content_type: "text/plain".into() }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// In, out, and in again: an answer's data and that of its children go where large data goes.
async fn handlers_get_the_bytes(db: Arc<Db>) {
    let folder = tempfile::tempdir().unwrap();
    let store = db.with_blobs(folder.path(), 1000).await;
    let items = [NewItem { data: large(b'a'), ..item("p", "i", 0) }, item("p", "small", 0)];
    store.push(&NewPartition::new("p"), &items).await.unwrap();
    let log = Log::new();
    let processor = log.processor(async |delivery| {
        assert!(delivery.link.is_none());
        Ok(match (&*delivery.item, delivery.gate) {
            ("i", 0) => {
                assert_eq!((&delivery.data, &*delivery.content_type), (&large(b'a').bytes, "text/plain"));
                let child = gatefeed_core::answer::Child { data: large(b'c'), ..child(Some(1)) };
                Answer::to_gate(1).with_data(large(b'b')).with_item(child)
            }
            ("i", 1) => {
                assert_eq!(delivery.data, large(b'b').bytes);
                Answer::done()
            }
            ("small", 0) => Answer::done(),
            (_, 1) => {
                assert_eq!(delivery.data, large(b'c').bytes);
                Answer::done()
            }
            other => panic!("{other:?}"),
        })
    });
    assert!(!within("idle", watcher(store.clone()).processor(processor).run()).await.unwrap().failed);
    assert_eq!(log.count(What::Began), 4);
    assert_eq!(files(folder.path()).len(), 3);
    let filter =
        ItemFilter { partition: "p".into(), limit: 10, data: DataPart::All, ..ItemFilter::default() };
    let rows = store.items(&filter).await.unwrap();
    assert_eq!(rows.iter().filter(|row| row.size == LARGE as i64).count(), 2);
}

/// With nothing in memory, however large they are; small data comes as ever.
async fn handlers_get_links(db: Arc<Db>) {
    let folder = tempfile::tempdir().unwrap();
    let store = db.with_blobs(folder.path(), 1000).await;
    let items = [NewItem { data: large(b'a'), ..item("p", "i", 0) }, item("p", "small", 0)];
    store.push(&NewPartition::new("p"), &items).await.unwrap();
    let log = Log::new();
    let processor = log.processor(async |delivery| {
        if &*delivery.item == "small" {
            assert!(delivery.link.is_none() && !delivery.data.is_empty());
            return Ok(Answer::done());
        }
        assert_eq!((&delivery.data, &*delivery.content_type), (&Bytes::new(), "text/plain"));
        assert!(matches!(&delivery.link, Some(Link::Relative(link)) if link.starts_with("v1/blobs/")));
        Ok(Answer::done())
    });
    // Less than the data has.
    let run = watcher(store).blob_links(true).max_payload(100).processor(processor).run();
    assert!(!within("idle", run).await.unwrap().failed);
    log.assert_once(2);
}

/// One gate gets links, the others the data.
async fn a_gate_gets_links(db: Arc<Db>) {
    let folder = tempfile::tempdir().unwrap();
    let store = db.with_blobs(folder.path(), 1000).await;
    let items = [0, 1].map(|gate| NewItem { data: large(b'a'), ..item("p", &format!("i{gate}"), gate) });
    store.push(&NewPartition::new("p"), &items).await.unwrap();
    let log = Log::new();
    let processor = log.processor(async |delivery| {
        assert_eq!(
            (delivery.link.is_some(), delivery.data.is_empty()),
            (delivery.gate == 1, delivery.gate == 1)
        );
        Ok(Answer::done())
    });
    let policy = Policy { blob_links: true, ..Policy::default() };
    let run = watcher(store).gate_policy("default", 1, policy).processor(processor).run();
    assert!(!within("idle", run).await.unwrap().failed);
    log.assert_once(2);
}

/// What is kept is the reference, whether the handler got the data or a link to it.
async fn a_rewind_brings_the_first_data_back(db: Arc<Db>) {
    for links in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let store = db.with_blobs(folder.path(), 1000).await;
        let id = format!("links {links}");
        let partition = NewPartition { keep_history: true, ..NewPartition::new(&id) };
        store.push(&partition, &[NewItem { data: large(b'a'), ..item(&id, "i", 0) }]).await.unwrap();
        let processor = Log::new().processor(async |_| Ok(Answer::done().with_data(large(b'b'))));
        within("idle", watcher(store.clone()).blob_links(links).processor(processor).run()).await.unwrap();
        assert_eq!(store.rewind(&id, 0).await.unwrap(), Rewound { items: 1, removed: 0 });
        assert_eq!(files(folder.path()).len(), 2, "nothing was put twice");
        let filter = ItemFilter { partition: id, limit: 10, data: DataPart::All, ..ItemFilter::default() };
        let row = store.items(&filter).await.unwrap().remove(0);
        assert_eq!((row.data.as_deref(), &*row.content_type), (Some(&large(b'a').bytes[..]), "text/plain"));
        store.cancel(&filter.partition).await.unwrap();
    }
}

/// It says which, after as many tries as any attempt that fails.
async fn a_blob_that_is_gone_fails_its_item(db: Arc<Db>) {
    let folder = tempfile::tempdir().unwrap();
    let store = db.with_blobs(folder.path(), 1000).await;
    let items = [NewItem { data: large(b'a'), ..item("p", "i", 0) }, item("p", "small", 0)];
    store.push(&NewPartition::new("p"), &items).await.unwrap();
    files(folder.path()).iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let processor = Log::new().processor(async |_| Ok(Answer::done()));
    let run = watcher(store).retry(retries(Some(2))).processor(processor).run();
    assert!(within("idle", run).await.unwrap().failed);
    let row = db_row(&db, "i").await;
    assert_eq!((row.status, row.retry_count), (ItemStatus::Failed, 2));
    assert!(row.error_messages.unwrap().contains("is not in the blob store"));
    assert_eq!(db_row(&db, "small").await.status, ItemStatus::Complete);
}

/// As one that is gone.
async fn a_damaged_blob_fails_its_item(db: Arc<Db>) {
    let folder = tempfile::tempdir().unwrap();
    let store = db.with_blobs(folder.path(), 1000).await;
    let items = [NewItem { data: large(b'a'), ..item("p", "i", 0) }, item("p", "small", 0)];
    store.push(&NewPartition::new("p"), &items).await.unwrap();
    files(folder.path()).iter().for_each(|file| std::fs::write(file, "short").unwrap());
    let processor = Log::new().processor(async |_| Ok(Answer::done()));
    let run = watcher(store).retry(retries(Some(1))).processor(processor).run();
    assert!(within("idle", run).await.unwrap().failed);
    let row = db_row(&db, "i").await;
    assert_eq!((row.status, row.retry_count), (ItemStatus::Failed, 1));
    let told = row.error_messages.unwrap();
    assert!(told.contains("is damaged: it has 5 bytes instead of 50000"), "{told}");
    assert!(!told.contains("database"), "{told}");
    assert_eq!(db_row(&db, "small").await.status, ItemStatus::Complete);
}

const GATHER: Gather = Gather { gate: 0, status: Ended::Complete };

fn http(handler: &Handler, change: impl FnOnce(&mut HttpOptions)) -> HttpProcessor {
    let mut options = HttpOptions::default();
    change(&mut options);
    HttpProcessor::new(vec![parse_target(&handler.url()).unwrap()], options).unwrap()
}

/// An item with large data that is through at gate 0, and then these.
async fn push_through(store: &Arc<dyn Store>, later: &[NewItem]) {
    let large = NewItem { data: large(b'a'), ..item("p", "large", 0) };
    store.push(&NewPartition::new("p"), &[large]).await.unwrap();
    let processor = Log::new().processor(async |_| Ok(Answer::done()));
    assert!(!within("idle", watcher(store.clone()).processor(processor).run()).await.unwrap().failed);
    store.push(&NewPartition::new("p"), later).await.unwrap();
}

async fn row(store: &Arc<dyn Store>, id: &str) -> gatefeed_core::inspect::ItemRow {
    let filter = ItemFilter { partition: "p".into(), id: Some(id.into()), limit: 1, ..ItemFilter::default() };
    store.items(&filter).await.unwrap().remove(0)
}

/// What it gathers is as much a part of it as its own data, whether that is sent, fetched, or in a batch.
async fn what_gathers_a_blob_that_is_gone_fails(db: Arc<Db>) {
    let folder = tempfile::tempdir().unwrap();
    let store = db.with_blobs(folder.path(), 1000).await;
    push_through(&store, &[NewItem { gather: Some(GATHER), ..item("p", "sum", 1) }]).await;
    files(folder.path()).iter().for_each(|file| std::fs::remove_file(file).unwrap());
    let handler = Handler::always(Reply::ok()).await;
    let fetched = |options: &mut HttpOptions| {
        options.gather_max = 50;
        options.public_url = Some("http://h:1/".parse().unwrap());
    };
    let in_a_batch = Some(Batch { size: 10, linger: Duration::ZERO });
    for (processor, batch) in [
        (http(&handler, |_| {}), None),
        (http(&handler, fetched), None),
        (http(&handler, |_| {}), in_a_batch),
    ] {
        let policy = Policy { retry: retries(Some(2)), batch, ..Policy::default() };
        let run = watcher(store.clone()).feed_policy("default", policy).processor(processor).run();
        assert!(within("idle", run).await.unwrap().failed);
        let row = row(&store, "sum").await;
        assert_eq!((row.status, row.retry_count), (ItemStatus::Failed, 2));
        let told = row.error_messages.unwrap();
        assert!(
            told.contains("cannot gather: the blob") && told.contains("is not in the blob store"),
            "{told}"
        );
        store.retry("p", &RetryFilter::default()).await.unwrap();
    }
    assert_eq!(handler.requests().len(), 0);
}

/// However often it is asked in vain.
async fn a_blob_store_that_is_away_fails_nothing(db: Arc<Db>) {
    let folder = tempfile::tempdir().unwrap();
    let (path, aside) = (folder.path().join("blobs"), folder.path().join("aside"));
    let store = db.with_blobs(&path, 1000).await;
    let gathering = NewItem { gather: Some(GATHER), ..item("p", "sum", 1) };
    push_through(&store, &[NewItem { data: large(b'b'), ..item("p", "own", 1) }, gathering]).await;
    let before = row(&store, "sum").await.version;
    std::fs::rename(&path, &aside).unwrap();
    std::fs::write(&path, "").unwrap();
    let told = store.load("p", "own", row(&store, "own").await.version).await.unwrap_err();
    assert!(matches!(&told, StoreError::BlobStore(why) if why.contains("cannot read the blob")), "{told}");
    let handler = Handler::always(Reply::ok()).await;
    let run = watcher(store.clone()).retry(retries(Some(0))).processor(http(&handler, |_| {})).run();
    let run = tokio::spawn(run);
    let is_delayed = async {
        while row(&store, "sum").await.version < before + 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within("delayed twice", is_delayed).await;
    let told = row(&store, "sum").await;
    assert_eq!((told.status, told.retry_count), (ItemStatus::Available, 0));
    assert!(told.error_messages.unwrap().contains("cannot gather: cannot read the blob"));
    std::fs::remove_file(&path).unwrap();
    std::fs::rename(&aside, &path).unwrap();
    assert!(!within("idle", run).await.unwrap().unwrap().failed);
    assert_eq!(handler.requests().len(), 2);
}

async fn db_row(db: &Db, id: &str) -> gatefeed_core::inspect::ItemRow {
    let filter = ItemFilter { partition: "p".into(), id: Some(id.into()), limit: 1, ..ItemFilter::default() };
    db.store.items(&filter).await.unwrap().remove(0)
}

/// It would read what is another's; with and without a blob store.
async fn an_answer_cannot_refer_to_blobs(db: Arc<Db>) {
    let folder = tempfile::tempdir().unwrap();
    for (id, store) in [("p", db.with_blobs(folder.path(), 1000).await), ("q", db.another().await)] {
        store.push(&NewPartition::new(id), &[item(id, "i", 0)]).await.unwrap();
        let data = Data { bytes: "x".into(), content_type: format!("{BLOB_TYPE}; size=1; of=a/b") };
        let processor = Log::new().processor(move |_| {
            let answer = Answer::done().with_data(data.clone());
            async { Ok(answer) }
        });
        let run = watcher(store).retry(retries(Some(0))).processor(processor).run();
        assert!(within("idle", run).await.unwrap().failed);
        let row = db.item(id, "i").await;
        assert_eq!(row.status, ItemStatus::Failed);
        assert!(row.error_messages.unwrap().contains("gatefeed's own"));
    }
}

/// The answer is given back, and asked for again: nothing is written that cannot be read.
async fn a_full_blob_store_delays_only(db: Arc<Db>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("blobs");
    let store = db.with_blobs(&path, 1000).await;
    store.push(&NewPartition::new("p"), &[item("p", "i", 0)]).await.unwrap();
    // A file stands where a folder is to be: as a full disk, it takes nothing.
    let space = path.join(store.blob_space().await.unwrap().id.simple().to_string());
    std::fs::write(&space, "").unwrap();
    let deliveries = Arc::new(AtomicUsize::new(0));
    let (in_the_way, seen) = (space.clone(), deliveries.clone());
    let processor = Log::new().processor(move |_| {
        if seen.fetch_add(1, Ordering::SeqCst) == 1 {
            std::fs::remove_file(&in_the_way).unwrap();
        }
        async { Ok(Answer::done().with_data(large(b'b'))) }
    });
    assert!(!within("idle", watcher(store.clone()).processor(processor).run()).await.unwrap().failed);
    let filter =
        ItemFilter { partition: "p".into(), limit: 10, data: DataPart::All, ..ItemFilter::default() };
    let row = store.items(&filter).await.unwrap().remove(0);
    assert_eq!(deliveries.load(Ordering::SeqCst), 2);
    assert_eq!((row.retry_count, row.data.as_deref()), (0, Some(&large(b'b').bytes[..])));
}
