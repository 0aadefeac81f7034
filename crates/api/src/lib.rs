//! What gatefeed says over HTTP, as an axum router that can also be mounted in an application of your own.
//!
//! | question | file |
//! | --- | --- |
//! | is it alive, is it ready? | `health.rs` |
//! | what came before an item? | `gathered.rs` |
//! | where do handlers fetch large data? | `blobs.rs` |
//! | how many connections, how slow may they be? | `serve.rs` |

pub mod blobs;
pub mod gathered;
pub mod health;
pub mod serve;

pub use axum;
pub use blobs::blobs;
pub use gathered::gathered;
pub use health::{TargetHealth, Targets, health};
pub use serve::serve;
