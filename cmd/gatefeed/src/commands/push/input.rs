//! What is pushed: stdin, files and folders.

use std::{
    fs::{self, File},
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use gatefeed_core::StoreError;

use super::PushArgs;
use crate::output::quoted;

/// One of them.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Stdin,
    /// A regular file of this size.
    File(PathBuf, u64),
    /// A pipe or a device: it can be read once only.
    Pipe(PathBuf),
    Folder(PathBuf),
}

impl Input {
    /// Whether it can be read to check it, and then again.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(self, Self::File(..) | Self::Folder(_))
    }

    /// Bytes, if they are known beforehand.
    fn size(&self) -> Option<u64> {
        match self {
            Self::File(_, bytes) => Some(*bytes),
            _ => None,
        }
    }

    fn open(path: &Path, as_files: bool) -> Result<Self> {
        let cannot = || format!("cannot read {}", path.display());
        let metadata = fs::metadata(path).with_context(cannot)?;
        if metadata.is_dir() {
            fs::read_dir(path).with_context(cannot)?;
            return if as_files { Ok(Self::Folder(path.to_owned())) } else { Err(folder(path).into()) };
        }
        if !metadata.is_file() {
            return Ok(Self::Pipe(path.to_owned()));
        }
        File::open(path).with_context(cannot)?;
        Ok(Self::File(path.to_owned(), metadata.len()))
    }
}

fn folder(path: &Path) -> StoreError {
    StoreError::Config(format!(
        "{} is a folder: add --files to push each of its files as an item",
        path.display()
    ))
}

/// What the arguments name; errs when something of it cannot be read.
pub(super) fn find(args: &PushArgs) -> Result<Vec<Input>> {
    if args.inputs.is_empty() {
        return Ok(vec![default(args)?]);
    }
    if args.inputs.iter().filter(|path| is_stdin(path)).count() > usize::from(!args.files) {
        let problem =
            if args.files { "--files takes paths, not stdin (-)" } else { "- can be read once only" };
        return Err(StoreError::Config(problem.to_owned()).into());
    }
    let input = |path: &PathBuf| match is_stdin(path) {
        true => Ok(Input::Stdin),
        false => Input::open(path, args.files),
    };
    args.inputs.iter().map(input).collect()
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Nobody means to type JSON by hand, and a program that silently waits looks broken.
fn default(args: &PushArgs) -> Result<Input, StoreError> {
    let command = format!("gatefeed push --partition {}", quoted(&args.partition));
    if args.files {
        return Err(StoreError::Config(format!("there is no file to push: {command} --files a.pdf b.pdf")));
    }
    if io::stdin().is_terminal() {
        return Err(StoreError::Config(format!(
            "there is nothing to push: name a file, or pipe lines of JSON in, as in\n  {command} rows.ndjson\n  \
             echo '{{\"page\": 1}}' | {command}"
        )));
    }
    Ok(Input::Stdin)
}

/// How many bytes all of it has, if that is known beforehand.
pub(super) fn size(inputs: &[Input]) -> Option<u64> {
    inputs.iter().map(Input::size).sum()
}
