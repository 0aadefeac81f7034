//! Bringing the schema to this binary's version.

use std::time::Duration;

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

impl Postgres {
    pub(super) async fn migrate_schema(&self) -> Result<Migrated> {
        let mut tx = self.begin(Lane::Work, LIMIT).await?;
        self.lock_schema(&mut tx).await?;
        let from = self.version(&mut tx).await?.unwrap_or(0);
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

    /// One migrator at a time over all processes; the lock goes with the transaction.
    async fn lock_schema(&self, tx: &mut Tx) -> Result<()> {
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended('gatefeed migrate ' || $1, 0))";
        let lock = tx.query(lock).bind(&self.sql.schema);
        lock.execute(tx.conn()?).await.map_err(translate)?;
        Ok(())
    }

    /// The schema's version; `None` if its table of migrations does not exist.
    async fn version(&self, tx: &mut Tx) -> Result<Option<i64>> {
        let exists = "SELECT to_regclass($1) IS NOT NULL";
        let exists = tx.query(exists).bind(self.sql.fill("{schema}.gatefeed_migrations"));
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
