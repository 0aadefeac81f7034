//! Pushes a partition with two gates, once and again, then many items at once, and looks at them.
//!
//! ```sh
//! cargo run -p gatefeed-client --example push                                      # on a temporary SQLite file
//! DATABASE_URL=postgres://me@localhost/mydb cargo run -p gatefeed-client --example push
//! ```

#![allow(clippy::print_stdout, missing_docs, unreachable_pub, reason = "an example")]

mod common;

use futures_util::TryStreamExt;
use gatefeed_client::{FailurePolicy, Item, Partition};

#[derive(serde::Serialize, serde::Deserialize)]
struct Page {
    file: String,
    number: u32,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let db = common::open().await?;
    let id = common::fresh("scans");
    let page = |number| Page { file: "report.pdf".into(), number };

    // Every page is through gate 0 before the summary at gate 1 is delivered.
    let scans = Partition::builder(&id)
        .on_failure(FailurePolicy::Continue)
        .item(page(1))
        .item(Item::json(&page(2)).id("page-2").priority(10))
        .gate(1, Item::json("summary").id("summary"))
        .build()?;
    println!("first push:  {:?}", db.client.push(&scans).await?);
    println!("again:       {:?}", db.client.push(&scans).await?);

    // As many as there are, in one transaction.
    let more = (3..=5_000).map(|number| Item::json(&page(number)).id(format!("page-{number}")));
    println!("many:        {:?}", db.client.push_many(&scans, more).await?);

    for gate in db.client.gates(&id).await? {
        println!("gate {}:      {} available", gate.gate, gate.available);
    }
    let pages = db.client.items(&id).gate(0).with_data().stream();
    let sum = pages.try_fold(0, |sum, item| async move { Ok(sum + item.json::<Page>()?.number) }).await?;
    println!("page numbers add up to {sum}");
    Ok(())
}
