//! The flags of `gatefeed run`.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use gatefeed_core::StoreError;
use gatefeed_engine::dispatch::parse_target;
use gatefeed_store::BlobOptions;
use url::Url;

use super::spread_args::SpreadArgs;
use crate::{
    commands::{collect::CollectArgs, listen::ApiArgs},
    config::{self, File, Plan, SIGNING_VARIABLE, Source},
    parse,
};

/// Lease partitions and deliver their items to your handler.
///
/// Each item is sent as POST to a target, its body being the item's data. An answer of 2xx with an empty body means
/// done; a JSON object may say more: {"gate": 1}, {"data": …}, {"items": […]}, {"error": {"message": "…"}}. Start as
/// many watchers as you like; each partition has one at a time.
///
/// It goes on until it is stopped, and SIGINT or SIGTERM stops it cleanly: what is in flight ends or is given back. A
/// second signal ends it at once.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed run --target http://localhost:8000/work
  gatefeed run --target http://a:8000/,http://b:8000/ --feed video
  gatefeed run --target http://ocr:8000/ --gate-target 1=http://rank:8000/
  gatefeed run --config gatefeed.toml     (many feeds, each with its own policy)
  gatefeed run --target http://h:8000/ --until-idle     (ends by itself)
  gatefeed run --target http://h:8000/ --listen :8080 --target-health /healthz
  gatefeed run --target http://h:8000/ --listen :8080 --callback-timeout 10m    (for handlers that answer later)")]
pub(crate) struct RunArgs {
    /// A TOML file with what these flags say and with what feeds and gates have of their own; a flag, or its variable,
    /// goes before the same key at the top of the file
    #[arg(long, env = "GATEFEED_CONFIG", value_name = "FILE", help_heading = "Handler")]
    pub(crate) config: Option<PathBuf>,
    /// Where to send items; several share the work [repeatable, or separated by commas]
    #[arg(
        long = "target",
        env = "GATEFEED_TARGET",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Handler",
        value_parser = parse_target
    )]
    pub(crate) targets: Vec<Url>,
    /// Where to send the items at a gate, if not to --target [repeatable, or separated by commas]
    #[arg(
        long = "gate-target",
        env = "GATEFEED_GATE_TARGET",
        value_name = "GATE=URL",
        value_delimiter = ',',
        help_heading = "Handler",
        value_parser = parse::gate_target
    )]
    pub(crate) gate_targets: Vec<(i32, Url)>,
    /// How long a request may take, the answer included [default: 60s]
    #[arg(
        long,
        env = "GATEFEED_REQUEST_TIMEOUT",
        value_name = "DURATION",
        help_heading = "Handler",
        value_parser = parse::timeout
    )]
    pub(crate) request_timeout: Option<Duration>,
    /// How long connecting may take [default: 5s]
    #[arg(
        long,
        env = "GATEFEED_CONNECT_TIMEOUT",
        value_name = "DURATION",
        help_heading = "Handler",
        value_parser = parse::timeout
    )]
    pub(crate) connect_timeout: Option<Duration>,
    /// The path on each target's host that /readyz asks for; without it, it only connects
    #[arg(
        long,
        env = "GATEFEED_TARGET_HEALTH",
        value_name = "PATH",
        help_heading = "Handler",
        value_parser = parse::path
    )]
    pub(crate) target_health: Option<String>,
    /// Send up to so many items of a partition and gate in one POST, as a JSON array [default: one by one, not in an array]
    #[arg(
        long,
        env = "GATEFEED_BATCH_SIZE",
        value_name = "NUMBER",
        help_heading = "Handler",
        value_parser = parse::batch_size
    )]
    pub(crate) batch_size: Option<usize>,
    /// How long a batch that is not full waits for items that are being read [default: 10ms]
    #[arg(
        long,
        env = "GATEFEED_BATCH_LINGER",
        value_name = "DURATION",
        help_heading = "Handler",
        value_parser = parse::duration
    )]
    pub(crate) batch_linger: Option<Duration>,
    /// A file with the secrets that sign each delivery (Standard Webhooks), one a line; or they are in the variable
    /// GATEFEED_SIGNING_SECRET, but not in both
    #[arg(long, env = "GATEFEED_SIGNING_SECRET_FILE", value_name = "FILE", help_heading = "Handler")]
    pub(crate) signing_secret_file: Option<PathBuf>,
    /// A PEM file with the only certificate authorities that https targets are trusted by [default: this machine's]
    #[arg(long, env = "GATEFEED_CA_FILE", value_name = "FILE", help_heading = "Handler")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Connect to addresses of the public internet only
    #[arg(long, env = "GATEFEED_DENY_PRIVATE", help_heading = "Handler")]
    pub(crate) deny_private: bool,
    /// Items with more data than this fail instead of being sent [default: 16MiB]
    #[arg(
        long,
        env = "GATEFEED_MAX_PAYLOAD",
        value_name = "BYTES",
        help_heading = "Handler",
        value_parser = parse::bytes
    )]
    pub(crate) max_payload: Option<u64>,
    /// Answers that are longer than this are failed attempts [default: 1MiB]
    #[arg(
        long,
        env = "GATEFEED_MAX_ANSWER",
        value_name = "BYTES",
        help_heading = "Handler",
        value_parser = parse::bytes
    )]
    pub(crate) max_answer: Option<u64>,

    #[command(flatten)]
    spread: SpreadArgs,

    /// How long an item waits for a handler that said it would answer later; a heartbeat starts that time again
    /// [default: 1h]
    #[arg(
        long,
        env = "GATEFEED_CALLBACK_TIMEOUT",
        value_name = "DURATION",
        help_heading = "Handler",
        value_parser = parse::timeout
    )]
    pub(crate) callback_timeout: Option<Duration>,

    /// At most this much of what an item gathers is sent with it; what is more the handler fetches from --listen [default:
    /// 8MiB]
    #[arg(
        long,
        env = "GATEFEED_GATHER_MAX",
        value_name = "BYTES",
        help_heading = "Handler",
        value_parser = parse::bytes
    )]
    pub(crate) gather_max: Option<u64>,

    /// Send a link to data that lies in --blob-store, as Gatefeed-Data-Url with an empty body, instead of the data
    #[arg(long, env = "GATEFEED_BLOB_LINKS", requires = "blob_store", help_heading = "Handler")]
    pub(crate) blob_links: bool,

    /// The feeds to serve [repeatable, or separated by commas] [default: those of --config, or else default]
    #[arg(
        long = "feed",
        env = "GATEFEED_FEED",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Work",
        value_parser = parse::name
    )]
    pub(crate) feeds: Vec<String>,
    /// At most this many deliveries at a time; from 10 on, a tenth is kept for partitions that come along [default: 100]
    #[arg(
        long,
        env = "GATEFEED_CONCURRENCY",
        value_name = "NUMBER",
        help_heading = "Work",
        allow_hyphen_values = true,
        value_parser = parse::concurrency
    )]
    pub(crate) concurrency: Option<usize>,
    /// Deliveries of an item at a gate after the first one failed; -1: for ever [default: 5]
    #[arg(
        long,
        env = "GATEFEED_MAX_RETRIES",
        value_name = "NUMBER",
        help_heading = "Work",
        allow_hyphen_values = true,
        value_parser = parse::max_retries
    )]
    pub(crate) max_retries: Option<i64>,
    /// Exit once nothing is left that a watcher could deliver: with 0, or with 3 if a partition has failed
    #[arg(long, env = "GATEFEED_UNTIL_IDLE", help_heading = "Work")]
    pub(crate) until_idle: bool,

    /// How long a partition stays with a watcher that died; a living one renews its leases in time [default: 30s]
    #[arg(
        long,
        env = "GATEFEED_LEASE_DURATION",
        value_name = "DURATION",
        help_heading = "Leases and polling",
        value_parser = parse::lease_duration
    )]
    pub(crate) lease_duration: Option<Duration>,
    /// How often to look for work; most work is noticed sooner [default: 1s]
    #[arg(
        long,
        env = "GATEFEED_POLL_INTERVAL",
        value_name = "DURATION",
        help_heading = "Leases and polling",
        value_parser = parse::poll_interval
    )]
    pub(crate) poll_interval: Option<Duration>,

    /// How long a clean stop waits for what is in flight; the rest is delivered again later [default: 25s]
    #[arg(
        long,
        env = "GATEFEED_GRACE",
        value_name = "DURATION",
        help_heading = "Process",
        value_parser = parse::duration
    )]
    pub(crate) grace: Option<Duration>,
    /// Serve /livez, /readyz, what items gather, callbacks, data that is linked to, and the REST API on this address
    #[arg(
        long,
        env = "GATEFEED_LISTEN",
        value_name = "ADDRESS",
        help_heading = "Process",
        value_parser = parse::address
    )]
    pub(crate) listen: Option<String>,
    /// How handlers reach --listen, if not by its address: behind a proxy, in containers; or another process that takes
    /// their callbacks
    #[arg(
        long,
        env = "GATEFEED_PUBLIC_URL",
        value_name = "URL",
        help_heading = "Process",
        value_parser = parse_target
    )]
    pub(crate) public_url: Option<Url>,
    #[command(flatten)]
    pub(crate) collect: CollectArgs,
    /// Leave the tables as they are, and exit unless they are up to date
    #[arg(long, env = "GATEFEED_NO_MIGRATE", help_heading = "Process")]
    pub(crate) no_migrate: bool,
    /// What this watcher is called in the database; unique among those that run [default: host, process id and a
    /// random part]
    #[arg(
        long,
        env = "GATEFEED_NAME",
        value_name = "NAME",
        help_heading = "Process",
        value_parser = parse::name
    )]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

impl RunArgs {
    /// What this watcher is to do: these flags, and the file that they name. `blobs`: the blob store.
    pub(crate) fn plan(&self, blobs: Option<&BlobOptions>) -> Result<Plan> {
        let mut file = match &self.config {
            Some(path) => config::load(path)?,
            None => File::default(),
        };
        self.enter(&mut file);
        self.enter_secrets(&mut file)?;
        Ok(Plan::new(file, self.feeds.clone(), blobs)?)
    }

    fn enter_secrets(&self, file: &mut File) -> Result<()> {
        let top = &mut file.handling;
        let variable = std::env::var_os(SIGNING_VARIABLE).filter(|value| !value.is_empty());
        let source = match (&self.signing_secret_file, variable) {
            (Some(_), Some(_)) => {
                let message = format!(
                    "--signing-secret-file and {SIGNING_VARIABLE} are both there: put all secrets into one of them"
                );
                return Err(StoreError::Config(message).into());
            }
            (Some(path), None) => Some(Source::File(absolute(path)?)),
            (None, Some(_)) => Some(Source::Variable(SIGNING_VARIABLE.to_owned())),
            (None, None) => None,
        };
        if let Some(source) = source {
            top.signing = Some(source);
            top.origins.set_flag("signing_secret_file");
            top.origins.set_flag("signing_secret_env");
        }
        if let Some(path) = &self.ca_file {
            top.ca_file = Some(absolute(path)?);
            top.origins.set_flag("ca_file");
        }
        Ok(())
    }

    /// Each flag that is there takes the place of its key.
    fn enter(&self, file: &mut File) {
        let top = &mut file.handling;
        if !self.targets.is_empty() {
            top.targets = Some(self.targets.clone());
            top.origins.set_flag("target");
        }
        enter!(
            self => top, top.origins;
            request_timeout, connect_timeout, target_health, max_answer, callback_timeout, max_retries, concurrency,
            batch_size, batch_linger
        );
        enter!(
            self => file, file.handling.origins;
            max_payload, gather_max, lease_duration, poll_interval, grace, listen, public_url, name
        );
        let top = &mut file.handling;
        if self.blob_links {
            top.blob_links = Some(true);
            top.origins.set_flag("blob_links");
        }
        if self.deny_private {
            top.deny_private = Some(true);
            top.origins.set_flag("deny_private");
        }
        self.spread.enter(file);
        for (gate, _) in &self.gate_targets {
            let targets = self.gate_targets.iter().filter(|(other, _)| other == gate);
            let targets = targets.map(|(_, url)| url.clone()).collect();
            let gate = file.gates.entry(*gate).or_default();
            gate.targets = Some(targets);
            gate.origins.set_flag("target");
        }
    }
}

/// A path of the command line begins where the command was given, whatever the file says of its own.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot tell where {} is", path.display()))
}

/// Tells people where a lease is held, and is unique even where hosts and process ids are the same in every
/// container.
pub(super) fn default_owner() -> String {
    let uname = rustix::system::uname();
    let host: String =
        uname.nodename().to_string_lossy().chars().filter(|c| !c.is_control()).take(100).collect();
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{host}-{}-{}", std::process::id(), &random[..6])
}
