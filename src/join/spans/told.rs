//! What was told of one exchange.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};

use super::{CONTENT_PER_EXCHANGE_MAX, Claim, Home, Key, SPANS_PER_EXCHANGE_MAX, SpanId, ToldSpan};
use crate::domain::{SpanKind, TraceId};
use crate::join::{Traced, traced};

/// One exchange and the spans that were told of it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) began: Timestamp,
    ended: Timestamp,
    /// The names that it is known by.
    pub(super) keys: HashSet<Key>,
    /// The traces in which its flow's own span stands.
    pub(super) flow_traces: HashSet<TraceId>,
    /// Spans that are none of the flow's own steps: the caller's, and flowtap's.
    outside: Vec<SpanId>,
    /// Texts of its spans are kept.
    content: bool,
    spans: HashMap<SpanId, ToldSpan>,
    /// Spans so far, those that were handed on included.
    count: usize,
    bytes: usize,
    /// Bytes so far.
    bytes_seen: usize,
    overflowed: bool,
    was_complete: bool,
    settled: Option<Option<Home>>,
}

/// What became of a span that was added.
pub(super) enum Added {
    /// It is held, and takes so many bytes more.
    Held(usize),
    /// The exchange is settled and a sample.
    Late(Box<Home>, Box<ToldSpan>),
    /// The exchange is settled and no sample.
    Unsampled,
    /// It was here already.
    Repeated,
    /// There are too many.
    TooMany,
}

impl Told {
    pub(super) fn new(claim: &Claim, content: bool) -> Self {
        Self {
            began: claim.began,
            ended: claim.ended,
            keys: HashSet::new(),
            flow_traces: HashSet::new(),
            outside: claim.outside.clone(),
            content,
            spans: HashMap::new(),
            count: 0,
            bytes: 0,
            bytes_seen: 0,
            overflowed: false,
            was_complete: false,
            settled: None,
        }
    }

    /// It was under way at `time`.
    pub(super) fn spans(&self, time: Timestamp) -> bool {
        (self.began..=self.ended).contains(&time)
    }

    /// How far `time` is from when it was under way.
    pub(super) fn distance(&self, time: Timestamp) -> SignedDuration {
        let before = self.began.duration_since(time);
        let after = time.duration_since(self.ended);
        before.max(after).max(SignedDuration::ZERO)
    }

    /// Takes a span, if there is room for it.
    pub(super) fn add(&mut self, mut span: ToldSpan, has_room: bool) -> Added {
        if let Some(known) = self.spans.get_mut(&span.span_id) {
            if known.usage.is_unknown() {
                known.usage = span.usage;
            }
            return Added::Repeated;
        }
        if !has_room || self.count >= SPANS_PER_EXCHANGE_MAX {
            self.overflowed = true;
            return Added::TooMany;
        }
        if !self.content || self.bytes_seen + span.bytes() > CONTENT_PER_EXCHANGE_MAX {
            span.drop_content();
        }
        self.count += 1;
        let bytes = span.bytes();
        self.bytes_seen += bytes;
        match &self.settled {
            Some(Some(home)) => Added::Late(Box::new(home.clone()), Box::new(span)),
            Some(None) => Added::Unsampled,
            None => {
                self.bytes += bytes;
                self.spans.insert(span.span_id, span);
                Added::Held(bytes)
            }
        }
    }

    /// True the first time that all is told.
    pub(super) fn turned_complete(&mut self) -> bool {
        let turned = !self.was_complete && self.is_complete();
        self.was_complete |= turned;
        turned
    }

    /// All was told.
    pub(super) fn is_whole(&self) -> bool {
        self.was_complete
    }

    /// The flow itself was told (it ends last, and exporters keep the order); and just the tokens were
    /// that it says were spent within it, or where it says nothing of them, every step that another is
    /// said to be a part of.
    fn is_complete(&self) -> bool {
        let flow_told = self.flows().next().is_some() || !self.has_named();
        match self.total_within() {
            Some(total) => total == traced::traced(&self.by_start(), true).total(),
            None => flow_told && self.missing() == 0,
        }
    }

    fn flows(&self) -> impl Iterator<Item = &ToldSpan> {
        self.spans.values().filter(|span| span.kind == SpanKind::Flow)
    }

    fn total_within(&self) -> Option<u64> {
        self.flows().filter_map(|flow| flow.total_within).max()
    }

    /// The span is told in a trace where its flow's own is not, while that is known elsewhere: it may
    /// name the exchange by mistake.
    pub(super) fn strays(&self, span: &ToldSpan) -> bool {
        let is_step = span.kind != SpanKind::Flow;
        is_step && !self.flow_traces.is_empty() && !self.flow_traces.contains(&span.trace_id)
    }

    /// Takes out all that strays.
    pub(super) fn take_strays(&mut self) -> Vec<ToldSpan> {
        self.take_all(|this, span| this.strays(span))
    }

    /// Takes out what cannot be its own: what strays and is a part of what nobody told. Its flow is
    /// still to be told.
    pub(super) fn take_foreign(&mut self) -> Vec<ToldSpan> {
        self.take_all(|this, span| this.strays(span) && this.hangs_from_nothing(span))
    }

    fn take_all(&mut self, which: impl Fn(&Self, &ToldSpan) -> bool) -> Vec<ToldSpan> {
        let chosen = self.spans.values().filter(|span| which(self, span));
        let ids: Vec<SpanId> = chosen.map(|span| span.span_id).collect();
        ids.into_iter().filter_map(|id| self.take_out(id)).collect()
    }

    /// The span is a part of a step that was told, or of the exchange's caller.
    pub(super) fn is_around(&self, span: &ToldSpan) -> bool {
        let is_own = |id| self.outside.contains(&id) || self.spans.contains_key(&id);
        span.parent_span_id.is_some_and(is_own)
    }

    fn take_out(&mut self, id: SpanId) -> Option<ToldSpan> {
        let span = self.spans.remove(&id)?;
        self.bytes -= span.bytes();
        self.count -= 1;
        Some(span)
    }

    /// One of the steps that it is a part of was not told.
    fn hangs_from_nothing(&self, span: &ToldSpan) -> bool {
        let above = std::iter::successors(span.parent_span_id, |id| {
            self.spans.get(id).and_then(|outer| outer.parent_span_id)
        });
        let is_missing = |id: &SpanId| !self.spans.contains_key(id) && !self.outside.contains(id);
        above.take(SPANS_PER_EXCHANGE_MAX).any(|id| is_missing(&id))
    }

    /// Steps that others are said to be parts of, and of which nobody told. A flow's own caller is none.
    fn missing(&self) -> usize {
        let steps = self.spans.values().filter(|span| span.kind != SpanKind::Flow);
        let parents = steps.filter_map(|span| span.parent_span_id);
        let missing =
            parents.filter(|id| !self.spans.contains_key(id) && !self.outside.contains(id));
        missing.collect::<HashSet<_>>().len()
    }

    /// Some span names the request.
    pub(super) fn has_named(&self) -> bool {
        self.spans.values().any(|span| !span.requests.is_empty())
    }

    /// What the spans tell of calls to models. Complete where all is told, or where all that is not is
    /// one step around the others: a server's own span that nobody exports to us.
    pub(super) fn traced(&self) -> Traced {
        let all_but_outermost = !self.has_named() && self.missing() <= 1;
        let complete = !self.overflowed && (self.is_complete() || all_but_outermost);
        let told = traced::traced(&self.by_start(), complete);
        Traced { proven: complete && self.total_within().is_some(), ..told }
    }

    pub(super) fn settle(&mut self, home: Option<Home>) -> Vec<ToldSpan> {
        self.content &= home.as_ref().is_some_and(|home| home.content);
        self.settled = Some(home);
        self.bytes = 0;
        let mut spans: Vec<ToldSpan> = std::mem::take(&mut self.spans).into_values().collect();
        spans.sort_by_key(|span| (span.start, span.span_id.to_bytes()));
        if !self.content {
            spans.iter_mut().for_each(ToldSpan::drop_content);
        }
        spans
    }

    pub(super) fn is_stored(&self) -> bool {
        matches!(self.settled, Some(Some(_)))
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.spans.len()
    }

    fn by_start(&self) -> Vec<&ToldSpan> {
        let key = |span: &&ToldSpan| (span.start, span.span_id.to_bytes());
        let sorted: BTreeMap<_, _> = self.spans.values().map(|span| (key(&span), span)).collect();
        sorted.into_values().collect()
    }
}
