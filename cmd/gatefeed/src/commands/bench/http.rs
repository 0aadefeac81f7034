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
    Delivery, Processor,
    dispatch::{HttpOptions, HttpProcessor, parse_target},
};
use url::Url;

use super::{
    LoadArgs,
    figures::{Load, per_second},
    handler::Child,
    place::Place,
    work,
};

/// How long the bare loop runs in each round.
const LOOP: Duration = Duration::from_secs(2);

/// Gatefeed and the bare loop in turn, against the same handler.
pub(crate) async fn http(place: &Place, args: &LoadArgs) -> Result<Load> {
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
        let took = work::put_through(place.open().await?, args, items, client(&target)?).await?;
        limit.clear().await?;
        if figures.round(took, bare) {
            break;
        }
    }
    Ok(figures)
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
    let tasks: Vec<_> = (0..args.concurrency)
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
