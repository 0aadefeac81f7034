//! `gatefeed rewind`.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::counted;
use crate::{args::JsonArg, database::DatabaseArgs, output, parse};

/// Deliver again from a gate on, with the data of that time.
///
/// Every item at the gate or beyond it is available again, in a new pass, with what it came to the gate with. Items
/// that answers at the gate or later have made are removed, since those answers will make them again; what was pushed
/// stays, and so do cancelled items, and partitions that answers have nested: nested again, they need other ids. What is
/// in flight is aborted. A complete or failed partition is open again.
///
/// It takes a partition with keep_history, a column that is set before its first item (`gatefeed push
/// --keep-history`): others do not have the earlier data any more.
#[derive(Args, Debug)]
#[command(after_help = "Example:
  gatefeed rewind import-42 --gate 1")]
pub(crate) struct RewindArgs {
    /// The partition
    #[arg(value_parser = parse::name)]
    partition: String,
    /// The gate: one that the partition has reached
    #[arg(
        long,
        env = "GATEFEED_REWIND_GATE",
        value_name = "GATE",
        help_heading = "Where to",
        allow_hyphen_values = true,
        value_parser = parse::gate
    )]
    gate: i32,
    #[command(flatten)]
    json: JsonArg,
}

pub(crate) async fn rewind(database: &DatabaseArgs, args: RewindArgs) -> Result<()> {
    let RewindArgs { partition, gate, json } = args;
    let rewound = database.open_migrated().await?.rewind(&partition, gate).await?;
    let (items, removed) = (rewound.items, rewound.removed);
    if json.json {
        let done = json!({"partition": partition, "gate": gate, "items": items, "removed": removed});
        return output::json_object(&done);
    }
    let available = if items == 1 { "is available again" } else { "are available again" };
    let items = counted(items, "item");
    let removed = match removed {
        0 => String::new(),
        made => format!("; {} made by answers from there on removed", counted(made, "item")),
    };
    output::line(&format!("{partition} is back at gate {gate}: {items} {available}{removed}."))
}
