//! Waiting for the end of a partition or item, within a request. All that is waited for is looked at together, a few times
//! a second: neither a connection to the database for each request, nor a query.

use std::{sync::Arc, time::Duration};

use axum::http::HeaderMap;
use gatefeed_core::inspect::{Awaited, DataPart, Glance, ItemRow};
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    access::{Looks, May},
    app::App,
    items::find,
    problem::Problem,
    rest::rest,
    stopping::Stopping,
};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(200);

/// Looking takes at most one part in so many of the time.
const SHARE: u32 = 10;

/// How often a token is looked at again.
const RECHECK: Duration = Duration::from_secs(1);

/// How a request waits.
pub(crate) struct Patience<'a> {
    /// Who waits.
    pub(crate) headers: &'a HeaderMap,
    /// For how long.
    pub(crate) time: Duration,
    /// Or until the server ends.
    pub(crate) stopping: &'a Stopping,
}

/// Room for one that waits.
pub(crate) fn room(app: &App) -> Result<OwnedSemaphorePermit, Problem> {
    let room = Arc::clone(&app.waiters).try_acquire_owned();
    room.map_err(|_| Problem::busy("too many requests wait already: ask without waiting, or again later"))
}

/// Until the partition has closed, or the patience is over.
pub(crate) async fn partition(app: &App, id: &str, patience: &Patience<'_>) -> Result<(), Problem> {
    let _room = room(app)?;
    match glance(app, id).await?.status.is_closed() {
        true => Ok(()),
        false => until_ended(app, Awaited::Partition(id.to_owned()), patience).await,
    }
}

/// The partition, at a glance.
pub(crate) async fn glance(app: &App, id: &str) -> Result<Glance, Problem> {
    let seen = app.store.glance(id).await?;
    seen.ok_or_else(|| Problem::not_found(format!("partition {id:?} does not exist")))
}

/// Until the item has ended, or the patience is over; the item as it is then.
pub(crate) async fn item(
    app: &App,
    partition: &str,
    item: &str,
    patience: &Patience<'_>,
) -> Result<ItemRow, Problem> {
    let _room = room(app)?;
    let row = find(app, partition, item, DataPart::None).await?;
    if !row.status.is_open() {
        return Ok(row);
    }
    let awaited = Awaited::Item { partition: partition.to_owned(), id: item.to_owned() };
    until_ended(app, awaited, patience).await?;
    find(app, partition, item, DataPart::None).await
}

/// A token may be revoked meanwhile.
async fn until_ended(app: &App, awaited: Awaited, patience: &Patience<'_>) -> Result<(), Problem> {
    let (mut seen, is_first) = app.waits.follow(awaited);
    if is_first {
        tokio::spawn(look(Arc::clone(app)));
    }
    let end = Instant::now() + patience.time;
    loop {
        tokio::select! {
            _ = seen.wait_for(|ended| *ended == Some(true)) => return Ok(()),
            () = sleep_until(end) => return Ok(()),
            () = patience.stopping.wait() => return Ok(()),
            () = sleep(RECHECK) => {}
        }
        May::<Looks>::check(app, patience.headers).await?;
    }
}

/// Looks until nobody waits any more.
async fn look(app: App) {
    loop {
        let started = Instant::now();
        let awaited = app.waits.followed();
        if awaited.is_empty() {
            return;
        }
        let ended = app.store.ended(&awaited).await;
        let rest = rest(started.elapsed(), SHARE, INTERVAL, ended.is_err());
        match ended {
            Ok(ended) => {
                awaited.iter().zip(ended).for_each(|(awaited, ended)| app.waits.tell(awaited, ended))
            }
            Err(error) => tracing::debug!(%error, "what is waited for could not be looked at"),
        }
        sleep(rest).await;
    }
}
