//! The lines of an object: JSON lines in gzip, read one at a time in bounded memory.

use std::io::{BufRead, BufReader, Read, Take};

use flate2::read::MultiGzDecoder;

/// The most bytes of one line; a longer one is skipped and told.
const LINE_BYTES_MAX: usize = 64 << 20;
/// The most bytes that one object may unpack to: a thousand segments. Past it, it is no object of ours.
const UNPACKED_BYTES_MAX: u64 = 16 << 30;

/// The lines of an object's bytes.
pub struct Lines<'a> {
    reader: BufReader<Take<MultiGzDecoder<&'a [u8]>>>,
    line: Vec<u8>,
    number: u64,
}

/// Why there is no line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The rest cannot be read: it is no gzip, damaged, cut short, or without end.
    #[error("the rest of the object cannot be unpacked")]
    Damaged,
    /// This line is longer than a line may be; the next one can be read.
    #[error("a line is longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
}

impl<'a> Lines<'a> {
    /// The lines of `body`.
    pub fn of(body: &'a [u8]) -> Self {
        let unpacked = MultiGzDecoder::new(body).take(UNPACKED_BYTES_MAX);
        Self { reader: BufReader::with_capacity(64 << 10, unpacked), line: Vec::new(), number: 0 }
    }

    /// The next line, without its end; `None` after the last.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend what it holds")]
    pub fn next(&mut self) -> Result<Option<&[u8]>, LineError> {
        // What one long line took is not kept for all the short ones after it.
        if self.line.capacity() > 1 << 20 {
            self.line = Vec::new();
        }
        self.line.clear();
        let limit = LINE_BYTES_MAX as u64 + 1;
        let read = self.reader.by_ref().take(limit).read_until(b'\n', &mut self.line);
        if read.map_err(|_| LineError::Damaged)? == 0 {
            return match self.reader.get_ref().limit() {
                0 => Err(LineError::Damaged),
                _ => Ok(None),
            };
        }
        self.number += 1;
        if self.line.last() == Some(&b'\n') {
            self.line.pop();
        } else if self.line.len() > LINE_BYTES_MAX {
            self.reader.skip_until(b'\n').map_err(|_| LineError::Damaged)?;
            return Err(LineError::TooLong);
        }
        Ok(Some(&self.line))
    }

    /// How many lines were read, those that were too long among them.
    pub fn number(&self) -> u64 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn all(body: &[u8]) -> Vec<Result<String, LineError>> {
        let (mut lines, mut all) = (Lines::of(body), Vec::new());
        loop {
            match lines.next() {
                Ok(Some(line)) => all.push(Ok(String::from_utf8_lossy(line).into_owned())),
                Ok(None) => return all,
                Err(LineError::TooLong) => all.push(Err(LineError::TooLong)),
                Err(error) => {
                    all.push(Err(error));
                    return all;
                }
            }
        }
    }

    #[test]
    fn lines_come_without_their_ends_across_members() {
        let body = [gzip(b"one\n\ntwo"), gzip(b" and a half\nthree")].concat();
        let told: Vec<_> = all(&body).into_iter().map(Result::unwrap).collect();
        assert_eq!(told, ["one", "", "two and a half", "three"]);
    }

    #[test]
    fn what_was_read_before_the_damage_is_told() {
        let mut body = gzip("a line\n".repeat(20_000).as_bytes());
        body.truncate(body.len() - 4);
        let told = all(&body);
        assert_eq!(told.last(), Some(&Err(LineError::Damaged)));
        assert_eq!(all(b"plain text\n"), [Err(LineError::Damaged)]);
        assert_eq!(all(b""), [Err(LineError::Damaged)], "not even a header");
    }

    #[test]
    fn a_line_too_long_is_skipped_and_the_next_one_read() {
        let long = vec![b'x'; LINE_BYTES_MAX + 10];
        let body = gzip(&[b"first\n".as_slice(), &long, b"\nlast\n"].concat());
        let told = all(&body);
        assert_eq!(told, [Ok("first".into()), Err(LineError::TooLong), Ok("last".into())]);
    }
}
