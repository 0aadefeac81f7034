//! What failed items mean for their partition.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::StoreError;

/// How many failed items a partition puts up with, at each of its gates.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum FailurePolicy {
    /// None: the gate does not advance past a failed item; once nothing more can be delivered the partition fails.
    #[default]
    Stop,
    /// Any number: failed items count as through.
    Continue,
    /// At most so many at a gate; with more it is as under [`Self::Stop`].
    UpTo(u32),
    /// At most this share of the items that came to a gate; with more it is as under [`Self::Stop`].
    UpToShare(Share),
}

/// A share from 0 to 100 percent, with two decimals.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Share(u32);

/// The largest tolerated number of items.
pub const UP_TO_MAX: u32 = 999_999_999;

/// The failed items at one gate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Failures {
    /// The gate.
    pub gate: i32,
    /// So many failed there.
    pub failed: i64,
    /// Under a share: of so many that came to the gate. Counted up to what makes the failed ones tolerable.
    pub total: i64,
}

impl Share {
    /// So many hundredths of a percent; `None` beyond 100 %.
    pub fn of_hundredths(hundredths: u32) -> Option<Self> {
        (hundredths <= 10_000).then_some(Self(hundredths))
    }

    /// In hundredths of a percent.
    pub fn hundredths(self) -> u32 {
        self.0
    }
}

impl FailurePolicy {
    /// Whether failed items have to be counted, rather than that there are any.
    pub fn counts(self) -> bool {
        matches!(self, Self::UpTo(_) | Self::UpToShare(_))
    }

    /// Whether the failed items of a gate are put up with.
    pub fn tolerates(self, failures: &Failures) -> bool {
        match self {
            Self::Stop => failures.failed == 0,
            Self::Continue => true,
            Self::UpTo(max) => failures.failed <= i64::from(max),
            Self::UpToShare(share) => {
                let (failed, total) = (i128::from(failures.failed), i128::from(failures.total));
                failed * 10_000 <= total * i128::from(share.0)
            }
        }
    }

    /// How many items of a gate have to be found for this many failed ones to be put up with; `None`: it takes
    /// all of them. Whoever counts may stop there.
    pub fn total_wanted(self, failed: i64) -> Option<i64> {
        match self {
            Self::UpToShare(Share(share @ 1..)) => {
                Some(failed.saturating_mul(10_000).div_euclid(i64::from(share)).saturating_add(1))
            }
            _ => None,
        }
    }
}

/// As in the database: `stop`, `continue`, `10`, `5%`.
impl fmt::Display for FailurePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop => f.write_str("stop"),
            Self::Continue => f.write_str("continue"),
            Self::UpTo(max) => write!(f, "{max}"),
            Self::UpToShare(share) => write!(f, "{share}"),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0 / 100)?;
        match self.0 % 100 {
            0 => {}
            tenths if tenths % 10 == 0 => write!(f, ".{}", tenths / 10)?,
            hundredths => write!(f, ".{hundredths:02}")?,
        }
        f.write_str("%")
    }
}

impl<'de> Deserialize<'de> for FailurePolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for FailurePolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::str::FromStr for FailurePolicy {
    type Err = StoreError;

    fn from_str(word: &str) -> Result<Self, StoreError> {
        let policy = match word {
            "stop" => Some(Self::Stop),
            "continue" => Some(Self::Continue),
            _ => match word.strip_suffix('%') {
                Some(percent) => share(percent).map(Self::UpToShare),
                None => digits(word).filter(|max| *max <= UP_TO_MAX).map(Self::UpTo),
            },
        };
        policy.ok_or_else(|| {
            StoreError::data(format!(
                "unknown failure policy {word:?}: expected stop, continue, a number of failed items such as 10, or a \
                 share such as 5% or 0.25%"
            ))
        })
    }
}

/// Percent with up to two decimals.
fn share(percent: &str) -> Option<Share> {
    let (whole, decimals) = percent.split_once('.').unwrap_or((percent, "0"));
    let decimals = match decimals.len() {
        1 => digits(decimals)? * 10,
        2 => digits(decimals)?,
        _ => return None,
    };
    let whole = digits(whole).filter(|whole| *whole <= 100)?;
    Share::of_hundredths(whole * 100 + decimals)
}

/// A whole number without a sign.
fn digits(text: &str) -> Option<u32> {
    if text.is_empty() || text.len() > 9 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn policies_are_words_counts_and_shares() {
        for word in ["stop", "continue", "0", "10", "999999999", "5%", "0%", "100%", "0.25%", "12.5%"] {
            assert_eq!(word.parse::<FailurePolicy>().unwrap().to_string(), word);
        }
        for bad in
            ["", "%", "-1", "+1", "101%", "100.01%", "5.%", ".5%", "1.234%", "5 %", "1e3", "1000000000"]
        {
            assert!(bad.parse::<FailurePolicy>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tolerance_is_met_exactly() {
        let tolerates = |policy: &str, failed, total| {
            let policy: FailurePolicy = policy.parse().unwrap();
            policy.tolerates(&Failures { gate: 0, failed, total })
        };
        assert!(tolerates("10", 10, 0) && !tolerates("10", 11, 1000));
        assert!(tolerates("5%", 5, 100) && !tolerates("5%", 6, 100) && !tolerates("5%", 5, 99));
        assert!(tolerates("0%", 0, 0) && !tolerates("0%", 1, 1_000_000));
        assert!(tolerates("100%", 7, 7) && tolerates("continue", 7, 7) && !tolerates("stop", 1, 7));
    }

    proptest! {
        #[test]
        fn counting_may_stop_where_it_is_told(failed in 0..5000i64, share in 0..=10_000u32, total in 0..100_000i64) {
            let policy = FailurePolicy::UpToShare(Share::of_hundredths(share).unwrap());
            let counted = policy.total_wanted(failed).map_or(total, |wanted| total.min(wanted));
            let of = |total| policy.tolerates(&Failures { gate: 0, failed, total });
            prop_assert_eq!(of(counted), of(total));
        }
    }
}
