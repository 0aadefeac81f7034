//! Partitions: made with their items, looked at, listed, waited for.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use gatefeed_core::{
    envelope::Format,
    id::{check_id, posted_partition_id},
    inspect::{LIMIT_MAX, PartitionFilter, PartitionRow},
    item::NewItem,
    partition::{NewPartition, PartitionStatus},
    request::Request,
    store::Pushed,
};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error as _, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{fmt, time::Duration};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::{
    access::{Caller, Looks, May, Pushes},
    app::App,
    body::{self, Held},
    budget::Taken,
    bulk::{Added, Naming, push},
    etag::{json, tagged},
    ndjson,
    path::{PartitionId, partition_url},
    pile::{self, Pile},
    post::content_type,
    problem::{ChangeProblems, Problem, Problems, Wrong},
    query::{self, Nothing, Params},
    replay::{self, REPLAYED, key},
    stopping::Stopping,
    wait::{self, Patience},
};

/// Rows of a page that names no number.
pub(crate) const PAGE: usize = 50;

/// A partition to be made. Without an id it gets a fresh one, or one that is derived from the `Idempotency-Key`; so do its
/// items.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPartitionBody<'a> {
    /// Its id.
    #[schema(min_length = 1, max_length = 512)]
    id: Option<String>,
    /// Its feed.
    #[schema(min_length = 1, max_length = 512)]
    feed: Option<String>,
    /// Higher is sooner, among the partitions of its feed.
    priority: Option<i32>,
    /// Hold the gate until it is advanced or sealed.
    manual_checkpoint: Option<bool>,
    /// Complete once everything is through.
    auto_close: Option<bool>,
    /// At most this many deliveries at a time.
    #[schema(minimum = 1, maximum = 2147483647)]
    max_in_flight: Option<u32>,
    /// What failed items mean: `stop`, `continue`, a number such as `10` or a share such as `5%`.
    failure_policy: Option<String>,
    /// How long it may be at a gate that has open items.
    #[schema(minimum = 1, maximum = 2147483647)]
    gate_deadline_seconds: Option<u32>,
    /// Keep what answers replace, so that it can be rewound.
    keep_history: Option<bool>,
    /// Its first items, added in the same transaction: envelopes, as lines of `gatefeed push --envelope`.
    #[serde(borrow, default, deserialize_with = "as_it_is")]
    #[schema(value_type = Vec<Envelope>)]
    items: Option<&'a RawValue>,
}

/// They are read one by one, later: a list of them all would have no bound.
fn as_it_is<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// An item with its data.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described: gatefeed_core::envelope reads it")]
pub(crate) struct Envelope {
    /// Its id; a fresh one without.
    #[schema(min_length = 1, max_length = 512)]
    id: Option<String>,
    /// The gate at which it is delivered first.
    #[schema(minimum = 0, maximum = 2147483647)]
    gate: Option<i32>,
    /// Higher is sooner, within a gate.
    priority: Option<i32>,
    /// Not delivered before.
    available_at: Option<String>,
    /// What the data is; JSON without.
    content_type: Option<String>,
    /// Items that have to be complete first.
    depends_on: Option<Vec<String>>,
    /// What a failed dependency means: `fail`, `skip` or `run`.
    on_dependency_failure: Option<String>,
    /// `parent`: its data is what the item that it depends on came to.
    input: Option<String>,
    /// What it asks for.
    gather: Option<serde_json::Value>,
    /// Its data: any JSON, or a string where the content type is another.
    data: serde_json::Value,
}

impl NewPartitionBody<'_> {
    fn partition(&self, feed: String, key: Option<&str>) -> Result<NewPartition, Problem> {
        let invalid = |error: &dyn std::fmt::Display| Problem::unprocessable(error.to_string());
        let id = match (&self.id, key) {
            (Some(id), _) => id.clone(),
            (None, Some(key)) => posted_partition_id(&feed, key),
            (None, None) => Uuid::now_v7().to_string(),
        };
        check_id("id", &id).map_err(|error| invalid(&error))?;
        let mut partition = NewPartition { feed, ..NewPartition::new(id) };
        if let Some(policy) = &self.failure_policy {
            let expected = "expected stop, continue, a number such as 10 or a share such as 5%";
            let wrong = |_| Problem::unprocessable(format!("failure_policy is {policy:?}, {expected}"));
            partition.failure_policy = policy.parse().map_err(wrong)?;
        }
        if self.max_in_flight == Some(0) {
            return Err(Problem::unprocessable("max_in_flight is 0, expected a number from 1"));
        }
        partition.priority = self.priority.unwrap_or(0);
        partition.manual_checkpoint = self.manual_checkpoint.unwrap_or(false);
        partition.auto_close = self.auto_close.unwrap_or(true);
        partition.max_in_flight = self.max_in_flight;
        partition.gate_deadline =
            self.gate_deadline_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        partition.keep_history = self.keep_history.unwrap_or(false);
        partition.gate_deadline_seconds()?;
        Ok(partition)
    }

    fn items(
        &self,
        partition: &str,
        key: Option<&str>,
        taken: &mut Taken,
        payload_max: usize,
    ) -> Result<Vec<NewItem>, Problem> {
        let Some(list) = self.items else { return Ok(Vec::new()) };
        let format = Format { partition: partition.to_owned(), gate: 0, is_envelope: true };
        let naming = Naming { partition, key };
        let mut pile = Pile::new(taken, payload_max);
        let mut full = None;
        let reader = ItemsReader { format: &format, naming: &naming, pile: &mut pile, full: &mut full };
        let read = serde_json::Deserializer::from_str(list.get()).deserialize_seq(reader);
        match (full, read) {
            (Some(problem), _) => Err(problem),
            (None, Err(error)) => Err(Problem::unprocessable(format!("items will not do: {error}"))),
            (None, Ok(())) => pile.end("item"),
        }
    }
}

/// Reads a list of envelopes.
struct ItemsReader<'r, 't> {
    format: &'r Format,
    naming: &'r Naming<'r>,
    pile: &'r mut Pile<'t>,
    /// Why there is no room for more.
    full: &'r mut Option<Problem>,
}

impl<'de> Visitor<'de> for ItemsReader<'_, '_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a list of items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(text) = list.next_element::<&RawValue>()? {
            if let Err(problem) = self.pile.make_room() {
                *self.full = Some(problem);
                return Err(A::Error::custom("there is no room for more"));
            }
            let text = text.get().trim();
            let item = self.format.item(text.into(), 0);
            let item = item.map(|item| self.naming.of_line(item, text.as_bytes(), true, self.pile.len()));
            self.pile.add(item, |detail| Wrong::index(index, detail));
            index += 1;
        }
        Ok(())
    }
}

/// What a request for a partition came to.
struct Read {
    partition: NewPartition,
    items: Vec<NewItem>,
    /// With a key.
    request: Option<Request>,
    /// The room that they take until they are written.
    taken: Taken,
}

/// Reads a partition with its items.
fn read(held: Held, key: Option<&str>, caller: &Caller, payload_max: usize) -> Result<Read, Problem> {
    let Held { bytes, mut taken } = held;
    // A list would be taken for the fields in their order.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::unprocessable("the body is no partition: expected a JSON object"));
    }
    let asked: NewPartitionBody<'_> = serde_json::from_slice(&bytes)
        .map_err(|error| Problem::unprocessable(format!("the body is no partition: {error}")))?;
    if let Some(feed) = &asked.feed {
        check_id("feed", feed).map_err(|error| Problem::unprocessable(error.to_string()))?;
    }
    let feed = caller.feed_for(asked.feed.as_deref())?;
    let partition = NewPartition { own_feed_only: caller.has_own_feed_only(), ..asked.partition(feed, key)? };
    let items = asked.items(&partition.id, key, &mut taken, payload_max)?;
    let request = key.map(|key| replay::of_partition(key, &partition.feed, &bytes));
    Ok(Read { partition, items, request, taken })
}

/// Make a partition
///
/// With its items, if it comes with some, in one transaction. One that exists is left as it is, and so are items whose
/// id exists. With an `Idempotency-Key` a repetition adds nothing and is answered as the first one
/// was, with `Idempotency-Replayed: true`.
#[utoipa::path(
    post,
    path = "/v1/partitions",
    tag = "partitions",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key is the same partition")),
    request_body(content = NewPartitionBody, content_type = "application/json"),
    responses(
        (status = 201, description = "Made", body = Added, content_type = "application/json",
            headers(("location" = String, description = "Where the partition is"))),
        (status = 200, description = "It was there already", body = Added, content_type = "application/json"),
        Problems,
        ChangeProblems,
    ),
)]
pub(crate) async fn create_partition(
    State(app): State<App>,
    May(caller, _): May<Pushes>,
    _: Params<Nothing>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    if !gatefeed_core::envelope::is_json(&content_type(&headers)?) {
        return Err(Problem::media_type("a partition is described in application/json"));
    }
    let held = body::read(&headers, body, app.options.bulk_max, &app.budget).await?;
    let key = key(&headers)?.map(str::to_owned);
    let payload_max = app.options.payload_max;
    let read = pile::aside(held.bytes.len(), async move { read(held, key.as_deref(), &caller, payload_max) });
    let Read { partition, items, request, taken: _taken } = read.await?;
    let (pushed, is_replayed) = push(&app, &partition, &items, request.as_ref()).await?;
    Ok(made(&partition.id, pushed, is_replayed))
}

fn made(partition: &str, pushed: Pushed, is_replayed: bool) -> Response {
    let status = if pushed.created { StatusCode::CREATED } else { StatusCode::OK };
    let mut headers = vec![(header::LOCATION, partition_url(partition))];
    if is_replayed {
        headers.push((REPLAYED, "true".to_owned()));
    }
    json(status, &headers, &Added::many(partition, pushed))
}

/// Which partitions.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct PartitionsParams {
    /// Only this feed.
    feed: Option<String>,
    /// Only this status: available, paused, complete, failed or cancelled.
    status: Option<String>,
    /// Only ids after this one: `next` of the previous page.
    after: Option<String>,
    /// At most this many, 50 without. As NDJSON: all of them without.
    #[param(minimum = 1, maximum = 9999)]
    limit: Option<usize>,
}

/// A page of partitions.
#[derive(Serialize, ToSchema)]
pub(crate) struct PartitionsPage {
    /// In order of id.
    partitions: Vec<PartitionRow>,
    /// What to pass as `after` for the next page; null: this was the last one.
    next: Option<String>,
}

/// List partitions
///
/// In order of id. With `Accept: application/x-ndjson` they come as a stream, one a line.
#[utoipa::path(
    get,
    path = "/v1/partitions",
    tag = "partitions",
    params(PartitionsParams),
    responses(
        (status = 200, description = "A page", content((PartitionsPage = "application/json"), (String = "application/x-ndjson"))),
        (status = 422, description = "A parameter will not do", body = Problem, content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(crate) async fn list_partitions(
    State(app): State<App>,
    May(caller, _): May<Looks>,
    Params(asked): Params<PartitionsParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let filter = PartitionFilter {
        feed: caller.check_feed(asked.feed.as_deref())?.map(str::to_owned),
        status: asked.status.as_deref().map(str::parse::<PartitionStatus>).transpose()?,
        id: None,
        after: asked.after,
        limit: 0,
    };
    if ndjson::is_wanted(&headers) {
        return ndjson::partitions(&app, filter, asked.limit).await;
    }
    let limit = limit(asked.limit)?;
    let mut partitions = app.store.partitions(&PartitionFilter { limit: limit + 1, ..filter }).await?;
    let next = cut(&mut partitions, limit).map(|row| row.id.clone());
    Ok(json(StatusCode::OK, &[], &PartitionsPage { partitions, next }))
}

/// How many rows a page has.
pub(crate) fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    let limit = asked.unwrap_or(PAGE);
    if (1..LIMIT_MAX).contains(&limit) {
        return Ok(limit);
    }
    Err(Problem::unprocessable(format!(
        "limit is {limit}, expected a whole number from 1 to {}",
        LIMIT_MAX - 1
    )))
}

/// Takes the row off that was read only to know whether there are more; the last one of the page, if there are.
pub(crate) fn cut<R>(rows: &mut Vec<R>, limit: usize) -> Option<&R> {
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    rows.last().filter(|_| has_more)
}

/// How long to wait.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitParams {
    /// Answer when it has ended, or after this time at the latest: `30s`, or seconds; at most two minutes.
    #[param(example = "500ms")]
    pub(crate) wait: Option<String>,
}

/// Look at a partition
///
/// With `wait`, or `Prefer: wait=30`, the answer comes when the partition is complete, failed or cancelled, or after that
/// time; its `status` says which.
#[utoipa::path(
    get,
    path = "/v1/partitions/{id}",
    tag = "partitions",
    params(("id" = String, Path, description = "The partition", min_length = 1, max_length = 512), WaitParams),
    responses(
        (status = 200, description = "The partition", body = PartitionRow, content_type = "application/json",
            headers(("etag" = String, description = "Its version"))),
        (status = 304, description = "It is as `If-None-Match` has it"),
        (status = 422, description = "The id will not do", body = Problem, content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(crate) async fn get_partition(
    State(app): State<App>,
    May(caller, _): May<Looks>,
    PartitionId(id): PartitionId,
    Params(asked): Params<WaitParams>,
    stopping: Stopping,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.check_partition(&app, &id).await?;
    if let Some(time) = query::wait(asked.wait.as_deref(), &headers)? {
        wait::partition(&app, &id, &Patience { headers: &headers, time, stopping: &stopping }).await?;
    }
    let row = app.store.partition(&id).await?;
    let row = row.ok_or_else(|| Problem::not_found(format!("partition {id:?} does not exist")))?;
    // It may be another one of this id by now.
    caller.check_row(&row)?;
    Ok(tagged(&headers, row.version, &row))
}
