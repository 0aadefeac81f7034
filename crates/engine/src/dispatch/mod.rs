//! Delivery over HTTP: the handler contract, as seen from the sender.
//!
//! | question | file |
//! | --- | --- |
//! | how does one delivery go? | `http.rs` |
//! | which headers does a handler get? | `request.rs` |
//! | what does an item that gathers get? | `gather.rs` |
//! | where does a handler fetch large data? | `link.rs` |
//! | what does its answer mean? | `answer.rs` |
//! | which URLs will do? | `target.rs` |
//! | which target is next, and which one is left alone for now? | `rotation.rs` |
//! | how are connections made? | `connect.rs` |
//! | is a target well? | `health.rs` |

mod answer;
mod connect;
mod gather;
mod health;
mod http;
mod link;
mod request;
mod rotation;
mod target;

pub use self::{
    health::TargetHealth,
    http::{HttpOptions, HttpProcessor},
    target::{InvalidTarget, parse_target},
};
