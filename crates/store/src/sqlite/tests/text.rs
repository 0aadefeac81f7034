//! Text that is not UTF-8, from before it was refused.

use gatefeed_core::{
    gather::{Ended, Gather, GatherRequest},
    inspect::{DataPart, ItemFilter, ItemRow, PartitionFilter, PartitionRow},
    item::ItemStatus,
    lease::Lease,
    partition::PartitionStatus,
    store::PageRequest,
};

use super::*;

const BEFORE: &str = "DROP TRIGGER gatefeed_items_inserted; DROP TRIGGER gatefeed_item_text_changed;
    DROP TRIGGER gatefeed_partition_text_inserted; DROP TRIGGER gatefeed_partition_text_changed";

/// A store without what refuses such text, and somebody else's connection.
async fn before(folder: &TempDir) -> (Sqlite, SqliteConnection) {
    let store = open(folder).await;
    let mut shell = shell(folder).await;
    shell.execute(BEFORE).await.unwrap();
    (store, shell)
}

async fn run(shell: &mut SqliteConnection, sql: &str) {
    shell.execute(sql).await.unwrap();
}

/// `M\xfcller` and a number.
fn latin1(number: usize) -> String {
    format!("CAST(x'4dfc6c6c6572' || '{number}' AS TEXT)")
}

async fn partitions(store: &Sqlite) -> Vec<PartitionRow> {
    store.partitions(&PartitionFilter { limit: 100, ..PartitionFilter::default() }).await.unwrap()
}

async fn items(store: &Sqlite) -> Vec<ItemRow> {
    let filter = ItemFilter { partition: "p".into(), limit: 100, ..ItemFilter::default() };
    store.items(&filter).await.unwrap()
}

async fn claim_one(store: &Sqlite) -> Vec<String> {
    let feeds = vec!["default".to_owned()];
    let duration = Duration::from_secs(30);
    let claim = Claim { owner: "w".into(), feeds, duration, limit: 1, due_for: Duration::ZERO };
    store.claim(&claim).await.unwrap().iter().map(|grant| grant.lease.partition.to_string()).collect()
}

#[tokio::test]
async fn a_partition_that_nobody_can_name_holds_up_no_claim() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut shell) = before(&folder).await;
    for number in 0..5 {
        let id = latin1(number);
        run(&mut shell, &format!("INSERT INTO gatefeed_partitions (id, priority, next_run_at) VALUES ({id}, 9, '2026-01-01 00:00:00')")).await;
    }
    run(
        &mut shell,
        "UPDATE gatefeed_partitions SET owner = 'x', lease_id = 'x', until = next_run_at WHERE rowid = 1",
    )
    .await;
    assert!(claim_one(&store).await.is_empty());
    let all = partitions(&store).await;
    assert_eq!(all[0].id, "M\u{fffd}fcller0");
    for row in &all {
        assert_eq!((row.status, row.next_run_at, &row.owner), (PartitionStatus::Failed, None, &None));
        assert!(row.reason.as_ref().unwrap().contains("is not UTF-8"), "{row:?}");
    }
    run(&mut shell, "UPDATE gatefeed_partitions SET status = 'available'").await;
    store.push(&NewPartition::new("good"), &[]).await.unwrap();
    run(&mut shell, "UPDATE gatefeed_partitions SET next_run_at = '2026-01-01 00:00:00'").await;
    assert_eq!(claim_one(&store).await, ["good"], "they came first, and took its place");
    let versions = |rows: Vec<PartitionRow>| rows.iter().map(|row| row.version).collect::<Vec<_>>();
    let before = versions(partitions(&store).await);
    assert!(claim_one(&store).await.is_empty());
    assert_eq!(versions(partitions(&store).await), before, "failed again");
}

async fn pages(store: &Sqlite, lease: &Arc<Lease>, limit: usize) -> Vec<String> {
    let (mut after, mut ids) = (None, Vec::new());
    for _ in 0..50 {
        let request = PageRequest { lease: lease.clone(), after, limit };
        let page = store.page(&[request]).await.unwrap().remove(0);
        ids.extend(page.items.iter().map(|item| item.id.to_string()));
        after = page.next;
        if after.is_none() {
            return ids;
        }
    }
    panic!("no end: {ids:?}");
}

#[tokio::test]
async fn an_item_that_nobody_can_name_fails_and_the_page_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut shell) = before(&folder).await;
    let good: Vec<NewItem> = ["L", "N", "Z"].map(|id| NewItem::new("p", id, Data::json("1"))).into();
    store.push(&NewPartition::new("p"), &good).await.unwrap();
    for number in 0..5 {
        // The first two before all others, the rest between them.
        let at = if number < 2 {
            "'2026-01-01 00:00:00'"
        } else {
            "(SELECT available_at FROM gatefeed_items WHERE id = 'L')"
        };
        let id = latin1(number);
        run(
            &mut shell,
            &format!("INSERT INTO gatefeed_items (partition_id, id, available_at) VALUES ('p', {id}, {at})"),
        )
        .await;
    }
    run(&mut shell, "UPDATE gatefeed_partitions SET next_run_at = '2026-01-01 00:00:00'").await;
    let lease = claim_all(&store).await.remove(0).lease;
    let stale = Arc::new(Lease { epoch: lease.epoch + 1, ..Lease::clone(&lease) });
    assert!(pages(&store, &stale, 2).await.is_empty());
    assert!(items(&store).await.iter().all(|row| row.status == ItemStatus::Available));
    for limit in [2, 100] {
        assert_eq!(pages(&store, &lease, limit).await, ["L", "N", "Z"]);
    }
    let failed: Vec<_> =
        items(&store).await.into_iter().filter(|row| row.status == ItemStatus::Failed).collect();
    assert_eq!(failed.len(), 5);
    for row in failed {
        assert_eq!((row.version, &row.id[..4]), (1, "M\u{fffd}"));
        assert!(row.error_messages.unwrap().contains("is not UTF-8"));
    }
}

#[tokio::test]
async fn an_item_that_nobody_can_name_fails_where_it_waits_and_frees_what_depends_on_it() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut shell) = before(&folder).await;
    store.push(&NewPartition::new("p"), &[item(0, 1)]).await.unwrap();
    let (waits, ends) = (latin1(0), latin1(1));
    run(&mut shell, &format!("INSERT INTO gatefeed_items (partition_id, id, status, waiting_until) VALUES ('p', {waits}, 'waiting', '2026-01-01 00:00:00');
        INSERT INTO gatefeed_items (partition_id, id, status) VALUES ('p', {ends}, 'blocked'), ('p', 'last', 'blocked');
        INSERT INTO gatefeed_dependencies (partition_id, item_id, depends_on) VALUES ('p', {ends}, '0'), ('p', 'last', {ends});
        UPDATE gatefeed_items SET status = 'failed' WHERE id = '0'")).await;
    let leases = [claim_all(&store).await.remove(0).lease];
    assert!(store.overdue(&leases, 10).await.unwrap()[0].is_empty());
    assert_eq!(store.checkpoint(&leases, Duration::ZERO).await.unwrap(), [Checkpointed::Failed]);
    let all: Vec<_> = items(&store).await;
    assert!(all.iter().all(|row| row.status == ItemStatus::Failed), "{all:?}");
    let error = all.iter().find(|row| row.id == "last").unwrap().error_messages.as_ref().unwrap();
    assert!(error.contains("M\u{fffd}fcller1"), "{error}");
}

#[tokio::test]
async fn listings_show_what_is_not_utf8_and_go_on_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut shell) = before(&folder).await;
    // Among them one that looks as if it were not UTF-8, and one that sorts between what they are and what they are shown as.
    let ids = ["x'4d'", "x'4de96c'", "x'4dfc6c'", "x'4dfc6d'", "x'4df09f9880'", "x'4defbfbd66637a'", "x'4e'"];
    let shown = ["M", "M\u{fffd}e9l", "M\u{fffd}fcl", "M😀", "M\u{fffd}fcz", "M\u{fffd}fcm", "N"];
    run(&mut shell, "INSERT INTO gatefeed_partitions (id) VALUES ('p')").await;
    for id in ids {
        let latin1 = latin1(7);
        run(&mut shell, &format!("INSERT INTO gatefeed_partitions (id, feed, reason) VALUES (CAST({id} AS TEXT), {latin1}, {latin1});
            INSERT INTO gatefeed_items (partition_id, id, status, content_type, error_messages) VALUES ('p', CAST({id} AS TEXT), 'failed', {latin1}, {latin1})")).await;
    }
    let mut partitions = PartitionFilter { limit: 1, ..PartitionFilter::default() };
    let mut items =
        ItemFilter { partition: "p".into(), limit: 1, data: DataPart::All, ..ItemFilter::default() };
    let mut seen = (Vec::new(), Vec::new());
    for _ in 0..shown.len() {
        let partition = store.partitions(&partitions).await.unwrap().remove(0);
        let item = store.items(&items).await.unwrap().remove(0);
        (partitions.after, items.after) = (Some(partition.id.clone()), Some(item.id.clone()));
        assert_eq!(
            (&*partition.feed, partition.reason.as_deref()),
            ("M\u{fffd}fcller7", Some("M\u{fffd}fcller7"))
        );
        assert_eq!(
            (&*item.content_type, item.error_messages.as_deref()),
            ("M\u{fffd}fcller7", Some("M\u{fffd}fcller7"))
        );
        seen.0.push(partition.id);
        seen.1.push(item.id);
    }
    seen.1.sort();
    let mut sorted = shown.map(str::to_owned);
    sorted.sort();
    assert_eq!(seen.1, sorted);
    seen.0.sort();
    assert_eq!(seen.0, sorted);
    let feeds = store.status().await.unwrap();
    assert_eq!(feeds.iter().map(|row| &*row.feed).collect::<Vec<_>>(), ["M\u{fffd}fcller7", "default"]);
    let facts = store.why("p", None).await.unwrap();
    assert!(facts.failed.iter().any(|seen| seen.id == "M\u{fffd}fcm"), "{facts:?}");
    let gather = Gather { gate: 0, status: Ended::Failed };
    let request = GatherRequest { partition: "p".into(), gather, after: Some("M\u{fffd}fcm".into()) };
    let page = store.gathered(&request).await.unwrap();
    assert_eq!(page.items.iter().map(|item| &*item.id).collect::<Vec<_>>(), ["N"]);
    let request = GatherRequest { after: None, ..request };
    assert_eq!(store.gathered(&request).await.unwrap().items.len(), shown.len());
}
