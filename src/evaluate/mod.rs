//! The evaluator: takes stored samples out of the bucket, has them judged, and stores their scores.
//!
//! The bucket is all that it works on, whether it runs inside `flowtap run` or as one of several hubs:
//! a sample waits as long as its object in `exchanges/` has no counterpart in `scores/` (`unit`).
//! Names of new objects may be told by a [`crate::queue`], which saves time and nothing else. So a
//! restart, a crash or a lost message cannot skip a sample or score it twice. No request ever waits
//! for any of this.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt};
use http::HeaderValue;
use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::bucket::Bucket;
use crate::config::{self, Config};
use crate::metrics::Metrics;
use crate::queue::Inbox;
use crate::redact::Redactor;
use crate::trace::Tracer;

mod board;
mod budget;
mod case;
mod claim;
mod draw;
mod frame;
mod grade;
pub mod judge;
mod jury;
mod measure;
mod panel;
mod part;
mod ration;
mod selftest;
mod unit;
mod verdict;

pub use case::Case;
pub use jury::{Jury, Tested};

use board::Board;
use budget::Budget;
use draw::Drawer;
use grade::{Bench, Grader};
use judge::{HttpJudge, JudgeFault};
use part::Part;

/// Parts under way: enough to keep every place of the judge busy while some parts end.
const PARTS_MIN: usize = 4;
/// What is under way at shutdown may end within this; what does not is begun again after the next start.
const GRACE: Duration = Duration::from_secs(5);
/// Between two looks at the age of the oldest sample that waits.
const GAUGE_EVERY: Duration = Duration::from_secs(2);
/// Between two tests of the judge.
const TEST_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// What an evaluator works with.
pub struct Outlets {
    /// Where samples lie and scores go.
    pub bucket: Arc<dyn Bucket>,
    /// Who tells of new objects; without it the evaluator looks for itself.
    pub inbox: Option<Inbox>,
    /// Woken when scores are stored, for whoever reads them.
    pub stored: Arc<Notify>,
    /// Spans of scores, if they are exported.
    pub tracer: Option<Tracer>,
    /// Counters.
    pub metrics: Metrics,
}

/// Takes samples out of a bucket and puts scores into it; see the module.
pub struct Evaluator {
    bucket: Arc<dyn Bucket>,
    grader: Grader,
    drawer: Drawer,
    board: Board,
    stored: Arc<Notify>,
    tracer: Option<Tracer>,
    metrics: Metrics,
    parts_max: usize,
}

/// An evaluator as `config` says; `None` where it says that nothing is evaluated. Call it within the
/// runtime that it will run on. `marker` is the mark by which taps of ours know the judge's calls.
pub fn from_bucket(
    config: &Config,
    marker: HeaderValue,
    outlets: Outlets,
) -> Result<Option<Evaluator>, JudgeFault> {
    let Some(settings) = &config.evaluate else { return Ok(None) };
    let Outlets { bucket, inbox, stored, tracer, metrics } = outlets;
    let rubrics = panel::rubrics(settings);
    let tokens = config.judge.as_ref().and_then(|judge| judge.tokens_per_day);
    metrics.evaluator_opened(rubrics.iter().map(panel::Rubric::label), tokens);
    let concurrency = config.judge.as_ref().map_or(0, |judge| judge.concurrency);
    let parts_max = match rubrics.is_empty() {
        true => PARTS_MIN,
        false => PARTS_MIN + concurrency / unit::PART_LINES,
    };
    let instance = Arc::clone(&config.instance);
    let grader = grader(config, settings, marker, (Arc::clone(&bucket), instance), &metrics)?;
    let board = Board::new(settings, inbox, metrics.clone());
    let drawer = Drawer::new(settings.rate, config.sample.key.as_ref(), tokens.is_some());
    Ok(Some(Evaluator { bucket, grader, drawer, board, stored, tracer, metrics, parts_max }))
}

/// The judge and what is computed, as `settings` say. What is spent is booked in the bucket under the
/// name beside it.
fn grader(
    config: &Config,
    settings: &config::Evaluate,
    marker: HeaderValue,
    (bucket, instance): (Arc<dyn Bucket>, Arc<str>),
    metrics: &Metrics,
) -> Result<Grader, JudgeFault> {
    let rubrics = panel::rubrics(settings);
    let mut bench = None;
    if let Some(judge) = config.judge.as_ref().filter(|_| !rubrics.is_empty()) {
        let budget =
            Budget::new(judge.tokens_per_day, bucket, Arc::clone(&instance), metrics.clone());
        bench = Some(Bench {
            judge: Box::new(HttpJudge::new(judge, marker, metrics)?),
            model: judge.model.clone(),
            rubrics,
            budget,
            seats: Semaphore::new(judge.concurrency),
            when_exhausted: judge.when_exhausted,
            max_tokens: judge.max_tokens,
            redactor: Redactor::new(&config.redact, &[]),
            drift: AtomicBool::new(false),
        });
    }
    let measures = settings.measures.clone();
    Ok(Grader { bench, measures, instance, metrics: metrics.clone() })
}

impl Evaluator {
    /// Works until `stop`, then finishes what is quick to finish.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = self.work(&stop) => {}
            () = late(&stop) => {
                tracing::info!("samples under way are evaluated again after the next start");
            }
        }
        if let Some(bench) = &self.grader.bench {
            let _unwritten = tokio::time::timeout(GRACE, bench.budget.close()).await;
        }
    }

    async fn work(&self, stop: &CancellationToken) {
        let parts =
            self.parts(stop).map(|part| self.evaluate(part)).buffer_unordered(self.parts_max);
        let parts = parts.for_each(|()| std::future::ready(()));
        let aside = async { tokio::join!(self.watch_age(), self.watch_judge()) };
        tokio::select! {
            () = parts => {}
            _ = aside => {}
        }
    }

    /// The parts of all units, as they come.
    fn parts<'a>(&'a self, stop: &'a CancellationToken) -> impl Stream<Item = Part> + 'a {
        let units = stream::unfold((), move |()| async move {
            let unit = self.board.next(&*self.bucket, stop).await?;
            Some((unit, ()))
        });
        units.then(move |unit| self.open(unit)).flat_map(stream::iter)
    }

    async fn watch_age(&self) {
        loop {
            self.board.tell_age(Timestamp::now());
            tokio::time::sleep(GAUGE_EVERY).await;
        }
    }

    async fn watch_judge(&self) {
        let Some(bench) = &self.grader.bench else { return std::future::pending().await };
        loop {
            let _told = bench.test_itself(&self.metrics).await;
            tokio::time::sleep(TEST_EVERY).await;
        }
    }
}

async fn late(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GRACE).await;
}
