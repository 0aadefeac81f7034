//! The `error_messages` column: what an item's attempts failed with, one line each, newest last.

/// The most bytes of error text kept for an item.
pub const LOG_BYTES_MAX: usize = 8 * 1024;

/// The most bytes of one message; longer ones are cut with an ellipsis.
pub const MESSAGE_BYTES_MAX: usize = 1024;

/// Adds a message to the log. A message that is there already moves to the end instead of standing twice;
/// past [`LOG_BYTES_MAX`] the oldest lines go.
pub fn append(log: Option<&str>, message: &str) -> String {
    let message = one_line(message);
    let mut lines: Vec<&str> =
        log.unwrap_or("").lines().filter(|line| !line.is_empty() && *line != message).collect();
    lines.push(&message);
    let mut size = lines.iter().map(|line| line.len() + 1).sum::<usize>() - 1;
    let mut dropped = 0;
    while size > LOG_BYTES_MAX && dropped + 1 < lines.len() {
        size -= lines[dropped].len() + 1;
        dropped += 1;
    }
    lines[dropped..].join("\n")
}

/// One printable line: control characters (a NUL cannot be stored in Postgres) become spaces, runs of white
/// space one space, and what is over [`MESSAGE_BYTES_MAX`] is cut.
fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len().min(MESSAGE_BYTES_MAX));
    let words = message.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
        if line.len() > MESSAGE_BYTES_MAX {
            let cut = (0..=MESSAGE_BYTES_MAX - '…'.len_utf8()).rev().find(|i| line.is_char_boundary(*i));
            line.truncate(cut.unwrap_or(0));
            line.push('…');
            break;
        }
    }
    if line.is_empty() { "(no message)".to_owned() } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_repeated_message_stands_once_and_last() {
        let log = append(None, "HTTP 500");
        let log = append(Some(&log), "timed out");
        assert_eq!(append(Some(&log), "HTTP 500"), "timed out\nHTTP 500");
    }

    #[test]
    fn the_oldest_lines_go_first() {
        let log = (0..20).fold(None, |log: Option<String>, i| {
            Some(append(log.as_deref(), &format!("{i} {}", "x".repeat(900))))
        });
        let log = log.unwrap();
        assert!(log.len() <= LOG_BYTES_MAX);
        assert!(log.lines().last().unwrap().starts_with("19 "));
        assert!(!log.contains("\n0 "));
    }

    #[test]
    fn nothing_and_control_characters_are_readable() {
        assert_eq!(append(None, ""), "(no message)");
        assert_eq!(append(None, "a\0b\r\n\tc"), "a b c");
    }

    proptest! {
        #[test]
        fn the_log_is_bounded_and_ends_with_the_newest(messages in prop::collection::vec("\\PC{0,3000}", 1..30)) {
            let mut log = String::new();
            for message in &messages {
                log = append(Some(&log), message);
                prop_assert!(log.len() <= LOG_BYTES_MAX);
                prop_assert!(!log.chars().any(|c| c.is_control() && c != '\n'));
                let again = append(Some(&log), message);
                prop_assert_eq!(&again, &log);
            }
        }
    }
}
