//! The steps inside one exchange: spans of the flow and of its calls, as told and as stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::outcome::labelled;
use super::sample::with_microseconds;
use super::{Countable, ExchangeId, ModelNames, SpanId, TraceId, Usage};

labelled! {
    /// What kind of step a span is.
    SpanKind {
        /// The whole flow.
        Flow = "flow",
        /// A step of it: a function, a tool, a node.
        Function = "function",
        /// A call to a model.
        Llm = "llm",
        /// A call for embeddings.
        Embedding = "embedding",
        /// A search.
        Retrieval = "retrieval",
        /// Anything else.
        Other = "other",
    }
}

labelled! {
    /// Who told of a span.
    SpanSource {
        /// The Azure ML data collector's endpoint.
        Collector = "collector",
        /// The OTLP receiver.
        Otlp = "otlp",
        /// A tap: an exchange that passed through flowtap.
        Tap = "tap",
    }
}

/// One step as somebody told of it: unredacted, in memory only. It has no `Serialize`, and must never
/// get one: what leaves the process is a [`Span`], made from this by the redactor.
#[derive(Clone, Debug, PartialEq)]
pub struct ToldSpan {
    /// The trace that it belongs to.
    pub trace_id: TraceId,
    /// Its id.
    pub span_id: SpanId,
    /// The step that it is a part of.
    pub parent_span_id: Option<SpanId>,
    /// Names of the request that it was made for, the best first; empty where it names none.
    pub requests: Vec<Box<str>>,
    /// What it is called.
    pub name: String,
    /// What it is.
    pub kind: SpanKind,
    /// Who told of it.
    pub source: SpanSource,
    /// When it began.
    pub start: Timestamp,
    /// Milliseconds that it took.
    pub duration_ms: f64,
    /// It failed.
    pub failed: bool,
    /// The error's text.
    pub error: Option<String>,
    /// The model's names.
    pub model: ModelNames,
    /// Its own tokens.
    pub usage: Usage,
    /// Tokens of all steps within it, where it tells their sum.
    pub total_within: Option<u64>,
    /// The texts to count tokens of, where `usage` is unknown and counting is no guess.
    pub countable: Option<Countable>,
    /// What went in: JSON, or plain text.
    pub inputs: Option<String>,
    /// What came out: JSON, or plain text.
    pub output: Option<String>,
    /// Other attributes: single values, or JSON as text.
    pub attributes: BTreeMap<String, Value>,
}

impl ToldSpan {
    /// Lets go of all text that a user or a model may have written.
    pub fn drop_content(&mut self) {
        (self.inputs, self.output, self.error, self.countable) = (None, None, None, None);
        self.attributes.clear();
    }

    /// Bytes that it takes in memory, roughly.
    pub fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
        let texts = [&self.error, &self.inputs, &self.output, &self.model.request];
        let value = |value: &Value| value.as_str().map_or(0, str::len) + size_of::<Value>();
        let attributes = self.attributes.iter().map(|(k, v)| k.capacity() + 24 + value(v));
        size_of::<Self>()
            + self.name.capacity()
            + self.requests.iter().map(|name| name.len() + 16).sum::<usize>()
            + texts.into_iter().map(text).sum::<usize>()
            + text(&self.model.response)
            + attributes.sum::<usize>()
            + self.countable.as_ref().map_or(0, |countable| countable.heap_bytes())
    }

    /// The deployment that it was made to: the name that the model was asked for by, where the model
    /// that answered calls itself otherwise. Azure's clients ask by the deployment's name.
    pub fn deployment(&self) -> Option<&str> {
        let ModelNames { request, response } = &self.model;
        response.as_ref()?;
        request.as_deref().filter(|asked| Some(*asked) != response.as_deref())
    }
}

impl SpanKind {
    /// A call to a model: what spends tokens by itself.
    pub fn calls_model(self) -> bool {
        matches!(self, Self::Llm | Self::Embedding)
    }
}

/// Some spans of one sampled exchange. Stored as a line of `traces/`, partitioned by the deployment
/// and the time of the exchange. A late span is another line: readers merge by `span_id`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracePart {
    /// `flowtap.trace.v1`.
    pub schema: String,
    /// The sampled exchange that the spans belong to.
    pub exchange: ExchangeId,
    /// When that exchange began; written with microseconds.
    #[serde(serialize_with = "with_microseconds")]
    pub exchange_time: Timestamp,
    /// The tap of that exchange.
    pub tap: Arc<str>,
    /// The deployment of that exchange.
    pub deployment: Arc<str>,
    /// The flowtap process that joined them.
    pub instance: Arc<str>,
    /// The trace that the spans say they belong to.
    pub trace_id: Option<TraceId>,
    /// The spans.
    pub spans: Vec<Span>,
}

impl TracePart {
    /// The schema that [`TracePart`] is written in.
    pub const SCHEMA: &'static str = "flowtap.trace.v1";
}

/// One step, redacted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Its id.
    pub span_id: SpanId,
    /// The step that it is a part of; `None` for the root.
    pub parent_span_id: Option<SpanId>,
    /// What it is called.
    pub name: String,
    /// What it is.
    pub kind: SpanKind,
    /// Who told of it.
    pub source: SpanSource,
    /// When it began; written with microseconds.
    #[serde(serialize_with = "with_microseconds")]
    pub start: Timestamp,
    /// Milliseconds that it took.
    pub duration_ms: f64,
    /// It failed; `error` may say how.
    pub failed: bool,
    /// The error's text.
    pub error: Option<String>,
    /// The model that answered.
    pub model: Option<String>,
    /// The model's deployment.
    pub deployment: Option<String>,
    /// Its own tokens, not those of the steps within it.
    pub usage: Usage,
    /// What went in.
    pub inputs: Option<Value>,
    /// What came out.
    pub output: Option<Value>,
    /// Other attributes, bounded.
    pub attributes: BTreeMap<String, Value>,
}
