//! Crash after crash with `kill -9`, in one spool and one bucket: nothing fsynced is missing, nothing
//! is counted twice, and the ledger proves it.

#![allow(clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flowtap::archive::{Archive, verify};
use flowtap::bucket::{Boxed, Bucket, BucketError, BucketErrorKind, Listed};
use flowtap::config;
use flowtap::domain::{
    Call, Dataset, Dialect, ExchangeId, Message, ModelNames, Operation, Outcome, Record, Row,
    Sample, SampleReason, Sampling, Summary, Usage,
};
use flowtap::ledger::{Hour, Incarnation, Ledger};
use flowtap::metrics::Metrics;
use flowtap::rollup::Rollup;
use flowtap::spool::{Recovery, Spool, Writer};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

/// Tells the child where to work, and which run it is.
const CHILD: &str = "FLOWTAP_TEST_SPOOL_CHILD";
/// How long each run lives before it is killed, in milliseconds.
const LIVES_MS: [u64; 10] = [60, 350, 120, 5, 200, 90, 30, 500, 150, 250];

/// A bucket that is a folder, as plain as can be.
struct Plain(PathBuf);

impl Plain {
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.path() {
                    path if path.is_dir() => folders.push(path),
                    path if path.extension().is_some_and(|e| e == "tmp") => {}
                    path => names
                        .push(path.strip_prefix(&self.0).expect("inside").display().to_string()),
                }
            }
        }
        names.sort();
        names
    }

    fn write(&self, name: &str, body: &[u8]) -> std::io::Result<()> {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a folder"))?;
        let fresh = path.with_extension("tmp");
        fs::write(&fresh, body)?;
        fs::rename(fresh, path)
    }
}

fn failed(error: std::io::Error) -> BucketError {
    BucketError::new(BucketErrorKind::Unavailable, error.to_string())
}

impl Bucket for Plain {
    fn put<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, ()> {
        Box::pin(async move { self.write(name, &body).map_err(failed) })
    }

    fn put_if_absent<'a>(&'a self, name: &'a str, body: Bytes) -> Boxed<'a, bool> {
        Box::pin(async move { self.write(name, &body).map(|()| true).map_err(failed) })
    }

    fn get<'a>(&'a self, name: &'a str) -> Boxed<'a, Bytes> {
        Box::pin(async move { fs::read(self.0.join(name)).map(Bytes::from).map_err(failed) })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<Listed>> {
        let names = self.names().into_iter().filter(move |name| name.starts_with(prefix));
        let listed = names.map(|name| Listed { name, bytes: 0 }).collect();
        Box::pin(async move { Ok(listed) })
    }

    fn delete<'a>(&'a self, name: &'a str) -> Boxed<'a, ()> {
        Box::pin(async move { fs::remove_file(self.0.join(name)).map_err(failed) })
    }

    fn describe(&self) -> String {
        "a folder".to_owned()
    }
}

fn metrics() -> Metrics {
    Metrics::new(&config::MetricsLimits { models_max: 10, deployments_max: 10 })
}

fn open(dir: &Path) -> (Spool, Recovery) {
    let settings = config::Spool {
        dir: dir.join("spool"),
        bytes_max: 1 << 30,
        segment_bytes: 16 << 10,
        segment_age: Duration::from_millis(50),
        sync: Duration::from_millis(2),
    };
    let opened = Spool::open(&settings, Arc::from("pod-1"), metrics(), Timestamp::now());
    opened.expect("whatever lies there, it opens")
}

fn archive(spool: &Spool, dir: &Path) -> Archive {
    let bucket = Arc::new(Plain(dir.join("bucket")));
    Archive::new(spool.clone(), bucket, spool.ledger(), metrics(), Arc::from("pod-1"))
}

/// The process that is killed: offers samples as fast as they are taken, uploads, and says on its
/// standard output how many are kept.
#[test]
fn child_that_is_killed() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let (run, dir) = order.split_once(' ').expect("run and folder");
    let (spool, _) = open(Path::new(dir));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (_stop, shutdown) = watch::channel(None);
    runtime.spawn(archive(&spool, Path::new(dir)).run(shutdown));
    let (writer, ledger) = (spool.writer(), spool.ledger());
    let own = ledger.incarnation();
    for i in 0..2_000_000_u64 {
        ledger.seen(Hour::of(Timestamp::now()), 1);
        append(&writer, run, i);
        if i % 20 == 0 {
            let rows = ledger.rows(Timestamp::now());
            let kept: u64 =
                rows.iter().filter(|row| row.incarnation == own).map(|row| row.kept).sum();
            println!("kept {kept}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Offers a row until it is taken; nothing is dropped, so that kept rows are the first ones.
fn append(writer: &Writer, run: &str, i: u64) {
    let row = Row {
        dataset: Dataset::Exchanges,
        deployment: Arc::from("blue"),
        time: Timestamp::now(),
        json: format!("{{\"id\":\"{run}-{i}\",\"text\":\"{}\"}}", "x".repeat(100)).into_bytes(),
    };
    writer.try_append(row).expect("slow enough for any disk");
}

/// Starts a child, kills it after `life`, and says how many samples it knew to be kept.
fn live_and_be_killed(dir: &Path, run: usize, life: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().expect("this test"))
        .args(["archive::child_that_is_killed", "--exact", "--nocapture"])
        .env(CHILD, format!("{run} {}", dir.display()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut said = String::new();
    while !said.contains("kept") {
        said.clear();
        assert!(output.read_line(&mut said).expect("reads") > 0, "the child ended by itself");
    }
    std::thread::sleep(life);
    child.kill().expect("kills");
    child.wait().expect("ended");
    output.read_to_string(&mut said).expect("reads");
    // The last line may be cut.
    let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let kept = whole.lines().filter_map(|line| line.strip_prefix("kept ")?.parse().ok());
    kept.max().unwrap_or(0)
}

fn stored_ids(bucket: &Plain) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for name in bucket.names().iter().filter(|name| name.starts_with("exchanges/")) {
        let body = fs::read(bucket.0.join(name)).expect("reads");
        let lines = BufReader::new(flate2::read::GzDecoder::new(body.as_slice())).lines();
        for line in lines {
            let line: serde_json::Value = serde_json::from_str(&line.expect("text")).expect("json");
            ids.insert(line["id"].as_str().expect("an id").to_owned());
        }
    }
    ids
}

#[test]
fn after_ten_kills_nothing_fsynced_is_missing_and_the_ledger_balances() {
    let dir = tempfile::tempdir().expect("a folder");
    let lives = LIVES_MS.iter().map(|ms| Duration::from_millis(*ms)).enumerate();
    let kept: Vec<u64> =
        lives.map(|(run, life)| live_and_be_killed(dir.path(), run, life)).collect();
    assert!(kept.iter().sum::<u64>() > 100, "the runs did something: {kept:?}");

    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (spool, recovery) = open(dir.path());
    assert!(recovery.unaccounted.is_some(), "the window after the last checkpoint is named");
    assert_eq!((recovery.damages, recovery.set_aside), (0, 0), "kill -9 tears no file");
    runtime.block_on(async {
        let (stop, shutdown) = watch::channel(None);
        let task = tokio::spawn(archive(&spool, dir.path()).run(shutdown));
        assert!(spool.close(Duration::from_secs(20)).await);
        stop.send(Some(Instant::now() + Duration::from_secs(30))).expect("it runs");
        task.await.expect("no panic");
    });

    let bucket = Plain(dir.path().join("bucket"));
    let ids = stored_ids(&bucket);
    for (run, kept) in kept.iter().enumerate() {
        let missing = (0..*kept).find(|i| !ids.contains(&format!("{run}-{i}")));
        assert_eq!(missing, None, "run {run} had fsynced {kept}");
    }
    let report = runtime.block_on(verify(&bucket)).expect("reads");
    assert!(report.ok, "{report}");
    let windows = report.checked.iter().filter_map(|hour| hour.ledger.as_ref());
    let windows: usize = windows.map(|row| row.unaccounted.len()).sum();
    assert!(windows >= 1, "published: {report}");
}

fn sample() -> Sample {
    let time = Timestamp::UNIX_EPOCH;
    let summary = Summary {
        id: ExchangeId::new(time),
        time,
        tap: Arc::from("chat"),
        deployment: Arc::from("blue"),
        instance: Arc::from("pod-1"),
        dialect: Dialect::Promptflow,
        operation: Operation::Score,
        method: "POST".to_owned(),
        path: "/score".to_owned(),
        status: Some(200),
        outcome: Outcome::Ok,
        fault: None,
        model: ModelNames::default(),
        stream: false,
        latency_ms: 0.0,
        first_byte_ms: None,
        first_token_ms: None,
        overhead_us: 1,
        usage: Usage::default(),
        provider: None,
        finish_reason: None,
        response_id: None,
    };
    let record = Record {
        summary,
        calls: Vec::new(),
        question: None,
        answer: None,
        context: None,
        ground_truth: None,
        chat_history: None,
        request: Message::default(),
        response: Message::default(),
        trace_id: None,
        span_id: None,
        request_id: None,
        redactions: Default::default(),
    };
    let sample = Sampling { reason: SampleReason::Rate, probability: 0.1 };
    Sample { schema: Sample::SCHEMA, record, sample }
}

/// The names of all fields, those of objects within with a dot.
fn fields(prefix: &str, value: &Value) -> Vec<String> {
    let Value::Object(map) = value else { return vec![prefix.to_owned()] };
    if map.is_empty() {
        return vec![prefix.to_owned()];
    }
    let dot = if prefix.is_empty() { "" } else { "." };
    map.iter().flat_map(|(key, value)| fields(&format!("{prefix}{dot}{key}"), value)).collect()
}

#[test]
fn every_field_that_is_stored_stands_in_the_documentation() {
    let text = include_str!("../../docs/RECORD.md");
    let part = |from: &str, to: &str| {
        let rest = text.split_once(from).expect("the part begins").1;
        rest.split_once(to).expect("the part ends").0.to_owned()
    };
    let sample = sample();
    let now = Timestamp::UNIX_EPOCH;
    let ledger = Ledger::new(Arc::from("pod-1"), Incarnation::new(now, None), metrics());
    ledger.seen(Hour::of(now), 1);
    let mut rollup = Rollup::new(Arc::from("pod-1"));
    rollup.record(&sample.record.summary, "gpt-4");
    let usage: Value = serde_json::from_slice(&rollup.take_all()[0].json).expect("json");
    let call = Call {
        model: None,
        deployment: None,
        input: None,
        output: None,
        source: None,
        latency_ms: 0.0,
        status: None,
        cached_input: None,
        reasoning_output: None,
        operation: Operation::Chat,
        outcome: Outcome::Ok,
        step: None,
    };
    let value = |it: Result<Value, serde_json::Error>| it.expect("json");
    let parts = [
        (value(serde_json::to_value(&sample)), part("## `exchanges/`", "## `usage/`")),
        (value(serde_json::to_value(call)), part("## `exchanges/`", "## `usage/`")),
        (usage, part("## `usage/`", "## `ledger/`")),
        (value(serde_json::to_value(&ledger.rows(now)[0])), part("## `ledger/`", "## Reading it")),
    ];
    for (stored, told) in parts {
        for field in fields("", &stored) {
            // Histograms are told once for all four.
            let name = ["latency_ms", "first_token_ms", "input_tokens", "output_tokens"]
                .iter()
                .find_map(|histogram| field.strip_prefix(&format!("{histogram}.")))
                .unwrap_or(&field);
            assert!(told.contains(&format!("`{name}`")), "{field} is not in docs/RECORD.md");
        }
    }
}
