//! How many requests, how fast, and how they ended.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::figures::{self, Outcomes};
use super::params::{BY, DEPLOYMENT, FROM, MODEL, OUTCOME, STEP, TAP, TO};
use super::usage::{group, merged};
use super::{Answer, Asked, Problem, Route};
use crate::rollup::Totals;
use crate::store::{Axis, UsageSums, Window};

pub(super) static ROUTE: Route = Route {
    path: "/operations",
    about: "All requests: how many, how often, how long they took, how they ended; in all, over time \
            and by group. Quantiles are within 4.5 percent. An error is every outcome but `ok`.",
    parameters: &[&FROM, &TO, &TAP, &DEPLOYMENT, &MODEL, &OUTCOME, &STEP, &BY],
    answer: Answer::Json("Operations", answer),
};

fn answer(asked: &Asked<'_>) -> Result<Value, Problem> {
    let params = &asked.params;
    let (window, filter) = (params.window()?, params.filter());
    let (step, axis) = (params.step(window)?, params.axis());
    let mut axes = vec![Axis::Outcome];
    axes.extend(axis);
    let sums = asked.view.store.usage(window, &filter, Some(step), &axes)?;
    let grouped = axis.is_some();
    let all = window.to.duration_since(window.from).as_secs_f64().max(1.0);
    let in_all = parts(&sums, |_| (None, None));
    let groups = parts(&sums, |one| (None, group(one, grouped)));
    let series = parts(&sums, |one| (Some(one.time), group(one, grouped)));
    let total = in_all
        .values()
        .next()
        .map(|part| part.told(all))
        .unwrap_or_else(|| Part::default().told(all));
    Ok(json!({
        "window": figures::window(window),
        "step_seconds": step,
        "total": total,
        "groups": groups.iter().map(|(key, part)| told(key, part, all)).collect::<Vec<_>>(),
        "series": series.iter().map(|(key, part)| {
            told(key, part, seconds(window, key.0, step))
        }).collect::<Vec<_>>(),
    }))
}

type Key = (Option<Timestamp>, Option<String>);

#[derive(Default)]
struct Part {
    totals: Totals,
    outcomes: BTreeMap<String, u64>,
}

impl Part {
    fn told(&self, seconds: f64) -> Value {
        let counts = self.outcomes.iter().map(|(label, count)| (label.as_str(), *count));
        let outcomes = Outcomes::of(counts);
        let rate = outcomes.requests as f64 / seconds;
        let mut told = outcomes.told();
        told["requests_per_second"] = json!(rate);
        told["latency_ms"] = figures::quantiles(&self.totals.latency_ms);
        told["first_token_ms"] = figures::quantiles(&self.totals.first_token_ms);
        told
    }
}

/// Totals and outcomes, put together by what `key` makes of them.
fn parts(sums: &[UsageSums], key: impl Fn(&UsageSums) -> Key) -> BTreeMap<Key, Part> {
    let mut parts: BTreeMap<Key, Part> = BTreeMap::new();
    for (key, totals) in merged(sums, &key) {
        parts.entry(key).or_default().totals = totals;
    }
    for one in sums {
        let outcome = one.group.first().cloned().unwrap_or_default();
        let part = parts.entry(key(one)).or_default();
        *part.outcomes.entry(outcome).or_default() += one.totals.count;
    }
    parts
}

fn seconds(window: Window, start: Option<Timestamp>, step: i64) -> f64 {
    start.map_or(1.0, |start| figures::seconds_within(window, start, step))
}

fn told((time, group): &Key, part: &Part, seconds: f64) -> Value {
    let mut told = part.told(seconds);
    told["group"] = json!(group);
    if let Some(time) = time {
        told["time"] = json!(time);
    }
    told
}
