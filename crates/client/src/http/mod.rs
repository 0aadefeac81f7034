//! The API, as the client uses it: for services that must not reach the database.
//!
//! | question | file |
//! | --- | --- |
//! | how is a request sent, and what is wrong with its answer? | `remote.rs` |
//! | which request is which call? | `calls.rs` |
//! | what does a push look like? | `body.rs` |

mod body;
mod calls;
mod remote;

pub use self::remote::HttpBuilder;
pub(crate) use self::remote::Remote;
