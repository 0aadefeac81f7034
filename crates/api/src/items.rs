//! Items: listed, looked at, waited for, and their data.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use gatefeed_core::{
    StoreError,
    envelope::GATE,
    inspect::{DataPart, ItemFilter, ItemRow, JsonItem},
    item::ItemStatus,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    access::{Looks, May},
    app::App,
    etag::{tag, tagged, unchanged},
    ndjson, outgoing,
    partitions::{WaitParams, cut, limit},
    path::{ItemId, PartitionId},
    problem::{Problem, Problems},
    query::{self, Nothing, Params},
    stopping::Stopping,
    wait::{self, Patience},
};

/// Data of one page of items, unless a single one has more.
pub(crate) const DATA_MAX: u64 = 16 << 20;

/// Which items.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ItemsParams {
    /// Only this status: available, waiting, blocked, complete, failed or cancelled.
    status: Option<String>,
    /// Only this gate.
    #[param(minimum = 0, maximum = 2147483647)]
    gate: Option<i32>,
    /// Only ids after this one: `next` of the previous page.
    after: Option<String>,
    /// At most this many, 50 without. As NDJSON: all of them without. With data a page may end sooner.
    #[param(minimum = 1, maximum = 9999)]
    limit: Option<usize>,
    /// With their data: as `data`, or as `data_base64` where it is not UTF-8; `data_error` says why there is neither.
    data: Option<bool>,
}

/// A page of items.
#[derive(Serialize, ToSchema)]
pub(crate) struct ItemsPage<'a> {
    /// In order of id.
    items: Vec<JsonItem<'a>>,
    /// What to pass as `after` for the next page; null: this was the last one.
    next: Option<String>,
}

/// List the items of a partition
///
/// In order of id. With `Accept: application/x-ndjson` they come as a stream, one a line.
#[utoipa::path(
    get,
    path = "/v1/partitions/{id}/items",
    tag = "items",
    params(("id" = String, Path, description = "The partition", min_length = 1, max_length = 512), ItemsParams),
    responses(
        (status = 200, description = "A page", content((ItemsPage = "application/json"), (String = "application/x-ndjson"))),
        (status = 422, description = "A parameter will not do", body = Problem, content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(crate) async fn list_items(
    State(app): State<App>,
    May(caller, _): May<Looks>,
    PartitionId(partition): PartitionId,
    Params(asked): Params<ItemsParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.check_partition(&app, &partition).await?;
    if asked.gate.is_some_and(|gate| gate < 0) {
        return Err(Problem::bad_request(format!("there is no such gate: expected {GATE}")));
    }
    let filter = ItemFilter {
        partition,
        status: asked.status.as_deref().map(str::parse::<ItemStatus>).transpose()?,
        gate: asked.gate,
        id: None,
        after: asked.after,
        limit: 0,
        data: DataPart::None,
    };
    let with_data = asked.data.unwrap_or(false);
    if ndjson::is_wanted(&headers) {
        return ndjson::items(&app, filter, asked.limit, with_data).await;
    }
    let (rows, next) = page(&app, &filter, limit(asked.limit)?, with_data).await?;
    let items = rows.iter().map(JsonItem::new).collect();
    match serde_json::to_vec(&ItemsPage { items, next }) {
        Ok(page) => {
            Ok(([(header::CONTENT_TYPE, "application/json")], outgoing::answer(&app, page)?).into_response())
        }
        Err(error) => Err(StoreError::Defect(format!("a page cannot be written: {error}")).into()),
    }
}

/// A page, and where the next one begins. Sizes are looked at before data is read, so that no page is larger than a
/// server can hold.
pub(crate) async fn page(
    app: &App,
    filter: &ItemFilter,
    limit: usize,
    with_data: bool,
) -> gatefeed_core::Result<(Vec<ItemRow>, Option<String>)> {
    let mut rows = app.store.items(&ItemFilter { limit: limit + 1, ..filter.clone() }).await?;
    if !with_data {
        let next = cut(&mut rows, limit).map(|row| row.id.clone());
        return Ok((rows, next));
    }
    let fitting = fitting(rows.iter().map(|row| row.size)).min(limit);
    let has_more = rows.len() > fitting;
    if fitting == 0 {
        return Ok((rows, None));
    }
    let wanted = ItemFilter { limit: fitting, data: DataPart::All, ..filter.clone() };
    let rows = app.store.items(&wanted).await?;
    let next = rows.last().filter(|_| has_more).map(|row| row.id.clone());
    Ok((rows, next))
}

/// How many items of these sizes make a page: one at least, if there is one.
fn fitting(sizes: impl Iterator<Item = i64>) -> usize {
    let sums = sizes.scan(0_u64, |sum, size| {
        *sum = sum.saturating_add(size.unsigned_abs());
        Some(*sum)
    });
    sums.enumerate().take_while(|(index, sum)| *index == 0 || *sum <= DATA_MAX).count()
}

/// Look at an item
///
/// With `wait`, or `Prefer: wait=30`, the answer comes when the item is complete, failed or cancelled, or after that time;
/// its `status` says which.
#[utoipa::path(
    get,
    path = "/v1/partitions/{id}/items/{item}",
    tag = "items",
    params(
        ("id" = String, Path, description = "The partition", min_length = 1, max_length = 512),
        ("item" = String, Path, description = "The item", min_length = 1, max_length = 512),
        WaitParams,
    ),
    responses(
        (status = 200, description = "The item", body = ItemRow, content_type = "application/json",
            headers(("etag" = String, description = "Its version"))),
        (status = 304, description = "It is as `If-None-Match` has it"),
        (status = 422, description = "An id will not do", body = Problem, content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(crate) async fn get_item(
    State(app): State<App>,
    May(caller, _): May<Looks>,
    ItemId { partition, item }: ItemId,
    Params(asked): Params<WaitParams>,
    stopping: Stopping,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.check_partition(&app, &partition).await?;
    let row = match query::wait(asked.wait.as_deref(), &headers)? {
        Some(time) => {
            let patience = Patience { headers: &headers, time, stopping: &stopping };
            let row = wait::item(&app, &partition, &item, &patience).await?;
            // It may be another partition of this id by now.
            caller.check_partition(&app, &partition).await?;
            row
        }
        None => find(&app, &partition, &item, DataPart::None).await?,
    };
    Ok(tagged(&headers, row.version, &row))
}

/// One item.
pub(crate) async fn find(app: &App, partition: &str, item: &str, data: DataPart) -> Result<ItemRow, Problem> {
    let filter = ItemFilter {
        partition: partition.to_owned(),
        id: Some(item.to_owned()),
        limit: 1,
        data,
        ..ItemFilter::default()
    };
    let row = app.store.items(&filter).await?.pop();
    row.ok_or_else(|| Problem::not_found(format!("partition {partition:?} has no item {item:?}")))
}

/// The item is there and its data is not.
fn unreadable(app: &App, why: String) -> Problem {
    match app.store.blobs() {
        Some(_) => Problem::data_gone(why),
        None => Problem::no_blob_store(why),
    }
}

/// Get an item's data
///
/// As it is stored now, with its content type: what was posted, or what its handler has answered.
#[utoipa::path(
    get,
    path = "/v1/partitions/{id}/items/{item}/data",
    tag = "items",
    params(
        ("id" = String, Path, description = "The partition", min_length = 1, max_length = 512),
        ("item" = String, Path, description = "The item", min_length = 1, max_length = 512),
    ),
    responses(
        (status = 200, description = "The data, with the item's content type", body = serde_json::Value, content_type = "*/*",
            headers(("etag" = String, description = "The item's version"))),
        (status = 304, description = "It is as `If-None-Match` has it"),
        (status = 410, description = "It is not in the blob store any more", body = Problem,
            content_type = "application/problem+json"),
        (status = 422, description = "An id will not do", body = Problem, content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(crate) async fn get_data(
    State(app): State<App>,
    May(caller, _): May<Looks>,
    ItemId { partition, item }: ItemId,
    _: Params<Nothing>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    caller.check_partition(&app, &partition).await?;
    if headers.contains_key(header::IF_NONE_MATCH) {
        let row = find(&app, &partition, &item, DataPart::None).await?;
        if let Some(response) = unchanged(&headers, row.version) {
            return Ok(response);
        }
    }
    let row = find(&app, &partition, &item, DataPart::All).await?;
    if let Some(why) = row.data_error {
        return Err(unreadable(&app, why));
    }
    let content_type = HeaderValue::from_str(&row.content_type);
    let content_type = content_type.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    // What somebody pushed is nothing that a browser should run in the API's name.
    let guards = [
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'")),
    ];
    let tag = [(header::ETAG, tag(row.version))];
    let headers = [(header::CONTENT_TYPE, content_type)];
    Ok((headers, guards, tag, outgoing::answer(&app, row.data.unwrap_or_default())?).into_response())
}
