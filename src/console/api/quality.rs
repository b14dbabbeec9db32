//! Scores by criterion: averages, pass rates, violations, weighted by what each sample stands for.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::figures;
use super::params::{BY, DEPLOYMENT, FROM, MODEL, OUTCOME, PASS_SCORE, STEP, TAP, TO, YARDSTICK};
use super::{Answer, Asked, Problem, Route};
use crate::domain::{Grade, Scale, Yardstick};
use crate::monitor::{self, Class, Estimate};
use crate::store::{QualityRow, ScoreSums, Scored, Window};

/// What passes where nobody says: the article's acceptable score.
const PASS_SCORE_USUAL: u64 = 3;

pub(super) static ROUTE: Route = Route {
    path: "/quality",
    about: "What the window's samples were given, by criterion: judged, computed and custom ones, each \
            on its `scale`, which is `score` (1 to 5), `ratio` (0 to 1) or `boolean` (the average is \
            the share of those that are true). Scores have a pass rate and violations (scores below \
            `pass_score`), too. In all, over time and by group. Everything weighs as many requests as \
            its own probability says; what a judge gave that had failed its own test is told as \
            `drifted` and is part of no figure.",
    parameters: &[
        &FROM,
        &TO,
        &TAP,
        &DEPLOYMENT,
        &MODEL,
        &OUTCOME,
        &YARDSTICK,
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
    let wanted = params.text(&YARDSTICK);
    let mut series = asked.view.store.quality(window, &filter, Some(step), axis)?;
    series.retain(|row| wanted.is_none_or(|wanted| row.by.label() == wanted));
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
    let mut merged: BTreeMap<(Option<String>, Yardstick), QualityRow> = BTreeMap::new();
    for row in series {
        let group = group(row);
        let empty =
            || QualityRow { group: group.clone(), sums: ScoreSums::default(), ..row.clone() };
        let into = merged.entry((group.clone(), row.by.clone())).or_insert_with(empty);
        into.sums.merge(&row.sums);
    }
    merged.into_values().collect()
}

/// Every criterion with scores from 1 to 5 in the window.
pub(super) fn criteria(asked: &Asked<'_>, window: Window) -> Result<Vec<Value>, Problem> {
    let rows = asked.view.store.quality(window, &asked.params.filter(), None, None)?;
    let rows = rows.iter().filter(|row| row.by.scale == Scale::Score);
    let pass = pass_score(asked);
    Ok(rows.map(|row| told(row, None, pass)).collect())
}

fn pass_score(asked: &Asked<'_>) -> u8 {
    u8::try_from(asked.params.whole(&PASS_SCORE, PASS_SCORE_USUAL)).unwrap_or(3)
}

fn told(row: &QualityRow, time: Option<Timestamp>, pass: u8) -> Value {
    let mut told = match row.by.scale {
        Scale::Score => of_scores(&row.sums, pass),
        Scale::Ratio => of_values(&row.sums, monitor::average(&classes(&row.sums), 0.0, 1.0)),
        Scale::Boolean => of_values(&row.sums, monitor::share(&classes(&row.sums))),
    };
    told["criterion"] = json!(row.by.label());
    told["scale"] = json!(row.by.scale);
    told["group"] = json!(row.group);
    for (name, count) in [
        ("count", row.sums.count(|_| true)),
        ("failed", row.sums.failed()),
        ("drifted", row.sums.drifted()),
    ] {
        told[name] = json!(count);
    }
    if let Some(time) = time {
        told["time"] = json!(time);
    }
    told
}

/// What was given, as estimates take it.
fn classes(sums: &ScoreSums) -> Vec<Class> {
    valued(sums, Grade::value)
}

/// The same, each as `value` makes it.
fn valued(sums: &ScoreSums, value: impl Fn(Grade) -> f64) -> Vec<Class> {
    let class = |(grade, one): (Grade, &Scored)| Class {
        value: value(grade),
        weight: 1.0 / one.probability,
        heaviest: 1.0 / one.least,
        count: one.count,
    };
    sums.valid().map(class).collect()
}

/// The ends of a 95% interval, as monitors compute it.
fn interval(estimate: Option<Estimate>) -> Option<[f64; 2]> {
    estimate.map(|estimate| [estimate.low, estimate.high])
}

/// What follows from scores of 1 to 5.
fn of_scores(sums: &ScoreSums, pass: u8) -> Value {
    let passes = |grade: Grade| grade >= Grade::Score(pass);
    let shares = valued(sums, |grade| f64::from(u8::from(passes(grade))));
    let scores: Vec<_> = sums
        .valid()
        .map(|(grade, one)| {
            let score = grade.value() as u8;
            json!({"score": score, "probability": one.probability, "count": one.count})
        })
        .collect();
    json!({
        "effective": sums.effective_n(),
        "average": sums.average(),
        "average_interval": interval(monitor::average(&classes(sums), 1.0, 5.0)),
        "pass_rate": sums.pass_rate(pass),
        "pass_rate_interval": interval(monitor::share(&shares)),
        "violations": sums.count(|grade| !passes(grade)),
        "scores": scores,
    })
}

/// What follows from values of 0 to 1, of which none passes or fails.
fn of_values(sums: &ScoreSums, estimate: Option<Estimate>) -> Value {
    json!({
        "effective": sums.effective_n(),
        "average": sums.average(),
        "average_interval": interval(estimate),
        "pass_rate": null,
        "pass_rate_interval": null,
        "violations": null,
        "scores": [],
    })
}
