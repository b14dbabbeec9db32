//! What a replay found: one object of the bucket, JSON, or a table.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::answer::comparable;
use super::compare::{Compared, Limits, Verdict};
use super::recorded::{Skip, Told};
use crate::domain::{ExchangeId, Outcome};
use crate::monitor::figure;

/// What a replay found; one line of `replays/kind=report/`.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `flowtap.replay.v1`.
    pub schema: &'static str,
    /// The replay's own id.
    pub id: ExchangeId,
    /// When it began.
    pub time: Timestamp,
    /// When it had ended.
    pub ended: Timestamp,
    /// Where the requests went, without a query.
    pub target: String,
    /// The worst of all criteria.
    pub verdict: Verdict,
    /// What stands in the way of a better verdict, for people.
    pub notes: Vec<String>,
    /// What is worse, and how many pairs are enough.
    pub limits: Limits,
    /// Which requests were sent.
    pub requests: Requests,
    /// What the recorded answers were.
    pub recorded: Side,
    /// What the new ones are.
    pub new: Side,
    /// Requests that were answered by both: what the figures of latency rest on.
    pub answered_by_both: u64,
    /// Of those, the ones whose tokens were come by in the same way: what the figures of tokens rest on.
    pub tokens_comparable: u64,
    /// The differences.
    pub criteria: Vec<Compared>,
    /// Who judged; `None` where nobody did.
    pub judge: Option<Judging>,
}

/// Which requests were sent, and which were not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Requests {
    /// That could be sent.
    pub found: u64,
    /// That were; a random part of those found where these are more than the limit.
    pub sent: u64,
    /// Of those sent, the ones with masks in them: they are not what was asked when they were recorded.
    pub masked: u64,
    /// The first of those sent that was recorded.
    pub from: Option<Timestamp>,
    /// The last.
    pub to: Option<Timestamp>,
    /// Requests a second, as sent.
    pub rate: f64,
    /// Recorded requests that were left out, by why.
    pub skipped: BTreeMap<Skip, u64>,
    /// Objects of the bucket that could not be read to their end.
    pub damaged: u64,
}

/// The answers of one deployment.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Side {
    /// By how they ended.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// By status; 0 where there was none.
    pub statuses: BTreeMap<u16, u64>,
    /// Milliseconds to the last byte.
    pub latency_ms: Option<Spread>,
    /// Milliseconds to the first content, of streams.
    pub first_token_ms: Option<Spread>,
    /// Prompt tokens of a request, on average.
    pub input_tokens: Option<f64>,
    /// Completion tokens of a request, on average.
    pub output_tokens: Option<f64>,
}

/// How figures spread, weighted.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// Their average.
    pub mean: f64,
    /// Half of them lie below.
    pub p50: f64,
    /// 95 of 100 lie below.
    pub p95: f64,
}

/// Who judged, at what cost.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Judging {
    /// The judge's model.
    pub model: String,
    /// Scores that it gave now.
    pub asked: u64,
    /// Scores of recorded answers that it had given before, by the same prompts.
    pub reused: u64,
    /// Scores that it did not give, by why.
    pub errors: BTreeMap<&'static str, u64>,
    /// Prompt tokens spent.
    pub input: u64,
    /// Completion tokens spent.
    pub output: u64,
    /// It failed its own test.
    pub drift: bool,
}

/// Both answers to one request.
pub(super) struct Both {
    pub(super) weight: f64,
    pub(super) recorded: Told,
    pub(super) new: Told,
}

impl Report {
    /// The schema that [`Report`] is written in.
    pub const SCHEMA: &'static str = "flowtap.replay.v1";
}

/// The figures of both deployments, and how many requests they rest on.
pub(super) fn sides(all: &[Both]) -> (Side, Side, u64, u64) {
    let answered: Vec<&Both> =
        all.iter().filter(|both| both.recorded.is_answer() && both.new.is_answer()).collect();
    let counted: Vec<&Both> = answered
        .iter()
        .copied()
        .filter(|both| comparable(both.recorded.usage.source, both.new.usage.source))
        .collect();
    let side = |of: fn(&Both) -> &Told| {
        let mut side = Side::default();
        for told in all.iter().map(of) {
            *side.outcomes.entry(told.outcome).or_default() += 1;
            *side.statuses.entry(told.status.unwrap_or(0)).or_default() += 1;
        }
        side.latency_ms = spread(&answered, |both| Some(of(both).latency_ms));
        side.first_token_ms = spread(&answered, |both| {
            let both_stream = both.recorded.first_token_ms.and(both.new.first_token_ms);
            both_stream.and(of(both).first_token_ms)
        });
        let tokens = |count: fn(&Told) -> Option<u64>| {
            spread(&counted, |both| count(of(both)).map(|n| n as f64)).map(|spread| spread.mean)
        };
        side.input_tokens = tokens(|told| told.usage.input);
        side.output_tokens = tokens(|told| told.usage.output);
        side
    };
    let (recorded, new) = (side(|both| &both.recorded), side(|both| &both.new));
    (recorded, new, answered.len() as u64, counted.len() as u64)
}

fn spread(all: &[&Both], value: impl Fn(&Both) -> Option<f64>) -> Option<Spread> {
    let mut values: Vec<(f64, f64)> =
        all.iter().filter_map(|both| Some((value(both)?, both.weight))).collect();
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let weights: f64 = values.iter().map(|(_, weight)| weight).sum();
    let quantile = |q: f64| {
        let mut below = 0.0;
        let found = values.iter().find(|(_, weight)| {
            below += weight;
            below >= q * weights
        });
        found.or(values.last()).map(|(value, _)| *value)
    };
    let mean = values.iter().map(|(value, weight)| value * weight).sum::<f64>() / weights;
    Some(Spread { mean, p50: quantile(0.5)?, p95: quantile(0.95)? })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} ({})", self.verdict.label(), self.target, self.id)?;
        self.requests.fmt(f)?;
        writeln!(
            f,
            "\n  {:<26} {:>10} {:>10} {:>11} {:>20} {:>7} {:>9}  verdict",
            "", "recorded", "new", "difference", "95% interval", "pairs", "effective"
        )?;
        self.criteria.iter().try_for_each(|criterion| write_compared(f, criterion))?;
        writeln!(f)?;
        self.write_sides(f)?;
        if let Some(judge) = &self.judge {
            writeln!(
                f,
                "  judge {}: {} scores given, {} taken from the bucket, {} tokens",
                judge.model,
                judge.asked,
                judge.reused,
                judge.input + judge.output
            )?;
            for (error, count) in &judge.errors {
                writeln!(f, "    {count} without a score: {error}")?;
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  note: {note}"))
    }
}

impl fmt::Display for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "  {} of {} requests sent", self.sent, self.found)?;
        if let Some((from, to)) = self.from.zip(self.to) {
            write!(f, ", recorded {from:.0} to {to:.0}")?;
        }
        writeln!(f, ", {} a second", figure(self.rate))?;
        if self.masked > 0 {
            writeln!(
                f,
                "  {} of them carried masks: what was redacted cannot be sent again, so their new \
                 answers are to other questions (--skip-masked leaves them out)",
                self.masked
            )?;
        }
        for (why, count) in &self.skipped {
            writeln!(f, "  left out {count} {}", why.describe())?;
        }
        if self.damaged > 0 {
            writeln!(f, "  {} objects could not be read to their end", self.damaged)?;
        }
        Ok(())
    }
}

fn write_compared(f: &mut fmt::Formatter<'_>, of: &Compared) -> fmt::Result {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |n| format!("{n:.3}"));
    let signed = |value: f64| format!("{value:+.3}");
    let interval = of.low.zip(of.high);
    let interval = interval.map(|(low, high)| format!("{} to {}", signed(low), signed(high)));
    writeln!(
        f,
        "  {:<26} {:>10} {:>10} {:>11} {:>20} {:>7} {:>9}  {}",
        of.criterion,
        number(of.recorded),
        number(of.new),
        of.difference.map_or_else(|| "-".to_owned(), signed),
        interval.unwrap_or_default(),
        of.pairs,
        figure(of.effective.round()),
        of.verdict.map_or("", Verdict::label),
    )
}

impl Report {
    fn write_sides(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (old, new) = (&self.recorded, &self.new);
        let spread = |of: Option<Spread>| {
            of.map(|of| [of.mean, of.p50, of.p95].map(figure).join(" / ")).unwrap_or_default()
        };
        let number = |of: Option<f64>| of.map(figure).unwrap_or_default();
        let counts = |of: &BTreeMap<Outcome, u64>| {
            let of = of.iter().map(|(outcome, n)| format!("{} {n}", outcome.label()));
            of.collect::<Vec<_>>().join(", ")
        };
        let rows = [
            ("latency ms (mean/p50/p95)", spread(old.latency_ms), spread(new.latency_ms)),
            ("first token ms", spread(old.first_token_ms), spread(new.first_token_ms)),
            ("prompt tokens (mean)", number(old.input_tokens), number(new.input_tokens)),
            ("completion tokens (mean)", number(old.output_tokens), number(new.output_tokens)),
            ("outcomes", counts(&old.outcomes), counts(&new.outcomes)),
        ];
        for (name, old, new) in
            rows.iter().filter(|(_, old, new)| !(old.is_empty() && new.is_empty()))
        {
            writeln!(f, "  {name:<26} {old:>26} {new:>26}")?;
        }
        Ok(())
    }
}

/// One request of a replay; one line of `replays/kind=case/`.
#[derive(Serialize)]
pub(super) struct CaseLine<'a> {
    pub(super) schema: &'static str,
    pub(super) replay: ExchangeId,
    pub(super) exchange: ExchangeId,
    pub(super) exchange_time: Timestamp,
    pub(super) tap: &'a Arc<str>,
    pub(super) probability: f64,
    pub(super) masked: bool,
    pub(super) recorded: &'a Told,
    pub(super) new: &'a Told,
    pub(super) request_id: Option<&'a str>,
    /// The new answer; the recorded one stands in `exchanges/`.
    pub(super) answer: Option<&'a serde_json::Value>,
    pub(super) scores: Vec<CaseScore<'a>>,
}

impl CaseLine<'_> {
    /// The schema that it is written in.
    pub(super) const SCHEMA: &'static str = "flowtap.replay_case.v1";
}

/// One criterion of one request.
#[derive(Serialize)]
pub(super) struct CaseScore<'a> {
    pub(super) criterion: &'a str,
    pub(super) recorded: Option<f64>,
    pub(super) new: Option<f64>,
    pub(super) recorded_reason: Option<&'a str>,
    pub(super) new_reason: Option<&'a str>,
    pub(super) error: Option<&'static str>,
}
