//! Spans that are sent to flowtap: joined to the request they were made for, counted once, stored with
//! the sample. Here with scripted flows; `real` has real ones, `hostile` what nobody should send.
#![allow(clippy::expect_used, clippy::panic)]

mod hostile;
mod otlp;
mod real;
mod recorded;

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::support::tap::{Flowtap, Setup, Stopped};
use crate::support::wire::{Message, Peer, Upstream, json_post, json_response};

const EVERYWHERE: &str =
    "collector: {azureml: 127.0.0.1:0, otlp_grpc: 127.0.0.1:0, otlp_http: 127.0.0.1:0}";

/// A flowtap with all endpoints, which keeps every exchange.
fn start(flow: &Upstream, top: &str) -> Flowtap {
    setup(flow).top("sample: {rate: 1}").top(top).start()
}

fn setup(flow: &Upstream) -> Setup {
    Setup::before(flow.port).top(EVERYWHERE)
}

/// A flow that answers at once.
fn quick_flow() -> Upstream {
    Upstream::answering(json_response(r#"{"answer":"yes"}"#))
}

fn ask(flowtap: &Flowtap, id: &str) {
    let mut client = flowtap.client();
    let named = format!("x-request-id: {id}\r\nHost");
    client.send(json_post("/score", r#"{"question":"number 1"}"#).replacen("Host", &named, 1));
    assert_eq!(client.read_response().status(), 200);
}

/// A post as `azureml-ai-monitoring` makes it.
fn azureml_post(collection: &str, body: &str) -> String {
    format!(
        "POST /modeldata/log HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\ntrace-id: 1\r\nce-time: 1795474598\r\nce-type: azureml.inference.{collection}\r\nce-collect-data-type: pandas.core.frame.DataFrame\r\nce-x-request-id: 2\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn tell(flowtap: &Flowtap, rows: &Value) -> Message {
    let mut sender = Peer::connect(flowtap.port_of_endpoint("azureml"));
    sender.send(azureml_post("app_traces", &rows.to_string()));
    sender.read_response()
}

/// A span in OpenTelemetry's own JSON, of a request that took place now.
fn row(id: u64, parent: Option<u64>, kind: &str, request: &str, attributes: Value) -> Value {
    let now = jiff::Timestamp::now();
    let mut row = json!({
        "name": format!("step {id}"),
        "context": {"trace_id": format!("0x{:032x}", 77), "span_id": format!("0x{id:016x}"), "trace_state": "[]"},
        "kind": "SpanKind.INTERNAL",
        "parent_id": parent.map(|id| format!("0x{id:016x}")),
        "start_time": now.to_string(), "end_time": now.to_string(),
        "status": {"status_code": "OK"},
        "attributes": {"framework": "promptflow", "span_type": kind, "request_id": request, "line_run_id": request},
        "events": [], "links": [], "resource": {"attributes": {"service.name": "promptflow"}, "schema_url": ""}
    });
    let more = attributes.as_object().expect("an object").clone();
    row["attributes"].as_object_mut().expect("an object").extend(more);
    row
}

fn spent(model: &str, input: u64, output: u64) -> Value {
    json!({"llm.response.model": model, "llm.usage.prompt_tokens": input, "llm.usage.completion_tokens": output,
        "inputs": format!("{{\"model\": \"{model}-prod\", \"messages\": []}}"), "output": "{}"})
}

/// The only sample.
#[track_caller]
fn only(stopped: &Stopped) -> Value {
    let mut rows = stopped.rows("exchanges");
    assert_eq!(rows.len(), 1, "{rows:?}");
    rows.remove(0)
}

/// All spans that were stored of an exchange, by name.
fn stored(stopped: &Stopped, exchange: &Value) -> HashMap<String, Value> {
    let parts = stopped.rows("traces").into_iter().filter(|part| part["exchange"] == *exchange);
    let spans = parts.flat_map(|part| part["spans"].as_array().expect("a list").clone());
    spans.map(|span| (span["name"].as_str().expect("a name").to_owned(), span)).collect()
}

#[test]
fn a_flows_tokens_are_those_of_its_spans_and_its_trace_is_stored_with_the_sample() {
    let flow = quick_flow();
    let flowtap = start(&flow, "");
    // The first step is told before the flow has ended, the rest after it, one of them twice.
    let early = row(3, Some(2), "LLM", "r-1", spent("gpt-4-0613", 22, 8));
    assert_eq!(tell(&flowtap, &json!([early])).status(), 200);
    ask(&flowtap, "r-1");
    let rest = json!([
        row(4, Some(2), "LLM", "r-1", spent("gpt-4o-mini", 5, 3)),
        row(4, Some(2), "LLM", "r-1", spent("gpt-4o-mini", 5, 3)),
        row(
            2,
            Some(1),
            "Function",
            "r-1",
            json!({"inputs": "{\"card\": \"4111 1111 1111 1111\"}"})
        ),
        row(1, None, "Flow", "r-1", json!({"__computed__.cumulative_token_count.total": 38})),
    ]);
    let answer = tell(&flowtap, &rest);
    assert_eq!(
        (answer.status(), answer.text()),
        (200, r#"{"taken":4,"refused":0,"reason":null}"#.to_owned())
    );
    flowtap.await_metric("flowtap_spans_told_total", &["result=\"joined\""], 4.0);
    let tokens = |labels: &[&str]| flowtap.metric("flowtap_tokens_total", labels);
    let (input, output) = ("type=\"input\"", "type=\"output\"");
    for (model, tokens_in, tokens_out) in [("gpt-4-0613", 22.0, 8.0), ("gpt-4o-mini", 5.0, 3.0)] {
        let model = format!("model=\"{model}\"");
        assert_eq!((tokens(&[&model, input]), tokens(&[&model, output])), (tokens_in, tokens_out));
    }
    assert_eq!((tokens(&["source=\"traced\""]), tokens(&[])), (38.0, 38.0));
    assert_eq!(flowtap.metric("flowtap_spans_told_total", &["result=\"repeated\""]), 1.0);
    let stopped = flowtap.stop();
    let sample = only(&stopped);
    let call = |model: &str, input: u64, output: u64, latency: &Value| {
        json!({"model": model, "deployment": format!("{model}-prod"), "input": input, "output": output,
            "source": "traced", "latency_ms": latency, "status": null})
    };
    let calls = sample["calls"].as_array().expect("a list");
    assert_eq!(calls.len(), 2, "{sample}");
    assert_eq!(calls[0], call("gpt-4-0613", 22, 8, &calls[0]["latency_ms"]));
    assert_eq!(calls[1], call("gpt-4o-mini", 5, 3, &calls[1]["latency_ms"]));
    assert_eq!(
        (&sample["usage"]["total"], &sample["usage"]["source"]),
        (&json!(38), &json!("traced"))
    );
    let spans = stored(&stopped, &sample["id"]);
    assert_eq!(spans.len(), 5, "{spans:?}");
    assert_eq!(spans["step 2"]["inputs"], json!({"card": "[credit_card]"}));
    assert_eq!(
        (&spans["POST /score"]["kind"], &spans["POST /score"]["source"]),
        (&json!("flow"), &json!("tap"))
    );
    let part = &stopped.rows("traces")[0];
    assert_eq!(
        (&part["schema"], &part["exchange_time"]),
        (&json!("flowtap.trace.v1"), &sample["time"])
    );
    let hour = sample["time"].as_str().expect("a time")[11..13].to_owned();
    let folder = stopped.folder().join("bucket/traces/deployment=default");
    let date = std::fs::read_dir(folder).expect("a folder").next().expect("a date").expect("read");
    assert!(date.path().join(format!("hour={hour}")).exists(), "the partition of the sample");
}

#[test]
fn a_late_span_adds_to_the_trace_and_changes_no_figure() {
    let flow = quick_flow();
    let flowtap = start(&flow, "join: {spans_wait: 100ms}");
    ask(&flowtap, "r-1");
    flowtap.await_metric("flowtap_samples_total", &[], 1.0);
    let before = flowtap.metric("flowtap_tokens_total", &[]);
    assert_eq!(
        tell(&flowtap, &json!([row(3, None, "LLM", "r-1", spent("gpt-4", 22, 8))])).status(),
        200
    );
    flowtap.await_metric("flowtap_spans_told_total", &["result=\"late\""], 1.0);
    assert_eq!(flowtap.metric("flowtap_tokens_total", &[]), before);
    let stopped = flowtap.stop();
    let sample = only(&stopped);
    assert_eq!((&sample["calls"], &sample["usage"]["source"]), (&json!([]), &json!("counted")));
    assert_eq!(stored(&stopped, &sample["id"])["step 3"]["usage"]["input"], 22);
}

#[test]
fn of_what_is_not_sampled_tokens_count_and_nothing_is_stored() {
    let flow = quick_flow();
    let flowtap = setup(&flow).top("sample: {rate: 0}").start();
    ask(&flowtap, "r-1");
    tell(
        &flowtap,
        &json!([
            row(3, None, "LLM", "r-1", spent("gpt-4", 22, 8)),
            row(1, None, "Flow", "r-1", json!({}))
        ]),
    );
    flowtap.await_metric("flowtap_tokens_total", &["source=\"traced\""], 30.0);
    tell(&flowtap, &json!([row(4, None, "LLM", "r-1", spent("gpt-4", 5, 5))]));
    flowtap.await_metric("flowtap_spans_told_total", &["result=\"late\""], 1.0);
    let stopped = flowtap.stop();
    assert!(stopped.rows("exchanges").is_empty() && stopped.rows("traces").is_empty());
}

#[test]
fn where_no_text_may_be_kept_none_is_of_the_steps_either() {
    let flow = quick_flow();
    let flowtap = setup(&flow).tap("capture: metadata").top("sample: {rate: 1}").start();
    ask(&flowtap, "r-1");
    tell(
        &flowtap,
        &json!([
            row(3, None, "LLM", "r-1", spent("gpt-4", 22, 8)),
            row(1, None, "Flow", "r-1", json!({}))
        ]),
    );
    flowtap.await_metric("flowtap_tokens_total", &["source=\"traced\""], 30.0);
    let stopped = flowtap.stop();
    let spans = stored(&stopped, &only(&stopped)["id"]);
    let step = &spans["step 3"];
    assert_eq!(
        (&step["inputs"], &step["output"], &step["attributes"]),
        (&Value::Null, &Value::Null, &json!({}))
    );
    assert_eq!(step["usage"]["input"], 22);
}

#[test]
fn calls_that_a_second_tap_saw_count_once_and_stand_in_the_trace() {
    use std::sync::atomic::{AtomicU16, Ordering};
    static PORT: AtomicU16 = AtomicU16::new(0);
    let model = Upstream::answering(json_response(
        r#"{"object":"chat.completion","model":"gpt-4-0613","choices":[{"index":0,"message":{"role":"assistant","content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":22,"completion_tokens":8,"total_tokens":30}}"#,
    ));
    let flow = Upstream::start(|peer| {
        while let Some(request) = peer.read_request() {
            let id = request.header("x-request-id").expect("named");
            let run = format!("ms-azure-ai-promptflow: {{\"root_run_id\": \"{id}\"}}\r\nHost");
            let call = json_post(
                "/v1/chat/completions",
                r#"{"model":"gpt-4","messages":[{"role":"user","content":"x"}]}"#,
            );
            let mut models = Peer::connect(PORT.load(Ordering::SeqCst));
            models.send(call.replacen("Host", &run, 1));
            assert_eq!(models.read_response().status(), 200);
            peer.send(json_response(r#"{"answer":"yes"}"#));
        }
    });
    let flowtap = setup(&flow).and_tap("models", model.port).top("sample: {rate: 1}").start();
    PORT.store(flowtap.port_of("models"), Ordering::SeqCst);
    // The spans tell the very same call.
    ask(&flowtap, "r-1");
    tell(
        &flowtap,
        &json!([
            row(3, Some(1), "LLM", "r-1", spent("gpt-4-0613", 22, 8)),
            row(1, None, "Flow", "r-1", json!({}))
        ]),
    );
    // The spans of the second tell of a call besides, which went past the tap.
    ask(&flowtap, "r-2");
    tell(
        &flowtap,
        &json!([
            row(13, Some(11), "LLM", "r-2", spent("gpt-4-0613", 22, 8)),
            row(14, Some(11), "LLM", "r-2", spent("mistral", 100, 1)),
            row(11, None, "Flow", "r-2", json!({})),
        ]),
    );
    let chat = "tap=\"chat\"";
    flowtap.await_metric("flowtap_tokens_total", &[chat], 30.0 + 131.0);
    assert_eq!(flowtap.metric("flowtap_tokens_total", &[chat, "source=\"joined\""]), 30.0);
    assert_eq!(flowtap.metric("flowtap_tokens_total", &[chat, "source=\"traced\""]), 131.0);
    let stopped = flowtap.stop();
    let flows = stopped.rows("exchanges").into_iter().filter(|row| row["tap"] == "chat");
    for flow in flows {
        let spans = stored(&stopped, &flow["id"]);
        let tap_call = &spans["chat"];
        assert_eq!((&tap_call["source"], &tap_call["usage"]["input"]), (&json!("tap"), &json!(22)));
        assert_eq!(tap_call["parent_span_id"], spans["POST /score"]["span_id"]);
        let is_first = flow["request_id"] == "r-1";
        assert_eq!(flow["usage"]["source"], if is_first { "joined" } else { "traced" });
        assert_eq!(flow["calls"].as_array().map(Vec::len), Some(if is_first { 1 } else { 2 }));
    }
}

/// Asks `requests` times on 64 connections, each request by a name of its own.
fn ask_at_once(flowtap: &Flowtap, requests: u64) {
    std::thread::scope(|scope| {
        for connection in 0..64 {
            scope.spawn(move || {
                let mut client = flowtap.client();
                for n in (connection..requests).step_by(64) {
                    let named = format!("x-request-id: r-{n}\r\nHost");
                    let post = json_post("/score", r#"{"question":"x"}"#);
                    client.send(post.replacen("Host", &named, 1));
                    assert_eq!(client.read_response().status(), 200);
                }
            });
        }
    });
}

#[test]
fn a_thousand_interleaved_requests_get_their_own_spans() {
    use std::sync::atomic::{AtomicU16, Ordering};
    const REQUESTS: u64 = 1000;
    static PORT: AtomicU16 = AtomicU16::new(0);
    // The flow tells one step before it answers, and the rest after that.
    let flow = Upstream::start(|peer| {
        let mut sender = Peer::connect(PORT.load(Ordering::SeqCst));
        let mut tell = |rows: Value| {
            sender.send(azureml_post("app_traces", &rows.to_string()));
            assert_eq!(sender.read_response().status(), 200);
        };
        while let Some(request) = peer.read_request() {
            let id = request.header("x-request-id").expect("named").to_owned();
            let n: u64 = id.trim_start_matches("r-").parse().expect("a number");
            let span = n * 10;
            tell(json!([row(
                span + 3,
                Some(span + 1),
                "LLM",
                &id,
                spent("gpt-4", 1000 + n, n % 7)
            )]));
            peer.send(json_response(&format!(r#"{{"answer":"{n}"}}"#)));
            tell(json!([
                row(span + 4, Some(span + 1), "LLM", &id, spent("mini", n, 1)),
                row(span + 1, None, "Flow", &id, json!({})),
            ]));
        }
    });
    let flowtap = start(&flow, "");
    PORT.store(flowtap.port_of_endpoint("azureml"), Ordering::SeqCst);
    ask_at_once(&flowtap, REQUESTS);
    flowtap.await_metric("flowtap_spans_told_total", &["result=\"joined\""], 3.0 * REQUESTS as f64);
    let all = REQUESTS * (REQUESTS - 1) / 2;
    let tokens = |model: &str| {
        flowtap.metric("flowtap_tokens_total", &["source=\"traced\"", "type=\"input\"", model])
            as u64
    };
    assert_eq!(tokens("model=\"gpt-4\""), 1000 * REQUESTS + all);
    assert_eq!(tokens("model=\"mini\""), all);
    let stopped = flowtap.stop();
    let samples = stopped.rows("exchanges");
    assert_eq!(samples.len(), 1000);
    for sample in samples {
        let id = sample["request_id"].as_str().expect("named");
        let n: u64 = id.trim_start_matches("r-").parse().expect("a number");
        assert_eq!(sample["usage"]["input"], 1000 + 2 * n, "{sample}");
        assert_eq!(sample["usage"]["source"], "traced");
    }
    let of_others = stopped.rows("traces").into_iter().flat_map(|part| {
        let named = |span: &Value| span["attributes"]["request_id"].as_str().map(str::to_owned);
        let names: Vec<String> =
            part["spans"].as_array().expect("a list").iter().filter_map(named).collect();
        names
    });
    assert_eq!(of_others.count(), 3000);
}
