//! What is wrong with a configuration, of all that is found on the way, in the order of the file.

use std::{collections::BTreeSet, path::PathBuf};

use gatefeed_core::StoreError;

use super::{
    document::Problem,
    file::{File, Handling},
    origin::Origin,
};

/// Kept until everything has been looked at.
pub(super) struct Findings {
    /// The file, if there is one.
    path: Option<PathBuf>,
    /// Of flags and variables.
    placeless: Vec<String>,
    /// What several levels inherit is told once.
    problems: BTreeSet<Problem>,
}

impl Findings {
    /// With what was wrong when the file was read.
    pub(super) fn new(file: &File) -> Self {
        let problems = file.problems.iter().cloned().collect();
        Self { path: file.path.clone(), placeless: Vec::new(), problems }
    }

    /// Something is wrong with a key, by its name in the file; its flag has the same.
    pub(super) fn at_key(&mut self, handling: &Handling, key: &str, message: String) {
        match handling.origins.of(key) {
            Some(origin) => self.at(origin, message),
            None => self.at_table(handling, message),
        }
    }

    /// Something is wrong with keys together: told at the one of the narrowest table, and there at the first of these.
    pub(super) fn at_one_of(&mut self, handling: &Handling, keys: &[&str], message: String) {
        let origins = keys.iter().rev().filter_map(|key| handling.origins.of(key));
        match origins.max_by_key(|origin| (origin.place.is_some(), origin.depth)) {
            Some(origin) => self.at(origin, message),
            None => self.at_table(handling, message),
        }
    }

    /// Something is missing from a table, or from one that it inherits from.
    pub(super) fn at_table(&mut self, handling: &Handling, message: String) {
        match handling.origins.table() {
            Some(origin) => self.at(origin, message),
            None => self.placeless(message),
        }
    }

    pub(super) fn at(&mut self, origin: Origin, message: String) {
        match origin.place {
            Some(place) => _ = self.problems.insert(Problem { place, message }),
            None => self.placeless(message),
        }
    }

    fn placeless(&mut self, message: String) {
        if !self.placeless.contains(&message) {
            self.placeless.push(message);
        }
    }

    /// Errs with everything that was found, each with its place.
    pub(super) fn into_result(self) -> Result<(), StoreError> {
        let path = self.path.map(|path| path.display().to_string()).unwrap_or_default();
        let placed = self.problems.iter().map(|problem| format!("{path}:{problem}"));
        let lines: Vec<String> = self.placeless.into_iter().chain(placed).collect();
        match lines.is_empty() {
            true => Ok(()),
            false => Err(StoreError::Config(lines.join("\n"))),
        }
    }
}
