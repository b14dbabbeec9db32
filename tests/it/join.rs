//! Two taps, one before a flow and one before its models: every call comes to the request that it
//! was made for, and the flow's tokens are those of its calls.
#![allow(clippy::expect_used, clippy::panic)]

mod edges;
mod real;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::tap::{Flowtap, Setup, Stopped};
use crate::support::wire::{Message, Peer, Upstream, json_post, json_response};

/// What the scripted model reports for request `number`: no two are alike.
fn reported(number: u64) -> (u64, u64) {
    (10_000 + number, 1 + number % 7)
}

/// Where the models tap listens, as the flow learns it.
#[derive(Clone, Default)]
struct ModelsPort(Arc<AtomicU16>);

impl ModelsPort {
    fn client(&self) -> Peer {
        Peer::connect(self.0.load(Ordering::SeqCst))
    }
}

/// A flow that runs `steps` for each request: it gets the request, its number and a client of the
/// models tap, and answers in JSON, or in events where the number is odd.
fn flow(
    models: &ModelsPort,
    steps: impl Fn(&Message, u64, &mut Peer) + Send + Sync + 'static,
) -> Upstream {
    let models = models.clone();
    Upstream::start(move |peer| {
        while let Some(request) = peer.read_request() {
            let number = number(&request.text());
            steps(&request, number, &mut models.client());
            if number.is_multiple_of(2) {
                peer.send(json_response(&format!(r#"{{"answer":"answer {number}"}}"#)));
            } else {
                peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
                peer.chunk(r#"data: {"answer": "answer"}"#.to_owned() + "\n\n");
                peer.chunk(format!("data: {{\"answer\": \" {number}\"}}\n\n"));
                peer.send("0\r\n\r\n");
            }
        }
    })
}

/// Two model deployments: `gpt4-prod` answers at once and reports its tokens; `mini` streams and
/// reports none. What the first reported is added up in `told`.
fn models(told: &Arc<Mutex<(u64, u64)>>) -> Upstream {
    let told = Arc::clone(told);
    Upstream::start(move |peer| {
        while let Some(request) = peer.read_request() {
            let number = number(&request.text());
            if request.head.contains("/deployments/gpt4-prod/") {
                let (input, output) = reported(number);
                {
                    let mut told = told.lock().expect("not poisoned");
                    *told = (told.0 + input, told.1 + output);
                }
                peer.send(json_response(&chat_answer(input, output)));
            } else {
                stream_words(peer, number % 5 + 1);
            }
        }
    })
}

fn chat_answer(input: u64, output: u64) -> String {
    let total = input + output;
    format!(
        r#"{{"id":"c","object":"chat.completion","model":"gpt-4-0613","choices":[{{"index":0,"message":{{"role":"assistant","content":"x"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{total}}}}}"#
    )
}

fn stream_words(peer: &mut Peer, words: u64) {
    peer.send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for _ in 0..words {
        peer.chunk("data: {\"object\":\"chat.completion.chunk\",\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"}}]}\n\n");
    }
    peer.chunk("data: [DONE]\n\n");
    peer.send("0\r\n\r\n");
}

/// A call as prompt flow makes it, for the request that `of` names.
fn call(deployment: &str, number: u64, stream: bool, name: &str, value: &str) -> String {
    let body = json!({"model": deployment, "stream": stream, "messages": [{"role": "user", "content": format!("number {number}")}]}).to_string();
    format!(
        "POST /openai/deployments/{deployment}/chat/completions HTTP/1.1\r\nHost: models\r\nContent-Type: application/json\r\n{name}: {value}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn run(request: &Message) -> String {
    let id = request.header("x-request-id").or(request.header("x-ms-client-request-id"));
    run_named(id.expect("flowtap names every request"))
}

fn run_named(id: &str) -> String {
    json!({"execution_target": "dag", "run_mode": "Test", "root_run_id": id}).to_string()
}

const RUN: &str = "ms-azure-ai-promptflow";

/// The number in a body.
fn number(body: &str) -> u64 {
    let digits = body.split("number ").nth(1).unwrap_or_default();
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().unwrap_or_default()
}

fn question(number: u64) -> String {
    json_post("/score", &format!(r#"{{"question":"number {number}"}}"#))
}

fn start(flow: &Upstream, models: &Upstream, port: &ModelsPort, top: &str) -> Flowtap {
    let flowtap = Setup::before(flow.port)
        .and_tap("models", models.port)
        .top("sample: {rate: 1}")
        .top(top)
        .start();
    port.0.store(flowtap.port_of("models"), Ordering::SeqCst);
    flowtap
}

fn ask(flowtap: &Flowtap, requests: u64, connections: u64) {
    std::thread::scope(|scope| {
        for connection in 0..connections {
            scope.spawn(move || {
                let mut client = flowtap.client();
                for number in (connection..requests).step_by(connections as usize) {
                    client.send(question(number));
                    assert_eq!(client.read_response().status(), 200);
                }
            });
        }
    });
}

/// The samples of one tap, by their number.
fn samples(stopped: &Stopped, tap: &str) -> HashMap<u64, Vec<Value>> {
    let mut by_number: HashMap<u64, Vec<Value>> = HashMap::new();
    for sample in stopped.rows("exchanges").into_iter().filter(|sample| sample["tap"] == tap) {
        let asked = sample["request"]["body"].to_string();
        by_number.entry(number(&asked)).or_default().push(sample);
    }
    by_number
}

/// The only sample of a tap.
#[track_caller]
fn only(stopped: &Stopped, tap: &str) -> Value {
    let mut all: Vec<Value> = samples(stopped, tap).into_values().flatten().collect();
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

#[test]
fn a_thousand_interleaved_requests_get_their_own_calls_and_tokens_add_up() {
    const REQUESTS: u64 = 1000;
    let (port, told) = (ModelsPort::default(), Arc::new(Mutex::new((0, 0))));
    let model = models(&told);
    let flow = flow(&port, |request, number, models| {
        models.send(call("gpt4-prod", number, false, RUN, &run(request)));
        assert_eq!(models.read_response().status(), 200);
        models.send(call("mini", number, true, RUN, &run(request)));
        assert_eq!(models.read_response().status(), 200);
    });
    let flowtap = start(&flow, &model, &port, "");
    ask(&flowtap, REQUESTS, 64);
    flowtap.await_metric("flowtap_join_total", &["result=\"joined\""], 2.0 * REQUESTS as f64);
    flowtap.await_metric("flowtap_requests_total", &["tap=\"chat\""], REQUESTS as f64);
    let tokens = |labels: &[&str]| flowtap.metric("flowtap_tokens_total", labels) as u64;
    let told = *told.lock().expect("not poisoned");
    let (chat, models_tap) = ("tap=\"chat\"", "tap=\"models\"");
    for tap in [chat, models_tap] {
        let of = |side: &str| tokens(&[tap, "model=\"gpt-4-0613\"", side]);
        assert_eq!((of("type=\"input\""), of("type=\"output\"")), told, "{tap}");
    }
    for side in ["type=\"input\"", "type=\"output\""] {
        let mini = "model=\"gpt-4o-mini\"";
        assert!(tokens(&[chat, mini, side]) > 0);
        assert_eq!(tokens(&[chat, mini, side]), tokens(&[models_tap, mini, side]));
        assert_eq!(tokens(&[chat, side]), tokens(&[models_tap, side]));
        assert_eq!(tokens(&[chat, side]), tokens(&[chat, side, "source=\"joined\""]));
    }
    let per_flow =
        flowtap.metric("gen_ai_client_token_usage_count", &[chat, "gen_ai_token_type=\"input\""]);
    assert_eq!(per_flow as u64, REQUESTS, "one observation a flow");
    let sums = [tokens(&[chat, "type=\"input\""]), tokens(&[chat, "type=\"output\""])];
    let stopped = flowtap.stop();

    let (flows, calls) = (samples(&stopped, "chat"), samples(&stopped, "models"));
    assert_eq!((flows.len(), calls.len()), (1000, 1000));
    for (number, flow) in &flows {
        let flow = &flow[0];
        let (input, output) = reported(*number);
        let prod = json!({"model": "gpt-4-0613", "deployment": "gpt4-prod", "input": input,
            "output": output, "source": "reported", "latency_ms": flow["calls"][0]["latency_ms"], "status": 200});
        assert_eq!(flow["calls"][0], prod, "{flow}");
        let seen = calls[number].iter().find(|call| call["stream"] == true).expect("streamed");
        let mini = json!({"model": "gpt-4o-mini", "deployment": "mini", "input": seen["usage"]["input"],
            "output": seen["usage"]["output"], "source": "counted", "latency_ms": seen["latency_ms"], "status": 200});
        assert_eq!(flow["calls"], json!([prod, mini]));
        assert_eq!(flow["usage"]["source"], "joined");
        let sum = |side: &str| {
            (0..2).map(|n| flow["calls"][n][side].as_u64().expect("known")).sum::<u64>()
        };
        assert_eq!(flow["usage"]["input"], sum("input"));
        assert_eq!(flow["usage"]["output"], sum("output"));
        assert_eq!(flow["usage"]["total"], sum("input") + sum("output"));
    }
    let usage = stopped.rows("usage");
    let joined = |side: &str| {
        let rows = usage.iter().filter(|row| row["tap"] == "chat");
        rows.filter_map(|row| row["tokens"]["joined"][side].as_u64()).sum::<u64>()
    };
    assert_eq!([joined("input"), joined("output")], sums, "the rollup says the same");
}

#[test]
fn frameworks_that_pass_the_trace_on_are_joined_by_it() {
    let port = ModelsPort::default();
    let model = models(&Arc::default());
    let flow = flow(&port, |request, number, models| {
        let trace = request.header("traceparent").expect("passed on");
        models.send(call("gpt4-prod", number, false, "traceparent", trace));
        assert_eq!(models.read_response().status(), 200);
    });
    let flowtap = start(&flow, &model, &port, "");
    std::thread::scope(|scope| {
        for connection in 0..8_u64 {
            let flowtap = &flowtap;
            scope.spawn(move || {
                let mut client = flowtap.client();
                for number in (connection..80).step_by(8) {
                    let trace =
                        format!("traceparent: 00-{:032x}-{:016x}-01\r\nHost", number + 1, 7);
                    client.send(question(number).replacen("Host", &trace, 1));
                    assert_eq!(client.read_response().status(), 200);
                }
            });
        }
    });
    let stopped = flowtap.stop();
    let flows = samples(&stopped, "chat");
    assert_eq!(flows.len(), 80);
    for (number, flow) in flows {
        assert_eq!(flow[0]["calls"][0]["input"], reported(number).0);
        assert_eq!(flow[0]["calls"].as_array().expect("a list").len(), 1);
        assert_eq!(flow[0]["usage"]["source"], "joined");
    }
}

#[test]
fn a_trace_that_overlapping_flows_share_joins_nothing_rather_than_the_wrong_call() {
    let port = ModelsPort::default();
    let model = models(&Arc::default());
    let both = Arc::new(std::sync::Barrier::new(2));
    let flow = flow(&port, move |request, number, models| {
        let trace = request.header("traceparent").expect("passed on");
        both.wait();
        models.send(call("gpt4-prod", number, false, "traceparent", trace));
        assert_eq!(models.read_response().status(), 200);
        both.wait();
    });
    let flowtap = start(&flow, &model, &port, "join: {wait: 2s}");
    std::thread::scope(|scope| {
        for number in 0..2 {
            let flowtap = &flowtap;
            scope.spawn(move || {
                let trace = format!("traceparent: 00-{:032x}-{:016x}-01\r\nHost", 5, 7);
                let mut client = flowtap.client();
                client.send(question(number).replacen("Host", &trace, 1));
                assert_eq!(client.read_response().status(), 200);
            });
        }
    });
    let stopped = flowtap.stop();
    for flow in samples(&stopped, "chat").into_values().flatten() {
        assert_eq!((&flow["calls"], &flow["usage"]["source"]), (&json!([]), &json!("counted")));
    }
}
