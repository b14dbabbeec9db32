//! Lines as Azure ML's data collector writes them: CloudEvents, one JSON object a line.
//!
//! Format: <https://learn.microsoft.com/azure/machine-learning/how-to-collect-production-data>; the
//! spans of `app_traces` are what OpenTelemetry's Python SDK calls `span.to_json()`.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Skip;
use super::row::{ExchangeRow, Side};
use crate::domain::{Operation, Outcome, Span, SpanId, SpanKind, TracePart};

/// Ancestors of a span that are looked at: deeper traces are made, not meant.
const DEPTH_MAX: usize = 100;

/// A folder of the collector's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Collection {
    ModelInputs,
    ModelOutputs,
    AppTraces,
}

impl Collection {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::ModelInputs => "model_inputs",
            Self::ModelOutputs => "model_outputs",
            Self::AppTraces => "app_traces",
        }
    }
}

/// Where the lines say that they come from.
pub(super) struct Place<'a> {
    pub(super) workspace: &'a str,
    pub(super) endpoint: &'a str,
    pub(super) deployment: &'a str,
}

/// In the order in which Azure writes them.
#[derive(Serialize)]
struct Event<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    r#type: String,
    datacontenttype: &'static str,
    time: String,
    data: &'a RawValue,
    correlationid: &'a str,
    xrequestid: &'a str,
    modelversion: &'static str,
    collectdatatype: &'static str,
    agent: &'static str,
    contentrange: String,
}

/// The columns of an exchange with a model, whose bodies are no rows of a table.
#[derive(Default, Serialize)]
struct Columns<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    answer: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ground_truth: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chat_history: Option<&'a RawValue>,
}

/// The lines of `model_inputs` and `model_outputs` for one exchange: always both.
pub(super) fn pair(row: &ExchangeRow<'_>, place: &Place<'_>) -> Result<(Vec<u8>, Vec<u8>), Skip> {
    if !matches!(row.outcome, Outcome::Ok | Outcome::Empty) {
        return Err(Skip::NotSuccessful);
    }
    let (inputs, outputs) = match row.operation {
        Operation::Score | Operation::Call => {
            (row_of(&row.request, None)?, row_of(&row.response, Some("output"))?)
        }
        Operation::Chat
        | Operation::TextCompletion
        | Operation::Responses
        | Operation::Messages => columns(row)?,
        Operation::Embeddings | Operation::Feedback | Operation::Other => {
            return Err(Skip::NoInference);
        }
    };
    let correlation = row.correlation_id();
    let line = |collection: Collection, data: &str| {
        let seed = format!("{}/{}", row.id, collection.label());
        event(collection, place, row.time, &seed, data, &correlation)
    };
    let inputs = line(Collection::ModelInputs, &inputs).ok_or(Skip::Unreadable)?;
    let outputs = line(Collection::ModelOutputs, &outputs).ok_or(Skip::Unreadable)?;
    Ok((inputs, outputs))
}

/// A body as a row of a table: an object as it is; a bare value under `name`, where there is one, which
/// is how the collector takes the answer of a flow that returns a text.
fn row_of(side: &Side<'_>, name: Option<&str>) -> Result<String, Skip> {
    if side.truncated {
        return Err(Skip::Truncated);
    }
    let body = side.body.map(RawValue::get).ok_or(Skip::NoContent)?;
    match (body.starts_with('{'), name) {
        (true, _) if !body.starts_with("{\"base64\":") => Ok(body.to_owned()),
        (false, Some(name)) => Ok(format!("{{\"{name}\":{body}}}")),
        _ => Err(Skip::NoContent),
    }
}

fn columns(row: &ExchangeRow<'_>) -> Result<(String, String), Skip> {
    let ExchangeRow { question, answer, context, ground_truth, chat_history, .. } = *row;
    if question.is_none() || answer.is_none() {
        let truncated = row.request.truncated || row.response.truncated;
        return Err(if truncated { Skip::Truncated } else { Skip::NoContent });
    }
    let asked = Columns { question, context, ground_truth, chat_history, ..Columns::default() };
    let answered = Columns { answer, ..Columns::default() };
    let text = |columns: &Columns<'_>| serde_json::to_string(columns).map_err(|_| Skip::Unreadable);
    Ok((text(&asked)?, text(&answered)?))
}

fn event(
    collection: Collection,
    place: &Place<'_>,
    time: Timestamp,
    seed: &str,
    row: &str,
    correlation: &str,
) -> Option<Vec<u8>> {
    let data = RawValue::from_string(format!("[{row}]")).ok()?;
    let bytes = data.get().len();
    let Place { workspace, endpoint, deployment } = place;
    let event = Event {
        specversion: "1.0",
        id: uuid(seed),
        source: format!("{workspace}/onlineEndpoints/{endpoint}/deployments/{deployment}"),
        r#type: format!("azureml.inference.{}", collection.label()),
        datacontenttype: "application/json",
        time: time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        data: &data,
        correlationid: correlation,
        xrequestid: correlation,
        modelversion: "default",
        collectdatatype: "pandas.core.frame.DataFrame",
        agent: concat!("flowtap/", env!("CARGO_PKG_VERSION")),
        contentrange: format!("bytes 0-{}/{bytes}", bytes - 1),
    };
    serde_json::to_vec(&event).ok()
}

/// A UUID that is always the same for the same seed (RFC 9562, version 8).
fn uuid(seed: &str) -> String {
    let digest = Sha256::digest(seed.as_bytes());
    let mut hex: Vec<char> = digest
        .iter()
        .take(16)
        .flat_map(|byte| format!("{byte:02x}").chars().collect::<Vec<_>>())
        .collect();
    hex[12] = '8';
    hex[16] = '8';
    let text: String = hex.into_iter().collect();
    format!("{}-{}-{}-{}-{}", &text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..])
}

/// The lines of `app_traces`, one a span.
pub(super) fn spans(part: &TracePart, correlation: &str, place: &Place<'_>) -> Vec<Vec<u8>> {
    let cumulated = cumulated_tokens(&part.spans);
    let line = |span: &Span| {
        let data =
            to_raw_value(&told(part, span, correlation, cumulated.get(&span.span_id))).ok()?;
        let seed = format!("{}/{}", part.exchange, span.span_id);
        event(Collection::AppTraces, place, end(span), &seed, data.get(), correlation)
    };
    part.spans.iter().filter_map(line).collect()
}

/// A span's own tokens and those of all that it called.
fn cumulated_tokens(spans: &[Span]) -> HashMap<SpanId, u64> {
    let parents: HashMap<SpanId, Option<SpanId>> =
        spans.iter().map(|span| (span.span_id, span.parent_span_id)).collect();
    let mut sums: HashMap<SpanId, u64> = HashMap::new();
    for span in spans {
        let Some(tokens) = span.usage.total else { continue };
        let mut at = Some(span.span_id);
        for _ in 0..DEPTH_MAX {
            let Some(id) = at else { break };
            *sums.entry(id).or_default() += tokens;
            at = parents.get(&id).copied().flatten();
        }
    }
    sums
}

fn told(part: &TracePart, span: &Span, correlation: &str, cumulated: Option<&u64>) -> Value {
    let hex = |id: SpanId| format!("0x{id}");
    let status = match (span.failed, &span.error) {
        (false, _) => json!({"status_code": "OK"}),
        (true, None) => json!({"status_code": "ERROR"}),
        (true, Some(error)) => json!({"status_code": "ERROR", "description": error}),
    };
    json!({
        "name": span.name,
        "context": {
            "trace_id": part.trace_id.map(|id| format!("0x{id}")),
            "span_id": hex(span.span_id),
            "trace_state": "[]",
        },
        "kind": "SpanKind.INTERNAL",
        "parent_id": span.parent_span_id.map(hex),
        "start_time": micros(span.start),
        "end_time": micros(end(span)),
        "status": status,
        "attributes": attributes(span, correlation, cumulated),
        "events": [],
        "links": [],
        "resource": {"attributes": {"service.name": "flowtap"}, "schema_url": ""},
    })
}

/// What the span itself says goes before what we know of it.
fn attributes(span: &Span, correlation: &str, cumulated: Option<&u64>) -> BTreeMap<String, Value> {
    let mut attributes = span.attributes.clone();
    let mut add = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            attributes.entry(name.to_owned()).or_insert(value);
        }
    };
    let text = |value: &Option<Value>| value.as_ref().map(|value| Value::String(value.to_string()));
    let number = |tokens: Option<u64>| tokens.map(Value::from);
    add("framework", Some("flowtap".into()));
    add("span_type", Some(kind(span.kind).into()));
    add("function", Some(span.name.clone().into()));
    add("request_id", Some(correlation.into()));
    add("line_run_id", Some(correlation.into()));
    add("inputs", text(&span.inputs));
    add("output", text(&span.output));
    add("llm.response.model", span.model.clone().map(Value::from));
    add("llm.usage.prompt_tokens", number(span.usage.input));
    add("llm.usage.completion_tokens", number(span.usage.output));
    add("llm.usage.total_tokens", number(span.usage.total));
    add("__computed__.cumulative_token_count.total", number(cumulated.copied()));
    attributes
}

/// In prompt flow's words.
fn kind(kind: SpanKind) -> &'static str {
    match kind {
        SpanKind::Flow => "Flow",
        SpanKind::Llm => "LLM",
        SpanKind::Embedding => "Embedding",
        SpanKind::Retrieval => "Retrieval",
        SpanKind::Function | SpanKind::Other => "Function",
    }
}

fn end(span: &Span) -> Timestamp {
    let took = span.duration_ms.clamp(0.0, 1e12) * 1000.0;
    let took = jiff::SignedDuration::from_micros(took as i64);
    span.start.checked_add(took).unwrap_or(span.start)
}

fn micros(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}
