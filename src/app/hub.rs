//! `flowtap hub`: the page, the API and monitors over a bucket that many sidecars fill. No tap, no spool.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::index::Index;
use super::monitors::Monitors;
use super::{StartError, keeping_runtime};
use crate::bucket;
use crate::config::{self, Config};
use crate::console::{Console, Ready};
use crate::drain::Drain;
use crate::metrics::Metrics;

/// A hub that serves.
pub struct Hub {
    drain: Drain,
    runtime: Runtime,
    administering: CancellationToken,
    ready: Ready,
    index: Index,
    monitors: Monitors,
    drain_timeout: Duration,
}

impl Hub {
    /// Starts everything; the door is bound before anything runs. `reindex` makes the index anew.
    pub fn start(config: &Config, reindex: bool) -> Result<Self, StartError> {
        let metrics = Metrics::new(&config.metrics);
        metrics.build_info(env!("CARGO_PKG_VERSION"));
        let (drain, ready) = (Drain::default(), Ready::default());
        let mut console = Console::bind(&config.admin, metrics.clone(), ready.clone())?;
        if !config.taps.is_empty() {
            tracing::warn!(
                taps = config.taps.len(),
                "a hub listens on no tap: `taps` is left alone"
            );
        }
        let runtime = keeping_runtime()?;
        let bucket = runtime.block_on(bucket::open(&config.bucket))?;
        let index = Index::start(config, &bucket, Arc::default(), &metrics, &drain, reindex)?;
        let monitors = Monitors::start(config, &bucket, Some(&index), &metrics, &drain)?;
        tracing::info!(bucket = bucket.describe(), "reading");
        console.watched_by(&config::monitors_shown(config));
        console.show(index.view(bucket));
        if let Some(address) = console.address() {
            tracing::info!(door = "admin", %address, "listening");
        }
        let administering = CancellationToken::new();
        runtime.spawn(console.serve(administering.clone()));
        ready.set(true);
        Ok(Self {
            drain,
            runtime,
            administering,
            ready,
            index,
            monitors,
            drain_timeout: config.drain_timeout,
        })
    }

    /// Ends; what is not read is read after the next start.
    pub fn stop(self) {
        let deadline = Instant::now() + self.drain_timeout;
        self.ready.set(false);
        self.administering.cancel();
        self.runtime.shutdown_timeout(Duration::from_millis(100));
        let mut late = self.monitors.stop(&self.drain, deadline);
        late.extend(self.index.stop(&self.drain, deadline));
        match late.is_empty() {
            true => tracing::info!("drained"),
            false => tracing::warn!(?late, "the drain deadline passed"),
        }
    }
}
