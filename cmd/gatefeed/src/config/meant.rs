//! Which key was meant by one that there is not.

/// As keys are spelt.
pub(super) fn spelt(key: &str) -> String {
    key.to_lowercase().replace('-', "_")
}

/// The key that was meant, as far as one can tell: one that has these words goes before one with like letters.
pub(super) fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    let key = OTHER_WORDS.iter().find(|(other, _)| *other == key).map_or(key, |(_, key)| *key);
    let unit = UNITS.iter().find_map(|unit| key.strip_suffix(unit));
    with_words(unit.unwrap_or(key), known).or_else(|| like(key, known))
}

/// What people call what has another name here.
const OTHER_WORDS: [(&str, &str); 8] = [
    ("endpoint", "target"),
    ("handler", "target"),
    ("target_url", "target"),
    ("targets", "target"),
    ("target_urls", "target"),
    ("uri", "target"),
    ("url", "target"),
    ("urls", "target"),
];

/// What people add to the names of times, which say their unit themselves here.
const UNITS: [&str; 3] = ["_ms", "_secs", "_seconds"];

/// The key that has these words: at the beginning sooner than elsewhere, and few others sooner than many; else the one
/// that is read first.
fn with_words(words: &str, known: &[&'static str]) -> Option<&'static str> {
    let begins = |key: &str| format!("{key}_").starts_with(&format!("{words}_"));
    let has = |key: &&str| format!("_{key}_").contains(&format!("_{words}_"));
    known.iter().copied().filter(has).min_by_key(|key| (!begins(key), key.matches('_').count()))
}

/// The key that has almost the same letters: one in three may be wrong, of a short one a single one.
fn like(letters: &str, known: &[&'static str]) -> Option<&'static str> {
    let wrong = |key: &&'static str| strsim::damerau_levenshtein(letters, key);
    let nearest = known.iter().copied().min_by_key(wrong)?;
    (wrong(&nearest) <= (letters.chars().count() / 3).max(1)).then_some(nearest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the order in which they are read.
    const KNOWN: [&str; 14] = [
        "target",
        "request_timeout",
        "connect_timeout",
        "target_health",
        "max_retries",
        "retry_base",
        "concurrency",
        "batch_size",
        "breaker_failures",
        "breaker_open",
        "target_rate_limit",
        "rate_limit",
        "public_url",
        "gate",
    ];

    #[test]
    fn words_are_found_before_letters() {
        for (key, expected) in [
            ("timeout", "request_timeout"),
            ("timeout_ms", "request_timeout"),
            ("rate", "rate_limit"),
            ("limit", "rate_limit"),
            ("target_rate", "target_rate_limit"),
            ("breaker", "breaker_failures"),
            ("health", "target_health"),
            ("retries", "max_retries"),
            ("retry", "retry_base"),
            ("batch", "batch_size"),
            ("url", "target"),
            ("targets", "target"),
            ("Endpoint", "target"),
            ("Target-Health", "target_health"),
            ("request_timeout_seconds", "request_timeout"),
            ("concurency", "concurrency"),
            ("Max-Retrys", "max_retries"),
            ("pubic_url", "public_url"),
            ("gaet", "gate"),
        ] {
            assert_eq!(nearest(&spelt(key), &KNOWN), Some(expected), "{key}");
        }
    }

    #[test]
    fn what_is_far_from_all_is_not_taken_for_any() {
        for key in ["hüte", "x", "", "_", "priority", "cost", "time_between_two_looks"] {
            assert_eq!(nearest(key, &KNOWN), None, "{key}");
        }
    }
}
