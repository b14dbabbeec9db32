//! Content codings, undone for the captured copy only: one layer, bounded in size, ratio and window.
//!
//! Codings: RFC 9110, section 8.4 (gzip, deflate), RFC 7932 (br), RFC 9659 (zstd: window of at most
//! 8 MiB). Input that ends early gives what could be decoded.

use std::borrow::Cow;
use std::io::{ErrorKind, Read};

use flate2::{Decompress, FlushDecompress, Status};
use http::header::CONTENT_ENCODING;

use super::Fault;
use crate::domain::{CapturedBody, Fields};

/// Bytes that one body may decode to: eight times the capture limit's default. A constant,
/// since it bounds the memory of one thread, whatever is captured.
pub const OUTPUT_BYTES_MAX: usize = 8 << 20;
/// Decoded bytes for one captured byte, where more than [`RATIO_FLOOR_BYTES`] are decoded.
pub const RATIO_MAX: usize = 100;
/// The ratio of what decodes to less is nobody's concern.
pub const RATIO_FLOOR_BYTES: usize = 64 << 10;
/// The binary logarithm of the largest zstd window: 8 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// A captured body without its content coding.
#[derive(Debug, Default)]
pub(super) struct Decoded<'a> {
    /// The body, as far as it is known without a hole.
    pub(super) head: Cow<'a, [u8]>,
    /// What follows the hole; empty where there is none.
    pub(super) tail: &'a [u8],
    /// Where in the body `tail` begins.
    pub(super) tail_offset: u64,
    /// Bytes are missing: between head and tail, or at the end.
    pub(super) missing: bool,
    /// There was no coding: offsets are those of the wire.
    pub(super) identity: bool,
    /// Why nothing, or not all, could be decoded.
    pub(super) fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

/// How far a decoder came.
enum End {
    Whole,
    Early,
    Broken,
    TooMuch,
}

/// Undoes the body's `Content-Encoding`.
pub(super) fn decode<'a>(body: &'a CapturedBody, headers: &Fields) -> Decoded<'a> {
    let coding = match coding_of(headers) {
        Ok(coding) => coding,
        Err(fault) => return Decoded { missing: true, fault: Some(fault), ..Decoded::default() },
    };
    let (captured, gap) = contiguous(body);
    if coding == Coding::Identity || captured.is_empty() {
        return identity(body, captured, gap);
    }
    let (bytes, end) = run(coding, &captured, !gap && body.complete);
    let broken = matches!(end, End::Broken);
    Decoded {
        missing: gap || !body.complete || !matches!(end, End::Whole),
        fault: match end {
            End::TooMuch => Some(Fault::Bomb),
            // A decoder that stumbles where bytes are known to be missing did nothing wrong.
            End::Broken => Some(Fault::Encoding),
            End::Whole | End::Early => None,
        },
        head: if broken && bytes.is_empty() { Cow::default() } else { Cow::Owned(bytes) },
        ..Decoded::default()
    }
}

/// The one coding that the headers name.
fn coding_of(headers: &Fields) -> Result<Coding, Fault> {
    let mut found = Coding::Identity;
    for value in headers.get_all(CONTENT_ENCODING.as_str()) {
        for token in value.to_str().map_err(|_| Fault::Encoding)?.split(',') {
            let coding = coding_named(token.trim())?;
            if coding != Coding::Identity && found != Coding::Identity {
                return Err(Fault::EncodingNested);
            }
            found = if coding == Coding::Identity { found } else { coding };
        }
    }
    Ok(found)
}

fn coding_named(token: &str) -> Result<Coding, Fault> {
    match token.to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(Coding::Identity),
        "gzip" | "x-gzip" => Ok(Coding::Gzip),
        "deflate" => Ok(Coding::Deflate),
        "br" => Ok(Coding::Brotli),
        "zstd" => Ok(Coding::Zstd),
        _ => Err(Fault::Encoding),
    }
}

/// The body from its beginning, as far as it is known without a hole; true if there is a hole.
fn contiguous(body: &CapturedBody) -> (Cow<'_, [u8]>, bool) {
    if body.truncated() {
        (Cow::Borrowed(&body.head), true)
    } else if body.tail.is_empty() {
        (Cow::Borrowed(&body.head), false)
    } else {
        (Cow::Owned([body.head.as_slice(), &body.tail].concat()), false)
    }
}

fn identity<'a>(body: &'a CapturedBody, head: Cow<'a, [u8]>, gap: bool) -> Decoded<'a> {
    let tail: &[u8] = if gap { &body.tail } else { &[] };
    Decoded {
        head,
        tail,
        tail_offset: body.bytes.saturating_sub(tail.len() as u64),
        missing: gap || !body.complete,
        identity: true,
        fault: None,
    }
}

fn run(coding: Coding, bytes: &[u8], complete: bool) -> (Vec<u8>, End) {
    let bytes_max =
        OUTPUT_BYTES_MAX.min(bytes.len().saturating_mul(RATIO_MAX).max(RATIO_FLOOR_BYTES));
    match coding {
        Coding::Identity => (bytes.to_vec(), End::Whole),
        Coding::Gzip => pump(flate2::bufread::MultiGzDecoder::new(bytes), bytes_max),
        Coding::Deflate => deflate(bytes, complete, bytes_max),
        Coding::Brotli => brotli(bytes, bytes_max),
        Coding::Zstd => zstd(bytes, bytes_max),
    }
}

/// `deflate` is the zlib format, but many senders leave the zlib header out. Without it nothing
/// proves the label, and any bytes may begin like a raw stream: it counts only if it also ends.
fn deflate(bytes: &[u8], complete: bool, bytes_max: usize) -> (Vec<u8>, End) {
    let (decoded, end) = inflate(Decompress::new(true), bytes, bytes_max);
    if !decoded.is_empty() || !matches!(end, End::Broken) {
        return (decoded, end);
    }
    match inflate(Decompress::new(false), bytes, bytes_max) {
        (_, End::Broken) => (Vec::new(), End::Broken),
        (_, End::Early) if complete => (Vec::new(), End::Broken),
        other => other,
    }
}

/// By hand, since the readers of the crate take an early end for a proper one.
fn inflate(mut state: Decompress, bytes: &[u8], bytes_max: usize) -> (Vec<u8>, End) {
    let mut out = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut rest = bytes;
    loop {
        let (read, written) = (state.total_in(), state.total_out());
        let status = state.decompress(rest, &mut piece, FlushDecompress::None);
        let read = (state.total_in() - read) as usize;
        let written = (state.total_out() - written) as usize;
        rest = &rest[read..];
        out.extend_from_slice(&piece[..written]);
        if out.len() > bytes_max {
            return (Vec::new(), End::TooMuch);
        }
        match status {
            Ok(Status::StreamEnd) => return (out, End::Whole),
            Err(_) => return (out, End::Broken),
            Ok(_) if read == 0 && written == 0 => return (out, End::Early),
            Ok(_) => {}
        }
    }
}

fn brotli(bytes: &[u8], bytes_max: usize) -> (Vec<u8>, End) {
    // The escape that begins a stream with a "large window": no HTTP coding, and up to 1 GiB.
    if bytes.first().is_some_and(|first| first & 0x7f == 0x11) {
        return (Vec::new(), End::Broken);
    }
    let mut source = Drained { bytes, to_the_end: false };
    let (out, end) = pump(brotli::Decompressor::new(&mut source, PIECE_BYTES), bytes_max);
    // The crate tells a cut stream from a broken one only by whether it asked for more.
    match end {
        End::Broken if source.to_the_end => (out, End::Early),
        end => (out, end),
    }
}

fn zstd(bytes: &[u8], bytes_max: usize) -> (Vec<u8>, End) {
    let Ok(mut decoder) = zstd::stream::read::Decoder::with_buffer(bytes) else {
        return (Vec::new(), End::Broken);
    };
    if decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).is_err() {
        return (Vec::new(), End::Broken);
    }
    pump(decoder, bytes_max)
}

const PIECE_BYTES: usize = 16 << 10;

fn pump(mut decoder: impl Read, bytes_max: usize) -> (Vec<u8>, End) {
    let mut out = Vec::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match decoder.read(&mut piece) {
            Ok(0) => return (out, End::Whole),
            Ok(read) if out.len() + read > bytes_max => return (Vec::new(), End::TooMuch),
            Ok(read) => out.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return (out, End::Early),
            Err(_) => return (out, End::Broken),
        }
    }
}

/// A reader over bytes that remembers whether it was asked for more than there is.
struct Drained<'a> {
    bytes: &'a [u8],
    to_the_end: bool,
}

impl Read for Drained<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.to_the_end |= self.bytes.is_empty() && !into.is_empty();
        self.bytes.read(into)
    }
}
