//! Hints that there may be work.

use std::time::Duration;

use gatefeed_core::{
    outcome::Settled,
    store::{RetryFilter, Wakeups},
};

use super::given::*;

async fn listen(db: &TestDb) -> Box<dyn Wakeups> {
    quiet(db.another_store().await.wakeups(&["default".into()]).await).await
}

/// Lets the hints pass that were there before: some come from connecting.
pub(super) async fn quiet(mut wakeups: Box<dyn Wakeups>) -> Box<dyn Wakeups> {
    for _ in 0..10 {
        if tokio::time::timeout(Duration::from_millis(300), wakeups.next()).await.is_err() {
            break;
        }
    }
    wakeups
}

pub(super) async fn woken(mut wakeups: Box<dyn Wakeups>, by: &str) {
    let hint = tokio::time::timeout(Duration::from_secs(30), wakeups.next()).await;
    assert!(hint.is_ok(), "no hint of {by}");
}

/// What anybody inserts with plain SQL.
pub async fn a_plain_insert_wakes(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p')").await;
    let wakeups = listen(&db).await;
    db.run("INSERT INTO gatefeed_items (partition_id) VALUES ('p')").await;
    woken(wakeups, "an insert").await;
}

/// What our own processes push, also into a partition that exists.
pub async fn a_push_wakes(db: TestDb) {
    for n in 0..2 {
        let wakeups = listen(&db).await;
        push(&db.store(), "p", &[(&format!("i{n}"), 0)]).await;
        woken(wakeups, "a push").await;
        drain(&db.store(), "w").await;
    }
}

/// Children for another partition, which another watcher may take.
pub async fn children_wake(db: TestDb) {
    let (lease, due) = leased(&db, "p", &[("i", 0)]).await;
    let wakeups = listen(&db).await;
    let outcome = with_children(&lease, &due[0], done(&due[0]), vec![item("q", "c", 0)]);
    assert_eq!(db.store().complete(&[outcome]).await.unwrap(), [Settled::Written]);
    woken(wakeups, "a child").await;
}

/// What an operator retries.
pub async fn a_retry_wakes(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id, status) VALUES ('p', 'failed')").await;
    db.run("INSERT INTO gatefeed_items (partition_id, status) VALUES ('p', 'failed')").await;
    let wakeups = listen(&db).await;
    assert_eq!(db.store().retry("p", &RetryFilter::default()).await.unwrap(), 1);
    woken(wakeups, "a retry").await;
}

/// A wait that is given up halfway takes no hint away.
pub async fn next_is_cancel_safe(db: TestDb) {
    db.run("INSERT INTO gatefeed_partitions (id) VALUES ('p')").await;
    let mut wakeups = listen(&db).await;
    for _ in 0..20 {
        let _ = tokio::time::timeout(Duration::from_millis(5), wakeups.next()).await;
    }
    db.run("INSERT INTO gatefeed_items (partition_id) VALUES ('p')").await;
    woken(wakeups, "an insert after waits that were given up").await;
}
