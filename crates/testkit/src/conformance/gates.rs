//! The gates of a partition.

use gatefeed_core::{StoreError, inspect::GateCounts, partition::NewPartition};

use super::given::*;

/// Those that have items, in order, each status counted by itself; other partitions do not matter.
pub async fn items_are_counted_by_gate_and_status(db: TestDb) {
    let statuses = ["available", "waiting", "blocked", "complete", "failed", "cancelled"];
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p'), ('q')").await;
    db.run("INSERT INTO gatefeed_items (partition_id, gate) VALUES ('q', 0), ('q', 7)").await;
    for (n, status) in statuses.iter().enumerate() {
        let values = vec![format!("('p', 10, '{status}')"); n + 1].join(", ");
        db.run(&format!("INSERT INTO gatefeed_items (partition_id, gate, status) VALUES {values}")).await;
    }
    db.run("INSERT INTO gatefeed_items (partition_id, gate, status) VALUES ('p', 9, 'complete'), ('p', 2, 'failed')")
        .await;
    let none = GateCounts::default();
    let full =
        GateCounts { gate: 10, available: 1, waiting: 2, blocked: 3, complete: 4, failed: 5, cancelled: 6 };
    let expected =
        [GateCounts { gate: 2, failed: 1, ..none }, GateCounts { gate: 9, complete: 1, ..none }, full];
    assert_eq!(db.store().gates("p").await.unwrap(), expected);
    assert_eq!((full.open(), full.total()), (6, 21));
}

/// Counts move on with the work.
pub async fn finished_items_count_too(db: TestDb) {
    let (lease, _) = leased(&db, "p", &[("i", 0), ("j", 0), ("next", 4)]).await;
    let store = db.store();
    assert_eq!(complete_all(&store, &lease).await, 2);
    let gates = store.gates("p").await.unwrap();
    let counts: Vec<_> = gates.iter().map(|g| (g.gate, g.available, g.complete)).collect();
    assert_eq!(counts, [(0, 0, 2), (4, 1, 0)]);
}

/// An empty partition has none; one that does not exist is named.
pub async fn an_empty_partition_has_none(db: TestDb) {
    let store = db.store();
    store.push(&NewPartition::new("p"), &[]).await.unwrap();
    assert!(store.gates("p").await.unwrap().is_empty());
    let error = store.gates("nowhere").await.unwrap_err();
    assert!(matches!(&error, StoreError::NotFound(text) if text.contains("nowhere")), "{error:?}");
}
