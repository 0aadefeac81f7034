//! Items that are added before they are due.

use chrono::{DateTime, Duration, TimeDelta, Utc};
use gatefeed_core::{item::NewItem, outcome::Settled, partition::NewPartition};

use super::given::*;

/// The database's clock plus this, to the millisecond, which is what both databases keep.
async fn database_time(db: &TestDb, delta: TimeDelta) -> DateTime<Utc> {
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('clock')").await;
    let now = partition(&db.store(), "clock").await.created_at;
    db.run("DELETE FROM gatefeed_partitions WHERE id = 'clock'").await;
    DateTime::from_timestamp_millis((now + delta).timestamp_millis()).unwrap()
}

fn at(partition: &str, id: &str, moment: DateTime<Utc>) -> NewItem {
    NewItem { available_at: Some(moment), ..item(partition, id, 0) }
}

/// It is not delivered before, and its partition wakes then.
pub async fn a_delayed_item_waits(db: TestDb) {
    let store = db.store();
    let (hour, two) =
        (database_time(&db, Duration::hours(1)).await, database_time(&db, Duration::hours(2)).await);
    let items = [at("p", "two", two), at("p", "hour", hour)];
    store.push(&NewPartition::new("p"), &items).await.unwrap();
    assert_eq!(item_row(&store, "p", "two").await.available_at, two);
    assert_eq!(partition(&store, "p").await.next_run_at, Some(hour));
    assert!(claim(&store, "w", 10).await.is_empty());
    push(&store, "p", &[("now", 0)]).await;
    let lease = lease(&store, "w", "p").await;
    assert_eq!(due_ids(&store, &lease).await, ["now"]);
    assert_eq!(drain_lease(&store, &lease).await, 1);
    assert_eq!(partition(&store, "p").await.next_run_at, Some(hour), "after its work of today");
}

/// Items with and without a moment may come together.
pub async fn a_mixed_push(db: TestDb) {
    let store = db.store();
    let hour = database_time(&db, Duration::hours(1)).await;
    let items: Vec<_> = (0..300)
        .map(
            |n| if n % 2 == 0 { item("p", &format!("{n:03}"), 0) } else { at("p", &format!("{n:03}"), hour) },
        )
        .collect();
    store.push(&NewPartition::new("p"), &items).await.unwrap();
    let lease = lease(&store, "w", "p").await;
    let due = due_ids(&store, &lease).await;
    assert_eq!((due.len(), due[0].as_str(), due[149].as_str()), (150, "000", "298"));
}

/// A moment that is over: due now, and before what came later.
pub async fn past_moments_are_due(db: TestDb) {
    let store = db.store();
    let past = database_time(&db, -Duration::days(400)).await;
    let first: DateTime<Utc> = "0001-01-01T00:00:00Z".parse().unwrap();
    let items = [item("p", "now", 0), at("p", "past", past), at("p", "first", first)];
    store.push(&NewPartition::new("p"), &items).await.unwrap();
    let row = format!("next_run_at BETWEEN {} AND {}", db.in_secs(-60.0), db.in_secs(0.1));
    assert!(db.partition_is("p", &row).await, "woken by the clock, not in the past");
    let lease = lease(&store, "w", "p").await;
    assert_eq!(due_ids(&store, &lease).await, ["first", "past", "now"]);
    assert_eq!(item_row(&store, "p", "past").await.available_at, past);
    assert_eq!(item_row(&store, "p", "first").await.available_at, first);
}

/// The last moment that both databases hold.
pub async fn the_year_9999_is_fine(db: TestDb) {
    let store = db.store();
    let last: DateTime<Utc> = "9999-12-31T23:59:59.999Z".parse().unwrap();
    store.push(&NewPartition::new("p"), &[at("p", "last", last)]).await.unwrap();
    assert_eq!(item_row(&store, "p", "last").await.available_at, last);
    assert_eq!(partition(&store, "p").await.next_run_at, Some(last));
}

/// Beyond, a moment is refused with everything that came with it.
pub async fn absurd_years_are_refused(db: TestDb) {
    let store = db.store();
    for moment in [
        DateTime::<Utc>::MIN_UTC,
        DateTime::<Utc>::MAX_UTC,
        "0000-12-31T23:59:59Z".parse().unwrap(),
        "+10000-01-01T00:00:00Z".parse().unwrap(),
    ] {
        let items = [item("p", "good", 0), at("p", "bad", moment)];
        let error = store.push(&NewPartition::new("p"), &items).await.unwrap_err();
        assert!(error.is_data(), "{moment}: {error:?}");
    }
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_partitions").await, 0);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items").await, 0);
}

/// The same for children.
pub async fn children_may_be_delayed(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let store = db.store();
    let hour = database_time(&db, Duration::hours(1)).await;
    let children = vec![at("p", "later", hour), item("p", "now", 0), at("q", "later", hour)];
    let outcome = with_children(&lease, &due[0], done(&due[0]), children);
    assert_eq!(store.complete(&[outcome]).await.unwrap(), [Settled::Written]);
    assert_eq!(due_ids(&store, &lease).await, ["now"]);
    assert_eq!(item_row(&store, "p", "later").await.available_at, hour);
    assert_eq!(partition(&store, "q").await.next_run_at, Some(hour));
}
