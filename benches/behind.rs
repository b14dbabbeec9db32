//! What an exchange costs behind the proxy: understood, measured, sampled, and, where it is kept,
//! redacted and spooled.
//!
//! ```sh
//! cargo bench --bench behind                       # microseconds an exchange of every case
//! cargo bench --bench behind -- chat passed 20000  # one case, so many times: for perf and callgrind
//! ```
//!
//! Instructions an exchange: run one case under callgrind with two numbers of exchanges, and divide
//! the difference; what starting costs cancels out.

#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a program for a terminal, whose faults end it"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use flowtap::capture::{BodyLimits, Recorder};
use flowtap::config::{self, Config, Overrides};
use flowtap::domain::{
    Exchange, ExchangeId, MemoryBudget, Outcome, SpanId, Timing, TraceContext, TraceId,
};
use flowtap::drain::Drain;
use flowtap::metrics::Metrics;
use flowtap::pipeline::{self, Outlets, Pipeline};
use flowtap::spool::Spool;
use http::{HeaderMap, HeaderValue, Method, header};
use jiff::Timestamp;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exchanges that are measured of each case where no number is given.
const EXCHANGES: usize = 20_000;
/// So many are handed over at once, as a busy proxy does.
const BATCH: usize = 120;
const CASES: &[&str] = &["chat", "stream", "large", "huge", "cut"];
const WORDS: &str = "the flow reads a question finds what the documents say about it and answers in a few plain sentences so that whoever asked can act on them without reading everything";

fn main() {
    let given: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let [case, kept, count] = given.as_slice() {
        let rate = if kept == "kept" { 1.0 } else { 0.0 };
        return run(case, rate, count.parse().expect("a number of exchanges"));
    }
    println!("CPU of an exchange by thread, in microseconds");
    for case in CASES {
        let count = if matches!(*case, "huge" | "cut") { EXCHANGES / 100 } else { EXCHANGES };
        run(case, 0.0, count);
        run(case, 1.0, count);
    }
}

/// Hands over `count` exchanges, waits until all is done with them, and tells what they cost.
fn run(case: &str, rate: f64, count: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    let config = configured(&folder.path().display().to_string(), rate);
    let metrics = Metrics::new(&config.metrics);
    let (now, instance) = (Timestamp::now(), Arc::clone(&config.instance));
    let (spool, _) = Spool::open(&config.spool, instance, metrics.clone(), now).expect("a spool");
    let (intake, outtake) = pipeline::intake(count, spool.ledger(), metrics.clone());
    let outlets = Outlets {
        metrics: metrics.clone(),
        ledger: spool.ledger(),
        spool: spool.writer(),
        tracer: None,
        budget: MemoryBudget::new(1 << 30),
    };
    let drain = Drain::default();
    Pipeline::new(&config, outlets).start(outtake, None, &drain).expect("threads");
    let (request, response, media) = bodies(case);
    for at in 0..count {
        intake.offer(exchange(&config, &request, &response, media));
        if at % BATCH == 0 {
            std::thread::sleep(Duration::from_millis(7));
        }
    }
    while metrics.sums("flowtap_requests_total", "tap").values().sum::<f64>() < count as f64 {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(300));
    let dropped: f64 = metrics.sums("flowtap_dropped_total", "reason").values().sum();
    let spent = THREADS.iter().map(|name| format!("{name} {:5.2}", cpu_us(name) / count as f64));
    println!("{case:7} rate {rate}: {}, {dropped} dropped", spent.collect::<Vec<_>>().join(", "));
    drop(intake);
    let late = drain.join("", Instant::now() + Duration::from_secs(60));
    assert!(late.is_empty(), "{late:?}");
}

const THREADS: &[&str] = &["pipeline", "tokens", "flowtap-spool"];

/// Microseconds that the threads of this name have run; those of earlier cases are gone.
fn cpu_us(name: &str) -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("threads");
    let of = |task: std::fs::DirEntry| {
        let comm = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let spent = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        let ran: f64 = spent.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0.0);
        if comm.trim() == name { ran / 1e3 } else { 0.0 }
    };
    tasks.flatten().map(of).sum()
}

fn configured(folder: &str, rate: f64) -> Config {
    let overrides = Overrides {
        upstream: Some("http://127.0.0.1:9".to_owned()),
        data_dir: Some(folder.to_owned()),
        ..Overrides::default()
    };
    let rate = [("FLOWTAP_SAMPLE__RATE".to_owned(), rate.to_string())];
    config::load(None, &overrides, &rate).expect("a configuration")
}

fn prose(bytes: usize) -> String {
    let words: Vec<&str> = WORDS.split(' ').collect();
    let mut text = String::new();
    for at in 0.. {
        if text.len() >= bytes {
            break;
        }
        text.push_str(words[at * 7 % words.len()]);
        text.push(' ');
    }
    text
}

fn bodies(case: &str) -> (String, String, &'static str) {
    let stream = case == "stream";
    let asked = format!(
        r#"{{"model": "gpt-4o-mini", "messages": [{{"role": "system", "content": "Answer briefly."}}, {{"role": "user", "content": "{}"}}]{}}}"#,
        prose(300),
        if stream { r#", "stream": true"# } else { "" },
    );
    let usage = r#""usage": {"prompt_tokens": 412, "completion_tokens": 318, "total_tokens": 730}"#;
    let head =
        r#""id": "chatcmpl-1", "object": "chat", "created": 1, "model": "gpt-4o-mini-2024-07-18""#;
    if !stream {
        let text = prose(match case {
            "large" => 65_000,
            "huge" => 1_000_000,
            // More than is captured: the middle is missing.
            "cut" => 1_200_000,
            _ => 1750,
        });
        let answer = format!(
            r#"{{{head}, "choices": [{{"index": 0, "finish_reason": "stop", "message": {{"role": "assistant", "content": "{text}"}}}}], {usage}}}"#
        );
        return (asked, answer, "application/json");
    }
    let words: Vec<&str> = WORDS.split(' ').collect();
    let mut events = String::new();
    for at in 0..48 {
        let word = words[at % words.len()];
        events.push_str(&format!(
            "data: {{{head}, \"choices\": [{{\"index\": 0, \"delta\": {{\"content\": \"{word} \"}}}}]}}\n\n"
        ));
    }
    events.push_str(&format!("data: {{{head}, \"choices\": [{{\"index\": 0, \"delta\": {{}}, \"finish_reason\": \"stop\"}}]}}\n\n"));
    events.push_str(&format!("data: {{{head}, \"choices\": [], {usage}}}\n\ndata: [DONE]\n\n"));
    (asked, events, "text/event-stream")
}

fn exchange(config: &Config, request: &str, response: &str, media: &'static str) -> Box<Exchange> {
    let now = Timestamp::now();
    let headers = |media: &'static str| {
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(media))])
    };
    let captured = |text: &str| {
        let budget = MemoryBudget::new(1 << 30);
        let mut recorder = Recorder::new(BodyLimits::of(1 << 20), &budget);
        text.as_bytes().chunks(64 << 10).for_each(|piece| recorder.record(piece, 100));
        recorder.complete();
        recorder.finish()
    };
    let id = ExchangeId::new(now);
    Box::new(Exchange {
        id,
        tap: Arc::clone(&config.taps[0].name),
        time: now,
        method: Method::POST,
        path: "/openai/deployments/plain/chat/completions".to_owned(),
        request_headers: headers("application/json"),
        request: captured(request),
        status: Some(200),
        response_headers: headers(media),
        response: captured(response),
        outcome: Outcome::Ok,
        fault: None,
        timing: Timing {
            total_us: 900,
            head_us: Some(800),
            first_byte_us: Some(850),
            overhead_us: 20,
        },
        request_id: Some(id.as_uuid()),
        trace: TraceContext {
            trace_id: TraceId::random(),
            span_id: SpanId::random(),
            parent_span_id: None,
            sampled: true,
        },
        alone: false,
    })
}
