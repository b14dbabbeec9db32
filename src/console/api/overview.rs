//! All of a window at a glance.

use serde_json::{Value, json};

use super::figures::{self, Outcomes};
use super::params::{DEPLOYMENT, FROM, MODEL, OUTCOME, PASS_SCORE, TAP, TO};
use super::{Answer, Asked, Problem, Route, quality};
use crate::rollup::Totals;
use crate::store::{Axis, Window};

/// Names of one axis that are told.
const NAMES_MAX: usize = 200;
/// Open alerts that are counted.
const ALERTS_MAX: usize = 1000;

pub(super) static ROUTE: Route = Route {
    path: "/overview",
    about: "All of a window at a glance: requests, tokens, latency, quality, open alerts, and the \
            names that filters take.",
    parameters: &[&FROM, &TO, &TAP, &DEPLOYMENT, &MODEL, &OUTCOME, &PASS_SCORE],
    answer: Answer::Json("Overview", answer),
};

fn answer(asked: &Asked<'_>) -> Result<Value, Problem> {
    let (window, filter) = (asked.params.window()?, asked.params.filter());
    let store = &asked.view.store;
    let axes = [Axis::Tap, Axis::Operation, Axis::Outcome];
    let mut sums = store.usage(window, &filter, None, &axes)?;
    let at = |one: &crate::store::UsageSums, axis: usize| one.group.get(axis).cloned();
    let mut taps: std::collections::BTreeMap<String, u64> = Default::default();
    for one in &sums {
        *taps.entry(at(one, 0).unwrap_or_default()).or_default() += one.totals.count;
    }
    let outcomes = Outcomes::of(
        sums.iter().map(|one| (one.group.get(2).map_or("", String::as_str), one.totals.count)),
    );
    if filter.tap.is_none() {
        figures::once(&mut sums);
    }
    let mut totals = Totals::default();
    sums.iter().for_each(|one| totals.merge(&one.totals));
    let alerts = store.alerts(
        Some("open"),
        Window { from: jiff::Timestamp::UNIX_EPOCH, ..window },
        ALERTS_MAX,
    )?;
    Ok(json!({
        "window": figures::window(window),
        "requests": outcomes.told(),
        "by_tap": taps,
        "tokens": figures::tokens(&figures::all_tokens(&totals)),
        "usage_unknown": totals.usage_unknown,
        "latency_ms": figures::quantiles(&totals.latency_ms),
        "first_token_ms": figures::quantiles(&totals.first_token_ms),
        "quality": quality::criteria(asked, window)?,
        "open_alerts": alerts.len(),
        "names": {
            "taps": store.values(Axis::Tap, NAMES_MAX)?,
            "deployments": store.values(Axis::Deployment, NAMES_MAX)?,
            "models": store.values(Axis::Model, NAMES_MAX)?,
        },
        "caught_up": asked.view.progress.caught_up(),
    }))
}
