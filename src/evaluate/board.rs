//! What there is to do: units that wait, units under way, and how old the oldest is.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::ration::Lying;
use super::unit::{Survey, Unit, survey};
use crate::bucket::Bucket;
use crate::config::Evaluate;
use crate::metrics::Metrics;
use crate::queue::{Inbox, News, Receipt};

/// Looking into the bucket takes at most one part in so many of the time.
const LOOKING_SHARE: u32 = 20;
/// Where new objects are told of, the bucket is looked into this many times less often.
const TOLD_FACTOR: u32 = 6;

/// The evaluator's plan.
pub(super) struct Board {
    lookback: Duration,
    poll: Duration,
    metrics: Metrics,
    plan: Mutex<Plan>,
    source: AsyncMutex<Source>,
}

#[derive(Default)]
struct Plan {
    queue: VecDeque<Unit>,
    /// Units that wait or are under way, each with a time not later than its oldest sample.
    known: HashMap<Unit, Known>,
    /// Bytes of each deployment's samples of the last day, as last looked.
    recent: BTreeMap<String, u64>,
    /// Units of which a part was set aside: not taken up again by this process.
    aside: HashSet<Unit>,
}

struct Known {
    oldest: Timestamp,
    bytes: u64,
    under_way: bool,
    /// Settled with the unit; dropped where it must be taken up again.
    receipts: Vec<Receipt>,
}

struct Source {
    inbox: Option<Inbox>,
    next_look: Instant,
}

impl Board {
    pub(super) fn new(settings: &Evaluate, inbox: Option<Inbox>, metrics: Metrics) -> Self {
        let poll = if inbox.is_some() { settings.poll * TOLD_FACTOR } else { settings.poll };
        Self {
            lookback: settings.lookback,
            poll,
            metrics,
            plan: Mutex::default(),
            source: AsyncMutex::new(Source { inbox, next_look: Instant::now() }),
        }
    }

    /// The next unit, which is under way from then on; `None` once told to stop.
    pub(super) async fn next(&self, bucket: &dyn Bucket, stop: &CancellationToken) -> Option<Unit> {
        let mut source = self.source.lock().await;
        loop {
            if stop.is_cancelled() {
                return None;
            }
            if let Some(unit) = self.begin() {
                return Some(unit);
            }
            if source.next_look <= Instant::now() {
                tokio::select! {
                    wait = self.look(bucket) => source.next_look = Instant::now() + wait,
                    () = stop.cancelled() => return None,
                }
                continue;
            }
            let next_look = source.next_look;
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep_until(next_look) => {}
                news = told(&mut source.inbox) => self.add(news),
            }
        }
    }

    /// Looks through the bucket; how long until the next look.
    async fn look(&self, bucket: &dyn Bucket) -> Duration {
        let began = Instant::now();
        match survey(bucket, Timestamp::now(), self.lookback).await {
            Ok(found) => self.plan().take(found, &self.metrics),
            Err(error) => {
                self.metrics.evaluate_failed(error.kind.label());
                tracing::warn!(kind = error.kind.label(), %error, "the evaluator cannot look into the bucket");
            }
        }
        self.poll.max(began.elapsed() * LOOKING_SHARE)
    }

    /// The first unit of the queue that is not under way.
    fn begin(&self) -> Option<Unit> {
        let mut plan = self.plan();
        while let Some(unit) = plan.queue.pop_front() {
            let known = plan.knows(&unit);
            if !std::mem::replace(&mut known.under_way, true) {
                return Some(unit);
            }
        }
        None
    }

    /// Takes a told unit up. What is no object of samples is settled: nobody could do anything with it.
    fn add(&self, news: News) {
        let unit = Unit::of_object(&news.object);
        let mut plan = self.plan();
        let Some(unit) = unit.filter(|unit| !plan.aside.contains(unit)) else {
            news.receipt.into_iter().for_each(Receipt::settle);
            return;
        };
        plan.knows(&unit).receipts.extend(news.receipt);
        plan.queue.push_back(unit);
    }

    /// A unit is no longer under way: it is done, or (`waits`) must be taken up again.
    pub(super) fn ended(&self, unit: &Unit, waits: bool) {
        let mut plan = self.plan();
        match plan.known.get_mut(unit) {
            Some(known) if waits => {
                known.under_way = false;
                known.receipts.clear();
            }
            _ => {
                let done = plan.known.remove(unit);
                done.into_iter().flat_map(|known| known.receipts).for_each(Receipt::settle);
            }
        }
    }

    /// A part of a unit could not be evaluated: the unit is left alone until the next start.
    pub(super) fn set_aside(&self, unit: &Unit) {
        self.plan().aside.insert(unit.clone());
        self.ended(unit, false);
    }

    /// What lies in the bucket, by deployment.
    pub(super) fn lying(&self) -> BTreeMap<String, Lying> {
        let plan = self.plan();
        let recent = plan.recent.iter();
        let mut lying: BTreeMap<String, Lying> = recent
            .map(|(deployment, recent)| (deployment.clone(), Lying { waiting: 0, recent: *recent }))
            .collect();
        for (unit, known) in plan.known.iter().filter(|(_, known)| !known.under_way) {
            let of = lying.entry(unit.deployment().to_owned()).or_default();
            of.waiting = of.waiting.saturating_add(known.bytes);
        }
        lying
    }

    /// Shows how old the oldest sample is that is not evaluated.
    pub(super) fn tell_age(&self, now: Timestamp) {
        let plan = self.plan();
        let oldest = plan.known.values().map(|known| known.oldest).min();
        self.metrics.queue_depth("evaluate", plan.queue.len() as u64);
        let age = oldest.map_or(0.0, |oldest| now.duration_since(oldest).as_secs_f64());
        self.metrics.oldest_unscored_seconds(age.max(0.0));
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    /// What a look found is the plan from now on.
    fn take(&mut self, mut found: Survey, metrics: &Metrics) {
        let aside = found.waiting.iter().filter(|unit| self.aside.contains(unit)).count();
        found.waiting.retain(|unit| !self.aside.contains(unit));
        metrics.evaluate_objects(found.waiting.len() as u64, found.too_old, aside as u64);
        self.known.retain(|_, known| known.under_way || !known.receipts.is_empty());
        for unit in &found.waiting {
            self.knows(unit).bytes = found.sizes.get(unit).copied().unwrap_or(0);
        }
        self.queue = found.waiting;
        self.recent = found.recent;
    }

    fn knows(&mut self, unit: &Unit) -> &mut Known {
        let oldest = unit.not_before();
        let fresh = || Known { oldest, bytes: 0, under_way: false, receipts: Vec::new() };
        self.known.entry(unit.clone()).or_insert_with(fresh)
    }
}

/// The next news; waits for ever where nobody tells.
async fn told(inbox: &mut Option<Inbox>) -> News {
    if let Some(open) = inbox {
        if let Some(news) = open.next().await {
            return news;
        }
        *inbox = None;
    }
    std::future::pending().await
}
