//! Samples told of by a real NATS server: a sidecar announces, two evaluators share, one is killed.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{answering, ask, times};
use crate::peers::{installed, peers_wanted};
use crate::support::judge::ScriptedJudge;
use crate::support::process::{Process, free_port};
use crate::support::tap::{Flowtap, Setup, rows};

/// A NATS server that keeps its streams in `folder`.
pub fn nats(folder: &Path) -> (Process, u16) {
    let (port, monitor) = (free_port(), free_port());
    let mut command = Command::new(installed("queue/bin/nats-server"));
    command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-m", &monitor.to_string()]);
    command.args(["-js", "-sd"]).arg(folder);
    let mut process = Process::start("nats-server", &mut command);
    process.await_http(monitor, "/healthz", Duration::from_secs(20));
    (process, port)
}

fn shared(setup: Setup, bucket: &Path, port: u16, instance: &str) -> Setup {
    setup
        .top(&format!("bucket: file://{}", bucket.display()))
        .top(&format!("instance: {instance}"))
        .top(&format!("queue: {{nats: \"nats://127.0.0.1:{port}\"}}"))
}

#[test]
fn two_evaluators_share_a_queue_and_one_is_killed() {
    if !peers_wanted() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (bucket, streams) = (folder.path().join("bucket"), folder.path().join("streams"));
    let (_server, port) = nats(&streams);
    let upstream = answering();
    let judge = ScriptedJudge::saying(|asked| {
        std::thread::sleep(Duration::from_millis(20));
        asked.verdict(3)
    });
    let evaluator = |name: &str| {
        let setup = Setup::before(upstream.port)
            .top(&format!("judge: {{url: \"{}\", model: m, concurrency: 8}}", judge.url()))
            // They look into the bucket at the start, and then only once an hour.
            .top("evaluate: {criteria: [fluency], measures: [], poll: 10m}");
        shared(setup, &bucket, port, name).start()
    };
    let (one, other) = (evaluator("one"), evaluator("other"));
    let sidecar =
        shared(Setup::before(upstream.port).top("sample: {rate: 1}"), &bucket, port, "sidecar");
    let sidecar = sidecar.start();
    std::thread::scope(|scope| {
        for part in 0..2 {
            let sidecar = &sidecar;
            scope.spawn(move || ask(sidecar, (0..500).map(|n| format!("question {part}-{n}?"))));
        }
    });
    let scores = || rows(&bucket.join("scores"));
    let wait_for = |wanted: usize, limit: u64, flowtap: &Flowtap| -> Vec<Value> {
        let deadline = Instant::now() + Duration::from_secs(limit);
        while scores().len() < wanted {
            let late = Instant::now() > deadline;
            assert!(!late, "{} of {wanted}:\n{}", scores().len(), flowtap.printed());
            std::thread::sleep(Duration::from_millis(100));
        }
        scores()
    };
    wait_for(200, 30, &one);
    // While one is dead, the other works; the dead one's claims and acknowledgements expire first.
    let one = one.kill_and_restart_after(|| {
        let deadline = Instant::now() + Duration::from_secs(150);
        while !scores().iter().any(|row| row["instance"] == "other") {
            assert!(Instant::now() < deadline, "the other does nothing:\n{}", other.printed());
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    wait_for(1000, 150, &other);
    std::thread::sleep(Duration::from_secs(1));
    let times = times(&scores());
    assert_eq!((times.len(), times.values().max()), (1000, Some(&1)), "each exactly once");
    for flowtap in [&one, &other] {
        assert_eq!(flowtap.metric("flowtap_evaluate_failures_total", &["kind=\"queue\""]), 0.0);
    }
    sidecar.stop();
    one.stop();
    other.stop();
}

#[test]
fn a_queue_that_is_away_costs_time_and_no_score() {
    let upstream = answering();
    let judge = ScriptedJudge::saying(|asked| asked.verdict(5));
    let flowtap = Setup::before(upstream.port)
        .top("sample: {rate: 1}")
        .top(&format!("judge: {{url: \"{}\", model: m}}", judge.url()))
        .top("evaluate: {criteria: [fluency], measures: [], poll: 100ms}")
        .top("queue: {nats: \"nats://127.0.0.1:1\"}")
        .start();
    ask(&flowtap, (0..10).map(|n| format!("question {n}?")));
    super::await_scores(&flowtap, 10, Duration::from_secs(20));
    flowtap.await_metric("flowtap_evaluate_failures_total", &["kind=\"queue\""], 1.0);
    flowtap.stop();
}
