//! Server-sent events, incrementally: any split of the bytes gives the same events.
//!
//! Format: WHATWG HTML, section 9.2 (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//! Beyond it the parser tells where in the stream an event stood, bounds its memory, and gives the
//! event that a cut stream left unfinished to whoever asks for it.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// What a parser holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one line without its end; a longer line is skipped and counted.
    pub line_bytes_max: usize,
    /// Bytes of one event's data; an event with more is skipped and counted.
    pub event_bytes_max: usize,
}

impl Default for Limits {
    /// 1 MiB a line, 4 MiB an event.
    fn default() -> Self {
        Self { line_bytes_max: 1 << 20, event_bytes_max: 4 << 20 }
    }
}

/// One event, lent by the parser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The `event` field; empty where there was none (the specification's `message`).
    pub name: Cow<'a, str>,
    /// The `data` lines, joined by line feeds; invalid UTF-8 replaced.
    pub data: Cow<'a, str>,
    /// The last `id` so far; empty where there was none.
    pub id: &'a str,
    /// Offset in the stream of the event's first field.
    pub start: u64,
    /// Offset in the stream past the end of its blank line (a line feed after a carriage return
    /// not counted), or the stream's length for an unfinished event.
    pub end: u64,
}

/// An incremental parser of one stream.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    offset: u64,
    line: Vec<u8>,
    line_start: u64,
    skipping: bool,
    after_cr: bool,
    at_start: bool,
    pending: Pending,
    last_id: String,
    retry_ms: Option<u64>,
    skipped: u64,
    #[cfg(test)]
    pub(super) bytes_copied: u64,
}

#[derive(Debug, Default)]
struct Pending {
    name: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    too_long: bool,
    start: Option<u64>,
}

impl Parser {
    /// A parser at the beginning of a stream.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            offset: 0,
            line: Vec::new(),
            line_start: 0,
            skipping: false,
            after_cr: false,
            at_start: true,
            pending: Pending::default(),
            last_id: String::new(),
            retry_ms: None,
            skipped: 0,
            #[cfg(test)]
            bytes_copied: 0,
        }
    }

    /// A parser that joins a stream at a line's beginning, `offset` bytes after the stream's own.
    pub fn resumed_at(limits: Limits, offset: u64) -> Self {
        Self { offset, line_start: offset, at_start: false, ..Self::new(limits) }
    }

    /// Lines and events that were skipped because they were too long.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// The last `retry` field, in milliseconds.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// Takes the next bytes, and calls `emit` for every event that they complete.
    pub fn push(&mut self, bytes: &[u8], emit: &mut impl FnMut(Event<'_>)) {
        let mut rest = bytes;
        if self.after_cr && !rest.is_empty() {
            self.after_cr = false;
            rest = self.pass_line_feed(rest);
        }
        while let Some(at) = memchr2(b'\r', b'\n', rest) {
            self.end_line(&rest[..at], self.offset + at as u64 + 1, emit);
            self.offset += at as u64 + 1;
            self.line_start = self.offset;
            let ended_by_cr = rest[at] == b'\r';
            rest = &rest[at + 1..];
            if ended_by_cr {
                self.after_cr = rest.is_empty();
                rest = self.pass_line_feed(rest);
            }
        }
        self.keep(rest);
        self.offset += rest.len() as u64;
    }

    /// Ends the stream. The specification drops an event without its blank line; it is returned
    /// here, so that the text and the usage of a cut stream are not lost.
    pub fn finish(&mut self) -> Option<Event<'_>> {
        let end = self.offset;
        if self.skipping || !self.line.is_empty() {
            self.end_line(&[], end, &mut |_| ());
        }
        if !self.pending.has_data || self.pending.too_long {
            return None;
        }
        Some(self.pending.event(&self.last_id, end))
    }

    fn pass_line_feed<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some((b'\n', rest)) = bytes.split_first() else { return bytes };
        self.offset += 1;
        self.line_start = self.offset;
        rest
    }

    /// Keeps the beginning of a line whose end has not come yet.
    fn keep(&mut self, bytes: &[u8]) {
        if self.skipping || bytes.is_empty() {
            return;
        }
        if self.line.len() + bytes.len() > self.limits.line_bytes_max {
            self.skipping = true;
            self.line = Vec::new();
            return;
        }
        #[cfg(test)]
        {
            self.bytes_copied += bytes.len() as u64;
        }
        self.line.extend_from_slice(bytes);
    }

    fn end_line(&mut self, last: &[u8], end: u64, emit: &mut impl FnMut(Event<'_>)) {
        let whole = self.line.is_empty() && last.len() <= self.limits.line_bytes_max;
        if whole && !self.skipping {
            self.take_line(last, end, emit);
        } else {
            self.keep(last);
            let mut line = std::mem::take(&mut self.line);
            if self.skipping {
                self.skipped += 1;
            } else {
                self.take_line(&line, end, emit);
            }
            line.clear();
            self.line = line;
        }
        self.skipping = false;
        self.at_start = false;
    }

    fn take_line(&mut self, line: &[u8], end: u64, emit: &mut impl FnMut(Event<'_>)) {
        let line = match line.strip_prefix(b"\xef\xbb\xbf") {
            Some(rest) if self.at_start => rest,
            _ => line,
        };
        if line.is_empty() {
            self.dispatch(end, emit);
        } else if line[0] != b':' {
            self.take_field(line);
        }
    }

    fn take_field(&mut self, line: &[u8]) {
        let (field, value) = match memchr(b':', line) {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &[][..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        self.pending.start.get_or_insert(self.line_start);
        match field {
            b"data" => {
                #[cfg(test)]
                {
                    self.bytes_copied += value.len() as u64;
                }
                self.pending.take_data(value, self.limits.event_bytes_max);
            }
            b"event" => self.pending.name = value.to_vec(),
            b"id" if memchr(0, value).is_none() => {
                self.last_id = String::from_utf8_lossy(value).into_owned();
            }
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                self.retry_ms = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            }
            _ => {}
        }
    }

    fn dispatch(&mut self, end: u64, emit: &mut impl FnMut(Event<'_>)) {
        if self.pending.too_long {
            self.skipped += 1;
        } else if self.pending.has_data {
            emit(self.pending.event(&self.last_id, end));
        }
        self.pending.reset();
    }
}

/// Text, with whatever is none replaced.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    if bytes.is_empty() {
        return Cow::Borrowed("");
    }
    simdutf8::basic::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

impl Pending {
    fn take_data(&mut self, value: &[u8], bytes_max: usize) {
        if self.data.len() + value.len() + 1 > bytes_max {
            self.too_long = true;
            self.data = Vec::new();
        }
        if self.too_long {
            return;
        }
        if self.has_data {
            self.data.push(b'\n');
        }
        self.has_data = true;
        self.data.extend_from_slice(value);
    }

    fn event<'a>(&'a self, id: &'a str, end: u64) -> Event<'a> {
        Event {
            name: text(&self.name),
            data: text(&self.data),
            id,
            start: self.start.unwrap_or(end),
            end,
        }
    }

    fn reset(&mut self) {
        self.name.clear();
        self.data.clear();
        self.has_data = false;
        self.too_long = false;
        self.start = None;
    }
}

/// The offset past the first blank line of `bytes`, which may begin anywhere in a stream: where
/// an event begins for certain.
pub fn boundary(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    let mut inside_line = true;
    while let Some(found) = memchr2(b'\r', b'\n', &bytes[at..]) {
        let blank = found == 0 && !inside_line;
        let end = at + found + 1;
        let crlf = bytes[end - 1] == b'\r' && bytes.get(end) == Some(&b'\n');
        at = end + usize::from(crlf);
        if blank {
            return Some(at);
        }
        inside_line = false;
    }
    None
}
