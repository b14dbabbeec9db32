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

mod given;

use std::sync::Arc;
use std::time::{Duration, Instant};

use flowtap::domain::MemoryBudget;
use flowtap::drain::Drain;
use flowtap::metrics::Metrics;
use flowtap::pipeline::{self, Outlets, Pipeline};
use flowtap::spool::Spool;
use flowtap::tokens::Counting;
use given::{CASES, bodies, configured, exchange};
use jiff::Timestamp;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exchanges that are measured of each case where no number is given.
const EXCHANGES: usize = 20_000;
/// So many are handed over at once, as a busy proxy does, and of long ones no more than so many bytes: a
/// spool that falls behind has samples given up.
const BATCH: usize = 120;
const BATCH_BYTES: usize = 2 << 20;

fn main() {
    let given: Vec<String> =
        std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let [case, kept, count] = given.as_slice() {
        let rate = if kept == "kept" { 1.0 } else { 0.0 };
        let dropped = run(case, rate, count.parse().expect("a number of exchanges"));
        assert!(dropped == 0.0, "{dropped} dropped: what was counted is not the cost of {count}");
        return;
    }
    println!("CPU of an exchange by thread, in microseconds");
    for case in CASES {
        let count = if matches!(*case, "huge" | "cut") { EXCHANGES / 100 } else { EXCHANGES };
        run(case, 0.0, count);
        run(case, 1.0, count);
    }
}

/// Hands over `count` exchanges, waits until all is done with them, and tells what they cost; how many were
/// dropped.
fn run(case: &str, rate: f64, count: usize) -> f64 {
    let folder = tempfile::tempdir().expect("a folder");
    let config = configured(&folder.path().display().to_string(), rate);
    let metrics = Metrics::new(&config.metrics);
    let (now, instance) = (Timestamp::now(), Arc::clone(&config.instance));
    let (spool, _) = Spool::open(&config.spool, instance, metrics.clone(), now).expect("a spool");
    // Twice the room that is needed: a crowded pipeline gives samples up, and less would be measured.
    let (intake, outtake) = pipeline::intake(2 * count, spool.ledger(), metrics.clone());
    let outlets = Outlets {
        metrics: metrics.clone(),
        ledger: spool.ledger(),
        spool: spool.writer(),
        tracer: None,
        counting: Counting::Vocabularies,
        budget: MemoryBudget::new(1 << 30),
    };
    let drain = Drain::default();
    Pipeline::new(&config, outlets).start(outtake, None, &drain).expect("threads");
    let (request, response, media) = bodies(case);
    let batch = (BATCH_BYTES / (request.len() + response.len())).clamp(1, BATCH);
    for at in 0..count {
        intake.offer(exchange(&config, &request, &response, media));
        if at % batch == 0 {
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
    dropped
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
