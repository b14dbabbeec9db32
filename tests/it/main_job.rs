//! The main job, as its users would check it: requests pass, figures are right, samples are honest,
//! and the ledger adds up, after an orderly end and after a kill.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::tap::{Flowtap, Setup, rows};
use crate::support::wire::{Upstream, json_post, json_response};

const ANSWER: &str =
    r#"{"answer":"The rainfly keeps 3000 mm out.","context":"Alpine Explorer: 3000 mm."}"#;

/// `connections` clients, each sending its share of `requests` one after the other.
fn ask(flowtap: &Flowtap, requests: usize, connections: usize) {
    std::thread::scope(|scope| {
        for connection in 0..connections {
            scope.spawn(move || {
                let mut client = flowtap.client();
                for number in (connection..requests).step_by(connections) {
                    client.send(json_post(
                        "/score",
                        &format!(r#"{{"question":"question {number}?"}}"#),
                    ));
                    assert_eq!(client.read_response().status(), 200);
                }
            });
        }
    });
}

fn verify(folder: &std::path::Path) -> (bool, Value) {
    let bucket = format!("file://{}/bucket", folder.display());
    let output =
        Command::new(env!("CARGO_BIN_EXE_flowtap")).args(["verify", "--json", &bucket]).output();
    let output = output.expect("flowtap verify runs");
    let report = serde_json::from_slice(&output.stdout).expect("a JSON report");
    (output.status.success(), report)
}

/// A field of the ledger, summed over all hours.
fn ledger(report: &Value, field: &str) -> u64 {
    let hours = report["checked"].as_array().expect("hours").iter();
    hours.map(|hour| hour["ledger"][field].as_u64().unwrap_or(0)).sum()
}

fn dropped(report: &Value) -> u64 {
    let hours = report["checked"].as_array().expect("hours").iter();
    let losses =
        hours.flat_map(|hour| hour["ledger"]["dropped"].as_array().cloned().unwrap_or_default());
    losses.map(|loss| loss["count"].as_u64().expect("a count")).sum()
}

/// Promise (operations): sampling is within binomial bounds, and seen = not sampled + stored + dropped.
/// Figure: 10,000 requests.
#[test]
fn ten_thousand_requests_are_sampled_within_binomial_bounds_and_every_one_is_accounted_for() {
    let upstream = Upstream::answering(json_response(ANSWER));
    let flowtap = Setup::before(upstream.port).start();
    ask(&flowtap, 10_000, 8);
    flowtap.await_metric("flowtap_requests_total", &["outcome=\"ok\""], 10_000.0);
    assert_eq!(flowtap.metric("flowtap_requests_total", &[]), 10_000.0);
    let sampled = flowtap.metric("flowtap_samples_total", &[]);
    let stopped = flowtap.stop();

    let samples = stopped.rows("exchanges");
    // 0.1 of 10,000: 1000, with a standard deviation of 30; four of them either way.
    assert!((880..=1120).contains(&samples.len()), "{} samples", samples.len());
    assert_eq!(samples.len() as f64, sampled);
    let ids: HashSet<_> =
        samples.iter().map(|sample| sample["id"].as_str().expect("an id")).collect();
    assert_eq!(ids.len(), samples.len(), "each sample once");
    let (right, report) = verify(stopped.folder());
    assert!(right, "{report}");
    assert_eq!(ledger(&report, "seen"), 10_000);
    assert_eq!(ledger(&report, "stored"), samples.len() as u64);
    assert_eq!(
        ledger(&report, "seen"),
        ledger(&report, "not_sampled") + ledger(&report, "stored") + dropped(&report)
    );

    let usage = stopped.rows("usage");
    let counted: u64 = usage.iter().map(|row| row["count"].as_u64().expect("a count")).sum();
    assert_eq!(counted, 10_000, "rollups hold all requests: {:?}", usage.first());
}

#[test]
fn rate_one_keeps_all_and_rate_zero_none() {
    let upstream = Upstream::answering(json_response(ANSWER));
    for (rate, kept) in [("1", 200), ("0", 0)] {
        let flowtap =
            Setup::before(upstream.port).top(&format!("sample: {{rate: {rate}}}")).start();
        ask(&flowtap, 200, 4);
        let stopped = flowtap.stop();
        assert_eq!(stopped.rows("exchanges").len(), kept, "rate {rate}");
        assert!(verify(stopped.folder()).0);
    }
}

#[test]
fn a_sample_is_what_the_contract_says() {
    let upstream = Upstream::answering(json_response(ANSWER));
    let flowtap =
        Setup::before(upstream.port).tap("deployment: blue").top("sample: {rate: 1}").start();
    let mut client = flowtap.client();
    let body = r#"{"question":"Is it dry?","chat_history":[],"api_key":"sk-abcdefghijklmnopqrstuvwxyz123456"}"#;
    client.send(format!(
        "POST /score?key=hidden HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nUser-Agent: test/1\r\nAuthorization: Bearer hidden\r\nx-request-id: r-7\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(client.read_response().text(), ANSWER);
    let stopped = flowtap.stop();
    let sample = stopped.rows("exchanges").remove(0);
    for (field, expected) in [
        ("schema", json!("flowtap.exchange.v1")),
        ("tap", json!("chat")),
        ("deployment", json!("blue")),
        ("dialect", json!("promptflow")),
        ("operation", json!("score")),
        ("method", json!("POST")),
        ("path", json!("/score")),
        ("status", json!(200)),
        ("outcome", json!("ok")),
        ("stream", json!(false)),
        ("calls", json!([])),
        ("question", json!("Is it dry?")),
        ("answer", json!("The rainfly keeps 3000 mm out.")),
        ("context", json!("Alpine Explorer: 3000 mm.")),
        ("ground_truth", json!(null)),
        ("trace_id", json!("0af7651916cd43dd8448eb211c80319c")),
        ("request_id", json!("r-7")),
        ("sample", json!({"reason": "rate", "probability": 1.0})),
    ] {
        assert_eq!(sample[field], expected, "{field} of {sample}");
    }
    assert_eq!(sample["usage"]["source"], "counted");
    assert_eq!(
        sample["request"]["headers"],
        json!({"content-type": "application/json", "user-agent": "test/1"})
    );
    assert_eq!(sample["redactions"]["secret"], 1);
    let text = sample.to_string();
    assert!(!text.contains("hidden") && !text.contains("sk-abc"), "{text}");
    let time = sample["time"].as_str().expect("a time");
    assert_eq!(time.len(), "2026-11-23T22:47:50.123456Z".len(), "{time}");
}

#[test]
fn metadata_keeps_no_text_at_all() {
    let upstream = Upstream::answering(json_response(ANSWER));
    let flowtap =
        Setup::before(upstream.port).tap("capture: metadata").top("sample: {rate: 1}").start();
    ask(&flowtap, 3, 1);
    let stopped = flowtap.stop();
    let samples = stopped.rows("exchanges");
    assert_eq!(samples.len(), 3);
    let text = samples[0].to_string();
    assert!(!text.contains("rainfly") && !text.contains("question 0"), "{text}");
    assert!(samples[0]["usage"]["output"].as_u64().expect("tokens are counted all the same") > 0);
}

#[test]
fn tokens_are_the_upstreams_own_where_it_reports_them() {
    let answer = r#"{"id":"c-1","object":"chat.completion","model":"gpt-4o-2024-08-06","choices":[{"index":0,"message":{"role":"assistant","content":"Dry."},"finish_reason":"stop"}],"usage":{"prompt_tokens":1234,"completion_tokens":56,"total_tokens":1290,"prompt_tokens_details":{"cached_tokens":1000},"completion_tokens_details":{"reasoning_tokens":12}}}"#;
    let upstream = Upstream::answering(json_response(answer));
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 1}").start();
    let mut client = flowtap.client();
    client.send(json_post(
        "/v1/chat/completions",
        r#"{"model":"gpt-4o","messages":[{"role":"user","content":"Dry?"}]}"#,
    ));
    assert_eq!(client.read_response().text(), answer);
    let reported = ["source=\"reported\"", "model=\"gpt-4o-2024-08-06\""];
    flowtap.await_metric(
        "flowtap_tokens_total",
        &[reported[0], reported[1], "type=\"input\""],
        1234.0,
    );
    flowtap.await_metric(
        "flowtap_tokens_total",
        &[reported[0], reported[1], "type=\"output\""],
        56.0,
    );
    let sample = flowtap.stop().rows("exchanges").remove(0);
    let expected = json!({"input": 1234, "output": 56, "total": 1290, "cached_input": 1000, "reasoning_output": 12, "source": "reported"});
    assert_eq!(sample["usage"], expected);
}

#[test]
fn tokens_are_those_of_the_published_tokenizer_where_nothing_is_reported() {
    let answer = r#"{"model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":"tiktoken is great!"},"finish_reason":"stop"}]}"#;
    let upstream = Upstream::answering(json_response(answer));
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 1}").start();
    let mut client = flowtap.client();
    client.send(json_post(
        "/v1/chat/completions",
        r#"{"model":"gpt-4o","messages":[{"role":"user","content":"tiktoken is great!"}]}"#,
    ));
    client.read_response();
    let sample = flowtap.stop().rows("exchanges").remove(0);
    // "tiktoken is great!" is 6 tokens; a message costs 3 and its role 1, the answer's start 3.
    assert_eq!(sample["usage"]["input"], 13, "{sample}");
    assert_eq!(sample["usage"]["output"], 6);
    assert_eq!(sample["usage"]["source"], "counted");
}

#[test]
fn embeddings_whose_tokens_are_reported_are_not_counted() {
    let answer = r#"{"object":"list","model":"text-embedding-3-small","data":[{"index":0,"embedding":[0.1]}],"usage":{"prompt_tokens":7,"total_tokens":7}}"#;
    let upstream = Upstream::answering(json_response(answer));
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 1}").start();
    let mut client = flowtap.client();
    client.send(json_post("/v1/embeddings", r#"{"model":"text-embedding-3-small","input":"dry"}"#));
    client.read_response();
    let usage = flowtap.stop().rows("exchanges").remove(0)["usage"].clone();
    assert_eq!((&usage["input"], &usage["source"]), (&json!(7), &json!("reported")), "{usage}");
}

#[test]
fn after_a_kill_nothing_fsynced_is_missing_and_the_lost_window_is_named() {
    let upstream = Upstream::answering(json_response(ANSWER));
    let setup = Setup::before(upstream.port).top("sample: {rate: 1}");
    let folder = setup.folder().to_owned();
    let spool = format!("spool: {{dir: {}/spool, segment_age: 60s, sync: 50ms}}", folder.display());
    let flowtap = setup.top(&spool).start();
    ask(&flowtap, 300, 4);
    flowtap.await_metric("flowtap_requests_total", &["outcome=\"ok\""], 300.0);
    // The promise holds from the fsync on: at most `sync` after a record was written.
    std::thread::sleep(Duration::from_millis(500));
    let flowtap = flowtap.kill_and_restart();
    let deadline = Instant::now() + Duration::from_secs(20);
    while rows(&folder.join("bucket/exchanges")).len() < 300 {
        assert!(
            Instant::now() < deadline,
            "{} of 300\n{}",
            rows(&folder.join("bucket/exchanges")).len(),
            flowtap.printed()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(flowtap.printed().contains("cannot be accounted for"), "{}", flowtap.printed());
    assert!(flowtap.metric("flowtap_unaccounted_seconds", &[]) > 0.0);
    let stopped = flowtap.stop();
    let ids: HashSet<_> =
        stopped.rows("exchanges").iter().map(|row| row["id"].to_string()).collect();
    assert_eq!(ids.len(), 300, "none is missing and none is there twice");
    let (right, report) = verify(stopped.folder());
    assert!(right, "{report}");
}

#[test]
fn sessions_are_kept_whole() {
    let upstream = Upstream::answering(json_response(ANSWER));
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 0.5, by: session}").start();
    let mut client = flowtap.client();
    for session in 0..40 {
        for _ in 0..3 {
            let body = r#"{"question":"q"}"#;
            client.send(format!("POST /score HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nx-session-id: s-{session}\r\nx-request-id: {session}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
            client.read_response();
        }
    }
    let samples = flowtap.stop().rows("exchanges");
    assert_eq!(samples.len() % 3, 0, "{} samples", samples.len());
    assert!((15..=105).contains(&samples.len()), "{} samples", samples.len());
}

#[test]
fn an_error_told_in_mid_stream_is_the_upstreams() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/anthropic/message-error.sse");
    let events = std::fs::read_to_string(folder).expect("a fixture");
    let upstream = Upstream::answering(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {}\r\n\r\n{events}",
        events.len()
    ));
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 0, errors: 1}").start();
    let mut client = flowtap.client();
    let body = r#"{"model":"claude-sonnet-4","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"Hi"}]}"#;
    client.send(json_post("/v1/messages", body));
    assert_eq!(client.read_response().text(), events);
    let failed = ["outcome=\"upstream_error\"", "status=\"2xx\""];
    flowtap.await_metric("flowtap_requests_total", &failed, 1.0);
    let record = flowtap.stop().rows("exchanges").remove(0);
    assert_eq!(record["outcome"], "upstream_error", "{record}");
    assert_eq!(record["answer"], "Let me look.");
    assert_eq!(record["sample"], json!({"reason": "error", "probability": 1.0}));
}
