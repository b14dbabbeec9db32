//! Every secret's shape in every place: none may be in the record that is written.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::tests::redactor;
use super::*;
use crate::config::CaptureMode;
use crate::domain::{
    Call, CapturedBody, Dialect, Exchange, ExchangeId, Fields, Json, ModelNames, Operation,
    Outcome, Reading, Record, Sample, SampleReason, Sampling, SpanId, Summary, Timing,
    TraceContext, TraceId, Usage,
};

/// What must not be found again, and a text that holds it. Composed here, so that no scanner of
/// sources takes them for real.
pub(super) fn canaries() -> Vec<(String, String)> {
    let body = "C4n4ryC4n4ryC4n4ryC4n4ryC4n4ryC4n4ry";
    let token = |prefix: &str| format!("{prefix}{body}");
    let bare = [
        "sk-",
        "sk-proj-",
        "sk-ant-api03-",
        "ghp_",
        "gho_",
        "github_pat_",
        "xoxb-",
        "xoxp-",
        "AIza",
        "glpat-",
        "hf_",
        "gsk_",
        "sk_live_",
        "rk_test_",
        "ya29.",
        "npm_",
    ];
    let mut all: Vec<(String, String)> = bare.map(|p| (token(p), token(p))).to_vec();
    let hex32 = "c0ffee11c0ffee22c0ffee33c0ffee55";
    let with_hex = ["dapi", "SK", "key-", "fc-", "shpat_"].map(|p| format!("{p}{hex32}"));
    all.extend(with_hex.map(|token| (token.clone(), token)));
    let newer = ["api_org_", "nvapi-", "fw_", "tgp_v1_", "csk-", "pcsk_", "tvly-dev-", "dckr_pat_"];
    all.extend(newer.map(|p| (token(p), token(p))));
    let others =
        ["hvs.", "dp.pt.", "glc_", "NRAK-", "sntrys_", "ATATT3", "lin_api_", "figd_", "sbp_"];
    all.extend(others.map(|p| (token(p), token(p))));
    let long = format!("{body}{body}");
    all.push((long.clone(), format!("{long}AZDOab12")));
    all.push((body.to_owned(), format!("ab18Q~{body}")));
    let upper = &body.to_uppercase()[..16];
    let jwt = format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIi{body}.{body}");
    let pem = format!("-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----");
    let hex = "c0ffee11c0ffee22c0ffee33c0ffee44";
    all.extend([
        (format!("AKIA{upper}"), format!("AKIA{upper}")),
        (format!("ASIA{upper}"), format!("id=ASIA{upper};")),
        (jwt.clone(), jwt),
        (body.to_owned(), pem),
        (body.to_owned(), format!("Bearer {body}")),
        (body.to_owned(), format!("aws_secret_access_key = {body}/+ab")),
        (body.to_owned(), format!("AccountName=x;AccountKey={body}{body}==;")),
        (body.to_owned(), format!("https://h/c?se=1&sig={body}%3D")),
        (body.to_owned(), format!("postgres://user:{body}@db.internal/x")),
        (hex.to_owned(), format!("api-key: {hex}")),
        (hex.to_owned(), format!("{{\"api_key\": \"{hex}\"}}")),
        ("joe.canary@example.com".into(), "mail joe.canary@example.com".into()),
        ("4111 1111 1111 1111".into(), "card 4111 1111 1111 1111".into()),
        ("203.0.113.77".into(), "from 203.0.113.77 ok".into()),
        ("+49 170 1234567".into(), "call +49 170 1234567".into()),
        ("DE89 3704 0044 0532 0130 00".into(), "to DE89 3704 0044 0532 0130 00.".into()),
    ]);
    all
}

fn exchange(path: &str, headers: &[(&'static str, &str)], request_id: &str) -> Exchange {
    let of = |headers: &[(&'static str, &str)]| -> Fields {
        let pair = |(name, value): &(&'static str, &str)| {
            // Header values hold no line feeds.
            let value = HeaderValue::from_str(&value.replace('\n', " ")).expect("a header's value");
            (HeaderName::from_static(name), value)
        };
        headers.iter().map(pair).collect()
    };
    let trace = TraceContext {
        trace_id: TraceId::random(),
        span_id: SpanId::random(),
        parent_span_id: None,
        sampled: true,
    };
    Exchange {
        id: ExchangeId::new(Timestamp::UNIX_EPOCH),
        tap: Arc::from("chat"),
        time: Timestamp::UNIX_EPOCH,
        method: Method::POST,
        path: path.into(),
        request_headers: of(headers),
        request: CapturedBody { bytes: 7, ..CapturedBody::default() },
        status: Some(200),
        response_headers: of(headers),
        response: CapturedBody::default(),
        fault: None,
        outcome: Outcome::Ok,
        timing: Timing::default(),
        request_id: Some(request_id.into()),
        trace,
        alone: false,
    }
}

fn summary(path: &str, name: &str) -> Summary {
    Summary {
        id: ExchangeId::new(Timestamp::UNIX_EPOCH),
        time: Timestamp::UNIX_EPOCH,
        tap: Arc::from("chat"),
        deployment: Arc::from("blue"),
        instance: Arc::from("pod"),
        dialect: Dialect::Openai,
        operation: Operation::Chat,
        method: "POST".into(),
        path: path.into(),
        status: Some(200),
        outcome: Outcome::Ok,
        fault: None,
        model: ModelNames { request: Some(name.into()), response: Some(name.into()) },
        stream: false,
        latency_ms: 1.0,
        first_byte_ms: None,
        first_token_ms: None,
        overhead_us: 1,
        usage: Usage::default(),
        provider: None,
        finish_reason: Some(name.into()),
        response_id: Some(name.into()),
    }
}

/// `text` wherever content can be.
fn reading(operation: Operation, text: &str) -> Reading {
    let turns = json!([{"role": "user", "content": text}, {"role": "assistant", "content": [{"type": "text", "text": text}]}]);
    let arguments = json!({"note": text, "nested": json!({"deep": text}).to_string()}).to_string();
    Reading {
        question: Some(json!(text)),
        answer: Some(json!({"answer": {"list": [text, {"deeper": text}]}})),
        context: Some(json!([text])),
        ground_truth: Some(json!(text)),
        chat_history: Some(turns.clone()),
        request_body: Some(
            json!({"messages": turns, text: "a key", "tool_calls": [{"arguments": arguments}]}),
        ),
        response_body: Some(
            json!({"error": {"message": format!("upstream said: {text}")}, "folded": text}),
        ),
        finish_reason: Some(text.into()),
        ..Reading::new(Dialect::Openai, operation)
    }
}

fn record_of(
    mode: RedactMode,
    capture: CaptureMode,
    operation: Operation,
    text: &str,
) -> Record<'static> {
    let path = format!("/v1/{text}/chat?api-version=1&q={text}");
    let headers =
        [("x-note", text), ("authorization", text), ("referer", text), ("x-secret", text)];
    let exchange = exchange(&path, &headers, text);
    let (reading, summary) = (reading(operation, text), summary(&path, text));
    let redactor = redactor(mode);
    let summary = redactor.summary(summary);
    let texts = redactor.texts(reading);
    redactor.record(&exchange, texts, summary, capture, vec![call(text)])
}

fn call(name: &str) -> Call {
    Call {
        model: Some(name.into()),
        deployment: Some(name.into()),
        input: None,
        output: None,
        source: None,
        latency_ms: 1.0,
        status: Some(200),
        cached_input: None,
        reasoning_output: None,
        operation: Operation::Chat,
        outcome: Outcome::Ok,
        step: None,
    }
}

/// The record as it is written, and what serialisation leaves out but spans show.
fn written(record: &Record<'_>) -> String {
    let hidden = (&record.summary.finish_reason, &record.summary.response_id);
    let sampling = Sampling { reason: SampleReason::Rate, probability: 1.0, least: 1.0 };
    let sample = Sample { schema: Sample::SCHEMA, record: record.clone(), sample: sampling };
    format!("{} {hidden:?}", serde_json::to_string(&sample).expect("a sample serialises"))
}

#[test]
fn no_secret_is_in_any_place_of_a_record() {
    for (secret, text) in canaries() {
        for mode in [RedactMode::Mask, RedactMode::Hash] {
            for capture in [CaptureMode::Full, CaptureMode::Metadata] {
                for operation in [Operation::Chat, Operation::Other] {
                    let record = record_of(mode, capture, operation, &text);
                    let written = written(&record);
                    assert!(!written.contains(&secret), "{text} in {written}");
                    assert!(!record.redactions.is_empty(), "{text} was counted");
                }
            }
        }
    }
}

#[test]
fn the_canaries_would_be_seen() {
    for (secret, text) in canaries() {
        let written =
            written(&record_of(RedactMode::Off, CaptureMode::Full, Operation::Chat, &text));
        assert!(written.contains(&secret), "{text}");
    }
}

#[test]
fn credentials_go_by_their_key_whatever_they_look_like() {
    let body = json!({"password": "plain words here", "Api-Key": "x", "tokens": ["kept"], "max_tokens": 5,
        "nested": {"client_secret": ["one", "two"], "authorization": {"type": "basic", "value": "Abc123"}},
        "key": "c0ffee11c0ffee22c0ffee33", "schema": {"password": {"type": "string"}}});
    let mut counts = Counts::default();
    let redactor = redactor(RedactMode::Mask);
    let kept = json::Walk::new(&redactor, &mut counts).value(body);
    let expected = json!({"password": "[secret]", "Api-Key": "[secret]", "tokens": ["kept"], "max_tokens": 5,
        "nested": {"client_secret": ["[secret]", "[secret]"], "authorization": {"type": "basic", "value": "[secret]"}},
        "key": "[secret]", "schema": {"password": {"type": "string"}}});
    assert_eq!((kept, counts.into_named()), (expected, BTreeMap::from([("secret".into(), 6)])));
}

#[test]
fn an_allowed_header_keeps_names_and_no_credential() {
    let headers = ["idempotency-key", "x-search-key"].map(str::to_owned);
    let settings = Redact { detect: super::tests::ALL.to_vec(), mode: RedactMode::Mask, key: None };
    let redactor = Redactor::new(&settings, &headers);
    let kept = |value: &str| {
        let exchange =
            exchange("/score", &[("idempotency-key", value), ("x-search-key", value)], "id");
        let (texts, summary) = (RedactedTexts::default(), redactor.summary(summary("/score", "m")));
        let record = redactor.record(&exchange, texts, summary, CaptureMode::Full, Vec::new());
        record.request.headers.into_values().collect::<Vec<_>>()
    };
    let uuid = "018f6c3e-9a5b-7c3d-8e2f-0123456789ab";
    for (value, expected) in [
        ("c0ffee11c0ffee22c0ffee33c0ffee55", "[secret]"),
        ("C4n4ryC4n4ryC4n4ry", "[secret]"),
        ("Bearer C4n4ryC4n4ry", "Bearer [secret]"),
        (uuid, uuid),
        ("order-17", "order-17"),
    ] {
        assert_eq!(kept(value), [expected, expected], "{value}");
    }
}

#[test]
fn unknown_operations_and_metadata_keep_no_content() {
    let plain = |capture, operation| record_of(RedactMode::Mask, capture, operation, "harmless");
    let full = plain(CaptureMode::Full, Operation::Chat);
    assert_eq!(full.question.and_then(Json::into_value), Some(json!("harmless")));
    assert_eq!(full.request.headers.keys().collect::<Vec<_>>(), ["referer", "x-note"]);
    assert_eq!(full.summary.path, "/v1/harmless/chat", "no query");
    for record in
        [plain(CaptureMode::Metadata, Operation::Chat), plain(CaptureMode::Full, Operation::Other)]
    {
        let texts = [
            &record.question,
            &record.answer,
            &record.context,
            &record.ground_truth,
            &record.chat_history,
            &record.request.body,
            &record.response.body,
        ];
        assert!(texts.iter().all(|text| text.is_none()), "{record:?}");
        assert_eq!(record.request.bytes, 7, "sizes stay");
    }
    assert!(plain(CaptureMode::Metadata, Operation::Chat).request.headers.is_empty());
}

#[test]
fn what_cannot_be_read_is_not_kept() {
    let mut reading = Reading::new(Dialect::Openai, Operation::Embeddings);
    reading.request_body = Some(json!({"base64": "AAECAw=="}));
    let image = format!("data:image/png;base64,{}", "iVBORw0KGgo".repeat(40));
    reading.response_body = Some(json!({"data": [{"embedding": [0.1, 0.2]}], "url": image,
        "choices": [{"logprobs": {"content": [{"token": "joe"}]}}], "logprobs": null, "audio": {"data": "QUJD".repeat(100)}}));
    let redactor = redactor(RedactMode::Mask);
    let record = redactor.record(
        &exchange("/v1/embeddings", &[], "id-1"),
        redactor.texts(reading),
        redactor.summary(summary("/v1/embeddings", "gpt-4o")),
        CaptureMode::Full,
        Vec::new(),
    );
    assert!(record.request.body.is_none());
    let expected = json!({"data": [{"embedding": "[binary]"}], "url": "data:image/png;base64,[binary]",
        "choices": [{"logprobs": "[binary]"}], "logprobs": null, "audio": {"data": "[binary]"}});
    assert_eq!(record.response.body.and_then(Json::into_value), Some(expected));
    assert_eq!(record.redactions, BTreeMap::from([("binary".into(), 5)]));
}

#[test]
fn a_column_is_not_counted_beside_its_body() {
    let mut reading = Reading::new(Dialect::Promptflow, Operation::Score);
    reading.question = Some(json!("I am joe@example.com"));
    reading.request_body = Some(json!({"question": "I am joe@example.com"}));
    let path = "/score";
    let redactor = redactor(RedactMode::Mask);
    let record = redactor.record(
        &exchange(path, &[], "id-1"),
        redactor.texts(reading),
        redactor.summary(summary(path, "gpt-4o")),
        CaptureMode::Full,
        Vec::new(),
    );
    assert_eq!(record.redactions, BTreeMap::from([("email".into(), 1)]));
    let question = record.question.and_then(Json::into_value);
    assert_eq!(question, Some(Value::from("I am [email]")));
}

#[test]
fn names_are_cut_and_keys_that_become_equal_are_both_kept() {
    let long = "é".repeat(5_000);
    let redactor = redactor(RedactMode::Mask);
    let named = redactor.summary(summary(&format!("/{long}"), &long));
    assert!(
        named.path.len() <= 1024
            && named.model.request.as_ref().is_some_and(|name| name.len() <= 256)
    );
    let body = json!({"a@example.com": 1, "b@example.com": 2, "c": 3});
    let kept = json::Walk::new(&redactor, &mut Counts::default()).value(body);
    assert_eq!(kept, json!({"[email]": 1, "[email] 2": 2, "c": 3}));
    let mut hostile = summary("/", "m");
    hostile.deployment = Arc::from("joe@example.com");
    assert_eq!(&*redactor.summary(hostile).deployment, "redacted");
}

#[test]
fn json_without_findings_stays_as_it_was() {
    let body = json!({"z": 1.50, "a": [null, true, "x"], "arguments": "{ \"n\" : 1.0 }", "created": 1732400000123_u64});
    let redactor = redactor(RedactMode::Mask);
    let kept = json::Walk::new(&redactor, &mut Counts::default()).value(body.clone());
    assert_eq!(kept.to_string(), body.to_string());
}
