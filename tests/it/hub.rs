//! `flowtap hub` over a bucket that two others filled.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::api::{
    Hub, answering_upstream, ask, await_answer, get, get_with, hub, start_hub,
};
use crate::support::tap::{Setup, rows, sum};

/// Two flowtaps write `ok` and `failing` exchanges each into one bucket, and end; their metrics.
fn fill(folder: &Path, ok: usize, failing: usize) -> Vec<String> {
    let upstream = answering_upstream();
    let filled = ["pod-1", "pod-2"].map(|instance| {
        let flowtap = Setup::before(upstream.port)
            .tap("deployment: blue")
            .top(&format!("instance: {instance}\nbucket: file://{}/bucket", folder.display()))
            .top("sample: {rate: 0.5, errors: 1}")
            .start();
        (0..ok).for_each(|n| ask(&flowtap, &format!("question {n}")));
        (0..failing).for_each(|_| ask(&flowtap, "fail"));
        let wanted = (ok + failing) as f64;
        flowtap.await_metric("flowtap_requests_total", &[], wanted);
        let metrics = flowtap.metrics();
        drop(flowtap.stop());
        metrics
    });
    filled.to_vec()
}

fn figure(answer: &Value, pointer: &str) -> f64 {
    answer.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}: {answer}"))
}

/// All that can be asked of the same moment, for comparing.
fn answers(hub: &Hub) -> Vec<Value> {
    let to = "to=2100-01-01T00:00:00Z&from=2099-12-31T00:00:00Z";
    let now = jiff::Timestamp::now();
    let from = now - jiff::SignedDuration::from_hours(2);
    let window = format!("from={from}&to={}", now + jiff::SignedDuration::from_hours(1));
    let mut answers: Vec<Value> = Vec::new();
    for path in ["/overview", "/usage", "/operations", "/quality", "/samples", "/health"] {
        let mut answer = get(hub.admin, &format!("{path}?{window}"));
        for moving in ["caught_up", "window", "index", "process"] {
            answer.as_object_mut().expect("an object").remove(moving);
        }
        answers.push(answer);
    }
    answers.push(get(hub.admin, &format!("/samples?{to}")));
    answers
}

#[test]
fn the_hubs_figures_are_those_of_the_metrics_and_of_the_bucket() {
    let folder = tempfile::tempdir().expect("a folder");
    let metrics = fill(folder.path(), 30, 4);
    let all = |family: &str, labels: &[&str]| -> f64 {
        metrics.iter().map(|page| sum(page, family, labels)).sum()
    };
    let hub = hub(folder.path(), "index", &[]);
    let overview = get(hub.admin, "/overview");
    assert_eq!(figure(&overview, "/requests/requests"), all("flowtap_requests_total", &[]));
    assert_eq!(figure(&overview, "/requests/errors"), 8.0);
    assert_eq!(
        figure(&overview, "/tokens/input"),
        all("flowtap_tokens_total", &["type=\"input\""])
    );
    assert_eq!(figure(&overview, "/tokens/output"), 120.0);
    assert_eq!(overview["names"]["deployments"], json!(["blue"]));
    let operations = get(hub.admin, "/operations?by=deployment");
    assert_eq!(figure(&operations, "/total/by_outcome/upstream_error"), 8.0);
    assert_eq!(operations["groups"][0]["group"], "blue");
    assert!(figure(&operations, "/total/latency_ms/p95") > 0.0);
    let usage = get(hub.admin, "/usage?model=gpt-4-0613&by=model");
    assert_eq!(figure(&usage, "/by_source/reported/total"), 540.0);
    assert_eq!(figure(&usage, "/input_tokens/count"), 60.0);
    let series = usage["series"].as_array().expect("a series").iter();
    assert_eq!(series.map(|point| figure(point, "/tokens/total")).sum::<f64>(), 540.0);

    let stored = rows(&folder.path().join("bucket/exchanges")).len();
    let samples = get(hub.admin, "/samples?limit=500");
    assert_eq!(samples["samples"].as_array().expect("samples").len(), stored);
    let health = get(hub.admin, "/health");
    assert_eq!(figure(&health, "/ledger/seen"), 68.0);
    assert_eq!(figure(&health, "/ledger/stored"), stored as f64);
    assert_eq!(
        (&health["ledger"]["balanced"], &health["index"]["set_aside"]),
        (&json!(true), &json!([]))
    );
}

#[test]
fn an_index_made_anew_gives_the_same_answers() {
    let folder = tempfile::tempdir().expect("a folder");
    fill(folder.path(), 10, 2);
    let first = hub(folder.path(), "index", &[]);
    let before = answers(&first);
    let mut second = start_hub(folder.path(), "index", &[]);
    let status = second.await_end(Duration::from_secs(20));
    assert_eq!(status.code(), Some(1), "one index, one process: {}", second.printed());
    assert!(second.printed().contains("in use by another flowtap"));
    first.process.terminate();
    drop(first);
    let again = hub(folder.path(), "index", &["--reindex"]);
    assert_eq!(answers(&again), before);
    let elsewhere = hub(folder.path(), "other", &[]);
    assert_eq!(answers(&elsewhere), before);
}

fn gzip(text: &str) -> Vec<u8> {
    use std::io::Write as _;
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(text.as_bytes()).expect("packed");
    packer.finish().expect("packed")
}

/// Puts an object of these lines into the folder of this hour.
fn put(folder: &Path, top: &str, lines: &[Value]) {
    let hour = jiff::Timestamp::now().strftime("date=%Y-%m-%d/hour=%H").to_string();
    let place = folder.join("bucket").join(top).join(hour);
    std::fs::create_dir_all(&place).expect("a folder");
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(place.join("other-1.jsonl.gz"), gzip(&text)).expect("written");
}

/// A line of `scores/` about `sample`.
fn scored(sample: &Value, number: usize, score: u8) -> Value {
    json!({
        "schema": "flowtap.score.v1", "id": format!("01J0000000000000000000000{number}"),
        "time": sample["time"], "exchange": sample["id"], "exchange_time": sample["time"],
        "tap": "chat", "deployment": "blue", "instance": "judge", "criterion": "groundedness",
        "score": score, "error": null, "reason": "because",
        "probability": sample["sample"]["probability"],
        "judge": {"model": "m", "prompt": "groundedness@1", "input": 1, "output": 1, "latency_ms": 2.0},
        "injection_suspect": false,
    })
}

/// A span of `sample`.
fn span(sample: &Value, id: &str, parent: Value, name: &str) -> Value {
    json!({
        "span_id": id, "parent_span_id": parent, "name": name, "kind": "function",
        "source": "otlp", "start": sample["time"], "duration_ms": 2.5, "failed": false,
        "error": null, "model": null, "deployment": null,
        "usage": {"input": null, "output": null, "total": null, "cached_input": null,
                  "reasoning_output": null, "source": null},
        "inputs": null, "output": null, "attributes": {},
    })
}

#[test]
fn scores_traces_and_runs_that_others_wrote_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    fill(folder.path(), 6, 3);
    let samples = rows(&folder.path().join("bucket/exchanges"));
    let given = [(5, 0), (2, 1), (4, 2)];
    let scores = given.map(|(score, at)| scored(&samples[at], at, score));
    put(folder.path(), "scores/deployment=blue", &scores);
    let part = |spans: Value| {
        json!({"schema": "flowtap.trace.v1", "exchange": samples[1]["id"],
               "exchange_time": samples[1]["time"], "tap": "chat", "deployment": "blue",
               "instance": "pod", "trace_id": null, "spans": spans})
    };
    let inner = span(&samples[1], "00000000000000b2", json!("00000000000000a1"), "inner");
    let outer = span(&samples[1], "00000000000000a1", Value::Null, "outer");
    put(folder.path(), "traces/deployment=blue", &[part(json!([inner])), part(json!([outer]))]);
    let at = jiff::Timestamp::now();
    let run = json!({
        "schema": "flowtap.monitor.v1", "id": "daily@now", "monitor": "daily", "at": at,
        "state": "violated", "signals": [],
        "alerts": [{"signal": "operations", "metric": "error_rate", "since": at, "told": at,
                    "resolved": null}],
    });
    put(folder.path(), "monitors/monitor=daily", std::slice::from_ref(&run));

    let hub = hub(folder.path(), "index", &[]);
    let quality = get(hub.admin, "/quality?by=deployment");
    let weight = |at: usize| 1.0 / samples[at]["sample"]["probability"].as_f64().expect("p");
    let (sum, weights) = given.iter().fold((0.0, 0.0), |(sum, weights), (score, at)| {
        (sum + f64::from(*score) * weight(*at), weights + weight(*at))
    });
    let told = &quality["criteria"][0];
    assert!((figure(told, "/average") - sum / weights).abs() < 1e-12, "{told}");
    let (low, high) = (figure(told, "/average_interval/0"), figure(told, "/average_interval/1"));
    assert!(low < sum / weights && sum / weights < high, "{told}");
    assert_eq!((&told["count"], &told["violations"]), (&json!(3), &json!(1)));
    assert_eq!(quality["groups"][0]["group"], "blue");
    let worst = get(hub.admin, "/samples?criterion=groundedness&sort=score&limit=1");
    assert_eq!(worst["samples"][0]["id"], samples[1]["id"]);
    assert_eq!(worst["samples"][0]["scores"], json!({"groundedness": 2}));
    let id = samples[1]["id"].as_str().expect("an id");
    let one = get(hub.admin, &format!("/samples/{id}"));
    assert_eq!((&one["scores"][0]["reason"], &one["trace_parts"]), (&json!("because"), &json!(2)));
    let trace = get(hub.admin, &format!("/traces/{id}"));
    let steps = trace["spans"].as_array().expect("steps").iter();
    let steps: Vec<_> = steps.map(|step| (step["name"].clone(), step["depth"].clone())).collect();
    assert_eq!(steps, [(json!("outer"), json!(0)), (json!("inner"), json!(1))]);
    assert_eq!(get(hub.admin, "/monitors")["latest"], json!([run]));
    assert_eq!(get(hub.admin, "/monitors/daily@now"), run);
    let alerts = get(hub.admin, "/alerts?state=open");
    assert_eq!(alerts["alerts"][0]["details"]["run"], "daily@now");
    assert_eq!(get(hub.admin, "/overview")["open_alerts"], 1);
}

#[test]
fn what_is_damaged_or_foreign_is_named_and_the_rest_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    fill(folder.path(), 6, 2);
    let hub = hub(folder.path(), "index", &[]);
    let known = get(hub.admin, "/samples?limit=500");
    let now = jiff::Timestamp::now();
    let hour = now.strftime("deployment=blue/date=%Y-%m-%d/hour=%H").to_string();
    let put = |dataset: &str, name: &str, body: &[u8]| {
        let place = folder.path().join("bucket").join(dataset).join(&hour);
        std::fs::create_dir_all(&place).expect("a folder");
        std::fs::write(place.join(name), body).expect("written");
    };
    let good = rows(&folder.path().join("bucket/exchanges")).remove(0);
    let mut new = good.clone();
    new["id"] = json!("01J00000000000000000000001");
    new["time"] = json!(now);
    let mut future = good;
    future["schema"] = json!("flowtap.exchange.v2");
    put("exchanges", "x-1.jsonl.gz", &gzip(&format!("{future}\nnot json\n{new}\n")));
    put("exchanges", "notes.txt", b"a foreign object");
    put("exchanges", "x-2.jsonl.gz", b"no gzip at all");
    let mut cut = gzip(&format!("{}\n", "{}".repeat(30_000)));
    cut.truncate(40);
    put("usage", "x-3.jsonl.gz", &cut);
    let health = await_answer(hub.admin, "/health", |answer| {
        answer["index"]["set_aside"].as_array().is_some_and(|places| places.len() >= 5)
    });
    let mut named: Vec<_> = health["index"]["set_aside"]
        .as_array()
        .expect("places")
        .iter()
        .map(|place| {
            let object = place["object"].as_str().expect("a name").rsplit('/').next();
            (object.expect("a name").to_owned(), place["line"].clone(), place["reason"].clone())
        })
        .collect();
    named.sort_by_key(|(object, line, _)| (object.clone(), line.as_u64()));
    assert_eq!(
        named,
        [
            ("notes.txt".to_owned(), json!(0), json!("name")),
            ("x-1.jsonl.gz".to_owned(), json!(1), json!("schema")),
            ("x-1.jsonl.gz".to_owned(), json!(2), json!("not_json")),
            ("x-2.jsonl.gz".to_owned(), json!(0), json!("damaged")),
            ("x-3.jsonl.gz".to_owned(), json!(0), json!("damaged")),
        ]
    );
    let after = get(hub.admin, "/samples?limit=500");
    let count = |answer: &Value| answer["samples"].as_array().expect("samples").len();
    assert_eq!(count(&after), count(&known) + 1, "the good line among the bad ones");
    let quarantined = get_metrics(&hub);
    let counted = sum(&quarantined, "flowtap_ingest_quarantined_total", &["dataset=\"exchanges\""]);
    assert_eq!(counted, 4.0, "each is counted once however often the bucket is looked through");
}

fn get_metrics(hub: &Hub) -> String {
    let mut client = crate::support::wire::Peer::connect(hub.admin);
    client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    client.read_response().text()
}

#[test]
fn a_sidecar_alone_keeps_no_index() {
    let upstream = answering_upstream();
    let flowtap = Setup::before(upstream.port).command("proxy").start();
    ask(&flowtap, "one");
    assert_eq!(get_with(flowtap.admin, "/overview", "").status(), 503);
    let stopped = flowtap.stop();
    assert!(!stopped.folder().join("store").exists());
}
