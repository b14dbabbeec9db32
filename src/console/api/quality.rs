//! Scores by criterion: averages, pass rates, violations, weighted by what each sample stands for.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::figures;
use super::params::{BY, CRITERION, DEPLOYMENT, FROM, MODEL, OUTCOME, PASS_SCORE, STEP, TAP, TO};
use super::{Answer, Asked, Problem, Route};
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
    let only = |row: &QualityRow| wanted.is_none_or(|wanted| row.criterion == wanted);
    let series = asked.view.store.quality(window, &filter, Some(step), axis)?;
    let series: Vec<_> = series.iter().filter(|row| only(row)).collect();
    let groups = match axis {
        Some(_) => asked.view.store.quality(window, &filter, None, axis)?,
        None => Vec::new(),
    };
    let groups = groups.iter().filter(|row| only(row));
    Ok(json!({
        "window": figures::window(window),
        "step_seconds": step,
        "pass_score": pass,
        "criteria": criteria(asked, window)?,
        "groups": groups.map(|row| told(row, None, pass)).collect::<Vec<_>>(),
        "series": series.iter().map(|row| told(row, Some(row.time), pass)).collect::<Vec<_>>(),
    }))
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
        "pass_rate": sums.pass_rate(pass),
        "violations": sums.count(|score| score < pass),
        "scores": scores,
    })
}
