//! What `status`, `partitions` and `items` have in common: rows that are read once or again and again, for people or
//! for programs.

use std::ffi::OsString;

use anyhow::Result;
use clap::Args;
use gatefeed_core::Store;
use serde::Serialize;

use super::watch::{self, WatchArg};
use crate::{
    args::JsonArg,
    database::DatabaseArgs,
    output::{self, JsonArray, Look, Style, paint, quoted, shown, wrapped},
};

/// How a listing is printed.
#[derive(Args, Debug)]
pub(crate) struct ListingArgs {
    #[command(flatten)]
    watch: WatchArg,
    #[command(flatten)]
    json: JsonArg,
}

/// Rows, as far as one page of them goes.
pub(crate) struct Page<R> {
    /// The rows.
    pub(crate) rows: Vec<R>,
    /// The id of the last one, if there are more after it.
    pub(crate) more_after: Option<String>,
}

impl<R> Page<R> {
    /// All there is.
    pub(crate) fn whole(rows: Vec<R>) -> Self {
        Self { rows, more_after: None }
    }

    /// Splits off the row that was read only to know whether there are more.
    pub(crate) fn cut(mut rows: Vec<R>, limit: usize, id: impl Fn(&R) -> &str) -> Self {
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let more_after = rows.last().filter(|_| has_more).map(|row| id(row).to_owned());
        Self { rows, more_after }
    }

    /// How to go on where there are more.
    pub(crate) fn remark(&self) -> Option<String> {
        remark(self.more_after.as_deref())
    }
}

/// How to go on after the row with this id.
pub(crate) fn remark(more_after: Option<&str>) -> Option<String> {
    let next = next_page(std::env::args_os(), more_after?);
    Some(format!("There are more; the next page: {}", shown(&next)))
}

/// A page that is read in parts, none of which is too large to be held.
pub(crate) trait Parts {
    /// What it consists of.
    type Row;

    /// The next part; `None` after the last one. After an error the same part can be asked for again.
    async fn next(&mut self, store: &dyn Store) -> Result<Option<Vec<Self::Row>>>;

    /// After the last part: the id of the page's last row, if there are more after it.
    fn more_after(&self) -> Option<&str>;
}

/// Rows that can be read.
pub(crate) trait Listing {
    /// One of them.
    type Row;

    /// Reads a page for people.
    async fn read(&self, store: &dyn Store) -> Result<Page<Self::Row>>;

    /// A page for programs.
    fn parts(&self) -> impl Parts<Row = Self::Row>;

    /// A row for programs.
    fn json(row: &Self::Row) -> impl Serialize;

    /// The rows for people, line by line.
    fn text(&self, rows: &[Self::Row], look: Look) -> Vec<String>;
}

/// Prints a listing as it is asked for.
pub(crate) async fn list<L: Listing>(database: &DatabaseArgs, args: &ListingArgs, listing: &L) -> Result<()> {
    let store = database.open_migrated().await?;
    if let Some(every) = args.watch.watch {
        return watch::watch(&*store, listing, every, args.json.json).await;
    }
    let remark = if args.json.json {
        print_json(&*store, listing).await?
    } else {
        let page = listing.read(&*store).await?;
        output::lines(&listing.text(&page.rows, Look::of_stdout()))?;
        page.remark()
    };
    remark.iter().for_each(|remark| output::note(remark));
    Ok(())
}

/// Prints a page for programs, each part before the next is read, and says how to go on.
async fn print_json<L: Listing>(store: &dyn Store, listing: &L) -> Result<Option<String>> {
    let (mut parts, mut array) = (listing.parts(), JsonArray::of_lines());
    while let Some(rows) = parts.next(store).await? {
        array.add(rows.iter().map(L::json))?;
    }
    array.end()?;
    Ok(remark(parts.more_after()))
}

/// A page in one part.
pub(crate) struct OnePart<'a, L: Listing> {
    listing: &'a L,
    is_read: bool,
    more_after: Option<String>,
}

impl<'a, L: Listing> OnePart<'a, L> {
    /// All that [`Listing::read`] reads.
    pub(crate) fn of(listing: &'a L) -> Self {
        Self { listing, is_read: false, more_after: None }
    }
}

impl<L: Listing> Parts for OnePart<'_, L> {
    type Row = L::Row;

    async fn next(&mut self, store: &dyn Store) -> Result<Option<Vec<L::Row>>> {
        if self.is_read {
            return Ok(None);
        }
        let page = self.listing.read(store).await?;
        (self.is_read, self.more_after) = (true, page.more_after);
        Ok(Some(page.rows))
    }

    fn more_after(&self) -> Option<&str> {
        self.more_after.as_deref()
    }
}

/// A sentence in place of a table or below it, in lines that fit.
pub(crate) fn prose(text: &str, style: Option<Style>, look: Look) -> Vec<String> {
    wrapped(&shown(text), look.width).iter().map(|line| paint(line, style, look.colours)).collect()
}

/// The command that was typed, as it has to be to get what comes after an id. Passwords are left out.
fn next_page(typed: impl IntoIterator<Item = OsString>, after: &str) -> String {
    let mut typed = typed.into_iter().map(|word| word.to_string_lossy().into_owned());
    let mut words = Vec::new();
    let mut rest = Vec::new();
    while let Some(word) = typed.next() {
        match word.as_str() {
            "--" => rest = std::iter::once(word).chain(typed.by_ref()).collect(),
            "--after" => drop(typed.next()),
            _ if word.starts_with("--after=") => {}
            _ => words.push(without_password(&word)),
        }
    }
    if after.starts_with('-') {
        words.push(format!("--after={after}"));
    } else {
        words.extend(["--after".to_owned(), after.to_owned()]);
    }
    words.iter().chain(&rest).map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A URL with a user's password or with parameters, where one may be too, is for the reader to fill in again.
fn without_password(word: &str) -> String {
    let Some((scheme, rest)) = word.split_once("://") else { return word.to_owned() };
    let user = rest.rsplit_once('@').map_or("", |(user, _)| user);
    if user.contains(':') || (rest.contains('?') && !scheme.ends_with("sqlite")) {
        format!("{scheme}://…")
    } else {
        word.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(typed: &[&str], after: &str) -> String {
        next_page(typed.iter().map(OsString::from), after)
    }

    #[test]
    fn the_next_page_is_the_same_command_from_there_on() {
        assert_eq!(
            next(&["gatefeed", "items", "my import", "--status", "failed"], "row 9"),
            "gatefeed items 'my import' --status failed --after 'row 9'"
        );
        assert_eq!(
            next(&["g", "partitions", "--after", "a", "--limit=2"], "-b"),
            "g partitions --limit=2 --after=-b"
        );
        assert_eq!(next(&["g", "items", "--after=a", "--", "--after"], "b"), "g items --after b -- --after");
    }

    #[test]
    fn the_next_page_has_no_password() {
        for url in ["postgres://me:secret@h/db", "--database-url=postgres://h/db?password=secret"] {
            let next = next(&["g", "partitions", url], "a");
            assert!(!next.contains("secret") && next.contains("postgres://…"), "{next}");
        }
        for url in ["postgres://me@h/db", "sqlite://a.db"] {
            assert!(next(&["g", "partitions", "--database-url", url], "a").contains(url));
        }
    }

    #[test]
    fn a_page_ends_where_more_was_read() {
        let page = |rows: &[&str]| Page::cut(rows.iter().map(|r| (*r).to_owned()).collect(), 2, |row| row);
        assert_eq!(page(&["a", "b", "c"]).more_after.as_deref(), Some("b"));
        assert_eq!((page(&["a", "b", "c"]).rows.len(), page(&["a", "b"]).more_after), (2, None));
    }
}
