//! The worker that makes runs when they are due. A run that was missed while the process was away is
//! caught up once; of several that were missed, only the last. A monitor that is saved, changed or taken
//! back meanwhile is followed: its new schedule begins then.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::roster::Roster;
use super::run::{Outcome, RunError, Runner};
use super::schedule;
use crate::config::{Monitor, monitors_shown};
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
    /// What `plans` were made of.
    followed: Arc<[Monitor]>,
    in_force: watch::Receiver<Arc<[Monitor]>>,
    runner: Runner,
    metrics: Metrics,
    notices: mpsc::Sender<Notice>,
}

/// What is next for one monitor.
#[derive(Clone)]
struct Plan {
    monitor: Monitor,
    /// The last due time that is settled; `None` until the bucket was asked.
    settled: Option<Timestamp>,
    /// Not before this: the last attempt failed.
    retry: Option<Timestamp>,
    /// The failure that the log was told of.
    told: Option<&'static str>,
}

impl Plan {
    fn new(monitor: &Monitor, settled: Option<Timestamp>) -> Self {
        Self { monitor: monitor.clone(), settled, retry: None, told: None }
    }

    /// The same with what became of its monitor at `now`.
    fn with(&self, monitor: &Monitor, now: Timestamp) -> Self {
        let old = &self.monitor;
        let times = old.schedule == monitor.schedule && old.time_zone == monitor.time_zone;
        // What the old times left open is not due by the new ones.
        let settled = if times { self.settled } else { Some(now) };
        Self { monitor: monitor.clone(), settled, ..self.clone() }
    }
}

impl Watch {
    /// Watches the monitors of `roster`; what is to be told goes to `notices`.
    pub fn new(
        roster: &Roster,
        runner: Runner,
        metrics: Metrics,
        notices: mpsc::Sender<Notice>,
    ) -> Self {
        let mut in_force = roster.in_force();
        let followed = Arc::clone(&in_force.borrow_and_update());
        let plans = followed.iter().map(|of| Plan::new(of, None)).collect();
        Self { plans, followed, in_force, runner, metrics, notices }
    }

    /// Works until `stop`; a run under way is left, and caught up by the next process.
    pub async fn run(mut self, stop: CancellationToken) {
        let began = Timestamp::now();
        let work = async {
            loop {
                self.follow(Timestamp::now());
                for index in 0..self.plans.len() {
                    self.advance(index, began, Timestamp::now()).await;
                }
                let pause = self.pause(Timestamp::now());
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    // Where nobody can save any more, nothing is awaited.
                    Ok(()) = self.in_force.changed() => {}
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
    }

    /// Takes over what was saved or taken back since.
    fn follow(&mut self, now: Timestamp) {
        let monitors = Arc::clone(&self.in_force.borrow_and_update());
        if Arc::ptr_eq(&monitors, &self.followed) {
            return;
        }
        self.followed = Arc::clone(&monitors);
        let before = std::mem::take(&mut self.plans);
        for gone in before.iter().filter(|plan| !has(&monitors, plan)) {
            self.metrics.monitor_gone(&gone.monitor.name);
        }
        for monitor in monitors.iter() {
            let plan = before.iter().find(|plan| plan.monitor.name == monitor.name);
            self.plans.push(match plan {
                None => Plan::new(monitor, Some(now)),
                Some(plan) if is_same(&plan.monitor, monitor) => plan.clone(),
                Some(plan) => {
                    // It may have fewer thresholds, whose states would stand for ever.
                    self.metrics.monitor_changed(&monitor.name);
                    plan.with(monitor, now)
                }
            });
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

fn has(monitors: &[Monitor], plan: &Plan) -> bool {
    monitors.iter().any(|monitor| monitor.name == plan.monitor.name)
}

fn is_same(one: &Monitor, other: &Monitor) -> bool {
    monitors_shown(std::slice::from_ref(one)) == monitors_shown(std::slice::from_ref(other))
}

fn log(run: &MonitorRun) {
    let (monitor, state) = (&*run.monitor, run.state.label());
    tracing::info!(monitor, state, from = %run.from, to = %run.to, "a monitor ran");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::roster::Known;
    use super::super::tests::config_of;
    use super::*;
    use crate::bucket;
    use crate::config::MetricsLimits;

    const MINUTELY: &str = "monitors: [{name: m, schedule: '* * * * *', window: PT1M, step: PT1M, signals: {operations: {error_rate_max: 0.5}}}]";

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn what_is_saved_runs_by_its_schedule_from_then_on_and_what_is_taken_back_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().display();
        let config = config_of(&format!(
            "bucket: 'file://{place}/bucket'\nadmin: {{monitors_dir: '{place}/saved'}}"
        ));
        let metrics = Metrics::new(&MetricsLimits { models_max: 1, deployments_max: 1 });
        let runner = Runner::new(bucket::open(&config.bucket).await.unwrap(), &config);
        let (notices, _told) = mpsc::channel(9);
        let roster = Roster::open(&config);
        let mut watch = Watch::new(&roster, runner, metrics.clone(), notices);
        let began = at("2026-11-23T10:00:00Z");
        let ran = |result: &str| {
            let series = format!("flowtap_monitor_runs_total{{monitor=\"m\",result=\"{result}\"}}");
            let text = metrics.encode();
            text.lines().find_map(|line| line.strip_prefix(&series)?.trim().parse::<u64>().ok())
        };
        roster.save("m", MINUTELY, &Known::Absent).unwrap();
        watch.in_force.changed().await.unwrap();
        watch.follow(at("2026-11-23T10:00:30Z"));
        watch.advance(0, began, at("2026-11-23T10:00:59Z")).await;
        assert_eq!(
            ran("not_enough_data"),
            None,
            "what was due before it was saved is not made up for"
        );
        watch.advance(0, began, at("2026-11-23T10:01:00Z")).await;
        assert_eq!(ran("not_enough_data"), Some(1));

        roster.save("m", &MINUTELY.replace("0.5", "0.25"), &Known::Any).unwrap();
        watch.follow(at("2026-11-23T10:01:30Z"));
        watch.advance(0, began, at("2026-11-23T10:02:00Z")).await;
        assert_eq!(ran("not_enough_data"), Some(2), "another limit, and no minute was left out");
        let later = MINUTELY.replace("* * * * *", "30 12 * * *");
        roster.save("m", &later, &Known::Any).unwrap();
        watch.follow(at("2026-11-23T13:00:00Z"));
        watch.advance(0, began, at("2026-11-24T12:29:59Z")).await;
        assert_eq!(ran("not_enough_data"), Some(2), "today's time was over when it was saved");
        watch.advance(0, began, at("2026-11-24T12:30:00Z")).await;
        assert_eq!(ran("not_enough_data"), Some(3));

        let state = |text: &str| text.contains("flowtap_monitor_state{");
        assert!(state(&metrics.encode()));
        roster.revert("m", &Known::Any).unwrap();
        watch.follow(at("2026-11-24T12:31:00Z"));
        assert!(watch.plans.is_empty());
        assert!(!state(&metrics.encode()), "no state stands for ever");
        assert_eq!(ran("not_enough_data"), None, "nor any other series");
    }
}
