//! Looking: streams over several pages, filters, and rows that come meanwhile.

use std::sync::Arc;

use futures_util::TryStreamExt;
use gatefeed_client::{Error, Item, ItemStatus, Partition, PartitionStatus, Rewound, StoreError};

use crate::db::Db;

on_all! {
    items_come_in_pages,
    items_are_filtered,
    items_that_are_added_ahead_are_seen,
    partitions_come_in_pages,
    what_is_missing_is_named,
    an_operator_s_steps,
    an_operator_s_stops,
    going_back,
}

fn item(n: usize) -> Item {
    Item::json(&n).id(format!("i{n:05}")).gate((n % 3) as i32)
}

fn partition(id: &str) -> Partition {
    Partition::builder(id).build().unwrap()
}

async fn items_come_in_pages(db: Arc<Db>) {
    db.client.push_many(&partition("p"), (0..1_750).map(item)).await.unwrap();
    db.client.push_many(&partition("other"), (0..10).map(item)).await.unwrap();
    let numbers =
        db.client.items("p").with_data().stream().and_then(|row| async move { Ok(row.json::<usize>()?) });
    assert_eq!(numbers.try_collect::<Vec<_>>().await.unwrap(), (0..1_750).collect::<Vec<_>>());
    // Exactly two pages and no third.
    db.client.push_many(&partition("even"), (0..1_000).map(item)).await.unwrap();
    let rows: Vec<_> = db.client.items("even").stream().try_collect().await.unwrap();
    assert_eq!(rows.len(), 1_000);
    assert!(rows.iter().all(|row| row.data.is_none() && row.partition_id == "even"));
    let rows: Vec<_> = db.client.items("even").after("i00989").stream().try_collect().await.unwrap();
    assert_eq!(rows.len(), 10);
}

async fn items_are_filtered(db: Arc<Db>) {
    db.client.push_many(&partition("p"), (0..2_100).map(item)).await.unwrap();
    let failed = format!("UPDATE {} SET status = 'failed' WHERE gate = 2", db.table("gatefeed_items"));
    db.execute(&failed).await;
    let count = async |items: gatefeed_client::Items| {
        let rows: Vec<_> = items.stream().try_collect().await.unwrap();
        assert!(rows.is_sorted_by(|a, b| a.id < b.id));
        rows.len()
    };
    let items = || db.client.items("p");
    assert_eq!(count(items().gate(1)).await, 700);
    assert_eq!(count(items().status(ItemStatus::Failed).with_data()).await, 700);
    assert_eq!(count(items().status(ItemStatus::Available)).await, 1_400);
    assert_eq!(count(items().status(ItemStatus::Failed).gate(1)).await, 0);
    let gates = db.client.gates("p").await.unwrap();
    let gates: Vec<_> = gates.iter().map(|g| (g.gate, g.available, g.failed, g.total())).collect();
    assert_eq!(gates, [(0, 700, 0, 700), (1, 700, 0, 700), (2, 0, 700, 700)]);
}

async fn items_that_are_added_ahead_are_seen(db: Arc<Db>) {
    db.client.push_many(&partition("p"), (1_000..2_200).map(item)).await.unwrap();
    let mut items = db.client.items("p").stream();
    let mut seen = vec![items.try_next().await.unwrap().unwrap().id];
    // Behind the page that was read, and ahead of all.
    db.client.push_many(&partition("p"), [item(999), item(5_000)]).await.unwrap();
    while let Some(row) = items.try_next().await.unwrap() {
        seen.push(row.id);
    }
    let expected: Vec<_> = (1_000..2_200).chain([5_000]).map(|n| format!("i{n:05}")).collect();
    assert_eq!(seen, expected);
}

async fn partitions_come_in_pages(db: Arc<Db>) {
    let table = db.table("gatefeed_partitions");
    let rows: Vec<_> = (0..1_234)
        .map(|n| format!("('p{n:04}', '{}', '{}')", ["a", "b"][n % 2], ["available", "complete"][n / 1_000]))
        .collect();
    db.execute(&format!("INSERT INTO {table} (id, feed, status) VALUES {}", rows.join(", "))).await;
    let all: Vec<_> = db.client.partitions().stream().try_collect().await.unwrap();
    let ids: Vec<_> = all.iter().map(|row| row.id.clone()).collect();
    assert_eq!(ids, (0..1_234).map(|n| format!("p{n:04}")).collect::<Vec<_>>());
    let count = async |partitions: gatefeed_client::Partitions| {
        partitions.stream().try_fold(0, |n, _| async move { Ok(n + 1) }).await.unwrap()
    };
    let partitions = || db.client.partitions();
    assert_eq!(count(partitions().feed("a")).await, 617);
    assert_eq!(count(partitions().status(PartitionStatus::Complete)).await, 234);
    assert_eq!(count(partitions().status(PartitionStatus::Complete).feed("b")).await, 117);
    assert_eq!(count(partitions().after("p1229")).await, 4);
    assert_eq!(count(partitions().feed("nobody's")).await, 0);
}

async fn what_is_missing_is_named(db: Arc<Db>) {
    db.client.push(&partition("p")).await.unwrap();
    let not_found = |error: Error, names: &[&str]| {
        assert!(matches!(error, Error::Store(StoreError::NotFound(_))), "{error:?}");
        assert!(names.iter().all(|name| error.to_string().contains(name)), "{error}");
    };
    not_found(db.client.partition("nope").await.unwrap_err(), &["\"nope\""]);
    not_found(db.client.item("nope", "x").await.unwrap_err(), &["nope"]);
    not_found(db.client.item("p", "x").await.unwrap_err(), &["\"p\"", "\"x\""]);
    not_found(db.client.gates("nope").await.unwrap_err(), &["nope"]);
    not_found(db.client.seal("nope").await.unwrap_err(), &["nope"]);
    not_found(db.client.items("nope").stream().try_next().await.unwrap_err(), &["nope"]);
    assert!(db.client.items("p").stream().try_next().await.unwrap().is_none());
}

async fn an_operator_s_steps(db: Arc<Db>) {
    let held = Partition::builder("p").feed("f").hold().gate(1, item(1)).gate(4, item(4)).build().unwrap();
    db.client.push(&held).await.unwrap();
    assert_eq!(db.client.advance("p").await.unwrap(), 1);
    let refused = db.client.advance("p").await.unwrap_err();
    assert!(matches!(refused, Error::Store(StoreError::Refused(_))), "{refused:?}");
    db.client.seal("p").await.unwrap();
    let row = db.client.partition("p").await.unwrap();
    assert_eq!((row.gate, row.manual_checkpoint, row.auto_close), (1, false, true));
    db.execute(&format!("UPDATE {} SET status = 'failed'", db.table("gatefeed_items"))).await;
    assert_eq!(db.client.retry("p", &gatefeed_client::RetryFilter::default()).await.unwrap(), 2);
    let status = db.client.status().await.unwrap();
    assert_eq!((status[0].feed.as_str(), status[0].items.available), ("f", 2));
}

async fn an_operator_s_stops(db: Arc<Db>) {
    db.client.push(&Partition::builder("p").item(item(0)).build().unwrap()).await.unwrap();
    db.client.pause("p").await.unwrap();
    assert!(db.client.why("p", None).await.unwrap().todo[0].contains("gatefeed resume p"));
    db.client.resume("p").await.unwrap();
    let refused = db.client.resume("p").await.unwrap_err();
    assert!(matches!(refused, Error::Store(StoreError::Refused(_))), "{refused:?}");
    assert!(db.client.why("p", Some("i00000")).await.unwrap().because[0].contains("due at gate 0"));
    assert_eq!(db.client.cancel("p").await.unwrap(), 1);
    let row = db.client.partition("p").await.unwrap();
    assert_eq!(
        (row.status, row.reason.as_deref()),
        (PartitionStatus::Cancelled, Some("cancelled by an operator"))
    );
}

async fn going_back(db: Arc<Db>) {
    let deadline = std::time::Duration::from_secs(90);
    let kept = Partition::builder("p").keep_history().gate_deadline(deadline);
    let kept = kept.on_failure("2.5%".parse().unwrap()).item(item(0)).build().unwrap();
    db.client.push(&kept).await.unwrap();
    let row = db.client.partition("p").await.unwrap();
    assert_eq!((row.keep_history, row.gate_deadline_seconds), (true, Some(90)));
    assert_eq!(row.failure_policy.to_string(), "2.5%");
    assert_eq!(db.client.rewind("p", 0).await.unwrap(), Rewound { items: 1, removed: 0 });
    let refused = db.client.rewind("p", 1).await.unwrap_err();
    assert!(refused.to_string().contains("it is at gate 0"), "{refused}");
    let bad =
        Partition::builder("q").gate_deadline(std::time::Duration::from_millis(10)).build().unwrap_err();
    assert!(bad.to_string().contains("whole seconds"), "{bad}");
}
