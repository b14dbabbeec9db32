//! The loss ledger: what became of every exchange, hour by hour, exactly.
//!
//! `seen = not_sampled + stored + pending + dropped` for every hour of every run (plus what is in
//! flight while the process runs). Hours are those of the exchanges' own times, so a reader can hold
//! each row against the lines of the same hour in `exchanges/`. Only exchanges enter the equation:
//! rollup rows lost on the way are counted beside it, and a drop at stage `tokens` loses no exchange.
//!
//! Traffic threads may count: one read lock that is only ever written when a new hour begins, and one
//! atomic addition. Checkpoints ([`Checkpoint`]) carry the figures over a crash.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use jiff::Timestamp;

use crate::domain::{Dataset, DropReason, DropStage};
use crate::metrics::Metrics;

mod checkpoint;
mod counts;
mod hour;
mod row;

pub use checkpoint::{BookKey, Checkpoint, Found, Page, Window};
pub use counts::Counts;
pub use hour::{Hour, Incarnation};
pub use row::{LedgerRow, Loss, run_name};

use counts::{Cells, add};

/// Hours that a run keeps apart; past them, an exchange of an older one counts for the oldest. They are
/// counted and not measured by the clock, which may jump months ahead and back: an hour that was let go
/// of would begin at zero again, and its published figures would shrink.
const HOURS_MAX: usize = 7 * 24;
/// Pages of earlier runs that are remembered; a process that restarts for days with a dead bucket
/// loses the oldest first.
const PAST_PAGES_MAX: usize = 1024;

/// The books of this run and of the earlier ones whose samples still lie in the spool.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    instance: Arc<str>,
    incarnation: Incarnation,
    metrics: Metrics,
    hours: RwLock<BTreeMap<Hour, Cells>>,
    past: Mutex<BTreeMap<BookKey, Page>>,
    closed: AtomicBool,
}

/// What a writer of checkpoints remembers, so that only what changed is written again.
#[derive(Debug, Default)]
pub struct Memo {
    written: BTreeMap<BookKey, Page>,
}

impl Ledger {
    /// Empty books for the run `incarnation` of `instance`.
    pub fn new(instance: Arc<str>, incarnation: Incarnation, metrics: Metrics) -> Self {
        let inner = Inner {
            instance,
            incarnation,
            metrics,
            hours: RwLock::default(),
            past: Mutex::default(),
            closed: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The name of this process.
    pub fn instance(&self) -> &Arc<str> {
        &self.inner.instance
    }

    /// This run.
    pub fn incarnation(&self) -> Incarnation {
        self.inner.incarnation
    }

    /// `n` exchanges of `hour` passed: called once for every exchange, before anything else is
    /// counted of it.
    pub fn seen(&self, hour: Hour, n: u64) {
        self.count(hour, |cells| add(&cells.seen, n));
    }

    /// `n` exchanges were not sampled.
    pub fn not_sampled(&self, hour: Hour, n: u64) {
        self.count(hour, |cells| add(&cells.not_sampled, n));
    }

    /// `n` samples are safe in the spool: written and fsynced.
    pub fn kept(&self, hour: Hour, n: u64) {
        self.count(hour, |cells| add(&cells.kept, n));
    }

    /// `n` exchanges of `hour` were lost; counted in the metrics too. At stage `tokens` no exchange
    /// is lost, only its count of tokens, so that is a metric alone.
    pub fn dropped(&self, hour: Hour, stage: DropStage, reason: DropReason, n: u64) {
        self.inner.metrics.dropped(stage, reason, n);
        if stage != DropStage::Tokens {
            self.count(hour, |cells| cells.lose(stage, reason, n));
        }
    }

    /// `n` rows of `dataset` were lost at `stage`: exchanges enter the equation, others do not.
    pub fn dropped_rows(
        &self,
        dataset: Dataset,
        hour: Hour,
        stage: DropStage,
        reason: DropReason,
        n: u64,
    ) {
        if dataset == Dataset::Exchanges {
            return self.dropped(hour, stage, reason, n);
        }
        self.inner.metrics.dropped(stage, reason, n);
        self.count(hour, |cells| add(&cells.usage_dropped, n));
    }

    /// The bucket confirmed `n` samples that the run `incarnation` had kept.
    pub fn stored(&self, incarnation: Incarnation, hour: Hour, n: u64) {
        if incarnation == self.inner.incarnation {
            self.count(hour, |cells| add(&cells.stored, n));
        } else {
            self.past_page(incarnation, hour, |counts| counts.stored += n);
        }
    }

    /// `n` samples that the run `incarnation` had kept can no longer be read; a metric too.
    pub fn unreadable(&self, incarnation: Incarnation, hour: Hour, n: u64) {
        let (stage, reason) = (DropStage::Spool, DropReason::Corrupt);
        if incarnation == self.inner.incarnation {
            return self.dropped(hour, stage, reason, n);
        }
        self.inner.metrics.dropped(stage, reason, n);
        self.past_page(incarnation, hour, |counts| counts.lose(stage, reason, n));
    }

    /// Takes over the books of earlier runs ([`Found::settle`]).
    pub fn restore(&self, pages: BTreeMap<BookKey, Page>) {
        let mut past = self.past();
        past.extend(pages);
        while past.len() > PAST_PAGES_MAX {
            if let Some((key, _)) = past.pop_first() {
                let (run, hour) = (key.incarnation, key.hour.partition());
                tracing::warn!(%run, %hour, "too many earlier runs; a page of the ledger is lost");
            }
        }
    }

    /// This run counts no more; what is in flight from now on is a fault of the books.
    pub fn close(&self) {
        self.inner.closed.store(true, Ordering::Release);
    }

    /// The totals to write down at `now`: of all hours if `full`, else of those that `memo` has not
    /// seen in this state. `group` are samples that the same fsync makes safe. `None`: no change.
    pub fn checkpoint(
        &self,
        memo: &mut Memo,
        full: bool,
        group: &BTreeMap<Hour, u64>,
        now: Timestamp,
    ) -> Option<Checkpoint> {
        let pages = self.pages(group);
        if full {
            memo.written.clear();
        }
        let changed = self.changed(memo, &pages, now);
        memo.written = pages;
        (full || !changed.pages.is_empty()).then_some(changed)
    }

    /// The totals at `now` of those hours that `memo` has not seen in this state, without noting them there.
    pub fn since(&self, memo: &Memo, now: Timestamp) -> Checkpoint {
        self.changed(memo, &self.pages(&BTreeMap::new()), now)
    }

    fn changed(&self, memo: &Memo, pages: &BTreeMap<BookKey, Page>, now: Timestamp) -> Checkpoint {
        let changed = pages.iter().filter(|(key, page)| memo.written.get(key) != Some(page));
        let pages = changed.map(|(key, page)| (key.clone(), page.clone())).collect();
        Checkpoint { time: now, clean: self.inner.closed.load(Ordering::Acquire), pages }
    }

    /// One row for every hour of every run that is remembered, oldest run first.
    pub fn rows(&self, now: Timestamp) -> Vec<LedgerRow> {
        let pages = self.pages(&BTreeMap::new());
        pages.iter().map(|(key, page)| LedgerRow::new(key, page, now)).collect()
    }

    /// Forgets the page of `row`, once it was published and nothing of it can change. Pages of this
    /// run stay among [`HOURS_MAX`], because late exchanges may still count for them.
    pub fn forget(&self, row: &LedgerRow) {
        if row.is_settled() && row.incarnation != self.inner.incarnation {
            let key = BookKey { incarnation: row.incarnation, hour: Hour::of(row.hour) };
            self.past().remove(&key);
        }
    }

    fn pages(&self, group: &BTreeMap<Hour, u64>) -> BTreeMap<BookKey, Page> {
        let mut pages = self.past().clone();
        let closed = self.inner.closed.load(Ordering::Acquire);
        let hours = self.inner.hours.read().unwrap_or_else(PoisonError::into_inner);
        for (hour, cells) in hours.iter() {
            let mut page = Page::empty(&self.inner.instance);
            page.counts = cells.snapshot();
            page.counts.kept += group.get(hour).copied().unwrap_or(0);
            page.closed = closed;
            pages.insert(BookKey { incarnation: self.inner.incarnation, hour: *hour }, page);
        }
        pages
    }

    /// Counts in the cells of `hour`, under a read lock for as long as an addition takes.
    fn count(&self, hour: Hour, count: impl Fn(&Cells)) {
        let hours = self.inner.hours.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(cells) = hours.get(&hour) {
            return count(cells);
        }
        drop(hours);
        let mut hours = self.inner.hours.write().unwrap_or_else(PoisonError::into_inner);
        count(begin_hour(&mut hours, hour));
    }

    fn past(&self) -> MutexGuard<'_, BTreeMap<BookKey, Page>> {
        self.inner.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn past_page(&self, incarnation: Incarnation, hour: Hour, change: impl FnOnce(&mut Counts)) {
        let mut past = self.past();
        let page = past
            .entry(BookKey { incarnation, hour })
            .or_insert_with(|| Page { closed: true, ..Page::empty(&self.inner.instance) });
        change(&mut page.counts);
    }
}

/// The cells of `hour`, or of the oldest hour where it is older and there are enough; then, for a newer
/// one, the oldest of those that can no longer change goes.
fn begin_hour(hours: &mut BTreeMap<Hour, Cells>, hour: Hour) -> &Cells {
    let oldest = hours.first_key_value().map_or(hour, |(oldest, _)| *oldest);
    let is_full = hours.len() >= HOURS_MAX;
    if is_full && hour > oldest {
        let mut settled = hours.iter().filter(|(_, cells)| cells.snapshot().is_settled());
        let settled = settled.next().map(|(hour, _)| *hour);
        settled.and_then(|settled| hours.remove(&settled));
    }
    let hour = if is_full { hour.max(oldest) } else { hour };
    hours.entry(hour).or_insert_with(Cells::new)
}

/// The one place where tests of this floor and above make their metrics.
#[cfg(test)]
pub(crate) fn metrics_for_tests() -> Metrics {
    let limits = crate::config::MetricsLimits { models_max: 10, deployments_max: 10 };
    Metrics::new(&limits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn ledger() -> Ledger {
        let now = at("2026-11-23T22:00:00Z");
        Ledger::new(Arc::from("pod-1"), Incarnation::new(now, None), metrics_for_tests())
    }

    fn hour(text: &str) -> Hour {
        Hour::of(at(text))
    }

    #[test]
    fn every_hour_has_its_own_row_and_each_row_balances() {
        let ledger = ledger();
        let (ten, eleven) = (hour("2026-11-23T22:59:59Z"), hour("2026-11-23T23:00:00Z"));
        ledger.seen(ten, 3);
        ledger.seen(eleven, 2);
        ledger.not_sampled(ten, 1);
        ledger.kept(ten, 1);
        ledger.dropped(ten, DropStage::Intake, DropReason::Full, 1);
        ledger.dropped(eleven, DropStage::Tokens, DropReason::Full, 1);
        let rows = ledger.rows(at("2026-11-23T23:30:00Z"));
        assert_eq!(rows.len(), 2);
        assert!(rows.iter().all(LedgerRow::balances));
        assert_eq!((rows[0].seen, rows[0].pending, rows[0].in_flight), (3, 1, 0));
        assert_eq!((rows[1].in_flight, rows[1].dropped_total()), (2, 0), "no exchange was lost");
        assert!(rows[0].name().starts_with("ledger/date=2026-11-23/hour=22/pod-1-"));
    }

    #[test]
    fn a_closed_row_with_something_in_flight_does_not_balance() {
        let ledger = ledger();
        ledger.seen(hour("2026-11-23T22:00:00Z"), 1);
        ledger.close();
        assert!(!ledger.rows(at("2026-11-23T22:00:01Z"))[0].balances());
    }

    #[test]
    fn rows_that_are_no_exchanges_stay_out_of_the_equation() {
        let ledger = ledger();
        let ten = hour("2026-11-23T22:00:00Z");
        ledger.dropped_rows(Dataset::Usage, ten, DropStage::Spool, DropReason::Quota, 4);
        let row = &ledger.rows(at("2026-11-23T22:00:01Z"))[0];
        assert_eq!((row.usage_dropped, row.dropped_total()), (4, 0));
        assert!(row.balances());
    }

    #[test]
    fn a_checkpoint_holds_what_changed_and_the_group_that_it_is_written_with() {
        let ledger = ledger();
        let mut memo = Memo::default();
        let now = at("2026-11-23T22:00:01Z");
        let none = BTreeMap::new();
        assert!(ledger.checkpoint(&mut memo, false, &none, now).is_none());
        let ten = hour("2026-11-23T22:00:00Z");
        ledger.seen(ten, 5);
        let group = BTreeMap::from([(ten, 5)]);
        let first = ledger.checkpoint(&mut memo, false, &group, now).expect("changed");
        assert_eq!(first.pages.values().next().map(|page| page.counts.kept), Some(5));
        ledger.kept(ten, 5);
        assert!(ledger.checkpoint(&mut memo, false, &none, now).is_none(), "the same totals");
        assert_eq!(ledger.checkpoint(&mut memo, true, &none, now).map(|c| c.pages.len()), Some(1));
    }

    #[test]
    fn earlier_runs_keep_their_own_rows_until_they_are_settled_and_published() {
        let ledger = ledger();
        let ten = hour("2026-11-23T22:00:00Z");
        let run = Incarnation::new(at("2026-11-23T21:00:00Z"), None);
        let counts = Counts { seen: 4, kept: 4, ..Counts::default() };
        let page = Page { counts, closed: true, ..Page::empty("pod-0") };
        ledger.restore(BTreeMap::from([(BookKey { incarnation: run, hour: ten }, page)]));
        ledger.stored(run, ten, 3);
        let row = ledger.rows(at("2026-11-23T22:10:00Z")).remove(0);
        assert_eq!((row.instance.as_str(), row.pending), ("pod-0", 1));
        ledger.forget(&row);
        assert_eq!(ledger.rows(at("2026-11-23T22:10:00Z")).len(), 1, "one is still pending");
        ledger.unreadable(run, ten, 1);
        let row = ledger.rows(at("2026-11-23T22:10:00Z")).remove(0);
        assert!(row.is_settled() && row.balances());
        ledger.forget(&row);
        assert!(ledger.rows(at("2026-11-23T22:10:00Z")).is_empty());
    }

    #[test]
    fn threads_that_count_at_once_lose_nothing() {
        let ledger = ledger();
        let ten = hour("2026-11-23T22:00:00Z");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        ledger.seen(ten, 1);
                        ledger.not_sampled(ten, 1);
                    }
                });
            }
            for _ in 0..200 {
                let rows = ledger.rows(at("2026-11-23T22:00:01Z"));
                assert!(rows.iter().all(LedgerRow::balances));
            }
        });
        assert_eq!(ledger.rows(at("2026-11-23T22:00:01Z"))[0].not_sampled, 40_000);
    }

    /// Promise (operations): the clock may jump months ahead and back, and the books still balance hour by
    /// hour. Figure: 90 days ahead, 400 back.
    #[test]
    fn a_clock_that_jumps_costs_no_hour_its_figures() {
        let ledger = ledger();
        let jumps = [0, 2, -24, 0, 90 * 24, -400 * 24, 0].map(|hours: i64| {
            Hour::of(Timestamp::from_second(1_700_000_000 + hours * 3600).expect("a time"))
        });
        for hour in jumps {
            ledger.seen(hour, 50);
            ledger.not_sampled(hour, 50);
        }
        let rows = ledger.rows(at("2026-11-23T22:00:01Z"));
        let seen: Vec<_> = rows.iter().map(|row| row.seen).collect();
        assert_eq!(seen, [50, 50, 150, 50, 50], "400 days back, a day back, now, and so on");
    }

    #[test]
    fn the_number_of_hours_is_bounded() {
        let ledger = ledger();
        for hours in 0..1000 {
            let at = Timestamp::from_second(hours * 3600).expect("a time");
            ledger.seen(Hour::of(at), 1);
            ledger.not_sampled(Hour::of(at), 1);
        }
        ledger.seen(Hour::of(Timestamp::UNIX_EPOCH), 1);
        let rows = ledger.rows(at("2026-11-23T22:00:01Z"));
        assert_eq!(rows.len(), HOURS_MAX);
        assert_eq!(rows[0].seen, 2, "what is older counts for the oldest hour that is left");
    }
}
