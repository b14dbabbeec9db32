//! Requests that are answered while they are still being sent.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::Duration;

use crate::support::tap::Setup;
use crate::support::wire::Upstream;

const TOO_LARGE: &str = "HTTP/1.1 413 Payload Too Large\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 15\r\n\r\n{\"error\":\"big\"}";

#[test]
fn both_ways_flow_at_once() {
    let upstream = Upstream::start(|peer| {
        peer.read_head();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        // Each chunk of the request is echoed before the next one is sent.
        while let Some(size) = peer.read_until(b"\r\n") {
            let data = peer.read_until(b"\r\n").unwrap_or_default();
            peer.send([size.as_slice(), &data].concat());
            if size == b"0\r\n" {
                return;
            }
        }
    });
    let flowtap = Setup::before(upstream.port).start();
    let mut client = flowtap.client();
    client.send("POST /duplex HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.chunk("begin");
    assert!(client.read_head().starts_with("HTTP/1.1 200"));
    assert_eq!(client.read_until(b"begin\r\n").expect("its echo"), b"5\r\nbegin\r\n");
    for number in 10..40 {
        client.chunk(format!("part {number}"));
        let echo = client.read_until(format!("part {number}\r\n").as_bytes());
        assert_eq!(echo.expect("its echo"), format!("7\r\npart {number}\r\n").as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.read_until(b"0\r\n\r\n").as_deref(), Some(b"0\r\n\r\n".as_slice()));
    flowtap.await_metric("flowtap_requests_total", &["outcome=\"ok\""], 1.0);
}

#[test]
fn an_answer_that_does_not_wait_for_the_body_is_passed_on() {
    let upstream = Upstream::start(|peer| {
        peer.read_head();
        peer.send(TOO_LARGE);
        peer.half_close();
        peer.read_to_end();
    });
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 1}").start();
    let mut client = flowtap.client();
    client.send("POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n{\"question\":");
    let answer = client.read_response();
    assert_eq!((answer.status(), answer.text().as_str()), (413, "{\"error\":\"big\"}"));
    drop(client);
    flowtap.await_idle();
    flowtap.await_metric("flowtap_requests_total", &["status=\"4xx\""], 1.0);
    let record = flowtap.stop().rows("exchanges").remove(0);
    assert_eq!(record["outcome"], "client_error", "the client got the whole answer: {record}");
}

#[test]
fn a_connection_whose_request_was_not_read_serves_no_other() {
    let upstream = Upstream::start(|peer| {
        // The first connection answers before the body has come, and stays open.
        while !peer.read_head().is_empty() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
            if peer.is_closed_within(Duration::from_secs(3)) {
                return;
            }
        }
    });
    let flowtap = Setup::before(upstream.port).start();
    let mut hasty = flowtap.client();
    hasty.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\nhalf of the ");
    assert_eq!(hasty.read_response().text(), "early");
    let mut other = flowtap.client();
    other.send("GET /b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(other.read_response().text(), "early");
    let received = upstream.received();
    assert_eq!(received.len(), 2, "another connection: {}", upstream.received_text());
    assert!(
        received.iter().all(|one| String::from_utf8_lossy(one).matches("HTTP/1.1").count() == 1)
    );
}
