//! OpenTelemetry's own exporters, over gRPC and over HTTP, and OTLP in JSON.

use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::{quick_flow, setup, start, stored};
use crate::peers::{peers_wanted, root};
use crate::support::process::Process;
use crate::support::wire::{Peer, json_post};

/// Requests of a program that passes its trace on, and the spans that it exports of them.
fn exported(protocol: &str, endpoint: impl Fn(u16) -> String) {
    const REQUESTS: u64 = 30;
    let flow = quick_flow();
    let flowtap = setup(&flow).tap("dialect: promptflow").top("sample: {rate: 1}").start();
    let mut lines = String::new();
    let mut client = flowtap.client();
    for n in 1..=REQUESTS {
        let traceparent = format!("00-{n:032x}-{:016x}-01", 7000 + n);
        let traced = format!("traceparent: {traceparent}\r\nHost");
        client.send(json_post("/score", r#"{"question":"x"}"#).replacen("Host", &traced, 1));
        assert_eq!(client.read_response().status(), 200);
        lines.push_str(&format!("{traceparent} {n}\n"));
    }
    let told = flowtap.folder().join("told");
    std::fs::write(&told, lines).expect("written");
    let mut command = Command::new(root().join(".cache/peers/azureml/bin/python"));
    command.arg(root().join("tests/peers/spans.py")).arg(protocol);
    command.arg(endpoint(flowtap.port_of_endpoint(&format!("otlp_{protocol}"))));
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let input = Stdio::from(std::fs::File::open(&told).expect("opened"));
    let mut exporter = Process::start_with("the exporter", &mut command, input);
    let status = exporter.await_end(Duration::from_secs(60));
    assert!(status.success() && exporter.printed().is_empty(), "{}", exporter.printed());
    flowtap.await_metric("flowtap_spans_told_total", &["result=\"joined\""], 3.0 * REQUESTS as f64);
    let all: u64 = (1..=REQUESTS).sum();
    let tokens = |labels: &[&str]| flowtap.metric("flowtap_tokens_total", labels) as u64;
    let (prod, mini) = ("model=\"gpt-4o-2024-11-20\"", "model=\"gpt-4o-mini\"");
    assert_eq!(tokens(&[prod, "type=\"input\""]), all);
    assert_eq!(tokens(&[prod, "type=\"output\""]), 3 * REQUESTS);
    assert_eq!(tokens(&[mini]), 9 * REQUESTS);
    assert_eq!(tokens(&["source=\"traced\""]), tokens(&[]));
    let stopped = flowtap.stop();
    for sample in stopped.rows("exchanges") {
        let trace = sample["trace_id"].as_str().expect("the caller's");
        let n = u64::from_str_radix(trace, 16).expect("a number");
        assert_eq!(sample["usage"]["input"], n + 7, "{sample}");
        let spans = stored(&stopped, &sample["id"]);
        assert_eq!(spans.len(), 4, "{spans:?}");
        let call = &spans["chat prod"];
        assert_eq!(
            (&call["deployment"], &call["kind"], &call["source"]),
            (&json!("prod"), &json!("llm"), &json!("otlp"))
        );
        assert_eq!(call["parent_span_id"], spans["invoke_agent shop"]["span_id"]);
        assert_eq!(call["inputs"][0]["parts"][0]["content"], "hello");
        assert_eq!(call["attributes"]["service.name"], "agent");
    }
}

#[test]
fn a_real_exporter_over_grpc_is_understood() {
    if peers_wanted() {
        exported("grpc", |port| format!("http://127.0.0.1:{port}"));
    }
}

#[test]
fn a_real_exporter_over_http_is_understood() {
    if peers_wanted() {
        exported("http", |port| format!("http://127.0.0.1:{port}/v1/traces"));
    }
}

#[test]
fn otlp_in_json_is_understood() {
    let flow = quick_flow();
    let flowtap = start(&flow, "");
    super::ask(&flowtap, "r-1");
    let attribute = |key: &str, value: Value| json!({"key": key, "value": value});
    let now = jiff::Timestamp::now().as_nanosecond().to_string();
    let span = |id: &str, kind: &str, more: Vec<Value>| {
        let mut attributes = vec![
            attribute("span_type", json!({"stringValue": kind})),
            attribute("request_id", json!({"stringValue": "r-1"})),
        ];
        attributes.extend(more);
        json!({"traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": id, "name": kind, "kind": 1,
            "startTimeUnixNano": now, "endTimeUnixNano": now, "attributes": attributes,
            "status": {"code": 2, "message": "it broke"}, "unknownField": 1})
    };
    let usage = vec![
        attribute("llm.usage.prompt_tokens", json!({"intValue": "22"})),
        attribute("llm.usage.completion_tokens", json!({"intValue": 8})),
        attribute(
            "tags",
            json!({"arrayValue": {"values": [{"boolValue": true}, {"doubleValue": 0.5}]}}),
        ),
    ];
    let spans =
        json!([span("EEE19B7EC3C1B174", "LLM", usage), span("EEE19B7EC3C1B175", "Flow", vec![])]);
    let body =
        json!({"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": spans}]}]});
    let mut sender = Peer::connect(flowtap.port_of_endpoint("otlp_http"));
    sender.send(json_post("/v1/traces", &body.to_string()));
    let answer = sender.read_response();
    assert_eq!((answer.status(), answer.text()), (200, "{}".to_owned()));
    flowtap.await_metric("flowtap_tokens_total", &["source=\"traced\""], 30.0);
    let stopped = flowtap.stop();
    let spans = stored(&stopped, &super::only(&stopped)["id"]);
    assert_eq!(
        (&spans["LLM"]["failed"], &spans["LLM"]["error"]),
        (&json!(true), &json!("it broke"))
    );
    assert_eq!(spans["LLM"]["attributes"]["tags"], "[true,0.5]");
}
