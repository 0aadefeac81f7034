//! What gatefeed is made of, without a database, a network or a clock: the field's terms as types, the
//! decisions as pure functions, and the [`Store`] trait that the two databases implement.
//!
//! | question | file |
//! | --- | --- |
//! | what may an id look like? | `id.rs` |
//! | what does a handler's answer mean? | `answer.rs` |
//! | what may an item wait for, what may it ask for? | `dependency.rs`, `gather.rs` |
//! | what is a callback's token, and what does a call with it come to? | `callback.rs` |
//! | what does an answer nest, and what becomes of the item that waits? | `nested.rs` |
//! | where does large data lie? | `blob.rs` |
//! | what becomes of an item after a delivery? | `outcome.rs`, `retry.rs`, `error_log.rs` |
//! | when does a gate rise, a partition close, fail or sleep? | `checkpoint.rs`, `failure_policy.rs` |
//! | what may an operator do to it? | `acting.rs` |
//! | how long may a duration be? | `duration.rs` |
//! | how many deliveries should be in flight? | `budget.rs` |
//! | who may write, who may send, and until when? | `lease.rs` |
//! | what does a database have to do? | `store.rs` |
//! | what does a line of items say? | `envelope.rs` |
//! | how do items come that arrive one by one? | `ingest.rs` |
//! | what is kept of a request that may come again? | `request.rs` |
//! | who may use the API? | `token.rs` |
//! | what of a limit is one watcher's? | `share.rs` |
//! | what do people see? | `inspect.rs`, `watcher.rs`, `circuit.rs`, `why.rs` |

pub mod acting;
pub mod answer;
pub mod batch;
pub mod blob;
pub mod budget;
pub mod callback;
pub mod checkpoint;
pub mod circuit;
pub mod dependency;
pub mod duration;
pub mod envelope;
pub mod error;
pub mod error_log;
pub mod failure_policy;
pub mod gather;
pub mod id;
pub mod ingest;
pub mod inspect;
pub mod item;
pub mod lease;
pub mod nested;
pub mod outcome;
pub mod partition;
pub mod request;
pub mod retry;
pub mod share;
pub mod store;
pub mod token;
pub mod watcher;
pub mod why;

pub use error::{Result, StoreError};
pub use store::Store;
