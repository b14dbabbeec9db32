//! `flowtap evaluator`, the command that the chart scales out: told by a real NATS server of what sidecars
//! brought, ended as Kubernetes ends it.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::queue::nats;
use super::{answering, ask, times};
use crate::peers::peers_wanted;
use crate::support::judge::ScriptedJudge;
use crate::support::process::Process;
use crate::support::tap::{Setup, address, rows};

/// One of them, with `more` in its file.
fn evaluator(folder: &Path, name: &str, more: &str) -> (Process, u16) {
    let file = folder.join(format!("{name}.yaml"));
    let shown = folder.display();
    let config = format!(
        "instance: {name}\nbucket: file://{shown}/bucket\nadmin: {{listen: 127.0.0.1:0}}\n{more}\n"
    );
    std::fs::write(&file, config).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command.args(["evaluator", "--config"]).arg(&file);
    let process = Process::start(name, &mut command);
    let admin = address(&process, "\"door\":\"admin\"");
    (process, admin)
}

fn await_scores(folder: &Path, wanted: usize, evaluators: &[&Process]) -> Vec<Value> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let found = rows(&folder.join("bucket/scores"));
        if found.len() >= wanted {
            return found;
        }
        let told = || evaluators.iter().map(|one| one.printed()).collect::<Vec<_>>().join("\n");
        assert!(Instant::now() < deadline, "{} of {wanted}:\n{}", found.len(), told());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn evaluators_are_told_by_the_queue_and_one_may_go_at_any_time() {
    if !peers_wanted() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let (_server, port) = nats(&folder.join("streams"));
    let queue = format!("queue: {{nats: \"nats://127.0.0.1:{port}\"}}");
    let upstream = answering();
    let judge = ScriptedJudge::saying(|asked| asked.verdict(4));
    // They look into the bucket at the start, and then not before the test is over.
    let more = format!(
        "{queue}\njudge: {{url: \"{}\", model: m}}\nevaluate: {{criteria: [fluency], measures: [], poll: 10m}}",
        judge.url()
    );
    let ((mut one, admin), (mut other, _)) =
        (evaluator(folder, "one", &more), evaluator(folder, "other", &more));
    one.await_http(admin, "/readyz", Duration::from_secs(30));
    let sidecar = Setup::before(upstream.port)
        .command("proxy")
        .top(&format!("bucket: file://{}/bucket", folder.display()))
        .top("sample: {rate: 1}")
        .top(&queue)
        .start();
    ask(&sidecar, (0..100).map(|n| format!("question {n}?")));
    await_scores(folder, 100, &[&one, &other]);
    one.terminate();
    assert!(one.await_end(Duration::from_secs(30)).success(), "{}", one.printed());
    ask(&sidecar, (100..200).map(|n| format!("question {n}?")));
    await_scores(folder, 200, &[&other]);
    sidecar.stop();
    other.terminate();
    assert!(other.await_end(Duration::from_secs(30)).success(), "{}", other.printed());
    let scores = rows(&folder.join("bucket/scores"));
    let times = times(&scores);
    assert_eq!((times.len(), times.values().max()), (200, Some(&1)), "each exactly once");
    assert!(scores.iter().all(|row| row["score"] == 4), "{scores:?}");
}

#[test]
fn an_evaluator_without_work_or_without_a_bucket_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("evaluator.yaml");
    let run = |text: &str| {
        std::fs::write(&file, text).expect("written");
        let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
        let output = command.args(["evaluator", "--config"]).arg(&file).output();
        let output = output.expect("flowtap runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let bucket = format!(
        "bucket: file://{}/bucket\nadmin: {{listen: 127.0.0.1:0}}\n",
        folder.path().display()
    );
    let (code, told) = run(&bucket);
    assert!(code == Some(1) && told.contains("nothing to do"), "{code:?} {told}");
}
