//! Checkpoints: look, decide, write, all under the write lock, which excludes every inserter.

use std::{sync::Arc, time::Duration};

use gatefeed_core::{
    checkpoint::{Probe, Verdict, decide},
    lease::Lease,
    partition::{PartitionState, PartitionStatus},
    store::Checkpointed,
};
use sqlx::{Row, SqliteConnection};

use super::{
    Sqlite,
    error::Result,
    fence::current,
    page::next_group,
    renew::borrowed,
    rows::{at, maybe_at, now, state, state_columns},
};

/// Each answer is one probe of an index, never a count.
pub(super) const LOOK: &str = concat!(
    "SELECT ",
    state_columns!(),
    ", p.id, p.next_run_at,
        (SELECT i.gate FROM gatefeed_items i WHERE i.partition_id = p.id AND i.status = 'available'
         ORDER BY i.gate LIMIT 1) AS available_gate,
        (SELECT i.gate FROM gatefeed_items i WHERE i.partition_id = p.id AND i.status IN ('waiting', 'blocked')
         ORDER BY i.gate LIMIT 1) AS parked_gate,
        (SELECT i.gate FROM gatefeed_items i WHERE i.partition_id = p.id AND i.status = 'failed'
         ORDER BY i.gate LIMIT 1) AS failed_gate,
        EXISTS (SELECT 1 FROM gatefeed_items i WHERE i.partition_id = p.id) AS any_item
    FROM gatefeed_partitions p WHERE p.rowid = ?"
);

/// When the first available item at or below a gate is due: one probe a gate and priority.
pub(super) const FIRST_DUE: &str = concat!(
    "WITH RECURSIVE groups (gate_max, gate, priority) AS (
        SELECT ?2, -1, 0
        UNION ALL
        SELECT g.gate_max, i.gate, i.priority FROM groups g CROSS JOIN gatefeed_items i WHERE i.rowid = ",
    next_group!(),
    ")
    SELECT min((SELECT i.available_at FROM gatefeed_items i
            WHERE i.partition_id = ?1 AND i.status = 'available' AND i.gate = g.gate AND i.priority = g.priority
            ORDER BY i.available_at LIMIT 1)) AS due_at, ",
    now!(),
    " AS now FROM groups g"
);

pub(super) const ADVANCE: &str = concat!(
    "UPDATE gatefeed_partitions SET gate = ?2, version = version + 1, updated_at = ",
    now!(),
    " WHERE rowid = ?1"
);

pub(super) const RELEASE: &str = concat!(
    "UPDATE gatefeed_partitions
    SET owner = NULL, lease_id = NULL, until = NULL, status = ?2, next_run_at = ?3, version = version + 1,
        updated_at = ",
    now!(),
    " WHERE rowid = ?1"
);

/// A partition and what was seen of it.
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) state: PartitionState,
    pub(super) probe: Probe,
    next_run_at: Option<String>,
    due_at: Option<String>,
}

/// What is written to a partition.
enum Step {
    Advance(i32),
    Release { status: PartitionStatus, next_run_at: Option<String> },
}

impl Sqlite {
    /// Looked at first without the write lock: while something is due nothing is written. What is to be written
    /// is decided again under the lock; a lock that is not to be had soon is somebody else's insert.
    pub(super) async fn step(&self, leases: &[Arc<Lease>], hold: Duration) -> Result<Vec<Checkpointed>> {
        let mut results = Vec::with_capacity(leases.len());
        let mut undecided = Vec::new();
        {
            let mut connection = self.lanes.read().await?;
            let rowids = current(&mut connection, &borrowed(leases)).await?;
            for (lease, rowid) in leases.iter().zip(rowids) {
                let (result, step) = next(&mut connection, rowid, hold).await?;
                if step.is_some() {
                    undecided.push((results.len(), lease.as_ref()));
                }
                results.push(result);
            }
        }
        if undecided.is_empty() {
            return Ok(results);
        }
        let (places, leases): (Vec<usize>, Vec<&Lease>) = undecided.into_iter().unzip();
        let steps = match self.step_now(&leases, hold).await {
            Err(error) if error.is_busy() => vec![Checkpointed::Busy; leases.len()],
            steps => steps?,
        };
        for (place, result) in places.into_iter().zip(steps) {
            results[place] = result;
        }
        Ok(results)
    }

    async fn step_now(&self, leases: &[&Lease], hold: Duration) -> Result<Vec<Checkpointed>> {
        let mut tx = self.lanes.write_soon().await?;
        let mut results = Vec::with_capacity(leases.len());
        for rowid in current(tx.conn()?, leases).await? {
            let (result, step) = next(tx.conn()?, rowid, hold).await?;
            if let (Some(rowid), Some(step)) = (rowid, step) {
                write(tx.conn()?, rowid, step).await?;
            }
            results.push(result);
        }
        tx.commit().await?;
        Ok(results)
    }
}

/// The result for the owner of this partition, and what is to be written.
async fn next(
    connection: &mut SqliteConnection,
    rowid: Option<i64>,
    hold: Duration,
) -> Result<(Checkpointed, Option<Step>)> {
    match rowid {
        Some(rowid) => Ok(look(connection, rowid).await?.map_or((Checkpointed::Fenced, None), |seen| seen.next(hold))),
        None => Ok((Checkpointed::Fenced, None)),
    }
}

/// Looks at a partition; `None` if it is gone.
pub(super) async fn look(connection: &mut SqliteConnection, rowid: i64) -> Result<Option<Seen>> {
    let Some(row) = sqlx::query(LOOK).bind(rowid).fetch_optional(&mut *connection).await? else { return Ok(None) };
    let (id, state): (String, _) = (row.try_get("id")?, state(&row)?);
    let available: Option<i32> = row.try_get("available_gate")?;
    let parked: Option<i32> = row.try_get("parked_gate")?;
    let (due_in, due_at) = match available {
        Some(gate) if gate <= state.gate => first_due(connection, &id, state.gate).await?,
        _ => (None, None),
    };
    let probe = Probe {
        open_gate: available.into_iter().chain(parked).min(),
        due_in,
        failed_gate: row.try_get("failed_gate")?,
        any_item: row.try_get("any_item")?,
        exclusive: true,
    };
    Ok(Some(Seen { id, state, probe, next_run_at: row.try_get("next_run_at")?, due_at }))
}

async fn first_due(
    connection: &mut SqliteConnection,
    partition: &str,
    gate: i32,
) -> Result<(Option<Duration>, Option<String>)> {
    let row = sqlx::query(FIRST_DUE).bind(partition).bind(gate).fetch_one(connection).await?;
    let now = at(&row, "now")?;
    let due_in = maybe_at(&row, "due_at")?.map(|due_at| (due_at - now).to_std().unwrap_or_default());
    Ok((due_in, row.try_get("due_at")?))
}

impl Seen {
    fn next(self, hold: Duration) -> (Checkpointed, Option<Step>) {
        let status = self.state.status;
        let release = |status, next_run_at| Some(Step::Release { status, next_run_at });
        if status != PartitionStatus::Available {
            return (Checkpointed::Slept, release(status, self.next_run_at));
        }
        match decide(&self.state, &self.probe, hold) {
            Verdict::Due => (Checkpointed::Due, None),
            Verdict::Wait(time) => (Checkpointed::Wait(time), None),
            Verdict::Busy => (Checkpointed::Busy, None),
            Verdict::Advance(gate) => (Checkpointed::Advanced(gate), Some(Step::Advance(gate))),
            Verdict::Sleep(time) => (Checkpointed::Slept, release(status, time.and(self.due_at))),
            Verdict::Close => (Checkpointed::Closed, release(PartitionStatus::Complete, None)),
            Verdict::Fail => (Checkpointed::Failed, release(PartitionStatus::Failed, None)),
        }
    }
}

async fn write(connection: &mut SqliteConnection, rowid: i64, step: Step) -> Result<()> {
    let query = match step {
        Step::Advance(gate) => sqlx::query(ADVANCE).bind(rowid).bind(gate),
        Step::Release { status, next_run_at } => {
            sqlx::query(RELEASE).bind(rowid).bind(status.as_str()).bind(next_run_at)
        }
    };
    query.execute(connection).await?;
    Ok(())
}
