//! How fast `push_many` is, beside the fastest way into the same table: COPY on Postgres, a prepared INSERT of many
//! rows on SQLite. Both write 100-byte JSON items with ids of their own through the table's indexes and triggers, in
//! one transaction; the rounds alternate. The limit's rows are generated before its clock starts, `push_many`'s are
//! serialized while it runs.
//!
//! ```sh
//! DATABASE_URL=postgres://me@localhost/mydb cargo bench -p gatefeed-client --bench push
//! ```
//!
//! Without DATABASE_URL (or GATEFEED_TEST_POSTGRES_URL) SQLite alone is measured. GATEFEED_BENCH_ITEMS (100000) and
//! GATEFEED_BENCH_ROUNDS (6) change the size. On Postgres it makes a schema of its own and drops it.

#![allow(clippy::print_stdout, reason = "a bench prints")]

use std::{
    env,
    fmt::Write,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use gatefeed_client::{
    Client, Item, Options, Partition,
    sqlx::{self, Connection, Executor, PgConnection, SqliteConnection},
};
use serde::Serialize;

/// Rows of one INSERT of the limit on SQLite; more are not faster.
const ROWS: usize = 1_000;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let size =
        Size { items: number("GATEFEED_BENCH_ITEMS", 100_000)?, rounds: number("GATEFEED_BENCH_ROUNDS", 6)? };
    ensure!(size.items > 0 && size.rounds > 0, "nothing to measure");
    let url = env::var("DATABASE_URL").or_else(|_| env::var("GATEFEED_TEST_POSTGRES_URL")).ok();
    match url.filter(|url| url.starts_with("postgres")) {
        Some(url) => postgres(&url, &size).await?,
        None => println!("Postgres: not measured, DATABASE_URL names none"),
    }
    sqlite(&size).await
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

fn id(number: usize) -> String {
    format!("page-{number:09}")
}

async fn postgres(url: &str, size: &Size) -> anyhow::Result<()> {
    let schema = format!("bench_{}", uuid::Uuid::new_v4().simple());
    let options = Options { schema: Some(schema.clone()), ..Options::default() };
    let client = Client::connect_and_migrate(url, &options).await?;
    let mut connection = PgConnection::connect(url).await?;
    let measured = against_copy(&client, &mut connection, &schema, size).await;
    connection.execute(format!("DROP SCHEMA {schema} CASCADE").as_str()).await?;
    measured?.show("Postgres", "raw COPY");
    Ok(())
}

async fn against_copy(
    client: &Client,
    connection: &mut PgConnection,
    schema: &str,
    size: &Size,
) -> anyhow::Result<Rates> {
    let mut rates = Rates::default();
    for round in 0..=size.rounds {
        let copy = copy(connection, schema, format!("copy-{round}"), size.items);
        let push = push(client, format!("push-{round}"), size.items);
        let (copied, pushed) = in_turns(round, copy, push).await?;
        // The first round fills caches and grows files.
        if round > 0 {
            rates.note(size.items, copied, pushed);
        }
        // A table of the same size for every round.
        connection.execute(format!("TRUNCATE {schema}.gatefeed_items").as_str()).await?;
    }
    Ok(rates)
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

async fn copy(
    connection: &mut PgConnection,
    schema: &str,
    partition: String,
    items: usize,
) -> anyhow::Result<Duration> {
    let mut text = String::new();
    for number in 0..items {
        let json = serde_json::to_string(&Page::new(number))?;
        ensure!(json.len() == 100, "an item has {} bytes: {json}", json.len());
        // bytea in hex, whose backslash COPY wants doubled.
        write!(text, "{partition}\t{}\t\\\\x", id(number))?;
        json.bytes().try_for_each(|byte| write!(text, "{byte:02x}"))?;
        text.push('\n');
    }
    let started = Instant::now();
    let mut tx = connection.begin().await?;
    let made = format!("INSERT INTO {schema}.gatefeed_partitions (id) VALUES ('{partition}')");
    tx.execute(made.as_str()).await?;
    let into = format!("COPY {schema}.gatefeed_items (partition_id, id, data) FROM STDIN");
    let mut copy = tx.copy_in_raw(&into).await?;
    for chunk in text.as_bytes().chunks(1 << 20) {
        copy.send(chunk).await?;
    }
    let copied = copy.finish().await?;
    tx.commit().await?;
    let elapsed = started.elapsed();
    ensure!(copied == items as u64, "copied {copied} of {items}");
    check(connection.fetch_one(count(schema, &partition).as_str()).await?, items)?;
    Ok(elapsed)
}

async fn push(client: &Client, partition: String, items: usize) -> anyhow::Result<Duration> {
    let partition = Partition::builder(partition).build()?;
    let started = Instant::now();
    let pages = (0..items).map(|number| Item::json(&Page::new(number)).id(id(number)));
    let pushed = client.push_many(&partition, pages).await?;
    let elapsed = started.elapsed();
    ensure!(pushed.created && pushed.added == items as u64, "{pushed:?} of {items}");
    let available = client.partition(partition.id()).await?.items.available;
    ensure!(available == items as i64, "{available} of {items} are there");
    Ok(elapsed)
}

fn count(schema: &str, partition: &str) -> String {
    format!("SELECT count(*) FROM {schema}.gatefeed_items WHERE partition_id = '{partition}'")
}

fn check<R: sqlx::Row>(row: R, items: usize) -> anyhow::Result<()>
where
    usize: sqlx::ColumnIndex<R>,
    i64: for<'r> sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    let found: i64 = row.try_get(0)?;
    ensure!(found == items as i64, "{found} of {items} are there");
    Ok(())
}

async fn sqlite(size: &Size) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let url = format!("sqlite://{}", dir.path().join("gatefeed.db").display());
    let client = Client::connect_and_migrate(&url, &Options::default()).await?;
    // As the client's own connection: commits reach the disk, and there is a cache.
    let options: sqlx::sqlite::SqliteConnectOptions = url.parse()?;
    let options = options.pragma("synchronous", "FULL").pragma("cache_size", "-65536");
    let mut connection = SqliteConnection::connect_with(&options).await?;
    let mut rates = Rates::default();
    for round in 0..=size.rounds {
        let insert = insert(&mut connection, format!("insert-{round}"), size.items);
        let push = push(&client, format!("push-{round}"), size.items);
        let (inserted, pushed) = in_turns(round, insert, push).await?;
        if round > 0 {
            rates.note(size.items, inserted, pushed);
        }
        connection.execute("DELETE FROM gatefeed_items").await?;
    }
    rates.show("SQLite", "prepared INSERT");
    Ok(())
}

async fn insert(
    connection: &mut SqliteConnection,
    partition: String,
    items: usize,
) -> anyhow::Result<Duration> {
    let rows: Vec<_> = (0..items)
        .map(|number| Ok((id(number), serde_json::to_vec(&Page::new(number))?)))
        .collect::<anyhow::Result<_>>()?;
    let started = Instant::now();
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("INSERT INTO gatefeed_partitions (id) VALUES (?)").bind(&partition).execute(&mut *tx).await?;
    for chunk in rows.chunks(ROWS) {
        let values = vec!["(?, ?, ?)"; chunk.len()].join(", ");
        let sql = format!("INSERT INTO gatefeed_items (partition_id, id, data) VALUES {values}");
        let query = chunk.iter().fold(sqlx::query(&sql), |query, (id, data)| {
            query.bind(&partition).bind(id.as_str()).bind(data.as_slice())
        });
        query.execute(&mut *tx).await?;
    }
    tx.commit().await?;
    let elapsed = started.elapsed();
    let count = "SELECT count(*) FROM gatefeed_items WHERE partition_id = ?";
    check(sqlx::query(count).bind(&partition).fetch_one(connection).await?, items)?;
    Ok(elapsed)
}

/// Items a second, round by round.
#[derive(Default)]
struct Rates {
    limit: Vec<f64>,
    push: Vec<f64>,
}

impl Rates {
    fn note(&mut self, items: usize, limit: Duration, push: Duration) {
        self.limit.push(items as f64 / limit.as_secs_f64());
        self.push.push(items as f64 / push.as_secs_f64());
    }

    fn show(&self, database: &str, limit: &str) {
        for (n, (limit_rate, push_rate)) in self.limit.iter().zip(&self.push).enumerate() {
            println!(
                "{database} round {}: {limit} {limit_rate:>9.0}/s   push_many {push_rate:>9.0}/s",
                n + 1
            );
        }
        let (limit_rate, push_rate) = (median(&self.limit), median(&self.push));
        println!("{database} medians: {limit} {limit_rate:>9.0}/s   push_many {push_rate:>9.0}/s");
        println!("{database} ratio: {:.2}", push_rate / limit_rate);
    }
}

fn median(rates: &[f64]) -> f64 {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
