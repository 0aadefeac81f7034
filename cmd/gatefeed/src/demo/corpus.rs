//! The documents of the demo: those that come with the binary, or the files of a folder, read as they are
//! needed so that a folder may be larger than the memory.

use std::{
    collections::hash_map::DefaultHasher,
    ffi::OsStr,
    fs::{self, File},
    hash::{Hash, Hasher},
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use gatefeed_core::id::ID_BYTES_MAX;
use include_dir::{Dir, include_dir};
use walkdir::WalkDir;

static RESUMES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../examples/resumes");

/// Larger files are skipped.
pub(crate) const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A batch is full with this many documents or bytes, whichever comes first.
const BATCH_DOCUMENTS_MAX: usize = 1000;
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;

/// The id of the item that ranks; a file of this name gets another one.
pub(crate) const RANKING_ID: &str = "ranking";

/// A document on its way into the queue.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) bytes: Vec<u8>,
}

impl Entry {
    pub(crate) fn content_type(&self) -> &'static str {
        if std::str::from_utf8(&self.bytes).is_ok() { "text/plain" } else { "application/octet-stream" }
    }
}

/// Why files were left out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Skipped {
    pub(crate) unreadable: u64,
    pub(crate) too_large: u64,
}

/// Documents, batch by batch.
pub(crate) struct Corpus {
    entries: Box<dyn Iterator<Item = io::Result<Found>> + Send>,
    pub(crate) skipped: Skipped,
}

/// What a walk meets.
enum Found {
    Document(Entry),
    TooLarge,
}

impl Corpus {
    /// The résumés that come with gatefeed, or the files under `dir`.
    pub(crate) fn open(dir: Option<&Path>) -> Result<Self> {
        let entries: Box<dyn Iterator<Item = io::Result<Found>> + Send> = match dir {
            None => Box::new(RESUMES.files().map(|file| Ok(embedded(file)))),
            Some(dir) => {
                check_dir(dir)?;
                Box::new(walk(dir.to_owned()))
            }
        };
        Ok(Self { entries, skipped: Skipped::default() })
    }

    /// The next documents; empty at the end. Blocks while it reads.
    pub(crate) fn next_batch(&mut self) -> Vec<Entry> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_DOCUMENTS_MAX && bytes < BATCH_BYTES_MAX {
            match self.entries.next() {
                None => break,
                Some(Ok(Found::Document(entry))) => {
                    bytes += entry.bytes.len();
                    batch.push(entry);
                }
                Some(Ok(Found::TooLarge)) => self.skipped.too_large += 1,
                Some(Err(_)) => self.skipped.unreadable += 1,
            }
        }
        batch
    }
}

impl Skipped {
    /// A line for people, if there is anything to tell.
    pub(crate) fn line(self) -> Option<String> {
        let reasons = [(self.unreadable, "cannot be read"), (self.too_large, "over 16 MiB")];
        let told: Vec<_> =
            reasons.iter().filter(|(n, _)| *n > 0).map(|(n, reason)| format!("{n} {reason}")).collect();
        (!told.is_empty()).then(|| format!("skipped files: {}", told.join(", ")))
    }
}

fn embedded(file: &include_dir::File<'_>) -> Found {
    Found::Document(Entry { id: id_of(file.path()), bytes: file.contents().to_vec() })
}

fn check_dir(dir: &Path) -> Result<()> {
    let shown = dir.display();
    let metadata = fs::metadata(dir).with_context(|| format!("cannot read the folder {shown}"))?;
    if !metadata.is_dir() {
        bail!("{shown} is a file: expected a folder with text files");
    }
    fs::read_dir(dir).with_context(|| format!("cannot read the folder {shown}"))?;
    Ok(())
}

/// Regular files, links followed, in order of name; what cannot be read is an error of its own.
fn walk(dir: PathBuf) -> impl Iterator<Item = io::Result<Found>> + Send {
    let entries = WalkDir::new(&dir).follow_links(true).sort_by_file_name();
    entries.into_iter().filter_map(move |entry| match entry {
        Ok(entry) if entry.file_type().is_file() => Some(read(&dir, entry.path())),
        Ok(_) => None,
        Err(error) => Some(Err(error.into())),
    })
}

/// The size is found by reading: what the file system tells may be outdated or, under /proc, zero.
fn read(dir: &Path, path: &Path) -> io::Result<Found> {
    let mut bytes = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Ok(Found::TooLarge);
    }
    let relative = path.strip_prefix(dir).unwrap_or(path);
    Ok(Found::Document(Entry { id: id_of(relative), bytes }))
}

/// The path as an item id. What an id or an HTTP header cannot hold is replaced, and a hash of the path keeps
/// such ids apart.
fn id_of(path: &Path) -> String {
    let name = path.as_os_str();
    match name.to_str() {
        Some(RANKING_ID) => format!("./{RANKING_ID}"),
        Some(id) if is_sendable(id) => id.to_owned(),
        _ => made_valid(name),
    }
}

fn is_sendable(id: &str) -> bool {
    !id.is_empty() && id.len() <= ID_BYTES_MAX && id.trim() == id && !id.chars().any(char::is_control)
}

fn made_valid(name: &OsStr) -> String {
    let mut hasher = DefaultHasher::new();
    name.as_bytes().hash(&mut hasher);
    let suffix = format!("~{:016x}", hasher.finish());
    let shown: String =
        name.to_string_lossy().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let shown = shown.trim();
    let room = ID_BYTES_MAX - suffix.len();
    let end = (0..=room.min(shown.len())).rev().find(|end| shown.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{suffix}", &shown[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefeed_core::id::check_id;
    use std::os::unix::fs::symlink;

    fn all(dir: Option<&Path>) -> (Vec<Entry>, Skipped) {
        let mut corpus = Corpus::open(dir).unwrap();
        let mut entries = Vec::new();
        loop {
            let batch = corpus.next_batch();
            if batch.is_empty() {
                return (entries, corpus.skipped);
            }
            assert!(batch.len() <= BATCH_DOCUMENTS_MAX);
            entries.extend(batch);
        }
    }

    #[test]
    fn the_resumes_come_with_the_binary() {
        let (entries, skipped) = all(None);
        assert_eq!((entries.len(), skipped), (60, Skipped::default()));
        assert!(entries.iter().all(|e| e.content_type() == "text/plain" && !e.id.contains('/')));
    }

    #[test]
    fn a_folder_is_walked_in_order_and_its_bytes_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        fs::create_dir(path.join("b")).unwrap();
        fs::write(path.join("b/one.txt"), "one").unwrap();
        fs::write(path.join("a"), b"\xff\x00").unwrap();
        fs::write(path.join("empty"), "").unwrap();
        fs::write(path.join("ranking"), "a file").unwrap();
        symlink(path.join("a"), path.join("link")).unwrap();
        symlink(path.join("nowhere"), path.join("dangling")).unwrap();
        symlink(path, path.join("b/loop")).unwrap();
        let (entries, skipped) = all(Some(path));
        let ids: Vec<_> = entries.iter().map(|e| e.id.as_str()).collect();
        assert_eq!(ids, ["a", "b/one.txt", "empty", "link", "./ranking"]);
        assert_eq!((&entries[0].bytes[..], &entries[3].bytes[..]), (&b"\xff\x00"[..], &b"\xff\x00"[..]));
        assert_eq!(entries[0].content_type(), "application/octet-stream");
        assert_eq!(skipped, Skipped { unreadable: 2, too_large: 0 });
        assert_eq!(skipped.line().unwrap(), "skipped files: 2 cannot be read");
    }

    #[test]
    fn large_files_are_skipped_and_batches_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let sized = |name: &str, bytes| File::create(dir.path().join(name)).unwrap().set_len(bytes).unwrap();
        sized("at the limit", FILE_BYTES_MAX);
        sized("over", FILE_BYTES_MAX + 1);
        sized("small", 3);
        let mut corpus = Corpus::open(Some(dir.path())).unwrap();
        let lengths: Vec<_> = (0..3).map(|_| corpus.next_batch().len()).collect();
        assert_eq!((lengths, corpus.skipped.too_large), (vec![1, 1, 0], 1));
    }

    #[test]
    fn what_is_no_folder_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = |path: &Path| format!("{:#}", Corpus::open(Some(path)).err().unwrap());
        assert!(error(file.path()).contains("is a file"));
        assert!(
            error(Path::new("/no such folder")).contains("cannot read the folder /no such folder: No such")
        );
    }

    #[test]
    fn every_path_becomes_a_valid_id_of_its_own() {
        let long = "é".repeat(400);
        let longer = format!("{long}x");
        let names: [&[u8]; 8] =
            [b"a\nb", b"a\tb", b"\xff", b"\xfe", b" a", b"a", long.as_bytes(), longer.as_bytes()];
        let ids: Vec<_> = names.iter().map(|name| id_of(Path::new(OsStr::from_bytes(name)))).collect();
        for (index, id) in ids.iter().enumerate() {
            assert!(check_id("item id", id).is_ok() && id.trim() == id, "{id:?}");
            assert!(!ids[..index].contains(id), "{id:?}");
        }
        assert_eq!(ids[5], "a");
    }
}
