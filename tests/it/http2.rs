//! HTTP/2 on both sides: many exchanges share a connection, none of them suffers from another.
#![allow(clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Full};
use rustls::pki_types::ServerName;

use crate::streams::{CHAT, delta};
use crate::support::certs::Authority;
use crate::support::multiplexed::{
    ENDLESS, Server, connect, connect_narrow, handshake, post, run, send,
};
use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{Upstream, json_post, json_response, transcript};
use crate::tls::tls_tap;

const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

fn open_to_http2(upstream: &Upstream) -> Flowtap {
    Setup::before(upstream.port).tap("http2: true").top("sample: {rate: 1}").start()
}

#[test]
fn a_body_that_ends_with_an_empty_frame_has_one_end_upstream() {
    let upstream = Upstream::answering(json_response("\"ok\""));
    let flowtap = open_to_http2(&upstream);
    run(async {
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", flowtap.port)).await;
        let (sender, connection) =
            h2::client::handshake(tcp.expect("connected")).await.expect("h2");
        tokio::spawn(connection);
        for length in [None, Some("9")] {
            let mut request = Request::post("http://client.test/upload?x=1").header("x-a", "1");
            if let Some(length) = length {
                request = request.header("content-length", length);
            }
            let mut sender = sender.clone().ready().await.expect("ready");
            let request = request.body(()).expect("a request");
            let (response, mut body) = sender.send_request(request, false).expect("sent");
            body.send_data(Bytes::from_static(b"some data"), false).expect("sent");
            body.send_data(Bytes::new(), true).expect("sent");
            assert_eq!(response.await.expect("an answer").status(), 200);
        }
    });
    let received = upstream.received_text();
    assert_eq!(received.matches("POST /upload?x=1 HTTP/1.1\r\n").count(), 2, "{received}");
    assert_eq!(received.matches("\r\n0\r\n\r\n").count(), 1, "{received}");
    let parts: Vec<_> = received.split("POST /upload").skip(1).collect();
    let (chunked, measured) = (parts[0], parts[1]);
    assert!(chunked.ends_with("\r\n\r\n9\r\nsome data\r\n0\r\n\r\n"), "{chunked}");
    assert!(measured.ends_with("\r\n\r\nsome data") && measured.contains(": 9\r\n"), "{measured}");
}

#[test]
fn cookies_are_joined_and_the_host_is_the_upstreams() {
    let upstream = Upstream::answering(json_response("{}"));
    let flowtap = open_to_http2(&upstream);
    run(async {
        let sender = connect(flowtap.port).await;
        let request = Request::get("http://client.test/c?q=%20");
        let request = request.header("cookie", "a=1").header("cookie", "b=2").header("x-b", "2");
        let answer = send(&sender, request.body(Full::default()).expect("a request")).await;
        assert_eq!(answer.expect("an answer").status, 200);
    });
    let received = upstream.received_text().to_lowercase();
    assert!(received.starts_with("get /c?q=%20 http/1.1\r\n"), "{received}");
    assert!(received.contains("cookie: a=1; b=2\r\n"), "{received}");
    assert!(received.contains(&format!("host: 127.0.0.1:{}\r\n", upstream.port)), "{received}");
    assert_eq!(received.matches("host:").count(), 1);
}

/// They need not be announced, and come behind a body that has no length.
#[test]
fn trailers_of_a_request_reach_the_upstream() {
    let upstream = Upstream::answering(json_response("{}"));
    let flowtap = open_to_http2(&upstream);
    run(async {
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", flowtap.port)).await;
        let handshake = h2::client::handshake(tcp.expect("connected")).await;
        let (sender, connection) = handshake.expect("HTTP/2");
        tokio::spawn(async move { drop(connection.await) });
        let mut sender = sender.ready().await.expect("ready");
        for number in ["1", "2"] {
            let request = Request::post("http://client.test/t").body(()).expect("a request");
            let (answer, mut body) = sender.send_request(request, false).expect("sent");
            body.send_data("data".into(), false).expect("sent");
            let trailers = [("x-sum".parse().expect("a name"), number.parse().expect("a value"))];
            body.send_trailers(trailers.into_iter().collect()).expect("sent");
            assert_eq!(answer.await.expect("an answer").status(), 200);
        }
    });
    let up = upstream.received_text();
    for number in ["1", "2"] {
        assert!(up.contains(&format!("4\r\ndata\r\n0\r\nx-sum: {number}\r\n\r\n")), "{up}");
    }
}

#[test]
fn trailers_reach_the_client() {
    let upstream = Upstream::start(|peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        peer.chunk("body");
        peer.send("0\r\nX-Sum: 42\r\n\r\n");
    });
    let flowtap = open_to_http2(&upstream);
    run(async {
        let answer = post(&connect(flowtap.port).await, "/t", "{}").await.expect("an answer");
        assert_eq!((answer.text.as_str(), answer.status), ("body", 200));
        assert_eq!(answer.trailers.get("x-sum").expect("the trailer"), "42");
    });
}

/// A strict client ends a stream over what HTTP/1.1's only overlook.
/// Promise (operations): answers that HTTP/1.1 frames oddly come down as HTTP/2 has them. Figure: 4 forms.
#[test]
fn lengths_and_trailers_that_http2_forbids_do_not_come_down() {
    let upstream = Upstream::start(|peer| {
        while let Some(request) = peer.read_request() {
            peer.send(match request.head.split(' ').nth(1) {
                Some("/204") => "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                Some("/twice") => {
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok"
                }
                Some("/list") => "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
                _ => {
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nContent-Length: 3\r\nConnection: x\r\n\r\n"
                }
            });
        }
    });
    let flowtap = open_to_http2(&upstream);
    run(async {
        let mut sender = connect(flowtap.port).await;
        for (path, length) in
            [("/204", None), ("/twice", Some("2")), ("/list", Some("2")), ("/trailers", None)]
        {
            let request = Request::get(format!("http://client.test{path}"));
            let request = request.body(Full::default()).expect("a request");
            let response = sender.send_request(request).await.expect("an answer");
            let lengths: Vec<_> = response.headers().get_all("content-length").iter().collect();
            assert_eq!(lengths, Vec::from_iter(length), "{path}");
            let body = response.into_body().collect().await.expect("its end");
            let trailers = body.trailers().cloned().unwrap_or_default();
            let names: Vec<_> = trailers.keys().map(|name| name.as_str()).collect();
            assert_eq!(names, if path == "/trailers" { vec!["x-sum"] } else { vec![] });
        }
    });
}

/// Promise (security): an HTTP/2 request that names two hosts, or a user, goes nowhere. Figure: 3 forms.
#[test]
fn a_host_that_says_something_else_than_the_authority_is_refused() {
    let upstream = Upstream::answering(json_response("{}"));
    let flowtap = open_to_http2(&upstream);
    run(async {
        let sender = connect(flowtap.port).await;
        for (uri, hosts) in [
            ("http://client.test/a", &["evil.test"][..]),
            ("http://client.test/a", &["client.test", "client.test"]),
            ("http://user@client.test/a", &[]),
        ] {
            let request = hosts.iter().fold(Request::get(uri), |to, host| to.header("host", *host));
            let answer = send(&sender, request.body(Full::default()).expect("a request")).await;
            let answer = answer.expect("an answer");
            assert_eq!(answer.status, 400, "{uri} {hosts:?}");
            assert!(answer.text.contains("\"code\":\"host\""), "{}", answer.text);
        }
        let same = Request::get("http://client.test/a").header("host", "CLIENT.test");
        let answer = send(&sender, same.body(Full::default()).expect("a request")).await;
        assert_eq!(answer.expect("an answer").status, 200);
    });
    assert_eq!(upstream.received_text().matches("GET /a").count(), 1);
}

#[test]
fn a_hundred_streams_share_a_connection() {
    let upstream = Upstream::start(|peer| {
        while let Some(request) = peer.read_request() {
            let asked = String::from_utf8_lossy(&request.raw_body).into_owned();
            peer.send(STREAM_HEAD);
            for _ in 0..5 {
                peer.chunk(delta(asked.trim_matches(['[', ']'])));
                std::thread::sleep(Duration::from_millis(10));
            }
            peer.send("0\r\n\r\n");
        }
    });
    let flowtap = open_to_http2(&upstream);
    run(async {
        let sender = connect(flowtap.port).await;
        let asks = (0..100).map(|number| post(&sender, CHAT, format!("[{number}]")));
        for (number, answer) in join_all(asks).await.into_iter().enumerate() {
            let answer = answer.expect("an answer");
            assert_eq!(answer.text, delta(&number.to_string()).repeat(5), "mixed up");
        }
        assert_eq!(flowtap.metric("flowtap_client_connections", &[]), 1.0);
    });
    flowtap.await_metric("flowtap_requests_total", &["outcome=\"ok\""], 100.0);
    flowtap.await_idle();
}

#[test]
fn an_event_is_passed_on_at_once() {
    let (seen, confirmed) = channel::<()>();
    let confirmed = Mutex::new(confirmed);
    let upstream = Upstream::start(move |peer| {
        peer.read_request();
        peer.send(STREAM_HEAD);
        for number in 0..10 {
            peer.chunk(delta(&number.to_string()));
            let confirmed = confirmed.lock().expect("not poisoned");
            confirmed.recv_timeout(Duration::from_secs(10)).expect("the event arrives");
        }
        peer.send("0\r\n\r\n");
    });
    let flowtap = open_to_http2(&upstream);
    run(async {
        let mut sender = connect(flowtap.port).await;
        let request = Request::post(format!("http://client.test{CHAT}"));
        let request = request.body(Full::new(Bytes::from_static(b"{\"stream\":true}")));
        let response = sender.send_request(request.expect("a request")).await.expect("an answer");
        let mut body = response.into_body();
        for number in 0..10 {
            let frame = body.frame().await.expect("a frame").expect("data");
            assert_eq!(frame.into_data().expect("data"), delta(&number.to_string()));
            seen.send(()).expect("the upstream waits");
        }
        let rest = body.collect().await.expect("the proper end");
        assert!(rest.to_bytes().is_empty());
    });
}

#[test]
fn a_stream_that_the_client_resets_ends_alone() {
    let (gone, noticed) = channel();
    let gone = Mutex::new(gone);
    let upstream = Upstream::start(move |peer| {
        while let Some(request) = peer.read_request() {
            if !request.head.contains(CHAT) {
                peer.send(json_response("\"other\""));
                continue;
            }
            peer.send(STREAM_HEAD);
            while peer.chunk(delta("x")) && !peer.is_closed_within(Duration::from_millis(20)) {}
            gone.lock().expect("not poisoned").send(()).ok();
            return;
        }
    });
    let flowtap = open_to_http2(&upstream);
    run(async {
        let mut sender = connect(flowtap.port).await;
        let request = Request::post(format!("http://client.test{CHAT}")).body(Full::default());
        let response = sender.send_request(request.expect("a request")).await.expect("an answer");
        let mut body = response.into_body();
        body.frame().await.expect("a frame").expect("data");
        drop(body);
        let other = post(&sender, "/score", "{}").await.expect("an answer");
        assert_eq!(other.text, "\"other\"", "the connection lives on");
    });
    noticed.recv_timeout(Duration::from_secs(10)).expect("the upstream's work ends");
    flowtap.await_metric("flowtap_requests_total", &["outcome=\"client_abort\""], 1.0);
    flowtap.await_idle();
}

#[test]
fn a_cut_upstream_cuts_its_stream_alone() {
    let upstream = Upstream::start(|peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ncut");
    });
    let flowtap = open_to_http2(&upstream);
    run(async {
        let sender = connect(flowtap.port).await;
        for _ in 0..2 {
            assert!(post(&sender, "/score", "{}").await.is_err(), "no proper end is made up");
        }
    });
    flowtap.await_metric("flowtap_requests_total", &["outcome=\"upstream_abort\""], 2.0);
}

#[test]
fn a_tap_that_is_open_to_http2_still_serves_http1() {
    let upstream = Upstream::answering(json_response("\"old\""));
    let flowtap = open_to_http2(&upstream);
    let mut client = flowtap.client();
    for _ in 0..2 {
        client.send(json_post("/score", "{}"));
        assert_eq!(client.read_response().text(), "\"old\"");
    }
    let refused = transcript(flowtap.port, "GET / HTTP/1.1\r\nHost : a\r\n\r\n");
    assert!(refused.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&refused));
    assert_eq!(upstream.received_text().matches("HTTP/1.1").count(), 2);
}

#[test]
fn protocols_are_agreed_over_tls() {
    let ca = Authority::new();
    let upstream = Upstream::answering(json_response("\"secure\""));
    let setup = Setup::before(upstream.port).tap("http2: true");
    let flowtap = setup.tap(&tls_tap(&ca.issue("localhost"))).start();
    run(async {
        let connector = tokio_rustls::TlsConnector::from(ca.client(&["h2", "http/1.1"]));
        let tcp = tokio::net::TcpStream::connect(("127.0.0.1", flowtap.port)).await;
        let name = ServerName::try_from("localhost").expect("a name");
        let tls = connector.connect(name, tcp.expect("connected")).await.expect("trusted");
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
        let sender = handshake(tls).await;
        let asks = (0..20).map(|_| post(&sender, "/score", "{}"));
        for answer in join_all(asks).await {
            assert_eq!(answer.expect("an answer").text, "\"secure\"");
        }
    });
}

fn before_http2(server: &Server) -> Flowtap {
    let map = format!("{{url: \"http://127.0.0.1:{}\", http2: always}}", server.port);
    Setup::url(&map).tap("http2: true").top("traffic: {threads: 1}\nsample: {rate: 1}").start()
}

#[test]
fn requests_share_the_connection_to_an_upstream_that_speaks_http2() {
    let server = Server::start(usize::MAX, None);
    let flowtap = before_http2(&server);
    let authority = format!("127.0.0.1:{}", server.port);
    let mut client = flowtap.client();
    client.send(json_post("/first", "{\"n\":1}"));
    let answer = client.read_response();
    assert!(answer.complete);
    assert_eq!(answer.text(), format!("POST /first {authority} {{\"n\":1}} end"));
    run(async {
        let sender = connect(flowtap.port).await;
        let asks = (0..50).map(|number| post(&sender, "/score", format!("[{number}]")));
        for (number, answer) in join_all(asks).await.into_iter().enumerate() {
            let expected = format!("POST /score {authority} [{number}] end");
            assert_eq!(answer.expect("an answer").text, expected);
        }
    });
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
    flowtap.await_metric("flowtap_requests_total", &["outcome=\"ok\""], 51.0);
}

#[test]
fn clients_that_do_not_read_harm_nobody_on_the_same_upstream_connection() {
    let server = Server::start(usize::MAX, None);
    let flowtap = before_http2(&server);
    run(async {
        let (reading, stalling) = (connect(flowtap.port).await, connect_narrow(flowtap.port).await);
        let endless = || async {
            let request =
                Request::post(format!("http://client.test{ENDLESS}")).body(Full::default());
            let mut stalling = stalling.clone();
            stalling.send_request(request.expect("a request")).await.expect("an answer").into_body()
        };
        let mut stalled = [endless().await, endless().await];
        tokio::time::sleep(Duration::from_millis(500)).await;
        for number in 0..20 {
            let answer = post(&reading, "/score", format!("[{number}]")).await.expect("an answer");
            assert!(answer.text.ends_with(&format!(" [{number}] end")), "{}", answer.text);
        }
        for body in &mut stalled {
            let frame = body.frame().await.expect("its stream goes on").expect("data");
            assert_eq!(frame.into_data().expect("data"), "data: x\n\n");
        }
    });
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn protocols_are_agreed_with_the_upstream() {
    let ca = Authority::new();
    let config = ca.server(&ca.issue("localhost"), false, &["h2", "http/1.1"]);
    let server = Server::start(usize::MAX, Some(config));
    let ca_file = ca.ca_file();
    let map =
        format!("{{url: \"https://localhost:{}\", ca_file: {}}}", server.port, ca_file.display());
    let flowtap = Setup::url(&map).start();
    let mut client = flowtap.client();
    client.send(json_post("/score", "{}"));
    let expected = format!("POST /score localhost:{} {{}} end", server.port);
    assert_eq!(client.read_response().text(), expected);
}

#[test]
fn an_upstream_that_says_goodbye_loses_no_request() {
    const CLIENTS: usize = 8;
    const EACH: usize = 30;
    let server = Server::start(20, None);
    let flowtap = Arc::new(before_http2(&server));
    run(async {
        let sender = connect(flowtap.port).await;
        let client = |number: usize| {
            let sender = sender.clone();
            async move {
                for round in 0..EACH {
                    let body = format!("[{number},{round}]");
                    let answer = post(&sender, "/score", body.clone()).await.expect("an answer");
                    assert!(answer.status == 200 && answer.text.contains(&body), "{}", answer.text);
                }
            }
        };
        join_all((0..CLIENTS).map(client)).await;
    });
    let asked = server.requests.load(Ordering::SeqCst);
    assert_eq!(asked, CLIENTS * EACH, "each request reached the upstream once");
    assert!(server.connections.load(Ordering::SeqCst) > 5, "goodbyes were said");
}
