//! Evaluators that share a bucket and nothing else.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::collections::HashSet;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flowtap::bucket::{self, Bucket};
use flowtap::config::{Config, Overrides, load};
use flowtap::evaluate::{self, Outlets};
use flowtap::metrics::Metrics;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::times;
use crate::support::api::await_answer;
use crate::support::judge::ScriptedJudge;
use crate::support::process::Process;
use crate::support::tap::{Setup, address, rows};

fn config(folder: &Path, instance: &str, judge: &str, more: &str) -> Config {
    let file = folder.join(format!("{instance}.yaml"));
    let bucket = folder.join("bucket").display().to_string();
    let text = format!(
        "taps: [{{upstream: \"http://127.0.0.1:1\"}}]\ninstance: {instance}\nbucket: \"file://{bucket}\"\n\
         judge: {{url: \"{judge}\", model: m, concurrency: 8}}\n\
         evaluate: {{criteria: [fluency], measures: [refusal], poll: 100ms{more}}}\n"
    );
    std::fs::write(&file, text).unwrap();
    load(Some(&file), &Overrides::default(), &[]).unwrap_or_else(|faults| panic!("{faults}"))
}

/// An object of `lines` samples, written now, below `exchanges/`.
pub fn object(folder: &Path, deployment: &str, name: &str, lines: usize, hours_ago: i64) {
    let time = Timestamp::now().checked_sub(jiff::SignedDuration::from_hours(hours_ago)).unwrap();
    let sample = |_| {
        let id = flowtap::domain::ExchangeId::new(time);
        json!({
            "id": id, "time": time, "tap": "chat", "deployment": deployment, "question": "q?",
            "answer": "an answer", "sample": {"reason": "rate", "probability": 0.5},
        })
    };
    let lines: Vec<Value> = (0..lines).map(sample).collect();
    packed(folder, deployment, name, &lines);
}

/// Writes samples as one object of the hour of the first.
pub fn packed(folder: &Path, deployment: &str, name: &str, lines: &[Value]) {
    let time: Timestamp = lines[0]["time"].as_str().unwrap().parse().unwrap();
    let partition = time.strftime("date=%Y-%m-%d/hour=%H");
    let path = folder.join(format!("bucket/exchanges/deployment={deployment}/{partition}"));
    std::fs::create_dir_all(&path).unwrap();
    let file = std::fs::File::create(path.join(format!("{name}.jsonl.gz"))).unwrap();
    let mut out = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    for line in lines {
        writeln!(out, "{line}").unwrap();
    }
    out.finish().unwrap();
}

/// Runs evaluators until `wanted` rows are stored, then stops them. What each counted.
pub fn run(configs: &[Config], folder: &Path, wanted: usize, limit: Duration) -> Vec<Metrics> {
    run_until(configs, limit, |_| scores(folder).len() >= wanted)
}

/// Runs evaluators until all of `samples` are evaluated or passed over, then stops them.
pub fn run_through(config: &Config, samples: f64, limit: Duration) -> Metrics {
    let done = |all: &[Metrics]| {
        let fates = all[0].sums("flowtap_evaluate_samples_total", "result");
        let of = |fate: &str| fates.get(fate).copied().unwrap_or(0.0);
        of("evaluated") + of("not_drawn") >= samples
    };
    run_until(std::slice::from_ref(config), limit, done).remove(0)
}

fn run_until(
    configs: &[Config],
    limit: Duration,
    done: impl Fn(&[Metrics]) -> bool,
) -> Vec<Metrics> {
    let stop = CancellationToken::new();
    let all: Vec<Metrics> = configs.iter().map(|config| Metrics::new(&config.metrics)).collect();
    std::thread::scope(|scope| {
        for (config, metrics) in configs.iter().zip(&all) {
            let (stop, metrics) = (stop.clone(), metrics.clone());
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(async {
                    let bucket: Arc<dyn Bucket> = bucket::open(&config.bucket).await.unwrap();
                    let outlets = Outlets {
                        bucket,
                        inbox: None,
                        stored: Arc::default(),
                        tracer: None,
                        metrics,
                    };
                    let marker = http::HeaderValue::from_static("m");
                    let evaluator = evaluate::from_bucket(config, marker, outlets).unwrap();
                    evaluator.expect("one is configured").run(stop).await;
                });
            });
        }
        let deadline = Instant::now() + limit;
        while !done(&all) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
        std::thread::sleep(Duration::from_millis(500));
        stop.cancel();
    });
    all
}

/// Every row of scores.
pub fn scores(folder: &Path) -> Vec<Value> {
    rows(&folder.join("bucket/scores"))
}

/// A judge that takes a moment.
pub fn judge() -> ScriptedJudge {
    ScriptedJudge::saying(|asked| {
        std::thread::sleep(Duration::from_millis(5));
        asked.verdict(4)
    })
}

#[test]
fn two_share_the_work_and_score_each_sample_once() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..12 {
        object(folder.path(), ["blue", "green"][number % 2], &format!("o-{number}"), 70, 1);
    }
    let judge = judge();
    let configs = ["one", "two"].map(|instance| config(folder.path(), instance, &judge.url(), ""));
    run(&configs, folder.path(), 12 * 70 * 2, Duration::from_secs(60));
    let found = scores(folder.path());
    let times = times(&found);
    assert_eq!((found.len(), times.len()), (1680, 1680), "each sample and criterion once");
    let by: HashSet<_> = found.iter().map(|row| row["instance"].as_str().unwrap()).collect();
    assert_eq!(by.len(), 2, "both worked");
    assert!(found.iter().all(|row| row["probability"] == 0.5));
    let asked = judge.questions().iter().filter(|asked| !asked.is_test()).count();
    assert_eq!(asked, 840, "claims keep them from judging twice");
    let claims = folder.path().join("bucket/evaluator/claims");
    assert!(rows(&claims).is_empty(), "claims are gone");
}

#[test]
fn a_share_is_drawn_and_what_was_not_is_not_looked_at_again() {
    let folder = tempfile::tempdir().unwrap();
    object(folder.path(), "blue", "o", 1000, 1);
    object(folder.path(), "blue", "one", 1, 2);
    let judge = judge();
    let config = config(folder.path(), "one", &judge.url(), ", rate: 0.2");
    let metrics = run_through(&config, 1001.0, Duration::from_secs(60));
    let drawn = metrics.sums("flowtap_evaluate_samples_total", "result");
    assert_eq!(drawn["evaluated"] + drawn["not_drawn"], 1001.0);
    // 200 with a standard deviation of 12.6.
    assert!((150.0..=250.0).contains(&drawn["evaluated"]), "{drawn:?}");
    let found = scores(folder.path());
    let (judged, computed): (Vec<&Value>, Vec<&Value>) =
        found.iter().partition(|row| row["criterion"] == "fluency");
    assert_eq!((judged.len() as f64, computed.len()), (drawn["evaluated"], 1001));
    assert!(judged.iter().all(|row| row["probability"] == 0.1), "0.5 times 0.2");
    assert!(computed.iter().all(|row| row["probability"] == 0.5), "computed for every sample");
    let again = run(&[config], folder.path(), usize::MAX, Duration::from_secs(1));
    assert_eq!(again[0].sums("flowtap_evaluate_samples_total", "result")["not_drawn"], 0.0);
    assert_eq!(scores(folder.path()).len(), found.len());
}

#[test]
fn claims_of_the_living_hold_and_those_of_the_dead_expire() {
    let folder = tempfile::tempdir().unwrap();
    object(folder.path(), "blue", "held", 1, 1);
    object(folder.path(), "blue", "left", 1, 1);
    let partition = Timestamp::now().checked_sub(jiff::SignedDuration::from_hours(1)).unwrap();
    let partition = partition.strftime("deployment=blue/date=%Y-%m-%d/hour=%H").to_string();
    let claim = |name: &str, seconds: i64| {
        let path = folder.path().join(format!("bucket/evaluator/claims/{partition}/{name}"));
        std::fs::create_dir_all(&path).unwrap();
        let until = Timestamp::now().checked_add(jiff::SignedDuration::from_secs(seconds)).unwrap();
        let body = json!({"instance": "another", "until": until}).to_string();
        std::fs::write(path.join("00000001"), body).unwrap();
    };
    claim("held", 3600);
    claim("left", -1);
    let judge = judge();
    let config = config(folder.path(), "one", &judge.url(), "");
    let metrics = run(&[config], folder.path(), usize::MAX, Duration::from_secs(3));
    assert_eq!(scores(folder.path()).len(), 2, "one sample, two criteria");
    assert_eq!(metrics[0].sums("flowtap_evaluate_samples_total", "result")["evaluated"], 1.0);
}

#[test]
fn what_is_no_sample_and_what_is_too_old_is_told() {
    let folder = tempfile::tempdir().unwrap();
    object(folder.path(), "blue", "good", 2, 1);
    object(folder.path(), "blue", "old", 5, 24 * 9);
    let now = Timestamp::now().strftime("bucket/exchanges/deployment=blue/date=%Y-%m-%d/hour=%H");
    let path = folder.path().join(now.to_string());
    std::fs::create_dir_all(&path).unwrap();
    std::fs::write(path.join("garbage.jsonl.gz"), b"no gzip").unwrap();
    std::fs::write(path.join("strange.txt"), b"?").unwrap();
    let judge = judge();
    let config = config(folder.path(), "one", &judge.url(), "");
    let metrics = run(&[config], folder.path(), usize::MAX, Duration::from_secs(3));
    assert_eq!(scores(folder.path()).len(), 4);
    let fates = metrics[0].sums("flowtap_evaluate_samples_total", "result");
    assert_eq!((fates["evaluated"], fates["unreadable"]), (2.0, 1.0));
    let page = metrics[0].encode();
    assert!(page.contains("flowtap_evaluate_objects{state=\"too_old\"} 1"), "{page}");
    assert!(page.contains("flowtap_evaluate_objects{state=\"waiting\"} 0"), "{page}");
}

/// `flowtap hub` over the bucket in `folder`, with a judge.
fn hub_with_judge(folder: &Path, judge: &str) -> (Process, u16) {
    let (file, shown) = (folder.join("hub.yaml"), folder.display());
    let config = format!(
        "instance: hub\nbucket: file://{shown}/bucket\nadmin: {{listen: 127.0.0.1:0}}\n\
         store: {{dir: {shown}/index, look: 200ms}}\njudge: {{url: \"{judge}\", model: m}}\n\
         evaluate: {{criteria: [fluency], measures: [], poll: 200ms}}\n"
    );
    std::fs::write(&file, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command.args(["hub", "--config"]).arg(&file);
    let process = Process::start("hub", &mut command);
    let admin = address(&process, "\"door\":\"admin\"");
    (process, admin)
}

#[test]
fn a_hub_scores_what_sidecars_brought_and_shows_it_even_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = super::answering();
    let sidecar = Setup::before(upstream.port)
        .top(&format!("bucket: file://{}/bucket", folder.path().display()))
        .top("sample: {rate: 1}")
        .start();
    super::ask(&sidecar, (0..300).map(|n| format!("question {n}?")));
    sidecar.stop();
    let judge = judge();
    let (mut hub, _) = hub_with_judge(folder.path(), &judge.url());
    let wait = |wanted: usize, hub: &Process| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while scores(folder.path()).len() < wanted {
            assert!(Instant::now() < deadline, "{}", hub.printed());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    wait(60, &hub);
    Command::new("kill").args(["-9", &hub.id().to_string()]).status().unwrap();
    hub.await_end(Duration::from_secs(10));
    let (hub, admin) = hub_with_judge(folder.path(), &judge.url());
    wait(300, &hub);
    std::thread::sleep(Duration::from_millis(500));
    let times = times(&scores(folder.path()));
    assert_eq!((times.len(), times.values().max()), (300, Some(&1)), "each exactly once");
    await_answer(admin, "/quality", |answer| answer.to_string().contains("\"fluency\""));
}
