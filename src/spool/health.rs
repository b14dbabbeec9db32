//! Whether the disk works, and when to try it again.

use std::io;
use std::mem;
use std::time::{Duration, Instant};

use crate::domain::DropReason;

/// Between two attempts at a disk that does not work.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// The disk as the spool's thread last saw it.
#[derive(Debug)]
pub(super) struct Health {
    retry_at: Instant,
    trouble: DropReason,
    works: bool,
}

impl Health {
    pub(super) fn new(now: Instant) -> Self {
        Self { retry_at: now, trouble: DropReason::Disk, works: true }
    }

    /// Why rows are dropped, after an error.
    pub(super) fn trouble(&self) -> DropReason {
        self.trouble
    }

    /// True where the disk may be tried.
    pub(super) fn may_try(&self, now: Instant) -> bool {
        now >= self.retry_at
    }

    /// Notes an error; logged once until the disk works again.
    pub(super) fn failed(&mut self, error: &io::Error, now: Instant) {
        self.trouble = reason(error);
        self.retry_at = now + RETRY_EVERY;
        if mem::replace(&mut self.works, false) {
            let reason = self.trouble.label();
            tracing::error!(%error, reason, "the spool cannot write; rows are dropped and counted");
        }
    }

    /// Notes a success.
    pub(super) fn worked(&mut self) {
        if !mem::replace(&mut self.works, true) {
            tracing::info!("the spool can write again");
        }
    }
}

fn reason(error: &io::Error) -> DropReason {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DropReason::DiskFull,
        _ => DropReason::Disk,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_and_tried_again_after_a_while() {
        let now = Instant::now();
        let mut health = Health::new(now);
        assert!(health.may_try(now));
        health.failed(&io::Error::from(io::ErrorKind::StorageFull), now);
        assert_eq!(health.trouble(), DropReason::DiskFull);
        assert!(!health.may_try(now) && health.may_try(now + RETRY_EVERY));
        health.failed(&io::Error::from(io::ErrorKind::PermissionDenied), now);
        assert_eq!(health.trouble(), DropReason::Disk);
    }
}
