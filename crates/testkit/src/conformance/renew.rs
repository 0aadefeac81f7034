//! Keeping, watching and giving back a lease.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{
    lease::{Lease, Observed, Renewal},
    partition::PartitionStatus,
};

use super::given::*;

const SHORT: Duration = Duration::from_secs(60);

fn slice(lease: &Arc<Lease>) -> &[Arc<Lease>] {
    std::slice::from_ref(lease)
}

/// A renewal moves the end and nothing that anybody sees.
pub async fn extends_and_keeps_the_version(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    let lease = lease(&store, "w", "p").await;
    let before = partition(&store, "p").await;
    assert_eq!(store.renew(slice(&lease), Duration::from_secs(9000)).await.unwrap(), [Renewal::Renewed]);
    let after = partition(&store, "p").await;
    let until = format!("until BETWEEN {} AND {}", db.in_secs(8900.0), db.in_secs(9000.5));
    assert!(db.partition_is("p", &until).await);
    assert_eq!((after.version, after.epoch, after.owner), (before.version, before.epoch, before.owner));
    assert_eq!((after.next_run_at, after.updated_at), (before.next_run_at, before.updated_at));
}

/// Nobody has taken it: the lease is as good as before.
pub async fn an_expired_lease_that_nobody_took_is_renewed(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    let lease = lease(&store, "w", "p").await;
    expire(&db, "p").await;
    assert_eq!(store.renew(slice(&lease), SHORT).await.unwrap(), [Renewal::Renewed]);
    assert!(db.partition_is("p", &format!("until > {}", db.in_secs(20.0))).await);
    assert!(claim(&store, "v", 10).await.is_empty());
}

/// One entry for each lease, in the order of the call; a deleted partition is lost too.
pub async fn a_stolen_lease_is_lost(db: TestDb) {
    let store = db.store();
    for id in ["held", "stolen", "deleted"] {
        push(&store, id, &[("i", 0)]).await;
    }
    let leases = claim(&store, "w", 10).await;
    let of = |id: &str| leases.iter().find(|g| &*g.lease.partition == id).unwrap().lease.clone();
    steal(&db, "stolen", "v").await;
    db.run("DELETE FROM gatefeed_partitions WHERE id = 'deleted'").await;
    let asked = [of("stolen"), of("held"), of("deleted")];
    assert_eq!(store.renew(&asked, SHORT).await.unwrap(), [Renewal::Lost, Renewal::Renewed, Renewal::Lost]);
    let observed = store.observe(&asked).await.unwrap();
    assert!(matches!(observed[..], [Observed::Lost, Observed::Held(_), Observed::Lost]), "{observed:?}");
    assert!(db.partition_is("stolen", &format!("owner = 'v' AND until > {}", db.in_secs(300.0))).await);
    assert!(store.renew(&[], SHORT).await.unwrap().is_empty());
    assert!(store.observe(&[]).await.unwrap().is_empty());
}

/// Each part of the fence counts: an epoch can be issued twice by a failover, an owner can come back.
pub async fn every_part_of_the_fence_counts(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    let lease = lease(&store, "w", "p").await;
    for forged in forgeries(&lease) {
        assert_eq!(store.renew(slice(&forged), SHORT).await.unwrap(), [Renewal::Lost], "{forged:?}");
        assert_eq!(store.observe(slice(&forged)).await.unwrap(), [Observed::Lost], "{forged:?}");
        assert!(page(&store, &forged, 10).await.items.is_empty(), "{forged:?}");
        store.release(slice(&forged)).await.unwrap();
    }
    assert!(db.partition_is("p", &format!("owner = 'w' AND until > {}", db.in_secs(300.0))).await);
    assert_eq!(store.renew(slice(&lease), SHORT).await.unwrap(), [Renewal::Renewed]);
}

/// A lease with one part wrong, three ways.
pub(super) fn forgeries(lease: &Arc<Lease>) -> [Arc<Lease>; 3] {
    [
        Arc::new(Lease { epoch: lease.epoch + 1, ..(**lease).clone() }),
        Arc::new(Lease { lease_id: uuid::Uuid::from_u128(1), ..(**lease).clone() }),
        Arc::new(Lease { owner: "somebody else".into(), ..(**lease).clone() }),
    ]
}

/// Whatever an operator has done, the owner keeps its lease until it has drained.
pub async fn the_status_does_not_matter(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    let lease = lease(&store, "w", "p").await;
    for status in ["paused", "cancelled", "failed", "complete"] {
        db.run(&format!("UPDATE gatefeed_partitions SET status = '{status}'")).await;
        assert_eq!(store.renew(slice(&lease), SHORT).await.unwrap(), [Renewal::Renewed], "{status}");
    }
}

/// A row that somebody has locked is neither renewed nor lost, and the others are not held up.
pub async fn a_locked_row_is_skipped(db: TestDb) {
    let store = db.store();
    push(&store, "free", &[("i", 0)]).await;
    push(&store, "locked", &[("i", 0)]).await;
    let mut leases: Vec<_> = claim(&store, "w", 10).await.into_iter().map(|g| g.lease).collect();
    leases.sort_by(|a, b| a.partition.cmp(&b.partition));
    // The first call opens the connection.
    assert_eq!(store.renew(&leases, SHORT).await.unwrap(), [Renewal::Renewed; 2]);
    let mut other = db.begin().await;
    other.execute("UPDATE gatefeed_partitions SET priority = 1 WHERE id = 'locked'").await.unwrap();
    let renewed = promptly("a renewal", store.renew(&leases, SHORT)).await.unwrap();
    // SQLite has one lock for all rows.
    let free = if db.is_postgres() { Renewal::Renewed } else { Renewal::Skipped };
    assert_eq!(renewed, [free, Renewal::Skipped]);
    other.rollback().await;
    assert_eq!(store.renew(&leases, SHORT).await.unwrap(), [Renewal::Renewed; 2]);
}

/// Owners notice what operators do.
pub async fn observe_sees_the_row_as_it_is(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    let grant = grant(&store, "w", "p").await;
    let observe = || async { store.observe(slice(&grant.lease)).await.unwrap().remove(0) };
    assert_eq!(observe().await, Observed::Held(grant.state.clone()));
    let change =
        "status = 'paused', gate = 3, max_in_flight = 2, manual_checkpoint = true, version = version + 1";
    db.run(&format!("UPDATE gatefeed_partitions SET {change}")).await;
    let Observed::Held(state) = observe().await else { panic!("lost") };
    assert_eq!((state.status, state.gate, state.max_in_flight), (PartitionStatus::Paused, 3, Some(2)));
    assert!(state.manual_checkpoint && state.version == grant.state.version + 1);
    db.run("UPDATE gatefeed_partitions SET status = 'cancelled'").await;
    let cancelled = observe().await;
    assert!(
        matches!(&cancelled, Observed::Held(s) if s.status == PartitionStatus::Cancelled),
        "{cancelled:?}"
    );
    assert!(!cancelled.is_workable());
    expire(&db, "p").await;
    assert!(matches!(observe().await, Observed::Held(_)), "expired, but nobody has taken it");
}

/// Given back, it is there for the next one at once; its work is not forgotten.
pub async fn a_released_partition_is_claimable_at_once(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    let first = lease(&store, "w", "p").await;
    let version = partition(&store, "p").await.version;
    store.release(slice(&first)).await.unwrap();
    assert!(db.partition_is("p", "owner IS NULL AND lease_id IS NULL AND until IS NULL").await);
    assert_eq!(partition(&store, "p").await.version, version, "giving back is no visible change");
    let second = grant(&store, "v", "p").await;
    assert_eq!((second.lease.epoch, second.expiries), (2, 0));
    store.release(slice(&first)).await.unwrap();
    assert!(db.partition_is("p", "owner = 'v'").await, "a stale release");
    store.release(&[]).await.unwrap();
}

/// Progress forgives the expiries before it, for the current owner only.
pub async fn progressed_counts_for_the_current_lease_only(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0)]).await;
    lease(&store, "w0", "p").await;
    let first = steal(&db, "p", "w1").await;
    let second = steal(&db, "p", "w2").await;
    store.progressed(&first.lease).await.unwrap();
    assert_eq!((second.expiries, steal(&db, "p", "w3").await.expiries), (2, 3));
    let fourth = steal(&db, "p", "w4").await;
    let version = partition(&store, "p").await.version;
    store.progressed(&fourth.lease).await.unwrap();
    assert_eq!(partition(&store, "p").await.version, version);
    assert_eq!(steal(&db, "p", "w5").await.expiries, 1);
}
