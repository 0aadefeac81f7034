//! The API over a real socket, on both databases.

#![allow(clippy::unwrap_used, reason = "tests state what they expect by unwrapping")]

/// Makes two tests of each case: one on SQLite, one on Postgres. A case is an `async fn(Place)`. With `; on one thread:`
/// before them, those that follow count calls ([`place::calls::Calls`]).
macro_rules! on_both {
    ($($case:ident)* $(; on one thread: $($counting:ident)*)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::place::run(crate::place::Place::sqlite().await, super::$case).await;
            })*
            $($(#[tokio::test(flavor = "current_thread")]
            async fn $counting() {
                crate::place::run(crate::place::Place::sqlite().await, super::$counting).await;
            })*)?
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                crate::place::run(crate::place::Place::postgres().await, super::$case).await;
            })*
            $($(#[tokio::test(flavor = "current_thread")]
            async fn $counting() {
                crate::place::run(crate::place::Place::postgres().await, super::$counting).await;
            })*)?
        }
    };
}

mod access;
mod acting;
mod blobs;
mod bounds;
mod described;
mod listing;
mod place;
mod posting;
mod replaying;
mod strict;
mod waiting;
