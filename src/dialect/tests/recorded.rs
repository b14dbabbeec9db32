//! The bytes of real servers (tests/fixtures/promptflow): a prompt flow on Flask, and llama.cpp.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;
use crate::domain::{Dialect, Fields, Operation};

const SEPARATOR: &[u8] = b"\n===== RESPONSE (raw bytes below) =====\n";

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/promptflow").join(name)
}

/// One recorded exchange, as capture would hand it over.
fn recorded(folder_name: &str, name: &str) -> Exchange {
    let file = std::fs::read(folder(folder_name).join(format!("{name}.http"))).expect("a fixture");
    let at = memchr::memmem::find(&file, SEPARATOR).expect("a separator");
    let (start, request_headers, request) = message(&file[..at]);
    let (answer, response_headers, response) = message(&file[at + SEPARATOR.len()..]);
    let mut words = start.split(' ');
    let method = words.next().expect("a method").parse().expect("a method");
    let target = words.next().expect("a target");
    let status: Option<u16> = answer.split(' ').nth(1).map(|code| code.parse().expect("a status"));
    let outcome = match status {
        None => Outcome::Timeout,
        Some(424 | 500..) => Outcome::UpstreamError,
        Some(400..) => Outcome::ClientError,
        Some(_) if !response.complete => Outcome::UpstreamAbort,
        Some(_) => Outcome::Ok,
    };
    let path = target.split('?').next().expect("a path").to_owned();
    let blank = post("", "", "");
    Exchange {
        method,
        path,
        request_headers,
        request,
        status,
        response_headers,
        response,
        outcome,
        ..blank
    }
}

/// Start line, headers and body (chunks joined) of one message.
fn message(bytes: &[u8]) -> (String, Fields, CapturedBody) {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return (String::new(), Fields::default(), CapturedBody::default());
    };
    let head = std::str::from_utf8(&bytes[..end]).expect("a head in ASCII");
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let pairs: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
    let map = headers(&pairs);
    let body = &bytes[end + 4..];
    let body = if map.contains("transfer-encoding") {
        joined_chunks(body)
    } else {
        let length = map
            .get("content-length")
            .map_or(0, |v| v.to_str().expect("ASCII").parse().expect("a length"));
        whole(&body[..length])
    };
    (start, map, body)
}

fn joined_chunks(mut bytes: &[u8]) -> CapturedBody {
    let mut body = Vec::new();
    while let Some(at) = memchr::memmem::find(bytes, b"\r\n") {
        let size = std::str::from_utf8(&bytes[..at]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size in hex");
        if size == 0 {
            return whole(body);
        }
        body.extend_from_slice(&bytes[at + 2..at + 2 + size]);
        bytes = &bytes[at + 2 + size + 2..];
    }
    CapturedBody { complete: false, ..whole(body) }
}

/// How the answer came: plainly, or as a stream whose first content stood at this offset.
#[derive(Clone, Copy)]
enum How {
    Plain,
    Streamed(Option<u64>),
}
use How::{Plain, Streamed};

type Row = (&'static str, Operation, &'static str, &'static str, &'static str, How);

const SCORE: Operation = Operation::Score;
const FEEDBACK: Operation = Operation::Feedback;
const OTHER: Operation = Operation::Other;
const NONE: &str = "";
const TENT: &str = r#""The Alpine Explorer tent has a rainfly waterproof rating of 3000 mm.""#;
const RATING: &str = r#""Answer to 'rating?': naïve café — 3000 mm\nsecond line 🎉 ""#;

/// Every recorded exchange with a prompt flow: operation, question, answer and context (JSON), how.
#[rustfmt::skip]
const FLOW: &[Row] = &[
    ("basic-accept-sse-and-json-nonstreaming-flow", SCORE, r#""tent""#, r#""You asked: tent. According to the catalogue: The Alpine Explorer tent has a rainfly waterproof rating of 3000 mm. (turns=0)""#, TENT, Plain),
    ("basic-accept-sse-nonstreaming-flow", SCORE, r#""tent""#, NONE, NONE, Plain),
    ("basic-accept-xml", SCORE, r#""tent""#, NONE, NONE, Plain),
    ("basic-bad-empty-body", SCORE, NONE, NONE, NONE, Plain),
    ("basic-bad-json-array", SCORE, NONE, NONE, NONE, Plain),
    ("basic-bad-missing-question", SCORE, NONE, NONE, NONE, Plain),
    ("basic-bad-nonjson", SCORE, NONE, NONE, NONE, Plain),
    ("basic-bad-null-question", SCORE, NONE, r#""You asked: None. According to the catalogue: no context found (turns=0)""#, r#""no context found""#, Plain),
    ("basic-bad-type-history", SCORE, r#""tent""#, NONE, NONE, Plain),
    ("basic-content-type-text", SCORE, r#""tent""#, r#""You asked: tent. According to the catalogue: The Alpine Explorer tent has a rainfly waterproof rating of 3000 mm. (turns=0)""#, TENT, Plain),
    ("basic-err-flow-exception", SCORE, r#""boom""#, NONE, NONE, Plain),
    ("basic-err-unserialisable", SCORE, r#""badtype""#, NONE, NONE, Plain),
    ("basic-err-zerodiv", SCORE, r#""zerodiv""#, NONE, NONE, Plain),
    ("basic-feedback", FEEDBACK, NONE, NONE, NONE, Plain),
    ("basic-feedback-flatten", FEEDBACK, NONE, NONE, NONE, Plain),
    ("basic-get-score", OTHER, NONE, NONE, NONE, Plain),
    ("basic-health", OTHER, NONE, NONE, NONE, Plain),
    ("basic-metrics", OTHER, NONE, NONE, NONE, Plain),
    ("basic-num-question", SCORE, r#"42"#, r#""You asked: 42. According to the catalogue: no context found (turns=0)""#, r#""no context found""#, Plain),
    ("basic-ok", SCORE, r#""Which tent is waterproof?""#, r#""You asked: Which tent is waterproof?. According to the catalogue: The Alpine Explorer tent has a rainfly waterproof rating of 3000 mm. (turns=0)""#, TENT, Plain),
    ("basic-ok-chunked-request", SCORE, r#""tent via chunked""#, r#""You asked: tent via chunked. According to the catalogue: The Alpine Explorer tent has a rainfly waterproof rating of 3000 mm. (turns=0)""#, TENT, Plain),
    ("basic-ok-extra-field", SCORE, r#""tent""#, r#""You asked: tent. According to the catalogue: The Alpine Explorer tent has a rainfly waterproof rating of 3000 mm. (turns=0)""#, TENT, Plain),
    ("basic-ok-ids-traceparent", SCORE, r#""Which tent is waterproof?""#, r#""You asked: Which tent is waterproof?. According to the catalogue: The Alpine Explorer tent has a rainfly waterproof rating of 3000 mm. (turns=0)""#, TENT, Plain),
    ("basic-ok-keepalive", SCORE, r#""tent""#, r#""You asked: tent. According to the catalogue: The Alpine Explorer tent has a rainfly waterproof rating of 3000 mm. (turns=0)""#, TENT, Plain),
    ("basic-ok-with-history", SCORE, r#""And the tent rating?""#, r#""You asked: And the tent rating?. According to the catalogue: The Alpine Explorer tent has a rainfly waterproof rating of 3000 mm. (turns=1)""#, TENT, Plain),
    ("basic-options-score-cors", OTHER, NONE, NONE, NONE, Plain),
    ("basic-root", OTHER, NONE, NONE, NONE, Plain),
    ("basic-swagger", OTHER, NONE, NONE, NONE, Plain),
    ("basic-unknown-path", OTHER, NONE, NONE, NONE, Plain),
    ("basic-version", OTHER, NONE, NONE, NONE, Plain),
    ("llmdag-err-llm400", SCORE, r#""e400""#, NONE, NONE, Plain),
    ("llmdag-err-llm401", SCORE, r#""e401""#, NONE, NONE, Plain),
    ("llmdag-err-llm429", SCORE, r#""e429""#, NONE, NONE, Plain),
    ("llmdag-err-llm500", SCORE, r#""e500""#, NONE, NONE, Plain),
    ("llmdag-missing", SCORE, NONE, NONE, NONE, Plain),
    ("llmdag-ok", SCORE, r#""What is the tent rating?""#, r#""stub answer to: What is the tent rating?""#, TENT, Plain),
    ("llmdag-sse-accept", SCORE, r#""What is the tent rating?""#, NONE, NONE, Plain),
    ("llmdag-swagger", OTHER, NONE, NONE, NONE, Plain),
    ("llmdag-traceparent", SCORE, r#""trace me""#, r#""stub answer to: trace me""#, TENT, Plain),
    ("llmflex-err-llm400", SCORE, r#""e400""#, NONE, NONE, Plain),
    ("llmflex-err-llm401", SCORE, r#""e401""#, NONE, NONE, Plain),
    ("llmflex-err-llm429", SCORE, r#""e429""#, NONE, NONE, Plain),
    ("llmflex-err-llm500", SCORE, r#""e500""#, NONE, NONE, Plain),
    ("llmflex-missing", SCORE, NONE, NONE, NONE, Plain),
    ("llmflex-ok", SCORE, r#""What is the tent rating?""#, r#""stub answer to: What is the tent rating?""#, TENT, Plain),
    ("llmflex-sse-accept", SCORE, r#""What is the tent rating?""#, NONE, NONE, Plain),
    ("llmflex-swagger", OTHER, NONE, NONE, NONE, Plain),
    ("llmflex-traceparent", SCORE, r#""trace me""#, r#""stub answer to: trace me""#, TENT, Plain),
    ("llmflexstream-err-llm400", SCORE, r#""e400""#, NONE, NONE, Plain),
    ("llmflexstream-err-llm401", SCORE, r#""e401""#, NONE, NONE, Plain),
    ("llmflexstream-err-llm429", SCORE, r#""e429""#, NONE, NONE, Plain),
    ("llmflexstream-err-llm500", SCORE, r#""e500""#, NONE, NONE, Plain),
    ("llmflexstream-ok", SCORE, r#""What is the tent rating?""#, r#""stub answer to: What is the tent rating? ""#, NONE, Plain),
    ("llmflexstream-sse-accept", SCORE, r#""What is the tent rating?""#, r#""stub answer to: What is the tent rating? ""#, NONE, Streamed(Some(0))),
    ("llmflexstream-sse-err-llm429", SCORE, r#""e429""#, NONE, NONE, Plain),
    ("llmflexstream-sse-err-llm500", SCORE, r#""e500""#, NONE, NONE, Plain),
    ("prompty-err-llm400", SCORE, r#""e400""#, NONE, NONE, Plain),
    ("prompty-err-llm401", SCORE, r#""e401""#, NONE, NONE, Plain),
    ("prompty-err-llm429", SCORE, r#""e429""#, NONE, NONE, Plain),
    ("prompty-err-llm500", SCORE, r#""e500""#, NONE, NONE, Plain),
    ("prompty-missing", SCORE, NONE, NONE, NONE, Plain),
    ("prompty-ok", SCORE, r#""What is the tent rating?""#, r#""stub answer to: What is the tent rating?""#, NONE, Plain),
    ("prompty-sse-accept", SCORE, r#""What is the tent rating?""#, NONE, NONE, Plain),
    ("prompty-swagger", OTHER, NONE, NONE, NONE, Plain),
    ("prompty-traceparent", SCORE, r#""trace me""#, r#""stub answer to: trace me""#, NONE, Plain),
    ("stream-accept-xml", SCORE, r#""rating?""#, NONE, NONE, Plain),
    ("stream-json", SCORE, r#""rating?""#, RATING, TENT, Plain),
    ("stream-json-midboom", SCORE, r#""midboom""#, NONE, NONE, Plain),
    ("stream-json-preboom", SCORE, r#""preboom""#, NONE, NONE, Plain),
    ("stream-no-accept", SCORE, r#""rating?""#, RATING, TENT, Plain),
    ("stream-sse", SCORE, r#""rating?""#, RATING, TENT, Streamed(Some(91))),
    ("stream-sse-and-json", SCORE, r#""rating?""#, RATING, TENT, Streamed(Some(91))),
    ("stream-sse-http10-like-keepalive", SCORE, r#""rating?""#, RATING, TENT, Streamed(Some(91))),
    ("stream-sse-midboom", SCORE, r#""midboom""#, r#""Answer to 'midboom': ""#, TENT, Streamed(Some(91))),
    ("stream-sse-missing-input", SCORE, NONE, NONE, NONE, Plain),
    ("stream-sse-preboom", SCORE, r#""preboom""#, NONE, TENT, Streamed(None)),
    ("stream-sse-with-q", SCORE, r#""rating?""#, RATING, TENT, Streamed(Some(91))),
    ("stream-star-accept", SCORE, r#""rating?""#, RATING, TENT, Plain),
];

fn as_json(value: &Option<serde_json::Value>) -> String {
    value.as_ref().map(ToString::to_string).unwrap_or_default()
}

fn names_in(folder_name: &str) -> BTreeSet<String> {
    let files = std::fs::read_dir(folder(folder_name)).expect("a folder");
    let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    files.map(|file| stem(file.expect("a file").path())).collect()
}

#[test]
fn every_recorded_flow_exchange_is_read() {
    let told: BTreeSet<String> = FLOW.iter().map(|row| row.0.to_owned()).collect();
    assert_eq!(names_in("flask"), told, "the table names every fixture");
    for (name, operation, question, answer, context, how) in FLOW {
        let exchange = recorded("flask", name);
        let reading = read_one(&exchange);
        assert_eq!(reading.operation, *operation, "{name}");
        assert_eq!(as_json(&reading.question), *question, "{name}: question");
        assert_eq!(as_json(&reading.answer), *answer, "{name}: answer");
        assert_eq!(as_json(&reading.context), *context, "{name}: context");
        let (stream, first) = match how {
            Plain => (false, None),
            Streamed(first) => (true, *first),
        };
        assert_eq!((reading.stream, reading.first_content_offset), (stream, first), "{name}");
        let fault = (*name == "basic-bad-nonjson").then_some("json");
        assert_eq!((reading.fault, reading.empty), (fault, false), "{name}");
        assert!(reading.usage.is_unknown() && reading.ground_truth.is_none(), "{name}");
        let kept = *operation != OTHER;
        assert_eq!(reading.response_body.is_some(), kept && exchange.response.bytes > 0, "{name}");
        assert_eq!(reading.request_body.is_some(), kept && exchange.request.bytes > 0, "{name}");
        let ok = *operation == SCORE && exchange.status == Some(200);
        assert_eq!(reading.countable.is_some(), ok, "{name}: only what succeeded was generated");
    }
}

#[test]
fn a_cut_flow_keeps_what_was_delivered() {
    let reading = read_one(&recorded("flask", "stream-sse-midboom"));
    let countable = reading.countable.expect("countable");
    assert_eq!(countable.output, ["Answer to 'midboom': "]);
    assert!(countable.output_truncated && !countable.input_truncated);
    let body = reading.response_body.expect("a folded body");
    assert_eq!(body["answer"], "Answer to 'midboom': ");
}

#[test]
fn history_counts_as_input() {
    let reading = read_one(&recorded("flask", "basic-ok-with-history"));
    let input = reading.countable.expect("countable").input;
    let tent = TENT.trim_matches('"');
    assert_eq!(input, ["hi", "hello", tent, "And the tent rating?"]);
}

#[test]
fn a_real_model_server_is_read_in_both_forms() {
    let plain = read_one(&recorded("llm", "llama-chat"));
    assert_eq!((plain.dialect, plain.operation), (Dialect::Openai, Operation::Chat));
    assert_eq!(as_json(&plain.answer), r#""The capital of France is Paris.""#);
    let usage = (plain.usage.input, plain.usage.output, plain.usage.total);
    assert_eq!(usage, (Some(42), Some(7), Some(49)));
    assert_eq!(plain.finish_reason.as_deref(), Some("stop"));
    for (name, answer) in [
        ("llama-chat-stream-include-usage", "1. Red: This is the most"),
        (
            "llama-chat-stream",
            "1. Red: This is the most obvious colour, but it's also a bit of an exception to its rule as",
        ),
    ] {
        let reading = read_one(&recorded("llm", name));
        assert_eq!(reading.answer, Some(answer.into()));
        assert!(reading.usage.is_unknown(), "this server ignores include_usage");
        assert_eq!(reading.finish_reason.as_deref(), Some("length"));
        assert_eq!(reading.first_content_offset, Some(246), "not the event of the role");
        let countable = reading.countable.expect("countable");
        assert_eq!((countable.turns.len(), countable.output_truncated), (1, false));
        let body = reading.response_body.expect("a folded body");
        assert_eq!(body["object"], "chat.completion");
        assert_eq!(body["choices"][0]["message"]["content"], answer);
    }
    let other = read_one(&recorded("llm", "llama-models"));
    assert_eq!((other.operation, other.response_body), (OTHER, None));
    assert_eq!(names_in("llm").len(), 6, "a new fixture wants a line here");
    for name in ["llama-bad", "llama-chat-json-mode"] {
        let reading = read_one(&recorded("llm", name));
        assert!(
            reading.answer.is_some() && reading.usage.total.is_some() && reading.fault.is_none()
        );
    }
}
