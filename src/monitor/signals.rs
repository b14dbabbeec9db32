//! From counts to figures, and from figures and thresholds to verdicts. Pure; docs/MONITORS.md tells the
//! formulas to people.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::estimate::{self, Class, Estimate, Z95};
use super::evidence::Evidence;
use super::tally::{Part, Requests, Tally};
use super::window::ALARM_AT;
use crate::config::{Monitor, OperationLimits, QualityLimits, TokenLimits};
use crate::domain::{
    Bound, Criterion, Grade, Measure, Method, Scale, Signal, SignalKind, State, Violations,
    Yardstick,
};

/// The ends of the scale of scores.
pub(super) const LOWEST: f64 = 1.0;
pub(super) const HIGHEST: f64 = 5.0;
/// The quantiles that are told, limited or not.
pub(super) const QUANTILES: [(f64, &str); 3] =
    [(0.5, "latency_p50_ms"), (0.95, "latency_p95_ms"), (0.99, "latency_p99_ms")];

/// What `monitor` computes of `tally`.
pub fn signals(monitor: &Monitor, tally: &Tally) -> Vec<Signal> {
    let judge = Judge { method: monitor.method, samples_min: monitor.samples_min as f64 };
    let quality = monitor.quality.as_ref().map(|limits| quality(judge, limits, tally));
    let tokens = monitor.tokens.as_ref().map(|limits| tokens(limits, tally));
    let operations = monitor.operations.as_ref().map(|limits| operations(judge, limits, tally));
    [quality, tokens, operations].into_iter().flatten().collect()
}

/// How figures are compared with thresholds.
#[derive(Clone, Copy)]
struct Judge {
    method: Method,
    samples_min: f64,
}

impl Judge {
    /// The verdict on a figure that rests on samples or on counts.
    fn state(
        self,
        estimate: Option<&Estimate>,
        threshold: f64,
        bound: Bound,
        evidence: f64,
    ) -> State {
        let Some(estimate) = estimate else { return State::NotEnoughData };
        match self.method {
            Method::Plain if bound.is_beyond(estimate.value, threshold) => State::Violated,
            Method::Plain => State::Ok,
            // A proof is one however few samples it rests on.
            Method::Anytime if evidence >= ALARM_AT => State::Violated,
            Method::Anytime if estimate.effective < self.samples_min => State::NotEnoughData,
            Method::Anytime => State::Ok,
        }
    }
}

/// A figure without a threshold.
fn figure(metric: impl Into<Arc<str>>, estimate: Option<Estimate>, bound: Bound) -> Measure {
    Measure {
        metric: metric.into(),
        value: estimate.map(|of| of.value),
        low: estimate.map(|of| of.low),
        high: estimate.map(|of| of.high),
        count: estimate.map_or(0, |of| of.count),
        effective: estimate.map_or(0.0, |of| of.effective),
        threshold: None,
        bound,
        state: State::Ok,
        evidence: None,
        violations: None,
    }
}

/// A figure that is counted, not estimated.
fn exact(
    metric: &str,
    value: Option<f64>,
    count: u64,
    bound: Bound,
    limit: Option<f64>,
) -> Measure {
    let over = value.zip(limit).is_some_and(|(value, limit)| bound.is_beyond(value, limit));
    Measure {
        value,
        count,
        effective: count as f64,
        threshold: limit,
        state: if over { State::Violated } else { State::Ok },
        ..figure(metric, None, bound)
    }
}

fn signal(kind: SignalKind, measures: Vec<Measure>) -> Signal {
    let state = State::worst(measures.iter().map(|measure| measure.state));
    Signal { kind, state, measures, groups: Vec::new(), outcomes: BTreeMap::new() }
}

fn quality(judge: Judge, limits: &QualityLimits, tally: &Tally) -> Signal {
    let limit = |limits: &[(Criterion, f64)], of: Criterion| {
        limits.iter().find(|(criterion, _)| *criterion == of).map(|(_, limit)| *limit)
    };
    let seen = tally.yardsticks();
    let mut measures = Vec::new();
    for criterion in Criterion::RATED {
        let (average, share) =
            (limit(&limits.average, *criterion), limit(&limits.pass_rate, *criterion));
        let Some(by) = Yardstick::of(*criterion) else { continue };
        if average.is_none() && share.is_none() && !seen.contains(&by) {
            continue;
        }
        let graded = Graded { judge, tally, by: &by };
        let least = |limit: Option<f64>| limit.map(|limit| (Bound::AtLeast, limit));
        measures.push(graded.average(least(average)));
        let pass = Grade::Score(limits.pass_score_of(*criterion));
        measures.push(graded.pass_rate(pass, least(share)));
    }
    measures.extend(others(judge, limits, tally, &seen));
    signal(SignalKind::GenerationQuality, measures)
}

/// Measures of computed and custom criteria: of those that have limits, then of those that were seen.
fn others(judge: Judge, limits: &QualityLimits, tally: &Tally, seen: &[Yardstick]) -> Vec<Measure> {
    let mut all: Vec<&Yardstick> = limits.others.iter().map(|limit| &limit.by).collect();
    let rated = |by: &Yardstick| Criterion::RATED.contains(&by.criterion);
    for by in seen.iter().filter(|by| !rated(by)) {
        if !all.contains(&by) {
            all.push(by);
        }
    }
    let mut measures = Vec::new();
    for by in all {
        let graded = Graded { judge, tally, by };
        let limit = limits.others.iter().find(|limit| limit.by == *by);
        measures.push(graded.average(limit.and_then(|limit| limit.average)));
        if by.scale == Scale::Score {
            let least = limit.and_then(|limit| limit.pass_rate);
            let least = least.map(|least| (Bound::AtLeast, least));
            measures.push(graded.pass_rate(Grade::Score(limits.pass_score), least));
        }
    }
    measures
}

/// What was given by one yardstick.
#[derive(Clone, Copy)]
struct Graded<'a> {
    judge: Judge,
    tally: &'a Tally,
    by: &'a Yardstick,
}

/// A limit and its good side.
type Limit = Option<(Bound, f64)>;

impl Graded<'_> {
    /// The average; its name tells the scale, since figures of different scales have nothing in common.
    fn average(self, limit: Limit) -> Measure {
        let suffix = match self.by.scale {
            Scale::Score => "average",
            Scale::Ratio => "mean",
            Scale::Boolean => "share",
        };
        self.measure(suffix, self.by.scale, limit, Grade::value)
    }

    /// The share of scores that pass.
    fn pass_rate(self, pass: Grade, limit: Limit) -> Measure {
        let passes = |grade: Grade| f64::from(u8::from(grade >= pass));
        self.measure("pass_rate", Scale::Boolean, limit, passes)
    }

    fn measure(
        self,
        suffix: &str,
        scale: Scale,
        limit: Limit,
        value: impl Fn(Grade) -> f64,
    ) -> Measure {
        let classes = |part| self.tally.classes(self.by, part, &value);
        let estimate = estimated(scale, &classes(Part::Whole));
        let bound = limit.map_or(Bound::AtLeast, |(bound, _)| bound);
        let measure = figure(format!("{}_{suffix}", self.by.label()), estimate, bound);
        let Some((bound, limit)) = limit else { return measure };
        let evidence = against(&classes(Part::Anchored), limit, bound, ends(scale));
        let steps = (0..self.tally.window().steps())
            .map(|step| estimated(scale, &classes(Part::Step(step))).map(|of| of.value));
        Measure {
            threshold: Some(limit),
            state: self.judge.state(estimate.as_ref(), limit, bound, evidence),
            evidence: Some(evidence),
            violations: Some(violations(steps, limit, bound)),
            ..measure
        }
    }
}

/// The ends of a scale.
fn ends(scale: Scale) -> (f64, f64) {
    match scale {
        Scale::Score => (1.0, 5.0),
        Scale::Ratio | Scale::Boolean => (0.0, 1.0),
    }
}

fn estimated(scale: Scale, classes: &[Class]) -> Option<Estimate> {
    let (lowest, highest) = ends(scale);
    match scale {
        Scale::Score | Scale::Ratio => estimate::average(classes, lowest, highest),
        Scale::Boolean => estimate::share(classes),
    }
}

/// The evidence that the mean lies on the bad side of `limit`; values reach from `lowest` to `highest`.
pub(super) fn against(
    classes: &[Class],
    limit: f64,
    bound: Bound,
    (lowest, highest): (f64, f64),
) -> f64 {
    let heaviest = estimate::heaviest(classes);
    let (sign, reach) = match bound {
        Bound::AtLeast => (1.0, highest - limit),
        Bound::AtMost => (-1.0, limit - lowest),
    };
    let mut evidence = Evidence::default();
    for class in classes {
        let deviation = class.weight * sign * (limit - class.value);
        evidence.add(deviation, heaviest * reach, class.count);
    }
    evidence.value()
}

fn violations(steps: impl Iterator<Item = Option<f64>>, limit: f64, bound: Bound) -> Violations {
    let values: Vec<f64> = steps.flatten().collect();
    let count = values.iter().filter(|value| bound.is_beyond(**value, limit)).count();
    Violations { count: count as u64, possible: values.len() as u64 }
}

fn tokens(limits: &TokenLimits, tally: &Tally) -> Signal {
    let groups = tally.groups();
    let requests: u64 = groups.iter().map(|group| group.requests).sum();
    let whole = |n: Option<u64>| n.map(|n| n as f64);
    let counted = |metric: &str, value: u64, limit: Option<u64>| {
        exact(metric, Some(value as f64), requests, Bound::AtMost, whole(limit))
    };
    let total =
        |of: fn(&crate::domain::Group) -> u64| groups.iter().map(of).fold(0, u64::saturating_add);
    let largest = groups.iter().map(|group| group.total_tokens).max().unwrap_or(0);
    let measures = vec![
        counted("requests", requests, None),
        counted("prompt_tokens", total(|group| group.prompt_tokens), limits.prompt_tokens_max),
        counted(
            "completion_tokens",
            total(|group| group.completion_tokens),
            limits.completion_tokens_max,
        ),
        counted("total_tokens", total(|group| group.total_tokens), limits.total_tokens_max),
        counted("total_tokens_per_group", largest, limits.total_tokens_per_group_max),
        counted("usage_unknown", tally.usage_unknown, None),
    ];
    Signal { groups, ..signal(SignalKind::TokenStatistics, measures) }
}

fn operations(judge: Judge, limits: &OperationLimits, tally: &Tally) -> Signal {
    let all = tally.requests(Part::Whole);
    let window = tally.window();
    let seconds = window.to.duration_since(window.from).as_secs_f64();
    let per_second = (seconds > 0.0).then(|| all.count as f64 / seconds);
    let least = limits.requests_min.map(|n| n as f64);
    let count = all.count;
    let mut measures = vec![
        exact("requests", Some(count as f64), count, Bound::AtLeast, least),
        exact("requests_per_second", per_second, count, Bound::AtLeast, None),
    ];
    let counted = Counted { judge, tally, all: &all };
    measures.push(counted.error_rate(limits.error_rate_max));
    measures.extend(QUANTILES.map(|(quantile, metric)| {
        let limit = limits.latency_max.iter().find(|(of, _)| *of == quantile);
        counted.latency(quantile, metric, limit.map(|(_, limit)| limit.as_secs_f64() * 1e3))
    }));
    Signal { outcomes: all.outcomes, ..signal(SignalKind::Operations, measures) }
}

/// Requests, all of them.
#[derive(Clone, Copy)]
struct Counted<'a> {
    judge: Judge,
    tally: &'a Tally,
    all: &'a Requests,
}

impl Counted<'_> {
    fn error_rate(self, limit: Option<f64>) -> Measure {
        let estimate = rate(self.all.errors(), self.all.count);
        let measure = figure("error_rate", estimate, Bound::AtMost);
        let Some(limit) = limit else { return measure };
        let anchored = self.tally.requests(Part::Anchored);
        let evidence = too_many(anchored.errors(), anchored.count, limit);
        let value = |requests: Requests| rate(requests.errors(), requests.count).map(|r| r.value);
        self.limited(measure, estimate, limit, evidence, value)
    }

    /// That a quantile lies above `limit` means that more than `1 - quantile` of all take longer.
    fn latency(self, quantile: f64, metric: &str, limit: Option<f64>) -> Measure {
        let histogram = &self.all.latency_ms;
        let n = histogram.count() as f64;
        let reach = Z95 * (quantile * (1.0 - quantile) / n.max(1.0)).sqrt();
        let at = |q: f64| histogram.quantile(q.clamp(0.0, 1.0)).unwrap_or_default();
        let estimate = histogram.quantile(quantile).map(|value| Estimate {
            value,
            low: at(quantile - reach),
            high: at(quantile + reach),
            count: histogram.count(),
            effective: n,
        });
        let measure = figure(metric, estimate, Bound::AtMost);
        let Some(limit) = limit else { return measure };
        let anchored = self.tally.requests(Part::Anchored).latency_ms;
        // A bucket that the limit divides counts as below it.
        let over = anchored.bins().into_iter().filter(|(low, _, _)| *low >= limit);
        let over = over.fold(0, |sum: u64, (_, _, n)| sum.saturating_add(n));
        let evidence = too_many(over, anchored.count(), 1.0 - quantile);
        let value = |requests: Requests| requests.latency_ms.quantile(quantile);
        self.limited(measure, estimate, limit, evidence, value)
    }

    fn limited(
        self,
        measure: Measure,
        estimate: Option<Estimate>,
        limit: f64,
        evidence: f64,
        value: impl Fn(Requests) -> Option<f64>,
    ) -> Measure {
        let steps = 0..self.tally.window().steps();
        let steps = steps.map(|step| value(self.tally.requests(Part::Step(step))));
        Measure {
            threshold: Some(limit),
            state: self.judge.state(estimate.as_ref(), limit, Bound::AtMost, evidence),
            evidence: Some(evidence),
            violations: Some(violations(steps, limit, Bound::AtMost)),
            ..measure
        }
    }
}

/// A share of all requests, with Wilson's interval; `None` without requests.
fn rate(part: u64, all: u64) -> Option<Estimate> {
    (all > 0).then(|| {
        let (value, n) = (part as f64 / all as f64, all as f64);
        let (low, high) = estimate::wilson(value, n, Z95);
        Estimate { value, low, high, count: all, effective: n }
    })
}

/// The evidence that more than the share `limit` of all is bad, of which `bad` of `all` are.
fn too_many(bad: u64, all: u64, limit: f64) -> f64 {
    let mut evidence = Evidence::default();
    evidence.add(1.0 - limit, limit, bad);
    evidence.add(-limit, limit, all.saturating_sub(bad));
    evidence.value()
}
