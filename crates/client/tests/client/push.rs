//! Pushing: once each, all or nothing, however many and however often.

use std::sync::Arc;

use chrono::{DateTime, SubsecRound, Utc};
use futures_util::{TryStreamExt, future::join_all};
use gatefeed_client::{
    Data, Error, FailurePolicy, Item, ItemStatus, Partition, PartitionStatus, Pushed, StoreError,
};

use crate::db::{Db, pushed};

on_all! {
    everything_that_was_said_is_stored,
    bytes_and_json_are_stored_to_the_letter,
    a_partition_can_be_pushed_again,
    ids_twice_are_existing,
    many_items_are_one_transaction,
    a_pusher_that_is_dropped_leaves_nothing,
    a_bad_item_in_the_middle_leaves_nothing,
    two_clients_push_the_same_ids,
    many_clients_push_the_same_iterator,
    a_cancelled_partition_takes_no_items,
    large_items_are_split_over_statements,
}

fn numbered(ids: impl IntoIterator<Item = usize>) -> Vec<Item> {
    ids.into_iter().map(|n| Item::json(&n).id(format!("i{n:06}"))).collect()
}

fn empty(id: &str) -> Partition {
    Partition::builder(id).build().unwrap()
}

async fn everything_that_was_said_is_stored(db: Arc<Db>) {
    let later: DateTime<Utc> = (Utc::now() + chrono::TimeDelta::days(3)).trunc_subsecs(3);
    let html = Data { bytes: "<p>".into(), content_type: "text/html".into() };
    let partition = Partition::builder("p")
        .feed("mail")
        .priority(3)
        .hold()
        .max_in_flight(7)
        .on_failure(FailurePolicy::Continue)
        .gate(2, Item::new(html).id("a").priority(-4).available_at(later))
        .item(serde_json::json!({"n": 1}))
        .build()
        .unwrap();
    assert_eq!(db.client.push(&partition).await.unwrap(), pushed(true, 2, 0));
    let row = db.client.partition("p").await.unwrap();
    assert_eq!((row.feed.as_str(), row.priority, row.max_in_flight), ("mail", 3, Some(7)));
    assert_eq!((row.manual_checkpoint, row.auto_close), (true, false));
    assert_eq!((row.status, row.failure_policy), (PartitionStatus::Available, FailurePolicy::Continue));
    let item = db.client.item("p", "a").await.unwrap();
    assert_eq!((item.gate, item.priority, item.available_at), (2, -4, later));
    assert_eq!((item.content_type.as_str(), item.data.as_deref()), ("text/html", Some(&b"<p>"[..])));
    let id = partition.item_ids().nth(1).unwrap();
    let item = db.client.item("p", id).await.unwrap();
    assert_eq!(
        (item.gate, item.status, item.content_type.as_str()),
        (0, ItemStatus::Available, "application/json")
    );
    assert_eq!(item.json::<serde_json::Value>().unwrap(), serde_json::json!({"n": 1}));
}

async fn bytes_and_json_are_stored_to_the_letter(db: Arc<Db>) {
    let (image, json) = (vec![0x89, b'P', 0, 0xff, b'\\'], r#" {"n": 12345678901234567890123, "m": 1.00}"#);
    let partition = Partition::builder("p")
        .item(Item::bytes("image/png", image.clone()).id("image"))
        .item(Item::raw_json(json).id("json"))
        .build()
        .unwrap();
    db.client.push(&partition).await.unwrap();
    let stored = async |id| {
        let item = db.client.item("p", id).await.unwrap();
        (item.content_type, item.data.unwrap())
    };
    assert_eq!(stored("image").await, ("image/png".to_owned(), image));
    assert_eq!(stored("json").await, ("application/json".to_owned(), json.as_bytes().to_vec()));
}

async fn a_partition_can_be_pushed_again(db: Arc<Db>) {
    let partition = Partition::builder("p").items([1, 2, 3]).keep_open().build().unwrap();
    assert_eq!(db.client.push(&partition).await.unwrap(), pushed(true, 3, 0));
    assert_eq!(db.client.push(&partition).await.unwrap(), pushed(false, 0, 3));
    // What it is stays what it was made as.
    let other = Partition::builder("p").feed("other").item(Item::json("x").id("x")).build().unwrap();
    assert_eq!(db.client.push(&other).await.unwrap(), pushed(false, 1, 0));
    let row = db.client.partition("p").await.unwrap();
    assert_eq!((row.feed.as_str(), row.auto_close), ("default", false));
    assert_eq!(db.client.push(&empty("q")).await.unwrap(), pushed(true, 0, 0));
    assert_eq!(db.client.partition("q").await.unwrap().items.available, 0);
}

async fn ids_twice_are_existing(db: Arc<Db>) {
    let twice = numbered([1, 2, 1, 2, 2]);
    let partition = Partition::builder("p").items(&twice).build().unwrap();
    assert_eq!(db.client.push(&partition).await.unwrap(), pushed(true, 2, 3));
    assert_eq!(db.client.push_many(&empty("p"), numbered([2, 3, 3])).await.unwrap(), pushed(false, 1, 2));
    assert_eq!(db.count("gatefeed_items").await, 3);
}

async fn many_items_are_one_transaction(db: Arc<Db>) {
    let first = Partition::builder("p").items(numbered(0..3_000)).build().unwrap();
    let mut pusher = db.client.begin(&first).await.unwrap();
    for item in numbered(2_000..12_345) {
        pusher.add(item).await.unwrap();
    }
    assert_eq!(db.count("gatefeed_items").await, 0, "seen before the commit");
    assert_eq!(pusher.commit().await.unwrap(), pushed(true, 12_345, 1_000));
    assert_eq!(db.count("gatefeed_items").await, 12_345);
    assert_eq!(db.client.partition("p").await.unwrap().items.available, 12_345);
    let fresh = db.client.push_many(&empty("q"), 0..10_001).await.unwrap();
    assert_eq!(fresh, pushed(true, 10_001, 0));
}

async fn a_pusher_that_is_dropped_leaves_nothing(db: Arc<Db>) {
    let mut pusher = db.client.begin(&empty("p")).await.unwrap();
    for item in numbered(0..5_000) {
        pusher.add(item).await.unwrap();
    }
    drop(pusher);
    // On SQLite this waits for the write lock that it had.
    db.client.push(&empty("q")).await.unwrap();
    assert_eq!((db.count("gatefeed_partitions").await, db.count("gatefeed_items").await), (1, 0));
}

async fn a_bad_item_in_the_middle_leaves_nothing(db: Arc<Db>) {
    let items = numbered(0..5_000).into_iter().enumerate();
    let items = items.map(|(n, item)| if n == 4_000 { item.gate(-1) } else { item });
    let error = db.client.push_many(&empty("p"), items).await.unwrap_err();
    assert_eq!(error.to_string(), "items[4000] (\"i004000\"): gate is -1; it must be from 0 to 2147483647");
    assert_eq!((db.count("gatefeed_partitions").await, db.count("gatefeed_items").await), (0, 0));
    // A pusher goes on without it.
    let mut pusher = db.client.begin(&empty("p")).await.unwrap();
    pusher.add(Item::json("bad").id("")).await.unwrap_err();
    pusher.add(Item::json("good")).await.unwrap();
    assert_eq!(pusher.commit().await.unwrap(), pushed(true, 1, 0));
}

/// In opposite orders, which would deadlock if they were sent as they come.
async fn two_clients_push_the_same_ids(db: Arc<Db>) {
    db.client.push(&empty("p")).await.unwrap();
    for round in 0..5 {
        let ids = round * 5_000..round * 5_000 + 5_000;
        let up = Partition::builder("p").items(numbered(ids.clone())).build().unwrap();
        let down = Partition::builder("p").items(numbered(ids.rev())).build().unwrap();
        let other = db.another().await;
        let (up, down) = tokio::join!(db.client.push(&up), other.push(&down));
        let (up, down) = (up.unwrap(), down.unwrap());
        assert_eq!((up.added + down.added, up.existing + down.existing), (5_000, 5_000));
    }
    assert_eq!(db.count("gatefeed_items").await, 25_000);
}

async fn many_clients_push_the_same_iterator(db: Arc<Db>) {
    let clients = join_all((0..4).map(|_| db.another())).await;
    let partition = empty("p");
    let pushes = clients.iter().map(|client| client.push_many(&partition, numbered(0..2_500)));
    let results = join_all(pushes).await.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(results.iter().filter(|p| p.created).count(), 1);
    assert_eq!(results.iter().map(|p| p.added).sum::<u64>(), 2_500);
    assert_eq!(results.iter().map(|p| p.existing).sum::<u64>(), 7_500);
    assert_eq!(db.count("gatefeed_items").await, 2_500);
}

async fn a_cancelled_partition_takes_no_items(db: Arc<Db>) {
    db.client.push(&empty("p")).await.unwrap();
    db.set_status("p", "cancelled").await;
    let error = db.client.push_many(&empty("p"), [1]).await.unwrap_err();
    assert!(error.to_string().contains("is cancelled and takes no items"), "{error}");
    assert!(!error.is_retryable());
    assert!(matches!(error, Error::Store(StoreError::Cancelled(_))), "{error:?}");
}

async fn large_items_are_split_over_statements(db: Arc<Db>) {
    let large = "x".repeat(3 << 20);
    let items = (0..6).map(|n| Item::json(&large).id(format!("{n}")));
    assert_eq!(db.client.push_many(&empty("p"), items).await.unwrap(), pushed(true, 6, 0));
    let sizes = db.client.items("p").with_data().stream().map_ok(|item| item.data.unwrap().len());
    assert_eq!(sizes.try_collect::<Vec<_>>().await.unwrap(), [(3 << 20) + 2; 6]);
}

/// So many that each of two pushes, which go through the ids in opposite directions, has written a good part of them
/// when they meet.
const SHARED: usize = 60_000;

/// On Postgres only: SQLite has one writer at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_that_meet_in_the_middle_do_not_deadlock() {
    crate::db::run(Db::postgres().await, |db| async move {
        let other = db.another().await;
        let (many, whole) = (empty("many"), empty("whole"));
        db.client.push(&many).await.unwrap();
        db.client.push(&whole).await.unwrap();
        let down = || numbered((0..SHARED).rev());
        let (a, b) =
            tokio::join!(db.client.push_many(&many, down()), other.push_many(&many, numbered(0..SHARED)));
        assert_shared(&db, "many", a.unwrap(), b.unwrap()).await;
        let up = Partition::builder("whole").items(numbered(0..SHARED)).build().unwrap();
        let (a, b) = tokio::join!(db.client.push_many(&whole, down()), other.push(&up));
        assert_shared(&db, "whole", a.unwrap(), b.unwrap()).await;
    })
    .await;
}

/// Both pushes said each id once, and so does the table.
async fn assert_shared(db: &Db, partition: &str, a: Pushed, b: Pushed) {
    assert!(!a.created && !b.created, "{a:?} {b:?}");
    let all = SHARED as u64;
    assert_eq!(
        (a.added + a.existing, b.added + b.existing, a.added + b.added),
        (all, all, all),
        "{a:?} {b:?}"
    );
    let available = db.client.partition(partition).await.unwrap().items.available;
    assert_eq!(available, SHARED as i64);
}
