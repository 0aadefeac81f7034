//! gatefeed as its users meet it: processes, signals, plain SQL, and databases that go away.

#![allow(clippy::unwrap_used, reason = "tests state what they expect by unwrapping")]

mod acting;
mod basics;
mod bench;
mod blobs;
mod callbacks;
mod clients;
mod crashes;
mod dependencies;
mod docker;
mod documents;
mod events;
mod gathering;
mod handlers;
mod ingest;
mod nested;
mod outages;
mod pooler;
mod push;
mod routing;
mod s3;
mod schemathesis;
mod signing;
mod spreading;

/// Lets a test run on both databases.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(gatefeed_tests::Database::sqlite()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(gatefeed_tests::Database::postgres()).await;
            })*
        }
    };
}
pub(crate) use on_both;
