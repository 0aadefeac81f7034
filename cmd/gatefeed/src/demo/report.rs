//! The end of the demo: what the database says now.

use std::{cmp::Reverse, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use gatefeed_core::{
    Store,
    inspect::{DataPart, ItemFilter, ItemRow},
    item::ItemStatus,
};

use super::{DemoArgs, PARTITION, corpus::RANKING_ID, handler::Ranking, rank::Ranked};
use crate::output::{self, Kind, Table, quoted, shortened};

/// How much of a document's path the table shows.
const ID_CHARS_MAX: usize = 70;

/// What there is to tell.
pub(crate) struct Report {
    ranking: Ranking,
    elapsed: Duration,
}

impl Report {
    /// Reads the ranking from the database; errs, saying why, if there is none.
    pub(crate) async fn read(store: &dyn Store, elapsed: Duration) -> Result<Self> {
        let filter = ItemFilter { id: Some(RANKING_ID.to_owned()), data: DataPart::All, ..all() };
        let item = store.items(&filter).await?.pop().context("the ranking item is missing")?;
        if item.status != ItemStatus::Complete {
            bail!("the ranking was not reached: {}", failure(store).await?);
        }
        let data = item.data.unwrap_or_default();
        let ranking = serde_json::from_slice(&data).context("the ranking cannot be read")?;
        Ok(Self { ranking, elapsed })
    }

    /// Prints it.
    pub(crate) fn print(&self, args: &DemoArgs, kept: Option<&Path>) -> Result<()> {
        output::line("")?;
        output::line(&self.headline(&args.query))?;
        if !self.ranking.ranking.is_empty() {
            output::line("")?;
            self.table().print()?;
        }
        output::line("")?;
        output::line(&next(args, kept))
    }

    fn headline(&self, query: &str) -> String {
        let Ranking { ranking, documents } = &self.ranking;
        let took = format!("{documents} documents read and ranked in {:.2}s.", self.elapsed.as_secs_f64());
        let query = shortened(query, 100);
        match ranking.len() {
            0 => format!("{took}\nNone of them has a word of \"{query}\"."),
            1 => format!("{took}\nThe best match for \"{query}\":"),
            n => format!("{took}\nThe {n} best matches for \"{query}\":"),
        }
    }

    fn table(&self) -> Table {
        use Kind::{Id, Right, Text};
        let mut table = Table::new(&[("", Right), ("score", Right), ("document", Id), ("matches", Text)]);
        for (index, ranked) in self.ranking.ranking.iter().enumerate() {
            table.row(row(index + 1, ranked));
        }
        table
    }
}

fn row(place: usize, ranked: &Ranked) -> Vec<String> {
    // Where not all of them have room, what counts most is seen.
    let mut matches: Vec<_> = ranked.matches.iter().collect();
    matches.sort_by_key(|(_, count)| Reverse(**count));
    let matches: Vec<_> = matches.iter().map(|(term, count)| format!("{term} ×{count}")).collect();
    vec![
        place.to_string(),
        format!("{:.2}", ranked.score),
        shortened(&ranked.id, ID_CHARS_MAX),
        matches.join(", "),
    ]
}

fn all() -> ItemFilter {
    ItemFilter { partition: PARTITION.to_owned(), limit: 1, ..ItemFilter::default() }
}

/// The first item that failed, and with what.
async fn failure(store: &dyn Store) -> Result<String> {
    let filter = ItemFilter { status: Some(ItemStatus::Failed), ..all() };
    let text = |item: ItemRow| format!("{} failed: {}", item.id, item.error_messages.unwrap_or_default());
    Ok(store.items(&filter).await?.pop().map_or_else(|| "no item has failed".to_owned(), text))
}

/// What to try next.
fn next(args: &DemoArgs, kept: Option<&Path>) -> String {
    let gatefeed = program();
    if let Some(path) = kept {
        let url = quoted(&format!("sqlite://{}", path.display()));
        return format!(
            "Kept the queue in {}\nNext: {gatefeed} items {PARTITION} --data --database-url {url}",
            path.display()
        );
    }
    let push = match &args.dir {
        Some(dir) => format!("{gatefeed} push --partition first --files {}", quoted(&dir.to_string_lossy())),
        None => format!(r#"echo '{{"text": "one two three"}}' | {gatefeed} push --partition first"#),
    };
    format!(
        "Next: a queue of your own\n  {gatefeed} migrate\n  {push}\n  {gatefeed} status\nand, once a handler listens \
         (examples/handlers has some to copy):\n  {gatefeed} run --target http://127.0.0.1:8080/"
    )
}

/// How this program was started, for commands to paste.
fn program() -> String {
    let name = std::env::args().next().filter(|name| name.contains('/'));
    name.map_or_else(|| "gatefeed".to_owned(), |name| quoted(&name))
}
