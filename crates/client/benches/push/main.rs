//! How fast `push_many` is, beside the fastest way into the same table: COPY on Postgres, a prepared INSERT of many
//! rows on SQLite. Both write 100-byte JSON items with ids of their own through the table's indexes and triggers, in
//! one transaction; the rounds alternate. The limit's rows are generated before its clock starts, `push_many`'s are
//! serialized while it runs. The limit looks for no ids that exist; `push_many` has to, unless the partition is new
//! and the ids grow (`case.rs`).
//!
//! ```sh
//! DATABASE_URL=postgres://me@localhost/mydb cargo bench -p gatefeed-client --bench push
//! ```
//!
//! Without DATABASE_URL (or GATEFEED_TEST_POSTGRES_URL) SQLite alone is measured. GATEFEED_BENCH_ITEMS (100000) and
//! GATEFEED_BENCH_ROUNDS (6) change the size. On Postgres it makes a schema of its own and drops it.

#![allow(clippy::print_stdout, reason = "a bench prints")]

mod case;
mod postgres;
mod rates;
mod sqlite;

use std::{
    env,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use case::Case;
use gatefeed_client::{
    Client, Item, Partition,
    sqlx::{ColumnIndex, Decode, Row, Type},
};
use serde::Serialize;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let size =
        Size { items: number("GATEFEED_BENCH_ITEMS", 100_000)?, rounds: number("GATEFEED_BENCH_ROUNDS", 6)? };
    ensure!(size.items > 0 && size.rounds > 0, "nothing to measure");
    let url = env::var("DATABASE_URL").or_else(|_| env::var("GATEFEED_TEST_POSTGRES_URL")).ok();
    match url.filter(|url| url.starts_with("postgres")) {
        Some(url) => postgres::measure(&url, &size).await?,
        None => println!("Postgres: not measured, DATABASE_URL names none"),
    }
    sqlite::measure(&size).await
}

struct Size {
    items: usize,
    rounds: usize,
}

fn number(name: &str, default: usize) -> anyhow::Result<usize> {
    env::var(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("{name}={text}")))
}

/// 100 bytes of JSON.
#[derive(Serialize)]
struct Page {
    number: usize,
    file: &'static str,
    text: &'static str,
}

impl Page {
    fn new(number: usize) -> Self {
        // Six digits whatever the number, so that each has the same size.
        let number = 100_000 + number % 900_000;
        Self { number, file: "scans/report.pdf", text: "The quick brown fox jumps over the lazy dog, 12" }
    }
}

/// One after the other; the other one is first in every second round, since the first one finds an empty table.
async fn in_turns<T>(
    round: usize,
    limit: impl Future<Output = anyhow::Result<T>>,
    push: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<(T, T)> {
    if round.is_multiple_of(2) {
        let limit = limit.await?;
        return Ok((limit, push.await?));
    }
    let push = push.await?;
    Ok((limit.await?, push))
}

async fn push(client: &Client, case: Case, round: usize, items: usize) -> anyhow::Result<Duration> {
    let partition = Partition::builder(case.partition("push", round)).build()?;
    if case.is_existing() {
        client.push(&partition).await?;
    }
    let started = Instant::now();
    let pages = (0..items).map(|number| Item::json(&Page::new(number)).id(case.id(number)));
    let pushed = client.push_many(&partition, pages).await?;
    let elapsed = started.elapsed();
    ensure!(pushed.created != case.is_existing() && pushed.added == items as u64, "{pushed:?} of {items}");
    let available = client.partition(partition.id()).await?.items.available;
    ensure!(available == items as i64, "{available} of {items} are there");
    Ok(elapsed)
}

/// The answer of a `count(*)`.
fn check<R: Row>(row: R, items: usize) -> anyhow::Result<()>
where
    usize: ColumnIndex<R>,
    i64: for<'r> Decode<'r, R::Database> + Type<R::Database>,
{
    let found: i64 = row.try_get(0)?;
    ensure!(found == items as i64, "{found} of {items} are there");
    Ok(())
}
