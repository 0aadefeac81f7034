//! Numbers, times and foreign text, in words.

use chrono::{DateTime, Utc};
use unicode_width::UnicodeWidthStr;

/// A count of zero: a dot, so that what there is stands out.
pub(super) const NONE: &str = "·";

/// A count; a dot for none.
pub(crate) fn count(value: i64) -> String {
    if value == 0 { NONE.to_owned() } else { number(value) }
}

/// A number with its thousands apart: `1,234,567`.
pub(crate) fn number(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = if value < 0 { "-".to_owned() } else { String::new() };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many a second; a dot for none.
pub(crate) fn rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 9.95 => number(rate.round() as i64),
        rate if rate >= 0.05 => format!("{rate:.1}"),
        rate if rate > 0.0 => "<0.1".to_owned(),
        _ => NONE.to_owned(),
    }
}

/// A number of bytes, for people.
pub(crate) fn size(bytes: i64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if bytes < 1024 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A moment as seen from now: `3s ago`, `in 90m`, `now`. A unit ends where two of the next begin, so that what is cut
/// off is never half of what is told.
pub(crate) fn relative(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let from_now = at.signed_duration_since(now).num_seconds();
    let secs = from_now.abs();
    let (length, unit) = match secs {
        0 => return "now".to_owned(),
        _ if secs < 2 * MINUTE => (secs, "s"),
        _ if secs < 2 * HOUR => (secs / MINUTE, "m"),
        _ if secs < 2 * DAY => (secs / HOUR, "h"),
        _ if secs < 2 * YEAR => (secs / DAY, "d"),
        _ => (secs / YEAR, "y"),
    };
    let length = number(length);
    if from_now > 0 { format!("in {length}{unit}") } else { format!("{length}{unit} ago") }
}

/// As [`relative`], with a dash for never.
pub(crate) fn relative_or_dash(at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| relative(at, now))
}

/// Text of unknown origin as a piece of a line: what a terminal would obey becomes visible.
pub(crate) fn shown(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// As [`shown`]; what is over `max` characters is cut.
pub(crate) fn shortened(text: &str, max: usize) -> String {
    let mut shown: String = text.chars().take(max).map(visible).collect();
    if text.chars().nth(max).is_some() {
        shown.push('…');
    }
    shown
}

fn visible(c: char) -> char {
    match c {
        '\n' | '\r' | '\t' => ' ',
        c if is_harmful(c) => '\u{fffd}',
        c => c,
    }
}

/// Whether a terminal would act on it instead of showing it: a control character, one that turns the direction of
/// writing, or one that cannot be seen.
pub(crate) fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// Prose in lines that fit; a word that is longer than a line stays whole.
pub(crate) fn wrapped(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width else { return vec![text.to_owned()] };
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// An argument as a shell takes it.
pub(crate) fn quoted(argument: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=,".contains(c);
    if !argument.is_empty() && argument.chars().all(is_plain) {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    #[test]
    fn times_are_told_from_now() {
        let now = Utc::now();
        for (secs, expected) in [
            (0, "now"),
            (-3, "3s ago"),
            (119, "in 119s"),
            (125, "in 2m"),
            (-7199, "119m ago"),
            (-7200, "2h ago"),
            (-200_000, "2d ago"),
            (729 * 86_400, "in 729d"),
            (-731 * 86_400, "2y ago"),
        ] {
            assert_eq!(relative(now + TimeDelta::seconds(secs), now), expected);
        }
        assert_eq!(relative(DateTime::<Utc>::MAX_UTC, DateTime::<Utc>::MIN_UTC), "in 524,634y");
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!((count(0), count(999), count(1_000)), ("·".into(), "999".into(), "1,000".into()));
        assert_eq!((number(0), number(-1_234_567)), ("0".into(), "-1,234,567".into()));
        assert_eq!(number(i64::MIN), "-9,223,372,036,854,775,808");
        for (per_second, expected) in
            [(0.0, "·"), (f64::NAN, "·"), (0.01, "<0.1"), (9.94, "9.9"), (9.96, "10"), (12_345.6, "12,346")]
        {
            assert_eq!(rate(per_second), expected);
        }
    }

    #[test]
    fn prose_is_wrapped_where_there_is_an_edge() {
        assert_eq!(wrapped("one two three", None), ["one two three"]);
        assert_eq!(wrapped("one two three-and-four 5", Some(7)), ["one two", "three-and-four", "5"]);
        assert_eq!(wrapped("one four", Some(7)), ["one", "four"]);
        assert_eq!(wrapped("", Some(7)), [""]);
    }

    #[test]
    fn sizes_and_arguments_and_foreign_text() {
        assert_eq!((size(0), size(1023)), ("0 B".into(), "1023 B".into()));
        assert_eq!((size(1536), size(1 << 20)), ("1.5 KiB".into(), "1.0 MiB".into()));
        assert_eq!(size((1 << 20) - 1), "1.0 MiB");
        assert_eq!(quoted("a/b-1.txt"), "a/b-1.txt");
        assert_eq!(quoted("it's here"), r"'it'\''s here'");
        assert_eq!(shortened("a\x1b[31mb\nc", 6), "a\u{fffd}[31m…");
        assert_eq!(shown("invoice-\u{202e}fdp.exe"), "invoice-\u{fffd}fdp.exe");
        assert_eq!(shown("a\r\n\u{9b}b family 👨\u{200d}👩"), "a  \u{fffd}b family 👨\u{200d}👩");
    }
}
