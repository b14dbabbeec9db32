//! What comes through is what would have come without flowtap: in time, in bytes, in kind. Cases 14, 15, 21,
//! 24, 29, 31, 32 and 45 of the catalogue.
#![allow(clippy::expect_used, clippy::panic)]

use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::streams::{chat_post, delta};
use crate::support::books::Books;
use crate::support::multiplexed::run;
use crate::support::process::resident_bytes;
use crate::support::tap::{Setup, Stopped};
use crate::support::wire::{Peer, Upstream, json_post, json_response};

const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

#[track_caller]
fn all_is_kept(stopped: &Stopped, seen: u64) {
    let books = Books::of(stopped.folder());
    assert_eq!((books.seen, books.stored, books.dropped.len()), (seen, seen, 0), "{books:?}");
}

/// Reads a stream of events, each of which says when it was sent, and how much later each came.
fn late(port: u16, began: Instant) -> (Vec<u8>, Vec<Duration>) {
    let mut client = Peer::connect(port);
    client.send(chat_post());
    let (mut bytes, mut late) = (client.read_head().into_bytes(), Vec::new());
    while let Some(event) = client.read_until(b"\n\n\r\n") {
        let came = began.elapsed();
        let text = String::from_utf8_lossy(&event).into_owned();
        let sent = text.rsplit("\"content\":\"").next().and_then(|rest| rest.split('"').next());
        let sent = sent.and_then(|sent| sent.trim().parse().ok()).map(Duration::from_micros);
        late.push(came.saturating_sub(sent.expect("when it was sent")));
        bytes.extend_from_slice(&event);
        if late.len() == EVENTS {
            break;
        }
    }
    bytes.extend(client.read_until(b"0\r\n\r\n").expect("the end"));
    late.sort_unstable();
    (bytes, late)
}

const EVENTS: usize = 200;

/// Promise (operations): events of a stream are not gathered on their way: the median event comes as soon
/// as it would without flowtap. Figure: 200 events with gaps of 0 to 19 ms, less than 50 ms added.
#[test]
fn events_come_as_soon_as_without_flowtap() {
    let began = Instant::now();
    let upstream = Upstream::start(move |peer| {
        peer.read_request();
        peer.send(STREAM_HEAD);
        for number in 0..EVENTS {
            std::thread::sleep(Duration::from_millis((number * 7 % 20) as u64));
            peer.chunk(delta(&format!("{:012}", began.elapsed().as_micros())));
        }
        peer.send("0\r\n\r\n");
    });
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 1}\ndrain_timeout: 25s").start();
    let (direct, through) = std::thread::scope(|scope| {
        let direct = scope.spawn(|| late(upstream.port, began));
        let through = late(flowtap.port, began);
        (direct.join().expect("read"), through)
    });
    assert_eq!((direct.1.len(), through.1.len()), (EVENTS, EVENTS));
    // But for the times, the bytes are the same.
    let shape = |bytes: &[u8]| {
        let letters = bytes.iter().map(|b| if b.is_ascii_digit() { b'0' } else { *b });
        String::from_utf8_lossy(&letters.collect::<Vec<_>>()).to_uppercase()
    };
    assert_eq!(shape(&direct.0), shape(&through.0));
    let added = through.1[EVENTS / 2].saturating_sub(direct.1[EVENTS / 2]);
    assert!(added < Duration::from_millis(50), "{added:?} added to the median event");
    all_is_kept(&flowtap.stop(), 1);
}

/// Case 15 of the catalogue.
/// Promise (operations): what the upstream says ahead of an answer (100, 102, 103) comes down as it is, at
/// once. Figure: 3 in a row, each there before the next is sent.
#[test]
fn what_is_said_ahead_of_an_answer_comes_down_at_once() {
    const AHEAD: [&str; 3] = [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 102 Processing\r\nX: 1\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nLink: </b>\r\n\r\n",
    ];
    let (seen, confirmed) = channel();
    let confirmed = Mutex::new(confirmed);
    let upstream = Upstream::start(move |peer| {
        while peer.read_request().is_some() {
            for ahead in AHEAD {
                peer.send(ahead);
                let confirmed = confirmed.lock().expect("not poisoned");
                confirmed.recv_timeout(Duration::from_secs(20)).expect("it has come down");
            }
            peer.send(json_response("{}"));
        }
    });
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 1}\ndrain_timeout: 25s").start();
    let mut client = flowtap.client();
    for _ in 0..2 {
        client.send(json_post("/score", "{}"));
        for ahead in AHEAD {
            assert_eq!(client.read_head(), ahead);
            seen.send(()).expect("the upstream waits");
        }
        assert_eq!(client.read_response().text(), "{}");
    }
    all_is_kept(&flowtap.stop(), 2);
}

/// Promise (operations): a client that leaves in mid-stream, at any point, ends the upstream's work, and what
/// it got is kept. Figure: 10 points, closed and reset in turn, 10 records of an aborted exchange.
#[test]
fn clients_that_leave_at_any_point_end_the_upstreams_work() {
    const POINTS: usize = 10;
    let (gone, noticed) = channel();
    let gone = Mutex::new(gone);
    let upstream = Upstream::start(move |peer| {
        peer.read_request();
        peer.send(STREAM_HEAD);
        while peer.chunk(delta("word ")) && !peer.is_closed_within(Duration::from_millis(5)) {}
        gone.lock().expect("not poisoned").send(()).ok();
    });
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 1}\ndrain_timeout: 25s").start();
    for point in 0..POINTS {
        let mut client = flowtap.client();
        client.send(chat_post());
        client.read_head();
        for _ in 0..point * point {
            client.read_until(b"\n\n").expect("an event");
        }
        if point % 2 == 0 {
            client.reset();
        }
        drop(client);
        noticed.recv_timeout(Duration::from_secs(20)).expect("the upstream's work ends");
    }
    let aborted = ["outcome=\"client_abort\"", "status=\"2xx\""];
    flowtap.await_metric("flowtap_requests_total", &aborted, POINTS as f64);
    flowtap.await_idle();
    let stopped = flowtap.stop();
    all_is_kept(&stopped, POINTS as u64);
    let words = |record: &serde_json::Value| {
        assert_eq!((&record["outcome"], &record["status"]), (&"client_abort".into(), &200.into()));
        record["answer"].as_str().unwrap_or_default().matches("word ").count()
    };
    let mut kept: Vec<usize> = stopped.rows("exchanges").iter().map(words).collect();
    kept.sort_unstable();
    assert!(kept[POINTS - 1] >= (POINTS - 1) * (POINTS - 1), "{kept:?}");
}

/// Promise (operations): a WebSocket's frames pass both ways as they are, its close at once, and none of it
/// is taken for text. Figure: 1 MiB of every byte each way.
#[test]
fn frames_of_a_websocket_pass_as_they_are() {
    const FRAME: usize = 64 * 1024;
    let bytes: Vec<u8> = (0..FRAME).map(|at| (at * 31 % 256) as u8).collect();
    let (echoed, sent) = (bytes.clone(), bytes);
    let upstream = Upstream::start(move |peer| {
        peer.read_head();
        peer.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nfirst");
        for _ in 0..16 {
            assert_eq!(peer.read_until(&echoed).as_deref(), Some(&*echoed));
            peer.send(&echoed);
        }
        // A close frame is answered by one.
        peer.read_until(b"\x88\x02\x03\xe8").expect("a close");
        peer.send(b"\x88\x02\x03\xe8");
        peer.half_close();
        peer.read_to_end();
    });
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 1}\ndrain_timeout: 25s").start();
    let mut client = flowtap.client();
    // The first frame may come with the request.
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: k\r\n\r\n");
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    assert_eq!(client.read_until(b"first").as_deref(), Some(b"first".as_slice()));
    for _ in 0..16 {
        client.send(&sent);
        assert!(client.read_until(&sent).as_deref() == Some(&*sent), "a frame changed");
    }
    let closing = Instant::now();
    client.send(b"\x88\x02\x03\xe8");
    assert_eq!(client.read_to_end(), b"\x88\x02\x03\xe8");
    assert!(closing.elapsed() < Duration::from_secs(5), "{:?}", closing.elapsed());
    drop(client);
    flowtap.await_idle();
    let stopped = flowtap.stop();
    all_is_kept(&stopped, 1);
    let record = stopped.rows("exchanges").remove(0);
    assert_eq!((&record["status"], &record["outcome"]), (&101.into(), &"ok".into()));
    assert_eq!(record["response"]["body"], serde_json::Value::Null, "{record}");
}

/// Promise (operations): bodies that are no text pass as they are, and nothing of them is kept as if they were:
/// no redactor can read them. Figure: 4 kinds, 256 values of a byte.
#[test]
fn bodies_that_are_no_text_pass_and_are_not_taken_for_text() {
    let body: Vec<u8> = (0..=255).collect();
    let upstream = Upstream::start(|peer| {
        while let Some(request) = peer.read_request() {
            let kind = request.header("content-type").expect("a type").to_owned();
            let length = request.raw_body.len();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
            );
            peer.send([head.as_bytes(), &request.raw_body].concat());
        }
    });
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 1}\ndrain_timeout: 25s").start();
    let mut client = flowtap.client();
    let kinds =
        ["application/octet-stream", "audio/wav", "image/png", "multipart/form-data; boundary=b"];
    for kind in kinds {
        client.send(format!(
            "POST /score HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: 256\r\n\r\n"
        ));
        client.send(&body);
        assert!(client.read_response().raw_body == body, "{kind}");
    }
    let stopped = flowtap.stop();
    all_is_kept(&stopped, kinds.len() as u64);
    for record in stopped.rows("exchanges") {
        for side in ["request", "response"] {
            assert_eq!(record[side]["bytes"], 256, "{record}");
            assert_eq!(record[side]["body"], serde_json::Value::Null, "{record}");
        }
        assert_eq!(record["redactions"]["binary"], 2, "{record}");
    }
}

/// Promise (operations): bodies of a gigabyte pass both ways with capture on. Figure: 1 GiB up and 1 GiB down,
/// 0 bytes changed, memory below +64 MiB.
#[test]
fn a_gigabyte_passes_each_way() {
    const PIECE: usize = 1 << 20;
    const PIECES: usize = 1 << 10;
    let piece: Arc<Vec<u8>> = Arc::new((0..PIECE).map(|at| (at * 7 % 251) as u8).collect());
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let flowtap = Setup::before(port).top("sample: {rate: 1}\ndrain_timeout: 25s").start();
        let (server_piece, client_piece) = (Arc::clone(&piece), Arc::clone(&piece));
        let length = format!(
            "Content-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
            PIECE * PIECES
        );
        let answer = format!("HTTP/1.1 200 OK\r\n{length}");
        let server = tokio::spawn(async move {
            let (mut peer, _) = listener.accept().await.expect("flowtap");
            await_head(&mut peer).await;
            same(&mut peer, &server_piece, PIECES).await;
            peer.write_all(answer.as_bytes()).await.expect("sent");
            for _ in 0..PIECES {
                peer.write_all(&server_piece).await.expect("sent");
            }
            peer
        });
        let before = resident_bytes(flowtap.id());
        let mut client = TcpStream::connect(("127.0.0.1", flowtap.port)).await.expect("connected");
        let head = format!("POST /score HTTP/1.1\r\nHost: a\r\n{length}");
        client.write_all(head.as_bytes()).await.expect("sent");
        for _ in 0..PIECES {
            client.write_all(&client_piece).await.expect("sent");
        }
        await_head(&mut client).await;
        same(&mut client, &client_piece, PIECES).await;
        let grown = resident_bytes(flowtap.id()).saturating_sub(before);
        assert!(grown < 64 << 20, "memory grew by {grown} bytes");
        drop((client, server.await.expect("served")));
        assert_eq!(flowtap.metric("flowtap_bytes_altered_total", &[]), 0.0);
        let stopped = flowtap.stop();
        all_is_kept(&stopped, 1);
        let record = stopped.rows("exchanges").remove(0);
        for side in ["request", "response"] {
            let kept = (&record[side]["bytes"], &record[side]["truncated"]);
            assert_eq!(kept, (&(PIECE * PIECES).into(), &true.into()));
        }
    });
}

/// Reads byte by byte to the end of a head.
async fn await_head(peer: &mut TcpStream) -> Vec<u8> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(peer.read_u8().await.expect("a head"));
    }
    head
}

/// Reads `pieces` that are each like `piece`.
async fn same(peer: &mut TcpStream, piece: &[u8], pieces: usize) {
    let mut read = vec![0; piece.len()];
    for _ in 0..pieces {
        peer.read_exact(&mut read).await.expect("a piece");
        assert!(read == piece, "a byte changed");
    }
}

/// Streams of one test: as many as a crowd of users has open at once.
const STREAMS: usize = 2_000;

/// Answers with one event, and with the last one when told.
async fn stream(mut peer: TcpStream, mut told: watch::Receiver<bool>) {
    await_head(&mut peer).await;
    let event = delta("word ");
    let chunk = format!("{:X}\r\n{event}\r\n", event.len());
    peer.write_all(format!("{STREAM_HEAD}{chunk}").as_bytes()).await.expect("sent");
    told.wait_for(|told| *told).await.expect("told");
    peer.write_all(format!("{chunk}0\r\n\r\n").as_bytes()).await.expect("sent");
}

/// Promise (operations): 2,000 streams at once are carried to their end, and what each takes is little.
/// Figure: 0 errors, below 64 KiB of memory a stream, all in the books.
#[test]
fn two_thousand_streams_at_once_are_carried_to_their_end() {
    let own = std::process::id().to_string();
    let raised =
        std::process::Command::new("prlimit").args(["--pid", &own, "--nofile=16384:"]).status();
    assert!(raised.expect("prlimit (util-linux) is there").success(), "16,384 files may be open");
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let (tell, told) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((peer, _)) = listener.accept().await {
                tokio::spawn(stream(peer, told.clone()));
            }
        });
        let flowtap = Setup::before(port).top("sample: {rate: 0.1}\ndrain_timeout: 25s").start();
        let (before, open) = (resident_bytes(flowtap.id()), Arc::new(Semaphore::new(64)));
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"stream\":true}";
        let clients: Vec<_> = (0..STREAMS)
            .map(|_| {
                let (open, begun, to) = (Arc::clone(&open), begun.clone(), flowtap.port);
                tokio::spawn(async move {
                    let opening = open.acquire().await.expect("open");
                    let mut client =
                        TcpStream::connect(("127.0.0.1", to)).await.expect("connected");
                    client.write_all(head.as_bytes()).await.expect("sent");
                    let mut came = await_head(&mut client).await;
                    drop(opening);
                    begun.send(()).expect("counted");
                    while !came.ends_with(b"\r\n0\r\n\r\n") {
                        let read = client.read_buf(&mut came).await.expect("the rest");
                        assert!(read > 0, "a stream was cut");
                    }
                    String::from_utf8_lossy(&came).matches("word ").count()
                })
            })
            .collect();
        for _ in 0..STREAMS {
            begins.recv().await.expect("each begins");
        }
        let each = resident_bytes(flowtap.id()).saturating_sub(before) / STREAMS as u64;
        tell.send(true).expect("heard");
        for client in clients {
            assert_eq!(client.await.expect("a whole stream"), 2);
        }
        assert!(each < 64 << 10, "{each} bytes a stream");
        flowtap.await_metric("flowtap_requests_total", &["outcome=\"ok\""], STREAMS as f64);
        let books = Books::of(flowtap.stop().folder());
        assert_eq!((books.seen, books.dropped.len()), (STREAMS as u64, 0), "{books:?}");
    });
}

/// Case 14 of the catalogue.
/// Promise (operations): a client that waits to be told to send its body (`Expect: 100-continue`) is told by
/// the upstream: with 100 the body goes up whole, without any it goes up when the client sends it, and with
/// a refusal the connection ends. Figure: 3 answers, 2 framings, on both ways.
#[test]
fn a_client_that_waits_is_told_by_the_upstream() {
    for way in ["", "limits: {headers_max: 99}"] {
        waits_and_is_told(way);
    }
}

fn waits_and_is_told(way: &str) {
    let upstream = Upstream::start(|peer| {
        loop {
            let head = peer.read_head();
            if head.contains("/refused") {
                peer.send("HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno");
            }
            if head.contains("/refused") || head.is_empty() {
                return drop(peer.read_to_end());
            }
            if head.contains("/told") {
                peer.send("HTTP/1.1 100 Continue\r\n\r\n");
            }
            peer.read_until(if head.contains("chunked") { b"body\r\n0\r\n\r\n" } else { b"body" });
            peer.send(json_response("{}"));
        }
    });
    let setup = Setup::before(upstream.port).tap(way);
    let flowtap = setup.top("sample: {rate: 1}\ndrain_timeout: 25s").start();
    for (framing, body) in
        [("Content-Length: 4", "body"), ("Transfer-Encoding: chunked", "4\r\nbody\r\n0\r\n\r\n")]
    {
        let asks = |path: &str| {
            let mut client = flowtap.client();
            client.send(format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n{framing}\r\n\r\n"
            ));
            client
        };
        let mut told = asks("/told");
        assert_eq!(told.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
        told.send(body);
        assert_eq!(told.read_response().text(), "{}");
        let mut silent = asks("/silent");
        silent.send(body);
        let first = silent.read_response();
        // hyper asks for a body that it reads, though it came unasked.
        let asked = !way.is_empty() && first.status() == 100;
        let answer = if asked { silent.read_response() } else { first };
        assert_eq!(answer.text(), "{}", "{way:?}");
        let mut refused = asks("/refused");
        let answer = refused.read_response();
        assert_eq!((answer.status(), answer.text().as_str()), (401, "no"));
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(refused.is_closed_within(Duration::from_secs(20)));
    }
    let received = upstream.received_text();
    assert_eq!(received.matches("Expect: 100-continue").count(), 6, "{received}");
    assert_eq!(received.matches("body").count(), 4, "{received}");
    let books = Books::of(flowtap.stop().folder());
    assert_eq!((books.seen, books.stored, books.dropped.len()), (6, 6, 0), "{books:?}");
}
