//! What is noted of one exchange while it passes, on the traffic's own thread.
//!
//! Every hook is contained: a panic in one is counted and ends the observation, never the exchange.
//! The exchange is handed over when this is dropped, so that it is complete in every case: answered,
//! refused, timed out, cut by the upstream, or left by the client in mid-stream.
//! Cost a request: two small header maps, one copy of what is recorded, one push into a queue.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use http::{Method, StatusCode};
use jiff::Timestamp;

use super::io::{ConnectionState, Phase};
use super::tap::TapShared;
use crate::capture::{HeaderSelection, Recorder};
use crate::domain::{
    CaptureLevel, Exchange, ExchangeId, Fields, Outcome, Shed, Timing, TraceContext,
};
use crate::join::PROMPTFLOW_HEADER;
use crate::metrics::Gauge;
use crate::pipeline::Ending;

/// Of a path, so much is noted.
const PATH_BYTES_MAX: usize = 2048;

/// Why the client's body ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestFault {
    /// It did not.
    None,
    /// Its framing was broken.
    Broken,
    /// The client went away before its end.
    Left,
    /// Nothing came for too long.
    Idle,
}

/// The request's half, shared with the body that the upstream's connection reads.
#[derive(Debug)]
pub struct RequestSide {
    recorder: Mutex<Recorder>,
    started: Instant,
    activity_us: AtomicU64,
    fault: AtomicU8,
}

impl RequestSide {
    /// Microseconds since the exchange began.
    pub fn elapsed_us(&self) -> u64 {
        micros(self.started, Instant::now())
    }

    /// When the last piece of the body was sent on.
    pub fn activity_us(&self) -> u64 {
        self.activity_us.load(Ordering::Relaxed)
    }

    /// A piece of the body passes `now`.
    pub fn chunk(&self, tap: &TapShared, chunk: &[u8], now: Instant) {
        let at_us = micros(self.started, now);
        self.activity_us.store(at_us, Ordering::Relaxed);
        let recorded = contained(tap, "request_body", || self.lock().record(chunk, at_us));
        if recorded.is_none() {
            self.lock().stop();
        }
    }

    /// The body's proper end passed.
    pub fn complete(&self) {
        self.lock().complete();
    }

    /// True once the proper end passed.
    pub fn is_complete(&self) -> bool {
        self.lock().is_complete()
    }

    /// The body ended early.
    pub fn fail(&self, fault: RequestFault) {
        self.fault.store(fault as u8, Ordering::Relaxed);
    }

    /// Why the body ended early.
    pub fn fault(&self) -> RequestFault {
        match self.fault.load(Ordering::Relaxed) {
            0 => RequestFault::None,
            1 => RequestFault::Broken,
            2 => RequestFault::Left,
            _ => RequestFault::Idle,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is noted of one exchange; handed over on drop.
pub struct Observation {
    tap: Arc<TapShared>,
    connection: Arc<ConnectionState>,
    id: ExchangeId,
    time: Timestamp,
    started: Instant,
    method: Method,
    path: String,
    request_headers: Fields,
    request: Arc<RequestSide>,
    status: Option<u16>,
    response_headers: Fields,
    response: Recorder,
    outcome: Option<Outcome>,
    fault: Option<&'static str>,
    head_us: Option<u64>,
    overhead_us: u64,
    request_id: Option<String>,
    trace: TraceContext,
    alone: bool,
    /// What was not looked at when it began, and why.
    shed: Option<Shed>,
    /// A hook panicked: nothing more is noted.
    broken: bool,
}

/// Where an exchange begins: its names and its clocks.
pub struct Beginning {
    /// Its own id.
    pub id: ExchangeId,
    /// When its head had been read.
    pub time: Timestamp,
    /// The same moment, for durations.
    pub started: Instant,
    /// The name it goes by.
    pub request_id: Option<String>,
    /// Its trace.
    pub trace: TraceContext,
}

impl Observation {
    /// The exchange begins: its head has been read. `path` is without the query; `headers` picks those
    /// that are looked at.
    pub fn begin(
        tap: &Arc<TapShared>,
        connection: &Arc<ConnectionState>,
        method: &Method,
        path: &str,
        headers: impl FnOnce(&HeaderSelection) -> Fields,
        beginning: Beginning,
    ) -> Self {
        let Beginning { id, time, started, request_id, trace } = beginning;
        tap.in_flight.inc();
        connection.set_phase(Phase::Serving);
        let request = RequestSide {
            recorder: Mutex::new(tap.recorder()),
            started,
            activity_us: AtomicU64::new(0),
            fault: AtomicU8::new(RequestFault::None as u8),
        };
        let mut observation = Self {
            tap: Arc::clone(tap),
            connection: Arc::clone(connection),
            id,
            time,
            started,
            method: method.clone(),
            path: String::new(),
            request_headers: Fields::default(),
            request: Arc::new(request),
            status: None,
            response_headers: Fields::default(),
            response: tap.recorder(),
            outcome: None,
            fault: None,
            head_us: None,
            overhead_us: 0,
            request_id,
            trace,
            alone: false,
            shed: tap.budget.shedding().now(),
            broken: false,
        };
        observation.hook("request_head", |this| {
            this.path = path[..path.floor_char_boundary(PATH_BYTES_MAX)].to_owned();
            this.request_headers = headers(&this.tap.selection);
            this.alone = this.request_headers.contains(PROMPTFLOW_HEADER)
                && this.tap.others_in_flight.iter().map(Gauge::get).sum::<i64>() == 1;
        });
        observation
    }

    /// The request's half.
    pub fn request(&self) -> &Arc<RequestSide> {
        &self.request
    }

    /// The client's connection.
    pub fn connection(&self) -> &Arc<ConnectionState> {
        &self.connection
    }

    /// The tap that it passes.
    pub fn tap(&self) -> &Arc<TapShared> {
        &self.tap
    }

    /// The upstream's head has come `now`.
    pub fn response_head(
        &mut self,
        status: u16,
        now: Instant,
        headers: impl FnOnce(&HeaderSelection) -> Fields,
    ) {
        self.status = Some(status);
        self.head_us = Some(micros(self.started, now));
        self.hook("response_head", |this| {
            this.response_headers = headers(&this.tap.selection);
        });
    }

    /// The answer's head says that so many bytes follow. What a request's head says is not believed: many
    /// that announce much and send little would take the memory of all others.
    pub fn response_expected(&mut self, bytes: u64) {
        if !self.is_unrecorded() {
            self.response.expect(bytes);
        }
    }

    /// The memory for the answer's first bytes, to be read into, where it has room for more than `bytes`;
    /// [`Self::response_lent`] takes it back.
    pub fn lend_response(&mut self, bytes: usize) -> Option<Vec<u8>> {
        self.response.lend(bytes)
    }

    /// What was read into that memory.
    pub fn response_lent(&mut self, memory: Vec<u8>) {
        self.response.take_back(memory);
    }

    /// A piece of the answer passes `now`.
    pub fn response_chunk(&mut self, chunk: &[u8], now: Instant) {
        self.hook("response_body", |this| {
            let at_us = micros(this.started, now);
            this.response.record(chunk, at_us);
        });
    }

    /// The answer's proper end passed.
    pub fn response_complete(&mut self) {
        self.response.complete();
    }

    /// What the client is told is our own answer.
    pub fn answered_by_us(&mut self, status: StatusCode, outcome: Outcome, fault: &'static str) {
        self.status = Some(status.as_u16());
        (self.outcome, self.fault) = (Some(outcome), Some(fault));
    }

    /// How it ended, where that is not for the bytes to tell.
    pub fn ended(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
    }

    /// Bytes that passed through a tunnel; their content is not looked at.
    pub fn tunnelled(&mut self, bytes_up: u64, bytes_down: u64) {
        tracing::debug!(bytes_up, bytes_down, "tunnel closed");
        self.response.complete();
    }

    /// Adds the time since `since` to what is our own.
    pub fn own_time(&mut self, since: Instant) {
        self.overhead_us += micros(since, Instant::now());
    }

    fn hook(&mut self, name: &'static str, hook: impl FnOnce(&mut Self)) {
        if self.broken || self.is_unrecorded() {
            return;
        }
        let tap = Arc::clone(&self.tap);
        if contained(&tap, name, || hook(&mut *self)).is_none() {
            self.broken = true;
            self.response.stop();
        }
    }

    /// No record is made of it.
    fn is_unrecorded(&self) -> bool {
        self.shed.is_some_and(|shed| shed.level >= CaptureLevel::Metrics)
    }

    fn finish(&mut self, outcome: Outcome) -> Box<Exchange> {
        let timing = Timing {
            total_us: micros(self.started, Instant::now()),
            head_us: self.head_us,
            first_byte_us: self.response.first_byte_us(),
            overhead_us: self.overhead_us,
        };
        Box::new(Exchange {
            id: self.id,
            tap: Arc::clone(&self.tap.name),
            time: self.time,
            method: self.method.clone(),
            path: std::mem::take(&mut self.path),
            request_headers: std::mem::take(&mut self.request_headers),
            request: self.request.lock().finish(),
            status: self.status,
            response_headers: std::mem::take(&mut self.response_headers),
            response: self.response.finish(),
            outcome,
            fault: self.fault,
            timing,
            request_id: self.request_id.take(),
            trace: self.trace,
            alone: self.alone,
        })
    }

    /// The client did not read for too long, or the process ends.
    fn is_cut_by_us(&self) -> bool {
        self.connection.is_stalled() || self.tap.cut.load(Ordering::Relaxed)
    }

    fn outcome_from_bytes(&self, response: &Recorder) -> Outcome {
        match self.status {
            _ if !response.is_complete() && self.is_cut_by_us() => Outcome::Timeout,
            _ if !response.is_complete() => Outcome::ClientAbort,
            // Azure's front door turns any failure of the model's container into 424.
            Some(424) if self.response_headers.contains("ms-azureml-model-error-statuscode") => {
                Outcome::UpstreamError
            }
            Some(500..) => Outcome::UpstreamError,
            Some(400..) => Outcome::ClientError,
            _ => Outcome::Ok,
        }
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.tap.in_flight.dec();
        self.connection.set_phase(Phase::Idle);
        let tap = Arc::clone(&self.tap);
        let outcome = self.outcome.unwrap_or_else(|| self.outcome_from_bytes(&self.response));
        let ending = Ending { time: self.time, status: self.status, outcome };
        let total_us = micros(self.started, Instant::now());
        tap.governor.note(self.overhead_us);
        if let Some(shed) = self.shed {
            tap.metrics.shed(shed);
        }
        if let Some(shed) = self.shed.filter(|_| self.is_unrecorded()) {
            return tap.intake.shed(&tap.name, ending, total_us, shed);
        }
        match contained(&tap, "finish", || self.finish(outcome)) {
            Some(exchange) => tap.intake.offer(exchange),
            None => tap.intake.lost_to_panic(&tap.name, ending, total_us),
        }
    }
}

/// Runs a hook so that its panic is counted and goes no further.
fn contained<T>(tap: &TapShared, name: &'static str, hook: impl FnOnce() -> T) -> Option<T> {
    let contained = catch_unwind(AssertUnwindSafe(|| {
        #[cfg(feature = "failpoints")]
        crate::capture::failpoint::hit(name);
        hook()
    }));
    contained.inspect_err(|_| tap.metrics.panicked(name)).ok()
}

fn micros(since: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(since).as_micros()).unwrap_or(u64::MAX)
}
