//! Lines of any length in bounded memory.

use std::io::{self, BufRead, Chain, Cursor, ErrorKind, Read};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// A line that is not blank, without the white space around it.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Line {
    /// Its number, from 1; blank lines count.
    pub(super) number: u64,
    /// White space in front of it, in bytes.
    pub(super) indent: u64,
    /// What it says.
    pub(super) content: Content,
}

/// What a line says.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Content {
    Text(Vec<u8>),
    /// This many bytes, which is more than allowed; they were not kept.
    TooLong(u64),
}

/// Reads lines; keeps at most one, and of that at most a maximum.
pub(super) struct Lines<R> {
    input: Chain<Cursor<Vec<u8>>, R>,
    bytes_max: usize,
    number: u64,
    /// Bytes consumed.
    bytes_read: u64,
    is_at_end: bool,
}

impl<R: BufRead> Lines<R> {
    /// Leaves out a byte-order mark at the start.
    pub(super) fn new(mut input: R, bytes_max: usize) -> io::Result<Self> {
        let mut start = Vec::new();
        input.by_ref().take(BOM.len() as u64).read_to_end(&mut start)?;
        let bytes_read = if start == BOM { std::mem::take(&mut start).len() as u64 } else { 0 };
        let input = Cursor::new(start).chain(input);
        Ok(Self { input, bytes_max, number: 0, bytes_read, is_at_end: false })
    }

    /// How far the input has been read, in bytes.
    pub(super) fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    /// The next line that is not blank; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line>> {
        while !self.is_at_end {
            self.number += 1;
            let mut line = Gathered::default();
            self.gather(&mut line)?;
            if let Some(content) = line.content() {
                return Ok(Some(Line { number: self.number, indent: line.indent, content }));
            }
        }
        Ok(None)
    }

    /// Reads up to the end of the line or of the input.
    fn gather(&mut self, line: &mut Gathered) -> io::Result<()> {
        loop {
            let piece = match self.input.fill_buf() {
                Ok(piece) => piece,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if piece.is_empty() {
                self.is_at_end = true;
                return Ok(());
            }
            let length = (&mut &*piece).skip_until(b'\n')?;
            let text = piece[..length].strip_suffix(b"\n");
            line.add(text.unwrap_or(&piece[..length]), self.bytes_max);
            let has_ended = text.is_some();
            self.consume(length);
            if has_ended {
                return Ok(());
            }
        }
    }

    fn consume(&mut self, length: usize) {
        self.input.consume(length);
        self.bytes_read += length as u64;
    }
}

/// A line so far.
#[derive(Default)]
struct Gathered {
    indent: u64,
    kept: Vec<u8>,
    /// Bytes after the first that is no white space.
    length: u64,
    /// The part of `length` up to the last that is no white space.
    trimmed: u64,
}

impl Gathered {
    fn add(&mut self, mut piece: &[u8], bytes_max: usize) {
        if self.length == 0 {
            let text = piece.trim_ascii_start();
            self.indent += (piece.len() - text.len()) as u64;
            piece = text;
        }
        let text = piece.trim_ascii_end().len() as u64;
        if text > 0 {
            self.trimmed = self.length + text;
        }
        self.length += piece.len() as u64;
        let room = bytes_max.saturating_sub(self.kept.len());
        self.kept.extend_from_slice(&piece[..room.min(piece.len())]);
    }

    /// `None`: it is blank.
    fn content(&mut self) -> Option<Content> {
        let mut kept = std::mem::take(&mut self.kept);
        if self.trimmed > kept.len() as u64 {
            return Some(Content::TooLong(self.trimmed));
        }
        kept.truncate(usize::try_from(self.trimmed).unwrap_or(usize::MAX));
        (!kept.is_empty()).then_some(Content::Text(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::BufReader;

    /// Reads in pieces of `piece` bytes.
    fn all(input: &[u8], bytes_max: usize, piece: usize) -> Vec<Line> {
        let mut lines = Lines::new(BufReader::with_capacity(piece, input), bytes_max).unwrap();
        let read = std::iter::from_fn(|| lines.next().unwrap()).collect();
        assert_eq!(lines.bytes_read(), input.len() as u64);
        read
    }

    fn texts(input: &[u8]) -> Vec<(u64, String)> {
        let text = |line: Line| match line.content {
            Content::Text(text) => (line.number, String::from_utf8(text).unwrap()),
            Content::TooLong(_) => panic!("too long"),
        };
        all(input, 1000, 3).into_iter().map(text).collect()
    }

    #[test]
    fn blank_lines_count_and_are_skipped() {
        let expected = vec![(2, "a b".to_owned()), (5, "c".to_owned())];
        assert_eq!(texts(b"\n  a b \t\r\n\r\n \n c"), expected);
        assert!(texts(b"").is_empty() && texts(b" \r\n\n").is_empty());
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_line_and_of_no_other() {
        assert_eq!(texts(b"\xef\xbb\xbf1\r\n2\r\n"), [(1, "1".to_owned()), (2, "2".to_owned())]);
        assert_eq!(texts("1\n\u{feff}2".as_bytes())[1], (2, "\u{feff}2".to_owned()));
        assert!(texts(b"\xef\xbb\xbf").is_empty());
    }

    #[test]
    fn long_lines_are_counted_and_not_kept() {
        let lines = all(b"  12345  \n123456\n\n  1\n", 5, 2);
        let contents: Vec<_> =
            lines.into_iter().map(|line| (line.number, line.indent, line.content)).collect();
        let expected = vec![
            (1, 2, Content::Text(b"12345".to_vec())),
            (2, 0, Content::TooLong(6)),
            (4, 2, Content::Text(b"1".to_vec())),
        ];
        assert_eq!(contents, expected);
    }

    /// What `Lines` does, all in memory.
    fn expected(input: &[u8], bytes_max: usize) -> Vec<Line> {
        let input = input.strip_prefix(BOM).unwrap_or(input);
        let line = |(index, line): (usize, &[u8])| {
            let text = line.trim_ascii();
            let content = match text.len() {
                0 => return None,
                length if length > bytes_max => Content::TooLong(length as u64),
                _ => Content::Text(text.to_vec()),
            };
            let indent = (line.len() - line.trim_ascii_start().len()) as u64;
            Some(Line { number: index as u64 + 1, indent, content })
        };
        input.split(|byte| *byte == b'\n').enumerate().filter_map(line).collect()
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_as_lines_with_their_numbers(
            input in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b' '), Just(b'x'), Just(b'\xef'), any::<u8>()], 0..80),
            mark in 0..=3usize,
            bytes_max in 1..12usize,
            piece in 1..9usize,
        ) {
            let input = [&BOM[..mark], &input].concat();
            prop_assert_eq!(all(&input, bytes_max, piece), expected(&input, bytes_max));
        }
    }
}
