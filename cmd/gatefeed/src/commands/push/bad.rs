//! Lines and files that cannot be items.

use std::fmt::Write;

use indicatif::HumanCount;

use super::entry::Place;
use crate::output::shortened;

/// More are counted, not shown.
const SHOWN_MAX: usize = 20;

/// A message may quote what it is about.
const PROBLEM_CHARS_MAX: usize = 300;

/// Those of one input.
#[derive(Debug, Default)]
pub(super) struct Bad {
    shown: Vec<String>,
    number: u64,
    /// Whether already the first line of an input is one of them.
    is_from_the_start: bool,
}

impl Bad {
    pub(super) fn add(&mut self, place: &Place, problem: &str) {
        self.is_from_the_start |= place.line == Some(1);
        self.number += 1;
        if self.shown.len() < SHOWN_MAX {
            self.shown.push(format!("{place}: {}", shortened(problem, PROBLEM_CHARS_MAX)));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.number == 0
    }

    /// How many there are.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the input looks like no lines of JSON at all.
    pub(super) fn is_from_the_start(&self) -> bool {
        self.is_from_the_start
    }

    /// How many of what: `3 bad lines`.
    pub(super) fn headline(&self, noun: &str) -> String {
        let plural = if self.number == 1 { "" } else { "s" };
        format!("{} bad {noun}{plural}", HumanCount(self.number))
    }

    /// The first ones, each on a line of its own that begins with a line break.
    pub(super) fn list(&self) -> String {
        let mut list = String::new();
        for line in &self.shown {
            _ = write!(list, "\n  {line}");
        }
        let more = self.number - self.shown.len() as u64;
        if more > 0 {
            _ = write!(list, "\n  and {} more", HumanCount(more));
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_are_shown_and_the_rest_is_counted() {
        let mut bad = Bad::default();
        for line in 1..=1025 {
            bad.add(&Place { source: "f".into(), line: Some(line) }, "no");
        }
        assert_eq!(bad.headline("line"), "1,025 bad lines");
        assert_eq!(bad.list().lines().count(), 1 + 20 + 1);
        assert!(bad.list().starts_with("\n  f:1: no\n") && bad.list().ends_with("\n  and 1,005 more"));
    }
}
