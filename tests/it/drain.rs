//! The end: what is under way finishes, what is idle goes at once, what never ends is cut and named.
#![allow(clippy::expect_used, clippy::panic)]

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::streams::{CHAT, chat_post, delta};
use crate::support::books::Books;
use crate::support::multiplexed::{Answer, Client, connect, post, run};
use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{Upstream, json_post, json_response};

const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Streams until it is told to end, and no longer than ten seconds.
fn streaming(ending: &Arc<AtomicBool>) -> Upstream {
    let ending = Arc::clone(ending);
    Upstream::start(move |peer| {
        while peer.read_request().is_some() {
            peer.send(STREAM_HEAD);
            for _ in 0..200 {
                if ending.load(Ordering::SeqCst) || !peer.chunk(delta("x ")) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
            peer.send("0\r\n\r\n");
        }
    })
}

fn is_refused_within(port: u16, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    true
}

fn begin_streams(flowtap: &Flowtap, count: usize) -> Vec<crate::support::wire::Peer> {
    let begin = |_| {
        let mut client = flowtap.client();
        client.send(chat_post());
        assert!(client.read_head().starts_with("HTTP/1.1 200"));
        client
    };
    (0..count).map(begin).collect()
}

/// Promise (operations): at SIGTERM no stream is cut before the deadline, and the end comes with the
/// last one.
#[test]
fn no_stream_is_cut_and_the_end_comes_with_the_last_one() {
    let ending = Arc::new(AtomicBool::new(false));
    let upstream = streaming(&ending);
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 1}").start();
    let mut clients = begin_streams(&flowtap, 10);
    flowtap.terminate();
    assert!(is_refused_within(flowtap.port, Duration::from_secs(5)), "new connections are refused");
    std::thread::sleep(Duration::from_secs(1));
    ending.store(true, Ordering::SeqCst);
    for client in &mut clients {
        let rest = client.read_to_end();
        assert!(rest.ends_with(b"\r\n0\r\n\r\n"), "a stream was cut");
    }
    let ended = Instant::now();
    let stopped = flowtap.ended();
    assert!(
        ended.elapsed() < Duration::from_secs(5),
        "{:?} after the last stream",
        ended.elapsed()
    );
    assert!(stopped.printed.contains("\"drained\""), "{}", stopped.printed);
    let books = Books::of(stopped.folder());
    assert_eq!((books.seen, books.stored), (10, 10), "{books:?}");
    let records = stopped.rows("exchanges");
    let whole = records.iter().filter(|record| record["outcome"] == "ok").count();
    assert_eq!(whole, 10, "of ten streams");
}

#[test]
fn idle_connections_are_closed_at_once() {
    let upstream = Upstream::answering(json_response("{}"));
    let flowtap = Setup::before(upstream.port).start();
    let (mut idle, mut fresh) = (flowtap.client(), flowtap.client());
    idle.send(json_post("/score", "{}"));
    assert_eq!(idle.read_response().status(), 200);
    let asked = Instant::now();
    flowtap.terminate();
    assert!(idle.is_closed_within(Duration::from_secs(5)), "a kept connection");
    assert!(fresh.is_closed_within(Duration::from_secs(5)), "one that never asked");
    flowtap.ended();
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
}

#[test]
fn a_kept_connection_whose_request_is_under_way_is_told_to_close() {
    let upstream = Upstream::start(|peer| {
        peer.read_request();
        std::thread::sleep(Duration::from_secs(1));
        peer.send(json_response("\"late\""));
    });
    let flowtap = Setup::before(upstream.port).start();
    let mut client = flowtap.client();
    client.send(json_post("/score", "{}"));
    std::thread::sleep(Duration::from_millis(300));
    flowtap.terminate();
    let answer = client.read_response();
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("\"late\"", Some("close")));
    assert!(client.is_closed_within(Duration::from_secs(5)));
}

#[test]
fn streams_of_http2_finish_too() {
    let ending = Arc::new(AtomicBool::new(false));
    let upstream = streaming(&ending);
    let flowtap = Setup::before(upstream.port).tap("http2: true").start();
    run(async {
        let (busy, idle) = (connect(flowtap.port).await, connect(flowtap.port).await);
        let streams: Vec<_> = (0..3).map(|_| tokio::spawn(ask(busy.clone()))).collect();
        while flowtap.metric("flowtap_in_flight_requests", &[]) < 3.0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        flowtap.terminate();
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(ask(idle).await.is_err(), "an idle connection was told goodbye");
        ending.store(true, Ordering::SeqCst);
        for stream in streams {
            let answer = stream.await.expect("it ran").expect("a stream was cut");
            assert!(answer.text.starts_with(&delta("x ")), "{}", answer.text);
        }
    });
    assert!(flowtap.ended().printed.contains("\"drained\""));
}

async fn ask(sender: Client) -> Result<Answer, hyper::Error> {
    post(&sender, CHAT, "{}").await
}

#[test]
fn a_stream_without_end_is_cut_at_the_deadline_and_counted() {
    let upstream = streaming(&Arc::new(AtomicBool::new(false)));
    let setup = Setup::before(upstream.port).top("sample: {rate: 1}\ndrain_timeout: 8s");
    let flowtap = setup.start();
    let mut clients = begin_streams(&flowtap, 1);
    let asked = Instant::now();
    let stopped = flowtap.stop();
    assert!(asked.elapsed() < Duration::from_secs(29), "{:?}", asked.elapsed());
    assert!(stopped.printed.contains("cut at the drain deadline"), "{}", stopped.printed);
    // On a busy machine the record itself may have to wait for the next start.
    let config = std::fs::read_to_string(stopped.folder().join("flowtap.yaml")).expect("there");
    let stopped = Flowtap::again(stopped, &config).stop();
    let rest = clients[0].read_to_end();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "a cut stream looks cut");
    let books = Books::of(stopped.folder());
    assert_eq!(books.seen, 1, "{books:?}");
    assert_eq!(stopped.rows("exchanges")[0]["outcome"], "timeout", "by our own doing");
}

#[test]
fn who_is_late_is_named_and_the_process_ends_all_the_same() {
    let upstream = Upstream::answering(json_response("{}"));
    let setup = Setup::before(upstream.port).top("sample: {rate: 1}\ndrain_timeout: 500ms");
    let flowtap = setup.failing_at("pipeline:stall=20000").start();
    let mut client = flowtap.client();
    client.send(json_post("/score", "{}"));
    assert_eq!(client.read_response().status(), 200);
    let asked = Instant::now();
    let stopped = flowtap.stop();
    assert!(asked.elapsed() < Duration::from_secs(18), "{:?}", asked.elapsed());
    let line = stopped.printed.lines().find(|line| line.contains("the drain deadline passed"));
    assert!(line.is_some_and(|line| line.contains("pipeline")), "{}", stopped.printed);
}
