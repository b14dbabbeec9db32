//! `include_usage: inject`: the upstream is asked, the client gets what it would have got unasked.
#![allow(clippy::expect_used, clippy::panic)]

use serde_json::json;

use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{Message, Upstream, json_post};

const ASKED: &str = r#"{"model":"gpt-4o","stream":true,"messages":[]}"#;
const ASKING: &str =
    r#"{"model":"gpt-4o","stream":true,"messages":[],"stream_options":{"include_usage":true}}"#;
const BEFORE: &str =
    "data: {\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Dry.\"}}]}\n\n";
const USAGE: &str = "data: {\"model\":\"gpt-4o\",\"choices\":[],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,\"total_tokens\":9}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

fn injecting(upstream: &Upstream) -> Flowtap {
    Setup::before(upstream.port).tap("include_usage: inject").top("sample: {rate: 1}").start()
}

fn ask(flowtap: &Flowtap, body: &str) -> Message {
    let mut client = flowtap.client();
    client.send(json_post("/v1/chat/completions", body));
    client.read_response()
}

/// Streams in pieces of 11 bytes, chunked or with a length.
fn streaming(chunked: bool) -> Upstream {
    let stream = [BEFORE, USAGE, DONE].concat();
    Upstream::start(move |peer| {
        while peer.read_request().is_some() {
            let framing = match chunked {
                true => "Transfer-Encoding: chunked".to_owned(),
                false => format!("Content-Length: {}", stream.len()),
            };
            peer.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n\r\n"
            ));
            for piece in stream.as_bytes().chunks(11) {
                if chunked {
                    peer.chunk(piece)
                } else {
                    peer.send(piece)
                };
            }
            if chunked {
                peer.send("0\r\n\r\n");
            }
        }
    })
}

#[test]
fn usage_is_asked_for_and_taken_out_again() {
    for chunked in [true, false] {
        let upstream = streaming(chunked);
        let flowtap = injecting(&upstream);
        let answer = ask(&flowtap, ASKED);
        assert!(answer.complete, "chunked: {chunked}");
        assert_eq!(answer.text(), [BEFORE, DONE].concat(), "chunked: {chunked}");
        assert!(upstream.received_text().ends_with(ASKING));
        let record = flowtap.stop().rows("exchanges").remove(0);
        let usage = json!({"input": 7, "output": 2, "total": 9, "cached_input": null, "reasoning_output": null, "source": "reported"});
        assert_eq!(record["usage"], usage, "chunked: {chunked}");
        assert_eq!(record["answer"], "Dry.");
    }
}

#[test]
fn a_client_that_chose_for_itself_is_left_alone() {
    let upstream = streaming(true);
    let flowtap = injecting(&upstream);
    for body in [ASKING, &ASKING.replace("true}", "false}"), r#"{"model":"gpt-4o","messages":[]}"#]
    {
        assert_eq!(ask(&flowtap, body).text(), [BEFORE, USAGE, DONE].concat());
        assert!(upstream.received_text().contains(body));
    }
}

#[test]
fn an_upstream_that_refuses_gets_the_clients_own_body_and_is_asked_no_more() {
    let upstream = Upstream::start(|peer| {
        while let Some(request) = peer.read_request() {
            let refused = request.text().contains("include_usage");
            let status = if refused { "400 Bad Request" } else { "200 OK" };
            peer.send(format!(
                "HTTP/1.1 {status}\r\nContent-Type: text/event-stream\r\nContent-Length: {}\r\n\r\n{DONE}",
                DONE.len()
            ));
        }
    });
    let flowtap = injecting(&upstream);
    for _ in 0..3 {
        let answer = ask(&flowtap, ASKED);
        assert_eq!((answer.status(), answer.text()), (200, DONE.to_owned()));
    }
    assert_eq!(upstream.received_text().matches("POST ").count(), 4, "one of them asked for usage");
}
