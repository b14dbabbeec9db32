//! Upstream connections that are used again, and end at the very moment when they are: what can be
//! sent once more is, and nothing is carried out twice.
#![allow(clippy::expect_used, clippy::panic)]

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{Peer, Upstream, json_post, json_response};

/// Longer than a loaded machine takes to notice that a request waits.
const STALL: &str = "upstream_taken:stall=3000";

/// Answers the first request of a connection, and ends it when `told`; answers all on the others.
fn closing_when_told(told: Receiver<()>) -> Upstream {
    let told = Mutex::new(Some(told));
    Upstream::start(move |peer| {
        let first = told.lock().expect("not poisoned").take();
        if let Some(told) = first {
            peer.read_request().expect("the first request");
            peer.send(json_response("1"));
            told.recv().expect("told");
            return;
        }
        while peer.read_request().is_some() {
            peer.send(json_response("2"));
        }
    })
}

fn warm(flowtap: &Flowtap) -> Peer {
    let mut client = flowtap.client();
    client.send(json_post("/score", "{}"));
    assert_eq!(client.read_response().text(), "1");
    client
}

/// Any limit on header fields but hyper's own sends a tap's connections on hyper's way.
const HYPERS_WAY: &str = "limits: {headers_max: 99}";

/// The connection ends after it was taken for the request and before the request is sent.
fn answered_after_a_close(request: &str, way: &str) {
    let (tell, told): (Sender<()>, _) = channel();
    let upstream = closing_when_told(told);
    let flowtap = Setup::before(upstream.port).tap(way).failing_at(STALL).start();
    let mut client = warm(&flowtap);
    client.send(request);
    // Early or late within the stall: the answer is the same.
    std::thread::sleep(Duration::from_millis(500));
    tell.send(()).expect("the upstream listens");
    let answer = client.read_response();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "2"), "{}", answer.head);
    let mark = request.lines().next().expect("a line");
    assert_eq!(upstream.received_text().matches(mark).count(), 1, "asked once");
    assert_eq!(upstream.received().len(), 2);
    flowtap.await_metric("flowtap_retries_total", &[], 1.0);
}

/// Case 26 of the catalogue, for requests that change something.
/// Promise (operations): a request that meets a kept connection which was closed before is answered.
/// Figure: 1 try upstream, 0 of 502.
#[test]
fn a_post_that_meets_a_connection_closed_before_it_is_sent_again() {
    answered_after_a_close(&json_post("/again", "{\"messages\":[]}"), "");
}

/// On hyper's way the same rule holds.
#[test]
fn a_post_on_hypers_way_that_meets_a_connection_closed_before_it_is_sent_again() {
    answered_after_a_close(&json_post("/again", "{\"messages\":[]}"), HYPERS_WAY);
}

/// A body that a buffer holds is sent again whole.
#[test]
fn a_post_of_20_kb_that_meets_a_connection_closed_before_it_is_sent_again_whole() {
    let body = "b".repeat(20_000);
    let (tell, told) = channel();
    let upstream = closing_when_told(told);
    let flowtap = Setup::before(upstream.port).failing_at(STALL).start();
    let mut client = warm(&flowtap);
    client.send(json_post("/again", &body));
    std::thread::sleep(Duration::from_millis(500));
    tell.send(()).expect("the upstream listens");
    assert_eq!(client.read_response().text(), "2");
    let received = upstream.received_text();
    assert!(received.ends_with(&format!("\r\n\r\n{body}")), "{} bytes", received.len());
}

#[test]
fn a_get_that_meets_a_connection_closed_before_it_is_sent_again() {
    answered_after_a_close("GET /again HTTP/1.1\r\nHost: a\r\n\r\n", "");
}

/// Reads the second request on a connection and ends without an answer.
fn deaf_to_the_second() -> Upstream {
    Upstream::start(|peer| {
        peer.read_request().expect("a request");
        peer.send(json_response("1"));
        drop(peer.read_request());
    })
}

/// Case 26: what was read may have been carried out, so it is not sent again; a safe request is.
/// Promise (operations): what an upstream may have carried out is not sent twice, unless it is safe.
/// Figure: POST once, GET at most twice.
#[test]
fn what_an_upstream_read_before_it_closed_is_sent_again_only_where_that_is_safe() {
    for way in ["", HYPERS_WAY] {
        let upstream = deaf_to_the_second();
        let flowtap = Setup::before(upstream.port).tap(way).start();
        let mut client = warm(&flowtap);
        client.send(json_post("/once", "{}"));
        assert_eq!(client.read_response().status(), 502, "{way:?}");
        assert_eq!(upstream.received_text().matches("POST /once").count(), 1, "{way:?}");

        let upstream = deaf_to_the_second();
        let flowtap = Setup::before(upstream.port).tap(way).start();
        let mut client = warm(&flowtap);
        client.send("GET /twice HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.read_response().text(), "1", "{way:?}");
        assert_eq!(upstream.received_text().matches("GET /twice").count(), 2, "{way:?}");
    }
}

/// A safe request is sent twice at most, and once on a fresh connection.
#[test]
fn a_get_that_is_never_answered_is_sent_twice_at_most() {
    let upstream = Upstream::start(|peer| {
        if peer.read_request().is_some_and(|request| request.head.starts_with("POST")) {
            peer.send(json_response("1"));
            drop(peer.read_request());
        }
    });
    let flowtap = Setup::before(upstream.port).start();
    let mut client = flowtap.client();
    client.send("GET /fresh HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().status(), 502);
    let mut client = warm(&flowtap);
    client.send("GET /kept HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().status(), 502);
    let received = upstream.received_text();
    let counts = ["GET /fresh", "GET /kept"].map(|asked| received.matches(asked).count());
    assert_eq!(counts, [1, 2]);
}
