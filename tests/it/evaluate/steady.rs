//! The evaluator under load and after accidents: memory stays flat, a panic costs no restart, a judge
//! that changes is found out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::hubs::object;
use super::{answering, ask, await_scores, scores, setup};
use crate::support::judge::ScriptedJudge;
use crate::support::process::{Process, resident_bytes};
use crate::support::tap::{Flowtap, address, rows, sum};
use crate::support::wire::Peer;

const ONE: &str = "evaluate: {criteria: [fluency], measures: [], poll: 100ms}";

#[test]
fn a_part_that_panics_is_tried_again_without_a_restart() {
    let upstream = answering();
    let judge = ScriptedJudge::saying(|asked| asked.verdict(4));
    let flowtap =
        setup(&upstream, &judge, "concurrency: 2").top(ONE).failing_at("evaluate:panic=2").start();
    ask(&flowtap, (0..5).map(|n| format!("question {n}?")));
    let found = await_scores(&flowtap, 5, Duration::from_secs(30));
    assert!(found.iter().all(|row| row["score"] == 4));
    assert_eq!(flowtap.metric("flowtap_panics_total", &["evaluate"]), 2.0);
    let aside = ["result=\"set_aside\""];
    assert_eq!(flowtap.metric("flowtap_evaluate_samples_total", &aside), 0.0);
    flowtap.stop();
}

#[test]
fn a_part_that_panics_every_time_is_set_aside_counted_and_named() {
    let upstream = answering();
    let judge = ScriptedJudge::saying(|asked| asked.verdict(4));
    let flowtap =
        setup(&upstream, &judge, "concurrency: 2").top(ONE).failing_at("evaluate:panic").start();
    ask(&flowtap, (0..5).map(|n| format!("question {n}?")));
    let aside = ["result=\"set_aside\""];
    flowtap.await_metric("flowtap_evaluate_samples_total", &aside, 5.0);
    flowtap.await_metric("flowtap_evaluate_objects", &["state=\"set_aside\""], 1.0);
    ask(&flowtap, ["Does traffic go on?".to_owned()]);
    let stopped = flowtap.stop();
    assert!(stopped.rows("scores").is_empty());
    let named = "a part that panics is set aside";
    let line = stopped.printed.lines().find(|line| line.contains(named)).expect("it is named");
    assert!(line.contains("exchanges/deployment=default/"), "{line}");

    // Whatever it was may be mended: the next start takes it up.
    let config = std::fs::read_to_string(stopped.folder().join("flowtap.yaml")).expect("read");
    let flowtap = Flowtap::again(stopped, &config);
    await_scores(&flowtap, 6, Duration::from_secs(30));
    flowtap.stop();
}

#[test]
fn a_sample_that_panics_costs_itself_alone() {
    let upstream = answering();
    let judge = ScriptedJudge::saying(|asked| asked.verdict(4));
    // Seven panics, three for a sample: one of three is set aside at least, and one is not.
    let flowtap =
        setup(&upstream, &judge, "concurrency: 2").top(ONE).failing_at("grade:panic=7").start();
    ask(&flowtap, (0..3).map(|n| format!("question {n}?")));
    let found = await_scores(&flowtap, 3, Duration::from_secs(30));
    let panicked = found.iter().filter(|row| row["error"] == "panicked").count();
    let scored = found.iter().filter(|row| row["score"] == 4).count();
    assert!(panicked >= 1 && scored >= 1 && panicked + scored == 3, "{found:?}");
    assert_eq!(flowtap.metric("flowtap_panics_total", &["evaluate"]), 7.0);
    for (result, samples) in [("set_aside", panicked), ("evaluated", scored)] {
        let result = format!("result=\"{result}\"");
        flowtap.await_metric("flowtap_evaluate_samples_total", &[&result], samples as f64);
    }
    let stopped = flowtap.stop();
    let named = "a sample that panics is set aside";
    let line = stopped.printed.lines().find(|line| line.contains(named)).expect("it is named");
    assert!(line.contains("exchanges/deployment=default/") && line.contains("sample"), "{line}");
}

#[test]
fn a_judge_that_fails_its_own_test_marks_its_scores_and_raises_no_alert() {
    const MONITOR: &str = "monitors: [{name: now, schedule: '0 0 1 1 *', window: PT1H, samples_min: 1, \
                           signals: {generation_quality: {average: {fluency: 4}}}}]";
    let violated = |test: fn(u8) -> u8| {
        let upstream = answering();
        let judge = ScriptedJudge::start(move |asked| {
            let score = if asked.is_test() { test(asked.test_score()) } else { 1 };
            Some(crate::support::judge::completion(&asked.verdict(score)).into_bytes())
        });
        let flowtap = setup(&upstream, &judge, "concurrency: 2").top(ONE).top(MONITOR).start();
        // The judge is tested at the start; samples that come later know how that ended.
        let drift = f64::from(u8::from(test(5) != 5));
        let deadline = Instant::now() + Duration::from_secs(20);
        while judge.asked() < 2 || flowtap.metric("flowtap_judge_drift", &[]) < drift {
            assert!(Instant::now() < deadline, "{}", flowtap.printed());
            std::thread::sleep(Duration::from_millis(20));
        }
        ask(&flowtap, (0..60).map(|n| format!("question {n}?")));
        let found = await_scores(&flowtap, 60, Duration::from_secs(30));
        assert!(found.iter().all(|row| row["score"] == 1 && row["judge_drift"] == (drift > 0.0)));
        let quality = crate::support::api::await_answer(flowtap.admin, "/quality", |of| {
            let row = &of["criteria"][0];
            row["count"].as_u64().unwrap_or(0) + row["drifted"].as_u64().unwrap_or(0) == 60
        });
        let stopped = flowtap.stop();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_flowtap"));
        let file = stopped.folder().join("flowtap.yaml");
        let at = (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(1)).to_string();
        command.args(["monitor", "run", "now", "--json", "--at", &at, "--config"]).arg(file);
        let output = command.output().expect("it runs");
        let run: Value = serde_json::from_slice(&output.stdout).expect("a run");
        (run["state"].clone(), run["unscored"].clone(), quality["criteria"][0]["average"].clone())
    };
    let fine: fn(u8) -> u8 = |score| score;
    let turned: fn(u8) -> u8 = |score| 6 - score;
    assert_eq!(violated(fine), (json!("violated"), json!(0), json!(1.0)));
    assert_eq!(violated(turned), (json!("not_enough_data"), json!(60), Value::Null));
}

#[test]
fn the_judge_sees_the_turns_before_the_question_and_no_more_than_it_should() {
    let upstream = answering();
    let judge = ScriptedJudge::saying(|asked| asked.verdict(4));
    let flowtap = setup(&upstream, &judge, "concurrency: 2").top(ONE).start();
    let turn = |n: usize| {
        json!({"inputs": {"question": format!("turn {n} {}", "x".repeat(500))},
                                 "outputs": {"answer": "Which tent?"}})
    };
    let turns: Vec<Value> = (0..40).map(turn).collect();
    let mut client = flowtap.client();
    let body = json!({"question": "And in snow?", "chat_history": turns}).to_string();
    client.send(crate::support::wire::json_post("/score", &body));
    assert_eq!(client.read_response().status(), 200);
    let found = await_scores(&flowtap, 1, Duration::from_secs(20));
    assert_eq!(found[0]["judge"]["truncated"], true, "{found:?}");
    flowtap.stop();
    let asked = judge.questions();
    let asked = asked.iter().find(|asked| !asked.is_test()).expect("asked");
    let history = asked.material("chat_history");
    assert!(history.contains("turn 39 ") && !history.contains("turn 0 "), "the last turns");
    assert!((4_000..=8_100).contains(&history.len()), "{}", history.len());
    assert_eq!(asked.material("question"), "And in snow?");
}

/// As many samples as `EVALUATE_SAMPLES` says, else 1,000, wait in a bucket for 64 places of a judge
/// that takes a tenth of a second for an answer: it can give 640 a second, and nothing else may be what
/// limits the evaluator. docs/PERFORMANCE.md has the figures of 10,000.
#[test]
fn many_samples_are_limited_by_the_judge_alone_and_memory_stays_flat() {
    const TAKES: Duration = Duration::from_millis(100);
    const PLACES: usize = 64;
    let samples = std::env::var("EVALUATE_SAMPLES").ok().and_then(|n| n.parse().ok());
    let samples: usize = samples.unwrap_or(1_000);
    let folder = tempfile::tempdir().expect("a folder");
    for number in 0..samples.div_ceil(500) {
        object(folder.path(), "blue", &format!("o-{number:04}"), 500.min(samples), 1);
    }
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (asking, at_once) = (Arc::clone(&now), Arc::clone(&most));
    let judge = ScriptedJudge::saying(move |asked| {
        at_once.fetch_max(asking.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        std::thread::sleep(TAKES);
        asking.fetch_sub(1, Ordering::SeqCst);
        asked.verdict(4)
    });
    let file = folder.path().join("hub.yaml");
    let shown = folder.path().display();
    let text = format!(
        "bucket: 'file://{shown}/bucket'\nstore: {{dir: '{shown}/index'}}\nadmin: {{listen: 127.0.0.1:0}}\n\
         judge: {{url: '{}', model: m, concurrency: {PLACES}}}\n\
         evaluate: {{criteria: [fluency], measures: [], poll: 1s}}\n",
        judge.url()
    );
    std::fs::write(&file, text).expect("written");
    let began = Instant::now();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command.args(["hub", "--config"]).arg(&file);
    let process = Process::start("hub", &mut command);
    let admin = address(&process, "\"door\":\"admin\"");
    let evaluated = || {
        let mut client = Peer::connect(admin);
        client.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let page = client.read_response().text();
        sum(&page, "flowtap_evaluate_samples_total", &["result=\"evaluated\""])
    };
    let (mut resident, mut next) = (Vec::new(), samples as f64 / 10.0);
    let deadline = Instant::now() + Duration::from_secs(300);
    loop {
        let done = evaluated();
        if done >= next {
            resident.push(resident_bytes(process.id()) >> 20);
            next = done + samples as f64 / 10.0;
        }
        if done >= samples as f64 {
            break;
        }
        assert!(Instant::now() < deadline, "{done} of {samples}:\n{}", process.printed());
        std::thread::sleep(Duration::from_millis(20));
    }
    let took = began.elapsed().as_secs_f64();
    let ceiling = PLACES as f64 / TAKES.as_secs_f64();
    let achieved = samples as f64 / took;
    eprintln!(
        "{samples} samples in {took:.1} s: {achieved:.0} a second of the judge's {ceiling:.0}; \
         resident MiB: {resident:?}"
    );
    let stored = rows(&folder.path().join("bucket/scores"));
    assert_eq!(stored.len(), samples);
    assert!(stored.iter().all(|row| row["score"] == 4));
    // How fast that is says the machine; that every place was taken says the evaluator.
    assert_eq!(most.load(Ordering::SeqCst), PLACES, "all places, and not one more");
    let (first, last) = (resident[resident.len() / 2], resident[resident.len() - 1]);
    assert!(last < first + 24, "memory grows: {resident:?} MiB");
    assert!(scores(folder.path()).len() == samples, "each once");
}
