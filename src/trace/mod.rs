//! Logs as JSON, W3C trace context in and out, one OTLP span for each exchange.
//!
//! The span is of kind CLIENT, as the semantic conventions ask of inference: it stands for the call
//! to the upstream as its client sees it, and its id is the one that the upstream was sent as
//! parent, so that the flow's own spans hang below it. Content is never put on a span.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config;
use crate::domain::{Score, SpanId, Summary, TraceContext, TraceId};

pub mod context;
mod export;
pub mod logs;
mod names;
mod scores;

use export::Exporter;

/// Why tracing could not start. Endpoints and header values are not repeated: they may be secret.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The endpoint cannot be used.
    #[error(
        "trace.otlp_endpoint cannot be used: it is no valid URL, TLS could not be set up, or an \
         OTEL_EXPORTER_OTLP_* variable is wrong"
    )]
    Endpoint,
    /// A header cannot be sent.
    #[error("trace.headers: {0:?} is not a header that can be sent")]
    Header(String),
    /// The exporter's thread could not start.
    #[error("the span exporter could not start: {0}")]
    Start(#[from] std::io::Error),
}

/// What became of spans; told to the callback of [`Tracer::start`] with their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanFate {
    /// The collector accepted them.
    Exported,
    /// The queue was full, or tracing had been shut down.
    Overflowed,
    /// The collector refused, failed, or did not answer in time.
    Failed,
    /// Shutdown's time was over.
    Abandoned,
}

/// Told what became of spans. Called from the exporter's thread and from [`Tracer::exchange`]:
/// it must not block.
pub type SpanFates = Arc<dyn Fn(SpanFate, u64) + Send + Sync>;

/// Hands one span for each exchange to a collector. Clones share one queue and one thread.
#[derive(Clone)]
pub struct Tracer {
    exporter: Arc<Exporter>,
}

impl Tracer {
    /// Starts the exporter's thread. A collector that is away is no error: spans are dropped then,
    /// and counted. `instance` becomes `service.instance.id`; `OTEL_RESOURCE_ATTRIBUTES` adds more.
    pub fn start(
        settings: &config::Trace,
        instance: &str,
        fates: SpanFates,
    ) -> Result<Self, TraceError> {
        let exporter = Exporter::start(settings, instance, fates)?;
        Ok(Self { exporter: Arc::new(exporter) })
    }

    /// Queues the span of an exchange that ended; never waits. Where the caller's trace is not
    /// sampled there is none.
    pub fn exchange(&self, summary: &Summary, trace: &TraceContext, request_id: Option<&str>) {
        if trace.sampled {
            self.exporter.offer(names::span(summary, trace, request_id));
        }
    }

    /// Queues the span of a score of an exchange whose span was `parent` in `trace`; never waits.
    pub fn score(&self, score: &Score, trace: TraceId, parent: SpanId) {
        self.exporter.offer(scores::span(score, trace, parent));
    }

    /// Sends what is queued and ends the thread; true if all was settled within `timeout`. What was
    /// not is counted as [`SpanFate::Abandoned`]. Blocks: not for traffic threads.
    pub fn shutdown(&self, timeout: Duration) -> bool {
        self.exporter.shutdown(timeout)
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracer").finish_non_exhaustive()
    }
}
