//! (placeholder: built next door)

use crate::config::MetricsLimits;
use crate::domain::{Dataset, DropReason, DropStage};

/// Every instrument (placeholder).
#[derive(Clone, Debug)]
pub struct Metrics {}

#[allow(missing_docs)]
impl Metrics {
    pub fn new(_limits: &MetricsLimits) -> Self {
        Self {}
    }
    pub fn dropped(&self, _stage: DropStage, _reason: DropReason, _n: u64) {}
    pub fn spool_bytes(&self, _bytes: u64) {}
    pub fn spool_segments(&self, _n: u64) {}
    pub fn archive_oldest_seconds(&self, _seconds: f64) {}
    pub fn archive_uploaded(&self, _dataset: Dataset, _bytes: u64) {}
    pub fn archive_failed(&self, _kind: &'static str) {}
    pub fn breaker_open(&self, _open: bool) {}
    pub fn unaccounted_seconds(&self, _seconds: f64) {}
}
