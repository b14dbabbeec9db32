//! Spans: attributes in the words of promptflow and of the generations of OpenTelemetry's GenAI
//! conventions, brought to one form.
//!
//! Read are promptflow's `span_type`, `llm.usage.*`, `inputs` and `output`; the conventions'
//! `gen_ai.*` before and after their renamings; and what OpenLLMetry (`traceloop.*`, `llm.*`) and
//! OpenInference (`openinference.*`, `llm.token_count.*`, `input.value`) put beside or before them.

use std::collections::BTreeMap;

use http::Method;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::usage::Tally;
use crate::config::{DialectChoice, Tap};
use crate::domain::{
    CapturedBody, Dialect, Exchange, ExchangeId, Fields, ModelNames, Outcome, Reading, SpanId,
    SpanKind, SpanSource, Timing, ToldSpan, TraceContext, TraceId, Usage, UsageSource,
};

/// Bytes of a step's inputs or output that are looked at; a longer text is left out as a whole,
/// because half of a secret would not be found.
const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Attributes that are kept of a span, and bytes of one.
const ATTRIBUTES_MAX: usize = 64;
const ATTRIBUTE_BYTES_MAX: usize = 4096;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 1024;
/// Bytes of an error's text.
const ERROR_BYTES_MAX: usize = 16 * 1024;
/// What stands for a name or an error that is longer.
const TOO_LONG: &str = "[too long]";
/// Characters of a request's name: as many as the proxy keeps.
const REQUEST_CHARS_MAX: usize = 128;
/// Messages of a prompt that stand in attributes of their own.
const MESSAGES_MAX: usize = 200;
/// More tokens than any call can have spent: a false figure is no figure.
const TOKENS_MAX: u64 = u32::MAX as u64;

/// A span as a protocol carries it, before anyone looked at its attributes.
#[derive(Clone, Debug)]
pub struct RawSpan {
    /// The trace.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// The step that it is a part of.
    pub parent_span_id: Option<SpanId>,
    /// What it is called.
    pub name: String,
    /// Who told of it.
    pub source: SpanSource,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// Its status says that it failed.
    pub failed: bool,
    /// What the status says besides, or the exception that was recorded.
    pub error: Option<String>,
    /// Its attributes.
    pub attributes: Map<String, Value>,
}

/// Understands a span, as far as it can be understood; never fails. `tap`: any, for its limits.
pub fn read(raw: RawSpan, tap: &Tap) -> ToldSpan {
    let RawSpan { mut attributes, .. } = raw;
    let generated = attributes.remove("llm.generated_message");
    let kind = kind(&attributes);
    let model = ModelNames {
        request: text_of(&attributes, MODEL_ASKED),
        response: text_of(&attributes, MODEL_ANSWERED),
    };
    let usage = usage(&attributes);
    let requests = requests(&attributes);
    let inputs = content(&mut attributes, INPUTS, "gen_ai.prompt.");
    let output = content(&mut attributes, OUTPUT, "gen_ai.completion.");
    let span_ms = raw.end.duration_since(raw.start).as_micros() as f64 / 1000.0;
    let mut told = ToldSpan {
        trace_id: raw.trace_id,
        span_id: raw.span_id,
        parent_span_id: raw.parent_span_id,
        requests,
        name: bounded(raw.name, NAME_BYTES_MAX).unwrap_or_else(|| TOO_LONG.to_owned()),
        kind,
        source: raw.source,
        start: raw.start,
        duration_ms: span_ms.max(0.0),
        failed: raw.failed,
        error: raw
            .error
            .map(|text| bounded(text, ERROR_BYTES_MAX).unwrap_or_else(|| TOO_LONG.to_owned())),
        model,
        usage,
        total_within: attributes.get(TOTAL_WITHIN).and_then(tokens),
        countable: None,
        inputs,
        output,
        attributes: kept(attributes),
    };
    if told.kind.calls_model() {
        look_into_texts(&mut told);
        read_as_exchange(&mut told, tap);
    }
    // The message that the chunks of a streamed answer add up to says the same in fewer words.
    if let Some(message) = generated.filter(|_| is_list(told.output.as_deref())) {
        told.output = message.as_str().map(str::to_owned).or(told.output);
    }
    told
}

fn is_list(output: Option<&str>) -> bool {
    output.is_some_and(|output| output.trim_start().starts_with('['))
}

/// What the texts of a call to a model tell of its tokens, where the span told none: what the model
/// reported in its answer, else what is to be counted. promptflow keeps the arguments of a call and its
/// answer, or the chunks of it, as they came; they are read as the exchange that they were.
fn read_as_exchange(told: &mut ToldSpan, tap: &Tap) {
    let known = told.usage.input.is_some() && told.usage.output.is_some();
    if known || told.failed {
        return;
    }
    let Some(exchange) = exchange(told) else { return };
    let tap = Tap { dialect: DialectChoice::Fixed(Dialect::Openai), ..tap.clone() };
    let Reading { usage, countable, model, .. } = super::read(&exchange, &tap);
    if usage.input.is_some() {
        told.usage = Usage { source: Some(UsageSource::Traced), ..usage };
    } else {
        told.countable = countable;
    }
    told.model.request = told.model.request.take().or(model.request);
    told.model.response = told.model.response.take().or(model.response);
}

/// The route of the call by the function that promptflow says was called.
fn route(told: &ToldSpan) -> Option<&'static str> {
    let function = told.attributes.get("function")?.as_str()?;
    let has = |part: &str| function.to_ascii_lowercase().contains(part);
    match () {
        () if !has("openai") => None,
        () if has("chat") => Some("/v1/chat/completions"),
        () if has("responses") => Some("/v1/responses"),
        () if has("embeddings") => Some("/v1/embeddings"),
        () if has("completions") => Some("/v1/completions"),
        () => None,
    }
}

/// The answer as its server sent it: an object, or a list of chunks as events.
fn as_sent(output: &str) -> Option<(&'static str, Vec<u8>)> {
    let chunks = match serde_json::from_str::<Value>(output).ok()? {
        Value::Object(_) => return Some(("application/json", output.as_bytes().to_vec())),
        Value::Array(chunks) if chunks.first().is_some_and(Value::is_object) => chunks,
        _ => return None,
    };
    let events: String = chunks.iter().map(|chunk| format!("data: {chunk}\n\n")).collect();
    Some(("text/event-stream", format!("{events}data: [DONE]\n\n").into_bytes()))
}

fn exchange(told: &ToldSpan) -> Option<Exchange> {
    let path = route(told)?;
    let request = told.inputs.as_ref()?.clone().into_bytes();
    let (media, response) = as_sent(told.output.as_deref()?)?;
    let headers = |media| {
        let value = http::HeaderValue::from_static(media);
        Fields::from_iter([(http::header::CONTENT_TYPE, value)])
    };
    let body = |head: Vec<u8>| CapturedBody {
        bytes: head.len() as u64,
        head,
        complete: true,
        ..CapturedBody::default()
    };
    Some(Exchange {
        id: ExchangeId::new(told.start),
        tap: std::sync::Arc::from(""),
        time: told.start,
        method: Method::POST,
        path: path.to_owned(),
        request_headers: headers("application/json"),
        request: body(request),
        status: Some(200),
        response_headers: headers(media),
        response: body(response),
        outcome: Outcome::Ok,
        fault: None,
        timing: Timing::default(),
        request_id: None,
        trace: TraceContext {
            trace_id: told.trace_id,
            span_id: told.span_id,
            parent_span_id: told.parent_span_id,
            sampled: true,
        },
        alone: false,
    })
}

const MODEL_ASKED: &[&str] = &["gen_ai.request.model", "llm.request.model", "llm.model_name"];
const MODEL_ANSWERED: &[&str] = &["gen_ai.response.model", "llm.response.model"];
const INPUT_TOKENS: &[&str] = &[
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.usage.prompt_tokens",
    "llm.usage.input_tokens",
    "llm.token_count.prompt",
];
const OUTPUT_TOKENS: &[&str] = &[
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.usage.completion_tokens",
    "llm.usage.output_tokens",
    "llm.token_count.completion",
];
const TOTAL_TOKENS: &[&str] =
    &["gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total"];
const CACHED_TOKENS: &[&str] = &[
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "gen_ai.usage.cached_input_tokens",
    "gen_ai.usage.input_token_details.cached",
    "llm.usage.cache_read_input_tokens",
    "llm.token_count.prompt_details.cache_read",
];
const REASONING_TOKENS: &[&str] = &[
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.reasoning_tokens",
    "gen_ai.usage.output_token_details.reasoning",
    "llm.usage.reasoning_tokens",
    "llm.token_count.completion_details.reasoning",
];
const INPUTS: &[&str] = &[
    "inputs",
    "gen_ai.input.messages",
    "input.value",
    "traceloop.entity.input",
    "gen_ai.prompt",
    "gen_ai.tool.call.arguments",
];
const OUTPUT: &[&str] = &[
    "output",
    "gen_ai.output.messages",
    "output.value",
    "traceloop.entity.output",
    "gen_ai.completion",
    "gen_ai.tool.call.result",
];
/// promptflow's sum over the steps within.
const TOTAL_WITHIN: &str = "__computed__.cumulative_token_count.total";
/// What names the request that a span was made for, the best first.
const REQUESTS: &[&str] = &["request_id", "line_run_id"];

fn kind(attributes: &Map<String, Value>) -> SpanKind {
    let word = |name: &str| attributes.get(name).and_then(Value::as_str);
    let known = [
        word("span_type"),
        word("gen_ai.operation.name"),
        word("openinference.span.kind"),
        word("traceloop.span.kind"),
        word("llm.request.type"),
    ];
    let named = known.into_iter().flatten().map(|word| kind_of(&word.to_ascii_lowercase()));
    let told = named.into_iter().find(|kind| *kind != SpanKind::Other);
    let spends = || INPUT_TOKENS.iter().any(|name| attributes.contains_key(*name));
    told.unwrap_or_else(|| if spends() { SpanKind::Llm } else { SpanKind::Other })
}

fn kind_of(word: &str) -> SpanKind {
    match word {
        "flow" | "workflow" | "invoke_workflow" => SpanKind::Flow,
        "llm" | "chat" | "text_completion" | "completion" | "generate_content" => SpanKind::Llm,
        "embedding" | "embeddings" => SpanKind::Embedding,
        "retrieval" | "retriever" => SpanKind::Retrieval,
        "function" | "tool" | "task" | "agent" | "chain" | "execute_tool" | "invoke_agent"
        | "langchain" => SpanKind::Function,
        _ => SpanKind::Other,
    }
}

fn usage(attributes: &Map<String, Value>) -> Usage {
    let figure = |names: &[&str]| names.iter().find_map(|name| tokens(attributes.get(*name)?));
    let (input, output) = (figure(INPUT_TOKENS), figure(OUTPUT_TOKENS));
    let (cached, reasoning) = (figure(CACHED_TOKENS), figure(REASONING_TOKENS));
    let told = Usage::of(input, output, UsageSource::Traced);
    let part = |part: Option<u64>, whole: Option<u64>| part.filter(|part| Some(*part) <= whole);
    Usage {
        total: told.total.or(figure(TOTAL_TOKENS)),
        cached_input: part(cached, input),
        reasoning_output: part(reasoning, output),
        ..told
    }
}

/// A count of tokens: a whole number, or one written as text.
fn tokens(value: &Value) -> Option<u64> {
    let float = || value.as_f64().filter(|f| f.fract() == 0.0 && *f >= 0.0).map(|f| f as u64);
    let written = || value.as_str().and_then(|text| text.parse().ok());
    value.as_u64().or_else(float).or_else(written).filter(|count| *count <= TOKENS_MAX)
}

fn requests(attributes: &Map<String, Value>) -> Vec<Box<str>> {
    let mut names: Vec<Box<str>> = Vec::new();
    for name in REQUESTS.iter().filter_map(|name| attributes.get(*name)?.as_str()) {
        let usable = !name.is_empty() && name.chars().nth(REQUEST_CHARS_MAX).is_none();
        if usable && !names.iter().any(|known| **known == *name) {
            names.push(Box::from(name));
        }
    }
    names
}

/// The names of the models, and parts of the usage, where only the texts tell them.
fn look_into_texts(told: &mut ToldSpan) {
    if told.model.request.is_none() {
        told.model.request = told.inputs.as_deref().and_then(|inputs| {
            let asked: Value = serde_json::from_str(inputs).ok()?;
            bounded(asked.get("model")?.as_str()?.to_owned(), NAME_BYTES_MAX)
        });
    }
    let parts_known = told.usage.cached_input.or(told.usage.reasoning_output).is_some();
    let answer = || serde_json::from_str::<Value>(told.output.as_deref()?).ok();
    if told.usage.is_unknown() || parts_known {
        return;
    }
    if let Some(reported) = answer().as_ref().and_then(|answer| answer.get("usage")) {
        let mut tally = Tally::default();
        tally.take_openai(reported);
        let reported = tally.usage();
        // Parts of these very figures, not of others.
        if (reported.input, reported.output) == (told.usage.input, told.usage.output) {
            told.usage.cached_input = reported.cached_input;
            told.usage.reasoning_output = reported.reasoning_output;
        }
    }
}

/// Takes the first text of `names` out of the attributes, else the messages that stand in attributes
/// of their own (`gen_ai.prompt.0.role`, `gen_ai.prompt.0.content`); the others go, too.
fn content(attributes: &mut Map<String, Value>, names: &[&str], numbered: &str) -> Option<String> {
    let found = names.iter().filter_map(|name| attributes.remove(*name)).collect::<Vec<_>>();
    let messages = messages(attributes, numbered);
    let text = match found.into_iter().next() {
        Some(Value::String(text)) => Some(text),
        Some(Value::Null) | None => messages.map(|messages| messages.to_string()),
        Some(value) => Some(value.to_string()),
    };
    bounded(text?, TEXT_BYTES_MAX)
}

fn messages(attributes: &mut Map<String, Value>, numbered: &str) -> Option<Value> {
    let keys: Vec<String> =
        attributes.keys().filter(|key| key.starts_with(numbered)).cloned().collect();
    let mut messages: BTreeMap<usize, Map<String, Value>> = BTreeMap::new();
    for key in keys {
        let Some(value) = attributes.remove(&key) else { continue };
        let rest = key.strip_prefix(numbered).and_then(|rest| rest.split_once('.'));
        let Some((Ok(number), field)) = rest.map(|(n, field)| (n.parse(), field)) else { continue };
        if number < MESSAGES_MAX {
            messages.entry(number).or_default().insert(field.to_owned(), value);
        }
    }
    let list: Vec<Value> = messages.into_values().map(Value::Object).collect();
    (!list.is_empty()).then_some(Value::Array(list))
}

/// What is left of the attributes, bounded, without what the span's own fields tell. promptflow's sums
/// over the steps within are not kept: the tree tells them.
fn kept(attributes: Map<String, Value>) -> BTreeMap<String, Value> {
    let told = [MODEL_ASKED, MODEL_ANSWERED, INPUT_TOKENS, OUTPUT_TOKENS, TOTAL_TOKENS];
    let plain = attributes.into_iter().filter(|(name, value)| {
        name.len() <= NAME_BYTES_MAX
            && !name.starts_with("__computed__.")
            && !told.iter().any(|names| names.contains(&name.as_str()))
            && !value.is_null()
    });
    let bounded = plain.filter_map(|(name, value)| match value {
        Value::Number(_) | Value::Bool(_) => Some((name, value)),
        Value::String(text) => {
            (text.len() <= ATTRIBUTE_BYTES_MAX).then_some((name, Value::String(text)))
        }
        other => {
            let text = other.to_string();
            (text.len() <= ATTRIBUTE_BYTES_MAX).then_some((name, Value::String(text)))
        }
    });
    bounded.take(ATTRIBUTES_MAX).collect()
}

fn text_of(attributes: &Map<String, Value>, names: &[&str]) -> Option<String> {
    let text = |name: &&str| attributes.get(*name)?.as_str().filter(|text| !text.is_empty());
    bounded(names.iter().find_map(text)?.to_owned(), NAME_BYTES_MAX)
}

/// `text` if it is not too long: cut before it is redacted, it could end in half of a secret.
fn bounded(text: String, bytes_max: usize) -> Option<String> {
    (text.len() <= bytes_max).then_some(text)
}

#[cfg(test)]
mod tests;
