//! The flags of `gatefeed run`.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use clap::Args;
use gatefeed_core::{id::DEFAULT_FEED, retry::RetryPolicy};
use gatefeed_engine::dispatch::{HttpOptions, parse_target};
use url::Url;

use crate::{commands::listen::ApiArgs, parse};

/// Lease partitions and deliver their items to your handler.
///
/// Each item is sent as POST to a target, its body being the item's data. An answer of 2xx with an empty body means
/// done; a JSON object may say more: {"gate": 1}, {"data": …}, {"items": […]}, {"error": {"message": "…"}}. Start as
/// many watchers as you like; each partition has one at a time.
///
/// It goes on until it is stopped, and SIGINT or SIGTERM stops it cleanly: what is in flight ends or is given back. A second signal ends it at once.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed run --target http://localhost:8000/work
  gatefeed run --target http://a:8000/,http://b:8000/ --feed video
  gatefeed run --target http://h:8000/ --until-idle     (ends by itself)
  gatefeed run --target http://h:8000/ --listen :8080 --target-health /healthz")]
pub(crate) struct RunArgs {
    /// Where to send items; several share the work [repeatable, or separated by commas]
    #[arg(
        long = "target",
        env = "GATEFEED_TARGET",
        value_name = "URL",
        required = true,
        value_delimiter = ',',
        help_heading = "Handler",
        value_parser = parse_target
    )]
    pub(crate) targets: Vec<Url>,
    /// How long a request may take, the answer included
    #[arg(
        long,
        env = "GATEFEED_REQUEST_TIMEOUT",
        value_name = "DURATION",
        default_value = "60s",
        help_heading = "Handler",
        value_parser = parse::timeout
    )]
    pub(crate) request_timeout: Duration,
    /// How long connecting may take
    #[arg(
        long,
        env = "GATEFEED_CONNECT_TIMEOUT",
        value_name = "DURATION",
        default_value = "5s",
        help_heading = "Handler",
        value_parser = parse::timeout
    )]
    pub(crate) connect_timeout: Duration,
    /// The path on each target's host that /readyz asks for; without it, it only connects
    #[arg(
        long,
        env = "GATEFEED_TARGET_HEALTH",
        value_name = "PATH",
        help_heading = "Handler",
        value_parser = parse::path
    )]
    pub(crate) target_health: Option<String>,
    /// Items with more data than this fail instead of being sent
    #[arg(
        long,
        env = "GATEFEED_MAX_PAYLOAD",
        value_name = "BYTES",
        default_value = "16MiB",
        help_heading = "Handler",
        value_parser = parse::bytes
    )]
    pub(crate) max_payload: u64,
    /// Answers that are longer than this are failed attempts
    #[arg(
        long,
        env = "GATEFEED_MAX_ANSWER",
        value_name = "BYTES",
        default_value = "1MiB",
        help_heading = "Handler",
        value_parser = parse::bytes
    )]
    pub(crate) max_answer: u64,

    /// At most this much of what an item gathers is sent with it; what is more the handler fetches from --listen
    #[arg(
        long,
        env = "GATEFEED_GATHER_MAX",
        value_name = "BYTES",
        default_value = "8MiB",
        help_heading = "Handler",
        value_parser = parse::bytes
    )]
    pub(crate) gather_max: u64,

    /// Send a link to data that lies in --blob-store, as Gatefeed-Data-Url with an empty body, instead of the data
    #[arg(
        long,
        env = "GATEFEED_BLOB_LINKS",
        requires = "blob_store",
        help_heading = "Handler",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub(crate) blob_links: bool,

    /// The feeds to serve [repeatable, or separated by commas]
    #[arg(
        long = "feed",
        env = "GATEFEED_FEED",
        value_name = "NAME",
        default_value = DEFAULT_FEED,
        value_delimiter = ',',
        help_heading = "Work",
        value_parser = parse::name
    )]
    pub(crate) feeds: Vec<String>,
    /// At most this many deliveries at a time; from 10 on, a tenth is kept for partitions that come along
    #[arg(
        long,
        env = "GATEFEED_CONCURRENCY",
        value_name = "NUMBER",
        default_value = "100",
        help_heading = "Work",
        allow_hyphen_values = true,
        value_parser = parse::concurrency
    )]
    pub(crate) concurrency: usize,
    /// Deliveries of an item at a gate after the first one failed; -1: for ever
    #[arg(
        long,
        env = "GATEFEED_MAX_RETRIES",
        value_name = "NUMBER",
        default_value = "5",
        help_heading = "Work",
        allow_hyphen_values = true,
        value_parser = parse::max_retries
    )]
    pub(crate) max_retries: i64,
    /// Exit once nothing is left that a watcher could deliver: with 0, or with 3 if a partition has failed
    #[arg(
        long,
        env = "GATEFEED_UNTIL_IDLE",
        help_heading = "Work",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
    pub(crate) until_idle: bool,

    /// How long a partition stays with a watcher that died; a living one renews its leases in time
    #[arg(
        long,
        env = "GATEFEED_LEASE_DURATION",
        value_name = "DURATION",
        default_value = "30s",
        help_heading = "Leases and polling",
        value_parser = parse::lease_duration
    )]
    pub(crate) lease_duration: Duration,
    /// How often to look for work; most work is noticed sooner
    #[arg(
        long,
        env = "GATEFEED_POLL_INTERVAL",
        value_name = "DURATION",
        default_value = "1s",
        help_heading = "Leases and polling",
        value_parser = parse::poll_interval
    )]
    pub(crate) poll_interval: Duration,

    /// How long a clean stop waits for what is in flight; the rest is delivered again later
    #[arg(
        long,
        env = "GATEFEED_GRACE",
        value_name = "DURATION",
        default_value = "25s",
        help_heading = "Process",
        value_parser = parse::duration
    )]
    pub(crate) grace: Duration,
    /// Serve /livez, /readyz, what items gather, data that is linked to, and the REST API on this address
    #[arg(
        long,
        env = "GATEFEED_LISTEN",
        value_name = "ADDRESS",
        help_heading = "Process",
        value_parser = parse::address
    )]
    pub(crate) listen: Option<String>,
    /// How handlers reach --listen, if not by its address: behind a proxy, in containers
    #[arg(
        long,
        env = "GATEFEED_PUBLIC_URL",
        value_name = "URL",
        requires = "listen",
        help_heading = "Process",
        value_parser = parse_target
    )]
    pub(crate) public_url: Option<Url>,
    /// Remove blobs that no item refers to from --blob-store once they are so old, longer than any push takes; 0s: never
    #[arg(
        long,
        env = "GATEFEED_BLOB_GRACE",
        value_name = "DURATION",
        default_value = "1d",
        help_heading = "Process",
        value_parser = parse::duration
    )]
    pub(crate) blob_grace: Duration,
    /// Leave the tables as they are, and exit unless they are up to date
    #[arg(
        long,
        env = "GATEFEED_NO_MIGRATE",
        help_heading = "Process",
        value_parser = clap::builder::FalseyValueParser::new()
    )]
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
    /// The options of the deliveries.
    pub(crate) fn http_options(&self, listening: Option<SocketAddr>) -> HttpOptions {
        HttpOptions {
            request_timeout: self.request_timeout,
            connect_timeout: self.connect_timeout,
            max_answer: usize::try_from(self.max_answer).unwrap_or(usize::MAX),
            health_path: self.target_health.clone(),
            gather_max: usize::try_from(self.gather_max).unwrap_or(usize::MAX),
            gather_url: self.public_url.clone().or_else(|| listening.and_then(own_url)),
        }
    }

    /// How often failed attempts are repeated.
    pub(crate) fn retry_policy(&self) -> RetryPolicy {
        // Every negative number has been refused but -1, which is no u32 and means for ever.
        RetryPolicy { max_retries: u32::try_from(self.max_retries).ok(), ..RetryPolicy::default() }
    }

    /// The targets without their queries, which may hold secrets.
    pub(crate) fn shown_targets(&self) -> Vec<String> {
        let shown = |url: &Url| {
            let mut url = url.clone();
            url.set_query(None);
            url.to_string()
        };
        self.targets.iter().map(shown).collect()
    }

    /// The watcher's name.
    pub(crate) fn owner(&self) -> String {
        self.name.clone().unwrap_or_else(default_owner)
    }
}

/// How a handler on this machine reaches an address that is listened on.
fn own_url(mut address: SocketAddr) -> Option<Url> {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Url::parse(&format!("http://{address}/")).ok()
}

/// Tells people where a lease is held, and is unique even where hosts and process ids are the same in every
/// container.
fn default_owner() -> String {
    let uname = rustix::system::uname();
    let host: String =
        uname.nodename().to_string_lossy().chars().filter(|c| !c.is_control()).take(100).collect();
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{host}-{}-{}", std::process::id(), &random[..6])
}
