//! What the evaluator never does: ask too often, spend too much, follow a redirect, fetch what it
//! reads, keep what it must not.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{answering, ask, await_done, await_scores, scores, setup};
use crate::support::judge::{Asked, ScriptedJudge, status};
use crate::support::tap::{Flowtap, rows};
use crate::support::wire::{Upstream, json_response};

const ONE: &str = "evaluate: {criteria: [fluency], measures: [], poll: 100ms}";

#[test]
fn a_minute_has_no_more_calls_than_allowed_and_traffic_does_not_wait() {
    let upstream = answering();
    let judge = ScriptedJudge::saying(|asked| asked.verdict(4));
    let limited = "concurrency: 8, calls_per_minute: 10";
    let flowtap = setup(&upstream, &judge, limited).top(ONE).start();
    let began = Instant::now();
    ask(&flowtap, (0..30).map(|n| format!("question {n}?")));
    assert!(began.elapsed() < Duration::from_secs(10), "requests wait for no judge");
    // The evaluator's own test takes two of the first ten calls.
    let first = await_scores(&flowtap, 0, Duration::from_secs(20)).len();
    let asked = |judge: &ScriptedJudge, wanted: usize| {
        let deadline = Instant::now() + Duration::from_secs(90);
        while judge.asked() < wanted {
            assert!(Instant::now() < deadline, "{} of {wanted} calls", judge.asked());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    asked(&judge, 10);
    let full = Instant::now();
    assert!(first <= 8, "{first}");
    // Without the limit all thirty would come within these seconds.
    while full.elapsed() < Duration::from_secs(4) {
        assert_eq!(judge.asked(), 10, "after {:?}", full.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
    flowtap.await_metric("flowtap_evaluate_oldest_unscored_seconds", &[], 0.5);
    asked(&judge, 11);
    assert!(began.elapsed() > Duration::from_secs(55), "after {:?}", began.elapsed());
    flowtap.stop();
}

#[test]
fn without_tokens_samples_wait_and_the_next_budget_takes_them_up() {
    let upstream = answering();
    let judge = ScriptedJudge::saying(|asked| asked.verdict(4));
    // Enough for all samples as they are, so that all are drawn; but no call may be made: a prompt and
    // `max_tokens` never fit.
    let poor = "concurrency: 4, tokens_per_day: 100000, max_tokens: 100000, when_exhausted: wait";
    let flowtap = setup(&upstream, &judge, poor).top(ONE).start();
    ask(&flowtap, (0..40).map(|n| format!("question {n}?")));
    flowtap.await_metric("flowtap_judge_budget_exhausted", &[], 1.0);
    flowtap.await_metric("flowtap_evaluate_oldest_unscored_seconds", &[], 0.5);
    assert_eq!(judge.asked(), 0, "nothing is spent");
    let stopped = flowtap.stop();
    assert!(stopped.rows("scores").is_empty(), "waiting is no error and no score");
    assert!(stopped.printed.contains("samples wait"), "{}", stopped.printed);

    let config = std::fs::read_to_string(stopped.folder().join("flowtap.yaml")).expect("read");
    let rich = config.replace("tokens_per_day: 100000,", "tokens_per_day: 100000000,");
    let flowtap = Flowtap::again(stopped, &rich);
    let found = await_scores(&flowtap, 40, Duration::from_secs(30));
    assert!(found.iter().all(|row| row["score"] == 4 && row["probability"] == 1.0), "{found:?}");
    assert_eq!(flowtap.metric("flowtap_judge_budget_exhausted", &[]), 0.0);
    flowtap.stop();
}

#[test]
fn without_tokens_samples_are_skipped_and_counted_where_that_is_configured() {
    let upstream = answering();
    let judge = ScriptedJudge::saying(|asked| asked.verdict(4));
    let poor = "concurrency: 4, tokens_per_day: 100000, max_tokens: 100000, when_exhausted: skip";
    let flowtap = setup(&upstream, &judge, poor).top(ONE).start();
    ask(&flowtap, (0..40).map(|n| format!("question {n}?")));
    flowtap.await_metric("flowtap_score_errors_total", &["reason=\"budget\""], 1.0);
    await_done(&flowtap, 40.0);
    let found = scores(flowtap.folder());
    assert_eq!(found.len(), 40, "none is left out in silence");
    assert!(found.iter().all(|row| row["error"] == "budget" && row["score"].is_null()));
    let evaluated = ["result=\"evaluated\""];
    assert_eq!(found.len() as f64, flowtap.metric("flowtap_evaluate_samples_total", &evaluated));
    assert_eq!(judge.asked(), 0);
    flowtap.stop();
}

/// Listens, and counts who comes.
struct Trap(TcpListener);

impl Trap {
    fn set() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("nonblocking");
        Self(listener)
    }

    fn url(&self) -> String {
        format!("http://{}/stolen", self.0.local_addr().expect("bound"))
    }

    fn visitors(&self) -> usize {
        std::iter::from_fn(|| self.0.accept().ok()).count()
    }
}

#[test]
fn redirects_of_a_judge_are_never_followed() {
    let upstream = answering();
    let trap = Trap::set();
    let location = trap.url();
    let judge = ScriptedJudge::start(move |asked: &Asked| {
        let code = [
            "301 Moved Permanently",
            "302 Found",
            "307 Temporary Redirect",
            "308 Permanent Redirect",
        ];
        let turn = asked.material("question").len() % code.len();
        Some(status(code[turn], &format!("Location: {location}\r\n"), ""))
    });
    let quick = "api_key: k-e-y, retry_for: 0s";
    let flowtap = setup(&upstream, &judge, quick).top(ONE).start();
    ask(&flowtap, (0..8).map(|n| "q".repeat(n + 1)));
    let found = await_scores(&flowtap, 8, Duration::from_secs(30));
    assert!(
        found.iter().all(|row| row["score"].is_null() && row["error"] == "redirected"),
        "{found:?}"
    );
    let redirected = ["reason=\"redirected\""];
    flowtap.await_metric("flowtap_score_errors_total", &redirected, 8.0);
    flowtap.stop();
    assert!(judge.asked() >= 8);
    assert_eq!(trap.visitors(), 0, "the key and the text went nowhere else");
    drop(std::net::TcpStream::connect(trap.0.local_addr().expect("bound")).expect("connected"));
    assert_eq!(trap.visitors(), 1, "the trap works");
}

/// Waits until the index has a sample.
fn await_indexed(flowtap: &Flowtap) {
    crate::support::api::await_answer(flowtap.admin, "/samples?limit=1", |answer| {
        answer["samples"].as_array().is_some_and(|samples| !samples.is_empty())
    });
}

#[test]
fn nothing_that_stands_in_content_is_ever_fetched() {
    let trap = Trap::set();
    let url = trap.url();
    let answer = json!({
        "answer": format!("![image]({url}/a.png) <img src=\"{url}/b\"> [see]({url}/c) {url}/d"),
        "context": format!("<link rel=prefetch href={url}/e> {{\"$ref\": \"{url}/f\"}} file:///etc/passwd"),
        "image_url": {"url": format!("{url}/g")},
    });
    let upstream = Upstream::answering(json_response(&answer.to_string()));
    let says = url.clone();
    let judge = ScriptedJudge::saying(move |asked| {
        let reason = format!("see {says}/h ![x]({says}/i)");
        json!({"check": asked.check(), "reason": reason, "score": 3}).to_string()
    });
    let flowtap = setup(&upstream, &judge, "concurrency: 2")
        .top("evaluate: {poll: 100ms, measures: [f1, refusal, context_overlap, json_validity]}")
        .start();
    ask(&flowtap, [format!("What is at {url}/j ? @import '{url}/k'")]);
    let found = await_scores(&flowtap, 6, Duration::from_secs(20));
    assert_eq!(found.iter().filter(|row| row["score"] == 3).count(), 4, "{found:?}");
    // The page's answer about it is made of text, too.
    await_indexed(&flowtap);
    let sample = found[0]["exchange"].as_str().expect("an id");
    crate::support::api::await_answer(flowtap.admin, &format!("/samples/{sample}"), |answer| {
        answer["scores"].as_array().is_some_and(|scores| scores.len() == 6)
    });
    flowtap.stop();
    assert!(judge.questions().iter().any(|asked| asked.user().contains(&url)), "it was there");
    assert_eq!(trap.visitors(), 0);
    drop(std::net::TcpStream::connect(trap.0.local_addr().expect("bound")).expect("connected"));
    assert_eq!(trap.visitors(), 1, "the trap works");
}

#[test]
fn what_a_judge_makes_up_passes_the_redactor_before_anything_is_stored() {
    const SECRETS: [&str; 3] = [
        "jane.doe@example.com",
        "AKIAIOSFODNN7EXAMPLE",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
    ];
    let upstream = answering();
    let judge = ScriptedJudge::saying(|asked| {
        let reason = format!("Ask {} with {} or {}.", SECRETS[0], SECRETS[1], SECRETS[2]);
        json!({"check": asked.check(), "reason": reason, "score": 2}).to_string()
    });
    let flowtap = setup(&upstream, &judge, "concurrency: 2")
        .top(ONE)
        .top("redact: {detect: [email, secret]}")
        .start();
    ask(&flowtap, ["Is it dry?".to_owned()]);
    let found = await_scores(&flowtap, 1, Duration::from_secs(20));
    let reason = found[0]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("Ask ") && reason.ends_with('.'), "{reason}");
    let sample = found[0]["exchange"].as_str().expect("an id").to_owned();
    await_indexed(&flowtap);
    let told =
        crate::support::api::await_answer(flowtap.admin, &format!("/samples/{sample}"), |of| {
            of["scores"].as_array().is_some_and(|scores| !scores.is_empty())
        });
    let metrics = flowtap.metrics();
    let stopped = flowtap.stop();
    let stored: Vec<Value> = rows(&stopped.folder().join("bucket"));
    let everything = format!("{stored:?}{told}{metrics}{}", stopped.printed);
    for secret in SECRETS {
        assert!(!everything.contains(secret), "{secret} was kept");
    }
    for entry in walk(stopped.folder()) {
        let bytes = std::fs::read(&entry).expect("a file");
        let text = String::from_utf8_lossy(&bytes);
        assert!(SECRETS.iter().all(|secret| !text.contains(secret)), "{}", entry.display());
    }
}

/// Every file below a folder.
fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(walk(&path)),
            false => found.push(path),
        }
    }
    found
}
