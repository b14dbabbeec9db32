//! One side of an exchange: its captured body without content coding, as JSON, text, events or bytes.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};

use super::Fault;
use super::decode::{self, Decoded};
use super::fold::Joined;
use super::json::{self, Prefix};
use super::sse::{self, Event, Limits, Parser};
use crate::domain::{CapturedBody, Fields};

/// A body, understood as far as its format goes.
#[derive(Debug)]
pub(super) struct Side<'a> {
    decoded: Decoded<'a>,
    content: Content,
    bytes: u64,
    /// Why it is not understood, or not all of it.
    pub(super) fault: Option<Fault>,
}

/// What a body holds.
#[derive(Debug)]
enum Content {
    /// Nothing was sent, or nothing is left of it.
    Nothing,
    /// One JSON value.
    Json(Value),
    /// What is whole of a JSON value whose middle or end is missing.
    Salvaged(Value),
    /// Text that is no JSON, or bytes.
    Plain,
    /// Server-sent events.
    Events,
}

impl<'a> Side<'a> {
    /// Reads a request's body.
    pub(super) fn of_request(body: &'a CapturedBody, headers: &Fields) -> Self {
        Self::read(body, headers, false)
    }

    /// Reads a response's body, which may be a stream of events.
    pub(super) fn of_response(body: &'a CapturedBody, headers: &Fields) -> Self {
        Self::read(body, headers, true)
    }

    fn read(body: &'a CapturedBody, headers: &Fields, may_stream: bool) -> Self {
        let decoded = decode::decode(body, headers);
        let media = media(headers);
        let (content, fault) = if decoded.head.is_empty() && decoded.tail.is_empty() {
            let lost = (body.bytes > 0 && decoded.missing).then_some(Fault::Truncated);
            let stream = may_stream && is_event_stream(media) && body.bytes == 0;
            (if stream { Content::Events } else { Content::Nothing }, lost)
        } else if may_stream && streams(media, &decoded.head) {
            (Content::Events, body.truncated().then_some(Fault::Truncated))
        } else {
            json_or_plain(media, &decoded)
        };
        Self { fault: decoded.fault.or(fault), decoded, content, bytes: body.bytes }
    }

    /// The body as JSON; of a cut one, what is whole.
    pub(super) fn json(&self) -> Option<&Value> {
        match &self.content {
            Content::Json(value) | Content::Salvaged(value) => Some(value),
            _ => None,
        }
    }

    /// The body as text, where it is neither JSON nor cut.
    pub(super) fn plain_text(&self) -> Option<&str> {
        let whole = matches!(self.content, Content::Plain) && !self.decoded.missing;
        whole.then(|| std::str::from_utf8(&self.decoded.head).ok()).flatten()
    }

    /// True where the body is a stream of events.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self.content, Content::Events)
    }

    /// True where bytes are missing and made a difference.
    pub(super) fn partial(&self) -> bool {
        self.decoded.missing && !matches!(self.content, Content::Json(_))
    }

    /// The `usage` object of a JSON body with a hole, from its tail.
    pub(super) fn usage_in_tail(&self) -> Option<Value> {
        let holed = matches!(self.content, Content::Salvaged(_) | Content::Plain);
        holed.then(|| json::usage_in_tail(self.decoded.tail)).flatten()
    }

    /// True where the offsets of events are those on the wire: not under a coding.
    pub(super) fn has_wire_offsets(&self) -> bool {
        self.decoded.identity
    }

    /// Calls `emit` for every event; the flag is false for the one that a cut stream left
    /// unfinished. Across a hole it goes on at the first event that surely begins after it.
    /// Returns how many lines and events were skipped because they were too long.
    pub(super) fn each_event(&self, emit: &mut impl FnMut(Event<'_>, bool)) -> u64 {
        let mut parser = Parser::new(Limits::default());
        parser.push(&self.decoded.head, &mut |event| emit(event, true));
        let tail = self.decoded.tail;
        let resume = sse::boundary(tail).filter(|_| !tail.is_empty());
        let mut skipped = 0;
        if let Some(at) = resume {
            skipped = parser.skipped();
            let offset = self.decoded.tail_offset + at as u64;
            parser = Parser::resumed_at(Limits::default(), offset);
            parser.push(&tail[at..], &mut |event| emit(event, true));
        }
        // What a hole cut off in the middle is no text of its own.
        if (tail.is_empty() || resume.is_some())
            && let Some(event) = parser.finish()
        {
            emit(event, false);
        }
        skipped + parser.skipped()
    }

    /// The body as a record keeps it: JSON, else text, else base64; `None` where there is none,
    /// and where a content coding could not be undone, since what cannot be read cannot be redacted.
    pub(super) fn into_stored(self) -> Option<Value> {
        match self.content {
            Content::Nothing => None,
            Content::Json(value) => Some(value),
            Content::Events => self.joined_events(),
            Content::Plain if !self.decoded.missing => {
                joined_lines(&self.decoded.head).or_else(|| stored_text(&self.decoded, self.bytes))
            }
            Content::Salvaged(_) | Content::Plain => stored_text(&self.decoded, self.bytes),
        }
    }

    /// A stream that no dialect folded, as one value: piece by piece nothing would be found in its texts.
    fn joined_events(&self) -> Option<Value> {
        let mut joined = Joined::default();
        self.each_event(&mut |event, _| match json::parse(event.data.as_bytes()) {
            Err(_) if event.data == "[DONE]" => {}
            Ok(data @ (Value::Object(_) | Value::Array(_) | Value::String(_))) => joined.add(data),
            // What looks like a number may be a piece of a text.
            _ => joined.add(Value::String(event.data.into_owned())),
        });
        joined.into_value()
    }
}

/// The media type that the headers name; empty where they name none.
pub(super) fn media(headers: &Fields) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// True for `text/event-stream`, whatever its parameters.
pub(super) fn is_event_stream(media: &str) -> bool {
    let essence = media.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("text/event-stream")
}

fn is_json(media: &str) -> bool {
    let essence = media.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// By what it is labelled as, unless the first byte speaks against it.
pub(super) fn streams(media: &str, head: &[u8]) -> bool {
    let begins = first_byte(head);
    if is_event_stream(media) {
        return !matches!(begins, Some(b'{' | b'[' | b'"'));
    }
    !is_json(media) && (head.starts_with(b"data:") || head.starts_with(b"event:"))
}

fn first_byte(bytes: &[u8]) -> Option<u8> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace())
}

fn json_or_plain(media: &str, decoded: &Decoded<'_>) -> (Content, Option<Fault>) {
    let begun = matches!(first_byte(&decoded.head), Some(b'{' | b'[' | b'"'));
    if !begun && !is_json(media) {
        return (Content::Plain, None);
    }
    // With a hole behind it the head is no whole text, even if it could be read as one.
    let holed = !decoded.tail.is_empty();
    let prefix = holed.then(|| Prefix::of(&decoded.head)).flatten();
    if let Some(prefix) = prefix.filter(Prefix::is_cut) {
        let salvaged = prefix.salvage();
        return (salvaged.map_or(Content::Plain, Content::Salvaged), Some(Fault::Truncated));
    }
    match json::parse(&decoded.head) {
        Ok(_) if holed => (Content::Plain, Some(Fault::Truncated)),
        Ok(value) => (Content::Json(value), None),
        Err(_) if decoded.missing => match json::salvage(&decoded.head) {
            Some(value) => (Content::Salvaged(value), Some(Fault::Truncated)),
            None => (Content::Plain, Some(Fault::Truncated)),
        },
        Err(fault) => (Content::Plain, Some(fault)),
    }
}

/// JSON values one behind the other, a line each: they are a stream, too.
fn joined_lines(bytes: &[u8]) -> Option<Value> {
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty());
    let (mut joined, mut count) = (Joined::default(), 0);
    for line in lines {
        if !matches!(line.first(), Some(b'{' | b'[')) {
            return None;
        }
        joined.add(json::parse(line).ok()?);
        count += 1;
    }
    joined.into_value().filter(|_| count > 1)
}

fn stored_text(decoded: &Decoded<'_>, bytes: u64) -> Option<Value> {
    let whole = if decoded.missing { without_cut_word(&decoded.head) } else { &decoded.head[..] };
    let Some(head) = text_of(whole, decoded.missing) else {
        let plain = decoded.fault.is_none();
        return plain.then(|| json!({ "base64": STANDARD.encode(&decoded.head) }));
    };
    if decoded.head.is_empty() && decoded.tail.is_empty() {
        return None;
    }
    if decoded.tail.is_empty() {
        return Some(Value::String(head.into_owned()));
    }
    let tail = past_cut_word(decoded.tail);
    let hole = bytes.saturating_sub((whole.len() + tail.len()) as u64);
    let hole = format!("\n[{hole} bytes not captured]\n");
    let tail = past_cut_character(tail);
    let tail = simdutf8::basic::from_utf8(tail)
        .map_or_else(|_| String::from_utf8_lossy(tail), Cow::Borrowed);
    // Room for all of it at once: what grows is copied as it grows.
    Some(Value::String([&head, hole.as_str(), &tail].concat()))
}

/// Half a secret is none that could be found: what was cut in the middle of a word goes without it, up to
/// so many bytes.
const CUT_WORD_BYTES_MAX: usize = 4096;

fn in_word(byte: &u8) -> bool {
    !byte.is_ascii_whitespace() && !matches!(byte, b'"' | b'\'' | b',' | b';' | b'<' | b'>')
}

fn without_cut_word(head: &[u8]) -> &[u8] {
    let cut = head.iter().rev().take(CUT_WORD_BYTES_MAX).take_while(|byte| in_word(byte)).count();
    &head[..head.len() - cut]
}

fn past_cut_word(tail: &[u8]) -> &[u8] {
    &tail[tail.iter().take(CUT_WORD_BYTES_MAX).take_while(|byte| in_word(byte)).count()..]
}

/// The bytes as text; where they were cut, without a character that was cut in two.
fn text_of(bytes: &[u8], cut: bool) -> Option<Cow<'_, str>> {
    match simdutf8::compat::from_utf8(bytes) {
        Ok(text) => Some(Cow::Borrowed(text)),
        Err(error) if cut && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok().map(Cow::Borrowed)
        }
        Err(_) => None,
    }
}

fn past_cut_character(bytes: &[u8]) -> &[u8] {
    let continuation = bytes.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
    &bytes[continuation..]
}
