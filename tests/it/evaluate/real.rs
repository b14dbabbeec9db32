//! A real, very small model as the judge: real transport, real garbage, and never an invented score.
#![allow(clippy::expect_used, clippy::panic)]

use std::time::Duration;

use super::{answering, ask, await_scores};
use crate::peers::{MODEL, llama, peers_wanted};
use crate::support::process::{Process, free_port};
use crate::support::tap::Setup;

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
