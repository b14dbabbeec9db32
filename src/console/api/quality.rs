//! Scores by criterion: averages, pass rates, violations, weighted by what each sample stands for.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::figures;
use super::params::{BY, CRITERION, DEPLOYMENT, FROM, MODEL, OUTCOME, PASS_SCORE, STEP, TAP, TO};
use super::{Answer, Asked, Problem, Route};
use crate::domain::Criterion;
use crate::monitor::{self, Class, Estimate};
use crate::store::{QualityRow, ScoreSums, Window};

/// What passes where nobody says: the article's acceptable score.
const PASS_SCORE_USUAL: u64 = 3;

pub(super) static ROUTE: Route = Route {
    path: "/quality",
    about: "Scores of the window's samples by criterion: average, pass rate and violations (scores \
            below `pass_score`), in all, over time and by group. Every score weighs as many requests as \
            its sample stands for.",
    parameters: &[
        &FROM,
        &TO,
        &TAP,
        &DEPLOYMENT,
        &MODEL,
        &OUTCOME,
        &CRITERION,
        &PASS_SCORE,
        &STEP,
        &BY,
    ],
    answer: Answer::Json("Quality", answer),
};

fn answer(asked: &Asked<'_>) -> Result<Value, Problem> {
    let params = &asked.params;
    let (window, filter) = (params.window()?, params.filter());
    let (step, axis) = (params.step(window)?, params.axis());
    let pass = pass_score(asked);
    let wanted = params.criterion();
    let mut series = asked.view.store.quality(window, &filter, Some(step), axis)?;
    series.retain(|row| wanted.is_none_or(|wanted| row.criterion == wanted));
    let groups = match axis {
        Some(_) => merged(&series, |row| row.group.clone()),
        None => Vec::new(),
    };
    let all = merged(&series, |_| None);
    let told =
        |rows: &[QualityRow]| -> Vec<_> { rows.iter().map(|row| told(row, None, pass)).collect() };
    Ok(json!({
        "window": figures::window(window),
        "step_seconds": step,
        "pass_score": pass,
        "criteria": told(&all),
        "groups": told(&groups),
        "series": series.iter().map(|row| self::told(row, Some(row.time), pass)).collect::<Vec<_>>(),
    }))
}

/// The rows of a series put together by criterion and what `group` makes of them.
fn merged(series: &[QualityRow], group: impl Fn(&QualityRow) -> Option<String>) -> Vec<QualityRow> {
    let mut merged: BTreeMap<(Option<String>, Criterion), QualityRow> = BTreeMap::new();
    for row in series {
        let group = group(row);
        let empty =
            || QualityRow { group: group.clone(), sums: ScoreSums::default(), ..row.clone() };
        let into = merged.entry((group.clone(), row.criterion)).or_insert_with(empty);
        into.sums.merge(&row.sums);
    }
    merged.into_values().collect()
}

/// Every criterion that was judged in the window.
pub(super) fn criteria(asked: &Asked<'_>, window: Window) -> Result<Vec<Value>, Problem> {
    let rows = asked.view.store.quality(window, &asked.params.filter(), None, None)?;
    let wanted = asked.params.criterion();
    let rows = rows.iter().filter(|row| wanted.is_none_or(|wanted| row.criterion == wanted));
    let pass = pass_score(asked);
    Ok(rows.map(|row| told(row, None, pass)).collect())
}

fn pass_score(asked: &Asked<'_>) -> u8 {
    u8::try_from(asked.params.whole(&PASS_SCORE, PASS_SCORE_USUAL)).unwrap_or(3)
}

fn told(row: &QualityRow, time: Option<Timestamp>, pass: u8) -> Value {
    let mut told = estimates(&row.sums, pass);
    told["criterion"] = json!(row.criterion);
    told["group"] = json!(row.group);
    if let Some(time) = time {
        told["time"] = json!(time);
    }
    told
}

/// The valid scores, each as `value` makes it.
fn classes(sums: &ScoreSums, value: impl Fn(u8) -> f64) -> Vec<Class> {
    let valid = sums.scored().iter().filter_map(|one| Some((one.score?, one)));
    let class = |(score, one): (u8, &crate::store::Scored)| Class {
        value: value(score),
        weight: 1.0 / one.probability,
        count: one.count,
    };
    valid.map(class).collect()
}

/// The ends of a 95% interval, as monitors compute it.
fn interval(estimate: Option<Estimate>) -> Option<[f64; 2]> {
    estimate.map(|estimate| [estimate.low, estimate.high])
}

/// What follows from the counts.
fn estimates(sums: &ScoreSums, pass: u8) -> Value {
    let scores = sums.scored().iter();
    let scores: Vec<_> = scores
        .map(|one| json!({"score": one.score, "probability": one.probability, "count": one.count}))
        .collect();
    json!({
        "count": sums.count(|_| true),
        "failed": sums.failed(),
        "effective": sums.effective_n(),
        "average": sums.average(),
        "average_interval": interval(monitor::average(&classes(sums, f64::from), 1.0, 5.0)),
        "pass_rate": sums.pass_rate(pass),
        "pass_rate_interval": interval(monitor::share(&classes(sums, |score| {
            f64::from(u8::from(score >= pass))
        }))),
        "violations": sums.count(|score| score < pass),
        "scores": scores,
    })
}
