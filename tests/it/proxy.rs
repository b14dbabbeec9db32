//! The proxy on the wire: what goes in comes out, what is unsafe is refused, what fails is told.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::{Duration, Instant};

use crate::support::process::free_port;
use crate::support::tap::Setup;
use crate::support::wire::{Upstream, json_post, json_response, transcript};

#[test]
fn request_and_response_pass_byte_for_byte() {
    let response = "HTTP/1.1 200 All Right\r\nX-Order-B: 1\r\nx-order-a: 2\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 5\r\n\r\nhello";
    let upstream = Upstream::answering(response);
    let flowtap = Setup::before(upstream.port).start();
    let mut client = flowtap.client();
    client.send("POST /a/../b//c%2f?q=%20x&key=1 HTTP/1.1\r\nHost: client:1\r\nX-Custom: A b\r\nAuthorization: Bearer s\r\nx-request-id: r-1\r\nContent-Length: 3\r\n\r\nabc");
    let answer = client.read_response();
    assert_eq!(format!("{}{}", answer.head, answer.text()), response);
    let expected = format!(
        "POST /a/../b//c%2f?q=%20x&key=1 HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nX-Custom: A b\r\nAuthorization: Bearer s\r\nx-request-id: r-1\r\nContent-Length: 3\r\n\r\nabc",
        upstream.port
    );
    assert_eq!(upstream.received_text(), expected);
}

#[test]
fn a_request_without_an_id_gets_one() {
    let upstream = Upstream::answering(json_response("{}"));
    let flowtap = Setup::before(upstream.port).start();
    let mut client = flowtap.client();
    client.send(json_post("/score", "{}"));
    assert_eq!(client.read_response().status(), 200);
    let received = upstream.received_text();
    let minted = received.lines().find_map(|line| line.strip_prefix("x-ms-client-request-id: "));
    assert_eq!(minted.map(str::len), Some(36), "{received}");
}

#[test]
fn chunks_and_trailers_pass_both_ways() {
    let upstream = Upstream::start(|peer| {
        let request = peer.read_request().expect("a request");
        assert!(String::from_utf8_lossy(&request.raw_body).to_lowercase().contains("x-sum: 7"));
        peer.send("HTTP/1.1 200 OK\r\nTrailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n");
        peer.chunk("one");
        peer.send("0\r\nX-T: last\r\n\r\n");
    });
    let flowtap = Setup::before(upstream.port).start();
    let mut client = flowtap.client();
    client.send("POST /t HTTP/1.1\r\nHost: c\r\nTE: trailers\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n");
    let answer = client.read_response();
    assert!(answer.complete);
    assert_eq!(answer.text(), "one");
    let raw = String::from_utf8_lossy(&answer.raw_body).to_lowercase();
    assert!(raw.contains("x-t: last"), "{raw}");
}

#[test]
fn what_can_be_read_in_two_ways_is_refused_by_name_and_never_reaches_the_upstream() {
    let upstream = Upstream::answering(json_response("{}"));
    let flowtap = Setup::before(upstream.port).start();
    let post = |head: &str, body: &str| format!("POST /x HTTP/1.1\r\n{head}\r\n\r\n{body}");
    let many = (0..101).map(|n| format!("a{n}: b\r\n")).collect::<String>();
    let cases = [
        (post("Content-Length: 0", ""), 400, "host"),
        (post("Host: a\r\nHost: b\r\nContent-Length: 0", ""), 400, "host"),
        (post("Host: me@a\r\nContent-Length: 0", ""), 400, "host"),
        ("GET http://evil.test/ HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, "host"),
        (
            post("Host: a\r\nTransfer-Encoding: gzip, chunked", "0\r\n\r\n"),
            400,
            "transfer_encoding",
        ),
        (post("Host: a\r\nTransfer-Encoding: xchunked", ""), 400, "malformed"),
        (post("Host: a\r\nContent-Length: 1\r\nContent-Length: 2", "ab"), 400, "malformed"),
        (post("Host: a\r\nContent-Length: +1", "a"), 400, "malformed"),
        (post("Host: a\r\nConnection: Authorization\r\nContent-Length: 0", ""), 400, "connection"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n".to_owned(), 405, "method"),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 405, "method"),
        ("POST /x HTTP/1.0\r\n\r\nbody".to_owned(), 400, "length"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(), 400, "malformed"),
        ("GET / HTTP/1.1\r\nHost: a\r\nx: b\r\n folded\r\n\r\n".to_owned(), 400, "malformed"),
        ("GET / HTTP/1.1\r\nHost: a\r\nx: b\0c\r\n\r\n".to_owned(), 400, "malformed"),
        ("\u{1}\u{2}nonsense\r\n\r\n".to_owned(), 400, "malformed"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 431, "head_too_large"),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nx: {}\r\n\r\n", "y".repeat(80_000)),
            431,
            "head_too_large",
        ),
    ];
    for (request, status, code) in cases {
        let mut client = flowtap.client();
        client.send(&request);
        let answer = client.read_response();
        let shown = &request[..request.len().min(80)];
        assert_eq!(answer.status(), status, "{shown:?}: {}", answer.head);
        let body: serde_json::Value = serde_json::from_str(&answer.text()).expect("JSON");
        assert_eq!(body["error"]["code"], code, "{shown:?}");
        assert!(client.is_closed_within(Duration::from_secs(5)), "{shown:?}");
    }
    assert_eq!(upstream.received_text(), "");
    assert!(
        flowtap.metric("flowtap_rejected_requests_total", &[]) >= 18.0,
        "{}",
        flowtap.metrics()
    );
}

/// hyper reads what comes with a request at once with it, on its own way too.
#[test]
fn what_cannot_be_read_behind_a_request_is_refused_by_name_as_well() {
    let upstream = Upstream::answering(json_response("{}"));
    for way in ["", "limits: {headers_max: 99}"] {
        let flowtap = Setup::before(upstream.port).tap(way).start();
        let mut client = flowtap.client();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n\u{1}\u{2}nonsense\r\n\r\n");
        assert_eq!(client.read_response().status(), 200);
        let refusal = client.read_response();
        assert_eq!(refusal.status(), 400);
        assert!(refusal.text().contains("\"malformed\""), "{way}: {}", refusal.text());
        flowtap.await_metric("flowtap_rejected_requests_total", &["malformed"], 1.0);
    }
}

/// Promise (security): a length beside chunks smuggles nothing. Figure: 1 answer, the connection ends.
#[test]
fn a_length_beside_chunks_smuggles_nothing() {
    let upstream = Upstream::answering(json_response("{}"));
    let flowtap = Setup::before(upstream.port).start();
    let smuggled = "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smug HTTP/1.1\r\nHost: a\r\n\r\n";
    let answer = String::from_utf8_lossy(&transcript(flowtap.port, smuggled)).into_owned();
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert!(!upstream.received_text().contains("smug"));
}

#[test]
fn headers_that_end_at_a_hop_do() {
    let upstream = Upstream::answering(
        "HTTP/1.1 200 OK\r\nConnection: x-theirs\r\nX-Theirs: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n",
    );
    let flowtap = Setup::before(upstream.port).start();
    let mut client = flowtap.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: x-mine\r\nX-Mine: 1\r\nProxy-Authorization: x\r\nKeep-Alive: 5\r\nX-Kept: 1\r\n\r\n");
    let answer = client.read_response().head.to_lowercase();
    assert!(!answer.contains("x-theirs") && !answer.contains("keep-alive"), "{answer}");
    let received = upstream.received_text().to_lowercase();
    assert!(received.contains("x-kept") && !received.contains("x-mine"), "{received}");
    assert!(
        !received.contains("proxy-authorization") && !received.contains("keep-alive"),
        "{received}"
    );
}

#[test]
fn an_upstream_that_is_down_is_a_502_and_one_that_is_silent_a_504() {
    let down = Setup::before(free_port()).start();
    let mut client = down.client();
    client.send(json_post("/score", "{}"));
    let answer = client.read_response();
    assert_eq!((answer.status(), answer.header("connection")), (502, Some("close")));
    down.await_metric(
        "flowtap_requests_total",
        &["outcome=\"connect_error\"", "status=\"5xx\""],
        1.0,
    );

    let silent = Upstream::start(|peer| drop(peer.read_to_end()));
    let flowtap = Setup::before(silent.port).tap("timeouts: {response: 300ms}").start();
    let (mut client, started) = (flowtap.client(), Instant::now());
    client.send(json_post("/score", "{}"));
    assert_eq!(client.read_response().status(), 504);
    assert!(started.elapsed() < Duration::from_secs(5));
    flowtap.await_metric("flowtap_requests_total", &["outcome=\"timeout\""], 1.0);
}

#[test]
fn connecting_has_a_time_limit() {
    // A listener whose queue is full answers no SYN.
    let socket =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bound");
    socket.listen(0).expect("listening");
    let address = socket.local_addr().expect("an address").as_socket().expect("an IP address");
    let mut fillers = Vec::new();
    while let Ok(filler) =
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200))
    {
        fillers.push(filler);
    }
    let flowtap = Setup::before(address.port()).tap("timeouts: {connect: 300ms}").start();
    let (mut client, started) = (flowtap.client(), Instant::now());
    client.send(json_post("/score", "{}"));
    assert_eq!(client.read_response().status(), 504);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn an_upstream_that_closes_without_an_answer_is_asked_once() {
    let upstream = Upstream::start(|peer| drop(peer.read_request()));
    let flowtap = Setup::before(upstream.port).start();
    let mut client = flowtap.client();
    client.send(json_post("/score", "{}"));
    assert_eq!(client.read_response().status(), 502);
    assert_eq!(upstream.received_text().matches("POST ").count(), 1);
}

#[test]
fn a_connection_that_the_upstream_closed_is_not_used_again() {
    let (tell, closed) = std::sync::mpsc::channel();
    let tell = std::sync::Mutex::new(tell);
    let upstream = Upstream::start(move |peer| {
        peer.read_request();
        peer.send(json_response("{}"));
        peer.half_close();
        tell.lock().expect("not poisoned").send(()).expect("the test waits");
    });
    let flowtap = Setup::before(upstream.port).start();
    let mut client = flowtap.client();
    for _ in 0..5 {
        client.send(json_post("/score", "{}"));
        assert_eq!(client.read_response().status(), 200);
        closed.recv_timeout(Duration::from_secs(20)).expect("the upstream closes");
        // Time for flowtap to notice; where it does not, the request is sent once more.
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn connections_are_kept_both_ways() {
    let upstream = Upstream::answering(json_response("{}"));
    let flowtap = Setup::before(upstream.port).start();
    let mut client = flowtap.client();
    for _ in 0..5 {
        client.send(json_post("/score", "{}"));
        assert_eq!(client.read_response().status(), 200);
    }
    assert_eq!(upstream.received().len(), 1, "one connection upstream for five requests");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let upstream = Upstream::start(|peer| {
        while let Some(request) = peer.read_request() {
            let path = request.head.split(' ').nth(1).unwrap_or_default().to_owned();
            peer.send(json_response(&format!("\"{path}\"")));
        }
    });
    let flowtap = Setup::before(upstream.port).start();
    let mut client = flowtap.client();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().text(), "\"/1\"");
    assert_eq!(client.read_response().text(), "\"/2\"");
}

#[test]
fn answers_without_a_body_stay_so() {
    let upstream = Upstream::start(|peer| {
        while let Some(request) = peer.read_request() {
            peer.send(match request.head.split(' ').next() {
                Some("HEAD") => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
                Some("DELETE") => "HTTP/1.1 204 No Content\r\n\r\n",
                _ => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
            });
        }
    });
    let flowtap = Setup::before(upstream.port).start();
    let mut client = flowtap.client();
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_head(), "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n");
    client.send("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().head, "HTTP/1.1 204 No Content\r\n\r\n");
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_response().head, "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n");
    flowtap.await_metric("flowtap_requests_total", &["outcome=\"ok\""], 3.0);
}

#[test]
fn an_old_client_and_an_old_upstream_are_understood() {
    let upstream = Upstream::start(|peer| {
        peer.read_request();
        peer.send("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nto the end");
    });
    let flowtap = Setup::before(upstream.port).start();
    let old =
        String::from_utf8_lossy(&transcript(flowtap.port, "GET / HTTP/1.0\r\n\r\n")).into_owned();
    assert!(old.ends_with("\r\n\r\nto the end"), "{old}");
    let mut client = flowtap.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let new = client.read_response();
    assert_eq!((new.text().as_str(), new.complete), ("to the end", true));
}

#[test]
fn a_client_that_stops_sending_still_gets_its_answer() {
    let upstream = Upstream::start(|peer| {
        peer.read_request();
        std::thread::sleep(Duration::from_millis(300));
        peer.send(json_response("\"late\""));
    });
    let flowtap = Setup::before(upstream.port).start();
    let mut client = flowtap.client();
    client.send(json_post("/score", "{}"));
    client.half_close();
    assert_eq!(client.read_response().text(), "\"late\"");
}

/// Promise (security): a head that trickles is cut. Figure: limit 500 ms, cut within 3 s.
#[test]
fn a_head_that_trickles_is_cut_in_time() {
    let upstream = Upstream::answering(json_response("{}"));
    let flowtap = Setup::before(upstream.port).tap("timeouts: {header: 500ms}").start();
    let (mut client, started) = (flowtap.client(), Instant::now());
    for byte in
        b"GET / HTTP/1.1\r\nHost: a\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy"
    {
        if !client.send([*byte]) || client.is_closed_within(Duration::from_millis(50)) {
            break;
        }
    }
    assert!(started.elapsed() < Duration::from_secs(3), "cut after {:?}", started.elapsed());
}

#[test]
fn websockets_pass_both_ways() {
    let upstream = Upstream::start(|peer| {
        let head = peer.read_head().to_lowercase();
        assert!(
            head.contains("upgrade: websocket") && head.contains("connection: upgrade"),
            "{head}"
        );
        peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n");
        while let Some(frame) = peer.read_until(b"\xff") {
            peer.send([b"echo ".as_slice(), &frame].concat());
        }
    });
    let flowtap = Setup::before(upstream.port).start();
    let mut client = flowtap.client();
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n");
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 101") && head.contains("Sec-WebSocket-Accept"), "{head}");
    client.send(b"frame\xff");
    assert_eq!(client.read_until(b"\xff").as_deref(), Some(b"echo frame\xff".as_slice()));
}

/// Promise (operations): what two peers agree to speak instead of HTTP passes both ways, whatever it is, as the
/// upstream named it; HTTP/2 without TLS is not switched to. Figure: 3 protocols, GET and POST.
#[test]
fn other_protocols_than_websocket_are_switched_to_as_well() {
    let upstream = Upstream::start(|peer| {
        let head = peer.read_head();
        if head.to_lowercase().contains("h2c") || !head.contains("Upgrade: ") {
            peer.send(json_response("\"as before\""));
            return;
        }
        peer.send("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nfirst");
        while let Some(line) = peer.read_until(b"\n") {
            peer.send([b"echo ".as_slice(), &line].concat());
        }
    });
    let flowtap = Setup::before(upstream.port).start();
    for (method, asked) in [("GET", "SPDY/3.1"), ("POST", "tcp"), ("POST", "raw, tcp")] {
        let mut client = flowtap.client();
        client.send(format!("{method} /attach HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: {asked}\r\n\r\n"));
        let head = client.read_head();
        assert!(head.starts_with("HTTP/1.1 101") && head.contains("Upgrade: tcp\r\n"), "{head}");
        assert_eq!(client.read_until(b"first").as_deref(), Some(b"first".as_slice()));
        client.send("\0line\n");
        assert_eq!(client.read_until(b"\n").as_deref(), Some(b"echo \0line\n".as_slice()));
        assert!(upstream.received_text().contains(&format!("Upgrade: {asked}\r\n")));
    }
    let mut client = flowtap.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n");
    assert_eq!(client.read_response().text(), "\"as before\"");
    assert!(!upstream.received_text().to_lowercase().contains("h2c"));
}

#[test]
fn a_base_url_with_a_path_is_joined_once() {
    let upstream = Upstream::answering(json_response("{}"));
    let flowtap = Setup::url(&format!("http://127.0.0.1:{}/v1", upstream.port)).start();
    let mut client = flowtap.client();
    for path in ["/chat/completions?x=1", "/v1/chat/completions"] {
        client.send(json_post(path, "{}"));
        assert_eq!(client.read_response().status(), 200);
    }
    let received = upstream.received_text();
    assert!(received.contains("POST /v1/chat/completions?x=1 HTTP/1.1"), "{received}");
    assert!(!received.contains("/v1/v1"), "{received}");
}

#[test]
fn a_client_that_never_says_which_protocol_it_speaks_is_let_go() {
    let upstream = Upstream::answering(json_response("{}"));
    let flowtap = Setup::before(upstream.port)
        .tap("http2: true\ntimeouts: {header: 300ms, keep_alive: 500ms}")
        .start();
    for said in ["", "PRI * HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\nHo"] {
        let mut client = flowtap.client();
        client.send(said);
        assert!(client.is_closed_within(Duration::from_secs(5)), "after {said:?}");
    }
    let mut client = flowtap.client();
    client.send(json_post("/score", "{}"));
    assert_eq!(client.read_response().status(), 200);
}
