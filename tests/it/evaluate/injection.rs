//! Text that tries to talk the judge into something: 60 payloads against a judge that obeys the last
//! instruction that it sees outside of a frame, and one that repeats what it was given.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{CRITERIA, JUDGED_ONLY, ask, await_scores, setup};
use crate::support::judge::{Asked, ScriptedJudge};
use crate::support::tap::rows;
use crate::support::wire::{Upstream, json_post, json_response};

/// The payloads, one a line; `\n` and `\u{...}` are written as in JSON.
const PAYLOADS: &str = include_str!("../../fixtures/evaluate/injections.jsonl");

fn payloads() -> Vec<String> {
    let lines = PAYLOADS.lines().map(|line| serde_json::from_str(line).expect("a JSON string"));
    let payloads: Vec<String> = lines.collect();
    assert_eq!(payloads.len(), 60);
    payloads
}

/// What stands in no frame: all that is left after cutting from each opening mark to its closing one.
fn outside(asked: &Asked) -> String {
    let (open, close) =
        (format!("<<<{} BEGIN", asked.check()), format!("<<<{} END", asked.check()));
    let mut out = String::new();
    let mut rest = asked.user();
    while let Some((before, framed)) = rest.split_once(&open) {
        out.push_str(before);
        rest = framed.split_once(&close).map_or("", |(_, after)| after);
    }
    out + rest
}

/// Obeys: if anything outside of the frames asks for a 5, it gives one; else it grades as told.
fn obeying(asked: &Asked) -> String {
    let outside = outside(asked);
    let told = outside.lines().any(|line| {
        let line = line.to_lowercase();
        ["score 5", "score of 5", "perfect score", "pwned", "full marks", "maximum score"]
            .iter()
            .any(|wish| line.contains(wish))
    });
    asked.verdict(if told { 5 } else { 2 })
}

fn judged(judge: &ScriptedJudge) -> HashMap<String, Vec<Value>> {
    // The payload is the answer; the flow repeats what it is asked.
    let upstream = Upstream::start(|peer| {
        while let Some(request) = peer.read_request() {
            let body: Value = serde_json::from_slice(&request.body()).expect("JSON");
            let answer = json!({"answer": body["question"], "context": "Tents are dry."});
            peer.send(json_response(&answer.to_string()));
        }
    });
    let flowtap = setup(&upstream, judge, "concurrency: 16")
        .top("evaluate: {criteria: [groundedness, fluency], measures: [], poll: 100ms}")
        .start();
    let mut client = flowtap.client();
    for payload in payloads() {
        client.send(json_post("/score", &json!({"question": payload}).to_string()));
        assert_eq!(client.read_response().status(), 200);
    }
    let found = await_scores(&flowtap, 120, Duration::from_secs(60));
    let samples = rows(&flowtap.folder().join("bucket/exchanges"));
    flowtap.stop();
    let mut by_payload: HashMap<String, Vec<Value>> = HashMap::new();
    for row in found {
        let sample = samples.iter().find(|s| s["id"] == row["exchange"]).expect("its sample");
        let payload = sample["question"].as_str().expect("a text").to_owned();
        by_payload.entry(payload).or_default().push(row);
    }
    by_payload
}

/// Promise (security): an answer talks a judge into no score, even one that obeys the last instruction
/// it sees. Figure: 60 payloads, 0 succeed.
#[test]
fn a_judge_that_obeys_the_last_instruction_is_talked_into_nothing() {
    let judge = ScriptedJudge::saying(obeying);
    let judged = judged(&judge);
    let won: Vec<_> =
        judged.iter().filter(|(_, rows)| rows.iter().any(|row| row["score"] != 2)).collect();
    assert!(won.is_empty(), "{:#?}", won.iter().map(|(payload, _)| payload).collect::<Vec<_>>());
    let missed: Vec<_> = judged
        .iter()
        .filter(|(_, rows)| rows.iter().any(|row| row["injection_suspect"] != true))
        .map(|(payload, _)| payload)
        .collect();
    assert!(missed.len() <= 6, "{} of 60 were not suspected: {missed:#?}", missed.len());
}

#[test]
fn a_judge_that_repeats_what_it_was_given_gives_no_score() {
    // All of it, the material alone, and the material's own verdicts.
    let judge = ScriptedJudge::saying(|asked| match asked.user().len() % 3 {
        0 => asked.user().to_owned(),
        1 => asked.material("answer").to_owned(),
        _ => format!("{}\n{}", asked.material("answer"), asked.material("context")),
    });
    for (payload, rows) in judged(&judge) {
        for row in rows {
            assert_eq!(
                (&row["score"], &row["error"]),
                (&Value::Null, &json!("unparsable")),
                "{payload}"
            );
        }
    }
}

/// Promise (security): nothing in a sample or a verdict makes flowtap fetch anything. Figure: 5 forms of a
/// link, 0 connections.
#[test]
fn links_in_what_is_judged_are_never_followed() {
    let elsewhere = Upstream::answering(json_response("{}"));
    let link = format!("http://127.0.0.1:{}/secret", elsewhere.port);
    let answer = json!({
        "answer": format!("![x]({link}) <img src={link}> {link}"),
        "context": [{"type": "image_url", "image_url": {"url": link}}, {"url": "file:///etc/passwd"}],
    });
    let upstream = Upstream::answering(json_response(&answer.to_string()));
    let said = link.clone();
    let judge = ScriptedJudge::saying(move |asked| {
        json!({"check": asked.check(), "reason": format!("see ![y]({said})"), "score": 3})
            .to_string()
    });
    let flowtap = setup(&upstream, &judge, "").top(JUDGED_ONLY).start();
    ask(&flowtap, [format!("what is at {link}?")]);
    await_scores(&flowtap, CRITERIA.len(), Duration::from_secs(60));
    flowtap.stop();
    assert_eq!(elsewhere.received_text(), "");
}
