//! What is kept: the summary of every exchange, and the record of a sampled one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::Offset;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Serialize, Serializer};

use super::outcome::labelled;
use super::{
    Dialect, ExchangeId, Json, ModelNames, Operation, Outcome, SpanId, TraceId, Usage, UsageSource,
};

/// What is known of every exchange, sampled or not: no text of it.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Our own id.
    pub id: ExchangeId,
    /// When the request's head had been read; written with microseconds.
    pub time: Timestamp,
    /// The tap's name.
    pub tap: Arc<str>,
    /// The endpoint's deployment; safe as a label and as a folder's name.
    pub deployment: Arc<str>,
    /// The flowtap process that saw it.
    pub instance: Arc<str>,
    /// The wire format.
    pub dialect: Dialect,
    /// What was asked.
    pub operation: Operation,
    /// The request's method.
    pub method: String,
    /// The request's path, without the query.
    pub path: String,
    /// The status sent to the client.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// The name of the fault where the answer was our own and not the upstream's.
    pub fault: Option<&'static str>,
    /// The model's names.
    pub model: ModelNames,
    /// The answer came as a stream.
    pub stream: bool,
    /// Milliseconds to the last byte.
    pub latency_ms: f64,
    /// Milliseconds to the first byte of the body.
    pub first_byte_ms: Option<f64>,
    /// Milliseconds to the first content of a stream.
    pub first_token_ms: Option<f64>,
    /// Microseconds of our own.
    pub overhead_us: u64,
    /// Tokens.
    pub usage: Usage,
    /// The provider, for metrics and spans.
    pub provider: Option<&'static str>,
    /// Why generation ended, for spans.
    pub finish_reason: Option<String>,
    /// The upstream's id of the response, for spans.
    pub response_id: Option<String>,
}

/// Always six digits, so that the texts sort as the times do.
pub(super) fn with_microseconds<S: Serializer>(
    time: &Timestamp,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let written = written(*time);
    match written.as_ref().and_then(|text| std::str::from_utf8(text).ok()) {
        Some(text) => serializer.serialize_str(text),
        None => serializer.collect_str(&time.strftime(MICROSECONDS)),
    }
}

const MICROSECONDS: &str = "%Y-%m-%dT%H:%M:%S%.6fZ";

/// The same without a format that has to be read each time; `None` for years without four digits.
fn written(time: Timestamp) -> Option<[u8; 27]> {
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let at = Offset::UTC.to_datetime(time);
    let mut number = |mut number: u32, places: Range<usize>| {
        for digit in text[places].iter_mut().rev() {
            *digit += (number % 10) as u8;
            number /= 10;
        }
    };
    number(u32::try_from(at.year()).ok()?, 0..4);
    let parts = [at.month(), at.day(), at.hour(), at.minute(), at.second()];
    for (nth, part) in parts.into_iter().enumerate() {
        number(u32::from(part.unsigned_abs()), 5 + 3 * nth..7 + 3 * nth);
    }
    number(u32::try_from(at.subsec_nanosecond()).ok()? / 1000, 20..26);
    Some(text)
}

/// One call that the flow made to a model.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    /// The model's name.
    pub model: Option<String>,
    /// The model's deployment.
    pub deployment: Option<String>,
    /// Prompt tokens.
    pub input: Option<u64>,
    /// Completion tokens.
    pub output: Option<u64>,
    /// Who says so.
    pub source: Option<UsageSource>,
    /// Milliseconds to the last byte.
    pub latency_ms: f64,
    /// The status of the call.
    pub status: Option<u16>,
    /// The part of `input` that came from the provider's cache, for the flow's sum.
    #[serde(skip)]
    pub cached_input: Option<u64>,
    /// The part of `output` that was reasoning, for the flow's sum.
    #[serde(skip)]
    pub reasoning_output: Option<u64>,
    /// What was asked.
    #[serde(skip)]
    pub operation: Operation,
    /// How it ended.
    #[serde(skip)]
    pub outcome: Outcome,
    /// Where it stands in the flow's trace, if a tap saw it.
    #[serde(skip)]
    pub step: Option<CallStep>,
}

/// A call as a step of its flow, as a tap saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CallStep {
    /// When its head had been read.
    pub began: Timestamp,
    /// The tap's own span of it.
    pub span_id: SpanId,
    /// The step that it says it is a part of.
    pub parent_span_id: Option<SpanId>,
}

/// One side of an exchange, redacted.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Message<'a> {
    /// The headers on the allow-list.
    pub headers: BTreeMap<String, String>,
    /// The body: JSON, text, or base64 under `base64`; `null` where no content is kept.
    pub body: Option<Json<'a>>,
    /// Bytes on the wire.
    pub bytes: u64,
    /// Bytes are missing from the middle.
    pub truncated: bool,
}

/// An exchange understood and redacted: the only form that leaves the pipeline.
/// Fields stand in the order of the contract (docs/RECORD.md).
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// What is known of every exchange.
    pub summary: Summary,
    /// The calls that the flow made.
    pub calls: Vec<Call>,
    /// See [`super::Reading::question`].
    pub question: Option<Json<'a>>,
    /// See `question`.
    pub answer: Option<Json<'a>>,
    /// See `question`.
    pub context: Option<Json<'a>>,
    /// See `question`.
    pub ground_truth: Option<Json<'a>>,
    /// The turns before the question.
    pub chat_history: Option<Json<'a>>,
    /// The request.
    pub request: Message<'a>,
    /// The response.
    pub response: Message<'a>,
    /// The trace.
    pub trace_id: Option<TraceId>,
    /// Our span.
    pub span_id: Option<SpanId>,
    /// The caller's name for the request.
    pub request_id: Option<String>,
    /// How many of each kind were redacted.
    pub redactions: BTreeMap<String, u64>,
}

labelled! {
    /// Why a record was kept.
    SampleReason {
        /// The general rate.
        Rate = "rate",
        /// The rate for errors.
        Error = "error",
        /// The rate for slow requests.
        Slow = "slow",
    }
}

/// Why and with what probability a record was kept, so that averages can be unbiased.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// The rule that decided.
    pub reason: SampleReason,
    /// The inclusion probability, above 0 and at most 1.
    pub probability: f64,
    /// The least that any exchange had then: no sample weighs more than `1 / least`. What is seen of a
    /// few samples does not tell it, where the heaviest are the rarest.
    pub least: f64,
}

/// A record says the least only where it is another than its own.
impl Serialize for Sampling {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let differs = self.least < self.probability;
        let mut fields = serializer.serialize_struct("Sampling", 2 + usize::from(differs))?;
        fields.serialize_field("reason", &self.reason)?;
        fields.serialize_field("probability", &self.probability)?;
        if differs {
            fields.serialize_field("least", &self.least)?;
        }
        fields.end()
    }
}

/// A record that was kept.
#[derive(Clone, Debug)]
pub struct Sample<'a> {
    /// `flowtap.exchange.v1`.
    pub schema: &'static str,
    /// The record.
    pub record: Record<'a>,
    /// Why it was kept.
    pub sample: Sampling,
}

/// Adds the fields of these names.
macro_rules! add {
    ($of:expr, $to:expr, $($name:ident),* $(,)?) => {
        $($to.serialize_field(stringify!($name), &$of.$name)?;)*
    };
}

/// All fields in one object. Serde's own way to that, `flatten`, hands each of them on through a map.
impl Serialize for Sample<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (record, summary) = (&self.record, &self.record.summary);
        let mut fields = serializer.serialize_struct("Sample", FIELDS)?;
        add!(self, fields, schema);
        add!(summary, fields, id);
        fields.serialize_field("time", &Microseconds(summary.time))?;
        add!(summary, fields, tap, deployment, instance, dialect, operation, method, path, status);
        add!(summary, fields, outcome, fault, model, stream, latency_ms, first_byte_ms);
        add!(summary, fields, first_token_ms, overhead_us, usage);
        add!(record, fields, calls, question, answer, context, ground_truth, chat_history);
        add!(record, fields, request, response, trace_id, span_id, request_id, redactions);
        add!(self, fields, sample);
        fields.end()
    }
}

/// Fields of a [`Sample`].
const FIELDS: usize = 33;

#[derive(Serialize)]
struct Microseconds(#[serde(serialize_with = "with_microseconds")] Timestamp);

impl Sample<'_> {
    /// The schema that [`Sample`] is written in.
    pub const SCHEMA: &'static str = "flowtap.exchange.v1";
}

labelled! {
    /// A top folder of the bucket.
    Dataset {
        /// Sampled exchanges.
        Exchanges = "exchanges",
        /// Per-minute rollups of all requests.
        Usage = "usage",
        /// The loss ledger.
        Ledger = "ledger",
        /// What judges and users said of samples.
        Scores = "scores",
        /// The spans of sampled exchanges.
        Traces = "traces",
        /// What monitors found.
        Monitors = "monitors",
    }
}

/// One line on its way to the bucket.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The top folder.
    pub dataset: Dataset,
    /// The partition's deployment; letters, digits, `-`, `_` and `.` only.
    pub deployment: Arc<str>,
    /// The time that names the partition's date and hour.
    pub time: Timestamp,
    /// One JSON object without a line feed.
    pub json: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn times_are_written_as_their_format_has_it(
            second in -62_200_000_000_i64..253_402_200_000, nanosecond in 0_i32..1_000_000_000,
        ) {
            let time = Timestamp::new(second, nanosecond)?;
            let expected = format!("\"{}\"", time.strftime(MICROSECONDS));
            prop_assert_eq!(serde_json::to_string(&Microseconds(time))?, expected);
        }
    }
}
