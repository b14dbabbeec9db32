//! Monitors over a real bucket: what the command line tells, whose result stands, what is caught up, and
//! who is told.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use flowtap::bucket::{self, Bucket};
use flowtap::config::{self, Config};
use flowtap::domain::{MonitorRun, NoticeKind, State};
use flowtap::drain::Drain;
use flowtap::ingest::Ingest;
use flowtap::metrics::Metrics;
use flowtap::monitor::{Indexed, Outcome, Runner};
use flowtap::store::Store;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::support::api::await_answer;
use crate::support::process::Process;
use crate::support::tap::{Setup, address};
use crate::support::wire::Upstream;

mod filled;

use filled::{Filled, other_line, score_line};

const DUE: &str = "2026-11-23T10:15:00Z";
const HOUR: SignedDuration = SignedDuration::from_hours(1);

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
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

/// The figures of one run, counted by `runner`.
fn figures(runner: &Runner, config: &Config) -> Value {
    let runtime = Runtime::new().expect("a runtime");
    let run = runtime.block_on(runner.manual(&config.monitors[0], at(DUE), at(DUE)));
    json!(run.expect("it runs").signals)
}

#[test]
fn the_index_and_the_bucket_give_the_same_figures() {
    let filled = Filled::new();
    filled.scores(at(DUE), &[5, 4, 1, 3, 5], 0.1);
    filled.usage(at(DUE), 2);
    let time = at("2026-11-20T10:00:00Z");
    let mut drifted = score_line(time, 1, 0.5);
    drifted["judge_drift"] = json!(true);
    let others = [
        score_line(time, 2, 1.0),
        drifted,
        other_line(time, "f1", ("value", json!(0.123_456))),
        other_line(time, "refusal", ("value", json!(1.0))),
        other_line(time, "politeness", ("score", json!(2))),
        other_line(time, "formal", ("value", json!(0.0))),
        other_line(time, "formal", ("error", json!("timeout"))),
    ];
    filled.put("scores", "blue", time, "g.jsonl.gz", &others);
    for scope in ["deployment: blue", "tap: chat", "method: plain"] {
        let monitor = MONITOR.replace("deployment: blue", scope);
        let folder = filled.folder.path().join(scope.replace(": ", "-"));
        let config = filled.loaded(&format!("{monitor}\nstore: {{dir: '{}'}}", folder.display()));
        let drain = Drain::default();
        let (store, writer) = Store::open(&config.store, false).expect("it opens");
        drain.thread("store", move || writer.run()).expect("a thread");
        let runtime = Runtime::new().expect("a runtime");
        let bucket = runtime.block_on(opened(&config));
        let metrics = Metrics::new(&config.metrics);
        let settings = config.store.clone();
        let ingest = Ingest::new(bucket.clone(), store.clone(), metrics, settings, Arc::default());
        let (progress, stop) = (ingest.progress(), CancellationToken::new());
        let working = runtime.spawn(ingest.run(stop.clone()));
        let deadline = Instant::now() + Duration::from_secs(60);
        while progress.caught_up().is_none() {
            assert!(Instant::now() < deadline, "the index is not filled");
            std::thread::sleep(Duration::from_millis(20));
        }
        let by_bucket = figures(&Runner::new(bucket.clone(), &config), &config);
        let far = Arc::new(|| Some(Timestamp::MAX));
        let index = Indexed::new(store, far);
        // An empty bucket: what is told can only come from the index.
        let empty = tempfile::tempdir().expect("a folder");
        let elsewhere = config::Bucket {
            store: config::BucketStore::Local { path: empty.path().to_owned() },
            ..config.bucket.clone()
        };
        let nothing = runtime.block_on(bucket::open(&elsewhere)).expect("it opens");
        let by_index = figures(&Runner::new(nothing, &config).with_index(index), &config);
        assert_eq!(by_index, by_bucket, "{scope}");
        assert_eq!(by_index[0]["measures"][0]["count"], 161);
        let metrics = by_index[0]["measures"].as_array().expect("measures");
        let metrics: Vec<_> = metrics.iter().map(|m| m["metric"].as_str().expect("one")).collect();
        let others = ["formal_share", "politeness_average", "politeness_pass_rate", "f1_mean"];
        assert_eq!(metrics[2..6], others, "each on its own scale");
        assert_eq!(metrics[6..], ["refusal_share"]);
        stop.cancel();
        runtime.block_on(working).expect("it ends");
    }
}

#[test]
fn computed_and_custom_criteria_have_thresholds_of_their_own() {
    let limits = "monitors: [{name: daily, schedule: '15 10 * * *', signals: {generation_quality: \
                  {average: {fluency: 4}, limits: [{criterion: refusal, at_most: 0.2}, {criterion: f1, \
                  at_least: 0.4}, {criterion: politeness, at_least: 3, pass_rate: 0.5}, {criterion: \
                  formal, scale: boolean, at_least: 0.9}]}}}]";
    let run = |bad: bool| {
        let filled = Filled::new();
        filled.scores(at(DUE), &[5], 0.1);
        for minute in 1..=200 {
            let time = at(DUE).checked_sub(SignedDuration::from_mins(minute)).expect("earlier");
            let lines = [
                other_line(time, "refusal", ("value", json!(f64::from(u8::from(bad))))),
                other_line(time, "f1", ("value", json!(if bad { 0.1 } else { 0.9 }))),
                other_line(time, "politeness", ("score", json!(if bad { 1 } else { 5 }))),
                other_line(time, "formal", ("value", json!(f64::from(u8::from(!bad))))),
            ];
            filled.put("scores", "blue", time, &format!("h-{minute}.jsonl.gz"), &lines);
        }
        let file = filled.config(limits);
        let file = file.to_str().expect("text");
        let (code, json, log) = flowtap(&["run", "--at", DUE, "--json", "--config", file]);
        let run: MonitorRun = serde_json::from_str(&json).unwrap_or_else(|_| panic!("{log}"));
        let states = run.signals[0].measures.iter();
        let states = states.map(|measure| (measure.metric.to_string(), measure.state));
        (code, states.filter(|(_, state)| *state == State::Violated).collect::<Vec<_>>())
    };
    assert_eq!(run(false), (Some(0), vec![]));
    let (code, violated) = run(true);
    let names: Vec<_> = violated.iter().map(|(metric, _)| metric.as_str()).collect();
    let wanted =
        ["refusal_share", "f1_mean", "politeness_average", "politeness_pass_rate", "formal_share"];
    assert_eq!((code, names.as_slice()), (Some(3), &wanted[..]), "and fluency is untouched");
}

#[test]
fn scores_of_a_drifting_judge_open_no_alert() {
    let filled = Filled::new();
    filled.scores(at(DUE), &[5, 4, 5], 0.1);
    for minute in 1..=200 {
        let time = at(DUE).checked_sub(SignedDuration::from_mins(minute)).expect("earlier");
        let mut line = score_line(time, 1, 0.1);
        line["judge_drift"] = json!(true);
        filled.put("scores", "blue", time, &format!("d-{minute}.jsonl.gz"), &[line]);
    }
    let config = filled.loaded(MONITOR);
    let runtime = Runtime::new().expect("a runtime");
    let bucket = runtime.block_on(opened(&config));
    let runner = Runner::new(Arc::clone(&bucket), &config);
    assert_eq!(told(&runner, &config, at(DUE)), [], "200 ones of a judge that fails its own test");
    let run = filled.results().pop().expect("a result").1;
    assert_eq!((run.state, run.unscored), (State::NotEnoughData, 200));
    // The same without the mark is an alert: the test can fail.
    let bad = Filled::new();
    bad.scores(at(DUE), &[1], 0.1);
    let config = bad.loaded(MONITOR);
    let runner = Runner::new(runtime.block_on(opened(&config)), &config);
    assert_eq!(told(&runner, &config, at(DUE)), [NoticeKind::Opened]);
}

#[test]
fn a_hub_makes_runs_from_its_index_and_its_api_tells_them() {
    let filled = Filled::new();
    let now = Timestamp::now();
    filled.scores(now, &[2, 3], 0.5);
    let monitor = "monitors: [{name: often, schedule: '* * * * *', deployment: blue, signals: \
                   {generation_quality: {average: {fluency: 4}}}}]";
    let config = filled.loaded(monitor);
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let runner = Runner::new(opened(&config).await, &config);
        let long_ago = now.checked_sub(HOUR * 24 * 9).expect("earlier");
        runner.scheduled(&config.monitors[0], long_ago, long_ago).await.expect("it runs");
    });
    let shown = filled.folder.path().display();
    let file = filled.folder.path().join("hub.yaml");
    let text = format!(
        "bucket: file://{shown}/bucket\nstore: {{dir: {shown}/index, look: 200ms}}\nadmin: {{listen: \
         127.0.0.1:0}}\n{monitor}\n"
    );
    fs::write(&file, text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command.args(["hub", "--config"]).arg(&file);
    let process = Process::start("hub", &mut command);
    let admin = address(&process, "\"door\":\"admin\"");
    let window = format!(
        "from={}&to={}",
        now.checked_sub(HOUR).expect("earlier"),
        now.checked_add(HOUR).expect("later")
    );
    let told = await_answer(admin, &format!("/monitors?{window}"), |answer| {
        answer["latest"][0]["state"] == "violated"
    });
    assert_eq!(told["latest"][0]["signals"][0]["measures"][0]["value"], 2.5, "{told}");
    let alerts = await_answer(admin, &format!("/alerts?{window}"), |answer| {
        answer["alerts"].as_array().is_some_and(|alerts| !alerts.is_empty())
    });
    assert_eq!(alerts["alerts"][0]["state"], "open", "{alerts}");
    assert_eq!(alerts["alerts"][0]["details"]["metric"], "fluency_average", "{alerts}");
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
