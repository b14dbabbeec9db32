//! The index at size: how fast a bucket is read into it, in how much memory, and how long the API and a
//! monitor over seven days take to answer from it. Everything goes the way that `flowtap hub` goes, over a
//! bucket on the disk.
//!
//! ```sh
//! cargo bench --bench store                        # 1 million samples, 10 million rollup rows, 90 days
//! cargo bench --bench store -- 100000 77 9         # samples, rollup rows a minute, days
//! cargo bench --bench store -- 200000 0 1 --plain  # no scores, answers of 2 KiB: what `flowtap run` indexes
//! ```
//!
//! A folder as the fourth argument is kept, with the bucket and the index in it.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a program for a terminal, whose faults end it"
)]

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use flowtap::app::Hub;
use flowtap::bucket;
use flowtap::config::{self, Config, Overrides, Role};
use flowtap::domain::ExchangeId;
use flowtap::monitor::{Indexed, Runner};
use flowtap::store::Store;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ADMIN: &str = "127.0.0.1:19674";
const DEPLOYMENTS: u64 = 7;
const CRITERIA: [&str; 4] = ["groundedness", "relevance", "coherence", "fluency"];
/// It is not due while this runs.
const MONITOR: &str = "monitors: [{name: weekly, schedule: '0 0 1 1 *', signals: {generation_quality: \
                       {average: {fluency: 4, groundedness: 4}, pass_rate: {coherence: 0.7}}, \
                       token_statistics: {total_tokens_max: 1000000000}, operations: {error_rate_max: \
                       0.05, latency_p95_max: 30s}}}]";
const WORDS: &str = "the flow reads a question finds what the documents say about it and answers in a few plain sentences so that whoever asked can act on them without reading everything again";

/// What is made and read.
struct Size {
    samples: u64,
    rows_a_minute: u64,
    days: i64,
    /// Nothing was judged, and answers are long.
    plain: bool,
}

fn main() {
    let given: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let number = |at: usize, usual: u64| -> u64 {
        given.get(at).map_or(usual, |text| text.parse().expect("a number"))
    };
    let days = i64::try_from(number(2, 90)).expect("days");
    let plain = std::env::args().any(|arg| arg == "--plain");
    let size = Size { samples: number(0, 1_000_000), rows_a_minute: number(1, 77), days, plain };
    let temporary = tempfile::tempdir().expect("a folder");
    let folder = given.get(3).map_or(temporary.path().to_owned(), PathBuf::from);
    let end = Timestamp::now();
    let started = Instant::now();
    let made = make(&folder.join("bucket"), &size, end);
    println!("made {made} lines in {:.0} s", started.elapsed().as_secs_f64());
    let base = resident_bytes();
    let started = Instant::now();
    let config = configured(&folder);
    let hub = Hub::start(&config, false).expect("a hub");
    let (mut peak, mut told) = (0, 0);
    while get("/overview").1.get("caught_up").is_none_or(Value::is_null) {
        std::thread::sleep(Duration::from_secs(1));
        peak = peak.max(resident_bytes());
        if started.elapsed().as_secs() / 60 > told {
            told += 1;
            println!("  {told} min, {} MiB resident", peak >> 20);
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    println!("read {made} lines in {seconds:.0} s: {:.0} a second", made as f64 / seconds);
    println!("CPU: {:.1} s in `ingest`, {:.1} s in `store`", cpu_of("ingest"), cpu_of("store"));
    println!("resident: {} MiB before, {} MiB at most", base >> 20, peak >> 20);
    let health = get("/health").1;
    println!("index: {} MiB", health["index"]["bytes"].as_u64().unwrap_or(0) >> 20);
    ask(end);
    hub.stop();
    run_monitor(&config, end);
}

/// A monitor over seven days, with every signal: the first run after the index was opened, and more.
fn run_monitor(config: &Config, end: Timestamp) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (store, _writer) = Store::open(&config.store, false).expect("a store");
    let bucket = runtime.block_on(bucket::open(&config.bucket)).expect("a bucket");
    let index = Indexed::new(store, Arc::new(|| Some(Timestamp::now())));
    let runner = Runner::new(bucket, config).with_index(index);
    let mut took = Vec::new();
    for _ in 0..6 {
        let started = Instant::now();
        let run = runtime.block_on(runner.manual(&config.monitors[0], end, Timestamp::now()));
        took.push(started.elapsed().as_millis());
        let run = run.expect("a run");
        let figures = run.signals.iter().map(|signal| signal.measures.len()).sum::<usize>();
        assert!(figures > 15 && run.signals.len() == 3, "{run:?}");
    }
    let first = took.remove(0);
    took.sort_unstable();
    println!("\na seven-day monitor: {first} ms the first time, then {} (middle of 5)", took[2]);
}

/// Each question three times; the slowest and the middle one.
fn ask(end: Timestamp) {
    let ago = |hours: i64| end - SignedDuration::from_hours(hours);
    let window = |hours: i64| format!("from={}&to={end}", ago(hours));
    println!("\n| Question | Window | ms, middle of 5 | ms, slowest |\n|---|---|---|---|");
    for (path, more) in [
        ("/overview", ""),
        ("/usage", "&by=model"),
        ("/operations", "&by=deployment"),
        ("/quality", ""),
        ("/samples", ""),
        ("/samples", "&outcome=upstream_error"),
        ("/samples", "&q=documents+question"),
        ("/samples", "&q=seldom"),
        ("/samples", "&sort=latency"),
        ("/samples", "&sort=score&criterion=fluency"),
        ("/samples", "&score=1&criterion=groundedness"),
        ("/health", ""),
    ] {
        for (hours, name) in [(24, "a day"), (7 * 24, "7 days"), (90 * 24, "90 days")] {
            let mut took: Vec<u128> = (0..5)
                .map(|_| {
                    let started = Instant::now();
                    let (status, answer) = get(&format!("{path}?{}{more}", window(hours)));
                    assert_eq!(status, 200, "{path}{more}: {answer}");
                    started.elapsed().as_millis()
                })
                .collect();
            took.sort_unstable();
            let asked = format!("{path}{}", more.replacen('&', "?", 1));
            println!("| `{asked}` | {name} | {} | {} |", took[2], took[4]);
        }
    }
}

/// One GET of `/api/v1` + `path`.
fn get(path: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(ADMIN).expect("the hub listens");
    let head =
        format!("GET /api/v1{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let status = answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or_default())
}

fn configured(folder: &Path) -> Config {
    let text = format!(
        "bucket: file://{0}/bucket\nstore: {{dir: {0}/index, retention: {{age: 200d, bytes_max: 100GiB}}}}\nadmin: {{listen: {ADMIN}}}\n{MONITOR}\n",
        folder.display()
    );
    let file = folder.join("hub.yaml");
    std::fs::write(&file, text).expect("written");
    let overrides = Overrides { role: Role::Hub, ..Overrides::default() };
    config::load(Some(&file), &overrides, &[]).unwrap_or_else(|faults| panic!("{faults}"))
}

/// Makes the bucket; returns its lines.
fn make(bucket: &Path, size: &Size, end: Timestamp) -> u64 {
    let first = end - SignedDuration::from_hours(24 * size.days);
    let hours = u64::try_from(size.days * 24).expect("hours");
    let (mut lines, mut made) = (0, 0);
    for hour in 0..hours {
        let start = first.as_second() / 3600 * 3600 + 3600 * i64::try_from(hour).expect("an hour");
        let until = size.samples * (hour + 1) / hours;
        for deployment in 0..DEPLOYMENTS {
            let wanted = (until - made) / (DEPLOYMENTS - deployment);
            lines += hour_of(bucket, size, start, deployment, made..made + wanted);
            made += wanted;
        }
    }
    lines
}

/// One hour of one deployment: its samples, their scores, and its rollups.
fn hour_of(
    bucket: &Path,
    size: &Size,
    start: i64,
    deployment: u64,
    samples: std::ops::Range<u64>,
) -> u64 {
    let (mut exchanges, mut scores, mut usage) = (String::new(), String::new(), String::new());
    let mut lines = 0;
    let count = samples.end - samples.start;
    for (index, n) in samples.enumerate() {
        let offset = 3_600_000_000 * index as i64 / count as i64;
        let time = Timestamp::from_microsecond(start * 1_000_000 + offset).expect("a time");
        let id = ExchangeId::new(time);
        let _ = writeln!(exchanges, "{}", sample(n, id, time, deployment, size.plain));
        let judged: &[&str] = if size.plain { &[] } else { &CRITERIA };
        for (at, criterion) in judged.iter().enumerate() {
            let _ = writeln!(scores, "{}", score(n + at as u64, id, time, criterion, deployment));
        }
        lines += 1 + judged.len() as u64;
    }
    for minute in 0..60 {
        let time = Timestamp::from_second(start + 60 * minute).expect("a time");
        for row in (deployment..size.rows_a_minute).step_by(DEPLOYMENTS as usize) {
            let _ = writeln!(usage, "{}", rollup(row, minute, time, deployment));
            lines += 1;
        }
    }
    let hour = Timestamp::from_second(start).expect("a time").strftime("date=%Y-%m-%d/hour=%H");
    for (dataset, text) in [("exchanges", exchanges), ("scores", scores), ("usage", usage)] {
        let folder = bucket.join(format!("{dataset}/deployment=d{deployment}/{hour}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = File::create(folder.join("pod-0000000000000000-00000001.jsonl.gz"));
        let mut packer = GzEncoder::new(file.expect("a file"), Compression::new(1));
        packer.write_all(text.as_bytes()).expect("written");
        packer.finish().expect("written");
    }
    lines
}

fn sample(n: u64, id: ExchangeId, time: Timestamp, deployment: u64, long: bool) -> Value {
    let words: Vec<_> = WORDS.split(' ').collect();
    let text = |from: u64, count: u64| -> String {
        let word = |i: u64| words[((from * 31 + i * i * 7 + i) % words.len() as u64) as usize];
        (0..count).map(word).collect::<Vec<_>>().join(" ")
    };
    let seldom = if n.is_multiple_of(10_000) { " seldom" } else { "" };
    let (question, answer) =
        (format!("{} {n}{seldom}?", text(n, 14)), text(n + 5, if long { 330 } else { 60 }));
    let failed = n.is_multiple_of(50);
    json!({
        "schema": "flowtap.exchange.v1", "id": id, "time": time, "tap": "chat",
        "deployment": format!("d{deployment}"), "instance": "pod", "dialect": "openai",
        "operation": "chat", "method": "POST", "path": "/v1/chat/completions",
        "status": if failed { 500 } else { 200 },
        "outcome": if failed { "upstream_error" } else { "ok" }, "fault": null,
        "model": {"request": "gpt-4", "response": format!("gpt-4-{}", n % 11)}, "stream": true,
        "latency_ms": 200.0 + (n * 7919 % 10_000) as f64, "first_byte_ms": 90.0,
        "first_token_ms": 100.0 + (n * 104_729 % 900) as f64, "overhead_us": 40,
        "usage": {"input": 50 + n % 400, "output": 20 + n % 90, "total": 70 + n % 400 + n % 90,
                  "cached_input": null, "reasoning_output": null, "source": "reported"},
        "calls": [], "question": question, "answer": answer, "context": text(n + 9, 80),
        "ground_truth": null, "chat_history": [],
        "request": {"headers": {"content-type": "application/json"},
                    "body": {"messages": [{"role": "user", "content": question}]},
                    "bytes": 300, "truncated": false},
        "response": {"headers": {"content-type": "application/json"},
                     "body": {"choices": [{"message": {"content": answer}}]},
                     "bytes": 500, "truncated": false},
        "trace_id": null, "span_id": null, "request_id": null, "redactions": {},
        "sample": {"reason": "rate", "probability": if failed { 1.0 } else { 0.1 }},
    })
}

fn score(n: u64, exchange: ExchangeId, time: Timestamp, criterion: &str, deployment: u64) -> Value {
    let score = [5, 5, 4, 5, 3, 4, 5, 2, 5, 4, 1][(n % 11) as usize];
    json!({
        "schema": "flowtap.score.v1", "id": ExchangeId::new(time), "time": time,
        "exchange": exchange, "exchange_time": time, "tap": "chat",
        "deployment": format!("d{deployment}"), "instance": "pod", "criterion": criterion,
        "score": score, "error": null, "reason": "it says what the context says, and no more",
        "probability": 0.1, "injection_suspect": false,
        "judge": {"model": "gpt-4", "prompt": format!("{criterion}@1"), "input": 900, "output": 40,
                  "latency_ms": 700.0},
    })
}

fn rollup(row: u64, minute: i64, time: Timestamp, deployment: u64) -> Value {
    let minute = u64::try_from(minute).expect("a minute");
    let histogram = |middle: i64| {
        let buckets: serde_json::Map<_, _> =
            (0..6).map(|i| ((middle + i).to_string(), json!(1 + (minute + row) % 3))).collect();
        let count = 6 * (1 + (minute + row) % 3);
        json!({"count": count, "sum": 1234.5, "min": 10.0, "max": 9000.0, "zero": 0,
               "buckets": buckets})
    };
    let count = 6 * (1 + (minute + row) % 3);
    json!({
        "schema": "flowtap.usage.v1", "time": time, "tap": "chat",
        "deployment": format!("d{deployment}"), "instance": "pod",
        "model": format!("gpt-4-{}", row / DEPLOYMENTS), "operation": "chat", "outcome": "ok",
        "stream": true, "count": count,
        "tokens": {"reported": {"count": count, "input": 5000, "output": 900, "total": 5900,
                                "cached_input": 0, "reasoning_output": 0}},
        "usage_unknown": 0, "latency_ms": histogram(70), "first_token_ms": histogram(50),
        "input_tokens": histogram(60), "output_tokens": histogram(45),
    })
}

/// CPU seconds that the thread of this name has used.
fn cpu_of(thread: &str) -> f64 {
    let threads = std::fs::read_dir("/proc/self/task").expect("Linux").flatten();
    let used = threads.filter_map(|entry| {
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).ok();
        let stat = read("comm").filter(|name| name.trim() == thread).and_then(|_| read("stat"))?;
        // Some are below zero, such as the terminal's group where there is no terminal.
        let fields: Vec<i64> =
            stat.rsplit(')').next()?.split(' ').filter_map(|field| field.parse().ok()).collect();
        // After the state: 10 and 11 are the ticks in user and kernel mode.
        Some((fields.get(10)? + fields.get(11)?) as f64 / 100.0)
    });
    used.sum()
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}
