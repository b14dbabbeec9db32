//! A run for a terminal.

use std::fmt;

use super::window::ALARM_AT;
use crate::domain::{Bound, Measure, Method, MonitorRun, Signal, State};

/// A run as a table.
pub struct Table<'a>(pub &'a MonitorRun);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = self.0;
        let scope = [
            run.scope.tap.as_ref().map(|tap| format!(" tap {tap}")),
            run.scope.deployment.as_ref().map(|of| format!(" deployment {of}")),
            run.scope.model.as_ref().map(|model| format!(" model {model}")),
        ];
        let scope = scope.into_iter().flatten().collect::<Vec<_>>().join(",");
        writeln!(
            f,
            "{}: {}, {:.0} to {:.0}{}{scope}",
            run.monitor,
            run.state.label(),
            run.from,
            run.to,
            if scope.is_empty() { "" } else { "," }
        )?;
        writeln!(
            f,
            "  {:<30} {:>14} {:>23} {:>10} {:>12} {:>10}  state",
            "", "value", "95% interval", "effective", "threshold", "violations"
        )?;
        run.signals.iter().try_for_each(|signal| write_signal(f, signal, run.method))?;
        if is_empty(run) {
            writeln!(f, "  nothing was found: no request and no score in that window and scope")?;
        }
        if run.unscored > 0 {
            writeln!(f, "  {} samples could not be scored", run.unscored)?;
        }
        if run.unreadable > 0 {
            writeln!(f, "  {} objects could not be read; the log names them", run.unreadable)?;
        }
        Ok(())
    }
}

/// Whether the window held nothing at all: a name may be wrong, or the bucket another one.
fn is_empty(run: &MonitorRun) -> bool {
    let mut measures = run.signals.iter().flat_map(|signal| &signal.measures);
    run.unscored == 0 && measures.all(|measure| measure.count == 0)
}

fn write_signal(f: &mut fmt::Formatter<'_>, signal: &Signal, method: Method) -> fmt::Result {
    writeln!(f, " {}", signal.kind.label())?;
    signal.measures.iter().try_for_each(|measure| write_measure(f, measure, method))?;
    for group in signal.groups.iter().filter(|_| signal.groups.len() > 1) {
        let model = if group.model.is_empty() { "-" } else { &group.model };
        writeln!(
            f,
            "    {}/{}/{model}: {} requests, {} tokens",
            group.tap, group.deployment, group.requests, group.total_tokens
        )?;
    }
    let outcomes: Vec<_> =
        signal.outcomes.iter().map(|(outcome, n)| format!("{} {n}", outcome.label())).collect();
    if !outcomes.is_empty() {
        writeln!(f, "    by outcome: {}", outcomes.join(", "))?;
    }
    Ok(())
}

fn write_measure(f: &mut fmt::Formatter<'_>, measure: &Measure, method: Method) -> fmt::Result {
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), figure);
    let interval = measure.low.zip(measure.high);
    let interval = interval.map(|(low, high)| format!("{} to {}", figure(low), figure(high)));
    let sign = match measure.bound {
        Bound::AtLeast => ">=",
        Bound::AtMost => "<=",
    };
    let threshold = measure.threshold.map(|limit| format!("{sign} {}", figure(limit)));
    let days = measure.violations.map(|of| format!("{} of {}", of.count, of.possible));
    let state = measure.threshold.map_or_else(String::new, |limit| state(measure, limit, method));
    writeln!(
        f,
        "  {:<30} {:>14} {:>23} {:>10} {:>12} {:>10}  {state}",
        measure.metric,
        number(measure.value),
        interval.unwrap_or_default(),
        figure(measure.effective.round()),
        threshold.unwrap_or_default(),
        days.unwrap_or_default(),
    )
}

/// The state; where the figure lies beyond its threshold and raises no alarm, why not.
fn state(measure: &Measure, limit: f64, method: Method) -> String {
    let label = measure.state.label();
    let beyond = measure.value.is_some_and(|value| measure.bound.is_beyond(value, limit));
    match measure.evidence.filter(|_| beyond && method == Method::Anytime) {
        Some(evidence) if measure.state != State::Violated => {
            format!("{label} (beyond, but the evidence is {} of {ALARM_AT})", figure(evidence))
        }
        _ => label.to_owned(),
    }
}

/// A figure with as many places as it deserves.
pub fn figure(value: f64) -> String {
    match value.abs() {
        whole if whole.fract() == 0.0 && whole < 1e15 => format!("{value:.0}"),
        big if big >= 1_000.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 0.01 => format!("{value:.3}"),
        little if little >= 0.001 => format!("{value:.5}"),
        less if less >= 0.0001 => format!("{value:.6}"),
        _ => format!("{value:.2e}"),
    }
}
