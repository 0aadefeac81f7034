//! Many items in one request: lines of JSON, or the parts of a form. All of them are added, in one transaction, or none.

use std::collections::HashSet;

use axum::{
    body::Body,
    extract::{DefaultBodyLimit, FromRequest, Multipart, Request as HttpRequest, multipart::MultipartError},
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use gatefeed_core::{
    envelope::Format,
    id::{check_content_type, check_id, posted_item_id},
    item::{Data, NewItem},
    partition::NewPartition,
    request::{Answered, Request},
    store::Pushed,
};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    app::App,
    body::{self, Held},
    budget::Taken,
    etag::json,
    path::partition_url,
    pile::{self, Pile},
    post::{PostParams, check_backlog, check_json},
    problem::{Problem, Wrong},
    replay::{self, REPLAYED, conflict, key},
};

/// How many items come in one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// A line each.
    Lines,
    /// A part each.
    Parts,
}

/// The kind of a content type; `None`: it is one item.
pub(crate) fn kind(content_type: &str) -> Option<Kind> {
    match content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
        "application/x-ndjson" | "application/jsonl" => Some(Kind::Lines),
        "multipart/form-data" => Some(Kind::Parts),
        _ => None,
    }
}

/// Each part is an item: a file with its name as the id, or a field with the field's name.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described")]
pub(crate) struct Parts {
    /// The data of an item.
    #[schema(format = Binary, content_media_type = "application/octet-stream")]
    file: String,
}

/// What was added. A single item has `partition_id` and `id`, many have the other fields.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Added {
    /// The partition of a single item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partition_id: Option<String>,
    /// The id of a single item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// The partition of many items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partition: Option<String>,
    /// Whether it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created: Option<bool>,
    /// Items that were added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) added: Option<u64>,
    /// Items whose id was there already, and which were left as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) existing: Option<u64>,
}

impl Added {
    /// What a push came to.
    pub(crate) fn many(partition: &str, pushed: Pushed) -> Self {
        Self {
            partition_id: None,
            id: None,
            partition: Some(partition.to_owned()),
            created: Some(pushed.created),
            added: Some(pushed.added),
            existing: Some(pushed.existing),
        }
    }
}

pub(crate) async fn post(
    app: &App,
    kind: Kind,
    content_type: &str,
    new: NewPartition,
    asked: PostParams,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    check_params(&asked)?;
    let key = key(headers)?;
    let held = body::read(headers, body, app.options.bulk_max, &app.budget).await?;
    let reading = Reading {
        partition: new.id.clone(),
        key: key.map(str::to_owned),
        asked,
        payload_max: app.options.payload_max,
    };
    let content_type = content_type.to_owned();
    let read = pile::aside(held.bytes.len(), async move {
        match kind {
            Kind::Lines => reading.lines(held),
            Kind::Parts => reading.parts(&content_type, held).await,
        }
    });
    let Read { items, request, taken: _taken } = read.await?;
    let (pushed, is_replayed) = push(app, &new, &items, request.as_ref()).await?;
    let mut headers = vec![(header::LOCATION, format!("{}/items", partition_url(&new.id)))];
    if is_replayed {
        headers.push((REPLAYED, "true".to_owned()));
    }
    Ok(json(StatusCode::ACCEPTED, &headers, &Added::many(&new.id, pushed)))
}

/// Adds items and their partition; what that came to, and whether it had done so before.
pub(crate) async fn push(
    app: &App,
    partition: &NewPartition,
    items: &[NewItem],
    request: Option<&Request>,
) -> Result<(Pushed, bool), Problem> {
    let counting =
        check_backlog(app, &partition.id, &partition.feed, partition.own_feed_only, items.len()).await;
    let counting = match counting {
        // One that came before adds nothing.
        Err(problem) if problem.is_too_much() => return answered(app, partition, request, problem).await,
        counting => counting?,
    };
    let Some(request) = request else {
        let pushed = app.store.push(partition, items).await?;
        counting.added(pushed.added);
        return Ok((pushed, false));
    };
    match app.store.push_request(partition, items, request).await? {
        Answered::Now(pushed) => {
            counting.added(pushed.added);
            Ok((pushed, false))
        }
        Answered::Before(pushed) => Ok((pushed, true)),
        Answered::Conflict => Err(conflict()),
    }
}

/// What a request came to before; the problem if it did not come.
async fn answered(
    app: &App,
    partition: &NewPartition,
    request: Option<&Request>,
    problem: Problem,
) -> Result<(Pushed, bool), Problem> {
    let Some(request) = request else { return Err(problem) };
    match app.store.answered(partition, request).await? {
        Some(Answered::Now(pushed) | Answered::Before(pushed)) => Ok((pushed, true)),
        Some(Answered::Conflict) => Err(conflict()),
        None => Err(problem),
    }
}

/// How items that come without an id are named.
pub(crate) struct Naming<'a> {
    pub(crate) partition: &'a str,
    /// With a key the names are derived from it, so that a repetition adds none twice although its request has been
    /// forgotten.
    pub(crate) key: Option<&'a str>,
}

impl Naming<'_> {
    /// The name for an item at this place; `None`: a fresh one will do.
    pub(crate) fn derived(&self, index: usize) -> Option<String> {
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        self.key.map(|key| posted_item_id(self.partition, key, index))
    }

    /// An item as a line has it, under its name.
    pub(crate) fn of_line(&self, item: NewItem, line: &[u8], is_envelope: bool, index: usize) -> NewItem {
        match self.derived(index) {
            Some(id) if !(is_envelope && is_named(line)) => NewItem { id, ..item },
            _ => item,
        }
    }
}

/// Whether an envelope has an id.
fn is_named(envelope: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Named {
        id: Option<IgnoredAny>,
    }
    serde_json::from_slice::<Named>(envelope).is_ok_and(|named| named.id.is_some())
}

fn check_params(asked: &PostParams) -> Result<(), Problem> {
    if asked.id.is_some() || asked.priority.is_some() || asked.available_at.is_some() {
        return Err(Problem::bad_request(
            "id, priority and available_at are of one item: with many, name them in envelopes (envelope=true)",
        ));
    }
    if asked.gate.is_some_and(|gate| gate < 0) {
        return Err(Problem::unprocessable("gate is below 0"));
    }
    Ok(())
}

/// How a body with many items is read.
struct Reading {
    partition: String,
    key: Option<String>,
    asked: PostParams,
    payload_max: usize,
}

/// What a body with many items came to.
struct Read {
    items: Vec<NewItem>,
    /// With a key.
    request: Option<Request>,
    /// The room that they take until they are written.
    taken: Taken,
}

impl Reading {
    fn naming(&self) -> Naming<'_> {
        Naming { partition: &self.partition, key: self.key.as_deref() }
    }

    fn gate(&self) -> i32 {
        self.asked.gate.unwrap_or(0)
    }

    /// The items of lines; what is wrong with the others.
    fn lines(self, held: Held) -> Result<Read, Problem> {
        let Held { bytes, mut taken } = held;
        let is_envelope = self.asked.envelope.unwrap_or(false);
        let format = Format { partition: self.partition.clone(), gate: self.gate(), is_envelope };
        let naming = self.naming();
        let mut pile = Pile::new(&mut taken, self.payload_max);
        for (line, text) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            let trimmed = text.trim_ascii();
            if trimmed.is_empty() {
                continue;
            }
            pile.make_room()?;
            let indent = (text.len() - text.trim_ascii_start().len()) as u64;
            let item = format.item(trimmed.to_vec(), indent);
            let item = item.map(|item| naming.of_line(item, trimmed, is_envelope, pile.len()));
            pile.add(item, |detail| Wrong::line(line, detail));
        }
        let items = pile.end("line")?;
        let request = self.key.as_deref().map(|key| replay::of_lines(key, &self.asked, &bytes));
        Ok(Read { items, request, taken })
    }

    /// The items of a form's parts; what is wrong with the others.
    async fn parts(self, content_type: &str, held: Held) -> Result<Read, Problem> {
        let Held { bytes, mut taken } = held;
        let (gate, naming) = (self.gate(), self.naming());
        let mut form = form(content_type, bytes).await?;
        let mut ids = HashSet::new();
        let mut pile = Pile::new(&mut taken, self.payload_max);
        for place in 1.. {
            let part = form.next_field().await.map_err(|error| unreadable(place, &error))?;
            let Some(part) = part else { break };
            pile.make_room()?;
            let name = part.file_name().or(part.name()).filter(|name| !name.is_empty()).map(str::to_owned);
            let default = if part.file_name().is_some() { "application/octet-stream" } else { "text/plain" };
            let content_type = part.content_type().unwrap_or(default).to_owned();
            let bytes = part.bytes().await.map_err(|error| unreadable(place, &error))?;
            let id = name.clone().or_else(|| naming.derived(pile.len()));
            let id = id.unwrap_or_else(|| Uuid::now_v7().to_string());
            let data = Data { bytes, content_type };
            let item = check_part(&id, &data, !ids.insert(id.clone()))
                .map(|()| NewItem { gate, ..NewItem::new(&self.partition, id, data) });
            pile.add(item, |detail| Wrong::part(place, name, detail));
        }
        let items = pile.end("part")?;
        let request = self.key.as_deref().map(|key| replay::of_parts(key, &self.asked, &items));
        Ok(Read { items, request, taken })
    }
}

async fn form(content_type: &str, body: Bytes) -> Result<Multipart, Problem> {
    let request = HttpRequest::builder().header(header::CONTENT_TYPE, content_type).body(Body::from(body));
    let mut request = request.map_err(|error| Problem::bad_request(error.to_string()))?;
    // It is bounded already, as a whole.
    DefaultBodyLimit::disable().apply(&mut request);
    let form = Multipart::from_request(request, &()).await;
    form.map_err(|error| Problem::bad_request(error.body_text()))
}

fn unreadable(part: u64, error: &MultipartError) -> Problem {
    Problem::bad_request(format!("part {part} of the form cannot be read: {}", error.body_text()))
}

fn check_part(id: &str, data: &Data, is_double: bool) -> Result<(), String> {
    check_id("its name", id).map_err(|error| error.to_string())?;
    check_content_type(&data.content_type).map_err(|error| error.to_string())?;
    check_json(&data.content_type, &data.bytes)?;
    if is_double {
        return Err(format!("an earlier part is named {id:?} too, and each is an item of its own"));
    }
    Ok(())
}
