//! `flowtap replay`: sends recorded requests to another deployment, has both answers judged by the same
//! judge, and tells the paired difference of each criterion with its interval: a release gate.
//!
//! Requests are chosen by `pick`, sent by `target` from a thread of their own (so that judging cannot
//! slow the answers that are timed), read by `answer` with the dialects' readers and the redactor, and
//! compared by `compare`. Scores that the judge gave to the recorded answers before, by the same
//! prompts, stand. What was redacted when it was recorded cannot be restored: such requests are counted.
//!
//! A replay keeps nothing until it has ended; one that is killed leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::bucket::{Bucket, BucketError};
use crate::config::{self, Config, Tap};
use crate::domain::{ExchangeId, ScoreError};
use crate::drain::Drain;
use crate::evaluate::judge::JudgeFault;
use crate::evaluate::{Jury, Tested};
use crate::metrics::Metrics;
use crate::sample::judge_marker;

mod answer;
mod compare;
mod keep;
mod pick;
mod recorded;
mod report;
mod scores;
mod sending;
mod target;
mod verdicts;

pub use compare::{Compared, Limits, Verdict};
pub use recorded::{Skip, Wanted};
pub use report::{Judging, Report, Requests, Side, Spread};
pub use target::Address;

use answer::Reader;
use keep::Keeper;
use pick::Picked;
use sending::Pace;
use target::Target;
use verdicts::Verdicts;

/// A judge that is away is waited for no longer than this: a gate should end.
const JUDGE_RETRIES: Duration = Duration::from_secs(60);

/// What is replayed, where, and how it is compared.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which recorded requests.
    pub wanted: Wanted,
    /// How many of them at most.
    pub requests_max: usize,
    /// Where they are sent.
    pub address: Address,
    /// Requests a second at most.
    pub rate: f64,
    /// Requests under way at most.
    pub concurrency: usize,
    /// When the new deployment is worse.
    pub limits: Limits,
}

/// How far a replay is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Requests to be sent.
    pub chosen: u64,
    /// Of these, answered or failed.
    pub sent: u64,
    /// Of these, compared.
    pub compared: u64,
}

/// Why a replay came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The address of the new deployment.
    #[error("the address to send to cannot be used: {0}")]
    Target(String),
    /// A header of the requests.
    #[error("header {0} {1}")]
    Header(String, String),
    /// The bucket.
    #[error("bucket: {0}")]
    Bucket(#[from] BucketError),
    /// The judge's settings.
    #[error(transparent)]
    Judge(#[from] JudgeFault),
    /// The judge itself.
    #[error("the judge gives no scores: {}", .0.label())]
    Silent(ScoreError),
    /// Nobody is there.
    #[error("{0} cannot be connected to: {1} requests in a row were not answered")]
    Unreachable(String, u64),
    /// A thread, or packing what was found.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

impl ReplayError {
    /// Whether it is what was typed that is wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Target(_) | Self::Header(..))
    }
}

/// Replays what `settings` say out of `bucket`, and stores what it found there. `plain` is a tap with all
/// defaults before the new deployment. `progress` is told after every step.
///
/// # Errors
/// The bucket's and the judge's, and where nothing can be connected to. A deployment that answers badly
/// is no error but a finding.
pub async fn replay(
    config: &Config,
    plain: Tap,
    bucket: Arc<dyn Bucket>,
    settings: &Settings,
    progress: &dyn Fn(Progress),
) -> Result<Report, ReplayError> {
    let began = Timestamp::now();
    let id = ExchangeId::new(began);
    let marker = judge_marker(config.sample.key.as_ref());
    let target = Target::new(&settings.address, marker.clone())?;
    let picked = pick::pick(&*bucket, &settings.wanted, settings.requests_max).await?;
    let instance: Arc<str> = Arc::from(format!("replay-{id}"));
    let books = (Arc::clone(&bucket), Arc::clone(&instance));
    let metrics = Metrics::new(&config.metrics);
    let jury = Jury::new(&patient(config), marker, books, &metrics)?;
    let drift = match (&jury, picked.ids.is_empty()) {
        (Some(jury), false) => tested(jury).await?,
        _ => false,
    };
    let known = scores::known(&*bucket, &picked).await?;
    let verdicts = Verdicts::new(id, instance, jury, known, drift);
    let replay =
        Replay { bucket: &*bucket, settings, reader: Reader::new(config, plain), verdicts };
    let (report, cases) = replay.run(target, picked, began, progress).await?;
    Keeper { bucket: &*bucket }.keep(&report, cases).await?;
    Ok(report)
}

/// The settings, with a judge that neither waits for tomorrow's budget nor for a server for long.
fn patient(config: &Config) -> Config {
    let mut config = config.clone();
    if let Some(judge) = &mut config.judge {
        judge.when_exhausted = config::WhenExhausted::Skip;
        judge.retry_for = judge.retry_for.min(JUDGE_RETRIES);
    }
    config
}

async fn tested(jury: &Jury) -> Result<bool, ReplayError> {
    match jury.test().await {
        Tested::Passes => Ok(false),
        Tested::Drifts => Ok(true),
        Tested::Silent(error) => Err(ReplayError::Silent(error)),
    }
}

struct Replay<'a> {
    bucket: &'a dyn Bucket,
    settings: &'a Settings,
    reader: Reader,
    verdicts: Verdicts,
}

impl Replay<'_> {
    /// Sends and compares; the report, and the lines of all cases, packed.
    async fn run(
        mut self,
        target: Target,
        picked: Picked,
        began: Timestamp,
        progress: &dyn Fn(Progress),
    ) -> Result<(Report, Vec<u8>), ReplayError> {
        let name = target.describe();
        let Settings { rate, concurrency, .. } = *self.settings;
        let pace = Pace { rate, concurrency };
        let drain = Drain::default();
        let (feed, mut sent) = sending::start(target, pace, &drain)?;
        let chosen = picked.ids.len() as u64;
        progress(Progress { chosen, ..Progress::default() });
        let feeding = sending::feed(self.bucket, &picked, &self.settings.wanted, feed);
        let comparing = self.verdicts.take(&mut sent, &self.reader, chosen, progress);
        let (fed, compared) = tokio::join!(feeding, comparing);
        fed?;
        compared?;
        if let Some(failed) = sent.unreachable() {
            return Err(ReplayError::Unreachable(name, failed));
        }
        let rate = sent.rate();
        let head = verdicts::Head { target: name, began, rate, limits: self.settings.limits };
        Ok(self.verdicts.finish(head, picked)?)
    }
}
