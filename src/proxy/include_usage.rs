//! `include_usage: inject`: asks a streaming OpenAI upstream for its usage on the client's behalf, and
//! takes the extra event out of the answer again.
//!
//! The only place where flowtap alters traffic, and off unless a tap says so. The body is read whole
//! first (only with a `Content-Length` up to [`BODY_BYTES_MAX`]); an upstream that refuses the option
//! gets the client's own body, and is not asked again. The other events of such a stream carry
//! `"usage":null`, which the upstream adds and which is left in.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use http::{Method, StatusCode, request, response};
use serde::Deserialize;

use crate::config::IncludeUsage;

/// A longer body is left as it is.
pub const BODY_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// An event that is longer ends the stripping of its stream: nothing is held back without bound.
const EVENT_BYTES_MAX: usize = 1024 * 1024;

/// Whether a tap asks for usage, and whether its upstream understood that.
#[derive(Debug)]
pub struct Injection {
    wanted: bool,
    refused: AtomicBool,
}

impl Injection {
    /// As the tap says.
    pub fn new(setting: IncludeUsage) -> Self {
        Self { wanted: setting == IncludeUsage::Inject, refused: AtomicBool::new(false) }
    }

    /// True where this request's body should be read whole and looked at.
    pub fn concerns(&self, head: &request::Parts) -> bool {
        self.wanted
            && !self.refused.load(Ordering::Relaxed)
            && head.method == Method::POST
            && head.uri.path().ends_with("/completions")
            && media_type_is(&head.headers, "application/json")
            && !head.headers.contains_key(CONTENT_ENCODING)
            && content_length(&head.headers).is_some_and(|length| length <= BODY_BYTES_MAX)
    }

    /// The upstream refused the option: it is not asked again.
    pub fn give_up(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }
}

/// True for an answer by which an upstream may refuse an option that it does not know.
pub fn is_refusal(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY)
}

#[derive(Deserialize)]
struct Asked<'a> {
    stream: Option<bool>,
    #[serde(borrow)]
    stream_options: Option<&'a serde_json::value::RawValue>,
}

/// `body` with the option added; `None` where it is no stream, or the client chose for itself.
pub fn inject(body: &[u8]) -> Option<Bytes> {
    let asked: Asked<'_> = serde_json::from_slice(body).ok()?;
    if asked.stream != Some(true) || asked.stream_options.is_some() {
        return None;
    }
    let end = body.iter().rposition(|b| *b == b'}')?;
    let option = b",\"stream_options\":{\"include_usage\":true}";
    Some(Bytes::from([&body[..end], option, &body[end..]].concat()))
}

/// Takes the usage event out of a stream.
#[derive(Debug, Default)]
pub struct Stripper {
    pending: Vec<u8>,
    /// No event ends before this place of `pending`.
    searched: usize,
    gave_up: bool,
}

impl Stripper {
    /// A stripper for the answer `head`; `None` where it is no plain stream of events.
    pub fn for_answer(head: &response::Parts) -> Option<Self> {
        let plain = !head.headers.contains_key(CONTENT_ENCODING);
        (plain && media_type_is(&head.headers, "text/event-stream")).then(Self::default)
    }

    /// What of the stream so far may go on: every whole event but the usage event.
    pub fn push(&mut self, chunk: Bytes) -> Bytes {
        if self.gave_up {
            return chunk;
        }
        self.pending.extend_from_slice(&chunk);
        let (mut passed, mut begin, mut searched) = (Vec::new(), 0, self.searched);
        while let Some(end) = event_end(&self.pending, searched) {
            let event = &self.pending[begin..end];
            if !is_usage_event(event) {
                passed.extend_from_slice(event);
            }
            (begin, searched) = (end, end);
        }
        self.pending.drain(..begin);
        // A blank line that is cut in two is found with what comes next.
        self.searched = self.pending.len().saturating_sub(3);
        if self.pending.len() > EVENT_BYTES_MAX {
            self.gave_up = true;
            passed.append(&mut self.pending);
        }
        passed.into()
    }

    /// What is left at the stream's end.
    pub fn finish(&mut self) -> Bytes {
        std::mem::take(&mut self.pending).into()
    }
}

/// Where the first event that ends behind `from` ends: after its blank line.
fn event_end(bytes: &[u8], from: usize) -> Option<usize> {
    let ends = [b"\n\n".as_slice(), b"\r\n\r\n", b"\r\r"];
    memchr::memchr2_iter(b'\n', b'\r', bytes.get(from..)?).find_map(|at| {
        let rest = &bytes[from + at..];
        ends.iter().find(|end| rest.starts_with(end)).map(|end| from + at + end.len())
    })
}

/// The event that `include_usage` adds: no choices, and a usage that is not null.
fn is_usage_event(event: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Chunk {
        choices: Vec<serde::de::IgnoredAny>,
        usage: Option<serde::de::IgnoredAny>,
    }
    let data = event.strip_prefix(b"data:").map(<[u8]>::trim_ascii);
    let chunk = data.and_then(|data| serde_json::from_slice::<Chunk>(data).ok());
    chunk.is_some_and(|chunk| chunk.choices.is_empty() && chunk.usage.is_some())
}

fn media_type_is(headers: &HeaderMap, wanted: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case(wanted))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_is_added_only_to_streams_whose_client_did_not_choose() {
        let added = inject(br#"{"stream": true, "model":"m"} "#).expect("a stream");
        assert_eq!(
            &added[..],
            br#"{"stream": true, "model":"m","stream_options":{"include_usage":true}} "#
        );
        assert_eq!(inject(br#"{"model":"m"}"#), None);
        assert_eq!(inject(br#"{"stream":true,"stream_options":{"include_usage":false}}"#), None);
        assert_eq!(inject(b"[1]"), None);
    }

    #[test]
    fn the_usage_event_goes_and_every_other_byte_stays_however_it_is_cut() {
        let before = b"data: {\"choices\":[{\"delta\":{}}],\"usage\":null}\n\n: ping\n\n";
        let usage = b"data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3}}\n\n";
        let after = b"data: [DONE]\n\ntail";
        let stream = [&before[..], usage, after].concat();
        for cut in 0..stream.len() {
            let mut stripper = Stripper::default();
            let (first, second) = stream.split_at(cut);
            let mut out = stripper.push(Bytes::copy_from_slice(first)).to_vec();
            out.extend(stripper.push(Bytes::copy_from_slice(second)));
            out.extend(stripper.finish());
            assert_eq!(out, [&before[..], after].concat(), "cut at {cut}");
        }
    }

    #[test]
    fn an_endless_event_is_not_held_back() {
        let mut stripper = Stripper::default();
        let chunk = Bytes::from(vec![b'x'; EVENT_BYTES_MAX + 1]);
        assert_eq!(stripper.push(chunk.clone()), chunk);
        assert_eq!(stripper.push(Bytes::from_static(b"y")), "y");
    }
}
