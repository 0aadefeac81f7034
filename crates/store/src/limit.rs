//! What the database does by itself on the same tables: the limit that a measured figure is compared with.

use std::{
    str::FromStr,
    time::{Duration, Instant},
};

use gatefeed_core::{Result, StoreError};
use sqlx::{
    ConnectOptions, Connection, Executor, PgConnection, Row, SqliteConnection,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteSynchronous},
};
use uuid::Uuid;

use crate::{
    Options, Synchronous,
    postgres::{PUBLIC, error::is_deadlock},
    sqlite::values,
    sqlite_path,
};

/// A single connection, without anything of gatefeed's but the tables.
#[derive(Debug)]
pub struct Limit(Inner);

#[derive(Debug)]
enum Inner {
    Postgres { connection: PgConnection, schema: String },
    Sqlite(SqliteConnection),
}

impl Limit {
    /// Connects to tables that exist.
    pub async fn connect(url: &str, options: &Options) -> Result<Self> {
        let inner = match sqlite_path(url) {
            Some(path) => {
                let synchronous = match options.synchronous {
                    Synchronous::Full => SqliteSynchronous::Full,
                    Synchronous::Normal => SqliteSynchronous::Normal,
                };
                let file = SqliteConnectOptions::new().filename(path).synchronous(synchronous);
                let file = file.busy_timeout(Duration::from_secs(10)).disable_statement_logging();
                Inner::Sqlite(file.connect().await.map_err(said)?)
            }
            None => {
                let server = PgConnectOptions::from_str(url).map_err(said)?.disable_statement_logging();
                let schema = options.schema.clone().unwrap_or_else(|| PUBLIC.to_owned());
                Inner::Postgres { connection: server.connect().await.map_err(said)?, schema }
            }
        };
        Ok(Self(inner))
    }

    /// Completes every available item by the plain batched UPDATE, `block` rows a transaction, one connection.
    /// Returns how many, and the time of the UPDATEs and commits alone.
    pub async fn update_all(&mut self, block: usize) -> Result<(u64, Duration)> {
        match &mut self.0 {
            Inner::Postgres { connection, schema } => update_postgres(connection, schema, block).await,
            Inner::Sqlite(connection) => update_sqlite(connection, block).await,
        }
        .map_err(said)
    }

    /// Adds so many items to so many partitions, which it makes, by plain INSERTs of `block` rows, a transaction each, on
    /// one connection. Returns the time of the INSERTs and commits alone.
    pub async fn insert_all(
        &mut self,
        partitions: usize,
        items: usize,
        data: &[u8],
        block: usize,
    ) -> Result<Duration> {
        let partitions: Vec<String> = (0..partitions).map(|number| format!("limit-{number}")).collect();
        let keys = (0..items)
            .map(|number| (partitions[number % partitions.len()].as_str(), Uuid::now_v7().to_string()));
        let keys: Vec<(&str, String)> = keys.collect();
        match &mut self.0 {
            Inner::Postgres { connection, schema } => {
                insert_postgres(connection, schema, &partitions, &keys, data, block).await
            }
            Inner::Sqlite(connection) => insert_sqlite(connection, &partitions, &keys, data, block).await,
        }
        .map_err(said)
    }

    /// Drops the Postgres schema with all that is in it; a SQLite file is its owner's to remove. What was interrupted may be
    /// at work on it for another moment, and the server may take this for the one to give way.
    pub async fn drop_schema(self) -> Result<()> {
        const TRIES: u32 = 5;
        if let Inner::Postgres { mut connection, schema } = self.0 {
            let drop = format!("DROP SCHEMA \"{schema}\" CASCADE");
            let mut tries = 1;
            while let Err(error) = connection.execute(drop.as_str()).await {
                if !is_deadlock(&error) || tries == TRIES {
                    return Err(said(error));
                }
                tries += 1;
            }
            connection.close().await.map_err(said)?;
        }
        Ok(())
    }

    /// Brings statistics and free space up to date, as autovacuum does sooner or later, so that rounds begin alike.
    pub async fn vacuum(&mut self) -> Result<()> {
        match &mut self.0 {
            Inner::Postgres { connection, schema } => {
                let vacuum = format!("VACUUM ANALYZE \"{schema}\".gatefeed_items");
                connection.execute(vacuum.as_str()).await.map_err(said)?;
            }
            Inner::Sqlite(connection) => {
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await.map_err(said)?;
            }
        }
        Ok(())
    }

    /// Adds so many partitions whose one item is due tomorrow, and as many complete ones.
    pub async fn fill_idle(&mut self, count: usize) -> Result<()> {
        let fill = |text: &str| text.replace("{count}", &count.to_string());
        match &mut self.0 {
            Inner::Postgres { connection, schema } => {
                let text = fill(IDLE_POSTGRES).replace("{schema}", &format!("\"{schema}\""));
                connection.execute(text.as_str()).await.map_err(said)?;
            }
            Inner::Sqlite(connection) => {
                connection.execute(fill(IDLE_SQLITE).as_str()).await.map_err(said)?;
            }
        }
        Ok(())
    }

    /// The process of this connection's Postgres backend, on the server's machine.
    pub async fn backend(&mut self) -> Result<Option<u32>> {
        let Inner::Postgres { connection, .. } = &mut self.0 else { return Ok(None) };
        let pid = sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()")
            .fetch_one(connection)
            .await
            .map_err(said)?;
        Ok(u32::try_from(pid).ok())
    }

    /// Deletes all partitions and items.
    pub async fn clear(&mut self) -> Result<()> {
        match &mut self.0 {
            Inner::Postgres { connection, schema } => {
                let clear = format!("TRUNCATE \"{schema}\".gatefeed_partitions, \"{schema}\".gatefeed_items");
                connection.execute(clear.as_str()).await.map_err(said)?;
            }
            Inner::Sqlite(connection) => {
                connection
                    .execute("DELETE FROM gatefeed_items; DELETE FROM gatefeed_partitions")
                    .await
                    .map_err(said)?;
            }
        }
        Ok(())
    }
}

const IDLE_POSTGRES: &str = "
    INSERT INTO {schema}.gatefeed_partitions (id) SELECT 'waiting-' || n FROM generate_series(1, {count}) AS n;
    INSERT INTO {schema}.gatefeed_items (partition_id, id, available_at)
        SELECT 'waiting-' || n, 'item', now() + interval '1 day' FROM generate_series(1, {count}) AS n;
    INSERT INTO {schema}.gatefeed_partitions (id, status)
        SELECT 'complete-' || n, 'complete' FROM generate_series(1, {count}) AS n;
    INSERT INTO {schema}.gatefeed_items (partition_id, id, status)
        SELECT 'complete-' || n, 'item', 'complete' FROM generate_series(1, {count}) AS n";

const IDLE_SQLITE: &str = "BEGIN IMMEDIATE;
    INSERT INTO gatefeed_partitions (id) WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s LIMIT {count})
        SELECT 'waiting-' || n FROM s;
    INSERT INTO gatefeed_items (partition_id, id, available_at)
        SELECT id, 'item', strftime('%Y-%m-%d %H:%M:%f', 'now', '+1 day') FROM gatefeed_partitions;
    INSERT INTO gatefeed_partitions (id, status)
        SELECT 'complete-' || id, 'complete' FROM gatefeed_partitions WHERE status = 'available';
    INSERT INTO gatefeed_items (partition_id, id, status)
        SELECT id, 'item', 'complete' FROM gatefeed_partitions WHERE status = 'complete';
    COMMIT";

fn said(error: sqlx::Error) -> StoreError {
    StoreError::Unavailable(format!("the limit cannot be measured: {error}"))
}

async fn update_postgres(
    connection: &mut PgConnection,
    schema: &str,
    block: usize,
) -> sqlx::Result<(u64, Duration)> {
    let list = format!(
        "SELECT partition_id, id FROM \"{schema}\".gatefeed_items WHERE status = 'available' \
         ORDER BY partition_id, gate, available_at, id"
    );
    let rows = sqlx::query(&list).fetch_all(&mut *connection).await?;
    let keys: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let update = format!(
        "UPDATE \"{schema}\".gatefeed_items i SET status = 'complete', version = i.version + 1, updated_at = now() \
         FROM unnest($1::text[], $2::text[]) AS u (partition_id, id) \
         WHERE i.partition_id = u.partition_id AND i.id = u.id"
    );
    let started = Instant::now();
    let mut updated = 0;
    for block in keys.chunks(block) {
        let (partitions, ids): (Vec<&str>, Vec<&str>) =
            block.iter().map(|(partition, id)| (partition.as_str(), id.as_str())).unzip();
        let query = sqlx::query(&update).bind(partitions).bind(ids);
        updated += query.execute(&mut *connection).await?.rows_affected();
    }
    Ok((updated, started.elapsed()))
}

async fn insert_postgres(
    connection: &mut PgConnection,
    schema: &str,
    partitions: &[String],
    keys: &[(&str, String)],
    data: &[u8],
    block: usize,
) -> sqlx::Result<Duration> {
    let make = format!("INSERT INTO \"{schema}\".gatefeed_partitions (id) SELECT unnest($1::text[])");
    sqlx::query(&make).bind(partitions).execute(&mut *connection).await?;
    let insert = format!(
        "INSERT INTO \"{schema}\".gatefeed_items (partition_id, id, data) SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[])"
    );
    let started = Instant::now();
    for block in keys.chunks(block) {
        let (partitions, ids): (Vec<&str>, Vec<&str>) =
            block.iter().map(|(partition, id)| (*partition, id.as_str())).unzip();
        let query = sqlx::query(&insert).bind(partitions).bind(ids).bind(vec![data; block.len()]);
        query.execute(&mut *connection).await?;
    }
    Ok(started.elapsed())
}

async fn insert_sqlite(
    connection: &mut SqliteConnection,
    partitions: &[String],
    keys: &[(&str, String)],
    data: &[u8],
    block: usize,
) -> sqlx::Result<Duration> {
    for partition in partitions {
        let make = sqlx::query("INSERT INTO gatefeed_partitions (id) VALUES (?)").bind(partition);
        make.execute(&mut *connection).await?;
    }
    let started = Instant::now();
    for block in keys.chunks(block) {
        let insert =
            format!("INSERT INTO gatefeed_items (partition_id, id, data) {}", values(block.len(), 3));
        let query = block
            .iter()
            .fold(sqlx::query(&insert), |query, (partition, id)| query.bind(*partition).bind(id).bind(data));
        query.execute(&mut *connection).await?;
    }
    Ok(started.elapsed())
}

async fn update_sqlite(connection: &mut SqliteConnection, block: usize) -> sqlx::Result<(u64, Duration)> {
    let list = "SELECT partition_id, id FROM gatefeed_items WHERE status = 'available' \
                ORDER BY partition_id, gate, priority DESC, available_at, id";
    let rows = sqlx::query(list).fetch_all(&mut *connection).await?;
    let keys: Vec<(String, String)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let started = Instant::now();
    let mut updated = 0;
    for block in keys.chunks(block) {
        // CROSS JOIN: the keys are looked up, not the table read.
        let update = format!(
            "WITH u (partition_id, id) AS ({}) UPDATE gatefeed_items SET status = 'complete', \
             version = version + 1, updated_at = strftime('%Y-%m-%d %H:%M:%f', 'now') WHERE rowid IN ( \
             SELECT i.rowid FROM u CROSS JOIN gatefeed_items i ON i.partition_id = u.partition_id AND i.id = u.id)",
            values(block.len(), 2)
        );
        let query = sqlx::query(&update);
        let query = block.iter().fold(query, |query, (partition, id)| query.bind(partition).bind(id));
        updated += query.execute(&mut *connection).await?.rows_affected();
    }
    Ok((updated, started.elapsed()))
}
