//! Spans that were told to us, joined to the exchange that they were made for.
//!
//! A span names the request it belongs to, or only its trace. promptflow names the request, and tells a
//! streamed answer of one flow in several traces, so the name comes before the trace. But its FastAPI
//! engine names in the steps of requests that are under way at once the one that came last, and only in
//! the flow's own span the right one. So a step is a stray where the flow that it names was told in
//! another trace, and its own trace has another flow: then it is that one's. Of several exchanges under
//! one name or in one trace the span belongs to the one that was under way when it began; where that is
//! not exactly one, to none.
//!
//! Spans come in batches, mostly after the answer (OpenTelemetry's exporters gather for five seconds),
//! but those of a long flow's first steps may come before its end. What comes before waits for its
//! exchange; what comes after the exchange was settled is late, and is for the stored trace only.
//!
//! Everything is bounded, by spans, by bytes and by time; the oldest goes first. No I/O, no clock.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use super::aged::Aged;
use super::{Claim, KEPT, Key, Traced};
use crate::config;
use crate::domain::{ExchangeId, SpanId, SpanKind, ToldFate, ToldSpan, TraceId};
use crate::metrics::Metrics;

mod told;

#[cfg(test)]
mod tests;

use told::{Added, Told};

/// Spans of one exchange; more are lost.
pub const SPANS_PER_EXCHANGE_MAX: usize = 1000;
/// Bytes of the spans of one exchange with their content; past them the content of further ones is not kept.
const CONTENT_PER_EXCHANGE_MAX: usize = 4 * 1024 * 1024;
/// Spans that may wait for their exchanges, and be held for those that are not settled yet.
const SPANS_MAX: usize = 100_000;
/// Bytes of them.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// Spans that may wait under one name.
const WAITING_PER_KEY_MAX: usize = 2000;
/// Exchanges remembered under one name.
const EXCHANGES_PER_KEY_MAX: usize = 16;
/// Levels of steps that one span can bring to its exchange.
const ROUNDS_MAX: usize = 32;
/// How far from its exchange in time a span may be that only shares the trace.
const SKEW: SignedDuration = SignedDuration::from_secs(1);
/// How long after its exchange a span may begin that is known to be a part of it: clocks differ.
const SKEW_OF_KNOWN: SignedDuration = SignedDuration::from_secs(60);
/// A span that is further away than this in time was told by another clock altogether.
const ANOTHER_CLOCK: SignedDuration = SignedDuration::from_hours(1);

/// Where the spans of a settled exchange are stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Home {
    /// The exchange.
    pub exchange: ExchangeId,
    /// When it began.
    pub time: Timestamp,
    /// Its tap.
    pub tap: Arc<str>,
    /// Its deployment.
    pub deployment: Arc<str>,
    /// Text of it may be kept.
    pub content: bool,
}

/// What becomes of a span that was told.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// It waits: for its exchange, or with it.
    Waits,
    /// It came late, and its exchange is a sample: to be stored now.
    Late(Box<Home>, Box<ToldSpan>),
    /// It came late or too often, or there is no room: counted, and nothing is kept.
    Gone,
}

/// Spans that wait for their exchanges, and exchanges that wait for their spans.
#[derive(Debug)]
pub struct Spans {
    exchanges_max: usize,
    metrics: Metrics,
    /// Spans whose exchange has not come.
    waiting: HashMap<u64, ToldSpan>,
    waiting_by: Aged<Vec<u64>>,
    next: u64,
    /// Exchanges that came, settled or not.
    exchanges: HashMap<ExchangeId, Told>,
    by_key: HashMap<Key, Vec<ExchangeId>>,
    /// The exchanges whose flow's own span stands in a trace.
    flows_of: HashMap<TraceId, Vec<ExchangeId>>,
    order: VecDeque<(Instant, ExchangeId)>,
    /// Those that wait no longer, because all is told.
    ready: Vec<ExchangeId>,
    /// Exchanges and keys under which something of theirs may wait.
    to_fetch: HashSet<(ExchangeId, Key)>,
    held: usize,
    bytes: usize,
}

impl Spans {
    /// An empty table.
    pub fn new(settings: &config::Join, metrics: Metrics) -> Self {
        Self {
            exchanges_max: settings.requests_max.max(1),
            metrics,
            waiting: HashMap::new(),
            waiting_by: Aged::default(),
            next: 0,
            exchanges: HashMap::new(),
            by_key: HashMap::new(),
            flows_of: HashMap::new(),
            order: VecDeque::new(),
            ready: Vec::new(),
            to_fetch: HashSet::new(),
            held: 0,
            bytes: 0,
        }
    }

    /// A span was told.
    pub fn hear(&mut self, span: ToldSpan, now: Instant) -> Heard {
        let heard = match self.owner(&span) {
            Some(id) => self.give(id, span),
            None => self.put_by(span, now),
        };
        self.fetch_all();
        heard
    }

    /// An exchange has ended and waits for its spans until [`Self::take`]. Without `content` only
    /// figures of them are kept.
    pub fn announce(&mut self, claim: &Claim, content: bool, now: Instant) {
        self.exchanges.insert(claim.id, Told::new(claim, content));
        self.order.push_back((now, claim.id));
        let keys: Vec<Key> =
            claim.keys.iter().filter(|key| **key != Key::Unnamed).cloned().collect();
        keys.into_iter().for_each(|key| self.reach(claim.id, key));
        self.fetch_all();
        while self.exchanges.len() > self.exchanges_max {
            self.forget_oldest_exchange();
        }
    }

    /// True where a span that names one of the claim's requests is here.
    pub fn holds(&self, claim: &Claim) -> bool {
        let is_name = |key: &&Key| matches!(key, Key::Request(_));
        claim.keys.iter().filter(is_name).any(|key| self.waiting_by.get(key).is_some())
    }

    /// The exchanges of which all is told, since the last call.
    pub fn take_ready(&mut self) -> Vec<ExchangeId> {
        std::mem::take(&mut self.ready)
    }

    /// What the spans of an exchange tell of its calls to models. It goes on gathering spans until
    /// [`Self::settle`].
    pub fn take(&mut self, id: ExchangeId, now: Instant) -> Traced {
        self.adopt(id);
        self.fetch_all();
        let foreign = self.exchanges.get_mut(&id).map(Told::take_foreign).unwrap_or_default();
        self.let_go(&foreign);
        foreign.into_iter().for_each(|span| drop(self.put_by(span, now)));
        self.exchanges.get(&id).map(Told::traced).unwrap_or_default()
    }

    /// The exchange is settled: as a sample that is stored at `home`, or as none. Returns the spans to
    /// be stored; what comes from now on is late.
    pub fn settle(&mut self, id: ExchangeId, home: Option<Home>) -> Vec<ToldSpan> {
        let Some(told) = self.exchanges.get_mut(&id) else { return Vec::new() };
        self.bytes -= told.bytes();
        self.held -= told.len();
        let spans = told.settle(home);
        let is_stored = told.is_stored();
        self.tell(ToldFate::Joined, spans.len());
        if is_stored { spans } else { Vec::new() }
    }

    /// Lets go of what has waited too long.
    pub fn expire(&mut self, now: Instant) {
        let limit = now.checked_sub(KEPT);
        while self.waiting_by.oldest().is_some_and(|since| Some(since) < limit) {
            self.forget_oldest_span(ToldFate::Orphan);
        }
        while self.order.front().is_some_and(|(since, _)| Some(*since) < limit) {
            self.forget_oldest_exchange();
        }
    }

    /// Nothing comes any more: what still waits has no exchange.
    pub fn close(&mut self) {
        while self.forget_oldest_span(ToldFate::Orphan) {}
    }

    /// Spans that wait for their exchange.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The exchange that a span belongs to, if it is known by now.
    fn owner(&self, span: &ToldSpan) -> Option<ExchangeId> {
        if span.requests.is_empty() {
            return self.choose(&Key::Trace(span.trace_id), span);
        }
        let names = span.requests.iter().filter_map(|name| Key::request(name));
        let named = names.into_iter().find_map(|key| self.choose(&key, span))?;
        let strayed = self.exchanges.get(&named).is_some_and(|told| told.strays(span));
        Some(strayed.then(|| self.flow_of(span.trace_id)).flatten().unwrap_or(named))
    }

    /// The only exchange whose flow's own span stands in a trace.
    fn flow_of(&self, trace_id: TraceId) -> Option<ExchangeId> {
        match self.flows_of.get(&trace_id)?.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    /// Of the exchanges under `key`: the one that was under way when the span began; or the only one,
    /// where the span's time does not speak against it.
    fn choose(&self, key: &Key, span: &ToldSpan) -> Option<ExchangeId> {
        let candidates = self.by_key.get(key)?;
        let told = |id: &ExchangeId| self.exchanges.get(id);
        let is_within = |id: &&ExchangeId| told(id).is_some_and(|told| told.spans(span.start));
        let mut within = candidates.iter().filter(is_within);
        if let Some(first) = within.next() {
            return within.next().is_none().then_some(*first);
        }
        let [only] = candidates.as_slice() else { return None };
        let told = told(only)?;
        let distance = told.distance(span.start);
        let is_named = matches!(key, Key::Request(_));
        // Of what is whole, nothing that names it can begin later: that is another's of the same name.
        let is_known = told.is_around(span) || (is_named && !told.is_whole());
        let near = if is_known { SKEW_OF_KNOWN } else { SKEW };
        // By a clock that is behind; a later exchange of the same name cannot be meant.
        let before = (is_named || is_known) && span.start < told.began;
        (before || distance <= near || distance > ANOTHER_CLOCK).then_some(*only)
    }

    fn give(&mut self, id: ExchangeId, mut span: ToldSpan) -> Heard {
        let (trace_id, is_named) = (span.trace_id, !span.requests.is_empty());
        let is_flow = is_named && span.kind == SpanKind::Flow;
        let has_room = self.make_room(&mut span);
        let Some(told) = self.exchanges.get_mut(&id) else { return Heard::Gone };
        let added = told.add(span, has_room);
        if is_flow && told.flow_traces.insert(trace_id) {
            self.flows_of.entry(trace_id).or_default().push(id);
            self.sort_out(id, trace_id);
        }
        let fate = match added {
            Added::Held(bytes) => {
                (self.held, self.bytes) = (self.held + 1, self.bytes + bytes);
                if is_named {
                    self.reach(id, Key::Trace(trace_id));
                }
                // What is a part of it may have waited for it.
                self.to_fetch.insert((id, Key::Trace(trace_id)));
                self.note_complete(id);
                return Heard::Waits;
            }
            Added::Late(home, span) => {
                self.tell(ToldFate::Late, 1);
                return Heard::Late(home, span);
            }
            Added::Unsampled => ToldFate::Late,
            Added::Repeated => ToldFate::Repeated,
            Added::TooMany => ToldFate::Evicted,
        };
        self.tell(fate, 1);
        Heard::Gone
    }

    fn note_complete(&mut self, id: ExchangeId) {
        let turned = self.exchanges.get_mut(&id).is_some_and(Told::turned_complete);
        self.ready.extend(turned.then_some(id));
    }

    /// The own span of the flow `id` is here: what it got by a wrong name goes to whose it is, and what
    /// others got of its trace comes to it.
    fn sort_out(&mut self, id: ExchangeId, trace_id: TraceId) {
        let holders = self.by_key.get(&Key::Trace(trace_id)).cloned().unwrap_or_default();
        for holder in holders.into_iter().filter(|holder| *holder != id).chain([id]) {
            let strays = self.exchanges.get_mut(&holder).map(Told::take_strays);
            let strays = strays.unwrap_or_default();
            self.let_go(&strays);
            for span in strays {
                let owner = self.flow_of(span.trace_id).unwrap_or(holder);
                self.give(owner, span);
            }
            self.note_complete(holder);
        }
        if self.flow_of(trace_id) == Some(id) {
            self.to_fetch.insert((id, Key::TraceOfNamed(trace_id)));
        }
    }

    /// Spans that an exchange held are on their way elsewhere.
    fn let_go(&mut self, spans: &[ToldSpan]) {
        self.held -= spans.len();
        self.bytes -= spans.iter().map(ToldSpan::bytes).sum::<usize>();
    }

    /// Makes room for `span`: what waits for an exchange goes first, then the span's own texts. False
    /// where that is not enough.
    fn make_room(&mut self, span: &mut ToldSpan) -> bool {
        let is_full = |this: &Self, bytes: usize| {
            this.bytes + bytes > BYTES_MAX || this.waiting.len() + this.held >= SPANS_MAX
        };
        while is_full(self, span.bytes()) && self.forget_oldest_span(ToldFate::Evicted) {}
        if is_full(self, span.bytes()) {
            span.drop_content();
        }
        !is_full(self, span.bytes())
    }

    /// The exchange is known under `key` from now on; what waits there and is its own comes to it.
    fn reach(&mut self, id: ExchangeId, key: Key) {
        let Some(told) = self.exchanges.get_mut(&id) else { return };
        if !told.keys.insert(key.clone()) {
            return;
        }
        let known = self.by_key.entry(key.clone()).or_default();
        known.push(id);
        if known.len() > EXCHANGES_PER_KEY_MAX {
            known.remove(0);
        }
        self.to_fetch.insert((id, key));
    }

    /// Brings what waits to the exchanges that it turned out to belong to. What came may bring more: so
    /// many rounds, and what hangs deeper waits for the next.
    fn fetch_all(&mut self) {
        for _ in 0..ROUNDS_MAX {
            if self.to_fetch.is_empty() {
                return;
            }
            for (id, key) in std::mem::take(&mut self.to_fetch) {
                self.fetch(id, &key);
            }
        }
        self.to_fetch.clear();
    }

    /// What waits under `key` and is the exchange's own comes to it.
    fn fetch(&mut self, id: ExchangeId, key: &Key) {
        let Some(waiting) = self.waiting_by.get(key).cloned() else { return };
        for number in waiting {
            let owner = self.waiting.get(&number).and_then(|span| self.owner(span));
            if owner == Some(id)
                && let Some(span) = self.stop_waiting(number)
            {
                self.give(id, span);
            }
        }
    }

    /// What is about to be settled takes what can be no other's: spans of its name that began after it
    /// ended, by a clock that is ahead; and, where none names it, spans of its trace that name a request
    /// nobody made.
    fn adopt(&mut self, id: ExchangeId) {
        let Some(told) = self.exchanges.get(&id) else { return };
        let has_named = told.has_named();
        let is_alone = |key: &&Key| self.by_key.get(*key).is_some_and(|known| known.len() == 1);
        let alone: Vec<Key> = told.keys.iter().filter(is_alone).cloned().collect();
        for key in alone {
            let (key, is_name) = match key {
                Key::Trace(trace) if !has_named => (Key::TraceOfNamed(trace), false),
                Key::Request(_) => (key, true),
                _ => continue,
            };
            for number in self.waiting_by.get(&key).cloned().unwrap_or_default() {
                let span = self.waiting.get(&number);
                let takes = span.is_some_and(|span| is_name || self.is_in(id, span));
                if takes && let Some(span) = self.stop_waiting(number) {
                    self.give(id, span);
                }
            }
        }
    }

    fn is_in(&self, id: ExchangeId, span: &ToldSpan) -> bool {
        let distance = self.exchanges.get(&id).map(|told| told.distance(span.start));
        let known = span.requests.iter().filter_map(|name| Key::request(name));
        let is_others = known.into_iter().any(|key| self.by_key.contains_key(&key));
        !is_others && distance.is_some_and(|far| far <= SKEW || far > ANOTHER_CLOCK)
    }

    /// The span waits for its exchange, under every name it has.
    fn put_by(&mut self, mut span: ToldSpan, now: Instant) -> Heard {
        let has_room = self.make_room(&mut span);
        let is_crowd = |key: &Key| {
            self.waiting_by.get(key).is_some_and(|waiting| waiting.len() >= WAITING_PER_KEY_MAX)
        };
        let keys: Vec<Key> = keys(&span).filter(|key| !is_crowd(key)).collect();
        // Under its trace a span that names a request is looked for only if that fails.
        if !has_room || keys.iter().all(|key| matches!(key, Key::TraceOfNamed(_))) {
            self.tell(ToldFate::Evicted, 1);
            return Heard::Gone;
        }
        let number = self.next;
        self.next += 1;
        self.bytes += span.bytes();
        for key in &keys {
            self.waiting_by.entry(key, now).push(number);
        }
        self.waiting.insert(number, span);
        Heard::Waits
    }

    fn stop_waiting(&mut self, number: u64) -> Option<ToldSpan> {
        let span = self.waiting.remove(&number)?;
        self.bytes -= span.bytes();
        keys(&span).for_each(|key| self.unlist(&key, number));
        Some(span)
    }

    fn unlist(&mut self, key: &Key, number: u64) {
        let Some(numbers) = self.waiting_by.get_mut(key) else { return };
        numbers.retain(|other| *other != number);
        if numbers.is_empty() {
            self.waiting_by.remove(key);
        }
    }

    fn forget_oldest_span(&mut self, fate: ToldFate) -> bool {
        let Some((key, numbers)) = self.waiting_by.pop_oldest_entry() else { return false };
        for number in numbers {
            // It is listed under its other names, too.
            let Some(span) = self.waiting.remove(&number) else { continue };
            self.bytes -= span.bytes();
            keys(&span).filter(|other| *other != key).for_each(|key| self.unlist(&key, number));
            self.tell(fate, 1);
        }
        true
    }

    fn forget_oldest_exchange(&mut self) {
        let Some((_, id)) = self.order.pop_front() else { return };
        let Some(told) = self.exchanges.remove(&id) else { return };
        self.held -= told.len();
        self.bytes -= told.bytes();
        self.tell(ToldFate::Evicted, told.len());
        told.keys.iter().for_each(|key| forget(&mut self.by_key, key, id));
        told.flow_traces.iter().for_each(|trace| forget(&mut self.flows_of, trace, id));
    }

    fn tell(&self, fate: ToldFate, spans: usize) {
        self.metrics.spans_told(fate, spans as u64);
    }
}

fn forget<K: Hash + Eq>(known: &mut HashMap<K, Vec<ExchangeId>>, key: &K, id: ExchangeId) {
    let Some(ids) = known.get_mut(key) else { return };
    ids.retain(|other| *other != id);
    if ids.is_empty() {
        known.remove(key);
    }
}

/// Every name under which a span may be looked for.
fn keys(span: &ToldSpan) -> impl Iterator<Item = Key> + use<> {
    let names: HashSet<Key> = span.requests.iter().filter_map(|name| Key::request(name)).collect();
    let trace = match names.is_empty() {
        true => Key::Trace(span.trace_id),
        false => Key::TraceOfNamed(span.trace_id),
    };
    names.into_iter().chain([trace])
}
