//! Secrets travel through and stay nowhere: not in the bucket, the spool, the logs or the metrics.
#![allow(clippy::expect_used, clippy::panic)]

mod hidden;

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use crate::streams::CHAT;
use crate::support::api;
use crate::support::judge::ScriptedJudge;
use crate::support::tap::{Setup, rows};
use crate::support::wire::{Upstream, json_post, json_response};

/// One secret for each place where a client or an upstream may put one.
const BEARER: &str = "canary-bearer-5up3rs3cr3t";
const API_KEY: &str = "canary-apikey-5up3rs3cr3t";
const X_API_KEY: &str = "canary-xapikey-5up3rs3cr3t";
const COOKIE: &str = "canary-cookie-5up3rs3cr3t";
const QUERY: &str = "canary-query-5up3rs3cr3t";
const JSON_KEY: &str = "canary-jsonkey-5up3rs3cr3t";
const SET_COOKIE: &str = "canary-setcookie-5up3rs3cr3t";
const PROMPT: &str = "sk-proj-canaryPROMPT0123456789abcdefghijklmnopqrstuv";
const ECHOED: &str = "sk-canaryERROR0123456789abcdefghijklmnopqrstuvwxyz12";
const PLAIN_TOKEN: &str =
    "eyJhbGciOiJIUzI1NiJ9.eyJjYW5hcnkiOiJqd3QifQ.c2lnbmF0dXJlLWNhbmFyeS0wMTIz";

const CANARIES: [&str; 10] =
    [BEARER, API_KEY, X_API_KEY, COOKIE, QUERY, JSON_KEY, SET_COOKIE, PROMPT, ECHOED, PLAIN_TOKEN];

fn request(path: &str) -> String {
    let body = serde_json::json!({
        "model": "gpt-4",
        "api_key": JSON_KEY,
        "messages": [{"role": "user", "content": format!("my key is {PROMPT}, my token {PLAIN_TOKEN}")}],
    })
    .to_string();
    format!(
        "POST {path}?key={QUERY}&sig={QUERY} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {BEARER}\r\napi-key: {API_KEY}\r\nx-api-key: {X_API_KEY}\r\nCookie: session={COOKIE}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn upstream() -> Upstream {
    Upstream::start(|peer| {
        while let Some(request) = peer.read_request() {
            let status = if request.head.contains("/fail") { "401 Unauthorized" } else { "200 OK" };
            let body = format!(
                "{{\"error\":{{\"message\":\"Incorrect API key provided: {ECHOED}\",\"code\":\"invalid_api_key\"}},\"api_key\":\"{JSON_KEY}\"}}"
            );
            peer.send(format!("HTTP/1.1 {status}\r\nSet-Cookie: s={SET_COOKIE}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    })
}

/// Every file below `folder`, gzip undone.
fn contents(folder: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(contents(&path));
            continue;
        }
        let bytes = fs::read(&path).expect("a file");
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        let mut unpacked = Vec::new();
        if flate2::read::MultiGzDecoder::new(&*bytes).read_to_end(&mut unpacked).is_ok() {
            text.push_str(&String::from_utf8_lossy(&unpacked));
        }
        found.push((path.display().to_string(), text));
    }
    found
}

fn assert_clean(places: &[(String, String)]) {
    for (place, text) in places {
        for canary in CANARIES {
            assert!(!text.contains(canary), "{canary} lies in {place}");
        }
    }
}

fn leaves_no_trace(bucket_works: bool) {
    let upstream = upstream();
    let setup =
        Setup::before(upstream.port).top("sample: {rate: 1}\nlog: trace\ndrain_timeout: 2s");
    let bucket = setup.folder().join("bucket");
    if !bucket_works {
        fs::write(&bucket, "in the way").expect("a file");
    }
    let flowtap = setup.start();
    let mut client = flowtap.client();
    for path in [CHAT, "/score", "/v1/fail/chat/completions", "/v1/messages"] {
        client.send(request(path));
        assert!(matches!(client.read_response().status(), 200 | 401));
    }
    let refused = |head: String| {
        let mut client = flowtap.client();
        client.send(head);
        assert_eq!(client.read_response().status(), 400);
    };
    refused(format!(
        "GET /x?key={QUERY} HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer {BEARER}\r\n\r\n"
    ));
    refused(format!("GET http://u:{API_KEY}@b/ HTTP/1.1\r\nHost: a\r\n\r\n"));
    flowtap.await_metric("flowtap_requests_total", &["status=\"2xx\""], 3.0);
    let received = upstream.received_text();
    for canary in [BEARER, API_KEY, X_API_KEY, COOKIE, QUERY, JSON_KEY, PROMPT] {
        assert!(received.contains(canary), "{canary} has to reach the upstream");
    }
    let mut places = vec![("metrics".to_owned(), flowtap.metrics())];
    let spool = flowtap.folder().join("spool");
    // What was sampled lies in the spool for a moment, or until the bucket works.
    std::thread::sleep(Duration::from_millis(150));
    places.extend(contents(&spool));
    let stopped = flowtap.stop();
    if bucket_works {
        let samples = stopped.rows("exchanges");
        assert_eq!(samples.len(), 5, "the samples are there");
        let text = serde_json::to_string(&samples).expect("JSON");
        assert!(text.contains("my key is [secret]"), "{text}");
    }
    places.push(("the log".to_owned(), stopped.printed.clone()));
    assert!(stopped.printed.contains("malformed request refused"), "{}", stopped.printed);
    places.extend(contents(stopped.folder()));
    assert_clean(&places);
}

/// Promise (security): secrets from every place of a request or answer are in no object, log (at
/// `trace`) or metric. Figure: 10 secrets in 10 places, 0 found.
#[test]
fn secrets_are_in_no_object_log_or_metric() {
    leaves_no_trace(true);
}

/// Promise (security): nor in the spool. Figure: 0 found.
#[test]
fn secrets_are_in_no_segment_that_waits_for_the_bucket() {
    leaves_no_trace(false);
}

/// Promise (security): nor in what is told of an upstream that fails. Figure: 0 found.
#[test]
fn secrets_are_in_no_message_of_an_upstream_that_fails() {
    let upstream = Upstream::start(|peer| {
        peer.read_request();
        peer.send(format!(
            "HTTP/1.1 200 OK\r\nX-Broken : {ECHOED}\r\nContent-Length: nonsense {ECHOED}\r\n\r\n"
        ));
    });
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 1}\nlog: trace").start();
    let mut client = flowtap.client();
    client.send(request(CHAT));
    let answer = client.read_response();
    assert_eq!(answer.status(), 502);
    assert!(!answer.text().contains(ECHOED));
    client = flowtap.client();
    client.send(json_post(CHAT, "{\"api_key\":").replace("/1.1", "/1.1\r\nBroken header"));
    assert_eq!(client.read_response().status(), 400);
    let stopped = flowtap.stop();
    let mut places = vec![("the log".to_owned(), stopped.printed.clone())];
    places.extend(contents(stopped.folder()));
    assert_clean(&places);
}

/// Whatever leaves the process by another way than the bucket: what a judge is asked, what it says in
/// turn, spans, and what the page is told.
/// Promise (security): nor in what a judge is asked or says, in spans, or in what the page is told.
/// Figure: 0 found.
#[test]
fn secrets_are_in_no_question_to_a_judge_no_span_and_no_answer_to_the_page() {
    let answer = serde_json::json!({"answer": format!("yours is {ECHOED}"), "api_key": JSON_KEY});
    let upstream = Upstream::answering(json_response(&answer.to_string()));
    let judge = ScriptedJudge::saying(|asked| {
        let said = serde_json::json!({"check": asked.check(), "reason": format!("it said {PLAIN_TOKEN}"), "score": 1});
        said.to_string()
    });
    let spans = Upstream::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let flowtap = Setup::before(upstream.port)
        .top("sample: {rate: 1}\nlog: trace\nevaluate: {measures: [], criteria: [coherence], poll: 100ms}")
        .top(&format!("judge: {{url: \"{}\", model: scripted}}", judge.url()))
        .top(&format!("trace: {{otlp_endpoint: \"http://127.0.0.1:{}\", protocol: http}}", spans.port))
        .start();
    let mut client = flowtap.client();
    let question = format!("my key is {PROMPT}, my token {PLAIN_TOKEN}");
    let body = serde_json::json!({"question": question, "api_key": JSON_KEY}).to_string();
    client.send(format!(
        "POST /score?sig={QUERY} HTTP/1.1\r\nHost: a\r\nx-request-id: {PLAIN_TOKEN}\r\nAuthorization: Bearer {BEARER}\r\nCookie: s={COOKIE}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(client.read_response().status(), 200);
    let samples = api::await_answer(flowtap.admin, "/samples", |answer| {
        answer["samples"].as_array().is_some_and(|samples| !samples.is_empty())
    });
    let id = samples["samples"][0]["id"].as_str().expect("an id").to_owned();
    let path = format!("/samples/{id}");
    let scored = |answer: &serde_json::Value| answer.to_string().contains("it said");
    let sample = api::await_answer(flowtap.admin, &path, scored);
    assert!(judge.questions().iter().any(|asked| asked.user().contains("my key is [secret]")));
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !spans.received_text().contains("/score") {
        assert!(std::time::Instant::now() < deadline, "no span came");
        std::thread::sleep(Duration::from_millis(50));
    }
    let asked =
        judge.questions().iter().map(|asked| format!("{} {}", asked.head, asked.body)).collect();
    let mut places = vec![
        ("what the judge is asked".to_owned(), asked),
        ("spans".to_owned(), spans.received_text()),
        ("a list of samples".to_owned(), samples.to_string()),
        ("a sample".to_owned(), sample.to_string()),
        ("metrics".to_owned(), flowtap.metrics()),
    ];
    let stopped = flowtap.stop();
    let scores = rows(&stopped.folder().join("bucket").join("scores"));
    assert!(!scores.is_empty(), "it was judged");
    places.push(("the log".to_owned(), stopped.printed.clone()));
    places.extend(contents(stopped.folder()));
    assert_clean(&places);
}
