//! One request and its answer: the service at the bottom of a route's stack, one for each target.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ::http::{HeaderMap, Request, StatusCode, response::Parts};
use bytes::Bytes;
use gatefeed_core::answer::{Answer, Failure, Verdict};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy;
use tower::Service;
use url::Url;

use super::{
    access::Access,
    answer,
    batch::{self, Together},
    callback::Callbacks,
    connect::HttpClient,
    http::{HttpOptions, Shared},
    link,
    missed::Missed,
    request::{self, Places},
    sign::Signer,
    target::Target,
    unpack::unpack,
};
use crate::processor::Delivery;

/// Sends deliveries to one target. A clone is the same target and the same connections.
#[derive(Clone)]
pub(super) struct Exchange(Arc<Line>);

/// A target and what leads to it.
struct Line {
    target: Arc<Target>,
    client: HttpClient,
    /// The most bytes of an answer's body.
    max_answer: usize,
    access: Access,
    signer: Option<Signer>,
    callbacks: Callbacks,
    /// How handlers reach gatefeed.
    public_url: Option<Url>,
    /// The only statuses that are a success; empty: all that are one.
    accept: Vec<u16>,
}

/// The only box of a delivery.
type Exchanging<T> = Pin<Box<dyn Future<Output = Result<T, Missed>> + Send>>;

impl Exchange {
    pub(super) fn new(
        target: Arc<Target>,
        client: HttpClient,
        options: &HttpOptions,
        shared: &Shared,
    ) -> Self {
        let callbacks = Callbacks::new(Arc::clone(&shared.callback_key), options);
        let HttpOptions { access, signer, spread, .. } = options;
        let (access, signer) = (access.clone(), signer.clone());
        let accept = spread.hedge.as_ref().map(|hedge| hedge.accept.clone()).unwrap_or_default();
        let (max_answer, public_url) = (options.max_answer, options.public_url.clone());
        Self(Arc::new(Line { target, client, max_answer, access, signer, callbacks, public_url, accept }))
    }
}

impl Service<Delivery> for Exchange {
    type Response = Answer;
    type Error = Missed;
    type Future = Exchanging<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Missed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, delivery: Delivery) -> Self::Future {
        let line = Arc::clone(&self.0);
        Box::pin(async move {
            let body = delivery.data.clone();
            let data = delivery.link.as_ref().map(|link| link::url(link, line.public_url.as_ref()));
            let places = Places { callback: line.callbacks.url(&delivery), data: data.transpose()? };
            let mut request = request::build(&line.target, delivery, &places).map_err(Failure::final_)?;
            line.dress(request.headers_mut(), &body);
            let (head, body) = line.exchange(request).await?;
            line.check_status(head.status)?;
            let within = places.callback.map(|_| line.callbacks.timeout());
            answer::read(&line.target.url, &head, body, within)
                .map_err(|failure| Missed::answered(head.status, failure))
        })
    }
}

impl Service<Together> for Exchange {
    type Response = Vec<Verdict>;
    type Error = Missed;
    type Future = Exchanging<Vec<Verdict>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Missed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, together: Together) -> Self::Future {
        let line = Arc::clone(&self.0);
        Box::pin(async move {
            let (mut request, body) = batch::build(&line.target, &together).map_err(Failure::final_)?;
            line.dress(request.headers_mut(), &body);
            // The data is in the body; only the names are needed on.
            let items: Vec<Arc<str>> = together.0.into_iter().map(|delivery| delivery.item).collect();
            let (head, body) = line.exchange(request).await?;
            line.check_status(head.status)?;
            batch::read(&line.target.url, &head, body, &items)
                .map_err(|failure| Missed::answered(head.status, failure))
        })
    }
}

impl Line {
    /// What the target wants to see, and the signature.
    fn dress(&self, headers: &mut HeaderMap, body: &[u8]) {
        self.access.add_to(headers);
        let Some(signer) = &self.signer else { return };
        if let Some(id) = headers.get(request::IDEMPOTENCY_KEY).cloned() {
            signer.sign(headers, id, body);
        }
    }

    /// Refuses a success that is none here.
    fn check_status(&self, status: StatusCode) -> Result<(), Missed> {
        match self.accept.is_empty() || !status.is_success() || self.accept.contains(&status.as_u16()) {
            true => Ok(()),
            false => Err(Failure::new(format!("HTTP {status} is not acceptable here (hedge_accept)")).into()),
        }
    }

    /// The answer's head, and its body or why that cannot be had.
    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Parts, Result<Bytes, String>), Missed> {
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) if surely_not_sent(&error) => {
                let message = format!("cannot reach {}: {}", self.target.shown, causes(&error));
                return Err(Missed::Unreachable(message));
            }
            Err(error) => {
                let message = format!("{} ({})", cut_or_garbled(&error), causes(&error));
                return Err(Missed::Broken(Failure::new(message)));
            }
        };
        let (head, body) = response.into_parts();
        let body = match read_body(body, self.max_answer).await {
            Ok(body) => unpack(&head.headers, body, self.max_answer).await,
            Err(why) => Err(why),
        };
        Ok((head, body))
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
