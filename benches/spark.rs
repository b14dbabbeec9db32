//! One run of a monitor over a week of records: by flowtap itself, and by the job of `deploy/spark` on
//! this machine. Both must find the same; the times say when to change over (`deploy/spark/README.md`).
//!
//! ```sh
//! tests/peers/spark.sh                              # installs Spark, once
//! cargo bench --bench spark -- 100000               # or: make spark-check ARGS=100000
//! ```

#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    clippy::panic,
    reason = "a program for a terminal, whose faults end it"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use flowtap::app;
use jiff::Timestamp;
use serde_json::Value;

#[path = "../tests/it/spark/made.rs"]
mod made;
#[path = "../tests/it/spark/same.rs"]
mod same;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MONITOR: &str = "monitors: [{name: weekly, schedule: '0 10 * * *', signals: {generation_quality: \
                       {average: {groundedness: 4}, pass_rate: {fluency: 0.7}, limits: [{criterion: refusal, at_most: 0.1}]}, token_statistics: \
                       {total_tokens_max: 50000000}, operations: {error_rate_max: 0.05, latency_p95_max: \
                       30s}}}]";

fn main() {
    let sizes: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    println!("{:>10} {:>10} {:>12} {:>12}", "records", "written s", "flowtap s", "Spark s");
    for records in if sizes.is_empty() { vec![100_000] } else { sizes } {
        measure(records);
    }
}

fn measure(records: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let began = Instant::now();
    made::fill(folder, records, 1);
    let written = began.elapsed().as_secs_f64();
    let config = made::settings(folder, MONITOR);
    let due: Timestamp = made::DUE.parse().expect("a time");
    let began = Instant::now();
    let runs = app::run_monitors(&config, None, due, Timestamp::now()).expect("a run");
    let embedded = began.elapsed().as_secs_f64();
    let plans = app::plan_monitors(&config, None, due).expect("a plan");
    let plan = folder.join("plan.json");
    std::fs::write(&plan, serde_json::to_string(&plans[0]).expect("JSON")).expect("written");
    let began = Instant::now();
    let told = spark(folder, &plan);
    let seconds = began.elapsed().as_secs_f64();
    let mine = serde_json::to_value(&runs[0]).expect("JSON");
    let differences = same::differences(&mine, &told);
    assert!(differences.is_empty(), "{differences:#?}");
    println!("{records:>10} {written:>10.1} {embedded:>12.2} {seconds:>12.1}");
}

fn spark(folder: &Path, plan: &Path) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let peer = |path: &str| -> PathBuf { root.join(".cache/peers/spark/bin").join(path) };
    assert!(peer("spark-submit").exists(), "no Spark here: run tests/peers/spark.sh");
    let java = Command::new("bash").arg(root.join("tests/peers/spark.sh")).arg("java").output();
    let java = String::from_utf8(java.expect("bash is there").stdout).expect("text");
    let mut command = Command::new(peer("spark-submit"));
    command.env("PYSPARK_PYTHON", peer("python")).env("SPARK_LOCAL_IP", "127.0.0.1");
    if !java.trim().is_empty() {
        command.env("JAVA_HOME", java.trim());
    }
    command.args(["--master", "local[*]", "--conf", "spark.ui.enabled=false"]);
    command.arg(root.join("deploy/spark/flowtap_monitor.py"));
    command.args(["--bucket", &format!("file://{}/bucket", folder.display()), "--plan"]).arg(plan);
    let output = command.output().expect("spark-submit runs");
    let told = String::from_utf8_lossy(&output.stdout);
    let line = told.lines().find(|line| line.starts_with('{'));
    let errors = String::from_utf8_lossy(&output.stderr);
    serde_json::from_str(line.unwrap_or_else(|| panic!("{errors}"))).expect("JSON")
}
