//! Loading a round's items, and a watcher that puts them through.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use bytes::Bytes;
use gatefeed_core::{
    Store,
    answer::Verdict,
    id::DEFAULT_FEED,
    item::{Data, NewItem},
    partition::NewPartition,
};
use gatefeed_engine::{Batch, Delivery, Policy, Processor, Watcher};

use super::LoadArgs;

/// Items of one push …
const BATCH: usize = 10_000;
/// … and their bytes.
const BATCH_BYTES: u64 = 16_000_000;

/// What payloads are made of.
const WORDS: [&str; 16] = [
    "amount ",
    "invoice ",
    "of ",
    "the ",
    "page ",
    "address ",
    "2024 ",
    "total ",
    "line ",
    "and ",
    "customer ",
    "is ",
    "street ",
    "0.75 ",
    "number ",
    "paid ",
];

/// What every item carries: a JSON string of this size. Words in no order, since databases pack data, and one letter over
/// and over would pack to nothing.
pub(crate) fn payload(bytes: u64) -> Bytes {
    let filling = usize::try_from(bytes).unwrap_or(usize::MAX).saturating_sub(2);
    let mut text = String::with_capacity(filling + 16);
    text.push('"');
    let mut state = 1_u32;
    while text.len() <= filling {
        // Numerical Recipes' generator; the high bits are the good ones.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.push_str(WORDS[(state >> 28) as usize]);
    }
    text.truncate(filling + 1);
    text.push('"');
    Bytes::from(text)
}

/// Puts a round's items into fresh partitions.
pub(crate) async fn load(store: &dyn Store, args: &LoadArgs, round: usize, items: usize) -> Result<()> {
    let data = Data::json(payload(args.payload));
    let batch = (BATCH_BYTES / args.payload.max(1)).clamp(1, BATCH as u64) as usize;
    for partition in 0..args.partitions.min(items) {
        let id = format!("{round}-{partition}");
        let mut push = store.begin_push(&NewPartition::new(&id)).await?;
        let numbers: Vec<usize> = (partition..items).step_by(args.partitions).collect();
        for numbers in numbers.chunks(batch) {
            let item = |number: &usize| NewItem {
                gate: (number / args.partitions % args.gates) as i32,
                ..NewItem::new(&id, format!("item-{number:09}"), data.clone())
            };
            push.add(&numbers.iter().map(item).collect::<Vec<_>>()).await?;
        }
        push.commit().await?;
    }
    Ok(())
}

/// Runs a watcher until all is through; returns the time from its start to the last delivery's end.
pub(crate) async fn put_through<P: Processor>(
    store: Arc<dyn Store>,
    args: &LoadArgs,
    items: usize,
    batch: Option<Batch>,
    processor: P,
) -> Result<Duration> {
    let timed =
        Arc::new(Timed { processor, deliveries: AtomicU64::new(0), last: Mutex::new(Instant::now()) });
    let watcher = Watcher::builder(Arc::clone(&store)).concurrency(args.concurrency()).until_idle(true);
    let watcher = match batch {
        // A batch has at most as many bytes as an item may have.
        Some(_) => watcher.feed_policy(DEFAULT_FEED, Policy { batch, ..Policy::default() }),
        None => watcher.max_payload(args.payload.max(1)),
    };
    let watcher = watcher.shared_processor(Arc::clone(&timed));
    let started = Instant::now();
    let finished = watcher.run().await?;
    let took = timed.last.lock().unwrap_or_else(PoisonError::into_inner).duration_since(started);
    check(&*store, items, timed.deliveries.load(Ordering::Relaxed), finished.failed).await?;
    Ok(took)
}

/// Every item reached its end, once.
async fn check(store: &dyn Store, items: usize, deliveries: u64, failed: bool) -> Result<()> {
    let status = store.status().await?;
    let open: i64 = status.iter().map(|feed| feed.items.available + feed.items.failed).sum();
    if failed || open != 0 || deliveries != items as u64 {
        bail!(
            "{items} items went in, {deliveries} deliveries were made, and {open} items are open or failed"
        );
    }
    Ok(())
}

/// Notes when deliveries end.
struct Timed<P> {
    processor: P,
    deliveries: AtomicU64,
    last: Mutex<Instant>,
}

impl<P> Timed<P> {
    fn ended(&self, deliveries: u64) {
        self.deliveries.fetch_add(deliveries, Ordering::Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl<P: Processor> Processor for Timed<P> {
    async fn process(&self, delivery: Delivery) -> Verdict {
        let verdict = self.processor.process(delivery).await;
        self.ended(1);
        verdict
    }

    async fn process_batch(&self, deliveries: Vec<Delivery>) -> Vec<Verdict> {
        let verdicts = self.processor.process_batch(deliveries).await;
        self.ended(verdicts.len() as u64);
        verdicts
    }

    fn is_ready(&self, feed: &str, gate: i32) -> bool {
        self.processor.is_ready(feed, gate)
    }

    fn readiness_changed(&self) -> impl Future<Output = ()> + Send {
        self.processor.readiness_changed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_json_of_its_size() {
        for bytes in [2, 3, 16, 100, 10_000, 1_000_000] {
            let payload = payload(bytes);
            assert_eq!(payload.len() as u64, bytes);
            assert!(serde_json::from_slice::<String>(&payload).is_ok(), "{bytes}");
        }
    }
}
