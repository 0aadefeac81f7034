//! `gatefeed bench`: what this machine does with gatefeed, and beside it, measured in the same run, what it does by
//! itself.

mod drain;
mod figures;
mod handler;
mod http;
mod idle;
mod ingest;
mod latency;
mod place;
mod work;

use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use self::{figures::Figures, place::Place};
use crate::{args::JsonArg, database::DatabaseArgs, exit, output, parse, signals::Signals};

/// Measure gatefeed on this machine, and beside it the machine's own limit.
///
/// Each bench makes a schema of its own (or a SQLite file beside the one that is named), removes it at the end, and
/// leaves everything else alone. Figures of one run compare with each other only: machines are noisy, and so the ratio
/// to the limit counts, which is measured in turn with gatefeed. Use a release build, and a database with which nothing
/// else is going on.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed bench drain --database-url postgres://me@localhost/mydb
  gatefeed bench http --concurrency 200 --payload 10KB
  gatefeed bench latency --json")]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Items a second through a watcher whose processor does nothing
    ///
    /// The limit is a plain batched UPDATE of as many rows of the same table.
    #[command(after_help = "Example:
  gatefeed bench drain --items 20000 --gates 2")]
    Drain(LoadArgs),
    /// Items a second through a watcher to an HTTP handler, one POST an item
    ///
    /// The handler is a process of its own that answers at once. The limit is the same HTTP client in a loop, without a
    /// database; with --batch it is a plain batched UPDATE of as many rows, as of `drain`.
    #[command(after_help = "Examples:
  gatefeed bench http --concurrency 200 --payload 10KB
  gatefeed bench http --batch 50 --concurrency 1000")]
    Http(HttpArgs),
    /// Items a second through the REST API, one POST an item, answered when it is committed
    ///
    /// The API is a process of its own, and what posts is another. The limit is a plain INSERT of 1,000 rows at a time of
    /// the same table. Every answer is checked to be a row.
    #[command(after_help = "Example:
  gatefeed bench ingest --connections 64 --payload 100")]
    Ingest(IngestArgs),
    /// Time from an item's commit to the start of its delivery, on an idle queue
    ///
    /// One item at a time, committed through another connection. There is no limit beside it.
    #[command(after_help = "Example:
  gatefeed bench latency --duration 30s --json")]
    Latency(LatencyArgs),
    /// What a watcher and its database cost while nothing is due
    ///
    /// CPU time as a share of one core, and the watcher's memory. That of the database is measured where a Postgres
    /// server runs on this machine; SQLite is part of the watcher.
    #[command(after_help = "Example:
  gatefeed bench idle --partitions 100000")]
    Idle(IdleArgs),
    /// The handler of `bench http`
    #[command(hide = true)]
    Handler,
    /// The server of `bench ingest`
    #[command(hide = true)]
    Server,
}

impl Bench {
    fn is_json(&self) -> bool {
        match self {
            Self::Drain(args) => args.run.json.json,
            Self::Http(args) => args.load.run.json.json,
            Self::Latency(args) => args.run.json.json,
            Self::Idle(args) => args.run.json.json,
            Self::Ingest(args) => args.run.json.json,
            Self::Handler | Self::Server => false,
        }
    }
}

/// What is put through.
#[derive(Args, Clone, Debug)]
pub(crate) struct LoadArgs {
    /// Items of a round; rounds are repeated until --duration is over [default: 100000, of large ones 1 GB]
    #[arg(long, env = "GATEFEED_ITEMS", value_name = "NUMBER", value_parser = parse::amount)]
    items: Option<usize>,
    /// Over so many partitions
    #[arg(long, env = "GATEFEED_PARTITIONS", value_name = "NUMBER", default_value = "4", value_parser = parse::amount)]
    partitions: usize,
    /// Gates that each partition's items are spread over
    #[arg(long, env = "GATEFEED_GATES", value_name = "NUMBER", default_value = "1", value_parser = parse::amount)]
    gates: usize,
    /// Items in flight at a time [default: 200, of batches 1000]
    #[arg(long, env = "GATEFEED_CONCURRENCY", value_name = "NUMBER", value_parser = parse::concurrency)]
    concurrency: Option<usize>,
    /// Bytes of an item
    #[arg(long, env = "GATEFEED_PAYLOAD", value_name = "BYTES", default_value = "100", value_parser = parse::payload)]
    payload: u64,
    #[command(flatten)]
    run: RunArgs,
}

/// Items of a round, unless it is said or they are large.
const ITEMS: u64 = 100_000;

/// Bytes of a round, unless the number of its items is said.
const ROUND_BYTES_MAX: u64 = 1_000_000_000;

impl LoadArgs {
    fn items(&self) -> usize {
        let items = (ROUND_BYTES_MAX / self.payload.max(1)).clamp(10, ITEMS);
        self.items.unwrap_or(items as usize)
    }

    /// No more than there are items: each may be in memory several times.
    fn concurrency(&self) -> usize {
        self.concurrency.unwrap_or(200).min(self.items())
    }
}

/// What is put through, and how it is sent.
#[derive(Args, Debug)]
pub(crate) struct HttpArgs {
    #[command(flatten)]
    load: LoadArgs,
    /// Items of a POST [default: one by one, not in an array]
    #[arg(long, env = "GATEFEED_BATCH", value_name = "NUMBER", value_parser = parse::batch_size)]
    batch: Option<usize>,
}

/// How long, and how it is printed.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// For how long gatefeed is measured, without loading and without the limit
    #[arg(
        long,
        env = "GATEFEED_DURATION",
        value_name = "DURATION",
        default_value = "10s",
        value_parser = parse::timeout
    )]
    duration: Duration,
    #[command(flatten)]
    json: JsonArg,
}

#[derive(Args, Debug)]
pub(crate) struct LatencyArgs {
    #[command(flatten)]
    run: RunArgs,
}

#[derive(Args, Debug)]
pub(crate) struct IdleArgs {
    /// Partitions that wait for something, and as many that are complete
    #[arg(long, env = "GATEFEED_PARTITIONS", value_name = "NUMBER", default_value = "100000", value_parser = parse::amount)]
    partitions: usize,
    #[command(flatten)]
    run: RunArgs,
}

/// What is posted.
#[derive(Args, Debug)]
pub(crate) struct IngestArgs {
    /// Connections, each with one request at a time
    #[arg(
        long,
        env = "GATEFEED_CONNECTIONS",
        value_name = "NUMBER",
        default_value = "64",
        value_parser = parse::concurrency
    )]
    connections: usize,
    /// Over so many partitions
    #[arg(long, env = "GATEFEED_PARTITIONS", value_name = "NUMBER", default_value = "4", value_parser = parse::amount)]
    partitions: usize,
    /// Bytes of an item
    #[arg(long, env = "GATEFEED_PAYLOAD", value_name = "BYTES", default_value = "100", value_parser = parse::payload)]
    payload: u64,
    #[command(flatten)]
    run: RunArgs,
}

pub(crate) async fn bench(database: &DatabaseArgs, args: BenchArgs) -> Result<u8> {
    match args.bench {
        Bench::Handler => return handler::serve().await.map(|()| exit::OK),
        Bench::Server => return ingest::serve(database).await.map(|()| exit::OK),
        _ => {}
    }
    if cfg!(debug_assertions) {
        output::note("this is a debug build: its figures mean nothing; use cargo run --release -- bench …");
    }
    if let Bench::Ingest(args) = &args.bench {
        ingest::check_args(args)?;
    }
    let place = Place::make(database).await?;
    let mut signals = Signals::new()?;
    // Interrupted, it leaves nothing behind either.
    let measured = tokio::select! {
        measured = measure(&place, &args.bench) => Ok(measured),
        signal = signals.next() => Err(signal),
    };
    place.remove().await?;
    match measured {
        Ok(figures) => figures?.print(args.bench.is_json()).map(|()| exit::OK),
        Err(signal) => Ok(signal.exit_code()),
    }
}

async fn measure(place: &Place, bench: &Bench) -> Result<Figures> {
    Ok(match bench {
        Bench::Drain(args) => Figures::Load(drain::drain(place, args).await?),
        Bench::Http(args) => Figures::Load(http::http(place, args).await?),
        Bench::Latency(args) => Figures::Latency(latency::latency(place, args).await?),
        Bench::Idle(args) => Figures::Idle(idle::idle(place, args).await?),
        Bench::Ingest(args) => Figures::Ingest(ingest::ingest(place, args).await?),
        Bench::Handler | Bench::Server => bail!("what helps a bench is not measured"),
    })
}
