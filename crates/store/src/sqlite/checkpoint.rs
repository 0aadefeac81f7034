//! Checkpoints: look, decide, write, all under the write lock, which excludes every inserter.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use gatefeed_core::{
    checkpoint::{Probe, Verdict, decide, failures_below},
    failure_policy::Failures,
    lease::Lease,
    partition::{FailurePolicy, PartitionState, PartitionStatus},
    store::Checkpointed,
};
use sqlx::{Row, SqliteConnection};

use super::{
    Sqlite,
    dependencies::unblock,
    error::{Error, Result},
    fence::current,
    nested::{has_notes, settle_nested},
    page::{RANK_MIN, next_rank, of_group},
    pool::Lane,
    renew::borrowed,
    rows::{at, by_key, deadline_at, maybe_at, now, state, state_columns},
};
use crate::unsettled::Piece;

/// Each answer is one probe of an index, never a count.
pub(super) const LOOK: &str = concat!(
    "SELECT ",
    state_columns!(),
    ", p.next_run_at, ",
    deadline_at!("p."),
    " AS deadline_at, ",
    now!(),
    " AS now,
        (SELECT i.gate FROM gatefeed_items i INDEXED BY gatefeed_items_due
         WHERE i.partition_id = p.id AND i.status = 'available' ORDER BY i.gate LIMIT 1) AS available_gate,
        (SELECT i.gate FROM gatefeed_items i INDEXED BY gatefeed_items_parked
         WHERE i.partition_id = p.id AND i.status IN ('waiting', 'blocked') ORDER BY i.gate LIMIT 1) AS parked_gate,
        (SELECT i.gate FROM gatefeed_items i INDEXED BY gatefeed_items_failed
         WHERE i.partition_id = p.id AND i.status = 'failed' ORDER BY i.gate LIMIT 1) AS failed_gate,
        (SELECT i.waiting_until FROM gatefeed_items i INDEXED BY gatefeed_items_waiting
         WHERE i.partition_id = p.id AND i.status = 'waiting' AND i.waiting_until IS NOT NULL
         ORDER BY i.waiting_until LIMIT 1) AS waiting_until,
        EXISTS (SELECT 1 FROM gatefeed_items i ",
    by_key!(items),
    " WHERE i.partition_id = p.id) AS any_item, ",
    has_notes!(),
    " FROM gatefeed_partitions p WHERE p.id = ?"
);

/// When the first available item at or below a gate is due: one probe a gate and priority.
pub(super) const FIRST_DUE: &str = concat!(
    "WITH RECURSIVE groups (gate_max, rank) AS (
        SELECT ?2, ?3
        UNION ALL
        SELECT g.gate_max, ",
    next_rank!("?1"),
    " FROM groups g WHERE g.rank IS NOT NULL
    )
    SELECT min((SELECT i.available_at FROM gatefeed_items i INDEXED BY gatefeed_items_due
            WHERE i.partition_id = ?1 AND i.status = 'available' AND ",
    of_group!("i"),
    " ORDER BY i.available_at LIMIT 1)) AS due_at, ",
    now!(),
    " AS now FROM groups g"
);

pub(super) const ADVANCE: &str = concat!(
    "UPDATE gatefeed_partitions SET gate = ?2, version = version + 1, updated_at = ",
    now!(),
    " WHERE id = ?1"
);

pub(super) const RELEASE: &str = concat!(
    "UPDATE gatefeed_partitions
    SET owner = NULL, lease_id = NULL, until = NULL, status = ?2, next_run_at = ?3, reason = coalesce(?4, reason),
        version = version + (status <> ?2),
        updated_at = ",
    now!(),
    " WHERE id = ?1"
);

/// A partition and what was seen of it.
pub(super) struct Seen {
    pub(super) state: PartitionState,
    pub(super) probe: Probe,
    next_run_at: Option<String>,
    /// When the next thing happens by itself: an item is due, or its time or the gate's is over.
    next_at: Option<String>,
    /// Something of it is still to be settled: notes of what is nested and has closed, or blocked items.
    pub(super) has_more: bool,
}

/// Closed partitions whose notes are applied in one step of their parent, about: the rest waits for the next.
const CLOSED_MAX: usize = 1_000;

/// What is written to a partition.
enum Step {
    Advance(i32),
    Release { status: PartitionStatus, next_run_at: Option<String>, reason: Option<String> },
}

impl Sqlite {
    /// Looked at first without the write lock: while something is due nothing is written. What is to be written
    /// is decided again under the lock; a lock that is not to be had soon is somebody else's insert.
    pub(super) async fn step(&self, leases: &[Arc<Lease>], hold: Duration) -> Result<Vec<Checkpointed>> {
        let (mut results, undecided) = self.look_first(leases, hold).await?;
        if undecided.is_empty() {
            return Ok(results);
        }
        let (places, leases): (Vec<usize>, Vec<&Lease>) = undecided.into_iter().unzip();
        let decided = match self.step_now(&leases, hold).await {
            Err(error) if error.is_busy() => vec![Checkpointed::Busy; leases.len()],
            decided => decided?,
        };
        for (place, result) in places.into_iter().zip(decided) {
            results[place] = result;
        }
        Ok(results)
    }

    /// The results so far, and the places of those that something is to be written for.
    async fn look_first<'a>(
        &self,
        leases: &'a [Arc<Lease>],
        hold: Duration,
    ) -> Result<(Vec<Checkpointed>, Vec<(usize, &'a Lease)>)> {
        let mut results = Vec::with_capacity(leases.len());
        let mut undecided = Vec::new();
        let mut connection = self.lanes.read(Lane::Work).await?;
        for (lease, current) in leases.iter().zip(current(&mut connection, &borrowed(leases)).await?) {
            let seen = if current { look(&mut connection, &lease.partition).await? } else { None };
            let has_more = seen.as_ref().is_some_and(|seen| seen.has_more);
            let (result, step) = next(seen, hold);
            if step.is_some() || has_more {
                undecided.push((results.len(), lease.as_ref()));
            }
            results.push(result);
        }
        Ok((results, undecided))
    }

    async fn step_now(&self, leases: &[&Lease], hold: Duration) -> Result<Vec<Checkpointed>> {
        let mut tx = self.lanes.write_soon().await?;
        let mut results = Vec::with_capacity(leases.len());
        let current = current(tx.conn()?, leases).await?;
        for (lease, current) in leases.iter().zip(current) {
            let seen = if current { look_and_settle(tx.conn()?, &lease.partition).await? } else { None };
            let (result, step) = next(seen, hold);
            if let Some(step) = step {
                write(tx.conn()?, &lease.partition, step).await?;
            }
            results.push(result);
        }
        tx.commit().await?;
        Ok(results)
    }
}

/// Settles whatever is blocked and need not be: what somebody changed by hand or inserted under a lease. Returns whether
/// more is left.
async fn settle_blocked(connection: &mut SqliteConnection, partition: &str) -> Result<bool> {
    let linked = "SELECT has_dependencies FROM gatefeed_partitions WHERE id = ?";
    match sqlx::query_scalar(linked).bind(partition).fetch_optional(&mut *connection).await? {
        Some(true) => {
            Ok(unblock(connection, partition, None, Some(Piece::of(Piece::WITHIN, 1))).await?.is_some())
        }
        _ => Ok(false),
    }
}

/// Settles what is blocked and what waits for something nested, as far as it need not.
async fn look_and_settle(connection: &mut SqliteConnection, partition: &str) -> Result<Option<Seen>> {
    let mut is_left = settle_blocked(connection, partition).await?;
    let mut seen = look(connection, partition).await?;
    if seen.as_ref().is_some_and(|seen| seen.has_more) {
        is_left |= settle_nested(connection, partition, CLOSED_MAX).await?.is_some();
        seen = look(connection, partition).await?;
    }
    if let Some(seen) = &mut seen {
        seen.has_more |= is_left;
    }
    Ok(seen)
}

/// The result for the owner of what was seen, and what is to be written; `None`: the lease is not current.
fn next(seen: Option<Seen>, hold: Duration) -> (Checkpointed, Option<Step>) {
    seen.map_or((Checkpointed::Fenced, None), |seen| seen.next(hold))
}

/// Looks at a partition; `None` if there is none.
pub(super) async fn look(connection: &mut SqliteConnection, partition: &str) -> Result<Option<Seen>> {
    let row = sqlx::query(LOOK).bind(partition).fetch_optional(&mut *connection).await?;
    let Some(row) = row else { return Ok(None) };
    let state = state(&row)?;
    let available: Option<i32> = row.try_get("available_gate")?;
    let parked: Option<i32> = row.try_get("parked_gate")?;
    let (due_in, due_at) = match available {
        Some(gate) if gate <= state.gate => first_due(connection, partition, state.gate).await?,
        _ => (None, None),
    };
    let deadline_at: Option<String> = row.try_get("deadline_at")?;
    let now = at(&row, "now")?;
    let left = |column| {
        let until: Option<DateTime<Utc>> = maybe_at(&row, column)?;
        Ok::<_, Error>(until.map(|until| (until - now).to_std().unwrap_or_default()))
    };
    let mut probe = Probe {
        open_gate: available.into_iter().chain(parked).min(),
        due_in,
        waiting_in: left("waiting_until")?,
        failed_gate: row.try_get("failed_gate")?,
        failures: Vec::new(),
        deadline_in: left("deadline_at")?,
        any_item: row.try_get("any_item")?,
        exclusive: true,
    };
    if let Some(bound) = failures_below(&state, &probe) {
        probe.failures = failures(connection, partition, bound, state.failure_policy).await?;
    }
    // The same form, so that the order of the texts is that of the moments.
    let next_at = [due_at, deadline_at, row.try_get("waiting_until")?].into_iter().flatten().min();
    Ok(Some(Seen {
        state,
        probe,
        next_run_at: row.try_get("next_run_at")?,
        next_at,
        has_more: row.try_get("has_notes")?,
    }))
}

pub(super) const FAILURES: &str =
    "SELECT gate, count(*) AS failed FROM gatefeed_items INDEXED BY gatefeed_items_failed
    WHERE partition_id = ?1 AND status = 'failed' AND gate < ?2 GROUP BY gate ORDER BY gate";

/// The items that came to a gate: those at it and beyond it, but for what answers at it or later have made beyond it.
pub(super) const CAME: &str = concat!(
    "SELECT count(*) FROM (SELECT 1 FROM gatefeed_items ",
    by_key!(items),
    " WHERE partition_id = ?1
        AND (gate = ?2 OR gate > ?2 AND (creator_gate IS NULL OR creator_gate < ?2)) LIMIT ?3)"
);

/// The gates below `bound` that have failed items, and, under a share, of how many.
async fn failures(
    connection: &mut SqliteConnection,
    partition: &str,
    bound: i64,
    policy: FailurePolicy,
) -> Result<Vec<Failures>> {
    let rows = sqlx::query(FAILURES).bind(partition).bind(bound).fetch_all(&mut *connection).await?;
    let mut all = Vec::with_capacity(rows.len());
    for row in rows {
        let mut failures = Failures { gate: row.try_get("gate")?, failed: row.try_get("failed")?, total: 0 };
        if matches!(policy, FailurePolicy::UpToShare(_)) {
            let limit = policy.total_wanted(failures.failed).unwrap_or(-1);
            let came = sqlx::query_scalar(CAME).bind(partition).bind(failures.gate).bind(limit);
            failures.total = came.fetch_one(&mut *connection).await?;
        }
        all.push(failures);
    }
    Ok(all)
}

async fn first_due(
    connection: &mut SqliteConnection,
    partition: &str,
    gate: i32,
) -> Result<(Option<Duration>, Option<String>)> {
    let row = sqlx::query(FIRST_DUE).bind(partition).bind(gate).bind(RANK_MIN).fetch_one(connection).await?;
    let now = at(&row, "now")?;
    let due_in = maybe_at(&row, "due_at")?.map(|due_at| (due_at - now).to_std().unwrap_or_default());
    Ok((due_in, row.try_get("due_at")?))
}

impl Seen {
    fn next(self, hold: Duration) -> (Checkpointed, Option<Step>) {
        let status = self.state.status;
        let release = |status, next_run_at| Some(Step::Release { status, next_run_at, reason: None });
        if status != PartitionStatus::Available {
            return (Checkpointed::Slept, release(status, self.next_run_at));
        }
        if self.has_more {
            return (Checkpointed::Due, None);
        }
        match decide(&self.state, &self.probe, hold) {
            Verdict::Due => (Checkpointed::Due, None),
            Verdict::Wait(time) => (Checkpointed::Wait(time), None),
            Verdict::Overdue => (Checkpointed::Overdue, None),
            Verdict::Busy => (Checkpointed::Busy, None),
            Verdict::Advance(gate) => (Checkpointed::Advanced(gate), Some(Step::Advance(gate))),
            Verdict::Sleep(time) => (Checkpointed::Slept, release(status, time.and(self.next_at))),
            Verdict::Close => (Checkpointed::Closed, release(PartitionStatus::Complete, None)),
            Verdict::Fail(stop) => {
                let (status, reason) = (PartitionStatus::Failed, Some(stop.to_string()));
                (Checkpointed::Failed, Some(Step::Release { status, next_run_at: None, reason }))
            }
        }
    }
}

async fn write(connection: &mut SqliteConnection, partition: &str, step: Step) -> Result<()> {
    let query = match step {
        Step::Advance(gate) => sqlx::query(ADVANCE).bind(partition).bind(gate),
        Step::Release { status, next_run_at, reason } => {
            sqlx::query(RELEASE).bind(partition).bind(status.as_str()).bind(next_run_at).bind(reason)
        }
    };
    query.execute(connection).await?;
    Ok(())
}
