//! A run as a plan: all that somebody else needs to make it elsewhere, over the same bucket, with no
//! settings of ours and no calendar. `deploy/spark` does.
//!
//! The constants of the computation are in it, so that they are said in one place.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::estimate::Z95;
use super::evidence::STAKES;
use super::run::{compact, folder};
use super::signals::{HIGHEST, LOWEST, QUANTILES};
use super::window::{ALARM_AT, Window};
use crate::config::{Monitor, OtherLimit};
use crate::domain::{
    Bound, Criterion, Method, MonitorRun, Operation, Outcome, Scale, Scope, Score, ScoreError,
    UsageSource,
};
use crate::ledger::Hour;
use crate::rollup::Rollup;

/// A plan; see the module. Times are microseconds since 1970, rounded up: stored times have no finer
/// digits, so that what lies before a bound here lies before it there.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// `flowtap.plan.v1`.
    pub schema: &'static str,
    /// The name of the monitor.
    pub monitor: Arc<str>,
    /// The time of the run.
    pub at: Timestamp,
    /// What the run's id begins with.
    pub id: String,
    /// What the name of the result's object begins with.
    pub object: String,
    /// Where the window begins and ends.
    pub from: Timestamp,
    /// The first moment after it.
    pub to: Timestamp,
    /// The same, where the evidence begins, and the first moments of all steps.
    pub bounds_us: Bounds,
    /// The dates that it touches, in UTC.
    pub dates: Vec<String>,
    /// What it looks at.
    pub scope: Scope,
    /// How thresholds are compared.
    pub method: Method,
    /// Below so many effective samples there is not enough data.
    pub samples_min: u64,
    /// Scores; `None` is off.
    pub quality: Option<Quality>,
    /// Tokens; `None` is off.
    pub tokens: Option<Tokens>,
    /// Requests; `None` is off.
    pub operations: Option<Operations>,
    /// What rows may say.
    pub words: Words,
    /// What the figures are made with.
    pub constants: Constants,
}

/// Bounds of the window.
#[derive(Clone, Debug, Serialize)]
pub struct Bounds {
    from: i64,
    to: i64,
    anchor: i64,
    steps: Vec<i64>,
}

/// Limits of scores.
#[derive(Clone, Debug, Serialize)]
pub struct Quality {
    pass_score: BTreeMap<Criterion, u8>,
    average: BTreeMap<Criterion, f64>,
    pass_rate: BTreeMap<Criterion, f64>,
    /// Of criteria that are not rated.
    pass_score_usual: u8,
    others: Vec<Other>,
}

/// Limits of a computed or custom criterion.
#[derive(Clone, Debug, Serialize)]
struct Other {
    criterion: Criterion,
    name: Option<Arc<str>>,
    scale: Scale,
    average: Option<(Bound, f64)>,
    pass_rate: Option<f64>,
}

impl Other {
    fn of(limit: &OtherLimit) -> Self {
        let OtherLimit { by, average, pass_rate } = limit.clone();
        Self { criterion: by.criterion, name: by.name, scale: by.scale, average, pass_rate }
    }
}

/// Limits of tokens.
#[derive(Clone, Debug, Serialize)]
pub struct Tokens {
    prompt_tokens_max: Option<u64>,
    completion_tokens_max: Option<u64>,
    total_tokens_max: Option<u64>,
    total_tokens_per_group_max: Option<u64>,
}

/// Limits of operations.
#[derive(Clone, Debug, Serialize)]
pub struct Operations {
    error_rate_max: Option<f64>,
    requests_min: Option<u64>,
    /// By the name of the measure.
    latency_max_ms: BTreeMap<&'static str, f64>,
}

/// What rows may say; a row that says something else is none of ours.
#[derive(Clone, Debug, Serialize)]
pub struct Words {
    schemas: BTreeMap<&'static str, &'static str>,
    criteria: &'static [Criterion],
    rated: &'static [Criterion],
    /// Of criteria that always have the same one.
    scales: BTreeMap<Criterion, Scale>,
    of_scales: &'static [Scale],
    errors: &'static [ScoreError],
    not_applicable: Vec<ScoreError>,
    outcomes: &'static [Outcome],
    operations: &'static [Operation],
    sources: &'static [UsageSource],
}

/// What the figures are made with.
#[derive(Clone, Debug, Serialize)]
pub struct Constants {
    alarm_at: f64,
    stakes: [f64; STAKES.len()],
    lowest: f64,
    highest: f64,
    z95: f64,
    quantiles: [(f64, &'static str); QUANTILES.len()],
}

impl Plan {
    /// The plan of the run of `monitor` as of `at`; `None` where the calendar ends.
    pub fn of(monitor: &Monitor, at: Timestamp) -> Option<Self> {
        let window = Window::of(monitor, at)?;
        let (partition, stamp) = (Hour::of(at).partition(), compact(at));
        let (name, folder) = (Arc::clone(&monitor.name), folder(monitor));
        Some(Self {
            schema: "flowtap.plan.v1",
            id: format!("{name}@{stamp}-manual-"),
            object: format!("{folder}{partition}/{name}-{stamp}-manual-"),
            monitor: name,
            at,
            from: window.from,
            to: window.to,
            bounds_us: Bounds {
                from: micros(window.from),
                to: micros(window.to),
                anchor: micros(window.anchor),
                steps: window.starts().iter().copied().map(micros).collect(),
            },
            dates: super::reader::days(&window).collect(),
            scope: monitor.scope.clone(),
            method: monitor.method,
            samples_min: monitor.samples_min,
            quality: monitor.quality.as_ref().map(|limits| Quality {
                pass_score: Criterion::RATED
                    .iter()
                    .map(|criterion| (*criterion, limits.pass_score_of(*criterion)))
                    .collect(),
                average: limits.average.iter().copied().collect(),
                pass_rate: limits.pass_rate.iter().copied().collect(),
                pass_score_usual: limits.pass_score,
                others: limits.others.iter().map(Other::of).collect(),
            }),
            tokens: monitor.tokens.as_ref().map(|limits| Tokens {
                prompt_tokens_max: limits.prompt_tokens_max,
                completion_tokens_max: limits.completion_tokens_max,
                total_tokens_max: limits.total_tokens_max,
                total_tokens_per_group_max: limits.total_tokens_per_group_max,
            }),
            operations: monitor.operations.as_ref().map(|limits| {
                let latency = QUANTILES.iter().filter_map(|(quantile, metric)| {
                    let limit = limits.latency_max.iter().find(|(of, _)| of == quantile)?.1;
                    Some((*metric, limit.as_secs_f64() * 1e3))
                });
                Operations {
                    error_rate_max: limits.error_rate_max,
                    requests_min: limits.requests_min,
                    latency_max_ms: latency.collect(),
                }
            }),
            words: Words::all(),
            constants: Constants {
                alarm_at: ALARM_AT,
                stakes: STAKES,
                lowest: LOWEST,
                highest: HIGHEST,
                z95: Z95,
                quantiles: QUANTILES,
            },
        })
    }
}

impl Words {
    fn all() -> Self {
        let not_applicable =
            ScoreError::ALL.iter().copied().filter(|error| error.is_not_applicable());
        Self {
            schemas: BTreeMap::from([
                ("usage", Rollup::SCHEMA),
                ("scores", Score::SCHEMA),
                ("monitors", MonitorRun::SCHEMA),
            ]),
            criteria: Criterion::ALL,
            rated: Criterion::RATED,
            scales: Criterion::ALL.iter().filter_map(|of| Some((*of, of.scale()?))).collect(),
            of_scales: Scale::ALL,
            errors: ScoreError::ALL,
            not_applicable: not_applicable.collect(),
            outcomes: Outcome::ALL,
            operations: Operation::ALL,
            sources: UsageSource::ALL,
        }
    }
}

/// Rounded up.
fn micros(at: Timestamp) -> i64 {
    let finer = i64::from(at.as_nanosecond().rem_euclid(1_000) > 0);
    at.as_microsecond() + finer * i64::from(at.as_nanosecond() > 0)
}
