//! The watcher against both databases: what it must do (gates, fan-out, retries) and what must not break it
//! (kills, lost replies, outages, take-overs, stops).

#![allow(clippy::unwrap_used, reason = "tests state what they expect by unwrapping")]

/// Makes two tests of each case: one on SQLite, one on Postgres. A case is an `async fn(Db)`.
macro_rules! on_both {
    ($($case:ident)*) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::db::run(crate::db::Db::sqlite().await, super::$case).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::db::run(crate::db::Db::postgres().await, super::$case).await;
            })*
        }
    };
}

mod acting;
mod batches;
mod blobs;
mod budget;
mod callbacks;
mod children;
mod crash;
mod db;
mod dependencies;
mod feeds;
mod gates;
mod gather;
mod leases;
mod lost;
mod nested;
mod once;
mod outage;
mod payload;
mod policy;
mod record;
mod refused;
mod report;
mod retries;
mod stop;
mod suspect;
