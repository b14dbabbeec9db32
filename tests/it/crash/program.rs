//! The same of the whole program: it ends at a step of the evaluator, of the index, of the spool's newest
//! figures or of the archive, again and again in one folder, and in the end all is there once.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::api::get_with;
use crate::support::books::Books;
use crate::support::judge::ScriptedJudge;
use crate::support::process::Process;
use crate::support::tap::{address, address_in, rows};
use crate::support::wire::{Upstream, json_post, json_response};

/// The steps, and at which passages a run ends, at the latest.
const STEPS: [(&str, u64); 11] = [
    ("claim_put", 3),
    ("scores_begun", 3),
    ("scores_put", 3),
    ("claim_released", 3),
    ("store_written", 6),
    ("store_committed", 6),
    ("spool_noted", 8),
    ("spool_sealed", 3),
    ("spool_booked", 3),
    ("archive_put", 3),
    ("ledger_put", 2),
];
/// No run lives longer.
const LIFE: Duration = Duration::from_secs(10);

fn start(folder: &Path, step: &str) -> Process {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flowtap"));
    command.args(["run", "--config"]).arg(folder.join("flowtap.yaml"));
    Process::start("flowtap", command.env("FLOWTAP_FAILPOINT", step))
}

fn configure(folder: &Path, upstream: &Upstream, judge: &ScriptedJudge) {
    let (shown, upstream, judge) = (folder.display(), upstream.port, judge.url());
    let text = format!(
        "taps: [{{name: chat, listen: 127.0.0.1:0, upstream: \"http://127.0.0.1:{upstream}\"}}]\n\
         admin: {{listen: 127.0.0.1:0}}\n\
         bucket: file://{shown}/bucket\n\
         data_dir: {shown}\n\
         spool: {{dir: {shown}/spool, segment_age: 200ms}}\n\
         store: {{look: 200ms}}\n\
         sample: {{rate: 1}}\n\
         judge: {{url: \"{judge}\", model: m}}\n\
         evaluate: {{criteria: [fluency], measures: [], poll: 100ms}}\n"
    );
    std::fs::write(folder.join("flowtap.yaml"), text).expect("written");
}

/// Asks on one connection until nobody answers any more; how often it was answered.
fn ask(port: u16) -> u64 {
    let mut answered = 0;
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return 0 };
    stream.set_read_timeout(Some(LIFE)).expect("a timeout");
    let question = json_post("/score", "{\"question\":\"how long?\"}");
    let mut answer = vec![0; json_response("{}").len()];
    for _ in 0..5 {
        if stream.write_all(question.as_bytes()).is_err() {
            break;
        }
        match stream.read(&mut answer) {
            Ok(read) if read > 0 => answered += 1,
            _ => break,
        }
    }
    answered
}

/// One run that ends at its step, or is ended; how often it answered, and whether it was the step.
fn live_and_die(folder: &Path, step: &str) -> (u64, bool) {
    let mut process = start(folder, step);
    let (born, mut answered, mut port) = (Instant::now(), 0, None);
    while !process.is_over() {
        if born.elapsed() > LIFE {
            process.signal("KILL");
            process.await_end(LIFE);
            return (answered, false);
        }
        port = port.or_else(|| address_in(&process.printed(), "\"tap\":\"chat\""));
        answered += port.map_or(0, ask);
        std::thread::sleep(Duration::from_millis(50));
    }
    (answered, true)
}

fn ids(rows: &[Value], names: [&str; 2]) -> BTreeSet<String> {
    rows.iter().map(|row| names.map(|name| row[name].to_string()).concat()).collect()
}

/// Waits until each sample is in the bucket, judged, and in the index.
fn await_all(folder: &Path, process: &Process) {
    let admin = address(process, "\"door\":\"admin\"");
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let samples = rows(&folder.join("bucket/exchanges"));
        let scores = rows(&folder.join("bucket/scores"));
        let waiting = std::fs::read_dir(folder.join("spool")).expect("a spool").flatten();
        let waiting = waiting.filter(|e| e.path().extension().is_some_and(|e| e == "seg")).count();
        let shown = get_with(admin, "/samples.jsonl", "").text().lines().count();
        let told = (waiting, scores.len(), shown);
        if told == (0, samples.len(), samples.len()) {
            return;
        }
        let of = samples.len();
        assert!(Instant::now() < deadline, "{told:?} of {of} samples:\n{}", process.printed());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Case 51 of the catalogue, for the parts that read what the archive brought.
/// Promise (operations): after a crash of the program at any step of evaluator, index, spool and archive each
/// sample is stored once, judged once and in the index once, and the books balance. Figure: 11 kills (200 in
/// `make soak`) over 11 steps, 0 missing, 0 twice.
#[test]
fn after_kills_at_every_step_each_sample_is_stored_judged_and_shown_once() {
    let runs = std::env::var("TEST_KILLS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(11);
    let seed = std::env::var("TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(8);
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = Upstream::answering(json_response("{}"));
    let judge = ScriptedJudge::saying(|asked| asked.verdict(4));
    configure(folder.path(), &upstream, &judge);
    let mut chance = crate::soak::Chance(seed);
    let (mut answered, mut at_steps) = (0, 0);
    for run in 0..runs {
        let (step, passages) = STEPS[run % STEPS.len()];
        let step = format!("{step}:kill={}", chance.below(passages) + 1);
        let (more, at_its_step) = live_and_die(folder.path(), &step);
        answered += more;
        at_steps += usize::from(at_its_step);
    }
    let mut process = start(folder.path(), "");
    await_all(folder.path(), &process);
    process.terminate();
    assert!(process.await_end(Duration::from_secs(60)).success(), "{}", process.printed());
    let books = Books::of(folder.path());
    let samples = rows(&folder.path().join("bucket/exchanges"));
    let scores = rows(&folder.path().join("bucket/scores"));
    assert_eq!(ids(&samples, ["id", "tap"]).len() as u64, books.stored, "{books:?}");
    assert_eq!(samples.len() as u64, books.stored, "{books:?}");
    assert_eq!(
        ids(&scores, ["exchange", "criterion"]).len(),
        scores.len(),
        "none was judged twice"
    );
    assert!(at_steps * 2 > runs, "{at_steps} of {runs} ended at their step");
    println!("{runs} kills, {at_steps} at their step: {answered} answered, {books:?}");
}
