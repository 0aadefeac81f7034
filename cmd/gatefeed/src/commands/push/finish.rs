//! What comes after the items: the seal, what there is to tell, and waiting. Whatever fails here, the items are in.

use anyhow::{Context, Result};
use gatefeed_core::Store;

use super::{
    PushArgs,
    report::{self, Summary},
    send::Sent,
    wait::{self, Ended},
};
use crate::{
    exit,
    output::{self, note, quoted},
    signals::Signals,
};

/// How the push itself ended.
enum End {
    Pushed,
    Closed(Ended),
    /// A signal ended the waiting, with this exit code.
    Stopped(u8),
}

impl End {
    fn closed(&self) -> Option<&Ended> {
        match self {
            Self::Closed(ended) => Some(ended),
            _ => None,
        }
    }
}

/// Does the rest, and says in any error that the items are in.
pub(super) async fn finish(
    store: &dyn Store,
    args: &PushArgs,
    sent: &Sent,
    skipped: u64,
    signals: &mut Signals,
) -> Result<u8> {
    let finished = tell(store, args, sent, skipped, signals).await;
    finished.map_err(|error| match report::all_in(sent) {
        Some(text) => error.context(text),
        None => error,
    })
}

/// The line for programs is printed even after an error.
async fn tell(
    store: &dyn Store,
    args: &PushArgs,
    sent: &Sent,
    skipped: u64,
    signals: &mut Signals,
) -> Result<u8> {
    let summary = |ended| Summary::new(&args.partition, sent.pushed, skipped, ended);
    let is_json = args.json.json;
    let sealed = seal(store, args).await;
    let told = if is_json { Ok(()) } else { output::line(&summary(None).text(args.noun())) };
    let end = match sealed.and(told) {
        Ok(()) => wait_on(store, args, sent, signals).await,
        Err(error) => Err(error),
    };
    let closed = end.as_ref().ok().and_then(End::closed);
    let told = if is_json { output::json_object(&summary(closed)) } else { Ok(()) };
    let end = end?;
    told?;
    ended(store, args, end).await
}

async fn seal(store: &dyn Store, args: &PushArgs) -> Result<()> {
    if !args.seal {
        return Ok(());
    }
    let id = &args.partition;
    let sealed = store.seal(id).await;
    sealed.with_context(|| format!("{id} is not sealed (`gatefeed seal {}` does that)", quoted(id)))
}

async fn wait_on(store: &dyn Store, args: &PushArgs, sent: &Sent, signals: &mut Signals) -> Result<End> {
    remark(store, args, sent).await;
    if !args.wait {
        return Ok(End::Pushed);
    }
    tokio::select! {
        ended = wait::wait(store, &args.partition) => Ok(End::Closed(ended?)),
        signal = signals.next() => Ok(End::Stopped(signal.exit_code())),
    }
}

/// What people should know of the partition, if it can be seen.
async fn remark(store: &dyn Store, args: &PushArgs, sent: &Sent) {
    match store.partition(&args.partition).await {
        Ok(Some(row)) => report::remarks(args, &row, sent.pushed.created).iter().for_each(|text| note(text)),
        Ok(None) => {}
        Err(error) => note(&format!("cannot look at {} now: {error:#}", args.partition)),
    }
}

async fn ended(store: &dyn Store, args: &PushArgs, end: End) -> Result<u8> {
    match end {
        End::Pushed => Ok(exit::OK),
        End::Closed(ended) => report::ended(store, args, &ended).await,
        End::Stopped(code) => {
            let id = &args.partition;
            note(&format!("stopped waiting: all items are in, and the work on {id} goes on without you"));
            Ok(code)
        }
    }
}
