//! A flow's exchange waits a moment for the calls that its answer was made of.
//!
//! A call is handed over when its own last byte has passed, which may be just after the flow has
//! answered, and its tokens may still have to be counted. So the record of a flow's request waits,
//! after the answer went out, on a list of its own that blocks nobody: for `join.wait`, longer only
//! for a call that is known to be on its way, and shorter where memory is short. With one tap there
//! is nothing to join, and nothing waits.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::Method;
use jiff::{SignedDuration, Timestamp};

use super::{Pipeline, Understood};
use crate::config::Config;
use crate::domain::{Call, Exchange, Operation, Reading, Summary};
use crate::join::{self, Claim, Join, Key, Ticket};
use crate::metrics::Metrics;

/// How much longer than `join.wait` a flow waits for a call whose tokens are being counted.
const COUNTING_WITHIN: Duration = Duration::from_secs(5);
/// How often those are looked at.
const COUNTED_EVERY: Duration = Duration::from_millis(20);

/// What joins calls to flows.
pub(super) struct Joining {
    join: Mutex<Join>,
    wait: Duration,
    requests_max: usize,
    memory_bytes_max: u64,
}

impl Joining {
    /// `None` where there is one tap only.
    pub(super) fn new(config: &Config, metrics: &Metrics) -> Option<Self> {
        (config.taps.len() > 1).then(|| Self {
            join: Mutex::new(Join::new(&config.join, metrics.clone())),
            wait: config.join.wait,
            requests_max: config.join.requests_max,
            memory_bytes_max: config.capture.memory_bytes_max,
        })
    }

    pub(super) fn join(&self) -> MutexGuard<'_, Join> {
        self.join.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Flows that wait for calls; the pipeline thread's own.
#[derive(Default)]
pub(super) struct Parking {
    /// In the order in which they are due.
    flows: VecDeque<Parked>,
    /// Due, but for a call that is being counted.
    lingering: Vec<Parked>,
}

struct Parked {
    understood: Box<Understood>,
    claim: Claim,
    due: Instant,
}

impl Parking {
    /// How long nothing will be due.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        let lingering = (!self.lingering.is_empty()).then_some(COUNTED_EVERY);
        let due = self.flows.front().map(|parked| parked.due.saturating_duration_since(now));
        lingering.into_iter().chain(due).min().unwrap_or(Duration::MAX)
    }
}

impl Pipeline {
    /// An understood exchange goes where it belongs: as a call it is announced to its flow, as a
    /// flow it waits for its calls, and it is counted or settled.
    pub(super) fn route(
        &self,
        mut understood: Box<Understood>,
        parking: &mut Parking,
        to_count: &SyncSender<Box<Understood>>,
    ) {
        let Some(joining) = &self.joining else { return self.finish(understood, to_count) };
        let now = Instant::now();
        let ticket = ticket(&understood.exchange, &understood.reading);
        let is_unclear = |ticket: &Ticket| ticket.key == Key::Unnamed && !understood.exchange.alone;
        if ticket.as_ref().is_some_and(is_unclear) {
            joining.join().unclear(understood.exchange.time);
            return self.finish(understood, to_count);
        }
        understood.ticket = ticket.filter(|ticket| joining.join().expect(ticket, now));
        let claim = self.claim(&understood.exchange, &understood.reading);
        let makes_calls =
            matches!(understood.reading.operation, Operation::Score | Operation::Call);
        match claim.filter(|claim| makes_calls || joining.join().holds(claim)) {
            None => self.finish(understood, to_count),
            Some(claim) => {
                joining.join().announce(&claim, now);
                let fits = understood.hold();
                let parked = Parked { understood, claim, due: now + joining.wait };
                if fits {
                    parking.flows.push_back(parked);
                } else {
                    self.take_calls(joining, parked, to_count);
                }
            }
        }
    }

    /// Settles the flows that have waited long enough.
    pub(super) fn release(
        &self,
        parking: &mut Parking,
        now: Instant,
        to_count: &SyncSender<Box<Understood>>,
    ) {
        let Some(joining) = &self.joining else { return };
        let counted = |parked: &mut Parked| {
            now >= parked.due + COUNTING_WITHIN || !joining.join().awaits(&parked.claim)
        };
        for parked in parking.lingering.extract_if(.., counted) {
            self.take_calls(joining, parked, to_count);
        }
        let is_full = |waiting: usize| {
            waiting > joining.requests_max
                || self.outlets.budget.bytes_used() > joining.memory_bytes_max / 2
        };
        while let Some(parked) = parking.flows.pop_front() {
            let is_full = is_full(parking.flows.len() + 1 + parking.lingering.len());
            if !is_full && now < parked.due {
                parking.flows.push_front(parked);
                break;
            }
            if !is_full && joining.join().awaits(&parked.claim) {
                parking.lingering.push(parked);
            } else {
                self.take_calls(joining, parked, to_count);
            }
        }
    }

    /// No exchange comes any more: flows wait only for calls that are being counted.
    pub(super) fn release_all(&self, mut parking: Parking, to_count: &SyncSender<Box<Understood>>) {
        let Some(joining) = &self.joining else { return };
        parking.lingering.extend(std::mem::take(&mut parking.flows));
        let deadline = Instant::now() + COUNTING_WITHIN;
        parking.lingering.iter_mut().for_each(|parked| parked.due = Instant::now());
        while !parking.lingering.is_empty() && Instant::now() < deadline {
            self.release(&mut parking, Instant::now(), to_count);
            if !parking.lingering.is_empty() {
                std::thread::sleep(COUNTED_EVERY);
            }
        }
        for parked in parking.lingering {
            self.take_calls(joining, parked, to_count);
        }
    }

    /// Once in a while: lets go of calls that have waited too long.
    pub(super) fn expire_calls(&self, now: Instant) {
        if let Some(joining) = &self.joining {
            let mut join = joining.join();
            join.expire(now);
            self.outlets.metrics.queue_depth("join", join.requests() as u64);
        }
    }

    /// An exchange that began at `began` was lost before it was understood.
    pub(super) fn lost_unseen(&self, began: Timestamp) {
        if let Some(joining) = &self.joining {
            joining.join().lost(began);
        }
    }

    /// A call's figures, for its flow. The names in `summary` are redacted already.
    pub(super) fn hand_to_flow(&self, ticket: &Ticket, summary: &Summary, reading: &Reading) {
        let Some(joining) = &self.joining else { return };
        let of_tap = || self.taps.get(&summary.tap)?.deployment.as_deref().map(str::to_owned);
        let usage = summary.usage;
        let call = Call {
            model: summary.model.best().map(str::to_owned),
            deployment: reading.model_deployment.clone().or_else(of_tap),
            input: usage.input,
            output: usage.output,
            source: usage.source,
            latency_ms: summary.latency_ms,
            status: summary.status,
            cached_input: usage.cached_input,
            reasoning_output: usage.reasoning_output,
            operation: summary.operation,
            outcome: summary.outcome,
        };
        let call = self.redactor.call(call);
        joining.join().arrive(ticket, call);
    }

    /// A call that was lost on its way through the pipeline.
    pub(super) fn abandon_call(&self, ticket: Option<&Ticket>) {
        if let (Some(joining), Some(ticket)) = (&self.joining, ticket) {
            joining.join().abandon(ticket);
        }
    }

    fn take_calls(
        &self,
        joining: &Joining,
        parked: Parked,
        to_count: &SyncSender<Box<Understood>>,
    ) {
        let Parked { mut understood, claim, .. } = parked;
        let taken = joining.join().take(&claim);
        let own = understood.reading.usage;
        if own.input.is_none() || own.output.is_none() {
            let usage = join::usage(&taken.calls, taken.complete);
            if !usage.is_unknown() {
                understood.reading.usage = usage;
                understood.usage_of_calls = true;
            }
        }
        understood.calls = taken.calls;
        self.finish(understood, to_count);
    }

    /// What an exchange may claim as its own. Calls to models claim by name only: two calls of one
    /// trace that overlap are no flow and its call.
    fn claim(&self, exchange: &Exchange, reading: &Reading) -> Option<Claim> {
        let may_have_calls = reading.operation != Operation::Feedback
            && exchange.method == Method::POST
            && join::run_id(&exchange.request_headers).is_none();
        if !may_have_calls {
            return None;
        }
        let streams = reading.operation == Operation::Score && reading.stream;
        let unnamed = streams.then_some(Key::Unnamed);
        let name = exchange.request_id.as_deref().and_then(Key::request);
        let by_trace = !is_model_call(reading.operation) && self.is_trace_shared(exchange);
        let trace = by_trace.then_some(Key::Trace(exchange.trace.trace_id));
        let total = SignedDuration::from_micros(exchange.timing.total_us.min(u64::MAX >> 2) as i64);
        Some(Claim {
            keys: name.into_iter().chain(trace).chain(unnamed).collect(),
            id: exchange.id,
            tap: exchange.tap.clone(),
            began: exchange.time,
            ended: exchange.time.checked_add(total).unwrap_or(Timestamp::MAX),
        })
    }
}

/// The request that a call to a model is made for: by prompt flow's header, else by the trace.
fn ticket(exchange: &Exchange, reading: &Reading) -> Option<Ticket> {
    if !is_model_call(reading.operation) {
        return None;
    }
    let trace = &exchange.trace;
    let told = join::run_id(&exchange.request_headers);
    let traced = || trace.parent_span_id.map(|_| Key::Trace(trace.trace_id));
    let named = told.clone().filter(|key| *key != Key::Unnamed);
    Some(Ticket {
        key: named.or_else(traced).or(told)?,
        id: exchange.id,
        tap: exchange.tap.clone(),
        began: exchange.time,
    })
}

fn is_model_call(operation: Operation) -> bool {
    use Operation::{Chat, Embeddings, Messages, Responses, TextCompletion};
    matches!(operation, Chat | TextCompletion | Responses | Embeddings | Messages)
}
