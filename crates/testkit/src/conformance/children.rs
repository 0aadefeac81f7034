//! Fan-out: children commit with their parent's outcome or not at all.

use gatefeed_core::{
    item::{Data, NewItem},
    outcome::Settled,
    partition::PartitionStatus,
};

use super::given::*;

/// Into the parent's partition and others, with everything a child brings.
pub async fn children_arrive_whole(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let store = db.store();
    let data = Data { bytes: vec![0, 255].into(), content_type: "image/png".into() };
    let child = NewItem { gate: 3, priority: -4, ..NewItem::new("p", "c", data) };
    let outcome = with_children(&lease, &due[0], done(&due[0]), vec![child, item("p", "plain", 0)]);
    assert_eq!(store.complete(&[outcome]).await.unwrap(), [Settled::Written]);
    let row = item_row(&store, "p", "c").await;
    assert_eq!((row.gate, row.priority, row.pass, row.retry_count, row.version), (3, -4, 0, 0, 0));
    assert_eq!((row.content_type.as_str(), row.data), ("image/png", Some(vec![0, 255])));
    assert_eq!(due_ids(&store, &lease).await, ["plain"]);
}

/// A missing partition is made in the completion's feed with the defaults of an INSERT, and wakes.
pub async fn a_missing_partition_is_made(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0), ("j", 0)]).await;
    let store = db.store();
    let children = |id: &str| vec![item("new", id, 2), item("other", id, 0)];
    let mut batch = [
        with_children(&lease, &due[0], done(&due[0]), children("1")),
        with_children(&lease, &due[1], done(&due[1]), children("2")),
    ];
    batch.iter_mut().for_each(|c| c.feed = "résumés".into());
    assert_eq!(store.complete(&batch).await.unwrap(), [Settled::Written; 2]);
    for id in ["new", "other"] {
        let made = partition(&store, id).await;
        assert_eq!((made.feed.as_str(), made.gate, made.auto_close), ("résumés", 0, true));
        assert!(made.next_run_at.is_some());
        assert_eq!(item_ids(&store, id).await, ["1", "2"]);
    }
    assert_eq!(claim_feeds(&store, "v", &["résumés"], 10).await.len(), 2);
}

/// A redelivery adds nothing twice: an id that exists stays as it is, in whatever status.
pub async fn existing_ids_are_left_alone(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let store = db.store();
    push(&store, "q", &[("c", 7)]).await;
    db.run("UPDATE gatefeed_items SET status = 'complete', version = 5 WHERE partition_id = 'q'").await;
    let changed = NewItem { data: Data::json("\"changed\""), ..item("q", "c", 1) };
    let children = vec![changed, item("p", "i", 4), item("p", "twin", 1), item("p", "twin", 2)];
    let outcome = with_children(&lease, &due[0], done(&due[0]), children);
    assert_eq!(store.complete(&[outcome]).await.unwrap(), [Settled::Written]);
    let kept = item_row(&store, "q", "c").await;
    assert_eq!((kept.gate, kept.version, kept.data.as_deref()), (7, 5, Some(br#"{"id":"c"}"#.as_slice())));
    assert!(db.item_is("p", "i", "gate = 0 AND status = 'complete' AND version = 1").await);
    assert_eq!(item_row(&store, "p", "twin").await.gate, 1);
}

/// As an INSERT does.
pub async fn a_complete_partition_reopens(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let store = db.store();
    db.run("INSERT INTO gatefeed_partitions (id, status, version) VALUES ('q', 'complete', 3)").await;
    let outcome = with_children(&lease, &due[0], done(&due[0]), vec![item("q", "c", 0)]);
    assert_eq!(store.complete(&[outcome]).await.unwrap(), [Settled::Written]);
    let row = partition(&store, "q").await;
    assert_eq!((row.status, row.version), (PartitionStatus::Available, 4));
    assert_eq!(&*claim(&store, "v", 10).await[0].lease.partition, "q");
}

/// Into a paused or failed partition they are stored and wake nothing.
pub async fn paused_and_failed_partitions_sleep_on(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let store = db.store();
    db.run("INSERT INTO gatefeed_partitions (id, status) VALUES ('q', 'paused'), ('r', 'failed')").await;
    let children = vec![item("q", "c", 0), item("r", "c", 0)];
    let outcome = with_children(&lease, &due[0], done(&due[0]), children);
    assert_eq!(store.complete(&[outcome]).await.unwrap(), [Settled::Written]);
    assert!(db.partition_is("q", "status = 'paused' AND next_run_at IS NULL AND version = 0").await);
    assert!(db.partition_is("r", "status = 'failed' AND next_run_at IS NULL AND version = 0").await);
    assert_eq!((item_ids(&store, "q").await.len(), item_ids(&store, "r").await.len()), (1, 1));
}

/// A child that is refused takes its whole batch along, so that the caller can find it by splitting.
pub async fn a_refused_child_writes_nothing(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0), ("j", 0)]).await;
    let store = db.store();
    db.run("INSERT INTO gatefeed_partitions (id, status) VALUES ('ended', 'cancelled')").await;
    let long = "x".repeat(513);
    for child in [
        item("ended", "c", 0),
        item("p", "nul\0inside", 0),
        item("p", "line\nbreak", 0),
        item("p", "", 0),
        item("p", &long, 0),
        item(&long, "c", 0),
        item("nul\0inside", "c", 0),
        item("p", "c", -1),
    ] {
        let what = format!("{:?} {:?} {}", &child.partition, &child.id, child.gate);
        let batch = [
            with_children(&lease, &due[0], done(&due[0]), vec![item("new", "c", 0)]),
            with_children(&lease, &due[1], done(&due[1]), vec![item("p", "good", 0), child]),
        ];
        let error = store.complete(&batch).await.expect_err(&what);
        assert!(error.is_data(), "{what}: {error:?}");
        assert_eq!(item_ids(&store, "p").await, ["i", "j"], "{what}");
        assert_eq!(db.count("SELECT count(*) FROM gatefeed_items WHERE version = 0").await, 2, "{what}");
        assert_eq!(db.count("SELECT count(*) FROM gatefeed_partitions").await, 2, "{what}");
    }
    assert_eq!(complete_all(&store, &lease).await, 2);
}
