//! TLS on both sides: whom flowtap trusts, whom it shows a certificate, and what a client gets.
#![allow(clippy::expect_used, clippy::panic)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::support::certs::{Authority, Identity, connect, read_head, serve};
use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{Peer, Upstream, json_post, json_response};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nX-Case: Kept\r\nContent-Length: 5\r\n\r\nhello";
const GET: &str = "GET /secure HTTP/1.1\r\nHost: client\r\n\r\n";

fn before(host: &str, port: u16, ca: &Authority, more: &str) -> Flowtap {
    let ca_file = ca.ca_file();
    let map = format!("{{url: \"https://{host}:{port}\", ca_file: {}{more}}}", ca_file.display());
    Setup::url(&map).start()
}

fn ask(client: &mut Peer) -> (u16, String) {
    client.send(GET);
    let answer = client.read_response();
    (answer.status(), format!("{}{}", answer.head, answer.text()))
}

#[test]
fn a_trusted_upstream_is_reached_over_one_kept_connection() {
    let ca = Authority::new();
    let (port, seen) = serve(ca.server(&ca.issue("localhost"), false, &[]), ANSWER);
    let flowtap = before("localhost", port, &ca, "");
    let mut client = flowtap.client();
    for _ in 0..3 {
        assert_eq!(ask(&mut client), (200, ANSWER.to_owned()));
    }
    assert_eq!(seen.connections.load(Ordering::SeqCst), 1, "one handshake for three requests");
    let heads = seen.heads.lock().expect("not poisoned");
    assert!(heads[0].contains(&format!("Host: localhost:{port}\r\n")), "{heads:?}");
}

#[test]
fn an_address_is_as_good_as_a_name() {
    let ca = Authority::new();
    let (port, _seen) = serve(ca.server(&ca.issue("127.0.0.1"), false, &[]), ANSWER);
    assert_eq!(ask(&mut before("127.0.0.1", port, &ca, "").client()).0, 200);
}

#[test]
fn an_upstream_that_is_not_trusted_or_has_another_name_is_a_502() {
    let (ca, stranger) = (Authority::new(), Authority::new());
    let (port, seen) = serve(ca.server(&ca.issue("localhost"), false, &[]), ANSWER);
    for flowtap in [before("localhost", port, &stranger, ""), before("127.0.0.1", port, &ca, "")] {
        assert_eq!(ask(&mut flowtap.client()).0, 502);
        flowtap.await_metric("flowtap_requests_total", &["outcome=\"connect_error\""], 1.0);
    }
    assert!(seen.heads.lock().expect("not poisoned").is_empty(), "no request was sent");
}

#[test]
fn a_certificate_is_shown_to_an_upstream_that_demands_one() {
    let ca = Authority::new();
    let (port, seen) = serve(ca.server(&ca.issue("localhost"), true, &[]), ANSWER);
    let me = ca.issue("flowtap.test");
    let files = format!(
        ", client_cert_file: {}, client_key_file: {}",
        me.cert_file.display(),
        me.key_file.display()
    );
    assert_eq!(ask(&mut before("localhost", port, &ca, &files).client()).0, 200);
    assert_eq!(ask(&mut before("localhost", port, &ca, "").client()).0, 502, "and not without");
    assert_eq!(seen.heads.lock().expect("not poisoned").len(), 1);
}

/// A tap behind TLS.
pub fn tls_tap(identity: &Identity) -> String {
    let (cert, key) = (identity.cert_file.display(), identity.key_file.display());
    format!("tls: {{cert_file: {cert}, key_file: {key}}}")
}

#[test]
fn clients_are_served_over_tls_and_their_connections_are_kept() {
    let ca = Authority::new();
    let upstream = Upstream::answering(ANSWER);
    let flowtap = Setup::before(upstream.port).tap(&tls_tap(&ca.issue("localhost"))).start();
    let mut client = connect(ca.client(&["http/1.1"]), "localhost", flowtap.port);
    for _ in 0..3 {
        client.write_all(GET.as_bytes()).expect("sent");
        assert_eq!(read_head(&mut client), Some(ANSWER.trim_end_matches("hello").to_owned()));
        let mut body = [0; 5];
        client.read_exact(&mut body).expect("the body");
        assert_eq!(&body, b"hello");
    }
    assert_eq!(client.conn.alpn_protocol(), Some(b"http/1.1".as_slice()));
    assert_eq!(upstream.received().len(), 1, "one connection upstream");
}

#[test]
fn who_speaks_no_tls_gets_nothing_and_holds_nobody_up() {
    let ca = Authority::new();
    let upstream = Upstream::answering(json_response("{}"));
    let identity = ca.issue("localhost");
    let setup = Setup::before(upstream.port).tap(&tls_tap(&identity));
    let flowtap = setup.tap("timeouts: {header: 1s}").start();
    let mut plain = flowtap.client();
    plain.send(json_post("/score", "{}"));
    assert!(plain.is_closed_within(Duration::from_secs(5)));
    let mut silent = flowtap.client();
    assert!(silent.is_closed_within(Duration::from_secs(10)), "a handshake has a time limit");
    flowtap.await_metric("flowtap_rejected_requests_total", &["reason=\"tls\""], 2.0);
    assert_eq!(upstream.received_text(), "");
    let stranger = Authority::new();
    let mut client = connect(stranger.client(&[]), "localhost", flowtap.port);
    assert!(client.write_all(GET.as_bytes()).is_err(), "the certificate is of no use to strangers");
    drop(TcpStream::connect(("127.0.0.1", flowtap.port)));
    let mut client = connect(ca.client(&[]), "localhost", flowtap.port);
    client.write_all(GET.as_bytes()).expect("sent");
    assert!(read_head(&mut client).is_some_and(|head| head.starts_with("HTTP/1.1 200")));
}
