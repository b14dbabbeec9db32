//! Where an answer's body ends (RFC 9112, sections 6.3 and 7.1), read strictly.

/// A chunk's size line, extensions included, and a trailer's line may be so long.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// All trailers together may be so long.
const TRAILER_BYTES_MAX: usize = 16 * 1024;
/// All extensions of a body's chunks together may be so long, as on hyper's way: nobody needs them, and each
/// byte of data could bring a line of them.
const EXTENSION_BYTES_MAX: usize = 16 * 1024;

/// How a body is framed, and how much of it is still to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// All until the connection's end.
    ToEnd,
    /// The end was seen.
    Done,
}

/// A chunked body, as far as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunks {
    at: Chunk,
    /// Bytes of extensions that have come.
    extension_bytes: usize,
}

/// Where in a chunked body the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chunk {
    /// In a size line.
    Size,
    /// In data, of which so many bytes are to come.
    Data(u64),
    /// Before the CRLF that ends the data.
    DataEnd,
    /// In the trailers, of which so many bytes have come.
    Trailers(usize),
}

/// Why the bytes are no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// They break the grammar of chunks.
    Grammar,
    /// The chunks' extensions are too long together.
    Extensions,
}

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes of framing, to be left out.
    Framing(usize),
    /// So many bytes of data.
    Data(usize),
    /// So many bytes that begin the last chunk: trailers may follow.
    Last(usize),
    /// So many bytes of a trailer's line, its CRLF included.
    Trailer(usize),
    /// So many bytes that end the last chunk.
    End(usize),
    /// Too few to tell.
    Partial,
}

impl Piece {
    /// How many bytes it is.
    pub fn bytes(self) -> usize {
        match self {
            Self::Framing(count)
            | Self::Data(count)
            | Self::Last(count)
            | Self::Trailer(count)
            | Self::End(count) => count,
            Self::Partial => 0,
        }
    }
}

impl Framing {
    /// So many bytes, or none.
    pub fn of_length(length: u64) -> Self {
        if length == 0 { Self::Done } else { Self::Length(length) }
    }

    /// How many bytes are to come, as far as that is known.
    pub fn known_bytes(self) -> u64 {
        if let Self::Length(bytes) = self { bytes } else { 0 }
    }

    /// What `bytes`, which follow all that was taken before, begin with.
    pub fn next(&mut self, bytes: &[u8]) -> Result<Piece, Broken> {
        if bytes.is_empty() {
            return Ok(Piece::Partial);
        }
        match self {
            Self::Done => Ok(Piece::Partial),
            Self::ToEnd => Ok(Piece::Data(bytes.len())),
            Self::Length(left) => {
                let data = take(left, bytes.len());
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(Piece::Data(data))
            }
            Self::Chunked(chunk) => match chunk.next(bytes)? {
                None => {
                    *self = Self::Done;
                    Ok(Piece::End(2))
                }
                Some(piece) => Ok(piece),
            },
        }
    }
}

impl Chunks {
    /// Nothing of it was read.
    pub const START: Self = Self { at: Chunk::Size, extension_bytes: 0 };

    /// `None` at the empty line that ends the body.
    fn next(&mut self, bytes: &[u8]) -> Result<Option<Piece>, Broken> {
        match &mut self.at {
            Chunk::Size => {
                let Some(line) = line(bytes)? else { return Ok(Some(Piece::Partial)) };
                let count = line.len() + 2;
                let (size, extension) = size(line)?;
                self.extension_bytes += extension.len();
                if self.extension_bytes > EXTENSION_BYTES_MAX {
                    return Err(Broken::Extensions);
                }
                let (next, piece) = match size {
                    0 => (Chunk::Trailers(0), Piece::Last(count)),
                    size => (Chunk::Data(size), Piece::Framing(count)),
                };
                self.at = next;
                Ok(Some(piece))
            }
            Chunk::Data(left) => {
                let data = take(left, bytes.len());
                if *left == 0 {
                    self.at = Chunk::DataEnd;
                }
                Ok(Some(Piece::Data(data)))
            }
            Chunk::DataEnd => match bytes {
                [b'\r', b'\n', ..] => {
                    self.at = Chunk::Size;
                    Ok(Some(Piece::Framing(2)))
                }
                [b'\r'] => Ok(Some(Piece::Partial)),
                _ => Err(Broken::Grammar),
            },
            Chunk::Trailers(seen) => {
                let Some(line) = line(bytes)? else { return Ok(Some(Piece::Partial)) };
                if line.is_empty() {
                    return Ok(None);
                }
                *seen += line.len() + 2;
                let sound = *seen <= TRAILER_BYTES_MAX && is_field(line);
                sound.then_some(Some(Piece::Trailer(line.len() + 2))).ok_or(Broken::Grammar)
            }
        }
    }
}

fn take(left: &mut u64, there: usize) -> usize {
    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(there);
    *left -= taken as u64;
    taken
}

/// The line that `bytes` begin with, without its CRLF; a bare CR or LF in it breaks the framing.
fn line(bytes: &[u8]) -> Result<Option<&[u8]>, Broken> {
    match memchr::memchr2(b'\r', b'\n', bytes) {
        Some(at) if bytes[at..].starts_with(b"\r\n") => Ok(Some(&bytes[..at])),
        Some(at) if at + 1 < bytes.len() || bytes[at] == b'\n' => Err(Broken::Grammar),
        _ if bytes.len() > LINE_BYTES_MAX => Err(Broken::Grammar),
        _ => Ok(None),
    }
}

/// The number that a size line begins with, and the extension behind it: 1 to 16 hex digits of a number that
/// any integer of 64 bits holds, then nothing or an extension.
fn size(line: &[u8]) -> Result<(u64, &[u8]), Broken> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (number, rest) = line.split_at(digits);
    let extension = rest.trim_ascii_start();
    let is_extension = extension.is_empty() || extension[0] == b';';
    if !(1..=16).contains(&digits) || !is_extension || !rest.iter().all(is_printed) {
        return Err(Broken::Grammar);
    }
    let text = std::str::from_utf8(number).map_err(|_| Broken::Grammar)?;
    let size = i64::from_str_radix(text, 16).map_err(|_| Broken::Grammar)?;
    Ok((size.unsigned_abs(), extension))
}

/// True for what may stand in a value (RFC 9110, section 5.5).
fn is_printed(byte: &u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~' | 0x80..)
}

/// True for `name: value`, unfolded.
fn is_field(line: &[u8]) -> bool {
    let Some(colon) = memchr::memchr(b':', line) else { return false };
    let (name, value) = line.split_at(colon);
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !name.is_empty() && name.iter().all(token) && value.iter().all(is_printed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The data of `bytes`, which come in pieces that end at `cuts`; `None` where they break the framing.
    fn decoded(
        mut framing: Framing,
        bytes: &[u8],
        cuts: &[usize],
    ) -> Option<(Vec<u8>, bool, usize)> {
        let (mut data, mut from) = (Vec::new(), 0);
        for end in cuts.iter().map(|cut| (*cut).min(bytes.len())).chain([bytes.len()]) {
            while from < end {
                match framing.next(&bytes[from..end]).ok()? {
                    Piece::Partial => break,
                    Piece::Data(length) => {
                        data.extend_from_slice(&bytes[from..from + length]);
                        from += length;
                    }
                    framing => from += framing.bytes(),
                }
            }
        }
        Some((data, framing == Framing::Done, bytes.len() - from))
    }

    fn chunked(text: &str) -> Option<(String, bool, usize)> {
        let (data, done, left) = decoded(Framing::Chunked(Chunks::START), text.as_bytes(), &[])?;
        Some((String::from_utf8(data).expect("text"), done, left))
    }

    #[test]
    fn a_body_ends_where_its_framing_says() {
        let length = |bytes: &[u8]| decoded(Framing::Length(3), bytes, &[]);
        assert_eq!(length(b"ab"), Some((b"ab".to_vec(), false, 0)));
        assert_eq!(length(b"abcd"), Some((b"abc".to_vec(), true, 1)));
        assert_eq!(decoded(Framing::ToEnd, b"ab", &[]), Some((b"ab".to_vec(), false, 0)));
        let whole = "3\r\nabc\r\nA ; x=\"y\"\r\n0123456789\r\n0;z\r\nT: 1\r\n\r\nrest";
        assert_eq!(chunked(whole), Some(("abc0123456789".to_owned(), true, 4)));
        assert_eq!(chunked("3\r\nab"), Some(("ab".to_owned(), false, 0)));
    }

    #[test]
    fn what_breaks_the_framing_is_not_repaired() {
        for text in [
            "zz\r\n",
            "\r\n",
            "-1\r\n",
            "0x3\r\nabc\r\n",
            "3\nabc\r\n",
            "3\r\nabcd\r\n",
            "3 4\r\nabc\r\n",
            "11111111111111111\r\n",
            "8000000000000000\r\n",
            "ffffffffffffffff\r\n",
            "3;a\nb\r\nabc\r\n",
            "3;a\0b\r\nabc\r\n",
            "00000000000000003\r\nabc\r\n",
            "0\r\nT t: 1\r\n\r\n",
            "0\r\nT: 1\r\n 2\r\n\r\n",
            "0\r\nT: \0\r\n\r\n",
            "0\r\nnone\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "0\r\nT: 1\n\r\n",
        ] {
            assert_eq!(chunked(text), None, "{text:?}");
        }
        assert_eq!(chunked(&format!("3;{}", "x".repeat(LINE_BYTES_MAX))), None);
        assert_eq!(
            chunked(&format!("0\r\n{}", "t: 1\r\n".repeat(TRAILER_BYTES_MAX / 6 + 1))),
            None
        );
    }

    #[test]
    fn extensions_are_bounded_in_one_line_and_in_all() {
        let body = |extension: &str, count: usize| {
            format!("{}0\r\n\r\n", format!("1{extension}\r\na\r\n").repeat(count))
        };
        let most = EXTENSION_BYTES_MAX / 16;
        let sixteen = ";0123456789abcde";
        assert!(chunked(&body(sixteen, most)).is_some_and(|(_, done, _)| done));
        assert_eq!(chunked(&body(sixteen, most + 1)), None);
        // Some fill a size up with blanks, which end nobody's stream.
        let padded = body("       ", 10_000);
        assert!(chunked(&padded).is_some_and(|(data, done, _)| done && data.len() == 10_000));
        let mut framing = Framing::Chunked(Chunks::START);
        let line = format!("1;{}\r\n", "x".repeat(EXTENSION_BYTES_MAX));
        assert_eq!(framing.next(line.as_bytes()), Err(Broken::Extensions));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_data(sizes in proptest::collection::vec(1usize..40, 0..8), mut cuts in proptest::collection::vec(0usize..300, 0..12)) {
            let mut text = String::new();
            let mut data = String::new();
            for (at, size) in sizes.iter().enumerate() {
                let piece = char::from(b'a' + at as u8).to_string().repeat(*size);
                text.push_str(&format!("{size:x}\r\n{piece}\r\n"));
                data.push_str(&piece);
            }
            text.push_str("0\r\nT: 1\r\n\r\n");
            cuts.sort_unstable();
            let (found, done, left) = decoded(Framing::Chunked(Chunks::START), text.as_bytes(), &cuts).expect("whole");
            prop_assert_eq!(found, data.into_bytes());
            prop_assert!(done && left == 0);
        }
    }
}
