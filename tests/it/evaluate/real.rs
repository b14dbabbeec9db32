//! A real, very small model as the judge: real transport, real garbage, and never an invented score.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::{answering, ask, await_scores};
use crate::peers::{MODEL, UP_WITHIN, llama, peers_wanted, pf_serve};
use crate::support::process::{Process, free_port};
use crate::support::tap::{Setup, Stopped};

#[test]
fn a_model_that_is_no_judge_gives_reasons_or_scores_and_nothing_else() {
    if !peers_wanted() {
        return;
    }
    let port = free_port();
    let mut model = Process::start("llama.cpp", &mut llama(port));
    model.await_http(port, "/v1/models", Duration::from_secs(120));
    let upstream = answering();
    let flowtap = Setup::before(upstream.port)
        .top("sample: {rate: 1}")
        .top(&format!(
            "judge: {{url: \"http://127.0.0.1:{port}\", model: {MODEL}, concurrency: 1, max_tokens: 20, timeout: 2m, retry_for: 5m}}"
        ))
        .top("evaluate: {criteria: [fluency], measures: [], poll: 100ms}")
        .start();
    ask(&flowtap, ["Is the tent dry?".to_owned()]);
    let found = await_scores(&flowtap, 1, Duration::from_secs(300));
    for row in &found {
        let score = row["score"].as_u64();
        let error = row["error"].as_str();
        assert!(score.is_some() != error.is_some(), "one of the two: {row}");
        assert!(score.is_none_or(|score| (1..=5).contains(&score)), "{row}");
        let readable = [None, Some("unparsable"), Some("out_of_range")];
        assert!(
            readable.contains(&error),
            "it answers, whatever it says: {row}\n{}",
            model.printed()
        );
        assert!(row["judge"]["input"].as_u64().is_some_and(|tokens| tokens > 100), "{row}");
    }
    assert!(flowtap.metric("flowtap_judge_attempts_total", &["result=\"ok\""]) >= 1.0);
    flowtap.stop();
}

/// The flow's model, before it and behind a tap, is its judge as well, through the same tap.
#[test]
fn one_small_model_answers_for_a_real_flow_and_judges_what_it_said() {
    if !peers_wanted() {
        return;
    }
    let (model_port, flow_port, models_port) = (free_port(), free_port(), free_port());
    let mut model = Process::start("llama.cpp", &mut llama(model_port));
    model.await_http(model_port, "/v1/models", UP_WITHIN);
    let models = format!("http://127.0.0.1:{models_port}/v1");
    let mut command = pf_serve("qa_llm_dag", flow_port, "flask");
    command.env("LLM_BASE_URL", &models).env("LLM_MODEL", MODEL);
    let mut flow = Process::start("qa_llm_dag", &mut command);
    flow.await_http(flow_port, "/health", UP_WITHIN);
    let flowtap = Setup::before(flow_port)
        .and_tap_at("models", model_port, models_port)
        .top("sample: {rate: 1}")
        .top(&format!(
            "judge: {{url: \"{models}\", model: {MODEL}, concurrency: 1, max_tokens: 20, timeout: 2m, retry_for: 5m}}"
        ))
        .top("evaluate: {criteria: [fluency], measures: [], poll: 100ms}")
        .start();
    ask(&flowtap, ["Is the tent dry?".to_owned()]);
    // The flow's exchange, and the call of its model within it.
    let found = await_scores(&flowtap, 2, Duration::from_secs(600));
    for row in &found {
        let (score, error) = (row["score"].as_u64(), row["error"].as_str());
        assert!(score.is_some() != error.is_some(), "one of the two: {row}");
        assert!(score.is_none_or(|score| (1..=5).contains(&score)), "{row}");
        assert_eq!(row["judge"]["model"], MODEL, "{row}");
    }
    let stopped = flowtap.stop();
    let samples = stopped.rows("exchanges");
    let of = |tap: &str| samples.iter().filter(|row| row["tap"] == tap).count();
    assert_eq!((of("chat"), of("models")), (1, 1), "what the judge was asked is not kept");
    let judged: Vec<_> = found.iter().map(|row| &row["exchange"]).collect();
    assert!(samples.iter().all(|sample| judged.contains(&&sample["id"])), "{samples:?}");
    let flow = samples.iter().find(|row| row["tap"] == "chat").expect("the flow's");
    assert_eq!(flow["calls"].as_array().map(Vec::len), Some(1), "the flow's call alone: {flow}");

    let run = monitored(&stopped);
    let valid = found.iter().filter(|row| row["score"].is_u64()).count();
    let signals = run["signals"].as_array().expect("signals");
    let quality = signals.iter().find(|signal| signal["kind"] == "generation_quality");
    let average = &quality.expect("asked for")["measures"][0];
    assert_eq!((&average["metric"], &average["count"]), (&json!("fluency_average"), &json!(valid)));
    assert_eq!(average["state"], "not_enough_data", "{run}");
    assert_eq!(run["unscored"], found.len() - valid, "{run}");
    let tokens = signals.iter().find(|signal| signal["kind"] == "token_statistics");
    let total = |row: &Value| row["usage"]["total"].as_f64().expect("the model told it");
    assert!(
        tokens.expect("asked for")["measures"].as_array().expect("some").iter().any(|of| {
            of["metric"] == "total_tokens" && of["value"].as_f64() >= Some(total(flow))
        }),
        "{run}"
    );
}

/// What a monitor finds in the bucket of `stopped` now.
fn monitored(stopped: &Stopped) -> Value {
    let bucket = stopped.folder().join("bucket");
    let config = stopped.folder().join("monitor.yaml");
    let text = format!(
        "bucket: {{url: 'file://{}'}}\nmonitors: [{{name: real, schedule: '0 0 * * *', window: PT1H, signals: \
         {{generation_quality: {{average: {{fluency: 4}}}}, token_statistics: {{}}}}}}]\n",
        bucket.display()
    );
    fs::write(&config, text).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command.args(["monitor", "run", "real", "--json", "--config"]).arg(config);
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("json")
}
