//! Two taps, one before a flow and one before its models: every call comes to the request that it
//! was made for, and the flow's tokens are those of its calls.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::peers::{MODEL, UP_WITHIN, llama, peers_wanted, pf_serve};
use crate::support::process::{Process, free_port};
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
            if number % 2 == 0 {
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

#[test]
fn flows_without_calls_and_calls_without_a_flow_stay_what_they_are() {
    let port = ModelsPort::default();
    let model = models(&Arc::default());
    let flow = flow(&port, |_, _, _| {});
    let flowtap = start(&flow, &model, &port, "");
    let mut client = flowtap.client();
    client.send(question(4));
    assert_eq!(client.read_response().text(), r#"{"answer":"answer 4"}"#);
    let mut direct = port.client();
    for header in [run_named("nobody"), "no json".to_owned(), run_named(&"x".repeat(200))] {
        direct.send(call("gpt4-prod", 6, false, RUN, &header));
        assert_eq!(direct.read_response().status(), 200);
    }
    flowtap.await_metric("flowtap_requests_total", &["tap=\"models\""], 3.0);
    flowtap.await_metric("flowtap_requests_total", &["tap=\"chat\""], 1.0);
    flowtap.await_metric("flowtap_queue_depth", &["queue=\"join\""], 1.0);
    assert_eq!(flowtap.metric("flowtap_join_total", &[]), 0.0, "one waits, two name nobody");
    let stopped = flowtap.stop();
    let flow = only(&stopped, "chat");
    assert_eq!((&flow["calls"], &flow["usage"]["source"]), (&json!([]), &json!("counted")));
    for call in samples(&stopped, "models").into_values().flatten() {
        assert_eq!(call["usage"]["source"], "reported");
    }
}

#[test]
fn a_flood_of_calls_without_a_flow_is_bounded_and_flows_go_on() {
    let port = ModelsPort::default();
    let model = models(&Arc::default());
    let flow = flow(&port, |request, number, models| {
        models.send(call("gpt4-prod", number, false, RUN, &run(request)));
        assert_eq!(models.read_response().status(), 200);
    });
    let flowtap = start(&flow, &model, &port, "join: {requests_max: 50}");
    let mut direct = port.client();
    for number in 0..1000 {
        let nobody = run_named(&format!("nobody-{number}"));
        direct.send(call("gpt4-prod", number, false, RUN, &nobody));
        assert_eq!(direct.read_response().status(), 200);
    }
    flowtap.await_metric("flowtap_join_total", &["result=\"evicted\""], 950.0);
    let mut client = flowtap.client();
    client.send(question(8));
    assert_eq!(client.read_response().status(), 200);
    flowtap.await_metric("flowtap_join_total", &["result=\"joined\""], 1.0);
    assert!(flowtap.metric("flowtap_queue_depth", &["queue=\"join\""]) <= 50.0);
    let flow = only(&flowtap.stop(), "chat");
    assert_eq!(flow["calls"][0]["input"], reported(8).0);
    assert_eq!(flow["usage"]["source"], "joined");
}

#[test]
fn a_call_from_within_a_streamed_answer_is_joined_where_only_one_flow_can_have_made_it() {
    let port = ModelsPort::default();
    let model = models(&Arc::default());
    let models = port.clone();
    let both = Arc::new(std::sync::Barrier::new(2));
    // Prompt flow names no run in the header of such a call.
    let flow = Upstream::start(move |peer| {
        while let Some(request) = peer.read_request() {
            let number = number(&request.text());
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
            let mut client = models.client();
            for call in
                [call("gpt4-prod", number, false, RUN, "{}"), call("mini", number, true, RUN, "{}")]
            {
                if number >= 100 {
                    both.wait();
                }
                client.send(call);
                assert_eq!(client.read_response().status(), 200);
            }
            if number >= 100 {
                both.wait();
            }
            peer.chunk(format!("data: {{\"answer\": \"answer {number}\"}}\n\n"));
            peer.send("0\r\n\r\n");
        }
    });
    let flowtap = start(&flow, &model, &port, "");
    ask(&flowtap, 20, 1);
    std::thread::scope(|scope| {
        for number in [100, 101] {
            let mut client = flowtap.client();
            scope.spawn(move || {
                client.send(question(number));
                assert_eq!(client.read_response().status(), 200);
            });
        }
    });
    let flows = samples(&flowtap.stop(), "chat");
    for number in 0..20 {
        let flow = &flows[&number][0];
        assert_eq!(flow["calls"].as_array().map(Vec::len), Some(2), "{flow}");
        assert_eq!(flow["calls"][0]["input"], reported(number).0);
        assert_eq!(flow["usage"]["source"], "joined");
    }
    for number in [100, 101] {
        let flow = &flows[&number][0];
        assert_eq!((&flow["calls"], &flow["usage"]["source"]), (&json!([]), &json!("counted")));
    }
}

#[test]
fn a_refused_call_is_listed_and_spends_nothing() {
    let port = ModelsPort::default();
    let refusal = r#"{"error":{"code":"429","message":"slow down"}}"#;
    let model = Upstream::start(move |peer| {
        peer.read_request();
        peer.send(json_response(refusal).replace("200 OK", "429 Too Many Requests"));
        peer.read_request();
        peer.send(json_response(&chat_answer(11, 2)));
    });
    let flow = flow(&port, |request, number, models| {
        for status in [429, 200] {
            models.send(call("gpt4-prod", number, false, RUN, &run(request)));
            assert_eq!(models.read_response().status(), status);
        }
    });
    let flowtap = start(&flow, &model, &port, "");
    let mut client = flowtap.client();
    client.send(question(2));
    assert_eq!(client.read_response().status(), 200);
    let flow = only(&flowtap.stop(), "chat");
    let calls = flow["calls"].as_array().expect("a list");
    assert_eq!((&calls[0]["status"], &calls[0]["input"]), (&json!(429), &json!(null)));
    assert_eq!((&calls[1]["status"], &calls[1]["input"]), (&json!(200), &json!(11)));
    assert_eq!(flow["usage"]["source"], "joined");
    assert_eq!((&flow["usage"]["input"], &flow["usage"]["output"]), (&json!(11), &json!(2)));
}

#[test]
fn what_the_flow_reports_itself_stands_and_its_calls_are_listed_beside_it() {
    let port = ModelsPort::default();
    let model = models(&Arc::default());
    let models = port.clone();
    let answer =
        r#"{"answer":"yes","usage":{"prompt_tokens":7,"completion_tokens":3,"total_tokens":10}}"#;
    let flow = Upstream::start(move |peer| {
        while let Some(request) = peer.read_request() {
            let mut models = models.client();
            models.send(call("gpt4-prod", 2, false, RUN, &run(&request)));
            assert_eq!(models.read_response().status(), 200);
            peer.send(json_response(answer));
        }
    });
    let flowtap = start(&flow, &model, &port, "");
    let mut client = flowtap.client();
    client.send(question(2));
    assert_eq!(client.read_response().text(), answer);
    flowtap.await_metric("flowtap_tokens_total", &["tap=\"chat\"", "source=\"reported\""], 10.0);
    assert_eq!(flowtap.metric("flowtap_tokens_total", &["tap=\"chat\""]), 10.0);
    let flow = only(&flowtap.stop(), "chat");
    assert_eq!(
        (&flow["usage"]["source"], &flow["usage"]["input"]),
        (&json!("reported"), &json!(7))
    );
    assert_eq!(flow["calls"][0]["input"], reported(2).0);
}

#[test]
fn a_call_that_ends_after_its_flow_was_settled_is_counted_as_late() {
    let port = ModelsPort::default();
    let model = Upstream::start(|peer| {
        while peer.read_request().is_some() {
            std::thread::sleep(Duration::from_millis(700));
            peer.send(json_response(&chat_answer(5, 5)));
        }
    });
    let models = port.clone();
    let flow = flow(&port, move |request, number, _| {
        let mut client = models.client();
        client.send(call("gpt4-prod", number, false, RUN, &run(request)));
        std::thread::spawn(move || client.read_response());
        std::thread::sleep(Duration::from_millis(100));
    });
    let flowtap = start(&flow, &model, &port, "join: {wait: 10ms}");
    let mut client = flowtap.client();
    client.send(question(2));
    assert_eq!(client.read_response().status(), 200);
    flowtap.await_metric("flowtap_join_total", &["result=\"late\""], 1.0);
    let flow = only(&flowtap.stop(), "chat");
    assert_eq!((&flow["calls"], &flow["usage"]["source"]), (&json!([]), &json!("counted")));
}

#[test]
fn no_request_waits_for_the_join() {
    let port = ModelsPort::default();
    let model = models(&Arc::default());
    let flow = flow(&port, |_, _, _| {});
    let flowtap = start(&flow, &model, &port, "join: {wait: 30s}\ndrain_timeout: 5s");
    let began = std::time::Instant::now();
    ask(&flowtap, 20, 1);
    assert!(began.elapsed() < Duration::from_secs(10));
    let stopped = flowtap.stop();
    assert!(began.elapsed() < Duration::from_secs(15), "nor does the end of the process");
    assert_eq!(samples(&stopped, "chat").len(), 20);
}

/// A real flow whose model, a real one too, is behind the second tap.
fn real_flow(name: &str, engine: &str, ask: impl Fn(&Flowtap)) -> Stopped {
    let (model_port, flow_port) = (free_port(), free_port());
    let mut model = Process::start("llama.cpp", &mut llama(model_port));
    let flowtap =
        Setup::before(flow_port).and_tap("models", model_port).top("sample: {rate: 1}").start();
    let models = format!("http://127.0.0.1:{}/v1", flowtap.port_of("models"));
    let mut command = pf_serve(name, flow_port, engine);
    let mut flow =
        Process::start(name, command.env("LLM_BASE_URL", models).env("LLM_MODEL", MODEL));
    model.await_http(model_port, "/v1/models", UP_WITHIN);
    flow.await_http(flow_port, "/health", UP_WITHIN);
    ask(&flowtap);
    flowtap.stop()
}

#[test]
fn a_real_flow_has_the_tokens_that_its_real_model_reported() {
    if !peers_wanted() {
        return;
    }
    let stopped = real_flow("qa_llm_dag", "flask", |flowtap| {
        std::thread::scope(|scope| {
            for number in 0..3 {
                scope.spawn(move || {
                    let mut client = flowtap.client();
                    client.send(question(number));
                    assert_eq!(client.read_response().status(), 200);
                });
            }
        });
        let tokens = |tap| flowtap.metric("flowtap_tokens_total", &[tap, "model=\"smollm2-135m\""]);
        flowtap.await_metric("flowtap_join_total", &["result=\"joined\""], 3.0);
        flowtap.await_metric(
            "flowtap_requests_total",
            &["tap=\"chat\"", "operation=\"score\""],
            3.0,
        );
        assert!(tokens("tap=\"chat\"") > 0.0);
        assert_eq!(tokens("tap=\"chat\""), tokens("tap=\"models\""));
    });
    let (flows, calls) = (samples(&stopped, "chat"), samples(&stopped, "models"));
    for number in 0..3 {
        let (flow, call) = (&flows[&number][0], &calls[&number][0]);
        // What the model server said, as it stands in the body that it sent.
        let said = &call["response"]["body"]["usage"];
        assert!(said["prompt_tokens"].as_u64().is_some_and(|tokens| tokens > 0), "{call}");
        assert_eq!(flow["calls"].as_array().map(Vec::len), Some(1), "{flow}");
        let listed = &flow["calls"][0];
        assert_eq!(
            (&listed["input"], &listed["output"]),
            (&said["prompt_tokens"], &said["completion_tokens"])
        );
        assert_eq!((&listed["model"], &listed["source"]), (&json!(MODEL), &json!("reported")));
        assert_eq!(flow["usage"]["source"], "joined");
        assert_eq!(flow["usage"]["total"], said["total_tokens"]);
    }
}

#[test]
fn a_real_flow_that_streams_has_the_tokens_counted_at_its_model() {
    if !peers_wanted() {
        return;
    }
    let stopped = real_flow("qa_llm_stream", "fastapi", |flowtap| {
        let mut client = flowtap.client();
        let events = "Accept: text/event-stream\r\nHost";
        client.send(question(5).replacen("Host", events, 1));
        assert_eq!(client.read_response().status(), 200);
        flowtap.await_metric("flowtap_join_total", &["result=\"joined\""], 1.0);
    });
    let flow = &samples(&stopped, "chat")[&5][0];
    let call = &samples(&stopped, "models")[&5][0];
    assert!(flow["stream"] == true && call["stream"] == true);
    assert_eq!(flow["calls"].as_array().map(Vec::len), Some(1), "{flow}");
    assert_eq!(flow["calls"][0]["input"], call["usage"]["input"]);
    assert_eq!(flow["calls"][0]["source"], call["usage"]["source"]);
    assert_eq!(
        (&flow["usage"]["input"], &flow["usage"]["output"]),
        (&call["usage"]["input"], &call["usage"]["output"])
    );
    assert_eq!(flow["usage"]["source"], "joined");
}
