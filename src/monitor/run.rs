//! One run: count, compute, enter into the book, and be the one whose result stands.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::{Timestamp, ToSpan};

use super::book::{self, Telling};
use super::indexed::Indexed;
use super::reader::{self, Counted};
use super::signals::signals;
use super::window::Window;
use crate::bucket::{Bucket, BucketError, Lines};
use crate::config::{Config, Monitor};
use crate::domain::{Dataset, ExchangeId, MonitorRun, Notice, SignalKind, State, Trigger};
use crate::ledger::Hour;

/// How many days back the run before is looked for day by day; older ones are found in one listing.
const DAYS_BACK: i64 = 8;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The bucket.
    #[error("{0}")]
    Bucket(#[from] BucketError),
    /// The window lies beyond the calendar.
    #[error("the window of a run at {0} lies beyond the calendar")]
    Window(Timestamp),
    /// The result could not be packed.
    #[error("the result cannot be packed: {0}")]
    Pack(#[from] io::Error),
}

impl RunError {
    /// The value of the label `reason`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Bucket(error) => error.kind.label(),
            Self::Window(_) => "window",
            Self::Pack(_) => "pack",
        }
    }
}

/// What runs share.
#[derive(Clone)]
pub struct Runner {
    bucket: Arc<dyn Bucket>,
    index: Option<Indexed>,
    instance: Arc<str>,
    quiet: Duration,
}

/// What became of a scheduled run.
#[derive(Debug)]
pub enum Outcome {
    /// It stands, and this follows from it.
    Stands(Box<MonitorRun>, Vec<Notice>),
    /// Another hub made it.
    Taken,
}

impl Runner {
    /// Runs over `bucket`, as the configuration says.
    pub fn new(bucket: Arc<dyn Bucket>, config: &Config) -> Self {
        let (instance, quiet) = (config.instance.clone(), config.alerts.quiet);
        Self { bucket, index: None, instance, quiet }
    }

    /// The same, counting in the index wherever it has all that a window needs.
    pub fn with_index(self, index: Indexed) -> Self {
        Self { index: Some(index), ..self }
    }

    /// Whether a run that is due at `due` should wait for the index.
    pub fn is_early(&self, due: Timestamp, now: Timestamp) -> bool {
        self.index.as_ref().is_some_and(|index| index.is_early(due, now))
    }

    /// Makes the run of `monitor` that is due at `due`, unless another hub has. Its result is stored, and
    /// of several hubs exactly one is told that it stands.
    pub async fn scheduled(
        &self,
        monitor: &Monitor,
        due: Timestamp,
        now: Timestamp,
    ) -> Result<Outcome, RunError> {
        let name = object_name(monitor, due, Trigger::Schedule, "");
        if !self.bucket.list(&name).await?.is_empty() {
            return Ok(Outcome::Taken);
        }
        let mut run = self.compute(monitor, due, now, Trigger::Schedule).await?;
        let before = self.before(monitor, due).await?;
        let alerts = before.map(|before| before.alerts).unwrap_or_default();
        let notices = book::enter(&mut run, &alerts, &telling(monitor, self.quiet));
        if self.claim(&name, &run).await? {
            Ok(Outcome::Stands(Box::new(run), notices))
        } else {
            Ok(Outcome::Taken)
        }
    }

    /// Makes a run that nobody scheduled, as of `at`. It is not entered into the book.
    pub async fn manual(
        &self,
        monitor: &Monitor,
        at: Timestamp,
        now: Timestamp,
    ) -> Result<MonitorRun, RunError> {
        self.compute(monitor, at, now, Trigger::Manual).await
    }

    /// Stores a manual run beside the scheduled ones.
    pub async fn keep(&self, monitor: &Monitor, run: &MonitorRun) -> Result<(), RunError> {
        let attempt = format!("-manual-{}", run.attempt);
        let name = object_name(monitor, run.at, Trigger::Manual, &attempt);
        Ok(self.bucket.put(&name, pack(run)?).await?)
    }

    async fn compute(
        &self,
        monitor: &Monitor,
        at: Timestamp,
        now: Timestamp,
        trigger: Trigger,
    ) -> Result<MonitorRun, RunError> {
        let window = Window::of(monitor, at).ok_or(RunError::Window(at))?;
        let counted = self.count(monitor, &window).await?;
        let signals = signals(monitor, &counted.tally);
        let attempt = ExchangeId::new(now);
        let id = match trigger {
            Trigger::Schedule => format!("{}@{}", monitor.name, compact(at)),
            Trigger::Manual => format!("{}@{}-manual-{attempt}", monitor.name, compact(at)),
        };
        Ok(MonitorRun {
            schema: MonitorRun::SCHEMA.to_owned(),
            id,
            attempt,
            monitor: monitor.name.clone(),
            at,
            made: now,
            instance: self.instance.clone(),
            trigger,
            from: window.from,
            to: window.to,
            scope: monitor.scope.clone(),
            method: monitor.method,
            state: State::worst(signals.iter().map(|signal| signal.state)),
            signals,
            alerts: Vec::new(),
            unscored: counted.tally.unscored,
            unreadable: counted.unreadable,
        })
    }

    /// What the index cannot tell, the bucket can.
    async fn count(&self, monitor: &Monitor, window: &Window) -> Result<Counted, RunError> {
        if let Some(index) = self.index.as_ref().filter(|index| index.has(window)) {
            match index.count(monitor, window) {
                Ok(counted) => return Ok(counted),
                Err(error) => tracing::warn!(
                    monitor = &*monitor.name,
                    %error,
                    "the index cannot be read; the bucket is"
                ),
            }
        }
        Ok(reader::count(&*self.bucket, monitor, window).await?)
    }

    /// Puts the result under the run's name; false where another hub's is there already.
    async fn claim(&self, name: &str, run: &MonitorRun) -> Result<bool, RunError> {
        let body = pack(run)?;
        let put = self.bucket.put_if_absent(name, body).await;
        if put == Ok(true) {
            return Ok(true);
        }
        // The answer to an earlier attempt may have been lost: then what is there is ours.
        let there = self.bucket.get(name).await;
        match (put, there) {
            (_, Ok(body)) => Ok(unpack(&body).is_some_and(|there| there.attempt == run.attempt)),
            (Err(error), Err(_)) | (Ok(_), Err(error)) => Err(error.into()),
        }
    }

    /// The last scheduled run before `due`.
    pub async fn before(
        &self,
        monitor: &Monitor,
        due: Timestamp,
    ) -> Result<Option<MonitorRun>, RunError> {
        let folder = folder(monitor);
        let own = object_name(monitor, due, Trigger::Schedule, "");
        for day in 0..DAYS_BACK {
            let Ok(day) = due.checked_sub((day * 24).hours()) else { break };
            let prefix = format!("{folder}date={}/", day.strftime("%Y-%m-%d"));
            if let Some(run) = self.last_below(&prefix, &own).await? {
                return Ok(Some(run));
            }
        }
        self.last_below(&folder, &own).await
    }

    /// The readable scheduled run with the greatest name below `own`. Names sort as times do.
    async fn last_below(&self, prefix: &str, own: &str) -> Result<Option<MonitorRun>, RunError> {
        let listed = self.bucket.list(prefix).await?;
        let names = listed.iter().rev().map(|listed| listed.name.as_str());
        for name in names.filter(|name| *name < own && !name.contains("-manual-")) {
            match unpack(&self.bucket.get(name).await?) {
                Some(run) => return Ok(Some(run)),
                None => tracing::warn!(name, "this is no result of a monitor; it is passed over"),
            }
        }
        Ok(None)
    }
}

/// What the monitor's settings say about telling.
fn telling(monitor: &Monitor, quiet: Duration) -> Telling {
    let told = [
        (SignalKind::GenerationQuality, monitor.quality.as_ref().map(|limits| limits.alert)),
        (SignalKind::TokenStatistics, monitor.tokens.as_ref().map(|limits| limits.alert)),
        (SignalKind::Operations, monitor.operations.as_ref().map(|limits| limits.alert)),
    ];
    let signals = told.into_iter().filter(|(_, alert)| *alert == Some(true));
    let signals = signals.map(|(kind, _)| kind).collect();
    Telling { signals, quiet, emails: monitor.emails.clone() }
}

/// Where the results of a monitor lie.
pub(super) fn folder(monitor: &Monitor) -> String {
    format!("{}/monitor={}/", Dataset::Monitors.label(), monitor.name)
}

/// `monitors/monitor=daily/date=2026-11-23/hour=10/daily-20261123T101500Z.jsonl.gz`. A run by hand has
/// its attempt behind the time.
fn object_name(monitor: &Monitor, at: Timestamp, trigger: Trigger, attempt: &str) -> String {
    let attempt = if trigger == Trigger::Manual { attempt } else { "" };
    let (partition, name) = (Hour::of(at).partition(), &monitor.name);
    format!("{}{partition}/{name}-{}{attempt}.jsonl.gz", folder(monitor), compact(at))
}

/// A time without what names cannot hold.
pub(super) fn compact(at: Timestamp) -> String {
    at.strftime("%Y%m%dT%H%M%SZ").to_string()
}

fn pack(run: &MonitorRun) -> io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    serde_json::to_writer(&mut encoder, run)?;
    encoder.write_all(b"\n")?;
    encoder.finish().map(Bytes::from)
}

fn unpack(body: &[u8]) -> Option<MonitorRun> {
    let mut lines = Lines::of(body);
    let run: MonitorRun = serde_json::from_slice(lines.next().ok()??).ok()?;
    (run.schema == MonitorRun::SCHEMA).then_some(run)
}
