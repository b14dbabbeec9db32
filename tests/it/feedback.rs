//! What users say of answers, through the tap: scores of the exchanges that they speak of.
#![allow(clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};

use crate::peers::{UP_WITHIN, peers_wanted, pf_serve};
use crate::support::process::{Process, free_port};
use crate::support::tap::{Flowtap, Setup, Stopped};
use crate::support::wire::{Upstream, json_post, json_response};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const ERRORS: &str = "flowtap_score_errors_total";
const SCORES: &str = "flowtap_scores_total";

fn with_header(request: String, header: &str) -> String {
    request.replacen("Host", &format!("{header}\r\nHost"), 1)
}

fn traceparent(span: &str) -> String {
    format!("traceparent: 00-{TRACE}-{span}-01")
}

/// Sends one request of a connection of its own, with one header.
#[track_caller]
fn send(flowtap: &Flowtap, path: &str, body: &str, header: &str) {
    let mut client = flowtap.client();
    client.send(with_header(json_post(path, body), header));
    assert_eq!(client.read_response().status(), 200, "{path} {body}");
}

fn ask(flowtap: &Flowtap, header: &str) {
    send(flowtap, "/score", r#"{"question":"why?"}"#, header);
}

fn scores(stopped: &Stopped) -> Vec<Value> {
    let mut scores = stopped.rows("scores");
    scores.sort_by_key(|score| score["time"].as_str().map(str::to_owned));
    scores
}

fn of(reason: &str) -> String {
    format!("reason=\"{reason}\"")
}

#[test]
fn feedback_is_scored_for_the_exchange_that_it_names_in_each_way() {
    let flow = Upstream::answering(json_response(r#"{"answer":"because"}"#));
    let flowtap = Setup::before(flow.port).tap("deployment: blue").top("sample: {rate: 1}").start();
    ask(&flowtap, "x-request-id: one");
    ask(&flowtap, "x-ms-client-request-id: two");
    ask(&flowtap, &traceparent(SPAN));
    ask(&flowtap, &traceparent("00f067aa0ba902b8"));
    send(
        &flowtap,
        "/feedback",
        r#"{"score":2,"comment":"my key: AKIAIOSFODNN7EXAMPLE"}"#,
        "x-request-id: one",
    );
    send(
        &flowtap,
        "/feedback?flatten=true",
        r#"{"thumbs_up":true,"request_id":"two"}"#,
        "x-request-id: its-own",
    );
    send(&flowtap, "/feedback", r#"{"rating":"4"}"#, &traceparent(SPAN));
    send(&flowtap, "/feedback", r#"{"rating":1}"#, &traceparent("00f067aa0ba90aaa"));
    send(&flowtap, "/feedback", r#"{"rating":1}"#, "x-request-id: nobody");
    send(&flowtap, "/feedback", r#"{"rating":0}"#, "x-request-id: one");
    send(&flowtap, "/feedback", r#"{"comment":"nice"}"#, "x-request-id: one");
    flowtap.await_metric(SCORES, &["deployment=\"blue\"", "criterion=\"user_feedback\""], 3.0);
    for reason in ["ambiguous", "unknown_exchange", "out_of_range", "no_rating"] {
        flowtap.await_metric(ERRORS, &["criterion=\"user_feedback\"", &of(reason)], 1.0);
    }
    assert_eq!(flowtap.metric(SCORES, &["score=\"5\""]), 1.0);
    let stopped = flowtap.stop();
    let scores = scores(&stopped);
    assert_eq!(scores.len(), 3, "{scores:?}");
    let exchanges = stopped.rows("exchanges");
    let exchange = |key: &str, value: &str| {
        let found = exchanges.iter().find(|e| e["operation"] == "score" && e[key] == value);
        found.unwrap_or_else(|| panic!("{key} {value}")).clone()
    };
    let traced = exchanges.iter().find(|e| e["operation"] == "score" && e["trace_id"] == TRACE);
    let expected = [
        (exchange("request_id", "one"), 2, json!("my key: [secret]")),
        (exchange("request_id", "two"), 5, Value::Null),
        (traced.expect("the traced one").clone(), 4, Value::Null),
    ];
    for (score, (exchange, rating, reason)) in scores.iter().zip(expected) {
        assert_eq!(score["schema"], "flowtap.score.v1");
        assert_eq!(
            (&score["exchange"], &score["exchange_time"]),
            (&exchange["id"], &exchange["time"])
        );
        assert_eq!((&score["score"], &score["reason"]), (&json!(rating), &reason), "{score}");
        assert_eq!((&score["tap"], &score["deployment"]), (&json!("chat"), &json!("blue")));
        assert_eq!(
            (&score["criterion"], &score["probability"]),
            (&json!("user_feedback"), &json!(1.0))
        );
        let carrier = exchanges.iter().find(|e| e["id"] == score["id"]).expect("its own exchange");
        assert_eq!(carrier["operation"], "feedback");
    }
    assert!(!stopped.printed.contains("AKIAIOSFODNN7EXAMPLE"));
}

#[test]
fn users_are_heard_whether_or_not_their_exchange_was_sampled() {
    let flow = Upstream::answering(json_response(r#"{"answer":"because"}"#));
    let flowtap = Setup::before(flow.port)
        .tap("capture: metadata")
        .top("sample: {rate: 0}\nfeedback: {rating: /data/good, scale: 0-1, within: 2s}")
        .start();
    ask(&flowtap, "x-request-id: one");
    let good = r#"{"data":{"good":0.5},"comment":"not to be kept"}"#;
    send(&flowtap, "/feedback", good, "x-request-id: one");
    flowtap.await_metric(SCORES, &["score=\"3\""], 1.0);
    std::thread::sleep(std::time::Duration::from_secs(4));
    send(&flowtap, "/feedback", good, "x-request-id: one");
    flowtap.await_metric(ERRORS, &[&of("unknown_exchange")], 1.0);
    // At the end, what waits is looked up at once.
    ask(&flowtap, "x-request-id: last");
    send(&flowtap, "/feedback", good, "x-request-id: last");
    let stopped = flowtap.stop();
    assert!(stopped.rows("exchanges").is_empty());
    let scores = scores(&stopped);
    assert_eq!(scores.len(), 2, "{scores:?}");
    assert!(scores.iter().all(|score| score["reason"].is_null() && score["probability"] == 1.0));
}

#[test]
fn feedback_that_the_flow_refused_is_none() {
    let refusal =
        "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}";
    let flow = Upstream::start(move |peer| {
        while let Some(request) = peer.read_request() {
            let asked = request.head.starts_with("POST /score");
            peer.send(if asked { json_response("{}") } else { refusal.to_owned() });
        }
    });
    let flowtap = Setup::before(flow.port).start();
    ask(&flowtap, "x-request-id: one");
    let mut client = flowtap.client();
    client.send(with_header(json_post("/feedback", r#"{"rating":5}"#), "x-request-id: one"));
    assert_eq!(client.read_response().status(), 404);
    flowtap.await_metric(
        "flowtap_requests_total",
        &["operation=\"feedback\"", "status=\"4xx\""],
        1.0,
    );
    let stopped = flowtap.stop();
    assert!(stopped.rows("scores").is_empty());
}

#[test]
fn a_real_flow_takes_feedback_and_its_exchange_gets_the_score() {
    if !peers_wanted() {
        return;
    }
    for engine in ["flask", "fastapi"] {
        let port = free_port();
        let mut flow = Process::start(engine, &mut pf_serve("qa_basic", port, engine));
        flow.await_http(port, "/health", UP_WITHIN);
        let flowtap = Setup::before(port).top("sample: {rate: 1}").start();
        ask(&flowtap, &traceparent(SPAN));
        // The body of the recorded fixture, and prompt flow's own way to name the request.
        let body = r#"{"score": 1, "comment": "nice"}"#;
        send(&flowtap, "/feedback", body, &traceparent(SPAN));
        ask(&flowtap, "x-request-id: r-2");
        send(&flowtap, "/feedback?flatten=true", r#"{"stars": 5}"#, "x-request-id: r-2");
        flowtap.await_metric(SCORES, &[], 2.0);
        let stopped = flowtap.stop();
        let asked = stopped.rows("exchanges");
        let asked = |name: &str, value: &str| {
            asked.iter().find(|e| e["operation"] == "score" && e[name] == value).expect("asked")["id"].clone()
        };
        let scores = scores(&stopped);
        let told: Vec<_> =
            scores.iter().map(|s| (s["exchange"].clone(), s["score"].clone())).collect();
        let expected =
            [(asked("trace_id", TRACE), json!(1)), (asked("request_id", "r-2"), json!(5))];
        assert_eq!(told, expected, "{engine}");
        assert_eq!(scores[0]["reason"], "nice");
    }
}
