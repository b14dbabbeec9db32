//! A line of `usage/`, read back.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;

use super::{Histogram, Rollup, Tokens, Totals};
use crate::domain::{Operation, Outcome, UsageSource};

/// One minute's totals of one combination of labels, as some flowtap wrote them.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageRow {
    /// The minute's first moment.
    pub time: Timestamp,
    /// The tap.
    pub tap: String,
    /// The endpoint's deployment.
    pub deployment: String,
    /// The bounded name of the model; empty where none is known.
    pub model: String,
    /// What was asked.
    pub operation: Operation,
    /// How it ended.
    pub outcome: Outcome,
    /// The answer came as a stream.
    pub stream: bool,
    /// The sums.
    pub totals: Totals,
}

/// The fields by themselves: `flatten` would lose the numbers that are keys.
#[derive(Deserialize)]
struct Line {
    schema: String,
    time: Timestamp,
    tap: String,
    deployment: String,
    model: String,
    operation: Operation,
    outcome: Outcome,
    stream: bool,
    count: u64,
    tokens: BTreeMap<UsageSource, Tokens>,
    usage_unknown: u64,
    latency_ms: Histogram,
    first_token_ms: Histogram,
    input_tokens: Histogram,
    output_tokens: Histogram,
}

impl UsageRow {
    /// Reads one line; `None` where its schema is another, or a field is missing or cannot be.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let line: Line = serde_json::from_slice(line).ok()?;
        let totals = Totals {
            count: line.count,
            tokens: line.tokens,
            usage_unknown: line.usage_unknown,
            latency_ms: line.latency_ms,
            first_token_ms: line.first_token_ms,
            input_tokens: line.input_tokens,
            output_tokens: line.output_tokens,
        };
        (line.schema == Rollup::SCHEMA && totals.is_sound()).then_some(Self {
            time: line.time,
            tap: line.tap,
            deployment: line.deployment,
            model: line.model,
            operation: line.operation,
            outcome: line.outcome,
            stream: line.stream,
            totals,
        })
    }
}
