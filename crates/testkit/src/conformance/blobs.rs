//! Large data lies in an object store, its row has a reference, and neither is ever without the other for long.

use std::{path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use gatefeed_core::{
    Store, StoreError,
    blob::{BLOB_TYPE, Collected, Link, MARK, PATH_BYTES, Reference},
    dependency::{Dependencies, Input},
    gather::{Ended, Gather, GatherRequest, PAGE_BYTES_MAX},
    ingest::{Arrival, Arrived},
    inspect::{DataPart, ItemFilter},
    item::{Data, DueItem, ItemStatus, NewItem},
    nested::{NewNested, Then},
    outcome::{Change, Completion, Kept, Settled},
    partition::NewPartition,
    store::Checkpointed,
    why::explain,
};
use tempfile::TempDir;

use super::given::*;
use crate::bucket::{Bucket, fetch};

/// Data with more bytes goes to the blob store.
const INLINE_MAX: u64 = 100;

/// A store with a blob store of its own.
struct WithBlobs {
    store: Arc<dyn Store>,
    place: Place,
}

/// Where the blobs lie.
enum Place {
    Folder(TempDir),
    Bucket(Bucket),
}

async fn with_blobs(db: &TestDb) -> WithBlobs {
    let place = match db.bucket() {
        Some(bucket) => Place::Bucket(bucket),
        None => Place::Folder(tempfile::tempdir().unwrap()),
    };
    let store = db.store_with_blobs(&place.url(), INLINE_MAX).await;
    WithBlobs { store, place }
}

fn large(letter: char) -> Data {
    let bytes = format!("{letter}").repeat(INLINE_MAX as usize + 1);
    Data { bytes: bytes.into(), content_type: "text/plain; charset=utf-8".into() }
}

fn large_item(id: &str, letter: char) -> NewItem {
    NewItem::new("p", id, large(letter))
}

impl Place {
    fn url(&self) -> String {
        match self {
            Self::Folder(folder) => format!("file://{}", folder.path().display()),
            Self::Bucket(bucket) => bucket.url(),
        }
    }

    /// What lies there.
    async fn paths(&self) -> Vec<String> {
        match self {
            Self::Folder(folder) => {
                let files = files(folder.path()).into_iter();
                files.map(|file| file.strip_prefix(folder.path()).unwrap().display().to_string()).collect()
            }
            Self::Bucket(bucket) => bucket.paths().await,
        }
    }

    async fn read(&self, path: &str) -> Bytes {
        match self {
            Self::Folder(folder) => std::fs::read(folder.path().join(path)).unwrap().into(),
            Self::Bucket(bucket) => bucket.read(path).await,
        }
    }

    async fn write(&self, path: &str, bytes: &[u8]) {
        match self {
            Self::Folder(folder) => {
                let path = folder.path().join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
            Self::Bucket(bucket) => bucket.write(path, bytes).await,
        }
    }

    async fn remove(&self, path: &str) {
        match self {
            Self::Folder(folder) => std::fs::remove_file(folder.path().join(path)).unwrap(),
            Self::Bucket(bucket) => bucket.remove(path).await,
        }
    }
}

/// The files under a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files
}

impl WithBlobs {
    async fn blobs(&self) -> usize {
        self.place.paths().await.len()
    }

    async fn push(&self, items: &[NewItem]) {
        self.store.push(&NewPartition::new("p"), items).await.unwrap();
    }

    async fn data(&self, item: &str) -> Data {
        let row = item_row(&self.store, "p", item).await;
        Data { bytes: row.data.unwrap().into(), content_type: row.content_type }
    }

    async fn collect(&self, older_than: Duration) -> Collected {
        self.store.blobs().unwrap().collect(older_than).await.unwrap()
    }

    /// As the engine of a watcher with blobs does it.
    async fn completion(
        &self,
        lease: &Arc<gatefeed_core::lease::Lease>,
        item: &DueItem,
        data: Data,
    ) -> Completion {
        let data = self.store.offload(vec![data]).await.unwrap().remove(0);
        let change = Change { data: Some(data), ..done(item) };
        let kept = Kept::of(item, item.data.clone().unwrap_or_default(), &change);
        Completion { kept, ..completion(lease, item, change) }
    }
}

/// A row has the reference only; the owner hears of the data as it is, and loads it.
pub async fn large_data_lies_in_the_blob_store(db: TestDb) {
    let with = with_blobs(&db).await;
    let fits = Data { bytes: "x".repeat(INLINE_MAX as usize).into(), ..Data::json("") };
    with.push(&[large_item("large", 'a'), NewItem::new("p", "small", fits.clone())]).await;
    assert_eq!(with.blobs().await, 1);
    assert_eq!(with.place.read(&with.place.paths().await[0]).await, large('a').bytes);
    let row =
        format!("octet_length(data) = {PATH_BYTES} AND content_type LIKE '{MARK} size=101; of=text/plain%'");
    assert!(db.item_is("p", "large", &row).await);
    assert!(db.item_is("p", "small", "octet_length(data) = 100 AND content_type = 'application/json'").await);
    let lease = lease(&with.store, "w", "p").await;
    let due = due(&with.store, &lease).await;
    assert_eq!((due[0].size, &*due[0].content_type), (101, "text/plain; charset=utf-8"));
    assert_eq!((&due[0].data, due[0].reference.is_some()), (&None, true));
    assert_eq!((due[1].data.as_ref(), &due[1].reference), (Some(&fits.bytes), &None));
    assert_eq!(with.store.load("p", "large", due[0].version).await.unwrap(), Some(large('a')));
    assert_eq!(with.store.load("p", "small", due[1].version).await.unwrap(), Some(fits));
    assert_eq!(with.store.load("p", "large", due[0].version + 1).await.unwrap(), None);
}

/// A push, one that comes bit by bit, what is posted one by one, an answer's data and its children.
pub async fn every_way_in_is_one_out(db: TestDb) {
    let with = with_blobs(&db).await;
    with.push(&[large_item("pushed", 'a')]).await;
    let mut push = with.store.begin_push(&NewPartition::new("p")).await.unwrap();
    push.add(&[large_item("bits", 'b')]).await.unwrap();
    push.commit().await.unwrap();
    let item = large_item("posted", 'e');
    let posted = Arrival { feed: "default".into(), own_feed_only: false, item, request: None };
    assert_eq!(with.store.ingest(&[posted]).await.unwrap(), [Arrived::Added]);
    let lease = lease(&with.store, "w", "p").await;
    let due = due(&with.store, &lease).await;
    let child = with.store.offload(vec![large('c')]).await.unwrap().remove(0);
    let child = NewItem::new("p", "child", child);
    let bits = due.iter().find(|item| &*item.id == "bits").unwrap();
    let answer = with.completion(&lease, bits, large('d')).await;
    let answer = Completion { children: vec![child], ..answer };
    assert_eq!(complete_patiently(&with.store, &[answer]).await, [Settled::Written]);
    for (item, letter) in [("pushed", 'a'), ("child", 'c'), ("bits", 'd'), ("posted", 'e')] {
        assert_eq!(with.data(item).await, large(letter), "{item}");
    }
    assert_eq!(with.blobs().await, 5, "what was replaced is garbage");
}

/// With the size and the content type of what lies there, and as much of it as is asked for.
pub async fn a_listing_shows_what_lies_there(db: TestDb) {
    let with = with_blobs(&db).await;
    with.push(&[large_item("large", 'a'), item("p", "small", 0)]).await;
    for (part, expected) in
        [(DataPart::None, None), (DataPart::First(3), Some("aaa")), (DataPart::First(500), Some("a"))]
    {
        let rows = with.store.items(&ItemFilter { data: part, ..all_items("p") }).await.unwrap();
        assert_eq!((rows[0].size, rows[0].content_type.as_str()), (101, "text/plain; charset=utf-8"));
        assert_eq!((rows[1].size, rows[1].content_type.as_str()), (14, "application/json"));
        let seen = rows.iter().map(|row| row.data.as_deref()).collect::<Vec<_>>();
        match expected {
            None => assert_eq!(seen, [None, None]),
            Some("aaa") => assert_eq!(seen, [Some(&b"aaa"[..]), Some(b"{\"i")]),
            Some(_) => assert_eq!(seen, [Some(&large('a').bytes[..]), Some(b"{\"id\":\"small\"}")]),
        }
    }
}

/// An item that takes its parent's output takes the reference.
pub async fn references_go_where_data_goes(db: TestDb) {
    let with = with_blobs(&db).await;
    let dependencies = Dependencies { input: Input::Parent, ..Dependencies::on(["a"]) };
    with.push(&[large_item("a", 'a'), NewItem { dependencies, ..item("p", "b", 0) }]).await;
    let lease = lease(&with.store, "w", "p").await;
    assert_eq!(complete_all(&with.store, &lease).await, 1);
    while checkpoint(&with.store, &lease).await == Checkpointed::Busy {}
    assert_eq!((with.data("b").await, with.blobs().await), (large('a'), 1));
    db.run("DELETE FROM gatefeed_items WHERE id = 'a'").await;
    assert_eq!(with.collect(Duration::ZERO).await, Collected { kept: 1, ..Collected::default() });
    assert_eq!(with.data("b").await, large('a'));
}

/// What is kept for a rewind is the reference, and it keeps the blob.
pub async fn a_rewind_brings_references_back(db: TestDb) {
    let with = with_blobs(&db).await;
    let keeping = NewPartition { keep_history: true, ..NewPartition::new("p") };
    with.store.push(&keeping, &[large_item("i", 'a')]).await.unwrap();
    let lease = lease(&with.store, "w", "p").await;
    let due = due(&with.store, &lease).await;
    let answer = with.completion(&lease, &due[0], large('b')).await;
    assert_eq!(complete_patiently(&with.store, &[answer]).await, [Settled::Written]);
    assert_eq!(with.data("i").await, large('b'));
    assert_eq!(with.collect(Duration::ZERO).await, Collected { kept: 2, ..Collected::default() });
    with.store.rewind("p", 0).await.unwrap();
    assert_eq!(with.data("i").await, large('a'));
    assert_eq!(with.collect(Duration::ZERO).await, Collected { kept: 1, blobs: 1, bytes: 101 });
}

/// An item that has waited gets its data and what became of them, as ever.
pub async fn nested_partitions_are_put_around_a_blob(db: TestDb) {
    let with = with_blobs(&db).await;
    let json = Data::json(format!("\"{}\"", "a".repeat(INLINE_MAX as usize)));
    with.push(&[NewItem::new("p", "i", json.clone())]).await;
    let parent = lease(&with.store, "w", "p").await;
    let due = due(&with.store, &parent).await;
    let change = Change { pass: 1, ..with_status(&due[0], ItemStatus::Waiting) };
    let nested = NewNested { id: "q".into(), feed: None, gate: 0, pass: 1, then: Then::Deliver };
    let answer = with_children(&parent, &due[0], change, vec![item("q", "c", 0)]);
    let answer = Completion { nested: vec![nested], ..answer };
    assert_eq!(complete_patiently(&with.store, &[answer]).await, [Settled::Written]);
    assert_eq!(checkpoint(&with.store, &parent).await, Checkpointed::Slept);
    let nested = lease(&with.store, "w", "q").await;
    assert_eq!(complete_all(&with.store, &nested).await, 1);
    assert_eq!(checkpoint(&with.store, &nested).await, Checkpointed::Closed);
    let parent = patient_lease(&with.store, "p").await;
    assert_eq!(checkpoint(&with.store, &parent).await, Checkpointed::Due);
    let due = super::given::due(&with.store, &parent).await;
    assert_eq!((&due[0].data, &*due[0].content_type), (&None, "application/json"));
    let data = with.store.load("p", "i", due[0].version).await.unwrap().unwrap();
    let text = String::from_utf8(data.bytes.to_vec()).unwrap();
    let whole = String::from_utf8(json.bytes.to_vec()).unwrap();
    assert!(text.starts_with(&format!("{{\"data\":{whole},\"partitions\":[{{\"id\":\"q\"")), "{text}");
    assert_eq!(with.collect(Duration::ZERO).await.kept, 1);
}

/// Once it is woken.
async fn patient_lease(store: &Arc<dyn Store>, partition: &str) -> Arc<gatefeed_core::lease::Lease> {
    loop {
        if let Some(grant) =
            claim(store, "w", 10).await.into_iter().find(|g| *g.lease.partition == *partition)
        {
            return grant.lease;
        }
        tokio::task::yield_now().await;
    }
}

/// However many references fit into a page of rows.
pub async fn what_is_gathered_is_fetched_in_pages(db: TestDb) {
    let with = with_blobs(&db).await;
    let of = |n: usize| {
        let data = Data { bytes: vec![b'0' + n as u8; 3 << 20].into(), content_type: "text/plain".into() };
        NewItem::new("p", format!("{n}"), data)
    };
    let items: Vec<_> = (0..3).map(of).collect();
    with.push(&items).await;
    db.run("UPDATE gatefeed_items SET status = 'complete'").await;
    let gather = Gather { gate: 0, status: Ended::Complete };
    let mut request = GatherRequest { partition: "p".into(), gather, after: None };
    let mut seen = Vec::new();
    loop {
        let page = with.store.gathered(&request).await.unwrap();
        assert!(page.items.iter().map(|item| item.data.bytes.len()).sum::<usize>() <= PAGE_BYTES_MAX);
        seen.extend(page.items.into_iter().map(|item| (item.id, item.data)));
        match page.next {
            Some(next) => request.after = Some(next),
            None => break,
        }
    }
    assert!(seen.into_iter().eq(items.into_iter().map(|item| (item.id, item.data))));
}

/// A process that does not know of it says what to do, and changes nothing.
pub async fn without_the_blob_store_nothing_is_lost(db: TestDb) {
    let with = with_blobs(&db).await;
    with.push(&[large_item("i", 'a')]).await;
    let store = db.store();
    assert!(store.blobs().is_none());
    let lease = lease(&store, "w", "p").await;
    let due = due(&store, &lease).await;
    assert_eq!((due[0].size, &due[0].data), (101, &None));
    let told = store.load("p", "i", due[0].version).await.unwrap_err();
    assert!(matches!(&told, StoreError::Config(why) if why.contains("--blob-store")), "{told}");
    let rows = store.items(&ItemFilter { data: DataPart::None, ..all_items("p") }).await.unwrap();
    assert_eq!((rows[0].size, rows[0].content_type.as_str()), (101, "text/plain; charset=utf-8"));
    let row = item_row(&store, "p", "i").await;
    assert!(row.data.is_none() && row.data_error.unwrap().contains("--blob-store"));
    assert_eq!(with.data("i").await, large('a'));
    for path in with.place.paths().await {
        with.place.remove(&path).await;
    }
    let gone = with.store.load("p", "i", due[0].version).await.unwrap_err();
    assert!(matches!(&gone, StoreError::Damaged(why) if why.contains("is not in the blob store")), "{gone}");
}

/// The others are shown, and it says why that one is not.
pub async fn a_listing_shows_the_others_where_one_is_gone(db: TestDb) {
    let with = with_blobs(&db).await;
    with.push(&[large_item("gone", 'a')]).await;
    let gone = with.place.paths().await.remove(0);
    with.push(&[large_item("here", 'b'), item("p", "small", 0)]).await;
    with.place.remove(&gone).await;
    for part in [DataPart::All, DataPart::First(3)] {
        let rows = with.store.items(&ItemFilter { data: part, ..all_items("p") }).await.unwrap();
        assert!(
            rows[0].data.is_none()
                && rows[0].data_error.as_ref().unwrap().contains("is not in the blob store")
        );
        assert_eq!((rows[0].size, rows[0].content_type.as_str()), (101, "text/plain; charset=utf-8"));
        assert!(rows[1..].iter().all(|row| row.data.is_some() && row.data_error.is_none()));
    }
    let rows = with.store.items(&ItemFilter { data: DataPart::None, ..all_items("p") }).await.unwrap();
    assert!(rows.iter().all(|row| row.data_error.is_none()), "nobody asked for it");
    // Whoever gathers it hears that it is gone, not that there is no such thing.
    db.run("UPDATE gatefeed_items SET status = 'complete'").await;
    let gather = Gather { gate: 0, status: Ended::Complete };
    let request = GatherRequest { partition: "p".into(), gather, after: None };
    let gathered = with.store.gathered(&request).await.unwrap_err();
    let is_told = |why: &str| why.contains("is not in the blob store");
    assert!(matches!(&gathered, StoreError::Damaged(why) if is_told(why)), "{gathered}");
    // Another length is another blob.
    with.place.write(&gone, b"short").await;
    let told = item_row(&with.store, "p", "gone").await.data_error.unwrap();
    assert!(told.contains("is damaged: it has 5 bytes instead of 101"), "{told}");
    let gathered = with.store.gathered(&request).await.unwrap_err();
    assert!(matches!(&gathered, StoreError::Damaged(why) if *why == told), "{gathered}");
}

/// It would read what is another's.
pub async fn a_reference_from_outside_is_refused(db: TestDb) {
    let with = with_blobs(&db).await;
    with.push(&[large_item("i", 'a')]).await;
    let lease = lease(&with.store, "w", "p").await;
    let stolen = due(&with.store, &lease).await[0].reference.as_ref().unwrap().to_data();
    for content_type in [stolen.content_type.as_str(), BLOB_TYPE, "APPLICATION/vnd.gatefeed.blob; x=y"] {
        let data = Data { content_type: content_type.to_owned(), ..stolen.clone() };
        for store in [&with.store, &db.store()] {
            let thief = [NewItem::new("q", "thief", data.clone())];
            assert!(store.push(&NewPartition::new("q"), &thief).await.unwrap_err().is_data());
            let mut push = store.begin_push(&NewPartition::new("q")).await.unwrap();
            assert!(push.add(&thief).await.unwrap_err().is_data());
            drop(push);
            assert!(store.offload(vec![data.clone()]).await.unwrap_err().is_data());
        }
    }
    // A row that was written by hand and is no reference is data like any other.
    let odd = format!(
        "INSERT INTO gatefeed_items (partition_id, id, data, content_type) VALUES ('p', 'odd', '../x', '{MARK} size=1; of=a/b')"
    );
    db.run(&odd).await;
    assert_eq!(item_row(&with.store, "p", "odd").await.data.as_deref(), Some(&b"../x"[..]));
}

/// A blob is there before its row: whoever dies in between leaves one that nobody misses.
pub async fn a_push_that_ends_early_leaves_garbage_only(db: TestDb) {
    let with = with_blobs(&db).await;
    let mut push = with.store.begin_push(&NewPartition::new("p")).await.unwrap();
    push.add(&[large_item("lost", 'a')]).await.unwrap();
    drop(push);
    with.push(&[large_item("kept", 'b')]).await;
    // An id that exists is left as it is, and so is its data.
    with.push(&[large_item("kept", 'c')]).await;
    // What is put into a bucket is there as a whole or not at all.
    let mut blobs = 3;
    if let Place::Folder(folder) = &with.place {
        std::fs::write(files(folder.path())[0].with_file_name("half#1"), "half").unwrap();
        blobs += 1;
    }
    assert_eq!(with.blobs().await, blobs);
    let young = with.collect(Duration::from_secs(3600)).await;
    assert_eq!(
        (young, with.blobs().await),
        (Collected::default(), blobs),
        "it may be about to be referred to"
    );
    assert_eq!(with.collect(Duration::ZERO).await, Collected { blobs: 2, bytes: 202, kept: 1 });
    assert_eq!((with.blobs().await, with.data("kept").await), (1, large('b')));
    assert_eq!(with.collect(Duration::ZERO).await, Collected { kept: 1, ..Collected::default() });
}

/// However many there are.
pub async fn what_is_referred_to_is_kept(db: TestDb) {
    let with = with_blobs(&db).await;
    let items: Vec<_> = (0..600).map(|n| large_item(&format!("{n:03}"), 'a')).collect();
    with.push(&items).await;
    db.run("DELETE FROM gatefeed_items WHERE id LIKE '%7'").await;
    assert_eq!(with.collect(Duration::ZERO).await, Collected { blobs: 60, bytes: 6060, kept: 540 });
    let rows = with.store.items(&all_items("p")).await.unwrap();
    assert!(rows.len() == 540 && rows.iter().all(|row| row.data.as_deref() == Some(&large('a').bytes[..])));
    db.run("DELETE FROM gatefeed_partitions").await;
    assert_eq!(with.collect(Duration::ZERO).await, Collected { blobs: 540, bytes: 54540, kept: 0 });
}

/// Several databases may share a folder or a bucket.
pub async fn each_database_collects_its_own(db: TestDb) {
    let with = with_blobs(&db).await;
    with.push(&[large_item("i", 'a')]).await;
    let own = db.store().blob_space().await.unwrap();
    assert_eq!(own, db.another_store().await.blob_space().await.unwrap());
    // As of another database.
    let path = with.place.paths().await.remove(0);
    let (space, rest) = path.split_once('/').unwrap();
    assert_eq!(space, own.id.simple().to_string());
    let another = format!("{}/{rest}", space.replace(|c: char| c.is_ascii_digit(), "e"));
    with.place.write(&another, &with.place.read(&path).await).await;
    with.place.remove(&path).await;
    assert_eq!(with.collect(Duration::ZERO).await, Collected::default());
    assert_eq!(with.blobs().await, 1);
}

/// Why an item is where it is.
async fn because(store: &Arc<dyn Store>, item: &str) -> String {
    explain(store.why("p", Some(item)).await.unwrap()).because.join(" ")
}

/// For one blob, and for a time.
pub async fn links_are_signed(db: TestDb) {
    let with = with_blobs(&db).await;
    with.push(&[large_item("a", 'a'), large_item("b", 'b')]).await;
    let lease = lease(&with.store, "w", "p").await;
    let due = due(&with.store, &lease).await;
    let references: Vec<&Reference> = due.iter().filter_map(|item| item.reference.as_deref()).collect();
    let blobs = with.store.blobs().unwrap();
    let link = match (blobs.link(references[0]).await.unwrap(), &with.place) {
        (Link::Relative(link), Place::Folder(_)) => link,
        (Link::Absolute(url), Place::Bucket(_)) => {
            assert!(url.contains("X-Amz-Signature=") && url.contains("X-Amz-Expires=3600"), "{url}");
            return assert_eq!(fetch(&url).await, large('a').bytes);
        }
        (link, _) => panic!("{link:?}"),
    };
    let (path, query) = link.strip_prefix("v1/blobs/").unwrap().split_once("?expires=").unwrap();
    let (expires, signature) = query.split_once("&signature=").unwrap();
    let expires: u64 = expires.parse().unwrap();
    // Any process of this database knows it.
    let another = db.store_with_blobs(&with.place.url(), 1).await.blobs().unwrap();
    assert_eq!(another.linked(path, expires, signature).await.unwrap(), 101);
    assert_eq!(another.read(path, 99, 1000).await.unwrap(), "aa");
    assert_eq!(another.read(path, 101, 1).await.unwrap(), "");
    for (path, expires, signature) in [
        (references[1].path(), expires, signature),
        (path, expires + 1, signature),
        (path, 0, signature),
        (path, expires, "00"),
        (path, expires, "é"),
        ("../../etc/passwd", expires, signature),
    ] {
        let refused = blobs.linked(path, expires, signature).await.unwrap_err();
        assert!(matches!(refused, StoreError::Refused(_)), "{refused}");
    }
}

/// It may be the wrong one: what has to be tried again is told from what is gone.
pub async fn a_bucket_that_is_not_there_loses_nothing(db: TestDb) {
    let with = with_blobs(&db).await;
    let Place::Bucket(_) = &with.place else { return };
    with.push(&[large_item("i", 'a')]).await;
    let elsewhere = db.store_with_blobs("s3://no-such-bucket/some/where", INLINE_MAX).await;
    let lease = lease(&elsewhere, "w", "p").await;
    let due = due(&elsewhere, &lease).await;
    let loaded = elsewhere.load("p", "i", due[0].version).await.unwrap_err();
    let pushed =
        elsewhere.push(&NewPartition::new("q"), &[NewItem::new("q", "i", large('b'))]).await.unwrap_err();
    for error in [loaded, pushed] {
        assert!(matches!(&error, StoreError::BlobStore(why) if why.contains("NoSuchBucket")), "{error}");
    }
    assert_eq!(with.data("i").await, large('a'));
}

/// It is neither the database's fault nor the item's, and nothing is written.
pub async fn a_blob_store_that_is_away_is_waited_for(db: TestDb) {
    let with = with_blobs(&db).await;
    let Place::Folder(folder) = &with.place else { return };
    with.push(&[large_item("i", 'a')]).await;
    let lease = lease(&with.store, "w", "p").await;
    let version = due(&with.store, &lease).await[0].version;
    let (path, aside) = (folder.path(), folder.path().with_extension("aside"));
    std::fs::rename(path, &aside).unwrap();
    std::fs::write(path, "").unwrap();
    let loaded = with.store.load("p", "i", version).await.unwrap_err();
    let why = because(&with.store, "i").await;
    let pushed = with.store.push(&NewPartition::new("q"), &[NewItem::new("q", "i", large('b'))]).await;
    std::fs::remove_file(path).unwrap();
    std::fs::rename(&aside, path).unwrap();
    for (error, verb) in [(loaded, "read"), (pushed.unwrap_err(), "put")] {
        let expected = format!("cannot {verb} the blob ");
        assert!(matches!(&error, StoreError::BlobStore(why) if why.starts_with(&expected)), "{error}");
        assert!(error.is_retryable() && error.is_waited_for(), "{error}");
    }
    assert_eq!((with.data("i").await, with.store.glance("q").await.unwrap()), (large('a'), None));
    // Whoever asks hears of it, and not where it lies.
    assert!(why.contains("the blob store, where its data lies, does nothing just now"), "{why}");
    assert!(!why.contains(&path.display().to_string()), "{why}");
    for (store, expected) in [(&with.store, None), (&db.store(), Some("--blob-store"))] {
        let why = because(store, "i").await;
        assert_eq!(why.contains("Looked at from here"), expected.is_some(), "{why}");
        assert!(why.contains(expected.unwrap_or_default()), "{why}");
    }
    for path in with.place.paths().await {
        with.place.remove(&path).await;
    }
    let why = because(&with.store, "i").await;
    assert!(why.contains("is not in the blob store"), "{why}");
}
