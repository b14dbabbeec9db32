//! The way back: from the bucket into the store, and what reads it.

use prometheus::{IntGauge, Result};

use super::Metrics;
use super::families as f;
use super::registry::{Counters, Registrar};
use crate::domain::Dataset;

/// The families of the index.
pub(super) struct Index {
    objects: Counters<1>,
    rows: Counters<1>,
    quarantined: Counters<2>,
    failures: Counters<1>,
    behind: prometheus::Gauge,
    bytes: IntGauge,
    reads: Counters<1>,
}

impl Index {
    pub(super) fn register(reg: &mut Registrar) -> Result<Self> {
        let index = Self {
            objects: reg.counters(&f::INGEST_OBJECTS)?,
            rows: reg.counters(&f::INGEST_ROWS)?,
            quarantined: reg.counters(&f::INGEST_QUARANTINED)?,
            failures: reg.counters(&f::INGEST_FAILURES)?,
            behind: reg.fraction(&f::INGEST_BEHIND)?,
            bytes: reg.gauge(&f::STORE_BYTES)?,
            reads: reg.counters(&f::STORE_READS)?,
        };
        for result in ["ok", "late", "failed"] {
            index.reads.of([result]);
        }
        for dataset in Dataset::ALL {
            index.objects.of([dataset.label()]);
            index.rows.of([dataset.label()]);
        }
        for result in ["ok", "late", "failed"] {
            index.reads.of([result]);
        }
        Ok(index)
    }
}

impl Metrics {
    /// An object of the bucket was read to its end.
    pub fn ingested(&self, dataset: Dataset) {
        self.inner.index.objects.of([dataset.label()]).inc();
    }

    /// `n` rows were new to the store.
    pub fn ingested_rows(&self, dataset: Dataset, n: u64) {
        self.inner.index.rows.of([dataset.label()]).inc_by(n);
    }

    /// A line, or an object, of the bucket could not be understood.
    pub fn quarantined(&self, dataset: Dataset, reason: &'static str) {
        self.inner.index.quarantined.of([dataset.label(), reason]).inc();
    }

    /// Reading from the bucket, or writing to the store, failed with an error of `kind`.
    pub fn ingest_failed(&self, kind: &'static str) {
        self.inner.index.failures.of([kind]).inc();
    }

    /// The store has all that the bucket had `seconds` ago; 0 where it has all of it.
    pub fn ingest_behind_seconds(&self, seconds: f64) {
        self.inner.index.behind.set(seconds);
    }

    /// The store takes `bytes` on the disk.
    pub fn store_bytes(&self, bytes: u64) {
        self.inner.index.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The store was asked something, and answered (`ok`), was too slow (`late`) or could not (`failed`).
    pub fn store_read(&self, result: &'static str) {
        self.inner.index.reads.of([result]).inc();
    }
}
