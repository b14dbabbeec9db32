//! The console page in a real browser, on what the real program saw: `tests/e2e/page.mjs` drives it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{TOKEN, get, guarded};
use crate::dashboards::live::{CHAT, MONITOR, stream};
use crate::peers::peers_wanted;
use crate::support::process::Process;
use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{Peer, Upstream, json_post, json_response};

/// A minute has to be over before its figures are told, and before a monitor sees them.
const TOLD_WITHIN: Duration = Duration::from_secs(240);
/// The browser opens every view on every screen, and forty samples.
const DRIVEN_WITHIN: Duration = Duration::from_secs(900);

#[test]
fn every_view_shows_in_a_browser_what_the_api_and_the_metrics_tell() {
    if !peers_wanted() {
        return;
    }
    let upstream = flow();
    let flowtap = Setup::before(upstream.port)
        .tap("deployment: blue")
        .and_tap("models", upstream.port)
        .top("sample: {rate: 1}")
        .top(MONITOR)
        .top("collector: {otlp_http: 127.0.0.1:0}")
        .start();
    let asked = traffic(&flowtap);
    await_figures(&flowtap, asked);
    let guarded = guarded();
    drive(&flowtap, &guarded);
}

/// What people could put into a prompt to get at whoever reads it.
fn hostile() -> Vec<String> {
    let text = std::fs::read_to_string(root().join("tests/e2e/hostile.json")).expect("prompts");
    let prompts: Vec<String> = serde_json::from_str(&text).expect("a list of texts");
    assert!(prompts.len() >= 40, "{} prompts", prompts.len());
    prompts
}

/// Answers a question with itself, streams where it is asked to, fails where it is told to.
fn flow() -> Upstream {
    Upstream::start(|peer| {
        while let Some(request) = peer.read_request() {
            let body: Value = serde_json::from_str(&request.text()).unwrap_or_default();
            if body["stream"] == true {
                stream(peer);
            } else if body["question"] == "fail" {
                peer.send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\n\r\nno");
            } else if body["messages"].is_array() {
                peer.send(json_response(CHAT));
            } else {
                let answer = json!({"answer": body["question"], "context": "3000 mm"});
                peer.send(json_response(&answer.to_string()));
            }
        }
    })
}

/// Every kind of request; how many were made.
fn traffic(flowtap: &Flowtap) -> u64 {
    let (mut chat, mut models) = (flowtap.client(), Peer::connect(flowtap.port_of("models")));
    let mut asked = 0;
    let mut ask = |client: &mut Peer, path: &str, body: Value, id: &str| {
        let post = json_post(path, &body.to_string());
        client.send(post.replacen("Host", &format!("x-request-id: {id}\r\nHost"), 1));
        client.read_response();
        asked += 1;
    };
    for (number, prompt) in hostile().iter().enumerate() {
        ask(&mut chat, "/score", json!({"question": prompt}), &format!("hostile-{number}"));
    }
    for number in 0..150 {
        let id = format!("plain-{number}");
        ask(&mut chat, "/score", json!({"question": format!("Is tent {number} waterproof?")}), &id);
        if number % 3 == 0 {
            let said = json!({"rating": 1 + number % 5, "comment": "as it is"});
            ask(&mut chat, "/feedback", said, &id);
        }
        let messages = json!([{"role": "user", "content": "Dry?"}]);
        let body = json!({"model": "gpt-4", "stream": number % 5 == 0, "messages": messages});
        ask(&mut models, "/v1/chat/completions", body, &id);
    }
    for _ in 0..7 {
        ask(&mut chat, "/score", json!({"question": "fail"}), "failing");
    }
    ask(&mut chat, "/score", json!({"question": "Which steps were taken?"}), "traced");
    tell_steps(flowtap);
    asked
}

/// The steps of the request `traced`, as a program with OpenTelemetry tells of them.
fn tell_steps(flowtap: &Flowtap) {
    let now = jiff::Timestamp::now().as_nanosecond();
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    let span = |id: u8, parent: Option<u8>, name: &str, kind: &str, start_ms: i128, ms: i128| {
        let failed = kind == "LLM";
        let id_of = |id: u8| format!("00000000000000{id:02x}");
        let attributes = [text("span_type", kind), text("request_id", "traced")];
        json!({"traceId": "5b8efff798038103d269b633813fc60c", "spanId": id_of(id),
            "parentSpanId": parent.map(id_of).unwrap_or_default(), "name": name, "kind": 1,
            "startTimeUnixNano": (now + start_ms * 1_000_000).to_string(),
            "endTimeUnixNano": (now + (start_ms + ms) * 1_000_000).to_string(),
            "attributes": attributes,
            "status": if failed { json!({"code": 2, "message": "<b>it broke</b>"}) } else { json!({}) }})
    };
    let spans = json!([
        span(3, Some(2), "<i>chat</i> gpt-4", "LLM", 40, 55),
        span(1, None, "qa_flow", "Flow", 0, 100),
        span(2, Some(1), "answer", "Function", 35, 64),
        span(4, Some(1), "look up", "Retrieval", 2, 30),
    ]);
    let scopes = json!([{"scope": {}, "spans": spans}]);
    let body = json!({"resourceSpans": [{"resource": {}, "scopeSpans": scopes}]});
    let mut sender = Peer::connect(flowtap.port_of_endpoint("otlp_http"));
    sender.send(json_post("/v1/traces", &body.to_string()));
    assert_eq!(sender.read_response().status(), 200);
}

/// Until the API tells of all requests, and of a monitor's run that found what is wrong with them.
fn await_figures(flowtap: &Flowtap, asked: u64) {
    let deadline = Instant::now() + TOLD_WITHIN;
    let ask = |path: &str| serde_json::from_str::<Value>(&get(flowtap, path).text()).expect("JSON");
    loop {
        let (told, ran) = (ask("/api/v1/overview"), ask("/api/v1/monitors"));
        if told["requests"]["requests"] == asked && ran["latest"][0]["state"] == "violated" {
            return;
        }
        let late = Instant::now() > deadline;
        assert!(!late, "{asked} requests were made: {told}\n{ran}\n{}", flowtap.printed());
        std::thread::sleep(Duration::from_millis(500));
    }
}

#[track_caller]
fn drive(flowtap: &Flowtap, guarded: &Flowtap) {
    let script = root().join("tests/peers/browser.sh");
    let found = Command::new("bash").arg(script).arg("bin").output().expect("bash is there");
    let browser = String::from_utf8(found.stdout).expect("a path");
    let modules = root().join(".cache/peers/browser");
    let there = !browser.trim().is_empty() && modules.join("node_modules").exists();
    assert!(there, "no browser, or nothing to drive it. Run: bash tests/peers/browser.sh");
    let page = root().join("web/dist/page/index.html");
    assert!(page.exists(), "the page was not built. Run: web/build.sh, then build this test again");
    let at = |admin: u16| format!("http://127.0.0.1:{admin}");
    let mut command = Command::new("node");
    command
        .arg(root().join("tests/e2e/page.mjs"))
        .arg(at(flowtap.admin))
        .env("CHROMIUM", browser.trim())
        .env("MODULES", modules)
        .env("TAP", at(flowtap.port))
        .env("GUARDED", at(guarded.admin))
        .env("TOKEN", TOKEN);
    let mut process = Process::start("the browser", &mut command);
    let status = process.await_end(DRIVEN_WITHIN);
    assert!(status.success(), "{}", process.printed());
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
