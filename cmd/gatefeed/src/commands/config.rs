//! `gatefeed config`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use gatefeed_core::StoreError;
use gatefeed_engine::dispatch::HttpRoutes;
use serde::Serialize;

use crate::{
    args::JsonArg,
    config::{self, Handling, Plan, request_timeout, retry_policy, shown},
    database::DatabaseArgs,
    output::{self, Kind, Table, quoted},
};

/// Check a configuration file.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  gatefeed config check gatefeed.toml")]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    Check(CheckArgs),
}

/// Say everything that is wrong with a configuration file, or what it comes to.
///
/// Mistakes are told with line, column and the nearest key that there is, all at once, and it exits with 2. Else it lists
/// where the items of each feed and gate would go. What counts is what `gatefeed run --config FILE` would do with no other
/// flag but --blob-store, secrets and certificates included. It reads no database and asks no handler.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed config check gatefeed.toml
  gatefeed config check --config gatefeed.toml --json")]
struct CheckArgs {
    /// The file
    #[arg(value_name = "FILE", required_unless_present = "config")]
    file: Option<PathBuf>,
    /// The file, as `run` has it
    #[arg(long, env = "GATEFEED_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    json: JsonArg,
}

pub(crate) fn config(database: &DatabaseArgs, args: ConfigArgs) -> Result<()> {
    let ConfigCommand::Check(args) = args.command;
    // One of them is there, as clap has seen to.
    let path = args.file.or(args.config).unwrap_or_default();
    let plan = Plan::new(config::load(&path)?, Vec::new(), database.blobs.options().as_ref())?;
    HttpRoutes::new(plan.routes(None)).map_err(|error| StoreError::Config(error.to_string()))?;
    let routes: Vec<Route> = plan.feeds.iter().flat_map(|feed| routes(&plan, feed)).collect();
    if args.json.json {
        return output::json_object(&Checked { valid: true, routes });
    }
    output::line(&format!("{} is valid.", path.display()))?;
    output::line("")?;
    table(&routes).print()
}

/// The JSON: docs/json.md has the fields.
#[derive(Serialize)]
struct Checked {
    valid: bool,
    routes: Vec<Route>,
}

/// Where the items of a feed, or of one of its gates, go.
#[derive(Serialize)]
struct Route {
    feed: String,
    /// Null: of all gates that are not listed.
    gate: Option<i32>,
    /// None: such items fail.
    targets: Vec<String>,
    request_timeout_ms: u64,
    /// Null: for ever.
    max_retries: Option<u32>,
    /// Null: no bound of its own.
    concurrency: Option<usize>,
    /// Null: one by one.
    batch_size: Option<usize>,
}

fn routes(plan: &Plan, feed: &str) -> Vec<Route> {
    let route = |(gate, handling): (Option<i32>, Handling)| Route {
        feed: feed.to_owned(),
        gate,
        targets: handling.targets.iter().flatten().map(shown).collect(),
        request_timeout_ms: u64::try_from(request_timeout(&handling).as_millis()).unwrap_or(u64::MAX),
        max_retries: retry_policy(&handling).max_retries,
        concurrency: handling.concurrency,
        batch_size: handling.batch_size,
    };
    plan.levels(feed).into_iter().map(route).collect()
}

fn table(routes: &[Route]) -> Table {
    use Kind::{Id, Left, Right, Text};
    let mut table = Table::new(&[
        ("FEED", Id),
        ("GATE", Left),
        ("TARGET", Text),
        ("TIMEOUT", Right),
        ("RETRIES", Right),
        ("CONCURRENCY", Right),
        ("BATCH", Right),
    ]);
    for route in routes {
        let or = |number: Option<String>, none: &str| number.unwrap_or_else(|| none.to_owned());
        let timeout = std::time::Duration::from_millis(route.request_timeout_ms);
        table.row(vec![
            quoted(&route.feed),
            or(route.gate.map(|gate| gate.to_string()), "others"),
            if route.targets.is_empty() { "none".to_owned() } else { route.targets.join(", ") },
            humantime::format_duration(timeout).to_string(),
            or(route.max_retries.map(|max| max.to_string()), "for ever"),
            or(route.concurrency.map(|max| max.to_string()), "·"),
            or(route.batch_size.map(|size| size.to_string()), "·"),
        ]);
    }
    table
}
