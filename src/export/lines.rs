//! The lines of a gzip object, one at a time and of bounded length.

use std::io::{BufRead, BufReader, Read};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;

/// The longest line that is read: far above a row with two bodies of the largest size that is usual.
const LINE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What comes next.
pub(super) enum Line<'a> {
    /// A line, without its end.
    Row(&'a [u8]),
    /// A line that is longer than any row; it was passed over.
    TooLong,
    /// The object cannot be read any further.
    Damaged,
    /// There is no more.
    End,
}

/// Reads lines.
pub(super) struct Lines<'a> {
    reader: BufReader<MultiGzDecoder<&'a [u8]>>,
    line: Vec<u8>,
}

impl<'a> Lines<'a> {
    pub(super) fn of(body: &'a Bytes) -> Self {
        Self { reader: BufReader::new(MultiGzDecoder::new(body.as_ref())), line: Vec::new() }
    }

    pub(super) fn next_line(&mut self) -> Line<'_> {
        self.line.clear();
        match self.fill() {
            Err(_) => Line::Damaged,
            Ok(()) if self.line.is_empty() => Line::End,
            Ok(()) if self.line.last() == Some(&b'\n') => {
                self.line.pop();
                Line::Row(&self.line)
            }
            Ok(()) if (self.line.len() as u64) < LINE_BYTES_MAX => Line::Row(&self.line),
            Ok(()) => self.pass_over(),
        }
    }

    fn fill(&mut self) -> std::io::Result<()> {
        let mut bounded = (&mut self.reader).take(LINE_BYTES_MAX);
        bounded.read_until(b'\n', &mut self.line).map(drop)
    }

    fn pass_over(&mut self) -> Line<'_> {
        while !self.line.is_empty() && self.line.last() != Some(&b'\n') {
            self.line.clear();
            if self.fill().is_err() {
                return Line::Damaged;
            }
        }
        Line::TooLong
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Bytes {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).expect("packs");
        Bytes::from(encoder.finish().expect("packs"))
    }

    fn lengths(body: &Bytes) -> Vec<i64> {
        let mut lines = Lines::of(body);
        let mut lengths = Vec::new();
        loop {
            lengths.push(match lines.next_line() {
                Line::Row(line) => line.len() as i64,
                Line::TooLong => -1,
                Line::Damaged => -2,
                Line::End => return lengths,
            });
            if lengths.last() == Some(&-2) {
                return lengths;
            }
        }
    }

    #[test]
    fn a_line_that_never_ends_is_passed_over_in_bounded_memory() {
        let mut text = b"{}\n".to_vec();
        text.resize(text.len() + 2 * LINE_BYTES_MAX as usize + 7, b'x');
        text.extend_from_slice(b"\nabc");
        assert_eq!(lengths(&gzip(&text)), [2, -1, 3]);
    }

    #[test]
    fn damage_is_told_after_what_could_be_read() {
        let body = gzip(&b"{\"a\":1}\n".repeat(10_000));
        let cut = body.slice(..body.len() / 2);
        let lengths = lengths(&cut);
        assert_eq!(lengths.last(), Some(&-2));
        assert!(lengths.len() > 100);
    }
}
