//! Dependencies: which items of its partition an item waits for, and what it does when one of them fails.

use std::collections::HashSet;

use crate::{error::StoreError, id::check_id};

/// The most items that one item may name.
pub const DEPENDS_ON_MAX: usize = 10_000;

/// What becomes of an item when one that it depends on fails or is cancelled.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnDependencyFailure {
    /// It fails too, with the reason in its `error_messages`.
    #[default]
    Fail,
    /// It is cancelled, with the reason: it does not hold the partition up.
    Skip,
    /// It is delivered all the same, once nothing that it names is open.
    Run,
}

impl OnDependencyFailure {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::Fail, Self::Skip, Self::Run];

    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Skip => "skip",
            Self::Run => "run",
        }
    }
}

impl std::str::FromStr for OnDependencyFailure {
    type Err = StoreError;

    fn from_str(word: &str) -> Result<Self, StoreError> {
        let known = Self::ALL.into_iter().find(|policy| policy.as_str() == word);
        known.ok_or_else(|| StoreError::data(format!("{word:?} is not fail, skip or run")))
    }
}

/// Where an item's data comes from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Input {
    /// What it was added with.
    #[default]
    Own,
    /// The data of the one item that it depends on, as that left it.
    Parent,
}

impl Input {
    /// The word in the database; `None` for NULL.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Own => None,
            Self::Parent => Some("parent"),
        }
    }
}

impl std::str::FromStr for Input {
    type Err = StoreError;

    fn from_str(word: &str) -> Result<Self, StoreError> {
        match word {
            "parent" => Ok(Self::Parent),
            _ => Err(StoreError::data(format!("{word:?} is not parent"))),
        }
    }
}

/// What an item waits for: it is `blocked` until all of these are complete.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Dependencies {
    /// Ids of items of the same partition, each once.
    pub on: Vec<String>,
    /// What it does when one of them fails or is cancelled.
    pub on_failure: OnDependencyFailure,
    /// Where its data comes from.
    pub input: Input,
}

impl Dependencies {
    /// On these items, with the defaults.
    pub fn on(ids: impl IntoIterator<Item: Into<String>>) -> Self {
        Self { on: ids.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Whether there is nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.on.is_empty()
    }

    /// What is wrong with them, as far as that can be seen without the partition; `id` is the item's, if it has
    /// one of its own.
    pub fn check(&self, id: Option<&str>) -> Result<(), String> {
        if self.on.len() > DEPENDS_ON_MAX {
            return Err(format!("depends_on has {} ids, expected at most {DEPENDS_ON_MAX}", self.on.len()));
        }
        let mut seen = HashSet::with_capacity(self.on.len());
        for name in &self.on {
            check_id("an id in depends_on", name).map_err(|error| error.to_string())?;
            if id == Some(name) {
                return Err(format!("it depends on itself: {name} → {name}"));
            }
            if !seen.insert(name) {
                return Err(format!("depends_on names {name:?} twice"));
            }
        }
        if self.input == Input::Parent && self.on.len() > 1 {
            return Err(format!(
                "input is \"parent\", but depends_on names {} items: name one",
                self.on.len()
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_seen_without_the_partition_is_refused() {
        let check =
            |on: &[&str], input| Dependencies { input, ..Dependencies::on(on.to_vec()) }.check(Some("a"));
        assert_eq!(check(&["b", "c"], Input::Own), Ok(()));
        assert_eq!(check(&["b"], Input::Parent), Ok(()));
        assert_eq!(check(&[], Input::Own), Ok(()));
        for (on, input, expected) in [
            (&["b", "a"][..], Input::Own, "itself: a → a"),
            (&["b", "b"], Input::Own, "\"b\" twice"),
            (&["b", ""], Input::Own, "an id in depends_on is empty"),
            (&["b", "c"], Input::Parent, "names 2 items"),
        ] {
            let error = check(on, input).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
        let many = Dependencies::on((0..=DEPENDS_ON_MAX).map(|n| n.to_string()));
        assert!(many.check(None).unwrap_err().contains("at most 10000"));
    }

    #[test]
    fn words_are_those_of_the_database() {
        for policy in OnDependencyFailure::ALL {
            assert_eq!(policy.as_str().parse::<OnDependencyFailure>().unwrap(), policy);
        }
        assert!("stop".parse::<OnDependencyFailure>().is_err());
        assert_eq!("parent".parse::<Input>().unwrap().as_str(), Some("parent"));
        assert!("child".parse::<Input>().is_err());
    }
}
