//! One request with its response, as it went over the wire: raw, unredacted, in memory only.

use std::sync::Arc;

use http::Method;
use jiff::Timestamp;

use super::{ExchangeId, Fields, Outcome, Reservation, SpanId, TraceId};

/// One request with its response. It has no `Serialize`, and must never get one: what leaves the
/// process is a [`super::Record`], made from this by the redactor.
#[derive(Debug)]
pub struct Exchange {
    /// Our own id.
    pub id: ExchangeId,
    /// The tap's name.
    pub tap: Arc<str>,
    /// When the request's head had been read.
    pub time: Timestamp,
    /// The request's method.
    pub method: Method,
    /// The request's path, without the query.
    pub path: String,
    /// Those of the request's headers that are looked at.
    pub request_headers: Fields,
    /// The request's body, as far as it was captured.
    pub request: CapturedBody,
    /// The status sent to the client; `None` if none was.
    pub status: Option<u16>,
    /// Those of the response's headers that are looked at.
    pub response_headers: Fields,
    /// The response's body, as far as it was captured.
    pub response: CapturedBody,
    /// How it ended, as far as the bytes tell; the pipeline refines `Ok` to `Empty`.
    pub outcome: Outcome,
    /// The name of the fault where the answer was our own and not the upstream's.
    pub fault: Option<&'static str>,
    /// When things happened.
    pub timing: Timing,
    /// `x-request-id`, else `x-ms-client-request-id`, else what we minted.
    pub request_id: Option<String>,
    /// The trace this exchange belongs to.
    pub trace: TraceContext,
    /// When it began, exactly one exchange was under way at the other taps. Looked at only where
    /// prompt flow's own header came: a call that names no request can be no other's then.
    pub alone: bool,
}

/// Durations of one exchange, in microseconds since its head had been read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// To the end, or to the failure.
    pub total_us: u64,
    /// To the response's head.
    pub head_us: Option<u64>,
    /// To the first byte of the response's body.
    pub first_byte_us: Option<u64>,
    /// Spent in our own code on the two heads: neither waiting nor connecting.
    pub overhead_us: u64,
}

/// A body as captured: its head, its tail, and how long it was in all.
#[derive(Debug, Default)]
pub struct CapturedBody {
    /// The first bytes.
    pub head: Vec<u8>,
    /// The last bytes, in order; empty unless the body outgrew the head.
    pub tail: Vec<u8>,
    /// Bytes that passed in all.
    pub bytes: u64,
    /// The end of the body was seen, and it was the proper one.
    pub complete: bool,
    /// When which byte had arrived: bounded, the first chunks only.
    pub marks: Vec<Mark>,
    /// The share of the memory budget that `head` and `tail` hold.
    pub reservation: Option<Reservation>,
}

impl CapturedBody {
    /// True where bytes between head and tail are missing.
    pub fn truncated(&self) -> bool {
        (self.head.len() + self.tail.len()) as u64 != self.bytes
    }

    /// Microseconds until byte `offset` of the body had arrived; `None` past the last mark.
    pub fn arrival_us(&self, offset: u64) -> Option<u64> {
        self.marks.iter().find(|mark| mark.bytes > offset).map(|mark| mark.at_us)
    }
}

/// `bytes` of the body had arrived `at_us` microseconds after the exchange began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Bytes so far.
    pub bytes: u64,
    /// Microseconds since the exchange began.
    pub at_us: u64,
}

/// Where the exchange stands in a distributed trace (W3C Trace Context).
#[derive(Clone, Copy, Debug)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// Our span.
    pub span_id: SpanId,
    /// The caller's span, where it sent one.
    pub parent_span_id: Option<SpanId>,
    /// The caller's `sampled` flag; true where there was no caller.
    pub sampled: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrival_is_that_of_the_chunk_that_held_the_byte() {
        let marks = vec![Mark { bytes: 10, at_us: 5 }, Mark { bytes: 30, at_us: 9 }];
        let body = CapturedBody { bytes: 30, marks, ..CapturedBody::default() };
        assert_eq!(body.arrival_us(0), Some(5));
        assert_eq!(body.arrival_us(10), Some(9));
        assert_eq!(body.arrival_us(30), None);
        assert!(body.truncated(), "thirty bytes passed and none is here");
    }
}
