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
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;
use gatefeed_core::{
    Store,
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
    handler::{GATE_RANK, GATE_READ, Handler, Query},
    progress::Progress,
    report::Report,
};
use crate::{exit, output, parse, signals::Signals};

const PARTITION: &str = "demo";

const DATABASE_FILE: &str = "gatefeed-demo.db";

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
    /// Leave the SQLite file behind and tell where it is
    #[arg(long, env = "GATEFEED_KEEP", value_parser = clap::builder::FalseyValueParser::new())]
    keep: bool,
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
    let started = Instant::now();
    let handler = Arc::new(Handler::new(terms, args.top));
    watch(&store, &handler, documents, stop.clone()).await?;
    if stop.is_cancelled() {
        bail!("interrupted");
    }
    Report::read(&*store, started.elapsed()).await
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
    NewItem { partition: PARTITION.to_owned(), id: entry.id, gate: GATE_READ, priority: 0, data }
}

fn ranking(query: &str) -> Result<NewItem> {
    let query = serde_json::to_vec(&Query { query: query.to_owned() })?;
    let data = Data { bytes: query.into(), content_type: JSON.to_owned() };
    let id = RANKING_ID.to_owned();
    Ok(NewItem { partition: PARTITION.to_owned(), id, gate: GATE_RANK, priority: 0, data })
}

/// One watcher until everything is through.
async fn watch(
    store: &Arc<dyn Store>,
    handler: &Arc<Handler>,
    documents: u64,
    stop: CancellationToken,
) -> Result<()> {
    let serving = handler::serve(Arc::clone(handler)).await?;
    let target = parse_target(&format!("http://{}/", serving.address))?;
    let watcher = Watcher::builder(Arc::clone(store))
        .max_payload(FILE_BYTES_MAX)
        .grace(GRACE)
        .until_idle(true)
        .shutdown(stop)
        .processor(HttpProcessor::new(vec![target], HttpOptions::default())?);
    let progress = Progress::new(documents);
    let finished = tokio::select! {
        finished = watcher.run() => finished,
        never = progress.follow(handler) => match never {},
    };
    progress.finish(handler);
    finished?;
    Ok(())
}
