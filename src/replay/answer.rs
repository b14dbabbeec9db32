//! The new answer: read as a tap's pipeline reads it, and redacted before anybody sees it.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::recorded::{Recorded, Told};
use crate::config::{CaptureMode, Config, DialectChoice, Tap};
use crate::dialect;
use crate::domain::{Exchange, Json, Outcome, Reading, Summary, UsageSource};
use crate::redact::Redactor;
use crate::tokens;

/// Reads answers.
pub(super) struct Reader {
    /// The taps of the settings: their columns say what is the answer.
    taps: HashMap<Arc<str>, Tap>,
    /// For taps that no setting knows.
    plain: Tap,
    redactor: Redactor,
    instance: Arc<str>,
}

/// A new answer, redacted.
pub(super) struct Answer {
    pub(super) told: Told,
    pub(super) request_id: Option<String>,
    pub(super) answer: Option<Value>,
    pub(super) context: Option<Value>,
}

impl Reader {
    /// A reader by the settings; `plain` is a tap with all defaults before the new deployment.
    pub(super) fn new(config: &Config, plain: Tap) -> Self {
        let taps = config.taps.iter().map(|tap| (Arc::clone(&tap.name), tap.clone())).collect();
        let redactor = Redactor::new(&config.redact, &[]);
        Self { taps, plain, redactor, instance: Arc::clone(&config.instance) }
    }

    /// Understands the exchange that came of `recorded`. Blocks for as long as counting its tokens
    /// takes, where the deployment reports none.
    pub(super) fn read(&self, recorded: &Recorded, exchange: &Exchange) -> Answer {
        let mut reading = dialect::read(exchange, &self.tap(recorded));
        if let Some(texts) = reading.countable.as_ref().filter(|_| reading.usage.is_unknown()) {
            reading.usage = tokens::Counting::Vocabularies.count(
                reading.model.best(),
                reading.operation,
                texts,
            );
        }
        let summary = self.summary(recorded, exchange, &reading);
        let record = self.redactor.record(
            exchange,
            self.redactor.texts(reading),
            self.redactor.summary(summary),
            CaptureMode::Full,
            vec![],
        );
        let told = Told {
            status: exchange.status,
            outcome: record.summary.outcome,
            stream: record.summary.stream,
            latency_ms: record.summary.latency_ms,
            first_token_ms: record.summary.first_token_ms,
            usage: record.summary.usage,
        };
        let judged = told.is_answer();
        Answer {
            told,
            request_id: record.request_id,
            answer: record.answer.filter(|_| judged).and_then(Json::into_value),
            context: record.context.filter(|_| judged).and_then(Json::into_value),
        }
    }

    /// The tap that the request was recorded by, before the new deployment.
    fn tap(&self, recorded: &Recorded) -> Tap {
        let known = self.taps.get(&recorded.tap).unwrap_or(&self.plain);
        Tap {
            columns: known.columns.clone(),
            dialect: DialectChoice::Fixed(recorded.dialect),
            ..self.plain.clone()
        }
    }

    fn summary(&self, recorded: &Recorded, exchange: &Exchange, reading: &Reading) -> Summary {
        let ms = |us: u64| us as f64 / 1000.0;
        let first_token_us =
            reading.first_content_offset.and_then(|at| exchange.response.arrival_us(at));
        Summary {
            id: exchange.id,
            time: exchange.time,
            tap: Arc::clone(&exchange.tap),
            deployment: Arc::from("replay"),
            instance: Arc::clone(&self.instance),
            dialect: recorded.dialect,
            operation: reading.operation,
            method: exchange.method.to_string(),
            path: exchange.path.clone(),
            status: exchange.status,
            outcome: outcome(exchange, reading),
            fault: exchange.fault,
            model: reading.model.clone(),
            stream: reading.stream,
            latency_ms: ms(exchange.timing.total_us),
            first_byte_ms: exchange.timing.first_byte_us.map(ms),
            first_token_ms: first_token_us.map(ms),
            overhead_us: 0,
            usage: reading.usage,
            provider: None,
            finish_reason: None,
            response_id: None,
        }
    }
}

/// What the bytes say of an answer that came whole: an error told in mid-stream, after the 200 was sent,
/// is the deployment's all the same, and so is a stream that ends before its end.
fn outcome(exchange: &Exchange, reading: &Reading) -> Outcome {
    match exchange.outcome {
        Outcome::Ok if reading.finish_reason.as_deref() == Some("error") => Outcome::UpstreamError,
        Outcome::Ok if reading.empty => Outcome::Empty,
        other => other,
    }
}

/// True where two figures were come by in the same way, so that they can be compared.
pub(super) fn comparable(one: Option<UsageSource>, other: Option<UsageSource>) -> bool {
    one.is_some() && one == other
}
