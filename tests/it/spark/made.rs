//! A bucket of a week, filled by flowtap's own writers: rollups and scores go through the spool and the
//! archive, as those of a sidecar do. Used by the tests and by `benches/spark.rs`.
#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use flowtap::archive::Archive;
use flowtap::bucket;
use flowtap::config::{self, Config, Overrides, Role};
use flowtap::domain::{
    Criterion, Dataset, Dialect, DropReason, ExchangeId, Judged, ModelNames, Operation, Outcome,
    Row, Scale, Score, ScoreError, Summary, Usage, UsageSource,
};
use flowtap::metrics::Metrics;
use flowtap::rollup::Rollup;
use flowtap::spool::{Spool, Writer};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

/// The week before it is filled.
pub const DUE: &str = "2026-11-23T10:15:00Z";
const WEEK_SECONDS: i64 = 7 * 24 * 3600;
const DEPLOYMENTS: [&str; 3] = ["blue", "green", "canary"];
/// Rows that rollups are taken after, so that memory stays flat.
const ROLLED: u64 = 20_000;
const WITHIN: Duration = Duration::from_secs(600);

/// Numbers that look random and are the same every time (SplitMix64: Steele, Lea & Flood 2014).
pub struct Dice(u64);

impl Dice {
    /// Those of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next one, from 0 to 1.
    pub fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// The settings of whoever fills `folder`/bucket, or reads it with `monitors`.
pub fn settings(folder: &Path, monitors: &str) -> Config {
    let place = folder.display();
    let text = format!(
        "bucket: 'file://{place}/bucket'\nspool: {{dir: '{place}/spool', bytes_max: 8GiB}}\n\
         instance: maker\n{monitors}\n"
    );
    std::fs::create_dir_all(folder).expect("a folder");
    let file = folder.join("flowtap.yaml");
    std::fs::write(&file, text).expect("written");
    let overrides = Overrides { role: Role::Hub, ..Overrides::default() };
    config::load(Some(&file), &overrides, &[]).unwrap_or_else(|faults| panic!("{faults}"))
}

/// Fills the bucket with so many requests, each with a score; every 50th score comes twice. One hour of
/// every `every_hours` has requests: the fewer, the fewer objects.
pub fn fill(folder: &Path, records: u64, every_hours: i64) {
    let config = settings(folder, "");
    let metrics = Metrics::new(&config.metrics);
    let (instance, now) = (Arc::clone(&config.instance), Timestamp::now());
    let (spool, _) =
        Spool::open(&config.spool, Arc::clone(&instance), metrics.clone(), now).expect("a spool");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let bucket = runtime.block_on(bucket::open(&config.bucket)).expect("a bucket");
    let archive = Archive::new(spool.clone(), bucket, spool.ledger(), metrics, instance);
    let (ending, ended) = watch::channel(None);
    let archiving = runtime.spawn(archive.run(ended));
    write(&spool.writer(), records, every_hours, &config.instance);
    assert!(runtime.block_on(spool.close(WITHIN)), "the spool is sealed");
    ending.send(Some(tokio::time::Instant::now() + WITHIN)).expect("it listens");
    runtime.block_on(archiving).expect("the archive ends");
    assert!(spool.sealed().is_empty(), "all of it is in the bucket");
}

fn write(writer: &Writer, records: u64, every_hours: i64, instance: &Arc<str>) {
    let due: Timestamp = DUE.parse().expect("a time");
    let mut rollup = Rollup::new(Arc::clone(instance));
    let mut dice = Dice::new(42);
    for n in 0..records {
        let back = WEEK_SECONDS as f64 * (records - n) as f64 / (records + 1) as f64;
        let hour = (back / 3600.0) as i64 / every_hours * every_hours;
        let within = back % 3600.0;
        let time = due - SignedDuration::from_micros(hour * 3_600_000_000 + (within * 1e6) as i64);
        let summary = summary(n, time, instance, &mut dice);
        rollup.record(&summary, summary.model.request.clone().unwrap_or_default());
        scores(&summary, n, &mut dice).iter().for_each(|score| append(writer, row(score)));
        if n % ROLLED == ROLLED - 1 || n + 1 == records {
            rollup.take_all().into_iter().for_each(|row| append(writer, row));
        }
    }
}

fn append(writer: &Writer, row: Row) {
    while let Err(reason) = writer.try_append(row.clone()) {
        assert_eq!(reason, DropReason::Full, "only the queue stands in the way");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn row(score: &Score) -> Row {
    let json = serde_json::to_vec(score).expect("JSON");
    let (deployment, time) = (Arc::clone(&score.deployment), score.exchange_time);
    Row { dataset: Dataset::Scores, deployment, time, json }
}

fn summary(n: u64, time: Timestamp, instance: &Arc<str>, dice: &mut Dice) -> Summary {
    let slow = dice.next() < 0.05;
    let outcome = match dice.next() {
        share if share < 0.004 => Outcome::Timeout,
        share if share < 0.012 => Outcome::UpstreamError,
        share if share < 0.02 => Outcome::Empty,
        _ => Outcome::Ok,
    };
    let source = match n % 10 {
        0 => UsageSource::Joined,
        1 => UsageSource::Counted,
        _ => UsageSource::Reported,
    };
    let usage = match n % 37 {
        0 => Usage::default(),
        _ => Usage::of(Some(200 + n % 900), Some((dice.next() * 300.0) as u64), source),
    };
    let model =
        (!n.is_multiple_of(10)).then(|| ["gpt-4", "gpt-4o-mini"][(n % 2) as usize].to_owned());
    let deployment = DEPLOYMENTS[(dice.next() * 3.0) as usize % 3];
    let answered = outcome == Outcome::Ok;
    Summary {
        id: ExchangeId::new(time),
        time,
        tap: Arc::from(if model.is_some() { "models" } else { "chat" }),
        deployment: Arc::from(deployment),
        instance: Arc::clone(instance),
        dialect: Dialect::Openai,
        operation: if model.is_some() { Operation::Chat } else { Operation::Score },
        method: "POST".to_owned(),
        path: "/v1/chat/completions".to_owned(),
        status: answered.then_some(200),
        outcome,
        fault: None,
        model: ModelNames { request: model, response: None },
        stream: n.is_multiple_of(3),
        // From a tenth of a second to a minute, and once in a while none at all.
        latency_ms: if n.is_multiple_of(9973) {
            0.0
        } else {
            100.0 * (dice.next() * if slow { 6.4 } else { 4.0 }).exp()
        },
        first_byte_ms: None,
        first_token_ms: n.is_multiple_of(3).then(|| 90.0 + 400.0 * dice.next()),
        overhead_us: 40,
        usage,
        provider: None,
        finish_reason: None,
        response_id: None,
    }
}

/// A score or two: judged, refused, not applicable, drifted, computed, or a user's.
fn scores(summary: &Summary, n: u64, dice: &mut Dice) -> Vec<Score> {
    const CRITERIA: [Criterion; 5] = [
        Criterion::Groundedness,
        Criterion::Relevance,
        Criterion::Coherence,
        Criterion::Fluency,
        Criterion::UserFeedback,
    ];
    let criterion = CRITERIA[(n % 5) as usize];
    let kept = if summary.outcome == Outcome::Ok { 0.1 } else { 1.0 };
    let users = criterion == Criterion::UserFeedback;
    let given = 5 - (dice.next().powi(3) * 5.0) as u8;
    let time = summary.time + SignedDuration::from_secs(90);
    let judge = Judged {
        model: "gpt-4".to_owned(),
        prompt: format!("{}@1", criterion.label()),
        input: Some(700),
        output: Some(30),
        latency_ms: 800.0,
        truncated: false,
    };
    let mut score = Score {
        schema: Score::SCHEMA.to_owned(),
        id: ExchangeId::new(time),
        time,
        exchange: summary.id,
        exchange_time: summary.time,
        tap: Arc::clone(&summary.tap),
        deployment: Arc::clone(&summary.deployment),
        instance: Arc::clone(&summary.instance),
        criterion,
        name: None,
        scale: criterion.scale(),
        score: Some(given),
        value: None,
        error: None,
        reason: Some("it says \"why\": {in}\u{2028} détail".to_owned()),
        probability: if users { 1.0 } else { kept },
        // A draw in which some had half the chance, and lines of an older version.
        probability_least: (!n.is_multiple_of(5)).then_some(if users { 1.0 } else { 0.05 }),
        judge: (!users).then_some(judge),
        injection_suspect: n.is_multiple_of(211),
        judge_drift: n.is_multiple_of(307),
    };
    match n % 53 {
        0 => (score.score, score.error) = (None, Some(ScoreError::Unparsable)),
        1 => (score.score, score.error) = (None, Some(ScoreError::MissingContext)),
        2 => (score.score, score.value) = (None, Some(0.25)),
        3 => score.name = Some(Arc::from("politeness")),
        _ => {}
    }
    let mut both = vec![score.clone(), other(&score, n, dice)];
    if n % 50 == 7 {
        // Judged again: the later one counts, unless it failed.
        let failed = n % 100 == 7;
        score.time += SignedDuration::from_hours(1);
        score.score = (!failed).then_some(1);
        score.error = failed.then_some(ScoreError::Timeout);
        both.push(score);
    }
    both
}

/// A score of a computed criterion, or of one of somebody's own, as `of` is one of a rated one.
fn other(of: &Score, n: u64, dice: &mut Dice) -> Score {
    let mut score = Score {
        id: ExchangeId::new(of.time),
        scale: None,
        score: None,
        error: None,
        reason: None,
        judge: None,
        judge_drift: n.is_multiple_of(401),
        ..of.clone()
    };
    let truth = f64::from(u8::from(dice.next() < 0.07));
    let custom = |name: &str| (Criterion::Custom, Some(Arc::from(name)));
    ((score.criterion, score.name), score.value) = match n % 7 {
        0 | 1 => ((Criterion::F1, None), Some(dice.next().sqrt())),
        2 | 3 => ((Criterion::Refusal, None), Some(truth)),
        4 => (custom("politeness"), None),
        // The name of one of ours: left out.
        5 => (custom("fluency"), Some(1.0)),
        _ => (custom("in_scope"), Some(1.0 - truth)),
    };
    match n % 7 {
        4 if n.is_multiple_of(2) => score.scale = Some(Scale::Score),
        6 if n.is_multiple_of(2) => score.scale = Some(Scale::Boolean),
        _ => {}
    }
    if score.criterion == Criterion::Custom && score.value.is_none() {
        score.score = Some(2 + (dice.next() * 4.0) as u8);
    }
    match n % 61 {
        0 => score.value = Some(1.5),
        1 => (score.value, score.error) = (None, Some(ScoreError::MissingGroundTruth)),
        2 => (score.value, score.score) = (Some(0.0), Some(9)),
        _ => {}
    }
    score
}
