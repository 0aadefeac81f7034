//! The handler of `gatefeed bench http`, in a process of its own, as handlers are.

use std::{
    borrow::Cow,
    io::{BufRead, BufReader},
    process::{self, Stdio},
};

use anyhow::{Context, Result};
use gatefeed_api::axum::{
    self, Router, body::Bytes, extract::DefaultBodyLimit, http::StatusCode, routing::post, serve::ListenerExt,
};
use serde::{Deserialize, Serialize};
use tokio::{io::AsyncReadExt, net::TcpListener};

/// Where batches go.
pub(crate) const BATCH_PATH: &str = "/batch";

/// A running handler; ended when dropped.
pub(crate) struct Child {
    child: process::Child,
    pub(crate) url: String,
}

impl Child {
    /// Starts this binary once more.
    pub(crate) fn start() -> Result<Self> {
        let binary = std::env::current_exe().context("cannot find this binary, to start the handler")?;
        let mut command = process::Command::new(binary);
        command.args(["bench", "handler"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the handler")?;
        let mut url = String::new();
        let stdout = child.stdout.take().context("the handler has no stdout")?;
        BufReader::new(stdout).read_line(&mut url).context("the handler does not say its address")?;
        Ok(Self { child, url: url.trim().to_owned() })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Serves until stdin ends, which it does with the process that started it. Reads each body and answers `{}`; a batch, at
/// [`BATCH_PATH`], item by item.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    crate::output::line(&format!("http://{}/", listener.local_addr()?))?;
    // Small answers must not wait for more data to fill a packet.
    let listener = listener.tap_io(|stream| _ = stream.set_nodelay(true));
    let answer = |_: Bytes| async { "{}" };
    let router = Router::new().route("/", post(answer)).route(BATCH_PATH, post(batch));
    let router = router.layer(DefaultBodyLimit::disable());
    let orphaned = async { _ = tokio::io::stdin().read_to_end(&mut Vec::new()).await };
    // Without the bounds of the API: each round has as many connections as its budget, while those of the last are closing.
    axum::serve(listener, router).with_graceful_shutdown(orphaned).await?;
    Ok(())
}

/// What is read of an item of a batch, and answered.
#[derive(Deserialize, Serialize)]
struct Named<'a> {
    #[serde(borrow)]
    item: Cow<'a, str>,
}

async fn batch(body: Bytes) -> Result<Vec<u8>, StatusCode> {
    let items: Vec<Named<'_>> = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    serde_json::to_vec(&items).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}
