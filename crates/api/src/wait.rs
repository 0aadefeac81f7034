//! Waiting for the end of a partition or item, within a request. It looks again and again, ever less often up to a
//! second: a listener for each request would be a connection to the database for each.

use std::{sync::Arc, time::Duration};

use axum::http::HeaderMap;
use gatefeed_core::inspect::{DataPart, Glance, ItemRow};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep},
};

use crate::{
    access::{Looks, May},
    app::App,
    items::find,
    problem::Problem,
};

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Room for one that waits.
pub(crate) fn room(app: &App) -> Result<OwnedSemaphorePermit, Problem> {
    let room = Arc::clone(&app.waiters).try_acquire_owned();
    room.map_err(|_| Problem::busy("too many requests wait already: ask without waiting, or again later"))
}

/// Until the partition has closed, or the time is over.
pub(crate) async fn partition(
    app: &App,
    headers: &HeaderMap,
    id: &str,
    time: Duration,
) -> Result<(), Problem> {
    let _room = room(app)?;
    let mut pauses = Pauses::until(Instant::now() + time);
    loop {
        May::<Looks>::check(app, headers).await?;
        if glance(app, id).await?.status.is_closed() || !pauses.next().await {
            return Ok(());
        }
    }
}

/// The partition, at a glance.
pub(crate) async fn glance(app: &App, id: &str) -> Result<Glance, Problem> {
    let seen = app.store.glance(id).await?;
    seen.ok_or_else(|| Problem::not_found(format!("partition {id:?} does not exist")))
}

/// Until the item has ended, or the time is over; the item as it is then.
pub(crate) async fn item(
    app: &App,
    headers: &HeaderMap,
    partition: &str,
    item: &str,
    time: Duration,
) -> Result<ItemRow, Problem> {
    let _room = room(app)?;
    let mut pauses = Pauses::until(Instant::now() + time);
    loop {
        May::<Looks>::check(app, headers).await?;
        let row = find(app, partition, item, DataPart::None).await?;
        if !row.status.is_open() || !pauses.next().await {
            return Ok(row);
        }
    }
}

/// Pauses that grow.
struct Pauses {
    end: Instant,
    pause: Duration,
}

impl Pauses {
    fn until(end: Instant) -> Self {
        Self { end, pause: PAUSE_MIN }
    }

    /// Pauses; false when the time is over.
    async fn next(&mut self) -> bool {
        let left = self.end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        sleep(self.pause.mul_f64(rand::random_range(0.8..1.2)).min(left)).await;
        self.pause = (self.pause * 3 / 2).min(PAUSE_MAX);
        true
    }
}
