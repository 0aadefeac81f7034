//! Dependencies: an item is blocked until all that it names are complete; what could never come free is refused.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use gatefeed_core::{
    Store, StoreError,
    dependency::{Dependencies, Input, OnDependencyFailure},
    item::{Data, ItemStatus, NewItem},
    lease::{Claim, Lease},
    outcome::{Change, Settled},
    partition::{NewPartition, PartitionStatus},
    store::{Checkpointed, RetryFilter},
};

use super::{
    given::*,
    race::{RACE, dawdle},
    seed,
};

/// An item at gate 0 that depends on these.
fn after(id: &str, on: &[&str]) -> NewItem {
    NewItem { dependencies: Dependencies::on(on.to_vec()), ..item("p", id, 0) }
}

fn with_policy(id: &str, on: &[&str], on_failure: OnDependencyFailure) -> NewItem {
    NewItem { dependencies: Dependencies { on_failure, ..Dependencies::on(on.to_vec()) }, ..item("p", id, 0) }
}

async fn push_items(db: &TestDb, items: &[NewItem]) -> Result<(), StoreError> {
    db.store().push(&NewPartition::new("p"), items).await.map(|_| ())
}

/// (id, status) of all items, in order of id.
async fn statuses(store: &Arc<dyn Store>) -> Vec<(String, &'static str)> {
    let items = store.items(&all_items("p")).await.unwrap();
    items.into_iter().map(|i| (i.id, i.status.as_str())).collect()
}

async fn assert_statuses(db: &TestDb, expected: &[(&str, &'static str)]) {
    let seen = statuses(&db.store()).await;
    let seen: Vec<_> = seen.iter().map(|(id, status)| (id.as_str(), *status)).collect();
    assert_eq!(seen, expected);
}

/// Gives one due item a status.
async fn settle_one(db: &TestDb, lease: &Arc<Lease>, id: &str, status: ItemStatus) {
    let store = db.store();
    let due = due(&store, lease).await;
    let item = due.iter().find(|i| *i.id == *id).unwrap_or_else(|| panic!("{id} is not due"));
    let outcome = completion(lease, item, with_status(item, status));
    assert_eq!(complete_patiently(&store, &[outcome]).await, [Settled::Written]);
}

/// Step by step, whichever order they were pushed in; the checkpoint waits for blocked ones.
pub async fn blocked_until_all_are_complete(db: TestDb) {
    let items = [after("a", &["b", "c"]), item("p", "b", 0), after("c", &["b"]), item("p", "z", 1)];
    push_items(&db, &items).await.unwrap();
    let store = db.store();
    let lease = lease(&store, "w", "p").await;
    assert_statuses(&db, &[("a", "blocked"), ("b", "available"), ("c", "blocked"), ("z", "available")]).await;
    assert_eq!(due_ids(&store, &lease).await, ["b"]);
    settle_one(&db, &lease, "b", ItemStatus::Complete).await;
    assert_eq!(due_ids(&store, &lease).await, ["c"]);
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Due);
    settle_one(&db, &lease, "c", ItemStatus::Complete).await;
    assert_eq!(due_ids(&store, &lease).await, ["a"]);
    settle_one(&db, &lease, "a", ItemStatus::Complete).await;
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Advanced(1));
    assert_eq!(drain_lease(&store, &lease).await, 1);
    assert_eq!(partition(&store, "p").await.status, PartitionStatus::Complete);
}

/// What is complete already blocks nobody, and an item that comes along reopens a complete partition.
pub async fn a_complete_dependency_blocks_nobody(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("a", 0)]).await;
    assert_eq!(drain(&store, "w").await, 1);
    assert_eq!(partition(&store, "p").await.status, PartitionStatus::Complete);
    push_items(&db, &[after("b", &["a"])]).await.unwrap();
    assert_eq!(partition(&store, "p").await.status, PartitionStatus::Available);
    assert_statuses(&db, &[("a", "complete"), ("b", "available")]).await;
    assert_eq!(drain(&store, "w").await, 1);
}

/// The data of the one that it depends on, with its content type, as that left it.
pub async fn an_item_takes_its_parents_output(db: TestDb) {
    let parent = Dependencies { input: Input::Parent, ..Dependencies::on(["a"]) };
    let child = NewItem { dependencies: parent.clone(), ..item("p", "b", 0) };
    push_items(&db, &[item("p", "a", 0), child]).await.unwrap();
    let store = db.store();
    let lease = lease(&store, "w", "p").await;
    let due = due(&store, &lease).await;
    let data = Data { bytes: vec![0, 255, 7].into(), content_type: "image/png".into() };
    let outcome = completion(&lease, &due[0], Change { data: Some(data), ..done(&due[0]) });
    assert_eq!(store.complete(&[outcome]).await.unwrap(), [Settled::Written]);
    let row = item_row(&store, "p", "b").await;
    assert_eq!((row.content_type.as_str(), row.data), ("image/png", Some(vec![0, 255, 7])));
    let late = NewItem { dependencies: parent, ..item("p", "late", 0) };
    push_items(&db, &[late]).await.unwrap();
    let late = item_row(&store, "p", "late").await;
    assert_eq!((late.status, late.data), (ItemStatus::Available, Some(vec![0, 255, 7])));
}

/// Down the tree: what fails has its own dependents, and each does as it was told.
pub async fn a_failed_dependency_fails_skips_or_runs(db: TestDb) {
    use OnDependencyFailure::{Fail, Run, Skip};
    let items = [
        item("p", "a", 0),
        item("p", "slow", 0),
        with_policy("fails", &["a", "slow"], Fail),
        with_policy("skips", &["a"], Skip),
        with_policy("runs", &["a", "slow"], Run),
        with_policy("below", &["fails"], Skip),
        with_policy("below skipped", &["skips"], Fail),
        with_policy("in the end", &["below", "below skipped", "runs"], Run),
    ];
    push_items(&db, &items).await.unwrap();
    let lease = lease(&db.store(), "w", "p").await;
    settle_one(&db, &lease, "a", ItemStatus::Failed).await;
    let expected = [
        ("a", "failed"),
        ("below", "cancelled"),
        ("below skipped", "failed"),
        ("fails", "failed"),
        ("in the end", "blocked"),
        ("runs", "blocked"),
        ("skips", "cancelled"),
        ("slow", "available"),
    ];
    assert_statuses(&db, &expected).await;
    let reason = |row: gatefeed_core::inspect::ItemRow| row.error_messages.unwrap_or_default();
    let store = db.store();
    assert_eq!(reason(item_row(&store, "p", "fails").await), "dependency \"a\" failed");
    assert_eq!(reason(item_row(&store, "p", "skips").await), "dependency \"a\" failed");
    assert_eq!(reason(item_row(&store, "p", "below skipped").await), "dependency \"skips\" was cancelled");
    settle_one(&db, &lease, "slow", ItemStatus::Complete).await;
    assert_eq!(due_ids(&store, &lease).await, ["runs"]);
    settle_one(&db, &lease, "runs", ItemStatus::Complete).await;
    assert_eq!(due_ids(&store, &lease).await, ["in the end"]);
    assert_eq!(drain_lease(&store, &lease).await, 1);
    assert_eq!(partition(&store, "p").await.status, PartitionStatus::Failed);
}

/// With the path named, and nothing of the push remains.
pub async fn what_could_never_come_free_is_refused(db: TestDb) {
    let ahead = NewItem { gate: 3, ..item("p", "ahead", 3) };
    let two = Dependencies { input: Input::Parent, ..Dependencies::on(["b", "c"]) };
    let two = NewItem { dependencies: two, ..item("p", "a", 0) };
    for (items, expected) in [
        (vec![after("a", &["a"])], "itself: a → a"),
        (vec![after("a", &["nobody"])], "nobody"),
        (vec![after("a", &["ahead"]), ahead], "higher gate"),
        (vec![after("a", &["b"]), after("b", &["a"])], "a cycle: "),
        (
            vec![item("p", "0", 0), after("a", &["c", "0"]), after("b", &["a"]), after("c", &["b"])],
            "a cycle: ",
        ),
        (vec![two, item("p", "b", 0), item("p", "c", 0)], "more than one dependency"),
    ] {
        let error = push_items(&db, &items).await.unwrap_err();
        assert!(error.is_data() && error.to_string().contains(expected), "{expected}: {error:?}");
        assert_eq!(db.count("SELECT count(*) FROM gatefeed_partitions").await, 0, "{expected}");
        assert_eq!(db.count("SELECT count(*) FROM gatefeed_dependencies").await, 0, "{expected}");
    }
    let circle = [after("a", &["c"]), after("b", &["a"]), after("c", &["b"])];
    let error = push_items(&db, &circle).await.unwrap_err().to_string();
    let ways = ["a → c → b → a", "b → a → c → b", "c → b → a → c"];
    assert!(ways.iter().any(|way| error.contains(way)), "{error}");
}

/// A dependency of a lower gate is through before, and one that is complete at a higher one blocks nobody.
pub async fn lower_gates_may_be_depended_on(db: TestDb) {
    let store = db.store();
    push(&store, "p", &[("ahead", 7)]).await;
    assert_eq!(drain(&store, "w").await, 1);
    let above = NewItem { gate: 2, ..after("above", &["below", "ahead"]) };
    push_items(&db, &[item("p", "below", 0), above, after("late", &["ahead"])]).await.unwrap();
    assert_statuses(
        &db,
        &[("above", "blocked"), ("ahead", "complete"), ("below", "available"), ("late", "available")],
    )
    .await;
    assert_eq!(drain(&store, "w").await, 3);
}

const INSERT: &str = "INSERT INTO gatefeed_dependencies (partition_id, item_id, depends_on) VALUES";

/// In the transaction of their item; repeated, nothing happens.
pub async fn plain_sql_blocks_and_comes_free(db: TestDb) {
    let mut tx = db.begin().await;
    tx.execute("INSERT INTO gatefeed_partitions (id) VALUES ('p')").await.unwrap();
    let items = "INSERT INTO gatefeed_items (partition_id, id) VALUES ('p', 'a'), ('p', 'b'), ('p', 'c')";
    tx.execute(items).await.unwrap();
    tx.execute(&format!("{INSERT} ('p', 'c', 'a'), ('p', 'c', 'b')")).await.unwrap();
    tx.commit().await.unwrap();
    assert_statuses(&db, &[("a", "available"), ("b", "available"), ("c", "blocked")]).await;
    let store = db.store();
    let lease = lease(&store, "w", "p").await;
    let again = format!("{INSERT} ('p', 'c', 'a') ON CONFLICT DO NOTHING");
    assert_eq!(db.run(&again).await, 0);
    settle_one(&db, &lease, "a", ItemStatus::Complete).await;
    assert_eq!(due_ids(&store, &lease).await, ["b"]);
    settle_one(&db, &lease, "b", ItemStatus::Complete).await;
    assert_eq!(drain_lease(&store, &lease).await, 1);
    assert_eq!(db.run(&again).await, 0);
}

/// The triggers know what pushes are told.
pub async fn plain_sql_is_refused_too(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p'), ('q')").await;
    let rows = "('p', 'a', 0, 'blocked'), ('p', 'b', 0, 'blocked'), ('p', 'c', 0, 'blocked'), \
                ('p', 'up', 1, 'available'), ('q', 'other', 0, 'available')";
    db.run(&format!("INSERT INTO gatefeed_items (partition_id, id, gate, status) VALUES {rows}")).await;
    db.run(&format!("{INSERT} ('p', 'a', 'b'), ('p', 'b', 'c')")).await;
    for (row, expected, names) in [
        ("('p', 'a', 'a')", "depends on itself", "itself: a → a"),
        ("('p', 'a', 'nobody')", "not exist", "nobody"),
        ("('p', 'a', 'other')", "not exist", "other"),
        ("('p', 'nobody', 'a')", "not exist", "nobody"),
        ("('nowhere', 'a', 'b')", "not exist", "a → b"),
        ("('p', 'c', 'up')", "higher gate", "c (gate 0) → up (gate 1)"),
        ("('p', 'c', 'a')", "cycle", " → "),
        ("('p', NULL, 'a')", "", ""),
    ] {
        let error = db.refused(&format!("{INSERT} {row}")).await;
        // SQLite's RAISE takes no names.
        assert!(error.contains(expected) && (!db.is_postgres() || error.contains(names)), "{row}: {error}");
    }
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_dependencies").await, 2);
    db.refused("UPDATE gatefeed_dependencies SET depends_on = 'c'").await;
    db.refused("DELETE FROM gatefeed_dependencies").await;
    db.refused("UPDATE gatefeed_items SET on_dependency_failure = 'wait'").await;
    db.refused("UPDATE gatefeed_items SET input = 'child'").await;
}

/// An item that its owner may have in flight, or that is through, takes none.
pub async fn an_item_under_way_takes_no_dependency(db: TestDb) {
    push_items(&db, &[item("p", "a", 0), item("p", "b", 0), after("c", &["a"])]).await.unwrap();
    let store = db.store();
    let lease = lease(&store, "w", "p").await;
    let error = db.refused(&format!("{INSERT} ('p', 'b', 'a')")).await;
    assert!(error.contains("under way"), "{error}");
    assert_eq!(due_ids(&store, &lease).await, ["a", "b"]);
    assert_eq!(db.run(&format!("{INSERT} ('p', 'c', 'b')")).await, 1, "a blocked one is nobody's");
    settle_one(&db, &lease, "b", ItemStatus::Complete).await;
    db.refused(&format!("{INSERT} ('p', 'b', 'a')")).await;
    assert_eq!(drain_lease(&store, &lease).await, 2);
}

/// Two transactions, each of which sees no cycle.
pub async fn two_inserts_cannot_close_a_cycle(db: TestDb) {
    if !db.is_postgres() {
        // One writer at a time: the second sees what the first has committed.
        return;
    }
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        db.run("DELETE FROM gatefeed_partitions").await;
        db.run("INSERT INTO gatefeed_partitions (id, has_dependencies) VALUES ('p', true)").await;
        db.run("INSERT INTO gatefeed_items (partition_id, id, status) VALUES ('p', 'a', 'blocked'), ('p', 'b', 'blocked')")
            .await;
        let mut first = db.begin().await;
        let mut second = db.begin().await;
        for tx in [&mut first, &mut second] {
            tx.execute(&format!("SET TRANSACTION ISOLATION LEVEL {level}")).await.unwrap();
            tx.execute("SELECT count(*) FROM gatefeed_dependencies").await.unwrap();
        }
        first.execute(&format!("{INSERT} ('p', 'a', 'b')")).await.unwrap();
        let waiting = tokio::spawn(async move {
            let refused = second.execute(&format!("{INSERT} ('p', 'b', 'a')")).await;
            second.rollback().await;
            refused
        });
        let is_waiting = "SELECT count(*) FROM pg_stat_activity a JOIN pg_locks l ON l.pid = a.pid \
                          WHERE NOT l.granted AND a.query LIKE 'INSERT INTO gatefeed_dependencies%'";
        while !waiting.is_finished() && db.count(is_waiting).await == 0 {
            tokio::task::yield_now().await;
        }
        first.commit().await.unwrap();
        let error = waiting.await.unwrap().expect_err(level);
        assert!(error.contains("a cycle") || error.starts_with("40001"), "{level}: {error}");
    }
}

/// With their parent's outcome, or not at all; on the parent, each other, and what is there.
pub async fn children_depend_on_what_they_name(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("root", 0), ("other", 0)]).await;
    let store = db.store();
    let output = Dependencies { input: Input::Parent, ..Dependencies::on(["root"]) };
    let children = vec![
        NewItem { dependencies: output, ..item("p", "first", 0) },
        after("second", &["first", "other"]),
        after("third", &["second"]),
    ];
    let root = due.iter().find(|i| &*i.id == "root").unwrap();
    let change = Change { data: Some(Data::json("\"out\"")), ..done(root) };
    let outcome = with_children(&lease, root, change, children);
    assert_eq!(complete_patiently(&store, &[outcome]).await, [Settled::Written]);
    assert_eq!(item_row(&store, "p", "first").await.data.as_deref(), Some(b"\"out\"".as_slice()));
    let mut due = due_ids(&store, &lease).await;
    due.sort();
    assert_eq!(due, ["first", "other"]);
    assert_eq!(complete_all(&store, &lease).await, 2);
    assert_eq!(due_ids(&store, &lease).await, ["second"]);
    assert_eq!(drain_lease(&store, &lease).await, 2);
    assert_eq!(partition(&store, "p").await.status, PartitionStatus::Complete);
}

/// A child that is refused takes its batch along, so that the caller can find it.
pub async fn a_refused_dependency_writes_nothing(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0), ("j", 0)]).await;
    let store = db.store();
    for child in [after("c", &["nobody"]), after("c", &["c"])] {
        let batch = [
            with_children(&lease, &due[0], done(&due[0]), vec![item("p", "good", 0)]),
            with_children(&lease, &due[1], done(&due[1]), vec![child]),
        ];
        // Until the rollback of the round before has arrived the partition is busy.
        let error = loop {
            match store.complete(&batch).await {
                Ok(settled) => assert_eq!(settled, [Settled::Busy; 2]),
                Err(error) => break error,
            }
            tokio::task::yield_now().await;
        };
        assert!(error.is_data(), "{error:?}");
        assert_eq!(item_ids(&store, "p").await, ["i", "j"]);
    }
    assert_eq!(complete_all(&store, &lease).await, 2);
}

/// It would wait for the gate, and the gate for its dependent: said so instead.
pub async fn a_dependency_that_moves_past_stops(db: TestDb) {
    push_items(&db, &[item("p", "a", 0), after("b", &["a"]), after("c", &["b"])]).await.unwrap();
    let store = db.store();
    let lease = lease(&store, "w", "p").await;
    let a = due(&store, &lease).await.remove(0);
    let moved = Change { gate: 2, ..with_status(&a, ItemStatus::Available) };
    assert_eq!(complete_patiently(&store, &[completion(&lease, &a, moved)]).await, [Settled::Written]);
    assert_statuses(&db, &[("a", "available"), ("b", "failed"), ("c", "failed")]).await;
    let reason = item_row(&store, "p", "b").await.error_messages.unwrap();
    assert_eq!(
        reason,
        "dependency \"a\" has moved on to gate 2, past gate 0 of this item: neither can go on"
    );
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Failed);
}

/// A retried item waits again for what is retried with it, and only for that.
pub async fn a_retry_waits_again(db: TestDb) {
    push_items(&db, &[item("p", "a", 0), item("p", "ok", 0), after("b", &["a"]), after("c", &["ok"])])
        .await
        .unwrap();
    let store = db.store();
    let first = lease(&store, "w", "p").await;
    settle_one(&db, &first, "a", ItemStatus::Failed).await;
    settle_one(&db, &first, "ok", ItemStatus::Complete).await;
    settle_one(&db, &first, "c", ItemStatus::Failed).await;
    assert_eq!(checkpoint(&store, &first).await, Checkpointed::Failed);
    assert_eq!(store.retry("p", &RetryFilter::default()).await.unwrap(), 3);
    assert_statuses(&db, &[("a", "available"), ("b", "blocked"), ("c", "available"), ("ok", "complete")])
        .await;
    let again = lease(&store, "w", "p").await;
    assert_eq!(due_ids(&store, &again).await, ["a", "c"]);
    assert_eq!(drain_lease(&store, &again).await, 3);
    assert_eq!(partition(&store, "p").await.status, PartitionStatus::Complete);
}

/// Without its dependency it fails again, and says why.
pub async fn a_retry_alone_fails_again(db: TestDb) {
    push_items(&db, &[item("p", "a", 0), after("b", &["a"])]).await.unwrap();
    let store = db.store();
    let first = lease(&store, "w", "p").await;
    settle_one(&db, &first, "a", ItemStatus::Failed).await;
    assert_eq!(checkpoint(&store, &first).await, Checkpointed::Failed);
    let only = RetryFilter { item: Some("b".into()), ..RetryFilter::default() };
    assert_eq!(store.retry("p", &only).await.unwrap(), 1);
    let again = lease(&store, "w", "p").await;
    assert_eq!(due_ids(&store, &again).await, [""; 0]);
    assert_eq!(checkpoint(&store, &again).await, Checkpointed::Failed);
    let reason = item_row(&store, "p", "b").await.error_messages.unwrap();
    assert_eq!(reason, "dependency \"a\" failed\ndependency \"a\" failed");
}

/// A push that is repeated changes nothing, and one of several parts knows what comes later.
pub async fn existing_items_keep_their_dependencies(db: TestDb) {
    let store = db.store();
    let mut push = store.begin_push(&NewPartition::new("p")).await.unwrap();
    push.add(&[after("a", &["z"])]).await.unwrap();
    push.add(&[item("p", "z", 0)]).await.unwrap();
    assert_eq!(push.commit().await.unwrap().added, 2);
    let again = [after("a", &["b"]), item("p", "b", 0), after("z", &["b"])];
    let pushed = store.push(&NewPartition::new("p"), &again).await.unwrap();
    assert_eq!((pushed.added, pushed.existing), (1, 2));
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_dependencies").await, 1);
    assert_statuses(&db, &[("a", "blocked"), ("b", "available"), ("z", "available")]).await;
}

/// Whoever ends a dependency with a plain UPDATE: the next checkpoint finds it.
pub async fn a_checkpoint_finds_what_came_free(db: TestDb) {
    push_items(&db, &[item("p", "a", 0), after("b", &["a"])]).await.unwrap();
    let store = db.store();
    let lease = lease(&store, "w", "p").await;
    db.run("UPDATE gatefeed_items SET status = 'complete', version = version + 1 WHERE id = 'a'").await;
    assert_eq!(due_ids(&store, &lease).await, [""; 0]);
    assert_eq!(checkpoint(&store, &lease).await, Checkpointed::Due);
    assert_eq!(due_ids(&store, &lease).await, ["b"]);
}

/// The fence holds for what an outcome brings about, too.
pub async fn a_fenced_outcome_unblocks_nothing(db: TestDb) {
    push_items(&db, &[item("p", "a", 0), after("b", &["a"])]).await.unwrap();
    let store = db.store();
    let old = lease(&store, "w", "p").await;
    let a = due(&store, &old).await.remove(0);
    let new = steal(&db, "p", "thief").await.lease;
    let outcome = completion(&old, &a, done(&a));
    assert_eq!(complete_patiently(&store, &[outcome]).await, [Settled::Fenced]);
    assert_statuses(&db, &[("a", "available"), ("b", "blocked")]).await;
    assert_eq!(drain_lease(&store, &new).await, 2);
}

/// They would block items of a later partition of that name.
pub async fn a_deleted_partition_takes_its_dependencies(db: TestDb) {
    push_items(&db, &[item("p", "a", 0), after("b", &["a"])]).await.unwrap();
    assert_eq!(db.run("DELETE FROM gatefeed_partitions WHERE id = 'p'").await, 1);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_dependencies").await, 0);
}

/// One of the same name that comes later waits for what it names itself.
pub async fn a_deleted_item_takes_its_dependencies(db: TestDb) {
    push_items(&db, &[item("p", "a", 0), item("p", "c", 0), after("b", &["a"])]).await.unwrap();
    assert_eq!(db.run("DELETE FROM gatefeed_items WHERE id = 'b'").await, 1);
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_dependencies").await, 0);
    push_items(&db, &[after("b", &["c"])]).await.unwrap();
    let lease = lease(&db.store(), "w", "p").await;
    settle_one(&db, &lease, "c", ItemStatus::Complete).await;
    assert_statuses(&db, &[("a", "available"), ("b", "available"), ("c", "complete")]).await;
    // Nobody waits for ever for what is gone: the next checkpoint sees to it.
    push_items(&db, &[after("d", &["a"])]).await.unwrap();
    db.run("DELETE FROM gatefeed_items WHERE id = 'a'").await;
    assert_eq!(drain_lease(&db.store(), &lease).await, 2);
}

/// More than one batch settles.
const MANY: usize = 25_000;

/// `root`, which many depend on, and a lease of their partition.
async fn root_of_many(db: &TestDb) -> Arc<Lease> {
    let many = (0..MANY).map(|n| after(&format!("i{n:05}"), &["root"]));
    let items: Vec<_> = std::iter::once(item("p", "root", 0)).chain(many).collect();
    push_items(db, &items).await.unwrap();
    lease(&db.store(), "w", "p").await
}

async fn blocked(db: &TestDb) -> i64 {
    db.count("SELECT count(*) FROM gatefeed_items WHERE status = 'blocked'").await
}

/// Until nothing is blocked any more, without another outcome or a checkpoint; in how many pieces.
async fn pieces(db: &TestDb) -> i64 {
    let free = async {
        while blocked(db).await > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), free).await.expect("some stay blocked");
    db.count("SELECT count(DISTINCT updated_at) FROM gatefeed_items WHERE id LIKE 'i%'").await
}

/// One outcome does not keep the others waiting for all that depends on it, nor what comes free for the others.
pub async fn many_dependents_come_free_in_pieces(db: TestDb) {
    let store = db.store();
    let lease = root_of_many(&db).await;
    settle_one(&db, &lease, "root", ItemStatus::Complete).await;
    assert!(blocked(&db).await < MANY as i64);
    let pieces = pieces(&db).await;
    assert!(pieces >= 3, "{pieces} pieces of 10,000, of 25,000");
    assert_eq!(drain_lease(&store, &lease).await, MANY);
    assert_eq!(partition(&store, "p").await.status, PartitionStatus::Complete);
}

/// However short the lease, and with it the time of a statement, the outcome is written.
pub async fn many_dependents_come_free_under_a_short_lease(db: TestDb) {
    let store = db.store();
    let (owner, feeds, duration) = ("w".into(), vec!["elsewhere".to_owned()], Duration::from_millis(90));
    store.claim(&Claim { owner, feeds, duration, limit: 1, due_for: Duration::ZERO }).await.unwrap();
    let lease = root_of_many(&db).await;
    settle_one(&db, &lease, "root", ItemStatus::Complete).await;
    pieces(&db).await;
}

/// Nobody but the checkpoints knows of it.
pub async fn many_dependents_fail_in_pieces(db: TestDb) {
    let lease = root_of_many(&db).await;
    db.run("UPDATE gatefeed_items SET status = 'failed' WHERE id = 'root'").await;
    assert_eq!(checkpoint(&db.store(), &lease).await, Checkpointed::Due);
    let left = blocked(&db).await;
    assert!(left > 0 && left < MANY as i64, "{left} are blocked");
    assert_eq!(drain_lease(&db.store(), &lease).await, 0);
    assert_eq!(partition(&db.store(), "p").await.status, PartitionStatus::Failed);
    assert_eq!(blocked(&db).await, 0);
}

/// What takes over nothing is not counted by the bytes of what it depends on.
pub async fn dependents_of_something_large_come_free_at_once(db: TestDb) {
    let large = Data::json(format!("\"{}\"", "x".repeat(3 << 20)));
    let many = (0..20).map(|n| after(&format!("i{n}"), &["root"]));
    let items: Vec<_> =
        std::iter::once(NewItem { data: large, ..item("p", "root", 0) }).chain(many).collect();
    push_items(&db, &items).await.unwrap();
    let lease = lease(&db.store(), "w", "p").await;
    settle_one(&db, &lease, "root", ItemStatus::Complete).await;
    assert_eq!(blocked(&db).await, 0);
    assert_eq!(pieces(&db).await, 1);
}

/// Copies of something large are many bytes, though they are few rows: they come free in pieces too.
pub async fn large_copies_come_free_in_pieces(db: TestDb) {
    let large = Data::json(format!("\"{}\"", "x".repeat(3 << 20)));
    let root = NewItem { data: large.clone(), ..item("p", "root", 0) };
    let copy = |n| {
        let dependencies = Dependencies { input: Input::Parent, ..Dependencies::on(["root"]) };
        NewItem { dependencies, ..item("p", &format!("i{n}"), 0) }
    };
    let items: Vec<_> = std::iter::once(root).chain((0..5).map(copy)).collect();
    push_items(&db, &items).await.unwrap();
    let store = db.store();
    let lease = lease(&store, "w", "p").await;
    settle_one(&db, &lease, "root", ItemStatus::Complete).await;
    let pieces = pieces(&db).await;
    assert!(pieces >= 2, "{pieces} pieces of 8 MiB, and by one more than that, of 15");
    assert_eq!(drain_lease(&store, &lease).await, 5);
    assert_eq!(partition(&store, "p").await.status, PartitionStatus::Complete);
    for n in 0..5 {
        let row = item_row(&store, "p", &format!("i{n}")).await;
        assert!(row.data.is_some_and(|data| data[..] == large.bytes[..]), "i{n}");
    }
}

/// Producers that make items depend on whatever there is, while its owner completes it: nothing is left behind, and
/// nothing is delivered before what it depends on.
pub async fn nothing_stays_blocked(db: TestDb) {
    let store = db.store();
    push_items(&db, &[item("p", "0", 0)]).await.unwrap();
    let until = Instant::now() + RACE;
    let producers: Vec<_> = (0..3).map(|n| tokio::spawn(produce(db.clone(), n, until))).collect();
    let mut completed = 0;
    let mut produced = 1;
    while Instant::now() < until {
        completed += drain(&store, "w").await;
        tokio::task::yield_now().await;
    }
    for producer in producers {
        produced += producer.await.unwrap();
    }
    completed += drain(&store, "w").await;
    assert_eq!(db.count("SELECT count(*) FROM gatefeed_items WHERE status <> 'complete'").await, 0);
    assert_eq!(completed, produced);
}

/// Each link takes a round to come free.
const CHAIN_MAX: usize = 100;

async fn produce(db: TestDb, number: usize, until: Instant) -> usize {
    let mut rng = seed::rng(&format!("dependencies::nothing_stays_blocked {number}"));
    let store = db.another_store().await;
    let row = NewPartition::new("p");
    let (mut last, mut produced) = ("0".to_owned(), 0);
    while Instant::now() < until && produced < CHAIN_MAX {
        let [one, other] = [0, 1].map(|n| format!("{number}-{:06}", 2 * produced + n));
        let items = [after(&one, &[&last]), after(&other, &[&last, &one])];
        patiently(|| store.push(&row, &items)).await;
        last = other;
        produced += 1;
        dawdle(&mut rng).await;
    }
    2 * produced
}
