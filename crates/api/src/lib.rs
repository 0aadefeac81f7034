//! What gatefeed says over HTTP, as axum routers that can also be mounted in an application of your own.
//!
//! | question | file |
//! | --- | --- |
//! | which operations are there, and how are they described? | `router.rs` |
//! | how do items come in? | `post.rs`, `bulk.rs`, `body.rs` |
//! | was it asked for before? | `replay.rs` |
//! | how are they written together? | `group.rs` |
//! | what keeps it from taking more than it can hold? | `budget.rs`, `backlog.rs` |
//! | how are partitions made, and what is shown of them and their items? | `partitions.rs`, `items.rs`, `look.rs`, `ndjson.rs` |
//! | how does one wait? | `wait.rs`, `events.rs`, `watched.rs`, `stopping.rs` |
//! | what may operators do? | `actions.rs` |
//! | who may do what? | `access.rs`, `secret.rs` |
//! | how are errors told? | `problem.rs` |
//! | what may a request say? | `path.rs`, `query.rs`, `etag.rs` |
//! | is it alive, is it ready? | `health.rs` |
//! | what came before an item? | `gathered.rs` |
//! | what does a handler that answers later call? | `callbacks.rs` |
//! | where do handlers fetch large data? | `blobs.rs` |
//! | how many connections, how slow may they be, and over what? | `serve.rs`, `tls.rs` |

mod access;
mod actions;
mod app;
mod backlog;
pub mod blobs;
mod body;
mod budget;
mod bulk;
pub mod callbacks;
mod drain;
mod etag;
mod events;
pub mod gathered;
mod group;
pub mod health;
mod items;
mod look;
mod ndjson;
mod outgoing;
mod partitions;
mod path;
mod pile;
mod post;
mod problem;
mod query;
mod replay;
mod rest;
mod router;
mod secret;
pub mod serve;
mod stopping;
mod tls;
mod wait;
mod watched;

pub use self::{
    access::Openness,
    app::ApiOptions,
    router::{api, not_found, openapi},
    secret::new_token,
    tls::{Tls, TlsError},
};
pub use axum;
pub use blobs::blobs;
pub use callbacks::callbacks;
pub use gathered::gathered;
pub use health::{TargetHealth, Targets, health};
pub use serve::{CONNECTIONS_MAX, serve, serve_with};
