//! What `docker build` sees: the repository without what `.dockerignore` names.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// The patterns of a `.dockerignore`; the last that matches a path or a folder above it decides.
pub(super) struct Ignore {
    patterns: Vec<Pattern>,
}

struct Pattern {
    /// Begins with "!".
    is_exception: bool,
    components: Vec<String>,
}

impl Ignore {
    /// Reads the repository's.
    pub(super) fn of(repository: &Path) -> Self {
        let text = fs::read_to_string(repository.join(".dockerignore")).unwrap();
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self { patterns: lines.map(Pattern::parse).collect() }
    }

    /// Whether a path in the repository stays out.
    pub(super) fn excludes(&self, path: &Path) -> bool {
        let names = names(path);
        let decides = |pattern: &&Pattern| (1..=names.len()).any(|n| pattern.matches(&names[..n]));
        self.patterns.iter().rev().find(decides).is_some_and(|pattern| !pattern.is_exception)
    }

    /// Whether something in an excluded folder comes along.
    fn lets_through(&self, folder: &Path) -> bool {
        let names = names(folder);
        self.patterns.iter().any(|pattern| pattern.is_exception && pattern.components.starts_with(&names))
    }

    /// Copies what is left into an empty folder, the times too, so that cargo sees what has changed.
    pub(super) fn copy(&self, repository: &Path, to: &Path) {
        self.copy_folder(repository, Path::new(""), to);
    }

    fn copy_folder(&self, repository: &Path, folder: &Path, to: &Path) {
        for entry in fs::read_dir(repository.join(folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                if !self.excludes(&path) || self.lets_through(&path) {
                    self.copy_folder(repository, &path, to);
                }
            } else if !self.excludes(&path) {
                copy_file(&entry.path(), &to.join(&path));
            }
        }
    }
}

impl Pattern {
    fn parse(line: &str) -> Self {
        let (is_exception, pattern) = match line.strip_prefix('!') {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        Self { is_exception, components: names(Path::new(pattern)) }
    }

    fn matches(&self, names: &[String]) -> bool {
        matches_all(&self.components, names)
    }
}

/// `**` is any number of folders.
fn matches_all(patterns: &[String], names: &[String]) -> bool {
    match (patterns.split_first(), names.split_first()) {
        (None, None) => true,
        (Some((any, rest)), _) if any == "**" => (0..=names.len()).any(|n| matches_all(rest, &names[n..])),
        (Some((pattern, patterns)), Some((name, names))) => {
            matches_one(pattern, name) && matches_all(patterns, names)
        }
        _ => false,
    }
}

/// `*` is any part of a name.
fn matches_one(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, end)) => {
            assert!(!end.contains(['*', '?', '[']), "{pattern}: more than this test understands");
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
    }
}

fn names(path: &Path) -> Vec<String> {
    path.components().map(|c| c.as_os_str().to_string_lossy().into_owned()).collect()
}

fn copy_file(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
    let modified = fs::metadata(from).unwrap().modified().unwrap();
    File::options().write(true).open(to).unwrap().set_modified(modified).unwrap();
}

/// Empties a folder but for what a build has left in its target/.
pub(super) fn empty(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            fs::remove_dir_all(path).unwrap();
        } else if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
}
