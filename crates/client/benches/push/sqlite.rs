//! Beside a prepared INSERT of many rows.

use std::time::{Duration, Instant};

use gatefeed_client::{
    Client, Options,
    sqlx::{self, Connection, Executor, SqliteConnection, sqlite::SqliteConnectOptions},
};

use crate::{Page, Size, case::Case, check, in_turns, push, rates::Rates};

/// Rows of one INSERT of the limit; more are not faster.
const ROWS: usize = 1_000;

pub(crate) async fn measure(size: &Size) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let url = format!("sqlite://{}", dir.path().join("gatefeed.db").display());
    let client = Client::connect_and_migrate(&url, &Options::default()).await?;
    // As the client's own connection: commits reach the disk, and there is a cache.
    let options: SqliteConnectOptions = url.parse()?;
    let options = options.pragma("synchronous", "FULL").pragma("cache_size", "-65536");
    let mut connection = SqliteConnection::connect_with(&options).await?;
    for case in Case::ALL {
        measure_case(&client, &mut connection, case, size).await?.show("SQLite", case, "prepared INSERT");
    }
    Ok(())
}

async fn measure_case(
    client: &Client,
    connection: &mut SqliteConnection,
    case: Case,
    size: &Size,
) -> anyhow::Result<Rates> {
    let mut rates = Rates::default();
    for round in 0..=size.rounds {
        let insert = insert(connection, case, round, size.items);
        let push = push(client, case, round, size.items);
        let (inserted, pushed) = in_turns(round, insert, push).await?;
        if round > 0 {
            rates.note(size.items, inserted, pushed);
        }
        connection.execute("DELETE FROM gatefeed_items").await?;
    }
    Ok(rates)
}

async fn insert(
    connection: &mut SqliteConnection,
    case: Case,
    round: usize,
    items: usize,
) -> anyhow::Result<Duration> {
    let partition = case.partition("insert", round);
    let rows: Vec<_> = (0..items)
        .map(|number| Ok((case.id(number), serde_json::to_vec(&Page::new(number))?)))
        .collect::<anyhow::Result<_>>()?;
    if case.is_existing() {
        make(connection, &partition).await?;
    }
    let started = Instant::now();
    let mut tx = connection.begin_with("BEGIN IMMEDIATE").await?;
    if !case.is_existing() {
        make(&mut tx, &partition).await?;
    }
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

async fn make(connection: &mut SqliteConnection, partition: &str) -> anyhow::Result<()> {
    sqlx::query("INSERT INTO gatefeed_partitions (id) VALUES (?)")
        .bind(partition)
        .execute(connection)
        .await?;
    Ok(())
}
