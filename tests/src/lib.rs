//! What the end-to-end tests share: databases as users have them (psql and sqlite3 speak to them), watchers as
//! processes, and a handler that records what it gets.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests state what they expect by unwrapping")]

mod cluster;
mod database;
mod http;
mod ledger;
mod pooler;
mod process;

use std::time::{Duration, Instant};

pub use self::{
    cluster::{Cluster, free_port},
    database::Database,
    http::{Answer, get, post, try_post},
    ledger::{Entry, Ledger},
    pooler::Pooler,
    process::{Gatefeed, binary, built, gatefeed},
};

/// Longer than anything takes on a busy machine; a test that waits this long has failed.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Waits until the condition holds; panics with `what` after [`DEADLINE`].
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < DEADLINE, "{what}: not after {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
