//! Beside COPY.

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use anyhow::ensure;
use gatefeed_client::{
    Client, Options,
    sqlx::{Connection, Executor, PgConnection},
};

use crate::{Page, Size, case::Case, check, in_turns, push, rates::Rates};

pub(crate) async fn measure(url: &str, size: &Size) -> anyhow::Result<()> {
    let schema = format!("bench_{}", uuid::Uuid::new_v4().simple());
    let options = Options { schema: Some(schema.clone()), ..Options::default() };
    let client = Client::connect_and_migrate(url, &options).await?;
    let connection = PgConnection::connect(url).await?;
    let mut bench = Bench { client, connection, schema };
    let measured = bench.run(size).await;
    bench.connection.execute(format!("DROP SCHEMA {} CASCADE", bench.schema).as_str()).await?;
    measured
}

struct Bench {
    client: Client,
    connection: PgConnection,
    schema: String,
}

impl Bench {
    async fn run(&mut self, size: &Size) -> anyhow::Result<()> {
        for case in Case::ALL {
            self.case(case, size).await?.show("Postgres", case, "raw COPY");
        }
        Ok(())
    }

    async fn case(&mut self, case: Case, size: &Size) -> anyhow::Result<Rates> {
        let mut rates = Rates::default();
        for round in 0..=size.rounds {
            let copy = copy(&mut self.connection, &self.schema, case, round, size.items);
            let push = push(&self.client, case, round, size.items);
            let (copied, pushed) = in_turns(round, copy, push).await?;
            // The first round fills caches and grows files.
            if round > 0 {
                rates.note(size.items, copied, pushed);
            }
            // A table of the same size for every round.
            self.connection.execute(format!("TRUNCATE {}.gatefeed_items", self.schema).as_str()).await?;
        }
        Ok(rates)
    }
}

async fn copy(
    connection: &mut PgConnection,
    schema: &str,
    case: Case,
    round: usize,
    items: usize,
) -> anyhow::Result<Duration> {
    let partition = case.partition("copy", round);
    let rows = rows(&partition, case, items)?;
    let made = format!("INSERT INTO {schema}.gatefeed_partitions (id) VALUES ('{partition}')");
    if case.is_existing() {
        connection.execute(made.as_str()).await?;
    }
    let started = Instant::now();
    let mut tx = connection.begin().await?;
    if !case.is_existing() {
        tx.execute(made.as_str()).await?;
    }
    let into = format!("COPY {schema}.gatefeed_items (partition_id, id, data) FROM STDIN");
    let mut copy = tx.copy_in_raw(&into).await?;
    for chunk in rows.as_bytes().chunks(1 << 20) {
        copy.send(chunk).await?;
    }
    let copied = copy.finish().await?;
    tx.commit().await?;
    let elapsed = started.elapsed();
    ensure!(copied == items as u64, "copied {copied} of {items}");
    let count = format!("SELECT count(*) FROM {schema}.gatefeed_items WHERE partition_id = '{partition}'");
    check(connection.fetch_one(count.as_str()).await?, items)?;
    Ok(elapsed)
}

/// In COPY's text format.
fn rows(partition: &str, case: Case, items: usize) -> anyhow::Result<String> {
    let mut text = String::new();
    for number in 0..items {
        let json = serde_json::to_string(&Page::new(number))?;
        ensure!(json.len() == 100, "an item has {} bytes: {json}", json.len());
        // bytea in hex, whose backslash COPY wants doubled.
        write!(text, "{partition}\t{}\t\\\\x", case.id(number))?;
        json.bytes().try_for_each(|byte| write!(text, "{byte:02x}"))?;
        text.push('\n');
    }
    Ok(text)
}
