//! Requests with a key that may come again.

use std::sync::Arc;

use gatefeed_core::{
    Store, StoreError,
    id::posted_id,
    ingest::{Arrival, Arrived},
    item::NewItem,
    partition::NewPartition,
    request::{Answered, FORGOTTEN_MAX, KEPT, Request},
    store::Pushed,
};

use super::given::*;

fn request(key: &str, body: u8) -> Request {
    Request { key: key.to_owned(), digest: [body; 32] }
}

fn items(partition: &str, ids: &[&str]) -> Vec<NewItem> {
    ids.iter().map(|id| item(partition, id, 0)).collect()
}

async fn ask(store: &Arc<dyn Store>, ids: &[&str], request: &Request) -> Answered {
    let (partition, items) = (NewPartition::new("p"), items("p", ids));
    patiently(|| store.push_request(&partition, &items, request)).await
}

/// Whatever became of the partition and its items, and in another process too. Nothing is added, not even where the items
/// would be new.
pub async fn the_same_request_is_answered_as_it_was(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("a", 3)]).await;
    let first = Pushed { created: false, added: 2, existing: 1 };
    assert_eq!(ask(&store, &["a", "b", "c"], &request("k", 1)).await, Answered::Now(first));
    assert_eq!(item_ids(&store, "p").await, ["a", "b", "c"]);
    for ids in [&["a", "b", "c"][..], &["new"]] {
        for store in [&store, &db.another_store().await] {
            assert_eq!(ask(store, ids, &request("k", 1)).await, Answered::Before(first));
        }
    }
    let existing = Pushed { created: false, added: 0, existing: 1 };
    assert_eq!(ask(&store, &["b"], &request("l", 1)).await, Answered::Now(existing));
    store.cancel("p").await.unwrap();
    assert_eq!(ask(&store, &["a", "b", "c"], &request("k", 1)).await, Answered::Before(first));
    assert_eq!(item_ids(&store, "p").await, ["a", "b", "c"]);
    // The key of another partition is another key; one without items is kept too.
    let other = NewPartition::new("q");
    let made = Pushed { created: true, ..Pushed::default() };
    let second = request("k", 2);
    let asked = || store.push_request(&other, &[], &second);
    assert_eq!(
        (patiently(asked).await, patiently(asked).await),
        (Answered::Now(made), Answered::Before(made))
    );
}

/// It adds nothing, and does not take the key.
pub async fn another_request_with_its_key_is_a_conflict(db: TestDb) {
    let store = db.store();
    let first = Pushed { created: true, added: 1, existing: 0 };
    assert_eq!(ask(&store, &["a"], &request("k", 1)).await, Answered::Now(first));
    assert_eq!(ask(&store, &["b"], &request("k", 2)).await, Answered::Conflict);
    let partition = NewPartition::new("p");
    for (request, expected) in [
        (request("k", 1), Some(Answered::Before(first))),
        (request("k", 2), Some(Answered::Conflict)),
        (request("l", 1), None),
    ] {
        assert_eq!(store.answered(&partition, &request).await.unwrap(), expected);
    }
    assert_eq!(item_ids(&store, "p").await, ["a"]);
    assert_eq!(ask(&store, &["a"], &request("k", 1)).await, Answered::Before(first));
}

async fn post(store: &Arc<dyn Store>, id: &str, request: &Request) -> Arrived {
    let (feed, request) = ("default".to_owned(), Some(request.clone()));
    let arrival = Arrival { feed, own_feed_only: false, item: item("p", id, 0), request };
    let arrived = patiently(|| store.ingest(std::slice::from_ref(&arrival))).await;
    arrived.into_iter().next().unwrap()
}

/// A key of a request with many items is none for a single one, whatever that one's id is.
pub async fn a_single_item_with_its_key_is_a_conflict(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("old", 3)]).await;
    let first = Pushed { created: false, added: 1, existing: 0 };
    assert_eq!(ask(&store, &["a"], &request("k", 1)).await, Answered::Now(first));
    for id in [&posted_id("p", "k"), "named", "old"] {
        for body in [1, 2] {
            assert_eq!(post(&store, id, &request("k", body)).await, Arrived::Conflict, "{id}");
        }
    }
    assert_eq!(item_ids(&store, "p").await, ["a", "old"]);
    // Others of the same call are added, also one with the id that it would have had.
    let arrival = |id: &str, key: Option<(&str, u8)>| {
        let request = key.map(|(key, body)| request(key, body));
        Arrival { feed: "default".into(), own_feed_only: false, item: item("p", id, 0), request }
    };
    let (taken, free) = (Some(("k", 1)), Some(("l", 2)));
    let many = [("x", taken), ("x", free), ("y", None), ("z", taken)].map(|(id, key)| arrival(id, key));
    let arrived = patiently(|| store.ingest(&many)).await;
    assert_eq!(arrived, [Arrived::Conflict, Arrived::Added, Arrived::Added, Arrived::Conflict]);
    assert_eq!(item_ids(&store, "p").await, ["a", "old", "x", "y"]);
    assert_eq!(ask(&store, &["a"], &request("k", 1)).await, Answered::Before(first));
    // In another partition it is another key.
    let elsewhere = Arrival { item: item("q", "x", 0), ..arrival("x", taken) };
    assert_eq!(patiently(|| store.ingest(std::slice::from_ref(&elsewhere))).await, [Arrived::Added]);
}

/// The key of a single item, whose id it is the source of, is none for a request with many. (One that had an id of its own
/// cannot be found by its key.)
pub async fn the_key_of_a_single_item_is_a_conflict(db: TestDb) {
    let store = db.store();
    let single = posted_id("p", "k");
    assert_eq!(post(&store, &single, &request("k", 1)).await, Arrived::Added);
    for body in [1, 2] {
        assert_eq!(ask(&store, &["a"], &request("k", body)).await, Answered::Conflict);
    }
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_requests").await, 0);
    assert_eq!(item_ids(&store, "p").await, [single.as_str()]);
    assert_eq!(post(&store, &single, &request("k", 1)).await, Arrived::Replayed);
    let first = Pushed { created: false, added: 1, existing: 0 };
    assert_eq!(ask(&store, &["a"], &request("l", 1)).await, Answered::Now(first));
    // What is there by that id and was not posted with a key says nothing.
    push(&store, "p", &[(&posted_id("p", "m"), 0)]).await;
    assert_eq!(ask(&store, &["b"], &request("m", 1)).await, Answered::Now(first));
}

/// Whoever may touch one feed alone pushes nothing into a partition of another one, and hears nothing of its requests.
pub async fn a_partition_of_another_feed_is_none(db: TestDb) {
    let store = db.store();
    let of_feed =
        |feed: &str| NewPartition { feed: feed.into(), own_feed_only: true, ..NewPartition::new("p") };
    let (key, items) = (request("k", 1), items("p", &["a"]));
    let pushed = Pushed { created: true, added: 1, existing: 0 };
    let asked = |feed| {
        let (store, key, items, partition) = (store.clone(), key.clone(), items.clone(), of_feed(feed));
        async move { store.push_request(&partition, &items, &key).await }
    };
    assert_eq!(asked("a").await.unwrap(), Answered::Now(pushed));
    let theirs = of_feed("b");
    let refused = [
        asked("b").await.map(drop),
        store.push_request(&theirs, &items, &request("other", 1)).await.map(drop),
        store.push(&theirs, &items).await.map(drop),
        store.push(&theirs, &[]).await.map(drop),
        store.begin_push(&theirs).await.map(drop),
    ];
    for refused in refused {
        assert!(matches!(refused, Err(StoreError::NotFound(_))), "{refused:?}");
    }
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_requests").await, 1);
    assert_eq!(asked("a").await.unwrap(), Answered::Before(pushed));
    assert_eq!(store.answered(&of_feed("a"), &key).await.unwrap(), Some(Answered::Before(pushed)));
    assert_eq!(store.answered(&theirs, &key).await.unwrap(), None);
    assert_eq!(store.push(&of_feed("a"), &items).await.unwrap().existing, 1);
    // Who may touch every feed takes it as it is.
    assert_eq!(store.push(&NewPartition::new("p"), &items).await.unwrap().existing, 1);
}

/// Its key is free for the request that is meant.
pub async fn what_was_refused_is_not_kept(db: TestDb) {
    let store = db.store();
    let bad = [item("p", "a", 0), item("p", "b", -1)];
    let refused = store.push_request(&NewPartition::new("p"), &bad, &request("k", 1)).await.unwrap_err();
    assert!(refused.is_data(), "{refused:?}");
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_requests").await, 0);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_partitions").await, 0);
    let first = Pushed { created: true, added: 1, existing: 0 };
    assert_eq!(ask(&store, &["a"], &request("k", 2)).await, Answered::Now(first));
}

/// Of several with the same key one is done, over processes too, also where the items are many: those that asked for the
/// same get its answer, and the others are told.
pub async fn of_many_at_once_one_is_done(db: TestDb) {
    let (one, another) = (db.store(), db.another_store().await);
    for count in [3, 2_500] {
        let key = format!("k{count}");
        let asks = (0..8_u8).map(|n| {
            let store = if n < 4 { one.clone() } else { another.clone() };
            let request = request(&key, n % 2);
            let items: Vec<_> = (0..count).map(|i| item("p", &format!("{key}-{}-{i}", n % 2), 0)).collect();
            tokio::spawn(async move {
                let partition = NewPartition::new("p");
                (n % 2, patiently(|| store.push_request(&partition, &items, &request)).await)
            })
        });
        let (mut done, mut before, mut conflicts) = (Vec::new(), Vec::new(), Vec::new());
        for ask in asks.collect::<Vec<_>>() {
            match ask.await.unwrap() {
                (body, Answered::Now(pushed)) => done.push((body, pushed)),
                (body, Answered::Before(pushed)) => before.push((body, pushed)),
                (body, Answered::Conflict) => conflicts.push(body),
            }
        }
        let [(body, pushed)] = done[..] else { panic!("{count}: {} were done", done.len()) };
        assert_eq!(pushed.added, count, "{count}");
        assert_eq!(before, vec![(body, pushed); 3], "{count}");
        assert_eq!(conflicts, vec![1 - body; 4], "{count}");
        let there = format!("SELECT count(*) FROM gatefeed_items WHERE id LIKE '{key}-%'");
        assert_eq!(db.count(&there).await, i64::try_from(count).unwrap());
    }
}

/// A partition of the same name, later, is another one.
pub async fn it_goes_with_its_partition(db: TestDb) {
    let store = db.store();
    let first = Pushed { created: true, added: 1, existing: 0 };
    assert_eq!(ask(&store, &["a"], &request("k", 1)).await, Answered::Now(first));
    db.run("DELETE FROM gatefeed_partitions WHERE id = 'p'").await;
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_requests").await, 0);
    assert_eq!(ask(&store, &["a"], &request("k", 2)).await, Answered::Now(first));
}

/// Those that are too old go with those that come, so many with each.
pub async fn old_ones_are_forgotten(db: TestDb) {
    let store = db.store();
    let many = i64::from(FORGOTTEN_MAX) + 3;
    for n in 0..many {
        ask(&store, &[], &request(&format!("old{n}"), 1)).await;
    }
    ask(&store, &[], &request("young", 1)).await;
    let age = |key: &str, seconds: f64| {
        format!("UPDATE gatefeed_requests SET created_at = {} WHERE key LIKE '{key}%'", db.in_secs(-seconds))
    };
    db.run(&age("old", KEPT.as_secs_f64() + 60.0)).await;
    db.run(&age("young", KEPT.as_secs_f64() - 60.0)).await;
    ask(&store, &[], &request("new", 1)).await;
    let left = "SELECT count(*) FROM gatefeed_requests WHERE key LIKE 'old%'";
    assert_eq!(db.count(left).await, 3);
    ask(&store, &[], &request("newer", 1)).await;
    assert_eq!(db.count(left).await, 0);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_requests").await, 3);
}
