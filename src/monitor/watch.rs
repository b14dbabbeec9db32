//! The worker that makes runs when they are due. A run that was missed while the process was away is
//! caught up once; of several that were missed, only the last.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::run::{Outcome, RunError, Runner};
use super::schedule;
use crate::config::{Config, Monitor};
use crate::domain::{MonitorRun, Notice};
use crate::metrics::Metrics;

/// The longest sleep: a clock that was set is noticed so soon.
const SLEEP_MAX: Duration = Duration::from_secs(30);
/// The shortest sleep.
const SLEEP_MIN: Duration = Duration::from_millis(500);
/// A run that failed is tried again after so long.
const RETRY_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// Watches the clock for all monitors.
pub struct Watch {
    plans: Vec<Plan>,
    runner: Runner,
    metrics: Metrics,
    notices: mpsc::Sender<Notice>,
}

/// What is next for one monitor.
struct Plan {
    monitor: Monitor,
    /// The last due time that is settled; `None` until the bucket was asked.
    settled: Option<Timestamp>,
    /// Not before this: the last attempt failed.
    retry: Option<Timestamp>,
    /// The failure that the log was told of.
    told: Option<&'static str>,
}

impl Watch {
    /// Watches the monitors of `config`; what is to be told goes to `notices`.
    pub fn new(
        config: &Config,
        runner: Runner,
        metrics: Metrics,
        notices: mpsc::Sender<Notice>,
    ) -> Self {
        let plan = |monitor: &Monitor| Plan {
            monitor: monitor.clone(),
            settled: None,
            retry: None,
            told: None,
        };
        let plans = config.monitors.iter().map(plan).collect();
        Self { plans, runner, metrics, notices }
    }

    /// Works until `stop`; a run under way is left, and caught up by the next process.
    pub async fn run(mut self, stop: CancellationToken) {
        let began = Timestamp::now();
        let work = async {
            loop {
                for index in 0..self.plans.len() {
                    self.advance(index, began, Timestamp::now()).await;
                }
                tokio::time::sleep(self.pause(Timestamp::now())).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    /// How long nothing is due.
    fn pause(&self, now: Timestamp) -> Duration {
        let due = self.plans.iter().filter_map(|plan| {
            let next = schedule::next(&plan.monitor, plan.settled?);
            plan.retry.or(next)
        });
        let left = due.min().map_or(SignedDuration::MAX, |due| due.duration_since(now));
        // What is due already waits for the index.
        Duration::try_from(left).unwrap_or(Duration::ZERO).clamp(SLEEP_MIN, SLEEP_MAX)
    }

    /// Makes the last run that is due, if one is. A monitor that never ran counts from `began`.
    async fn advance(&mut self, index: usize, began: Timestamp, now: Timestamp) {
        let Some(plan) = self.plans.get(index) else { return };
        if plan.retry.is_some_and(|retry| now < retry) {
            return;
        }
        let result = self.attempt(plan, began, now).await;
        let Some(plan) = self.plans.get_mut(index) else { return };
        match result {
            Ok(settled) => {
                (plan.settled, plan.retry, plan.told) = (Some(settled), None, None);
            }
            Err(error) => {
                self.metrics.monitor_failed(&plan.monitor.name, error.label());
                plan.retry = now.checked_add(RETRY_AFTER).ok();
                if plan.told.replace(error.label()) != Some(error.label()) {
                    let monitor = &*plan.monitor.name;
                    tracing::warn!(monitor, %error, "a monitor cannot run; it is tried every minute");
                }
            }
        }
    }

    /// The due time up to which all is settled.
    async fn attempt(
        &self,
        plan: &Plan,
        began: Timestamp,
        now: Timestamp,
    ) -> Result<Timestamp, RunError> {
        let monitor = &plan.monitor;
        let since = match plan.settled {
            Some(settled) => settled,
            // A monitor that never ran begins with the process, however long the bucket was away
            // then: what it could have found before nobody asked for.
            None => self.runner.before(monitor, now).await?.map_or(began, |run| run.at),
        };
        let Some(due) = schedule::latest(monitor, since, now) else { return Ok(since) };
        if self.runner.is_early(due, now) {
            return Ok(since);
        }
        match self.runner.scheduled(monitor, due, now).await? {
            Outcome::Stands(run, notices) => {
                self.metrics.monitor_ran(&run);
                log(&run);
                notices.into_iter().for_each(|notice| self.tell(notice));
            }
            Outcome::Taken => self.metrics.monitor_taken(&monitor.name),
        }
        Ok(due)
    }

    fn tell(&self, notice: Notice) {
        if let Err(error) = self.notices.try_send(notice) {
            self.metrics.alert("all", "dropped");
            tracing::error!(%error, "an alert was dropped: too many wait");
        }
    }
}

fn log(run: &MonitorRun) {
    let (monitor, state) = (&*run.monitor, run.state.label());
    tracing::info!(monitor, state, from = %run.from, to = %run.to, "a monitor ran");
}
