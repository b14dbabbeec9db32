//! Monitors and alerts, as their runs tell them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::figures;
use super::params::{FROM, LIMIT, MONITOR, RUN, STATE, TO};
use super::{Answer, Asked, Problem, Route};
use crate::store::{Alert, MonitorRun};

/// Runs or alerts where nobody says how many.
const LIMIT_USUAL: u64 = 50;

pub(super) static MONITORS: Route = Route {
    path: "/monitors",
    about: "The runs of a window, the latest first, and the latest run of each monitor in full.",
    parameters: &[&FROM, &TO, &MONITOR, &LIMIT],
    answer: Answer::Json("Monitors", monitors),
};

pub(super) static ONE: Route = Route {
    path: "/monitors/{id}",
    about: "One run in full.",
    parameters: &[&RUN],
    answer: Answer::Json("Run", run),
};

pub(super) static ALERTS: Route = Route {
    path: "/alerts",
    about: "The alerts that a run of the window speaks of, the latest first.",
    parameters: &[&FROM, &TO, &STATE, &LIMIT],
    answer: Answer::Json("Alerts", alerts),
};

fn monitors(asked: &Asked<'_>) -> Result<Value, Problem> {
    let window = asked.params.window()?;
    let limit = usize::try_from(asked.params.whole(&LIMIT, LIMIT_USUAL)).unwrap_or(usize::MAX);
    let runs = asked.view.store.runs(asked.params.text(&MONITOR), window, limit)?;
    let mut latest: BTreeMap<&str, &MonitorRun> = BTreeMap::new();
    for run in &runs {
        latest.entry(&run.monitor).or_insert(run);
    }
    Ok(json!({
        "window": figures::window(window),
        "latest": latest.values().map(|run| &run.document).collect::<Vec<_>>(),
        "runs": runs.iter().map(|run| json!({
            "id": run.id, "monitor": run.monitor, "at": run.at, "state": run.state,
        })).collect::<Vec<_>>(),
    }))
}

fn run(asked: &Asked<'_>) -> Result<Value, Problem> {
    let id = asked.params.text(&RUN).unwrap_or_default();
    let run = asked.view.store.run(id)?.ok_or_else(|| Problem::unknown("this run"))?;
    Ok(run.document)
}

fn alerts(asked: &Asked<'_>) -> Result<Value, Problem> {
    let window = asked.params.window()?;
    let limit = usize::try_from(asked.params.whole(&LIMIT, LIMIT_USUAL)).unwrap_or(usize::MAX);
    let alerts = asked.view.store.alerts(asked.params.text(&STATE), window, limit)?;
    Ok(json!({
        "window": figures::window(window),
        "alerts": alerts.iter().map(alert).collect::<Vec<_>>(),
    }))
}

fn alert(alert: &Alert) -> Value {
    json!({
        "id": alert.id, "monitor": alert.monitor, "state": alert.state, "opened": alert.opened,
        "updated": alert.updated, "details": alert.document,
    })
}
