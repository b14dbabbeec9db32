//! A recorded request, as far as it can be sent again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::{Dialect, ExchangeId, Operation, Outcome, Sample, Usage};
use crate::evaluate::Case;
use crate::redact;

/// Why a recorded request is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// It began before or after the time asked for, or came through another tap.
    NotAskedFor,
    /// Health checks, feedback, embeddings: there is no answer to judge.
    NoInference,
    /// Its content was not kept, or is neither JSON nor text.
    NoContent,
    /// A part of the request or of its answer is missing.
    Truncated,
    /// Its client went away before the end: the recorded answer is not what it would have been.
    ClientAbort,
    /// A part of it was redacted, and such requests were not wanted.
    Masked,
    /// No line that this version knows.
    Unreadable,
}

impl Skip {
    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::NotAskedFor => "outside of the time or the tap asked for",
            Self::NoInference => "no inference (health checks, feedback, embeddings and the like)",
            Self::NoContent => "without content that could be sent again",
            Self::Truncated => "with a part of the request or the answer missing",
            Self::ClientAbort => "whose client went away",
            Self::Masked => "with masks in them",
            Self::Unreadable => "not readable as a sample of this version",
        }
    }
}

/// What of the recorded requests is wanted.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Those that began then or later.
    pub from: Option<Timestamp>,
    /// Those that began earlier than that.
    pub until: Option<Timestamp>,
    /// Those of this tap.
    pub tap: Option<String>,
    /// Those of this deployment.
    pub deployment: Option<String>,
    /// Only those without masks.
    pub unmasked: bool,
}

/// A recorded request with what is known of its answer.
pub(super) struct Recorded {
    pub(super) id: ExchangeId,
    pub(super) time: Timestamp,
    pub(super) tap: Arc<str>,
    pub(super) dialect: Dialect,
    pub(super) path: String,
    pub(super) body: Bytes,
    pub(super) content_type: Option<String>,
    pub(super) anthropic_version: Option<String>,
    pub(super) masked: bool,
    pub(super) probability: f64,
    /// The least with which any was kept then.
    pub(super) least: f64,
    pub(super) told: Told,
    pub(super) case: Case,
}

/// The figures of one answer.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Told {
    pub(super) status: Option<u16>,
    pub(super) outcome: Outcome,
    pub(super) stream: bool,
    pub(super) latency_ms: f64,
    pub(super) first_token_ms: Option<f64>,
    pub(super) usage: Usage,
}

impl Told {
    /// A whole answer, as far as the wire tells.
    pub(super) fn is_answer(&self) -> bool {
        self.outcome == Outcome::Ok && self.status.is_some_and(|code| (200..300).contains(&code))
    }
}

/// A line of `exchanges/`.
#[derive(Deserialize)]
struct Line {
    schema: String,
    id: ExchangeId,
    time: Timestamp,
    tap: Arc<str>,
    deployment: String,
    dialect: Dialect,
    operation: Operation,
    method: String,
    path: String,
    status: Option<u16>,
    outcome: Outcome,
    stream: bool,
    latency_ms: f64,
    first_token_ms: Option<f64>,
    usage: Usage,
    request: Side,
    response: Side,
    sample: Kept,
}

#[derive(Deserialize)]
struct Side {
    headers: BTreeMap<String, String>,
    body: Option<Value>,
    truncated: bool,
}

#[derive(Deserialize)]
struct Kept {
    probability: f64,
    /// Missing in lines of older versions.
    #[serde(default)]
    least: Option<f64>,
}

impl Recorded {
    /// Reads a line, or says why it is not sent.
    pub(super) fn parse(line: &[u8], wanted: &Wanted) -> Result<Self, Skip> {
        let (read, case) = (serde_json::from_slice::<Line>(line).ok(), Case::parse(line));
        let (Some(read), Some(case)) = (read, case) else { return Err(Skip::Unreadable) };
        let likely = read.sample.probability > 0.0 && read.sample.probability <= 1.0;
        if read.schema != Sample::SCHEMA || !likely {
            return Err(Skip::Unreadable);
        }
        sendable(&read, wanted)?;
        let header = |name: &str| read.request.headers.get(name).cloned();
        let (content_type, anthropic_version) =
            (header("content-type"), header("anthropic-version"));
        let json = content_type.as_ref().is_none_or(|media| media.contains("json"));
        let body = bytes_of(read.request.body, json).ok_or(Skip::NoContent)?;
        let text = String::from_utf8_lossy(&body);
        let masked = redact::is_masked(&text) || redact::is_masked(&read.path);
        if masked && wanted.unmasked {
            return Err(Skip::Masked);
        }
        Ok(Self {
            id: read.id,
            time: read.time,
            tap: read.tap,
            dialect: read.dialect,
            path: read.path,
            content_type,
            anthropic_version,
            masked,
            body,
            probability: read.sample.probability,
            least: read.sample.least.filter(|p| *p > 0.0).unwrap_or(read.sample.probability),
            told: Told {
                status: read.status,
                outcome: read.outcome,
                stream: read.stream,
                latency_ms: read.latency_ms,
                first_token_ms: read.first_token_ms,
                usage: read.usage,
            },
            case,
        })
    }
}

fn sendable(line: &Line, wanted: &Wanted) -> Result<(), Skip> {
    let Wanted { from, until, tap, deployment, .. } = wanted;
    let asked = from.is_none_or(|from| line.time >= from)
        && until.is_none_or(|until| line.time < until)
        && tap.as_ref().is_none_or(|tap| **tap == *line.tap)
        && deployment.as_ref().is_none_or(|of| *of == line.deployment);
    let inference = matches!(
        line.operation,
        Operation::Score
            | Operation::Chat
            | Operation::TextCompletion
            | Operation::Responses
            | Operation::Messages
            | Operation::Call
    );
    match () {
        () if !asked => Err(Skip::NotAskedFor),
        () if !inference || line.method != "POST" => Err(Skip::NoInference),
        () if line.outcome == Outcome::ClientAbort => Err(Skip::ClientAbort),
        () if line.request.truncated || line.response.truncated => Err(Skip::Truncated),
        () => Ok(()),
    }
}

/// The body as it was sent, but for white space and what was redacted.
fn bytes_of(body: Option<Value>, json: bool) -> Option<Bytes> {
    match body? {
        Value::Null => None,
        Value::String(text) if !json => Some(Bytes::from(text)),
        // Bytes that were no text: no format that has an answer is made of them.
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("base64") => None,
        body => serde_json::to_vec(&body).ok().map(Bytes::from),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A line as the pipeline writes it.
    pub(in crate::replay) fn line(more: Value) -> Vec<u8> {
        let mut line = json!({
            "schema": "flowtap.exchange.v1", "id": "01KB0M1Z5X0000000000000000",
            "time": "2026-11-23T22:00:00.000001Z", "tap": "chat", "deployment": "blue",
            "dialect": "promptflow", "operation": "score", "method": "POST", "path": "/score",
            "status": 200, "outcome": "ok", "stream": false, "latency_ms": 12.5,
            "first_token_ms": null,
            "usage": {"input": 4, "output": 2, "total": 6, "cached_input": null,
                      "reasoning_output": null, "source": "reported"},
            "question": "q", "answer": "a", "context": null, "ground_truth": null,
            "request": {"headers": {"content-type": "application/json"},
                        "body": {"question": "q"}, "bytes": 16, "truncated": false},
            "response": {"headers": {}, "body": {"answer": "a"}, "bytes": 14, "truncated": false},
            "sample": {"reason": "rate", "probability": 0.5}
        });
        for (pointer, value) in more.as_object().into_iter().flatten() {
            *line.pointer_mut(pointer).unwrap() = value.clone();
        }
        line.to_string().into_bytes()
    }

    fn skip(more: Value, wanted: &Wanted) -> Option<Skip> {
        Recorded::parse(&line(more), wanted).err()
    }

    #[test]
    fn a_request_is_sent_as_it_was() {
        let recorded = Recorded::parse(&line(json!({})), &Wanted::default()).ok().unwrap();
        assert_eq!(&recorded.body[..], br#"{"question":"q"}"#);
        assert_eq!(recorded.content_type.as_deref(), Some("application/json"));
        assert!(!recorded.masked && recorded.told.is_answer());
    }

    #[test]
    fn what_cannot_be_sent_says_why() {
        let all = Wanted::default();
        for (more, why) in [
            (json!({"/operation": "embeddings"}), Skip::NoInference),
            (json!({"/operation": "feedback"}), Skip::NoInference),
            (json!({"/method": "GET"}), Skip::NoInference),
            (json!({"/outcome": "client_abort"}), Skip::ClientAbort),
            (json!({"/request/truncated": true}), Skip::Truncated),
            (json!({"/response/truncated": true}), Skip::Truncated),
            (json!({"/request/body": null}), Skip::NoContent),
            (json!({"/request/body": {"base64": "AA=="}}), Skip::NoContent),
            (json!({"/schema": "flowtap.exchange.v9"}), Skip::Unreadable),
            (json!({"/sample/probability": 0.0}), Skip::Unreadable),
            (json!({"/id": "no id"}), Skip::Unreadable),
        ] {
            assert_eq!(skip(more.clone(), &all), Some(why), "{more}");
        }
        assert_eq!(Recorded::parse(b"no json", &all).err(), Some(Skip::Unreadable));
        let elsewhere = Wanted { tap: Some("models".to_owned()), ..Wanted::default() };
        let later = Wanted { from: "2026-11-24T00:00:00Z".parse().ok(), ..Wanted::default() };
        let green = Wanted { deployment: Some("green".to_owned()), ..Wanted::default() };
        for wanted in [elsewhere, later, green] {
            assert_eq!(skip(json!({}), &wanted), Some(Skip::NotAskedFor), "{wanted:?}");
        }
    }

    #[test]
    fn masks_are_seen() {
        let masked = json!({"/request/body": {"question": "mail [email:0123456789abcdef]"}});
        let recorded = Recorded::parse(&line(masked.clone()), &Wanted::default()).ok().unwrap();
        assert!(recorded.masked);
        let unmasked = Wanted { unmasked: true, ..Wanted::default() };
        assert_eq!(skip(masked, &unmasked), Some(Skip::Masked));
        assert_eq!(skip(json!({}), &unmasked), None);
    }
}
