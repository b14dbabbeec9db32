//! `monitors`: what is computed over a window, when, and where its limits are.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Span;
use jiff::civil::{Date, date};

use super::fault::{Complaint, Report};
use super::kind::show_time;
use super::map::Map;
use super::schedule::{self, FREQUENCIES, Recurrence, Schedule, WEEK_DAYS};
use super::show::Shown;
use crate::domain::{Bound, Criterion, Method, Scope, Yardstick};

mod keys;
mod others;

pub(super) use keys::KEYS;
pub(super) use others::known;

use keys::SIGNALS;

/// The longest window.
const WINDOW_DAYS_MAX: i64 = 400;
/// Steps of a window.
const STEPS_MAX: i64 = 1_000;

/// One monitor: what it computes, when, over what.
#[derive(Clone, Debug)]
pub struct Monitor {
    /// Its name: letters, digits, `-` and `_`, unique.
    pub name: Arc<str>,
    /// When it runs.
    pub schedule: Schedule,
    /// The zone of the schedule, and of days in windows.
    pub time_zone: String,
    /// How long the window is. Default seven days.
    pub window: Span,
    /// How long before the run it ends. Default nothing.
    pub offset: Span,
    /// Violations are counted in pieces of this length. Default a day.
    pub step: Span,
    /// What it looks at.
    pub scope: Scope,
    /// How thresholds are compared.
    pub method: Method,
    /// Below so many effective samples there is not enough data. Default 30.
    pub samples_min: u64,
    /// Scores; `None` is off.
    pub quality: Option<QualityLimits>,
    /// Tokens; `None` is off.
    pub tokens: Option<TokenLimits>,
    /// Requests, errors, latency; `None` is off.
    pub operations: Option<OperationLimits>,
    /// Who gets its e-mails instead of `alerts.email.to`; empty: those.
    pub emails: Vec<String>,
}

/// Limits of scores.
#[derive(Clone, Debug, PartialEq)]
pub struct QualityLimits {
    /// Whether violations are told.
    pub alert: bool,
    /// The lowest score that passes.
    pub pass_score: u8,
    /// The same of criteria that have one of their own.
    pub pass_scores: Vec<(Criterion, u8)>,
    /// The least share that passes.
    pub pass_rate: Vec<(Criterion, f64)>,
    /// The least average.
    pub average: Vec<(Criterion, f64)>,
    /// Limits of computed and custom criteria.
    pub others: Vec<OtherLimit>,
}

/// Limits of a computed or custom criterion.
#[derive(Clone, Debug, PartialEq)]
pub struct OtherLimit {
    /// Which.
    pub by: Yardstick,
    /// The limit of the average, and its good side.
    pub average: Option<(Bound, f64)>,
    /// The least share that passes, of criteria from 1 to 5.
    pub pass_rate: Option<f64>,
}

impl QualityLimits {
    /// The lowest score of `criterion` that passes.
    pub fn pass_score_of(&self, criterion: Criterion) -> u8 {
        let own = self.pass_scores.iter().find(|(of, _)| *of == criterion);
        own.map_or(self.pass_score, |(_, score)| *score)
    }
}

/// Limits of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenLimits {
    /// Whether violations are told.
    pub alert: bool,
    /// Prompt tokens in the window.
    pub prompt_tokens_max: Option<u64>,
    /// Completion tokens in the window.
    pub completion_tokens_max: Option<u64>,
    /// Tokens in the window.
    pub total_tokens_max: Option<u64>,
    /// Tokens in the window of one tap, deployment and model.
    pub total_tokens_per_group_max: Option<u64>,
}

/// Limits of operations.
#[derive(Clone, Debug, PartialEq)]
pub struct OperationLimits {
    /// Whether violations are told.
    pub alert: bool,
    /// The largest share of outcomes other than `ok`.
    pub error_rate_max: Option<f64>,
    /// The longest latency at quantiles: 0.5, 0.95, 0.99.
    pub latency_max: Vec<(Quantile, Duration)>,
    /// The fewest requests in the window.
    pub requests_min: Option<u64>,
}

/// A quantile that has a limit of its own.
pub type Quantile = f64;

/// The quantiles that have limits, with their keys.
const QUANTILES: &[(f64, &str)] =
    &[(0.5, "latency_p50_max"), (0.95, "latency_p95_max"), (0.99, "latency_p99_max")];

/// Builds a monitor; `None` after a fault.
pub(super) fn build(map: &Map, report: &mut Report) -> Option<Monitor> {
    let schedule = build_schedule(map, report);
    spans(map, report);
    let signals = map.map("signals");
    let none = |signals: &Map| SIGNALS.iter().all(|key| !signals.given(key.name));
    if map.given("signals") && map.sound(&["signals"]) && signals.is_some_and(none) {
        let message = format!("`{}` has no signal", map.path_of("signals"));
        let allowed = "generation_quality, token_statistics, operations: at least one";
        report.fault(map.origin("signals"), Complaint::new(message).allowed(allowed));
    }
    let text = |name: &str| map.text(name).map(Arc::from);
    Some(Monitor {
        name: Arc::from(map.text("name")?),
        schedule: schedule?,
        time_zone: map.text("time_zone")?.to_owned(),
        window: map.span("window"),
        offset: map.span("offset"),
        step: map.span("step"),
        scope: Scope { tap: text("tap"), deployment: text("deployment"), model: text("model") },
        method: match map.text("method")? {
            "plain" => Method::Plain,
            _ => Method::Anytime,
        },
        samples_min: map.whole("samples_min")?,
        quality: signals?.map("generation_quality").and_then(|map| build_quality(map, report)),
        tokens: signals?.map("token_statistics").map(build_tokens),
        operations: signals?.map("operations").map(build_operations),
        emails: map.texts("emails"),
    })
}

fn build_schedule(map: &Map, report: &mut Report) -> Option<Schedule> {
    if map.given("schedule") == map.given("recurrence") {
        let (cron, recurrence) = (map.path_of("schedule"), map.path_of("recurrence"));
        let told = if map.given("schedule") { "both given" } else { "both missing" };
        let message = format!("`{cron}` and `{recurrence}` are {told}");
        report.fault(map.origin("recurrence"), Complaint::new(message).allowed("one of the two"));
        return None;
    }
    if let Some(text) = map.text("schedule") {
        let calendar = schedule::cron(text).ok()?;
        return Some(Schedule::Cron { text: text.to_owned(), calendar });
    }
    let map = map.map("recurrence")?;
    let frequency = FREQUENCIES.iter().find(|(name, _)| Some(*name) == map.text("frequency"))?.1;
    let numbers = |name: &str| map.texts(name).iter().filter_map(|n| n.parse().ok()).collect();
    let week_day = |name: &String| {
        let at = WEEK_DAYS.iter().position(|day| day == name)?;
        i8::try_from(at).ok()
    };
    Some(Schedule::Recurrence(Recurrence {
        frequency,
        interval: i64::try_from(map.whole("interval")?).ok()?,
        hours: numbers("hours"),
        minutes: numbers("minutes"),
        week_days: map.texts("week_days").iter().filter_map(week_day).collect(),
        month_days: numbers("month_days"),
        start: map.text("start").and_then(|start| start.parse().ok()),
    }))
}

/// A month is measured at this date; only its rough length matters here.
const SOME_DATE: Date = date(2026, 1, 1);

/// Reports windows that are empty or too long, and steps that are too many.
fn spans(map: &Map, report: &mut Report) {
    if !map.sound(&["window", "offset", "step"]) {
        return;
    }
    let seconds = |name: &str| {
        let total = map.span(name).total((jiff::Unit::Second, SOME_DATE));
        total.map_or(i64::MAX, |seconds| seconds as i64)
    };
    let longest = WINDOW_DAYS_MAX * 86_400;
    for name in ["window", "offset"] {
        if seconds(name) > longest || (name == "window" && seconds(name) < 60) {
            let message = format!("`{}` is `{}`", map.path_of(name), map.span(name));
            let allowed = match name {
                "window" => format!("PT1M to P{WINDOW_DAYS_MAX}D"),
                _ => format!("P0D to P{WINDOW_DAYS_MAX}D"),
            };
            report.fault(map.origin(name), Complaint::new(message).allowed(allowed));
        }
    }
    if seconds("step") < 60 || seconds("window") / seconds("step").max(1) > STEPS_MAX {
        let message = format!("`{}` is `{}`", map.path_of("step"), map.span("step"));
        let allowed = format!("PT1M at least, and at most {STEPS_MAX} in a window");
        report.fault(map.origin("step"), Complaint::new(message).allowed(allowed));
    }
}

fn limits(map: Option<&Map>) -> Vec<(Criterion, f64)> {
    let limit = |criterion: &Criterion| Some((*criterion, map?.number(criterion.label())?));
    Criterion::RATED.iter().filter_map(limit).collect()
}

fn build_quality(map: &Map, report: &mut Report) -> Option<QualityLimits> {
    let score = |criterion: &Criterion| {
        let score = map.map("pass_scores")?.whole(criterion.label())?;
        Some((*criterion, u8::try_from(score).ok()?))
    };
    let others: Vec<OtherLimit> =
        map.maps("limits").iter().filter_map(|limit| others::build(limit, report)).collect();
    for (at, one) in others.iter().enumerate() {
        if others.iter().take(at).any(|other| other.by.label() == one.by.label()) {
            let message = format!("`{}` has `{}` twice", map.path_of("limits"), one.by.label());
            let complaint = Complaint::new(message).allowed("one limit a criterion");
            report.fault(map.origin("limits"), complaint);
        }
    }
    Some(QualityLimits {
        alert: map.bool("alert"),
        pass_score: u8::try_from(map.whole("pass_score")?).ok()?,
        pass_scores: Criterion::RATED.iter().filter_map(score).collect(),
        pass_rate: limits(map.map("pass_rate")),
        average: limits(map.map("average")),
        others,
    })
}

fn build_tokens(map: &Map) -> TokenLimits {
    TokenLimits {
        alert: map.bool("alert"),
        prompt_tokens_max: map.whole("prompt_tokens_max"),
        completion_tokens_max: map.whole("completion_tokens_max"),
        total_tokens_max: map.whole("total_tokens_max"),
        total_tokens_per_group_max: map.whole("total_tokens_per_group_max"),
    }
}

fn build_operations(map: &Map) -> OperationLimits {
    let limit = |(quantile, key): &(f64, &str)| map.given(key).then(|| (*quantile, map.time(key)));
    OperationLimits {
        alert: map.bool("alert"),
        error_rate_max: map.number("error_rate_max"),
        latency_max: QUANTILES.iter().filter_map(limit).collect(),
        requests_min: map.whole("requests_min"),
    }
}

/// A monitor as YAML.
pub(super) fn show(monitor: &Monitor) -> Vec<(&'static str, Shown)> {
    let (cron, recurrence) = match &monitor.schedule {
        Schedule::Cron { text, .. } => (Shown::text(text), Shown::Unset),
        Schedule::Recurrence(recurrence) => (Shown::Unset, Shown::Map(show_recurrence(recurrence))),
    };
    let scope = &monitor.scope;
    vec![
        ("name", Shown::text(&monitor.name)),
        ("schedule", cron),
        ("recurrence", recurrence),
        ("time_zone", Shown::text(&monitor.time_zone)),
        ("window", Shown::text(monitor.window)),
        ("offset", Shown::text(monitor.offset)),
        ("step", Shown::text(monitor.step)),
        ("tap", Shown::optional(scope.tap.as_ref())),
        ("deployment", Shown::optional(scope.deployment.as_ref())),
        ("model", Shown::optional(scope.model.as_ref())),
        ("method", Shown::text(monitor.method.label())),
        ("samples_min", Shown::text(monitor.samples_min)),
        ("signals", Shown::Map(show_signals(monitor))),
        ("emails", Shown::List(monitor.emails.clone())),
    ]
}

fn show_recurrence(recurrence: &Recurrence) -> Vec<(&'static str, Shown)> {
    let numbers = |set: &BTreeSet<i8>| Shown::List(set.iter().map(ToString::to_string).collect());
    let name = |day: &i8| Some((*WEEK_DAYS.get(usize::try_from(*day).ok()?)?).to_owned());
    let frequency = FREQUENCIES.iter().find(|(_, of)| *of == recurrence.frequency);
    vec![
        ("frequency", Shown::text(frequency.map_or("day", |(name, _)| name))),
        ("interval", Shown::text(recurrence.interval)),
        ("hours", numbers(&recurrence.hours)),
        ("minutes", numbers(&recurrence.minutes)),
        ("week_days", Shown::List(recurrence.week_days.iter().filter_map(name).collect())),
        ("month_days", numbers(&recurrence.month_days)),
        ("start", Shown::optional(recurrence.start)),
    ]
}

fn show_signals(monitor: &Monitor) -> Vec<(&'static str, Shown)> {
    let shown = |map: Option<Vec<(&'static str, Shown)>>| map.map_or(Shown::Unset, Shown::Map);
    vec![
        ("generation_quality", shown(monitor.quality.as_ref().map(show_quality))),
        ("token_statistics", shown(monitor.tokens.as_ref().map(show_tokens))),
        ("operations", shown(monitor.operations.as_ref().map(show_operations))),
    ]
}

fn show_quality(limits: &QualityLimits) -> Vec<(&'static str, Shown)> {
    let map = |limits: &[(Criterion, f64)]| {
        let entries =
            limits.iter().map(|(criterion, limit)| (criterion.label(), Shown::text(limit)));
        Shown::Map(entries.collect())
    };
    let scores: Vec<_> =
        limits.pass_scores.iter().map(|(of, score)| (*of, f64::from(*score))).collect();
    vec![
        ("alert", Shown::text(limits.alert)),
        ("pass_score", Shown::text(limits.pass_score)),
        ("pass_scores", map(&scores)),
        ("pass_rate", map(&limits.pass_rate)),
        ("average", map(&limits.average)),
        (
            "limits",
            match limits.others.as_slice() {
                [] => Shown::Unset,
                others => Shown::Maps(others.iter().map(others::show).collect()),
            },
        ),
    ]
}

fn show_tokens(limits: &TokenLimits) -> Vec<(&'static str, Shown)> {
    vec![
        ("alert", Shown::text(limits.alert)),
        ("prompt_tokens_max", Shown::optional(limits.prompt_tokens_max)),
        ("completion_tokens_max", Shown::optional(limits.completion_tokens_max)),
        ("total_tokens_max", Shown::optional(limits.total_tokens_max)),
        ("total_tokens_per_group_max", Shown::optional(limits.total_tokens_per_group_max)),
    ]
}

fn show_operations(limits: &OperationLimits) -> Vec<(&'static str, Shown)> {
    let latency = |(quantile, key): &(f64, &'static str)| {
        let limit = limits.latency_max.iter().find(|(of, _)| of == quantile);
        (*key, Shown::optional(limit.map(|(_, limit)| show_time(*limit))))
    };
    let mut shown = vec![
        ("alert", Shown::text(limits.alert)),
        ("error_rate_max", Shown::optional(limits.error_rate_max)),
        ("requests_min", Shown::optional(limits.requests_min)),
    ];
    shown.extend(QUANTILES.iter().map(latency));
    shown
}
