//! What gatefeed says over HTTP, as an axum router that can also be mounted in an application of your own.
//!
//! | question | file |
//! | --- | --- |
//! | is it alive, is it ready? | `health.rs` |
//! | what came before an item? | `gathered.rs` |
//! | what does a handler that answers later call? | `callbacks.rs` |
//! | how does an error look? | `problem.rs` |
//! | how many connections, how slow may they be? | `serve.rs` |

pub mod callbacks;
pub mod gathered;
pub mod health;
mod problem;
pub mod serve;

pub use axum;
pub use callbacks::callbacks;
pub use gathered::gathered;
pub use health::{TargetHealth, Targets, health};
pub use serve::serve;
