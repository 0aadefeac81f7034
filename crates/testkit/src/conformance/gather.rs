//! Gathering: an item says what it asks for, and that is read page by page.

use std::sync::Arc;

use gatefeed_core::{
    Store, StoreError,
    gather::{Ended, Gather, GatherRequest, GatheredItem, PAGE_BYTES_MAX, SCAN_MAX},
    item::{Data, ItemStatus, NewItem},
    outcome::{Change, Settled},
    partition::NewPartition,
};

use super::given::*;

fn request(gate: i32, status: Ended) -> GatherRequest {
    GatherRequest { partition: "p".into(), gather: Gather { gate, status }, after: None }
}

/// All of it, and the number of pages.
async fn gathered(store: &Arc<dyn Store>, mut request: GatherRequest) -> (Vec<GatheredItem>, usize) {
    let (mut items, mut pages) = (Vec::new(), 0);
    loop {
        let page = store.gathered(&request).await.unwrap();
        let bytes: usize = page.items.iter().map(|item| item.data.bytes.len()).sum();
        assert!(
            page.items.len() <= SCAN_MAX && (bytes <= PAGE_BYTES_MAX || page.items.len() == 1),
            "{bytes}"
        );
        items.extend(page.items);
        pages += 1;
        match page.next {
            Some(next) => request.after = Some(next),
            None => return (items, pages),
        }
    }
}

async fn ids(store: &Arc<dyn Store>, gate: i32, status: Ended) -> Vec<String> {
    gathered(store, request(gate, status)).await.0.into_iter().map(|item| item.id).collect()
}

/// From a push, plain SQL and an answer alike.
pub async fn a_due_item_says_what_it_gathers(db: TestDb) {
    let store = db.store();
    let any = Gather { gate: 7, status: Ended::Any };
    let items = [item("p", "plain", 0), NewItem { gather: Some(any), ..item("p", "pushed", 0) }];
    store.push(&NewPartition::new("p"), &items).await.unwrap();
    let columns = "INSERT INTO gatefeed_items (partition_id, id, gather) VALUES";
    db.run(&format!("{columns} ('p', 'sql', '{{\"gate\": 0}}')")).await;
    let lease = lease(&store, "w", "p").await;
    let plain = due(&store, &lease).await.into_iter().find(|i| &*i.id == "plain").unwrap();
    let failed = Gather { gate: 0, status: Ended::Failed };
    let child = NewItem { gather: Some(failed), ..item("p", "child", 0) };
    let outcome = with_children(&lease, &plain, done(&plain), vec![child]);
    assert_eq!(complete_patiently(&store, &[outcome]).await, [Settled::Written]);
    let mut seen: Vec<_> = due(&store, &lease).await.into_iter().map(|i| (i.id, i.gather)).collect();
    seen.sort_by(|a, b| a.0.cmp(&b.0));
    let complete = Gather { gate: 0, status: Ended::Complete };
    let expected = [("child", failed), ("pushed", any), ("sql", complete)];
    assert_eq!(seen, expected.map(|(id, gather)| (id.into(), Some(gather))));
}

/// At the gate where each became terminal, by status, in order of id, with its data as it was left.
pub async fn what_ended_at_a_gate_is_gathered(db: TestDb) {
    let (lease, due) =
        leased(&db, "p", &[("a", 0), ("b", 0), ("c", 0), ("d", 0), ("open", 0), ("later", 5)]).await;
    let store = db.store();
    let image = Data { bytes: vec![0, 255].into(), content_type: "image/png".into() };
    let outcomes = due.iter().filter(|i| &*i.id != "open").map(|i| {
        let change = match &*i.id {
            "a" => Change { data: Some(image.clone()), ..done(i) },
            "b" => with_status(i, ItemStatus::Failed),
            "c" => with_status(i, ItemStatus::Cancelled),
            _ => Change { gate: 5, data: Some(Data::json("4")), ..done(i) },
        };
        completion(&lease, i, change)
    });
    assert_eq!(complete_patiently(&store, &outcomes.collect::<Vec<_>>()).await, [Settled::Written; 4]);
    let (items, _) = gathered(&store, request(0, Ended::Complete)).await;
    assert_eq!(items, [GatheredItem { id: "a".into(), status: ItemStatus::Complete, data: image }]);
    assert_eq!(ids(&store, 0, Ended::Failed).await, ["b"]);
    assert_eq!(ids(&store, 0, Ended::Cancelled).await, ["c"]);
    assert_eq!(ids(&store, 0, Ended::Any).await, ["a", "b", "c"]);
    assert_eq!(ids(&store, 5, Ended::Any).await, ["d"], "not what is open there");
    assert_eq!(ids(&store, 1, Ended::Any).await, [""; 0]);
}

/// However many there are, wanted or not, and however large.
pub async fn pages_are_bounded(db: TestDb) {
    let store = db.store();
    let small = |n: usize| item("p", &format!("{n:05}"), i32::from(n.is_multiple_of(3)));
    let mut items: Vec<_> = (0..2 * SCAN_MAX + 10).map(small).collect();
    let large = |n: usize| {
        let data = Data { bytes: vec![b'x'; 3 << 20].into(), content_type: "text/plain".into() };
        NewItem::new("p", format!("large {n}"), data)
    };
    items.extend((0..3).map(large));
    store.push(&NewPartition::new("p"), &items).await.unwrap();
    db.run("UPDATE gatefeed_items SET status = 'complete'").await;
    let (seen, pages) = gathered(&store, request(0, Ended::Complete)).await;
    let wanted: Vec<_> = items.iter().filter(|i| i.gate == 0).map(|i| (&i.id, &i.data)).collect();
    assert!(seen.iter().map(|i| (&i.id, &i.data)).eq(wanted), "{} items", seen.len());
    assert_eq!(pages, 5);
    let (none, pages) = gathered(&store, request(7, Ended::Complete)).await;
    assert_eq!((none.len(), pages), (0, 3));
}

/// Neither database takes what could not be read again.
pub async fn bad_gathers_are_refused(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p')").await;
    for bad in [
        "",
        "0",
        "{}",
        "[]",
        "null",
        r#"{"gate": -1}"#,
        r#"{"gate": 1.5}"#,
        r#"{"gate": "0"}"#,
        r#"{"gate": 2147483648}"#,
        r#"{"gate": 0, "status": "open"}"#,
        r#"{"gate": 0, "status": null}"#,
        r#"{"gate": 0, "gates": 1}"#,
    ] {
        let error = db
            .refused(&format!("INSERT INTO gatefeed_items (partition_id, gather) VALUES ('p', '{bad}')"))
            .await;
        assert!(bad.is_empty() || error.contains("gather"), "{bad}: {error}");
    }
    // Postgres keeps one of the two.
    let twice =
        r#"INSERT INTO gatefeed_items (partition_id, gather) VALUES ('p', '{"gate": 0, "gate": "x"}')"#;
    db.refused(twice).await;
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items").await, 0);
}

/// An empty one has nothing to gather.
pub async fn a_missing_partition_is_named(db: TestDb) {
    let store = db.store();
    let error = store.gathered(&request(0, Ended::Any)).await.unwrap_err();
    assert!(matches!(&error, StoreError::NotFound(text) if text.contains("\"p\"")), "{error:?}");
    push(&store, "p", &[]).await;
    assert_eq!(gathered(&store, request(0, Ended::Any)).await.0, []);
}
