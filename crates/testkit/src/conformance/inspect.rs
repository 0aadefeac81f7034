//! What people see.

use gatefeed_core::{
    StoreError,
    inspect::{Awaited, DataPart, ItemFilter, PartitionFilter},
    item::ItemStatus,
    partition::{NewPartition, PartitionStatus},
};

use super::given::*;

fn some(limit: usize) -> PartitionFilter {
    PartitionFilter { limit, ..PartitionFilter::default() }
}

async fn ids(db: &TestDb, filter: PartitionFilter) -> Vec<String> {
    db.store().partitions(&filter).await.unwrap().into_iter().map(|p| p.id).collect()
}

async fn three_feeds(db: &TestDb) {
    let rows = "('p1', 'a', 'available'), ('p2', 'a', 'paused'), ('p3', 'b', 'available'), ('p4', 'b', 'failed'), \
                ('p5', 'b', 'complete'), ('p6', 'c', 'cancelled')";
    db.run(&format!("INSERT INTO gatefeed_partitions (id, feed, status) VALUES {rows}")).await;
}

/// By feed, status and id, in pages.
pub async fn partitions_are_filtered(db: TestDb) {
    three_feeds(&db).await;
    assert_eq!(ids(&db, some(100)).await, ["p1", "p2", "p3", "p4", "p5", "p6"]);
    assert_eq!(ids(&db, PartitionFilter { feed: Some("b".into()), ..some(100) }).await, ["p3", "p4", "p5"]);
    let available = Some(PartitionStatus::Available);
    assert_eq!(ids(&db, PartitionFilter { status: available, ..some(100) }).await, ["p1", "p3"]);
    let both = PartitionFilter { feed: Some("a".into()), status: available, ..some(100) };
    assert_eq!(ids(&db, both).await, ["p1"]);
    assert_eq!(ids(&db, PartitionFilter { id: Some("p4".into()), ..some(100) }).await, ["p4"]);
    assert!(ids(&db, PartitionFilter { id: Some("p".into()), ..some(100) }).await.is_empty());
    assert_eq!(ids(&db, some(2)).await, ["p1", "p2"]);
    assert_eq!(ids(&db, PartitionFilter { after: Some("p2".into()), ..some(3) }).await, ["p3", "p4", "p5"]);
    let rest = PartitionFilter { feed: Some("b".into()), after: Some("p3".into()), ..some(9) };
    assert_eq!(ids(&db, rest).await, ["p4", "p5"]);
    assert!(ids(&db, PartitionFilter { after: Some("p6".into()), ..some(9) }).await.is_empty());
    assert!(ids(&db, some(0)).await.is_empty());
}

/// Pages cover odd ids too: whatever the order of the database is, the keyset follows it.
pub async fn pages_of_odd_ids_have_no_gaps(db: TestDb) {
    let mut odd =
        vec!["a", "B", "b", "é", "e", "Z", "-a", "a-", "a b", "ab", "10", "9", "中", "_", "ß", "ss"];
    for id in &odd {
        push(&db.store(), id, &[("i", 0)]).await;
        push(&db.store(), "items", &[(id, 0)]).await;
    }
    let (mut partitions, mut items) = (Vec::new(), Vec::new());
    for n in 0..=odd.len() {
        let after = partitions.last().cloned();
        partitions.extend(ids(&db, PartitionFilter { after, ..some(1) }).await);
        let after = items.last().cloned();
        let page = db.store().items(&ItemFilter { after, limit: 1, ..all_items("items") }).await.unwrap();
        items.extend(page.into_iter().map(|i| i.id));
        assert!(partitions.len() == n + 1, "{partitions:?}");
    }
    partitions.retain(|id| id != "items");
    assert_eq!(partitions, items);
    odd.sort_unstable();
    items.sort_unstable();
    assert_eq!(items, odd);
}

/// Open and failed items are counted; what is complete is not.
pub async fn a_partition_counts_its_items(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p'), ('q')").await;
    for (status, n) in [("available", 1), ("waiting", 2), ("blocked", 3), ("failed", 4), ("complete", 5)] {
        for _ in 0..n {
            db.run(&format!("INSERT INTO gatefeed_items (partition_id, status) VALUES ('p', '{status}')"))
                .await;
        }
    }
    let counts = partition(&db.store(), "p").await.items;
    assert_eq!((counts.available, counts.waiting, counts.blocked, counts.failed), (1, 2, 3, 4));
    let counts = partition(&db.store(), "q").await.items;
    assert_eq!((counts.available, counts.waiting, counts.blocked, counts.failed), (0, 0, 0, 0));
}

/// By status, gate and id, in pages, with data if asked for.
pub async fn items_are_filtered(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i1", 0), ("i2", 1), ("i3", 1), ("i4", 2)]).await;
    push(&store, "q", &[("other", 0)]).await;
    db.run("UPDATE gatefeed_items SET status = 'failed' WHERE id = 'i3'").await;
    let listed = async |filter: ItemFilter| -> Vec<String> {
        store.items(&filter).await.unwrap().into_iter().map(|i| i.id).collect()
    };
    let all = || all_items("p");
    assert_eq!(listed(all()).await, ["i1", "i2", "i3", "i4"]);
    assert_eq!(listed(ItemFilter { status: Some(ItemStatus::Failed), ..all() }).await, ["i3"]);
    assert_eq!(listed(ItemFilter { gate: Some(1), ..all() }).await, ["i2", "i3"]);
    let open_at_1 = ItemFilter { gate: Some(1), status: Some(ItemStatus::Available), ..all() };
    assert_eq!(listed(open_at_1).await, ["i2"]);
    assert_eq!(listed(ItemFilter { id: Some("i4".into()), ..all() }).await, ["i4"]);
    assert_eq!(listed(ItemFilter { after: Some("i1".into()), limit: 2, ..all() }).await, ["i2", "i3"]);
    assert!(listed(ItemFilter { limit: 0, ..all() }).await.is_empty());
    assert!(listed(ItemFilter { id: Some("other".into()), ..all() }).await.is_empty());
    let without = store.items(&ItemFilter { data: DataPart::None, ..all() }).await.unwrap();
    assert!(without.iter().all(|i| i.data.is_none() && i.size == 11 && i.partition_id == "p"));
    let first = store.items(&ItemFilter { data: DataPart::First(4), ..all() }).await.unwrap();
    assert!(first.iter().all(|i| i.data.as_deref() == Some(b"{\"id") && i.size == 11));
    let nowhere = store.items(&all_items("nowhere")).await.unwrap_err();
    assert!(matches!(&nowhere, StoreError::NotFound(text) if text.contains("nowhere")), "{nowhere:?}");
}

/// One row a feed, in order of name.
pub async fn status_sums_up_feeds(db: TestDb) {
    let store = db.store();
    assert!(store.status().await.unwrap().is_empty());
    three_feeds(&db).await;
    db.run("INSERT INTO gatefeed_items (partition_id, status) VALUES ('p1', 'waiting'), ('p2', 'failed')")
        .await;
    db.run("INSERT INTO gatefeed_items (partition_id, id) VALUES ('p1', 'i'), ('p3', 'j')").await;
    let oldest = Some(item_row(&store, "p1", "i").await.available_at);
    let status = store.status().await.unwrap();
    assert_eq!(status.iter().map(|f| f.feed.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    let (a, b, c) = (&status[0], &status[1], &status[2]);
    assert_eq!((a.partitions.available, a.partitions.paused, a.partitions.complete), (1, 1, 0));
    assert_eq!((b.partitions.available, b.partitions.failed, b.partitions.complete), (1, 1, 1));
    assert_eq!((c.partitions.available, c.partitions.cancelled), (0, 1));
    assert_eq!((a.items.available, a.items.waiting, a.items.failed, a.items.blocked), (1, 1, 1, 0));
    assert_eq!((a.leased, a.oldest_due_at, c.oldest_due_at), (0, oldest, None));
    assert_eq!(claim_feeds(&store, "w", &["a"], 10).await.len(), 1);
    assert_eq!(store.status().await.unwrap()[0].leased, 1);
}

/// Inserts items given as (partition, id, gate, priority, due so many seconds ago).
async fn due_since(db: &TestDb, items: &[(&str, &str, i32, i32, f64)]) {
    for (partition, id, gate, priority, secs) in items {
        let values = format!("'{partition}', '{id}', {gate}, {priority}, {}", db.in_secs(-secs));
        let columns = "partition_id, id, gate, priority, available_at";
        db.run(&format!("INSERT INTO gatefeed_items ({columns}) VALUES ({values})")).await;
    }
}

/// Checks that this item is the oldest due one of the default feed.
async fn assert_oldest(db: &TestDb, item: Option<(&str, &str)>) {
    let store = db.store();
    let expected = match item {
        Some((partition, id)) => Some(item_row(&store, partition, id).await.available_at),
        None => None,
    };
    let status = store.status().await.unwrap();
    assert_eq!(status.iter().find(|f| f.feed == "default").unwrap().oldest_due_at, expected, "{item:?}");
}

/// The item that has been due for longest, wherever it stands in the order of delivery and also while it is in
/// flight.
pub async fn the_oldest_due_item_is_found(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id, gate) VALUES ('p', 3), ('q', 0)").await;
    assert_oldest(&db, None).await;
    due_since(&db, &[("p", "a", 3, 9, 10.0), ("p", "b", 3, 9, 20.0), ("q", "z", 0, 0, 5.0)]).await;
    assert_oldest(&db, Some(("p", "b"))).await;
    due_since(&db, &[("p", "c", 3, -9, 30.0), ("p", "d", 3, 0, 25.0)]).await;
    assert_oldest(&db, Some(("p", "c"))).await;
    due_since(&db, &[("p", "late", 0, 0, 40.0), ("p", "j", 2, 0, 35.0)]).await;
    assert_oldest(&db, Some(("p", "late"))).await;
    due_since(&db, &[("q", "y", 0, 1, 50.0)]).await;
    assert_oldest(&db, Some(("q", "y"))).await;
    assert_eq!(claim(&db.store(), "w", 10).await.len(), 2);
    assert_oldest(&db, Some(("q", "y"))).await;
    db.run("UPDATE gatefeed_items SET status = 'complete' WHERE id = 'y'").await;
    assert_oldest(&db, Some(("p", "late"))).await;
}

/// What nobody would deliver now is not due, however old it is: above the gate, delayed, or set aside.
pub async fn what_cannot_be_delivered_is_not_the_oldest(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id, status) VALUES ('p', 'available'), ('paused', 'paused'), ('failed', 'failed')").await;
    due_since(&db, &[("p", "above", 1, 0, 900.0), ("p", "delayed", 0, 0, -3600.0)]).await;
    due_since(&db, &[("paused", "i", 0, 0, 900.0), ("failed", "i", 0, 0, 900.0)]).await;
    assert_oldest(&db, None).await;
    due_since(&db, &[("p", "due", 0, -1, 5.0), ("p", "through", 0, 0, 900.0), ("p", "parked", 0, 0, 900.0)])
        .await;
    db.run("UPDATE gatefeed_items SET status = 'complete' WHERE id = 'through'").await;
    db.run("UPDATE gatefeed_items SET status = 'waiting' WHERE id = 'parked'").await;
    assert_oldest(&db, Some(("p", "due"))).await;
    db.run("UPDATE gatefeed_partitions SET gate = 1 WHERE id = 'p'").await;
    assert_oldest(&db, Some(("p", "above"))).await;
    db.run("UPDATE gatefeed_partitions SET status = 'paused' WHERE id = 'p'").await;
    assert_oldest(&db, None).await;
}

async fn idleness(db: &TestDb) -> (bool, bool) {
    let idleness = db.store().idleness(&["default".into()]).await.unwrap();
    (idleness.idle, idleness.failed)
}

/// Due, leased elsewhere and delayed: something will be delivered yet.
pub async fn what_will_be_delivered_is_not_idle(db: TestDb) {
    let store = db.store();
    assert_eq!(idleness(&db).await, (true, false));
    store.push(&NewPartition::new("p"), &[]).await.unwrap();
    assert_eq!(idleness(&db).await, (true, false), "an empty partition");
    push(&store, "p", &[("i", 0)]).await;
    assert_eq!(idleness(&db).await, (false, false), "due");
    let lease = lease(&store, "somebody else", "p").await;
    assert_eq!(idleness(&db).await, (false, false), "leased elsewhere");
    assert_eq!(complete_all(&store, &lease).await, 1);
    assert_eq!(drain_lease(&store, &lease).await, 0);
    assert_eq!(idleness(&db).await, (true, false), "complete");
    let later = db.in_secs(3600.0);
    db.run(&format!("INSERT INTO gatefeed_items (partition_id, available_at) VALUES ('p', {later})")).await;
    assert_eq!(idleness(&db).await, (false, false), "delayed");
    let elsewhere = store.idleness(&["another".into()]).await.unwrap();
    assert!(elsewhere.idle && !elsewhere.failed, "another feed");
}

/// A parked item is coming back.
pub async fn waiting_items_are_not_idle(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    let lease = lease(&store, "w", "p").await;
    settle_all(&store, &lease, ItemStatus::Waiting).await;
    assert_eq!(drain_lease(&store, &lease).await, 0);
    assert!(db.partition_is("p", "next_run_at IS NULL").await);
    assert_eq!(idleness(&db).await, (false, false));
    db.run("UPDATE gatefeed_partitions SET status = 'paused'").await;
    assert_eq!(idleness(&db).await, (true, false), "a paused partition does not count");
}

/// Paused, held and failed partitions wait for people; failed ones are told.
pub async fn what_waits_for_people_is_idle(db: TestDb) {
    let store = db.store();
    push(&store, "paused", &[("i", 0)]).await;
    db.run("UPDATE gatefeed_partitions SET status = 'paused'").await;
    assert_eq!(idleness(&db).await, (true, false), "paused");
    let held = NewPartition { manual_checkpoint: true, ..NewPartition::new("held") };
    push_to(&store, &held, &[("i", 0), ("j", 1)]).await;
    assert_eq!(idleness(&db).await, (false, false));
    assert_eq!(drain(&store, "w").await, 1);
    assert_eq!(idleness(&db).await, (true, false), "held");
    let later = db.in_secs(600.0);
    let delayed =
        format!("INSERT INTO gatefeed_items (partition_id, gate, available_at) VALUES ('held', 1, {later})");
    db.run(&delayed).await;
    assert_eq!(idleness(&db).await, (true, false), "held, and what is delayed lies behind the gate");
    db.run(&delayed.replace("'held', 1", "'held', 0")).await;
    assert_eq!(idleness(&db).await, (false, false), "it will be delivered");
    db.run("DELETE FROM gatefeed_items WHERE partition_id = 'held'").await;
    db.run("UPDATE gatefeed_partitions SET next_run_at = NULL WHERE id = 'held'").await;
    push(&store, "failed", &[("i", 0), ("j", 1)]).await;
    let lease = lease(&store, "w", "failed").await;
    settle_all(&store, &lease, ItemStatus::Failed).await;
    drain_lease(&store, &lease).await;
    assert_eq!(idleness(&db).await, (true, true), "failed");
    assert!(!store.idleness(&["another".into()]).await.unwrap().failed);
}

/// Also of many at once, some of them twice.
pub async fn what_is_waited_for_has_ended(db: TestDb) {
    let store = db.store();
    let item_of = |partition: &str, id: &str| Awaited::Item { partition: partition.into(), id: id.into() };
    assert!(store.ended(&[]).await.unwrap().is_empty());
    for status in ["available", "paused", "complete", "failed", "cancelled"] {
        push(&store, status, &[("i", 0)]).await;
        db.run(&format!("UPDATE gatefeed_partitions SET status = '{status}' WHERE id = '{status}'")).await;
    }
    for status in ["available", "waiting", "blocked", "complete", "failed", "cancelled"] {
        push(&store, "p", &[(status, 0)]).await;
        db.run(&format!("UPDATE gatefeed_items SET status = '{status}' WHERE id = '{status}'")).await;
    }
    let partition = |id: &str| Awaited::Partition(id.into());
    let awaited = [
        (item_of("p", "complete"), true),
        (partition("available"), false),
        (item_of("p", "blocked"), false),
        (partition("complete"), true),
        (partition("paused"), false),
        (item_of("p", "available"), false),
        (item_of("p", "nobody"), true),
        (partition("failed"), true),
        (item_of("nowhere", "complete"), true),
        (item_of("p", "waiting"), false),
        (partition("nowhere"), true),
        (item_of("p", "failed"), true),
        (partition("cancelled"), true),
        (item_of("p", "cancelled"), true),
        (partition("complete"), true),
        (partition("available"), false),
    ];
    let (asked, expected): (Vec<_>, Vec<_>) = awaited.into_iter().unzip();
    assert_eq!(store.ended(&asked).await.unwrap(), expected);
}
