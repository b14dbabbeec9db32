//! W3C Trace Context, level 1: <https://www.w3.org/TR/trace-context/>. Read strictly, since a
//! malformed header means that the trace begins here. `tracestate` passes untouched.

use http::{HeaderMap, HeaderValue};

use crate::domain::{SpanId, TraceContext, TraceId};

/// The header's name.
pub const TRACEPARENT: &str = "traceparent";

/// Bytes of a version 00 header: `00-<32>-<16>-<2>`.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;

/// What the caller told of its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The trace.
    pub trace_id: TraceId,
    /// The caller's span.
    pub span_id: SpanId,
    /// Its `sampled` flag.
    pub sampled: bool,
}

impl Incoming {
    /// Reads `traceparent`; `None` if it is missing, repeated or malformed. Version `ff` is
    /// refused; of later versions the part that version 00 defines is read.
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(TRACEPARENT).iter();
        let value = values.next().filter(|_| values.next().is_none())?;
        Self::parse(value.to_str().ok()?)
    }

    /// Reads the value of the only `traceparent`.
    pub fn parse(text: &str) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let mut parts = known.split('-');
        let version = hex_byte(parts.next()?)?;
        let trace_id = TraceId::parse(parts.next()?)?;
        let span_id = SpanId::parse(parts.next()?)?;
        let flags = hex_byte(parts.next()?)?;
        let ends_well = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        (ends_well && parts.next().is_none()).then_some(Self {
            trace_id,
            span_id,
            sampled: flags & SAMPLED != 0,
        })
    }
}

/// The context of an exchange that begins now: a new span in the caller's trace, else in a new one.
pub fn begin(incoming: Option<Incoming>) -> TraceContext {
    TraceContext {
        trace_id: incoming.map_or_else(TraceId::random, |caller| caller.trace_id),
        span_id: SpanId::random(),
        parent_span_id: incoming.map(|caller| caller.span_id),
        sampled: incoming.is_none_or(|caller| caller.sampled),
    }
}

/// The header that makes our span the parent of what the upstream does.
pub fn traceparent(trace: &TraceContext) -> HeaderValue {
    let flags = u8::from(trace.sampled);
    let text = format!("00-{}-{}-{flags:02x}", trace.trace_id, trace.span_id);
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Two lower-case hex digits.
fn hex_byte(text: &str) -> Option<u8> {
    let lower = text.len() == 2 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    lower.then(|| u8::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn read(values: &[&str]) -> Option<Incoming> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, HeaderValue::from_bytes(value.as_bytes()).expect("valid"));
        }
        Incoming::read(&headers)
    }

    #[test]
    fn a_good_header_is_honoured_and_passed_on_with_our_span() {
        let incoming = read(&[GOOD]).expect("good");
        assert!(incoming.sampled);
        let trace = begin(Some(incoming));
        assert_eq!(trace.parent_span_id, Some(incoming.span_id));
        let sent = traceparent(&trace);
        let expected = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", trace.span_id);
        assert_eq!(sent.to_str().ok(), Some(expected.as_str()));
        assert_eq!(read(&[&GOOD.replace("-01", "-02")]).map(|i| i.sampled), Some(false));
    }

    #[test]
    fn later_versions_are_read_by_their_known_part() {
        let later = GOOD.replacen("00", "cc", 1);
        assert_eq!(read(&[&later]), read(&[GOOD]));
        assert_eq!(read(&[&format!("{later}-what-comes")]), read(&[GOOD]));
        assert_eq!(read(&[&format!("{later}.what")]), None);
        assert_eq!(read(&[&GOOD.replacen("00", "ff", 1)]), None, "a forbidden version");
    }

    #[test]
    fn what_is_malformed_begins_a_trace_of_its_own() {
        let zero_trace = format!("00-{}-b7ad6b7169203331-01", "0".repeat(32));
        let zero_span = format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", "0".repeat(16));
        let bad = [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD} "),
            &GOOD.to_uppercase(),
            &GOOD.replace("-01", "-+1"),
            &GOOD.replacen('-', "_", 1),
            &zero_trace,
            &zero_span,
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-é",
        ];
        for value in bad {
            assert_eq!(read(&[value]), None, "{value:?}");
        }
        assert_eq!(read(&[GOOD, GOOD]), None, "two headers");
        assert_eq!(read(&[]), None);
        let fresh = begin(None);
        assert!(fresh.sampled && fresh.parent_span_id.is_none());
    }
}
