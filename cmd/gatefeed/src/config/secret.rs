//! Where secrets are, and reading them. They are in files or variables, and never in the configuration, in logs, in errors or
//! in the database.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// The variable of signing secrets for all that have none of their own.
pub(crate) const SIGNING_VARIABLE: &str = "GATEFEED_SIGNING_SECRET";

/// More than any secret, and any file of certificates, has.
const BYTES_MAX: u64 = 1024 * 1024;

/// Where a secret is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Source {
    File(PathBuf),
    Variable(String),
}

impl Source {
    /// Which of its two keys it stands at.
    pub(super) fn key(&self, file: &'static str, variable: &'static str) -> &'static str {
        match self {
            Self::File(_) => file,
            Self::Variable(_) => variable,
        }
    }

    fn read(&self, base: &Path) -> Result<Vec<u8>, String> {
        match self {
            Self::File(path) => read_file(&base.join(path)),
            Self::Variable(name) => match std::env::var(name) {
                Ok(text) if !text.trim().is_empty() => Ok(text.into_bytes()),
                Err(std::env::VarError::NotUnicode(_)) => Err(format!("the variable {name} is not UTF-8")),
                _ => Err(format!("the variable {name} is not set, or empty")),
            },
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Variable(name) => write!(f, "the variable {name}"),
        }
    }
}

/// What has been read: a file that is a pipe has its secret once only.
pub(super) struct Secrets {
    base: PathBuf,
    known: BTreeMap<Source, Result<Vec<u8>, String>>,
}

impl Secrets {
    /// `base` is where paths begin.
    pub(super) fn new(base: PathBuf) -> Self {
        Self { base, known: BTreeMap::new() }
    }

    /// Reads one. The error says why that cannot be, without any part of it.
    pub(super) fn bytes(&mut self, source: &Source) -> Result<Vec<u8>, String> {
        let Self { base, known } = self;
        known.entry(source.clone()).or_insert_with(|| source.read(base)).clone()
    }

    /// As [`Secrets::bytes`], of one that is text and not empty.
    pub(super) fn text(&mut self, source: &Source) -> Result<String, String> {
        let text = String::from_utf8(self.bytes(source)?).map_err(|_| format!("{source} is not text"))?;
        if text.trim().is_empty() { Err(format!("{source} is empty")) } else { Ok(text) }
    }
}

/// Reads a file whole.
fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    let refused = |why: String| format!("cannot read {}: {why}", path.display());
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| refused(error.to_string()))?;
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| refused(error.to_string()))?;
    match bytes.len() as u64 > BYTES_MAX {
        true => Err(refused(format!("it has more than {BYTES_MAX} bytes"))),
        false => Ok(bytes),
    }
}
