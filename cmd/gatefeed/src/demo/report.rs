//! The end of the demo: what the database says now.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use gatefeed_core::{
    Store,
    inspect::{ItemFilter, ItemRow},
    item::ItemStatus,
};

use super::{DemoArgs, PARTITION, corpus::RANKING_ID, handler::Ranking, rank::Ranked};
use crate::output::{self, Align, Table, quoted, shortened};

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
        let filter = ItemFilter { id: Some(RANKING_ID.to_owned()), with_data: true, ..all() };
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
        let took = format!("{documents} documents read and ranked in {:.2}s", self.elapsed.as_secs_f64());
        let query = shortened(query, 100);
        match ranking.len() {
            0 => format!("{took}; none of them has a word of \"{query}\""),
            1 => format!("{took}; the best match for \"{query}\":"),
            n => format!("{took}; the {n} best matches for \"{query}\":"),
        }
    }

    fn table(&self) -> Table {
        use Align::{Left, Right};
        let mut table = Table::new(&[("", Right), ("score", Right), ("document", Left), ("matches", Left)]);
        for (index, ranked) in self.ranking.ranking.iter().enumerate() {
            table.row(row(index + 1, ranked));
        }
        table
    }
}

fn row(place: usize, ranked: &Ranked) -> Vec<String> {
    let matches: Vec<_> = ranked.matches.iter().map(|(term, count)| format!("{term} ×{count}")).collect();
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
    match (kept, &args.dir) {
        (Some(path), _) => {
            let url = quoted(&format!("sqlite://{}", path.display()));
            format!(
                "Kept the queue in {}\nNext: gatefeed items {PARTITION} --data --database-url {url}",
                path.display()
            )
        }
        (None, None) => "Next: gatefeed demo ~/Documents --query \"words to look for\"".to_owned(),
        (None, Some(_)) => {
            "Next: put your own handler behind a queue: gatefeed migrate, then gatefeed run --help".to_owned()
        }
    }
}
