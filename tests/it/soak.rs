//! Everything fails at once, for as long as is asked: upstreams that cut, reset and keep silent, clients
//! that leave, trickle and send nonsense, a bucket that goes and comes, a judge that hangs and lies,
//! a collector of spans that is not there, spans that are none. No client sees more than its upstream's
//! own faults, no sample is lost, and neither memory nor file descriptors grow.
//!
//! `make test` runs it for some seconds, `make soak` for half an hour (`TEST_SOAK_SECONDS`).
#![allow(clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod killed;
pub mod store;
mod surroundings;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::support::books::Books;
use crate::support::judge::{ScriptedJudge, completion};
use crate::support::process::{free_port, resident_bytes};
use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{Message, Peer, Upstream, json_post, json_response};

/// What all chance is drawn from.
const SEED: u64 = 8;
/// Clients that ask one question after another.
const CLIENTS: u64 = 6;
/// What memory may grow by once everything has been used.
const GROWTH_BYTES_MAX: u64 = 48 << 20;

/// A stream of numbers that is the same on every machine (SplitMix64).
pub struct Chance(pub u64);

impl Chance {
    /// The next one, below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

const ANSWER: &str = r#"{"answer":"forty-two","context":"the guide","usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#;

fn event(number: u64) -> String {
    format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"word {number} \"}}}}]}}\n\n")
}

/// Does what the request's path says.
fn obey(peer: &mut Peer, path: &str) -> bool {
    match path {
        "/ok" => peer.send(json_response(ANSWER)),
        "/close" => {
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ";
            peer.send(format!("{head}{}\r\n\r\n{ANSWER}", ANSWER.len()));
            false
        }
        "/error" => peer.send("HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno"),
        "/slow" => {
            thread::sleep(Duration::from_millis(100));
            peer.send(json_response(ANSWER))
        }
        "/stream" | "/reset" => {
            peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
            for number in 0..20 {
                if !peer.chunk(event(number)) {
                    return false;
                }
                thread::sleep(Duration::from_millis(2));
                if path == "/reset" && number == 5 {
                    peer.reset();
                    return false;
                }
            }
            peer.send("0\r\n\r\n")
        }
        "/cut" => {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nnot all of it");
            false
        }
        "/nonsense" => {
            peer.send("HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: x\r\n\r\n");
            false
        }
        _ => false,
    }
}

fn upstream() -> Upstream {
    Upstream::start(|peer| {
        while let Some(request) = peer.read_request() {
            let path = request.head.split(' ').nth(1).unwrap_or_default().to_owned();
            if !obey(peer, &path) {
                return;
            }
        }
    })
}

const PATHS: [&str; 10] =
    ["/ok", "/ok", "/ok", "/stream", "/close", "/error", "/slow", "/cut", "/reset", "/nonsense"];

/// Notes an answer that no upstream gave; the first ones say enough to be explained: `when` it was, what
/// had been asked how long before on which connection, what came, and why no more did.
fn tell(wrong: &mut Vec<String>, when: Timestamp, asked: &Asked, answer: &Message) {
    if wrong.len() < 20 {
        let Asked { path, port, bytes, at } = asked;
        let (head, came, text) = (&answer.head, answer.raw_body.len(), answer.text());
        let told =
            head.lines().find(|line| line.to_ascii_lowercase().starts_with("content-length"));
        wrong.push(format!(
            "{when}: {path} with {bytes} bytes, asked {:?} before from port {port}: {came} bytes of {}, {:?}: {head}{text}",
            at.elapsed(),
            told.unwrap_or("chunks"),
            answer.end,
        ));
    }
}

/// A question that was sent.
struct Asked {
    path: &'static str,
    port: u16,
    bytes: usize,
    at: Instant,
}

/// Sends a question.
fn ask(peer: &mut Peer, path: &'static str, body: &str) -> Asked {
    let asked = Asked { path, port: peer.own_port(), bytes: body.len(), at: Instant::now() };
    peer.send(json_post(path, body));
    asked
}

/// What a client may see of a path, had it asked the upstream itself.
fn is_upstreams_own(path: &str, answer: &Message) -> bool {
    let whole = |status: u16, text: &str| {
        answer.complete && answer.status() == status && answer.text() == text
    };
    match path {
        "/error" => whole(503, "no"),
        "/stream" => whole(200, &(0..20).map(event).collect::<String>()),
        "/cut" => answer.status() == 200 && !answer.complete && answer.text() == "not all of it",
        // A reset throws away what was not read yet.
        "/reset" => !answer.complete || answer.status() == 502,
        "/nonsense" | "/nothing" => answer.status() == 502,
        _ => whole(200, ANSWER),
    }
}

/// Asks until it is over; gives back how often, and what was wrong.
fn client(port: u16, mut chance: Chance, over: &AtomicBool) -> (u64, Vec<String>) {
    let (mut asked, mut wrong, mut peer) = (0, Vec::new(), Peer::connect(port));
    while !over.load(Ordering::Relaxed) {
        let path = PATHS[chance.below(PATHS.len() as u64) as usize];
        let size = chance.below(12_000) as usize;
        asked += 1;
        let question = ask(&mut peer, path, &format!("{{\"question\":\"{}\"}}", "q".repeat(size)));
        if path == "/stream" && chance.below(4) == 0 {
            // Leaves in the middle, in order or not.
            peer.read_until(b"word 3");
            if chance.below(2) == 0 {
                peer.reset();
            }
            peer = Peer::connect(port);
            continue;
        }
        let answer = peer.read_response();
        if !is_upstreams_own(path, &answer) {
            tell(&mut wrong, Timestamp::now(), &question, &answer);
        }
        if !answer.complete || answer.header("connection") == Some("close") {
            peer = Peer::connect(port);
        }
    }
    (asked, wrong)
}

/// Sends what is no request, and heads that never end.
fn nuisance(port: u16, mut chance: Chance, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let mut trickling: Vec<_> = (0..10).map(|_| Peer::connect(port)).collect();
        for _ in 0..5 {
            trickling.iter_mut().for_each(|peer| _ = peer.send("G"));
            let mut peer = Peer::connect(port);
            peer.send(match chance.below(4) {
                0 => "POST /ok HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                1 => "GET /ok HTTP/1.1\r\n\r\n",
                2 => "\u{0}\u{1}\u{2}\r\n\r\n",
                _ => "POST /ok HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nbegun",
            });
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Takes the bucket away and brings it back, with all that was in it.
fn bucket_comes_and_goes(folder: &Path, mut chance: Chance, over: &AtomicBool) {
    let (bucket, away) = (folder.join("bucket"), folder.join("away"));
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(300 + chance.below(2_000)));
        if std::fs::rename(&bucket, &away).is_err() {
            continue;
        }
        // What is in the way lets nobody write there, not even root; a folder may have come before it.
        // On a full disk the file is there, and empty.
        let blocked = std::fs::write(&bucket, "in the way").is_ok() || bucket.is_file();
        thread::sleep(Duration::from_millis(300 + chance.below(1_500)));
        if blocked {
            std::fs::remove_file(&bucket).expect("the way is clear");
        }
        merge(&away, &bucket);
    }
}

/// Moves all below `from` into `to`; an object that is there already is the same one.
fn merge(from: &Path, to: &Path) {
    if std::fs::rename(from, to).is_ok() {
        return;
    }
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => merge(&entry.path(), &target),
            false => std::fs::rename(entry.path(), &target).expect("moved"),
        }
    }
    let _ = std::fs::remove_dir_all(from);
}

fn judge() -> ScriptedJudge {
    let turn = AtomicU64::new(0);
    ScriptedJudge::start(move |asked| match turn.fetch_add(1, Ordering::Relaxed) % 5 {
        0 => None,
        1 => Some(completion("<html>").into_bytes()),
        2 => Some(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_vec()),
        3 => Some(completion(&asked.verdict(11)).into_bytes()),
        _ => Some(completion(&asked.verdict(4)).into_bytes()),
    })
}

fn files_open(process: u32) -> usize {
    std::fs::read_dir(format!("/proc/{process}/fd")).expect("a process").count()
}

/// Memory and file descriptors once all is quiet.
fn at_rest(flowtap: &Flowtap) -> (u64, usize) {
    flowtap.await_idle();
    let deadline = Instant::now() + Duration::from_secs(30);
    while flowtap.metric("flowtap_client_connections", &[]) > 0.0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(100));
    }
    (resident_bytes(flowtap.id()), files_open(flowtap.id()))
}

/// Waits until the bucket has what it was away for, for as long as it gets more of it: after a refusal it is
/// left alone for a minute.
fn all_is_brought(flowtap: &Flowtap) {
    let (mut fewest, mut since) = (f64::INFINITY, Instant::now());
    loop {
        let waiting = flowtap.metric("flowtap_spool_segments", &[]);
        if waiting <= 1.0 {
            return;
        }
        if waiting < fewest {
            (fewest, since) = (waiting, Instant::now());
        }
        let late = since.elapsed() > Duration::from_secs(180);
        assert!(!late, "{waiting} segments wait:\n{}", flowtap.metrics());
        thread::sleep(Duration::from_millis(200));
    }
}

/// A span of time in which everything fails; gives back how much was asked.
fn chaos(flowtap: &Flowtap, length: Duration, seed: u64) -> u64 {
    let over = Arc::new(AtomicBool::new(false));
    let (port, folder) = (flowtap.port, flowtap.folder().to_owned());
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let over = Arc::clone(&over);
            thread::spawn(move || client(port, Chance(seed * 100 + n), &over))
        })
        .collect();
    let flag = Arc::clone(&over);
    let nuisance = thread::spawn(move || nuisance(port, Chance(seed), &flag));
    let flag = Arc::clone(&over);
    let bucket = thread::spawn(move || bucket_comes_and_goes(&folder, Chance(seed), &flag));
    let until = Instant::now() + length;
    let spans = flowtap.port_of_endpoint("otlp_http");
    while Instant::now() < until {
        assert!(flowtap.metrics().contains("flowtap_in_flight_requests"));
        let mut peer = Peer::connect(spans);
        peer.send(json_post("/v1/traces", "{\"resourceSpans\":[{\"scopeSpans\":7}]}"));
        assert!(peer.read_response().status() >= 400);
        thread::sleep(Duration::from_millis(200));
    }
    over.store(true, Ordering::Relaxed);
    nuisance.join().expect("no panic");
    bucket.join().expect("no panic");
    let ended = clients.into_iter().map(|client| client.join().expect("no panic"));
    let (asked, wrong): (Vec<u64>, Vec<Vec<String>>) = ended.unzip();
    let wrong = wrong.concat();
    assert!(wrong.is_empty(), "clients saw what was not their upstream's:\n{}", wrong.join("\n"));
    asked.iter().sum()
}

/// Case 80 of the catalogue.
/// Promise (operations): when everything fails at once, clients see their upstream's faults alone, and
/// no sample is lost. Figure: 10 s (30 min in `make soak`): 0 other errors, memory below +48 MiB, files
/// below +16.
#[test]
fn when_everything_fails_at_once_clients_see_their_upstreams_faults_alone() {
    let seconds = std::env::var("TEST_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(10));
    let (upstream, judge, nobody) = (upstream(), judge(), free_port());
    let setup = Setup::before(upstream.port);
    // One segment a second: each costs the bucket's disk some fsyncs, and that may be a slow one.
    let spool = format!("spool: {{dir: {}/spool, segment_age: 1s}}", setup.folder().display());
    let flowtap = setup
        .tap("timeouts: {header: 2s}")
        .top(&spool)
        .top("sample: {rate: 1}\ncollector: {otlp_http: 127.0.0.1:0}\nevaluate: {poll: 500ms}")
        .top(&format!("judge: {{url: \"{}\", model: scripted, retry_for: 1s}}", judge.url()))
        .top(&format!("trace: {{otlp_endpoint: \"http://127.0.0.1:{nobody}\", protocol: http}}"))
        .start();
    // All that is built once has been built after a fifth of the time.
    let mut asked = chaos(&flowtap, length / 5, SEED);
    let (memory, files) = at_rest(&flowtap);
    asked += chaos(&flowtap, length * 4 / 5, SEED + 1);
    let (memory_after, files_after) = at_rest(&flowtap);
    let growth = memory_after.saturating_sub(memory);
    assert!(growth <= GROWTH_BYTES_MAX, "memory grew from {memory} to {memory_after}");
    assert!(files_after <= files + 16, "files open: {files}, then {files_after}");
    assert_eq!(flowtap.metric("flowtap_bytes_altered_total", &[]), 0.0);
    assert_eq!(flowtap.metric("flowtap_panics_total", &[]), 0.0);
    let attested = flowtap.metric("flowtap_attested_total", &[]);
    all_is_brought(&flowtap);
    let stopped = flowtap.stop();
    let books = Books::of(stopped.folder());
    let samples = stopped.rows("exchanges");
    let ids: BTreeSet<_> = samples.iter().map(|sample| sample["id"].to_string()).collect();
    assert_eq!((ids.len() as u64, samples.len() as u64), (books.stored, books.stored), "{books:?}");
    assert!(books.seen >= asked, "{books:?}, {asked} asked");
    println!(
        "{length:?}: {asked} asked, {books:?}, {attested} attested and 0 altered, memory +{} KiB, files {files} then \
         {files_after}",
        growth >> 10
    );
}
