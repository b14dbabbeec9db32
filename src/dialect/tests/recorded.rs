//! The bytes of real servers (tests/fixtures/promptflow): a prompt flow on Flask, and llama.cpp.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::*;
use crate::domain::{Dialect, Operation};

const SEPARATOR: &[u8] = b"\n===== RESPONSE (raw bytes below) =====\n";

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/promptflow").join(name)
}

/// One recorded exchange, as capture would hand it over.
fn recorded(folder_name: &str, name: &str) -> Exchange {
    let file = std::fs::read(folder(folder_name).join(format!("{name}.http"))).expect("a fixture");
    let at = memchr::memmem::find(&file, SEPARATOR).expect("a separator");
    let (start, request_headers, request) = message(&file[..at]);
    let (answer, response_headers, response) = message(&file[at + SEPARATOR.len()..]);
    let mut words = start.split(' ');
    let method = words.next().expect("a method").parse().expect("a method");
    let target = words.next().expect("a target");
    let status: Option<u16> = answer.split(' ').nth(1).map(|code| code.parse().expect("a status"));
    let outcome = match status {
        None => Outcome::Timeout,
        Some(424 | 500..) => Outcome::UpstreamError,
        Some(400..) => Outcome::ClientError,
        Some(_) if !response.complete => Outcome::UpstreamAbort,
        Some(_) => Outcome::Ok,
    };
    let path = target.split('?').next().expect("a path").to_owned();
    let blank = post("", "", "");
    Exchange {
        method,
        path,
        request_headers,
        request,
        status,
        response_headers,
        response,
        outcome,
        ..blank
    }
}

/// Start line, headers and body (chunks joined) of one message.
fn message(bytes: &[u8]) -> (String, HeaderMap, CapturedBody) {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return (String::new(), HeaderMap::new(), CapturedBody::default());
    };
    let head = std::str::from_utf8(&bytes[..end]).expect("a head in ASCII");
    let mut lines = head.split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let pairs: Vec<_> = lines.filter_map(|line| line.split_once(": ")).collect();
    let map = headers(&pairs);
    let body = &bytes[end + 4..];
    let body = if map.contains_key("transfer-encoding") {
        joined_chunks(body)
    } else {
        let length = map
            .get("content-length")
            .map_or(0, |v| v.to_str().expect("ASCII").parse().expect("a length"));
        whole(&body[..length])
    };
    (start, map, body)
}

fn joined_chunks(mut bytes: &[u8]) -> CapturedBody {
    let mut body = Vec::new();
    while let Some(at) = memchr::memmem::find(bytes, b"\r\n") {
        let size = std::str::from_utf8(&bytes[..at]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size in hex");
        if size == 0 {
            return whole(body);
        }
        body.extend_from_slice(&bytes[at + 2..at + 2 + size]);
        bytes = &bytes[at + 2 + size + 2..];
    }
    CapturedBody { complete: false, ..whole(body) }
}

#[test]
fn print_all() {
    for dir in ["flask", "llm"] {
        let mut names: Vec<_> = std::fs::read_dir(folder(dir))
            .expect("dir")
            .map(|e| e.expect("e").path().file_stem().expect("s").to_string_lossy().into_owned())
            .collect();
        names.sort();
        for name in names {
            let e = recorded(dir, &name);
            let r = read_one(&e);
            println!(
                "{name} {:?} | {:?} {} q={} a={} ctx={} hist={} gt={:?} empty={} stream={} first={:?} fin={:?} id={:?} model={:?} fault={:?} usage={:?} count={:?} REQ={} RES={}",
                e.status,
                r.dialect,
                r.operation.label(),
                js(&r.question),
                js(&r.answer),
                js(&r.context),
                js(&r.chat_history),
                r.ground_truth,
                r.empty,
                r.stream,
                r.first_content_offset,
                r.finish_reason,
                r.response_id.is_some(),
                r.model,
                r.fault,
                (r.usage.input, r.usage.output, r.usage.total),
                r.countable.as_ref().map(|c| (
                    c.turns
                        .iter()
                        .map(|t| t.text.chars().take(20).collect::<String>())
                        .collect::<Vec<_>>(),
                    &c.input,
                    &c.output,
                    c.input_truncated,
                    c.output_truncated
                )),
                js(&r.request_body),
                js(&r.response_body)
            );
        }
    }
}
fn js(v: &Option<serde_json::Value>) -> String {
    v.as_ref().map_or("-".into(), |v| v.to_string().chars().take(160).collect())
}
