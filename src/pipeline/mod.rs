//! From an exchange to a record: understood, counted, measured, sampled, redacted, handed on.
//!
//! Two threads, neither of which any request waits for. `pipeline` reads every exchange; those whose
//! upstream reported no tokens go through `tokens`, which counts. A third, `spans`, hears what was told
//! of the steps inside them, where spans are received. Unredacted text passes no further:
//! what leaves here are figures, and records made by the redactor. A panic costs one exchange, which
//! is counted; a full queue before `tokens` costs an exact count of its tokens, which are estimated then.
//! Where `pipeline` falls behind, samples are given up first, and figures last: a sample
//! costs many times what figures do.

mod feedback;
mod intake;
mod joining;
mod settle;
mod spans;
mod steps;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use foldhash::fast::RandomState;

use crate::config::{self, Config};
use crate::dialect;
use crate::domain::{
    Call, DropReason, DropStage, Exchange, MemoryBudget, Operation, Reading, Reservation, Row, Span,
};
use crate::drain::Drain;
use crate::join::Ticket;
use crate::ledger::{Hour, Ledger};
use crate::metrics::Metrics;
use crate::redact::Redactor;
use crate::rollup::Rollup;
use crate::sample::{Sampler, judge_marker};
use crate::spool::Writer;
use crate::tokens::Counting;
use crate::trace::Tracer;

use feedback::Feedbacks;
use joining::{Joining, Parking};
use spans::Telling;

pub use intake::{Ending, Intake, Outtake, intake};
pub use spans::{SpanIntake, SpanOuttake, span_intake};

/// Exchanges that may wait for their tokens to be counted.
const COUNTING_MAX: usize = 1024;
/// How often finished minutes of the rollup are handed on.
const ROLLUP_EVERY: Duration = Duration::from_secs(1);

/// What the pipeline hands on to.
pub struct Outlets {
    /// Counters.
    pub metrics: Metrics,
    /// The loss ledger.
    pub ledger: Ledger,
    /// The local disk queue.
    pub spool: Writer,
    /// Spans, if they are exported.
    pub tracer: Option<Tracer>,
    /// What captured bodies hold, and readings that wait for their tokens.
    pub budget: MemoryBudget,
    /// How tokens are counted.
    pub counting: Counting,
}

/// The pipeline's shared state; its threads each hold it.
pub struct Pipeline {
    taps: HashMap<Arc<str>, config::Tap, RandomState>,
    instance: Arc<str>,
    redactor: Redactor,
    sampler: Sampler,
    judge_marker: http::HeaderValue,
    rollup: Mutex<Rollup>,
    joining: Option<Joining>,
    feedback: config::Feedback,
    telling: Option<Telling>,
    outlets: Outlets,
}

/// An exchange that was understood.
struct Understood {
    exchange: Box<Exchange>,
    reading: Reading,
    /// Where it is a user's feedback: what it says.
    feedback: Option<dialect::Feedback>,
    /// What the reading takes of the memory budget while it waits.
    held: Reservation,
    /// Where it is a call that a flow waits for.
    ticket: Option<Ticket>,
    /// Where it is a flow: its calls.
    calls: Vec<Call>,
    /// The usage is the sum of `calls`.
    usage_of_calls: bool,
    /// Where it is a flow: the calls that taps saw, as steps of its trace.
    steps: Vec<Span>,
    /// It is known to those who hear spans, and will be settled there.
    announced: bool,
    /// No sample can be made of it, for lack of time or of room: the stage that lacks it.
    hurried: Option<DropStage>,
}

impl Pipeline {
    /// A pipeline for the taps of `config`.
    pub fn new(config: &Config, outlets: Outlets) -> Self {
        Self {
            taps: config.taps.iter().map(|tap| (Arc::clone(&tap.name), tap.clone())).collect(),
            instance: Arc::clone(&config.instance),
            redactor: Redactor::new(&config.redact, &config.capture.headers),
            sampler: Sampler::new(&config.sample),
            judge_marker: judge_marker(config.sample.key.as_ref()),
            rollup: Mutex::new(Rollup::new(Arc::clone(&config.instance))),
            joining: Joining::new(config, &outlets.metrics),
            feedback: config.feedback.clone(),
            telling: Telling::new(config, &outlets.metrics),
            outlets,
        }
    }

    /// Starts the threads; they end when every [`Intake`] is gone and all is handed on, `spans` when
    /// every [`SpanIntake`] is.
    pub fn start(
        self,
        outtake: Outtake,
        spans: Option<SpanOuttake>,
        drain: &Drain,
    ) -> std::io::Result<()> {
        let pipeline = Arc::new(self);
        if let Some(spans) = spans {
            let listener = Arc::clone(&pipeline);
            drain.thread("spans", move || listener.hear_all(&spans))?;
        }
        let (to_count, counting) = sync_channel(COUNTING_MAX);
        let counter = Arc::clone(&pipeline);
        drain.thread("tokens", move || counter.count_all(&counting))?;
        drain.thread("pipeline", move || pipeline.read_all(&outtake, &to_count))
    }

    fn read_all(&self, outtake: &Outtake, to_count: &SyncSender<Box<Understood>>) {
        let mut batch = Vec::new();
        let (mut parking, mut rolled_up) = (Parking::default(), Instant::now());
        let mut feedbacks = Feedbacks::new(&self.feedback);
        while outtake.next_batch(&mut batch, parking.patience(Instant::now())) {
            outtake.take_lost().into_iter().for_each(|began| self.lost_unseen(began));
            let mut taken = batch.len();
            for exchange in batch.drain(..) {
                taken -= 1;
                let hurried = self.hurried(outtake.is_crowded(taken));
                if let Some(understood) = self.read(exchange, hurried) {
                    self.note(&understood, &mut feedbacks);
                    self.route(understood, &mut parking, to_count);
                }
            }
            self.release(&mut parking, Instant::now(), to_count);
            if rolled_up.elapsed() >= ROLLUP_EVERY {
                rolled_up = Instant::now();
                self.expire_calls(rolled_up);
                self.score_due(&mut feedbacks, rolled_up);
                self.outlets.metrics.capture_bytes(self.outlets.budget.bytes_used());
                let rows = self.rollup().take_finished(Timestamp::now());
                self.append_rollup(rows);
            }
        }
        self.score_all(feedbacks);
        self.release_all(parking, to_count);
    }

    /// Which stage is so far behind that no sample is made, if any is.
    fn hurried(&self, is_crowded: bool) -> Option<DropStage> {
        let by_spool = || self.outlets.spool.is_crowded().then_some(DropStage::Spool);
        is_crowded.then_some(DropStage::Pipeline).or_else(by_spool)
    }

    /// Enters an exchange in the books and understands it, `hurried` only as far as its figures go; `None`
    /// where that panicked.
    fn read(&self, exchange: Box<Exchange>, hurried: Option<DropStage>) -> Option<Box<Understood>> {
        let hour = Hour::of(exchange.time);
        self.outlets.ledger.seen(hour, 1);
        let basics =
            (Arc::clone(&exchange.tap), exchange.status, exchange.outcome, exchange.timing);
        let began = exchange.time;
        let understood = catch_unwind(AssertUnwindSafe(|| self.understand(exchange, hurried)));
        let Ok(understood) = understood else {
            let (tap, status, outcome, timing) = basics;
            self.outlets.metrics.intake_only(&tap, status, outcome, timing.total_us as f64 / 1e6);
            self.lost_unseen(began);
            self.lose_to_panic(hour);
            return None;
        };
        Some(understood)
    }

    /// Settles an exchange of which all is known that will be, counting its tokens before if need be.
    fn finish(&self, mut understood: Box<Understood>, to_count: &SyncSender<Box<Understood>>) {
        let hour = Hour::of(understood.exchange.time);
        if !needs_counting(&understood) {
            return self.settle(understood);
        }
        let refused = match understood.hold() {
            false => Some(understood),
            true => match to_count.try_send(understood) {
                Ok(()) => None,
                Err(TrySendError::Full(back) | TrySendError::Disconnected(back)) => Some(back),
            },
        };
        if let Some(mut understood) = refused {
            self.outlets.ledger.dropped(hour, DropStage::Tokens, DropReason::Full, 1);
            self.count_into(Counting::Estimate, &mut understood);
            self.settle(understood);
        }
    }

    fn understand(&self, exchange: Box<Exchange>, hurried: Option<DropStage>) -> Box<Understood> {
        #[cfg(feature = "failpoints")]
        crate::capture::failpoint::hit("pipeline");
        let reading = match self.taps.get(&exchange.tap) {
            Some(tap) if hurried.is_none() && self.keeps_surely(&exchange) => {
                dialect::read_kept(&exchange, tap)
            }
            Some(tap) => dialect::read_figures(&exchange, tap),
            None => Reading::new(crate::domain::Dialect::Generic, crate::domain::Operation::Other),
        };
        let held = self.outlets.budget.reservation();
        let is_feedback = reading.operation == Operation::Feedback && is_accepted(&exchange);
        let said = is_feedback.then_some(reading.request_body.as_ref());
        let feedback = said.map(|body| dialect::read_feedback(body, &self.feedback));
        // In a box, for it is handed on several times and large.
        Box::new(Understood {
            exchange,
            reading,
            feedback,
            held,
            ticket: None,
            calls: Vec::new(),
            usage_of_calls: false,
            steps: Vec::new(),
            announced: false,
            hurried,
        })
    }

    fn count_all(&self, counting: &Receiver<Box<Understood>>) {
        while let Ok(mut understood) = counting.recv() {
            let hour = Hour::of(understood.exchange.time);
            let counting = self.outlets.counting;
            if counting == Counting::Estimate {
                self.outlets.ledger.dropped(hour, DropStage::Tokens, DropReason::Memory, 1);
            }
            self.count_into(counting, &mut understood);
            self.settle(understood);
        }
        // The last thread of the pipeline: calls that still wait have no flow, and what the rollup still holds goes with it.
        self.joining.iter().for_each(|joining| joining.join().close());
        let rows = self.rollup().take_all();
        self.append_rollup(rows);
    }

    fn count_into(&self, counting: Counting, understood: &mut Understood) {
        let reading = &mut understood.reading;
        match catch_unwind(AssertUnwindSafe(|| count(counting, reading))) {
            Ok(usage) => reading.usage = usage,
            Err(_) => {
                let hour = Hour::of(understood.exchange.time);
                self.outlets.metrics.panicked("tokens");
                self.outlets.ledger.dropped(hour, DropStage::Tokens, DropReason::Panic, 1);
            }
        }
    }

    /// The spool keeps the books of what it is given, refusals included.
    fn append_rollup(&self, rows: Vec<Row>) {
        for row in rows {
            let _booked = self.outlets.spool.try_append(row);
        }
    }

    fn lose_to_panic(&self, hour: Hour) {
        self.outlets.metrics.panicked("pipeline");
        self.outlets.ledger.dropped(hour, DropStage::Pipeline, DropReason::Panic, 1);
    }

    fn rollup(&self) -> std::sync::MutexGuard<'_, Rollup> {
        self.rollup.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Understood {
    /// Takes of the memory budget what the reading holds while it waits; false if that is too much.
    fn hold(&mut self) -> bool {
        self.held.bytes() > 0 || self.held.try_grow(self.reading.heap_bytes())
    }
}

/// The upstream said 2xx.
fn is_accepted(exchange: &Exchange) -> bool {
    exchange.status.is_some_and(|status| (200..300).contains(&status))
}

/// Tokens are counted where the upstream told nothing of them, or was cut before it told the output;
/// never of failures, of which nobody knows what was spent.
fn needs_counting(understood: &Understood) -> bool {
    let Understood { exchange, reading, .. } = understood;
    if understood.usage_of_calls {
        return false;
    }
    let Some(countable) = &reading.countable else { return false };
    if !is_accepted(exchange) {
        return false;
    }
    // Embeddings generate nothing: there is no output to know.
    let answers = reading.operation != Operation::Embeddings;
    let unknown = reading.usage.input.is_none() || (answers && reading.usage.output.is_none());
    unknown || (reading.stream && countable.output_truncated)
}

/// Counts, and merges with what was reported: a report of the input stands; of a cut stream's output
/// the larger figure does, because the report was made before the rest was generated.
fn count(counting: Counting, reading: &Reading) -> crate::domain::Usage {
    #[cfg(feature = "failpoints")]
    crate::capture::failpoint::hit("tokens");
    let Some(countable) = &reading.countable else { return reading.usage };
    let counted = counting.count(reading.model.best(), reading.operation, countable);
    if reading.usage.is_unknown() {
        return counted;
    }
    let reported = reading.usage;
    let input = reported.input.or(counted.input);
    let output = reported.output.max(counted.output);
    let total = input.zip(output).map(|(input, output)| input.saturating_add(output));
    crate::domain::Usage { input, output, total, source: counted.source, ..reported }
}
