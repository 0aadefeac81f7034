//! What an application imports: it pushes work into gatefeed, waits for it and looks at it, over the same Postgres
//! or SQLite database that its watchers use. Watchers run beside it (`gatefeed run`), and the work is done by a
//! handler that they call over HTTP. A service that must not reach the database uses the API, by the same calls
//! ([`Client::http`]).
//!
//! ```
//! use std::time::Duration;
//!
//! use futures_util::TryStreamExt;
//! use gatefeed_client::{Client, Error, Item, Options, Partition};
//!
//! #[derive(serde::Serialize, serde::Deserialize)]
//! struct Page {
//!     number: u32,
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let url = format!("sqlite://{}", dir.path().join("gatefeed.db").display());
//! // Or postgres://me@localhost/mydb; `Client::connect(&url)` where `gatefeed migrate` has made the tables.
//! let client = Client::connect_and_migrate(&url, &Options::default()).await?;
//!
//! // Every page is through gate 0 before the ranking at gate 1 is delivered.
//! let batch = Partition::builder("batch-42")
//!     .item(Page { number: 1 })
//!     .item(Item::json(&Page { number: 2 }).id("page-2").priority(5))
//!     .gate(1, Item::json("rank them").id("rank"))
//!     .build()?;
//! let pushed = client.push(&batch).await?;
//! assert_eq!((pushed.created, pushed.added), (true, 3));
//!
//! // Nothing is added twice, so that a push whose end is unknown is simply repeated.
//! assert_eq!(client.push(&batch).await?.existing, 3);
//!
//! // As many as there are, in one transaction.
//! let more = (3..=1000).map(|number| Item::json(&Page { number }).id(format!("page-{number}")));
//! client.push_many(&batch, more).await?;
//!
//! // Through within the time, or where it stands (no watcher runs in this example).
//! match client.wait_for("batch-42", Duration::ZERO).await {
//!     Ok(partition) => println!("it is {}", partition.status.as_str()),
//!     Err(error @ Error::TimedOut { .. }) => println!("{error}"),
//!     Err(error) => return Err(error.into()),
//! }
//!
//! let mut pages = client.items("batch-42").gate(0).with_data().stream();
//! let mut sum = 0;
//! while let Some(item) = pages.try_next().await? {
//!     sum += item.json::<Page>()?.number;
//! }
//! assert_eq!(sum, 1000 * 1001 / 2);
//! # Ok(())
//! # }
//! ```
//!
//! What is given as a value is written as JSON by serde. Bytes and text that is JSON already say so, or they would
//! arrive as an array of numbers and as a string of JSON:
//!
//! ```
//! # use gatefeed_client::{Item, Partition};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("page-1.png");
//! # std::fs::write(&path, b"\x89PNG")?;
//! # let text = r#"{"total": 10.00}"#;
//! let scans = Partition::builder("scans")
//!     .item(Item::bytes("image/png", std::fs::read(&path)?).id("page-1"))
//!     .item(Item::raw_json(text).id("order"))
//!     .build()?;
//! # assert_eq!(scans.len(), 2);
//! # Ok(())
//! # }
//! ```
//!
//! | question | file |
//! | --- | --- |
//! | how is it opened, how does it push? | `client.rs`, `push.rs` |
//! | what can be pushed? | `partition.rs`, `item.rs` |
//! | how does a push join my own transaction? | `transaction.rs` |
//! | how do I wait, look, act? | `wait.rs`, `look.rs`, `act.rs` |
//! | what can go wrong? | `error.rs` |
//!
//! Its futures need a tokio runtime with time and I/O. sqlx is re-exported as [`sqlx`]: [`Client::push_in`] takes the
//! connections of that version.

mod act;
mod backend;
mod client;
mod error;
mod http;
mod item;
mod look;
mod partition;
mod push;
mod transaction;
mod wait;

pub use self::{
    client::Client,
    error::{Error, Result},
    http::HttpBuilder,
    item::{IntoItem, Item},
    look::{Items, Partitions},
    partition::{Partition, PartitionBuilder},
    push::Pusher,
    transaction::Connection,
};
pub use gatefeed_core::{
    Store, StoreError,
    dependency::OnDependencyFailure,
    failure_policy::Share,
    gather::Ended,
    inspect::{FeedStatus, GateCounts, ItemCounts, ItemRow, PartitionCounts, PartitionRow, WatcherStatus},
    item::{Data, ItemStatus},
    partition::{FailurePolicy, PartitionStatus},
    store::{Pushed, RetryFilter, Rewound},
    why::Why,
};
pub use gatefeed_store::{BlobOptions, Options, Synchronous};
/// The version of sqlx whose connections [`Client::push_in`] takes.
pub use sqlx;
