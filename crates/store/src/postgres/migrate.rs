//! Bringing the schema to this binary's version.

use std::time::{Duration, Instant};

use gatefeed_core::{Result, StoreError, store::Migrated};
use sqlx::{Executor, Row};

use super::{
    Postgres,
    error::translate,
    pool::{Lane, Tx},
};
use crate::migration::{MIGRATIONS, newest};

/// A migration may have to rewrite large tables.
const LIMIT: Duration = Duration::from_secs(3600);

/// How long a migration waits for a table at a time: whoever wants to write it waits behind the migration, all watchers too,
/// and what the migration waits for may be a push that is open for minutes.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// Between two tries.
const PAUSE: Duration = Duration::from_secs(2);

/// For an answer that takes no time, from a server that is there.
const ANSWER_MAX: Duration = Duration::from_secs(15);

impl Postgres {
    /// Tries until nobody is in the way.
    pub(super) async fn migrate_schema(&self) -> Result<Migrated> {
        let started = Instant::now();
        loop {
            match self.try_to_migrate().await {
                Err(StoreError::Locked(why) | StoreError::Conflict(why)) if started.elapsed() < LIMIT => {
                    tracing::warn!(%why, "the schema cannot be migrated while others write; trying again");
                    tokio::time::sleep(PAUSE.mul_f64(rand::random_range(0.5..1.0))).await;
                }
                result => return result,
            }
        }
    }

    /// In one transaction.
    async fn try_to_migrate(&self) -> Result<Migrated> {
        let begun = tokio::time::timeout(ANSWER_MAX, self.begin_migration()).await;
        let (mut tx, from) = begun.unwrap_or_else(|_| Err(silent()))?;
        if from > newest() {
            tx.rollback().await?;
            return Err(StoreError::SchemaNewer { found: from, known: newest() });
        }
        if from < newest() {
            self.check_encoding(&mut tx).await?;
            self.prepare(&mut tx).await?;
            for migration in MIGRATIONS.iter().filter(|m| m.version > from) {
                tx.conn()?.execute(self.sql.fill(migration.postgres).as_str()).await.map_err(translate)?;
                let note =
                    self.sql.get("INSERT INTO {schema}.gatefeed_migrations (version, name) VALUES ($1, $2)");
                let note = tx.query(note).bind(migration.version).bind(migration.name);
                note.execute(tx.conn()?).await.map_err(translate)?;
            }
        }
        tx.commit().await?;
        Ok(Migrated { from, to: newest() })
    }

    pub(super) async fn check_version(&self) -> Result<()> {
        let mut tx = self.begin(Lane::Work, Duration::from_secs(10)).await?;
        let version = self.version(&mut tx).await?;
        tx.rollback().await?;
        match version {
            None | Some(0) => {
                Err(StoreError::SchemaMissing { place: format!(" in schema {:?}", self.sql.schema) })
            }
            Some(found) if found < newest() => Err(StoreError::SchemaOlder { found, needed: newest() }),
            Some(found) if found > newest() => Err(StoreError::SchemaNewer { found, known: newest() }),
            Some(_) => Ok(()),
        }
    }

    /// Ids, data and the tables' own texts are UTF-8, which SQL_ASCII takes as it is, and others in part only.
    async fn check_encoding(&self, tx: &mut Tx) -> Result<()> {
        let ask = tx.query("SELECT current_setting('server_encoding'), current_database()::text");
        let row = ask.fetch_one(tx.conn()?).await.map_err(translate)?;
        let (encoding, database): (String, String) = (row.get(0), row.get(1));
        if matches!(encoding.as_str(), "UTF8" | "SQL_ASCII") {
            return Ok(());
        }
        Err(StoreError::Config(format!(
            "the encoding of the database {database:?} is {encoding}, and gatefeed needs UTF8: make another one \
             (createdb -E UTF8 -T template0 NAME), and name it in the database URL"
        )))
    }

    /// Returns the version that there is.
    async fn begin_migration(&self) -> Result<(Tx, i64)> {
        let mut tx = self.begin_with_lock_wait(Lane::Work, LIMIT, LOCK_WAIT).await?;
        if let Some(from) = self.version(&mut tx).await?.filter(|from| *from == newest()) {
            return Ok((tx, from));
        }
        self.lock_schema(&mut tx).await?;
        let from = self.version(&mut tx).await?.unwrap_or(0);
        Ok((tx, from))
    }

    /// One migrator at a time over all processes; the lock goes with the transaction.
    async fn lock_schema(&self, tx: &mut Tx) -> Result<()> {
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended('gatefeed migrate ' || $1, 0))";
        let lock = tx.query(lock).bind(&self.sql.schema);
        match lock.execute(tx.conn()?).await.map_err(translate) {
            Err(StoreError::Locked(_)) => Err(StoreError::Locked("another gatefeed is migrating it".into())),
            result => result.map(|_| ()),
        }
    }

    /// The schema's version; `None` if its table of migrations does not exist.
    async fn version(&self, tx: &mut Tx) -> Result<Option<i64>> {
        // Not to_regclass, which remembers for the whole session what does not exist.
        let exists = "SELECT EXISTS (SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = $1 AND c.relname = 'gatefeed_migrations')";
        let exists = tx.query(exists).bind(&self.sql.schema);
        let exists: bool = exists.fetch_one(tx.conn()?).await.map_err(translate)?.get(0);
        if !exists {
            return Ok(None);
        }
        let read =
            tx.query(self.sql.get("SELECT coalesce(max(version), 0) FROM {schema}.gatefeed_migrations"));
        Ok(Some(read.fetch_one(tx.conn()?).await.map_err(translate)?.get(0)))
    }

    /// The schema itself and the table of migrations. CREATE SCHEMA IF NOT EXISTS wants the privilege even where
    /// the schema exists, so it is only used where it does not.
    async fn prepare(&self, tx: &mut Tx) -> Result<()> {
        let exists =
            tx.query("SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)").bind(&self.sql.schema);
        let exists: bool = exists.fetch_one(tx.conn()?).await.map_err(translate)?.get(0);
        if !exists {
            tx.conn()?.execute(self.sql.get("CREATE SCHEMA {schema}")).await.map_err(translate)?;
        }
        let table = "CREATE TABLE IF NOT EXISTS {schema}.gatefeed_migrations (version bigint PRIMARY KEY, \
                     name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())";
        tx.conn()?.execute(self.sql.get(table)).await.map_err(translate)?;
        Ok(())
    }
}

fn silent() -> StoreError {
    StoreError::Unavailable(format!("the database did not answer within {} s", ANSWER_MAX.as_secs()))
}
