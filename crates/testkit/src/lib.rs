//! What gatefeed's tests share. A dev-dependency only.
//!
//! Every promise of [`gatefeed_core::Store`] and of the SQL contract is a case in [`conformance`] and runs on
//! both databases. A store's test file implements [`Db`] and says [`conformance!`](crate::conformance!).

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests state what they expect by unwrapping")]

pub mod bucket;
pub mod conformance;
pub mod db;
pub mod faults;
pub mod handler;

pub use db::{Db, OpenTx};
