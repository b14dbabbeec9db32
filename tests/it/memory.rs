//! Little memory: the sidecar in a control group of its own, with the limit that the kernel kills by.
//! Watching gives way, step by step; the traffic does not.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::streams::{chat_post, delta};
use crate::support::books::Books;
use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{Peer, Upstream, json_post, json_response};

const MIB: usize = 1 << 20;
/// Of a sidecar that asks for almost nothing.
const LIMIT_BYTES: usize = 64 * MIB;
const STREAMS: usize = 60;
const CLIENTS: usize = 6;
const REQUESTS_EACH: usize = 15;

/// A control group with a memory limit, of either version; removed with the test.
struct Group(PathBuf);

impl Group {
    /// `None` where the machine lets nobody make one.
    fn with_limit(bytes: usize) -> Option<Self> {
        let name = format!("flowtap-test-{}", std::process::id());
        let places =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        places.iter().find_map(|(root, limit)| {
            let group = Self(PathBuf::from(root).join(&name));
            fs::create_dir(&group.0).ok()?;
            fs::write(group.0.join(limit), bytes.to_string()).ok()?;
            Some(group)
        })
    }

    /// How often the kernel killed in it.
    fn kills(&self) -> u64 {
        let files = ["memory.oom_control", "memory.events"];
        let text = files.iter().find_map(|file| fs::read_to_string(self.0.join(file)).ok());
        let text = text.expect("the group tells of kills");
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.trim().parse().ok()).expect("a count of kills")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel needs a moment to bury what ended in it.
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Streams to `/v1/chat/completions` until it is told to end; echoes the size of any other body.
fn upstream(ending: &Arc<AtomicBool>) -> Upstream {
    let ending = Arc::clone(ending);
    Upstream::start(move |peer| {
        while let Some(request) = peer.read_request() {
            if request.head.starts_with("POST /v1/chat/completions") {
                stream(peer, &ending);
            } else {
                let answer = "a".repeat(MIB);
                let bytes = request.raw_body.len();
                peer.send(json_response(&format!("{{\"answer\":\"{answer}\",\"bytes\":{bytes}}}")));
            }
        }
    })
}

fn stream(peer: &mut Peer, ending: &AtomicBool) {
    peer.send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for _ in 0..200 {
        peer.chunk(delta(&"word ".repeat(200)));
    }
    let deadline = Instant::now() + Duration::from_secs(120);
    while !ending.load(Ordering::SeqCst) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(200));
    }
    peer.chunk(delta("the end"));
    peer.send("0\r\n\r\n");
}

fn begin_stream(flowtap: &Flowtap) -> Peer {
    let mut client = flowtap.client();
    client.send(chat_post());
    assert!(client.read_head().starts_with("HTTP/1.1 200"));
    client
}

#[track_caller]
fn await_ends(streams: Vec<Peer>) {
    for mut client in streams {
        assert!(client.read_until(b"the end").is_some(), "a stream was cut");
        assert!(client.read_until(b"\r\n0\r\n\r\n").is_some(), "a stream has no end");
    }
}

/// Every client sends large bodies one after another, and gets each answer whole.
fn send_large(port: u16) {
    let question = format!("{{\"question\":\"{}\"}}", "q".repeat(MIB));
    let expected = format!("\"bytes\":{}}}", question.len());
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut client = Peer::connect(port);
                for _ in 0..REQUESTS_EACH {
                    client.send(json_post("/score", &question));
                    let answer = client.read_response();
                    assert_eq!((answer.status(), answer.complete), (200, true));
                    assert!(answer.raw_body.len() > MIB && answer.text().ends_with(&expected));
                }
            });
        }
    });
}

#[test]
fn with_64_mib_nothing_is_killed_and_every_byte_arrives() {
    let Some(group) = Group::with_limit(LIMIT_BYTES) else {
        return eprintln!("skipped: needs root and control groups");
    };
    let ending = Arc::new(AtomicBool::new(false));
    let upstream = upstream(&ending);
    let procs = group.0.join("cgroup.procs").display().to_string();
    let enter = "echo $$ >\"$0\" && exec \"$@\"";
    let flowtap = Setup::before(upstream.port)
        .command("proxy")
        .by(&["sh", "-c", enter, &procs])
        .top("sample: {rate: 1}")
        .start();
    assert_eq!(flowtap.metric("flowtap_memory_limit_bytes", &[]), LIMIT_BYTES as f64);
    let streams: Vec<Peer> = (0..STREAMS).map(|_| begin_stream(&flowtap)).collect();
    send_large(flowtap.port);
    ending.store(true, Ordering::SeqCst);
    await_ends(streams);
    flowtap.await_idle();
    let stopped = flowtap.stop();
    assert_eq!(group.kills(), 0, "{}", stopped.printed);
    let books = Books::of(stopped.folder());
    let passed = (STREAMS + CLIENTS * REQUESTS_EACH) as u64;
    assert_eq!(books.seen, passed, "{books:?}");
    let told = books.stored + books.lost("capture", "memory");
    assert_eq!(told, passed, "each is stored or accounted for: {books:?}");
}

/// Here the limit is a key, so that no rights are needed: kept streams bring the process up to it.
#[test]
fn near_its_limit_less_is_looked_at_and_traffic_passes_all_the_same() {
    let ending = Arc::new(AtomicBool::new(false));
    let upstream = upstream(&ending);
    let flowtap = Setup::before(upstream.port)
        .command("proxy")
        .top("sample: {rate: 1}\ncapture: {process_bytes_max: 16MiB}")
        .start();
    let mut streams = Vec::new();
    while flowtap.metric("flowtap_capture_level", &["cause=\"memory\""]) < 1.0 {
        assert!(streams.len() < 400, "{}", flowtap.metrics());
        streams.push(begin_stream(&flowtap));
    }
    // It stays so while they are kept.
    let mut client = flowtap.client();
    client.send(json_post("/score", "{\"question\":\"?\"}"));
    let answer = client.read_response();
    assert_eq!((answer.status(), answer.complete, answer.raw_body.len() > MIB), (200, true, true));
    drop(client);
    let passed = streams.len() as u64 + 1;
    ending.store(true, Ordering::SeqCst);
    await_ends(streams);
    flowtap.await_idle();
    let shed = flowtap.metric("flowtap_capture_shed_total", &["cause=\"memory\""]);
    assert!(shed >= 1.0, "{}", flowtap.metrics());
    let stopped = flowtap.stop();
    let books = Books::of(stopped.folder());
    let told = books.stored + books.lost("capture", "memory");
    assert_eq!((books.seen, told), (passed, passed), "each is accounted for: {books:?}");
}
