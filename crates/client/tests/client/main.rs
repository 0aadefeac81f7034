//! The client against both databases: a fresh SQLite file or Postgres schema for each case.

#![allow(clippy::unwrap_used, reason = "tests state what they expect by unwrapping")]

/// Runs cases on both databases.
macro_rules! on_both {
    ($($case:ident),* $(,)?) => {
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

/// As [`on_both`], and over HTTP before both of them.
macro_rules! on_all {
    ($($case:ident),* $(,)?) => {
        on_both! { $($case),* }
        mod http_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::db::run(crate::db::Db::sqlite().await.over_http().await, super::$case).await;
            })*
        }
        mod http_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::db::run(crate::db::Db::postgres().await.over_http().await, super::$case).await;
            })*
        }
    };
}

mod connect;
mod db;
mod http;
mod input;
mod look;
mod push;
mod transaction;
mod wait;
