//! The body of an item that gathers: its data and what came before it, or where to fetch that.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use gatefeed_core::{
    StoreError,
    answer::Failure,
    callback::Key,
    gather::{Gather, data_fields},
    id::JSON,
    item::Data,
};
use pin_project_lite::pin_project;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use tower::{Layer, Service, util::Oneshot};
use url::Url;

use super::{batch::Together, http::HttpOptions};
use crate::{context::jittered, processor::Delivery};

/// Bytes of gathered bodies that are in memory at a time, about.
const MEMORY_MAX: usize = 256 << 20;

/// How long an item rests, about, that waits for the database, the blob store, or a setting.
const REST: Duration = Duration::from_secs(1);

/// Why a delivery that gathers may have to wait.
const CROWDED: &str =
    "others have taken the memory for what items gather, or the database was slow to read it";

/// Memory for gathered bodies, which all routes share: as many bodies as fit, at least one.
pub(super) fn room(gather_max: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new((MEMORY_MAX / gather_max.max(1)).clamp(1, Semaphore::MAX_PERMITS)))
}

/// Gives deliveries that gather their bodies.
#[derive(Clone)]
pub(super) struct GatherLayer(Arc<Kitchen>);

pub(super) struct Kitchen {
    options: HttpOptions,
    room: Arc<Semaphore>,
    /// Signs where the rest is fetched, once it is known.
    key: Arc<OnceLock<Key>>,
}

impl Kitchen {
    /// What is sent, and its share of the memory. Nobody has been asked for anything yet: a delivery that has to wait for
    /// others for too long gives its slot to somebody else, and does not count.
    async fn cook<R: Gathers>(&self, request: R) -> Result<(R, Option<SemaphorePermit<'_>>), Failure> {
        let limit = self.options.request_timeout;
        let cooked = async {
            let room = self.room.acquire().await.ok();
            Ok((request.prepare(self).await?, room))
        };
        timeout(limit, cooked).await.unwrap_or_else(|_| {
            let message = format!("could not be sent within {limit:?}: {CROWDED}");
            Err(Failure::delayed(message, None))
        })
    }
}

impl GatherLayer {
    pub(super) fn new(options: HttpOptions, room: Arc<Semaphore>, key: Arc<OnceLock<Key>>) -> Self {
        Self(Arc::new(Kitchen { options, room, key }))
    }
}

impl<S> Layer<S> for GatherLayer {
    type Service = Gathered<S>;

    fn layer(&self, inner: S) -> Gathered<S> {
        Gathered { inner, kitchen: Arc::clone(&self.0) }
    }
}

/// The service of [`GatherLayer`].
#[derive(Clone)]
pub(super) struct Gathered<S> {
    inner: S,
    kitchen: Arc<Kitchen>,
}

/// What may gather.
pub(super) trait Gathers: Sized + Send + 'static {
    fn gathers(&self) -> bool;
    fn prepare(self, kitchen: &Kitchen) -> impl Future<Output = Result<Self, Failure>> + Send;
}

impl Gathers for Delivery {
    fn gathers(&self) -> bool {
        self.gathering.is_some()
    }

    fn prepare(self, kitchen: &Kitchen) -> impl Future<Output = Result<Self, Failure>> + Send {
        prepare(self, kitchen)
    }
}

impl Gathers for Together {
    fn gathers(&self) -> bool {
        self.0.iter().any(Gathers::gathers)
    }

    async fn prepare(self, kitchen: &Kitchen) -> Result<Self, Failure> {
        let mut prepared = Vec::with_capacity(self.0.len());
        for delivery in self.0 {
            prepared.push(prepare(delivery, kitchen).await?);
        }
        Ok(Self(prepared))
    }
}

impl<S, R> Service<R> for Gathered<S>
where
    R: Gathers,
    S: Service<R, Error = Failure> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
{
    type Response = S::Response;
    type Error = Failure;
    type Future = Bodied<S, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Bodied<S, R> {
        if !request.gathers() {
            return Bodied::AsItIs { sent: self.inner.call(request) };
        }
        let (kitchen, inner) = (Arc::clone(&self.kitchen), self.inner.clone());
        let gathered = Box::pin(async move {
            // The room is held until the answer has come.
            let (request, _room) = kitchen.cook(request).await?;
            Oneshot::new(inner, request).await
        });
        Bodied::Gathered { gathered }
    }
}

type Boxed<T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send>>;

pin_project! {
    /// A delivery that gathers, or one that does not and so has no box.
    #[project = Projected]
    pub(super) enum Bodied<S, R>
    where
        S: Service<R>,
    {
        AsItIs { #[pin] sent: S::Future },
        Gathered { gathered: Boxed<S::Response> },
    }
}

impl<S, R> Future for Bodied<S, R>
where
    S: Service<R, Error = Failure>,
{
    type Output = Result<S::Response, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projected::AsItIs { sent } => sent.poll(cx),
            Projected::Gathered { gathered } => gathered.as_mut().poll(cx),
        }
    }
}

/// Gives a delivery that gathers the body that its handler gets; all others stay as they are.
async fn prepare(mut delivery: Delivery, kitchen: &Kitchen) -> Result<Delivery, Failure> {
    let Some(gathering) = delivery.gathering.take() else { return Ok(delivery) };
    let data = Data { bytes: delivery.data.clone(), content_type: delivery.content_type.to_string() };
    let gathered = gathering.body(&data, kitchen.options.gather_max).await;
    let gathered = gathered.map_err(unreadable)?;
    delivery.data = match gathered {
        Some(body) => body,
        None => {
            let url = url(&kitchen.options, kitchen.key.get(), &delivery.partition, gathering.gather())?;
            format!("{{{},\"gathered_url\":{}}}", data_fields(&data), quoted(&url)).into()
        }
    };
    delivery.content_type = JSON.into();
    Ok(delivery)
}

/// What is gathered cannot be read.
fn unreadable(error: StoreError) -> Failure {
    let message = format!("cannot gather: {error}");
    match error.is_waited_for() {
        true => Failure::delayed(message, Some(jittered(REST))),
        false => Failure::new(message),
    }
}

/// Where `gatefeed run --listen` serves what is gathered; to whoever has the token in it.
fn url(options: &HttpOptions, key: Option<&Key>, partition: &str, gather: Gather) -> Result<String, Failure> {
    let max = options.gather_max;
    let nowhere = || {
        Failure::new(format!(
            "what it gathers has more than {max} bytes (--gather-max): start `gatefeed run` with --listen, so that \
             the handler can fetch it, or with a larger --gather-max"
        ))
    };
    let mut url = options.public_url.clone().ok_or_else(nowhere)?;
    let gate = gather.gate.to_string();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(["v1", "partitions", partition, "gathered", &gate]);
    }
    url.query_pairs_mut().clear().append_pair("status", gather.status.as_str());
    if let Some(key) = key {
        url.query_pairs_mut().append_pair("token", &key.sign_gathered(partition, gather));
    }
    Ok(url.into())
}

fn quoted(url: &str) -> String {
    // A URL has neither quotes nor backslashes nor control characters.
    format!("\"{url}\"")
}

/// Whether handlers can be sent to this URL.
pub(super) fn check_url(url: Option<&Url>) -> Result<(), String> {
    match url {
        Some(url) if url.cannot_be_a_base() => Err(format!("{url} is no base of other URLs")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefeed_core::gather::Ended;

    fn url_of(base: &str, partition: &str) -> String {
        let options = HttpOptions { public_url: Some(base.parse().unwrap()), ..HttpOptions::default() };
        url(&options, None, partition, Gather { gate: 7, status: Ended::Any }).unwrap()
    }

    #[test]
    fn a_partitions_name_is_one_segment_of_the_path() {
        assert_eq!(url_of("http://h:8080", "p"), "http://h:8080/v1/partitions/p/gathered/7?status=any");
        assert_eq!(
            url_of("https://h/queue/?x=1", "a/b ü?#%\"\\"),
            "https://h/queue/v1/partitions/a%2Fb%20%C3%BC%3F%23%25%22%5C/gathered/7?status=any"
        );
    }
}
