//! Listings as streams: one row a line, a page at a time, so that neither side holds more.

use axum::{
    body::Body,
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use gatefeed_core::{
    Result,
    inspect::{ItemFilter, JsonItem, PartitionFilter},
};
use serde::Serialize;

use crate::{app::App, items, outgoing, partitions::cut, problem::Problem};

const NDJSON: &str = "application/x-ndjson";

/// Rows that are read at a time.
const PAGE: usize = 500;

/// Whether the client wants lines.
pub(crate) fn is_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accepted.is_some_and(|accepted| accepted.contains(NDJSON))
}

/// All partitions that fit, at most `limit`. The first page is read before the answer begins, so that what is wrong is said
/// with a status.
pub(crate) async fn partitions(
    app: &App,
    filter: PartitionFilter,
    limit: Option<usize>,
) -> Result<Response, Problem> {
    let (first, next) = some_partitions(app, filter, most(limit)?).await?;
    let app = app.clone();
    let rest = stream::try_unfold(next, move |at| {
        let app = app.clone();
        async move {
            let Some((filter, left)) = at else { return Ok(None) };
            Ok(Some(some_partitions(&app, filter, left).await?))
        }
    });
    Ok(respond(stream::iter([Ok(first)]).chain(rest)))
}

/// A page of lines, and what is left.
async fn some_partitions(
    app: &App,
    filter: PartitionFilter,
    left: usize,
) -> Result<(Bytes, Option<(PartitionFilter, usize)>)> {
    let wanted = left.min(PAGE);
    let mut rows = app.store.partitions(&PartitionFilter { limit: wanted + 1, ..filter.clone() }).await?;
    let next = cut(&mut rows, wanted).map(|row| row.id.clone());
    let left = left - rows.len();
    let next =
        next.filter(|_| left > 0).map(|after| (PartitionFilter { after: Some(after), ..filter }, left));
    Ok((lines(rows.iter()), next))
}

/// How many rows there are at the most.
fn most(limit: Option<usize>) -> Result<usize, Problem> {
    match limit {
        Some(0) => Err(Problem::unprocessable("limit is 0, expected a whole number from 1 on")),
        limit => Ok(limit.unwrap_or(usize::MAX)),
    }
}

/// All items that fit, at most `limit`. The first page is read before the answer begins, so that what is wrong is said with
/// a status.
pub(crate) async fn items(
    app: &App,
    filter: ItemFilter,
    limit: Option<usize>,
    with_data: bool,
) -> Result<Response, Problem> {
    // A page at a time waits for whoever reads.
    let room = with_data.then(|| outgoing::room(app, items::DATA_MAX as usize)).transpose()?;
    let (first, next) = some(app, filter, most(limit)?, with_data).await?;
    let app = app.clone();
    let rest = stream::try_unfold((next, room), move |(at, room)| {
        let app = app.clone();
        async move {
            let Some((filter, left)) = at else { return Ok(None) };
            let (lines, next) = some(&app, filter, left, with_data).await?;
            Ok(Some((lines, (next, room))))
        }
    });
    Ok(respond(stream::iter([Ok(first)]).chain(rest)))
}

/// A page of lines, and what is left.
async fn some(
    app: &App,
    filter: ItemFilter,
    left: usize,
    with_data: bool,
) -> Result<(Bytes, Option<(ItemFilter, usize)>)> {
    let (rows, next) = items::page(app, &filter, left.min(PAGE), with_data).await?;
    let left = left - rows.len();
    let next = next.filter(|_| left > 0).map(|after| (ItemFilter { after: Some(after), ..filter }, left));
    Ok((lines(rows.iter().map(JsonItem::new)), next))
}

fn lines<T: Serialize>(rows: impl Iterator<Item = T>) -> Bytes {
    let mut text = Vec::new();
    for row in rows {
        if serde_json::to_writer(&mut text, &row).is_ok() {
            text.push(b'\n');
        }
    }
    text.into()
}

/// A body without its end means that the database went away meanwhile.
fn respond(lines: impl futures_util::Stream<Item = Result<Bytes>> + Send + 'static) -> Response {
    let lines = lines.inspect_err(|error| tracing::warn!(%error, "a listing could not be read to its end"));
    ([(header::CONTENT_TYPE, NDJSON)], Body::from_stream(lines)).into_response()
}
