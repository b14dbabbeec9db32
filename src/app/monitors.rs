//! Monitors and alerts: the workers of a process that serves, and single runs and tests from the command
//! line.

use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::index::Index;
use super::{Ground, StartError};
use crate::alert::{Delivery, Messenger};
use crate::bucket;
use crate::config::{Config, Monitor, Role};
use crate::console::Console;
use crate::domain::{Bound, Measure, MonitorRun, Notice, NoticeKind, Scope, SignalKind, State};
use crate::drain::Drain;
use crate::metrics::Metrics;
use crate::monitor::{Plan, Roster, RunError, Runner, Watch};

/// Notices that may wait to be handed to their targets.
const NOTICES_MAX: usize = 1024;

/// The workers of a process that serves: `monitor` makes runs until it is stopped, and `alert` ends when
/// what they have to tell is told.
#[derive(Default)]
pub(super) struct Monitors {
    stopping: CancellationToken,
}

impl Monitors {
    /// The same beside traffic: a sidecar alone has none.
    pub(super) fn of(
        ground: &Ground<'_>,
        index: Option<&Index>,
        console: &mut Console,
    ) -> Result<Self, StartError> {
        match ground.role {
            Role::Proxy => Ok(Self::default()),
            Role::Run | Role::Hub => Self::start(ground, index, console),
        }
    }

    /// Starts the workers, if there is a monitor or one may be saved, and lets the console show and save
    /// them.
    pub(super) fn start(
        ground: &Ground<'_>,
        index: Option<&Index>,
        console: &mut Console,
    ) -> Result<Self, StartError> {
        let Ground { config, bucket, metrics, drain, .. } = *ground;
        let (monitors, roster) = (Self::default(), Roster::open(config));
        let none = roster.in_force().borrow().is_empty();
        if !none || roster.read_only().is_none() {
            let runner = Runner::new(Arc::clone(bucket), config);
            let runner = match index {
                Some(index) => runner.with_index(index.counts()),
                None => runner,
            };
            start(config, &roster, runner, metrics, drain, monitors.stopping.clone())?;
        }
        console.watched_by(roster);
        Ok(monitors)
    }

    /// Ends them; who is late.
    pub(super) fn stop(&self, drain: &Drain, deadline: Instant) -> Vec<String> {
        self.stopping.cancel();
        let mut late = drain.join("monitor", deadline);
        late.extend(drain.join("alert", deadline));
        late
    }
}

fn start(
    config: &Config,
    roster: &Roster,
    runner: Runner,
    metrics: &Metrics,
    drain: &Drain,
    stop: CancellationToken,
) -> Result<(), StartError> {
    let (sender, notices) = mpsc::channel(NOTICES_MAX);
    let messenger = Messenger::new(&config.alerts)?;
    let watch = Watch::new(roster, runner, metrics.clone(), sender);
    let (runs, messages) = (
        Builder::new_current_thread().enable_all().build()?,
        Builder::new_current_thread().enable_all().build()?,
    );
    let metrics = metrics.clone();
    drain.thread("alert", move || messages.block_on(messenger.run(notices, metrics)))?;
    drain.thread("monitor", move || runs.block_on(watch.run(stop)))?;
    Ok(())
}

/// Sends a test message to every target, or to one.
pub fn test_alerts(config: &Config, target: Option<&str>) -> Result<Vec<Delivery>, StartError> {
    let messenger = Messenger::new(&config.alerts)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(messenger.test(&trial(Timestamp::now()), target)))
}

/// A notice that says nothing but that it arrived.
fn trial(now: Timestamp) -> Notice {
    let measure = Measure {
        metric: Arc::from("test"),
        value: None,
        low: None,
        high: None,
        count: 0,
        effective: 0.0,
        threshold: None,
        bound: Bound::AtLeast,
        state: State::Ok,
        evidence: None,
        violations: None,
    };
    Notice {
        kind: NoticeKind::Test,
        monitor: Arc::from("test"),
        scope: Scope::default(),
        signal: SignalKind::Operations,
        measure,
        since: now,
        time: now,
        window: (now, now),
        emails: Vec::new(),
    }
}

/// Why `flowtap monitor run` gave no result.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    /// There is no monitor, or none of this name.
    #[error("{0}")]
    Unknown(String),
    /// What was saved on the page cannot be read, or is faulty: what runs there is not known.
    #[error("{0}")]
    Saved(String),
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It could not be made.
    #[error("monitor {0}: {1}")]
    Run(String, RunError),
}

/// Runs one monitor, or all, as of `at`, and stores each result beside the scheduled ones. Nobody is
/// told of what it finds.
pub fn run_monitors(
    config: &Config,
    name: Option<&str>,
    at: Timestamp,
    now: Timestamp,
) -> Result<Vec<MonitorRun>, MonitorError> {
    let chosen = chosen(config, name)?;
    let runtime = Builder::new_current_thread().enable_all().build().map_err(StartError::from)?;
    runtime.block_on(async {
        let bucket = bucket::open(&config.bucket).await.map_err(StartError::from)?;
        let runner = Runner::new(bucket, config);
        let mut runs = Vec::new();
        for monitor in &chosen {
            let failed = |error| MonitorError::Run(monitor.name.to_string(), error);
            let run = runner.manual(monitor, at, now).await.map_err(failed)?;
            runner.keep(monitor, &run).await.map_err(failed)?;
            runs.push(run);
        }
        Ok(runs)
    })
}

/// Plans of the runs of one monitor, or of all, as of `at`: for whoever makes them elsewhere.
pub fn plan_monitors(
    config: &Config,
    name: Option<&str>,
    at: Timestamp,
) -> Result<Vec<Plan>, MonitorError> {
    let plan = |monitor: &Monitor| {
        let beyond = || MonitorError::Run(monitor.name.to_string(), RunError::Window(at));
        Plan::of(monitor, at).ok_or_else(beyond)
    };
    chosen(config, name)?.iter().map(plan).collect()
}

/// Of those that a process with this configuration has in force.
fn chosen(config: &Config, name: Option<&str>) -> Result<Vec<Monitor>, MonitorError> {
    let roster = Roster::open(config);
    if let Some(doubt) = roster.doubt(name) {
        return Err(MonitorError::Saved(doubt));
    }
    let in_force = Arc::clone(&roster.in_force().borrow());
    let known: Vec<&str> = in_force.iter().map(|monitor| &*monitor.name).collect();
    let wanted = |monitor: &&Monitor| name.is_none_or(|name| *monitor.name == *name);
    let chosen: Vec<Monitor> = in_force.iter().filter(wanted).cloned().collect();
    match (chosen.is_empty(), known.is_empty(), name) {
        (false, ..) => Ok(chosen),
        (true, false, Some(name)) => Err(MonitorError::Unknown(format!(
            "there is no monitor `{name}`; there is {}",
            known.join(", ")
        ))),
        _ => Err(MonitorError::Unknown(
            "the configuration has no `monitors`, and none was saved".to_owned(),
        )),
    }
}
