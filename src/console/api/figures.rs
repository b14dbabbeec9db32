//! Figures as JSON: units are in the names, what is not known is null.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::domain::{Outcome, UsageSource};
use crate::rollup::{Histogram, Tokens, Totals};
use crate::store::{UsageSums, Window};

/// The window, as it was understood.
pub(super) fn window(window: Window) -> Value {
    json!({"from": window.from, "to": window.to})
}

/// A histogram by its quantiles.
pub(super) fn quantiles(histogram: &Histogram) -> Value {
    let of = |q| histogram.quantile(q);
    json!({
        "count": histogram.count(), "mean": mean(histogram),
        "p50": of(0.5), "p95": of(0.95), "p99": of(0.99),
    })
}

/// A histogram with its buckets: `from` exclusive, `to` inclusive.
pub(super) fn distribution(histogram: &Histogram) -> Value {
    let mut told = quantiles(histogram);
    let bins = histogram.bins().into_iter();
    let bins: Vec<_> =
        bins.map(|(from, to, count)| json!({"from": from, "to": to, "count": count})).collect();
    told["bins"] = Value::Array(bins);
    told
}

fn mean(histogram: &Histogram) -> Option<f64> {
    (histogram.count() > 0).then(|| histogram.sum() / histogram.count() as f64)
}

/// Token sums.
pub(super) fn tokens(tokens: &Tokens) -> Value {
    json!({
        "requests": tokens.count, "input": tokens.input, "output": tokens.output,
        "total": tokens.total, "cached_input": tokens.cached_input,
        "reasoning_output": tokens.reasoning_output,
    })
}

/// Token sums by who says so.
pub(super) fn by_source(totals: &Totals) -> Value {
    let named =
        totals.tokens.iter().map(|(source, sums)| (source.label().to_owned(), tokens(sums)));
    Value::Object(named.collect::<Map<_, _>>())
}

/// All tokens of some totals.
pub(super) fn all_tokens(totals: &Totals) -> Tokens {
    totals.tokens_of(|_| true)
}

/// Leaves out tokens that another tap tells too: a flow's `joined` tokens are the sum of calls that
/// have rows of their own. `sums` are apart by tap and operation at least, so that the histograms of
/// such flows can be left out with them.
pub(super) fn once(sums: &mut [UsageSums]) {
    for one in sums {
        if one.totals.tokens.remove(&UsageSource::Joined).is_some() {
            one.totals.input_tokens = Histogram::default();
            one.totals.output_tokens = Histogram::default();
        }
    }
}

/// Requests by outcome, and the share that did not end well.
pub(super) struct Outcomes {
    pub(super) requests: u64,
    by_outcome: Map<String, Value>,
    errors: u64,
}

impl Outcomes {
    /// Counts, given the outcome's label of each.
    pub(super) fn of<'a>(counts: impl IntoIterator<Item = (&'a str, u64)>) -> Self {
        let mut outcomes = Self { requests: 0, by_outcome: Map::new(), errors: 0 };
        for outcome in Outcome::ALL {
            outcomes.by_outcome.insert(outcome.label().to_owned(), Value::from(0));
        }
        for (label, count) in counts {
            let known = outcomes.by_outcome.get(label).and_then(Value::as_u64).unwrap_or(0);
            outcomes.by_outcome.insert(label.to_owned(), Value::from(known.saturating_add(count)));
            outcomes.requests = outcomes.requests.saturating_add(count);
            if label != Outcome::Ok.label() {
                outcomes.errors = outcomes.errors.saturating_add(count);
            }
        }
        outcomes
    }

    /// As JSON.
    pub(super) fn told(self) -> Value {
        let rate = (self.requests > 0).then(|| self.errors as f64 / self.requests as f64);
        json!({
            "requests": self.requests, "errors": self.errors, "error_rate": rate,
            "by_outcome": self.by_outcome,
        })
    }
}

/// Seconds of a span that lie within the window: the first and the last span may be cut.
pub(super) fn seconds_within(window: Window, start: Timestamp, step: i64) -> f64 {
    let end = start.as_second().saturating_add(step);
    let (from, to) = (window.from.as_second(), window.to.as_second());
    (end.min(to) - start.as_second().max(from)).max(1) as f64
}
