//! The lines and files of the input, one after the other.

use std::{
    fmt,
    fs::File,
    io::{self, BufRead, BufReader},
    iter,
    path::Path,
    sync::Arc,
};

use anyhow::{Context, Error, Result};
use gatefeed_core::{envelope::Format, item::NewItem};

use super::{
    files,
    input::Input,
    lines::{Content, Lines},
};
use crate::output::{shortened, size};

/// One read of the operating system.
const BUFFER_BYTES: usize = 256 * 1024;

/// How much of a path a message shows.
const PATH_CHARS_MAX: usize = 300;

/// How the input is read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) format: Format,
    /// The most bytes of a line or file.
    pub(super) bytes_max: u64,
    /// Whether each file is an item.
    pub(super) as_files: bool,
    /// Whether nothing is written: then the bytes of files are left alone.
    pub(super) is_check: bool,
}

/// A line that is not blank, or a file.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) place: Place,
    /// What it stands for, or what is wrong with it.
    pub(super) item: Result<NewItem, String>,
    /// How many bytes of the input it took, blank lines before it included.
    pub(super) bytes: u64,
}

/// Where an entry stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Place {
    pub(super) source: Arc<str>,
    /// `None`: the whole file.
    pub(super) line: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.source),
            None => f.write_str(&self.source),
        }
    }
}

impl Place {
    /// A file as a whole.
    pub(super) fn file(path: &Path) -> Self {
        Self { source: shown(path), line: None }
    }
}

fn shown(path: &Path) -> Arc<str> {
    shortened(&path.to_string_lossy(), PATH_CHARS_MAX).into()
}

/// What is read; an error ends it.
pub(super) type Entries = Box<dyn Iterator<Item = Result<Entry>> + Send>;

impl Reading {
    /// All entries of the inputs. Blocks while it reads.
    pub(super) fn entries(&self, inputs: Vec<Input>) -> Entries {
        let reading = self.clone();
        Box::new(inputs.into_iter().flat_map(move |input| match reading.as_files {
            true => files::entries(input, &reading),
            false => lines(input, &reading),
        }))
    }

    /// What is wrong with this many bytes, if that is too many.
    pub(super) fn too_large(&self, bytes: u64) -> Option<String> {
        let shown = |bytes: u64| size(i64::try_from(bytes).unwrap_or(i64::MAX));
        (bytes > self.bytes_max).then(|| {
            format!("has {} ({bytes} bytes), more than --max-payload {}", shown(bytes), shown(self.bytes_max))
        })
    }
}

fn lines(input: Input, reading: &Reading) -> Entries {
    match LineEntries::open(&input, reading) {
        Ok(mut entries) => Box::new(iter::from_fn(move || entries.next().transpose())),
        Err(error) => Box::new(iter::once(Err(error))),
    }
}

struct LineEntries {
    source: Arc<str>,
    lines: Lines<Box<dyn BufRead + Send>>,
    reading: Reading,
}

impl LineEntries {
    fn open(input: &Input, reading: &Reading) -> Result<Self> {
        let (source, input): (Arc<str>, Box<dyn io::Read + Send>) = match input {
            Input::Stdin => ("stdin".into(), Box::new(io::stdin())),
            Input::File(path, _) | Input::Pipe(path) | Input::Folder(path) => {
                (shown(path), Box::new(File::open(path).with_context(|| cannot_read(&shown(path)))?))
            }
        };
        let bytes_max = usize::try_from(reading.bytes_max).unwrap_or(usize::MAX);
        let input: Box<dyn BufRead + Send> = Box::new(BufReader::with_capacity(BUFFER_BYTES, input));
        let lines = Lines::new(input, bytes_max).with_context(|| cannot_read(&source))?;
        Ok(Self { source, lines, reading: reading.clone() })
    }

    fn next(&mut self) -> Result<Option<Entry>> {
        let before = self.lines.bytes_read();
        let line = self.lines.next().map_err(|error| Error::new(error).context(cannot_read(&self.source)))?;
        let Some(line) = line else { return Ok(None) };
        let item = match line.content {
            Content::Text(text) => self.reading.format.item(text, line.indent),
            Content::TooLong(bytes) => Err(self.reading.too_large(bytes).unwrap_or_default()),
        };
        let place = Place { source: Arc::clone(&self.source), line: Some(line.number) };
        Ok(Some(Entry { place, item, bytes: self.lines.bytes_read() - before }))
    }
}

fn cannot_read(source: &str) -> String {
    format!("cannot read {source}")
}
