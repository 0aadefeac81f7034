//! TOML with positions: tables whose keys are asked for one by one, and everything that is wrong, in order.

use std::{cell::RefCell, fmt, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    meant::{nearest, spelt},
    origin::Origins,
};

/// Where something stands in the text.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Place {
    /// From 1.
    pub(super) line: usize,
    /// From 1, in characters.
    pub(super) column: usize,
}

/// Something that is wrong, and where.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Problem {
    pub(super) place: Place,
    pub(super) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.place.line, self.place.column, self.message)
    }
}

/// The text of a file; errs with the place of the first byte that is none.
pub(super) fn text(bytes: &[u8]) -> Result<&str, Problem> {
    std::str::from_utf8(bytes).map_err(|error| {
        let (before, _) = bytes.split_at(error.valid_up_to());
        let place = Document::new(&String::from_utf8_lossy(before)).place(before.len());
        Problem { place, message: "the file is not UTF-8 here; save it as UTF-8".to_owned() }
    })
}

/// The text, and what is wrong with it so far.
pub(super) struct Document<'d> {
    text: &'d str,
    /// Where each line begins.
    lines: Vec<usize>,
    problems: RefCell<Vec<Problem>>,
}

impl<'d> Document<'d> {
    pub(super) fn new(text: &'d str) -> Self {
        let lines = text.match_indices('\n').map(|(end, _)| end + 1);
        Self { text, lines: [0].into_iter().chain(lines).collect(), problems: RefCell::default() }
    }

    /// The whole as a table; `None`: it is no TOML.
    pub(super) fn parse(&self) -> Option<DeTable<'d>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            self.problem(error.span().unwrap_or_default(), error.message().to_owned());
        }
        errors.is_empty().then(|| table.into_inner())
    }

    pub(super) fn problem(&self, at: Range<usize>, message: String) {
        self.problems.borrow_mut().push(Problem { place: self.place(at.start), message });
    }

    fn place(&self, at: usize) -> Place {
        let line = self.lines.partition_point(|begin| *begin <= at);
        let begin = self.lines.get(line.saturating_sub(1)).copied().unwrap_or_default();
        let before = self.text.get(begin..at).unwrap_or_default();
        Place { line, column: before.chars().count() + 1 }
    }

    /// What is wrong, in the order of the text.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems.into_inner();
        problems.sort();
        problems
    }
}

/// A table that is being read: each key is asked for once, and what nobody asked for is unknown.
pub(super) struct Section<'d, 's> {
    document: &'s Document<'d>,
    /// For messages: `[feeds.ocr]`.
    name: String,
    table: &'s DeTable<'d>,
    /// Where it begins.
    at: Range<usize>,
    /// Where its keys stand.
    origins: Origins,
    known: Vec<&'static str>,
}

/// How narrow a table is: what a narrower one says goes before what a wider one says.
pub(super) type Depth = u8;

/// Of the top of the file; `[[gates]]` are one deeper.
pub(super) const TOP: Depth = 0;
/// Of `[feeds.NAME]`; its gates are one deeper.
const FEED: Depth = 2;

impl<'d, 's> Section<'d, 's> {
    pub(super) fn new(
        document: &'s Document<'d>,
        name: String,
        table: &'s DeTable<'d>,
        at: Range<usize>,
        depth: Depth,
    ) -> Self {
        let mut origins = Origins::new(document.place(at.start), depth);
        for name in table.keys() {
            origins.set(name.get_ref(), document.place(name.span().start));
        }
        Self { document, name, table, at, origins, known: Vec::new() }
    }

    /// Where its keys stand, those of its [`pairs`](Section::pairs) too, once they have been read.
    pub(super) fn origins(&self) -> Origins {
        self.origins.clone()
    }

    fn get(&mut self, key: &'static str) -> Option<&'s Spanned<DeValue<'d>>> {
        self.known.push(key);
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(_, value)| value)
    }

    /// A string or a number, read as the flag of that name reads it.
    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let read = text_of(value.get_ref()).and_then(|text| read(&text));
        self.or_problem(value.span(), key, read)
    }

    /// A string or a list of strings.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let value = self.get(key)?;
        let DeValue::Array(values) = value.get_ref() else {
            let read = text_of(value.get_ref()).and_then(|text| read(&text));
            return self.or_problem(value.span(), key, read).map(|one| vec![one]);
        };
        if values.is_empty() {
            self.document.problem(value.span(), format!("{key}: expected at least one"));
            return None;
        }
        let each = |value: &Spanned<DeValue<'d>>| {
            let read = text_of(value.get_ref()).and_then(|text| read(&text));
            self.or_problem(value.span(), key, read)
        };
        let all: Vec<Option<T>> = values.iter().map(each).collect();
        all.into_iter().collect()
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let value = self.get(key)?;
        let read = value.get_ref().as_bool().ok_or_else(|| "expected true or false".to_owned());
        self.or_problem(value.span(), key, read)
    }

    /// A table of names, in which case makes no difference, and what they stand for.
    pub(super) fn pairs<T>(
        &mut self,
        key: &'static str,
        read: impl Fn(&str, &DeValue<'d>) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Table(table) = value.get_ref() else {
            self.document
                .problem(value.span(), format!("{key}: expected a table such as {{ Name = \"value\" }}"));
            return Vec::new();
        };
        let mut pairs: Vec<_> = table.iter().collect();
        pairs.sort_by_key(|(name, _)| name.span().start);
        let mut seen: Vec<String> = Vec::new();
        let mut all = Vec::new();
        for (name, value) in pairs {
            self.origins.set(&format!("{key}.{}", name.get_ref()), self.document.place(name.span().start));
            let lower = name.get_ref().to_ascii_lowercase();
            if seen.contains(&lower) {
                let message = format!(
                    "{key}: {} is there twice; upper and lower case make no difference",
                    name.get_ref()
                );
                self.document.problem(name.span(), message);
            }
            seen.push(lower);
            all.extend(self.or_problem(value.span(), key, read(name.get_ref(), value.get_ref())));
        }
        all
    }

    /// The tables in a table, each by its name.
    pub(super) fn tables(&mut self, key: &'static str) -> Vec<(&'s str, Section<'d, 's>)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let DeValue::Table(tables) = value.get_ref() else {
            self.document.problem(value.span(), format!("{key}: expected tables such as [{key}.NAME]"));
            return Vec::new();
        };
        let section = |(name, value): (&'s Spanned<_>, &'s Spanned<DeValue<'d>>)| {
            let name: &'s std::borrow::Cow<'d, str> = name.get_ref();
            match value.get_ref() {
                DeValue::Table(table) => {
                    let shown = format!("[{key}.{name}]");
                    Some((name.as_ref(), Section::new(self.document, shown, table, value.span(), FEED)))
                }
                _ => {
                    self.document.problem(value.span(), format!("expected a table such as [{key}.{name}]"));
                    None
                }
            }
        };
        tables.iter().filter_map(section).collect()
    }

    /// The tables of an array; `shown` is how one is written.
    pub(super) fn array(&mut self, key: &'static str, shown: &str) -> Vec<Section<'d, 's>> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let expected = || format!("{key}: expected tables, each written as {shown}");
        let DeValue::Array(values) = value.get_ref() else {
            self.document.problem(value.span(), expected());
            return Vec::new();
        };
        let depth = self.origins.depth() + 1;
        let section = |value: &'s Spanned<DeValue<'d>>| match value.get_ref() {
            DeValue::Table(table) => {
                Some(Section::new(self.document, shown.to_owned(), table, value.span(), depth))
            }
            _ => {
                self.document.problem(value.span(), expected());
                None
            }
        };
        values.iter().filter_map(section).collect()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.keys().any(|name| name.get_ref() == key)
    }

    /// Something is wrong with the table as a whole.
    pub(super) fn problem(&self, message: String) {
        self.document.problem(self.at.clone(), message);
    }

    /// Something is wrong with one of its keys.
    pub(super) fn problem_at(&self, key: &str, message: String) {
        let found = self.table.iter().find(|(name, _)| name.get_ref() == key);
        self.document.problem(found.map_or(self.at.clone(), |(name, _)| name.span()), message);
    }

    /// The end: every key that nobody has asked for is a mistake. `advice` may know more about one, as keys are spelt.
    pub(super) fn finish(self, advice: impl Fn(&str) -> Option<String>) {
        for name in self.table.keys().filter(|name| !self.known.contains(&name.get_ref().as_ref())) {
            let key = name.get_ref();
            let hint = self.hint(&spelt(key), &advice).map(|hint| format!("; {hint}")).unwrap_or_default();
            self.document.problem(name.span(), format!("unknown key {key:?} in {}{hint}", self.name));
        }
    }

    fn hint(&self, key: &str, advice: impl Fn(&str) -> Option<String>) -> Option<String> {
        let advice = if self.known.contains(&key) { None } else { advice(key) };
        advice.or_else(|| Some(format!("did you mean {:?}?", nearest(key, &self.known)?)))
    }

    fn or_problem<T>(&self, at: Range<usize>, key: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|message| self.document.problem(at, format!("{key}: {message}"))).ok()
    }
}

/// What the command line would have.
fn text_of(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => Ok(number.to_string()),
        DeValue::Float(number) => Ok(number.to_string()),
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err(format!("expected a string or a number, not {}", value.type_str()))
        }
    }
}
