//! The way of spans to the collector: a bounded queue, a thread with a small runtime of its own,
//! batches. The queue is looked at ten times a second instead of waking the thread for every span.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::KeyValue;
use opentelemetry_otlp::tonic_types::metadata::MetadataMap;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{Protocol, WithExportConfig, WithHttpConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::runtime::{Builder, Runtime};
use tokio::time;
use tokio_util::sync::CancellationToken;

use super::{SpanFate, SpanFates, TraceError};
use crate::config::{OtlpProtocol, Trace};

/// Spans that may wait; one takes about two kilobytes.
const QUEUE_MAX: usize = 4096;
/// Spans in one request to the collector.
const BATCH_MAX: usize = 512;
/// Between two looks at the queue.
const TICK: Duration = Duration::from_millis(100);
/// For one batch, with all its attempts.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// For an exporter that forgets its own time limit.
const EXPORT_TIMEOUT_HARD: Duration = Duration::from_secs(12);
/// Where HTTP collectors take spans, below the endpoint.
const HTTP_PATH: &str = "/v1/traces";

/// The near end of the queue, and the means to end the thread at its far end.
pub(super) struct Exporter {
    queue: Arc<ArrayQueue<SpanData>>,
    /// Spans of the batch under way; whoever takes the number tells their fate.
    in_batch: Arc<AtomicU64>,
    fates: SpanFates,
    stop: CancellationToken,
    /// Disconnects when the thread has ended.
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Exporter {
    pub(super) fn start(
        settings: &Trace,
        instance: &str,
        fates: SpanFates,
    ) -> Result<Self, TraceError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let collector = {
            let _entered = runtime.enter();
            collector(settings, instance)?
        };
        let queue = Arc::new(ArrayQueue::new(QUEUE_MAX));
        let in_batch = Arc::new(AtomicU64::new(0));
        let stop = CancellationToken::new();
        let worker = Worker {
            queue: queue.clone(),
            in_batch: in_batch.clone(),
            fates: fates.clone(),
            stop: stop.clone(),
            collector,
        };
        let (ends, ended) = mpsc::channel();
        thread::Builder::new()
            .name("flowtap-spans".to_owned())
            .spawn(move || worker.run(&runtime, ends))?;
        Ok(Self { queue, in_batch, fates, stop, ended: Mutex::new(ended) })
    }

    pub(super) fn offer(&self, span: SpanData) {
        if self.stop.is_cancelled() || self.queue.push(span).is_err() {
            (self.fates)(SpanFate::Overflowed, 1);
        }
    }

    pub(super) fn shutdown(&self, timeout: Duration) -> bool {
        self.stop.cancel();
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let in_time = ended.recv_timeout(timeout) == Err(mpsc::RecvTimeoutError::Disconnected);
        let queued = std::iter::from_fn(|| self.queue.pop()).count() as u64;
        let left = queued + self.in_batch.swap(0, Ordering::AcqRel);
        if left > 0 {
            (self.fates)(SpanFate::Abandoned, left);
        }
        in_time && left == 0
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

struct Worker {
    queue: Arc<ArrayQueue<SpanData>>,
    in_batch: Arc<AtomicU64>,
    fates: SpanFates,
    stop: CancellationToken,
    collector: opentelemetry_otlp::SpanExporter,
}

impl Worker {
    fn run(self, runtime: &Runtime, ends: mpsc::Sender<()>) {
        runtime.block_on(async {
            let mut reachable = true;
            loop {
                let stopped = time::timeout(TICK, self.stop.cancelled()).await.is_ok();
                while let Some(batch) = self.next_batch() {
                    reachable = self.export(batch, reachable).await;
                    if !reachable && self.stop.is_cancelled() {
                        break;
                    }
                }
                if stopped {
                    break;
                }
            }
        });
        drop(ends);
    }

    fn next_batch(&self) -> Option<Vec<SpanData>> {
        let batch: Vec<_> = std::iter::from_fn(|| self.queue.pop()).take(BATCH_MAX).collect();
        (!batch.is_empty()).then_some(batch)
    }

    /// Sends one batch and tells whether the collector took it; logs only when that changes.
    async fn export(&self, batch: Vec<SpanData>, reachable_before: bool) -> bool {
        let spans = batch.len() as u64;
        self.in_batch.store(spans, Ordering::Release);
        let sent = time::timeout(EXPORT_TIMEOUT_HARD, self.collector.export(batch)).await;
        let error = sent.map_or(Some("no answer in time".to_owned()), |result| {
            result.err().map(|error| error.to_string())
        });
        let accepted = error.is_none();
        if self.in_batch.swap(0, Ordering::AcqRel) > 0 {
            (self.fates)(if accepted { SpanFate::Exported } else { SpanFate::Failed }, spans);
        }
        match (reachable_before, accepted) {
            (true, false) => tracing::warn!(error, spans, "the collector did not take the spans"),
            (false, true) => tracing::info!("the collector takes spans again"),
            _ => {}
        }
        accepted
    }
}

fn collector(
    settings: &Trace,
    instance: &str,
) -> Result<opentelemetry_otlp::SpanExporter, TraceError> {
    let mut collector = match settings.protocol {
        OtlpProtocol::Grpc => grpc(settings),
        OtlpProtocol::Http => http(settings),
    }?;
    let instance = KeyValue::new("service.instance.id", instance.to_owned());
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder()
        .with_service_name(settings.service_name.clone())
        .with_attributes([instance, version])
        .build();
    collector.set_resource(&resource);
    Ok(collector)
}

fn grpc(settings: &Trace) -> Result<opentelemetry_otlp::SpanExporter, TraceError> {
    let builder = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .with_endpoint(&settings.otlp_endpoint)
        .with_metadata(MetadataMap::from_headers(headers(settings)?))
        .with_timeout(EXPORT_TIMEOUT);
    let builder = match settings.otlp_endpoint.starts_with("https:") {
        true => builder.with_tls_config(ClientTlsConfig::new().with_enabled_roots()),
        false => builder,
    };
    builder.build().map_err(|_| TraceError::Endpoint)
}

fn http(settings: &Trace) -> Result<opentelemetry_otlp::SpanExporter, TraceError> {
    let texts = headers(settings)?
        .iter()
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect::<HashMap<_, _>>();
    opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(http_endpoint(&settings.otlp_endpoint))
        .with_protocol(Protocol::HttpBinary)
        .with_headers(texts)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|_| TraceError::Endpoint)
}

/// The endpoint with the path for spans, unless it ends with it already.
fn http_endpoint(endpoint: &str) -> String {
    let base = endpoint.trim_end_matches('/');
    match base.ends_with(HTTP_PATH) {
        true => base.to_owned(),
        false => format!("{base}{HTTP_PATH}"),
    }
}

fn headers(settings: &Trace) -> Result<HeaderMap, TraceError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers {
        let fault = || TraceError::Header(name.clone());
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| fault())?;
        let mut value = HeaderValue::from_str(value.expose()).map_err(|_| fault())?;
        value.set_sensitive(true);
        headers.insert(header, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn settings(endpoint: &str, protocol: OtlpProtocol) -> Trace {
        Trace {
            otlp_endpoint: endpoint.to_owned(),
            protocol,
            headers: Vec::new(),
            service_name: "flowtap".to_owned(),
        }
    }

    #[test]
    fn the_path_for_spans_is_added_once() {
        assert_eq!(http_endpoint("http://c:4318"), "http://c:4318/v1/traces");
        assert_eq!(http_endpoint("http://c:4318/"), "http://c:4318/v1/traces");
        assert_eq!(http_endpoint("https://c/otlp/v1/traces"), "https://c/otlp/v1/traces");
    }

    #[test]
    fn a_bad_header_is_named_but_its_value_is_not_told() {
        let mut settings = settings("http://127.0.0.1:4317", OtlpProtocol::Grpc);
        settings.headers.push(("authorization".to_owned(), Secret::new("canary\n")));
        let error = headers(&settings).expect_err("a line feed");
        assert!(error.to_string().contains("authorization"));
        assert!(!format!("{error:?}").contains("canary"));
    }

    #[test]
    fn an_endpoint_of_either_protocol_may_be_https() {
        for protocol in [OtlpProtocol::Grpc, OtlpProtocol::Http] {
            let settings = settings("https://collector.example:4317", protocol);
            let tracer = Exporter::start(&settings, "pod", Arc::new(|_, _| {}));
            assert!(tracer.is_ok_and(|tracer| tracer.shutdown(Duration::from_secs(5))));
        }
        let bad = Exporter::start(
            &settings("http://[canary", OtlpProtocol::Grpc),
            "pod",
            Arc::new(|_, _| {}),
        );
        assert!(bad.is_err_and(|error| !error.to_string().contains("canary")));
    }
}
