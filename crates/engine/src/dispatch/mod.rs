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
//! | where does a handler fetch large data? | `link.rs` |
//! | what does its answer mean? | `answer.rs`, of one that is compressed `unpack.rs` |
//! | which URLs will do, and which options? | `target.rs`, `check.rs` |
//! | which target is next? | `rotate.rs`, `rotation.rs`, `spread.rs`, `load.rs` |
//! | which one is left alone for now, or has enough? | `place.rs`, `breaker.rs`, `limit.rs` |
//! | what of a limit is this watcher's? | `split.rs` |
//! | when do several get the same delivery? | `hedge.rs` |
//! | why did a delivery come to nothing? | `missed.rs` |
//! | how are connections made, and where to not? | `connect.rs`, `resolve.rs` |
//! | how does a handler know who sends? | `sign.rs`, `access.rs` |
//! | is a target well? | `health.rs` |

mod access;
mod answer;
mod batch;
mod breaker;
mod callback;
mod check;
mod connect;
mod exchange;
mod gather;
mod health;
mod hedge;
mod http;
mod limit;
mod link;
mod load;
mod missed;
mod place;
mod request;
mod resolve;
mod rotate;
mod rotation;
mod routes;
mod sign;
mod split;
mod spread;
mod target;
mod unpack;

pub use self::{
    access::Access,
    breaker::BreakerOptions,
    check::{Flaw, Part},
    health::TargetHealth,
    hedge::{HedgeAfter, HedgeOptions},
    http::{HttpOptions, HttpProcessor},
    limit::{Rate, RateLimit},
    routes::{HttpRoutes, Route},
    sign::{InvalidSecret, Signer},
    spread::{Balance, Spread, TargetLimits},
    target::{InvalidTarget, parse_target},
};
