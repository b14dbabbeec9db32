//! From the doors to which spans are sent to the exchanges that they belong to.
//!
//! A thread of its own hears them, so that a flood of spans costs no exchange. A span that comes in time
//! waits in the table, with its texts, until its exchange is settled: then it is stored with the sample,
//! or let go of. One that comes late is redacted and stored here.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Pipeline;
use crate::config::{CaptureMode, Config};
use crate::domain::{
    ExchangeId, MemoryBudget, Operation, Reservation, Shedding, SpanKind, Summary, ToldSpan,
};
use crate::join::{Claim, Heard, Home, Spans, Traced};
use crate::metrics::Metrics;

/// Posts that may wait to be heard.
const POSTS_MAX: usize = 1024;
/// Bytes of the spans in them.
const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// How often the table is looked through.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);

/// The doors' end. The thread ends when the last clone is dropped.
#[derive(Clone)]
pub struct SpanIntake {
    sender: SyncSender<Post>,
    budget: MemoryBudget,
}

/// The pipeline's end.
pub struct SpanOuttake(Receiver<Post>);

/// The spans of one post.
struct Post {
    spans: Vec<ToldSpan>,
    _held: Reservation,
}

/// Both ends of a bounded queue of spans, which takes none while `shedding` asks for less than all.
pub fn span_intake(shedding: &Shedding) -> (SpanIntake, SpanOuttake) {
    let (sender, receiver) = sync_channel(POSTS_MAX);
    let budget = MemoryBudget::shed_with(BYTES_MAX, shedding.clone());
    (SpanIntake { sender, budget }, SpanOuttake(receiver))
}

impl SpanIntake {
    /// Hands the spans of a post over; never waits. False, and nothing is taken, where there is no room.
    pub fn offer(&self, spans: Vec<ToldSpan>) -> bool {
        let bytes = spans.iter().map(ToldSpan::bytes).sum::<usize>();
        let mut held = self.budget.reservation();
        held.try_grow(bytes as u64) && self.sender.try_send(Post { spans, _held: held }).is_ok()
    }
}

/// The table of spans.
pub(super) struct Telling(Mutex<Spans>);

impl Telling {
    /// `None` where no spans are received.
    pub(super) fn new(config: &Config, metrics: &Metrics) -> Option<Self> {
        let table = || Mutex::new(Spans::new(&config.join, metrics.clone()));
        config.collector.as_ref().map(|_| Self(table()))
    }

    fn spans(&self) -> MutexGuard<'_, Spans> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn holds(&self, claim: &Claim) -> bool {
        self.spans().holds(claim)
    }

    pub(super) fn announce(&self, claim: &Claim, content: bool, now: Instant) {
        self.spans().announce(claim, content, now);
    }

    pub(super) fn take_ready(&self) -> Vec<ExchangeId> {
        self.spans().take_ready()
    }

    pub(super) fn take(&self, id: ExchangeId, now: Instant) -> Traced {
        self.spans().take(id, now)
    }

    pub(super) fn settle(&self, id: ExchangeId, home: Option<Home>) -> Vec<ToldSpan> {
        self.spans().settle(id, home)
    }
}

impl Pipeline {
    /// Hears spans until every [`SpanIntake`] is gone.
    pub(super) fn hear_all(&self, outtake: &SpanOuttake) {
        let Some(telling) = &self.telling else { return };
        let mut looked = Instant::now();
        loop {
            match outtake.0.recv_timeout(EXPIRE_EVERY) {
                Ok(post) => {
                    post.spans.into_iter().for_each(|span| self.hear_contained(telling, span));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if looked.elapsed() >= EXPIRE_EVERY {
                looked = Instant::now();
                let mut spans = telling.spans();
                spans.expire(looked);
                self.outlets.metrics.queue_depth("spans", spans.waiting() as u64);
            }
        }
        telling.spans().close();
    }

    fn hear_contained(&self, telling: &Telling, span: ToldSpan) {
        if catch_unwind(AssertUnwindSafe(|| self.hear_span(telling, span))).is_err() {
            self.outlets.metrics.panicked("spans");
        }
    }

    fn hear_span(&self, telling: &Telling, mut span: ToldSpan) {
        if let Some(countable) = span.countable.take() {
            let operation = match span.kind {
                SpanKind::Embedding => Operation::Embeddings,
                _ => Operation::Chat,
            };
            span.usage = self.outlets.counting.count(span.model.best(), operation, &countable);
        }
        // The table is not locked while a late span is redacted.
        let heard = telling.spans().hear(span, Instant::now());
        if let Heard::Late(home, span) = heard {
            self.store_trace(&home, None, Vec::new(), vec![*span]);
        }
    }

    /// Where the spans of a sample are stored.
    pub(super) fn home(&self, summary: &Summary) -> Home {
        Home {
            exchange: summary.id,
            time: summary.time,
            tap: summary.tap.clone(),
            deployment: summary.deployment.clone(),
            content: self.may_keep_text(&summary.tap),
        }
    }

    pub(super) fn may_keep_text(&self, tap: &str) -> bool {
        self.taps.get(tap).is_some_and(|tap| tap.capture == CaptureMode::Full)
    }
}
