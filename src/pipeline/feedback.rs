//! What users say of answers becomes scores of the exchanges that they speak of.
//!
//! The pipeline remembers recent flow exchanges by the names that feedback may call them. A feedback
//! waits for a moment before it is looked up, because the exchange that it is about may be handed over
//! after it. It is taken whether or not either of the two is sampled: all users are heard, so the
//! probability of each such score is 1.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{Pipeline, Understood};
use crate::config::{self, CaptureMode};
use crate::domain::{Criterion, Dataset, Exchange, ExchangeId, Operation, Row, Score, ScoreError};
use crate::join::{About, Key, Recent, Seen, header_names};

/// How long a feedback waits for its exchange to be handed over.
const SETTLED_WITHIN: Duration = Duration::from_secs(1);
/// Feedback that may wait; more is looked up at once.
const WAITING_MAX: usize = 1000;

/// Recent exchanges, and feedback that waits to be joined to one; the pipeline thread's own.
pub(super) struct Feedbacks {
    recent: Recent,
    /// In the order in which they are due.
    waiting: VecDeque<Waiting>,
}

/// A feedback with a valid rating; its comment is redacted.
struct Waiting {
    id: ExchangeId,
    time: Timestamp,
    about: About,
    rating: u8,
    comment: Option<String>,
    due: Instant,
}

impl Feedbacks {
    pub(super) fn new(settings: &config::Feedback) -> Self {
        Self { recent: Recent::new(settings), waiting: VecDeque::new() }
    }
}

impl Pipeline {
    /// Remembers a flow's exchange for its feedback; a feedback begins to wait for its exchange.
    pub(super) fn note(&self, understood: &Understood, feedbacks: &mut Feedbacks) {
        if self.feedback.requests_max == 0 {
            return;
        }
        let exchange = &*understood.exchange;
        match understood.reading.operation {
            Operation::Score | Operation::Call => self.remember(exchange, feedbacks),
            Operation::Feedback => self.hear(understood, feedbacks),
            _ => {}
        }
    }

    /// Scores the feedback that has waited long enough, and forgets exchanges that are too old for any.
    pub(super) fn score_due(&self, feedbacks: &mut Feedbacks, now: Instant) {
        feedbacks.recent.expire(now);
        while feedbacks.waiting.front().is_some_and(|waiting| waiting.due <= now) {
            self.score_next(feedbacks);
        }
    }

    /// No exchange comes any more: feedback need not wait.
    pub(super) fn score_all(&self, mut feedbacks: Feedbacks) {
        while !feedbacks.waiting.is_empty() {
            self.score_next(&mut feedbacks);
        }
    }

    fn remember(&self, exchange: &Exchange, feedbacks: &mut Feedbacks) {
        let mut keys = header_names(&exchange.request_headers);
        // One that we minted is known to the flow, which may hand it to its users.
        let own = exchange.request_id.as_deref().and_then(Key::request);
        keys.extend(own.filter(|own| !keys.contains(own)));
        keys.extend(self.is_trace_shared(exchange).then_some(Key::Trace(exchange.trace.trace_id)));
        let seen = Seen {
            id: exchange.id,
            time: exchange.time,
            tap: exchange.tap.clone(),
            deployment: self.redactor.deployment(&self.deployment(exchange)),
            parent_span_id: exchange.trace.parent_span_id,
        };
        feedbacks.recent.remember(&keys, &seen, Instant::now());
    }

    fn hear(&self, understood: &Understood, feedbacks: &mut Feedbacks) {
        // What the upstream refused was not given: the client may try again.
        let Some(feedback) = &understood.feedback else { return };
        let rating = match feedback.rating {
            Ok(rating) => rating,
            Err(error) => {
                return self.outlets.metrics.score_failed(Criterion::UserFeedback, error);
            }
        };
        let exchange = &*understood.exchange;
        let full = self.taps.get(&exchange.tap).is_some_and(|tap| tap.capture == CaptureMode::Full);
        let comment = feedback.comment.as_deref().filter(|_| full);
        feedbacks.waiting.push_back(Waiting {
            id: exchange.id,
            time: exchange.time,
            about: about(exchange, feedback),
            rating,
            comment: comment.map(|comment| self.redactor.reason(comment)),
            due: Instant::now() + SETTLED_WITHIN,
        });
        if feedbacks.waiting.len() > WAITING_MAX {
            self.score_next(feedbacks);
        }
    }

    fn score_next(&self, feedbacks: &mut Feedbacks) {
        let Some(waiting) = feedbacks.waiting.pop_front() else { return };
        let metrics = &self.outlets.metrics;
        let row = feedbacks.recent.find(&waiting.about).and_then(|seen| {
            metrics.scored(&seen.deployment, Criterion::UserFeedback, waiting.rating);
            self.score_row(waiting, seen)
        });
        match row {
            // The spool keeps the books of what it is given, refusals included.
            Ok(row) => drop(self.outlets.spool.try_append(row)),
            Err(error) => metrics.score_failed(Criterion::UserFeedback, error),
        }
    }

    fn score_row(&self, waiting: Waiting, seen: &Seen) -> Result<Row, ScoreError> {
        let score = Score {
            schema: Score::SCHEMA.to_owned(),
            id: waiting.id,
            time: waiting.time,
            exchange: seen.id,
            exchange_time: seen.time,
            tap: seen.tap.clone(),
            deployment: seen.deployment.clone(),
            instance: self.instance.clone(),
            criterion: Criterion::UserFeedback,
            name: None,
            scale: Criterion::UserFeedback.scale(),
            score: Some(waiting.rating),
            value: None,
            error: None,
            reason: waiting.comment,
            probability: 1.0,
            probability_least: Some(1.0),
            judge: None,
            injection_suspect: false,
            judge_drift: false,
        };
        // Every part of a score is a JSON type; a failure would be a bug.
        let json = serde_json::to_vec(&score).map_err(|_| ScoreError::Unparsable)?;
        let (deployment, time) = (score.deployment, score.exchange_time);
        Ok(Row { dataset: Dataset::Scores, deployment, time, json })
    }
}

/// What a feedback calls its exchange. A name in the body is meant for nothing else, and stands alone;
/// else a header that names the request, else the trace, which is how prompt flow does it.
fn about(exchange: &Exchange, feedback: &crate::dialect::Feedback) -> About {
    let named = feedback.request_id.as_deref().and_then(Key::request);
    let mut keys: Vec<Key> = named.into_iter().chain(feedback.trace_id.map(Key::Trace)).collect();
    if keys.is_empty() {
        keys = header_names(&exchange.request_headers);
        let traced = exchange.trace.parent_span_id.is_some();
        keys.extend(traced.then_some(Key::Trace(exchange.trace.trace_id)));
    }
    About {
        keys,
        tap: exchange.tap.clone(),
        time: exchange.time,
        parent_span_id: exchange.trace.parent_span_id,
    }
}
