//! Waiting until a partition is through.

use std::{sync::Arc, time::Duration};

use gatefeed_client::{Client, Error, Partition, PartitionStatus, StoreError};
use gatefeed_core::answer::{Answer, Failure, Verdict};
use gatefeed_engine::{Delivery, Watcher};

use crate::db::{Db, PATIENCE};

on_all! {
    one_that_is_through_returns_at_once,
    one_that_completes_later_returns,
    one_that_fails_returns,
    one_that_is_cancelled_by_hand_returns,
    one_that_is_not_through_times_out,
    one_that_is_missing_is_named_at_once,
    one_that_is_deleted_meanwhile_is_named,
    a_wait_can_be_dropped_and_begun_again,
    many_wait_for_one,
}

fn partition(id: &str) -> Partition {
    Partition::builder(id).item(1).gate(1, 2).build().unwrap()
}

/// A watcher that ends when nothing is left.
async fn work(client: Client, verdict: fn() -> Verdict) {
    let processor = move |_: Delivery| async move { verdict() };
    let watcher = Watcher::builder(client.store().unwrap().clone()).until_idle(true).processor(processor);
    watcher.run().await.unwrap();
}

fn done() -> Verdict {
    Ok(Answer::done())
}

async fn one_that_is_through_returns_at_once(db: Arc<Db>) {
    db.client.push(&partition("p")).await.unwrap();
    for status in ["complete", "failed", "cancelled"] {
        db.set_status("p", status).await;
        let row = db.client.wait_for("p", Duration::ZERO).await.unwrap();
        assert_eq!(row.status.as_str(), status);
    }
}

async fn one_that_completes_later_returns(db: Arc<Db>) {
    db.client.push(&partition("p")).await.unwrap();
    let other = db.another().await;
    let (row, ()) = tokio::join!(db.client.wait_for("p", PATIENCE), work(other, done));
    let row = row.unwrap();
    assert_eq!((row.id.as_str(), row.status, row.gate), ("p", PartitionStatus::Complete, 1));
}

async fn one_that_fails_returns(db: Arc<Db>) {
    db.client.push(&partition("p")).await.unwrap();
    let other = db.another().await;
    let fail = || Err(Failure::final_("no"));
    let (row, ()) = tokio::join!(db.client.wait_for("p", Duration::MAX), work(other, fail));
    let row = row.unwrap();
    assert_eq!((row.status, row.items.failed, row.items.available), (PartitionStatus::Failed, 1, 1));
}

/// No store of ours did it, so that no hint may come: polling finds it.
async fn one_that_is_cancelled_by_hand_returns(db: Arc<Db>) {
    db.client.push(&partition("p")).await.unwrap();
    let cancel = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        db.set_status("p", "cancelled").await;
    };
    let (row, ()) = tokio::join!(db.client.wait_for("p", Duration::MAX), cancel);
    assert_eq!(row.unwrap().status, PartitionStatus::Cancelled);
}

async fn one_that_is_not_through_times_out(db: Arc<Db>) {
    db.client.push(&partition("a b")).await.unwrap();
    for timeout in [Duration::ZERO, Duration::from_millis(30)] {
        let error = db.client.wait_for("a b", timeout).await.unwrap_err();
        assert!(error.is_retryable());
        assert_eq!(
            error.to_string(),
            format!(
                "partition \"a b\" is not through after {timeout:?}: it is available at gate 0 with 2 open and 0 failed \
                 items, and no watcher holds it (`gatefeed status` lists them); see `gatefeed items 'a b'`"
            )
        );
        let Error::TimedOut { partition, .. } = error else { panic!("{error:?}") };
        assert_eq!((partition.status, partition.gate), (PartitionStatus::Available, 0));
    }
    db.set_status("a b", "paused").await;
    let error = db.client.wait_for("a b", Duration::ZERO).await.unwrap_err();
    assert!(error.to_string().contains("nothing is delivered while it is paused"), "{error}");
}

async fn one_that_is_missing_is_named_at_once(db: Arc<Db>) {
    let error = db.client.wait_for("nope", Duration::MAX).await.unwrap_err();
    assert!(matches!(error, Error::Store(StoreError::NotFound(_))), "{error:?}");
    assert!(error.to_string().contains("\"nope\""), "{error}");
}

async fn one_that_is_deleted_meanwhile_is_named(db: Arc<Db>) {
    db.client.push(&partition("p")).await.unwrap();
    let delete = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        db.execute(&format!("DELETE FROM {}", db.table("gatefeed_partitions"))).await;
    };
    let (row, ()) = tokio::join!(db.client.wait_for("p", Duration::MAX), delete);
    assert!(matches!(row, Err(Error::Store(StoreError::NotFound(_)))), "{row:?}");
}

async fn a_wait_can_be_dropped_and_begun_again(db: Arc<Db>) {
    db.client.push(&partition("p")).await.unwrap();
    for ms in 0..20 {
        let wait = db.client.wait_for("p", PATIENCE);
        assert!(tokio::time::timeout(Duration::from_millis(ms), wait).await.is_err());
    }
    work(db.another().await, done).await;
    assert_eq!(db.client.wait_for("p", PATIENCE).await.unwrap().status, PartitionStatus::Complete);
}

async fn many_wait_for_one(db: Arc<Db>) {
    db.client.push(&partition("p")).await.unwrap();
    let waits = (0..10).map(|_| {
        let client = db.client.clone();
        tokio::spawn(async move { client.wait_for("p", PATIENCE).await })
    });
    let waits: Vec<_> = waits.collect();
    work(db.another().await, done).await;
    for wait in waits {
        assert_eq!(wait.await.unwrap().unwrap().status, PartitionStatus::Complete);
    }
}
