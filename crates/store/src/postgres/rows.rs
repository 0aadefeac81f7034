//! Rows as types.

use std::{str::FromStr, sync::Arc};

use bytes::Bytes;
use gatefeed_core::{
    Result,
    gather::Gather,
    item::DueItem,
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
            p.has_dependencies"
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
        version: get(row, "version")?,
        has_dependencies: get(row, "has_dependencies")?,
    })
}

/// An item of a page.
pub(super) fn due_item(row: &PgRow) -> Result<DueItem> {
    Ok(DueItem {
        id: get(row, "id")?,
        gate: get(row, "gate")?,
        pass: get(row, "pass")?,
        retry_count: get(row, "retry_count")?,
        suspect_count: get(row, "suspect_count")?,
        version: get(row, "version")?,
        content_type: get(row, "content_type")?,
        size: get::<i32>(row, "size")?.unsigned_abs().into(),
        data: get::<Option<Vec<u8>>>(row, "data")?.map(Bytes::from),
        error_messages: get(row, "error_messages")?,
        gather: get::<Option<&str>>(row, "gather")?.map(Gather::parse).transpose()?,
    })
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
