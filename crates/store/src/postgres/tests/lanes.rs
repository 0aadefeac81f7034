//! Who waits for whose connections.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{
    Store,
    acting::Action,
    callback::{Heartbeat, Ticket},
    gather::{Ended, Gather, GatherRequest},
    ingest::Arrival,
    inspect::{Awaited, ItemFilter, PartitionFilter},
    item::{Data, NewItem},
    lease::{Claim, Grant},
    outcome::{Change, Completion, Settled},
    partition::NewPartition,
    retry::RetryPolicy,
    store::PageRequest,
};

use sqlx::postgres::PgListener;

use super::{super::pool::Tx, *};

/// As many transactions as a lane has connections.
async fn occupy(store: &Postgres, lane: Lane) -> Vec<Tx> {
    let mut taken = Vec::new();
    for _ in 0..lane.size() {
        taken.push(store.begin(lane, Duration::from_secs(600)).await.unwrap());
    }
    taken
}

fn item(id: &str) -> NewItem {
    NewItem::new("p", id, Data::json("1"))
}

async fn grant(store: &Postgres) -> Grant {
    let feeds = vec!["default".to_owned()];
    let (owner, duration) = ("w".into(), Duration::from_secs(600));
    let claim = Claim { owner, feeds, duration, limit: 10, due_for: Duration::ZERO };
    store.claim(&claim).await.unwrap().remove(0)
}

/// Actions, looks, and what requests and handlers ask for.
async fn ask_for_everything(store: &Postgres) {
    store.ping().await.unwrap();
    store.status().await.unwrap();
    store.partitions(&PartitionFilter { limit: 10, ..PartitionFilter::default() }).await.unwrap();
    for id in [None, Some("i".to_owned())] {
        let filter = ItemFilter { partition: "p".into(), limit: 10, id, ..ItemFilter::default() };
        assert_eq!(store.items(&filter).await.unwrap().len(), 1);
    }
    assert_eq!(store.gates("p").await.unwrap().len(), 1);
    store.why("p", Some("i")).await.unwrap();
    assert!(store.glance("p").await.unwrap().is_some());
    assert_eq!(store.ended(&[Awaited::Partition("p".into())]).await.unwrap(), [false]);
    assert!(store.tokens().await.unwrap().is_empty());
    store.callback_key().await.unwrap();
    store.blob_space().await.unwrap();
    store.referred_to(&["a".to_owned()]).await.unwrap();
    assert_eq!(store.backlog("default", 10).await.unwrap(), 1);
    let gather = Gather { gate: 0, status: Ended::Any };
    store.gathered(&GatherRequest { partition: "p".into(), gather, after: None }).await.unwrap();
    store.act("p", None, &Action::Pause).await.unwrap();
    store.act("p", None, &Action::Resume).await.unwrap();
    let ticket = Ticket {
        partition: "p".into(),
        item: "i".into(),
        version: 77,
        born: 0,
        timeout: Duration::from_secs(1),
        retry: RetryPolicy::default(),
        max_answer: 1,
    };
    assert!(matches!(store.heartbeat(&ticket).await.unwrap(), Heartbeat::Refused(_)));
}

/// Watchers are told of what arrives at the API, and of what operators do.
async fn told(store: &Postgres) {
    store.push(&NewPartition { feed: "posted".into(), ..NewPartition::new("q") }, &[]).await.unwrap();
    let url = std::env::var("GATEFEED_TEST_POSTGRES_URL").expect("run ./scripts/test");
    let mut listener = PgListener::connect(&url).await.unwrap();
    listener.listen(&store.sql.channel).await.unwrap();
    store.act("p", None, &Action::Pause).await.unwrap();
    store.act("p", None, &Action::Resume).await.unwrap();
    assert_eq!(heard(&mut listener).await, "default");
    let arrival = Arrival {
        feed: "posted".into(),
        own_feed_only: false,
        item: NewItem::new("q", "i", Data::json("1")),
        request: None,
    };
    store.ingest(&[arrival]).await.unwrap();
    assert_eq!(heard(&mut listener).await, "posted");
}

async fn heard(listener: &mut PgListener) -> String {
    let heard = tokio::time::timeout(Duration::from_secs(20), listener.recv()).await;
    heard.expect("nobody was told").unwrap().payload().to_owned()
}

#[tokio::test]
async fn nothing_but_a_watcher_takes_its_connections() {
    let store = store().await;
    store.push(&NewPartition::new("p"), &[item("i")]).await.unwrap();
    let mut taken = occupy(&store, Lane::Work).await;
    taken.extend(occupy(&store, Lane::Renew).await);
    taken.extend(occupy(&store, Lane::Complete).await);
    ask_for_everything(&store).await;
    told(&store).await;
    drop(taken);
    run(&store, "DROP SCHEMA {schema} CASCADE").await;
}

#[tokio::test]
async fn a_watcher_takes_no_connections_but_its_own() {
    let store = store().await;
    store.push(&NewPartition::new("p"), &[item("i")]).await.unwrap();
    let mut taken = Vec::new();
    for lane in Lane::ALL.into_iter().filter(|lane| !lane.is_kept()) {
        taken.extend(occupy(&store, lane).await);
    }
    let lease = grant(&store).await.lease;
    let leases = [lease.clone()];
    store.renew(&leases, Duration::from_secs(600)).await.unwrap();
    store.observe(&leases).await.unwrap();
    store.overdue(&leases, 10).await.unwrap();
    let feeds = ["default".to_owned()];
    store.ask("w", &feeds).await.unwrap();
    store.asked("w", &feeds).await.unwrap();
    store.peers("w", &feeds).await.unwrap();
    store.idleness(&feeds).await.unwrap();
    let request = PageRequest { lease: lease.clone(), after: None, limit: 10 };
    let due = store.page(&[request]).await.unwrap().remove(0).items.remove(0);
    store.load("p", "i", due.version).await.unwrap().unwrap();
    let version = store.begin_suspect(&lease, "i", due.version).await.unwrap().unwrap();
    store.withdraw_suspect(&lease, "i", version).await.unwrap();
    let outcome = complete(&lease, version + 1, vec![item("child")]);
    assert_eq!(store.complete(&[outcome]).await.unwrap(), [Settled::Written]);
    store.progressed(&lease).await.unwrap();
    store.checkpoint(&leases, Duration::ZERO).await.unwrap();
    store.release(&leases).await.unwrap();
    drop(taken);
    run(&store, "DROP SCHEMA {schema} CASCADE").await;
}

fn complete(lease: &Arc<gatefeed_core::lease::Lease>, version: i64, children: Vec<NewItem>) -> Completion {
    let change = Change {
        status: gatefeed_core::item::ItemStatus::Complete,
        gate: 0,
        pass: 1,
        retry_count: 0,
        delay: None,
        data: None,
        error_messages: None,
        wait: None,
    };
    Completion {
        lease: lease.clone(),
        feed: "default".into(),
        item: "i".into(),
        version,
        change,
        children,
        nested: Vec::new(),
        kept: None,
    }
}

/// Of children, or of a partition's end: whoever writes has the next outcomes waiting.
#[tokio::test]
async fn no_writer_waits_for_a_notification() {
    let store = store().await;
    store.push(&NewPartition::new("p"), &[item("i")]).await.unwrap();
    let lease = grant(&store).await.lease;
    let version =
        store.page(&[PageRequest { lease: lease.clone(), after: None, limit: 1 }]).await.unwrap()[0].items[0]
            .version;
    let sending = store.pending.sending.lock().await;
    let written = async {
        let outcome = complete(&lease, version, vec![item("child")]);
        assert_eq!(store.complete(&[outcome]).await.unwrap(), [Settled::Written]);
        store.act("p", None, &Action::Cancel).await.unwrap();
    };
    tokio::time::timeout(Duration::from_secs(20), written).await.expect("a notification was waited for");
    drop(sending);
    // What is about to be told is, before the connections end.
    store.close().await;
}

/// Two of the looks at the same time, and an action.
#[tokio::test]
async fn connections_that_are_not_a_watchers_are_closed_when_they_lie_idle() {
    let store = store().await;
    let sizes = || Lane::ALL.map(|lane| store.lanes.connections(lane));
    let (first, second, third) = tokio::join!(
        store.begin(Lane::Look, ACQUIRE_TIMEOUT),
        store.begin(Lane::Look, ACQUIRE_TIMEOUT),
        store.begin(Lane::Act, ACQUIRE_TIMEOUT)
    );
    for tx in [first, second] {
        tx.unwrap().commit().await.unwrap();
    }
    let acting = third.unwrap();
    let before = sizes();
    assert_eq!((before[Lane::Look as usize], before[Lane::Act as usize]), (2, 1));
    store.lanes.trim(Duration::from_secs(600)).await;
    assert_eq!(sizes(), before);
    store.lanes.trim(Duration::ZERO).await;
    let mut after = before;
    after[Lane::Look as usize] = 0;
    assert_eq!(sizes(), after, "only idle ones go, and none of a watcher");
    assert!(after[Lane::Work as usize] > 0);
    acting.commit().await.unwrap();
    store.lanes.trim(Duration::ZERO).await;
    assert_eq!(store.lanes.connections(Lane::Act), 0);
    run(&store, "DROP SCHEMA {schema} CASCADE").await;
}
