//! A real flow on a real model, with flowtap between the two and in front.

use serde_json::json;

use super::{question, samples};
use crate::peers::{MODEL, UP_WITHIN, llama, peers_wanted, pf_serve};
use crate::support::process::{Process, free_port};
use crate::support::tap::{Flowtap, Setup, Stopped};

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
