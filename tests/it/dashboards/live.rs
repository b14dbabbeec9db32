//! A real Prometheus, a real flowtap, real traffic of every kind.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Query, installed, panels, peers_wanted, record_name, root, rules};
use crate::support::process::{Process, free_port};
use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{Peer, Upstream, json_post, json_response};

/// How long every query has to find something, from Prometheus' start on: a monitor runs at the minute.
const FOUND_WITHIN: Duration = Duration::from_secs(120);

#[test]
fn every_panel_and_every_rule_shows_something_of_a_live_flowtap() {
    if !peers_wanted() {
        return;
    }
    let upstream = models();
    let flowtap = Setup::before(upstream.port)
        .tap("deployment: blue")
        .top("sample: {rate: 1}")
        .top(MONITOR)
        .start();
    // A defect contained, and a bucket that is away: what the panels and alerts of faults stand on.
    let bucket = format!(
        "bucket: {{url: s3://samples/x, endpoint: \"http://127.0.0.1:{}\", region: r, \
         path_style: true, access_key_id: k, secret_access_key: s, \
         attempt_timeout: 1s, operation_timeout: 2s}}",
        free_port()
    );
    let panicking = Setup::before(upstream.port)
        .failing_at("pipeline:panic")
        .top(&bucket)
        .top(MONITOR)
        .top("evaluate: {measures: [refusal], poll: 1s}")
        .start();
    let prometheus = Prometheus::scraping(&[flowtap.admin, panicking.admin]);
    let done = AtomicBool::new(false);
    let missing = std::thread::scope(|scope| {
        scope.spawn(|| traffic(&flowtap, &panicking, &done));
        let missing = prometheus.missing(&questions());
        done.store(true, Ordering::SeqCst);
        missing
    });
    assert!(missing.is_empty(), "these found nothing:\n{}", missing.join("\n"));
    let unhealthy = prometheus.unhealthy_rules();
    assert!(unhealthy.is_empty(), "{unhealthy:#?}");
}

/// One that finds what the traffic does wrong.
pub const MONITOR: &str = "monitors: [{name: minutely, schedule: '* * * * *', window: PT1H, method: plain, signals: \
     {operations: {error_rate_max: 0.001}, generation_quality: {average: {user_feedback: 4.5}}}}]";

/// What only a judge can bring about.
const NEEDS_A_JUDGE: &[&str] = &["alert FlowtapJudgeFails"];

/// What is asked: the panels' queries with their variables filled in, what the recording rules
/// recorded, and what the alerts compare, whether or not it crosses their thresholds.
fn questions() -> Vec<Query> {
    let panels = panels().into_iter().map(|panel| Query { text: filled(&panel.text), ..panel });
    let rules = rules().into_iter().map(|rule| match record_name(&rule) {
        Some(name) => Query { text: name, ..rule },
        None => Query { text: unfiltered(&rule.text), ..rule },
    });
    let left_out = |query: &Query| query.is_absent() || NEEDS_A_JUDGE.contains(&&*query.place);
    panels.chain(rules).filter(|query| !left_out(query)).collect()
}

fn filled(text: &str) -> String {
    let all = ["tap", "deployment", "model"];
    let text =
        all.iter().fold(text.to_owned(), |text, name| text.replace(&format!("${name}"), ".*"));
    text.replace("$__rate_interval", "10s").replace("$__range", "1m")
}

/// `a > 5` drops what is not above 5; `a > bool 5` tells 0 or 1 of everything.
fn unfiltered(text: &str) -> String {
    let mut words: Vec<&str> = Vec::new();
    for word in text.split(' ') {
        words.push(word);
        if matches!(word, ">" | "<" | ">=" | "<=" | "==" | "!=") {
            words.push("bool");
        }
    }
    words.join(" ")
}

/// Answers by what it is asked for: whole, streamed, without figures, not JSON, failing.
fn models() -> Upstream {
    Upstream::start(|peer| {
        while let Some(request) = peer.read_request() {
            let body = request.text();
            if body.contains("\"stream\":true") {
                stream(peer);
            } else if body.contains("fail") {
                peer.send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno");
            } else if body.contains("garble") {
                peer.send(json_response("{\"choices\": [{"));
            } else {
                peer.send(json_response(CHAT));
            }
        }
    })
}

/// A whole answer, with all that a model may report.
pub const CHAT: &str = r#"{"id":"c","object":"chat.completion","model":"gpt-4-0613","choices":[{"index":0,"message":{"role":"assistant","content":"Dry."},"finish_reason":"stop"}],"usage":{"prompt_tokens":120,"completion_tokens":30,"total_tokens":150,"prompt_tokens_details":{"cached_tokens":100},"completion_tokens_details":{"reasoning_tokens":12}}}"#;

/// A streamed answer, that reports nothing.
pub fn stream(peer: &mut Peer) {
    peer.send(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for word in ["It", " is", " dry"] {
        std::thread::sleep(Duration::from_millis(5));
        peer.chunk(format!("data: {{\"model\":\"gpt-4-0613\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{word}\"}}}}]}}\n\n"));
    }
    peer.chunk("data: [DONE]\n\n");
    peer.send("0\r\n\r\n");
}

fn traffic(flowtap: &Flowtap, panicking: &Flowtap, done: &AtomicBool) {
    let (mut client, mut other) = (flowtap.client(), panicking.client());
    while !done.load(Ordering::SeqCst) {
        for (content, stream) in
            [("hello", false), ("hello", true), ("fail", false), ("garble", false)]
        {
            let body = format!(
                r#"{{"model":"gpt-4","stream":{stream},"messages":[{{"role":"user","content":"{content}"}}]}}"#
            );
            client.send(json_post("/v1/chat/completions", &body));
            client.read_response();
        }
        said_of_answers(&mut client);
        other.send(json_post("/v1/chat/completions", r#"{"model":"gpt-4","messages":[]}"#));
        other.read_response();
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What users say of a flow's answers: every score, and one that names nobody's request.
fn said_of_answers(client: &mut Peer) {
    let mut send = |path: &str, body: &str, id: &str| {
        let post = json_post(path, body);
        client.send(post.replacen("Host", &format!("x-request-id: {id}\r\nHost"), 1));
        client.read_response();
    };
    send("/score", r#"{"question":"Is it dry?"}"#, "asked");
    for rating in 1..=5 {
        send("/feedback", &format!(r#"{{"rating":{rating}}}"#), "asked");
    }
    send("/feedback", r#"{"rating":1}"#, "nobody");
}

/// A Prometheus with the rules of `deploy/`, that scrapes twice a second; it ends with the test.
struct Prometheus {
    port: u16,
    _process: Process,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn scraping(admins: &[u16]) -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let config = folder.path().join("prometheus.yml");
        std::fs::write(&config, configuration(admins)).expect("written");
        let mut command = Command::new(installed("prometheus"));
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut process = Process::start("prometheus", &mut command);
        process.await_http(port, "/-/ready", Duration::from_secs(60));
        Self { port, _process: process, _folder: folder }
    }

    /// The queries that found nothing, or were refused, within the time they have.
    fn missing(&self, queries: &[Query]) -> Vec<String> {
        assert!(queries.len() > 50, "there is something to ask: {}", queries.len());
        let deadline = Instant::now() + FOUND_WITHIN;
        let mut left: Vec<_> = queries.iter().collect();
        loop {
            left.retain(|query| !is_answered(&self.ask(&query.text)));
            if left.is_empty() || Instant::now() > deadline {
                let told = |query: &&Query| {
                    format!("{}: {}\n    {}", query.place, query.text, self.ask(&query.text))
                };
                return left.iter().map(told).collect();
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn ask(&self, query: &str) -> Value {
        let encoded: String = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("query", query)
            .finish();
        self.get(&format!("/api/v1/query?{encoded}"))
    }

    fn unhealthy_rules(&self) -> Vec<Value> {
        let answer = self.get("/api/v1/rules");
        let groups = answer["data"]["groups"].as_array().expect("groups").iter();
        let rules: Vec<_> =
            groups.flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect();
        assert_eq!(rules.len(), super::rules().len(), "every rule was loaded");
        rules.into_iter().filter(|rule| rule["health"] != "ok").collect()
    }

    fn get(&self, path: &str) -> Value {
        let mut client = Peer::connect(self.port);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        serde_json::from_str(&client.read_response().text()).expect("JSON")
    }
}

fn configuration(admins: &[u16]) -> String {
    let rules = |file: &str| root().join(Path::new("deploy/prometheus")).join(file);
    let targets: Vec<_> = admins.iter().map(|port| format!("\"127.0.0.1:{port}\"")).collect();
    format!(
        "global: {{scrape_interval: 500ms, evaluation_interval: 500ms}}\n\
         rule_files: [{}, {}]\n\
         scrape_configs: [{{job_name: any, static_configs: [{{targets: [{}]}}]}}]\n",
        rules("flowtap.rules.yml").display(),
        rules("flowtap.alerts.yml").display(),
        targets.join(", ")
    )
}

/// It succeeded, with at least one series that has a number.
fn is_answered(answer: &Value) -> bool {
    let series = answer["data"]["result"].as_array().cloned().unwrap_or_default();
    answer["status"] == "success"
        && series
            .iter()
            .any(|series| series["value"][1].as_str().is_some_and(|value| value != "NaN"))
}
