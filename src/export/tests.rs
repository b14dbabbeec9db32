//! What an export writes, held against what Azure's documentation shows and what it leaves out.

use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::*;

const FIXTURE: &str =
    include_str!("../../tests/fixtures/promptflow/collector/blob-records-CONSTRUCTED.jsonl");
const HOUR: &str = "date=2026-11-23/hour=22";
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

struct Buckets {
    folder: tempfile::TempDir,
}

impl Buckets {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn source(&self) -> std::path::PathBuf {
        self.folder.path().join("source")
    }

    fn put(&self, name: &str, lines: &[Value]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).expect("packs");
        self.put_bytes(name, &encoder.finish().expect("packs"));
    }

    fn put_bytes(&self, name: &str, bytes: &[u8]) {
        let path = self.source().join(name);
        std::fs::create_dir_all(path.parent().expect("below")).expect("a folder");
        std::fs::write(path, bytes).expect("written");
    }

    fn export(&self, settings: &Settings) -> Report {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let work = async {
            let source = crate::bucket::open(&local(&self.source())).await?;
            let target = crate::bucket::open(&local(&self.folder.path().join("target"))).await?;
            azureml(&*source, &*target, settings).await
        };
        runtime.expect("a runtime").block_on(work).expect("exports")
    }

    fn written(&self, name: &str) -> Vec<Value> {
        let path = self.folder.path().join("target/modelDataCollector").join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

fn local(path: &Path) -> crate::config::Bucket {
    let url = format!("file://{}", path.display());
    let environment = [("FLOWTAP_BUCKET".to_owned(), url)];
    let upstream = Some("http://127.0.0.1:1".to_owned());
    let overrides = crate::config::Overrides { upstream, ..Default::default() };
    crate::config::load(None, &overrides, &environment).expect("settings").bucket
}

/// A stored sample, with what a test changes of it.
fn sample(id: &str, change: Value) -> Value {
    let mut row = json!({
        "schema": "flowtap.exchange.v1", "id": id, "time": "2026-11-23T22:56:35.123456Z",
        "tap": "chat", "deployment": "blue", "instance": "pod", "operation": "score", "outcome": "ok",
        "question": "What?", "answer": "That.", "context": null, "ground_truth": null, "chat_history": [],
        "request": {"headers": {}, "body": {"question": "What?", "chat_history": []}, "bytes": 9, "truncated": false},
        "response": {"headers": {}, "body": {"answer": "That.", "n": 1.10}, "bytes": 9, "truncated": false},
        "request_id": "r-1", "sample": {"reason": "rate", "probability": 0.1}
    });
    for (key, value) in change.as_object().expect("a map") {
        row[key] = value.clone();
    }
    row
}

const A: &str = "01K00000000000000000000000";
const B: &str = "01K00000000000000000000001";

/// A flow's span and that of its call.
fn trace_part() -> Value {
    let span = |id: &str, parent: Value, kind: &str, tokens: Value| {
        json!({"span_id": id, "parent_span_id": parent, "name": "openai_chat", "kind": kind, "source": "otlp",
            "start": "2026-11-23T22:56:35.367087Z", "duration_ms": 48.101, "failed": false, "error": null,
            "model": "gpt-4", "deployment": null, "inputs": {"q": 1}, "output": "x", "attributes": {"node_name": "n"},
            "usage": {"input": tokens, "output": 8, "total": 30, "cached_input": null, "reasoning_output": null, "source": "traced"}})
    };
    let mut root = span("00f067aa0ba902b7", Value::Null, "flow", Value::Null);
    root["usage"]["total"] = Value::Null;
    let spans = [root, span("00f067aa0ba902b8", json!("00f067aa0ba902b7"), "llm", json!(22))];
    json!({"schema": "flowtap.trace.v1", "exchange": A, "exchange_time": "2026-11-23T22:56:35.123456Z",
        "tap": "chat", "deployment": "blue", "instance": "pod", "trace_id": TRACE_ID, "spans": spans})
}

fn shape(value: &Value) -> Vec<(String, &'static str)> {
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    value
        .as_object()
        .expect("an object")
        .iter()
        .map(|(key, value)| (key.clone(), kind(value)))
        .collect()
}

#[test]
fn lines_have_the_shape_that_azures_documentation_shows() {
    let buckets = Buckets::new();
    buckets.put(
        &format!("exchanges/deployment=blue/{HOUR}/pod-1-1.jsonl.gz"),
        &[sample(A, json!({}))],
    );
    buckets.put(&format!("traces/deployment=blue/{HOUR}/pod-1-2.jsonl.gz"), &[trace_part()]);
    let workspace = "/subscriptions/s/resourceGroups/rg".to_owned();
    let settings = Settings { endpoint: Some("contoso".into()), workspace, ..Settings::default() };
    let report = buckets.export(&settings);
    assert!(report.is_complete(), "{report:?}");
    let of = |collection: &str, stem: &str| {
        buckets.written(&format!("contoso/blue/{collection}/2026/11/23/22/{stem}.jsonl"))
    };
    let fixture: Vec<Value> =
        FIXTURE.lines().map(|l| serde_json::from_str(l).expect("JSON")).collect();
    let traces = of("app_traces", "pod-1-2");
    let ours = [&of("model_inputs", "pod-1-1")[0], &of("model_outputs", "pod-1-1")[0], &traces[1]];
    for (ours, theirs) in ours.into_iter().zip(&fixture) {
        assert_eq!(shape(ours), shape(theirs));
        assert_eq!(ours["type"], theirs["type"]);
        let data = ours["data"].to_string();
        assert_eq!(ours["contentrange"], format!("bytes 0-{}/{}", data.len() - 1, data.len()));
        assert_eq!((&ours["correlationid"], &ours["xrequestid"]), (&json!("r-1"), &json!("r-1")));
        assert_eq!(
            ours["source"],
            "/subscriptions/s/resourceGroups/rg/onlineEndpoints/contoso/deployments/blue"
        );
    }
    assert_eq!(ours[0]["time"], fixture[0]["time"]);
    assert_eq!(
        ours[0]["data"],
        fixture[0]["data"]
            .as_array()
            .map(|_| json!([{"question": "What?", "chat_history": []}]))
            .expect("a list")
    );
    let (span, theirs) = (&ours[2]["data"][0], &fixture[2]["data"][0]);
    assert_eq!(shape(span), shape(theirs));
    assert_eq!(shape(&span["context"]), shape(&theirs["context"]));
    assert_eq!(
        (&span["start_time"], &span["end_time"]),
        (&theirs["start_time"], &theirs["end_time"])
    );
    for key in [
        "span_type",
        "llm.usage.prompt_tokens",
        "llm.usage.completion_tokens",
        "llm.usage.total_tokens",
        "__computed__.cumulative_token_count.total",
    ] {
        assert_eq!(span["attributes"][key], theirs["attributes"][key], "{key}");
    }
    let root = &traces[0]["data"][0];
    assert_eq!(
        root["attributes"]["__computed__.cumulative_token_count.total"], 30,
        "of what it called"
    );
    assert_eq!(root["parent_id"], Value::Null);
    assert_eq!(root["attributes"]["request_id"], "r-1");
}

#[test]
fn what_is_left_out_is_counted_by_why() {
    let buckets = Buckets::new();
    let cut = json!({"headers": {}, "body": "{\"que", "bytes": 99, "truncated": true});
    let none = json!({"headers": {}, "body": null, "bytes": 9, "truncated": false});
    let binary = json!({"headers": {}, "body": {"base64": "AA=="}, "bytes": 9, "truncated": false});
    let rows = [
        sample(A, json!({"operation": "other"})),
        sample(A, json!({"operation": "feedback"})),
        sample(A, json!({"outcome": "upstream_abort"})),
        sample(A, json!({"request": cut})),
        sample(A, json!({"response": none})),
        sample(A, json!({"request": binary})),
        sample(A, json!({"operation": "chat", "question": null})),
        sample(A, json!({"time": "2026-11-23T22:00:00Z"})),
        sample(A, json!({"schema": "flowtap.exchange.v9"})),
        json!({"no": "row"}),
    ];
    buckets.put(&format!("exchanges/deployment=blue/{HOUR}/pod-1-1.jsonl.gz"), &rows);
    buckets.put_bytes(&format!("exchanges/deployment=blue/{HOUR}/pod-1-2.jsonl.gz"), b"no gzip");
    let from = "2026-11-23T22:30:00Z".parse().ok();
    let report = buckets.export(&Settings { from, ..Settings::default() });
    let expected = [
        (Skip::OutsideOfTime, 1),
        (Skip::NoInference, 2),
        (Skip::NotSuccessful, 1),
        (Skip::NoContent, 3),
        (Skip::Truncated, 1),
        (Skip::Unreadable, 2),
    ];
    assert_eq!(report.skipped, expected.into());
    assert_eq!((report.damaged, report.exported.len()), (1, 0));
    assert!(!report.is_complete());
    let told = report.to_string();
    assert!(told.contains("nothing was exported") && told.contains("pod-1-2"), "{told}");
}

#[test]
fn each_kind_of_flow_and_model_becomes_rows_of_a_table() {
    let buckets = Buckets::new();
    let body = |body: Value| json!({"headers": {}, "body": body, "bytes": 9, "truncated": false});
    let rows = [
        sample(A, json!({"response": body(json!("only a text")), "request_id": null})),
        sample(
            B,
            json!({"operation": "chat", "tap": "models", "request_id": "[credit_card]",
            "request": body(json!({"messages": []})), "sample": {"reason": "slow", "probability": 1.0}}),
        ),
    ];
    buckets.put(&format!("exchanges/deployment=blue/{HOUR}/pod-1-1.jsonl.gz"), &rows);
    let report = buckets.export(&Settings::default());
    let flow = buckets.written("chat/blue/model_outputs/2026/11/23/22/pod-1-1.jsonl");
    assert_eq!(flow[0]["data"], json!([{"output": "only a text"}]));
    let own = ExchangeId::parse(A).expect("an id").as_uuid();
    assert_eq!((&flow[0]["correlationid"], &flow[0]["xrequestid"]), (&json!(own), &json!(own)));
    let asked = &buckets.written("models/blue/model_inputs/2026/11/23/22/pod-1-1.jsonl")[0];
    assert_eq!(asked["data"], json!([{"question": "What?", "chat_history": []}]));
    assert_ne!(asked["correlationid"], "[credit_card]", "shared by all that were redacted");
    let answered = &buckets.written("models/blue/model_outputs/2026/11/23/22/pod-1-1.jsonl")[0];
    assert_eq!(answered["data"], json!([{"answer": "That."}]));
    assert!(
        report
            .to_string()
            .contains("warning: sampled with different probabilities (1 with 0.1, 1 with 1)")
    );
}

#[test]
fn hours_are_chosen_by_name_and_large_ones_are_written_in_parts() {
    let buckets = Buckets::new();
    let text = "x".repeat(1024 * 1024);
    let large = json!({"headers": {}, "body": {"answer": text}, "bytes": 9, "truncated": false});
    let rows: Vec<Value> = (0..40).map(|_| sample(A, json!({"response": large}))).collect();
    buckets.put(&format!("exchanges/deployment=blue/{HOUR}/pod-1-1.jsonl.gz"), &rows);
    buckets
        .put_bytes("exchanges/deployment=blue/date=2026-11-23/hour=21/pod-1-1.jsonl.gz", b"unread");
    buckets
        .put_bytes("exchanges/deployment=blue/date=2026-11-23/hour=23/pod-1-1.jsonl.gz", b"unread");
    let (from, until) = ("2026-11-23T22:00:00Z".parse().ok(), "2026-11-23T23:00:00Z".parse().ok());
    let settings = Settings { from, until, ..Settings::default() };
    let report = buckets.export(&settings);
    assert_eq!(report.exported["model_outputs"].lines, 40);
    assert_eq!(report.exported["model_outputs"].objects, 2);
    assert!(report.is_complete(), "{report}");
    let first = buckets.written("chat/blue/model_outputs/2026/11/23/22/pod-1-1.jsonl");
    let second = buckets.written("chat/blue/model_outputs/2026/11/23/22/pod-1-1-2.jsonl");
    assert_eq!(first.len() + second.len(), 40);
    assert_eq!(buckets.export(&settings).exported, report.exported, "it may be repeated");
}
