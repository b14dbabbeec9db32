//! Tokens over time, by group and by who says so, and how they are distributed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::figures;
use super::params::{BY, DEPLOYMENT, FROM, MODEL, OUTCOME, STEP, TAP, TO};
use super::{Answer, Asked, Problem, Route};
use crate::rollup::Totals;
use crate::store::{Axis, UsageSums};

pub(super) static ROUTE: Route = Route {
    path: "/usage",
    about: "Tokens of all requests: in all, by source, over time, by group, and their distribution. \
            Without `tap`, tokens that a flow's tap tells of calls which another tap saw (`joined`) are \
            left out, so that no token counts twice.",
    parameters: &[&FROM, &TO, &TAP, &DEPLOYMENT, &MODEL, &OUTCOME, &STEP, &BY],
    answer: Answer::Json("Usage", answer),
};

fn answer(asked: &Asked<'_>) -> Result<Value, Problem> {
    let params = &asked.params;
    let (window, filter) = (params.window()?, params.filter());
    let (step, axis) = (params.step(window)?, params.axis());
    let mut axes = vec![Axis::Tap, Axis::Operation];
    axes.extend(axis);
    let mut sums = asked.view.store.usage(window, &filter, Some(step), &axes)?;
    if filter.tap.is_none() {
        figures::once(&mut sums);
    }
    let mut totals = Totals::default();
    sums.iter().for_each(|one| totals.merge(&one.totals));
    let grouped = axis.is_some();
    let groups = merged(&sums, |one| (None, group(one, grouped)));
    let series = merged(&sums, |one| (Some(one.time), group(one, grouped)));
    Ok(json!({
        "window": figures::window(window),
        "step_seconds": step,
        "requests": totals.count,
        "usage_unknown": totals.usage_unknown,
        "tokens": figures::tokens(&figures::all_tokens(&totals)),
        "by_source": figures::by_source(&totals),
        "groups": groups.iter().map(|(key, totals)| point(key, totals)).collect::<Vec<_>>(),
        "series": series.iter().map(|(key, totals)| point(key, totals)).collect::<Vec<_>>(),
        "input_tokens": figures::distribution(&totals.input_tokens),
        "output_tokens": figures::distribution(&totals.output_tokens),
    }))
}

/// A span's start where there are spans, a group where there are groups.
type Key = (Option<Timestamp>, Option<String>);

/// The value on the axis that was asked for, which comes last.
pub(super) fn group(one: &UsageSums, grouped: bool) -> Option<String> {
    one.group.last().filter(|_| grouped).cloned()
}

/// Totals put together by what `key` makes of them.
pub(super) fn merged(sums: &[UsageSums], key: impl Fn(&UsageSums) -> Key) -> BTreeMap<Key, Totals> {
    let mut merged: BTreeMap<Key, Totals> = BTreeMap::new();
    for one in sums {
        merged.entry(key(one)).or_default().merge(&one.totals);
    }
    merged
}

fn point((time, group): &Key, totals: &Totals) -> Value {
    let mut point = json!({"group": group, "requests": totals.count});
    if let Some(time) = time {
        point["time"] = json!(time);
    }
    point["usage_unknown"] = json!(totals.usage_unknown);
    point["tokens"] = figures::tokens(&figures::all_tokens(totals));
    point
}
