//! What the table must keep apart, let go of, and never claim to know.

use proptest::prelude::*;

use super::*;
use crate::config::MetricsLimits;
use crate::domain::{Operation, Outcome, UsageSource};

struct Table {
    join: Join,
    metrics: Metrics,
    now: Instant,
}

fn table(requests_max: usize) -> Table {
    let metrics = Metrics::new(&MetricsLimits { models_max: 5, deployments_max: 5 });
    let (wait, spans_wait) = (Duration::from_millis(250), Duration::from_secs(7));
    let settings = config::Join { wait, spans_wait, requests_max };
    Table { join: Join::new(&settings, metrics.clone()), metrics, now: Instant::now() }
}

fn sum(calls: &[Call], complete: bool) -> crate::domain::Usage {
    account(Taken { calls: calls.to_vec(), complete }, Traced::default()).usage
}

impl Table {
    fn call(&mut self, name: &str, at_ms: i64, tokens: u64) -> Ticket {
        let ticket = ticket(name, at_ms);
        if self.join.expect(&ticket, self.now) {
            self.join.arrive(&ticket, call(Some(tokens)));
        }
        ticket
    }

    fn flow(&mut self, name: &str, from_ms: i64, to_ms: i64) -> Claim {
        let claim = claim(name, from_ms, to_ms);
        self.join.announce(&claim, self.now);
        claim
    }

    fn fates(&self) -> [f64; 4] {
        let sums = self.metrics.sums("flowtap_join_total", "result");
        ["joined", "late", "orphan", "evicted"].map(|fate| sums[fate])
    }
}

fn time(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).expect("a time")
}

fn ticket(name: &str, at_ms: i64) -> Ticket {
    let key = Key::request(name).expect("a name");
    Ticket { key, id: ExchangeId::new(time(at_ms)), tap: "models".into(), began: time(at_ms) }
}

fn claim(name: &str, from_ms: i64, to_ms: i64) -> Claim {
    let (began, ended) = (time(from_ms), time(to_ms));
    let keys = vec![Key::request(name).expect("a name")];
    Claim { keys, id: ExchangeId::new(began), tap: "chat".into(), began, ended, outside: vec![] }
}

fn call(tokens: Option<u64>) -> Call {
    Call {
        model: Some("gpt-4".to_owned()),
        deployment: None,
        input: tokens,
        output: tokens,
        source: tokens.map(|_| UsageSource::Reported),
        latency_ms: 1.0,
        status: Some(200),
        cached_input: None,
        reasoning_output: None,
        operation: Operation::Chat,
        outcome: Outcome::Ok,
        step: None,
    }
}

fn inputs(taken: &Taken) -> Vec<u64> {
    taken.calls.iter().filter_map(|call| call.input).collect()
}

#[test]
fn a_flow_takes_its_own_calls_in_order_and_only_once() {
    let mut table = table(10);
    table.call("b", 21, 7);
    table.call("a", 15, 2);
    table.call("a", 11, 1);
    let (a, b) = (table.flow("a", 10, 20), table.flow("b", 20, 30));
    assert!(table.join.holds(&a) && !table.join.awaits(&a));
    let taken = table.join.take(&a);
    assert_eq!((inputs(&taken), taken.complete), (vec![1, 2], true));
    assert_eq!(inputs(&table.join.take(&b)), [7]);
    assert!(table.join.take(&a).calls.is_empty());
    assert_eq!((table.join.requests(), table.join.bytes), (0, 0));
    assert_eq!(table.fates(), [3.0, 0.0, 0.0, 0.0]);
}

#[test]
fn a_name_used_again_tells_its_requests_apart_by_time() {
    let mut table = table(10);
    table.call("same", 11, 1);
    table.call("same", 31, 3);
    let first = table.flow("same", 10, 20);
    let second = table.flow("same", 30, 40);
    assert_eq!(inputs(&table.join.take(&second)), [3]);
    assert_eq!(inputs(&table.join.take(&first)), [1]);
}

#[test]
fn flows_of_one_name_that_overlap_get_nothing_rather_than_each_others() {
    let mut table = table(10);
    table.call("same", 11, 1);
    table.call("same", 16, 2);
    let (first, second) = (table.flow("same", 10, 20), table.flow("same", 15, 25));
    assert!(table.join.take(&first).calls.is_empty());
    assert!(table.join.take(&second).calls.is_empty());
    table.join.close();
    assert_eq!(table.fates(), [0.0, 0.0, 2.0, 0.0]);
}

#[test]
fn a_call_of_the_flows_own_tap_is_no_call_of_the_flows() {
    let mut table = table(10);
    let ticket = Ticket { tap: "chat".into(), ..ticket("a", 15) };
    assert!(table.join.expect(&ticket, table.now));
    let claim = table.flow("a", 10, 20);
    assert!(!table.join.holds(&claim));
    assert!(table.join.take(&claim).calls.is_empty());
}

#[test]
fn what_is_being_counted_is_awaited_and_late_if_it_does_not_come() {
    let mut table = table(10);
    let counting = ticket("a", 12);
    assert!(table.join.expect(&counting, table.now));
    table.call("a", 11, 1);
    let claim = table.flow("a", 10, 20);
    assert!(table.join.awaits(&claim));
    let taken = table.join.take(&claim);
    assert_eq!((inputs(&taken), taken.complete), (vec![1], false));
    table.join.arrive(&counting, call(Some(2)));
    table.call("a", 13, 3);
    assert_eq!(table.fates(), [1.0, 2.0, 0.0, 0.0], "ended after their flow was settled");
    assert_eq!((table.join.requests(), table.join.bytes), (0, 0));
}

#[test]
fn what_was_lost_makes_the_flows_of_that_time_incomplete() {
    let mut table = table(10);
    table.call("a", 11, 1);
    table.call("b", 31, 2);
    let gone = ticket("a", 12);
    assert!(table.join.expect(&gone, table.now));
    table.join.abandon(&gone);
    let (a, b) = (table.flow("a", 10, 20), table.flow("b", 30, 40));
    assert!(!table.join.take(&a).complete);
    assert!(table.join.take(&b).complete, "it began after the loss");
    assert_eq!(table.fates(), [2.0, 0.0, 0.0, 1.0]);
    table.join.lost(time(55));
    let (c, d) = (table.flow("c", 50, 60), table.flow("d", 50, 54));
    assert!(!table.join.take(&c).complete);
    assert!(table.join.take(&d).complete, "it ended before the loss");
    (60..400).for_each(|at| table.join.lost(time(at)));
    let e = table.flow("e", 70, 71);
    assert!(!table.join.take(&e).complete, "losses of long ago are remembered as one");
}

#[test]
fn an_unnamed_call_is_the_only_flows_or_makes_those_of_its_time_incomplete() {
    let mut table = table(10);
    let unnamed = Ticket { key: Key::Unnamed, ..ticket("x", 12) };
    assert!(table.join.expect(&unnamed, table.now));
    table.join.arrive(&unnamed, call(Some(1)));
    table.call("a", 11, 2);
    let streamed = |name: &str, from_ms, to_ms| {
        let mut claim = claim(name, from_ms, to_ms);
        claim.keys.push(Key::Unnamed);
        claim
    };
    let (a, b) = (streamed("a", 10, 20), streamed("b", 15, 30));
    table.join.announce(&a, table.now);
    table.join.announce(&b, table.now);
    let taken = table.join.take(&a);
    assert_eq!((inputs(&taken), taken.complete), (vec![2, 1], true));
    table.join.unclear(time(18));
    assert!(!table.join.take(&b).complete);
    let plain = table.flow("c", 15, 30);
    assert!(table.join.take(&plain).complete, "one that did not stream makes none without a name");
}

#[test]
fn a_flood_of_orphans_is_bounded_in_number_and_in_bytes() {
    let mut table = table(100);
    for n in 0..10_000 {
        table.call(&format!("orphan-{n}"), n, 1);
    }
    assert_eq!(table.join.requests(), 100);
    assert_eq!(table.fates(), [0.0, 0.0, 0.0, 9900.0]);
    let mut one_name = self::table(100);
    for n in 0..5000 {
        one_name.call("a", n, 1);
    }
    assert_eq!(one_name.fates(), [0.0, 0.0, 0.0, 4000.0]);
    let early = one_name.flow("a", 0, 4999);
    let taken = one_name.join.take(&early);
    assert_eq!((taken.calls.len(), taken.complete), (CALLS_PER_KEY_MAX, false));
    let mut long_names = self::table(1_000_000);
    for n in 0..1000 {
        let ticket = ticket(&format!("orphan-{n}"), n);
        assert!(long_names.join.expect(&ticket, long_names.now));
        let call = Call { model: Some("x".repeat(100_000)), ..call(None) };
        long_names.join.arrive(&ticket, call);
        assert!(long_names.join.bytes <= BYTES_MAX);
    }
    assert!(long_names.fates()[3] > 800.0);
}

#[test]
fn what_waits_for_an_hour_has_no_flow() {
    let mut table = table(10);
    let early = ticket("a", 1);
    assert!(table.join.expect(&early, table.now));
    table.flow("f", 1, 2);
    table.join.expire(table.now + KEPT - Duration::from_secs(1));
    assert_eq!((table.join.requests(), table.join.flows.len()), (1, 1));
    table.join.expire(table.now + KEPT + Duration::from_secs(1));
    assert_eq!((table.join.requests(), table.join.flows.len(), table.join.bytes), (0, 0, 0));
    assert_eq!(table.fates(), [0.0, 0.0, 1.0, 0.0]);
}

#[test]
fn the_sum_says_how_well_it_is_known() {
    let known = sum(&[call(Some(3)), call(Some(4))], true);
    assert_eq!((known.input, known.total), (Some(7), Some(14)));
    assert_eq!(known.source, Some(UsageSource::Joined));
    assert_eq!(sum(&[call(Some(3))], false).source, Some(UsageSource::Estimated));
    let partly = sum(&[call(Some(3)), call(None)], true);
    assert_eq!((partly.input, partly.source), (Some(3), Some(UsageSource::Estimated)));
    assert!(sum(&[call(None)], true).is_unknown());
    assert!(sum(&[], true).is_unknown());
}

#[test]
fn refused_calls_spend_nothing_and_embeddings_generate_nothing() {
    let outcome = Outcome::ClientError;
    let refused = Call { status: Some(429), outcome, ..call(None) };
    let joined = sum(&[refused.clone(), call(Some(5))], true);
    assert_eq!((joined.input, joined.source), (Some(5), Some(UsageSource::Joined)));
    assert!(sum(&[refused], true).is_unknown(), "nobody says that it was nothing");
    let broken = Call { outcome: Outcome::UpstreamError, ..call(None) };
    assert_eq!(sum(&[broken, call(Some(5))], true).source, Some(UsageSource::Estimated));
    let cut = Call { outcome: Outcome::Timeout, ..call(None) };
    assert_eq!(sum(&[cut, call(Some(5))], true).source, Some(UsageSource::Estimated));
    let operation = Operation::Embeddings;
    let vectors = Call { operation, output: None, ..call(Some(9)) };
    let joined = sum(&[vectors, call(Some(1))], true);
    assert_eq!((joined.input, joined.output), (Some(10), Some(1)));
    assert_eq!(joined.source, Some(UsageSource::Joined));
}

#[test]
fn a_part_is_summed_where_every_call_tells_it() {
    let cached = Call { cached_input: Some(2), ..call(Some(3)) };
    assert_eq!(sum(&[cached.clone(), cached.clone()], true).cached_input, Some(4));
    assert_eq!(sum(&[cached, call(Some(3))], true).cached_input, None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Flows of random length with calls at random moments, all their ends in order of time.
    #[test]
    fn every_call_comes_to_its_own_flow_however_they_interleave(
        flows in proptest::collection::vec((0i64..200, 1i64..50, proptest::collection::vec((0f64..1.0, 0i64..20), 0..5)), 1..40)
    ) {
        enum End { Call(usize, u64, i64), Flow(usize) }
        let mut ends = Vec::new();
        let mut expected = vec![0u64; flows.len()];
        for (index, (start, length, calls)) in flows.iter().enumerate() {
            for (number, (share, _)) in calls.iter().enumerate() {
                let began = start + (share * *length as f64) as i64;
                let tokens = (index * 10 + number) as u64;
                expected[index] += tokens;
                // A call ends between its beginning and its flow's end.
                ends.push(((began + start + length) / 2, 0, End::Call(index, tokens, began)));
            }
            ends.push((start + length, 1, End::Flow(index)));
        }
        ends.sort_by_key(|(at, order, _)| (*at, *order));
        let mut table = table(1000);
        for (_, _, end) in ends {
            match end {
                End::Call(index, tokens, began) => _ = table.call(&format!("r{index}"), began, tokens),
                End::Flow(index) => {
                    let (start, length, calls) = &flows[index];
                    let claim = table.flow(&format!("r{index}"), *start, start + length);
                    let taken = table.join.take(&claim);
                    prop_assert_eq!(taken.calls.len(), calls.len());
                    prop_assert_eq!(inputs(&taken).iter().sum::<u64>(), expected[index]);
                    prop_assert!(taken.complete);
                }
            }
        }
        prop_assert_eq!((table.join.requests(), table.join.bytes), (0, 0));
    }
}
