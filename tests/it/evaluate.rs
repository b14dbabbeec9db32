//! The evaluator, as its users would check it: every sample ends scored or with a reason, once, and
//! traffic does not notice, whatever the judge does.
#![allow(clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::judge::{Asked, ScriptedJudge, completion, status};
use crate::support::tap::{Flowtap, Setup, rows};
use crate::support::wire::{Upstream, json_post, json_response};

mod bounds;
mod command;
mod hubs;
mod injection;
mod queue;
mod real;
mod shares;
mod steady;
mod told;

const CRITERIA: [&str; 4] = ["groundedness", "relevance", "coherence", "fluency"];
/// No computed criteria: rows for the judged ones alone.
const JUDGED_ONLY: &str = "evaluate: {measures: [], poll: 100ms}";

fn answering() -> Upstream {
    Upstream::answering(json_response(
        r#"{"answer":"The rainfly keeps 3000 mm out.","context":"Alpine Explorer: 3000 mm."}"#,
    ))
}

/// A flowtap that keeps every request and has it judged.
fn setup(upstream: &Upstream, judge: &ScriptedJudge, more: &str) -> Setup {
    let judge = format!("judge: {{url: \"{}\", model: scripted, {more}}}", judge.url());
    Setup::before(upstream.port).top("sample: {rate: 1}").top(&judge)
}

fn ask(flowtap: &Flowtap, questions: impl IntoIterator<Item = String>) {
    let mut client = flowtap.client();
    for question in questions {
        client.send(json_post("/score", &json!({"question": question}).to_string()));
        assert_eq!(client.read_response().status(), 200);
    }
}

fn scores(folder: &Path) -> Vec<Value> {
    rows(&folder.join("bucket").join("scores"))
}

/// Waits until `wanted` rows are stored.
#[track_caller]
fn await_scores(flowtap: &Flowtap, wanted: usize, limit: Duration) -> Vec<Value> {
    let deadline = Instant::now() + limit;
    loop {
        let found = scores(flowtap.folder());
        if found.len() >= wanted {
            return found;
        }
        let late = Instant::now() > deadline;
        assert!(!late, "{} of {wanted} rows:\n{}", found.len(), flowtap.printed());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits until the evaluator is done with `wanted` samples since its start, drawn or not.
#[track_caller]
fn await_done(flowtap: &Flowtap, wanted: f64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let done = |result: &str| flowtap.metric("flowtap_evaluate_samples_total", &[result]);
    while done("result=\"evaluated\"") + done("result=\"not_drawn\"") < wanted {
        assert!(Instant::now() < deadline, "{}", flowtap.printed());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How often each pair of exchange and criterion was scored.
fn times(rows: &[Value]) -> HashMap<(String, String), usize> {
    let mut times = HashMap::new();
    for row in rows {
        let text = |field: &str| row[field].as_str().expect("a text").to_owned();
        *times.entry((text("exchange"), text("criterion"))).or_default() += 1;
    }
    times
}

#[test]
fn every_sample_is_scored_by_every_criterion_and_the_row_says_all() {
    let upstream = answering();
    let judge = ScriptedJudge::saying(|asked| asked.verdict(4));
    let flowtap = setup(&upstream, &judge, "api_key: k-e-y").top(JUDGED_ONLY).start();
    ask(&flowtap, (0..5).map(|n| format!("question {n}?")));
    let found = await_scores(&flowtap, 20, Duration::from_secs(90));
    assert_eq!(times(&found).values().copied().collect::<Vec<_>>(), [1; 20], "each once");
    flowtap.await_metric("flowtap_scores_total", &["score=\"4\""], 20.0);
    flowtap.await_metric("flowtap_evaluate_samples_total", &["result=\"evaluated\""], 5.0);
    assert_eq!(flowtap.metric("flowtap_score_errors_total", &[]), 0.0);
    assert_eq!(flowtap.metric("flowtap_judge_drift", &[]), 0.0);
    let stopped = flowtap.stop();

    let row = &found[0];
    for (field, expected) in [
        ("schema", json!("flowtap.score.v1")),
        ("tap", json!("chat")),
        ("deployment", json!("default")),
        ("score", json!(4)),
        ("value", json!(null)),
        ("error", json!(null)),
        ("reason", json!("as scripted")),
        ("probability", json!(1.0)),
        ("probability_least", json!(1.0)),
        ("injection_suspect", json!(false)),
        ("judge_drift", json!(false)),
    ] {
        assert_eq!(row[field], expected, "{field} of {row}");
    }
    assert_eq!(row["judge"]["model"], "scripted");
    assert_eq!(row["judge"]["prompt"], format!("{}@2", row["criterion"].as_str().expect("one")));
    assert_eq!((&row["judge"]["input"], &row["judge"]["output"]), (&json!(100), &json!(20)));
    let ids: Vec<_> = stopped.rows("exchanges").iter().map(|sample| sample["id"].clone()).collect();
    assert!(found.iter().all(|row| ids.contains(&row["exchange"])), "scores belong to samples");

    let asked = judge.questions();
    let question = asked.iter().find(|asked| !asked.is_test()).expect("a question");
    assert!(question.head.starts_with("POST /v1/chat/completions HTTP/1.1"), "{}", question.head);
    assert!(question.head.to_lowercase().contains("authorization: bearer k-e-y"));
    assert_eq!(question.body["response_format"]["type"], "json_schema");
    assert_eq!(question.body["temperature"], 0);
    assert!(!stopped.printed.contains("k-e-y"), "the key is in no log");
}

/// Each question with the answer that the judge gives to it, and what has to come of that.
const FAULTS: [(&str, &str); 14] = [
    ("good", "2"),
    ("hang", "timeout"),
    ("reset", "connect"),
    ("429", "rate_limited"),
    ("500", "http_5xx"),
    ("404", "http_4xx"),
    ("filter", "refused"),
    ("html", "unparsable"),
    ("large", "too_large"),
    ("prose", "unparsable"),
    ("eleven", "out_of_range"),
    ("nan", "unparsable"),
    ("half", "unparsable"),
    ("tool", "unparsable"),
];

const TOOL_CALL: &str = r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"1"}]}}]}"#;

fn faulty_answer(asked: &Asked, large: &str) -> Option<Vec<u8>> {
    let answered = |text: &str| Some(completion(text).into_bytes());
    match asked.material("question") {
        _ if asked.is_test() => answered(&asked.verdict(asked.test_score())),
        "good" => answered(&asked.verdict(2)),
        "hang" => {
            std::thread::sleep(Duration::from_secs(15));
            None
        }
        "reset" => None,
        "429" => Some(status("429 Too Many Requests", "Retry-After: 9999\r\n", "slow down")),
        "500" => Some(status("500 Internal Server Error", "", "{}")),
        "404" => Some(status("404 Not Found", "", "no such model")),
        "filter" => Some(status("400 Bad Request", "", r#"{"error":{"code":"content_filter"}}"#)),
        "html" => Some(status("200 OK", "Content-Type: text/html\r\n", "<html>5</html>")),
        "large" => Some(status("200 OK", "", large)),
        "prose" => answered("I would give this a 5."),
        "eleven" => answered(&asked.verdict(11)),
        "nan" => answered(&asked.verdict("NaN").replace("\"NaN\"", "NaN")),
        "half" => answered(&asked.verdict(3.5)),
        "tool" => Some(json_response(TOOL_CALL).into_bytes()),
        other => panic!("unknown question {other}"),
    }
}

#[test]
fn a_broken_judge_gives_reasons_and_never_a_number() {
    let upstream = answering();
    let large = "x".repeat(50 << 20);
    let judge = ScriptedJudge::start(move |asked| faulty_answer(asked, &large));
    let quick = "timeout: 5s, retry_for: 1s, concurrency: 16";
    let flowtap = setup(&upstream, &judge, quick).top(JUDGED_ONLY).start();
    ask(&flowtap, FAULTS.iter().map(|(question, _)| (*question).to_owned()));
    let found = await_scores(&flowtap, FAULTS.len() * 4, Duration::from_secs(120));
    let samples = rows(&flowtap.folder().join("bucket/exchanges"));
    let question_of: HashMap<_, _> =
        samples.iter().map(|sample| (&sample["id"], sample["question"].as_str())).collect();
    for row in &found {
        let question = question_of[&row["exchange"]].expect("a question");
        let (_, wanted) = FAULTS.iter().find(|(name, _)| *name == question).expect("one of ours");
        let got = match (&row["score"], &row["error"]) {
            (Value::Number(score), Value::Null) => score.to_string(),
            (Value::Null, Value::String(error)) => error.clone(),
            both => panic!("a score or an error, never both or none: {both:?}"),
        };
        assert_eq!(&got, wanted, "{question}");
    }
    // sampled = scored + errors by reason, for each criterion.
    for criterion in CRITERIA {
        let label = format!("criterion=\"{criterion}\"");
        let scored = flowtap.metric("flowtap_scores_total", &[&label]);
        let errors = flowtap.metric("flowtap_score_errors_total", &[&label]);
        assert_eq!((scored, scored + errors), (1.0, FAULTS.len() as f64), "{criterion}");
    }
    flowtap.stop();
}

#[test]
fn what_is_missing_is_told_and_nobody_is_asked() {
    let upstream = Upstream::answering(json_response(r#"{"answer":"Dry."}"#));
    let judge = ScriptedJudge::saying(|asked| asked.verdict(5));
    let flowtap = setup(&upstream, &judge, "concurrency: 2")
        .top("evaluate: {criteria: [groundedness, relevance, coherence, similarity], poll: 100ms}")
        .start();
    ask(&flowtap, ["Is it dry?".to_owned()]);
    flowtap.await_metric("flowtap_evaluate_samples_total", &["result=\"evaluated\""], 1.0);
    let found = scores(flowtap.folder());
    let by: BTreeMap<_, _> =
        found.iter().map(|row| (row["criterion"].as_str().expect("one"), row)).collect();
    for (criterion, error) in [
        ("groundedness", "missing_context"),
        ("relevance", "missing_context"),
        ("similarity", "missing_ground_truth"),
    ] {
        assert_eq!(by[criterion]["error"], error);
        assert_eq!(
            (&by[criterion]["score"], &by[criterion]["judge"]),
            (&Value::Null, &Value::Null)
        );
    }
    assert_eq!(by["coherence"]["score"], 5);
    assert_eq!((&by["refusal"]["value"], &by["emptiness"]["value"]), (&json!(0.0), &json!(0.0)));
    assert!(!by.contains_key("f1"), "no ground truth, no F1");
    let criteria: Vec<_> = judge.questions().iter().map(|a| a.criterion().to_owned()).collect();
    assert_eq!(criteria.iter().filter(|c| *c == "coherence").count(), 1, "{criteria:?}");
    flowtap.stop();
}

#[test]
fn a_kill_in_the_middle_of_a_thousand_scores_each_sample_once() {
    let upstream = answering();
    let open = Arc::new(AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let judge = ScriptedJudge::saying(move |asked| {
        while !gate.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(10));
        asked.verdict(3)
    });
    let mut flowtap = setup(&upstream, &judge, "concurrency: 16")
        .top("evaluate: {criteria: [coherence, fluency], measures: [], poll: 200ms}")
        .start();
    std::thread::scope(|scope| {
        for part in 0..4 {
            let flowtap = &flowtap;
            scope.spawn(move || ask(flowtap, (0..250).map(|n| format!("question {part}-{n}?"))));
        }
    });
    // What the crash of a proxy costs is another test's: all samples are in the bucket first.
    let samples = flowtap.folder().join("bucket/exchanges");
    let deadline = Instant::now() + Duration::from_secs(60);
    while rows(&samples).len() < 1000 {
        assert!(Instant::now() < deadline, "{}", flowtap.printed());
        std::thread::sleep(Duration::from_millis(100));
    }
    open.store(true, Ordering::SeqCst);
    // Killed thrice while scores are being stored.
    for stored in [200, 700, 1400] {
        await_scores(&flowtap, stored, Duration::from_secs(120));
        flowtap = flowtap.kill_and_restart();
    }
    await_scores(&flowtap, 2000, Duration::from_secs(120));
    std::thread::sleep(Duration::from_millis(500));
    let found = scores(flowtap.folder());
    let times = times(&found);
    assert_eq!((found.len(), times.len()), (2000, 2000), "each pair exactly once");
    flowtap.await_metric("flowtap_build_info", &[], 1.0);
    let deadline = Instant::now() + Duration::from_secs(20);
    while flowtap.metric("flowtap_evaluate_oldest_unscored_seconds", &[]) > 0.0 {
        assert!(Instant::now() < deadline, "nothing waits any longer:\n{}", flowtap.printed());
        std::thread::sleep(Duration::from_millis(100));
    }
    let samples = flowtap.stop().rows("exchanges").len();
    assert_eq!(samples, 1000);
}

#[test]
fn a_dead_judge_leaves_traffic_alone_and_samples_waiting() {
    let upstream = answering();
    let judge = ScriptedJudge::saying(|asked| asked.verdict(4));
    let flowtap = Setup::before(upstream.port)
        .top("sample: {rate: 1}")
        .top("judge: {url: \"http://127.0.0.1:1\", model: m}")
        .top(JUDGED_ONLY)
        .start();
    let began = Instant::now();
    ask(&flowtap, (0..200).map(|n| format!("question {n}?")));
    assert!(began.elapsed() < Duration::from_secs(10), "traffic does not wait for the judge");
    flowtap.await_metric("flowtap_judge_attempts_total", &["result=\"connect\""], 4.0);
    flowtap.await_metric("flowtap_evaluate_oldest_unscored_seconds", &[], 0.5);
    assert!(scores(flowtap.folder()).is_empty());
    let stopped = flowtap.stop();
    assert_eq!(stopped.rows("exchanges").len(), 200);

    // The next start has a judge that lives.
    let config = std::fs::read_to_string(stopped.folder().join("flowtap.yaml")).expect("read");
    let config = config.replace("http://127.0.0.1:1", &judge.url());
    let flowtap = Flowtap::again(stopped, &config);
    let found = await_scores(&flowtap, 800, Duration::from_secs(120));
    assert_eq!(times(&found).len(), 800);
    flowtap.stop();
}

#[test]
fn what_the_judge_cannot_do_is_learnt_once() {
    let upstream = answering();
    let judge = ScriptedJudge::start(|asked| {
        let refuse = |text: &str| Some(status("400 Bad Request", "", text));
        match asked.body["response_format"]["type"].as_str() {
            Some("json_schema") => refuse("response_format json_schema is not supported"),
            _ if asked.body["max_tokens"].is_number() => refuse("use max_completion_tokens"),
            Some(_) => refuse("unknown field response_format"),
            None if asked.is_test() => {
                Some(completion(&asked.verdict(asked.test_score())).into_bytes())
            }
            None => {
                let fenced = format!("Here you are:\n```json\n{}\n```", asked.verdict(1));
                Some(completion(&fenced).into_bytes())
            }
        }
    });
    let flowtap = setup(&upstream, &judge, "concurrency: 1").top(JUDGED_ONLY).start();
    ask(&flowtap, (0..10).map(|n| format!("question {n}?")));
    let found = await_scores(&flowtap, 40, Duration::from_secs(90));
    assert!(found.iter().all(|row| row["score"] == 1), "{found:?}");
    flowtap.stop();
    let refused = judge.questions().iter().filter(|a| !a.body["response_format"].is_null()).count();
    assert!((2..=12).contains(&refused), "{refused} questions before it was learnt");
}

#[test]
fn a_bad_answer_is_repaired_once_by_asking_again() {
    let upstream = answering();
    let first = AtomicBool::new(true);
    let judge = ScriptedJudge::saying(move |asked| match first.swap(false, Ordering::SeqCst) {
        true => "hm, a 5 I think".to_owned(),
        false => asked.verdict(3),
    });
    let flowtap = setup(&upstream, &judge, "concurrency: 1")
        .top("evaluate: {criteria: [fluency], measures: [], poll: 100ms}")
        .start();
    ask(&flowtap, ["one?".to_owned()]);
    let found = await_scores(&flowtap, 1, Duration::from_secs(90));
    assert_eq!((&found[0]["score"], &found[0]["judge"]["input"]), (&json!(3), &json!(200)));
    flowtap.stop();
    assert_eq!(judge.questions().iter().filter(|asked| !asked.is_test()).count(), 2);
}

#[test]
fn the_budget_holds_over_restarts_and_says_so() {
    let upstream = answering();
    let judge = ScriptedJudge::saying(|asked| asked.verdict(4));
    // A call may cost about 1500 tokens at most and costs 120.
    let mut flowtap = setup(
        &upstream,
        &judge,
        "concurrency: 1, tokens_per_day: 12000, max_tokens: 100, when_exhausted: skip",
    )
    .top("evaluate: {criteria: [fluency], measures: [], poll: 100ms}")
    .start();
    ask(&flowtap, (0..100).map(|n| format!("question {n}?")));
    await_done(&flowtap, 100.0);
    let found = scores(flowtap.folder());
    let skipped = found.iter().filter(|row| row["error"] == "budget").count();
    let scored = found.iter().filter(|row| row["score"] == 4).count();
    assert_eq!(scored + skipped, found.len());
    assert!((1..=100).contains(&scored), "{scored} calls of 120 tokens within 12000");
    let spent = flowtap.metric("flowtap_judge_tokens_total", &[]);
    assert!(spent <= 12_000.0, "{spent}");
    assert_eq!(flowtap.metric("flowtap_judge_tokens_per_day", &[]), 12_000.0);

    let asked = judge.asked();
    flowtap = flowtap.kill_and_restart();
    ask(&flowtap, (0..50).map(|n| format!("question {n}?")));
    await_done(&flowtap, 50.0);
    let more = judge.asked() - asked;
    assert!((asked + more) * 120 <= 12_000, "{asked} and {more} calls: the crash forgot nothing");
    flowtap.stop();
}

#[test]
fn a_judge_behind_a_tap_of_ours_does_not_feed_itself() {
    let upstream = answering();
    let judge = ScriptedJudge::saying(|asked| asked.verdict(4));
    let port = judge.url().rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let taps = crate::support::process::free_port();
    let flowtap = Setup::before(upstream.port)
        .and_tap_at("models", port, taps)
        .top("sample: {rate: 1}")
        .top(&format!("judge: {{url: \"http://127.0.0.1:{taps}\", model: m}}"))
        .top("evaluate: {criteria: [fluency], measures: [], poll: 100ms}")
        .start();
    ask(&flowtap, (0..3).map(|n| format!("question {n}?")));
    await_scores(&flowtap, 3, Duration::from_secs(90));
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(scores(flowtap.folder()).len(), 3, "depth 1");
    let seen = flowtap.metric("flowtap_requests_total", &["tap=\"models\""]);
    assert!(seen >= 5.0, "judging is counted as traffic: {seen}");
    assert_eq!(flowtap.metric("flowtap_samples_total", &["tap=\"models\""]), 0.0);
    flowtap.stop();
}

#[test]
fn criteria_of_the_users_own_are_judged_by_their_own_words() {
    let upstream = answering();
    let folder = tempfile::tempdir().expect("a folder");
    let rubric = folder.path().join("politeness.txt");
    std::fs::write(&rubric, "Is the answer polite?\n1: rude.\n5: polite.").expect("written");
    let judge = ScriptedJudge::saying(|asked| match asked.criterion() {
        "formal" => json!({"check": asked.check(), "reason": "r", "verdict": true}).to_string(),
        _ => asked.verdict(2),
    });
    let file = rubric.display();
    let flowtap = setup(&upstream, &judge, "concurrency: 2")
        .top(&format!(
            "evaluate: {{criteria: [], measures: [], poll: 100ms, custom: [{{name: politeness, prompt_file: \"{file}\", needs: [answer]}}, {{name: formal, prompt_file: \"{file}\", verdict: boolean}}]}}"
        ))
        .start();
    ask(&flowtap, ["Is it dry?".to_owned()]);
    let found = await_scores(&flowtap, 2, Duration::from_secs(90));
    let of = |name: &str| found.iter().find(|row| row["name"] == name).expect("a row");
    assert_eq!((&of("politeness")["score"], &of("politeness")["value"]), (&json!(2), &Value::Null));
    assert_eq!((&of("formal")["score"], &of("formal")["value"]), (&Value::Null, &json!(1.0)));
    assert!(found.iter().all(|row| row["criterion"] == "custom"));
    let asked = judge.questions();
    let polite = asked.iter().find(|a| a.criterion() == "politeness").expect("asked");
    assert!(polite.user().contains("5: polite.") && polite.material("question").is_empty());
    flowtap.stop();
}
