//! OTLP: spans as OpenTelemetry's exporters send them.

pub(super) mod grpc;
pub(super) mod http;

use base64::Engine;
use jiff::Timestamp;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, Span};
use serde_json::{Map, Number, Value};

use super::Taken;
use crate::dialect::span::RawSpan;
use crate::domain::{SpanId, SpanSource, TraceId};

/// Of the resource, what tells one program from another.
const SERVICE: &str = "service.name";

/// The spans of a request, one by one.
fn spans(request: ExportTraceServiceRequest) -> impl Iterator<Item = Result<RawSpan, String>> {
    request.resource_spans.into_iter().flat_map(|of_resource| {
        let service = service(&of_resource);
        let scopes = of_resource.scope_spans.into_iter();
        scopes.flat_map(|scope| scope.spans).map(move |told| span(told, service.as_ref()))
    })
}

fn service(of_resource: &ResourceSpans) -> Option<Value> {
    let attributes = &of_resource.resource.as_ref()?.attributes;
    let named = attributes.iter().find(|attribute| attribute.key == SERVICE)?;
    Some(value(named.value.clone()?))
}

fn span(told: Span, service: Option<&Value>) -> Result<RawSpan, String> {
    let time = |nanos: u64| Timestamp::from_nanosecond(i128::from(nanos)).ok();
    let start = time(told.start_time_unix_nano).filter(|_| told.start_time_unix_nano != 0);
    let start = start.ok_or("start_time_unix_nano is no time")?;
    let status = told.status.unwrap_or_default();
    let failed = status.code == StatusCode::Error as i32;
    let message = Some(status.message).filter(|message| !message.is_empty());
    let exception = || {
        let mut attributes = told.events.iter().flat_map(|event| &event.attributes);
        let message = attributes.find(|attribute| attribute.key == "exception.message")?;
        match message.value.as_ref()?.value.as_ref()? {
            Any::StringValue(text) => Some(text.clone()),
            _ => None,
        }
    };
    let error = message.or_else(exception).filter(|_| failed);
    let mut attributes = map(told.attributes);
    if let Some(service) = service {
        attributes.entry(SERVICE).or_insert_with(|| service.clone());
    }
    Ok(RawSpan {
        trace_id: TraceId::from_bytes(&told.trace_id).ok_or("trace_id is no trace id")?,
        span_id: SpanId::from_bytes(&told.span_id).ok_or("span_id is no span id")?,
        parent_span_id: SpanId::from_bytes(&told.parent_span_id),
        name: told.name,
        source: SpanSource::Otlp,
        start,
        end: time(told.end_time_unix_nano).unwrap_or(start),
        failed,
        error,
        attributes,
    })
}

fn map(attributes: Vec<KeyValue>) -> Map<String, Value> {
    let pairs = attributes
        .into_iter()
        .filter_map(|KeyValue { key, value: told, .. }| Some((key, value(told?))));
    pairs.collect()
}

/// The parsers bound the depth, so this may recurse.
fn value(told: AnyValue) -> Value {
    match told.value {
        None | Some(Any::StringValueStrindex(_)) => Value::Null,
        Some(Any::StringValue(text)) => Value::String(text),
        Some(Any::BoolValue(truth)) => Value::Bool(truth),
        Some(Any::IntValue(number)) => Value::Number(number.into()),
        Some(Any::DoubleValue(number)) => {
            Number::from_f64(number).map_or(Value::Null, Value::Number)
        }
        Some(Any::ArrayValue(list)) => list.values.into_iter().map(value).collect(),
        Some(Any::KvlistValue(list)) => Value::Object(map(list.values)),
        Some(Any::BytesValue(bytes)) => {
            let base64 = base64::engine::general_purpose::STANDARD.encode(bytes);
            Value::Object(Map::from_iter([("base64".to_owned(), Value::String(base64))]))
        }
    }
}

/// The answer to what was taken, with what was not.
fn response(taken: Taken) -> ExportTraceServiceResponse {
    let partial = (taken.refused > 0).then(|| ExportTracePartialSuccess {
        rejected_spans: i64::try_from(taken.refused).unwrap_or(i64::MAX),
        error_message: taken.why.unwrap_or_default(),
    });
    ExportTraceServiceResponse { partial_success: partial }
}
