//! The columns of each dataset's table: the fields of docs/RECORD.md, under the same names.
//!
//! A dot parts a struct from its field, so that one query reads both forms. What may be any JSON is
//! text: a text as it is, everything else as JSON.

use crate::domain::{Criterion, Dataset, UsageSource};

/// What a column holds. Every one of them may be null.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text; other JSON as JSON.
    Text,
    /// A time, in microseconds, UTC.
    Time,
    /// A whole number.
    Whole,
    /// Any number.
    Number,
    /// True or false.
    Truth,
}

/// One column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Column {
    /// Its name; fields of a struct after a dot.
    pub(super) path: String,
    pub(super) kind: Kind,
}

use Kind::{Number, Text, Time, Truth, Whole};

const EXCHANGES: &[(&str, Kind)] = &[
    ("schema", Text),
    ("id", Text),
    ("time", Time),
    ("tap", Text),
    ("deployment", Text),
    ("instance", Text),
    ("dialect", Text),
    ("operation", Text),
    ("method", Text),
    ("path", Text),
    ("status", Whole),
    ("outcome", Text),
    ("fault", Text),
    ("model.request", Text),
    ("model.response", Text),
    ("stream", Truth),
    ("latency_ms", Number),
    ("first_byte_ms", Number),
    ("first_token_ms", Number),
    ("overhead_us", Whole),
    ("usage.input", Whole),
    ("usage.output", Whole),
    ("usage.total", Whole),
    ("usage.cached_input", Whole),
    ("usage.reasoning_output", Whole),
    ("usage.source", Text),
    ("calls", Text),
    ("question", Text),
    ("answer", Text),
    ("context", Text),
    ("ground_truth", Text),
    ("chat_history", Text),
    ("request.headers", Text),
    ("request.body", Text),
    ("request.bytes", Whole),
    ("request.truncated", Truth),
    ("response.headers", Text),
    ("response.body", Text),
    ("response.bytes", Whole),
    ("response.truncated", Truth),
    ("trace_id", Text),
    ("span_id", Text),
    ("request_id", Text),
    ("redactions", Text),
    ("sample.reason", Text),
    ("sample.probability", Number),
    ("sample.least", Number),
];

const USAGE: &[(&str, Kind)] = &[
    ("schema", Text),
    ("time", Time),
    ("tap", Text),
    ("deployment", Text),
    ("instance", Text),
    ("model", Text),
    ("operation", Text),
    ("outcome", Text),
    ("stream", Truth),
    ("count", Whole),
    ("usage_unknown", Whole),
];

const TOKENS: &[&str] = &["count", "input", "output", "total", "cached_input", "reasoning_output"];

const HISTOGRAMS: &[&str] = &["latency_ms", "first_token_ms", "input_tokens", "output_tokens"];

const HISTOGRAM: &[(&str, Kind)] = &[
    ("count", Whole),
    ("sum", Number),
    ("min", Number),
    ("max", Number),
    ("zero", Whole),
    ("buckets", Text),
];

const SCORES: &[(&str, Kind)] = &[
    ("schema", Text),
    ("id", Text),
    ("time", Time),
    ("exchange", Text),
    ("exchange_time", Time),
    ("tap", Text),
    ("deployment", Text),
    ("instance", Text),
    ("criterion", Text),
    ("name", Text),
    ("scale", Text),
    ("score", Whole),
    ("value", Number),
    ("error", Text),
    ("reason", Text),
    ("probability", Number),
    ("probability_least", Number),
    ("judge.model", Text),
    ("judge.prompt", Text),
    ("judge.input", Whole),
    ("judge.output", Whole),
    ("judge.latency_ms", Number),
    ("judge.truncated", Truth),
    ("injection_suspect", Truth),
    ("judge_drift", Truth),
];

const TRACES: &[(&str, Kind)] = &[
    ("schema", Text),
    ("exchange", Text),
    ("exchange_time", Time),
    ("tap", Text),
    ("deployment", Text),
    ("instance", Text),
    ("trace_id", Text),
    ("spans", Text),
];

const LEDGER: &[(&str, Kind)] = &[
    ("schema", Text),
    ("instance", Text),
    ("incarnation", Text),
    ("hour", Time),
    ("updated", Time),
    ("seen", Whole),
    ("not_sampled", Whole),
    ("kept", Whole),
    ("stored", Whole),
    ("pending", Whole),
    ("in_flight", Whole),
    ("dropped", Text),
    ("usage_dropped", Whole),
    ("unaccounted", Text),
    ("closed", Truth),
];

const MONITORS: &[(&str, Kind)] = &[
    ("schema", Text),
    ("id", Text),
    ("attempt", Text),
    ("monitor", Text),
    ("at", Time),
    ("made", Time),
    ("instance", Text),
    ("trigger", Text),
    ("from", Time),
    ("to", Time),
    ("scope.tap", Text),
    ("scope.deployment", Text),
    ("scope.model", Text),
    ("method", Text),
    ("state", Text),
    ("signals", Text),
    ("alerts", Text),
    ("unscored", Whole),
    ("unreadable", Whole),
];

/// The columns of a dataset's table, in their order.
pub(super) fn of(dataset: Dataset) -> Vec<Column> {
    let own = match dataset {
        Dataset::Exchanges => EXCHANGES,
        Dataset::Usage => USAGE,
        Dataset::Ledger => LEDGER,
        Dataset::Scores => SCORES,
        Dataset::Traces => TRACES,
        Dataset::Monitors => MONITORS,
    };
    let mut columns: Vec<_> =
        own.iter().map(|(path, kind)| Column { path: (*path).to_owned(), kind: *kind }).collect();
    if dataset == Dataset::Usage {
        columns.extend(sums());
    }
    columns
}

/// The columns of a table of samples with their scores: those of `exchanges/`, and one for each criterion
/// that everybody has.
pub(super) fn of_samples() -> Vec<Column> {
    let scores = Criterion::RATED
        .iter()
        .map(|criterion| Column { path: format!("scores.{}", criterion.label()), kind: Whole });
    of(Dataset::Exchanges).into_iter().chain(scores).collect()
}

/// The sums of a rollup: a struct for each source of tokens, and one for each histogram.
fn sums() -> impl Iterator<Item = Column> {
    let tokens = UsageSource::ALL.iter().flat_map(|source| {
        TOKENS.iter().map(|figure| Column {
            path: format!("tokens.{}.{figure}", source.label()),
            kind: Whole,
        })
    });
    let histograms = HISTOGRAMS.iter().flat_map(|name| {
        HISTOGRAM
            .iter()
            .map(move |(figure, kind)| Column { path: format!("{name}.{figure}"), kind: *kind })
    });
    tokens.chain(histograms)
}

/// The column that says when a line's exchange began, or its hour or run.
pub(super) fn moment(dataset: Dataset) -> &'static str {
    match dataset {
        Dataset::Exchanges | Dataset::Usage => "time",
        Dataset::Scores | Dataset::Traces => "exchange_time",
        Dataset::Ledger => "hour",
        Dataset::Monitors => "at",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The fields that docs/RECORD.md has in a section's table; `x.a`, `.b` in one cell share the `x`.
    fn documented(dataset: Dataset) -> Vec<String> {
        let book = include_str!("../../docs/RECORD.md");
        let head = format!("\n## `{}/`", dataset.label());
        let section = book.split(&head).nth(1).expect("a section");
        let table = section.split("| Field | Type | Meaning |").nth(1).expect("a table");
        let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
        let cells = rows.filter_map(|line| line.split('|').nth(1));
        cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
    }

    #[test]
    fn every_documented_field_has_a_column_and_every_column_is_documented() {
        for dataset in Dataset::ALL {
            let fields = documented(*dataset);
            let columns = of(*dataset);
            assert!(fields.len() > 6, "{dataset:?}: {fields:?}");
            // The spans of a line are one column.
            let fields: Vec<_> =
                fields.iter().filter(|f| !f.starts_with("spans[") && !f.starts_with('.')).collect();
            let within = |path: &str, field: &str| {
                path == field || path.strip_prefix(field).is_some_and(|rest| rest.starts_with('.'))
            };
            for field in &fields {
                assert!(columns.iter().any(|c| within(&c.path, field)), "{dataset:?}: {field}");
            }
            for column in &columns {
                assert!(fields.iter().any(|f| within(&column.path, f)), "{dataset:?}: {column:?}");
            }
            assert!(columns.iter().any(|column| column.path == moment(*dataset)));
        }
    }
}
