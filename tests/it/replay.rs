//! Recorded requests against another deployment: what is sent, what is compared, and what the gate says.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::peers::{UP_WITHIN, peers_wanted, pf_serve};
use crate::support::judge::{Asked, ScriptedJudge, status};
use crate::support::process::{Process, free_port};
use crate::support::tap::{Flowtap, Setup, Stopped, rows};
use crate::support::wire::{Peer, Upstream, json_post, json_response};

mod chat;

const GOOD: &str =
    r#"{"answer":"The rainfly keeps 3000 mm out.","context":"Alpine Explorer: 3000 mm."}"#;
const BAD: &str = r#"{"answer":"No idea.","context":"Alpine Explorer: 3000 mm."}"#;
/// No run of a test takes longer, however loaded the machine.
const ENDS_WITHIN: Duration = Duration::from_secs(120);

/// Good answers are worth 5, others 2.
fn fair(asked: &Asked) -> String {
    let good = asked.material("answer").contains("3000 mm");
    asked.verdict(if good { 5 } else { 2 })
}

fn settings(judge: &ScriptedJudge) -> String {
    format!(
        "judge: {{url: \"{}\", model: scripted, retry_for: 0s}}\nevaluate: {{criteria: [groundedness, \
         fluency], measures: [repetition], poll: 100ms}}",
        judge.url()
    )
}

fn ask(flowtap: &Flowtap, questions: usize) {
    let mut client = flowtap.client();
    for n in 0..questions {
        let question = json!({"question": format!("Is tent {n} dry?")}).to_string();
        client.send(json_post("/score", &question));
        assert_eq!(client.read_response().status(), 200);
    }
}

/// A bucket with so many requests that were answered well.
fn recorded(questions: usize) -> Stopped {
    let upstream = Upstream::answering(json_response(GOOD));
    let flowtap = Setup::before(upstream.port).top("sample: {rate: 1}").start();
    ask(&flowtap, questions);
    flowtap.await_idle();
    flowtap.stop()
}

fn command(bucket: &Path, to: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command.args(["replay", &format!("file://{}", bucket.join("bucket").display())]);
    command.args(["--to", to, "--rate", "1000", "--format", "json"]).args(more);
    command
}

fn config(folder: &Path, text: &str) -> PathBuf {
    let file = folder.join("replay.yaml");
    std::fs::write(&file, text).expect("written");
    file
}

/// A replay's exit code and report.
struct Told {
    code: Option<i32>,
    report: Value,
    printed: String,
}

fn told(output: &Output) -> Told {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let (out, printed) = (text(&output.stdout), text(&output.stderr));
    let report = serde_json::from_str(&out).unwrap_or(Value::Null);
    Told { code: output.status.code(), report, printed }
}

/// Replays to `port` with a judge.
fn replay(stopped: &Stopped, judge: &ScriptedJudge, port: u16, more: &[&str]) -> Told {
    let file = config(stopped.folder(), &settings(judge));
    let to = format!("http://127.0.0.1:{port}");
    let mut command = command(stopped.folder(), &to, more);
    told(&command.arg("--config").arg(file).output().expect("flowtap runs"))
}

impl Told {
    #[track_caller]
    fn criterion(&self, name: &str) -> &Value {
        let all = self.report["criteria"].as_array();
        let found = all.into_iter().flatten().find(|of| of["criterion"] == name);
        found.unwrap_or_else(|| panic!("{name} is not in {}\n{}", self.report, self.printed))
    }

    #[track_caller]
    fn is(&self, code: i32, verdict: &str) {
        let found = (self.code, self.report["verdict"].as_str());
        assert_eq!(found, (Some(code), Some(verdict)), "{:#}\n{}", self.report, self.printed);
    }
}

#[test]
fn a_deployment_that_answers_as_well_passes_and_stored_scores_are_used_again() {
    let judge = ScriptedJudge::saying(fair);
    let upstream = Upstream::answering(json_response(GOOD));
    let flowtap =
        Setup::before(upstream.port).top("sample: {rate: 1}").top(&settings(&judge)).start();
    ask(&flowtap, 40);
    flowtap.await_metric("flowtap_scores_total", &[], 80.0);
    let stopped = flowtap.stop();
    let before = judge.asked();
    let told = replay(&stopped, &judge, upstream.port, &[]);
    told.is(0, "not_worse");
    assert_eq!(judge.asked() - before, 2 + 80, "the judge's own test, and the new answers alone");
    let judging = &told.report["judge"];
    assert_eq!((&judging["asked"], &judging["reused"]), (&json!(80), &json!(80)));
    for (name, value) in [("groundedness", 5.0), ("fluency", 5.0), ("answered", 1.0)] {
        let of = told.criterion(name);
        assert_eq!((&of["recorded"], &of["new"]), (&json!(value), &json!(value)), "{name}");
        assert_eq!((&of["pairs"], &of["difference"]), (&json!(40), &json!(0.0)), "{name}");
    }
    let repetition = told.criterion("repetition");
    assert_eq!((&repetition["pairs"], &repetition["verdict"]), (&json!(40), &Value::Null));
    assert_eq!(told.report["requests"]["sent"], 40);
    assert_eq!(told.report["new"]["outcomes"], json!({"ok": 40}));
    assert_eq!(told.report["tokens_comparable"], 40, "both were counted");

    let bucket = stopped.folder().join("bucket/replays");
    let reports = rows(&bucket.join("kind=report"));
    assert_eq!(
        (reports.len(), &reports[0]),
        (1, &told.report),
        "what is printed is what is stored"
    );
    let cases = rows(&bucket.join("kind=case"));
    assert_eq!(cases.len(), 40);
    let case = &cases[0];
    assert_eq!(case["answer"], "The rainfly keeps 3000 mm out.");
    assert!(case["scores"].as_array().is_some_and(|scores| scores.len() == 3), "{case}");

    let file = config(stopped.folder(), &settings(&judge));
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command.args(["replay", &format!("file://{}", stopped.folder().join("bucket").display())]);
    command.args(["--to", &format!("http://127.0.0.1:{}", upstream.port), "--rate", "100"]);
    let table = command.arg("--config").arg(file).output().expect("it runs").stdout;
    let table = String::from_utf8(table).expect("text");
    let wanted =
        ["not worse: http://127.0.0.1", "40 of 40 requests sent", "groundedness", "latency ms"];
    for text in wanted {
        assert!(table.contains(text), "{text} is not in\n{table}");
    }
}

#[test]
fn a_worse_deployment_is_told_by_exit_code_and_criterion() {
    let (stopped, judge) = (recorded(40), ScriptedJudge::saying(fair));
    let worse = Upstream::answering(json_response(BAD));
    let told = replay(&stopped, &judge, worse.port, &[]);
    told.is(3, "worse");
    let fluency = told.criterion("fluency");
    assert_eq!((&fluency["recorded"], &fluency["new"]), (&json!(5.0), &json!(2.0)));
    assert_eq!((&fluency["difference"], &fluency["verdict"]), (&json!(-3.0), &json!("worse")));
    assert!(fluency["high"].as_f64().is_some_and(|high| high < -0.1), "{fluency}");
    assert_eq!(told.criterion("answered")["verdict"], "not_worse");
    // A margin of so many points lets the same answers pass.
    replay(&stopped, &judge, worse.port, &["--margin", "3.5"]).is(0, "not_worse");
    // A few pairs of the same answers prove nothing.
    let good = Upstream::answering(json_response(GOOD));
    let few = replay(&stopped, &judge, good.port, &["--limit", "7"]);
    few.is(4, "not_enough_data");
    assert_eq!(few.report["requests"]["sent"], 7);
    assert_eq!(few.report["requests"]["found"], 40);
    let again = replay(&stopped, &judge, good.port, &["--limit", "7"]);
    assert_eq!(again.report["requests"]["from"], few.report["requests"]["from"], "the same part");
}

/// The judge may fail in the middle: what it did not score is no pair.
#[test]
fn a_judge_that_gives_no_scores_decides_nothing() {
    let stopped = recorded(35);
    let good = Upstream::answering(json_response(GOOD));
    let judge = ScriptedJudge::saying(|_| "I would rather not say.".to_owned());
    let told = replay(&stopped, &judge, good.port, &[]);
    told.is(4, "not_enough_data");
    assert_eq!(told.criterion("fluency")["pairs"], 0);
    assert_eq!(told.report["judge"]["errors"]["unparsable"], 140, "two answers, two criteria");
    let dead = ScriptedJudge::start(|_| Some(status("500 Broken", "", "no")));
    let told = replay(&stopped, &dead, good.port, &[]);
    assert_eq!(told.code, Some(1), "{}", told.printed);
    assert!(told.printed.contains("the judge gives no scores: http_5xx"), "{}", told.printed);
    let blind = ScriptedJudge::start(|asked| {
        let text = asked.verdict(5);
        Some(crate::support::judge::completion(&text).into_bytes())
    });
    let told = replay(&stopped, &blind, good.port, &[]);
    told.is(4, "not_enough_data");
    assert!(told.report["notes"][0].as_str().is_some_and(|note| note.contains("its own test")));
    let mut alone = command(stopped.folder(), &format!("http://127.0.0.1:{}", good.port), &[]);
    let told = self::told(&alone.output().expect("it runs"));
    told.is(4, "not_enough_data");
    assert!(told.report["notes"][0].as_str().is_some_and(|note| note.contains("no `judge`")));
}

#[test]
fn a_streamed_answer_is_read_as_a_tap_reads_it() {
    let sse = |events: &[&str]| {
        let body: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let stream = sse(&[
        r#"{"answer":"The rainfly "}"#,
        r#"{"answer":"keeps 3000 mm out."}"#,
        r#"{"context":"Alpine Explorer: 3000 mm."}"#,
    ]);
    let old = Upstream::answering(stream.clone());
    let flowtap = Setup::before(old.port).top("sample: {rate: 1}").start();
    for n in 0..3 {
        let mut client = flowtap.client();
        let post = json_post("/score", &json!({"question": format!("dry {n}?")}).to_string());
        client.send(post.replacen("Host", "Accept: text/event-stream\r\nHost", 1));
        assert_eq!(client.read_response().status(), 200);
    }
    flowtap.await_idle();
    let stopped = flowtap.stop();
    let new = Upstream::answering(stream);
    let judge = ScriptedJudge::saying(fair);
    let told = replay(&stopped, &judge, new.port, &[]);
    told.is(4, "not_enough_data");
    assert_eq!(told.criterion("groundedness")["new"], 5.0, "{:#}", told.report);
    let asked = judge.questions();
    for asked in asked.iter().filter(|asked| !asked.is_test()) {
        assert_eq!(asked.material("answer"), "The rainfly keeps 3000 mm out.");
    }
    assert!(new.received_text().to_lowercase().contains("accept: text/event-stream"));
    assert!(told.report["new"]["first_token_ms"]["p50"].as_f64().is_some(), "{:#}", told.report);
}

const CUT: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{\"answer\":";
const ENDLESS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: \
                       chunked\r\n\r\n";

/// One bad answer after the other; false where the connection is to be closed after it.
fn misbehave(peer: &mut Peer, turn: usize) -> bool {
    match turn % 5 {
        0 => peer.send(status("500 Broken", "", "<html>")),
        1 => {
            peer.send(CUT);
            false
        }
        2 => {
            peer.send(ENDLESS);
            while peer.chunk("data: {\"answer\":\"more\"}\n\n") {
                std::thread::sleep(Duration::from_millis(20));
            }
            false
        }
        3 => {
            peer.send("\x16\x03no http at all\r\n\r\n");
            false
        }
        _ => peer.send(json_response(&"[".repeat(100_000))),
    }
}

#[test]
fn hostile_answers_are_counted_and_end_in_time() {
    let (stopped, judge) = (recorded(40), ScriptedJudge::saying(fair));
    let turn = AtomicUsize::new(0);
    let hostile = Upstream::start(move |peer| {
        while peer.read_request().is_some() && misbehave(peer, turn.fetch_add(1, SeqCst)) {}
    });
    let began = Instant::now();
    let told = replay(&stopped, &judge, hostile.port, &["--timeout", "1", "--concurrency", "16"]);
    assert!(began.elapsed() < ENDS_WITHIN, "{:?}", began.elapsed());
    told.is(3, "worse");
    let outcomes = &told.report["new"]["outcomes"];
    for outcome in ["upstream_error", "timeout", "upstream_abort"] {
        assert!(outcomes[outcome].as_u64() >= Some(1), "{outcome}: {outcomes}");
    }
    let counts = outcomes.as_object().into_iter().flatten().filter_map(|(_, n)| n.as_u64());
    assert_eq!(counts.sum::<u64>(), 40, "every request ended in one of them: {outcomes}");
    assert_eq!(told.criterion("answered")["verdict"], "worse");
}

#[test]
fn what_cannot_be_done_says_why_and_keeps_secrets() {
    let (stopped, judge) = (recorded(2), ScriptedJudge::saying(fair));
    let nobody = replay(&stopped, &judge, free_port(), &[]);
    assert_eq!(nobody.code, Some(1), "{}", nobody.printed);
    assert!(nobody.printed.contains("cannot be connected to"), "{}", nobody.printed);
    let folder = stopped.folder();
    let headers = folder.join("headers");
    std::fs::write(&headers, "# ours\nauthorization Bearer s-e-c-r-e-t\n").expect("written");
    let headers = headers.display().to_string();
    for (to, more) in [
        ("http://user:s-e-c-r-e-t@127.0.0.1:9", vec![]),
        ("ftp://127.0.0.1:9", vec![]),
        ("http://169.254.169.254", vec![]),
        ("http://127.0.0.1:9", vec!["--headers-file", &headers]),
        ("http://127.0.0.1:9", vec!["--header-env", "authorization=NOT_SET_ANYWHERE"]),
        ("http://127.0.0.1:9", vec!["--header-env", "authorization"]),
        ("http://127.0.0.1:9", vec!["--concurrency", "0"]),
        ("http://127.0.0.1:9", vec!["--margin", "-1"]),
    ] {
        let told = self::told(&command(folder, to, &more).output().expect("it runs"));
        assert_eq!(told.code, Some(64), "{to} {more:?}: {}", told.printed);
        assert!(!told.printed.contains("s-e-c-r-e-t"), "{}", told.printed);
    }
    let empty = replay(&stopped, &judge, 9, &["--from", "2100-01-01"]);
    empty.is(4, "not_enough_data");
    assert_eq!(empty.report["requests"]["skipped"], json!({}), "not even read");
}

#[test]
fn headers_come_from_a_file_or_the_environment() {
    let (stopped, judge) = (recorded(1), ScriptedJudge::saying(fair));
    let new = Upstream::answering(json_response(GOOD));
    let headers = stopped.folder().join("headers");
    std::fs::write(&headers, "azureml-model-deployment: green\n").expect("written");
    let file = config(stopped.folder(), &settings(&judge));
    let to = format!("http://127.0.0.1:{}/score?code=7", new.port);
    let mut command = command(stopped.folder(), &to, &[]);
    command.arg("--config").arg(file).arg("--headers-file").arg(headers);
    command.args(["--header-env", "authorization=TARGET"]).env("TARGET", "Bearer k-e-y");
    let told = self::told(&command.output().expect("it runs"));
    told.is(4, "not_enough_data");
    let came = new.received_text();
    for text in [
        "POST /score?code=7 HTTP/1.1",
        "azureml-model-deployment: green",
        "authorization: Bearer k-e-y",
        r#"{"question":"Is tent 0 dry?"}"#,
    ] {
        assert!(came.contains(text), "{text} is not in {came}");
    }
    assert!(!told.report.to_string().contains("code=7"), "a query may be a secret");
}

#[test]
fn a_flowtap_in_front_measures_a_replay_and_keeps_none_of_it() {
    let (stopped, judge) = (recorded(5), ScriptedJudge::saying(fair));
    let new = Upstream::answering(json_response(GOOD));
    let front = Setup::before(new.port).top("sample: {rate: 1, errors: 1}").start();
    replay(&stopped, &judge, front.port, &[]).is(4, "not_enough_data");
    front.await_metric("flowtap_requests_total", &["outcome=\"ok\""], 5.0);
    let front = front.stop();
    assert_eq!(front.rows("exchanges"), [] as [Value; 0]);
    let counted: u64 = front.rows("usage").iter().filter_map(|row| row["count"].as_u64()).sum();
    assert_eq!(counted, 5);
}

#[test]
fn what_was_redacted_is_counted_or_left_out() {
    let upstream = Upstream::answering(json_response(GOOD));
    let flowtap =
        Setup::before(upstream.port).top("sample: {rate: 1}\nredact: {detect: [email]}").start();
    ask(&flowtap, 1);
    let mut client = flowtap.client();
    client.send(json_post("/score", r#"{"question":"Mail it to ann@example.com"}"#));
    assert_eq!(client.read_response().status(), 200);
    flowtap.await_idle();
    let stopped = flowtap.stop();
    let judge = ScriptedJudge::saying(fair);
    let told = replay(&stopped, &judge, upstream.port, &[]);
    let requests = &told.report["requests"];
    assert_eq!((&requests["sent"], &requests["masked"]), (&json!(2), &json!(1)));
    let cases = rows(&stopped.folder().join("bucket/replays/kind=case"));
    assert_eq!(cases.iter().filter(|case| case["masked"] == true).count(), 1);
    let told = replay(&stopped, &judge, upstream.port, &["--skip-masked"]);
    let requests = &told.report["requests"];
    assert_eq!((&requests["sent"], &requests["skipped"]["masked"]), (&json!(1), &json!(1)));
}

#[test]
fn a_killed_replay_leaves_nothing_behind() {
    let (stopped, judge) = (recorded(5), ScriptedJudge::saying(fair));
    let silent = Upstream::start(|peer| while peer.read_request().is_some() {});
    let file = config(stopped.folder(), &settings(&judge));
    let to = format!("http://127.0.0.1:{}", silent.port);
    let mut command = command(stopped.folder(), &to, &[]);
    let mut process = Process::start("replay", command.arg("--config").arg(file));
    let deadline = Instant::now() + ENDS_WITHIN;
    while !silent.received_text().contains("POST /score") {
        assert!(Instant::now() < deadline, "nothing was sent:\n{}", process.printed());
        std::thread::sleep(Duration::from_millis(20));
    }
    process.terminate();
    process.await_end(Duration::from_secs(30));
    assert!(!stopped.folder().join("bucket/replays").exists());
}

#[test]
fn a_real_flow_is_replayed_against_itself() {
    if !peers_wanted() {
        return;
    }
    let port = free_port();
    let mut flow = Process::start("flask", &mut pf_serve("qa_basic", port, "flask"));
    flow.await_http(port, "/health", UP_WITHIN);
    let flowtap = Setup::before(port).top("sample: {rate: 1}").start();
    for n in 0..32 {
        let mut client = flowtap.client();
        let post = json!({"question": format!("number {n}?"), "chat_history": []}).to_string();
        client.send(json_post("/score", &post));
        assert_eq!(client.read_response().status(), 200);
    }
    flowtap.await_idle();
    let stopped = flowtap.stop();
    let answers = |of: &[Value]| {
        let mut all: Vec<String> = of.iter().map(|row| row["answer"].to_string()).collect();
        all.sort();
        all
    };
    let judge = ScriptedJudge::saying(|asked| asked.verdict(4));
    let told = replay(&stopped, &judge, port, &[]);
    told.is(0, "not_worse");
    let cases = rows(&stopped.folder().join("bucket/replays/kind=case"));
    assert_eq!(answers(&cases), answers(&stopped.rows("exchanges")), "the same flow says the same");
}
