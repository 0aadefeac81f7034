//! Adding items through the store.

use gatefeed_core::{
    StoreError,
    ingest::Arrival,
    item::{Data, NewItem},
    partition::{FailurePolicy, NewPartition, PartitionStatus},
    request::Request,
    store::Pushed,
};

use super::given::*;

/// A missing partition is made as described, and its items are claimable.
pub async fn makes_the_partition(db: TestDb) {
    let store = db.store();
    let made = NewPartition {
        feed: "résumés".into(),
        priority: -3,
        manual_checkpoint: true,
        auto_close: false,
        max_in_flight: Some(2),
        failure_policy: FailurePolicy::Continue,
        ..NewPartition::new("p")
    };
    let data = Data { bytes: vec![1, 0].into(), content_type: "text/csv".into() };
    let new = NewItem { gate: 2, priority: 9, ..NewItem::new("p", "i", data) };
    let pushed = store.push(&made, &[new, item("p", "j", 0)]).await.unwrap();
    assert_eq!(pushed, Pushed { created: true, added: 2, existing: 0 });
    let row = partition(&store, "p").await;
    assert_eq!((row.feed.as_str(), row.priority, row.gate), ("résumés", -3, 0));
    assert!(row.manual_checkpoint && !row.auto_close);
    assert_eq!((row.max_in_flight, row.failure_policy), (Some(2), FailurePolicy::Continue));
    let row = item_row(&store, "p", "i").await;
    assert_eq!((row.gate, row.priority, row.content_type.as_str()), (2, 9, "text/csv"));
    assert_eq!((row.data, row.version, row.pass), (Some(vec![1, 0]), 0, 0));
    assert_eq!(claim_feeds(&store, "w", &["résumés"], 10).await.len(), 1);
}

/// An existing partition keeps its settings, an existing item its place.
pub async fn leaves_what_exists(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 3)]).await;
    let other = NewPartition { feed: "other".into(), priority: 9, ..NewPartition::new("p") };
    let items = [item("p", "i", 0), item("p", "j", 0), item("p", "j", 1)];
    let pushed = store.push(&other, &items).await.unwrap();
    assert_eq!(pushed, Pushed { created: false, added: 1, existing: 2 });
    let row = partition(&store, "p").await;
    assert_eq!((row.feed.as_str(), row.priority), ("default", 0));
    assert_eq!(item_row(&store, "p", "i").await.gate, 3);
    assert_eq!(item_row(&store, "p", "j").await.gate, 0);
}

/// A partition can be made ahead of its items; it sleeps until they come.
pub async fn no_items_make_an_empty_partition(db: TestDb) {
    let store = db.store();
    let pushed = store.push(&NewPartition::new("p"), &[]).await.unwrap();
    assert_eq!(pushed, Pushed { created: true, added: 0, existing: 0 });
    assert!(db.partition_is("p", "status = 'available' AND next_run_at IS NULL").await);
    push(&store, "p", &[("i", 0)]).await;
    assert_eq!(claim(&store, "w", 10).await.len(), 1);
}

/// As a plain INSERT does.
pub async fn reopens_a_complete_partition(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    assert_eq!(drain(&store, "w").await, 1);
    let before = partition(&store, "p").await;
    assert_eq!(before.status, PartitionStatus::Complete);
    push(&store, "p", &[("i", 0)]).await;
    assert_eq!(partition(&store, "p").await.version, before.version, "nothing was added");
    push(&store, "p", &[("j", 0)]).await;
    let after = partition(&store, "p").await;
    assert_eq!((after.status, after.version), (PartitionStatus::Available, before.version + 1));
    assert_eq!(drain(&store, "w").await, 1);
}

/// Refused as a whole, with a text that says why.
pub async fn bad_input_is_refused(db: TestDb) {
    let store = db.store();
    db.run("INSERT INTO gatefeed_partitions (id, status) VALUES ('ended', 'cancelled')").await;
    let long = "x".repeat(513);
    for (id, bad) in [
        ("ended", item("ended", "i", 0)),
        ("p", item("another", "i", 0)),
        ("p", item("p", "", 0)),
        ("p", item("p", "nul\0inside", 0)),
        ("p", item("p", &long, 0)),
        ("p", item("p", "i", -1)),
        ("nul\0inside", item("nul\0inside", "i", 0)),
        ("", item("", "i", 0)),
    ] {
        let error = store.push(&NewPartition::new(id), &[item(id, "good", 0), bad]).await.expect_err(id);
        assert!(error.is_data() || matches!(error, StoreError::Refused(_)), "{id:?}: {error:?}");
        assert!(!error.to_string().is_empty());
    }
    let feed = NewPartition { feed: "tab\t".into(), ..NewPartition::new("p") };
    assert!(store.push(&feed, &[]).await.unwrap_err().is_data());
    let none_at_a_time = NewPartition { max_in_flight: Some(0), ..NewPartition::new("p") };
    assert!(store.push(&none_at_a_time, &[]).await.unwrap_err().is_data());
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_partitions").await, 1);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items").await, 0);
}

/// A large import in one call, beyond what a statement takes in parameters.
pub async fn many_at_once(db: TestDb) {
    let store = db.store();
    let items: Vec<_> = (0..5000).map(|n| item("p", &format!("i{n}"), n % 3)).collect();
    let pushed = store.push(&NewPartition::new("p"), &items).await.unwrap();
    assert_eq!(pushed, Pushed { created: true, added: 5000, existing: 0 });
    let again = store.push(&NewPartition::new("p"), &items[..4000]).await.unwrap();
    assert_eq!(again, Pushed { created: false, added: 0, existing: 4000 });
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items WHERE gate = 2").await, 1666);
}

/// Whichever way the items come; and a batch that has such an item is worth splitting.
pub async fn a_cancelled_partition_is_told(db: TestDb) {
    let store = db.store();
    db.run("INSERT INTO gatefeed_partitions (id, status) VALUES ('ended', 'cancelled')").await;
    let (partition, items) = (NewPartition::new("ended"), [item("ended", "i", 0)]);
    let item = items[0].clone();
    let arrival = Arrival { feed: "default".into(), own_feed_only: false, item, request: None };
    let request = Request { key: "k".into(), digest: [0; 32] };
    let mut begun = store.begin_push(&partition).await.unwrap();
    let added = begun.add(&items).await;
    drop(begun);
    for told in [
        added,
        store.push(&partition, &items).await.map(drop),
        store.push_request(&partition, &items, &request).await.map(drop),
        store.ingest(&[arrival]).await.map(drop),
    ] {
        let told = told.unwrap_err();
        let says = |text: &String| text.contains("is cancelled and takes no items");
        assert!(matches!(&told, StoreError::Cancelled(text) if says(text)) && told.is_data(), "{told:?}");
    }
    let (lease, due) = leased(&db, "p", &[("a", 0)]).await;
    let child = with_children(&lease, &due[0], done(&due[0]), items.to_vec());
    let told = store.complete(&[child]).await.unwrap_err();
    assert!(matches!(told, StoreError::Cancelled(_)), "{told:?}");
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items WHERE partition_id = 'ended'").await, 0);
}
