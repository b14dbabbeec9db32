//! The endpoint of Azure ML's data collector: `POST /modeldata/log`, as `azureml-ai-monitoring` and
//! promptflow's server send to it.
//!
//! A body is a JSON array of rows (pandas' `to_json(orient="records")`); headers tell the collection
//! (`ce-type: azureml.inference.NAME`). The rows of `app_traces` are spans in OpenTelemetry's own JSON.
//! Those of `model_inputs` and `model_outputs` are the request and the answer, which the tap has seen:
//! they are answered and let go of, and so is any other collection.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::post::{Post, Refusal};
use super::{Desk, Taken};
use crate::dialect::json::{self, parse};
use crate::dialect::span::RawSpan;
use crate::domain::{Posted, Protocol, SpanId, SpanSource, TraceId};

const PATH: &str = "/modeldata/log";
const TYPE: &str = "azureml.inference.";
const TRACES: &str = "app_traces";

/// Answers one post, and says how.
pub(super) async fn answer(
    desk: &Desk,
    request: Request<Incoming>,
) -> (Posted, Response<Full<Bytes>>) {
    match take(desk, request).await {
        Err(refusal) => (refusal.posted(), refused(&refusal)),
        Ok(taken) => {
            let posted = if taken.refused == 0 { Posted::Accepted } else { Posted::Partial };
            let body = json!({"taken": taken.taken, "refused": taken.refused, "reason": taken.why});
            (posted, response(StatusCode::OK, &body))
        }
    }
}

async fn take(desk: &Desk, request: Request<Incoming>) -> Result<Taken, Refusal> {
    let refused = match (request.uri().path(), request.method()) {
        (PATH, &Method::POST) => None,
        (PATH, _) => Some(Refusal::Method),
        _ => Some(Refusal::Path(PATH)),
    };
    let post = Post::read(desk, request, refused).await?;
    let collection = collection(&post.head.headers)?;
    if !is_json(&post.head.headers) {
        return match collection == TRACES {
            true => Err(Refusal::Media(format!("{TRACES} are JSON"))),
            false => Ok(Taken::default()),
        };
    }
    let body = post.unpacked(desk.body_bytes_max)?;
    let Some(Value::Array(rows)) = parse(&body).ok() else {
        let limits = format!("{} values, {} levels", json::NODES_MAX, json::DEPTH_MAX);
        let why = format!("the body is no JSON array of rows, or holds more than {limits}");
        return Err(Refusal::Malformed(why));
    };
    if collection != TRACES {
        return Ok(Taken::default());
    }
    let taken = desk.take(Protocol::Azureml, rows.into_iter().map(span)).ok_or(Refusal::Busy)?;
    match taken {
        Taken { taken: 0, why: Some(why), .. } => Err(Refusal::Malformed(why)),
        taken => Ok(taken),
    }
}

fn collection(headers: &HeaderMap) -> Result<&str, Refusal> {
    let told = headers.get("ce-type").and_then(|value| value.to_str().ok());
    let name = told.and_then(|told| told.strip_prefix(TYPE)).filter(|name| !name.is_empty());
    name.ok_or_else(|| Refusal::Malformed(format!("the header ce-type is not {TYPE}COLLECTION")))
}

fn is_json(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    media.is_none_or(|media| media.trim_start().starts_with("application/json"))
}

/// One row: what OpenTelemetry's `ReadableSpan.to_json` writes.
fn span(row: Value) -> Result<RawSpan, String> {
    let Value::Object(mut row) = row else { return Err("a row is no object".to_owned()) };
    let context = row.get("context");
    let hex = |value: Option<&Value>| {
        let text = value.and_then(Value::as_str)?;
        Some(text.strip_prefix("0x").unwrap_or(text).to_ascii_lowercase())
    };
    let in_context = |name| hex(context.and_then(|context| context.get(name)));
    let trace_id = in_context("trace_id").and_then(|hex| TraceId::parse(&hex));
    let span_id = in_context("span_id").and_then(|hex| SpanId::parse(&hex));
    let time = |name: &str| row.get(name)?.as_str()?.parse::<Timestamp>().ok();
    let start = time("start_time").ok_or("start_time is no time")?;
    let status = row.get("status");
    let in_status = |name| status.and_then(|status| status.get(name)).and_then(Value::as_str);
    let failed = in_status("status_code").is_some_and(|code| code.eq_ignore_ascii_case("error"));
    let description = in_status("description").map(str::to_owned);
    Ok(RawSpan {
        trace_id: trace_id.ok_or("context.trace_id is no trace id")?,
        span_id: span_id.ok_or("context.span_id is no span id")?,
        parent_span_id: hex(row.get("parent_id")).and_then(|hex| SpanId::parse(&hex)),
        name: row.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
        source: SpanSource::Collector,
        start,
        end: time("end_time").unwrap_or(start),
        failed,
        error: description.or_else(|| exception(row.get("events"))).filter(|_| failed),
        attributes: match row.remove("attributes") {
            Some(Value::Object(attributes)) => attributes,
            _ => Map::new(),
        },
    })
}

/// The spans that `body` holds, as a row after another: to be fuzzed.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn spans_in(body: &[u8]) -> Vec<RawSpan> {
    let rows = match parse(body) {
        Ok(Value::Array(rows)) => rows,
        _ => Vec::new(),
    };
    rows.into_iter().filter_map(|row| span(row).ok()).collect()
}

fn exception(events: Option<&Value>) -> Option<String> {
    let events = events?.as_array()?.iter();
    let attributes = events.filter_map(|event| event.get("attributes"));
    let message =
        |attributes: &Value| Some(attributes.get("exception.message")?.as_str()?.to_owned());
    attributes.into_iter().find_map(message)
}

fn refused(refusal: &Refusal) -> Response<Full<Bytes>> {
    let code = refusal.posted().label();
    let body = json!({"error": {"code": code, "message": refusal.to_string()}});
    let mut response = response(refusal.status(), &body);
    add_hints(refusal, response.headers_mut());
    response
}

/// What a refusal says in headers.
pub(super) fn add_hints(refusal: &Refusal, headers: &mut HeaderMap) {
    match refusal {
        Refusal::Unauthorized => {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Refusal::Busy => {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        Refusal::Method => {
            headers.insert(http::header::ALLOW, HeaderValue::from_static("POST"));
        }
        _ => {}
    }
}

fn response(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
