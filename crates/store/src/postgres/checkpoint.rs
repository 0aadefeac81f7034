//! Checkpoints: lock, look, decide, write.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use chrono::{DateTime, Utc};
use gatefeed_core::{
    Result,
    checkpoint::{Probe, Verdict, decide, failures_below},
    failure_policy::Failures,
    lease::Lease,
    partition::{FailurePolicy, PartitionState, PartitionStatus},
    store::Checkpointed,
};
use sqlx::{Row, postgres::PgRow};

use super::{
    Postgres,
    error::translate,
    pool::{Lane, Tx},
    rows::{LeaseArrays, get, state, state_columns},
    wake::Hint,
};

const LIMIT: Duration = Duration::from_secs(9);

/// Locks what is current and free to lock. FOR UPDATE excludes inserters that have not committed, which going
/// idle, closing and failing need; NO KEY UPDATE does not, and is enough for an advance.
macro_rules! lock {
    ($strength:literal) => {
        concat!(
            "SELECT p.id, ",
            state_columns!(),
            ", coalesce(p.gate_since, p.created_at) + p.gate_deadline_seconds * interval '1 second' AS deadline_at
              FROM {schema}.gatefeed_partitions p
              JOIN unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[]) AS l (id, owner, lease_id, epoch)
                ON p.id = l.id AND p.owner = l.owner AND p.lease_id = l.lease_id AND p.epoch = l.epoch
              ORDER BY p.id FOR ",
            $strength,
            " OF p SKIP LOCKED"
        )
    };
}

/// Each answer is one probe of an index (of one a gate and priority for `due_at`), never a count. ORDER BY and
/// LIMIT instead of EXISTS: the planner takes the latter for a sequential scan on a drained table.
pub(super) const PROBE: &str = "SELECT r.id,
        least((SELECT i.gate FROM {schema}.gatefeed_items i WHERE i.partition_id = r.id AND i.status = 'available'
            ORDER BY i.gate LIMIT 1),
            (SELECT i.gate FROM {schema}.gatefeed_items i
            WHERE i.partition_id = r.id AND i.status IN ('waiting', 'blocked') ORDER BY i.gate LIMIT 1)) AS open_gate,
        (SELECT i.gate FROM {schema}.gatefeed_items i WHERE i.partition_id = r.id AND i.status = 'failed'
         ORDER BY i.gate LIMIT 1) AS failed_gate,
        (SELECT i.id FROM {schema}.gatefeed_items i WHERE i.partition_id = r.id ORDER BY i.id LIMIT 1) IS NOT NULL
            AS any_item,
        d.due_at, CASE WHEN d.due_at IS NOT NULL THEN
            (extract(epoch FROM greatest(d.due_at - clock_timestamp(), '0')) * 1000000)::bigint END AS due_in,
        clock_timestamp() AS now,
        (SELECT i.waiting_until FROM {schema}.gatefeed_items i WHERE i.partition_id = r.id AND i.status = 'waiting'
            AND i.waiting_until IS NOT NULL ORDER BY i.waiting_until LIMIT 1) AS waiting_until,
        (SELECT true FROM {schema}.gatefeed_closed c WHERE c.parent_partition_id = r.id AND NOT c.applied LIMIT 1)
            IS NOT NULL AS has_notes
    FROM unnest($1::text[], $2::int[]) AS r (id, gate)
    CROSS JOIN LATERAL (
        WITH RECURSIVE groups (gate, rank) AS (
            (SELECT g.gate, -(g.priority::bigint) FROM {schema}.gatefeed_items g
             WHERE g.partition_id = r.id AND g.status = 'available' AND g.gate <= r.gate
             ORDER BY g.gate, -(g.priority::bigint) LIMIT 1)
            UNION ALL
            SELECT n.gate, n.rank FROM groups o CROSS JOIN LATERAL (
                SELECT g.gate, -(g.priority::bigint) AS rank FROM {schema}.gatefeed_items g
                WHERE g.partition_id = r.id AND g.status = 'available' AND g.gate <= r.gate
                    AND (g.gate, -(g.priority::bigint)) > (o.gate, o.rank)
                ORDER BY g.gate, -(g.priority::bigint) LIMIT 1) n
        )
        SELECT min(a.available_at) AS due_at FROM groups o CROSS JOIN LATERAL (
            SELECT i.available_at FROM {schema}.gatefeed_items i
            WHERE i.partition_id = r.id AND i.status = 'available' AND i.gate = o.gate
                AND -(i.priority::bigint) = o.rank
            ORDER BY i.available_at LIMIT 1) a
    ) d";

const WRITE: &str = "UPDATE {schema}.gatefeed_partitions p
    SET status = coalesce(u.status, p.status), gate = coalesce(u.gate, p.gate),
        next_run_at = CASE WHEN u.release AND NOT u.keep THEN u.next_run_at ELSE p.next_run_at END,
        owner = CASE WHEN NOT u.release THEN p.owner END, lease_id = CASE WHEN NOT u.release THEN p.lease_id END,
        until = CASE WHEN NOT u.release THEN p.until END, updated_at = now(), reason = coalesce(u.reason, p.reason),
        version = CASE WHEN u.status IS NULL AND u.gate IS NULL THEN p.version ELSE p.version + 1 END
    FROM unnest($1::text[], $2::text[], $3::int[], $4::bool[], $5::bool[], $6::timestamptz[], $7::text[])
        AS u (id, status, gate, release, keep, next_run_at, reason)
    WHERE p.id = u.id RETURNING u.status IS NOT NULL AND p.parent_partition_id IS NOT NULL";

/// Closed partitions whose notes are applied in one step of their parent, about: the rest waits for the next.
const CLOSED_MAX: usize = 1_000;

const FAILURES: &str = "SELECT f.gate, f.failed, f.total FROM {schema}.gatefeed_failures($1, $2, $3) f";

/// A partition whose row is locked.
struct Locked {
    state: PartitionState,
    /// Whether the lock excludes inserters.
    exclusive: bool,
    deadline_at: Option<DateTime<Utc>>,
}

/// A locked partition and what was seen of it.
struct Seen {
    state: PartitionState,
    probe: Probe,
    /// When the next thing happens by itself: an item is due, or its time or the gate's is over.
    next_at: Option<DateTime<Utc>>,
    deadline_at: Option<DateTime<Utc>>,
    /// Something of it is still to be settled: notes of what is nested and has closed, or blocked items.
    has_more: bool,
}

/// What is written to one partition.
#[derive(Default)]
struct Step {
    status: Option<&'static str>,
    gate: Option<i32>,
    release: bool,
    /// Leave `next_run_at` as it is.
    keep: bool,
    next_run_at: Option<DateTime<Utc>>,
    reason: Option<String>,
}

impl Postgres {
    pub(super) async fn step(&self, leases: &[Arc<Lease>], hold: Duration) -> Result<Vec<Checkpointed>> {
        let mut tx = self.begin(Lane::Work, LIMIT).await?;
        let locked = self.lock(&mut tx, leases).await?;
        let missing = leases.iter().filter(|l| !locked.contains_key(l.partition.as_ref()));
        let current = self.current(&mut tx, missing.map(AsRef::as_ref)).await?;
        let linked = locked.iter().filter(|(_, locked)| locked.state.has_dependencies);
        let blocked =
            self.unblock_all(&mut tx, &linked.map(|(id, _)| id.as_str()).collect::<Vec<_>>()).await?;
        let seen = self.probe(&mut tx, locked).await?;
        let mut seen = self.apply_notes(&mut tx, seen).await?;
        for (_, seen) in seen.iter_mut().filter(|(id, _)| blocked.contains(*id)) {
            seen.has_more = true;
        }
        self.count_failures(&mut tx, &mut seen).await?;
        let mut steps = Vec::new();
        let mut results = Vec::with_capacity(leases.len());
        for lease in leases {
            results.push(match seen.get(lease.partition.as_ref()) {
                Some(seen) => {
                    let (result, step) = next(seen, hold);
                    steps.extend(step.map(|step| (lease.partition.as_ref(), step)));
                    result
                }
                None if current.contains(lease.as_ref()) => Checkpointed::Busy,
                None => Checkpointed::Fenced,
            });
        }
        let is_nested = self.write_steps(&mut tx, &steps).await?;
        tx.commit().await?;
        if is_nested {
            self.wake_parents().await;
        }
        self.announce_soon(ended(leases, &results));
        Ok(results)
    }

    /// The rows that could be locked.
    async fn lock(&self, tx: &mut Tx, leases: &[Arc<Lease>]) -> Result<HashMap<String, Locked>> {
        let mut locked = HashMap::new();
        for (statement, exclusive) in [(lock!("UPDATE"), true), (lock!("NO KEY UPDATE"), false)] {
            let missing = leases.iter().filter(|l| !locked.contains_key(l.partition.as_ref()));
            let arrays = LeaseArrays::new(missing.map(AsRef::as_ref));
            if arrays.ids.is_empty() {
                break;
            }
            let query = tx.query(self.sql.get(statement)).bind(arrays.ids).bind(arrays.owners);
            let query = query.bind(arrays.lease_ids).bind(arrays.epochs);
            for row in query.fetch_all(tx.conn()?).await.map_err(translate)? {
                let (state, deadline_at) = (state(&row)?, get(&row, "deadline_at")?);
                locked.insert(row.get("id"), Locked { state, exclusive, deadline_at });
            }
        }
        Ok(locked)
    }

    /// Looks, in a statement that begins after the locks were taken and so sees whatever was committed before.
    async fn probe(&self, tx: &mut Tx, locked: HashMap<String, Locked>) -> Result<HashMap<String, Seen>> {
        if locked.is_empty() {
            return Ok(HashMap::new());
        }
        let (ids, gates): (Vec<&str>, Vec<i32>) =
            locked.iter().map(|(id, locked)| (id.as_str(), locked.state.gate)).unzip();
        let query = tx.query(self.sql.get(PROBE)).bind(ids).bind(gates);
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        let mut locked = locked;
        let mut seen = HashMap::with_capacity(rows.len());
        for row in &rows {
            let id: String = get(row, "id")?;
            if let Some(locked) = locked.remove(&id) {
                seen.insert(id, read(row, locked)?);
            }
        }
        Ok(seen)
    }

    /// Settles what waits for something that has closed, and looks at those partitions again.
    async fn apply_notes(
        &self,
        tx: &mut Tx,
        mut seen: HashMap<String, Seen>,
    ) -> Result<HashMap<String, Seen>> {
        let noted: HashMap<String, Seen> = seen.extract_if(|_, seen| seen.has_more).collect();
        let mut locked = HashMap::with_capacity(noted.len());
        let mut more = HashSet::new();
        for (partition, seen) in noted {
            if self.settle_nested(tx, &partition, CLOSED_MAX).await?.is_some() {
                more.insert(partition.clone());
            }
            locked.insert(partition, Locked::from(seen));
        }
        for (partition, again) in self.probe(tx, locked).await? {
            let has_more = more.contains(&partition);
            seen.insert(partition, Seen { has_more, ..again });
        }
        Ok(seen)
    }

    /// Counts failed items, where a policy puts up with some and there are any.
    async fn count_failures(&self, tx: &mut Tx, seen: &mut HashMap<String, Seen>) -> Result<()> {
        for (partition, seen) in seen {
            let Some(bound) = failures_below(&seen.state, &seen.probe) else { continue };
            let share = match seen.state.failure_policy {
                FailurePolicy::UpToShare(share) => Some(share.hundredths() as i32),
                _ => None,
            };
            let query = tx.query(self.sql.get(FAILURES)).bind(partition).bind(bound).bind(share);
            for row in query.fetch_all(tx.conn()?).await.map_err(translate)? {
                let (gate, failed, total) = (get(&row, "gate")?, get(&row, "failed")?, get(&row, "total")?);
                seen.probe.failures.push(Failures { gate, failed, total });
            }
        }
        Ok(())
    }

    /// Returns whether one that is nested has closed.
    async fn write_steps(&self, tx: &mut Tx, steps: &[(&str, Step)]) -> Result<bool> {
        if steps.is_empty() {
            return Ok(false);
        }
        let all = || steps.iter().map(|(_, step)| step);
        let query = tx.query(self.sql.get(WRITE)).bind(steps.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        let query = query.bind(all().map(|s| s.status).collect::<Vec<_>>());
        let query = query.bind(all().map(|s| s.gate).collect::<Vec<_>>());
        let query = query.bind(all().map(|s| s.release).collect::<Vec<_>>());
        let query = query.bind(all().map(|s| s.keep).collect::<Vec<_>>());
        let query = query.bind(all().map(|s| s.next_run_at).collect::<Vec<_>>());
        let query = query.bind(all().map(|s| s.reason.as_deref()).collect::<Vec<_>>());
        let rows = query.fetch_all(tx.conn()?).await.map_err(translate)?;
        Ok(rows.iter().any(|row| row.get(0)))
    }

    /// Those of the leases that are current.
    pub(super) async fn current<'a>(
        &self,
        tx: &mut Tx,
        leases: impl Iterator<Item = &'a Lease>,
    ) -> Result<HashSet<&'a Lease>> {
        let leases: HashSet<&Lease> = leases.collect();
        if leases.is_empty() {
            return Ok(leases);
        }
        let ids: Vec<String> = leases.iter().map(|l| l.partition.to_string()).collect();
        let rows = self.rows_of(tx, &ids).await?;
        let mut current = HashSet::with_capacity(leases.len());
        for lease in leases {
            if super::renew::is_current(lease, rows.get(lease.partition.as_ref()))? {
                current.insert(lease);
            }
        }
        Ok(current)
    }
}

/// Whoever waits for a partition wants to know.
fn ended(leases: &[Arc<Lease>], results: &[Checkpointed]) -> Vec<Hint> {
    let is_end = |result: &Checkpointed| matches!(result, Checkpointed::Closed | Checkpointed::Failed);
    let ended = leases.iter().zip(results).filter(|(_, result)| is_end(result));
    ended.map(|(lease, _)| Hint::Ended(lease.partition.to_string())).collect()
}

fn read(row: &PgRow, locked: Locked) -> Result<Seen> {
    let Locked { state, exclusive, deadline_at } = locked;
    let due_in = get::<Option<i64>>(row, "due_in")?;
    let now: DateTime<Utc> = get(row, "now")?;
    let left = |until: DateTime<Utc>| (until - now).to_std().unwrap_or_default();
    let deadline_in = deadline_at.map(left);
    let waiting_until: Option<DateTime<Utc>> = get(row, "waiting_until")?;
    let probe = Probe {
        open_gate: get(row, "open_gate")?,
        due_in: due_in.map(|micros| Duration::from_micros(micros.unsigned_abs())),
        waiting_in: waiting_until.map(left),
        failed_gate: get(row, "failed_gate")?,
        failures: Vec::new(),
        deadline_in,
        any_item: get(row, "any_item")?,
        exclusive,
    };
    let next_at = get::<Option<DateTime<Utc>>>(row, "due_at")?;
    let next_at = [next_at, deadline_at, waiting_until].into_iter().flatten().min();
    Ok(Seen { state, probe, next_at, deadline_at, has_more: get(row, "has_notes")? })
}

impl From<Seen> for Locked {
    fn from(seen: Seen) -> Self {
        let Seen { state, probe, deadline_at, .. } = seen;
        Self { state, exclusive: probe.exclusive, deadline_at }
    }
}

/// The result for the owner, and what is written.
fn next(seen: &Seen, hold: Duration) -> (Checkpointed, Option<Step>) {
    let release = Step { release: true, ..Step::default() };
    if seen.state.status != PartitionStatus::Available {
        return (Checkpointed::Slept, Some(Step { keep: true, ..release }));
    }
    if seen.has_more {
        return (Checkpointed::Due, None);
    }
    match decide(&seen.state, &seen.probe, hold) {
        Verdict::Due => (Checkpointed::Due, None),
        Verdict::Wait(time) => (Checkpointed::Wait(time), None),
        Verdict::Overdue => (Checkpointed::Overdue, None),
        Verdict::Busy => (Checkpointed::Busy, None),
        Verdict::Advance(gate) => {
            (Checkpointed::Advanced(gate), Some(Step { gate: Some(gate), ..Step::default() }))
        }
        Verdict::Sleep(time) => {
            let next_run_at = time.and(seen.next_at);
            (Checkpointed::Slept, Some(Step { next_run_at, ..release }))
        }
        Verdict::Close => {
            (Checkpointed::Closed, Some(Step { status: Some(PartitionStatus::Complete.as_str()), ..release }))
        }
        Verdict::Fail(stop) => {
            let (status, reason) = (Some(PartitionStatus::Failed.as_str()), Some(stop.to_string()));
            (Checkpointed::Failed, Some(Step { status, reason, ..release }))
        }
    }
}
