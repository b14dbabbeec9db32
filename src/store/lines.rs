//! Lines of the bucket's objects, understood.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::MonitorRun;
use super::labels::{self, Labels};
use crate::domain::{
    Dataset, ExchangeId, ModelNames, Operation, Outcome, Sample, SampleReason, Score, TracePart,
    Usage,
};
use crate::ledger::LedgerRow;
use crate::rollup::UsageRow;

/// Characters of a text that a list shows.
const PREVIEW_CHARS_MAX: usize = 280;
/// Bytes of a text that can be searched.
const SEARCHED_BYTES_MAX: usize = 32 << 10;

/// One line, as far as the store keeps it.
#[derive(Debug)]
pub enum Line {
    /// Of `exchanges/`.
    Sample(Box<SampleLine>),
    /// Of `usage/`.
    Usage(Box<UsageRow>),
    /// Of `scores/`.
    Score(Box<Score>),
    /// Of `traces/`.
    Trace(TraceLine),
    /// Of `ledger/`.
    Ledger(Box<LedgerRow>),
    /// Of `monitors/`.
    Run(Box<MonitorRun>),
}

/// Why a line is set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LineFault {
    /// It is no JSON object.
    NotJson,
    /// Its schema is not one of ours, or of a later version.
    Schema,
    /// A field is missing, or holds what it cannot hold.
    Field,
    /// It is longer than a line may be.
    TooLong,
    /// The rest of the object cannot be unpacked.
    Damaged,
    /// The object's name is not one of ours.
    Name,
    /// The object has another size than when it was read, although it is written once.
    Changed,
}

impl LineFault {
    /// Every fault.
    pub const ALL: [Self; 7] = [
        Self::NotJson,
        Self::Schema,
        Self::Field,
        Self::TooLong,
        Self::Damaged,
        Self::Name,
        Self::Changed,
    ];

    /// The name used in metrics and in the store.
    pub fn label(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::Schema => "schema",
            Self::Field => "field",
            Self::TooLong => "too_long",
            Self::Damaged => "damaged",
            Self::Name => "name",
            Self::Changed => "changed",
        }
    }
}

/// A sample, without what only one who looks at it needs.
#[derive(Debug)]
pub struct SampleLine {
    pub(super) id: ExchangeId,
    pub(super) time: Timestamp,
    pub(super) labels: Labels,
    pub(super) status: Option<u16>,
    pub(super) latency_ms: f64,
    pub(super) first_token_ms: Option<f64>,
    pub(super) usage: Usage,
    pub(super) reason: SampleReason,
    pub(super) probability: f64,
    pub(super) question: Text,
    pub(super) answer: Text,
}

/// A text to show in a list, and to search.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) preview: Option<String>,
    pub(super) searched: String,
}

/// Which sample some spans belong to.
#[derive(Debug)]
pub struct TraceLine {
    pub(super) exchange: ExchangeId,
    pub(super) time: Timestamp,
}

impl Line {
    /// Reads a line of `dataset`.
    pub fn parse(dataset: Dataset, line: &[u8]) -> Result<Self, LineFault> {
        let read = match dataset {
            Dataset::Exchanges => sample(line).map(|sample| Self::Sample(Box::new(sample))),
            Dataset::Usage => UsageRow::parse(line).map(|row| Self::Usage(Box::new(row))),
            Dataset::Scores => score(line).map(|score| Self::Score(Box::new(score))),
            Dataset::Traces => trace(line).map(Self::Trace),
            Dataset::Ledger => ledger(line).map(|row| Self::Ledger(Box::new(row))),
            Dataset::Monitors => MonitorRun::parse(line).map(|run| Self::Run(Box::new(run))),
        };
        read.ok_or_else(|| fault(dataset, line))
    }

    /// The schema of a dataset's lines.
    pub fn schema(dataset: Dataset) -> &'static str {
        match dataset {
            Dataset::Exchanges => Sample::SCHEMA,
            Dataset::Usage => crate::rollup::Rollup::SCHEMA,
            Dataset::Ledger => LedgerRow::SCHEMA,
            Dataset::Scores => Score::SCHEMA,
            Dataset::Traces => TracePart::SCHEMA,
            Dataset::Monitors => MonitorRun::SCHEMA,
        }
    }
}

/// What is wrong with a line that was not understood.
fn fault(dataset: Dataset, line: &[u8]) -> LineFault {
    #[derive(Deserialize)]
    struct Head {
        schema: Option<Value>,
    }
    match serde_json::from_slice::<Head>(line) {
        Err(_) => LineFault::NotJson,
        Ok(Head { schema: Some(Value::String(told)) }) if told == Line::schema(dataset) => {
            LineFault::Field
        }
        Ok(_) => LineFault::Schema,
    }
}

#[derive(Deserialize)]
struct Read {
    schema: String,
    id: ExchangeId,
    time: Timestamp,
    tap: String,
    deployment: String,
    operation: Operation,
    status: Option<u16>,
    outcome: Outcome,
    model: ModelNames,
    stream: bool,
    latency_ms: f64,
    first_token_ms: Option<f64>,
    usage: Usage,
    question: Option<Value>,
    answer: Option<Value>,
    sample: Kept,
}

#[derive(Deserialize)]
struct Kept {
    reason: SampleReason,
    probability: f64,
}

fn sample(line: &[u8]) -> Option<SampleLine> {
    let read: Read = serde_json::from_slice(line).ok()?;
    if read.schema != Sample::SCHEMA || !is_probability(read.sample.probability) {
        return None;
    }
    let model = read.model.response.or(read.model.request).unwrap_or_default();
    let labels = Labels {
        tap: labels::name(&read.tap),
        deployment: labels::name(&read.deployment),
        model: labels::name(&model),
        operation: read.operation,
        outcome: read.outcome,
        stream: read.stream,
    };
    Some(SampleLine {
        id: read.id,
        time: read.time,
        labels,
        status: read.status,
        latency_ms: read.latency_ms,
        first_token_ms: read.first_token_ms,
        usage: read.usage,
        reason: read.sample.reason,
        probability: read.sample.probability,
        question: text(read.question),
        answer: text(read.answer),
    })
}

fn score(line: &[u8]) -> Option<Score> {
    let score: Score = serde_json::from_slice(line).ok()?;
    let given = score.score.is_none_or(|score| (1..=5).contains(&score));
    let within = score.value.is_none_or(|value| (0.0..=1.0).contains(&value));
    let least = score.probability_least.is_none_or(is_probability);
    let sound = given && within && least && is_probability(score.probability);
    let sound = sound && score.schema == Score::SCHEMA;
    sound.then_some(score)
}

fn trace(line: &[u8]) -> Option<TraceLine> {
    let part: TracePart = serde_json::from_slice(line).ok()?;
    let ours = part.schema == TracePart::SCHEMA;
    ours.then_some(TraceLine { exchange: part.exchange, time: part.exchange_time })
}

fn ledger(line: &[u8]) -> Option<LedgerRow> {
    let row: LedgerRow = serde_json::from_slice(line).ok()?;
    (row.schema == LedgerRow::SCHEMA).then_some(row)
}

fn is_probability(p: f64) -> bool {
    p > 0.0 && p <= 1.0
}

fn text(value: Option<Value>) -> Text {
    let whole = match value {
        None | Some(Value::Null) => return Text { preview: None, searched: String::new() },
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
    };
    let preview = whole.chars().take(PREVIEW_CHARS_MAX).collect();
    let mut searched = whole;
    searched.truncate(searched.floor_char_boundary(SEARCHED_BYTES_MAX));
    Text { preview: Some(preview), searched }
}
