//! Where secrets are, and reading them. They are in files or variables, and never in the configuration, in logs, in errors or
//! in the database.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use gatefeed_core::StoreError;

/// The variable of signing secrets for all that have none of their own.
pub(crate) const SIGNING_VARIABLE: &str = "GATEFEED_SIGNING_SECRET";

/// More than any secret, and any file of certificates, has.
const BYTES_MAX: u64 = 1024 * 1024;

/// Where a secret is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    File(PathBuf),
    Variable(String),
}

impl Source {
    /// Reads it; `what` it is, and `base` is where paths begin.
    pub(crate) fn read(&self, what: &str, base: &Path) -> Result<String, StoreError> {
        match self {
            Self::File(path) => {
                let bytes = read_file(what, &base.join(path))?;
                String::from_utf8(bytes)
                    .map_err(|_| StoreError::Config(format!("{what} in {} is not text", path.display())))
            }
            Self::Variable(name) => match std::env::var(name) {
                Ok(text) if !text.trim().is_empty() => Ok(text),
                Err(std::env::VarError::NotUnicode(_)) => {
                    Err(StoreError::Config(format!("{what}: the variable {name} is not UTF-8")))
                }
                _ => Err(StoreError::Config(format!("{what}: the variable {name} is not set, or empty"))),
            },
        }
    }
}

/// Reads a file whole.
pub(super) fn read_file(what: &str, path: &Path) -> Result<Vec<u8>, StoreError> {
    let refused =
        |why: String| StoreError::Config(format!("cannot read {what} from {}: {why}", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| refused(error.to_string()))?;
    file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| refused(error.to_string()))?;
    match bytes.len() as u64 > BYTES_MAX {
        true => Err(refused(format!("it has more than {BYTES_MAX} bytes"))),
        false => Ok(bytes),
    }
}
