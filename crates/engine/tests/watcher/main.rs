//! The watcher against both databases: what it must do (gates, fan-out, retries) and what must not break it
//! (kills, lost replies, outages, take-overs, stops).
//!
//! What other pools and watchers of this kind went wrong by, and the test that fails if this one does:
//!
//! | trap | test |
//! | --- | --- |
//! | further targets are asked in a loop over the retry count | `dispatch::hedge`: `the_budget_holds_and_nothing_is_doubled` |
//! | who came second sends into a channel that is closed | `dispatch::hedge`: `dropping_the_delivery_drops_all_requests` |
//! | a timeout of zero fires at once | `reach.rs`: zero is refused; `pool`: `a_limit_of_zero_still_takes_a_free_place` |
//! | concurrency that only goes up | `core::budget`: `it_goes_down_as_well_as_up`; `pool`: `more_and_fewer_workers` |
//! | errors that nobody reads stop the work | `pool`: `errors_that_nobody_reads_hold_up_nothing` |
//! | a task for each job passes the bound | `stop.rs`: `no_task_is_left_after_a_run_and_an_item_is_none`; `pool`: `a_job_that_waits_is_no_task` |
//! | tasks are left after each run | the same; `pool`: `no_task_is_left_after_a_shutdown_or_a_drain_or_a_drop` |

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
mod chain;
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
