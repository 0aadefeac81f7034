//! The command line: the commands and the flags that all of them share. A command's own flags stand in its file.

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{commands, database::DatabaseArgs, demo, parse};

/// A queue on the database that you already have.
///
/// Work is a partition holding items. `gatefeed run` leases partitions, hands their items to your HTTP handler, and
/// moves each partition through its gates: every item is through one gate before any is delivered at the next.
#[derive(Debug, Parser)]
#[command(name = "gatefeed", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) database: DatabaseArgs,
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands; their texts stand with their flags.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::DemoArgs),
    Migrate(commands::migrate::MigrateArgs),
    Run(Box<commands::run::RunArgs>),
    Config(commands::config::ConfigArgs),
    Serve(Box<commands::serve::ServeArgs>),
    Token(commands::token::TokenArgs),
    Push(Box<commands::push::PushArgs>),
    Status(commands::status::StatusArgs),
    Partitions(commands::partitions::PartitionsArgs),
    Items(commands::items::ItemsArgs),
    Retry(commands::retry::RetryArgs),
    Seal(commands::seal::SealArgs),
    Advance(commands::advance::AdvanceArgs),
    Pause(commands::pause::PauseArgs),
    Resume(commands::resume::ResumeArgs),
    Cancel(commands::cancel::CancelArgs),
    Rewind(commands::rewind::RewindArgs),
    Why(commands::why::WhyArgs),
    Prune(commands::prune::PruneArgs),
    Bench(commands::bench::BenchArgs),
}

impl Command {
    /// The log level unless one is asked for: a service tells what it does, a tool only what is wrong, and the demo
    /// draws on the same terminal.
    pub(crate) fn log_level(&self) -> &'static str {
        match self {
            Self::Run(_) | Self::Serve(_) => "info",
            Self::Demo(_) => "error",
            _ => "warn",
        }
    }
}

/// How to log.
#[derive(Args, Debug)]
#[command(next_help_heading = "Logging")]
pub(crate) struct LogArgs {
    /// How log lines on stderr look: lines for people, or one JSON object a line
    #[arg(
        long,
        global = true,
        env = "GATEFEED_LOG_FORMAT",
        hide_short_help = true,
        value_name = "FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub(crate) log_format: LogFormat,
    /// What to log: off, error, warn, info, debug or trace, also by part, as in info,sqlx=debug [default: info for
    /// run and serve, error for demo, else warn]
    #[arg(
        long,
        global = true,
        env = "GATEFEED_LOG_LEVEL",
        hide_short_help = true,
        value_name = "LEVEL",
        value_parser = parse::log_level
    )]
    pub(crate) log_level: Option<String>,
}

impl LogArgs {
    /// Whether whoever reads stderr expects JSON.
    pub(crate) fn is_json(&self) -> bool {
        self.log_format == LogFormat::Json
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// How a listing is printed.
#[derive(Args, Clone, Debug)]
pub(crate) struct JsonArg {
    /// Print JSON for programs instead of text for people
    #[arg(long, env = "GATEFEED_JSON", help_heading = "Output")]
    pub(crate) json: bool,
}

/// How much of a listing is printed.
#[derive(Args, Debug)]
#[command(next_help_heading = "Paging")]
pub(crate) struct PageArgs {
    /// At most this many rows
    #[arg(long, env = "GATEFEED_LIMIT", value_name = "ROWS", default_value = "50", value_parser = parse::limit)]
    pub(crate) limit: usize,
}
