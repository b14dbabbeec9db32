//! A flow's exchange waits a moment for the calls that its answer was made of.
//!
//! A call is handed over when its own last byte has passed, which may be just after the flow has
//! answered, and its tokens may still have to be counted. So the record of a flow's request waits,
//! after the answer went out, on a list of its own that blocks nobody: for `join.wait`, longer only
//! for a call that is known to be on its way, and shorter where memory is short. Where spans are
//! received, which come seconds later, it waits for `join.spans_wait`, or until all are told. With one
//! tap and no spans there is nothing to join, and nothing waits.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::Method;
use jiff::{SignedDuration, Timestamp};

use super::steps::span_of_call;
use super::{Pipeline, Understood};
use crate::config::Config;
use crate::domain::{Call, CallStep, Exchange, ExchangeId, Operation, Reading, Summary};
use crate::join::{self, Claim, Join, Key, Ticket};
use crate::metrics::Metrics;

/// How much longer than `join.wait` a flow waits for a call whose tokens are being counted.
const COUNTING_WITHIN: Duration = Duration::from_secs(5);
/// How often those are looked at.
const COUNTED_EVERY: Duration = Duration::from_millis(20);
/// How often flows that wait for spans are looked at.
const TOLD_EVERY: Duration = Duration::from_millis(200);

/// What joins calls to flows.
pub(super) struct Joining {
    join: Mutex<Join>,
    /// For calls; none with one tap.
    wait: Duration,
    /// For spans; as long as for calls where none are received.
    spans_wait: Duration,
    /// At the end of the process, for spans.
    last_wait: Duration,
    requests_max: usize,
    memory_bytes_max: u64,
}

impl Joining {
    /// `None` where there is one tap only, and no spans are received.
    pub(super) fn new(config: &Config, metrics: &Metrics) -> Option<Self> {
        let (has_calls, has_spans) = (config.taps.len() > 1, config.collector.is_some());
        let wait = if has_calls { config.join.wait } else { Duration::ZERO };
        let spans_wait = if has_spans { config.join.spans_wait.max(wait) } else { wait };
        (has_calls || has_spans).then(|| Self {
            join: Mutex::new(Join::new(&config.join, metrics.clone())),
            wait,
            spans_wait,
            last_wait: spans_wait.min(config.drain_timeout / 2),
            requests_max: config.join.requests_max,
            memory_bytes_max: config.capture.memory_bytes_max,
        })
    }

    pub(super) fn join(&self) -> MutexGuard<'_, Join> {
        self.join.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Flows that wait for calls and spans; the pipeline thread's own.
#[derive(Default)]
pub(super) struct Parking {
    /// By when they are due.
    flows: BTreeMap<(Instant, ExchangeId), Parked>,
    due: HashMap<ExchangeId, Instant>,
    /// Due, but for a call that is being counted.
    lingering: Vec<Parked>,
}

struct Parked {
    understood: Box<Understood>,
    claim: Claim,
    /// When it was parked.
    since: Instant,
    due: Instant,
}

impl Parking {
    /// How long nothing will be due.
    pub(super) fn patience(&self, now: Instant) -> Duration {
        let lingering = (!self.lingering.is_empty()).then_some(COUNTED_EVERY);
        let due = self.flows.keys().next().map(|(due, _)| due.saturating_duration_since(now));
        let due = due.map(|wait| wait.min(TOLD_EVERY));
        lingering.into_iter().chain(due).min().unwrap_or(Duration::MAX)
    }

    fn park(&mut self, parked: Parked) {
        let (id, due) = (parked.claim.id, parked.due);
        self.due.insert(id, due);
        self.flows.insert((due, id), parked);
    }

    /// It waits no longer than until `due`.
    fn hurry(&mut self, id: ExchangeId, due: impl FnOnce(&Parked) -> Instant) {
        let parked = self.due.get(&id).and_then(|due| self.flows.remove(&(*due, id)));
        if let Some(mut parked) = parked {
            parked.due = parked.due.min(due(&parked));
            self.park(parked);
        }
    }

    /// The one that is due first.
    fn first(&mut self) -> Option<Parked> {
        let ((_, id), parked) = self.flows.pop_first()?;
        self.due.remove(&id);
        Some(parked)
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
        let told = |claim: &Claim| self.telling.as_ref().is_some_and(|spans| spans.holds(claim));
        match claim.filter(|claim| makes_calls || joining.join().holds(claim) || told(claim)) {
            None => self.finish(understood, to_count),
            Some(claim) => self.park(joining, understood, claim, parking, to_count),
        }
    }

    fn park(
        &self,
        joining: &Joining,
        mut understood: Box<Understood>,
        claim: Claim,
        parking: &mut Parking,
        to_count: &SyncSender<Box<Understood>>,
    ) {
        let now = Instant::now();
        joining.join().announce(&claim, now);
        if let Some(telling) = &self.telling {
            let exchange = &understood.exchange;
            let content = self.may_keep_text(&exchange.tap) && self.may_keep(exchange);
            telling.announce(&claim, content, now);
            understood.announced = true;
        }
        let own = &understood.reading.usage;
        let is_reported = own.input.is_some() && own.output.is_some();
        let wait = if is_reported { joining.wait } else { joining.spans_wait };
        let fits = understood.hold();
        let parked = Parked { understood, claim, since: now, due: now + wait };
        if fits {
            parking.park(parked);
        } else {
            self.take_calls(joining, parked, to_count);
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
        let told = self.telling.as_ref().map(|telling| telling.take_ready());
        for id in told.into_iter().flatten() {
            parking.hurry(id, |parked| parked.since + joining.wait);
        }
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
        while let Some(parked) = parking.first() {
            let is_full = is_full(parking.flows.len() + 1 + parking.lingering.len());
            if !is_full && now < parked.due {
                parking.park(parked);
                break;
            }
            if !is_full && joining.join().awaits(&parked.claim) {
                parking.lingering.push(parked);
            } else {
                self.take_calls(joining, parked, to_count);
            }
        }
    }

    /// No exchange comes any more: flows wait only for calls that are being counted, and a while for
    /// spans.
    pub(super) fn release_all(&self, mut parking: Parking, to_count: &SyncSender<Box<Understood>>) {
        let Some(joining) = &self.joining else { return };
        let now = Instant::now();
        let last = match &self.telling {
            Some(_) => now + joining.last_wait,
            None => now,
        };
        for id in parking.due.keys().copied().collect::<Vec<_>>() {
            parking.hurry(id, |_| last);
        }
        let deadline = last + COUNTING_WITHIN;
        while !(parking.flows.is_empty() && parking.lingering.is_empty())
            && Instant::now() < deadline
        {
            self.release(&mut parking, Instant::now(), to_count);
            if !(parking.flows.is_empty() && parking.lingering.is_empty()) {
                std::thread::sleep(COUNTED_EVERY);
            }
        }
        for parked in parking.flows.into_values().chain(parking.lingering) {
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
    pub(super) fn hand_to_flow(
        &self,
        ticket: &Ticket,
        exchange: &Exchange,
        summary: &Summary,
        reading: &Reading,
    ) {
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
            step: Some(CallStep {
                began: exchange.time,
                span_id: exchange.trace.span_id,
                parent_span_id: exchange.trace.parent_span_id,
            }),
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

    /// An announced exchange will not be settled in order: its spans go.
    pub(super) fn let_go_of_spans(&self, announced: Option<ExchangeId>) {
        if let (Some(telling), Some(id)) = (&self.telling, announced) {
            drop(telling.settle(id, None));
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
        let told = self
            .telling
            .as_ref()
            .map(|telling| telling.take(claim.id, Instant::now()))
            .unwrap_or_default();
        let flow = &understood.exchange.trace;
        let steps = taken.calls.iter().filter_map(|call| Some((call, call.step?)));
        understood.steps = steps.map(|(call, step)| span_of_call(call, step, flow)).collect();
        let account = join::account(taken, told);
        let own = understood.reading.usage;
        let unreported = own.input.is_none() || own.output.is_none();
        if unreported && !account.usage.is_unknown() {
            understood.reading.usage = account.usage;
            understood.usage_of_calls = true;
        }
        // Names that spans tell are redacted before any figure bears them; a tap's are already.
        understood.calls = account.calls.into_iter().map(|call| self.redactor.call(call)).collect();
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
            outside: [exchange.trace.parent_span_id, Some(exchange.trace.span_id)]
                .into_iter()
                .flatten()
                .collect(),
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
