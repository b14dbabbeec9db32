//! What a flow's spans tell of the tokens that it spent.

use std::collections::{HashMap, HashSet};

use crate::domain::{Call, Operation, Outcome, SpanId, SpanKind, ToldSpan};

/// A flow's calls to models as its spans tell them.
#[derive(Clone, Debug, Default)]
pub struct Traced {
    /// The calls, in the order in which they began.
    pub calls: Vec<Call>,
    /// False where calls may be missing.
    pub complete: bool,
    /// The flow itself told the same sum.
    pub proven: bool,
}

impl Traced {
    /// All tokens of the calls that are known.
    pub(super) fn total(&self) -> u64 {
        let sides = self.calls.iter().flat_map(|call| [call.input, call.output]);
        sides.flatten().fold(0, u64::saturating_add)
    }
}

/// Spans that a span may stand within, as far as anyone looks.
const DEPTH_MAX: usize = 100;

/// The calls among `spans`.
///
/// A call is a span that tells tokens, or that is a call to a model. Where one that tells tokens stands
/// within another, both tell of the same call, or the outer one sums up the inner ones: the innermost
/// counts. Then no token counts twice, and every token is its model's.
pub(super) fn traced(spans: &[&ToldSpan], complete: bool) -> Traced {
    let by_id: HashMap<SpanId, &ToldSpan> =
        spans.iter().map(|span| (span.span_id, *span)).collect();
    let tells = |span: &ToldSpan| !span.usage.is_unknown();
    let around: HashSet<SpanId> = spans
        .iter()
        .filter(|span| tells(span))
        .flat_map(|span| above(span, &by_id).map(|outer| outer.span_id))
        .collect();
    let is_told_further_out = |span: &ToldSpan| above(span, &by_id).any(tells);
    let is_call =
        |span: &ToldSpan| tells(span) || (span.kind.calls_model() && !is_told_further_out(span));
    let innermost = spans.iter().filter(|span| !around.contains(&span.span_id) && is_call(span));
    Traced { calls: innermost.map(|span| call(span)).collect(), complete, proven: false }
}

/// The spans that `span` stands within, from the inside out.
fn above<'a>(
    span: &'a ToldSpan,
    by_id: &'a HashMap<SpanId, &'a ToldSpan>,
) -> impl Iterator<Item = &'a ToldSpan> {
    let outer = |span: &'a ToldSpan| by_id.get(&span.parent_span_id?).copied();
    std::iter::successors(outer(span), move |span| outer(span)).take(DEPTH_MAX)
}

fn call(span: &ToldSpan) -> Call {
    let status = span.attributes.get("http.response.status_code").and_then(|code| code.as_u64());
    let operation = match span.kind {
        SpanKind::Embedding => Operation::Embeddings,
        _ => Operation::Chat,
    };
    Call {
        model: span.model.best().map(str::to_owned),
        deployment: span.deployment().map(str::to_owned),
        input: span.usage.input,
        output: span.usage.output,
        source: span.usage.source,
        latency_ms: span.duration_ms,
        status: status.and_then(|code| u16::try_from(code).ok()),
        cached_input: span.usage.cached_input,
        reasoning_output: span.usage.reasoning_output,
        operation,
        outcome: if span.failed { Outcome::UpstreamError } else { Outcome::Ok },
        step: None,
    }
}
