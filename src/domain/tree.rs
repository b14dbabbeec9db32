//! The trace of one exchange as a tree, made of the parts that were stored of it.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use serde::Serialize;

use super::{Span, SpanId, SpanKind, SpanSource, TracePart, Usage};

/// Steps below this depth hang at the last one above it: JSON readers bound how deep they go.
const DEPTH_MAX: usize = 50;

/// The trace of one exchange.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Tree {
    /// The outermost steps, in the order in which they began; one where the flow's own is known.
    pub roots: Vec<Step>,
    /// Spans in all.
    pub spans: usize,
    /// Spans whose parent nobody told of.
    pub orphans: usize,
}

/// A step with the steps within it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// The span.
    #[serde(flatten)]
    pub span: Span,
    /// The span that it says it is a part of is not among those told; it hangs where it fits best.
    pub orphan: bool,
    /// Tokens of this step: its own, else those of the steps within it. A step and its parent that
    /// both tell the same tokens are not added up.
    pub tokens: Tokens,
    /// The steps within it, in the order in which they began.
    pub children: Vec<Step>,
}

/// Tokens of a step and all within it; `None` is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tokens {
    /// Prompt tokens.
    pub input: Option<u64>,
    /// Completion tokens.
    pub output: Option<u64>,
}

/// Builds the tree of the parts of one exchange, in whatever order they come.
///
/// A span told in several parts is one: what one part does not know another may. Children stand in the
/// order in which they began. A span whose parent is missing hangs below the flow's own where there is
/// one, else it is a root; so does what stands in a circle. No input makes it fail.
pub fn tree(parts: impl IntoIterator<Item = TracePart>) -> Tree {
    let spans = merged(parts);
    let top = top(&spans);
    let mut below: HashMap<Option<SpanId>, Vec<SpanId>> = HashMap::new();
    let mut orphans = HashSet::new();
    for span in in_order(&spans) {
        let Place { parent, orphan } = Place::of(span, top, &spans);
        below.entry(parent).or_default().push(span.span_id);
        if orphan {
            orphans.insert(span.span_id);
        }
    }
    let count = spans.len();
    let mut grower = Grower { spans, below, orphans };
    let mut roots = grower.children(None, 0);
    // What stands in a circle hangs below nothing that was reached: its earliest span is a root.
    while let Some(next) = grower.earliest_left() {
        grower.orphans.insert(next);
        roots.extend(grower.grow(next, 0));
    }
    Tree { roots, spans: count, orphans: grower.orphans.len() }
}

/// Where a span hangs.
struct Place {
    parent: Option<SpanId>,
    orphan: bool,
}

impl Place {
    fn of(span: &Span, top: Option<SpanId>, spans: &HashMap<SpanId, Span>) -> Self {
        if Some(span.span_id) == top {
            return Self { parent: None, orphan: false };
        }
        match span.parent_span_id {
            Some(parent) if parent != span.span_id && spans.contains_key(&parent) => {
                Self { parent: Some(parent), orphan: false }
            }
            // The flow's own span stands beside its caller's children: what has the caller as its
            // parent, or none, is a part of the flow.
            told => {
                let caller = top.and_then(|top| spans.get(&top)?.parent_span_id);
                Self { parent: top, orphan: told.is_some() && told != caller }
            }
        }
    }
}

struct Grower {
    spans: HashMap<SpanId, Span>,
    below: HashMap<Option<SpanId>, Vec<SpanId>>,
    orphans: HashSet<SpanId>,
}

impl Grower {
    fn children(&mut self, of: Option<SpanId>, depth: usize) -> Vec<Step> {
        let ids = self.below.remove(&of).unwrap_or_default();
        ids.into_iter().flat_map(|id| self.grow(id, depth)).collect()
    }

    /// The step `id` with all below it; past the deepest level its children stand beside it.
    fn grow(&mut self, id: SpanId, depth: usize) -> Vec<Step> {
        let Some(span) = self.spans.remove(&id) else { return Vec::new() };
        let orphan = self.orphans.contains(&id);
        if depth + 1 < DEPTH_MAX {
            return vec![Step::new(span, orphan, self.children(Some(id), depth + 1))];
        }
        let mut flat = vec![Step::new(span, orphan, Vec::new())];
        let mut open = vec![id];
        while let Some(parent) = open.pop() {
            for id in self.below.remove(&Some(parent)).unwrap_or_default() {
                open.push(id);
                let orphan = self.orphans.contains(&id);
                flat.extend(self.spans.remove(&id).map(|span| Step::new(span, orphan, Vec::new())));
            }
        }
        flat
    }

    fn earliest_left(&self) -> Option<SpanId> {
        in_order(&self.spans).first().map(|span| span.span_id)
    }
}

impl Step {
    fn new(span: Span, orphan: bool, children: Vec<Step>) -> Self {
        let within = |of: fn(&Tokens) -> Option<u64>| {
            children.iter().filter_map(|child| of(&child.tokens)).reduce(u64::saturating_add)
        };
        let tokens = Tokens {
            input: span.usage.input.or_else(|| within(|tokens| tokens.input)),
            output: span.usage.output.or_else(|| within(|tokens| tokens.output)),
        };
        Self { span, orphan, tokens, children }
    }
}

/// One span for each id.
fn merged(parts: impl IntoIterator<Item = TracePart>) -> HashMap<SpanId, Span> {
    let mut spans: HashMap<SpanId, Span> = HashMap::new();
    for span in parts.into_iter().flat_map(|part| part.spans) {
        match spans.remove(&span.span_id) {
            None => spans.insert(span.span_id, span),
            Some(first) => spans.insert(span.span_id, first.with(span)),
        };
    }
    spans
}

impl Span {
    /// This span with what only `other` of the same id knows.
    fn with(self, other: Self) -> Self {
        let usage = if self.usage == Usage::default() { other.usage } else { self.usage };
        let mut attributes = other.attributes;
        attributes.extend(self.attributes);
        Self {
            parent_span_id: self.parent_span_id.or(other.parent_span_id),
            kind: if self.kind == SpanKind::Other { other.kind } else { self.kind },
            failed: self.failed || other.failed,
            error: self.error.or(other.error),
            model: self.model.or(other.model),
            deployment: self.deployment.or(other.deployment),
            usage,
            inputs: self.inputs.or(other.inputs),
            output: self.output.or(other.output),
            attributes,
            ..self
        }
    }
}

/// The flow's own span as its tap saw it, else the flow's own as it told itself.
fn top(spans: &HashMap<SpanId, Span>) -> Option<SpanId> {
    let flows = in_order(spans).into_iter().filter(|span| span.kind == SpanKind::Flow);
    let rank = |span: &&Span| (span.source != SpanSource::Tap, span.start);
    flows.min_by_key(rank).map(|span| span.span_id)
}

/// By start; what began at the same moment by length, the longer first, then by id.
fn in_order(spans: &HashMap<SpanId, Span>) -> Vec<&Span> {
    let mut all: Vec<&Span> = spans.values().collect();
    let key = |span: &Span| -> (Timestamp, [u8; 8]) { (span.start, span.span_id.to_bytes()) };
    all.sort_by(|a, b| {
        let longer = b.duration_ms.total_cmp(&a.duration_ms);
        key(a).0.cmp(&key(b).0).then(longer).then(key(a).1.cmp(&key(b).1))
    });
    all
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{ExchangeId, UsageSource};
    use super::*;

    fn id(n: u64) -> SpanId {
        SpanId::from_bytes(&n.to_be_bytes()).expect("not zero")
    }

    fn span(n: u64, parent: u64, start_ms: i64) -> Span {
        Span {
            span_id: id(n),
            parent_span_id: SpanId::from_bytes(&parent.to_be_bytes()),
            name: n.to_string(),
            kind: SpanKind::Function,
            source: SpanSource::Otlp,
            start: Timestamp::from_millisecond(start_ms).expect("a time"),
            duration_ms: 1.0,
            failed: false,
            error: None,
            model: None,
            deployment: None,
            usage: Usage::default(),
            inputs: None,
            output: None,
            attributes: Default::default(),
        }
    }

    fn spent(n: u64, parent: u64, input: u64) -> Span {
        let usage = Usage::of(Some(input), Some(1), UsageSource::Traced);
        Span { kind: SpanKind::Llm, usage, ..span(n, parent, n as i64) }
    }

    fn part(spans: Vec<Span>) -> TracePart {
        TracePart {
            schema: TracePart::SCHEMA.to_owned(),
            exchange: ExchangeId::new(Timestamp::UNIX_EPOCH),
            exchange_time: Timestamp::UNIX_EPOCH,
            tap: Arc::from("chat"),
            deployment: Arc::from("blue"),
            instance: Arc::from("pod"),
            trace_id: None,
            spans,
        }
    }

    /// `1(2 3(4))`: names, with children in brackets; `?` marks an orphan.
    fn drawn(steps: &[Step]) -> String {
        let draw = |step: &Step| {
            let mark = if step.orphan { "?" } else { "" };
            match &*step.children {
                [] => format!("{}{mark}", step.span.name),
                children => format!("{}{mark}({})", step.span.name, drawn(children)),
            }
        };
        steps.iter().map(draw).collect::<Vec<_>>().join(" ")
    }

    fn draw(spans: Vec<Span>) -> String {
        drawn(&tree([part(spans)]).roots)
    }

    #[test]
    fn children_stand_in_the_order_in_which_they_began() {
        assert_eq!(
            draw(vec![span(4, 3, 9), span(3, 1, 7), span(2, 1, 5), span(1, 0, 1)]),
            "1(2 3(4))"
        );
        assert_eq!(draw(vec![]), "");
        let longer = Span { duration_ms: 5.0, ..span(9, 1, 5) };
        assert_eq!(draw(vec![span(2, 1, 5), longer, span(1, 0, 1)]), "1(9 2)");
    }

    #[test]
    fn all_hangs_below_the_flow_as_its_tap_saw_it() {
        let tap = Span { kind: SpanKind::Flow, source: SpanSource::Tap, ..span(1, 50, 1) };
        let flow = Span { kind: SpanKind::Flow, ..span(2, 50, 2) };
        // 50 is the caller; 3 has no parent, as in a streamed answer; 4 was made by a step nobody told of.
        let spans = vec![span(4, 77, 5), tap, span(3, 0, 4), flow, span(5, 2, 3)];
        let tree = tree([part(spans)]);
        assert_eq!(drawn(&tree.roots), "1(2(5) 3 4?)");
        assert_eq!((tree.spans, tree.orphans), (5, 1));
        // Without a flow, what nobody claims are roots.
        assert_eq!(draw(vec![span(2, 77, 2), span(1, 0, 1)]), "1 2?");
    }

    #[test]
    fn a_span_in_several_parts_is_one() {
        let early = Span { kind: SpanKind::Other, ..span(2, 0, 2) };
        let late = Span { output: Some("x".into()), failed: true, ..spent(2, 1, 7) };
        let merged = tree([part(vec![early]), part(vec![span(1, 0, 1), late])]);
        assert_eq!(drawn(&merged.roots), "1(2)");
        let step = &merged.roots[0].children[0];
        assert_eq!(
            (step.span.kind, step.tokens.input, step.span.failed),
            (SpanKind::Llm, Some(7), true)
        );
        assert_eq!(step.span.output, Some("x".into()));
    }

    #[test]
    fn tokens_add_up_and_none_counts_twice() {
        let tree =
            tree([part(vec![span(1, 0, 0), spent(2, 1, 10), spent(3, 2, 10), spent(4, 1, 5)])]);
        assert_eq!(drawn(&tree.roots), "1(2(3) 4)");
        assert_eq!(tree.roots[0].tokens, Tokens { input: Some(15), output: Some(2) });
        assert_eq!(draw(vec![span(1, 0, 0)]), "1");
    }

    #[test]
    fn circles_and_depths_cost_nothing() {
        assert_eq!(draw(vec![span(1, 1, 1)]), "1?");
        assert_eq!(draw(vec![span(1, 2, 1), span(2, 1, 2), span(3, 0, 3)]), "3 1?(2)");
        let deep: Vec<Span> = (1..=1000).map(|n| span(n, n - 1, n as i64)).collect();
        let tree = tree([part(deep)]);
        assert_eq!(tree.spans, 1000);
        assert!(
            serde_json::to_string(&tree)
                .is_ok_and(|json| serde_json::from_str::<serde_json::Value>(&json).is_ok())
        );
        let mut counted = 0;
        let mut open: Vec<&Step> = tree.roots.iter().collect();
        while let Some(step) = open.pop() {
            counted += 1;
            open.extend(&step.children);
        }
        assert_eq!(counted, 1000, "none is lost");
    }
}
