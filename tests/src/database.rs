//! A database as its users have it: they speak to it with psql and sqlite3.

use std::{path::PathBuf, process::Command};

use crate::Cluster;

/// SQLite in a file of its own, or a database on a cluster of its own.
pub enum Database {
    /// A file.
    Sqlite {
        /// Keeps the folder.
        dir: tempfile::TempDir,
    },
    /// A cluster.
    Postgres(Cluster),
}

impl Database {
    /// A new SQLite file, not made yet.
    pub fn sqlite() -> Self {
        Self::Sqlite { dir: tempfile::tempdir().unwrap() }
    }

    /// A new cluster.
    pub fn postgres() -> Self {
        Self::Postgres(Cluster::start())
    }

    /// For `--database-url`.
    pub fn url(&self) -> String {
        match self {
            Self::Sqlite { .. } => format!("sqlite://{}", self.file().display()),
            Self::Postgres(cluster) => cluster.url(),
        }
    }

    /// The cluster, of a Postgres.
    pub fn cluster(&self) -> &Cluster {
        match self {
            Self::Postgres(cluster) => cluster,
            Self::Sqlite { .. } => panic!("SQLite has no cluster"),
        }
    }

    fn file(&self) -> PathBuf {
        match self {
            Self::Sqlite { dir } => dir.path().join("gatefeed.db"),
            Self::Postgres(_) => panic!("Postgres is no file"),
        }
    }

    /// Runs SQL in the database's own shell; the rows, columns joined by "|".
    pub fn try_sql(&self, sql: &str) -> Result<Vec<String>, String> {
        let output = match self {
            Self::Sqlite { .. } => {
                // Other processes write to the file: the shell has to wait for its turn as they do.
                let mut command = Command::new("sqlite3");
                command.arg("-cmd").arg(".timeout 20000").arg("-batch").arg(self.file());
                // SQL that begins with a comment would be taken for an option.
                command.arg(format!("\n{sql}"));
                command.output().unwrap()
            }
            Self::Postgres(cluster) => {
                let mut command = Command::new(cluster.program("psql"));
                command.args(["-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-c", sql]).arg(cluster.url());
                command.output().unwrap()
            }
        };
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    /// As [`Self::try_sql`], for SQL that works.
    pub fn sql(&self, sql: &str) -> Vec<String> {
        self.try_sql(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// The one value of the one row.
    pub fn value(&self, sql: &str) -> String {
        self.sql(sql).into_iter().next().unwrap_or_default()
    }

    /// Whether somebody may write now: SQLite has one writer at a time, who may have been stopped at it.
    pub fn can_be_written(&self) -> bool {
        match self {
            Self::Sqlite { .. } => {
                let mut command = Command::new("sqlite3");
                command.arg("-cmd").arg(".timeout 1000").arg("-batch").arg(self.file());
                command.arg("BEGIN IMMEDIATE; ROLLBACK").output().unwrap().status.success()
            }
            Self::Postgres(_) => true,
        }
    }

    /// A plain INSERT of `count` items named `{prefix}0…` at a gate.
    pub fn insert_items(&self, partition: &str, prefix: &str, gate: u32, count: usize) {
        let numbers = match self {
            Self::Sqlite { .. } => format!(
                "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {count}) \
                 INSERT INTO gatefeed_items (partition_id, id, gate, data) \
                 SELECT '{partition}', '{prefix}' || i, {gate}, '{{\"n\": ' || i || '}}' FROM n"
            ),
            Self::Postgres(_) => format!(
                "INSERT INTO gatefeed_items (partition_id, id, gate, data) \
                 SELECT '{partition}', '{prefix}' || i, {gate}, convert_to('{{\"n\": ' || i || '}}', 'UTF8') \
                 FROM generate_series(0, {count} - 1) AS n (i)"
            ),
        };
        self.sql(&numbers);
    }

    /// A plain INSERT of a partition.
    pub fn insert_partition(&self, id: &str) {
        self.sql(&format!("INSERT INTO gatefeed_partitions (id) VALUES ('{id}')"));
    }

    /// How many items have this status.
    pub fn items(&self, status: &str) -> usize {
        self.value(&format!("SELECT count(*) FROM gatefeed_items WHERE status = '{status}'")).parse().unwrap()
    }
}
