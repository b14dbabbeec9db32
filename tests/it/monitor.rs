//! Monitors over a real bucket: what the command line tells, whose result stands, what is caught up, and
//! who is told.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use flowtap::bucket::{self, Bucket};
use flowtap::config::{Config, Overrides, load};
use flowtap::domain::{ExchangeId, MonitorRun, NoticeKind, State};
use flowtap::monitor::{Outcome, Runner};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::support::tap::Setup;
use crate::support::wire::Upstream;

const DUE: &str = "2026-11-23T10:15:00Z";
const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// A bucket on the disk, as sidecars fill it.
struct Filled {
    folder: tempfile::TempDir,
}

impl Filled {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    fn bucket(&self) -> PathBuf {
        self.folder.path().join("bucket")
    }

    /// Writes lines as one object of the hour of `time`.
    fn put(&self, dataset: &str, deployment: &str, time: Timestamp, name: &str, lines: &[Value]) {
        let partition = time.strftime("date=%Y-%m-%d/hour=%H").to_string();
        let path = self.bucket().join(dataset).join(format!("deployment={deployment}"));
        let path = path.join(partition).join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        let mut gzip = GzEncoder::new(File::create(path).expect("made"), Compression::fast());
        for line in lines {
            writeln!(gzip, "{line}").expect("written");
        }
        gzip.finish().expect("written");
    }

    /// One score of fluency an hour over the week before `due`, in the order of `scores`, again and again.
    fn scores(&self, due: Timestamp, scores: &[u8], probability: f64) {
        for (hour, score) in (1..=160).zip(scores.iter().cycle()) {
            let time = due.checked_sub(HOUR * hour).expect("earlier");
            let line = score_line(time, *score, probability);
            self.put("scores", "blue", time, &format!("a-{hour}.jsonl.gz"), &[line]);
        }
    }

    /// One row of usage an hour: 100 requests, of which `errors` failed.
    fn usage(&self, due: Timestamp, errors: u64) {
        for hour in 1..=160 {
            let time = due.checked_sub(HOUR * hour).expect("earlier");
            let rows = [usage_line(time, "ok", 100 - errors), usage_line(time, "timeout", errors)];
            self.put("usage", "blue", time, &format!("b-{hour}.jsonl.gz"), &rows);
        }
    }

    fn config(&self, more: &str) -> PathBuf {
        let file = self.folder.path().join("flowtap.yaml");
        let bucket = self.bucket();
        let text = format!(
            "taps: [{{upstream: 'http://127.0.0.1:9'}}]\nbucket: 'file://{}'\ninstance: hub\n{more}\n",
            bucket.display()
        );
        fs::write(&file, text).expect("written");
        file
    }

    fn loaded(&self, more: &str) -> Config {
        let file = self.config(more);
        load(Some(&file), &Overrides::default(), &[]).unwrap_or_else(|faults| panic!("{faults}"))
    }

    /// The results that lie in the bucket, by name.
    fn results(&self) -> Vec<(String, MonitorRun)> {
        let mut found = Vec::new();
        collect(&self.bucket().join("monitors"), &mut found);
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }
}

fn collect(folder: &Path, found: &mut Vec<(String, MonitorRun)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            let mut text = String::new();
            let file = File::open(&path).expect("there");
            GzDecoder::new(file).read_to_string(&mut text).expect("gzip");
            let run = serde_json::from_str(&text).expect("a result");
            found.push((path.display().to_string(), run));
        }
    }
}

fn score_line(time: Timestamp, score: u8, probability: f64) -> Value {
    json!({
        "schema": "flowtap.score.v1",
        "id": ExchangeId::new(time).to_string(),
        "time": time,
        "exchange": ExchangeId::new(time).to_string(),
        "exchange_time": time,
        "tap": "chat",
        "deployment": "blue",
        "instance": "pod",
        "criterion": "fluency",
        "score": score,
        "error": null,
        "reason": null,
        "probability": probability,
        "judge": null,
        "injection_suspect": false,
    })
}

fn usage_line(time: Timestamp, outcome: &str, count: u64) -> Value {
    let histogram = |index: i64, value: f64| {
        if count == 0 {
            return json!({"count": 0, "sum": 0.0, "min": null, "max": null, "zero": 0, "buckets": {}});
        }
        json!({"count": count, "sum": value * count as f64, "min": value, "max": value, "zero": 0,
               "buckets": {index.to_string(): count}})
    };
    json!({
        "schema": "flowtap.usage.v1", "time": time, "tap": "chat", "deployment": "blue",
        "instance": "pod", "model": "gpt-4", "operation": "chat", "outcome": outcome, "stream": false,
        "count": count,
        "tokens": {"reported": {"count": count, "input": 400 * count, "output": 100 * count,
                   "total": 500 * count, "cached_input": 0, "reasoning_output": 0}},
        "usage_unknown": 0,
        // 800 ms lies in bucket 77.
        "latency_ms": histogram(77, 800.0), "first_token_ms": histogram(53, 100.0),
        "input_tokens": histogram(69, 400.0), "output_tokens": histogram(53, 100.0),
    })
}

const MONITOR: &str = "monitors: [{name: daily, schedule: '15 10 * * *', deployment: blue, signals: \
                       {generation_quality: {average: {fluency: 4}, pass_rate: {fluency: 0.7}}, \
                       token_statistics: {total_tokens_max: 50000000}, operations: {error_rate_max: \
                       0.01, latency_p95_max: 10s}}}]";

/// Runs `flowtap monitor ...`; its code, and what it printed.
fn flowtap(arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    let output = command.arg("monitor").args(arguments).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_run_tells_its_verdict_by_table_json_exit_code_and_object() {
    for (scores, errors, code, state) in [
        (&[5_u8, 4, 5][..], 0, 0, "ok"),
        (&[5, 2, 3], 0, 3, "violated"),
        (&[5, 4, 5], 20, 3, "violated"),
        (&[], 0, 4, "not_enough_data"),
    ] {
        let filled = Filled::new();
        filled.scores(at(DUE), scores, 0.1);
        filled.usage(at(DUE), errors);
        let file = filled.config(MONITOR);
        let file = file.to_str().expect("text");
        let told = flowtap(&["run", "daily", "--at", DUE, "--json", "--config", file]);
        assert_eq!(told.0, Some(code), "{told:?}");
        let run: MonitorRun = serde_json::from_str(&told.1).expect("json");
        assert_eq!((run.state.label(), &*run.monitor), (state, "daily"));
        assert_eq!((run.from, run.to), (at("2026-11-16T10:15:00Z"), at(DUE)));
        let stored = filled.results();
        assert_eq!(stored.len(), 1);
        assert!(stored[0].0.contains("monitors/monitor=daily/date=2026-11-23/hour=10/daily-2026"));
        assert_eq!(stored[0].1.attempt, run.attempt);
    }
}

#[test]
fn figures_are_those_of_what_lies_in_the_bucket() {
    let filled = Filled::new();
    filled.scores(at(DUE), &[5, 4], 0.1);
    filled.usage(at(DUE), 1);
    // Outside of the window, of another deployment, or damaged: none of it counts.
    filled.usage(at("2026-11-16T10:00:00Z"), 50);
    let time = at("2026-11-20T10:00:00Z");
    let mut foreign = score_line(time, 1, 0.1);
    foreign["deployment"] = "green".into();
    filled.put("scores", "green", time, "c.jsonl.gz", &[foreign]);
    filled.put("scores", "blue", time, "d.jsonl.gz", &[json!({"schema": "something.else"})]);
    fs::write(
        filled.bucket().join("usage/deployment=blue/date=2026-11-20/hour=10/e.jsonl.gz"),
        "no gzip",
    )
    .expect("written");
    let file = filled.config(MONITOR);
    let file = file.to_str().expect("text");
    let (code, json, log) = flowtap(&["run", "--at", DUE, "--json", "--config", file]);
    assert_eq!(code, Some(0), "{log}");
    let run: MonitorRun = serde_json::from_str(&json).expect("json");
    assert_eq!(run.unreadable, 2, "{log}");
    assert!(log.contains("d.jsonl.gz") && log.contains("e.jsonl.gz"), "they are named: {log}");
    let measure = |metric: &str| {
        let mut all = run.signals.iter().flat_map(|signal| &signal.measures);
        all.find(|measure| &*measure.metric == metric).unwrap_or_else(|| panic!("{metric}"))
    };
    let value = |metric: &str| measure(metric).value.expect("a value");
    assert_eq!(measure("fluency_average").count, 160);
    assert!((value("fluency_average") - 4.5).abs() < 1e-9);
    assert!((value("fluency_pass_rate") - 1.0).abs() < 1e-9);
    assert!((value("total_tokens") - 8_000_000.0).abs() < 1e-9, "160 hours of 100 requests of 500");
    assert!((value("error_rate") - 0.01).abs() < 1e-9);
    assert!((value("latency_p95_ms") / 800.0 - 1.0).abs() < 0.045);
    assert!((value("requests_per_second") - 16_000.0 / 604_800.0).abs() < 1e-9);

    let (code, table, _) = flowtap(&["run", "--at", DUE, "--config", file]);
    assert_eq!(code, Some(0));
    for told in ["daily: ok", "fluency_average", "4.500", ">= 4", "0 of 7", "by outcome: ok 15840"]
    {
        assert!(table.contains(told), "{told} is not in\n{table}");
    }
}

#[test]
fn what_cannot_be_run_says_why() {
    let filled = Filled::new();
    let file = filled.config(MONITOR);
    let file = file.to_str().expect("text");
    let (code, _, told) = flowtap(&["run", "nightly", "--config", file]);
    assert_eq!(
        (code, told.as_str()),
        (Some(64), "flowtap: there is no monitor `nightly`; there is daily\n")
    );
    let none = filled.config("");
    let none = none.to_str().expect("text");
    assert_eq!(flowtap(&["run", "--config", none]).0, Some(64));
    assert_eq!(flowtap(&["run", "--at", "yesterday", "--config", none]).0, Some(64));
}

#[test]
fn an_azure_schedule_is_imported_on_the_command_line() {
    let file = "tests/fixtures/azureml/monitor/gen_ai_monitor_both_signals.yml";
    let (code, yaml, notes) = flowtap(&["import", file]);
    assert_eq!(code, Some(0), "{notes}");
    assert!(yaml.contains("- name: gen_ai_monitor_both_signals\n    schedule: \"15 10 * * *\"\n"));
    assert!(notes.lines().all(|line| line.starts_with("note: ")), "{notes}");
    let folder = tempfile::tempdir().expect("a folder");
    let other = folder.path().join("other.yml");
    fs::write(&other, "a: [").expect("written");
    assert_eq!(flowtap(&["import", other.to_str().expect("text")]).0, Some(78));
    fs::write(&other, "a: 1").expect("written");
    let (code, _, told) = flowtap(&["import", other.to_str().expect("text")]);
    assert!(code == Some(78) && told.contains("`create_monitor`"), "{told}");
}

async fn opened(config: &Config) -> Arc<dyn Bucket> {
    bucket::open(&config.bucket).await.expect("it opens")
}

#[test]
fn of_many_hubs_one_makes_a_run_stand() {
    let filled = Filled::new();
    filled.scores(at(DUE), &[5, 1], 0.1);
    let config = filled.loaded(MONITOR);
    let runtime = Runtime::new().expect("a runtime");
    let stood = runtime.block_on(async {
        let bucket = opened(&config).await;
        let monitor = &config.monitors[0];
        let hubs = (0..8).map(|_| {
            let runner = Runner::new(Arc::clone(&bucket), &config);
            async move { runner.scheduled(monitor, at(DUE), at(DUE)).await.expect("it runs") }
        });
        let outcomes = futures_util::future::join_all(hubs).await;
        let stood = outcomes.into_iter().filter_map(|outcome| match outcome {
            Outcome::Stands(run, notices) => Some((run, notices)),
            Outcome::Taken => None,
        });
        stood.collect::<Vec<_>>()
    });
    assert_eq!(stood.len(), 1, "exactly one hub tells people");
    assert_eq!(filled.results().len(), 1);
    assert_eq!(filled.results()[0].1.attempt, stood[0].0.attempt);
    let kinds: Vec<_> = stood[0].1.iter().map(|n| (n.kind, &*n.measure.metric)).collect();
    let opened = NoticeKind::Opened;
    assert_eq!(kinds, [(opened, "fluency_average"), (opened, "fluency_pass_rate")]);
}

/// Makes the run of `due`; what is told of fluency's average.
fn told(runner: &Runner, config: &Config, due: Timestamp) -> Vec<NoticeKind> {
    let runtime = Runtime::new().expect("a runtime");
    let outcome =
        runtime.block_on(runner.scheduled(&config.monitors[0], due, due)).expect("it runs");
    let Outcome::Stands(_, notices) = outcome else { panic!("{outcome:?}") };
    let average = notices.iter().filter(|notice| &*notice.measure.metric == "fluency_average");
    average.map(|notice| notice.kind).collect()
}

#[test]
fn the_book_opens_repeats_and_resolves_whichever_hub_runs() {
    let filled = Filled::new();
    let first = at(DUE);
    let after = |hours: i32| first.checked_add(HOUR * hours).expect("later");
    // A window of six hours: bad first, then good, then bad again.
    for hour in 1..400_i32 {
        let minute = SignedDuration::from_mins(5) * hour;
        let time = at("2026-11-23T04:15:00Z").checked_add(minute).expect("later");
        let bad = time < after(1) || time > after(20);
        let score = if bad { 2 } else { 5 };
        filled.put(
            "scores",
            "blue",
            time,
            &format!("f-{hour}.jsonl.gz"),
            &[score_line(time, score, 1.0)],
        );
    }
    let config = filled.loaded(
        "alerts: {quiet: 4h}\nmonitors: [{name: hourly, schedule: '15 * * * *', window: PT6H, deployment: \
         blue, signals: {generation_quality: {average: {fluency: 4}}}}]",
    );
    let runtime = Runtime::new().expect("a runtime");
    let bucket = runtime.block_on(opened(&config));
    let mut all = Vec::new();
    for hours in 0..=29 {
        // Another hub each time: the book is in the bucket.
        let runner = Runner::new(Arc::clone(&bucket), &config);
        let kinds = told(&runner, &config, after(hours));
        all.extend(kinds.into_iter().map(|kind| (hours, kind)));
    }
    let [opened, resolved, again, repeated] = all.as_slice() else { panic!("{all:?}") };
    assert_eq!(*opened, (0, NoticeKind::Opened));
    assert!(resolved.1 == NoticeKind::Resolved && (2..=7).contains(&resolved.0), "{all:?}");
    assert!(again.1 == NoticeKind::Opened && (21..=24).contains(&again.0), "{all:?}");
    assert_eq!(*repeated, (again.0 + 4, NoticeKind::Repeated), "after the quiet time");
    let last = filled.results().pop().expect("results").1;
    assert_eq!((last.alerts.len(), last.alerts[0].since), (1, after(again.0)));
}

/// The whole: a process that was away when a run was due catches it up once, and tells who is to be told.
#[test]
fn a_missed_run_is_caught_up_once_after_downtime_and_people_are_told() {
    let sink = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let upstream = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let monitor = format!(
        "monitors: [{{name: daily, schedule: '15 10 * * *', deployment: blue, signals: \
         {{generation_quality: {{average: {{fluency: 4}}}}}}}}]\nalerts: {{webhook: [{{url: \
         'http://127.0.0.1:{}/hook'}}]}}",
        sink.port
    );
    let filled = Filled::new();
    let now = Timestamp::now();
    let days_ago = |days: i32| now.checked_sub(HOUR * 24 * days).expect("earlier");
    filled.scores(now, &[2, 3], 0.5);
    // The last run was three days ago; what it found is ok, so the violation is news.
    let config = filled.loaded(&monitor);
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let runner = Runner::new(opened(&config).await, &config);
        let before = &config.monitors[0];
        let due =
            flowtap::monitor::schedule::latest(before, days_ago(9), days_ago(8)).expect("due");
        let run = runner.scheduled(before, due, days_ago(8)).await.expect("it runs");
        assert!(matches!(run, Outcome::Stands(run, _) if run.state == State::NotEnoughData));
    });

    let bucket = format!("bucket: 'file://{}'", filled.bucket().display());
    let flowtap = Setup::before(upstream.port).top(&monitor).top(&bucket).start();
    flowtap.await_metric(
        "flowtap_monitor_runs_total",
        &["monitor=\"daily\"", "result=\"violated\""],
        1.0,
    );
    let labels =
        ["monitor=\"daily\"", "signal=\"generation_quality\"", "metric=\"fluency_average\""];
    assert_eq!(flowtap.metric("flowtap_monitor_state", &labels), 1.0);
    assert_eq!(flowtap.metric("flowtap_violations_total", &labels), 1.0);
    flowtap.await_metric(
        "flowtap_alerts_total",
        &["target=\"webhook-1\"", "result=\"delivered\""],
        1.0,
    );
    let stopping = Instant::now();
    drop(flowtap.stop());
    assert!(stopping.elapsed() < Duration::from_secs(10), "monitors do not hold up the end");
    let text = sink.received_text();
    assert_eq!(text.matches("POST /hook").count(), 1, "{text}");
    assert!(text.contains("\"kind\":\"opened\""), "{text}");
    assert_eq!(filled.results().len(), 2, "one before, one caught up");

    let flowtap = Setup::before(upstream.port).top(&monitor).top(&bucket).start();
    std::thread::sleep(Duration::from_secs(1));
    drop(flowtap.stop());
    assert_eq!(filled.results().len(), 2, "nothing is made twice");
    assert_eq!(sink.received_text().matches("POST /hook").count(), 1, "nothing is told twice");
}
