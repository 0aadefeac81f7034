//! Writing outcomes: what is written, and when nothing is.

use std::time::Duration;

use gatefeed_core::{
    StoreError,
    item::{Data, ItemStatus},
    outcome::{Change, Settled},
    partition::NewPartition,
};

use super::{given::*, renew::forgeries};

/// Every field arrives; the delay runs on the database's clock.
pub async fn every_field_is_written(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let change = Change {
        status: ItemStatus::Available,
        gate: 5,
        pass: 3,
        retry_count: 2,
        delay: Some(Duration::from_secs(3600)),
        data: Some(Data { bytes: vec![0, 1, 255].into(), content_type: "image/x-icon".into() }),
        error_messages: Some("HTTP 500\nboom".into()),
        wait: None,
    };
    let store = db.store();
    assert_eq!(store.complete(&[completion(&lease, &due[0], change)]).await.unwrap(), [Settled::Written]);
    let row = item_row(&store, "p", "i").await;
    assert_eq!((row.status, row.gate, row.pass, row.retry_count), (ItemStatus::Available, 5, 3, 2));
    assert_eq!((row.content_type.as_str(), row.size, row.data), ("image/x-icon", 3, Some(vec![0, 1, 255])));
    assert_eq!(row.error_messages.as_deref(), Some("HTTP 500\nboom"));
    assert_eq!(row.version, due[0].version + 1);
    let when = format!("available_at BETWEEN {} AND {}", db.in_secs(3500.0), db.in_secs(3600.5));
    assert!(db.item_is("p", "i", &format!("{when} AND updated_at >= created_at")).await);
}

/// What the outcome does not name stays as it was.
pub async fn none_leaves_it(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p')").await;
    let columns = "(partition_id, id, available_at, data, content_type, error_messages)";
    let values = "('p', 'i', '2020-01-01 00:00:00', 'kept', 'text/plain', 'earlier')";
    db.run(&format!("INSERT INTO gatefeed_items {columns} VALUES {values}")).await;
    let store = db.store();
    let before = item_row(&store, "p", "i").await;
    let lease = lease(&store, "w", "p").await;
    assert_eq!(complete_all(&store, &lease).await, 1);
    let row = item_row(&store, "p", "i").await;
    assert_eq!((row.status, row.pass, row.version), (ItemStatus::Complete, 1, before.version + 1));
    assert_eq!((row.data, row.content_type, row.size), (before.data, before.content_type, before.size));
    assert_eq!((row.error_messages, row.available_at), (before.error_messages, before.available_at));
    assert_eq!((row.created_at, row.priority), (before.created_at, before.priority));
}

/// Empty data and a delay of zero are values, not their absence.
pub async fn empty_is_not_none(db: TestDb) {
    let (lease, _) = leased(&db, "p", &[("i", 0)]).await;
    db.run("UPDATE gatefeed_items SET available_at = '2020-01-01 00:00:00'").await;
    let due = due(&db.store(), &lease).await;
    let mut change = with_status(&due[0], ItemStatus::Available);
    change.data = Some(Data { bytes: bytes::Bytes::new(), content_type: "text/plain".into() });
    change.delay = Some(Duration::ZERO);
    let store = db.store();
    assert_eq!(store.complete(&[completion(&lease, &due[0], change)]).await.unwrap(), [Settled::Written]);
    let row = item_row(&store, "p", "i").await;
    assert_eq!((row.data, row.content_type.as_str()), (Some(vec![]), "text/plain"));
    assert!(db.item_is("p", "i", &format!("available_at > {}", db.in_secs(-60.0))).await);
    assert_eq!(due_ids(&store, &lease).await, ["i"], "due at once");
}

/// One outcome per attempt: whoever comes second changes nothing.
pub async fn the_second_of_a_version_is_stale(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0), ("j", 0)]).await;
    let store = db.store();
    let mut again = with_status(&due[0], ItemStatus::Available);
    again.gate = 1;
    let done_i = completion(&lease, &due[0], done(&due[0]));
    assert_eq!(store.complete(std::slice::from_ref(&done_i)).await.unwrap(), [Settled::Written]);
    let late = with_children(&lease, &due[0], again, vec![item("p", "child", 0)]);
    assert_eq!(store.complete(&[done_i, late]).await.unwrap(), [Settled::Stale; 2]);
    let mut never_read = due[1].clone();
    never_read.version += 1;
    let mut unknown = due[1].clone();
    unknown.id = "unknown".into();
    let batch =
        [&never_read, &unknown].map(|i| with_children(&lease, i, done(i), vec![item("p", "child", 0)]));
    assert_eq!(store.complete(&batch).await.unwrap(), [Settled::Stale; 2]);
    let row = item_row(&store, "p", "i").await;
    assert_eq!((row.status, row.gate, row.version), (ItemStatus::Complete, 0, due[0].version + 1));
    assert_eq!(item_ids(&store, "p").await, ["i", "j"]);
}

/// The same item twice in one batch: the first is written, with its children only.
pub async fn twice_in_a_batch_is_once(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let store = db.store();
    let first = with_children(&lease, &due[0], done(&due[0]), vec![item("p", "of the first", 0)]);
    let failed = with_status(&due[0], ItemStatus::Failed);
    let second = with_children(&lease, &due[0], failed, vec![item("p", "of the second", 0)]);
    assert_eq!(store.complete(&[first, second]).await.unwrap(), [Settled::Written, Settled::Stale]);
    let row = item_row(&store, "p", "i").await;
    assert_eq!((row.status, row.version), (ItemStatus::Complete, due[0].version + 1));
    assert_eq!(item_ids(&store, "p").await, ["i", "of the first"]);
}

/// Somebody else decided first: parking the item for its callback comes too late.
pub async fn a_late_waiting_write_loses(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    db.run("UPDATE gatefeed_items SET status = 'complete', version = version + 1").await;
    let waiting = completion(&lease, &due[0], with_status(&due[0], ItemStatus::Waiting));
    assert_eq!(db.store().complete(&[waiting]).await.unwrap(), [Settled::Stale]);
    assert!(db.item_is("p", "i", "status = 'complete'").await);
}

/// A write under a lease that is not current changes nothing and adds nothing.
pub async fn each_part_of_the_fence_counts(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let store = db.store();
    for forged in forgeries(&lease) {
        let children = vec![item("p", "child", 0), item("elsewhere", "child", 0)];
        let late = with_children(&forged, &due[0], done(&due[0]), children);
        assert_eq!(store.complete(&[late]).await.unwrap(), [Settled::Fenced], "{forged:?}");
        assert_eq!(store.begin_suspect(&forged, "i", due[0].version).await.unwrap(), None, "{forged:?}");
    }
    assert!(db.item_is("p", "i", "status = 'available' AND version = 0 AND suspect_count = 0").await);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items").await, 1);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_partitions").await, 1);
    db.run("DELETE FROM gatefeed_partitions").await;
    let gone = completion(&lease, &due[0], done(&due[0]));
    assert_eq!(store.complete(&[gone]).await.unwrap(), [Settled::Fenced]);
}

/// The same after a real take-over and after a release.
pub async fn fenced_after_a_steal_and_after_a_release(db: TestDb) {
    let (first, due) = leased(&db, "p", &[("i", 0)]).await;
    let store = db.store();
    let second = steal(&db, "p", "v").await.lease;
    let late = completion(&first, &due[0], done(&due[0]));
    assert_eq!(store.complete(std::slice::from_ref(&late)).await.unwrap(), [Settled::Fenced]);
    store.release(&[second]).await.unwrap();
    assert_eq!(store.complete(&[late]).await.unwrap(), [Settled::Fenced]);
    assert!(db.item_is("p", "i", "status = 'available' AND version = 0").await);
}

/// Nobody has taken the partition: the late answer is good work.
pub async fn an_expired_lease_that_nobody_took_may_write(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    expire(&db, "p").await;
    let late = with_children(&lease, &due[0], done(&due[0]), vec![item("p", "child", 0)]);
    assert_eq!(db.store().complete(&[late]).await.unwrap(), [Settled::Written]);
    assert_eq!(item_ids(&db.store(), "p").await, ["child", "i"]);
}

/// What is in flight when an operator pauses a partition still arrives.
pub async fn a_paused_partition_takes_outcomes(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    db.run("UPDATE gatefeed_partitions SET status = 'paused', version = version + 1").await;
    let outcome = completion(&lease, &due[0], done(&due[0]));
    assert_eq!(db.store().complete(&[outcome]).await.unwrap(), [Settled::Written]);
}

/// One batch of several partitions: each completion has its own fate, in order.
pub async fn a_mixed_batch(db: TestDb) {
    let store = db.store();
    for id in ["a", "b", "stolen"] {
        push(&store, id, &[("i", 0), ("j", 0)]).await;
    }
    let mut work = Vec::new();
    for grant in claim(&store, "w", 10).await {
        for due in due(&store, &grant.lease).await {
            work.push((grant.lease.clone(), due));
        }
    }
    work.sort_by_key(|(lease, due)| (due.id.clone(), lease.partition.clone()));
    steal(&db, "stolen", "v").await;
    work[3].1.version += 7;
    let batch: Vec<_> = work
        .iter()
        .map(|(l, i)| {
            with_children(l, i, done(i), vec![item(&l.partition, &format!("child of {}", i.id), 0)])
        })
        .collect();
    let settled = store.complete(&batch).await.unwrap();
    use Settled::{Fenced, Stale, Written};
    assert_eq!(settled, [Written, Written, Fenced, Stale, Written, Fenced]);
    assert_eq!(item_ids(&store, "a").await, ["child of i", "i", "j"]);
    assert_eq!(item_ids(&store, "b").await, ["child of i", "child of j", "i", "j"]);
    assert_eq!(item_ids(&store, "stolen").await, ["i", "j"]);
    assert!(store.complete(&[]).await.unwrap().is_empty());
}

/// A thousand outcomes of ten partitions in one call.
pub async fn a_thousand_at_once(db: TestDb) {
    let store = db.store();
    let ids: Vec<_> = (0..100).map(|n| format!("i{n}")).collect();
    let items: Vec<_> = ids.iter().map(|id| (id.as_str(), 0)).collect();
    for n in 0..10 {
        push(&store, &format!("p{n}"), &items).await;
    }
    let mut batch = Vec::new();
    for grant in claim(&store, "w", 10).await {
        for i in due(&store, &grant.lease).await {
            let child = item(&grant.lease.partition, &format!("child of {}", i.id), 1);
            batch.push(with_children(&grant.lease, &i, done(&i), vec![child]));
        }
    }
    assert_eq!(batch.len(), 1000);
    assert_eq!(store.complete(&batch).await.unwrap(), vec![Settled::Written; 1000]);
    let count = |condition| format!("SELECT count(*) FROM gatefeed_items WHERE {condition}");
    assert_eq!(db.count(&count("status = 'complete' AND gate = 0 AND version = 1")).await, 1000);
    assert_eq!(db.count(&count("status = 'available' AND gate = 1")).await, 1000);
}

/// A delivery in suspect mode is noted before it is sent; its outcome forgets the note.
pub async fn begin_suspect_counts(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let store = db.store();
    let first = store.begin_suspect(&lease, "i", due[0].version).await.unwrap().unwrap();
    assert!(first > due[0].version);
    assert_eq!(store.begin_suspect(&lease, "i", due[0].version).await.unwrap(), None, "stale");
    assert_eq!(store.begin_suspect(&lease, "nothing", 0).await.unwrap(), None);
    let second = store.begin_suspect(&lease, "i", first).await.unwrap().unwrap();
    let mut suspect = page(&store, &lease, 10).await.items.remove(0);
    assert_eq!((suspect.suspect_count, suspect.version), (2, second));
    let before = completion(&lease, &due[0], done(&due[0]));
    assert_eq!(store.complete(&[before]).await.unwrap(), [Settled::Stale]);
    suspect.pass += 1;
    let again = completion(&lease, &suspect, with_status(&suspect, ItemStatus::Available));
    assert_eq!(store.complete(&[again]).await.unwrap(), [Settled::Written]);
    assert_eq!(page(&store, &lease, 10).await.items[0].suspect_count, 0, "its end was written");
}

/// What was noted before a delivery that then did not take place, or was broken off by a clean stop, is taken back.
pub async fn an_attempt_that_was_given_up_does_not_count(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let store = db.store();
    let noted = store.begin_suspect(&lease, "i", due[0].version).await.unwrap().unwrap();
    for forgery in forgeries(&lease) {
        store.withdraw_suspect(&forgery, "i", noted).await.unwrap();
    }
    store.withdraw_suspect(&lease, "i", noted - 1).await.unwrap();
    assert!(db.item_is("p", "i", "suspect_count = 1").await, "by its owner only, and of this attempt");
    store.withdraw_suspect(&lease, "i", noted).await.unwrap();
    assert!(db.item_is("p", "i", &format!("suspect_count = 0 AND version > {noted}")).await);
}

/// A value that the database refuses says so, and nothing of the batch is written: callers split it.
pub async fn bad_input_is_data(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0), ("j", 0)]).await;
    let store = db.store();
    let good = with_children(&lease, &due[0], done(&due[0]), vec![item("new", "child", 0)]);
    let bad_type = Data { bytes: bytes::Bytes::new(), content_type: "text/\nplain".into() };
    let changes = [
        Change { gate: -1, ..with_status(&due[1], ItemStatus::Available) },
        Change { data: Some(bad_type), ..done(&due[1]) },
        Change {
            data: Some(Data { bytes: bytes::Bytes::new(), content_type: String::new() }),
            ..done(&due[1])
        },
    ];
    for change in changes {
        let batch = [good.clone(), completion(&lease, &due[1], change.clone())];
        let error = store.complete(&batch).await.expect_err(&format!("{change:?}"));
        assert!(error.is_data(), "{change:?}: {error:?}");
        assert!(!error.to_string().is_empty());
    }
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items WHERE version = 0").await, 2);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_partitions").await, 1);
    assert_eq!(store.complete(&[good]).await.unwrap(), [Settled::Written]);
    assert_eq!(store.push(&NewPartition::new("new"), &[]).await.unwrap().added, 0);
}

/// One partition under two leases of the same watcher, of which one is over: the current one lets nothing of
/// the other pass.
pub async fn a_former_lease_in_the_same_batch_is_fenced(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("i", 0), ("j", 0)]).await;
    let former = lease(&store, "w", "p").await;
    let due = due(&store, &former).await;
    store.release(std::slice::from_ref(&former)).await.unwrap();
    let current = lease(&store, "w", "p").await;
    let batch = [completion(&former, &due[0], done(&due[0])), completion(&current, &due[1], done(&due[1]))];
    assert_eq!(store.complete(&batch).await.unwrap(), [Settled::Fenced, Settled::Written]);
    assert_eq!(item_row(&store, "p", "i").await.status, ItemStatus::Available);
    let made = |lease, child| with_children(lease, &due[0], done(&due[0]), vec![item("p", child, 0)]);
    let batch = [made(&former, "of the former"), made(&current, "of the current")];
    assert_eq!(store.complete(&batch).await.unwrap(), [Settled::Fenced, Settled::Written], "the same item");
    assert_eq!(item_ids(&store, "p").await, ["i", "j", "of the current"]);
}

/// Somebody's open transaction on one partition holds up the outcomes of no other.
pub async fn a_locked_partition_is_busy(db: TestDb) {
    if !db.is_postgres() {
        return; // SQLite has one lock for all rows, and waits for it.
    }
    let store = db.store();
    push(&store, "free", &[("i", 0)]).await;
    push(&store, "locked", &[("i", 0)]).await;
    let mut grants = claim(&store, "w", 10).await;
    grants.sort_by(|a, b| a.lease.partition.cmp(&b.lease.partition));
    let mut batch = Vec::new();
    for grant in &grants {
        let due = due(&store, &grant.lease).await;
        batch.push(completion(&grant.lease, &due[0], done(&due[0])));
    }
    let mut other = db.begin().await;
    other.execute("UPDATE gatefeed_partitions SET priority = 1 WHERE id = 'locked'").await.unwrap();
    let settled =
        tokio::time::timeout(Duration::from_secs(5), store.complete(&batch)).await.unwrap().unwrap();
    assert_eq!(settled, [Settled::Written, Settled::Busy]);
    let leases: Vec<_> = grants.iter().map(|grant| grant.lease.clone()).collect();
    store.release(&leases).await.unwrap();
    assert!(db.partition_is("free", "owner IS NULL").await);
    other.rollback().await;
    assert_eq!(store.complete(&batch[1..]).await.unwrap(), [Settled::Written]);
}

/// An item or a child's partition that somebody has locked is told apart from a database that is away.
pub async fn another_lock_is_told(db: TestDb) {
    if !db.is_postgres() {
        return; // As above.
    }
    let store = db.store();
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let mut other = db.begin().await;
    other.execute("UPDATE gatefeed_items SET priority = 1 WHERE id = 'i'").await.unwrap();
    let outcome = completion(&lease, &due[0], done(&due[0]));
    let error = store.complete(std::slice::from_ref(&outcome)).await.unwrap_err();
    assert!(matches!(error, StoreError::Locked(_)), "{error:?}");
    other.rollback().await;
    assert_eq!(store.complete(&[outcome]).await.unwrap(), [Settled::Written]);
}

/// Where many lock a partition in turn, as callbacks do, whoever never waits has no turn: now and then an outcome queues.
pub async fn an_outcome_queues_for_a_lock(db: TestDb) {
    if !db.is_postgres() {
        return;
    }
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let mut other = db.begin().await;
    other.execute("UPDATE gatefeed_partitions SET priority = 1").await.unwrap();
    let (store, outcome) = (db.store(), completion(&lease, &due[0], done(&due[0])));
    let writing = tokio::spawn(async move { complete_patiently(&store, &[outcome]).await });
    let schema = db.table("").replace('\'', "''");
    let queued = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%{schema}%' \
         AND pid <> pg_backend_pid()"
    );
    let queues = async {
        while db.count(&queued).await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), queues).await.expect("it never queues");
    other.rollback().await;
    assert_eq!(writing.await.unwrap(), [Settled::Written]);
}
