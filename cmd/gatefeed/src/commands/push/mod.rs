//! `gatefeed push`.
//!
//! | question | file |
//! | --- | --- |
//! | what is pushed, and can it be read? | `input.rs` |
//! | what is a line, a file, an item? | `lines.rs`, `files.rs`, `envelope.rs`, `entry.rs` |
//! | what shares a statement and a transaction? | `batch.rs`, `send.rs` |
//! | what do people see? | `progress.rs`, `wait.rs`, `report.rs`, `bad.rs` |

mod args;
mod bad;
mod batch;
mod entry;
mod envelope;
mod files;
mod input;
mod lines;
mod progress;
mod report;
mod send;
mod wait;

use std::sync::Arc;

use anyhow::{Result, bail};
use gatefeed_core::{
    Store, StoreError,
    inspect::{PartitionFilter, PartitionRow},
    partition::PartitionStatus,
};
use tokio::{sync::mpsc, task::spawn_blocking};

pub(crate) use self::args::PushArgs;
use self::{
    bad::Bad,
    batch::Batcher,
    entry::Reading,
    input::Input,
    progress::Progress,
    report::Summary,
    send::{Sent, Stage},
};
use crate::{
    database::DatabaseArgs,
    exit,
    output::{self, quoted},
    signals::Signals,
};

/// Items between two updates of the bar while checking.
const CHECKS: u64 = 1000;

/// Batches that wait for the database.
const BATCHES_MAX: usize = 1;

pub(crate) async fn push(database: &DatabaseArgs, args: PushArgs) -> Result<u8> {
    args.check()?;
    let mut signals = Signals::new()?;
    let mut sent = Sent::default();
    let transferred = tokio::select! {
        transferred = transfer(database, &args, &mut sent) => transferred,
        signal = signals.next() => {
            output::note(&format!("interrupted: {}", report::left(&args, &sent)));
            return Ok(signal.exit_code());
        }
    };
    let (store, bad) = match transferred {
        Ok(transferred) => transferred,
        Err(error) if sent.stage == Stage::Reading => return Err(error),
        Err(error) => return Err(error.context(report::left(&args, &sent))),
    };
    if !bad.is_empty() {
        if !args.skip_bad {
            bail!(report::refused(&args, &bad, &sent));
        }
        output::note(&format!("left out {}:{}", bad.headline(args.noun()), bad.list()));
    }
    finish(&*store, &args, &sent, bad.number(), &mut signals).await
}

/// Everything up to the last commit; returns what was bad in the input, because of which nothing more was written
/// unless that is to be left out.
async fn transfer(
    database: &DatabaseArgs,
    args: &PushArgs,
    sent: &mut Sent,
) -> Result<(Arc<dyn Store>, Bad)> {
    let inputs = input::find(args)?;
    let store = database.open_migrated().await?;
    refuse_cancelled(&*store, args).await?;
    let reading = reading(args, false);
    if !args.skip_bad {
        let bad = check(args, &inputs).await?;
        if !bad.is_empty() {
            return Ok((store, bad));
        }
    }
    let (sender, batches) = mpsc::channel(BATCHES_MAX);
    let mut progress = Progress::new("pushing", input::size(&inputs));
    let batcher = Batcher {
        entries: reading.entries(inputs),
        chunk: args.chunk,
        skip_bad: args.skip_bad,
        batches: Some(sender),
    };
    let batcher = spawn_blocking(|| batcher.run());
    send::send(&*store, &args.new_partition(), batches, &mut progress, sent).await?;
    let bad = batcher.await??;
    Ok((store, bad))
}

fn reading(args: &PushArgs, is_check: bool) -> Reading {
    Reading { format: args.format(), bytes_max: args.max_payload, as_files: args.files, is_check }
}

/// Better told before everything has been read.
async fn refuse_cancelled(store: &dyn Store, args: &PushArgs) -> Result<()> {
    let row = partition(store, &args.partition).await?;
    if row.is_some_and(|row| row.status == PartitionStatus::Cancelled) {
        bail!(StoreError::Refused(format!(
            "the partition {} is cancelled: it takes no items",
            args.partition
        )));
    }
    Ok(())
}

/// Reads what can be read twice, and returns what is bad in it.
async fn check(args: &PushArgs, inputs: &[Input]) -> Result<Bad> {
    let inputs: Vec<Input> = inputs.iter().filter(|input| input.is_lasting()).cloned().collect();
    if inputs.is_empty() {
        return Ok(Bad::default());
    }
    let mut progress = Progress::new("checking", input::size(&inputs));
    let entries = reading(args, true).entries(inputs);
    let checked = spawn_blocking(move || {
        let mut bad = Bad::default();
        let (mut unshown, mut bytes_read) = (0, 0);
        for entry in entries {
            let entry = entry?;
            if let Err(problem) = &entry.item {
                bad.add(&entry.place, problem);
            }
            (unshown, bytes_read) = (unshown + 1, bytes_read + entry.bytes);
            if unshown == CHECKS {
                progress.advance(unshown, bytes_read);
                unshown = 0;
            }
        }
        Ok(bad)
    });
    checked.await?
}

/// What comes after the items: the seal, what there is to tell, and waiting.
async fn finish(
    store: &dyn Store,
    args: &PushArgs,
    sent: &Sent,
    skipped: u64,
    signals: &mut Signals,
) -> Result<u8> {
    let id = &args.partition;
    if args.seal {
        let sealed = store.seal(id).await;
        sealed.map_err(|error| {
            anyhow::Error::new(error)
                .context(format!("all items are in, but {id} is not sealed: `gatefeed seal {}`", quoted(id)))
        })?;
    }
    let summary = Summary::new(id, sent.pushed, skipped, None);
    if !args.json.json {
        output::line(&summary.text(args.noun()))?;
    }
    if let Some(row) = partition(store, id).await? {
        report::remarks(args, &row, sent.pushed.created).iter().for_each(|remark| output::note(remark));
    }
    if args.wait {
        return wait_on(store, args, sent, skipped, signals).await;
    }
    if args.json.json {
        output::json_object(&summary)?;
    }
    Ok(exit::OK)
}

async fn wait_on(
    store: &dyn Store,
    args: &PushArgs,
    sent: &Sent,
    skipped: u64,
    signals: &mut Signals,
) -> Result<u8> {
    let id = &args.partition;
    let (ended, code) = tokio::select! {
        ended = wait::wait(store, id) => (Some(ended?), exit::OK),
        signal = signals.next() => (None, signal.exit_code()),
    };
    if args.json.json {
        output::json_object(&Summary::new(id, sent.pushed, skipped, ended.as_ref()))?;
    }
    let Some(ended) = ended else {
        output::note(&format!("stopped waiting: all items are in, and the work on {id} goes on without you"));
        return Ok(code);
    };
    report::ended(store, args, &ended).await
}

/// The partition, if it is there.
async fn partition(store: &dyn Store, id: &str) -> Result<Option<PartitionRow>> {
    let filter = PartitionFilter { id: Some(id.to_owned()), limit: 1, ..PartitionFilter::default() };
    Ok(store.partitions(&filter).await?.pop())
}
