//! A judge that does what a script says: chat completions over a raw socket.
#![allow(clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::wire::{Upstream, json_response};

/// A question that came to the judge.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The head of the request.
    pub head: String,
    /// Its body.
    pub body: Value,
}

impl Asked {
    /// What the user's message says.
    pub fn user(&self) -> &str {
        self.body["messages"][1]["content"].as_str().unwrap_or_default()
    }

    /// The word that the verdict must repeat.
    pub fn check(&self) -> &str {
        let rest = self.user().rsplit_once("\"check\": the text ").map_or("", |(_, rest)| rest);
        rest.lines().next().unwrap_or_default()
    }

    /// The criterion that is asked about.
    pub fn criterion(&self) -> &str {
        let rest = self.user().strip_prefix("Criterion: ").unwrap_or_default();
        rest.split(['.', '\n']).next().unwrap_or_default()
    }

    /// The material between the marks of one input.
    pub fn material(&self, name: &str) -> &str {
        let open = format!("<<<{} BEGIN {name}>>>\n", self.check());
        let close = format!("\n<<<{} END {name}>>>", self.check());
        let rest = self.user().split_once(&open).map_or("", |(_, rest)| rest);
        rest.split_once(&close).map_or("", |(text, _)| text)
    }

    /// The evaluator tests the judge itself.
    pub fn is_test(&self) -> bool {
        self.material("question").contains("capital of France")
    }

    /// The score that passes the evaluator's own test, for its two samples.
    pub fn test_score(&self) -> u8 {
        if self.material("answer").contains("Bananas") { 1 } else { 5 }
    }

    /// A verdict as it should be.
    pub fn verdict(&self, score: impl Into<Value>) -> String {
        let score: Value = score.into();
        json!({"check": self.check(), "reason": "as scripted", "score": score}).to_string()
    }
}

/// A running judge.
pub struct ScriptedJudge {
    upstream: Upstream,
    asked: Arc<AtomicUsize>,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl ScriptedJudge {
    /// Answers each question with the raw response that `script` makes. `None` ends the connection.
    pub fn start(script: impl Fn(&Asked) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let (asked, log) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (counted, kept) = (Arc::clone(&asked), Arc::clone(&log));
        let upstream = Upstream::start(move |peer| {
            while let Some(request) = peer.read_request() {
                let body = serde_json::from_slice(&request.body()).unwrap_or_default();
                let question = Asked { head: request.head, body };
                counted.fetch_add(1, Ordering::SeqCst);
                kept.lock().expect("not poisoned").push(question.clone());
                match script(&question) {
                    Some(response) if peer.send(&response) => {}
                    _ => return,
                }
            }
        });
        Self { upstream, asked, log }
    }

    /// One that says what `script` says, in a proper completion; it passes the evaluator's own test.
    pub fn saying(script: impl Fn(&Asked) -> String + Send + Sync + 'static) -> Self {
        Self::start(move |asked| {
            let text = match asked.is_test() {
                true => asked.verdict(asked.test_score()),
                false => script(asked),
            };
            Some(completion(&text).into_bytes())
        })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.upstream.port)
    }

    /// How many questions came.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Every question that came.
    pub fn questions(&self) -> Vec<Asked> {
        self.log.lock().expect("not poisoned").clone()
    }
}

/// A chat completion that says `text`, for 100 tokens in and 20 out.
pub fn completion(text: &str) -> String {
    let body = json!({
        "id": "c", "object": "chat.completion", "model": "scripted",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120},
    });
    json_response(&body.to_string())
}

/// A response with a status of its own.
pub fn status(line: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {line}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
