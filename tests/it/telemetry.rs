//! Metrics as `promtool` judges them; spans as collectors receive them, ours and a real one.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot go on should stop")]

use std::env;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderMap;
use axum::routing::post;
use flowtap::config::{MetricsLimits, OtlpProtocol, Secret, Trace};
use flowtap::domain::{
    Dialect, ExchangeId, ModelNames, Operation, Outcome, Protocol, SpanId, Summary, TraceContext,
    TraceId, Usage, UsageSource, semconv,
};
use flowtap::metrics::Metrics;
use flowtap::trace::{SpanFate, SpanFates, Tracer};
use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode};
use prost::Message;
use tokio::runtime::Runtime;
use tonic::transport::server::TcpIncoming;

mod rotel;

pub use rotel::{Rotel, rotel};

const PATIENCE: Duration = Duration::from_secs(20);

fn chat() -> Summary {
    let time: Timestamp = "2026-11-23T22:47:50.25Z".parse().expect("a time");
    let mut usage = Usage::of(Some(412), Some(96), UsageSource::Reported);
    usage.cached_input = Some(128);
    Summary {
        id: ExchangeId::new(time),
        time,
        tap: "models".into(),
        deployment: "blue".into(),
        instance: "pod-7f".into(),
        dialect: Dialect::Openai,
        operation: Operation::Chat,
        method: "POST".to_owned(),
        path: "/v1/chat/completions".to_owned(),
        status: Some(200),
        outcome: Outcome::Ok,
        fault: None,
        model: ModelNames {
            request: Some("gpt-4".to_owned()),
            response: Some("gpt-4-0613".to_owned()),
        },
        stream: true,
        latency_ms: 812.5,
        first_byte_ms: Some(95.0),
        first_token_ms: Some(101.5),
        overhead_us: 38,
        usage,
        provider: Some("openai"),
        finish_reason: Some("stop".to_owned()),
        response_id: Some("chatcmpl-123".to_owned()),
    }
}

fn failed() -> Summary {
    Summary {
        operation: Operation::Score,
        path: "/score".to_owned(),
        status: Some(503),
        outcome: Outcome::UpstreamError,
        model: ModelNames::default(),
        usage: Usage::default(),
        provider: None,
        first_token_ms: None,
        ..chat()
    }
}

fn trace(parent_span_id: Option<SpanId>, sampled: bool) -> TraceContext {
    TraceContext { trace_id: TraceId::random(), span_id: SpanId::random(), parent_span_id, sampled }
}

// --- metrics -----------------------------------------------------------------------------------

#[test]
fn promtool_has_nothing_to_say_about_the_page() {
    let metrics = Metrics::new(&MetricsLimits { models_max: 10, deployments_max: 10 });
    metrics.tap_opened("models");
    metrics.build_info("0.1.0");
    metrics.rejected("models", "two_lengths");
    metrics.upstream_connect("models", "ok");
    metrics.reading_fault("models", Dialect::Openai, "not_json");
    metrics.archive_failed("access");
    metrics.endpoint_opened(Protocol::OtlpHttp);
    for i in 0..1_000 {
        let mut summary = if i % 2 == 0 { chat() } else { failed() };
        summary.usage.reasoning_output = Some(1);
        summary.model.request = Some(format!("m-{i}\"\n}}\u{1b}[3{i}mé😀\\"));
        let error = semconv::error_type(summary.status, summary.outcome);
        metrics.exchange(&summary, error.as_deref());
        metrics.exchange(&Summary { usage: Usage::default(), ..chat() }, None);
    }
    metrics.intake_only("models", None, Outcome::ClientAbort, 0.1);
    let page = metrics.encode();
    // What monitors, judges and the index count comes with its first use.
    let early = |labels: &[&str]| labels.first() == Some(&"tap");
    for family in metrics.families().iter().filter(|family| early(&family.labels)) {
        let announced = format!("# TYPE {} {}\n", family.name, family.kind.label());
        assert!(page.contains(&announced), "{} is not on the page", family.name);
    }
    promtool_approves(&page);
}

fn promtool_approves(page: &str) {
    let unpacked = concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/peers/promtool/usr/bin/promtool");
    let found = if Path::new(unpacked).exists() { unpacked } else { "promtool" };
    let promtool = env::var("FLOWTAP_PROMTOOL").unwrap_or_else(|_| found.to_owned());
    let started = Command::new(&promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(_) if without_peers() => return,
        Err(error) => panic!(
            "{promtool}: {error}. Run: make peers   (FLOWTAP_PROMTOOL names another place, \
             FLOWTAP_PEERS=none goes without)"
        ),
    };
    child.stdin.take().expect("piped").write_all(page.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

fn without_peers() -> bool {
    env::var("FLOWTAP_PEERS").is_ok_and(|peers| peers == "none")
}

// --- spans -------------------------------------------------------------------------------------

#[test]
fn spans_arrive_whole_over_http() {
    let collector = Collector::http();
    spans_arrive_whole(&collector, OtlpProtocol::Http);
}

#[test]
fn spans_arrive_whole_over_grpc() {
    let collector = Collector::grpc();
    spans_arrive_whole(&collector, OtlpProtocol::Grpc);
}

fn spans_arrive_whole(collector: &Collector, protocol: OtlpProtocol) {
    let fates = Fates::default();
    let mut settings = settings(collector.address, protocol);
    settings.headers.push(("authorization".to_owned(), Secret::new("Bearer canary")));
    let tracer = Tracer::start(&settings, "pod-7f", fates.teller()).expect("tracer");
    let (caller, root) = (trace(Some(SpanId::random()), true), trace(None, true));
    tracer.exchange(&chat(), &caller, Some("req-1"));
    tracer.exchange(&failed(), &root, None);
    tracer.exchange(&chat(), &trace(None, false), None);
    assert!(tracer.shutdown(PATIENCE), "all is settled");
    tracer.exchange(&chat(), &root, None);
    assert_eq!(fates.of(SpanFate::Exported), 2, "what the caller does not sample is not sent");
    assert_eq!(fates.of(SpanFate::Overflowed), 1, "too late is counted");

    let received = collector.received.lock().expect("lock");
    assert_eq!(received.authorization.as_deref(), Some("Bearer canary"));
    assert_eq!(received.resource("service.name"), "flowtap-test");
    assert_eq!(received.resource("service.instance.id"), "pod-7f");
    assert_eq!(received.schema_url, semconv::SCHEMA_URL);
    the_chat_is_told(received.span(caller.span_id), &caller);
    the_failure_is_told(received.span(root.span_id), &root);
}

fn the_chat_is_told(span: &Span, trace: &TraceContext) {
    assert_eq!(span.name, "chat gpt-4");
    assert_eq!(span.kind, SpanKind::Client as i32);
    assert_eq!(span.trace_id, trace.trace_id.to_bytes());
    assert_eq!(span.parent_span_id, trace.parent_span_id.expect("a caller").to_bytes());
    let start = u64::try_from(chat().time.as_nanosecond()).expect("after 1970");
    assert_eq!(span.start_time_unix_nano, start);
    assert_eq!(span.end_time_unix_nano - start, 812_500_000);
    assert_eq!(span.status.as_ref().map_or(0, |status| status.code), StatusCode::Unset as i32);
    for (name, expected) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "gpt-4"),
        ("gen_ai.response.model", "gpt-4-0613"),
        ("gen_ai.response.id", "chatcmpl-123"),
        ("gen_ai.response.finish_reasons", "[stop]"),
        ("gen_ai.request.stream", "true"),
        ("gen_ai.response.time_to_first_chunk", "0.1015"),
        ("gen_ai.usage.input_tokens", "412"),
        ("gen_ai.usage.output_tokens", "96"),
        ("gen_ai.usage.cache_read.input_tokens", "128"),
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("url.path", "/v1/chat/completions"),
        ("flowtap.tap", "models"),
        ("flowtap.deployment", "blue"),
        ("flowtap.outcome", "ok"),
        ("flowtap.request_id", "req-1"),
        ("flowtap.usage.source", "reported"),
    ] {
        assert_eq!(attribute(&span.attributes, name).as_deref(), Some(expected), "{name}");
    }
    let unknown = ["error.type", "gen_ai.usage.reasoning.output_tokens"];
    assert!(unknown.iter().all(|name| attribute(&span.attributes, name).is_none()));
}

fn the_failure_is_told(span: &Span, trace: &TraceContext) {
    assert_eq!(span.name, "invoke_workflow");
    assert_eq!(span.trace_id, trace.trace_id.to_bytes());
    assert!(span.parent_span_id.is_empty() || span.parent_span_id == [0; 8], "a root");
    assert_eq!(span.status.as_ref().map_or(0, |status| status.code), StatusCode::Error as i32);
    assert_eq!(attribute(&span.attributes, "error.type").as_deref(), Some("503"));
    assert_eq!(attribute(&span.attributes, "gen_ai.usage.input_tokens"), None, "unknown, not 0");
}

#[test]
fn hostile_names_are_cut_before_they_are_sent() {
    let collector = Collector::http();
    let settings = settings(collector.address, OtlpProtocol::Http);
    let tracer = Tracer::start(&settings, "pod", Fates::default().teller()).expect("tracer");
    let (mut summary, root) = (chat(), trace(None, true));
    summary.model.request = Some("é".repeat(500_000));
    summary.path = "/x".repeat(100_000);
    summary.latency_ms = f64::NAN;
    tracer.exchange(&summary, &root, Some(&"r".repeat(100_000)));
    assert!(tracer.shutdown(PATIENCE));
    let received = collector.received.lock().expect("lock");
    assert!(received.span(root.span_id).encoded_len() < 4096);
}

#[test]
fn a_dead_collector_costs_nothing_but_its_spans() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::Http] {
        let fates = Fates::default();
        let tracer = Tracer::start(&settings(free, protocol), "pod", fates.teller());
        let tracer = tracer.expect("a collector that is away is no error");
        let slowest = offer(&tracer, 10_000);
        assert!(slowest < Duration::from_secs(1), "offering took {slowest:?}");
        tracer.shutdown(PATIENCE);
        assert_eq!(fates.of(SpanFate::Exported), 0);
        assert_eq!(fates.all(), 10_000, "every span is accounted for");
    }
}

#[test]
fn a_stalled_collector_cannot_hold_up_the_end() {
    let stalled = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = stalled.local_addr().expect("bound");
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::Http] {
        let fates = Fates::default();
        let tracer = Tracer::start(&settings(address, protocol), "pod", fates.teller());
        let tracer = tracer.expect("tracer");
        offer(&tracer, 10_000);
        thread::sleep(Duration::from_millis(300));
        let begin = Instant::now();
        assert!(!tracer.shutdown(Duration::from_millis(200)), "it tells that spans were left");
        assert!(begin.elapsed() < Duration::from_secs(3));
        assert_eq!(fates.all(), 10_000, "every span is accounted for");
        assert!(fates.of(SpanFate::Abandoned) > 0 && fates.of(SpanFate::Exported) == 0);
    }
}

/// Offers `spans` and tells how long the slowest offer took.
fn offer(tracer: &Tracer, spans: usize) -> Duration {
    let (summary, root) = (chat(), trace(None, true));
    let offers = (0..spans).map(|_| {
        let begin = Instant::now();
        tracer.exchange(&summary, &root, None);
        begin.elapsed()
    });
    offers.max().unwrap_or_default()
}

#[test]
fn a_real_collector_understands_us() {
    let Some(rotel) = rotel() else { return };
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::Http] {
        let (collector, ports) = Rotel::start(&rotel);
        let address = if protocol == OtlpProtocol::Grpc { ports[0] } else { ports[1] };
        let fates = Fates::default();
        let tracer = Tracer::start(&settings(address, protocol), "pod", fates.teller());
        let tracer = tracer.expect("tracer");
        tracer.exchange(&chat(), &trace(None, true), None);
        tracer.shutdown(PATIENCE);
        assert_eq!(fates.of(SpanFate::Exported), 1, "{protocol:?}");
        collector.saw("chat gpt-4");
    }
}

// --- what the tests stand on ---------------------------------------------------------------------

fn settings(address: SocketAddr, protocol: OtlpProtocol) -> Trace {
    Trace {
        otlp_endpoint: format!("http://{address}"),
        protocol,
        headers: Vec::new(),
        service_name: "flowtap-test".to_owned(),
    }
}

/// What became of the spans.
#[derive(Clone, Default)]
struct Fates(Arc<Mutex<Vec<(SpanFate, u64)>>>);

impl Fates {
    fn teller(&self) -> SpanFates {
        let told = self.0.clone();
        Arc::new(move |fate, spans| told.lock().expect("lock").push((fate, spans)))
    }

    fn of(&self, fate: SpanFate) -> u64 {
        let told = self.0.lock().expect("lock");
        told.iter().filter(|(told, _)| *told == fate).map(|(_, spans)| spans).sum()
    }

    fn all(&self) -> u64 {
        self.0.lock().expect("lock").iter().map(|(_, spans)| spans).sum()
    }
}

#[derive(Default)]
struct Received {
    resource: Vec<KeyValue>,
    schema_url: String,
    spans: Vec<Span>,
    authorization: Option<String>,
}

impl Received {
    fn take(&mut self, request: ExportTraceServiceRequest, authorization: Option<String>) {
        self.authorization = authorization;
        for batch in request.resource_spans {
            self.resource = batch.resource.map(|resource| resource.attributes).unwrap_or_default();
            for scope in batch.scope_spans {
                self.schema_url = scope.schema_url;
                self.spans.extend(scope.spans);
            }
        }
    }

    fn span(&self, id: SpanId) -> &Span {
        self.spans.iter().find(|span| span.span_id == id.to_bytes()).expect("the span")
    }

    fn resource(&self, name: &str) -> String {
        attribute(&self.resource, name).unwrap_or_default()
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == name)?;
    shown(found.value.as_ref()?.value.as_ref()?)
}

fn shown(value: &Value) -> Option<String> {
    match value {
        Value::StringValue(text) => Some(text.clone()),
        Value::BoolValue(value) => Some(value.to_string()),
        Value::IntValue(value) => Some(value.to_string()),
        Value::DoubleValue(value) => Some(value.to_string()),
        Value::ArrayValue(list) => {
            let items = list.values.iter().filter_map(|item| shown(item.value.as_ref()?));
            Some(format!("[{}]", items.collect::<Vec<_>>().join(",")))
        }
        _ => None,
    }
}

/// A collector of our own that keeps what it receives; it ends with its runtime.
struct Collector {
    received: Arc<Mutex<Received>>,
    address: SocketAddr,
    _runtime: Runtime,
}

impl Collector {
    fn http() -> Self {
        let received = Arc::new(Mutex::new(Received::default()));
        let kept = received.clone();
        let take = async move |headers: HeaderMap, body: Bytes| {
            let request = ExportTraceServiceRequest::decode(body).expect("protobuf");
            let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
            kept.lock().expect("lock").take(request, authorization.map(str::to_owned));
            ExportTraceServiceResponse::default().encode_to_vec()
        };
        let routes = Router::new().route("/v1/traces", post(take));
        let runtime = Runtime::new().expect("runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("bound");
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Self { received, address, _runtime: runtime }
    }

    fn grpc() -> Self {
        let received = Arc::new(Mutex::new(Received::default()));
        let service = TraceServiceServer::new(Grpc(received.clone()));
        let runtime = Runtime::new().expect("runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a port");
        let address = listener.local_addr().expect("bound");
        let server = tonic::transport::Server::builder().add_service(service);
        runtime.spawn(async move { server.serve_with_incoming(TcpIncoming::from(listener)).await });
        Self { received, address, _runtime: runtime }
    }
}

struct Grpc(Arc<Mutex<Received>>);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let value = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let authorization = value.map(str::to_owned);
        self.0.lock().expect("lock").take(request.into_inner(), authorization);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}
