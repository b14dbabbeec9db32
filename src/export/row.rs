//! Rows of the bucket, as far as an export needs them.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::domain::{ExchangeId, Operation, Outcome, Sample, TracePart};

/// A line of `exchanges/`; content stays as it is written.
#[derive(Deserialize)]
pub(super) struct ExchangeRow<'a> {
    pub(super) schema: &'a str,
    pub(super) id: ExchangeId,
    pub(super) time: Timestamp,
    pub(super) tap: String,
    pub(super) operation: Operation,
    pub(super) outcome: Outcome,
    #[serde(borrow)]
    pub(super) question: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) answer: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) context: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) ground_truth: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) chat_history: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(super) request: Side<'a>,
    #[serde(borrow)]
    pub(super) response: Side<'a>,
    pub(super) request_id: Option<String>,
    pub(super) sample: Sampling,
}

/// One side of an exchange.
#[derive(Deserialize)]
pub(super) struct Side<'a> {
    #[serde(borrow)]
    pub(super) body: Option<&'a RawValue>,
    pub(super) truncated: bool,
}

/// How it was sampled.
#[derive(Deserialize)]
pub(super) struct Sampling {
    pub(super) probability: f64,
}

impl ExchangeRow<'_> {
    /// What Azure joins inputs and outputs by: the request's own id, else ours. An id that was
    /// redacted is shared by others, and is none.
    pub(super) fn correlation_id(&self) -> String {
        let own = self.request_id.as_ref().filter(|id| !id.is_empty() && !id.contains('['));
        own.cloned().unwrap_or_else(|| self.id.as_uuid())
    }
}

/// Reads a line of `exchanges/`; `None` for anything else.
pub(super) fn exchange(line: &[u8]) -> Option<ExchangeRow<'_>> {
    let row: ExchangeRow<'_> = serde_json::from_slice(line).ok()?;
    (row.schema == Sample::SCHEMA).then_some(row)
}

/// Reads a line of `traces/`; `None` for anything else.
pub(super) fn trace(line: &[u8]) -> Option<TracePart> {
    let part: TracePart = serde_json::from_slice(line).ok()?;
    (part.schema == TracePart::SCHEMA).then_some(part)
}
