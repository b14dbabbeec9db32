//! The span of an exchange: the table of names in `domain::semconv`, filled in.

use std::time::{Duration, SystemTime};

use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Array, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::domain::semconv::{self, attribute as name};
use crate::domain::{Summary, TraceContext};

/// Bytes of one text on a span: names come from clients and upstreams.
const TEXT_BYTES_MAX: usize = 256;

/// The span of `summary`. Its id is the one that the upstream was told.
pub(super) fn span(summary: &Summary, trace: &TraceContext, request_id: Option<&str>) -> SpanData {
    let trace_id = TraceId::from_bytes(trace.trace_id.to_bytes());
    let span_id = SpanId::from_bytes(trace.span_id.to_bytes());
    let (flags, state) = (TraceFlags::SAMPLED, TraceState::default());
    let error = semconv::error_type(summary.status, summary.outcome);
    let start = SystemTime::try_from(summary.time).unwrap_or(SystemTime::UNIX_EPOCH);
    SpanData {
        span_context: SpanContext::new(trace_id, span_id, flags, false, state),
        parent_span_id: trace
            .parent_span_id
            .map_or(SpanId::INVALID, |id| SpanId::from_bytes(id.to_bytes())),
        parent_span_is_remote: trace.parent_span_id.is_some(),
        span_kind: SpanKind::Client,
        name: span_name(summary).into(),
        start_time: start,
        end_time: start.checked_add(millis(summary.latency_ms)).unwrap_or(start),
        status: if error.is_some() { Status::error("") } else { Status::Unset },
        attributes: attributes(summary, error.as_deref(), request_id),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        instrumentation_scope: scope(),
    }
}

/// `chat gpt-4` for inference; for the rest the method, since a path is no bounded name.
fn span_name(summary: &Summary) -> String {
    match (semconv::operation_name(summary.operation), summary.model.request.as_deref()) {
        (Some(operation), Some(model)) => format!("{operation} {}", cut(model)),
        (Some(operation), None) => operation.to_owned(),
        (None, _) => cut(&summary.method).to_owned(),
    }
}

fn attributes(summary: &Summary, error: Option<&str>, request_id: Option<&str>) -> Vec<KeyValue> {
    let mut all = Attributes(Vec::with_capacity(24));
    all.text(name::OPERATION_NAME, semconv::operation_name(summary.operation));
    all.text(name::PROVIDER_NAME, summary.provider);
    all.text(name::REQUEST_MODEL, summary.model.request.as_deref());
    all.text(name::RESPONSE_MODEL, summary.model.response.as_deref());
    all.text(name::RESPONSE_ID, summary.response_id.as_deref());
    all.list(name::FINISH_REASONS, summary.finish_reason.as_deref());
    all.put(name::REQUEST_STREAM, summary.stream.then_some(true));
    all.put(name::TIME_TO_FIRST_CHUNK, summary.first_token_ms.map(|ms| ms / 1e3));
    let usage = &summary.usage;
    all.number(name::INPUT_TOKENS, usage.input);
    all.number(name::OUTPUT_TOKENS, usage.output);
    all.number(name::CACHE_READ_TOKENS, usage.cached_input);
    all.number(name::REASONING_TOKENS, usage.reasoning_output);
    all.text(name::FLOWTAP_USAGE_SOURCE, usage.source.map(|source| source.label()));
    all.text(name::METHOD, Some(&summary.method));
    all.text(name::PATH, Some(&summary.path));
    all.number(name::STATUS_CODE, summary.status.map(u64::from));
    all.text(name::ERROR_TYPE, error);
    all.text(name::FLOWTAP_ID, Some(&summary.id.to_string()));
    all.text(name::FLOWTAP_TAP, Some(&summary.tap));
    all.text(name::FLOWTAP_DEPLOYMENT, Some(&summary.deployment));
    all.text(name::FLOWTAP_OUTCOME, Some(summary.outcome.label()));
    all.text(name::FLOWTAP_REQUEST_ID, request_id);
    all.0
}

#[derive(Default)]
pub(super) struct Attributes(pub(super) Vec<KeyValue>);

impl Attributes {
    pub(super) fn put(&mut self, name: &'static str, value: Option<impl Into<Value>>) {
        self.0.extend(value.map(|value| KeyValue::new(name, value)));
    }

    pub(super) fn text(&mut self, name: &'static str, value: Option<&str>) {
        self.put(name, value.map(|text| cut(text).to_owned()));
    }

    fn list(&mut self, name: &'static str, value: Option<&str>) {
        let list = |text: &str| Array::String(vec![StringValue::from(cut(text).to_owned())]);
        self.put(name, value.map(|text| Value::Array(list(text))));
    }

    fn number(&mut self, name: &'static str, value: Option<u64>) {
        self.put(name, value.map(|n| i64::try_from(n).unwrap_or(i64::MAX)));
    }
}

pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("flowtap")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(semconv::SCHEMA_URL)
        .build()
}

/// At most [`TEXT_BYTES_MAX`] bytes of `text`, whole characters.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

pub(super) fn millis(value: f64) -> Duration {
    Duration::try_from_secs_f64(value / 1e3).unwrap_or_default()
}
