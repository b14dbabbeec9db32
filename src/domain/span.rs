//! The steps inside one exchange: spans of the flow and of its calls, redacted.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::outcome::labelled;
use super::sample::with_microseconds;
use super::{ExchangeId, SpanId, TraceId, Usage};

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
