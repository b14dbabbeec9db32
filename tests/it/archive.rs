//! What the archive brings, held against the documentation.

#![allow(clippy::expect_used)]

use std::sync::Arc;

use flowtap::config;
use flowtap::domain::{
    Call, Dialect, ExchangeId, Message, ModelNames, Operation, Outcome, Record, Sample,
    SampleReason, Sampling, Summary, Usage,
};
use flowtap::ledger::{Hour, Incarnation, Ledger};
use flowtap::metrics::Metrics;
use flowtap::rollup::Rollup;
use jiff::Timestamp;
use serde_json::Value;

fn metrics() -> Metrics {
    Metrics::new(&config::MetricsLimits { models_max: 10, deployments_max: 10 })
}

fn sample() -> Sample<'static> {
    let time = Timestamp::UNIX_EPOCH;
    let summary = Summary {
        id: ExchangeId::new(time),
        time,
        tap: Arc::from("chat"),
        deployment: Arc::from("blue"),
        instance: Arc::from("pod-1"),
        dialect: Dialect::Promptflow,
        operation: Operation::Score,
        method: "POST".to_owned(),
        path: "/score".to_owned(),
        status: Some(200),
        outcome: Outcome::Ok,
        fault: None,
        model: ModelNames::default(),
        stream: false,
        latency_ms: 0.0,
        first_byte_ms: None,
        first_token_ms: None,
        overhead_us: 1,
        usage: Usage::default(),
        provider: None,
        finish_reason: None,
        response_id: None,
    };
    let record = Record {
        summary,
        calls: Vec::new(),
        question: None,
        answer: None,
        context: None,
        ground_truth: None,
        chat_history: None,
        request: Message::default(),
        response: Message::default(),
        trace_id: None,
        span_id: None,
        request_id: None,
        redactions: Default::default(),
    };
    let sample = Sampling { reason: SampleReason::Rate, probability: 0.1, least: 0.1 };
    Sample { schema: Sample::SCHEMA, record, sample }
}

/// The names of all fields, those of objects within with a dot.
fn fields(prefix: &str, value: &Value) -> Vec<String> {
    let Value::Object(map) = value else { return vec![prefix.to_owned()] };
    if map.is_empty() {
        return vec![prefix.to_owned()];
    }
    let dot = if prefix.is_empty() { "" } else { "." };
    map.iter().flat_map(|(key, value)| fields(&format!("{prefix}{dot}{key}"), value)).collect()
}

#[test]
fn every_field_that_is_stored_stands_in_the_documentation() {
    let text = include_str!("../../docs/RECORD.md");
    let part = |from: &str, to: &str| {
        let rest = text.split_once(from).expect("the part begins").1;
        rest.split_once(to).expect("the part ends").0.to_owned()
    };
    let sample = sample();
    let now = Timestamp::UNIX_EPOCH;
    let ledger = Ledger::new(Arc::from("pod-1"), Incarnation::new(now, None), metrics());
    ledger.seen(Hour::of(now), 1);
    let mut rollup = Rollup::new(Arc::from("pod-1"));
    rollup.record(&sample.record.summary, "gpt-4");
    let usage: Value = serde_json::from_slice(&rollup.take_all()[0].json).expect("json");
    let call = Call {
        model: None,
        deployment: None,
        input: None,
        output: None,
        source: None,
        latency_ms: 0.0,
        status: None,
        cached_input: None,
        reasoning_output: None,
        operation: Operation::Chat,
        outcome: Outcome::Ok,
        step: None,
    };
    let value = |it: Result<Value, serde_json::Error>| it.expect("json");
    let parts = [
        (value(serde_json::to_value(&sample)), part("## `exchanges/`", "## `usage/`")),
        (value(serde_json::to_value(call)), part("## `exchanges/`", "## `usage/`")),
        (usage, part("## `usage/`", "## `ledger/`")),
        (value(serde_json::to_value(&ledger.rows(now)[0])), part("## `ledger/`", "## Reading it")),
    ];
    for (stored, told) in parts {
        for field in fields("", &stored) {
            // Histograms are told once for all four.
            let name = ["latency_ms", "first_token_ms", "input_tokens", "output_tokens"]
                .iter()
                .find_map(|histogram| field.strip_prefix(&format!("{histogram}.")))
                .unwrap_or(&field);
            assert!(told.contains(&format!("`{name}`")), "{field} is not in docs/RECORD.md");
        }
    }
}
