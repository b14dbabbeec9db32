//! What the numbers must say, and docs/METRICS.md held equal to the registry.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::time::Instant;

use jiff::Timestamp;

use super::*;
use crate::domain::{
    Call, Dialect, DropReason, DropStage, ExchangeId, ModelNames, Operation, SampleReason, Usage,
    UsageSource,
};

fn metrics() -> Metrics {
    Metrics::new(&MetricsLimits { models_max: 50, deployments_max: 50 })
}

/// A streamed chat of one second, 10 tokens in and 5 out, its first content after 200 ms.
fn chat() -> Summary {
    Summary {
        id: ExchangeId::new(Timestamp::UNIX_EPOCH),
        time: Timestamp::UNIX_EPOCH,
        tap: "models".into(),
        deployment: "blue".into(),
        instance: "pod".into(),
        dialect: Dialect::Openai,
        operation: Operation::Chat,
        method: "POST".to_owned(),
        path: "/v1/chat/completions".to_owned(),
        status: Some(200),
        outcome: Outcome::Ok,
        fault: None,
        model: ModelNames {
            request: Some("gpt-4".to_owned()),
            response: Some("gpt-4-0613".to_owned()),
        },
        stream: true,
        latency_ms: 1000.0,
        first_byte_ms: Some(50.0),
        first_token_ms: Some(200.0),
        overhead_us: 38,
        usage: Usage::of(Some(10), Some(5), UsageSource::Reported),
        provider: Some("openai"),
        finish_reason: None,
        response_id: None,
    }
}

/// The value of the series that is written exactly so.
fn value(page: &str, series: &str) -> Option<f64> {
    let rest = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    rest.and_then(|text| text.parse().ok())
}

const GEN_AI: &str = r#"deployment="blue",error_type="",gen_ai_operation_name="chat",gen_ai_provider_name="openai",gen_ai_request_model="gpt-4",gen_ai_response_model="gpt-4-0613""#;

/// A call to `model`, of `tokens` either way.
fn call(model: &str, tokens: u64) -> Call {
    Call {
        model: Some(model.to_owned()),
        deployment: None,
        input: Some(tokens),
        output: Some(tokens),
        source: Some(UsageSource::Reported),
        latency_ms: 1.0,
        status: Some(200),
        cached_input: Some(1),
        reasoning_output: None,
        operation: Operation::Chat,
        outcome: Outcome::Ok,
        step: None,
    }
}

#[test]
fn a_flows_tokens_are_told_by_the_models_of_its_calls_and_once() {
    let metrics = metrics();
    let flow = Summary {
        operation: Operation::Score,
        model: ModelNames::default(),
        usage: Usage::of(Some(12), Some(12), UsageSource::Joined),
        ..chat()
    };
    metrics.exchange_of_calls(&flow, None, &[call("a", 3), call("b", 4), call("a", 5)]);
    let tokens = metrics.sums("flowtap_tokens_total", "model");
    assert_eq!(tokens, BTreeMap::from([("a".to_owned(), 16.0), ("b".to_owned(), 8.0)]));
    let sources = metrics.sums("flowtap_tokens_total", "source");
    assert_eq!(sources, BTreeMap::from([("joined".to_owned(), 24.0)]));
    let cached = metrics.sums("flowtap_cached_input_tokens_total", "model");
    assert_eq!(cached["a"], 2.0);
    let page = metrics.encode();
    let observed = page
        .lines()
        .filter(|line| line.starts_with("gen_ai_client_token_usage_count") && line.ends_with(" 1"));
    assert_eq!(observed.count(), 2, "one observation a side");
}

#[test]
fn an_exchange_shows_in_every_family_it_belongs_to() {
    let metrics = metrics();
    let mut summary = chat();
    summary.usage.cached_input = Some(4);
    summary.usage.reasoning_output = Some(3);
    metrics.exchange(&summary, None);
    let page = metrics.encode();
    let place = r#"deployment="blue",model="gpt-4-0613""#;
    for (series, expected) in [
        (
            format!(
                r#"flowtap_requests_total{{{place},operation="chat",outcome="ok",status="2xx",tap="models"}}"#
            ),
            1.0,
        ),
        (
            format!(
                r#"flowtap_tokens_total{{{place},source="reported",tap="models",type="input"}}"#
            ),
            10.0,
        ),
        (
            format!(
                r#"flowtap_tokens_total{{{place},source="reported",tap="models",type="output"}}"#
            ),
            5.0,
        ),
        (format!(r#"flowtap_cached_input_tokens_total{{{place},tap="models"}}"#), 4.0),
        (format!(r#"flowtap_reasoning_output_tokens_total{{{place},tap="models"}}"#), 3.0),
        (format!(r#"gen_ai_server_request_duration_seconds_sum{{{GEN_AI},tap="models"}}"#), 1.0),
        (format!(r#"gen_ai_server_time_to_first_token_seconds_sum{{{GEN_AI},tap="models"}}"#), 0.2),
        (
            format!(r#"gen_ai_server_time_per_output_token_seconds_sum{{{GEN_AI},tap="models"}}"#),
            0.2,
        ),
        (
            format!(
                r#"gen_ai_client_token_usage_sum{{{GEN_AI},gen_ai_token_type="input",tap="models"}}"#
            ),
            10.0,
        ),
        (
            format!(
                r#"gen_ai_client_token_usage_sum{{{GEN_AI},gen_ai_token_type="output",tap="models"}}"#
            ),
            5.0,
        ),
        (r#"flowtap_request_duration_seconds_count{outcome="ok",tap="models"}"#.to_owned(), 1.0),
        (r#"flowtap_overhead_seconds_sum{tap="models"}"#.to_owned(), 0.000038),
    ] {
        let found = value(&page, &series).unwrap_or_else(|| panic!("{series} is missing\n{page}"));
        assert!((found - expected).abs() < 1e-9, "{series}: {found}");
    }
    assert!(!page.contains("flowtap_usage_unknown_total{"));
}

#[test]
fn unknown_tokens_are_counted_as_unknown_and_never_as_zero() {
    let metrics = metrics();
    let mut summary = chat();
    summary.usage = Usage::default();
    metrics.exchange(&summary, None);
    summary.status = Some(500);
    summary.outcome = Outcome::UpstreamError;
    metrics.exchange(&summary, Some("500"));
    let page = metrics.encode();
    let unknown =
        r#"flowtap_usage_unknown_total{deployment="blue",model="gpt-4-0613",tap="models"}"#;
    assert_eq!(value(&page, unknown), Some(1.0), "an error answer owes no tokens");
    assert!(!page.contains("flowtap_tokens_total{"));
    assert!(!page.contains("gen_ai_client_token_usage_count"));
    assert!(page.contains(r#"error_type="500""#));
}

#[test]
fn what_is_no_inference_stays_out_of_the_conventions_families() {
    let metrics = metrics();
    for operation in [Operation::Other, Operation::Feedback] {
        metrics.exchange(&Summary { operation, ..chat() }, None);
    }
    metrics.intake_only("models", Some(200), Outcome::Ok, 0.5);
    let page = metrics.encode();
    assert!(!page.contains("gen_ai_server_request_duration_seconds_count"));
    let unread = r#"flowtap_requests_total{deployment="",model="",operation="unknown",outcome="ok",status="2xx",tap="models"}"#;
    assert_eq!(value(&page, unread), Some(1.0));
    let all = r#"flowtap_request_duration_seconds_count{outcome="ok",tap="models"}"#;
    assert_eq!(value(&page, all), Some(3.0));
}

#[test]
fn false_figures_neither_wrap_nor_poison_a_series() {
    let metrics = metrics();
    let mut summary = chat();
    summary.usage = Usage::of(Some(u64::MAX), Some(u64::MAX), UsageSource::Reported);
    for latency_ms in [f64::NAN, f64::INFINITY, -1.0, 1e308] {
        metrics.exchange(
            &Summary { latency_ms, first_token_ms: Some(latency_ms), ..summary.clone() },
            None,
        );
    }
    let page = metrics.encode();
    let input = r#"flowtap_tokens_total{deployment="blue",model="gpt-4-0613",source="reported",tap="models",type="input"}"#;
    assert_eq!(value(&page, input), Some(4.0 * f64::from(u32::MAX)));
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let number: f64 = line.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number");
        assert!(number.is_finite() && number >= 0.0, "{line}");
    }
}

#[test]
fn a_hostile_client_cannot_grow_the_page() {
    let metrics = metrics();
    metrics.exchange(&chat(), None);
    let mut summary = chat();
    let hostile = |i: usize| match i % 4 {
        0 => format!("m{}", "x".repeat(i * 10)),
        1 => format!("\"\n}} {i}"),
        2 => format!("\u{1b}[{i}m😀"),
        _ => format!("model-{i}"),
    };
    for i in 0..10_000 {
        summary.model.request = Some(hostile(i));
        summary.model.response = None;
        summary.deployment = metrics.deployment_label(&hostile(i));
        summary.status = Some(if i % 3 == 0 { 404 } else { 200 });
        let error = format!("{}", 400 + i % 300);
        metrics.exchange(&summary, (i % 3 == 0).then_some(error.as_str()));
    }
    metrics.exchange(&chat(), None);
    let page = metrics.encode();
    let models: BTreeSet<_> = page.split("model=\"").skip(1).map(|rest| &rest[..5]).collect();
    assert!(models.len() <= 52, "{models:?}");
    assert!(page.len() < 8_000_000, "{} bytes", page.len());
    assert!(page.bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b)), "printable ASCII only");
    let real = format!(r#"gen_ai_server_request_duration_seconds_count{{{GEN_AI},tap="models"}}"#);
    assert_eq!(value(&page, &real), Some(2.0), "the real model keeps its label");
    let total: f64 = page
        .lines()
        .filter(|line| line.starts_with("flowtap_requests_total{"))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    assert_eq!(total, 10_002.0, "nothing is uncounted");
}

#[test]
fn sets_of_labels_are_bounded_as_a_whole() {
    let metrics = metrics();
    let mut summary = chat();
    for i in 0..3_000 {
        summary.deployment = format!("trusted-{i}").into();
        metrics.exchange(&summary, None);
    }
    let page = metrics.encode();
    let sets = page.lines().filter(|line| line.starts_with("flowtap_requests_total{")).count();
    assert_eq!(sets, 1001);
    let folded = r#"flowtap_requests_total{deployment="other",model="other",operation="chat",outcome="ok",status="2xx",tap="models"}"#;
    assert_eq!(value(&page, folded), Some(2000.0));
    assert_eq!(value(&page, r#"flowtap_label_overflow_total{label="set"}"#), Some(2000.0));
}

#[test]
fn a_refused_name_is_not_learnt() {
    let metrics = metrics();
    let refused = Summary { status: Some(404), ..chat() };
    assert_eq!(&*metrics.model_label(&refused), "other");
    assert_eq!(&*metrics.model_label(&chat()), "gpt-4-0613");
    assert_eq!(&*metrics.model_label(&refused), "gpt-4-0613", "known by now");
    assert_eq!(&*metrics.model_label(&Summary { model: ModelNames::default(), ..chat() }), "");
    assert_eq!(&*metrics.known_deployment_label("green"), "other");
    assert_eq!(&*metrics.deployment_label("green"), "green");
    assert_eq!(&*metrics.known_deployment_label("green"), "green");
}

#[test]
fn closed_sets_are_there_from_the_start() {
    let metrics = metrics();
    metrics.tap_opened("chat");
    let page = metrics.encode();
    for (stage, reason) in
        [(DropStage::Intake, DropReason::Full), (DropStage::Spool, DropReason::Quota)]
    {
        let (stage, reason) = (stage.label(), reason.label());
        let series = format!(r#"flowtap_dropped_total{{reason="{reason}",stage="{stage}"}}"#);
        assert_eq!(value(&page, &series), Some(0.0));
    }
    for series in [
        r#"flowtap_samples_total{reason="rate",tap="chat"}"#,
        r#"flowtap_in_flight_requests{tap="chat"}"#,
        r#"flowtap_archive_objects_total{dataset="exchanges"}"#,
        r#"flowtap_redactions_total{kind="iban"}"#,
        "flowtap_spool_bytes",
        "flowtap_spans_dropped_total",
    ] {
        assert_eq!(value(&page, series), Some(0.0), "{series}");
    }
}

#[test]
fn happenings_are_counted_where_they_belong() {
    let metrics = metrics();
    let in_flight = metrics.in_flight("chat");
    in_flight.inc();
    in_flight.inc();
    in_flight.dec();
    metrics.connections("chat").inc();
    metrics.sampled("chat", SampleReason::Error);
    metrics.dropped(DropStage::Pipeline, DropReason::Panic, 3);
    metrics.panicked("tokens");
    metrics.redacted("email", 2);
    metrics.redacted("jo@example.com", 1);
    metrics.reading_fault("chat", Dialect::Openai, "not_json");
    metrics.rejected("chat", "two_lengths");
    metrics.upstream_connect("chat", "refused");
    metrics.queue_depth("intake", u64::MAX);
    metrics.breaker_open(true);
    metrics.unaccounted_seconds(1.5);
    metrics.build_info("0.1.0");
    let page = metrics.encode();
    for (series, expected) in [
        (r#"flowtap_in_flight_requests{tap="chat"}"#, 1.0),
        (r#"flowtap_client_connections{tap="chat"}"#, 1.0),
        (r#"flowtap_samples_total{reason="error",tap="chat"}"#, 1.0),
        (r#"flowtap_dropped_total{reason="panic",stage="pipeline"}"#, 3.0),
        (r#"flowtap_panics_total{hook="tokens"}"#, 1.0),
        (r#"flowtap_redactions_total{kind="email"}"#, 2.0),
        (r#"flowtap_redactions_total{kind="other"}"#, 1.0),
        (r#"flowtap_reading_faults_total{dialect="openai",fault="not_json",tap="chat"}"#, 1.0),
        (r#"flowtap_rejected_requests_total{reason="two_lengths",tap="chat"}"#, 1.0),
        (r#"flowtap_upstream_connects_total{result="refused",tap="chat"}"#, 1.0),
        ("flowtap_archive_breaker_open", 1.0),
        ("flowtap_unaccounted_seconds", 1.5),
        (r#"flowtap_build_info{version="0.1.0"}"#, 1.0),
    ] {
        assert_eq!(value(&page, series), Some(expected), "{series}");
    }
    assert!(value(&page, "process_resident_memory_bytes").is_some_and(|bytes| bytes > 1e6));
    assert!(value(&page, "process_open_fds").is_some_and(|fds| fds > 2.0));
    assert!(value(&page, "process_start_time_seconds").is_some_and(|start| start > 1.7e9));
    assert!(!page.contains("jo@example.com"));
}

#[test]
fn the_documents_table_is_that_of_the_registry() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md");
    let document = fs::read_to_string(path).expect("docs/METRICS.md");
    let (head, rest) = document.split_once("<!-- families -->\n").expect("the table's begin");
    let (table, tail) = rest.split_once("<!-- /families -->").expect("the table's end");
    let expected = table_of(&metrics().families());
    if std::env::var_os("FLOWTAP_BLESS").is_some() {
        let blessed = format!("{head}<!-- families -->\n{expected}<!-- /families -->{tail}");
        fs::write(path, blessed).expect("docs/METRICS.md is writable");
    } else {
        assert_eq!(table, expected, "run: FLOWTAP_BLESS=1 cargo test --lib metrics");
    }
}

fn table_of(families: &[Family]) -> String {
    let mut table = String::from(
        "\n| Name | Type | Labels | Unit | Meaning | What to do |\n|---|---|---|---|---|---|\n",
    );
    for family in families {
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let Family { name, unit, help, advice, .. } = family;
        let (kind, labels) = (family.kind.label(), labels.join(" "));
        writeln!(table, "| `{name}` | {kind} | {labels} | {unit} | {help} | {advice} |")
            .expect("a string takes all");
    }
    table.push('\n');
    table
}

/// Not a benchmark: it would catch a look-up that grew a hundredfold.
#[test]
fn counting_an_exchange_is_cheap() {
    let metrics = metrics();
    let summary = chat();
    metrics.exchange(&summary, None);
    let begin = Instant::now();
    (0..10_000).for_each(|_| metrics.exchange(&summary, None));
    let each_us = begin.elapsed().as_secs_f64() * 1e6 / 10_000.0;
    println!("{each_us:.2} µs an exchange");
    assert!(each_us < 200.0, "{each_us} µs");
}
