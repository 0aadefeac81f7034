//! The configuration file of `gatefeed run`: what its flags say, and what feeds and gates have of their own.
//! docs/configuration.md is the page for people.

mod check;
mod credentials;
mod document;
mod file;
mod findings;
mod meant;
mod origin;
mod plan;
mod secret;
mod spread;

use std::path::Path;

use anyhow::Result;
use gatefeed_core::StoreError;
use url::Url;

pub(crate) use self::{
    file::{File, Handling},
    plan::{Plan, request_timeout, retry_policy},
    secret::{SIGNING_VARIABLE, Source},
};

/// Reads a file. What is wrong with its values is kept, so that a [`Plan`] can tell it with all that is found later; errs
/// where it cannot be read, or is no TOML.
pub(crate) fn load(path: &Path) -> Result<File> {
    let shown = path.display();
    let bytes = std::fs::read(path)
        .map_err(|error| StoreError::Config(format!("cannot read the configuration {shown}: {error}")))?;
    let problems = match file::read(&bytes) {
        Ok(file) => return Ok(File { path: Some(path.to_owned()), ..file }),
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
