//! Items in a database, and what became of them.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use gatefeed_tests::{Database, Gatefeed, binary, gatefeed};
use serde_json::Value;

use super::service::example;

/// What became of an item.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) status: String,
    pub(crate) gate: i32,
    pub(crate) pass: i32,
    pub(crate) retries: i32,
    pub(crate) content_type: String,
    pub(crate) data: Vec<u8>,
    pub(crate) errors: String,
}

impl Item {
    /// Its data, which is JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Its data, once it is through at this gate.
    #[track_caller]
    pub(crate) fn complete(&self, gate: i32) -> Value {
        assert_eq!((self.status.as_str(), self.gate), ("complete", gate), "{self:?}");
        self.json()
    }

    /// That it failed at its first attempt, with this message.
    #[track_caller]
    pub(crate) fn assert_refused(&self, message: &str) {
        assert_eq!((self.status.as_str(), self.retries), ("failed", 0), "{self:?}");
        assert!(self.errors.ends_with(message), "{message}: {self:?}");
    }
}

/// Makes the tables and these partitions.
pub(crate) fn prepare(database: &Database, partitions: &[&str]) {
    assert!(gatefeed(database, &["migrate"]).status.success());
    partitions.iter().for_each(|id| database.insert_partition(id));
}

/// Pushes what docs/cookbook.md says under this heading, by the very commands that stand there.
pub(crate) fn push_as_documented(database: &Database, heading: &str) {
    let cookbook = fs::read_to_string(example("../docs/cookbook.md")).unwrap();
    let section = cookbook.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let lines = section.unwrap_or_else(|| panic!("no heading {heading}")).lines();
    let commands: Vec<&str> = lines.filter(|line| line.contains("gatefeed push --partition")).collect();
    assert!(!commands.is_empty(), "{heading}");
    sh(database, &commands.join("\n"));
}

/// Runs what people type, in the repository's folder.
pub(crate) fn sh(database: &Database, commands: &str) {
    let output = Command::new("sh")
        .args(["-ec", commands])
        .current_dir(example(".."))
        .env("PATH", path_with(binary().parent().unwrap()))
        .env("GATEFEED_DATABASE_URL", database.url())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{commands}: {}", String::from_utf8_lossy(&output.stderr));
}

fn path_with(folder: &Path) -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths([folder.to_owned()].into_iter().chain(std::env::split_paths(&path))).unwrap()
}

/// A plain INSERT of an item, whatever its bytes are.
pub(crate) fn insert(database: &Database, partition: &str, id: &str, gate: i32, data: &[u8]) {
    let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
    let data = match database {
        Database::Sqlite { .. } => format!("x'{hex}'"),
        Database::Postgres(_) => format!("decode('{hex}', 'hex')"),
    };
    database.sql(&format!(
        "INSERT INTO gatefeed_items (partition_id, id, gate, data) VALUES ('{partition}', '{id}', {gate}, {data})"
    ));
}

/// An item as it stands now.
pub(crate) fn item(database: &Database, partition: &str, id: &str) -> Item {
    let hex = match database {
        Database::Sqlite { .. } => "lower(hex(data))",
        Database::Postgres(_) => "encode(data, 'hex')",
    };
    let row = database.value(&format!(
        "SELECT status, gate, pass, retry_count, content_type, {hex}, \
         coalesce(replace(error_messages, '\n', ' / '), '') \
         FROM gatefeed_items WHERE partition_id = '{partition}' AND id = '{id}'"
    ));
    let columns: Vec<&str> = row.splitn(7, '|').collect();
    let [status, gate, pass, retries, content_type, data, errors] = columns[..] else {
        panic!("no item {id} in {partition}: {row}");
    };
    Item {
        status: status.into(),
        gate: gate.parse().unwrap(),
        pass: pass.parse().unwrap(),
        retries: retries.parse().unwrap(),
        content_type: content_type.into(),
        data: unhex(data),
        errors: errors.into(),
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// Runs a watcher until nothing is left to do, and checks how it ends.
pub(crate) async fn run(database: &Database, target: &str, code: i32) {
    let mut watcher = Gatefeed::run(database, target, &["--until-idle", "--poll-interval", "100ms"]);
    assert_eq!(watcher.ended().await.code(), Some(code), "{}", watcher.log());
}

/// The partition's status.
pub(crate) fn status(database: &Database, partition: &str) -> String {
    database.value(&format!("SELECT status FROM gatefeed_partitions WHERE id = '{partition}'"))
}
