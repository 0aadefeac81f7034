//! Items that come one by one, with a body of any type: `POST /v1/partitions/{id}/items`.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::Response,
};
use chrono::{DateTime, Utc};
use gatefeed_core::{
    envelope::{self, parse_time},
    id::{JSON, check_content_type, check_id, posted_id},
    ingest::{Arrival, Arrived},
    inspect::{Glance, ItemFilter},
    item::{Data, NewItem},
    partition::NewPartition,
    request::Request,
};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    access::{May, Pushes},
    app::App,
    backlog::Counting,
    body::{self, Held},
    bulk,
    etag::json,
    path::{PartitionId, item_url},
    problem::{ChangeProblems, Problem, Problems},
    query::Params,
    replay::{self, REPLAYED, conflict, key},
};

const EXISTING: HeaderName = HeaderName::from_static("gatefeed-existing");

/// The content type of a body that names none.
const BYTES: &str = "application/octet-stream";

/// An item whose data is the body.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PostParams {
    /// The item's id; an item that has it already is left as it is. Without one it is derived from the
    /// `Idempotency-Key`, or fresh.
    pub(crate) id: Option<String>,
    /// The gate at which it is delivered first.
    #[param(minimum = 0, maximum = 2147483647)]
    pub(crate) gate: Option<i32>,
    /// Higher is sooner, within a gate.
    pub(crate) priority: Option<i32>,
    /// Not delivered before this time.
    #[param(example = "2030-01-31T08:00:00Z")]
    pub(crate) available_at: Option<String>,
    /// The feed of the partition, if it has to be made.
    pub(crate) feed: Option<String>,
    /// Of NDJSON only: each line is an envelope, as of `gatefeed push --envelope`.
    pub(crate) envelope: Option<bool>,
}

/// What was taken in. The same request with the same `Idempotency-Key` gets the same.
#[derive(Serialize, ToSchema)]
pub(crate) struct Accepted<'a> {
    /// Its partition.
    partition_id: &'a str,
    /// Its id.
    id: &'a str,
}

/// Add items
///
/// The body is the data of one item, of any type; it is answered when the item is committed. `application/x-ndjson` is
/// many items, a line each, and `multipart/form-data` is many too, a part each: all of them are added in one
/// transaction, or none. The partition is made if it is missing.
#[utoipa::path(
    post,
    path = "/v1/partitions/{id}/items",
    tag = "items",
    params(
        ("id" = String, Path, description = "The partition", min_length = 1, max_length = 512),
        PostParams,
        ("Idempotency-Key" = Option<String>, Header, description = "The same key is the same request: nothing is added twice"),
    ),
    request_body(
        description = "The item's data, or many items",
        content(
            (serde_json::Value = "application/json"),
            (Vec<u8> = "application/octet-stream"),
            (String = "text/plain"),
            (String = "application/x-ndjson"),
            (bulk::Parts = "multipart/form-data"),
        ),
    ),
    responses(
        (status = 202, description = "Committed", body = bulk::Added, content_type = "application/json",
            headers(("location" = String, description = "Where the item is"))),
        Problems,
        ChangeProblems,
    ),
)]
pub(crate) async fn post_items(
    State(app): State<App>,
    May(caller, _): May<Pushes>,
    PartitionId(partition): PartitionId,
    Params(asked): Params<PostParams>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let feed = caller.feed_for(asked.feed.as_deref())?;
    check_id("feed", &feed).map_err(|error| Problem::unprocessable(error.to_string()))?;
    let content_type = content_type(&headers)?;
    let own_feed_only = caller.has_own_feed_only();
    if let Some(kind) = bulk::kind(&content_type) {
        let new = NewPartition { feed, own_feed_only, ..NewPartition::new(partition) };
        return bulk::post(&app, kind, &content_type, new, asked, &headers, body).await;
    }
    let held = body::read(&headers, body, app.options.payload_max, &app.budget).await?;
    let posted = Posted::read(partition, asked, &headers, content_type, &held)?;
    let counting = match check_backlog(&app, &posted.partition, &feed, own_feed_only, 1).await {
        // One that is there adds nothing.
        Err(problem) if problem.is_too_much() && posted.is_there(&app, &feed, own_feed_only).await? => {
            Counting::default()
        }
        counting => counting?,
    };
    posted.add(&app, feed, own_feed_only, held, counting).await
}

/// The content type, as text.
pub(crate) fn content_type(headers: &HeaderMap) -> Result<String, Problem> {
    let text = headers.get(header::CONTENT_TYPE).map_or(Ok(BYTES), |value| value.to_str());
    let text = text.map_err(|_| Problem::bad_request("Content-Type is not ASCII"))?;
    check_content_type(text).map_err(|error| Problem::unprocessable(error.to_string()))?;
    Ok(text.to_owned())
}

/// Errs when the partition's feed has too much work. The feed of an existing partition counts, not the one asked for; but
/// nobody hears of another feed than its own.
pub(crate) async fn check_backlog(
    app: &App,
    partition: &str,
    asked: &str,
    own_feed_only: bool,
    items: usize,
) -> Result<Counting, Problem> {
    if !app.backlog.is_bounded() {
        return Ok(Counting::default());
    }
    let feed = if own_feed_only { None } else { app.feed_of(partition).await? };
    app.backlog.check(&*app.store, feed.as_deref().unwrap_or(asked), items).await
}

/// One item as it was posted.
struct Posted {
    partition: String,
    id: String,
    /// Whether its caller named it, or its key does: it may be there already.
    is_named: bool,
    gate: i32,
    priority: i32,
    available_at: Option<DateTime<Utc>>,
    content_type: String,
    request: Option<Request>,
}

impl Posted {
    fn read(
        partition: String,
        asked: PostParams,
        headers: &HeaderMap,
        content_type: String,
        held: &Held,
    ) -> Result<Self, Problem> {
        if asked.envelope.is_some() {
            return Err(Problem::bad_request(
                "envelope is for NDJSON; a single item takes id, gate and so on as parameters",
            ));
        }
        let gate = asked.gate.unwrap_or(0);
        if gate < 0 {
            return Err(Problem::unprocessable(format!("gate is {gate}, expected {}", envelope::GATE)));
        }
        check_json(&content_type, &held.bytes)
            .map_err(|error| Problem::unprocessable(format!("the body is {error}")))?;
        let key = key(headers)?;
        let is_named = asked.id.is_some() || key.is_some();
        let id = match (&asked.id, key) {
            (Some(id), _) => id.clone(),
            (None, Some(key)) => posted_id(&partition, key),
            // Ids that grow keep the database's index warm.
            (None, None) => Uuid::now_v7().to_string(),
        };
        check_id("id", &id).map_err(|error| Problem::unprocessable(error.to_string()))?;
        let request = key.map(|key| replay::of_item(key, &asked, &content_type, &held.bytes));
        let available_at = asked.available_at.as_deref().map(time).transpose()?;
        let priority = asked.priority.unwrap_or(0);
        Ok(Self { partition, id, is_named, gate, priority, available_at, content_type, request })
    }

    /// Not for those who may not know, nor in a partition that is yet to be made.
    async fn is_there(&self, app: &App, feed: &str, own_feed_only: bool) -> Result<bool, Problem> {
        let is_its_own = |glance: Glance| !own_feed_only || glance.feed == feed;
        if !self.is_named || !app.store.glance(&self.partition).await?.is_some_and(is_its_own) {
            return Ok(false);
        }
        let (partition, id) = (self.partition.clone(), Some(self.id.clone()));
        let filter = ItemFilter { partition, id, limit: 1, ..ItemFilter::default() };
        Ok(!app.store.items(&filter).await?.is_empty())
    }

    async fn add(
        self,
        app: &App,
        feed: String,
        own_feed_only: bool,
        held: Held,
        counting: Counting,
    ) -> Result<Response, Problem> {
        let Self { partition, id, gate, priority, available_at, content_type, request, .. } = self;
        let data = Data { bytes: held.bytes, content_type };
        let item = NewItem { gate, priority, available_at, ..NewItem::new(&partition, &id, data) };
        let arrived = app.group.add(Arrival { feed, own_feed_only, item, request }, held.taken).await?;
        counting.added(u64::from(arrived == Arrived::Added));
        let mut headers = vec![(header::LOCATION, item_url(&partition, &id))];
        match arrived {
            Arrived::Conflict => return Err(conflict()),
            Arrived::Added => {}
            Arrived::Replayed => headers.push((REPLAYED, "true".to_owned())),
            Arrived::Existing => headers.push((EXISTING, "true".to_owned())),
        }
        Ok(json(StatusCode::ACCEPTED, &headers, &Accepted { partition_id: &partition, id: &id }))
    }
}

/// What says that it is JSON has to be, since a handler would find out too late.
pub(crate) fn check_json(content_type: &str, bytes: &[u8]) -> Result<(), String> {
    if content_type != JSON && !envelope::is_json(content_type) {
        return Ok(());
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "not UTF-8, as JSON has to be".to_owned())?;
    serde_json::from_str::<IgnoredAny>(text).map(drop).map_err(|error| format!("not JSON: {error}"))
}

/// A moment, as in envelopes.
fn time(text: &str) -> Result<DateTime<Utc>, Problem> {
    let wrong = || Problem::unprocessable(format!("available_at is {text:?}, expected {}", envelope::TIME));
    parse_time(text).ok_or_else(wrong)
}
