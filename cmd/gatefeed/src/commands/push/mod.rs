//! `gatefeed push`.
//!
//! | question | file |
//! | --- | --- |
//! | what is pushed, and can it be read? | `input.rs`, `check.rs` |
//! | what is a line, a file, an item? | `lines.rs`, `files.rs`, `path.rs`, `envelope.rs`, `entry.rs` |
//! | what shares a statement and a transaction? | `batch.rs`, `send.rs`, `locking.rs` |
//! | what comes after the items? | `finish.rs`, `wait.rs` |
//! | what do people see? | `progress.rs`, `report.rs`, `bad.rs` |

mod args;
mod bad;
mod batch;
mod check;
mod entry;
mod files;
mod finish;
mod input;
mod lines;
mod locking;
mod path;
mod progress;
mod report;
mod send;
mod wait;

use std::sync::Arc;

use anyhow::{Result, bail};
use gatefeed_core::{Store, StoreError, partition::PartitionStatus};
use tokio::{sync::mpsc, task::spawn_blocking};

pub(crate) use self::args::PushArgs;
use self::{
    bad::Bad,
    batch::Batcher,
    check::Checked,
    entry::Reading,
    locking::Locking,
    progress::Progress,
    send::{Sent, Stage},
};
use crate::{database::DatabaseArgs, output, signals::Signals};

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
        Err(error) => bail!(report::broken_off(&args, &sent, &error)),
    };
    if !bad.is_empty() {
        if !args.skip_bad {
            bail!(report::refused(&args, &bad, &sent));
        }
        output::note(&format!("left out {}:{}", bad.headline(args.noun()), bad.list()));
    }
    finish::finish(&*store, &args, &sent, bad.number(), &mut signals).await
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
    let reading = reading(args);
    let checked = if args.skip_bad { Checked::default() } else { check::check(&reading, &inputs).await? };
    if !checked.bad.is_empty() {
        return Ok((store, checked.bad));
    }
    let (sender, batches) = mpsc::channel(BATCHES_MAX);
    let mut progress = Progress::new("pushing", checked.bytes.or_else(|| input::size(&inputs)));
    let mut locking = Locking::new(is_sqlite(database)?, args.chunk);
    let batcher = Batcher {
        entries: reading.entries(inputs),
        chunk: args.chunk,
        skip_bad: args.skip_bad,
        batches: Some(sender),
    };
    let batcher = spawn_blocking(|| batcher.run());
    send::send(&*store, &args.new_partition(), batches, &mut progress, &mut locking, sent).await?;
    let bad = batcher.await??;
    Ok((store, bad))
}

fn reading(args: &PushArgs) -> Reading {
    Reading { format: args.format(), bytes_max: args.max_payload, as_files: args.files, is_check: false }
}

fn is_sqlite(database: &DatabaseArgs) -> Result<bool> {
    Ok(gatefeed_store::sqlite_path(&database.place()?.0).is_some())
}

/// Better told before everything has been read.
async fn refuse_cancelled(store: &dyn Store, args: &PushArgs) -> Result<()> {
    let row = store.partition(&args.partition).await?;
    if row.is_some_and(|row| row.status == PartitionStatus::Cancelled) {
        bail!(StoreError::Refused(format!(
            "the partition {} is cancelled: it takes no items",
            args.partition
        )));
    }
    Ok(())
}
