//! The reading side: the bucket's index, the worker that fills it, and what the page sees of both.

use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::StartError;
use crate::bucket::Bucket;
use crate::config::{Config, Role};
use crate::console::View;
use crate::drain::{self, Drain};
use crate::ingest::{Ingest, Progress};
use crate::metrics::Metrics;
use crate::monitor::Indexed;
use crate::store::Store;

/// A store that is being filled.
pub(super) struct Index {
    store: Store,
    progress: Progress,
    stopping: CancellationToken,
}

impl Index {
    /// Opens the store and starts its two threads. `anew` makes it from nothing.
    pub(super) fn start(
        config: &Config,
        bucket: &Arc<dyn Bucket>,
        uploaded: Arc<Notify>,
        metrics: &Metrics,
        drain: &Drain,
        anew: bool,
    ) -> Result<Self, StartError> {
        let (store, writer) = Store::open(&config.store, anew)?;
        drain.thread("store", move || {
            drain::step_back();
            writer.run();
        })?;
        let settings = config.store.clone();
        let ingest =
            Ingest::new(Arc::clone(bucket), store.clone(), metrics.clone(), settings, uploaded);
        let (progress, stopping) = (ingest.progress(), CancellationToken::new());
        let runtime = drain::runtime(Builder::new_current_thread())?;
        let until = stopping.clone();
        drain.thread("ingest", move || {
            drain::step_back();
            runtime.block_on(ingest.run(until));
        })?;
        Ok(Self { store, progress, stopping })
    }

    /// The same beside the traffic of `flowtap run`, which goes on without it where it cannot be had.
    pub(super) fn beside_traffic(
        role: Role,
        config: &Config,
        bucket: &Arc<dyn Bucket>,
        uploaded: Arc<Notify>,
        metrics: &Metrics,
        drain: &Drain,
    ) -> Option<Self> {
        if role != Role::Run {
            return None;
        }
        match Self::start(config, bucket, uploaded, metrics, drain, false) {
            Ok(index) => Some(index),
            Err(error) => {
                tracing::error!(%error, "there is no index: the page shows this process alone; \
                    traffic and samples are not touched");
                None
            }
        }
    }

    /// What the page and the API see.
    pub(super) fn view(&self, bucket: Arc<dyn Bucket>) -> View {
        View { store: self.store.clone(), bucket, progress: self.progress.clone() }
    }

    /// What monitors count in.
    pub(super) fn counts(&self) -> Indexed {
        let progress = self.progress.clone();
        Indexed::new(self.store.clone(), Arc::new(move || progress.caught_up()))
    }

    /// Ends both threads; who is late at `deadline` is named. The console has to be gone.
    pub(super) fn stop(self, drain: &Drain, deadline: Instant) -> Vec<String> {
        self.stopping.cancel();
        let mut late = drain.join("ingest", deadline);
        drop(self.store);
        late.extend(drain.join("store", deadline));
        late
    }
}
