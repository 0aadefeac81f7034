//! Reading what is due.

use std::{cmp::Reverse, collections::BTreeSet};

use futures_util::{FutureExt, future::join_all};
use gatefeed_core::{
    item::{Data, INLINE_BYTES_MAX, NewItem},
    partition::NewPartition,
    store::PageRequest,
};
use rand::Rng;

use super::{given::*, seed};

/// Gate, then priority (higher first), then age, then id; negative priorities are the last.
pub async fn in_order(db: TestDb) {
    let items = [
        ("8", 1, 9, "2020-01-01 00:00:00"),
        ("7", 0, -2, "2020-01-01 00:00:00"),
        ("6", 0, -1, "2020-01-01 00:00:00"),
        ("5", 0, 0, "2020-01-02 00:00:00"),
        ("4", 0, 0, "2020-01-01 00:00:00.007"),
        ("3", 0, 0, "2020-01-01 00:00:00"),
        ("2", 0, 0, "2020-01-01 00:00:00"),
        ("1", 0, 2_147_483_647, "2021-01-01 00:00:00"),
        ("9", 1, -2_147_483_648, "2019-01-01 00:00:00"),
    ];
    db.run("INSERT INTO gatefeed_partitions (id, gate) VALUES ('p', 1)").await;
    for (id, gate, priority, at) in items {
        let values = format!("('p', '{id}', {gate}, {priority}, '{at}')");
        let columns = "(partition_id, id, gate, priority, available_at)";
        db.run(&format!("INSERT INTO gatefeed_items {columns} VALUES {values}")).await;
    }
    let store = db.store();
    let lease = lease(&store, "w", "p").await;
    let expected = ["1", "2", "3", "4", "5", "6", "7", "8", "9"];
    assert_eq!(due_ids(&store, &lease).await, expected);
    for limit in [1, 2, 4, 9] {
        let ids: Vec<_> = due_by(&store, &lease, limit).await.into_iter().map(|i| i.id.to_string()).collect();
        assert_eq!(ids, expected, "in pages of {limit}");
    }
}

/// However pages cut random data, every due item is in exactly one.
pub async fn without_gaps_or_repeats(db: TestDb) {
    let mut rng = seed::rng("page::without_gaps_or_repeats");
    db.run("INSERT INTO gatefeed_partitions (id, gate) VALUES ('p', 3)").await;
    let alphabet = ["a", "B", "é", "ß", "-", " ", "Z", "z", "1", "10", "中", "_"];
    let mut expected = BTreeSet::new();
    let mut values = Vec::new();
    for n in 0..400 {
        let word: String = (0..rng.random_range(1..4)).map(|_| alphabet[rng.random_range(0..12)]).collect();
        let id = format!("{word}#{n}");
        let (gate, priority) = (rng.random_range(0..5), rng.random_range(-2..3));
        let (secs, delayed) = (rng.random_range(-3..0), rng.random_bool(0.2));
        let status = if rng.random_bool(0.2) { "complete" } else { "available" };
        let at = db.in_secs(if delayed { 3600.0 } else { f64::from(secs) });
        values.push(format!("('p', '{id}', {gate}, {priority}, '{status}', {at})"));
        if gate <= 3 && !delayed && status == "available" {
            expected.insert(id);
        }
    }
    let columns = "(partition_id, id, gate, priority, status, available_at)";
    db.run(&format!("INSERT INTO gatefeed_items {columns} VALUES {}", values.join(", "))).await;
    let store = db.store();
    let lease = lease(&store, "w", "p").await;
    let whole = due(&store, &lease).await;
    assert!(whole.is_sorted_by_key(|i| i.gate));
    assert_eq!(whole.iter().map(|i| i.id.to_string()).collect::<BTreeSet<_>>(), expected);
    for limit in [1, 3, rng.random_range(4..100)] {
        assert_eq!(due_by(&store, &lease, limit).await, whole, "in pages of {limit}");
    }
}

/// Random ids of equal length sort the same way everywhere: the order is exact.
pub async fn in_the_order_of_a_model(db: TestDb) {
    let mut rng = seed::rng("page::in_the_order_of_a_model");
    db.run("INSERT INTO gatefeed_partitions (id, gate) VALUES ('p', 9)").await;
    let mut model = Vec::new();
    for n in 0..300 {
        let key = (rng.random_range(0..3), Reverse(rng.random_range(-2..3)), rng.random_range(0..4));
        model.push((key, format!("{:06}", (n * 7919) % 1_000_000)));
    }
    let row = |((gate, Reverse(priority), day), id): &((i32, Reverse<i32>, i32), String)| {
        format!("('p', '{id}', {gate}, {priority}, '2020-01-0{} 00:00:00')", day + 1)
    };
    let values: Vec<_> = model.iter().map(row).collect();
    let columns = "(partition_id, id, gate, priority, available_at)";
    db.run(&format!("INSERT INTO gatefeed_items {columns} VALUES {}", values.join(", "))).await;
    model.sort();
    let store = db.store();
    let lease = lease(&store, "w", "p").await;
    let ids: Vec<_> = due_by(&store, &lease, 17).await.into_iter().map(|i| i.id.to_string()).collect();
    assert_eq!(ids, model.into_iter().map(|(_, id)| id).collect::<Vec<_>>());
}

/// Not yet due, behind the barrier, parked or through: not delivered. Late items are.
pub async fn only_what_is_due(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id, gate) VALUES ('p', 5)").await;
    let (past, future) = (db.in_secs(-1.0), db.in_secs(600.0));
    for (id, gate, status, at) in [
        ("at the gate", 5, "available", &past),
        ("late", 2, "available", &past),
        ("behind the barrier", 6, "available", &past),
        ("delayed", 5, "available", &future),
        ("waiting", 5, "waiting", &past),
        ("blocked", 5, "blocked", &past),
        ("complete", 5, "complete", &past),
        ("failed", 5, "failed", &past),
        ("cancelled", 5, "cancelled", &past),
    ] {
        let values = format!("('p', '{id}', {gate}, '{status}', {at})");
        let columns = "(partition_id, id, gate, status, available_at)";
        db.run(&format!("INSERT INTO gatefeed_items {columns} VALUES {values}")).await;
    }
    let store = db.store();
    let lease = lease(&store, "w", "p").await;
    assert_eq!(due_ids(&store, &lease).await, ["late", "at the gate"]);
}

/// What a delivery needs comes with the item.
pub async fn an_item_is_whole(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id, gate) VALUES ('p', 2)").await;
    let columns = "(partition_id, id, gate, pass, retry_count, version, content_type, data, error_messages)";
    db.run(&format!(
        "INSERT INTO gatefeed_items {columns} VALUES ('p', 'i', 2, 3, 4, 5, 'text/plain', 'hi', 'boom')"
    ))
    .await;
    let store = db.store();
    let lease = lease(&store, "w", "p").await;
    let item = due(&store, &lease).await.remove(0);
    assert_eq!((&*item.id, item.gate, item.pass), ("i", 2, 3));
    assert_eq!((item.retry_count, item.suspect_count, item.version), (4, 0, 5));
    assert_eq!(
        (&*item.content_type, item.size, item.data.as_deref()),
        ("text/plain", 2, Some(b"hi".as_slice()))
    );
    assert_eq!(item.error_messages.as_deref(), Some("boom"));
}

/// A page stays small however large its items are; their data is loaded one by one.
pub async fn large_data_is_loaded_apart(db: TestDb) {
    let store = db.store();
    let small = vec![b'x'; INLINE_BYTES_MAX];
    let large = vec![b'y'; INLINE_BYTES_MAX + 1];
    let mut items = [item("p", "1 small", 0), item("p", "2 large", 0)];
    items[0].data = Data::json(small.clone());
    items[1].data = Data::json(large.clone());
    store.push(&NewPartition::new("p"), &items).await.unwrap();
    let lease = lease(&store, "w", "p").await;
    let due = due(&store, &lease).await;
    assert_eq!((due[0].size, due[0].data.as_deref()), (INLINE_BYTES_MAX as u64, Some(&small[..])));
    assert_eq!((due[1].size, &due[1].data), (INLINE_BYTES_MAX as u64 + 1, &None));
    let load = |item: &'static str, version| store.load("p", item, version);
    assert_eq!(load("2 large", due[1].version).await.unwrap(), Some(Data::json(large)));
    assert_eq!(load("1 small", due[0].version).await.unwrap(), Some(Data::json(small)));
    assert_eq!(load("2 large", due[1].version + 1).await.unwrap(), None);
    assert_eq!(load("nothing", 0).await.unwrap(), None);
    assert_eq!(store.load("nowhere", "2 large", 0).await.unwrap(), None);
}

/// Each gets its own data, or that there is none; and those who give up keep nobody from theirs.
pub async fn much_large_data_is_asked_for_at_once(db: TestDb) {
    let store = db.store();
    let data = |n: usize| Data {
        bytes: vec![n as u8; INLINE_BYTES_MAX + n].into(),
        content_type: format!("text/{n}"),
    };
    let item = |n: usize| NewItem { data: data(n), ..item("p", &format!("{n:03}"), 0) };
    let items: Vec<NewItem> = (1..=100).map(item).collect();
    store.push(&NewPartition::new("p"), &items).await.unwrap();
    let lease = lease(&store, "w", "p").await;
    let version = due(&store, &lease).await[0].version;
    let ids: Vec<String> = (1..=100).map(|n| format!("{n:03}")).collect();
    for round in 0..3 {
        let loads = ids.iter().enumerate().map(|(place, id)| {
            let store = &store;
            async move {
                let is_stale = place % 5 == 0;
                let load = store.load("p", id, version + i64::from(is_stale));
                if place % 3 == 0 {
                    // It is asked for, and then given up.
                    drop(load.now_or_never());
                    return;
                }
                let expected = (!is_stale).then(|| data(place + 1));
                assert_eq!(load.await.unwrap(), expected, "{id} in round {round}");
            }
        });
        join_all(loads).await;
    }
}

/// Bytes in, the same bytes out, with their content type.
pub async fn binary_data_is_kept(db: TestDb) {
    let store = db.store();
    let bytes: Vec<u8> = (0..=255).chain([0, 0, b'\'', b'\\', 0xff]).collect();
    let mut binary = item("p", "i", 0);
    binary.data = Data { bytes: bytes.clone().into(), content_type: "application/octet-stream".into() };
    let mut empty = item("p", "j", 0);
    empty.data = Data { bytes: bytes::Bytes::new(), content_type: "text/plain; charset=utf-8".into() };
    store.push(&NewPartition::new("p"), &[binary, empty]).await.unwrap();
    let lease = lease(&store, "w", "p").await;
    let due = due(&store, &lease).await;
    assert_eq!(due[0].data.as_deref(), Some(&bytes[..]));
    assert_eq!((due[0].size, &*due[0].content_type), (261, "application/octet-stream"));
    assert_eq!((due[1].size, due[1].data.as_deref()), (0, Some(&[][..])));
    assert_eq!(item_row(&store, "p", "i").await.data, Some(bytes));
}

/// Whoever has lost the lease, or whose partition is no longer available, gets nothing.
pub async fn none_without_a_current_lease(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    let first = lease(&store, "w", "p").await;
    let second = steal(&db, "p", "v").await.lease;
    let stale = page(&store, &first, 10).await;
    assert!(stale.items.is_empty() && stale.next.is_none());
    assert_eq!(page(&store, &second, 10).await.items.len(), 1);
    for status in ["paused", "cancelled", "failed", "complete"] {
        db.run(&format!("UPDATE gatefeed_partitions SET status = '{status}'")).await;
        assert!(page(&store, &second, 10).await.items.is_empty(), "{status}");
    }
}

/// Zero is zero, not "no limit".
pub async fn a_limit_of_zero_reads_none(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    assert_eq!(due.len(), 1);
    assert!(page(&db.store(), &lease, 0).await.items.is_empty());
}

/// Several partitions in one call: one page each, in the order asked, each with its own place and limit.
pub async fn several_partitions_at_once(db: TestDb) {
    let store = db.store();
    for (id, items) in [("a", 5), ("b", 3), ("c", 4), ("stolen", 2)] {
        let ids: Vec<_> = (0..items).map(|n| format!("{id}{n}")).collect();
        let items: Vec<_> = ids.iter().map(|id| (id.as_str(), 0)).collect();
        push(&store, id, &items).await;
    }
    let grants = claim(&store, "w", 10).await;
    let of = |id: &str| grants.iter().find(|g| &*g.lease.partition == id).unwrap().lease.clone();
    steal(&db, "stolen", "v").await;
    let after = page(&store, &of("a"), 2).await.next;
    assert!(after.is_some());
    let request = |id, after, limit| PageRequest { lease: of(id), after, limit };
    let requests = [
        request("c", None, 2),
        request("stolen", None, 10),
        request("a", after, 100),
        request("b", None, 0),
        request("b", None, 1),
    ];
    let pages = store.page(&requests).await.unwrap();
    let ids: Vec<Vec<&str>> = pages.iter().map(|p| p.items.iter().map(|i| &*i.id).collect()).collect();
    assert_eq!(ids, [vec!["c0", "c1"], vec![], vec!["a2", "a3", "a4"], vec![], vec!["b0"]]);
    assert!(pages[1].next.is_none() && pages[2].next.is_none() && pages[4].next.is_some());
    assert!(store.page(&[]).await.unwrap().is_empty());
}

/// What commits behind the cursor is found by starting again from the beginning.
pub async fn a_late_commit_is_found_from_the_beginning(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("b", 0), ("c", 0)]).await;
    let lease = lease(&store, "w", "p").await;
    let first = page(&store, &lease, 1).await;
    let before = "(partition_id, id, available_at) VALUES ('p', 'a', '2020-01-01 00:00:00')";
    db.run(&format!("INSERT INTO gatefeed_items {before}")).await;
    let rest = PageRequest { lease: lease.clone(), after: first.next, limit: 10 };
    assert_eq!(store.page(&[rest]).await.unwrap()[0].items.len(), 1);
    assert_eq!(due_ids(&store, &lease).await, ["a", "b", "c"]);
}
