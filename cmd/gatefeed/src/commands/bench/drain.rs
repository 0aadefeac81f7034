//! `gatefeed bench drain`.

use std::time::Duration;

use anyhow::Result;
use gatefeed_core::answer::Answer;
use gatefeed_engine::Delivery;

use super::{LoadArgs, figures::Load, place::Place, work};

/// Rows of one UPDATE of the limit: gatefeed's own batches have at most as many.
const BLOCK: usize = 1_000;

/// Gatefeed and the limit in turn, on the same tables, until gatefeed was measured for long enough.
pub(crate) async fn drain(place: &Place, args: &LoadArgs) -> Result<Load> {
    let store = place.open().await?;
    let mut limit = place.limit().await?;
    let mut figures = Load::new("drain", "the batched UPDATE alone", place, args);
    let warm_up = (args.items / 10).max(1);
    let mut measured = Duration::ZERO;
    for round in 0.. {
        let items = if round == 0 { warm_up } else { args.items };
        work::load(&*store, args, 2 * round, items).await?;
        limit.vacuum().await?;
        let (rows, by_itself) = limit.update_all(BLOCK).await?;
        limit.clear().await?;
        work::load(&*store, args, 2 * round + 1, items).await?;
        limit.vacuum().await?;
        let took =
            work::put_through(place.open().await?, args, items, |_: Delivery| async { Ok(Answer::done()) });
        let took = took.await?;
        limit.clear().await?;
        if round == 0 {
            continue;
        }
        measured += took;
        figures.add(per_second(items as u64, took), per_second(rows, by_itself));
        if measured >= args.run.duration {
            break;
        }
    }
    Ok(figures)
}

/// A rate.
pub(crate) fn per_second(number: u64, time: Duration) -> f64 {
    number as f64 / time.as_secs_f64().max(1e-9)
}
