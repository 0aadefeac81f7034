//! The numbered migrations, the same for both databases; each database has its own text.

/// One step of the schema.
pub(crate) struct Migration {
    pub(crate) version: i64,
    pub(crate) name: &'static str,
    pub(crate) postgres: &'static str,
    pub(crate) sqlite: &'static str,
}

macro_rules! migrations {
    ($($version:literal $name:literal),* $(,)?) => {
        &[$(Migration {
            version: $version,
            name: $name,
            postgres: include_str!(concat!("../../../migrations/postgres/", $name, ".sql")),
            sqlite: include_str!(concat!("../../../migrations/sqlite/", $name, ".sql")),
        }),*]
    };
}

/// All of them, in order.
pub(crate) const MIGRATIONS: &[Migration] = migrations![1 "0001_init", 2 "0002_watchers", 3 "0003_cheaper_updates", 4 "0004_operations", 5 "0005_dependencies_and_gathering",
    6 "0006_nested_partitions", 7 "0007_unblocking_in_pieces", 8 "0008_handoff", 9 "0009_api", 10 "0010_callbacks", 11 "0011_blobs",
    12 "0012_circuits", 13 "0013_requests", 14 "0014_busy_producers", 15 "0015_versions", 16 "0016_waking",
    17 "0017_unblocking_by_bytes", 18 "0018_utf8"];

/// The version this binary needs.
pub(crate) fn newest() -> i64 {
    MIGRATIONS.last().map_or(0, |m| m.version)
}
