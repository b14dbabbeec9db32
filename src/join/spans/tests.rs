//! Which exchange a span comes to, what it must not come to, and what is let go of.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::MetricsLimits;
use crate::domain::{ModelNames, SpanKind, SpanSource, TraceId, Usage, UsageSource};

struct Table {
    spans: Spans,
    metrics: Metrics,
    now: Instant,
}

fn table(requests_max: usize) -> Table {
    let metrics = Metrics::new(&MetricsLimits { models_max: 5, deployments_max: 5 });
    let settings =
        config::Join { wait: Duration::ZERO, spans_wait: Duration::from_secs(7), requests_max };
    Table { spans: Spans::new(&settings, metrics.clone()), metrics, now: Instant::now() }
}

/// Milliseconds after noon of some day.
fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(1_790_000_000_000 + ms).expect("a time")
}

fn id(ms: i64) -> ExchangeId {
    ExchangeId::new(at(ms))
}

fn trace(n: u8) -> TraceId {
    TraceId::from_bytes(&[n; 16]).expect("not zero")
}

fn span_id(n: u64) -> SpanId {
    SpanId::from_bytes(&n.to_be_bytes()).expect("not zero")
}

fn span(n: u64, request: &str, of_trace: u8, start_ms: i64) -> ToldSpan {
    ToldSpan {
        trace_id: trace(of_trace),
        span_id: span_id(n),
        parent_span_id: None,
        requests: (!request.is_empty()).then(|| Box::from(request)).into_iter().collect(),
        name: format!("span {n}"),
        kind: SpanKind::Llm,
        source: SpanSource::Otlp,
        start: at(start_ms),
        duration_ms: 1.0,
        failed: false,
        error: None,
        model: ModelNames::default(),
        usage: Usage::of(Some(n), Some(1), UsageSource::Traced),
        total_within: None,
        countable: None,
        inputs: Some("secret question".to_owned()),
        output: None,
        attributes: Default::default(),
    }
}

fn flow_span(n: u64, request: &str, of_trace: u8, start_ms: i64) -> ToldSpan {
    let usage = Usage::default();
    ToldSpan { kind: SpanKind::Flow, usage, ..span(n, request, of_trace, start_ms) }
}

fn claim(id: ExchangeId, name: &str, of_trace: Option<u8>, from_ms: i64, to_ms: i64) -> Claim {
    let name = Key::request(name);
    Claim {
        keys: name.into_iter().chain(of_trace.map(|n| Key::Trace(trace(n)))).collect(),
        id,
        tap: Arc::from("chat"),
        began: at(from_ms),
        ended: at(to_ms),
        outside: vec![span_id(99)],
    }
}

fn home(id: ExchangeId) -> Home {
    let (tap, deployment) = (Arc::from("chat"), Arc::from("blue"));
    Home { exchange: id, time: at(0), tap, deployment, content: true }
}

impl Table {
    fn hear(&mut self, span: ToldSpan) -> Heard {
        self.spans.hear(span, self.now)
    }

    fn flow(&mut self, name: &str, of_trace: Option<u8>, from_ms: i64, to_ms: i64) -> ExchangeId {
        let id = id(from_ms);
        self.spans.announce(&claim(id, name, of_trace, from_ms, to_ms), true, self.now);
        id
    }

    /// The input tokens of the flow's calls, and whether they are all.
    fn take(&mut self, id: ExchangeId) -> (Vec<u64>, bool) {
        let traced = self.spans.take(id, self.now);
        (traced.calls.iter().filter_map(|call| call.input).collect(), traced.complete)
    }

    /// joined, late, repeated, orphan, evicted
    fn fates(&self) -> [f64; 5] {
        let sums = self.metrics.sums("flowtap_spans_told_total", "result");
        ["joined", "late", "repeated", "orphan", "evicted"].map(|fate| sums[fate])
    }
}

#[test]
fn spans_before_and_after_the_end_come_to_the_request_that_they_name() {
    let mut table = table(10);
    table.hear(span(1, "a", 1, 10));
    let flow = table.flow("a", None, 0, 100);
    assert!(table.spans.take_ready().is_empty(), "the flow itself was not told");
    // Another trace of the same request, as a streamed answer makes them.
    table.hear(span(2, "a", 2, 20));
    table.hear(span(3, "b", 1, 30));
    table.hear(flow_span(4, "a", 3, 1));
    assert_eq!(table.spans.take_ready(), [flow]);
    assert_eq!(table.take(flow), (vec![1, 2], true));
    let stored = table.spans.settle(flow, Some(home(flow)));
    assert_eq!(
        stored.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(),
        ["span 4", "span 1", "span 2"]
    );
    assert_eq!(table.spans.waiting(), 1, "b's own waits for b");
    table.spans.close();
    assert_eq!(table.fates(), [3.0, 0.0, 0.0, 1.0, 0.0]);
    assert_eq!((table.spans.bytes, table.spans.held), (0, 0));
}

#[test]
fn a_part_that_is_missing_is_waited_for() {
    let mut table = table(10);
    let flow = table.flow("a", None, 0, 100);
    table.hear(flow_span(1, "a", 1, 1));
    assert_eq!(table.spans.take_ready(), [flow]);
    let other = table.flow("b", None, 0, 100);
    let parent_span_id = Some(span_id(7));
    table.hear(ToldSpan { parent_span_id, ..span(2, "b", 2, 10) });
    table.hear(flow_span(3, "b", 2, 1));
    assert!(table.spans.take_ready().is_empty(), "7 is missing");
    assert_eq!(table.take(other), (vec![2], false));
    table.hear(ToldSpan {
        kind: SpanKind::Function,
        usage: Usage::default(),
        ..span(7, "b", 2, 5)
    });
    assert_eq!(table.spans.take_ready(), [other]);
    assert_eq!(table.take(other), (vec![2], true));
}

/// As promptflow's FastAPI engine tells two requests that were under way at once: the steps of both name
/// the one that came last.
#[test]
fn steps_that_name_the_wrong_request_come_to_the_flow_of_their_trace() {
    for last_is_told_first in [true, false] {
        let mut table = table(10);
        let (first, last) = (table.flow("a", None, 0, 100), table.flow("b", None, 10, 110));
        let parent_span_id = Some(span_id(1));
        table.hear(ToldSpan { parent_span_id, ..span(2, "b", 1, 20) });
        let parent_span_id = Some(span_id(11));
        table.hear(ToldSpan { parent_span_id, ..span(12, "b", 2, 30) });
        let own = |n, name, of_trace, total| ToldSpan {
            total_within: Some(total),
            ..flow_span(n, name, of_trace, 15)
        };
        let mut flows = [own(11, "b", 2, 13), own(1, "a", 1, 3)];
        if !last_is_told_first {
            flows.reverse();
        }
        let [one, other] = flows;
        table.hear(one);
        assert!(table.spans.ready.len() < 2);
        if last_is_told_first {
            // It is due before the other was told: what hangs from nothing is not taken for its own.
            assert_eq!(table.take(last), (vec![12], true));
            assert_eq!(table.spans.waiting(), 1);
        }
        table.hear(other);
        assert_eq!((table.take(first), table.take(last)), ((vec![2], true), (vec![12], true)));
        table.spans.settle(first, None);
        table.spans.settle(last, None);
        assert_eq!((table.spans.bytes, table.spans.held, table.spans.waiting()), (0, 0, 0));
    }
}

/// As a load generator asks that sends one traceparent with all its requests.
#[test]
fn a_trace_that_many_requests_share_changes_nothing_of_their_names() {
    let mut table = table(10);
    let (first, other) = (table.flow("a", Some(1), 0, 100), table.flow("b", Some(1), 10, 110));
    table.hear(flow_span(1, "a", 1, 5));
    table.hear(span(12, "b", 1, 20));
    table.hear(span(2, "a", 1, 20));
    table.hear(flow_span(11, "b", 1, 15));
    assert_eq!((table.take(first), table.take(other)), ((vec![2], true), (vec![12], true)));
}

#[test]
fn a_part_of_the_callers_span_is_the_exchanges_though_it_was_told_a_while_after() {
    let mut table = table(10);
    let flow = table.flow("x", Some(1), 0, 100);
    let parent_span_id = Some(span_id(2));
    table.hear(ToldSpan { parent_span_id, ..span(1, "", 1, 30_000) });
    assert_eq!(table.spans.waiting(), 1, "nothing says yet whose it is");
    let (parent_span_id, usage) = (Some(span_id(99)), Usage::default());
    table.hear(ToldSpan { parent_span_id, usage, ..span(2, "", 1, 29_000) });
    assert_eq!(table.take(flow), (vec![1], true));
}

#[test]
fn where_nothing_is_named_the_trace_and_the_time_tell() {
    let mut table = table(10);
    table.hear(span(1, "", 1, 50));
    let flow = table.flow("a", Some(1), 0, 100);
    assert_eq!(table.spans.take_ready(), [flow], "all that was told is whole");
    let parent_span_id = Some(span_id(99));
    table.hear(ToldSpan { parent_span_id, ..span(2, "", 1, 60) });
    table.hear(span(3, "", 1, 5000));
    table.hear(span(4, "", 2, 50));
    assert_eq!(table.take(flow), (vec![1, 2], true), "the caller's span is not missing");
    assert_eq!(table.spans.waiting(), 2);
}

#[test]
fn of_overlapping_requests_in_one_trace_none_gets_what_may_be_the_others() {
    let mut table = table(10);
    let first = table.flow("a", Some(1), 0, 100);
    let second = table.flow("b", Some(1), 50, 150);
    table.hear(span(1, "", 1, 10));
    table.hear(span(2, "", 1, 70));
    table.hear(span(3, "", 1, 140));
    // What names its request is never joined by the trace.
    table.hear(span(4, "a", 1, 70));
    table.hear(span(5, "c", 1, 20));
    assert_eq!(table.take(first).0, [1, 4]);
    assert_eq!(table.take(second).0, [3]);
    assert_eq!(table.spans.waiting(), 2);
}

#[test]
fn a_name_used_again_tells_its_requests_apart_by_time() {
    let mut table = table(10);
    let first = table.flow("a", None, 0, 100);
    table.hear(span(1, "a", 1, 50));
    table.hear(flow_span(9, "a", 1, 1));
    assert_eq!(table.take(first).0, [1]);
    table.spans.settle(first, None);
    // Told before the second has ended: it is not taken for a late part of the first.
    table.hear(span(2, "a", 2, 5000));
    let second = table.flow("a", None, 4900, 9000);
    assert_eq!(table.take(second).0, [2]);
    assert_eq!(table.fates()[1], 0.0);
}

#[test]
fn clocks_that_differ_and_posts_played_again_are_joined_by_name() {
    let mut table = table(10);
    let flow = table.flow("a", None, 0, 100);
    table.hear(span(1, "a", 1, -3_000));
    table.hear(span(2, "a", 1, 20_000));
    table.hear(span(3, "a", 1, -400_000_000));
    table.hear(span(4, "a", 1, 400_000_000));
    assert_eq!(table.take(flow).0, [3, 1, 2, 4]);
}

#[test]
fn a_request_that_nobody_made_is_joined_by_its_trace_where_nothing_else_is() {
    let mut table = table(10);
    let flow = table.flow("a", Some(1), 0, 100);
    table.hear(span(1, "made up by the server", 1, 50));
    assert_eq!(table.take(flow).0, [1]);
    let other = table.flow("b", Some(2), 0, 100);
    table.hear(span(2, "b", 2, 50));
    table.hear(span(3, "of another", 2, 50));
    assert_eq!(table.take(other).0, [2], "its own spans name it: the other's are another's");
}

#[test]
fn what_is_told_twice_counts_once() {
    let mut table = table(10);
    let flow = table.flow("a", None, 0, 100);
    table.hear(ToldSpan { usage: Usage::default(), ..span(1, "a", 1, 50) });
    table.hear(span(1, "a", 1, 50));
    table.hear(span(1, "a", 1, 50));
    assert_eq!(table.take(flow).0, [1], "the second told more than the first");
    assert_eq!(table.fates()[2], 2.0);
}

#[test]
fn late_spans_are_for_the_trace_of_a_sample_and_nothing_else() {
    let mut table = table(10);
    let (sample, other) = (table.flow("a", None, 0, 100), table.flow("b", None, 0, 100));
    assert!(table.spans.settle(sample, Some(home(sample))).is_empty());
    assert!(table.spans.settle(other, None).is_empty());
    let Heard::Late(at, late) = table.hear(span(1, "a", 1, 50)) else { panic!("a sample's") };
    assert_eq!((at.exchange, late.inputs.is_some()), (sample, true));
    assert_eq!(table.hear(span(2, "b", 1, 50)), Heard::Gone);
    assert_eq!(table.fates(), [0.0, 2.0, 0.0, 0.0, 0.0]);
}

#[test]
fn texts_are_kept_for_samples_only() {
    let mut table = table(10);
    let (unsampled, metadata) = (id(1), id(2));
    table.spans.announce(&claim(unsampled, "a", None, 0, 100), false, table.now);
    table.spans.announce(&claim(metadata, "b", None, 0, 100), true, table.now);
    table.hear(span(1, "a", 1, 50));
    table.hear(span(2, "b", 2, 50));
    assert_eq!(table.take(unsampled).0, [1], "its tokens count all the same");
    let no_text = Home { content: false, ..home(metadata) };
    let stored = table.spans.settle(metadata, Some(no_text.clone()));
    assert_eq!((stored.len(), &stored[0].inputs), (1, &None));
    let Heard::Late(_, late) = table.hear(span(3, "b", 2, 50)) else { panic!("a sample's") };
    assert_eq!(late.inputs, None);
}

#[test]
fn floods_are_bounded_and_the_oldest_goes_first() {
    let mut crowd = table(10);
    for n in 1..=5000 {
        crowd.hear(span(n, "a", 1, 50));
    }
    assert_eq!(crowd.spans.waiting(), WAITING_PER_KEY_MAX);
    let flow = crowd.flow("a", None, 0, 100);
    let (calls, complete) = crowd.take(flow);
    assert_eq!((calls.len(), complete), (SPANS_PER_EXCHANGE_MAX, false));
    let mut heavy = table(10);
    for n in 1..=1000 {
        let inputs = Some("x".repeat(100_000));
        heavy.hear(ToldSpan { inputs, ..span(n, &format!("r{n}"), 1, 50) });
        assert!(heavy.spans.bytes <= BYTES_MAX);
    }
    assert!(heavy.fates()[4] > 500.0);
    let mut flows = table(3);
    for n in 0..100_i64 {
        flows.flow("a", Some(1), n * 1000, n * 1000 + 1);
    }
    assert_eq!((flows.spans.exchanges.len(), flows.spans.order.len()), (3, 3));
    assert!(flows.spans.by_key.values().all(|ids| ids.len() <= EXCHANGES_PER_KEY_MAX));
}

#[test]
fn what_waits_for_an_hour_is_let_go_of() {
    let mut table = table(10);
    table.hear(span(1, "a", 1, 50));
    let flow = table.flow("b", None, 0, 100);
    table.hear(span(2, "b", 2, 50));
    table.spans.expire(table.now + KEPT - Duration::from_secs(1));
    assert_eq!((table.spans.waiting(), table.spans.exchanges.len()), (1, 1));
    table.spans.expire(table.now + KEPT + Duration::from_secs(1));
    assert_eq!((table.spans.waiting(), table.spans.exchanges.len()), (0, 0));
    assert_eq!((table.spans.bytes, table.spans.held, table.spans.by_key.len()), (0, 0, 0));
    assert_eq!(table.take(flow), (vec![], false));
    assert_eq!(table.fates(), [0.0, 0.0, 0.0, 1.0, 1.0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes in whatever order, every span meets one fate, and nothing is left behind.
    #[test]
    fn every_span_meets_one_fate(steps in proptest::collection::vec((0..6_u8, 0..4_u8, 0..3_u8, 0..200_i64), 1..120)) {
        let mut table = table(4);
        let (mut told, mut open) = (0.0, Vec::new());
        for (n, (what, name, of_trace, ms)) in (1..).zip(steps) {
            let name = ["", "a", "b", "c"][usize::from(name)];
            match what {
                0 => open.push(table.flow(name, Some(of_trace + 1), ms, ms + 40)),
                1 => {
                    if let Some(flow) = open.pop() {
                        table.take(flow);
                        table.spans.settle(flow, (ms % 2 == 0).then(|| home(flow)));
                    }
                }
                _ => {
                    told += 1.0;
                    table.hear(span(n, name, of_trace + 1, ms));
                }
            }
        }
        open.into_iter().for_each(|flow| drop(table.spans.settle(flow, None)));
        table.spans.close();
        prop_assert_eq!(table.fates().iter().sum::<f64>(), told);
        prop_assert_eq!((table.spans.bytes, table.spans.held, table.spans.waiting()), (0, 0, 0));
        prop_assert_eq!(table.spans.waiting_by.len(), 0);
    }
}
