//! gatefeed inside an application: a function instead of an HTTP handler.
//!
//! `cargo run --example closure` adds up numbers in two gates: at gate 0 each number is squared, one by one and
//! in any order; at gate 1, which opens once every number is through, they are added up.
#![allow(clippy::print_stdout, reason = "an example is there to be read on a terminal")]

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use gatefeed_core::{
    answer::{Answer, Failure, Verdict},
    inspect::{DataPart, ItemFilter},
    item::{Data, NewItem},
    partition::NewPartition,
};
use gatefeed_engine::{Delivery, Watcher};
use gatefeed_store::Options;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let url = format!("sqlite://{}", dir.path().join("closure.db").display());
    let store = gatefeed_store::connect(&url, &Options::default()).await?;
    store.migrate().await?;

    let numbers = (1..=10).map(|n| item(&format!("number {n:02}"), 0, n.to_string()));
    let items: Vec<_> = numbers.chain([item("sum", 1, "null".to_owned())]).collect();
    let pushed = store.push(&NewPartition::new("squares"), &items).await?;
    println!("pushed {} items into the partition \"squares\"", pushed.added);

    let sum = Arc::new(AtomicU64::new(0));
    let my_fn = move |delivery: Delivery| work(delivery, Arc::clone(&sum));
    // Without until_idle it runs until its shutdown token is cancelled.
    Watcher::builder(Arc::clone(&store)).until_idle(true).processor(my_fn).run().await?;

    let all =
        ItemFilter { partition: "squares".into(), limit: 100, data: DataPart::All, ..ItemFilter::default() };
    for item in store.items(&all).await? {
        let data = String::from_utf8(item.data.unwrap_or_default())?;
        println!("{:<10} gate {}  {}  {data}", item.id, item.gate, item.status.as_str());
    }
    Ok(())
}

/// The processor. A real one remembers in its database, not in memory, and does not do a thing twice that it has
/// done under this `delivery.idempotency_key()`: after a crash an item may come again.
async fn work(delivery: Delivery, sum: Arc<AtomicU64>) -> Verdict {
    if delivery.gate == 1 {
        return Ok(Answer::done().with_data(Data::json(sum.load(Ordering::SeqCst).to_string())));
    }
    let number: u64 =
        serde_json::from_slice(&delivery.data).map_err(|error| Failure::final_(error.to_string()))?;
    sum.fetch_add(number * number, Ordering::SeqCst);
    Ok(Answer::done().with_data(Data::json((number * number).to_string())))
}

fn item(id: &str, gate: i32, json: String) -> NewItem {
    NewItem { gate, ..NewItem::new("squares", id, Data::json(json)) }
}
