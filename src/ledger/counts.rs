//! The figures of one hour: atomics while the hour is being counted, plain numbers elsewhere.

use std::array;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::domain::{DropReason, DropStage};

/// What became of the exchanges of one hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Exchanges that passed.
    pub seen: u64,
    /// Of those, the ones that sampling did not keep.
    pub not_sampled: u64,
    /// Samples written to the spool and fsynced, ever.
    pub kept: u64,
    /// Samples of which the bucket confirmed an object.
    pub stored: u64,
    /// Rollup rows lost; they are no exchanges and enter no equation.
    pub usage_dropped: u64,
    /// Exchanges lost, by stage and reason.
    pub dropped: BTreeMap<(DropStage, DropReason), u64>,
}

impl Counts {
    /// Exchanges lost in all.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.values().sum()
    }

    /// Samples that lie in the spool: kept, not stored, and not lost since.
    pub fn pending(&self) -> u64 {
        self.kept.saturating_sub(self.stored).saturating_sub(self.dropped_where(after_keeping))
    }

    /// Exchanges that were seen and of which nothing is decided yet; 0 once the process has drained.
    pub fn in_flight(&self) -> u64 {
        self.seen.saturating_sub(self.decided())
    }

    /// True where nothing is under way.
    pub fn is_settled(&self) -> bool {
        self.pending() == 0 && self.in_flight() == 0
    }

    /// Exchanges whose fate before the bucket is known: not sampled, kept, or lost on the way.
    pub fn decided(&self) -> u64 {
        self.not_sampled + self.kept + self.dropped_where(|key| !after_keeping(key))
    }

    /// Adds `n` losses.
    pub fn lose(&mut self, stage: DropStage, reason: DropReason, n: u64) {
        if n > 0 {
            *self.dropped.entry((stage, reason)).or_default() += n;
        }
    }

    fn dropped_where(&self, wanted: impl Fn((DropStage, DropReason)) -> bool) -> u64 {
        self.dropped.iter().filter(|(key, _)| wanted(**key)).map(|(_, n)| n).sum()
    }
}

/// True for losses of samples that the spool had already made safe.
fn after_keeping((stage, reason): (DropStage, DropReason)) -> bool {
    stage == DropStage::Archive || (stage, reason) == (DropStage::Spool, DropReason::Corrupt)
}

const STAGES: usize = DropStage::ALL.len();
const REASONS: usize = DropReason::ALL.len();

/// The counters of one hour, shared by all threads.
#[derive(Debug)]
pub(super) struct Cells {
    pub(super) seen: AtomicU64,
    pub(super) not_sampled: AtomicU64,
    pub(super) kept: AtomicU64,
    pub(super) stored: AtomicU64,
    pub(super) usage_dropped: AtomicU64,
    dropped: [[AtomicU64; REASONS]; STAGES],
}

impl Cells {
    pub(super) fn new() -> Self {
        Self {
            seen: AtomicU64::new(0),
            not_sampled: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            stored: AtomicU64::new(0),
            usage_dropped: AtomicU64::new(0),
            dropped: array::from_fn(|_| array::from_fn(|_| AtomicU64::new(0))),
        }
    }

    pub(super) fn lose(&self, stage: DropStage, reason: DropReason, n: u64) {
        // Both enums are their own index; a member past the end cannot be.
        if let Some(cell) = self.dropped.get(stage as usize).and_then(|s| s.get(reason as usize)) {
            add(cell, n);
        }
    }

    /// A copy in which `seen` is never behind its parts: an exchange is counted as seen before
    /// anything else of it is, parts are added with release order, and are read here before `seen`.
    pub(super) fn snapshot(&self) -> Counts {
        let read = |cell: &AtomicU64| cell.load(Ordering::Acquire);
        let mut dropped = BTreeMap::new();
        for stage in DropStage::ALL {
            for reason in DropReason::ALL {
                let n = read(&self.dropped[*stage as usize][*reason as usize]);
                if n > 0 {
                    dropped.insert((*stage, *reason), n);
                }
            }
        }
        let stored = read(&self.stored);
        let kept = read(&self.kept);
        let not_sampled = read(&self.not_sampled);
        let usage_dropped = read(&self.usage_dropped);
        Counts { seen: read(&self.seen), not_sampled, kept, stored, usage_dropped, dropped }
    }
}

pub(super) fn add(cell: &AtomicU64, n: u64) {
    cell.fetch_add(n, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_add_up_to_what_was_seen() {
        let cells = Cells::new();
        add(&cells.seen, 100);
        add(&cells.not_sampled, 80);
        add(&cells.kept, 12);
        add(&cells.stored, 7);
        cells.lose(DropStage::Intake, DropReason::Full, 5);
        cells.lose(DropStage::Spool, DropReason::Corrupt, 2);
        let counts = cells.snapshot();
        assert_eq!((counts.pending(), counts.in_flight()), (3, 3));
        let parts = counts.not_sampled + counts.stored + counts.pending() + counts.in_flight();
        assert_eq!(counts.seen, parts + counts.dropped_total());
    }
}
