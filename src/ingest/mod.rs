//! The worker that brings what lies in the bucket into the store, whoever put it there.
//!
//! It looks through the folders of the last hours often, through those of the last days sometimes, and
//! through all of them rarely, for an object may come late: its folder is named by when its requests
//! began. What it has read it knows by name and size. The ledger's objects are overwritten as they
//! grow, so those whose figures may still change are read again.
//!
//! What cannot be understood is set aside line by line, counted and named; the rest goes on. What
//! cannot be reached is tried again at the next look. Memory: a few objects at once.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bucket::{Bucket, BucketError};
use crate::config;
use crate::metrics::Metrics;
use crate::store::{Store, StoreError};

mod read;
mod walk;

/// Between two looks through the last two days.
const DAYS_EVERY: Duration = Duration::from_secs(5 * 60);
/// Between two looks through everything.
const ALL_EVERY: Duration = Duration::from_secs(60 * 60);
/// Between two times that old rows are forgotten.
const RETAIN_EVERY: Duration = Duration::from_secs(10 * 60);
/// Between two readings of the same object of the ledger.
const LEDGER_EVERY: Duration = Duration::from_secs(5);
/// What our own archive brings at once is looked for at once.
const GATHER: Duration = Duration::from_millis(100);

/// How far the store is; clones see the same.
#[derive(Clone, Debug)]
pub struct Progress(watch::Receiver<Option<Timestamp>>);

impl Progress {
    /// When the last look began after which the store had all that the bucket had; `None` before the
    /// first.
    pub fn caught_up(&self) -> Option<Timestamp> {
        *self.0.borrow()
    }
}

/// Why a look through the bucket ended early.
#[derive(Debug, thiserror::Error)]
enum IngestError {
    #[error(transparent)]
    Bucket(#[from] BucketError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl IngestError {
    fn label(&self) -> &'static str {
        match self {
            Self::Bucket(error) => error.kind.label(),
            Self::Store(error) => error.label(),
        }
    }
}

/// Brings the bucket into the store; see the module.
pub struct Ingest {
    bucket: Arc<dyn Bucket>,
    store: Store,
    metrics: Metrics,
    settings: config::Store,
    /// Told when this process brought something to the bucket.
    uploaded: Arc<Notify>,
    caught_up: watch::Sender<Option<Timestamp>>,
    walked_days: Option<Instant>,
    walked_all: Option<Instant>,
    retained: Option<Instant>,
    read_ledger: Option<Instant>,
    told: Option<&'static str>,
    last_good: Instant,
}

impl Ingest {
    /// A worker from `bucket` to `store`. `uploaded` wakes it before its time.
    pub fn new(
        bucket: Arc<dyn Bucket>,
        store: Store,
        metrics: Metrics,
        settings: config::Store,
        uploaded: Arc<Notify>,
    ) -> Self {
        Self {
            bucket,
            store,
            metrics,
            settings,
            uploaded,
            caught_up: watch::channel(None).0,
            walked_days: None,
            walked_all: None,
            retained: None,
            read_ledger: None,
            told: None,
            last_good: Instant::now(),
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress(self.caught_up.subscribe())
    }

    /// Works until `stopping` is set; what is not read then is read after the next start.
    pub async fn run(mut self, stopping: CancellationToken) {
        loop {
            let look = async {
                self.look().await;
                self.retain().await;
            };
            tokio::select! {
                () = look => {}
                () = stopping.cancelled() => return,
            }
            let uploaded = async {
                self.uploaded.notified().await;
                tokio::time::sleep(GATHER).await;
            };
            tokio::select! {
                () = uploaded => {}
                () = tokio::time::sleep(self.settings.look) => {}
                () = stopping.cancelled() => return,
            }
        }
    }

    /// One look; how far back depends on when that was last done.
    async fn look(&mut self) {
        let (now, started) = (Timestamp::now(), Instant::now());
        let due = |at: Option<Instant>, every| at.is_none_or(|at| at.elapsed() >= every);
        let reach = match () {
            () if due(self.walked_all, ALL_EVERY) => walk::Reach::All,
            () if due(self.walked_days, DAYS_EVERY) => walk::Reach::Days,
            () => walk::Reach::Hours,
        };
        let ledger = due(self.read_ledger, LEDGER_EVERY);
        match self.walk(reach, ledger, now).await {
            Ok(()) => {
                self.walked(reach, ledger, started);
                self.last_good = started;
                self.told = None;
                if self.caught_up.send_replace(Some(now)).is_none() {
                    let seconds = started.elapsed().as_secs_f64();
                    tracing::info!(seconds, "the index holds what the bucket holds");
                }
            }
            Err(error) => self.failed(&error),
        }
        let behind = if self.told.is_some() { self.last_good.elapsed() } else { Duration::ZERO };
        self.metrics.ingest_behind_seconds(behind.as_secs_f64());
        self.metrics.store_bytes(self.store.bytes());
    }

    fn walked(&mut self, reach: walk::Reach, ledger: bool, started: Instant) {
        if ledger {
            self.read_ledger = Some(started);
        }
        if reach >= walk::Reach::Days {
            self.walked_days = Some(started);
        }
        if reach == walk::Reach::All {
            self.walked_all = Some(started);
        }
    }

    async fn retain(&mut self) {
        if self.retained.is_some_and(|at| at.elapsed() < RETAIN_EVERY) {
            return;
        }
        self.retained = Some(Instant::now());
        if let Err(error) = self.store.retain(&self.settings.retention, Timestamp::now()).await {
            self.failed(&error.into());
        }
    }

    fn failed(&mut self, error: &IngestError) {
        self.metrics.ingest_failed(error.label());
        if self.told.replace(error.label()) != Some(error.label()) {
            let kind = error.label();
            tracing::warn!(kind, %error, "the bucket could not be read into the store; it is tried again");
        }
    }
}

#[cfg(test)]
mod tests;
