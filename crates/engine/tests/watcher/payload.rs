//! What arrives: bytes as stored, whatever their number.

use std::sync::Arc;

use bytes::Bytes;
use gatefeed_core::{
    answer::Answer,
    item::{Data, INLINE_BYTES_MAX, ItemStatus, NewItem},
    partition::NewPartition,
};

use crate::{
    db::{Db, item, watcher, within},
    record::Log,
};

on_both! { bytes_arrive_as_stored oversized_data_fails_without_a_delivery }

/// No two lengths have the same bytes.
fn noise(length: usize) -> Bytes {
    (0..length).map(|n| (n.wrapping_mul(31) ^ (n >> 8) ^ length) as u8).collect()
}

async fn push_sizes(db: &Db, sizes: &[usize]) {
    let sized = |size: &usize| NewItem {
        data: Data { bytes: noise(*size), content_type: format!("application/x-{size}") },
        ..item("p", &size.to_string(), 0)
    };
    let items: Vec<_> = sizes.iter().map(sized).collect();
    db.store.push(&NewPartition::new("p"), &items).await.unwrap();
}

async fn bytes_arrive_as_stored(db: Arc<Db>) {
    let sizes = [0, 1, INLINE_BYTES_MAX - 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 1 << 20];
    push_sizes(&db, &sizes).await;
    let log = Log::new();
    let processor = log.processor(async |delivery| {
        let size: usize = delivery.item.parse().unwrap();
        assert!(delivery.data == noise(size), "{size} bytes, {} arrived", delivery.data.len());
        assert_eq!(delivery.content_type, format!("application/x-{size}"));
        let answer = Answer::done();
        // And back again.
        Ok(if size == 1 << 20 { answer.with_data(Data::json(noise(2 << 20))) } else { answer })
    });
    let run = watcher(db.another().await).processor(processor).run();
    assert!(!within("idle", run).await.unwrap().failed);
    log.assert_once(sizes.len());
    db.assert_complete("p", sizes.len()).await;
    assert!(db.item("p", "1048576").await.data.unwrap() == noise(2 << 20));
    assert_eq!(db.item("p", "0").await.data.unwrap(), b"");
}

async fn oversized_data_fails_without_a_delivery(db: Arc<Db>) {
    push_sizes(&db, &[100, 101, 1 << 20]).await;
    let log = Log::new();
    let processor = log.processor(async |_| Ok(Answer::done()));
    let run = watcher(db.another().await).max_payload(100).processor(processor).run();
    assert!(within("idle", run).await.unwrap().failed);
    log.assert_once(1);
    assert_eq!(db.item("p", "100").await.status, ItemStatus::Complete);
    for size in ["101", "1048576"] {
        let row = db.item("p", size).await;
        assert_eq!((row.status, row.retry_count), (ItemStatus::Failed, 0));
        let message = row.error_messages.unwrap();
        assert!(message.contains(&format!("{size} bytes")) && message.contains("100"), "{message}");
    }
}
