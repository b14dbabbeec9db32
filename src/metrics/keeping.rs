//! What becomes of the observations: samples, drops, the way to the bucket, spans.

use prometheus::{IntCounter, IntGauge, Result};

use super::Metrics;
use super::families as f;
use super::labels::OTHER;
use super::registry::{Counters, Gauges, Histograms, Registrar};
use crate::domain::{
    CaptureLevel, Dataset, Dialect, DropReason, DropStage, Injection, JoinFate, SampleReason, Shed,
    ShedCause,
};

/// The kinds of redaction that have a label of their own.
const REDACTION_KINDS: [&str; 6] = ["email", "phone", "credit_card", "iban", "ip", "secret"];

/// Around the default of `spool.sync`, in seconds.
const UNSYNCED_BUCKETS: &[f64] =
    &[0.01, 0.05, 0.1, 0.11, 0.125, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 10.0];

/// The families of what is kept.
pub(super) struct Keeping {
    samples: Counters<2>,
    dropped: Counters<2>,
    panics: Counters<1>,
    join: Counters<1>,
    redactions: Counters<1>,
    reading_faults: Counters<3>,
    queue_depth: Gauges<1>,
    capture_bytes: IntGauge,
    capture_truncated: Counters<1>,
    memory_limit: IntGauge,
    memory_used: IntGauge,
    capture_level: Gauges<1>,
    capture_shed: Counters<2>,
    injections: Counters<1>,
    spool_bytes: IntGauge,
    spool_segments: IntGauge,
    spool_unsynced: Histograms<0>,
    archive_oldest: prometheus::Gauge,
    archive_objects: Counters<1>,
    archive_bytes: Counters<1>,
    archive_failures: Counters<1>,
    breaker_open: IntGauge,
    unaccounted: prometheus::Gauge,
    spans_exported: IntCounter,
    spans_dropped: IntCounter,
}

impl Keeping {
    pub(super) fn register(reg: &mut Registrar) -> Result<Self> {
        let keeping = Self {
            samples: reg.counters(&f::SAMPLES)?,
            dropped: reg.counters(&f::DROPPED)?,
            panics: reg.counters(&f::PANICS)?,
            join: reg.counters(&f::JOIN)?,
            redactions: reg.counters(&f::REDACTIONS)?,
            reading_faults: reg.counters(&f::READING_FAULTS)?,
            queue_depth: reg.gauges(&f::QUEUE_DEPTH)?,
            capture_bytes: reg.gauge(&f::CAPTURE_BYTES)?,
            capture_truncated: reg.counters(&f::CAPTURE_TRUNCATED)?,
            memory_limit: reg.gauge(&f::MEMORY_LIMIT)?,
            memory_used: reg.gauge(&f::MEMORY_USED)?,
            capture_level: reg.gauges(&f::CAPTURE_LEVEL)?,
            capture_shed: reg.counters(&f::CAPTURE_SHED)?,
            injections: reg.counters(&f::INJECTIONS)?,
            spool_bytes: reg.gauge(&f::SPOOL_BYTES)?,
            spool_segments: reg.gauge(&f::SPOOL_SEGMENTS)?,
            spool_unsynced: reg.histograms(&f::SPOOL_UNSYNCED, UNSYNCED_BUCKETS)?,
            archive_oldest: reg.fraction(&f::ARCHIVE_OLDEST)?,
            archive_objects: reg.counters(&f::ARCHIVE_OBJECTS)?,
            archive_bytes: reg.counters(&f::ARCHIVE_BYTES)?,
            archive_failures: reg.counters(&f::ARCHIVE_FAILURES)?,
            breaker_open: reg.gauge(&f::BREAKER_OPEN)?,
            unaccounted: reg.fraction(&f::UNACCOUNTED)?,
            spans_exported: reg.counter(&f::SPANS_EXPORTED)?,
            spans_dropped: reg.counter(&f::SPANS_DROPPED)?,
        };
        keeping.closed_sets_at_zero();
        Ok(keeping)
    }

    fn closed_sets_at_zero(&self) {
        self.spool_unsynced.of([]);
        for (stage, reason) in
            DropStage::ALL.iter().flat_map(|s| DropReason::ALL.iter().map(move |r| (s, r)))
        {
            self.dropped.of([stage.label(), reason.label()]);
        }
        for cause in ShedCause::ALL {
            self.capture_level.of([cause.label()]);
            for level in &CaptureLevel::ALL[1..] {
                self.capture_shed.of([level.label(), cause.label()]);
            }
        }
        for fate in JoinFate::ALL {
            self.join.of([fate.label()]);
        }
        for result in Injection::ALL {
            self.injections.of([result.label()]);
        }
        for kind in REDACTION_KINDS {
            self.redactions.of([kind]);
        }
        for dataset in Dataset::ALL {
            self.archive_objects.of([dataset.label()]);
            self.archive_bytes.of([dataset.label()]);
        }
    }

    pub(super) fn tap_opened(&self, tap: &str) {
        for reason in SampleReason::ALL {
            self.samples.of([tap, reason.label()]);
        }
        self.capture_truncated.of([tap]);
    }
}

impl Metrics {
    /// An exchange was kept as a sample.
    pub fn sampled(&self, tap: &str, reason: SampleReason) {
        self.inner.keeping.samples.of([tap, reason.label()]).inc();
    }

    /// `n` observations were lost.
    pub fn dropped(&self, stage: DropStage, reason: DropReason, n: u64) {
        self.inner.keeping.dropped.of([stage.label(), reason.label()]).inc_by(n);
    }

    /// A panic was contained in `hook`.
    pub fn panicked(&self, hook: &'static str) {
        self.inner.keeping.panics.of([hook]).inc();
    }

    /// `n` calls that name the request they are made for met their fate.
    pub fn joined(&self, fate: JoinFate, n: u64) {
        self.inner.keeping.join.of([fate.label()]).inc_by(n);
    }

    /// `n` pieces of text of one kind were replaced.
    pub fn redacted(&self, kind: &str, n: u64) {
        let kind = if REDACTION_KINDS.contains(&kind) { kind } else { OTHER };
        self.inner.keeping.redactions.of([kind]).inc_by(n);
    }

    /// An exchange could not be fully understood.
    pub fn reading_fault(&self, tap: &str, dialect: Dialect, fault: &'static str) {
        self.inner.keeping.reading_faults.of([tap, dialect.label(), fault]).inc();
    }

    /// `n` items wait in `queue`.
    pub fn queue_depth(&self, queue: &'static str, n: u64) {
        self.inner.keeping.queue_depth.of([queue]).set(signed(n));
    }

    /// Captured bodies hold `bytes` of memory.
    pub fn capture_bytes(&self, bytes: u64) {
        self.inner.keeping.capture_bytes.set(signed(bytes));
    }

    /// A body of an exchange was captured only in part.
    pub fn capture_truncated(&self, tap: &str) {
        self.inner.keeping.capture_truncated.of([tap]).inc();
    }

    /// The process may take `bytes` of memory.
    pub fn memory_limit(&self, bytes: u64) {
        self.inner.keeping.memory_limit.set(signed(bytes));
    }

    /// It takes `bytes` of that.
    pub fn memory_used(&self, bytes: u64) {
        self.inner.keeping.memory_used.set(signed(bytes));
    }

    /// From now on `cause` asks for `level`.
    pub fn capture_level(&self, cause: ShedCause, level: CaptureLevel) {
        self.inner.keeping.capture_level.of([cause.label()]).set(level as i64);
    }

    /// Less than all of an exchange was looked at.
    pub fn shed(&self, shed: Shed) {
        let labels = [shed.level.label(), shed.cause.label()];
        self.inner.keeping.capture_shed.of(labels).inc();
    }

    /// The admission webhook answered a review.
    pub fn injection(&self, result: Injection) {
        self.inner.keeping.injections.of([result.label()]).inc();
    }

    /// The spool holds `bytes`.
    pub fn spool_bytes(&self, bytes: u64) {
        self.inner.keeping.spool_bytes.set(signed(bytes));
    }

    /// An fsync made rows safe, the oldest of which had waited for `seconds`.
    pub fn spool_synced(&self, seconds: f64) {
        self.inner.keeping.spool_unsynced.of([]).observe(seconds);
    }

    /// The spool holds `n` segments.
    pub fn spool_segments(&self, n: u64) {
        self.inner.keeping.spool_segments.set(signed(n));
    }

    /// The oldest record that the bucket lacks is `seconds` old; 0 where it lacks none.
    pub fn archive_oldest_seconds(&self, seconds: f64) {
        self.inner.keeping.archive_oldest.set(seconds);
    }

    /// An object of `bytes` was stored and verified.
    pub fn archive_uploaded(&self, dataset: Dataset, bytes: u64) {
        self.inner.keeping.archive_objects.of([dataset.label()]).inc();
        self.inner.keeping.archive_bytes.of([dataset.label()]).inc_by(bytes);
    }

    /// An upload failed with an error of `kind`.
    pub fn archive_failed(&self, kind: &'static str) {
        self.inner.keeping.archive_failures.of([kind]).inc();
    }

    /// Uploads pause, or resume.
    pub fn breaker_open(&self, open: bool) {
        self.inner.keeping.breaker_open.set(i64::from(open));
    }

    /// Records of `seconds` before this start may be missing.
    pub fn unaccounted_seconds(&self, seconds: f64) {
        self.inner.keeping.unaccounted.set(seconds);
    }

    /// The collector accepted `n` spans.
    pub fn spans_exported(&self, n: u64) {
        self.inner.keeping.spans_exported.inc_by(n);
    }

    /// `n` spans were lost.
    pub fn spans_dropped(&self, n: u64) {
        self.inner.keeping.spans_dropped.inc_by(n);
    }
}

pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
