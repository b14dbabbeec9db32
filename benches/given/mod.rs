//! Exchanges to measure with: one kind of body a case. The words are invented.

use std::sync::Arc;

use flowtap::capture::{BodyLimits, Recorder};
use flowtap::config::{self, Config, Overrides};
use flowtap::domain::{
    Exchange, ExchangeId, Fields, MemoryBudget, Outcome, SpanId, Timing, TraceContext, TraceId,
};
use http::{HeaderValue, Method, header};
use jiff::Timestamp;

/// What [`bodies`] knows.
pub const CASES: &[&str] = &["chat", "stream", "large", "huge", "cut"];
const WORDS: &str = "the flow reads a question finds what the documents say about it and answers in a few plain sentences so that whoever asked can act on them without reading everything";

/// The defaults, with a folder and a sampling rate.
pub fn configured(folder: &str, rate: f64) -> Config {
    let overrides = Overrides {
        upstream: Some("http://127.0.0.1:9".to_owned()),
        data_dir: Some(folder.to_owned()),
        ..Overrides::default()
    };
    let rate = [("FLOWTAP_SAMPLE__RATE".to_owned(), rate.to_string())];
    config::load(None, &overrides, &rate).expect("a configuration")
}

/// About `bytes` of words.
pub fn prose(bytes: usize) -> String {
    let words: Vec<&str> = WORDS.split(' ').collect();
    let mut text = String::new();
    for at in 0.. {
        if text.len() >= bytes {
            break;
        }
        text.push_str(words[at * 7 % words.len()]);
        text.push(' ');
    }
    text
}

/// A request, its answer, and the answer's media type.
pub fn bodies(case: &str) -> (String, String, &'static str) {
    let stream = case == "stream";
    let asked = format!(
        r#"{{"model": "gpt-4o-mini", "messages": [{{"role": "system", "content": "Answer briefly."}}, {{"role": "user", "content": "{}"}}]{}}}"#,
        prose(300),
        if stream { r#", "stream": true"# } else { "" },
    );
    let usage = r#""usage": {"prompt_tokens": 412, "completion_tokens": 318, "total_tokens": 730}"#;
    let head =
        r#""id": "chatcmpl-1", "object": "chat", "created": 1, "model": "gpt-4o-mini-2024-07-18""#;
    if !stream {
        let text = prose(match case {
            "large" => 65_000,
            "huge" => 1_000_000,
            // More than is captured: the middle is missing.
            "cut" => 1_200_000,
            _ => 1750,
        });
        let answer = format!(
            r#"{{{head}, "choices": [{{"index": 0, "finish_reason": "stop", "message": {{"role": "assistant", "content": "{text}"}}}}], {usage}}}"#
        );
        return (asked, answer, "application/json");
    }
    let words: Vec<&str> = WORDS.split(' ').collect();
    let mut events = String::new();
    for at in 0..48 {
        let word = words[at % words.len()];
        events.push_str(&format!(
            "data: {{{head}, \"choices\": [{{\"index\": 0, \"delta\": {{\"content\": \"{word} \"}}}}]}}\n\n"
        ));
    }
    events.push_str(&format!("data: {{{head}, \"choices\": [{{\"index\": 0, \"delta\": {{}}, \"finish_reason\": \"stop\"}}]}}\n\n"));
    events.push_str(&format!("data: {{{head}, \"choices\": [], {usage}}}\n\ndata: [DONE]\n\n"));
    (asked, events, "text/event-stream")
}

/// One that was captured as the proxy does.
pub fn exchange(
    config: &Config,
    request: &str,
    response: &str,
    media: &'static str,
) -> Box<Exchange> {
    let now = Timestamp::now();
    let headers = |media: &'static str| {
        Fields::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(media))])
    };
    let captured = |text: &str| {
        let budget = MemoryBudget::new(1 << 30);
        let mut recorder = Recorder::new(BodyLimits::of(1 << 20), &budget);
        text.as_bytes().chunks(64 << 10).for_each(|piece| recorder.record(piece, 100));
        recorder.complete();
        recorder.finish()
    };
    let id = ExchangeId::new(now);
    Box::new(Exchange {
        id,
        tap: Arc::clone(&config.taps[0].name),
        time: now,
        method: Method::POST,
        path: "/openai/deployments/plain/chat/completions".to_owned(),
        request_headers: headers("application/json"),
        request: captured(request),
        status: Some(200),
        response_headers: headers(media),
        response: captured(response),
        outcome: Outcome::Ok,
        fault: None,
        timing: Timing {
            total_us: 900,
            head_us: Some(800),
            first_byte_us: Some(850),
            overhead_us: 20,
        },
        request_id: Some(id.as_uuid()),
        trace: TraceContext {
            trace_id: TraceId::random(),
            span_id: SpanId::random(),
            parent_span_id: None,
            sampled: true,
        },
        alone: false,
    })
}
