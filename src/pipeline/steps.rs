//! The trace of one sampled exchange: its own span, the calls that taps saw, and what was told.

use std::sync::Arc;

use super::Pipeline;
use crate::domain::{
    Call, CallStep, Dataset, Operation, Outcome, Row, Span, SpanKind, SpanSource, Summary,
    ToldSpan, TraceContext, TraceId, TracePart, Usage, UsageSource, to_line,
};
use crate::join::Home;

/// Bytes of one stored line, about; a longer trace is several.
const PART_BYTES_MAX: usize = 1024 * 1024;
const STATUS: &str = "http.response.status_code";

impl Pipeline {
    /// Redacts what was told, and stores it with the spans that taps made themselves.
    pub(super) fn store_trace(
        &self,
        home: &Home,
        trace_id: Option<TraceId>,
        own: Vec<Span>,
        told: Vec<ToldSpan>,
    ) {
        let trace_id = trace_id.or(told.first().map(|span| span.trace_id));
        let (spans, redactions) = self.redactor.spans(told);
        for (kind, count) in redactions {
            self.outlets.metrics.redacted(&kind, count);
        }
        let mut lines: Vec<Vec<Span>> = vec![own];
        let mut bytes = 0;
        for span in spans {
            bytes += heavy_bytes(&span);
            if bytes > PART_BYTES_MAX {
                lines.push(Vec::new());
                bytes = heavy_bytes(&span);
            }
            if let Some(line) = lines.last_mut() {
                line.push(span);
            }
        }
        for spans in lines.into_iter().filter(|spans| !spans.is_empty()) {
            self.store_part(home, trace_id, spans);
        }
    }

    fn store_part(&self, home: &Home, trace_id: Option<TraceId>, spans: Vec<Span>) {
        let part = TracePart {
            schema: TracePart::SCHEMA.to_owned(),
            exchange: home.exchange,
            exchange_time: home.time,
            tap: Arc::clone(&home.tap),
            deployment: Arc::clone(&home.deployment),
            instance: Arc::clone(&self.instance),
            trace_id,
            spans,
        };
        // Every part of a span is a JSON type; a failure would be a bug of the redactor's.
        let Ok(json) = to_line(&part, 0) else { return };
        let (deployment, time) = (Arc::clone(&home.deployment), home.time);
        // The spool keeps the books of what it is given, refusals included.
        let _booked =
            self.outlets.spool.try_append(Row { dataset: Dataset::Traces, deployment, time, json });
    }
}

/// The bytes that texts take; the rest is small.
fn heavy_bytes(span: &Span) -> usize {
    let texts = [&span.inputs, &span.output].into_iter().flatten();
    512 + texts.map(|value| value.to_string().len()).sum::<usize>()
}

/// A call that a tap saw, as a step of its flow; its names are redacted already. What says no parent is
/// a part of the flow's own span.
pub(super) fn span_of_call(call: &Call, step: CallStep, flow: &TraceContext) -> Span {
    let usage = Usage {
        cached_input: call.cached_input,
        reasoning_output: call.reasoning_output,
        ..Usage::of(call.input, call.output, call.source.unwrap_or(UsageSource::Estimated))
    };
    let kind = match call.operation {
        Operation::Embeddings => SpanKind::Embedding,
        _ => SpanKind::Llm,
    };
    Span {
        parent_span_id: step.parent_span_id.or(Some(flow.span_id)),
        model: call.model.clone(),
        deployment: call.deployment.clone(),
        usage,
        ..seen_by_tap(step, call.operation.label().to_owned(), kind, call.outcome, call.latency_ms)
    }
    .with_status(call.status)
}

/// The flow's own span as its tap saw it; `summary` is redacted already. Its content is the sample's,
/// and what it spent is the sum of its steps, unless it told so itself.
pub(super) fn span_of_flow(summary: &Summary, trace: &TraceContext) -> Span {
    let step = CallStep {
        began: summary.time,
        span_id: trace.span_id,
        parent_span_id: trace.parent_span_id,
    };
    let name = format!("{} {}", summary.method, summary.path);
    let usage = match summary.usage.source {
        Some(UsageSource::Reported) => summary.usage,
        _ => Usage::default(),
    };
    Span { usage, ..seen_by_tap(step, name, SpanKind::Flow, summary.outcome, summary.latency_ms) }
        .with_status(summary.status)
}

fn seen_by_tap(
    step: CallStep,
    name: String,
    kind: SpanKind,
    outcome: Outcome,
    duration_ms: f64,
) -> Span {
    let failed = outcome != Outcome::Ok;
    Span {
        span_id: step.span_id,
        parent_span_id: step.parent_span_id,
        name,
        kind,
        source: SpanSource::Tap,
        start: step.began,
        duration_ms,
        failed,
        error: failed.then(|| outcome.label().to_owned()),
        model: None,
        deployment: None,
        usage: Usage::default(),
        inputs: None,
        output: None,
        attributes: Default::default(),
    }
}

impl Span {
    fn with_status(mut self, status: Option<u16>) -> Self {
        let status = status.map(|code| (STATUS.to_owned(), code.into()));
        self.attributes.extend(status);
        self
    }
}
