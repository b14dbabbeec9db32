//! `include_usage: inject`: asked on the client's behalf, and nothing of it reaches the client.
#![allow(clippy::expect_used, clippy::panic)]

use serde_json::{Value, json};

use crate::streams::{CHAT, delta};
use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{Message, Upstream, json_post};

const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const USAGE: &str = "data: {\"model\":\"gpt-4\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,\"total_tokens\":9}}\n\n";
const ASKS: &str = "\"stream_options\":{\"include_usage\":true}";
const REFUSAL: &str = "{\"error\":{\"message\":\"unknown option: stream_options\"}}";

/// An OpenAI upstream that streams, and reports its usage where the request asks for it.
fn openai(knows_the_option: bool) -> Upstream {
    Upstream::start(move |peer| {
        while let Some(request) = peer.read_request() {
            let asked = String::from_utf8_lossy(&request.raw_body).contains("include_usage\":true");
            if asked && !knows_the_option {
                peer.send(format!("HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{REFUSAL}", REFUSAL.len()));
                continue;
            }
            peer.send(STREAM_HEAD);
            peer.chunk(delta("one "));
            peer.chunk(delta("two"));
            if asked {
                // The end of one event and the usage event share a chunk, which ends within the next.
                peer.chunk(USAGE.split_at(20).0);
                peer.chunk(format!("{}data: [DO", USAGE.split_at(20).1));
                peer.chunk("NE]\n\n");
            } else {
                peer.chunk("data: [DONE]\n\n");
            }
            peer.send("0\r\n\r\n");
        }
    })
}

fn without_usage() -> String {
    format!("{}{}data: [DONE]\n\n", delta("one "), delta("two"))
}

fn injecting(upstream: &Upstream) -> Flowtap {
    Setup::before(upstream.port).tap("include_usage: inject").top("sample: {rate: 1}").start()
}

fn ask(flowtap: &Flowtap, body: &Value) -> Message {
    let mut client = flowtap.client();
    client.send(json_post(CHAT, &body.to_string()));
    client.read_response()
}

fn streaming_request() -> Value {
    json!({"model": "gpt-4", "stream": true, "messages": [{"role": "user", "content": "count"}]})
}

#[test]
fn usage_is_asked_for_reported_and_kept_from_the_client() {
    let upstream = openai(true);
    let flowtap = injecting(&upstream);
    let answer = ask(&flowtap, &streaming_request());
    assert!(answer.complete);
    assert_eq!(answer.text(), without_usage());
    let received = upstream.received_text();
    assert!(received.contains(ASKS), "{received}");
    flowtap.await_metric("flowtap_tokens_total", &["source=\"reported\""], 9.0);
    let record = flowtap.stop().rows("exchanges").remove(0);
    assert_eq!((&record["usage"]["input"], &record["usage"]["output"]), (&7.into(), &2.into()));
    assert_eq!(
        (&record["usage"]["source"], &record["answer"]),
        (&"reported".into(), &"one two".into())
    );
    assert!(!record["request"].to_string().contains("stream_options"), "the client's own body");
}

#[test]
fn an_upstream_that_refuses_gets_the_clients_own_body_and_is_not_asked_again() {
    let upstream = openai(false);
    let flowtap = injecting(&upstream);
    for _ in 0..3 {
        let answer = ask(&flowtap, &streaming_request());
        assert_eq!((answer.status(), answer.text()), (200, without_usage()));
    }
    let received = upstream.received_text();
    assert_eq!(received.matches("POST ").count(), 4, "asked once, then let be");
    assert_eq!(received.matches(ASKS).count(), 1);
    flowtap.await_metric("flowtap_requests_total", &["outcome=\"ok\""], 3.0);
    assert_eq!(flowtap.metric("flowtap_requests_total", &[]), 3.0, "the refusal is no exchange");
}

#[test]
fn a_request_that_is_wrong_by_itself_gets_its_own_refusal() {
    let upstream = Upstream::start(|peer| {
        while peer.read_request().is_some() {
            peer.send(format!("HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{REFUSAL}", REFUSAL.len()));
        }
    });
    let flowtap = injecting(&upstream);
    for _ in 0..2 {
        let answer = ask(&flowtap, &streaming_request());
        assert_eq!((answer.status(), answer.text().as_str()), (400, REFUSAL));
    }
    let received = upstream.received_text();
    assert_eq!(received.matches(ASKS).count(), 2, "two 400s say nothing of the option");
}

#[test]
fn what_the_client_chose_stays() {
    let upstream = openai(true);
    let flowtap = injecting(&upstream);
    let mut chosen = streaming_request();
    chosen["stream_options"] = json!({"include_usage": true});
    let answer = ask(&flowtap, &chosen);
    assert_eq!(answer.text(), format!("{}{}{USAGE}data: [DONE]\n\n", delta("one "), delta("two")));
    chosen["stream_options"] = json!({"include_usage": false});
    assert_eq!(ask(&flowtap, &chosen).text(), without_usage());
    let received = upstream.received_text();
    assert!(received.contains(&chosen.to_string()), "untouched: {received}");
    assert_eq!(received.matches("stream_options").count(), 2);
}

#[test]
fn other_requests_pass_byte_for_byte() {
    let upstream = openai(true);
    let flowtap = injecting(&upstream);
    let plain = r#"{ "model":"gpt-4" , "stream" : false,"messages":[] }"#;
    let mut client = flowtap.client();
    for path in [CHAT, "/score"] {
        client.send(json_post(path, plain));
        assert_eq!(client.read_response().status(), 200);
    }
    let chunked = format!(
        "POST {CHAT} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{plain}\r\n0\r\n\r\n",
        plain.len()
    );
    client.send(chunked);
    assert_eq!(client.read_response().status(), 200);
    let received = upstream.received_text();
    assert_eq!(received.matches(plain).count(), 3, "{received}");
    assert!(!received.contains("stream_options"), "{received}");
}
