//! The progress of a partition as server-sent events.

use std::{convert::Infallible, time::Duration};

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
    inspect::{GateCounts, Glance},
    partition::PartitionStatus,
};
use serde::Serialize;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep},
};
use utoipa::ToSchema;

use crate::{
    access::{Looks, May},
    app::App,
    path::PartitionId,
    problem::{Problem, Problems},
    query::{Nothing, Params},
    wait::{glance, room},
};

/// How often the partition is looked at. Its items are counted less often where that takes long.
const INTERVAL: Duration = Duration::from_secs(1);
const SHARE: u32 = 20;

/// So that proxies keep the connection, and a client that is gone is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Where a partition is.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub(crate) struct Progress {
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
/// `gate`, `version` and `gates`. Once the token is revoked or has expired the stream ends without `end`.
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
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.check_partition(&app, &partition).await?;
    let room = room(&app)?;
    glance(&app, &partition).await?;
    let (told, next_at) = (None, Instant::now());
    let following = Following { app, headers, partition, told, next_at, is_over: false, _room: room };
    let events = stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((Ok::<_, Infallible>(event), following))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

struct Following {
    app: App,
    headers: HeaderMap,
    partition: String,
    told: Option<Progress>,
    next_at: Instant,
    is_over: bool,
    _room: OwnedSemaphorePermit,
}

impl Following {
    /// The next event; `None`: that was the last one, the database has no answer, or the token has been revoked.
    async fn next(&mut self) -> Option<Event> {
        while !self.is_over {
            tokio::time::sleep_until(self.next_at).await;
            match May::<Looks>::check(&self.app, &self.headers).await {
                Ok(_) => {}
                Err(problem) if problem.is_busy() => {
                    sleep(INTERVAL).await;
                    continue;
                }
                Err(_) => return None,
            }
            let started = Instant::now();
            let progress = match self.look().await {
                Ok(progress) => progress,
                Err(error) if error.is_retryable() => {
                    sleep(INTERVAL).await;
                    continue;
                }
                Err(error) => {
                    tracing::debug!(%error, "a stream of events ends");
                    return None;
                }
            };
            self.next_at = Instant::now() + (started.elapsed() * SHARE).max(INTERVAL);
            if self.told.as_ref() == Some(&progress) {
                continue;
            }
            self.is_over = progress.status.is_closed();
            let event = Event::default()
                .event(if self.is_over { "end" } else { "progress" })
                .json_data(&progress)
                .ok();
            self.told = Some(progress);
            return event;
        }
        None
    }

    async fn look(&self) -> gatefeed_core::Result<Progress> {
        let missing = || gatefeed_core::StoreError::NotFound("the partition has been deleted".into());
        let Glance { status, gate, version, .. } =
            self.app.store.glance(&self.partition).await?.ok_or_else(missing)?;
        let gates = self.app.store.gates(&self.partition).await?;
        Ok(Progress { partition: self.partition.clone(), status, gate, version, gates })
    }
}
