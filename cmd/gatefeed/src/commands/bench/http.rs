//! `gatefeed bench http`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use gatefeed_engine::{
    Batch, Delivery, Processor,
    dispatch::{HttpOptions, HttpProcessor, parse_target},
};
use url::Url;

use super::{
    HttpArgs, LoadArgs,
    drain::beside_updates,
    figures::{Load, per_second},
    handler::{BATCH_PATH, Child},
    place::Place,
    work,
};

/// How long a batch waits for more that is being read.
const LINGER: Duration = Duration::from_millis(10);

/// Items in flight, unless it is said.
const BATCHED_CONCURRENCY: usize = 1000;

/// How long the bare loop runs in each round.
const LOOP: Duration = Duration::from_secs(2);

/// Gatefeed and its limit in turn: the bare loop, against the same handler, or the UPDATE, of the same tables.
pub(crate) async fn http(place: &Place, args: &HttpArgs) -> Result<Load> {
    match args.batch {
        Some(size) => {
            // Some batches at a time.
            let concurrency = args.load.concurrency.or(Some(BATCHED_CONCURRENCY));
            batched(place, &LoadArgs { concurrency, ..args.load.clone() }, size).await
        }
        None => one_by_one(place, &args.load).await,
    }
}

async fn one_by_one(place: &Place, args: &LoadArgs) -> Result<Load> {
    let handler = Child::start()?;
    let target = parse_target(&handler.url)?;
    let store = place.open().await?;
    let mut limit = place.limit().await?;
    let mut figures = Load::new("http", "the same client in a bare loop", place, args);
    for round in 0.. {
        let items = figures.items_of_round();
        let bare = bare_loop(&target, args).await?;
        work::load(&*store, args, round, items).await?;
        limit.vacuum().await?;
        let took = work::put_through(place.open().await?, args, items, None, client(&target)?).await?;
        limit.clear().await?;
        if figures.round(took, bare) {
            break;
        }
    }
    Ok(figures)
}

async fn batched(place: &Place, args: &LoadArgs, size: usize) -> Result<Load> {
    let handler = Child::start()?;
    let target = parse_target(&handler.url)?.join(BATCH_PATH)?;
    let batch = Batch { size, linger: LINGER };
    beside_updates("http", place, args, Some(batch), || client(&target)).await
}

fn client(target: &Url) -> Result<HttpProcessor> {
    Ok(HttpProcessor::new(vec![target.clone()], HttpOptions::default())?)
}

/// As many requests as go, `concurrency` at a time.
async fn bare_loop(target: &Url, args: &LoadArgs) -> Result<f64> {
    let client = Arc::new(client(target)?);
    let done = Arc::new(AtomicU64::new(0));
    let delivery = Delivery {
        link: None,
        version: 0,
        born: 0,
        retry: gatefeed_core::retry::RetryPolicy::default(),
        gathering: None,
        feed: "default".into(),
        partition: "bare".into(),
        item: "loop".into(),
        gate: 0,
        pass: 0,
        attempt: 1,
        epoch: 1,
        content_type: "application/json".into(),
        data: work::payload(args.payload),
    };
    let started = Instant::now();
    let tasks: Vec<_> = (0..args.concurrency())
        .map(|_| tokio::spawn(post_until(started + LOOP, client.clone(), delivery.clone(), done.clone())))
        .collect();
    for task in tasks {
        if let Err(failure) = task.await? {
            bail!("the bundled handler did not answer: {failure}");
        }
    }
    Ok(per_second(done.load(Ordering::Relaxed), started.elapsed()))
}

async fn post_until(
    end: Instant,
    client: Arc<HttpProcessor>,
    delivery: Delivery,
    done: Arc<AtomicU64>,
) -> Result<(), String> {
    while Instant::now() < end {
        client.process(delivery.clone()).await.map_err(|failure| failure.message)?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
