//! Why a partition, or one of its items, is where it is, and what to do: plain words, made from a few bounded looks.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    circuit::{CircuitState, CircuitStatus},
    inspect::PartitionRow,
    item::ItemStatus,
    partition::PartitionStatus,
};

/// So many items of a kind are looked at; more are "over" that.
pub const LOOK_MAX: usize = 1000;

/// So many of them are named.
pub const NAMED_MAX: usize = 5;

/// What a store has seen of a partition. None of it is counted beyond [`LOOK_MAX`], and finished items are not looked
/// at.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The database's clock.
    pub now: DateTime<Utc>,
    /// The partition; its items are not counted.
    pub partition: PartitionRow,
    /// Available items at or below the gate, the first in the order of delivery.
    pub available: Vec<Seen>,
    /// Waiting and blocked items at or below the gate, in order of gate.
    pub parked: Vec<Seen>,
    /// Failed items, in order of gate.
    pub failed: Vec<Seen>,
    /// The lowest gate above the partition's that has an open item.
    pub next_gate: Option<i32>,
    /// Whether the partition has an item at all.
    pub any_item: bool,
    /// The watchers that serve its feed now.
    pub watchers: Vec<String>,
    /// Targets of its feed that they leave alone.
    pub circuits: Vec<CircuitStatus>,
    /// The item that was asked about.
    pub item: Option<Seen>,
    /// The first of the nested partitions that have not closed and that this item, or else the first that waits, has
    /// made.
    pub waits_for: Vec<String>,
    /// Why the data of the item that was asked about, if it is available, cannot be read from where the question was asked.
    pub data_error: Option<String>,
}

/// An item, without its data.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Seen {
    /// Its id.
    pub id: String,
    /// Its gate.
    pub gate: i32,
    /// Its status.
    pub status: ItemStatus,
    /// Not delivered before.
    pub available_at: DateTime<Utc>,
    /// Without a callback by then, the attempt has failed; none, unless it waits for one.
    pub waiting_until: Option<DateTime<Utc>>,
    /// Failed attempts at its gate that were followed by another.
    pub retry_count: i32,
    /// What its last failed attempt came to.
    pub last_error: Option<String>,
}

/// The answer.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Why {
    /// The partition.
    pub partition: String,
    /// Its status.
    pub status: PartitionStatus,
    /// Its gate.
    pub gate: i32,
    /// Why it is failed or cancelled.
    pub reason: Option<String>,
    /// Who holds it.
    pub owner: Option<String>,
    /// The lease's end.
    pub until: Option<DateTime<Utc>>,
    /// When it has work next.
    pub next_run_at: Option<DateTime<Utc>>,
    /// When the time of its gate is over.
    pub deadline_at: Option<DateTime<Utc>>,
    /// The watchers that serve its feed now.
    pub watchers: Vec<String>,
    /// The item that was asked about.
    pub item: Option<Seen>,
    /// Why it is where it is, in sentences, the most important first.
    pub because: Vec<String>,
    /// What one may do; empty: it goes on by itself, or is through.
    pub todo: Vec<String>,
    /// The first of the items that hold the gate or have failed.
    pub items: Vec<Seen>,
}

/// Why the partition of these facts is where it is; or the item, if one was asked about.
pub fn explain(facts: Facts) -> Why {
    let mut story = Story { facts: &facts, because: Vec::new(), todo: Vec::new(), items: Vec::new() };
    if let Some(item) = &facts.item {
        story.item(item);
    } else {
        story.partition();
    }
    let Story { because, todo, items, .. } = story;
    let deadline_at = facts.deadline_at();
    let Facts { partition, watchers, item, .. } = facts;
    Why {
        partition: partition.id,
        status: partition.status,
        gate: partition.gate,
        reason: partition.reason,
        owner: partition.owner,
        until: partition.until,
        next_run_at: partition.next_run_at,
        deadline_at,
        watchers,
        item,
        because,
        todo,
        items,
    }
}

impl Facts {
    /// The item of which a store says what it waits for.
    pub fn waiting(&self) -> Option<&Seen> {
        let waits = |item: &&Seen| item.status == ItemStatus::Waiting;
        match &self.item {
            Some(item) => Some(item).filter(waits),
            None => self.parked.iter().find(waits),
        }
    }

    /// When the time of its gate is over, if it is open and has one.
    fn deadline_at(&self) -> Option<DateTime<Utc>> {
        let row = &self.partition;
        let since = row.gate_since.unwrap_or(row.created_at);
        let seconds = row.gate_deadline_seconds.filter(|_| row.status == PartitionStatus::Available)?;
        since.checked_add_signed(TimeDelta::seconds(seconds.into()))
    }

    /// Who holds it now.
    fn owner(&self) -> Option<&str> {
        let is_current = self.partition.until.is_some_and(|until| until > self.now);
        self.partition.owner.as_deref().filter(|_| is_current)
    }

    fn is_due(&self, item: &Seen) -> bool {
        item.available_at <= self.now
    }

    /// Why nothing is sent to a target, and until when.
    fn circuit(&self, circuit: &CircuitStatus) -> String {
        let CircuitStatus { target, gate, state, since, until, targets_left } = circuit;
        let time = span((self.now - *since).to_std().unwrap_or_default());
        let what = match state {
            CircuitState::Open => format!("keeps failing, and its circuit has been open for {time}"),
            CircuitState::HalfOpen => {
                format!("kept failing, and its circuit has been half-open or open for {time}")
            }
            CircuitState::Unreachable => format!("cannot be reached, for {time} now"),
        };
        let next = match *until > self.now {
            true => format!("it is tried again {}", self.when(*until)),
            false => "it is being tried again".to_owned(),
        };
        let whose = gate.map_or(", of the gates without a target of their own,", |_| "");
        let waits = match targets_left {
            0 => "what is for it waits and loses no retry",
            1 => "the other target gets its deliveries",
            _ => "the other targets get its deliveries",
        };
        format!("The target {target}{whose} {what}; {next}, and until then {waits}.")
    }

    /// "in 25 s", "3 min ago".
    fn when(&self, time: DateTime<Utc>) -> String {
        match (time - self.now).to_std() {
            Ok(ahead) => format!("in {}", span(ahead)),
            Err(_) => format!("{} ago", span((self.now - time).to_std().unwrap_or_default())),
        }
    }
}

/// A duration in one unit.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The answer in the making.
struct Story<'a> {
    facts: &'a Facts,
    because: Vec<String>,
    todo: Vec<String>,
    items: Vec<Seen>,
}

impl Story<'_> {
    fn because(&mut self, text: impl Into<String>) {
        self.because.push(text.into());
    }

    fn todo(&mut self, text: impl Into<String>) {
        self.todo.push(text.into());
    }

    fn partition(&mut self) {
        let row = &self.facts.partition;
        let (id, gate) = (typed(&row.id), row.gate);
        match row.status {
            PartitionStatus::Available => {
                self.available();
                self.parent();
            }
            PartitionStatus::Paused => {
                self.because(format!("It is paused at gate {gate}: nothing of it is sent."));
                if let Some(owner) = self.facts.owner() {
                    self.because(format!(
                        "Watcher {owner} still holds it until what is in flight has ended."
                    ));
                }
                self.todo(format!("`gatefeed resume {id}` lets it go on."));
            }
            PartitionStatus::Complete => {
                self.because("It is complete: every item is through.");
                self.failures();
            }
            PartitionStatus::Failed => self.failed(),
            PartitionStatus::Cancelled => {
                let reason = row.reason.as_deref().unwrap_or("its status was set by hand");
                self.because(format!("It is cancelled: {reason}. It takes no items and cannot be reopened."));
            }
        }
    }

    /// Who waits for it.
    fn parent(&mut self) {
        let row = &self.facts.partition;
        if let (Some(partition), Some(item)) = (&row.parent_partition_id, &row.parent_item_id) {
            self.because(format!("Item {item} of partition {partition} waits for it to close."));
        }
    }

    /// What the item that waits, if any, waits for.
    fn nested(&mut self) {
        let facts = self.facts;
        if let Some(item) = facts.waiting()
            && !facts.waits_for.is_empty()
        {
            self.because(format!("Item {} waits for {} to close.", item.id, partitions(&facts.waits_for)));
        }
    }

    fn failed(&mut self) {
        let row = &self.facts.partition;
        let (id, gate) = (typed(&row.id), row.gate);
        let reason = row.reason.as_deref().unwrap_or("its status was set by hand");
        self.because(format!("It is failed at gate {gate}: {reason}."));
        self.failures();
        if !self.facts.available.is_empty() || !self.facts.parked.is_empty() {
            self.open_items();
        }
        let mut open = self.facts.available.iter().chain(&self.facts.parked);
        if open.any(|item| item.gate <= gate) {
            self.todo(format!("`gatefeed resume {id}` goes on with what is open at its gate."));
        } else if self.facts.failed.is_empty() {
            // Neither `retry` nor `resume` has anything to do.
            let name = row.id.replace('\'', "''");
            self.because("None of its items is failed any more.");
            self.todo(format!(
                "By SQL: UPDATE gatefeed_partitions SET status = 'available' WHERE id = '{name}'; then it goes on, or completes."
            ));
        }
    }

    /// Failed items, if there are any.
    fn failures(&mut self) {
        let failed = &self.facts.failed;
        let Some(first) = failed.first() else { return };
        let count = counted(failed.len());
        let (has, gate) = (if failed.len() == 1 { "item is" } else { "items are" }, first.gate);
        self.because(format!("{count} {has} failed, the first at gate {gate}: {}.", names(failed.iter())));
        self.last_error(failed.iter());
        let id = typed(&self.facts.partition.id);
        self.todo(format!(
            "`gatefeed items {id} --status failed` lists them; `gatefeed retry {id}` tries again."
        ));
        self.show(failed.iter());
    }

    fn available(&mut self) {
        let facts = self.facts;
        let is_held_up = !facts.available.is_empty() || !facts.parked.is_empty();
        if is_held_up {
            self.open_items();
            self.circuits(|gate| facts.available.iter().any(|item| item.gate == gate));
            if let Some(at) = facts.deadline_at() {
                self.because(format!("Gate {} has to be through {}.", facts.partition.gate, facts.when(at)));
            }
        } else {
            self.gate_is_through();
        }
        self.lease(is_held_up);
    }

    /// What holds the gate.
    fn open_items(&mut self) {
        let facts = self.facts;
        let open = facts.available.len() + facts.parked.len();
        let (count, gate) = (counted(open), facts.partition.gate);
        let items = if open == 1 { "item" } else { "items" };
        self.because(format!("Gate {gate} is held by {count} open {items}."));
        let (due, delayed): (Vec<&Seen>, Vec<&Seen>) =
            facts.available.iter().partition(|item| facts.is_due(item));
        if !due.is_empty() {
            let how = if facts.owner().is_some() { "due, in flight or next" } else { "due" };
            self.kind(&due, how, "");
        }
        if let Some(first) = delayed.iter().map(|item| item.available_at).min() {
            self.kind(&delayed, "delayed", &format!(", the first is due {}", facts.when(first)));
        }
        self.callbacks();
        for (status, how) in [
            (ItemStatus::Waiting, "waiting for nested partitions"),
            (ItemStatus::Blocked, "blocked by items that they depend on"),
        ] {
            let is_meant = |item: &&Seen| item.status == status && item.waiting_until.is_none();
            let parked: Vec<&Seen> = facts.parked.iter().filter(is_meant).collect();
            if !parked.is_empty() {
                self.kind(&parked, how, "");
            }
        }
        self.nested();
        let retried = facts.available.iter().filter(|item| item.last_error.is_some());
        self.last_error(retried);
        self.show(facts.available.iter().chain(&facts.parked));
    }

    /// Items that wait for their handler to call back.
    fn callbacks(&mut self) {
        let facts = self.facts;
        let waiting: Vec<&Seen> = facts.parked.iter().filter(|item| item.waiting_until.is_some()).collect();
        let Some(first) = waiting.iter().filter_map(|item| item.waiting_until).min() else { return };
        let more = match first <= facts.now {
            true => format!(
                ", and the first one's time ended {}: its attempt fails as soon as a watcher has the partition",
                facts.when(first)
            ),
            false => format!(", the first one's time ends {}", facts.when(first)),
        };
        self.kind(&waiting, "waiting for a callback", &more);
    }

    /// Why the item's data cannot be read.
    fn data_error(&mut self) {
        if let Some(error) = &self.facts.data_error {
            self.because(format!("Looked at from here, {error}."));
            self.todo("The log of its watcher says whether that is what it waits for: it may have another blob store.");
        }
    }

    /// Targets to which the items of these gates would go, and which are left alone.
    fn circuits(&mut self, concerns: impl Fn(i32) -> bool) {
        let facts = self.facts;
        let mut told: Vec<(Option<i32>, &str)> = Vec::new();
        for circuit in &facts.circuits {
            let key = (circuit.gate, circuit.target.as_str());
            if circuit.gate.is_none_or(&concerns) && told.len() < NAMED_MAX && !told.contains(&key) {
                told.push(key);
                self.because(facts.circuit(circuit));
            }
        }
    }

    fn kind(&mut self, items: &[&Seen], how: &str, more: &str) {
        let is = if items.len() == 1 { "is" } else { "are" };
        let names = names(items.iter().copied());
        self.because(format!("{} {is} {how}{more}: {names}.", counted(items.len())));
    }

    /// What the first of these last failed with.
    fn last_error<'a>(&mut self, mut items: impl Iterator<Item = &'a Seen>) {
        let Some((item, error)) = items.find_map(|item| Some((item, item.last_error.as_deref()?))) else {
            return;
        };
        let attempts = match (item.status, item.retry_count) {
            (ItemStatus::Available, 0) => String::new(),
            (ItemStatus::Available, 1) => " after 1 failed attempt".to_owned(),
            (ItemStatus::Available, count) => format!(" after {count} failed attempts"),
            _ => String::new(),
        };
        self.because(format!("The last error of {}{attempts}: {error}", item.id));
    }

    fn show<'a>(&mut self, items: impl Iterator<Item = &'a Seen>) {
        self.items.extend(items.take(NAMED_MAX).cloned());
    }

    /// Nothing is open at the gate: what keeps it from going on.
    fn gate_is_through(&mut self) {
        let facts = self.facts;
        let row = &facts.partition;
        let (id, gate) = (typed(&row.id), row.gate);
        match facts.next_gate {
            Some(next) if row.manual_checkpoint => {
                self.because(format!(
                    "Gate {gate} is through, and manual_checkpoint holds it there; the next open items are at gate {next}."
                ));
                self.todo(format!(
                    "`gatefeed seal {id}` says that all items are in, and lets it go for good."
                ));
                self.todo(format!("`gatefeed advance {id}` lets it go to gate {next} only."));
            }
            Some(next) => {
                self.because(format!("Gate {gate} is through; the next checkpoint takes it to gate {next}."))
            }
            None if !facts.any_item => self.because("It has no items yet."),
            None if !row.auto_close => {
                self.because("Every item is through; auto_close is off, so that it stays open for more.");
                self.todo(format!("`gatefeed seal {id}` lets it complete."));
            }
            None => self.because("Every item is through; the next checkpoint completes it."),
        }
    }

    /// Who works on it, and who might.
    fn lease(&mut self, is_held_up: bool) {
        let facts = self.facts;
        let row = &facts.partition;
        match (&row.owner, row.until, row.next_run_at) {
            (Some(owner), Some(until), _) if until > facts.now => {
                self.because(format!(
                    "Watcher {owner} holds it; its lease ends {} unless renewed.",
                    facts.when(until)
                ));
            }
            (Some(owner), Some(until), _) => self.because(format!(
                "Watcher {owner} held it and its lease ended {}: another one takes over when it has room.",
                facts.when(until)
            )),
            (_, _, Some(at)) if at <= facts.now => {
                let time = span((facts.now - at).to_std().unwrap_or_default());
                self.because(format!("Nobody holds it, and it has been due for {time}."));
            }
            (_, _, Some(at)) => self.because(format!("Nobody holds it; it is due {}.", facts.when(at))),
            (_, _, None) if is_held_up => self.because("Nobody holds it; it sleeps until one of them moves."),
            (_, _, None) => {}
        }
        if facts.owner().is_none() && row.next_run_at.is_some() && facts.watchers.is_empty() {
            self.because(format!("No watcher serves its feed {}.", row.feed));
            self.todo(format!("Start one: gatefeed run --feed {} --target URL", typed(&row.feed)));
        }
    }

    fn item(&mut self, item: &Seen) {
        let facts = self.facts;
        let row = &facts.partition;
        let (id, gate) = (typed(&row.id), item.gate);
        match item.status {
            ItemStatus::Complete => self.because(format!("It is complete, since gate {gate}.")),
            ItemStatus::Cancelled => self.because(format!("It was cancelled at gate {gate}.")),
            ItemStatus::Failed => {
                self.because(format!(
                    "It is failed at gate {gate}: its attempts were used up, or it was not to be retried."
                ));
                self.todo(format!("`gatefeed retry {id} --item {}` tries again.", typed(&item.id)));
            }
            ItemStatus::Waiting if item.waiting_until.is_some_and(|until| until <= facts.now) => {
                let when = item.waiting_until.map(|until| facts.when(until)).unwrap_or_default();
                self.because(format!(
                    "It has waited at gate {gate} for a callback, and its time ended {when}: the attempt fails as soon \
                     as a watcher has the partition."
                ));
            }
            ItemStatus::Waiting if item.waiting_until.is_some() => {
                let when = item.waiting_until.map(|until| facts.when(until)).unwrap_or_default();
                self.because(format!(
                    "It waits at gate {gate} for its handler to call back; if that does not happen {when}, the attempt \
                     has failed."
                ));
            }
            ItemStatus::Waiting if facts.waits_for.is_empty() => {
                self.because(format!(
                    "It waits at gate {gate}, and for nothing that gatefeed knows of: its status was set by hand, or the \
                     partitions that it waited for have closed just now."
                ));
            }
            ItemStatus::Waiting => {
                let partitions = partitions(&facts.waits_for);
                self.because(format!("It waits at gate {gate} for {partitions} to close."));
                self.todo(format!("`gatefeed why {}` says what that is about.", typed(&facts.waits_for[0])));
            }
            ItemStatus::Blocked => {
                self.because(format!("It is blocked at gate {gate} by items that it depends on."));
            }
            ItemStatus::Available if gate > row.gate => {
                self.because(format!("It waits for gate {gate}; its partition is at gate {}:", row.gate));
            }
            ItemStatus::Available if !facts.is_due(item) => {
                let when = facts.when(item.available_at);
                self.because(format!("It is delayed at gate {gate}: it is due {when}."));
            }
            ItemStatus::Available => {
                let time = span((facts.now - item.available_at).to_std().unwrap_or_default());
                let how = if facts.owner().is_some() {
                    "in flight, or in line for its owner"
                } else {
                    "waiting for an owner"
                };
                self.because(format!("It has been due at gate {gate} for {time}: {how}."));
            }
        }
        if item.status == ItemStatus::Available && gate <= row.gate {
            self.data_error();
            self.circuits(|of| of == gate);
        }
        self.last_error(std::iter::once(item));
        let is_up_to_partition = item.status == ItemStatus::Available
            && (gate > row.gate || row.status != PartitionStatus::Available);
        match (item.status.is_open(), is_up_to_partition) {
            (true, true) => self.partition(),
            (true, false) => self.lease(true),
            (false, _) => {}
        }
    }
}

/// A name as a shell takes it.
fn typed(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.:/@+".contains(c);
    if name.chars().all(is_plain) && !name.starts_with('-') { name.to_owned() } else { format!("{name:?}") }
}

/// "3", or "over 1000".
fn counted(items: usize) -> String {
    if items > LOOK_MAX { format!("over {LOOK_MAX}") } else { items.to_string() }
}

/// "partition a", "partitions a, b, …".
fn partitions(ids: &[String]) -> String {
    let more = if ids.len() > NAMED_MAX { ", …" } else { "" };
    let word = if ids.len() == 1 { "partition" } else { "partitions" };
    format!("{word} {}{more}", ids[..ids.len().min(NAMED_MAX)].join(", "))
}

/// The first few ids.
fn names<'a>(items: impl Iterator<Item = &'a Seen>) -> String {
    let mut ids: Vec<&str> = items.take(NAMED_MAX + 1).map(|item| item.id.as_str()).collect();
    if ids.len() > NAMED_MAX {
        ids[NAMED_MAX] = "…";
    }
    ids.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{inspect::ItemCounts, partition::FailurePolicy};

    fn at(secs: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::seconds(1_000_000 + secs)
    }

    fn seen(id: &str, status: ItemStatus, gate: i32) -> Seen {
        Seen {
            id: id.into(),
            gate,
            status,
            available_at: at(-60),
            waiting_until: None,
            retry_count: 0,
            last_error: None,
        }
    }

    fn facts(status: PartitionStatus) -> Facts {
        let partition = PartitionRow {
            id: "p".into(),
            feed: "default".into(),
            status,
            gate: 2,
            priority: 0,
            manual_checkpoint: false,
            auto_close: true,
            max_in_flight: None,
            failure_policy: FailurePolicy::Stop,
            gate_deadline_seconds: None,
            gate_since: None,
            keep_history: false,
            reason: None,
            parent_partition_id: None,
            parent_item_id: None,
            owner: None,
            until: None,
            epoch: 1,
            next_run_at: None,
            version: 1,
            items: ItemCounts::default(),
            created_at: at(-9000),
            updated_at: at(-9000),
        };
        Facts {
            now: at(0),
            partition,
            available: vec![],
            parked: vec![],
            failed: vec![],
            next_gate: None,
            any_item: true,
            watchers: vec!["w".into()],
            circuits: vec![],
            item: None,
            waits_for: vec![],
            data_error: None,
        }
    }

    #[test]
    fn nested_partitions_are_named() {
        let waits_for = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let item = seen("i", ItemStatus::Waiting, 2);
        let parked = vec![item.clone()];
        let of_all = Facts { parked, waits_for: waits_for(&["q", "r"]), ..facts(PartitionStatus::Available) };
        assert!(told(of_all).contains("Item i waits for partitions q, r to close."));
        let of_one =
            Facts { item: Some(item), waits_for: waits_for(&["q"]), ..facts(PartitionStatus::Available) };
        let text = told(of_one);
        assert!(text.contains("It waits at gate 2 for partition q to close."), "{text}");
        assert!(text.contains("`gatefeed why q`"), "{text}");
        let mut nested = facts(PartitionStatus::Available);
        nested.partition.parent_partition_id = Some("p0".into());
        nested.partition.parent_item_id = Some("i0".into());
        assert!(told(nested).contains("Item i0 of partition p0 waits for it to close."));
    }

    #[test]
    fn callbacks_that_are_waited_for_have_a_time() {
        let waits = |secs| Seen { waiting_until: Some(at(secs)), ..seen("i", ItemStatus::Waiting, 2) };
        let nested = seen("n", ItemStatus::Waiting, 2);
        let parked = vec![waits(300), waits(1500), nested];
        let text = told(Facts { parked, ..facts(PartitionStatus::Available) });
        assert!(
            text.contains("2 are waiting for a callback, the first one's time ends in 5 min: i, i."),
            "{text}"
        );
        assert!(text.contains("1 is waiting for nested partitions: n."), "{text}");
        let of_one = |item| told(Facts { item: Some(item), ..facts(PartitionStatus::Available) });
        let text = of_one(waits(90));
        assert!(text.contains("if that does not happen in 90 s, the attempt has failed"), "{text}");
        let text = of_one(waits(-90));
        assert!(text.contains("its time ended 90 s ago: the attempt fails as soon"), "{text}");
    }

    #[test]
    fn targets_that_are_left_alone_are_told_where_they_matter() {
        let circuit = |target: &str, gate, state, until, targets_left| CircuitStatus {
            target: target.into(),
            gate,
            state,
            since: at(-150),
            until: at(until),
            targets_left,
        };
        let mut of_all = facts(PartitionStatus::Available);
        of_all.circuits = vec![
            circuit("http://feed/", None, CircuitState::Unreachable, -1, 0),
            circuit("http://own/", Some(2), CircuitState::Open, 4, 1),
            // Of another watcher.
            circuit("http://own/", Some(2), CircuitState::Open, 9, 1),
            circuit("http://elsewhere/", Some(1), CircuitState::Open, 4, 0),
        ];
        let mut of_one = of_all.clone();
        assert!(!told(of_all.clone()).contains("http://"), "nothing would be sent");
        of_all.available = vec![seen("a", ItemStatus::Available, 2)];
        of_one.item = Some(seen("a", ItemStatus::Available, 2));
        for facts in [of_all, of_one.clone()] {
            let text = told(facts);
            assert_eq!(text.matches("The target").count(), 2, "{text}");
            for part in [
                "The target http://feed/, of the gates without a target of their own, cannot be reached, for 2 min now; \
                 it is being tried again, and until then what is for it waits and loses no retry.",
                "The target http://own/ keeps failing, and its circuit has been open for 2 min; it is tried again in 4 s, \
                 and until then the other target gets its deliveries.",
            ] {
                assert!(text.contains(part), "{text}");
            }
        }
        of_one.item = Some(seen("a", ItemStatus::Available, 5));
        assert!(!told(of_one).contains("http://own/"), "its gate is not reached");
    }

    fn told(facts: Facts) -> String {
        let why = explain(facts);
        [why.because, why.todo].concat().join("\n")
    }

    #[track_caller]
    fn assert_told(facts: Facts, texts: &[&str]) {
        let told = told(facts);
        for text in texts {
            assert!(told.contains(text), "{text:?} is not in:\n{told}");
        }
    }

    #[test]
    fn open_items_are_named_by_kind() {
        let mut facts = facts(PartitionStatus::Available);
        facts.available = (0..7).map(|n| seen(&format!("due{n}"), ItemStatus::Available, 2)).collect();
        facts.available[1].last_error = Some("HTTP 500".into());
        facts.available[1].retry_count = 3;
        facts.available.push(Seen { available_at: at(300), ..seen("later", ItemStatus::Available, 1) });
        let called = Seen { waiting_until: Some(at(600)), ..seen("called", ItemStatus::Waiting, 0) };
        facts.parked = vec![called, seen("dep", ItemStatus::Blocked, 2)];
        facts.partition.owner = Some("w".into());
        facts.partition.until = Some(at(25));
        facts.partition.gate_deadline_seconds = Some(10_000);
        assert_told(
            facts.clone(),
            &[
                "Gate 2 is held by 10 open items.",
                "7 are due, in flight or next: due0, due1, due2, due3, due4, ….",
                "1 is delayed, the first is due in 5 min: later.",
                "1 is waiting for a callback",
                "1 is blocked",
                "The last error of due1 after 3 failed attempts: HTTP 500",
                "Gate 2 has to be through in 16 min.",
                "Watcher w holds it; its lease ends in 25 s",
            ],
        );
        assert_eq!(explain(facts).items.len(), NAMED_MAX);
    }

    #[test]
    fn whoever_has_to_act_is_told_what_to_do() {
        let mut held = facts(PartitionStatus::Available);
        held.partition.manual_checkpoint = true;
        held.next_gate = Some(7);
        assert_told(held, &["manual_checkpoint holds it", "`gatefeed seal p`", "`gatefeed advance p`"]);
        let mut open = facts(PartitionStatus::Available);
        open.partition.auto_close = false;
        assert_told(open, &["auto_close is off", "`gatefeed seal p`"]);
        assert_told(facts(PartitionStatus::Paused), &["paused at gate 2", "`gatefeed resume p`"]);
        let mut failed = facts(PartitionStatus::Failed);
        failed.partition.reason = Some("an item at gate 2 is failed".into());
        failed.failed = vec![Seen { last_error: Some("boom".into()), ..seen("bad", ItemStatus::Failed, 2) }];
        let texts = ["failed at gate 2: an item at gate 2 is failed.", "of bad: boom", "`gatefeed retry p`"];
        assert_told(failed.clone(), &texts);
        assert!(!told(failed.clone()).contains("resume"), "nothing is open");
        failed.available = vec![seen("late", ItemStatus::Available, 2)];
        assert_told(failed.clone(), &["`gatefeed resume p`"]);
        // Somebody has ended by hand what had failed, and the rest lies behind the gate.
        failed.failed.clear();
        failed.available[0].gate = 3;
        assert_told(
            failed.clone(),
            &["None of its items is failed", "SET status = 'available' WHERE id = 'p'"],
        );
        assert!(!told(failed).contains("resume"));
        let mut unserved = facts(PartitionStatus::Available);
        unserved.available = vec![seen("a", ItemStatus::Available, 2)];
        unserved.partition.next_run_at = Some(at(-180));
        unserved.watchers.clear();
        assert_told(unserved, &["due for 3 min", "No watcher serves its feed default", "gatefeed run"]);
    }

    #[test]
    fn an_item_is_explained_by_its_partition_where_that_is_why() {
        let mut ahead = facts(PartitionStatus::Available);
        ahead.available = vec![seen("a", ItemStatus::Available, 2)];
        ahead.item = Some(seen("rank", ItemStatus::Available, 5));
        assert_told(ahead, &["It waits for gate 5; its partition is at gate 2", "held by 1 open item."]);
        let mut paused = facts(PartitionStatus::Paused);
        paused.item = Some(seen("a", ItemStatus::Available, 2));
        assert_told(paused, &["due at gate 2 for 60 s", "resume p"]);
        let mut failed = facts(PartitionStatus::Failed);
        failed.item = Some(seen("bad", ItemStatus::Failed, 1));
        assert_told(failed, &["It is failed at gate 1", "`gatefeed retry p --item bad`"]);
        let mut done = facts(PartitionStatus::Available);
        done.item = Some(seen("a", ItemStatus::Complete, 1));
        assert_eq!(told(done), "It is complete, since gate 1.");
    }

    #[test]
    fn what_was_not_counted_is_said() {
        let mut facts = facts(PartitionStatus::Available);
        facts.available = vec![seen("a", ItemStatus::Available, 2); LOOK_MAX + 1];
        assert_told(facts, &["Gate 2 is held by over 1000 open items.", "over 1000 are due"]);
    }
}
