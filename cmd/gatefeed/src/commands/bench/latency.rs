//! `gatefeed bench latency`.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gatefeed_core::{
    answer::Answer,
    item::{Data, NewItem},
    partition::NewPartition,
};
use gatefeed_engine::{Delivery, Watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{LatencyArgs, figures::Latency, place::Place};

/// Between two items, so that the queue is idle again; changed from item to item, so that no timer is met.
const PAUSE_MS: std::ops::Range<u64> = 20..60;

/// Items before anything is measured.
const WARM_UP: usize = 20;

/// For how long an item may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// One item at a time, committed by another connection; the time from just before its COMMIT to the start of its
/// delivery.
pub(crate) async fn latency(place: &Place, args: &LatencyArgs) -> Result<Latency> {
    let (sender, mut arrived) = mpsc::unbounded_channel();
    let processor = move |_: Delivery| {
        _ = sender.send(Instant::now());
        async { Ok(Answer::done()) }
    };
    let stop = CancellationToken::new();
    let watcher = Watcher::builder(place.open().await?).shutdown(stop.clone()).processor(processor);
    let watcher = tokio::spawn(watcher.run());
    let store = place.open().await?;
    let mut samples = Vec::new();
    let started = Instant::now();
    let mut number = 0;
    while number <= WARM_UP || started.elapsed() < args.run.duration {
        let mut push = store.begin_push(&NewPartition::new("latency")).await?;
        push.add(&[NewItem::new("latency", format!("item-{number}"), Data::json("1"))]).await?;
        let committed = Instant::now();
        push.commit().await?;
        let delivered = tokio::time::timeout(PATIENCE, arrived.recv()).await;
        let delivered =
            delivered.context("an item was not delivered within 30 s")?.context("the watcher ended")?;
        if number >= WARM_UP {
            samples.push(delivered.saturating_duration_since(committed));
        }
        number += 1;
        tokio::time::sleep(Duration::from_millis(PAUSE_MS.start + pause(number))).await;
    }
    stop.cancel();
    watcher.await??;
    Ok(Latency::new(place, &samples))
}

/// Spread over the range, the same in every run.
fn pause(number: usize) -> u64 {
    (number as u64).wrapping_mul(7919) % (PAUSE_MS.end - PAUSE_MS.start)
}
