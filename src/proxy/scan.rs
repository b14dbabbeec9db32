//! Reads along with hyper's codec, which forgives in chunks what could hide a request from whoever reads them
//! otherwise: zeros before a size, NUL in an extension, a bare line feed behind a trailer's field.
//!
//! The same rules hold as on the express way: both read chunks by [`Framing`].

use super::express::{Chunks, Framing};

/// The bytes of one HTTP/1.1 connection, as they come.
#[derive(Debug, Default)]
pub struct Scan {
    at: At,
    /// What came and was not looked at yet: no more than hyper has read.
    rest: Vec<u8>,
}

/// What comes next.
#[derive(Debug)]
enum At {
    /// A head, of which this much is known.
    Head {
        /// A line with something in it has come.
        has_begun: bool,
        /// The line so far is empty.
        is_empty: bool,
    },
    /// Something that follows a head, whose framing is not known yet.
    Behind,
    /// A body.
    Body(Framing),
    /// Nothing that is HTTP/1.1.
    Other,
}

impl At {
    const HEAD: Self = Self::Head { has_begun: false, is_empty: true };
}

impl Default for At {
    fn default() -> Self {
        Self::HEAD
    }
}

/// The chunks of a body break their grammar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

impl Scan {
    /// `bytes` come.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        if matches!(self.at, At::Other) {
            return Ok(());
        }
        self.rest.extend_from_slice(bytes);
        self.look()
    }

    /// The body of the request whose head has come is chunked, or has `length` bytes.
    pub fn body(&mut self, is_chunked: bool, length: u64) -> Result<(), Broken> {
        let framing = match is_chunked {
            true => Framing::Chunked(Chunks::START),
            false => Framing::of_length(length),
        };
        self.at = At::Body(framing);
        self.look()
    }

    /// What follows is another protocol's.
    pub fn stop(&mut self) {
        (self.at, self.rest) = (At::Other, Vec::new());
    }

    fn look(&mut self) -> Result<(), Broken> {
        let mut from = 0;
        loop {
            let bytes = &self.rest[from..];
            match &mut self.at {
                At::Head { has_begun, is_empty } => match head_end(bytes, has_begun, is_empty) {
                    None => from = self.rest.len(),
                    Some(end) => (from, self.at) = (from + end, At::Behind),
                },
                At::Body(Framing::Done) => self.at = At::HEAD,
                At::Body(framing) => match framing.next(bytes).map_err(|_| Broken)?.bytes() {
                    0 => break,
                    count => from += count,
                },
                At::Behind | At::Other => break,
            }
            if from == self.rest.len() && !matches!(self.at, At::Body(Framing::Done)) {
                break;
            }
        }
        self.rest.drain(..from);
        Ok(())
    }
}

/// How many of `bytes` a head ends with, as hyper reads it: at the first empty line behind one that is not.
fn head_end(bytes: &[u8], has_begun: &mut bool, is_empty: &mut bool) -> Option<usize> {
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\r' => {}
            b'\n' if *is_empty && *has_begun => return Some(at + 1),
            b'\n' => (*has_begun, *is_empty) = (*has_begun || !*is_empty, true),
            _ => *is_empty = false,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "\r\nPOST / HTTP/1.1\r\nHost: a\r\n\r\n";

    /// Pushes `text` in pieces of `size` bytes; the first head's body is chunked.
    fn scanned(text: &str, size: usize) -> Result<Scan, Broken> {
        let mut scan = Scan::default();
        for piece in text.as_bytes().chunks(size) {
            scan.push(piece)?;
            if matches!(scan.at, At::Behind) {
                scan.body(true, 0)?;
            }
        }
        Ok(scan)
    }

    #[test]
    fn what_the_express_way_refuses_is_refused() {
        for body in [
            "0\r\nX: y\n\r\nGET /smug HTTP/1.1\r\nHost: a\r\n\r\n",
            "2;\0\r\nab\r\n0\r\n\r\n",
            "00000000000000002\r\nab\r\n0\r\n\r\n",
            "2\r\nabc",
        ] {
            for size in [1, 7, 1000] {
                assert!(scanned(&format!("{HEAD}{body}"), size).is_err(), "{body:?}");
            }
        }
    }

    #[test]
    fn a_next_request_begins_where_a_body_ends() {
        let body = "2;x\r\nab\r\n0\r\nX: y\r\n\r\n";
        for size in [1, 5, 1000] {
            let text = format!("{HEAD}{body}{HEAD}{body}");
            let mut scan = scanned(&text, size).expect("sound");
            if matches!(scan.at, At::Behind) {
                scan.body(true, 0).expect("sound");
            }
            assert!(matches!(scan.at, At::Head { has_begun: false, .. }), "{size}: {:?}", scan.at);
            assert!(scan.rest.is_empty());
        }
    }

    #[test]
    fn what_has_a_length_may_be_anything_and_so_may_another_protocol() {
        let mut scan = Scan::default();
        scan.push(format!("{HEAD}0\r\nX\n\nGET").as_bytes()).expect("a head");
        scan.body(false, 6).expect("six bytes");
        assert!(matches!(scan.at, At::Head { has_begun: false, is_empty: false }));
        scan.stop();
        scan.push(&[0; 100]).expect("anything");
        assert!(scan.rest.is_empty());
    }
}
