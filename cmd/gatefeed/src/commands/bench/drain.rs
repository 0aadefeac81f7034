//! `gatefeed bench drain`.

use anyhow::Result;
use gatefeed_core::answer::Answer;
use gatefeed_engine::{Batch, Delivery, Processor};

use super::{
    LoadArgs,
    figures::{Load, per_second},
    place::Place,
    work,
};

/// Rows of one UPDATE of the limit: gatefeed's own batches have at most as many.
const BLOCK: usize = 2_000;

pub(crate) async fn drain(place: &Place, args: &LoadArgs) -> Result<Load> {
    let done = || Ok(|_: Delivery| async { Ok(Answer::done()) });
    beside_updates("drain", place, args, None, done).await
}

/// Gatefeed and the batched UPDATE in turn, on the same tables, until gatefeed was measured for long enough.
pub(super) async fn beside_updates<P: Processor>(
    name: &'static str,
    place: &Place,
    args: &LoadArgs,
    batch: Option<Batch>,
    processor: impl Fn() -> Result<P>,
) -> Result<Load> {
    let store = place.open().await?;
    let mut limit = place.limit().await?;
    let mut figures = Load::new(name, "the batched UPDATE alone", place, args);
    for round in 0.. {
        let items = figures.items_of_round();
        work::load(&*store, args, 2 * round, items).await?;
        limit.vacuum().await?;
        let (rows, by_itself) = limit.update_all(BLOCK).await?;
        limit.clear().await?;
        work::load(&*store, args, 2 * round + 1, items).await?;
        limit.vacuum().await?;
        let took = work::put_through(place.open().await?, args, items, batch, processor()?).await?;
        limit.clear().await?;
        if figures.round(took, per_second(rows, by_itself)) {
            break;
        }
    }
    Ok(figures)
}
