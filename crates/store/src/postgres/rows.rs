//! Rows as types.

use std::{str::FromStr, sync::Arc, time::Duration};

use gatefeed_core::{
    Result,
    lease::Lease,
    partition::{FailurePolicy, PartitionState, PartitionStatus},
};
use sqlx::{Row, postgres::PgRow};
use uuid::Uuid;

use super::error::translate;

/// The columns of [`state`], of the table or alias `p`.
macro_rules! state_columns {
    () => {
        "p.feed, p.status, p.gate, p.manual_checkpoint, p.auto_close, p.max_in_flight, p.failure_policy, p.version,
            p.gate_deadline_seconds, p.keep_history, p.has_dependencies,
            coalesce(coalesce(p.gate_since, p.created_at) + p.gate_deadline_seconds * interval '1 second'
                <= clock_timestamp(), false) AS is_past_deadline"
    };
}
pub(super) use state_columns;

/// A column's value; a type that does not fit is a defect.
pub(super) fn get<'r, T>(row: &'r PgRow, column: &str) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(column).map_err(translate)
}

/// The partition of a row with [`state_columns`].
pub(super) fn state(row: &PgRow) -> Result<PartitionState> {
    Ok(PartitionState {
        feed: get(row, "feed")?,
        status: PartitionStatus::from_str(get(row, "status")?)?,
        gate: get(row, "gate")?,
        manual_checkpoint: get(row, "manual_checkpoint")?,
        auto_close: get(row, "auto_close")?,
        max_in_flight: get::<Option<i32>>(row, "max_in_flight")?.map(i32::unsigned_abs),
        failure_policy: FailurePolicy::from_str(get(row, "failure_policy")?)?,
        gate_deadline: get::<Option<i32>>(row, "gate_deadline_seconds")?.map(seconds),
        is_past_deadline: get(row, "is_past_deadline")?,
        keep_history: get(row, "keep_history")?,
        version: get(row, "version")?,
        has_dependencies: get(row, "has_dependencies")?,
    })
}

/// As [`get`], by position: for rows of which there are many, since looking up names takes longer than all the rest.
pub(super) fn at<'r, T>(row: &'r PgRow, position: usize) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(position).map_err(translate)
}

fn seconds(seconds: i32) -> Duration {
    Duration::from_secs(seconds.unsigned_abs().into())
}

/// Leases as the arrays that `unnest($1, $2, $3, $4)` takes: id, owner, lease id, epoch.
pub(super) struct LeaseArrays {
    pub(super) ids: Vec<String>,
    pub(super) owners: Vec<String>,
    pub(super) lease_ids: Vec<Uuid>,
    pub(super) epochs: Vec<i64>,
}

impl LeaseArrays {
    pub(super) fn new<'a>(leases: impl Iterator<Item = &'a Lease>) -> Self {
        let mut arrays = Self { ids: vec![], owners: vec![], lease_ids: vec![], epochs: vec![] };
        for lease in leases {
            arrays.ids.push(lease.partition.to_string());
            arrays.owners.push(lease.owner.to_string());
            arrays.lease_ids.push(lease.lease_id);
            arrays.epochs.push(lease.epoch);
        }
        arrays
    }

    pub(super) fn of(leases: &[Arc<Lease>]) -> Self {
        Self::new(leases.iter().map(AsRef::as_ref))
    }
}
