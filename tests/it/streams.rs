//! Streams on the wire: nothing is held back, nothing is made up, and whoever leaves is noticed.
#![allow(clippy::expect_used, clippy::panic)]

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::process::resident_bytes;
use crate::support::tap::{Setup, Stopped};
use crate::support::wire::{Peer, Upstream, json_post};

/// The path of chat completions.
pub const CHAT: &str = "/v1/chat/completions";
const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const WITHIN: Duration = Duration::from_secs(10);

/// A POST that asks for a stream.
pub fn chat_post() -> String {
    json_post(
        CHAT,
        r#"{"model":"gpt-4","stream":true,"messages":[{"role":"user","content":"count"}]}"#,
    )
}

/// One delta of a streamed answer.
pub fn delta(text: &str) -> String {
    format!(
        "data: {{\"model\":\"gpt-4\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}}}}]}}\n\n"
    )
}

fn keeping_all(upstream: &Upstream) -> Setup {
    Setup::before(upstream.port).top("sample: {rate: 1}")
}

fn only_record(stopped: &Stopped) -> serde_json::Value {
    let records = stopped.rows("exchanges");
    assert_eq!(records.len(), 1, "{}", stopped.printed);
    records[0].clone()
}

/// A channel whose receiving end a script may hold.
fn signal<T>() -> (Sender<T>, Mutex<Receiver<T>>) {
    let (send, receive) = channel();
    (send, Mutex::new(receive))
}

fn await_signal<T>(receiver: &Mutex<Receiver<T>>) -> T {
    receiver.lock().expect("not poisoned").recv_timeout(WITHIN).expect("the signal comes")
}

/// Promise (operations): an event of a stream is passed on before the next one is sent.
#[test]
fn an_event_is_passed_on_before_the_next_one_is_sent() {
    const EVENTS: usize = 50;
    let (seen, confirmed) = signal::<()>();
    let upstream = Upstream::start(move |peer| {
        peer.read_request();
        peer.send(STREAM_HEAD);
        for n in 0..EVENTS {
            peer.chunk(delta(&format!("w{n} ")));
            await_signal(&confirmed);
        }
        peer.chunk("data: {\"model\":\"gpt-4\",\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":50,\"total_tokens\":61}}\n\n");
        peer.chunk("data: [DONE]\n\n");
        peer.send("0\r\n\r\n");
    });
    let flowtap = keeping_all(&upstream).start();
    let mut client = flowtap.client();
    client.send(chat_post());
    client.read_head();
    for n in 0..EVENTS {
        let event = delta(&format!("w{n} "));
        let chunk = format!("{:X}\r\n{event}\r\n", event.len());
        let read = client.read_until(b"\n\n\r\n").expect("an event before the next is sent");
        assert_eq!(String::from_utf8_lossy(&read), chunk, "framed as the upstream framed it");
        seen.send(()).expect("the upstream waits");
    }
    let rest = client.read_until(b"\r\n0\r\n\r\n").expect("the stream's end");
    assert!(rest.windows(6).any(|bytes| bytes == b"[DONE]"));

    let record = only_record(&flowtap.stop());
    let answer: String = (0..EVENTS).map(|n| format!("w{n} ")).collect();
    assert_eq!(record["answer"], answer);
    assert_eq!((&record["stream"], &record["outcome"]), (&true.into(), &"ok".into()));
    assert_eq!(
        record["usage"],
        serde_json::json!({"input": 11, "output": 50, "total": 61, "cached_input": null, "reasoning_output": null, "source": "reported"})
    );
    let (first_byte, first_token) =
        (record["first_byte_ms"].as_f64(), record["first_token_ms"].as_f64());
    assert!(first_byte.is_some() && first_byte <= first_token, "{record}");
}

#[test]
fn a_line_without_an_end_does_not_stop_the_stream() {
    const PIECES: usize = 128;
    let piece = "y".repeat(64 * 1024);
    let parts = {
        let mut parts = vec![delta("before"), "data: {\"x\":\"".to_owned()];
        parts.extend((0..PIECES).map(|_| piece.clone()));
        parts.extend(["\"}\n\n".to_owned(), delta("after"), "data: [DONE]\n\n".to_owned()]);
        parts
    };
    let sent = parts.concat();
    let upstream = Upstream::start(move |peer| {
        peer.read_request();
        peer.send(STREAM_HEAD);
        for part in &parts {
            peer.chunk(part);
        }
        peer.send("0\r\n\r\n");
    });
    let flowtap = keeping_all(&upstream).start();
    let mut client = flowtap.client();
    client.send(chat_post());
    let answer = client.read_response();
    assert!(
        answer.complete && answer.body() == sent.as_bytes(),
        "{} of {} bytes",
        answer.body().len(),
        sent.len()
    );
    let record = only_record(&flowtap.stop());
    assert_eq!(
        (&record["outcome"], &record["response"]["bytes"]),
        (&"ok".into(), &sent.len().into())
    );
    assert_eq!(record["response"]["truncated"], true);
}

/// Streams until the client is gone, and says when.
fn endless(gone: Sender<Instant>) -> Upstream {
    let gone = Mutex::new(gone);
    Upstream::start(move |peer| {
        peer.read_request();
        peer.send(STREAM_HEAD);
        while peer.chunk(delta("word ")) && !peer.is_closed_within(Duration::from_millis(20)) {}
        gone.lock().expect("not poisoned").send(Instant::now()).ok();
    })
}

fn client_leaves(leave: impl FnOnce(Peer)) {
    let (gone, noticed) = signal();
    let upstream = endless(gone);
    let flowtap = keeping_all(&upstream).start();
    let mut client = flowtap.client();
    client.send(chat_post());
    client.read_head();
    for _ in 0..5 {
        client.read_until(b"\n\n").expect("an event");
    }
    leave(client);
    let left = Instant::now();
    let noticed = await_signal(&noticed).saturating_duration_since(left);
    assert!(
        noticed < Duration::from_secs(2),
        "the upstream was closed {noticed:?} after the client left"
    );
    flowtap.await_metric(
        "flowtap_requests_total",
        &["outcome=\"client_abort\"", "status=\"2xx\""],
        1.0,
    );
    flowtap.await_idle();
    let record = only_record(&flowtap.stop());
    assert_eq!((&record["outcome"], &record["status"]), (&"client_abort".into(), &200.into()));
    let answer = record["answer"].as_str().expect("what was delivered");
    assert!(answer.starts_with("word word word word word "), "{answer}");
    assert!(
        record["response"]["bytes"].as_u64() >= Some(5 * delta("word ").len() as u64),
        "{record}"
    );
    assert_eq!(record["usage"]["source"], "estimated");
    assert!(record["usage"]["output"].as_u64() >= Some(5), "{record}");
}

#[test]
fn a_client_that_closes_in_mid_stream_ends_the_upstreams_work() {
    client_leaves(drop);
}

#[test]
fn a_client_that_resets_in_mid_stream_ends_the_upstreams_work() {
    client_leaves(|mut client| client.reset());
}

#[test]
fn a_client_that_resets_before_any_answer_ends_the_upstreams_work() {
    let (gone, noticed) = signal();
    let gone = Mutex::new(gone);
    let upstream = Upstream::start(move |peer| {
        peer.read_request();
        let closed = peer.is_closed_within(WITHIN);
        gone.lock().expect("not poisoned").send(closed).ok();
    });
    let flowtap = keeping_all(&upstream).start();
    let mut client = flowtap.client();
    client.send(chat_post());
    let deadline = Instant::now() + WITHIN;
    while upstream.received().is_empty() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    client.reset();
    assert!(await_signal(&noticed), "the upstream works on for nobody");
    flowtap.await_metric(
        "flowtap_requests_total",
        &["outcome=\"client_abort\"", "status=\"none\""],
        1.0,
    );
    assert_eq!(only_record(&flowtap.stop())["status"], serde_json::Value::Null);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_own_body_is_no_fault_of_the_upstream() {
    let upstream = Upstream::start(|peer| drop(peer.read_to_end()));
    let flowtap = keeping_all(&upstream).start();
    for reset in [false, true] {
        let mut client = flowtap.client();
        client.send("POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
        std::thread::sleep(Duration::from_millis(50));
        if reset {
            client.reset();
        }
    }
    flowtap.await_metric(
        "flowtap_requests_total",
        &["outcome=\"client_abort\"", "status=\"none\""],
        2.0,
    );
}

/// Sends `begun`, waits until the client has read it, then ends as `end` says.
fn cut(begun: &'static str, end: fn(&mut Peer)) {
    let (seen, confirmed) = signal::<()>();
    let upstream = Upstream::start(move |peer| {
        peer.read_request();
        peer.send(begun);
        await_signal(&confirmed);
        end(peer);
    });
    let flowtap = keeping_all(&upstream).start();
    let mut client = flowtap.client();
    client.send(chat_post());
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let first = client.read_until(b"one").expect("the beginning");
    seen.send(()).expect("the upstream waits");
    let rest = client.read_to_end();
    let all = String::from_utf8_lossy(&[first, rest].concat()).into_owned();
    assert!(!all.contains("\r\n0\r\n") && all.len() < 40, "a cut stream looks cut: {all:?}");
    flowtap.await_metric(
        "flowtap_requests_total",
        &["outcome=\"upstream_abort\"", "status=\"2xx\""],
        1.0,
    );
    assert_eq!(upstream.received_text().matches("POST ").count(), 1, "asked once");
    assert_eq!(only_record(&flowtap.stop())["outcome"], "upstream_abort");
}

const CHUNKED_ONE: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n";

/// Case 25 of the catalogue, with the four below it.
/// Promise (operations): an answer that its upstream breaks off is broken off for the client, with no end
/// made up, and is asked for once. Figure: 6 ways to break off, on both ways: 0 ends made up, 1 request
/// each, 6 records of an aborted exchange.
#[test]
fn an_upstreams_reset_in_mid_stream_looks_like_one() {
    cut(CHUNKED_ONE, Peer::reset);
}

#[test]
fn an_upstreams_reset_in_mid_chunk_looks_like_one() {
    cut("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\none", Peer::reset);
}

#[test]
fn a_reset_is_not_the_end_of_a_body_that_ends_with_its_connection() {
    cut("HTTP/1.1 200 OK\r\n\r\none", Peer::reset);
}

#[test]
fn an_upstreams_end_in_mid_chunk_looks_like_one() {
    cut("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\none", |_| {});
}

#[test]
fn a_body_shorter_than_its_length_stays_short() {
    cut("HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\none", |_| {});
}

#[test]
fn a_chunk_that_is_none_cuts_the_answer() {
    cut(CHUNKED_ONE, |peer| {
        peer.send("zz\r\nnot a chunk\r\n0\r\n\r\n");
    });
}

#[test]
fn half_a_head_is_no_answer() {
    let upstream = Upstream::start(|peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Le");
    });
    let flowtap = keeping_all(&upstream).start();
    let mut client = flowtap.client();
    client.send(chat_post());
    assert_eq!(client.read_response().status(), 502);
    flowtap.await_metric(
        "flowtap_requests_total",
        &["outcome=\"connect_error\"", "status=\"5xx\""],
        1.0,
    );
    assert_eq!(upstream.received_text().matches("POST ").count(), 1, "asked once");
}

#[test]
fn an_upstream_that_falls_silent_in_mid_stream_is_cut() {
    let upstream = Upstream::start(|peer| {
        peer.read_request();
        peer.send(CHUNKED_ONE);
        peer.read_to_end();
    });
    let flowtap = Setup::before(upstream.port).tap("timeouts: {idle: 300ms}").start();
    let (mut client, started) = (flowtap.client(), Instant::now());
    client.send(chat_post());
    let answer = client.read_response();
    assert_eq!((answer.complete, answer.text().as_str()), (false, "one"));
    assert!(started.elapsed() >= Duration::from_millis(250), "{:?}", started.elapsed());
    flowtap.await_metric("flowtap_requests_total", &["outcome=\"timeout\"", "status=\"2xx\""], 1.0);
}

#[test]
fn pauses_below_the_idle_limit_cut_nothing() {
    let upstream = Upstream::start(|peer| {
        peer.read_request();
        peer.send(STREAM_HEAD);
        for _ in 0..12 {
            std::thread::sleep(Duration::from_millis(150));
            peer.chunk(delta("x"));
        }
        peer.send("0\r\n\r\n");
    });
    let flowtap = Setup::before(upstream.port).tap("timeouts: {idle: 1200ms}").start();
    let mut client = flowtap.client();
    client.send(chat_post());
    assert!(client.read_response().complete, "1.8 s in pauses of 0.15 s");
}

#[test]
fn a_request_that_stalls_is_cut() {
    let upstream = Upstream::start(|peer| drop(peer.read_to_end()));
    let flowtap = Setup::before(upstream.port).tap("timeouts: {idle: 300ms}").start();
    let mut client = flowtap.client();
    client.send("POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    let answer = client.read_response();
    assert_eq!((answer.status(), answer.header("connection")), (408, Some("close")));
    assert!(client.is_closed_within(WITHIN));
    flowtap.await_metric("flowtap_requests_total", &["outcome=\"timeout\"", "status=\"4xx\""], 1.0);
}

/// The figure that `counter` stops at for a while.
fn settled(counter: &AtomicU64) -> u64 {
    loop {
        let before = counter.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(500));
        if before > 0 && counter.load(Ordering::Relaxed) == before {
            return before;
        }
    }
}

/// Promise (operations): a client that does not read holds its upstream back, and is cut.
#[test]
fn a_client_that_does_not_read_holds_the_upstream_back_and_is_cut() {
    let (sent, (gone, noticed)) = (Arc::new(AtomicU64::new(0)), signal());
    let (counter, gone) = (Arc::clone(&sent), Mutex::new(gone));
    let upstream = Upstream::start(move |peer| {
        peer.read_request();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        let piece = vec![b'z'; 64 * 1024];
        while peer.chunk(&piece) {
            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        gone.lock().expect("not poisoned").send(()).ok();
    });
    let flowtap = keeping_all(&upstream).tap("timeouts: {idle: 4s}").start();
    let before = resident_bytes(flowtap.id());
    let mut client = flowtap.client();
    client.send(chat_post());
    client.read_head();
    let held = settled(&sent);
    assert!(held < 64 << 20, "{held} bytes lie somewhere");
    let grown = resident_bytes(flowtap.id()).saturating_sub(before);
    assert!(grown < 40 << 20, "{grown} bytes of memory for a client that does not read");
    await_signal(&noticed);
    flowtap.await_metric("flowtap_requests_total", &["status=\"2xx\"", "outcome=\"timeout\""], 1.0);
}

/// Sixty-four mebibytes that repeat nowhere, with a head and a tail to tell apart.
fn large(mark: &str) -> Vec<u8> {
    const BYTES: usize = 64 << 20;
    let words: String =
        (0..1000_u32).map(|n| format!("{} ", n.wrapping_mul(2_654_435_761))).collect();
    let mut body = format!("{{\"question\":\"{mark} begins").into_bytes();
    for round in 0.. {
        body.extend_from_slice(format!(" {round} {words}").as_bytes());
        if body.len() > BYTES {
            break;
        }
    }
    body.extend_from_slice(format!("{mark} ends\"}}").as_bytes());
    body
}

/// Promise (operations): bodies far over the limit pass whole both ways and are kept in part.
#[test]
fn bodies_far_over_the_limit_pass_whole_and_are_kept_in_part() {
    let (down, up) = (Arc::new(large("down")), Arc::new(large("up")));
    let (answer, expected) = (Arc::clone(&down), Arc::clone(&up));
    let (verdict, compared) = signal();
    let verdict = Mutex::new(verdict);
    let upstream = Upstream::start(move |peer| {
        let request = peer.read_request().expect("a request");
        verdict.lock().expect("not poisoned").send(request.raw_body == *expected).ok();
        peer.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        ));
        peer.send(&*answer);
    });
    let flowtap = keeping_all(&upstream).start();
    let mut client = flowtap.client();
    let before = resident_bytes(flowtap.id());
    client.send(format!("POST /score HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", up.len()));
    client.send(&*up);
    let received = client.read_response();
    let grown = resident_bytes(flowtap.id()).saturating_sub(before);
    assert!(await_signal(&compared), "the way up changed bytes");
    assert!(received.raw_body == *down, "the way down changed bytes");
    // Read buffers and the allocator's reserve vary with how pieces arrive; what is held does not grow with the body.
    assert!(grown < 64 << 20, "{grown} bytes of memory for two bodies of 64 MiB");

    let record = only_record(&flowtap.stop());
    for (side, mark, bytes) in [("request", "up", up.len()), ("response", "down", down.len())] {
        let body = &record[side];
        assert_eq!((&body["bytes"], &body["truncated"]), (&bytes.into(), &true.into()));
        let text = body["body"].to_string();
        assert!(
            text.contains(&format!("{mark} begins")) && text.contains(&format!("{mark} ends")),
            "{}",
            &text[..200]
        );
    }
}

#[test]
fn compressed_answers_pass_as_they_are_and_are_kept_readable() {
    let plain = format!("{{\"answer\":\"{}\"}}", "words and words ".repeat(200));
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).expect("gzip")
    };
    let brotli = |text: &str| {
        let mut encoder = brotli::CompressorWriter::new(Vec::new(), 4096, 5, 22);
        encoder.write_all(text.as_bytes()).expect("brotli");
        encoder.into_inner()
    };
    let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 3).expect("zstd");
    for (coding, packed) in [("gzip", gzip(&plain)), ("br", brotli(&plain)), ("zstd", zstd(&plain))]
    {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: {coding}\r\nContent-Length: {}\r\n\r\n",
            packed.len()
        );
        let upstream = Upstream::answering([head.as_bytes(), &packed].concat());
        let flowtap = keeping_all(&upstream).start();
        let mut client = flowtap.client();
        client.send(json_post("/score", r#"{"question":"q"}"#));
        let answer = client.read_response();
        assert_eq!((answer.header("content-encoding"), &answer.raw_body), (Some(coding), &packed));
        let record = only_record(&flowtap.stop());
        assert_eq!(record["answer"], "words and words ".repeat(200), "{coding}");
    }
}
