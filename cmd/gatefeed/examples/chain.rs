//! Several steps over each item, in this process.
//!
//! `cargo run --example chain` takes sentences: a first step splits each into words and fails now and then, a bridge
//! refuses those without words, and two steps that follow count the words and find the longest one at the same time. A last
//! step puts that together.
#![allow(clippy::print_stdout, reason = "an example is there to be read on a terminal")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use gatefeed_core::{
    answer::{Answer, Failure, Verdict},
    inspect::{DataPart, ItemFilter},
    item::{Data, NewItem},
    partition::NewPartition,
};
use gatefeed_engine::{Chain, Delivery, Reached, Watcher, step};
use gatefeed_store::Options;

const SENTENCES: [&str; 4] =
    ["many hands make light work", "practice makes perfect", "", "a stitch in time saves nine"];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let url = format!("sqlite://{}", dir.path().join("chain.db").display());
    let store = gatefeed_store::connect(&url, &Options::default()).await?;
    store.migrate().await?;
    let items: Vec<_> = SENTENCES.iter().enumerate().map(|(n, text)| item(n, text)).collect();
    store.push(&NewPartition::new("sentences"), &items).await?;

    Watcher::builder(Arc::clone(&store)).until_idle(true).processor(chain()).run().await?;

    let partition = "sentences".to_owned();
    let all = ItemFilter { partition, limit: 100, data: DataPart::All, ..ItemFilter::default() };
    for item in store.items(&all).await? {
        let data = String::from_utf8(item.data.unwrap_or_default())?;
        println!("{}  {:<8}  {data}", item.id, item.status.as_str());
    }
    Ok(())
}

fn chain() -> Chain {
    let attempts = AtomicU32::new(0);
    let split = move |delivery: Delivery| {
        let is_unlucky = attempts.fetch_add(1, Ordering::Relaxed) % 3 == 1;
        async move { if is_unlucky { Err(Failure::new("try again")) } else { split(&delivery) } }
    };
    Chain::new(step(split).name("split").timeout(Duration::from_secs(1)).retry(5))
        .then_all(words, [step(count).name("count"), step(longest).name("longest")])
        .then(both, step(async |delivery: Delivery| Ok(Answer::done().with_data(Data::json(delivery.data)))))
        .observe(|delivery, run| {
            let steps: Vec<_> =
                run.steps.iter().map(|step| format!("{} ×{}", step.name, step.attempts)).collect();
            println!("{}: {} in {:?}", delivery.item, steps.join(", "), run.took);
        })
}

fn split(delivery: &Delivery) -> Verdict {
    let text: String =
        serde_json::from_slice(&delivery.data).map_err(|error| Failure::final_(error.to_string()))?;
    let words: Vec<_> = text.split_whitespace().collect();
    Ok(Answer::done().with_data(Data::json(serde_json::json!(words).to_string())))
}

/// A bridge: its error ends the chain.
fn words(reached: &Reached<'_>) -> Result<Data, Failure> {
    let words = reached.data();
    if &*words.bytes == b"[]" { Err(Failure::final_("there are no words in it")) } else { Ok(words) }
}

async fn count(delivery: Delivery) -> Verdict {
    Ok(Answer::done().with_data(Data::json(read(&delivery)?.len().to_string())))
}

async fn longest(delivery: Delivery) -> Verdict {
    let words = read(&delivery)?;
    let longest = words.iter().max_by_key(|word| word.len());
    Ok(Answer::done().with_data(Data::json(serde_json::json!(longest).to_string())))
}

fn read(delivery: &Delivery) -> Result<Vec<String>, Failure> {
    serde_json::from_slice(&delivery.data).map_err(|error| Failure::final_(error.to_string()))
}

/// A bridge over several steps: all of them have succeeded.
fn both(reached: &Reached<'_>) -> Result<Data, Failure> {
    let data = |n: usize| -> Result<String, Failure> {
        let answer =
            reached.last.get(n).ok_or_else(|| Failure::final_("a step is missing"))?.verdict.clone()?;
        Ok(String::from_utf8_lossy(&answer.data.unwrap_or_else(|| Data::json("null")).bytes).into_owned())
    };
    Ok(Data::json(format!("{{\"words\":{},\"longest\":{}}}", data(0)?, data(1)?)))
}

fn item(n: usize, text: &str) -> NewItem {
    NewItem::new("sentences", format!("sentence {n}"), Data::json(serde_json::json!(text).to_string()))
}
