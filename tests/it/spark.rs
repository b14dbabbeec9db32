//! The Spark job against the embedded monitor, over one bucket: the same counts, the same figures, and
//! results that flowtap reads as its own.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flowtap::domain::{MonitorRun, State};
use serde_json::Value;

use crate::peers::{installed, peers_wanted, root};
use crate::support::tap::rows;

mod made;
mod same;

/// All signals with limits, one tap alone, and the plain comparison.
const MONITORS: &str = "monitors:
  - {name: all, schedule: '0 10 * * *', signals: {generation_quality: {pass_score: 3, average: {groundedness: 4.4, fluency: 3, similarity: 4}, pass_rate: {groundedness: 0.95, coherence: 0.5}, limits: [{criterion: refusal, at_most: 0.05}, {criterion: politeness, at_least: 3.6, pass_rate: 0.9}, {criterion: f1, at_least: 0.5}]}, token_statistics: {total_tokens_max: 50000, prompt_tokens_max: 900000000000, total_tokens_per_group_max: 1000}, operations: {error_rate_max: 0.001, latency_p95_max: 10s, latency_p50_max: 1ms, requests_min: 10}}}
  - {name: one, schedule: '0 10 * * *', deployment: blue, tap: models, window: P3DT5H7M, offset: PT13M, step: PT9H, time_zone: Europe/Berlin, signals: {generation_quality: {average: {fluency: 4}, limits: [{criterion: bleu, at_least: 0.1}, {criterion: in_scope, scale: boolean, at_least: 0.99}]}, token_statistics: {}, operations: {latency_p99_max: 8s}}}
  - {name: plain, schedule: '0 10 * * *', model: gpt-4, method: plain, window: PT6H, signals: {generation_quality: {average: {fluency: 4.9}}, operations: {error_rate_max: 0.5}}}";

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `flowtap monitor ...` of the settings in `folder`; its standard output.
#[track_caller]
fn flowtap(folder: &Path, command: &str, more: &[&str]) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    program.args(["monitor", command, "--at", made::DUE, "--config"]);
    let output = program.arg(folder.join("flowtap.yaml")).args(more).output().expect("it runs");
    assert_ne!(output.status.code(), Some(1), "{}", text(&output.stderr));
    text(&output.stdout)
}

fn spark(folder: &Path, plan: &Path) -> Output {
    let mut program = Command::new(installed("spark/bin/spark-submit"));
    program.env("PYSPARK_PYTHON", installed("spark/bin/python")).env("SPARK_LOCAL_IP", "127.0.0.1");
    let java = Command::new("bash").arg(root().join("tests/peers/spark.sh")).arg("java").output();
    let java = text(&java.expect("bash is there").stdout).trim().to_owned();
    if !java.is_empty() {
        program.env("JAVA_HOME", java);
    }
    program.current_dir(folder).args(["--master", "local[2]"]);
    program.args([
        "--conf",
        "spark.ui.enabled=false",
        "--conf",
        "spark.driver.bindAddress=127.0.0.1",
    ]);
    program.arg(root().join("deploy/spark/flowtap_monitor.py"));
    program.args(["--bucket", &format!("file://{}/bucket", folder.display()), "--plan"]).arg(plan);
    program.output().expect("spark-submit runs")
}

/// Objects that are none of ours, and one that was cut short, beside real ones.
fn damage(bucket: &Path) {
    let mut objects = files(&bucket.join("scores/deployment=blue"));
    objects.sort();
    let whole = &objects[objects.len() / 2];
    let hour = whole.parent().and_then(|hour| hour.strip_prefix(bucket.join("scores")).ok());
    let hour = hour.expect("below scores/");
    for (dataset, name) in [("scores", "a"), ("usage", "b"), ("usage", "c")] {
        let object = bucket.join(dataset).join(hour).join(format!("{name}.jsonl.gz"));
        std::fs::write(object, "no gzip at all").expect("written");
    }
    let bytes = std::fs::read(whole).expect("read");
    std::fs::write(whole.with_file_name("z.jsonl.gz"), &bytes[..bytes.len() - 9]).expect("written");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn spark_and_flowtap_find_the_same_in_one_bucket() {
    if !peers_wanted() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    made::fill(folder, 5_000, 7);
    let _settings = made::settings(folder, MONITORS);
    damage(&folder.join("bucket"));
    let plan = folder.join("plan.json");
    std::fs::write(&plan, flowtap(folder, "plan", &[])).expect("written");
    let embedded = flowtap(folder, "run", &["--json"]);
    let embedded: Vec<Value> =
        embedded.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let output = spark(folder, &plan);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    let told: Vec<Value> =
        text(&output.stdout).lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!((told.len(), embedded.len()), (3, 3), "{errors}");
    for (mine, theirs) in embedded.iter().zip(&told) {
        let differences = same::differences(mine, theirs);
        assert!(differences.is_empty(), "{}: {differences:#?}", mine["monitor"]);
    }
    let requests = &embedded[0]["signals"][1]["measures"][0];
    assert_eq!(
        (&requests["metric"], requests["value"].as_f64()),
        (&"requests".into(), Some(5_000.0))
    );
    assert_eq!(embedded[0]["unreadable"], 4);
    assert!(embedded[0]["unscored"].as_u64() > Some(0));
    let measures = embedded[0]["signals"][0]["measures"].as_array().expect("measures");
    let told: Vec<&str> = measures.iter().filter_map(|of| of["metric"].as_str()).collect();
    for metric in ["refusal_share", "f1_mean", "politeness_average", "in_scope_share"] {
        assert!(told.contains(&metric), "{metric} is not in {told:?}");
    }

    // What Spark stored is a result like any other.
    let stored = rows(&folder.join("bucket/monitors"));
    assert_eq!(stored.len(), 6, "three by each");
    let read: Vec<MonitorRun> =
        stored.into_iter().map(|run| serde_json::from_value(run).expect("a run")).collect();
    assert_eq!(read.iter().filter(|run| &*run.instance == "spark").count(), 3);
    assert_eq!(read.iter().filter(|run| run.state == State::Violated).count(), 6);
}
