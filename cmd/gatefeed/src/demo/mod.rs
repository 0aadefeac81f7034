//! `gatefeed demo`: a whole queue on this machine for a few seconds. It pushes documents and a query into a
//! SQLite file, serves a handler, runs a watcher over both, and prints what the handler answered from the
//! database.

mod corpus;
mod handler;
mod progress;
mod rank;
mod report;

use std::{
    collections::BTreeSet,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;
use gatefeed_core::{
    Store,
    gather::{Ended, Gather},
    id::JSON,
    item::{Data, NewItem},
    partition::NewPartition,
};
use gatefeed_engine::{
    Watcher,
    dispatch::{HttpOptions, HttpProcessor, parse_target},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use self::{
    corpus::{Corpus, Entry, FILE_BYTES_MAX, RANKING_ID},
    handler::{GATE_RANK, GATE_READ, GATHER_BYTES_MAX, Handler, Query},
    progress::Progress,
    report::Report,
};
use crate::{exit, output, parse, signals::Signals};

const PARTITION: &str = "demo";

const DATABASE_FILE: &str = "gatefeed-demo.db";

/// How long the handler pretends to work on each of the built-in documents.
const WORK: Duration = Duration::from_millis(150);

/// How many deliveries at a time while it pretends: few enough to watch.
const PRETENDED_AT_A_TIME: usize = 8;

/// For how long an interrupted demo waits for what is in flight.
const GRACE: Duration = Duration::from_millis(500);

/// For how long it waits for its own end.
const STOP_MAX: Duration = Duration::from_secs(3);

/// Rank a folder of text files with a real queue and handler, in seconds and without any setup.
///
/// Each file is an item at gate 0, delivered over HTTP to a handler that counts its words. One more item waits at gate
/// 1 and is delivered once every file is through: the handler then ranks them all against your query. Everything
/// happens on this machine, with a temporary SQLite file as the database.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed demo
  gatefeed demo ~/Documents --query \"invoice 2024\"
  gatefeed demo /usr/share/doc --query \"permissive license\" --top 20")]
pub(crate) struct DemoArgs {
    /// The folder to rank, with all its subfolders [default: 60 made-up résumés that come with gatefeed]
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// What to look for
    #[arg(
        long,
        env = "GATEFEED_QUERY",
        value_name = "WORDS",
        default_value = "rust postgres distributed systems"
    )]
    query: String,
    /// How many of the best documents to show
    #[arg(long, env = "GATEFEED_TOP", value_name = "NUMBER", default_value = "10", value_parser = parse::top)]
    top: usize,
    /// How long the handler pretends to work on each document, eight at a time, so that there is something to watch; 0s
    /// is full speed [default: 150ms for the made-up résumés, 0s for a folder]
    #[arg(long, env = "GATEFEED_WORK", value_name = "DURATION", value_parser = parse::duration)]
    work: Option<Duration>,
    /// Leave the SQLite file behind and tell where it is
    #[arg(long, env = "GATEFEED_KEEP")]
    keep: bool,
}

impl DemoArgs {
    fn work(&self) -> Duration {
        self.work.unwrap_or(if self.dir.is_none() { WORK } else { Duration::ZERO })
    }

    /// What is about to happen.
    fn intro(&self, documents: u64) -> String {
        let what = match &self.dir {
            None => format!("{documents} made-up résumés"),
            Some(dir) => format!("{documents} files of {}", dir.display()),
        };
        let mut intro = format!("Gate 0 reads {what}; gate 1 ranks them once all are through gate 0.");
        if !self.work().is_zero() {
            let work = humantime::format_duration(self.work());
            intro += &format!(
                "\nThe handler pretends to work {work} on each, {PRETENDED_AT_A_TIME} at a time (change it with --work)."
            );
        }
        intro
    }
}

/// Runs the demo; whatever happens, nothing is left behind unless it was asked for.
pub(crate) async fn demo(args: DemoArgs) -> Result<u8> {
    let terms = rank::terms(&args.query);
    if terms.is_empty() {
        bail!("--query {:?} has no word to look for: expected letters or digits", args.query);
    }
    let corpus = Corpus::open(args.dir.as_deref())?;
    let mut signals = Signals::with_hangup()?;
    let dir = tempfile::Builder::new().prefix("gatefeed-demo-").tempdir()?;
    let stop = CancellationToken::new();
    let mut work = Box::pin(play(&args, terms, corpus, dir.path().join(DATABASE_FILE), stop.clone()));
    let report = tokio::select! {
        report = &mut work => report?,
        signal = signals.next() => {
            stop.cancel();
            stopped(work, &mut signals).await;
            dir.close()?;
            output::note("interrupted: nothing is left behind");
            return Ok(signal.exit_code());
        }
    };
    let kept = end(dir, args.keep)?;
    report.print(&args, kept.as_deref())?;
    Ok(exit::OK)
}

/// Waits until an interrupted demo has ended by itself, but not for long and not after another signal.
async fn stopped<T>(work: impl Future<Output = T>, signals: &mut Signals) {
    tokio::select! {
        _ = work => {}
        _ = signals.next() => {}
        () = tokio::time::sleep(STOP_MAX) => {}
    }
}

/// Removes the folder, or keeps it and returns the database's path.
fn end(dir: TempDir, keep: bool) -> Result<Option<PathBuf>> {
    if keep {
        return Ok(Some(dir.keep().join(DATABASE_FILE)));
    }
    dir.close()?;
    Ok(None)
}

/// Everything from an empty file to the answer in the database.
async fn play(
    args: &DemoArgs,
    terms: BTreeSet<String>,
    corpus: Corpus,
    database: PathBuf,
    stop: CancellationToken,
) -> Result<Report> {
    let store = open(&database).await?;
    let documents = push(&*store, corpus, &args.query).await?;
    output::note(&args.intro(documents));
    let started = Instant::now();
    let handler = Arc::new(Handler::new(terms, args.top, args.work()));
    watch(&store, &handler, args.work(), stop.clone()).await?;
    if stop.is_cancelled() {
        bail!("interrupted");
    }
    let report = Report::read(&*store, started.elapsed()).await?;
    if !io::stderr().is_terminal() {
        output::note("gate 1: ranked; this is what the database says now");
    }
    Ok(report)
}

async fn open(database: &Path) -> Result<Arc<dyn Store>> {
    let url = format!("sqlite://{}", database.display());
    let store = gatefeed_store::connect(&url, &gatefeed_store::Options::default()).await?;
    store.migrate().await?;
    Ok(store)
}

/// Pushes the documents, batch by batch, and the ranking item; returns how many documents there are.
async fn push(store: &dyn Store, mut corpus: Corpus, query: &str) -> Result<u64> {
    let partition = NewPartition::new(PARTITION);
    let mut documents = 0;
    loop {
        let batch;
        (corpus, batch) = tokio::task::spawn_blocking(move || {
            let batch = corpus.next_batch();
            (corpus, batch)
        })
        .await?;
        if batch.is_empty() {
            break;
        }
        let items: Vec<_> = batch.into_iter().map(document).collect();
        documents += store.push(&partition, &items).await?.added;
    }
    if let Some(skipped) = corpus.skipped.line() {
        output::note(&skipped);
    }
    if documents == 0 {
        bail!("there are no files to rank in that folder: name another one, or none to see the demo's own");
    }
    store.push(&partition, &[ranking(query)?]).await?;
    Ok(documents)
}

fn document(entry: Entry) -> NewItem {
    let content_type = entry.content_type().to_owned();
    let data = Data { bytes: entry.bytes.into(), content_type };
    NewItem { gate: GATE_READ, ..NewItem::new(PARTITION, entry.id, data) }
}

fn ranking(query: &str) -> Result<NewItem> {
    let query = serde_json::to_vec(&Query { query: query.to_owned() })?;
    let data = Data { bytes: query.into(), content_type: JSON.to_owned() };
    let gather = Some(Gather { gate: GATE_READ, status: Ended::Complete });
    Ok(NewItem { gate: GATE_RANK, gather, ..NewItem::new(PARTITION, RANKING_ID, data) })
}

/// One watcher until everything is through.
async fn watch(
    store: &Arc<dyn Store>,
    handler: &Arc<Handler>,
    work: Duration,
    stop: CancellationToken,
) -> Result<()> {
    let serving = handler::serve(Arc::clone(handler)).await?;
    let target = parse_target(&format!("http://{}/", serving.address))?;
    let options = HttpOptions { gather_max: GATHER_BYTES_MAX, ..HttpOptions::default() };
    let watcher = Watcher::builder(Arc::clone(store));
    let watcher = if work.is_zero() { watcher } else { watcher.concurrency(PRETENDED_AT_A_TIME) };
    let watcher = watcher
        .max_payload(FILE_BYTES_MAX)
        .grace(GRACE)
        .until_idle(true)
        .shutdown(stop.clone())
        .processor(HttpProcessor::new(vec![target], options)?);
    let mut progress = Progress::new();
    let finished = tokio::select! {
        finished = watcher.run() => finished,
        never = progress.follow(&**store, handler) => match never {},
    };
    finished?;
    if stop.is_cancelled() {
        return Ok(());
    }
    Ok(progress.finish(&**store, handler).await?)
}
