//! The API as a program asks it.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::process::Process;
use super::tap::{Flowtap, address};
use super::wire::{Message, Peer, Upstream, json_post, json_response};

/// What went through a tap before the tests of the reading side look: `fail` in a question is a 500.
pub fn answering_upstream() -> Upstream {
    Upstream::start(|peer| {
        while let Some(request) = peer.read_request() {
            let asked = String::from_utf8_lossy(&request.raw_body).into_owned();
            let answer = "{\"model\":\"gpt-4-0613\",\"choices\":[{\"message\":{\"role\":\"assistant\",\"content\":\"Forty-two, Größe\"}}],\"usage\":{\"prompt_tokens\":7,\"completion_tokens\":2,\"total_tokens\":9}}";
            peer.send(match asked.contains("fail") {
                true => {
                    "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n".to_owned()
                }
                false => json_response(answer),
            });
        }
    })
}

/// Sends one question through the tap.
#[track_caller]
pub fn ask(flowtap: &Flowtap, question: &str) {
    let body =
        serde_json::json!({"model": "gpt-4", "messages": [{"role": "user", "content": question}]});
    let mut client = flowtap.client();
    client.send(json_post("/v1/chat/completions", &body.to_string()));
    assert!(client.read_response().complete, "an answer");
}

/// One GET of `/api/v1` + `path`, with more header lines.
pub fn get_with(port: u16, path: &str, headers: &str) -> Message {
    let mut client = Peer::connect(port);
    client.send(format!(
        "GET /api/v1{path} HTTP/1.1\r\nHost: localhost\r\n{headers}Connection: close\r\n\r\n"
    ));
    client.read_response()
}

/// The JSON that a question is answered with, which must succeed.
#[track_caller]
pub fn get(port: u16, path: &str) -> Value {
    let answer = get_with(port, path, "");
    assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    serde_json::from_str(&answer.text()).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Asks until `wanted` holds.
#[track_caller]
pub fn await_answer(port: u16, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = get(port, path);
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{path} goes on telling {answer}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A hub over the bucket below `folder`, its index in `index` beside it.
pub struct Hub {
    pub process: Process,
    pub admin: u16,
}

/// Starts a hub, and waits until it has read all of the bucket.
pub fn hub(folder: &Path, index: &str, arguments: &[&str]) -> Hub {
    let process = start_hub(folder, index, arguments);
    let admin = address(&process, "\"door\":\"admin\"");
    await_answer(admin, "/overview", |answer| !answer["caught_up"].is_null());
    Hub { process, admin }
}

/// Starts a hub and waits for nothing.
pub fn start_hub(folder: &Path, index: &str, arguments: &[&str]) -> Process {
    let (file, shown) = (folder.join("hub.yaml"), folder.display());
    let config = format!(
        "bucket: file://{shown}/bucket\nstore: {{dir: {shown}/{index}, look: 200ms}}\nadmin: {{listen: 127.0.0.1:0}}\n"
    );
    std::fs::write(&file, config).expect("the configuration is written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command.args(["hub", "--config"]).arg(&file).args(arguments);
    Process::start("hub", &mut command)
}
