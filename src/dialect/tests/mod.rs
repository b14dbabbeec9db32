//! The room held to account, on recorded and on hostile bytes.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use jiff::Timestamp;

use super::{read, read_figures, read_kept};
use crate::config::{
    CaptureMode, Columns, DialectChoice, HostSent, IncludeUsage, Limits, Tap, Timeouts, Upstream,
    UpstreamHttp2,
};
use crate::domain::{
    CapturedBody, Exchange, ExchangeId, Fields, Operation, Outcome, Reading, SpanId, Timing,
    TraceContext, TraceId,
};

mod codings;
mod events;
mod figures;
mod holes;
mod hostile;
mod models;
mod pieces;
mod recorded;
mod repeats;
mod routes;
mod texts;

/// A tap that detects its dialect, with the default columns.
fn tap() -> Tap {
    let second = Duration::from_secs(1);
    Tap {
        name: Arc::from("chat"),
        listen: ([127, 0, 0, 1], 0).into(),
        upstream: Upstream {
            secure: false,
            host: "127.0.0.1".into(),
            port: 9000,
            authority: "127.0.0.1:9000".into(),
            path_prefix: String::new(),
            http2: UpstreamHttp2::Off,
            ca_file: None,
            client_certificate: None,
        },
        deployment: None,
        dialect: DialectChoice::Auto,
        columns: Columns {
            question: "question".into(),
            answer: "answer".into(),
            context: "context".into(),
            ground_truth: "ground_truth".into(),
            chat_history: "chat_history".into(),
            configured: false,
        },
        capture: CaptureMode::Full,
        include_usage: IncludeUsage::Off,
        host: HostSent::Upstream,
        http2: false,
        tls: None,
        timeouts: Timeouts {
            connect: second,
            response: second,
            idle: second,
            header: second,
            keep_alive: second,
            pool_idle: second,
        },
        limits: Limits { headers_max: 100, header_bytes_max: 1 << 16, connections_max: 64 },
    }
}

fn whole(bytes: impl Into<Vec<u8>>) -> CapturedBody {
    let head = bytes.into();
    CapturedBody { bytes: head.len() as u64, head, complete: true, ..CapturedBody::default() }
}

/// A body of which only `head` bytes at the beginning and `tail` at the end were captured.
fn holed(bytes: &[u8], head: usize, tail: usize) -> CapturedBody {
    CapturedBody {
        head: bytes[..head].to_vec(),
        tail: bytes[bytes.len() - tail..].to_vec(),
        bytes: bytes.len() as u64,
        complete: true,
        ..CapturedBody::default()
    }
}

fn headers(pairs: &[(&str, &str)]) -> Fields {
    pairs
        .iter()
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a header's name");
            (name, HeaderValue::from_str(value).expect("a header's value"))
        })
        .collect()
}

/// A POST of JSON that was answered 200 with JSON.
fn post(path: &str, request: impl Into<Vec<u8>>, response: impl Into<Vec<u8>>) -> Exchange {
    Exchange {
        id: ExchangeId::new(Timestamp::UNIX_EPOCH),
        tap: Arc::from("chat"),
        time: Timestamp::UNIX_EPOCH,
        method: Method::POST,
        path: path.into(),
        request_headers: headers(&[("content-type", "application/json")]),
        request: whole(request),
        status: Some(200),
        response_headers: headers(&[("content-type", "application/json")]),
        response: whole(response),
        fault: None,
        outcome: Outcome::Ok,
        timing: Timing::default(),
        request_id: None,
        trace: TraceContext {
            trace_id: TraceId::random(),
            span_id: SpanId::random(),
            parent_span_id: None,
            sampled: true,
        },
        alone: false,
    }
}

/// The same, answered with server-sent events.
fn streamed(path: &str, request: impl Into<Vec<u8>>, response: impl Into<Vec<u8>>) -> Exchange {
    let response_headers = headers(&[("content-type", "text/event-stream; charset=utf-8")]);
    Exchange { response_headers, ..post(path, request, response) }
}

fn read_one(exchange: &Exchange) -> Reading {
    let whole = read(exchange, &tap());
    assert_eq!(figures(&read_figures(exchange, &tap())), figures(&whole), "without texts");
    assert_eq!(figures(&read_kept(exchange, &tap())), figures(&whole), "texts where they stand");
    whole
}

/// What a reading tells besides texts.
fn figures(reading: &Reading) -> String {
    let answers = reading.operation != Operation::Embeddings;
    let reported = reading.usage.input.is_some() && (!answers || reading.usage.output.is_some());
    let cut = reading.countable.as_ref().is_some_and(|countable| countable.output_truncated);
    let countable = reading.countable.as_ref().filter(|_| !reported || cut);
    let kind = (reading.dialect, reading.operation, reading.provider, reading.stream);
    let names = (&reading.model, &reading.model_deployment, &reading.response_id);
    let ends = (&reading.finish_reason, reading.empty, reading.first_content_offset);
    let rest = (reading.usage, &reading.session, reading.fault);
    format!("{kind:?} {names:?} {ends:?} {rest:?} {countable:?}")
}

/// The body of a fixture.
fn fixture(path: &str) -> Vec<u8> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    std::fs::read(root.join(path)).expect("a fixture")
}
