//! The watcher: leases partitions, pages their due items ahead of the handlers, delivers them, writes the
//! outcomes in batches and takes the partitions through their gates.
//!
//! | question | file |
//! | --- | --- |
//! | what does the watcher hold in memory, and what is next? | `board.rs`, `held.rs` |
//! | how many deliveries are in flight? | `budget.rs` |
//! | what may be sent of a feed or a gate, and how is it treated? | `lanes.rs`, `policy.rs` |
//! | who gets a partition, who keeps it? | `claim.rs`, `renew.rs`, `observe.rs` |
//! | how do items come in, go out and get written? | `page.rs`, `deliver.rs`, `outcome.rs` |
//! | what does an item get of those before it? | `gathering.rs` |
//! | what becomes of items whose callback does not come? | `overdue.rs` |
//! | how does a gate rise? | `checkpoint.rs` |
//! | how does it start and stop? | `watcher.rs` |
//! | what does `gatefeed status` know of it? | `report.rs` |
//! | how does one delivery go through several steps? | `chain.rs`, `step.rs` |
//! | how does work go that needs no database? | `pool.rs` |
//! | how is HTTP spoken? | `dispatch/` |

mod board;
mod budget;
mod chain;
mod checkpoint;
mod claim;
mod clock;
mod context;
mod deliver;
pub mod dispatch;
mod gathering;
mod held;
mod lanes;
mod observe;
mod outcome;
mod overdue;
mod page;
mod policy;
pub mod pool;
mod processor;
mod renew;
mod report;
mod step;
mod tasks;
mod watcher;

/// The page for people, whose programs are compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/library.md")]
mod library_page {}

pub use budget::Concurrency;
pub use chain::{Chain, ChainRun, Reached};
pub use gathering::Gathering;
pub use policy::{Batch, Policy};
pub use processor::{Delivery, Processor};
pub use step::{Step, StepRun, step};
pub use watcher::{Builder, Finished, Watcher};
