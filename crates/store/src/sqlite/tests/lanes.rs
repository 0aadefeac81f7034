//! Who waits for whose connections.

use gatefeed_core::{
    gather::{Ended, Gather, GatherRequest},
    inspect::{Awaited, ItemFilter, PartitionFilter},
    store::PageRequest,
};

use super::{super::pool::Lane, *};

async fn occupy(store: &Sqlite, lane: Lane) -> Vec<impl Drop + use<>> {
    let mut taken = Vec::new();
    for _ in 0..lane.size() {
        taken.push(store.lanes.read(lane).await.unwrap());
    }
    taken
}

#[tokio::test]
async fn nothing_but_a_watcher_takes_its_connections() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    store.push(&NewPartition::new("p"), &[item(0, 1)]).await.unwrap();
    let _taken = occupy(&store, Lane::Work).await;
    store.ping().await.unwrap();
    store.status().await.unwrap();
    store.partitions(&PartitionFilter { limit: 10, ..PartitionFilter::default() }).await.unwrap();
    for id in [None, Some("0".to_owned())] {
        let filter = ItemFilter { partition: "p".into(), limit: 10, id, ..ItemFilter::default() };
        assert_eq!(store.items(&filter).await.unwrap().len(), 1);
    }
    assert_eq!(store.gates("p").await.unwrap().len(), 1);
    store.why("p", Some("0")).await.unwrap();
    assert!(store.glance("p").await.unwrap().is_some());
    assert_eq!(store.ended(&[Awaited::Partition("p".into())]).await.unwrap(), [false]);
    assert!(store.tokens().await.unwrap().is_empty());
    store.callback_key().await.unwrap();
    store.blob_space().await.unwrap();
    store.referred_to(&["a".to_owned()]).await.unwrap();
    assert_eq!(store.backlog("default", 10).await.unwrap(), 1);
    let gather = Gather { gate: 0, status: Ended::Any };
    store.gathered(&GatherRequest { partition: "p".into(), gather, after: None }).await.unwrap();
    store.pause("p").await.unwrap();
}

#[tokio::test]
async fn a_watcher_takes_no_connections_but_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    store.push(&NewPartition::new("p"), &[item(0, 1)]).await.unwrap();
    let mut taken = Vec::new();
    for lane in [Lane::Ask, Lane::Scan, Lane::Look] {
        taken.extend(occupy(&store, lane).await);
    }
    let lease = claim_all(&store).await.remove(0).lease;
    let leases = [lease.clone()];
    store.renew(&leases, Duration::from_secs(30)).await.unwrap();
    store.observe(&leases).await.unwrap();
    store.overdue(&leases, 10).await.unwrap();
    let feeds = ["default".to_owned()];
    store.ask("w", &feeds).await.unwrap();
    store.asked("w", &feeds).await.unwrap();
    store.peers("w", &feeds).await.unwrap();
    store.idleness(&feeds).await.unwrap();
    let request = PageRequest { lease: lease.clone(), after: None, limit: 10 };
    let due = store.page(&[request]).await.unwrap().remove(0).items.remove(0);
    store.load("p", "0", due.version).await.unwrap().unwrap();
    store.begin_suspect(&lease, "0", due.version).await.unwrap().unwrap();
    store.progressed(&lease).await.unwrap();
    store.checkpoint(&leases, Duration::ZERO).await.unwrap();
    store.release(&leases).await.unwrap();
    drop(taken);
}
