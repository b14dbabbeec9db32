//! The smuggling matrix: requests that two servers could read in two ways, each as bytes on the wire,
//! on the express way and on hyper's. Cases 1 to 12 of the catalogue.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::Duration;

use crate::support::books::Books;
use crate::support::process::resident_bytes;
use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{Upstream, json_response};

/// What stands behind each request, and must never be read as one of its own unless the request in
/// front of it is sound.
const BEHIND: &str = "GET /smug HTTP/1.1\r\nHost: a\r\n\r\n";

/// Any limit on header fields but hyper's own sends a tap's connections on hyper's way.
const WAYS: [&str; 2] = ["", "limits: {headers_max: 99}"];

fn before(upstream: &Upstream) -> [Flowtap; 2] {
    WAYS.map(|way| Setup::before(upstream.port).tap(way).start())
}

/// Refused with `status`, nothing of what stands behind is served, and the connection ends.
fn assert_refused(flowtap: &Flowtap, upstream: &Upstream, case: &str, request: &[u8], status: u16) {
    let mut client = flowtap.client();
    client.send([request, BEHIND.as_bytes()].concat());
    let answer = client.read_response();
    assert_eq!(answer.status(), status, "{case}: {}", answer.head);
    assert!(client.is_closed_within(Duration::from_secs(20)), "{case}: still open");
    assert!(!upstream.received_text().contains("smug"), "{case}: smuggled");
}

fn post(fields: &str, body: &str) -> Vec<u8> {
    format!("POST /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}").into_bytes()
}

fn assert_all_refused(cases: &[(&str, Vec<u8>)], status: u16) {
    let upstream = Upstream::answering(json_response("{}"));
    for flowtap in before(&upstream) {
        for (case, request) in cases {
            assert_refused(&flowtap, &upstream, case, request, status);
        }
    }
}

/// Promise (security): a `Transfer-Encoding` other than one `chunked` is refused, and the connection
/// ends. Figure: 15 forms on both ways, 0 smuggled.
#[test]
fn every_way_to_disguise_chunks_is_refused() {
    let cases = [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: identity\r\nContent-Length: 0",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:\u{b}chunked",
        "Transfer-Encoding: chunked;ext=1",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding:",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked,",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: chun\0ked",
    ];
    let cases = cases.map(|fields| (fields, post(fields, "0\r\n\r\n")));
    assert_all_refused(&cases, 400);
}

/// Promise (security): a `Content-Length` that is none, or two that differ, is refused. Figure: 11
/// forms on both ways, 0 smuggled.
#[test]
fn every_length_that_is_none_is_refused() {
    let cases = [
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 2, 2",
        "Content-Length: 2 2",
        "Content-Length: +2",
        "Content-Length: 0x2",
        "Content-Length: 1e1",
        "Content-Length:",
        "Content-Length: -1",
        "Content-Length : 2",
        "Content-Length: 18446744073709551616",
        "Content-Length: 9223372036854775808",
    ];
    assert_all_refused(&cases.map(|fields| (fields, post(fields, "ab"))), 400);
}

/// Promise (security): broken chunks are refused, and what was begun upstream gets no end. Figure: 21
/// forms on both ways, 0 ends made up.
#[test]
fn chunks_that_break_their_grammar_are_refused_and_what_was_begun_upstream_stays_unfinished() {
    let long = format!("2;{}\r\nab\r\n0\r\n\r\n", "x".repeat(64 * 1024));
    let many = format!("{}0\r\n\r\n", format!("1;{}\r\na\r\n", "x".repeat(200)).repeat(100));
    let hidden = format!("2\r\nab\r\n0\r\nx: y\n\r\n{BEHIND}");
    let cases = [
        ("a bare line feed", "2\nab\r\n0\r\n\r\n"),
        ("a line feed behind the data", "2\r\nab\n0\r\n\r\n"),
        ("an extension that ends with a line feed", "2;\nab\r\n0\r\n\r\n"),
        ("a line feed in an extension", "2;a\nxx\r\nab\r\n0\r\n\r\n"),
        ("a prefix", "0x2\r\nab\r\n0\r\n\r\n"),
        ("a sign", "-2\r\nab\r\n0\r\n\r\n"),
        ("a space before", " 2\r\nab\r\n0\r\n\r\n"),
        ("17 digits", "10000000000000002\r\nab\r\n0\r\n\r\n"),
        ("an extension of 64 KiB", &long),
        ("more than the data", "3\r\nab\r\n0\r\n\r\n"),
        ("less than the data", "1\r\nab\r\n0\r\n\r\n"),
        ("a line feed for the last line", "2\r\nab\r\n0\r\n\n"),
        ("a trailer with a space in its name", "2\r\nab\r\n0\r\nx y: 1\r\n\r\n"),
        ("more than 63 bits", "ffffffffffffffff\r\nab\r\n0\r\n\r\n"),
        ("extensions of 20 kB together", &many),
        // hyper alone takes these.
        ("a line feed behind a trailer", &hidden),
        ("NUL in an extension", "2;a=\0\r\nab\r\n0\r\n\r\n"),
        ("zeros before the size", "000000000000000000002\r\nab\r\n0\r\n\r\n"),
        ("NUL in a trailer", "2\r\nab\r\n0\r\nx: \0\r\n\r\n"),
        ("a control character in an extension", "2;a=\u{1}\r\nab\r\n0\r\n\r\n"),
        ("zeros before the last size", "2\r\nab\r\n00000000000000000\r\n\r\n"),
    ];
    let upstream = Upstream::answering(json_response("{}"));
    for flowtap in before(&upstream) {
        for (case, body) in cases {
            let request = post("Transfer-Encoding: chunked", body);
            assert_refused(&flowtap, &upstream, case, &request, 400);
        }
    }
    for connection in upstream.received() {
        let text = String::from_utf8_lossy(&connection).into_owned();
        assert!(!text.contains("\r\n0\r\n\r\n"), "no end was made up: {text}");
        assert!(text.matches("POST ").count() <= 1, "not used again: {text}");
    }
}

/// Promise (security): heads that can be read in two ways are refused, CONNECT and TRACE too. Figure:
/// 32 forms on both ways, 0 reach the upstream.
#[test]
fn heads_that_break_their_grammar_are_refused() {
    let get = |rest: &str| format!("GET /a HTTP/1.1\r\n{rest}\r\n\r\n").into_bytes();
    let cases = [
        ("a bare carriage return", get("Host: a\rX: b")),
        ("a carriage return at a value's end", get("Host: a\r")),
        ("an empty name", get("Host: a\r\n: b")),
        ("no colon", get("Host: a\r\nfoo")),
        ("a space before the first name", get(" Host: a\r\nHost: b")),
        ("a folded value", get("Host: a\r\nX: b\r\n\tc")),
        ("NUL in a value", get("Host: a\r\nX: b\0")),
        ("NUL in a name", get("Host: a\r\nX\0: b")),
        ("a space before the colon", get("Host : a")),
        ("no host", get("X: b")),
        ("two hosts", get("Host: a\r\nHost: a")),
        ("a user in the host", get("Host: a@b")),
        ("a tab in the host", get("Host: a\tb")),
        ("a list of hosts", get("Host: a, b")),
        ("a path in the host", get("Host: a/b")),
        ("another host in the target", b"GET http://evil/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("a user in the target", b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("no HTTP in the target", b"GET file:///etc HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("a space in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("two spaces", b"GET  /a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("a tab", b"GET\t/a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("NUL in the target", b"GET /a\0 HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("a target that is no UTF-8", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        ("HTTP/0.9", b"GET /a\r\n\r\n".to_vec()),
        ("HTTP/1.2", b"GET /a HTTP/1.2\r\nHost: a\r\n\r\n".to_vec()),
        ("HTTP/2.0 in words", b"GET /a HTTP/2.0\r\nHost: a\r\n\r\n".to_vec()),
        (
            "HTTP/1.0 and chunks",
            b"POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        ),
        ("a length that is to go", get("Host: a\r\nConnection: content-length")),
        ("a key that is to go", get("Host: a\r\nConnection: close\r\nConnection: x-api-key")),
        ("a key that is to go, beside what is no text", {
            b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: authorization, \xff\r\n\r\n".to_vec()
        }),
    ];
    assert_all_refused(&cases, 400);
    let cases = [
        ("CONNECT", b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_vec()),
        ("TRACE", b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
    ];
    assert_all_refused(&cases, 405);
}

/// Promise (security): heads beyond the limits are answered with 431. Figure: 101 to 300 fields, 66 kB
/// to 1.2 MB.
#[test]
fn heads_beyond_the_limits_are_refused_to_whoever_sends_them_whole() {
    let fields = |count: usize| (0..count).map(|n| format!("a{n}: b\r\n")).collect::<String>();
    let value = |bytes: usize| format!("x: {}\r\n", "y".repeat(bytes));
    let head = |fields: String| format!("GET /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes();
    let cases = [
        ("101 fields", head(fields(100))),
        ("255 fields", head(fields(254))),
        ("300 fields", head(fields(299))),
        ("66 kB", head(value(66_000))),
        ("900 kB", head(value(900_000))),
        ("1.2 MB", head(value(1_200_000))),
    ];
    assert_all_refused(&cases, 431);
}

/// Promise (security): nothing follows a request for another protocol that was not switched to. Figure:
/// 3 protocols on both ways.
#[test]
fn a_request_for_another_protocol_lets_nothing_follow() {
    let upstream = Upstream::answering(json_response("{}"));
    for flowtap in before(&upstream) {
        for protocol in ["websocket", "foo", "h2c"] {
            let mut client = flowtap.client();
            client.send(format!(
                "GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n{BEHIND}"
            ));
            assert_eq!(client.read_response().status(), 200, "{protocol}");
            assert!(client.is_closed_within(Duration::from_secs(20)), "{protocol}");
        }
    }
    assert!(!upstream.received_text().contains("smug"));
}

#[test]
fn what_can_be_read_in_one_way_only_is_forwarded_in_its_plainest_form() {
    let upstream = Upstream::answering(json_response("{}"));
    let target = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
    let cases: [(Vec<u8>, &[u8]); 15] = [
        (post("Content-Length: 2\r\nContent-Length: 2", "ab"), b"Content-Length: 2\r\n"),
        (post("Content-Length: 0002", "ab"), b"Content-Length: 2\r\n"),
        (post("Keep-Alive: 5\r\nContent-Length: 02", "ab"), b"Content-Length: 2\r\n"),
        (target("/a[1]|{b}\"^?c[]={d}"), b"GET /a[1]|{b}\"^?c[]={d} HTTP/1.1\r\n"),
        (b"GET /a HTTP/1.1\nHost: a\nX: b\n\n".to_vec(), b"X: b\r\n"),
        (b"GET /a HTTP/1.1\r\nHost: a\r\nX: \xe4\xff\r\n\r\n".to_vec(), b"X: \xe4\xff\r\n"),
        (b"GET http://a/b?c HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), b"GET /b?c HTTP/1.1\r\n"),
        (target("/a/../b"), b"GET /a/../b HTTP/1.1\r\n"),
        (target("//a"), b"GET //a HTTP/1.1\r\n"),
        (target("/%2f..%2f"), b"GET /%2f..%2f HTTP/1.1\r\n"),
        (target("/a\\b"), b"GET /a\\b HTTP/1.1\r\n"),
        (target("/a#b"), b"GET /a HTTP/1.1\r\n"),
        (b"FOO^BAR /a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), b"FOO^BAR /a HTTP/1.1\r\n"),
        (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), b"OPTIONS * HTTP/1.1\r\n"),
        (post("Transfer-Encoding: chunked", "2;x=y\r\nab\r\n0\r\n\r\n"), b"2\r\nab\r\n0\r\n\r\n"),
    ];
    for flowtap in before(&upstream) {
        for (request, wanted) in &cases {
            let from = upstream.received().concat().len();
            let mut client = flowtap.client();
            client.send(request);
            let shown = String::from_utf8_lossy(request);
            assert_eq!(client.read_response().status(), 200, "{shown}");
            let up = upstream.received().concat();
            // Connections are told in the order of their first bytes: look at all that came.
            assert!(up.len() > from, "{shown}");
            assert!(up.windows(wanted.len()).any(|bytes| bytes == *wanted), "{shown}");
        }
    }
}

/// Case 12 of the catalogue.
/// Promise (security): what a client says is for this hop alone goes no further, however much of it there is.
/// Figure: 300 nominated names, 90 of them there, 6 fields of one hop, on both ways.
#[test]
fn what_is_nominated_goes_no_further() {
    let upstream = Upstream::answering(json_response("{}"));
    let names: Vec<String> = (0..300).map(|number| format!("x-hop-{number}")).collect();
    let nominated: String = names[..90].iter().map(|name| format!("{name}: 1\r\n")).collect();
    let hop = "TE: gzip\r\nKeep-Alive: 5\r\nProxy-Authorization: secret\r\nProxy-Connection: close\r\nUpgrade: x\r\n";
    for flowtap in before(&upstream) {
        let mut client = flowtap.client();
        client.send(format!(
            "GET /a HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n{nominated}{hop}X-Kept: 1\r\n\r\n",
            names.join(", ")
        ));
        assert_eq!(client.read_response().status(), 200);
    }
    let received = upstream.received_text().to_lowercase();
    assert_eq!(received.matches("x-kept: 1").count(), 2, "{received}");
    for gone in ["x-hop-", "keep-alive", "secret", "proxy-", "gzip", "upgrade", "connection"] {
        assert!(!received.contains(gone), "{gone} in {received}");
    }
}

/// Case 10 of the catalogue.
/// Promise (operations): a method that nobody knows is passed on, and makes no label of its own. Figure: 200
/// methods, 0 in `/metrics`, all in the books.
#[test]
fn methods_that_clients_make_up_pass_and_make_no_label() {
    let upstream = Upstream::answering(json_response("{}"));
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 1}\ndrain_timeout: 25s").start();
    let mut client = flowtap.client();
    for number in 0..200 {
        client.send(format!("MADEUP{number} /a HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.read_response().status(), 200);
    }
    assert_eq!(upstream.received_text().matches("MADEUP").count(), 200);
    flowtap.await_metric("flowtap_requests_total", &[], 200.0);
    assert!(!flowtap.metrics().contains("MADEUP"));
    let books = Books::of(flowtap.stop().folder());
    assert_eq!((books.seen, books.stored, books.dropped.len()), (200, 200, 0), "{books:?}");
}

/// Case 13 of the catalogue.
/// Promise (security): heads without an end take little memory, however many come at once. Figure: 200
/// connections, 1 MB sent by each, memory below +64 MiB.
#[test]
fn heads_without_an_end_take_little_memory() {
    let upstream = Upstream::answering(json_response("{}"));
    for flowtap in before(&upstream) {
        let before = resident_bytes(flowtap.id());
        let mut clients: Vec<_> = (0..200).map(|_| flowtap.client()).collect();
        for client in &mut clients {
            client.send("GET /a HTTP/1.1\r\nHost: a\r\nX: ");
        }
        let piece = vec![b'y'; 50_000];
        for _ in 0..20 {
            for client in &mut clients {
                client.send(&piece);
            }
        }
        let grown = resident_bytes(flowtap.id()).saturating_sub(before);
        assert!(grown < 64 << 20, "memory grew by {grown} bytes");
        for client in &mut clients {
            assert!(client.is_closed_within(Duration::from_secs(20)));
        }
    }
    assert_eq!(upstream.received_text(), "");
}

/// Cases 6 and 20: what a refusal leaves unread is never read as a request.
/// Promise (security): the rest of a refused request is never read as a next one, and the refusal
/// arrives. Figure: a body of 3.1 MB that looks like 100,000 requests.
#[test]
fn a_refusal_reaches_whoever_still_sends_a_body_and_nothing_of_it_is_read_as_a_request() {
    let upstream = Upstream::answering(json_response("{}"));
    let body = BEHIND.repeat(100_000);
    for flowtap in before(&upstream) {
        let head = format!("POST /a HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut client = flowtap.client();
        client.send(format!("{head}{body}"));
        let answer = client.read_response();
        assert_eq!((answer.status(), answer.header("connection")), (400, Some("close")));
        assert!(client.is_closed_within(Duration::from_secs(20)));
    }
    assert_eq!(upstream.received_text(), "");
}
