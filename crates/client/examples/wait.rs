//! Pushes work, waits until it is through, and reads the results. So that it ends by itself, a small watcher runs in
//! this process; in production that is `gatefeed run`, and the work is done by an HTTP handler.
//!
//! ```sh
//! cargo run -p gatefeed-client --example wait                                      # on a temporary SQLite file
//! DATABASE_URL=postgres://me@localhost/mydb cargo run -p gatefeed-client --example wait
//! ```

#![allow(clippy::print_stdout, missing_docs, unreachable_pub, reason = "an example")]

mod common;

use std::time::Duration;

use futures_util::TryStreamExt;
use gatefeed_client::{Client, Data, Error, Item, Partition};
use gatefeed_core::answer::{Answer, Verdict};
use gatefeed_engine::{Delivery, Watcher};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let db = common::open().await?;
    let id = common::fresh("numbers");
    let numbers = (1..=20).map(|n| Item::json(&n).id(format!("n{n:02}")));
    // A feed of its own, so that no other watcher of this database takes it.
    let partition = Partition::builder(&id).feed(&id).items(numbers).build()?;
    db.client.push(&partition).await?;

    // Nobody works on it yet.
    match db.client.wait_for(&id, Duration::from_millis(100)).await {
        Err(error @ Error::TimedOut { .. }) => println!("{error}"),
        other => println!("unexpected: {other:?}"),
    }

    let watcher = tokio::spawn(watch(db.client.clone(), id.clone()));
    let partition = db.client.wait_for(&id, Duration::from_secs(60)).await?;
    println!("{id} is {}", partition.status.as_str());
    let squares = db.client.items(&id).with_data().stream();
    let squares: Vec<u64> =
        squares.and_then(|item| async move { Ok(item.json::<u64>()?) }).try_collect().await?;
    println!("squares: {squares:?}");
    watcher.await?
}

/// Ends when nothing is left in its feed.
async fn watch(client: Client, feed: String) -> anyhow::Result<()> {
    let Some(store) = client.store() else { anyhow::bail!("a client over HTTP has no store") };
    let watcher = Watcher::builder(store.clone()).feeds(vec![feed]).until_idle(true);
    watcher.processor(square).run().await?;
    Ok(())
}

async fn square(delivery: Delivery) -> Verdict {
    let number: u64 = serde_json::from_slice(&delivery.data).map_err(|error| error.to_string())?;
    Ok(Answer::done().with_data(Data::json((number * number).to_string())))
}
