//! Every recorded exchange of a real server (tests/fixtures/promptflow), replayed byte for byte by a
//! scripted upstream: the client gets the recorded answer, and the record says what it was.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::tap::{Flowtap, Setup};
use crate::support::wire::{Message, Upstream};

const SEPARATOR: &[u8] = b"\n===== RESPONSE (raw bytes below) =====\n";

/// One recorded exchange: the bytes that the client sent, and those that the server answered with.
struct Fixture {
    name: String,
    request: Vec<u8>,
    response: Vec<u8>,
}

fn fixtures() -> Vec<Fixture> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/promptflow");
    let files = |folder: &str| std::fs::read_dir(root.join(folder)).expect("fixtures");
    let files = files("flask").chain(files("llm")).map(|file| file.expect("a file").path());
    let mut files: Vec<PathBuf> =
        files.filter(|file| file.extension().is_some_and(|ending| ending == "http")).collect();
    files.sort();
    files.iter().map(|file| fixture(file)).collect()
}

fn fixture(file: &Path) -> Fixture {
    let bytes = std::fs::read(file).expect("a fixture");
    let at = find(&bytes, SEPARATOR).unwrap_or_else(|| panic!("{}: no answer", file.display()));
    Fixture {
        name: file.file_stem().expect("a name").to_string_lossy().into_owned(),
        request: bytes[..at].to_vec(),
        response: bytes[at + SEPARATOR.len()..].to_vec(),
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// An upstream that answers each connection with the bytes in the slot, then ends it.
fn replaying(slot: &Arc<Mutex<Vec<u8>>>) -> Upstream {
    let slot = Arc::clone(slot);
    Upstream::start(move |peer| {
        if peer.read_request().is_some() {
            let answer = slot.lock().expect("not poisoned").clone();
            peer.send(answer);
        }
    })
}

/// What reaches the other side: start line, fields but those of one hop, body without its framing.
fn carried(message: &Message, not: &[&str]) -> (String, Vec<String>, Vec<u8>) {
    let mut lines = message.head.trim_end().split("\r\n").map(str::to_owned);
    let start = lines.next().unwrap_or_default();
    let ours = |line: &String| {
        let name = line.split(':').next().unwrap_or_default();
        !not.iter().any(|not| name.eq_ignore_ascii_case(not))
    };
    (start, lines.filter(ours).collect(), message.body())
}

fn parsed(bytes: &[u8]) -> Message {
    let end = find(bytes, b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
    let (head, body) = bytes.split_at(end);
    let mut message = Message {
        head: String::from_utf8_lossy(head).into_owned(),
        raw_body: body.to_vec(),
        complete: true,
        end: None,
    };
    if message.header("transfer-encoding").is_some() {
        message.complete = body.ends_with(b"0\r\n\r\n");
    }
    message
}

fn replay(flowtap: &Flowtap, upstream: &Upstream, fixture: &Fixture) {
    let before = upstream.received().len();
    let mut client = flowtap.client();
    client.send(&fixture.request);
    let got = client.read_response();
    let name = &fixture.name;

    let received = upstream.received();
    let sent =
        received.get(before).unwrap_or_else(|| panic!("{name}: nothing reached the upstream"));
    let hop = ["host", "connection"];
    let upward = [&hop[..], &["x-ms-client-request-id"]].concat();
    assert_eq!(
        carried(&parsed(sent), &upward),
        carried(&parsed(&fixture.request), &upward),
        "{name}: the request as the upstream got it"
    );
    if fixture.response.is_empty() {
        return assert_eq!(got.status(), 502, "{name}: the upstream said nothing");
    }
    let wanted = parsed(&fixture.response);
    assert_eq!(carried(&got, &hop), carried(&wanted, &hop), "{name}: the answer");
    assert_eq!(got.complete, wanted.complete, "{name}: a cut answer is cut");
}

/// Outcome and answer as a reader of the fixture would tell them, with means of his own.
fn expected(fixture: &Fixture) -> (&'static str, Value) {
    if fixture.response.is_empty() {
        return ("connect_error", Value::Null);
    }
    let (request, response) = (parsed(&fixture.request), parsed(&fixture.response));
    match response.status() {
        500.. => return ("upstream_error", Value::Null),
        400.. => return ("client_error", Value::Null),
        _ => {}
    }
    let asks = request.head.starts_with("POST /score") || request.head.starts_with("POST /v1/chat");
    let answer = if asks { answer(&response.text()) } else { Value::Null };
    let silent = asks && (answer.is_null() || answer == json!(""));
    match (response.complete, silent) {
        (false, _) => ("upstream_abort", answer),
        (true, true) => ("empty", answer),
        (true, false) => ("ok", answer),
    }
}

fn answer(body: &str) -> Value {
    if !body.starts_with("data:") {
        return piece(&serde_json::from_str(body).expect("a JSON answer"));
    }
    let events = body.split("\n\n").filter_map(|event| event.trim().strip_prefix("data:"));
    let pieces = events.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    let text: String =
        pieces.filter_map(|event| Some(piece(&event).as_str()?.to_owned())).collect();
    if text.is_empty() { Value::Null } else { json!(text) }
}

/// The answer's text in one JSON object, as each of the recorded servers names it.
fn piece(object: &Value) -> Value {
    let choice = &object["choices"][0];
    let places = [
        object,
        &object["answer"],
        &object["output"],
        &choice["message"]["content"],
        &choice["delta"]["content"],
    ];
    places.into_iter().find(|value| value.is_string()).cloned().unwrap_or_default()
}

#[test]
fn every_recorded_exchange_passes_unchanged_and_is_recorded_for_what_it_was() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 79, "{} fixtures", fixtures.len());
    let slot = Arc::default();
    let upstream = replaying(&slot);
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 1}").start();
    for fixture in &fixtures {
        *slot.lock().expect("not poisoned") = fixture.response.clone();
        replay(&flowtap, &upstream, fixture);
    }
    flowtap.await_metric("flowtap_requests_total", &[], fixtures.len() as f64);

    let mut records = flowtap.stop().rows("exchanges");
    records.sort_by_key(|record| record["time"].as_str().expect("a time").to_owned());
    assert_eq!(records.len(), fixtures.len());
    for (record, fixture) in records.iter().zip(&fixtures) {
        let (outcome, answer) = expected(fixture);
        let name = &fixture.name;
        assert_eq!(record["outcome"], outcome, "{name}: {record}");
        assert_eq!(record["answer"], answer, "{name}: {record}");
    }
}
