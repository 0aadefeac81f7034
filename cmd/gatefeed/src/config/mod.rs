//! The configuration file of `gatefeed run`: what its flags say, and what feeds and gates have of their own.
//! docs/configuration.md is the page for people.

mod document;
mod file;
mod plan;
mod secret;

use std::path::Path;

use anyhow::Result;
use gatefeed_core::StoreError;
use url::Url;

pub(crate) use self::{
    file::{File, Handling},
    plan::{Plan, request_timeout, retry_policy},
    secret::{SIGNING_VARIABLE, Source},
};

/// Reads a file. Errs with everything that is wrong with it, each with its line and column.
pub(crate) fn load(path: &Path) -> Result<File> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| StoreError::Config(format!("cannot read the configuration {shown}: {error}")))?;
    let problems = match file::read(&text) {
        Ok(file) => {
            let base = path.parent().unwrap_or(Path::new("")).to_owned();
            return Ok(File { base, ..file });
        }
        Err(problems) => problems,
    };
    let lines = problems.iter().map(|problem| format!("{shown}:{problem}")).collect::<Vec<_>>();
    Err(StoreError::Config(lines.join("\n")).into())
}

/// A target as people may see it: without its query, which may hold a secret.
pub(crate) fn shown(target: &Url) -> String {
    let mut url = target.clone();
    url.set_query(None);
    url.to_string()
}
