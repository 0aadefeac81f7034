//! Delivery over HTTP: the handler contract, as seen from the sender.
//!
//! | question | file |
//! | --- | --- |
//! | which handler is whose? | `routes.rs` |
//! | which layers does a delivery go through? | `http.rs` |
//! | how does one exchange go? | `exchange.rs` |
//! | which headers does a handler get? | `request.rs` |
//! | what does an item that gathers get? | `gather.rs` |
//! | what does its answer mean? | `answer.rs` |
//! | which URLs will do? | `target.rs` |
//! | which target is next, and which one is left alone for now? | `rotate.rs`, `rotation.rs` |
//! | why did a delivery come to nothing? | `missed.rs` |
//! | how are connections made? | `connect.rs` |
//! | is a target well? | `health.rs` |

mod answer;
mod connect;
mod exchange;
mod gather;
mod health;
mod http;
mod missed;
mod request;
mod rotate;
mod rotation;
mod routes;
mod target;

pub use self::{
    health::TargetHealth,
    http::{HttpOptions, HttpProcessor},
    routes::{HttpRoutes, Route},
    target::{InvalidTarget, parse_target},
};
