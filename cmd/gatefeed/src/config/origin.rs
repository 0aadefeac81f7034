//! Where each key stands, so that what is found wrong with it later can be told with its place.

use std::collections::BTreeMap;

use super::document::{Depth, Place, TOP};

/// Where the value of a key comes from.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Origin {
    /// `None`: a flag, or its variable.
    pub(super) place: Option<Place>,
    pub(super) depth: Depth,
}

/// Of a table, or of several of which the narrower one goes first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins {
    /// Where the narrowest table begins, if there is any.
    table: Option<Origin>,
    keys: BTreeMap<String, Origin>,
}

impl Origins {
    pub(super) fn new(table: Place, depth: Depth) -> Self {
        Self { table: Some(Origin { place: Some(table), depth }), keys: BTreeMap::new() }
    }

    pub(super) fn depth(&self) -> Depth {
        self.table.map_or(TOP, |table| table.depth)
    }

    pub(super) fn set(&mut self, key: &str, place: Place) {
        let origin = Origin { place: Some(place), depth: self.depth() };
        self.keys.insert(key.to_owned(), origin);
    }

    /// A flag has taken the place of the key at the top.
    pub(crate) fn set_flag(&mut self, key: &str) {
        self.keys.insert(key.to_owned(), Origin { place: None, depth: TOP });
    }

    /// Where the key stands; it may have a value that could not be read.
    pub(super) fn of(&self, key: &str) -> Option<Origin> {
        self.keys.get(key).copied()
    }

    pub(super) fn table(&self) -> Option<Origin> {
        self.table
    }

    /// Of both, where `wider` is what holds for want of something narrower.
    pub(super) fn or(&self, wider: &Self) -> Self {
        let mut keys = wider.keys.clone();
        keys.extend(self.keys.iter().map(|(key, origin)| (key.clone(), *origin)));
        Self { table: self.table.or(wider.table), keys }
    }
}
