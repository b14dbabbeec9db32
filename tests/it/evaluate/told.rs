//! Where scores can be seen: at an OpenTelemetry collector, in the index, in the API.

use std::time::Duration;

use serde_json::json;

use super::{answering, ask, await_scores, setup};
use crate::support::api::await_answer;
use crate::support::judge::ScriptedJudge;
use crate::telemetry::{Rotel, rotel};

#[test]
fn a_real_collector_gets_the_event_beside_the_span_of_the_exchange() {
    let Some(binary) = rotel() else { return };
    let (collector, ports) = Rotel::start(&binary);
    let upstream = answering();
    let judge = ScriptedJudge::saying(|asked| asked.verdict(2));
    let trace = format!("trace: {{otlp_endpoint: \"http://{}\", protocol: grpc}}", ports[0]);
    let flowtap = setup(&upstream, &judge, "concurrency: 2")
        .top("evaluate: {criteria: [fluency], measures: [refusal], poll: 100ms}")
        .top(&trace)
        .start();
    ask(&flowtap, ["Is it dry?".to_owned()]);
    let scores = await_scores(&flowtap, 2, Duration::from_secs(20));
    let stopped = flowtap.stop();
    let sample = &stopped.rows("exchanges")[0];
    collector.saw("gen_ai.evaluation.result");
    let log = collector.log().expect("a log");
    let text = |field: &str| sample[field].as_str().expect("a text").to_owned();
    // One span of the exchange and one of the score below it, in one trace.
    assert!(log.matches(&text("trace_id")).count() >= 2, "{log}");
    assert!(log.matches(&text("span_id")).count() >= 2, "the parent: {log}");
    for told in ["gen_ai.evaluation.name", "gen_ai.evaluation.score.value", "evaluate fluency"] {
        assert!(log.contains(told), "{told}: {log}");
    }
    assert!(!log.contains("evaluate refusal"), "what is computed is no judgement");
    assert!(!log.contains("as scripted") && !log.contains("Is it dry"), "content is on no span");
    assert!(scores.iter().any(|row| row["score"] == 2));
}

#[test]
fn computed_and_custom_criteria_reach_the_api_each_on_its_own_scale() {
    let upstream = answering();
    let folder = tempfile::tempdir().expect("a folder");
    let rubric = folder.path().join("rubric.txt");
    std::fs::write(&rubric, "Is the answer polite?\n1: rude.\n5: polite.").expect("written");
    let judge = ScriptedJudge::saying(|asked| match asked.criterion() {
        "formal" => json!({"check": asked.check(), "reason": "r", "verdict": true}).to_string(),
        "politeness" => asked.verdict(2),
        _ => asked.verdict(5),
    });
    let file = rubric.display();
    let flowtap = setup(&upstream, &judge, "concurrency: 2")
        .top(&format!(
            "evaluate: {{criteria: [fluency], measures: [refusal, context_overlap], poll: 100ms, custom: \
             [{{name: politeness, prompt_file: \"{file}\"}}, {{name: formal, prompt_file: \"{file}\", \
             verdict: boolean}}]}}"
        ))
        .start();
    ask(&flowtap, (0..4).map(|n| format!("question {n}?")));
    let rows = await_scores(&flowtap, 20, Duration::from_secs(20));
    assert!(rows.iter().all(|row| row["scale"].is_string()), "{rows:?}");
    let told = await_answer(flowtap.admin, "/quality", |answer| {
        let rows = answer["criteria"].as_array();
        rows.is_some_and(|rows| rows.len() == 5 && rows.iter().all(|row| row["count"] == 4))
    });
    let of = |name: &str| {
        let mut rows = told["criteria"].as_array().expect("rows").iter();
        rows.find(|row| row["criterion"] == name).expect("a row").clone()
    };
    for (name, scale, average) in [
        ("fluency", "score", 5.0),
        ("politeness", "score", 2.0),
        ("formal", "boolean", 1.0),
        ("refusal", "boolean", 0.0),
    ] {
        assert_eq!((&of(name)["scale"], &of(name)["average"]), (&json!(scale), &json!(average)));
    }
    let overlap = of("context_overlap");
    assert_eq!((&overlap["scale"], &overlap["pass_rate"]), (&json!("ratio"), &json!(null)));
    assert!(overlap["average"].as_f64().is_some_and(|of| of > 0.0 && of < 1.0), "{overlap}");
    let alone = await_answer(flowtap.admin, "/quality?criterion=politeness", |_| true);
    assert_eq!(alone["criteria"].as_array().map(Vec::len), Some(1));
    let sample = rows[0]["exchange"].as_str().expect("an id");
    let scores = await_answer(flowtap.admin, &format!("/samples/{sample}"), |_| true);
    let formal =
        scores["scores"].as_array().expect("scores").iter().find(|s| s["criterion"] == "formal");
    assert_eq!(formal.expect("a line")["value"], json!(1.0));
    // The list's worst score is that of the criteria that everybody has.
    let list = await_answer(flowtap.admin, "/samples?score=1-4", |_| true);
    assert_eq!(list["samples"], json!([]), "{list}");
    flowtap.stop();
}
