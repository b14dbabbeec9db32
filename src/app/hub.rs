//! `flowtap hub`: the evaluator, the page, the API and monitors over a bucket that many sidecars fill.
//! No tap, no spool. `flowtap evaluator` is its evaluator alone, of which there may be many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::index::Index;
use super::monitors::Monitors;
use super::{Ground, StartError, Waiting, evaluator, keeping_runtime, start_tracer};
use crate::bucket;
use crate::config::{Config, Role};
use crate::console::{Console, Ready};
use crate::drain::Drain;
use crate::metrics::Metrics;
use crate::trace::Tracer;

/// Serves as a hub until SIGTERM or SIGINT; a second signal ends at once. `reindex` makes the index anew.
pub fn serve_hub(config: &Config, reindex: bool) -> Result<(), StartError> {
    let waiting = Waiting::begin()?;
    let hub = Hub::start(config, reindex)?;
    waiting.until_told(|| hub.stop());
    Ok(())
}

/// Judges samples as one of several until SIGTERM or SIGINT; a second signal ends at once.
pub fn serve_evaluator(config: &Config) -> Result<(), StartError> {
    if config.evaluate.is_none() {
        return Err(StartError::NothingToEvaluate);
    }
    let waiting = Waiting::begin()?;
    let hub = Hub::start_part(config, None)?;
    waiting.until_told(|| hub.stop());
    Ok(())
}

/// A hub that serves, or its evaluator.
pub struct Hub {
    drain: Drain,
    runtime: Runtime,
    administering: CancellationToken,
    evaluating: CancellationToken,
    ready: Ready,
    index: Option<Index>,
    tracer: Option<Tracer>,
    monitors: Monitors,
    drain_timeout: Duration,
}

impl Hub {
    /// Starts everything; the door is bound before anything runs. `reindex` makes the index anew.
    pub fn start(config: &Config, reindex: bool) -> Result<Self, StartError> {
        Self::start_part(config, Some(reindex))
    }

    /// The evaluator, and with `index` the rest: true makes the index anew.
    fn start_part(config: &Config, index: Option<bool>) -> Result<Self, StartError> {
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
        let stored = Arc::<Notify>::default();
        let start_index =
            |anew| Index::start(config, &bucket, stored.clone(), &metrics, &drain, anew);
        let index = index.map(start_index).transpose()?;
        let tracer = start_tracer(config, &metrics)?;
        let ground = Ground {
            config,
            role: Role::Hub,
            bucket: &bucket,
            uploaded: &stored,
            keeping: &runtime,
            tracer: tracer.as_ref(),
            metrics: &metrics,
            drain: &drain,
        };
        let (_, evaluating) = evaluator::start(&ground)?;
        tracing::info!(bucket = bucket.describe(), "reading");
        let mut monitors = Monitors::default();
        if let Some(index) = &index {
            monitors = Monitors::start(&ground, Some(index), &mut console)?;
            console.show(index.view(Arc::clone(&bucket)));
        }
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
            evaluating,
            ready,
            index,
            tracer,
            monitors,
            drain_timeout: config.drain_timeout,
        })
    }

    /// Ends; what is not read is read after the next start.
    pub fn stop(self) {
        let deadline = Instant::now() + self.drain_timeout;
        self.ready.set(false);
        self.evaluating.cancel();
        self.administering.cancel();
        let mut late = self.drain.join("evaluate", deadline);
        self.runtime.shutdown_timeout(Duration::from_millis(100));
        let left = deadline.saturating_duration_since(Instant::now());
        if self.tracer.is_some_and(|tracer| !tracer.shutdown(left)) {
            late.push("spans".to_owned());
        }
        late.extend(self.monitors.stop(&self.drain, deadline));
        late.extend(self.index.map_or_else(Vec::new, |index| index.stop(&self.drain, deadline)));
        match late.is_empty() {
            true => tracing::info!("drained"),
            false => tracing::warn!(?late, "the drain deadline passed"),
        }
    }
}
