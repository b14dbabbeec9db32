//! A real promptflow server as Azure ML runs it, with calls to two models, plain and streamed: the tokens
//! that its spans tell are those that the model server reported, with and without a second tap.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::{EVERYWHERE, stored};
use crate::peers::{UP_WITHIN, flow_command, peers_wanted, root};
use crate::support::process::{Process, free_port};
use crate::support::tap::{Flowtap, Setup, Stopped};
use crate::support::wire::{Message, Peer, Upstream, json_post, json_response};

/// What the model server reported, by model.
type Reported = Arc<Mutex<BTreeMap<String, (u64, u64)>>>;

/// A model server with two deployments, which reports no two calls alike.
fn models(reported: &Reported) -> Upstream {
    let (reported, calls) = (Arc::clone(reported), Mutex::new(0_u64));
    Upstream::start(move |peer| {
        while let Some(request) = peer.read_request() {
            let asked: Value = serde_json::from_str(&request.text()).expect("JSON");
            let model = format!("{}-0613", asked["model"].as_str().expect("a model"));
            let number = {
                let mut calls = calls.lock().expect("not poisoned");
                *calls += 1;
                *calls
            };
            let (input, output) = (100 + number, number);
            let mut reported = reported.lock().expect("not poisoned");
            let sums = reported.entry(model.clone()).or_default();
            *sums = (sums.0 + input, sums.1 + output);
            drop(reported);
            answer(peer, &asked, &model, (input, output));
        }
    })
}

fn answer(peer: &mut Peer, asked: &Value, model: &str, (input, output): (u64, u64)) {
    let usage = format!(
        r#"{{"prompt_tokens":{input},"completion_tokens":{output},"total_tokens":{}}}"#,
        input + output
    );
    if asked["stream"] != true {
        peer.send(json_response(&format!(
            r#"{{"id":"c","object":"chat.completion","created":1,"model":"{model}","choices":[{{"index":0,"message":{{"role":"assistant","content":"a rewritten question"}},"finish_reason":"stop"}}],"usage":{usage}}}"#
        )));
        return;
    }
    peer.send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    let start =
        format!(r#""id":"c","object":"chat.completion.chunk","created":1,"model":"{model}""#);
    for word in ["one", " two", " three"] {
        peer.chunk(format!("data: {{{start},\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{word}\"}}}}]}}\n\n"));
    }
    if asked["stream_options"]["include_usage"] == true {
        peer.chunk(format!("data: {{{start},\"choices\":[],\"usage\":{usage}}}\n\n"));
    }
    peer.chunk("data: [DONE]\n\n");
    peer.send("0\r\n\r\n");
}

/// A flow of `tests/peers/flows` behind a tap, served as Azure ML serves it; with `second_tap` its calls
/// pass another. Its spans go to the collector's endpoint.
fn served(
    name: &str,
    engine: &str,
    second_tap: bool,
    ask: impl Fn(&Flowtap),
) -> (Stopped, Reported) {
    let reported = Reported::default();
    let model = models(&reported);
    let flow_port = free_port();
    let setup = Setup::before(flow_port).top(EVERYWHERE).top("sample: {rate: 1}");
    let setup = if second_tap { setup.and_tap("models", model.port) } else { setup };
    let flowtap = setup.start();
    let base = if second_tap { flowtap.port_of("models") } else { model.port };
    let mut flow =
        Process::start("promptflow", &mut azureml(name, engine, flow_port, &flowtap, base));
    flow.await_http(flow_port, "/health", UP_WITHIN);
    ask(&flowtap);
    (flowtap.stop(), reported)
}

fn azureml(name: &str, engine: &str, port: u16, flowtap: &Flowtap, models: u16) -> Command {
    let mut command = flow_command("azureml/bin/python");
    command.arg(root().join("tests/peers/aml_serve.py")).arg(port.to_string());
    command
        .env("PROMPTFLOW_PROJECT_PATH", root().join("tests/peers/flows").join(name))
        .env("PROMPTFLOW_CONNECTION_PROVIDER", "local")
        .env("PF_DISABLE_TRACING", "false")
        .env("AZUREML_MDC_ENABLED", "true")
        .env("AZUREML_MDC_HOST", "127.0.0.1")
        .env("AZUREML_MDC_PORT", flowtap.port_of_endpoint("azureml").to_string())
        .env("LLM_BASE_URL", format!("http://127.0.0.1:{models}/v1"))
        .env("ENGINE", engine);
    command
}

fn score(flowtap: &Flowtap, question: &str, events: bool) -> Message {
    let mut client = flowtap.client();
    let post = json_post("/score", &format!(r#"{{"question":"{question}"}}"#));
    let accept = if events { "Accept: text/event-stream\r\nHost" } else { "Host" };
    client.send(post.replacen("Host", accept, 1));
    client.read_response()
}

fn check(second_tap: bool) {
    const ROUNDS: u64 = 3;
    let (stopped, reported) = served("two_models", "flask", second_tap, |flowtap| {
        std::thread::scope(|scope| {
            for n in 0..ROUNDS {
                scope.spawn(move || {
                    assert_eq!(score(flowtap, &format!("plain {n}"), false).status(), 200);
                    let streamed = score(flowtap, &format!("streamed {n}"), true);
                    assert!(streamed.status() == 200 && streamed.text().contains("three"));
                });
            }
        });
        // Two calls and one step of its own, and the flow.
        flowtap.await_metric(
            "flowtap_spans_told_total",
            &["result=\"joined\""],
            2.0 * 4.0 * ROUNDS as f64,
        );
        flowtap.await_metric("flowtap_samples_total", &["tap=\"chat\""], 2.0 * ROUNDS as f64);
    });
    let reported = reported.lock().expect("not poisoned");
    assert_eq!(reported.len(), 2);
    let flows: Vec<Value> = stopped
        .rows("exchanges")
        .into_iter()
        .filter(|row| row["tap"] == "chat" && row["operation"] == "score")
        .collect();
    assert_eq!(flows.len(), 6);
    let wanted = if second_tap { "joined" } else { "traced" };
    let mut told: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for flow in &flows {
        // Calls made while a streamed answer is being read name no request: of several flows at once,
        // the second tap cannot tell whose they are. The spans can.
        let source = flow["usage"]["source"].as_str().expect("known");
        assert!(source == wanted || source == "traced", "{flow}");
        let calls = flow["calls"].as_array().expect("a list");
        assert_eq!(calls.len(), 2, "{flow}");
        for call in calls {
            let sums = told.entry(call["model"].as_str().expect("a name").to_owned()).or_default();
            sums.0 += call["input"].as_u64().expect("known");
            sums.1 += call["output"].as_u64().expect("known");
        }
        let sum = |side: &str| calls.iter().filter_map(|call| call[side].as_u64()).sum::<u64>();
        assert_eq!(
            (&flow["usage"]["input"], &flow["usage"]["output"]),
            (&sum("input").into(), &sum("output").into())
        );
        let spans = stored(&stopped, &flow["id"]);
        let question = flow["question"].as_str().expect("text");
        assert_eq!(
            spans["rewrite"]["inputs"]["question"], question,
            "its own steps, nobody else's"
        );
    }
    assert_eq!(told, *reported);
}

#[test]
fn a_real_flow_without_a_second_tap_has_the_tokens_that_its_models_reported() {
    if peers_wanted() {
        check(false);
    }
}

#[test]
fn with_a_second_tap_the_numbers_are_the_same() {
    if peers_wanted() {
        check(true);
    }
}

/// promptflow's FastAPI engine names in the header of a call, and in the steps of a request, whichever
/// request came last. The flow's own span and its trace are right.
#[test]
fn where_the_engine_mixes_its_requests_up_the_spans_still_tell_them_apart() {
    if !peers_wanted() {
        return;
    }
    const REQUESTS: usize = 6;
    let (stopped, reported) = served("two_models_plain", "fastapi", true, |flowtap| {
        std::thread::scope(|scope| {
            for n in 0..REQUESTS {
                scope.spawn(move || score(flowtap, &format!("plain {n}"), false));
            }
        });
        flowtap.await_metric("flowtap_requests_total", &["tap=\"models\""], 2.0 * REQUESTS as f64);
        flowtap.await_metric("flowtap_samples_total", &["tap=\"chat\""], REQUESTS as f64);
    });
    let mut sum = (0, 0);
    let rows = stopped.rows("exchanges").into_iter();
    for flow in rows.filter(|row| row["tap"] == "chat" && row["operation"] == "score") {
        let models: Vec<&Value> =
            flow["calls"].as_array().expect("a list").iter().map(|call| &call["model"]).collect();
        assert_eq!(models, ["small-0613", "large-0613"], "{flow}");
        sum.0 += flow["usage"]["input"].as_u64().expect("known");
        sum.1 += flow["usage"]["output"].as_u64().expect("known");
        let spans = stored(&stopped, &flow["id"]);
        assert_eq!(spans["rewrite"]["inputs"]["question"], flow["question"]);
    }
    let reported = reported.lock().expect("not poisoned");
    let told = reported.values().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    assert_eq!(sum, told);
}

#[test]
fn azure_mls_client_can_have_the_token_in_its_host() {
    if !peers_wanted() {
        return;
    }
    let reported = Reported::default();
    let (model, flow_port) = (models(&reported), free_port());
    let guarded = EVERYWHERE.replace('}', ", token: t0ken}");
    let flowtap = Setup::before(flow_port).top(&guarded).start();
    let mut command = azureml("two_models", "flask", flow_port, &flowtap, model.port);
    command.env("AZUREML_MDC_HOST", "flowtap:t0ken@127.0.0.1");
    let mut flow = Process::start("promptflow", &mut command);
    flow.await_http(flow_port, "/health", UP_WITHIN);
    assert_eq!(score(&flowtap, "plain", false).status(), 200);
    flowtap.await_metric("flowtap_tokens_total", &["source=\"traced\""], 1.0);
    assert_eq!(flowtap.metric("flowtap_collector_posts_total", &["result=\"unauthorized\""]), 0.0);
}
