//! Items of many callers in one transaction.

use std::sync::Arc;

use gatefeed_core::{
    Store, StoreError,
    dependency::Dependencies,
    ingest::{ARRIVALS_MAX, Arrival, Arrived},
    item::NewItem,
    request::Request,
};

use super::given::*;

fn arrival(partition: &str, id: &str) -> Arrival {
    Arrival { feed: "default".into(), own_feed_only: false, item: item(partition, id, 0), request: None }
}

fn keyed(partition: &str, id: &str, body: u8) -> Arrival {
    let request = Some(Request { key: format!("key of {id}"), digest: [body; 32] });
    Arrival { request, ..arrival(partition, id) }
}

async fn ingest(store: &Arc<dyn Store>, arrivals: &[Arrival]) -> Vec<Arrived> {
    patiently(|| store.ingest(arrivals)).await
}

/// Partitions that are missing are made, each in its feed; those that exist are left as they are.
pub async fn many_partitions_at_once(db: TestDb) {
    let store = db.store();
    push(&store, "old", &[("i", 0)]).await;
    let elsewhere = |partition, id| Arrival { feed: "video".into(), ..arrival(partition, id) };
    let arrivals = [
        elsewhere("z", "1"),
        arrival("old", "2"),
        arrival("a", "3"),
        elsewhere("old", "4"),
        arrival("z", "5"),
    ];
    assert_eq!(ingest(&store, &arrivals).await, [Arrived::Added; 5]);
    assert_eq!(item_ids(&store, "old").await, ["2", "4", "i"]);
    assert_eq!(item_ids(&store, "z").await, ["1", "5"]);
    for (id, feed) in [("z", "video"), ("old", "default"), ("a", "default")] {
        assert_eq!(partition(&store, id).await.feed, feed, "{id}");
    }
    assert_eq!(claim_feeds(&store, "w", &["video"], 10).await.len(), 1);
    assert!(ingest(&store, &[]).await.is_empty());
}

/// Every column of an item arrives.
pub async fn an_item_arrives_whole(db: TestDb) {
    let store = db.store();
    let mut one = arrival("p", "i");
    one.item.gate = 3;
    one.item.priority = -7;
    one.item.available_at = Some("2030-01-31T08:00:00.5Z".parse().unwrap());
    one.item.data.bytes = vec![0, 255, b'\\', b'\''].into();
    one.item.data.content_type = "image/png".into();
    assert_eq!(ingest(&store, std::slice::from_ref(&one)).await, [Arrived::Added]);
    let row = item_row(&store, "p", "i").await;
    assert_eq!((row.gate, row.priority, row.available_at), (3, -7, one.item.available_at.unwrap()));
    assert_eq!(row.data.as_deref(), Some(&one.item.data.bytes[..]));
    assert_eq!(row.content_type, "image/png");
}

/// An id counts once, whoever comes first, within a call and over calls; which is which is told in order.
pub async fn existing_ids_are_told(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("old", 3)]).await;
    let arrivals =
        [arrival("p", "z"), arrival("p", "old"), arrival("p", "a"), arrival("p", "z"), arrival("q", "z")];
    let expected = [Arrived::Added, Arrived::Existing, Arrived::Added, Arrived::Existing, Arrived::Added];
    assert_eq!(ingest(&store, &arrivals).await, expected);
    assert_eq!(item_row(&store, "p", "old").await.gate, 3);
    assert_eq!(ingest(&store, &arrivals).await, [Arrived::Existing; 5]);
}

/// The same key with the same body is the same item; with another body it is a conflict, and nothing changes.
pub async fn a_key_with_another_body_is_told(db: TestDb) {
    let store = db.store();
    assert_eq!(ingest(&store, &[keyed("p", "k", 1)]).await, [Arrived::Added]);
    let again = [
        keyed("p", "k", 1),
        keyed("p", "k", 2),
        arrival("p", "k"),
        keyed("p", "new", 2),
        keyed("p", "new", 3),
    ];
    let expected =
        [Arrived::Replayed, Arrived::Conflict, Arrived::Existing, Arrived::Added, Arrived::Conflict];
    assert_eq!(ingest(&store, &again).await, expected);
    // One that was made without a key has nothing to compare with.
    assert_eq!(ingest(&store, &[arrival("p", "plain")]).await, [Arrived::Added]);
    assert_eq!(ingest(&store, &[keyed("p", "plain", 9)]).await, [Arrived::Existing]);
    // Also in a partition that takes nothing more: the answer stays the same.
    db.run("UPDATE gatefeed_partitions SET status = 'cancelled' WHERE id = 'p'").await;
    assert_eq!(ingest(&store, &[keyed("p", "k", 1)]).await, [Arrived::Replayed]);
}

/// One that is refused takes the others along, so that its caller can split them.
pub async fn a_bad_one_leaves_nothing(db: TestDb) {
    let store = db.store();
    db.run("INSERT INTO gatefeed_partitions (id, status) VALUES ('ended', 'cancelled')").await;
    let mut negative = arrival("p", "i");
    negative.item.gate = -1;
    for bad in [negative, arrival("ended", "i"), arrival("p", "nul\0"), arrival("", "i")] {
        let error = store.ingest(&[arrival("p", "good"), bad]).await.unwrap_err();
        assert!(error.is_data(), "{error:?}");
    }
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items").await, 0);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_partitions").await, 1);
}

fn of_feed(feed: &str, partition: &str, id: &str) -> Arrival {
    Arrival { feed: feed.into(), own_feed_only: true, ..arrival(partition, id) }
}

/// Whoever may touch one feed alone adds nothing to a partition of another one, hears nothing of what is in it, and takes
/// the others along.
pub async fn a_partition_of_another_feed_is_none(db: TestDb) {
    let store = db.store();
    assert_eq!(ingest(&store, &[of_feed("a", "p", "i"), keyed("q", "k", 1)]).await, [Arrived::Added; 2]);
    for bad in [
        of_feed("b", "p", "new"),
        of_feed("b", "p", "i"),
        Arrival { request: keyed("q", "k", 1).request, ..of_feed("a", "q", "k") },
    ] {
        for arrivals in [vec![bad.clone()], vec![of_feed("b", "other", "i"), bad]] {
            let error = store.ingest(&arrivals).await.unwrap_err();
            assert!(matches!(error, StoreError::NotFound(_)), "{error:?}");
        }
    }
    let both = [of_feed("a", "new", "i"), of_feed("b", "new", "j")];
    assert!(matches!(store.ingest(&both).await, Err(StoreError::NotFound(_))));
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items").await, 2);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_partitions").await, 2);
    assert_eq!(
        ingest(&store, &[of_feed("a", "p", "i"), of_feed("a", "p", "j")]).await,
        [Arrived::Existing, Arrived::Added]
    );
    // Of several that make it at the same time it is the first one's.
    for round in 0..20 {
        let partition = format!("race{round}");
        let callers = ["a", "b"].into_iter().cycle().take(8).enumerate().map(|(n, feed)| {
            let (store, arrival) = (Arc::clone(&store), of_feed(feed, &partition, &n.to_string()));
            tokio::spawn(async move { (feed, until_settled(&store, &arrival).await) })
        });
        let mut added = Vec::new();
        for caller in callers.collect::<Vec<_>>() {
            let (feed, is_added) = caller.await.unwrap();
            added.extend(is_added.then_some(feed));
        }
        assert!(added.len() == 4 && added.iter().all(|feed| *feed == added[0]), "{added:?}");
    }
}

/// Whether it was added, once nothing is in the way.
async fn until_settled(store: &Arc<dyn Store>, arrival: &Arrival) -> bool {
    loop {
        match store.ingest(std::slice::from_ref(arrival)).await {
            Ok(_) => return true,
            Err(StoreError::NotFound(_)) => return false,
            Err(error) => assert!(error.is_retryable(), "{error:?}"),
        }
    }
}

/// What takes more than one statement is pushed instead, and there is a bound.
pub async fn what_it_does_not_take_is_refused(db: TestDb) {
    let store = db.store();
    let rich = NewItem { dependencies: Dependencies::on(["a"]), ..item("p", "i", 0) };
    let rich = Arrival { item: rich, ..arrival("p", "i") };
    let many = vec![arrival("p", "i"); ARRIVALS_MAX + 1];
    for arrivals in [vec![rich], many] {
        let error = store.ingest(&arrivals).await.unwrap_err();
        assert!(matches!(error, StoreError::Refused(_)), "{error:?}");
    }
    let most: Vec<Arrival> = (0..ARRIVALS_MAX).map(|n| arrival("p", &format!("i{n}"))).collect();
    assert_eq!(ingest(&store, &most).await, vec![Arrived::Added; ARRIVALS_MAX]);
}

/// Callers with the same ids, in other orders, at the same time: each id is added once.
pub async fn the_same_ids_at_the_same_time(db: TestDb) {
    let stores = [db.store(), db.another_store().await];
    let ids: Vec<String> = (0..50).map(|n| format!("i{n}")).collect();
    let mut tasks = Vec::new();
    for task in 0..8 {
        let store = Arc::clone(&stores[task % 2]);
        let mut arrivals: Vec<Arrival> =
            ids.iter().map(|id| arrival(&format!("p{}", id.len()), id)).collect();
        arrivals.rotate_left(task * 7);
        tasks.push(tokio::spawn(async move { ingest(&store, &arrivals).await }));
    }
    let mut added = 0;
    for task in tasks {
        added += task.await.unwrap().iter().filter(|arrived| **arrived == Arrived::Added).count();
    }
    assert_eq!(added, 50);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items").await, 50);
}

/// A watcher hears of it, and a complete partition is open again.
pub async fn watchers_hear_of_it(db: TestDb) {
    let (store, other) = (db.store(), db.another_store().await);
    push(&store, "p", &[("i", 0)]).await;
    drain(&store, "w").await;
    assert!(db.partition_is("p", "status = 'complete'").await);
    let mut wakeups = other.wakeups(&["default".to_owned()]).await;
    promptly("the listener", wakeups.next()).await;
    assert_eq!(ingest(&store, &[arrival("p", "late")]).await, [Arrived::Added]);
    promptly("the wake-up", wakeups.next()).await;
    assert!(db.partition_is("p", "status = 'available' AND next_run_at IS NOT NULL").await);
}

/// Available items of available partitions, up to a limit.
pub async fn a_backlog_is_counted(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("a", 0), ("b", 5), ("c", 0)]).await;
    push(&store, "paused", &[("a", 0)]).await;
    store.pause("paused").await.unwrap();
    assert_eq!(store.backlog("default", 100).await.unwrap(), 3);
    assert_eq!(store.backlog("default", 2).await.unwrap(), 2);
    assert_eq!(store.backlog("nobody's", 2).await.unwrap(), 0);
    let lease = lease(&store, "w", "p").await;
    assert_eq!(store.backlog("default", 100).await.unwrap(), 3, "leased ones count");
    complete_all(&store, &lease).await;
    assert_eq!(store.backlog("default", 100).await.unwrap(), 1);
    assert_eq!(store.glance("nobody").await.unwrap(), None);
    let seen = store.glance("p").await.unwrap().unwrap();
    assert_eq!(
        (seen.feed.as_str(), seen.gate, seen.version),
        ("default", 0, partition(&store, "p").await.version)
    );
}
