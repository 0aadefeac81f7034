//! The progress of a partition as server-sent events.

use std::{collections::HashMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::stream;
use gatefeed_core::{
    StoreError,
    inspect::{GateCounts, Glance},
    partition::PartitionStatus,
};
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep, sleep_until},
};
use utoipa::ToSchema;

use crate::{
    access::{Caller, Looks, May},
    app::App,
    path::PartitionId,
    problem::{Problem, Problems},
    query::{Nothing, Params},
    rest::rest,
    stopping::Stopping,
    wait::{glance, room},
};

/// How often the partition is looked at. Its items are counted less often where that takes long.
const INTERVAL: Duration = Duration::from_secs(1);
const SHARE: u32 = 20;

/// Between two looks, which rest as long as the last one took, so that one that took long holds up the others no longer.
const REST_MAX: Duration = Duration::from_millis(200);

/// So that proxies keep the connection, and a client that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where a partition is.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Progress {
    /// For whoever may look at one feed alone.
    #[serde(skip)]
    feed: String,
    /// The partition.
    partition: String,
    /// Its status.
    status: PartitionStatus,
    /// Its gate.
    gate: i32,
    /// Its version.
    version: i64,
    /// The gates that have items, with their items by status.
    gates: Vec<GateCounts>,
}

/// Follow a partition
///
/// Server-sent events: `progress` whenever something has changed, about once a second at most, and `end` when the
/// partition is complete, failed or cancelled; then the stream ends. The data of both is JSON with `partition`, `status`,
/// `gate`, `version` and `gates`. Once the token is revoked or has expired, the partition has been deleted, or the server
/// ends, the stream ends without `end`.
#[utoipa::path(
    get,
    path = "/v1/partitions/{id}/events",
    tag = "partitions",
    params(("id" = String, Path, description = "The partition", min_length = 1, max_length = 512)),
    responses(
        (status = 200, description = "Events", body = String, content_type = "text/event-stream"),
        (status = 422, description = "The id will not do", body = Problem, content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(crate) async fn events(
    State(app): State<App>,
    May(caller, _): May<Looks>,
    PartitionId(partition): PartitionId,
    _: Params<Nothing>,
    stopping: Stopping,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.check_partition(&app, &partition).await?;
    let room = room(&app)?;
    glance(&app, &partition).await?;
    let (seen, is_first) = app.follows.follow(partition);
    if is_first {
        tokio::spawn(look(Arc::clone(&app)));
    }
    app.followed.notify_one();
    let following = Following { app, caller, headers, seen, stopping, is_over: false, _room: room };
    let events = stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((Ok::<_, Infallible>(event), following))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// What was seen of a partition.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    /// Where it is.
    At(Arc<Progress>),
    /// It has been deleted.
    Gone,
}

struct Following {
    app: App,
    caller: Caller,
    headers: HeaderMap,
    seen: watch::Receiver<Option<Seen>>,
    stopping: Stopping,
    is_over: bool,
    _room: OwnedSemaphorePermit,
}

impl Following {
    /// The next event; `None`: that was the last one, the token has been revoked, the partition is gone, or the server ends.
    async fn next(&mut self) -> Option<Event> {
        while !self.is_over {
            tokio::select! {
                changed = self.seen.changed() => {
                    changed.ok()?;
                    // Whoever may not look any more is not told.
                    self.check().await?;
                    let progress = match &*self.seen.borrow_and_update() {
                        Some(Seen::At(progress)) => Arc::clone(progress),
                        Some(Seen::Gone) => return None,
                        None => continue,
                    };
                    if self.is_its_own(&progress).await? {
                        return self.event(&progress);
                    }
                }
                () = self.stopping.wait() => return None,
                () = sleep(INTERVAL) => self.check().await?,
            }
        }
        None
    }

    /// `None`: the token is good no more. Where that is unknown for a moment it still is.
    async fn check(&self) -> Option<()> {
        match May::<Looks>::check(&self.app, &self.headers).await {
            Err(problem) if !problem.is_busy() => None,
            _ => Some(()),
        }
    }

    /// Whether this is told to its caller; `None`: its partition is another feed's by now. False: what was seen is older than
    /// the partition is.
    async fn is_its_own(&self, progress: &Progress) -> Option<bool> {
        if self.caller.may_see(&progress.feed) {
            return Some(true);
        }
        match self.caller.check_partition(&self.app, &progress.partition).await {
            Err(problem) if !problem.is_busy() => None,
            _ => Some(false),
        }
    }

    fn event(&mut self, progress: &Progress) -> Option<Event> {
        self.is_over = progress.status.is_closed();
        let name = if self.is_over { "end" } else { "progress" };
        Event::default().event(name).json_data(progress).ok()
    }
}

/// Looks at what is followed, one partition after another, each in its own time, until nobody follows any more. So it takes
/// one connection at the most, and where many are followed half of that one's time.
async fn look(app: App) {
    let mut next_at: HashMap<String, Instant> = HashMap::new();
    loop {
        let followed = app.follows.followed();
        next_at.retain(|partition, _| followed.contains(partition));
        let now = Instant::now();
        let due = followed
            .into_iter()
            .map(|partition| (next_at.get(&partition).copied().unwrap_or(now), partition));
        let Some((at, partition)) = due.min() else { return };
        if at > now {
            tokio::select! {
                () = sleep_until(at) => {}
                () = app.followed.notified() => {}
            }
            continue;
        }
        let started = Instant::now();
        let has_failed = look_at(&app, &partition).await.is_err();
        let took = started.elapsed();
        next_at.insert(partition, Instant::now() + rest(took, SHARE, INTERVAL, has_failed));
        sleep(took.min(REST_MAX)).await;
    }
}

/// Looks at a partition and tells.
async fn look_at(app: &App, partition: &str) -> gatefeed_core::Result<()> {
    match progress(app, partition).await {
        Ok(Some(progress)) => app.follows.tell(&partition.to_owned(), Seen::At(Arc::new(progress))),
        Ok(None) | Err(StoreError::NotFound(_)) => app.follows.tell(&partition.to_owned(), Seen::Gone),
        Err(error) => {
            tracing::debug!(%error, "a partition that is followed could not be looked at");
            return Err(error);
        }
    }
    Ok(())
}

async fn progress(app: &App, partition: &str) -> gatefeed_core::Result<Option<Progress>> {
    let Some(Glance { feed, status, gate, version, .. }) = app.store.glance(partition).await? else {
        return Ok(None);
    };
    let gates = app.store.gates(partition).await?;
    Ok(Some(Progress { feed, partition: partition.to_owned(), status, gate, version, gates }))
}
