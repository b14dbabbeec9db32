//! The ledger as published: one small object an instance, run and hour, overwritten as it grows.

use std::mem;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BookKey, Hour, Incarnation, Page, Window};
use crate::domain::{Dataset, DropReason, DropStage};

/// The line of one hour of one run. Schema and equation: docs/RECORD.md.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerRow {
    /// [`LedgerRow::SCHEMA`].
    pub schema: String,
    /// The process that counted.
    pub instance: String,
    /// The run of it.
    pub incarnation: Incarnation,
    /// The hour's first moment.
    pub hour: Timestamp,
    /// When this row was written.
    pub updated: Timestamp,
    /// Exchanges that passed.
    pub seen: u64,
    /// Exchanges that sampling did not keep.
    pub not_sampled: u64,
    /// Samples fsynced in the spool, ever.
    pub kept: u64,
    /// Samples that the bucket confirmed.
    pub stored: u64,
    /// Samples in the spool, on their way to the bucket.
    pub pending: u64,
    /// Exchanges not decided yet; 0 in a closed row.
    pub in_flight: u64,
    /// Exchanges lost.
    pub dropped: Vec<Loss>,
    /// Rollup rows lost: no exchanges, in no equation.
    pub usage_dropped: u64,
    /// What the run cannot account for.
    pub unaccounted: Vec<Window>,
    /// The run is over.
    pub closed: bool,
}

/// Exchanges lost at one stage for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Where.
    pub stage: String,
    /// Why.
    pub reason: String,
    /// How many.
    pub count: u64,
}

impl LedgerRow {
    /// The schema that a row is written in.
    pub const SCHEMA: &'static str = "flowtap.ledger.v1";

    pub(super) fn new(key: &BookKey, page: &Page, updated: Timestamp) -> Self {
        let counts = &page.counts;
        let loss = |((stage, reason), count): (&(DropStage, DropReason), &u64)| Loss {
            stage: stage.label().to_owned(),
            reason: reason.label().to_owned(),
            count: *count,
        };
        Self {
            schema: Self::SCHEMA.to_owned(),
            instance: page.instance.clone(),
            incarnation: key.incarnation,
            hour: key.hour.start(),
            updated,
            seen: counts.seen,
            not_sampled: counts.not_sampled,
            kept: counts.kept,
            stored: counts.stored,
            pending: counts.pending(),
            in_flight: counts.in_flight(),
            dropped: counts.dropped.iter().map(loss).collect(),
            usage_dropped: counts.usage_dropped,
            unaccounted: page.unaccounted.clone(),
            closed: page.closed,
        }
    }

    /// The object's name in the bucket.
    pub fn name(&self) -> String {
        let folder = Dataset::Ledger.label();
        let partition = Hour::of(self.hour).partition();
        let run = run_name(&self.instance, self.incarnation);
        format!("{folder}/{partition}/{run}.jsonl.gz")
    }

    /// Exchanges lost in all.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(|loss| loss.count).sum()
    }

    /// True where everything seen is accounted for: `seen = not_sampled + stored + pending + dropped`,
    /// and what is in flight besides while the run goes on.
    pub fn balances(&self) -> bool {
        let open = if self.closed { 0 } else { self.in_flight };
        let parts = [self.not_sampled, self.stored, self.pending, self.dropped_total(), open];
        parts.iter().sum::<u64>() == self.seen
    }

    /// True where nothing of this row can change any more.
    pub fn is_settled(&self) -> bool {
        self.closed && self.pending == 0
    }

    /// The row as it can stand for good, should its run leave nothing behind but this: what is not decided
    /// yet counts as not seen, and what comes of its hour from now on as not accounted for. A later row says
    /// better.
    #[must_use]
    pub fn as_last_word(mut self) -> Self {
        let until = Hour::of(self.hour).end().max(self.updated);
        if !self.closed && (self.in_flight > 0 || until > self.updated) {
            self.seen -= mem::take(&mut self.in_flight);
            self.unaccounted.push(Window { from: self.updated, to: until });
        }
        self
    }

    /// The same figures, whenever they were written.
    pub fn same_figures(&self, other: &Self) -> bool {
        let other = Self { updated: self.updated, ..other.clone() };
        *self == other
    }
}

/// What the names of all objects of one run begin with. Only letters, digits, `-`, `_` and `.` of the
/// instance's name are used, and at most 100 of them.
pub fn run_name(instance: &str, incarnation: Incarnation) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = instance.chars().take(100).map(|c| if safe(c) { c } else { '-' }).collect();
    format!("{}-{incarnation}", name.trim_start_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_instance_name_stays_in_its_folder() {
        let run = Incarnation::parse("0011223344556677").expect("sixteen digits");
        assert_eq!(run_name("pod-7f", run), "pod-7f-0011223344556677");
        assert_eq!(run_name("../a/b\0", run), "-a-b--0011223344556677");
        assert_eq!(run_name(&"x".repeat(5000), run).len(), 117);
    }
}
