//! What monitors find, and what becomes of the messages about it.

use prometheus::Result;

use super::Metrics;
use super::families as f;
use super::registry::{Counters, Gauges, Registrar};
use crate::domain::{MonitorRun, State};

/// The families of monitors and alerts. Monitors, their thresholds and the alerts' targets are those of
/// the configuration and the few that may be saved, and what is taken back takes its series along, so the
/// labels are bounded.
pub(super) struct Monitors {
    state: Gauges<3>,
    violations: Counters<3>,
    runs: Counters<2>,
    unreadable: Counters<1>,
    alerts: Counters<2>,
}

impl Monitors {
    pub(super) fn register(reg: &mut Registrar) -> Result<Self> {
        Ok(Self {
            state: reg.gauges(&f::MONITOR_STATE)?,
            violations: reg.counters(&f::VIOLATIONS)?,
            runs: reg.counters(&f::MONITOR_RUNS)?,
            unreadable: reg.counters(&f::MONITOR_UNREADABLE)?,
            alerts: reg.counters(&f::ALERTS)?,
        })
    }
}

impl Metrics {
    /// A monitor ran and its result stands.
    pub fn monitor_ran(&self, run: &MonitorRun) {
        let families = &self.inner.monitors;
        families.runs.of([&run.monitor, run.state.label()]).inc();
        families.unreadable.of([&run.monitor]).inc_by(run.unreadable);
        for signal in &run.signals {
            for measure in signal.measures.iter().filter(|measure| measure.threshold.is_some()) {
                let labels = [&*run.monitor, signal.kind.label(), &*measure.metric];
                families.state.of(labels).set(i64::from(measure.state.code()));
                let violated = u64::from(measure.state == State::Violated);
                families.violations.of(labels).inc_by(violated);
            }
        }
    }

    /// Another process made the run.
    pub fn monitor_taken(&self, monitor: &str) {
        self.inner.monitors.runs.of([monitor, "taken"]).inc();
    }

    /// A run failed for `reason`, and is tried again.
    pub fn monitor_failed(&self, monitor: &str, reason: &'static str) {
        self.inner.monitors.runs.of([monitor, reason]).inc();
    }

    /// A monitor is another under its name: its states no longer hold.
    pub fn monitor_changed(&self, monitor: &str) {
        self.inner.monitors.state.forget("monitor", monitor);
    }

    /// A monitor is no more, and neither are its series: whoever saves ever other names adds none for ever.
    pub fn monitor_gone(&self, monitor: &str) {
        self.monitor_changed(monitor);
        let families = &self.inner.monitors;
        families.violations.forget("monitor", monitor);
        families.runs.forget("monitor", monitor);
        families.unreadable.forget("monitor", monitor);
    }

    /// A message to `target` met its fate.
    pub fn alert(&self, target: &str, result: &'static str) {
        self.inner.monitors.alerts.of([target, result]).inc();
    }
}
