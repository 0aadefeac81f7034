//! A gatefeed handler that counts words.
//!
//! ```sh
//! cargo run -p gatefeed-example-handler -- 8080
//! gatefeed run --target http://127.0.0.1:8080/
//! ```
//!
//! At gate 0 an item is a text, whose words are counted: a file, a JSON string or `{"text": "…"}`. Or it is
//! `{"texts": ["…", "…"]}`: then each text becomes an item of its own, and the item goes to gate 1. There it comes back
//! once all of them are through, and gets their sum. `{"total": true}` at a later gate gets the sum of its whole
//! partition.

#![allow(clippy::print_stdout, reason = "it says where it listens")]

use std::{
    collections::HashMap,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::UNIX_EPOCH,
};

use axum::{
    Json, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    serve::ListenerExt,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use http_body_util::BodyExt;
use ring::hmac;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::Semaphore,
};

/// Bytes; times [`AT_ONCE`] it is the most memory that bodies take.
const BODY_MAX: usize = 1 << 20;
/// Requests in work; who comes beyond is told to come again.
const AT_ONCE: usize = 32;
const REMEMBERED_MAX: usize = 100_000;

/// Seconds that a signature is good for, so that nobody sends an old delivery again.
const SIGNED_FOR: u64 = 300;

struct Service {
    slots: Semaphore,
    /// Those that the watcher signs with; without one everybody is believed.
    secrets: Vec<hmac::Key>,
    memory: Mutex<Memory>,
}

/// Gone with the process. A real handler keeps it in its database, in the transaction that does the work.
#[derive(Default)]
struct Memory {
    /// By `Idempotency-Key`: the answer that was given.
    answers: HashMap<String, Value>,
    /// By partition and item: how many.
    words: HashMap<(String, String), usize>,
}

/// An item's data.
#[derive(Deserialize)]
#[serde(untagged)]
enum Data {
    Plain(String),
    Text { text: String },
    Texts { texts: Vec<String> },
    Sum { texts: usize },
    Total { total: bool },
}

/// The item's data: text as a string, else JSON. What is neither declared nor JSON is text too.
fn understand(body: &[u8], content_type: &str) -> Result<Value, &'static str> {
    let kind = content_type.split(';').next().unwrap_or_default().trim().to_lowercase();
    let text = str::from_utf8(body).map_err(|_| "the body is not text in UTF-8")?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    match serde_json::from_str(text) {
        _ if kind.starts_with("text/") => Ok(text.into()),
        Ok(data) => Ok(data),
        Err(_) if kind.ends_with("/json") || kind.ends_with("+json") => Err("the body is not JSON"),
        Err(_) => Ok(text.into()),
    }
}

/// What the item's headers say.
struct Item {
    key: String,
    partition: String,
    id: String,
    gate: u32,
    content_type: String,
}

impl Item {
    fn of(headers: &HeaderMap) -> Self {
        // Ids are UTF-8, which `to_str` would refuse.
        let text = |name| {
            headers.get(name).map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).unwrap_or_default()
        };
        Self {
            key: text("Idempotency-Key"),
            partition: text("Gatefeed-Partition"),
            id: text("Gatefeed-Item"),
            gate: text("Gatefeed-Gate").parse().unwrap_or(0),
            content_type: text("Content-Type"),
        }
    }
}

impl Memory {
    /// The answer's fields; those that were given before if this is a redelivery: the work is done, only the
    /// answer was lost. The error is one where trying again will not help: the item has to be mended.
    fn deliver(&mut self, item: Item, body: &[u8]) -> Result<Value, String> {
        if let Some(answer) = self.answers.get(&item.key) {
            return Ok(answer.clone());
        }
        // All at once: a map has no oldest.
        if self.words.len().max(self.answers.len()) >= REMEMBERED_MAX {
            *self = Self::default();
        }
        let answer = self.work(&item, body)?;
        if !item.key.is_empty() {
            self.answers.insert(item.key, answer.clone());
        }
        Ok(answer)
    }

    fn work(&mut self, item: &Item, body: &[u8]) -> Result<Value, String> {
        let data = understand(body, &item.content_type)?;
        match (item.gate, serde_json::from_value(data)) {
            (0, Ok(Data::Plain(text) | Data::Text { text })) => {
                let count = text.split_whitespace().count();
                self.words.insert((item.partition.clone(), item.id.clone()), count);
                Ok(json!({"data": {"words": count}}))
            }
            (0, Ok(Data::Texts { texts })) => {
                // Ids of our own, so that the sum finds them; without ids they would be added only once as well.
                let child = |(n, text)| json!({"id": format!("{}/{n}", item.id), "data": {"text": text}});
                let items: Vec<Value> = texts.iter().enumerate().map(child).collect();
                Ok(json!({"gate": 1, "data": {"texts": texts.len()}, "items": items}))
            }
            (1, Ok(Data::Sum { texts })) => {
                let known = |n| self.words.get(&(item.partition.clone(), format!("{}/{n}", item.id)));
                let words = (0..texts).map(known).sum::<Option<usize>>();
                let words = words
                    .ok_or("not all texts are known: they were counted before this handler was started")?;
                Ok(json!({"data": {"texts": texts, "words": words}}))
            }
            (1.., Ok(Data::Total { total: true })) => {
                // The gate has waited for all of them. A real handler sums in its database: this memory may have begun
                // later.
                let here = self.words.iter().filter(|((partition, _), _)| *partition == item.partition);
                Ok(json!({"data": {"total": here.map(|(_, words)| words).sum::<usize>()}}))
            }
            _ => Err(r#"expected a text or {"texts": ["…"]} at gate 0, or {"total": true} after it"#.into()),
        }
    }
}

impl Service {
    /// Whether a delivery is from somebody who has one of the secrets (Standard Webhooks).
    fn is_genuine(&self, headers: &HeaderMap, body: &[u8]) -> bool {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (id, timestamp) = (text("webhook-id"), text("webhook-timestamp"));
        let now = UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_secs());
        let is_fresh = timestamp.parse().is_ok_and(|sent: u64| now.abs_diff(sent) <= SIGNED_FOR);
        let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
        let given = || {
            let codes = text("webhook-signature").split(' ').filter_map(|given| given.strip_prefix("v1,"));
            codes.filter_map(|code| BASE64_STANDARD.decode(code).ok())
        };
        let is_ours = |key: &hmac::Key| given().any(|code| hmac::verify(key, &signed, &code).is_ok());
        self.secrets.is_empty() || (is_fresh && self.secrets.iter().any(is_ours))
    }
}

/// The secrets, as the watcher has them.
fn secrets() -> Result<Vec<hmac::Key>, Box<dyn Error>> {
    let text = std::env::var("GATEFEED_SIGNING_SECRET").unwrap_or_default();
    let secrets = text.split([' ', ',', '\n']).filter(|secret| !secret.is_empty());
    let key = |secret: &str| {
        let bytes = BASE64_STANDARD.decode(secret.trim_start_matches("whsec_"))?;
        Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
    };
    secrets.map(key).collect()
}

async fn receive(State(service): State<Arc<Service>>, headers: HeaderMap, body: Body) -> Response {
    let Ok(_slot) = service.slots.try_acquire() else {
        read(body, 0).await;
        let busy = Json(json!({"error": {"message": "busy"}}));
        // Costs the item no retry.
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], busy).into_response();
    };
    let Some(body) = read(body, BODY_MAX).await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, &format!("more than {BODY_MAX} bytes"));
    };
    if !service.is_genuine(&headers, &body) {
        let wrong = json!({"error": {"message": "the signature is missing, wrong or old"}});
        return (StatusCode::UNAUTHORIZED, Json(wrong)).into_response();
    }
    // Held for moments. Longer work belongs into tokio::task::spawn_blocking.
    let mut memory = service.memory.lock().unwrap_or_else(PoisonError::into_inner);
    match memory.deliver(Item::of(&headers), &body) {
        Ok(answer) => Json(answer).into_response(),
        Err(message) => refusal(StatusCode::BAD_REQUEST, &message),
    }
}

fn refusal(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({"error": {"message": message, "no_retry": true}}))).into_response()
}

/// The body; `None` if it is longer. That is read and dropped: a connection that is closed with bytes unread is
/// reset, and the answer can be lost.
async fn read(mut body: Body, most: usize) -> Option<Vec<u8>> {
    let (mut size, mut bytes) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(part) = frame.ok()?.into_data() else { continue };
        size += part.len();
        if size <= most {
            bytes.extend_from_slice(&part);
        }
    }
    (size <= most).then_some(bytes)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).or_else(|| std::env::var("PORT").ok());
    let port: u16 = port.as_deref().unwrap_or("8080").parse()?;
    let terminate = signal(SignalKind::terminate())?;
    let host = std::env::var("HOST").unwrap_or_else(|_| "127.0.0.1".to_owned());
    let listener = TcpListener::bind((host, port)).await?;
    println!("listening on http://{}/", listener.local_addr()?);
    // Small answers do not wait for more to fill a packet.
    let listener = listener.tap_io(|stream| _ = stream.set_nodelay(true));
    let service = Service { slots: Semaphore::new(AT_ONCE), secrets: secrets()?, memory: Mutex::default() };
    let router = Router::new().fallback(receive).with_state(Arc::new(service));
    // Ends what is in work first.
    axum::serve(listener, router).with_graceful_shutdown(stopped(terminate)).await?;
    Ok(())
}

async fn stopped(mut terminate: Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
