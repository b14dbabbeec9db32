//! The bounded tee: records the head and the tail of a body while it passes.
//!
//! Recording copies. A clone of a small chunk would keep the whole read buffer behind it alive
//! (measured: 865 KiB a stream, against 69 KiB copied). Past its limits, or where the process-wide
//! budget is spent, it stops recording and goes on counting; it can neither fail nor wait.
//! Cost: one copy of what is recorded, no allocation once the buffer has grown; none of what is read into
//! the recorder's own memory.

use std::collections::VecDeque;

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::{CapturedBody, Fields, Mark, MemoryBudget, Reservation};

pub mod failpoint;

/// How much of one body is recorded.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Bytes of the head.
    pub head_bytes_max: usize,
    /// Bytes of the tail; a stream reports its usage there.
    pub tail_bytes_max: usize,
    /// Arrival times noted.
    pub marks_max: usize,
}

impl BodyLimits {
    /// Divides `bytes_max` between head and tail: up to 64 KiB, at most a quarter, for the tail.
    pub fn of(bytes_max: usize) -> Self {
        let tail_bytes_max = (bytes_max / 4).min(64 * 1024);
        Self { head_bytes_max: bytes_max - tail_bytes_max, tail_bytes_max, marks_max: 256 }
    }
}

/// Fewer bytes come in one piece or two.
const EXPECTED_BYTES_MIN: usize = 16 * 1024;

/// Records one body.
#[derive(Debug)]
pub struct Recorder {
    limits: BodyLimits,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    bytes: u64,
    complete: bool,
    marks: Vec<Mark>,
    /// Its share of the budget, until it is handed on.
    reservation: Option<Reservation>,
    /// False once the budget refused or a panic was contained: bytes are counted only.
    recording: bool,
    /// The head's memory is with who reads the body: what passes is there already.
    is_lent: bool,
}

impl Recorder {
    /// A recorder that takes its memory from `budget`.
    pub fn new(limits: BodyLimits, budget: &MemoryBudget) -> Self {
        Self {
            limits,
            head: Vec::new(),
            tail: VecDeque::new(),
            bytes: 0,
            complete: false,
            marks: Vec::new(),
            reservation: Some(budget.reservation()),
            recording: limits.head_bytes_max > 0,
            is_lent: false,
        }
    }

    /// So many bytes will come, as a length says that stands before them: room is made for them at once, as
    /// far as they are recorded. What grows by doubling is copied as often.
    pub fn expect(&mut self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.limits.head_bytes_max);
        if self.recording && bytes > EXPECTED_BYTES_MIN {
            // Where the budget has no room for all of it, it may for what really comes.
            let _reserved = self.reserve_head(bytes);
        }
    }

    /// The memory that [`Self::expect`] reserved, where nothing is in it and it has room for more than
    /// `bytes`: for the body to be read into, from its first byte on, so that it need not be copied. What is
    /// read is noted all the same, and until the memory is taken back nothing else is.
    pub fn lend(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let lends = self.recording && self.bytes == 0 && self.head.capacity() > bytes;
        self.is_lent = lends;
        lends.then(|| std::mem::take(&mut self.head))
    }

    /// Takes back the memory that was lent: what was noted meanwhile stands in it.
    pub fn take_back(&mut self, mut memory: Vec<u8>) {
        if std::mem::take(&mut self.is_lent) {
            memory.truncate(usize::try_from(self.bytes).unwrap_or(usize::MAX));
            self.head = memory;
        }
    }

    /// Takes note of `chunk`, which arrived `at_us` microseconds after the exchange began.
    pub fn record(&mut self, chunk: &[u8], at_us: u64) {
        self.bytes += chunk.len() as u64;
        if self.marks.len() < self.limits.marks_max {
            self.marks.push(Mark { bytes: self.bytes, at_us });
        }
        if self.recording && !self.is_lent {
            let room = self.limits.head_bytes_max - self.head.len();
            let (head, rest) = chunk.split_at(room.min(chunk.len()));
            self.recording = self.keep_head(head) && self.keep_tail(rest);
        }
    }

    /// Records nothing further; bytes are still counted.
    pub fn stop(&mut self) {
        self.recording = false;
    }

    /// The body's proper end was seen.
    pub fn complete(&mut self) {
        self.complete = true;
    }

    /// True once the proper end was seen.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Bytes that passed so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the first byte arrived.
    pub fn first_byte_us(&self) -> Option<u64> {
        self.marks.first().map(|mark| mark.at_us)
    }

    /// What was recorded; nothing further is.
    pub fn finish(&mut self) -> CapturedBody {
        self.recording = false;
        CapturedBody {
            head: std::mem::take(&mut self.head),
            tail: std::mem::take(&mut self.tail).into(),
            bytes: self.bytes,
            complete: self.complete,
            marks: std::mem::take(&mut self.marks),
            reservation: self.reservation.take(),
        }
    }

    fn try_reserve(&mut self, bytes: usize) -> bool {
        self.reservation.as_mut().is_some_and(|held| held.try_grow(bytes as u64))
    }

    fn keep_head(&mut self, bytes: &[u8]) -> bool {
        let needed = self.head.len() + bytes.len();
        let capacity = grown(self.head.capacity(), needed, self.limits.head_bytes_max);
        if needed > self.head.capacity() && !self.reserve_head(capacity) {
            return false;
        }
        self.head.extend_from_slice(bytes);
        true
    }

    fn reserve_head(&mut self, capacity: usize) -> bool {
        let reserved = self.try_reserve(capacity.saturating_sub(self.head.capacity()));
        if reserved {
            self.head.reserve_exact(capacity - self.head.len());
        }
        reserved
    }

    fn keep_tail(&mut self, bytes: &[u8]) -> bool {
        let max = self.limits.tail_bytes_max;
        if bytes.is_empty() || max == 0 {
            return bytes.is_empty();
        }
        if self.tail.capacity() == 0 {
            if !self.try_reserve(max) {
                return false;
            }
            self.tail.reserve_exact(max);
        }
        let bytes = &bytes[bytes.len().saturating_sub(max)..];
        let surplus = (self.tail.len() + bytes.len()).saturating_sub(max);
        self.tail.drain(..surplus);
        self.tail.extend(bytes);
        true
    }
}

/// Doubles, so that a long stream costs few growths, and never past `max`.
fn grown(capacity: usize, needed: usize, max: usize) -> usize {
    needed.max(capacity * 2).max(1024).min(max.max(needed))
}

/// Which headers of an exchange are looked at by anything that observes. Credentials never are:
/// they stay in the forwarded request alone.
#[derive(Clone, Debug)]
pub struct HeaderSelection {
    request: Vec<HeaderName>,
    response: Vec<HeaderName>,
}

/// The header by which the calls of our own judge are known.
pub const JUDGE_HEADER: &str = "x-flowtap-judge";

const REQUEST_HEADERS: &[&str] = &[
    "content-type",
    "content-encoding",
    "x-request-id",
    "x-ms-client-request-id",
    "azureml-model-deployment",
    "anthropic-version",
    "x-session-id",
    "session-id",
    "ms-azure-ai-promptflow",
    JUDGE_HEADER,
];

const RESPONSE_HEADERS: &[&str] = &[
    "content-type",
    "content-encoding",
    "x-request-id",
    "azureml-model-deployment",
    "ms-azureml-model-error-statuscode",
    "ms-azureml-model-error-reason",
];

impl HeaderSelection {
    /// What the dialects need, and the user's `allowed` names.
    pub fn new(allowed: &[String]) -> Self {
        Self {
            request: selected(REQUEST_HEADERS, allowed),
            response: selected(RESPONSE_HEADERS, allowed),
        }
    }

    /// The selected headers of a request.
    pub fn of_request(&self, headers: &HeaderMap) -> Fields {
        pick(&self.request, headers)
    }

    /// The selected headers of a response.
    pub fn of_response(&self, headers: &HeaderMap) -> Fields {
        pick(&self.response, headers)
    }

    /// The selected ones of a request's fields, which are names in any case and values.
    pub fn of_request_fields<'f>(
        &self,
        fields: impl Iterator<Item = (&'f str, &'f [u8])>,
    ) -> Fields {
        pick_fields(&self.request, fields)
    }

    /// The selected ones of a response's fields.
    pub fn of_response_fields<'f>(
        &self,
        fields: impl Iterator<Item = (&'f str, &'f [u8])>,
    ) -> Fields {
        pick_fields(&self.response, fields)
    }
}

const COMMON_VALUES: &[&str] = &["application/json", "text/event-stream"];

/// Of one header's value, so much is looked at.
const HEADER_BYTES_MAX: usize = 1024;

fn selected(needed: &[&str], allowed: &[String]) -> Vec<HeaderName> {
    let allowed = allowed.iter().map(String::as_str);
    let mut names: Vec<HeaderName> =
        needed.iter().copied().chain(allowed).filter_map(|name| name.parse().ok()).collect();
    names.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    names.dedup();
    names
}

/// The values are copied: a clone would keep the connection's read buffer alive, which then could not
/// be used for the next head.
fn pick(names: &[HeaderName], headers: &HeaderMap) -> Fields {
    let wanted = headers.iter().filter(|(name, _)| names.contains(name));
    wanted.map(|(name, value)| (name.clone(), copied(value.as_bytes()))).collect()
}

fn pick_fields<'f>(
    names: &[HeaderName],
    fields: impl Iterator<Item = (&'f str, &'f [u8])>,
) -> Fields {
    let known = |name| names.iter().find(|n: &&HeaderName| n.as_str().eq_ignore_ascii_case(name));
    let wanted = fields.filter_map(|(name, value)| Some((known(name)?.clone(), copied(value))));
    wanted.collect()
}

/// A clone would keep the read buffer that the head came in alive, and what of the body came with it,
/// for as long as the exchange waits: 60 KiB for each of thousands (measured), outside of any budget.
fn copied(bytes: &[u8]) -> HeaderValue {
    // What nearly every exchange bears needs no memory.
    if let Some(known) = COMMON_VALUES.iter().find(|known| known.as_bytes() == bytes) {
        return HeaderValue::from_static(known);
    }
    let bytes = &bytes[..bytes.len().min(HEADER_BYTES_MAX)];
    HeaderValue::from_bytes(bytes).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn recorder(bytes_max: usize) -> Recorder {
        Recorder::new(BodyLimits::of(bytes_max), &MemoryBudget::new(1 << 20))
    }

    #[test]
    fn a_body_over_the_limit_keeps_its_head_and_its_tail() {
        let mut recorder = recorder(16);
        for (at, chunk) in [b"0123456789".as_slice(), b"abcdefghij", b"XYZ"].iter().enumerate() {
            recorder.record(chunk, at as u64);
        }
        let body = recorder.finish();
        assert_eq!(
            (body.head.as_slice(), body.tail.as_slice()),
            (&b"0123456789ab"[..], &b"jXYZ"[..])
        );
        assert_eq!((body.bytes, body.truncated(), body.marks.len()), (23, true, 3));
    }

    #[test]
    fn a_body_whose_length_is_known_is_reserved_for_once() {
        let budget = MemoryBudget::new(1 << 20);
        let mut recorder = Recorder::new(BodyLimits::of(1 << 20), &budget);
        recorder.expect(100_000);
        assert_eq!((recorder.head.capacity(), budget.bytes_used()), (100_000, 100_000));
        (0..10).for_each(|_| recorder.record(&[1; 10_000], 0));
        assert_eq!((recorder.head.capacity(), budget.bytes_used()), (100_000, 100_000));
        let body = recorder.finish();
        assert_eq!((body.head.len(), body.truncated()), (100_000, false));
        let mut more = Recorder::new(BodyLimits::of(1 << 19), &budget);
        more.expect(u64::MAX);
        assert_eq!(more.head.capacity(), more.limits.head_bytes_max, "no more than is recorded");
        let mut less = Recorder::new(BodyLimits::of(1 << 20), &budget);
        less.expect(1 << 20);
        less.record(&[1; 10], 0);
        assert_eq!((less.head.len(), less.bytes()), (10, 10), "what comes, if not all of it");
    }

    #[test]
    fn what_is_read_into_the_recorders_own_memory_is_recorded_without_a_copy() {
        let budget = MemoryBudget::new(1 << 20);
        let recorder = |expected| {
            let mut recorder = Recorder::new(BodyLimits::of(128 * 1024), &budget);
            recorder.expect(expected);
            recorder
        };
        assert!(recorder(1000).lend(0).is_none(), "too short for memory of its own");
        assert!(recorder(100_000).lend(100_000).is_none(), "all of it is there already");
        let mut long = recorder(1 << 30);
        let mut memory = long.lend(10).expect("room");
        let (whole, at) = (vec![7; memory.capacity()], memory.as_ptr());
        memory.extend_from_slice(&whole);
        long.record(&memory[..10], 1);
        long.record(&memory[10..], 2);
        long.take_back(memory);
        long.record(b"tail", 3);
        let body = long.finish();
        assert_eq!((body.head.as_ptr(), &body.head, &body.tail[..]), (at, &whole, &b"tail"[..]));
        assert_eq!((body.bytes, body.marks.len()), (whole.len() as u64 + 4, 3));
        // What was read and never passed is none of the body.
        let mut cut = recorder(100_000);
        let mut memory = cut.lend(0).expect("room");
        memory.extend_from_slice(&[7; 50_000]);
        cut.record(&memory[..10], 1);
        cut.take_back(memory);
        assert_eq!((cut.finish().head.len(), cut.bytes()), (10, 10));
        drop((long, cut, body));
        assert_eq!(budget.bytes_used(), 0);
    }

    #[test]
    fn a_spent_budget_stops_recording_and_goes_on_counting() {
        let budget = MemoryBudget::new(1024);
        let mut recorder = Recorder::new(BodyLimits::of(1 << 20), &budget);
        recorder.record(&[1; 1000], 0);
        recorder.record(&[2; 1000], 0);
        let body = recorder.finish();
        assert_eq!((body.head.len(), body.bytes), (1000, 2000));
        assert_eq!(budget.bytes_used(), 1024);
        drop(body);
        assert_eq!(budget.bytes_used(), 0);
    }

    #[test]
    fn credentials_are_not_selected() {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", "Bearer x".parse().expect("valid"));
        headers.insert("content-type", "text/plain".parse().expect("valid"));
        let picked = HeaderSelection::new(&[]).of_request(&headers);
        assert_eq!(picked.names().count(), 1);
    }

    #[test]
    fn headers_are_copied_and_long_ones_cut() {
        let mut headers = HeaderMap::new();
        let buffer = bytes::Bytes::from(vec![b'x'; 60_000]);
        let long = HeaderValue::from_maybe_shared(buffer.clone()).expect("valid");
        headers.insert("user-agent", long);
        let picked = HeaderSelection::new(&["user-agent".to_owned()]).of_request(&headers);
        assert_eq!(picked.get("user-agent").expect("picked").len(), HEADER_BYTES_MAX);
        drop(headers);
        assert!(buffer.is_unique(), "nothing keeps the buffer alive");
    }

    proptest! {
        #[test]
        fn any_split_keeps_the_same_bytes(body in proptest::collection::vec(any::<u8>(), 0..200), cuts in proptest::collection::vec(0usize..200, 0..8), max in 0usize..64) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.extend([0, body.len()]);
            cuts.sort_unstable();
            let mut split = recorder(max);
            cuts.windows(2).for_each(|pair| split.record(&body[pair[0]..pair[1]], 0));
            let split = split.finish();
            let limits = BodyLimits::of(max);
            let head = body.len().min(limits.head_bytes_max);
            let tail = (body.len() - head).min(limits.tail_bytes_max);
            prop_assert_eq!(&split.head, &body[..head]);
            prop_assert_eq!(&split.tail, &body[body.len() - tail..]);
        }
    }
}
