//! The flags of `gatefeed push`.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use gatefeed_core::{
    StoreError,
    envelope::Format,
    id::DEFAULT_FEED,
    partition::{FailurePolicy, NewPartition},
};

use crate::{args::JsonArg, parse};

/// Put items into a partition: lines of JSON, or whole files.
///
/// Each line of FILE, or of stdin, is the data of one item: any JSON value, stored to the letter. Blank lines are
/// skipped. The partition is made if it is missing.
///
/// All of it is one transaction: nothing is delivered before everything is in, and after an error or an interrupt
/// nothing is. Files are read twice, once to check them; stdin goes into the open transaction as it comes. With
/// --chunk a transaction ends after every so many items; then a bad line on stdin leaves what came before its part,
/// and the message says which lines that are.
///
/// On SQLite nobody else can write while a transaction is open, be it fed from files or from stdin. Watchers cannot
/// then renew their leases: when it lasts longer than those, what is in flight can be delivered twice. Where watchers
/// run, push what is large with --chunk 10000, which lets them write in between.
///
/// Plain lines get a fresh id each, so pushing a file twice adds its items twice. Give ids with --envelope (with
/// --files the path is the id), and an item whose id is there already is left as it is.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  gatefeed push --partition import-42 rows.ndjson
  jq -c '.[]' rows.json | gatefeed push --partition import-42 --wait
  gatefeed push --partition scans --files ~/Scans invoice.pdf
  echo '{\"id\": \"rank\", \"gate\": 1, \"data\": {\"top\": 10}}' | gatefeed push --partition scans --envelope
  gatefeed push --partition big --hold --chunk 10000 part-1.ndjson
  gatefeed push --partition big --seal --chunk 10000 part-2.ndjson")]
pub(crate) struct PushArgs {
    /// What to push; - is stdin, which is also read when no FILE is given
    #[arg(value_name = "FILE")]
    pub(super) inputs: Vec<PathBuf>,
    /// The partition
    #[arg(long, env = "GATEFEED_PARTITION", value_name = "ID", help_heading = "Where to", value_parser = parse::name)]
    pub(super) partition: String,
    /// The feed of the partition, if it has to be made [default: default]
    #[arg(long, env = "GATEFEED_FEED", value_name = "NAME", help_heading = "Where to", value_parser = parse::feed)]
    pub(super) feed: Option<String>,
    /// The gate at which the items are delivered first; an envelope may name another one
    #[arg(
        long,
        env = "GATEFEED_GATE",
        value_name = "GATE",
        default_value = "0",
        help_heading = "Where to",
        allow_hyphen_values = true,
        value_parser = parse::gate
    )]
    pub(super) gate: i32,

    /// Each line is an object {"id", "gate", "priority", "available_at", "content_type", "depends_on",
    /// "on_dependency_failure", "input", "gather", "data"}: data is required, and with a content type that is not JSON it is
    /// a string whose text is stored (or "data_base64", bytes of any kind). depends_on lists ids that have to be complete
    /// first, of items of this partition that are there or come in the same transaction
    #[arg(long, env = "GATEFEED_ENVELOPE", help_heading = "Input")]
    pub(super) envelope: bool,
    /// Each FILE is one item: its bytes, with the path as its id and a content type by its name. A folder stands for
    /// the files in it. ./a//b and a/c/../b are both a/b, so that the spelling does not matter; a relative path and the
    /// absolute one are two ids
    #[arg(long, env = "GATEFEED_FILES", help_heading = "Input")]
    pub(super) files: bool,
    /// Leave bad lines out and say which they were, instead of writing nothing
    #[arg(long, env = "GATEFEED_SKIP_BAD", help_heading = "Input")]
    pub(super) skip_bad: bool,
    /// A line or file over this is a bad one. `gatefeed run` has a flag of the same name
    #[arg(
        long,
        env = "GATEFEED_MAX_PAYLOAD",
        value_name = "BYTES",
        default_value = "16MiB",
        help_heading = "Input",
        value_parser = parse::bytes
    )]
    pub(super) max_payload: u64,

    /// Commit after every so many items, instead of once at the end
    #[arg(
        long,
        env = "GATEFEED_CHUNK",
        value_name = "ITEMS",
        help_heading = "Transaction",
        allow_hyphen_values = true,
        value_parser = parse::chunk
    )]
    pub(super) chunk: Option<u64>,
    /// If the partition has to be made, hold it: its gate does not rise and it does not close before `gatefeed seal`
    #[arg(long, env = "GATEFEED_HOLD", help_heading = "Transaction")]
    pub(super) hold: bool,
    /// What failed items mean, if the partition has to be made: stop at one, continue, or put up with so many at each
    /// gate, as a number (10) or as a share (5%) [default: stop]
    #[arg(
        long,
        env = "GATEFEED_FAILURE_POLICY",
        value_name = "POLICY",
        help_heading = "Where to",
        allow_hyphen_values = true,
        value_parser = parse::failure_policy
    )]
    pub(super) failure_policy: Option<FailurePolicy>,
    /// How long the partition, if it has to be made, may be at a gate that has open items before it fails
    #[arg(
        long,
        env = "GATEFEED_GATE_DEADLINE",
        value_name = "DURATION",
        help_heading = "Where to",
        value_parser = parse::whole_seconds
    )]
    pub(super) gate_deadline: Option<Duration>,
    /// Keep what answers replace, if the partition has to be made, so that it can be rewound
    #[arg(long, env = "GATEFEED_KEEP_HISTORY", help_heading = "Where to")]
    pub(super) keep_history: bool,
    /// Seal the partition after the last item: it goes through its gates and closes by itself
    #[arg(long, env = "GATEFEED_SEAL", help_heading = "Transaction")]
    pub(super) seal: bool,

    /// Wait until the partition closes: with 0 when it is complete, with 3 when it has failed or was cancelled
    #[arg(long, env = "GATEFEED_WAIT", help_heading = "Output")]
    pub(super) wait: bool,
    #[command(flatten)]
    pub(super) json: JsonArg,
}

impl PushArgs {
    /// Errs where flags do not go together.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let refused = [
            (
                self.hold && self.seal,
                "--hold and --seal contradict each other: push with --hold first, and the last part with --seal",
            ),
            (
                self.hold && self.wait,
                "--hold and --wait do not go together: a held partition does not close before it is sealed",
            ),
            (
                self.files && self.envelope,
                "--files and --envelope do not go together: an envelope stands on a line",
            ),
        ];
        match refused.into_iter().find(|(is_refused, _)| *is_refused) {
            Some((_, message)) => Err(StoreError::Config(message.to_owned())),
            None => Ok(()),
        }
    }

    /// The partition, should it have to be made.
    pub(super) fn new_partition(&self) -> NewPartition {
        NewPartition {
            feed: self.feed.clone().unwrap_or_else(|| DEFAULT_FEED.to_owned()),
            manual_checkpoint: self.hold,
            auto_close: !self.hold,
            failure_policy: self.failure_policy.unwrap_or_default(),
            gate_deadline: self.gate_deadline,
            keep_history: self.keep_history,
            ..NewPartition::new(&self.partition)
        }
    }

    /// How lines are read.
    pub(super) fn format(&self) -> Format {
        Format { partition: self.partition.clone(), gate: self.gate, is_envelope: self.envelope }
    }

    /// What one item of the input is, for counting.
    pub(super) fn noun(&self) -> &'static str {
        if self.files { "file" } else { "line" }
    }
}
