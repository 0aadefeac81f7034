//! Files as items: their bytes, with the path as the id.

use std::{
    fs::{self, File},
    io::{self, Read},
    iter,
    path::Path,
};

use gatefeed_core::{
    id::check_id,
    item::{Data, NewItem},
};
use walkdir::WalkDir;

use super::{
    entry::{Entries, Entry, Place, Reading},
    input::Input,
    path,
};

/// The type of a file whose name says nothing.
const BYTES: &str = "application/octet-stream";

/// Many JSON values are not JSON.
const JSON_LINES: &str = "application/x-ndjson";

/// The file, or the files in the folder and its subfolders in order of name.
pub(super) fn entries(input: Input, reading: &Reading) -> Entries {
    let reading = reading.clone();
    match input {
        Input::Stdin => Box::new(iter::empty()),
        Input::File(path, _) => Box::new(iter::once_with(move || Ok(entry(&path, &reading)))),
        // A pipe is gone once it is read.
        Input::Pipe(_) if reading.is_check => Box::new(iter::empty()),
        Input::Pipe(path) => Box::new(iter::once_with(move || Ok(entry(&path, &reading)))),
        Input::Folder(path) => {
            let walk = WalkDir::new(path).follow_links(true).sort_by_file_name();
            Box::new(walk.into_iter().filter_map(move |found| walked(found, &reading)).map(Ok))
        }
    }
}

fn walked(found: walkdir::Result<walkdir::DirEntry>, reading: &Reading) -> Option<Entry> {
    match found {
        Ok(found) => found.file_type().is_file().then(|| entry(found.path(), reading)),
        // A link back to a folder above: its files have their turn anyway.
        Err(error) if error.loop_ancestor().is_some() => None,
        Err(error) => {
            let place = Place::file(error.path().unwrap_or(Path::new("")));
            let problem = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
            Some(Entry { place, item: Err(format!("cannot be read: {problem}")), bytes: 0 })
        }
    }
}

fn entry(path: &Path, reading: &Reading) -> Entry {
    let content =
        if reading.is_check { size(path).map(|bytes| (bytes, Vec::new())) } else { read(path, reading) };
    let (bytes, item) = match content {
        Ok((bytes, content)) => (bytes, item(path, bytes, content, reading)),
        Err(error) => (0, Err(format!("cannot be read: {error}"))),
    };
    Entry { place: Place::file(path), item, bytes }
}

fn item(path: &Path, bytes: u64, content: Vec<u8>, reading: &Reading) -> Result<NewItem, String> {
    if let Some(problem) = reading.too_large(bytes) {
        return Err(problem);
    }
    let id = path::plain(path);
    let id = id.to_str().ok_or("its name is not UTF-8; expected a name that can be an item's id")?;
    check_id("the path", id).map_err(|error| format!("{error} to be an item's id"))?;
    let data = Data { bytes: content.into(), content_type: content_type(path).to_owned() };
    Ok(NewItem { gate: reading.format.gate, ..NewItem::new(&reading.format.partition, id, data) })
}

fn content_type(path: &Path) -> &'static str {
    let is_lines = |ending: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending));
    if is_lines("ndjson") || is_lines("jsonl") {
        return JSON_LINES;
    }
    mime_guess::from_path(path).first_raw().unwrap_or(BYTES)
}

/// Also errs when the file cannot be opened.
fn size(path: &Path) -> io::Result<u64> {
    File::open(path)?;
    Ok(fs::metadata(path)?.len())
}

/// The size is found by reading, as what the file system tells may be outdated; of a file that is too large it is
/// what the file system tells.
fn read(path: &Path, reading: &Reading) -> io::Result<(u64, Vec<u8>)> {
    let file = File::open(path)?;
    let told = file.metadata()?.len();
    let mut content = Vec::new();
    file.take(reading.bytes_max.saturating_add(1)).read_to_end(&mut content)?;
    let length = content.len() as u64;
    Ok((if length > reading.bytes_max { told.max(length) } else { length }, content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gatefeed_core::envelope::Format;
    use std::{
        ffi::OsStr,
        os::unix::{ffi::OsStrExt, fs::symlink},
    };

    fn reading(is_check: bool) -> Reading {
        let format = Format { partition: "p".into(), gate: 2, is_envelope: false };
        Reading { format, bytes_max: 5, as_files: true, is_check }
    }

    #[test]
    fn a_folder_is_its_files_in_order_of_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        fs::create_dir(path.join("b")).unwrap();
        for (name, content) in [
            ("b/x.PDF", "1"),
            ("d.jsonl", ""),
            ("d.NDJSON", ""),
            ("a é'\".json", "{}"),
            ("c", ""),
            ("a.txt", "12345"),
            ("large", "123456"),
        ] {
            fs::write(path.join(name), content).unwrap();
        }
        fs::write(path.join("a\nb"), "").unwrap();
        fs::write(path.join(OsStr::from_bytes(b"z\xff")), "").unwrap();
        symlink(path, path.join("b/loop")).unwrap();
        symlink("/nowhere", path.join("dangling")).unwrap();
        for is_check in [true, false] {
            let reading = reading(is_check);
            let entries: Vec<_> =
                reading.entries(vec![Input::Folder(path.to_owned())]).map(Result::unwrap).collect();
            let good: Vec<_> = entries.iter().filter_map(|entry| entry.item.as_ref().ok()).collect();
            let told: Vec<_> = good
                .iter()
                .map(|item| {
                    (item.id.strip_prefix(path.to_str().unwrap()).unwrap(), item.data.content_type.as_str())
                })
                .collect();
            let expected = [
                ("/a é'\".json", "application/json"),
                ("/a.txt", "text/plain"),
                ("/b/x.PDF", "application/pdf"),
                ("/c", BYTES),
                ("/d.NDJSON", JSON_LINES),
                ("/d.jsonl", JSON_LINES),
            ];
            assert_eq!(told, expected);
            assert!(good.iter().all(|item| item.gate == 2));
            let bad: Vec<_> = entries.iter().filter_map(|entry| entry.item.as_ref().err()).collect();
            for (problem, expected) in
                bad.iter().zip(["control character", "cannot be read", "6 bytes", "not UTF-8"])
            {
                assert!(problem.contains(expected), "{problem}");
            }
            assert_eq!(bad.len(), 4);
        }
    }
}
