//! A processor that hands items to HTTP handlers.

use std::{error::Error, future::Future, time::Duration};

use ::http::Request;
use bytes::Bytes;
use gatefeed_core::answer::{Failure, Verdict};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy;
use tokio::{sync::Semaphore, time::timeout};
use url::Url;

use super::{
    answer,
    connect::{self, HttpClient},
    gather, health, link, request,
    rotation::{AllPaused, Rotation, Turn},
    target::InvalidTarget,
};
use crate::processor::{Delivery, Processor};

/// Limits of a delivery.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// For the whole request, the reading of the answer included; more than zero.
    pub request_timeout: Duration,
    /// For a connection: name lookup, TCP and TLS; more than zero. It never exceeds nine tenths of
    /// `request_timeout`, so that a target that cannot be reached is told from one that does not answer.
    pub connect_timeout: Duration,
    /// The most bytes of an answer's body.
    pub max_answer: usize,
    /// What a health check asks for (`/healthz`), on each target's host; without it, it only connects.
    pub health_path: Option<String>,
    /// The most bytes of what an item gathers that are sent with it.
    pub gather_max: usize,
    /// Below this, `/v1/partitions/{id}/gathered/{gate}` serves what is more than that, and `/v1/blobs/…` data that a
    /// handler gets a link to; without it such a delivery is a failed attempt.
    pub gather_url: Option<Url>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            request_timeout: Duration::from_secs(60),
            connect_timeout: Duration::from_secs(5),
            max_answer: 1024 * 1024,
            health_path: None,
            gather_max: 8 * 1024 * 1024,
            gather_url: None,
        }
    }
}

/// Hands items to one or several handlers by HTTP, in turn. A target that cannot be reached is left alone for
/// a while, and such a delivery does not count as an attempt.
pub struct HttpProcessor {
    pub(super) client: HttpClient,
    pub(super) rotation: Rotation,
    pub(super) options: HttpOptions,
    gather_room: Semaphore,
}

impl HttpProcessor {
    /// Errs where a target is none ([`super::parse_target`]), where there is none at all, where a timeout is
    /// zero, where the health path leads elsewhere, and where `https` finds no root certificates. Within a
    /// Tokio runtime only.
    pub fn new(targets: Vec<Url>, options: HttpOptions) -> Result<Self, InvalidTarget> {
        if options.request_timeout.is_zero() || options.connect_timeout.is_zero() {
            return Err(InvalidTarget("a timeout of zero would end every request at once".into()));
        }
        let tls = targets.iter().any(|url| url.scheme() == "https");
        let rotation = Rotation::new(targets)?;
        health::check_path(&rotation, options.health_path.as_deref())?;
        let limit = options.connect_timeout.min(options.request_timeout / 10 * 9);
        let client = connect::client(limit, tls)
            .map_err(|error| InvalidTarget(format!("cannot prepare for https targets: {error}")))?;
        gather::check_url(options.gather_url.as_ref()).map_err(InvalidTarget)?;
        let gather_room = gather::room(&options);
        Ok(Self { client, rotation, options, gather_room })
    }

    async fn deliver(&self, delivery: Delivery) -> Verdict {
        let paused = |paused: AllPaused| Failure::delayed(paused.message, Some(paused.remaining));
        // Held until the answer has come.
        let room = delivery.gathering.is_some().then(|| self.gather_room.acquire());
        let _room = match room {
            Some(room) => Some(room.await),
            None => None,
        };
        let delivery = gather::prepare(delivery, &self.options).await?;
        let data_url = delivery.link.as_ref().map(|link| link::url(link, self.options.gather_url.as_ref()));
        let data_url = data_url.transpose()?;
        let turn = self.rotation.turn().map_err(paused)?;
        let request = request::build(turn.target(), delivery, data_url).map_err(Failure::final_)?;
        let limit = self.options.request_timeout;
        timeout(limit, self.exchange(&turn, request))
            .await
            .unwrap_or_else(|_| Err(Failure::new(format!("no answer within {limit:?} (--request-timeout)"))))
    }

    async fn exchange(&self, turn: &Turn<'_>, request: Request<Full<Bytes>>) -> Verdict {
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) if surely_not_sent(&error) => {
                let message = format!("cannot reach {}: {}", turn.target().shown, causes(&error));
                let delay = self.rotation.unreachable(turn, &message);
                return Err(Failure::delayed(message, Some(delay)));
            }
            Err(error) => {
                self.rotation.reached(turn);
                return Err(Failure::new(format!("{} ({})", cut_or_garbled(&error), causes(&error))));
            }
        };
        self.rotation.reached(turn);
        let (head, body) = response.into_parts();
        let body = read_body(body, self.options.max_answer).await;
        answer::read(&turn.target().url, &head, body)
    }
}

impl Processor for HttpProcessor {
    fn process(&self, delivery: Delivery) -> impl Future<Output = Verdict> + Send {
        self.deliver(delivery)
    }

    fn ready(&self) -> impl Future<Output = ()> + Send {
        self.rotation.ready()
    }
}

/// Whether no byte of the request can have been sent: there was no connection, or it closed before it took
/// the request (the client has then tried others, unless this one was new). A request that meets a kept
/// connection at the very moment of its closing may have been read, and counts.
fn surely_not_sent(error: &legacy::Error) -> bool {
    error.is_connect() || hyper_error(error).is_some_and(|error| error.is_canceled() || error.is_closed())
}

fn cut_or_garbled(error: &legacy::Error) -> &'static str {
    if hyper_error(error).is_some_and(hyper::Error::is_parse) {
        "the answer is not HTTP/1.1"
    } else {
        "connection closed before the answer"
    }
}

fn hyper_error(error: &legacy::Error) -> Option<&hyper::Error> {
    error.source()?.downcast_ref()
}

/// What lies under the client's own error, in its words.
pub(super) fn causes(error: &legacy::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Some causes repeat the cause under them.
        if texts.last().is_none_or(|last| !last.contains(&text)) {
            texts.push(text);
        }
        next = cause.source();
    }
    texts.join(": ")
}

/// The whole body, or why it cannot be had: copied out of the connection's read buffer, which a small answer
/// would else keep alive. What is read beyond the limit is dropped with its connection.
async fn read_body(mut body: Incoming, max: usize) -> Result<Bytes, String> {
    let too_large = || format!("answer larger than {max} bytes (--max-answer)");
    let expected = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if expected > max {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(expected);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let cause = error.source().map(|cause| format!(" ({cause})")).unwrap_or_default();
            format!("connection closed before the answer was complete{cause}")
        })?;
        if let Some(part) = frame.data_ref() {
            if bytes.len() + part.len() > max {
                return Err(too_large());
            }
            bytes.extend_from_slice(part);
        }
    }
    Ok(bytes.into())
}
