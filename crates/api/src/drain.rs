//! Bodies that nobody has read to their end: a client that sends all of its request before it reads would see its
//! connection break instead of the answer, since one that is closed with something unread is cut. So the rest is read and
//! dropped, within bounds, while the answer is on its way.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::header,
};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::{runtime::Handle, time::timeout};

/// So much of a body is read for nothing: more than the largest that is taken, so that one which is a little over it is
/// answered.
const BYTES_MAX: usize = 96 << 20;

/// For so long.
const TIME_MAX: Duration = Duration::from_secs(10);

/// A client that sends nothing for so long has read its answer, or does not care.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// The request, whose body is drained where it is left.
pub(crate) async fn drained(request: Request) -> Request {
    // Who asks first does not send what is refused.
    if request.headers().contains_key(header::EXPECT) || hyper::body::Body::is_end_stream(request.body()) {
        return request;
    }
    request.map(|body| Body::new(Drained { body, is_over: false }))
}

struct Drained {
    body: Body,
    is_over: bool,
}

impl hyper::body::Body for Drained {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        self.is_over = !matches!(frame, Some(Ok(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Drained {
    fn drop(&mut self) {
        if self.is_over || hyper::body::Body::is_end_stream(&self.body) {
            return;
        }
        let body = std::mem::take(&mut self.body);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(timeout(TIME_MAX, drain(body)));
        }
    }
}

async fn drain(mut body: Body) {
    let mut left = BYTES_MAX;
    while let Ok(Some(Ok(frame))) = timeout(SILENCE_MAX, body.frame()).await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
