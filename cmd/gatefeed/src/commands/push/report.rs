//! What a push tells at its end.

use anyhow::{Error, Result};
use gatefeed_core::{
    Store, StoreError,
    inspect::{GateCounts, ItemFilter, ItemRow, PartitionRow},
    item::ItemStatus,
    partition::PartitionStatus,
    store::Pushed,
};
use indicatif::HumanCount;
use serde::Serialize;

use super::{
    PushArgs,
    bad::Bad,
    send::{Sent, Stage},
    wait::Ended,
};
use crate::{
    exit,
    output::{self, quoted, shortened},
};

/// How many failed items are shown.
const FAILED_MAX: usize = 5;

const ID_CHARS_MAX: usize = 40;
const ERROR_CHARS_MAX: usize = 100;

/// The line for programs.
#[derive(Serialize)]
pub(super) struct Summary<'a> {
    partition: &'a str,
    created: bool,
    added: u64,
    existing: u64,
    skipped: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<PartitionStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gates: Option<&'a [GateCounts]>,
}

impl<'a> Summary<'a> {
    pub(super) fn new(partition: &'a str, pushed: Pushed, skipped: u64, ended: Option<&'a Ended>) -> Self {
        Self {
            partition,
            created: pushed.created,
            added: pushed.added,
            existing: pushed.existing,
            skipped,
            status: ended.map(|ended| ended.status),
            gates: ended.map(|ended| &ended.gates[..]),
        }
    }

    /// The line for people.
    pub(super) fn text(&self, noun: &str) -> String {
        let (partition, existing) = (self.partition, self.existing);
        let mut text = match (self.added, existing) {
            (0, 0) => format!("nothing to push: {partition} is as it was"),
            (0, 1) => format!("pushed nothing new into {partition}: the item was there already"),
            (0, _) => format!(
                "pushed nothing new into {partition}: all {} items were there already",
                HumanCount(existing)
            ),
            (added, 0) => format!("pushed {} into {partition}", items(added)),
            (added, 1) => format!("pushed {} into {partition} (1 was there already)", items(added)),
            (added, _) => format!(
                "pushed {} into {partition} ({} were there already)",
                items(added),
                HumanCount(existing)
            ),
        };
        if (self.added, existing, self.created) == (0, 0, true) {
            text = format!("nothing to push: made the partition {partition} without items");
        }
        if self.skipped > 0 {
            let nouns = if self.skipped == 1 { noun.to_owned() } else { format!("{noun}s") };
            text += &format!("; left out {} bad {nouns}", HumanCount(self.skipped));
        }
        text
    }
}

fn items(number: u64) -> String {
    format!("{} {}", HumanCount(number), if number == 1 { "item" } else { "items" })
}

/// What people should know of the partition that they pushed into.
pub(super) fn remarks(args: &PushArgs, row: &PartitionRow, is_created: bool) -> Vec<String> {
    let id = &args.partition;
    let mut remarks = Vec::new();
    if let Some(feed) = args.feed.as_ref().filter(|feed| **feed != row.feed) {
        remarks
            .push(format!("{id} was there already, in the feed {}: --feed {feed} changed nothing", row.feed));
    }
    let is_held = row.manual_checkpoint && !row.auto_close;
    if args.hold && !is_created && !is_held {
        remarks.push(format!("{id} was there already and is not held: --hold changed nothing"));
    }
    for flag in without_effect(args, row).into_iter().filter(|_| !is_created) {
        remarks.push(format!("{id} was there already, with another setting: {flag} changed nothing"));
    }
    let seal = format!("once everything is in, `gatefeed seal {}`", quoted(id));
    match (row.manual_checkpoint, row.auto_close) {
        (true, _) => remarks.push(format!("{id} is held at gate {}: {seal}", row.gate)),
        (false, false) => remarks.push(format!("{id} stays open when all is through: {seal}")),
        _ => {}
    }
    match row.status {
        PartitionStatus::Paused => remarks
            .push(format!("{id} is paused: nothing is delivered until `gatefeed resume {}`", quoted(id))),
        PartitionStatus::Failed => remarks.push(format!(
            "{id} has failed: nothing is delivered until that is mended; `gatefeed why {}` says how",
            quoted(id)
        )),
        _ => {}
    }
    remarks
}

/// The flags that ask for other settings than the partition has.
fn without_effect(args: &PushArgs, row: &PartitionRow) -> Vec<&'static str> {
    let deadline = args.gate_deadline.map(|deadline| deadline.as_secs());
    let own_deadline = row.gate_deadline_seconds.map(|seconds| seconds.unsigned_abs().into());
    let flags = [
        ("--failure-policy", args.failure_policy.is_some_and(|policy| policy != row.failure_policy)),
        ("--gate-deadline", deadline.is_some() && deadline != own_deadline),
        ("--keep-history", args.keep_history && !row.keep_history),
    ];
    flags.into_iter().filter(|(_, is_other)| *is_other).map(|(flag, _)| flag).collect()
}

/// What all later errors begin with; `None`: there was nothing to push.
pub(super) fn all_in(sent: &Sent) -> Option<String> {
    match sent.pushed.added + sent.pushed.existing {
        0 => None,
        1 => Some("the item is in; after that".to_owned()),
        number => Some(format!("all {} are in; after that", items(number))),
    }
}

/// Why a push ended early, what it has left in the database, and how to go on.
pub(super) fn broken_off(args: &PushArgs, sent: &Sent, error: &Error) -> String {
    let is_retryable = error.downcast_ref().is_some_and(StoreError::is_retryable);
    let is_nothing = sent.end.is_none() && sent.stage != Stage::Committing;
    let again = if is_retryable && is_nothing { ": push it again" } else { "" };
    format!("{error:#}; {}{again}", left(args, sent))
}

/// What a push that ended early has left in the database, and how to go on.
pub(super) fn left(args: &PushArgs, sent: &Sent) -> String {
    let is_unknown = sent.stage == Stage::Committing;
    match &sent.end {
        None if is_unknown => format!(
            "whether the items are in is not known: `gatefeed items {}` shows. {}",
            quoted(&args.partition),
            again(args).unwrap_or("If they are not, push it again")
        ),
        None => "nothing was written".to_owned(),
        Some(end) => {
            let number = items(sent.pushed.added + sent.pushed.existing);
            let unknown = if is_unknown { "; whether the part after it is too is not known" } else { "" };
            format!("everything up to {end} is in ({number}){unknown}. {}", go_on(args, end.line))
        }
    }
}

/// Why it may be pushed again, unless that would add plain lines twice.
fn again(args: &PushArgs) -> Option<&'static str> {
    match (args.files, args.envelope) {
        (true, _) => Some("Pushing all of it again is safe: what is in stays as it is"),
        (_, true) => {
            Some("Pushing all of it again is safe if every line has an id: what is in stays as it is")
        }
        _ => None,
    }
}

fn go_on(args: &PushArgs, line: Option<u64>) -> String {
    let next = line.unwrap_or(0) + 1;
    let tail = || format!("To go on, leave that out: `tail -n +{next}` begins with the next line");
    again(args).map_or_else(tail, str::to_owned)
}

/// Why bad lines ended a push.
pub(super) fn refused(args: &PushArgs, bad: &Bad, sent: &Sent) -> String {
    let (number, noun) = (bad.headline(args.noun()), args.noun());
    let files = "; whole files, such as indented JSON, are pushed with --files";
    let hint = if bad.is_from_the_start() { files } else { "" };
    format!("{number}: {} (--skip-bad leaves bad {noun}s out{hint}){}", left(args, sent), bad.list())
}

/// Tells how the partition ended and returns the exit code.
pub(super) async fn ended(store: &dyn Store, args: &PushArgs, ended: &Ended) -> Result<u8> {
    let failed: i64 = ended.gates.iter().map(|gate| gate.failed).sum();
    if !args.json.json {
        output::line(&ending(&args.partition, ended.status, failed))?;
        if let Some(reason) = &ended.reason {
            output::note(&format!("Why: {}", output::shown(reason)));
        }
    }
    if failed > 0 {
        failures(store, args).await;
    }
    Ok(if ended.status == PartitionStatus::Complete { exit::OK } else { exit::PARTITION_FAILED })
}

fn ending(partition: &str, status: PartitionStatus, failed: i64) -> String {
    let ending = match status {
        PartitionStatus::Failed => "has failed",
        PartitionStatus::Cancelled => "was cancelled",
        _ => "is complete",
    };
    let items = match failed {
        0 => String::new(),
        1 => ": 1 item failed".to_owned(),
        _ => format!(": {} items failed", output::number(failed)),
    };
    format!("{partition} {ending}{items}")
}

/// The first failed items, and what to do about them.
async fn failures(store: &dyn Store, args: &PushArgs) {
    let filter = ItemFilter {
        partition: args.partition.clone(),
        status: Some(ItemStatus::Failed),
        limit: FAILED_MAX,
        ..ItemFilter::default()
    };
    match store.items(&filter).await {
        Ok(items) => items.iter().for_each(|item| output::note(&failure(item))),
        Err(error) => output::note(&format!("cannot look at the failed items now: {error}")),
    }
    let partition = quoted(&args.partition);
    output::note(&format!("All of them: gatefeed items {partition} --status failed"));
    output::note(&format!("Once the cause is mended: gatefeed retry {partition}"));
}

fn failure(item: &ItemRow) -> String {
    let last = item.error_messages.as_deref().and_then(|log| log.lines().last()).unwrap_or("");
    let id = shortened(&item.id, ID_CHARS_MAX);
    format!("  {id} at gate {}: {}", item.gate, shortened(last, ERROR_CHARS_MAX))
}
