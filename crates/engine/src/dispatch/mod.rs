//! Delivery over HTTP: the handler contract, as seen from the sender.
//!
//! | question | file |
//! | --- | --- |
//! | which handler is whose? | `routes.rs` |
//! | which layers does a delivery go through? | `http.rs` |
//! | how does one exchange go? | `exchange.rs` |
//! | which headers does a handler get? | `request.rs` |
//! | how are several items sent at once? | `batch.rs` |
//! | what does an item that gathers get? | `gather.rs` |
//! | where does it call back? | `callback.rs` |
//! | what does its answer mean? | `answer.rs`, of one that is compressed `unpack.rs` |
//! | which URLs will do? | `target.rs` |
//! | which target is next, and which one is left alone for now? | `rotate.rs`, `rotation.rs` |
//! | why did a delivery come to nothing? | `missed.rs` |
//! | how are connections made, and where to not? | `connect.rs`, `resolve.rs` |
//! | how does a handler know who sends? | `sign.rs`, `access.rs` |
//! | is a target well? | `health.rs` |

mod access;
mod answer;
mod batch;
mod callback;
mod connect;
mod exchange;
mod gather;
mod health;
mod http;
mod missed;
mod request;
mod resolve;
mod rotate;
mod rotation;
mod routes;
mod sign;
mod target;
mod unpack;

pub use self::{
    access::Access,
    health::TargetHealth,
    http::{HttpOptions, HttpProcessor},
    routes::{HttpRoutes, Route},
    sign::{InvalidSecret, Signer},
    target::{InvalidTarget, parse_target},
};
