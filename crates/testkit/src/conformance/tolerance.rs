//! Counts and shares of failed items, and gates without items.

use gatefeed_core::{
    StoreError,
    item::ItemStatus,
    outcome::{Change, Settled},
    partition::{NewPartition, PartitionStatus},
    store::Checkpointed,
};

use super::{acting::assert_refused, given::*};

fn with_policy(policy: &str) -> NewPartition {
    NewPartition { failure_policy: policy.parse().unwrap(), ..NewPartition::new("p") }
}

/// Pushes "a0" … at gate 0 and "next" at gate 5; settles the first `failed` as failed, the others as complete, and takes
/// a checkpoint.
async fn checkpoint_after(db: &TestDb, policy: &str, items: usize, failed: usize) -> Checkpointed {
    let store = db.store();
    let ids: Vec<String> = (0..items).map(|n| format!("a{n:03}")).collect();
    let items: Vec<_> = ids.iter().map(|id| (id.as_str(), 0)).chain([("next", 5)]).collect();
    push_to(&store, &with_policy(policy), &items).await;
    let lease = lease(&store, "w", "p").await;
    let due = due(&store, &lease).await;
    let status = |n| if n < failed { ItemStatus::Failed } else { ItemStatus::Complete };
    let batch: Vec<_> =
        due.iter().enumerate().map(|(n, i)| completion(&lease, i, with_status(i, status(n)))).collect();
    assert_eq!(complete_patiently(&store, &batch).await, vec![Settled::Written; batch.len()]);
    checkpoint(&store, &lease).await
}

/// Up to the number the gate advances; its failed items count as through.
pub async fn a_count_is_put_up_with(db: TestDb) {
    assert_eq!(checkpoint_after(&db, "2", 5, 2).await, Checkpointed::Advanced(5));
    assert_eq!(partition(&db.store(), "p").await.reason, None);
}

/// Beyond it the partition fails, and says why.
pub async fn beyond_a_count_it_fails(db: TestDb) {
    assert_eq!(checkpoint_after(&db, "2", 5, 3).await, Checkpointed::Failed);
    let row = partition(&db.store(), "p").await;
    assert_eq!((row.status, row.gate), (PartitionStatus::Failed, 0));
    let reason = "3 items at gate 0 are failed, and the failure policy puts up with 2";
    assert_eq!(row.reason.as_deref(), Some(reason));
}

/// Exactly the share is put up with: 2 of 40, "next" being one of them.
pub async fn a_share_is_put_up_with(db: TestDb) {
    assert_eq!(checkpoint_after(&db, "5%", 39, 2).await, Checkpointed::Advanced(5));
}

/// "next", at a gate beyond, counts as on its way there: 3 of 41.
pub async fn beyond_a_share_it_fails(db: TestDb) {
    assert_eq!(checkpoint_after(&db, "5%", 40, 3).await, Checkpointed::Failed);
    let reason = "3 of the 41 items that came to gate 0 are failed, and the failure policy puts up with 5%";
    assert_eq!(partition(&db.store(), "p").await.reason.as_deref(), Some(reason));
}

/// The reason of 'stop' is told too, and gone when the partition is open again.
pub async fn stop_has_a_reason(db: TestDb) {
    assert_eq!(checkpoint_after(&db, "stop", 3, 1).await, Checkpointed::Failed);
    let reason = "an item at gate 0 is failed, and the failure policy is 'stop'";
    let store = db.store();
    assert_eq!(partition(&store, "p").await.reason.as_deref(), Some(reason));
    store.retry("p", &Default::default()).await.unwrap();
    assert_eq!(partition(&store, "p").await.reason, None);
}

/// Items that have gone on came to the gate as well; what answers there have made beyond it did not.
pub async fn a_share_is_of_what_came_to_the_gate(db: TestDb) {
    for (policy, share, expected) in
        [("10%", "tenth", Checkpointed::Advanced(1)), ("9%", "less", Checkpointed::Failed)]
    {
        let store = db.store();
        let ids: Vec<String> = (0..10).map(|n| format!("a{n}")).collect();
        let items: Vec<_> = ids.iter().map(|id| (id.as_str(), 0)).collect();
        push_to(&store, &NewPartition { id: share.into(), ..with_policy(policy) }, &items).await;
        let lease = lease(&store, "w", share).await;
        let due = due(&store, &lease).await;
        let on = |n: usize| Change { status: ItemStatus::Available, gate: 1, ..done(&due[n]) };
        let made = |n: usize| {
            let creator = gatefeed_core::item::Creator { item: due[n].id.to_string(), gate: 0 };
            let child = |k| gatefeed_core::item::NewItem {
                creator: Some(creator.clone()),
                ..item(share, &format!("c{n}-{k}"), 1)
            };
            (0..5).map(child).collect()
        };
        let mut batch: Vec<_> = (1..10).map(|n| with_children(&lease, &due[n], on(n), made(n))).collect();
        batch.push(completion(&lease, &due[0], with_status(&due[0], ItemStatus::Failed)));
        assert_eq!(complete_patiently(&store, &batch).await, vec![Settled::Written; 10]);
        assert_eq!(checkpoint(&store, &lease).await, expected, "{policy}");
        if expected == Checkpointed::Failed {
            let reason = partition(&store, share).await.reason.unwrap();
            assert!(reason.starts_with("1 of the 10 items that came to gate 0"), "{reason}");
        }
        db.run("UPDATE gatefeed_partitions SET status = 'paused'").await;
    }
}

/// Each gate has its own number, and the last one counts before the partition closes.
pub async fn each_gate_counts_by_itself(db: TestDb) {
    let store = db.store();
    push_to(&store, &with_policy("1"), &[("a", 0), ("b", 1), ("c", 1)]).await;
    let lease = lease(&store, "w", "p").await;
    settle_all(&store, &lease, ItemStatus::Failed).await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(1));
    settle_all(&store, &lease, ItemStatus::Failed).await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Failed);
    let reason = partition(&store, "p").await.reason.unwrap();
    assert!(reason.starts_with("2 items at gate 1 are failed"), "{reason}");
}

/// An advance by hand puts up with no more.
pub async fn an_advance_by_hand_counts_too(db: TestDb) {
    let store = db.store();
    for (policy, why) in [
        ("stop", "an item at gate 0 is failed"),
        ("1", "2 items at gate 0 are failed, and the failure policy puts up with 1"),
        ("50%", "2 of the 3 items that came to gate 0 are failed, and the failure policy puts up with 50%"),
    ] {
        let made = NewPartition { id: format!("p{policy}"), ..with_policy(policy) };
        push_to(&store, &made, &[("a", 0), ("b", 0), ("next", 3)]).await;
        let of = format!("partition_id = '{}'", made.id);
        db.run(&format!("UPDATE gatefeed_items SET status = 'failed' WHERE {of} AND gate = 0")).await;
        assert_refused(store.advance(&made.id).await, &["cannot advance", why, "retry"]);
        db.run(&format!("UPDATE gatefeed_items SET status = 'complete' WHERE {of} AND id = 'b'")).await;
        match policy {
            "stop" => assert_refused(store.advance(&made.id).await, &[why]),
            _ => assert_eq!(store.advance(&made.id).await.unwrap(), 3, "{policy}"),
        }
    }
    assert!(matches!(store.advance("nowhere").await, Err(StoreError::NotFound(_))));
}

/// A gate without items, or with none that is open, is through: it stops nothing, under any policy and deadline.
pub async fn an_empty_gate_is_through(db: TestDb) {
    let store = db.store();
    for policy in ["stop", "0", "0%", "continue"] {
        let deadline = Some(std::time::Duration::from_secs(1));
        let made = NewPartition { id: format!("p{policy}"), gate_deadline: deadline, ..with_policy(policy) };
        push_to(&store, &made, &[("far", 7)]).await;
        let past = db.in_secs(-60.0);
        db.run(&format!("UPDATE gatefeed_partitions SET gate_since = {past} WHERE id = '{}'", made.id)).await;
        let lease = lease(&store, "w", &made.id).await;
        assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(7), "{policy}");
        settle_all(&store, &lease, ItemStatus::Complete).await;
        assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Closed, "{policy}");
    }
}
