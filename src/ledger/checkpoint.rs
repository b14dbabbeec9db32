//! The ledger's state as the spool keeps it, and how a later run makes it whole again.
//!
//! A checkpoint lies between the samples in the spool: its totals cover all samples before it. So
//! `kept` after a crash is the last checkpoint's plus the samples behind it, and nothing fsynced is
//! missing from the books. What was seen and neither kept nor turned away is lost with the process:
//! it becomes `dropped{pipeline, crash}`. What was seen after the checkpoint cannot be known; the
//! window from the checkpoint to the next start is published as `unaccounted`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Counts, Hour, Incarnation};
use crate::domain::{DropReason, DropStage};

/// The books of one run: which one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BookKey {
    /// The run.
    pub incarnation: Incarnation,
    /// The hour.
    pub hour: Hour,
}

/// A span of time of which a run cannot tell what it saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// The last moment that is accounted for.
    pub from: Timestamp,
    /// When counting began again.
    pub to: Timestamp,
}

/// One hour of one run's books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The name of the process that counted.
    pub instance: String,
    /// Its figures.
    pub counts: Counts,
    /// What it cannot account for.
    pub unaccounted: Vec<Window>,
    /// The run is over: nothing can be in flight any more.
    pub closed: bool,
}

/// Totals at one moment: of all hours, or of those that changed since the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// When it was taken.
    pub time: Timestamp,
    /// The run that took it has shut down in order.
    pub clean: bool,
    /// The pages, each with absolute figures.
    pub pages: BTreeMap<BookKey, Page>,
}

/// What was found in a spool by the run after.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The last checkpoint, with all pages folded in; `None` where none could be read.
    pub checkpoint: Option<Checkpoint>,
    /// Samples behind the checkpoint.
    pub after: BTreeMap<BookKey, u64>,
    /// Samples that lie in the spool in all.
    pub present: BTreeMap<BookKey, u64>,
    /// Names of the processes that wrote them, where they can be read.
    pub instances: BTreeMap<Incarnation, String>,
    /// The newest run of which anything was found: the one that ended last.
    pub last: Option<Incarnation>,
    /// A moment to begin the window at where there is no checkpoint.
    pub last_change: Option<Timestamp>,
}

impl Found {
    /// The window that cannot be accounted for; `None` after a shutdown in order and on a fresh spool.
    pub fn window(&self, now: Timestamp) -> Option<Window> {
        let from = match &self.checkpoint {
            Some(checkpoint) if checkpoint.clean => return None,
            Some(checkpoint) => checkpoint.time,
            None => self.last_change.or(self.last.map(Incarnation::started))?,
        };
        Some(Window { from: from.min(now), to: now })
    }

    /// The pages of all earlier runs, made whole: closed, in balance, and with the window in them.
    pub fn settle(&self, instance: &str, now: Timestamp) -> BTreeMap<BookKey, Page> {
        let clean = self.checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.clean);
        let window = self.window(now);
        let mut pages = self.checkpoint.as_ref().map(|c| c.pages.clone()).unwrap_or_default();
        for key in self.keys(window) {
            let name = self.instances.get(&key.incarnation).map_or(instance, String::as_str);
            let page = pages.entry(key.clone()).or_insert_with(|| Page::empty(name));
            let count = |map: &BTreeMap<BookKey, u64>| map.get(&key).copied().unwrap_or(0);
            settle_page(&mut page.counts, count(&self.after), count(&self.present), clean);
            page.closed = true;
            if let Some(window) = window.filter(|window| self.holds(&key, window)) {
                page.unaccounted.push(window);
            }
        }
        pages
    }

    fn keys(&self, window: Option<Window>) -> BTreeSet<BookKey> {
        let known = self.checkpoint.iter().flat_map(|checkpoint| checkpoint.pages.keys());
        let found = self.after.keys().chain(self.present.keys());
        let mut keys: BTreeSet<_> = known.chain(found).cloned().collect();
        if let (Some(window), Some(incarnation)) = (window, self.last) {
            keys.insert(BookKey { incarnation, hour: Hour::of(window.from) });
        }
        keys
    }

    fn holds(&self, key: &BookKey, window: &Window) -> bool {
        Some(key.incarnation) == self.last && key.hour == Hour::of(window.from)
    }
}

impl Page {
    /// A page without figures.
    pub fn empty(instance: &str) -> Self {
        let instance = instance.to_owned();
        Self { instance, counts: Counts::default(), unaccounted: Vec::new(), closed: false }
    }
}

/// Brings one page into balance with what lies in the spool.
fn settle_page(counts: &mut Counts, after: u64, present: u64, clean: bool) {
    counts.kept += after;
    // Samples behind the checkpoint may have been seen behind it too.
    counts.seen = counts.seen.max(counts.decided());
    let reason = if clean { DropReason::Shutdown } else { DropReason::Crash };
    let lost = counts.in_flight();
    counts.lose(DropStage::Pipeline, reason, lost);
    let expected = counts.pending();
    counts.lose(DropStage::Spool, DropReason::Corrupt, expected.saturating_sub(present));
    // More than the books know: the checkpoint that knew them was itself damaged.
    let unknown = present.saturating_sub(expected);
    counts.kept += unknown;
    counts.seen += unknown;
}

/// The form of a checkpoint in the spool.
#[derive(Serialize, Deserialize)]
struct Written {
    time: Timestamp,
    clean: bool,
    pages: Vec<WrittenPage>,
}

#[derive(Serialize, Deserialize)]
struct WrittenPage {
    #[serde(flatten)]
    key: BookKey,
    instance: String,
    seen: u64,
    not_sampled: u64,
    kept: u64,
    stored: u64,
    usage_dropped: u64,
    dropped: Vec<(String, String, u64)>,
    unaccounted: Vec<Window>,
    closed: bool,
}

impl Serialize for Checkpoint {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let pages = self.pages.iter().map(|(key, page)| written(key, page)).collect();
        Written { time: self.time, clean: self.clean, pages }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Checkpoint {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        let pages = written.pages.into_iter().map(read).collect();
        Ok(Self { time: written.time, clean: written.clean, pages })
    }
}

fn written(key: &BookKey, page: &Page) -> WrittenPage {
    let counts = &page.counts;
    let label = |((stage, reason), n): (&(DropStage, DropReason), &u64)| {
        (stage.label().to_owned(), reason.label().to_owned(), *n)
    };
    WrittenPage {
        key: key.clone(),
        instance: page.instance.clone(),
        seen: counts.seen,
        not_sampled: counts.not_sampled,
        kept: counts.kept,
        stored: counts.stored,
        usage_dropped: counts.usage_dropped,
        dropped: counts.dropped.iter().map(label).collect(),
        unaccounted: page.unaccounted.clone(),
        closed: page.closed,
    }
}

fn read(page: WrittenPage) -> (BookKey, Page) {
    let mut counts = Counts {
        seen: page.seen,
        not_sampled: page.not_sampled,
        kept: page.kept,
        stored: page.stored,
        usage_dropped: page.usage_dropped,
        dropped: BTreeMap::new(),
    };
    for (stage, reason, n) in &page.dropped {
        let stage = DropStage::ALL.iter().find(|member| member.label() == stage);
        let reason = DropReason::ALL.iter().find(|member| member.label() == reason);
        if let (Some(stage), Some(reason)) = (stage, reason) {
            counts.lose(*stage, *reason, *n);
        }
    }
    let unaccounted = page.unaccounted;
    (page.key, Page { instance: page.instance, counts, unaccounted, closed: page.closed })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn found(clean: bool) -> (BookKey, Found) {
        let time = at("2026-11-23T22:59:59Z");
        let incarnation = Incarnation::new(time, None);
        let key = BookKey { incarnation, hour: Hour::of(time) };
        let mut page = Page::empty("pod-1");
        page.counts =
            Counts { seen: 100, not_sampled: 80, kept: 10, stored: 6, ..Counts::default() };
        page.counts.lose(DropStage::Intake, DropReason::Full, 3);
        let pages = BTreeMap::from([(key.clone(), page)]);
        let checkpoint = Some(Checkpoint { time, clean, pages });
        (key, Found { checkpoint, last: Some(incarnation), ..Found::default() })
    }

    fn balance(counts: &Counts) -> u64 {
        counts.not_sampled + counts.stored + counts.pending() + counts.dropped_total()
    }

    #[test]
    fn a_checkpoint_is_read_back_as_it_was_written() {
        let (_, found) = found(true);
        let checkpoint = found.checkpoint.expect("one");
        let text = serde_json::to_string(&checkpoint).expect("writes");
        assert_eq!(serde_json::from_str::<Checkpoint>(&text).expect("reads"), checkpoint);
    }

    #[test]
    fn after_a_crash_the_page_is_in_balance_and_names_its_window() {
        let (key, mut found) = found(false);
        found.after.insert(key.clone(), 2);
        found.present.insert(key.clone(), 6);
        let now = at("2026-11-23T23:05:00Z");
        let page = found.settle("pod-1", now).remove(&key).expect("a page");
        assert_eq!(page.counts.kept, 12, "the checkpoint's ten and the two behind it");
        assert_eq!(page.counts.pending(), 6);
        assert_eq!(page.counts.dropped[&(DropStage::Pipeline, DropReason::Crash)], 5);
        assert_eq!(balance(&page.counts), page.counts.seen);
        assert_eq!(page.unaccounted, [Window { from: at("2026-11-23T22:59:59Z"), to: now }]);
        assert!(page.closed);
    }

    #[test]
    fn samples_missing_from_the_spool_are_counted_as_corrupt() {
        let (key, mut found) = found(true);
        found.present.insert(key.clone(), 1);
        let page = found.settle("pod-1", at("2026-11-24T00:00:00Z")).remove(&key).expect("a page");
        assert_eq!(page.counts.dropped[&(DropStage::Spool, DropReason::Corrupt)], 3);
        assert_eq!((page.counts.pending(), balance(&page.counts)), (1, page.counts.seen));
        assert!(page.unaccounted.is_empty(), "a shutdown in order leaves no window");
    }

    #[test]
    fn without_a_checkpoint_what_lies_there_is_what_was_seen() {
        let (key, mut found) = found(false);
        found.checkpoint = None;
        found.after.insert(key.clone(), 4);
        found.present.insert(key.clone(), 4);
        let page = found.settle("pod-1", at("2026-11-24T00:00:00Z")).remove(&key).expect("a page");
        assert_eq!((page.counts.seen, page.counts.kept, page.counts.pending()), (4, 4, 4));
    }
}
