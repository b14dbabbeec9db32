//! The store by itself: what goes in comes out, once, and nothing bad comes in.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::config::Retention;
use crate::domain::{Criterion, Dataset, ExchangeId, Grade, Outcome};
use crate::drain::Drain;

mod scales;

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn settings(dir: &Path) -> config::Store {
    let retention = Retention { age: Duration::from_secs(90 * 86_400), bytes_max: 1 << 30 };
    config::Store { dir: dir.to_owned(), look: Duration::from_secs(1), retention }
}

/// A store in a folder of its own, with its writer at work.
struct Bench {
    store: Store,
    _folder: tempfile::TempDir,
}

/// A writer in a thread of its own.
fn at_work(writer: Writer) -> Drain {
    let drain = Drain::default();
    drain.thread("store", move || writer.run()).expect("a thread");
    drain
}

fn bench() -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, writer) = Store::open(&settings(folder.path()), false).expect("opens");
    drop(at_work(writer));
    Bench { store, _folder: folder }
}

fn id(n: u8) -> ExchangeId {
    let mut bytes = [0; 16];
    bytes[15] = n;
    ExchangeId::from_bytes(bytes)
}

fn sample(n: u8, time: &str) -> Value {
    json!({
        "schema": "flowtap.exchange.v1", "id": id(n), "time": time, "tap": "chat",
        "deployment": "blue", "operation": "score", "status": 200, "outcome": "ok",
        "model": {"request": null, "response": "gpt-4"}, "stream": false,
        "latency_ms": f64::from(n) * 10.0, "first_token_ms": null,
        "usage": {"input": 10, "output": n, "total": 10 + u64::from(n), "cached_input": null,
                  "reasoning_output": null, "source": "reported"},
        "question": format!("What is number {n}?"), "answer": "Ein schöner Tag",
        "sample": {"reason": "rate", "probability": 0.1},
    })
}

fn score(n: u8, criterion: &str, score: Value, time: &str) -> Value {
    json!({
        "schema": "flowtap.score.v1", "id": id(100 + n), "time": time, "exchange": id(n),
        "exchange_time": "2026-11-23T22:47:50.000001Z", "tap": "chat", "deployment": "blue",
        "instance": "pod", "criterion": criterion, "score": score, "error": null,
        "reason": "because", "probability": 0.1, "judge": null, "injection_suspect": false,
    })
}

fn usage(time: &str, outcome: &str, latency_ms: &[f64]) -> Value {
    let mut histogram = crate::rollup::Histogram::default();
    latency_ms.iter().for_each(|ms| histogram.record(*ms));
    let empty = crate::rollup::Histogram::default();
    json!({
        "schema": "flowtap.usage.v1", "time": time, "tap": "chat", "deployment": "blue",
        "instance": "pod", "model": "gpt-4", "operation": "chat", "outcome": outcome,
        "stream": true, "count": latency_ms.len(),
        "tokens": {"reported": {"count": latency_ms.len(), "input": 7, "output": 3, "total": 10,
                                "cached_input": 0, "reasoning_output": 0}},
        "usage_unknown": 0, "latency_ms": histogram, "first_token_ms": empty,
        "input_tokens": empty, "output_tokens": empty,
    })
}

fn piece(object: &str, dataset: Dataset, lines: &[Value]) -> Piece {
    let mut piece = Piece {
        object: object.to_owned(),
        bytes: 1,
        dataset,
        lines: Vec::new(),
        faults: Vec::new(),
        through: lines.len() as u64,
        whole: true,
    };
    for (number, line) in (1..).zip(lines) {
        match Line::parse(dataset, line.to_string().as_bytes()) {
            Ok(line) => piece.lines.push((number, line)),
            Err(fault) => piece.faults.push((number, fault)),
        }
    }
    piece
}

impl Bench {
    async fn put(&self, object: &str, dataset: Dataset, lines: &[Value]) -> Stored {
        let now = at("2026-11-23T23:00:00Z");
        self.store.put_piece(piece(object, dataset, lines), now).await.expect("stored")
    }

    fn numbers(&self, query: &SampleQuery) -> Vec<u8> {
        let rows = self.store.samples(query).expect("an answer");
        rows.iter().map(|row| row.id.to_bytes()[15]).collect()
    }
}

fn day() -> Window {
    Window { from: at("2026-11-23T00:00:00Z"), to: at("2026-11-24T00:00:00Z") }
}

fn query() -> SampleQuery {
    SampleQuery {
        window: day(),
        filter: Filter::default(),
        text: None,
        criterion: None,
        scores: None,
        sort: Sort::Time,
        order: Order::Descending,
        after: None,
        limit: 10,
    }
}

#[tokio::test]
async fn a_sample_is_stored_once_whatever_object_brings_it() {
    let bench = bench();
    let lines =
        [sample(1, "2026-11-23T22:47:50.000001Z"), sample(2, "2026-11-23T22:47:50.000001Z")];
    assert_eq!(bench.put("a", Dataset::Exchanges, &lines).await.rows, 2);
    assert_eq!(bench.put("a", Dataset::Exchanges, &lines).await.rows, 0);
    assert_eq!(bench.put("b", Dataset::Exchanges, &lines).await.rows, 0);
    assert_eq!(bench.numbers(&query()), [2, 1]);
    let (row, found) = bench.store.sample(id(2)).expect("read").expect("known");
    assert_eq!((found.object.as_str(), found.line), ("a", 2));
    assert_eq!(row.question.as_deref(), Some("What is number 2?"));
    assert_eq!((row.total, row.model.as_str(), row.status), (Some(12), "gpt-4", Some(200)));
    assert_eq!(row.time, at("2026-11-23T22:47:50.000001Z"));
    assert!(bench.store.sample(id(9)).expect("read").is_none());
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended_in_every_order() {
    let bench = bench();
    let lines: Vec<_> =
        (1..=25).map(|n| sample(n, &format!("2026-11-23T22:47:{:02}Z", n % 20))).collect();
    bench.put("a", Dataset::Exchanges, &lines).await;
    for sort in [Sort::Time, Sort::Latency, Sort::Tokens] {
        for order in [Order::Ascending, Order::Descending] {
            let mut query = SampleQuery { sort, order, limit: 4, ..query() };
            let mut seen = Vec::new();
            loop {
                let rows = bench.store.samples(&query).expect("an answer");
                let Some(last) = rows.last() else { break };
                query.after = Some(last.spot);
                seen.extend(rows.iter().map(|row| row.id.to_bytes()[15]));
            }
            let mut sorted = seen.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (1..=25).collect::<Vec<_>>(), "{sort:?} {order:?}");
            if sort != Sort::Time {
                sorted.sort_by_key(|n| if order == Order::Ascending { *n } else { 255 - n });
                assert_eq!(seen, sorted, "{sort:?} {order:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_frequent_word_is_found_in_the_rows_order_as_a_rare_one_is() {
    let bench = bench();
    let lines: Vec<_> = (1..=60)
        .map(|n| {
            let mut line = sample(n, &format!("2026-11-23T22:47:{:02}Z", n % 7));
            line["answer"] = json!(if n % 3 == 0 { "a rare one" } else { "as usual" });
            line["latency_ms"] = json!(u64::from(n) * 37 % 50);
            line
        })
        .collect();
    bench.put("a", Dataset::Exchanges, &lines).await;
    for (text, sort, order) in [
        ("usual", Sort::Latency, Order::Descending),
        ("usual", Sort::Tokens, Order::Ascending),
        ("rare number", Sort::Latency, Order::Ascending),
        ("nowhere", Sort::Latency, Order::Ascending),
        ("( AND", Sort::Latency, Order::Ascending),
    ] {
        let mut query = SampleQuery { text: Some(text.into()), sort, order, limit: 7, ..query() };
        for _ in 0..8 {
            let found = |few| bench.store.read(READ_WITHIN, |db| samples::spots(db, &query, few));
            let (probed, joined) = (found(-1), found(i64::MAX));
            let joined = joined.expect("an answer");
            assert_eq!(probed.expect("an answer"), joined, "{text} {sort:?} {order:?}");
            query.after = joined.last().copied().or(query.after);
        }
    }
}

#[tokio::test]
async fn samples_are_found_by_words_labels_and_scores() {
    let bench = bench();
    let mut odd = sample(3, "2026-11-23T22:47:50Z");
    odd["outcome"] = json!("timeout");
    odd["answer"] = json!({"text": "nested words"});
    let lines = [sample(1, "2026-11-23T22:47:50Z"), sample(2, "2026-11-23T22:47:51Z"), odd];
    bench.put("a", Dataset::Exchanges, &lines).await;
    let scores = [
        score(1, "groundedness", json!(5), "2026-11-23T22:48:00Z"),
        score(1, "fluency", json!(2), "2026-11-23T22:48:00Z"),
        score(2, "groundedness", json!(1), "2026-11-23T22:48:00Z"),
        score(3, "groundedness", json!(null), "2026-11-23T22:48:00Z"),
    ];
    assert_eq!(bench.put("s", Dataset::Scores, &scores).await.rows, 4);
    let text = |text: &str| bench.numbers(&SampleQuery { text: Some(text.into()), ..query() });
    assert_eq!(text("schoner tag"), [2, 1], "without regard to case and accents");
    assert_eq!(text("numb* nested"), [3]);
    assert_eq!(text("\"number 2\""), [2]);
    assert_eq!(text("( AND"), [0_u8; 0], "no word of the texts");
    let filter = Filter { outcome: Some(Outcome::Timeout), ..Filter::default() };
    assert_eq!(bench.numbers(&SampleQuery { filter, ..query() }), [3]);
    let scored = |criterion, low, high| {
        bench.numbers(&SampleQuery { criterion, scores: Some((low, high)), ..query() })
    };
    assert_eq!(scored(Some(Criterion::Groundedness), 1, 3), [2]);
    assert_eq!(scored(None, 1, 2), [2, 1], "the lowest of all");
    assert_eq!(scored(Some(Criterion::Fluency), 3, 5), [0_u8; 0]);
    let worst = SampleQuery { sort: Sort::Score, order: Order::Ascending, ..query() };
    assert_eq!(bench.numbers(&worst), [2, 1], "those without a score are left out");
    let told = bench.store.scores(id(1)).expect("read");
    let grades: Vec<_> = told.iter().map(|row| row.grade).collect();
    assert_eq!(grades, [Some(Grade::Score(2)), Some(Grade::Score(5))]);
}

#[tokio::test]
async fn sums_of_scores_are_the_same_in_whatever_order_they_come() {
    let samples = [sample(1, "2026-11-23T22:47:50.000001Z")];
    let scores = [
        score(1, "fluency", json!(2), "2026-11-23T22:48:00Z"),
        score(1, "fluency", json!(4), "2026-11-23T22:49:00Z"),
        score(1, "fluency", json!(null), "2026-11-23T22:50:00Z"),
    ];
    let model = Filter { model: Some("gpt-4".into()), ..Filter::default() };
    let mut told = Vec::new();
    for order in [["x", "s"], ["s", "x"]] {
        let bench = bench();
        for object in order {
            match object {
                "x" => bench.put("x", Dataset::Exchanges, &samples).await,
                _ => bench.put("s", Dataset::Scores, &scores).await,
            };
        }
        let rows = bench.store.quality(day(), &model, Some(3600), Some(Axis::Deployment));
        told.push(rows.expect("an answer"));
    }
    assert_eq!(told[0].len(), 1);
    let row = &told[0][0];
    assert_eq!((row.time, row.group.as_deref()), (at("2026-11-23T22:00:00Z"), Some("blue")));
    let grade = Some(Grade::Score(4));
    let four = Scored { grade, drift: false, probability: 0.1, least: 0.1, count: 1 };
    assert_eq!(row.sums.scored(), [four]);
    assert_eq!(told[0], told[1]);
}

#[tokio::test]
async fn totals_merge_by_span_and_group() {
    let bench = bench();
    let lines = [
        usage("2026-11-23T22:47:00Z", "ok", &[100.0, 200.0]),
        usage("2026-11-23T22:47:00Z", "ok", &[300.0]),
        usage("2026-11-23T23:05:00Z", "timeout", &[9000.0]),
    ];
    bench.put("u", Dataset::Usage, &lines).await;
    bench.put("u", Dataset::Usage, &lines).await;
    let all = bench.store.usage(day(), &Filter::default(), None, &[]).expect("an answer");
    assert_eq!(all.len(), 1);
    assert_eq!((all[0].totals.count, all[0].totals.latency_ms.count()), (4, 4), "once");
    assert_eq!(all[0].totals.tokens_of(|_| true).input, 21);
    let hours = bench.store.usage(day(), &Filter::default(), Some(3600), &[Axis::Outcome]);
    let told: Vec<_> =
        hours.expect("an answer").into_iter().map(|s| (s.time, s.group, s.totals.count)).collect();
    assert_eq!(
        told,
        [
            (at("2026-11-23T22:00:00Z"), vec!["ok".to_owned()], 3),
            (at("2026-11-23T23:00:00Z"), vec!["timeout".to_owned()], 1),
        ]
    );
    let minute = Window { from: at("2026-11-23T22:46:30Z"), to: at("2026-11-23T22:47:01Z") };
    let told = bench.store.usage(minute, &Filter::default(), None, &[]).expect("an answer");
    assert_eq!(told[0].totals.count, 3, "a minute counts where it begins");
}

#[tokio::test]
async fn what_cannot_be_read_is_set_aside_and_named() {
    let bench = bench();
    let mut wrong = sample(2, "2026-11-23T22:47:50Z");
    wrong["sample"]["probability"] = json!(0);
    let mut broken = usage("2026-11-23T22:47:00Z", "ok", &[1.0]);
    broken["latency_ms"]["count"] = json!(7);
    let lines = [
        sample(1, "2026-11-23T22:47:50Z"),
        wrong,
        json!({"schema": "flowtap.exchange.v9"}),
        json!("text"),
    ];
    let stored = bench.put("a", Dataset::Exchanges, &lines).await;
    assert_eq!(stored.rows, 1);
    assert_eq!(
        stored.faults,
        [(2, LineFault::Field), (3, LineFault::Schema), (4, LineFault::NotJson)]
    );
    let again = bench.put("a", Dataset::Exchanges, &lines).await;
    assert_eq!(again, Stored::default(), "each is told once");
    let told = bench.put("u", Dataset::Usage, &[broken]).await;
    assert_eq!(told.faults, [(1, LineFault::Field)]);
    let named = bench.store.quarantined(10).expect("an answer");
    assert_eq!((named.len(), named[0].object.as_str(), named[0].line), (4, "u", 1));
}

#[tokio::test]
async fn an_object_written_once_that_changed_is_not_added_twice() {
    let bench = bench();
    let lines = [usage("2026-11-23T22:47:00Z", "ok", &[100.0])];
    bench.put("u", Dataset::Usage, &lines).await;
    let mut changed = piece("u", Dataset::Usage, &lines);
    changed.bytes = 2;
    let now = at("2026-11-23T23:00:00Z");
    let stored = bench.store.put_piece(changed, now).await.expect("stored");
    assert_eq!(stored.faults, [(0, LineFault::Changed)]);
    let known = bench.store.known("u").expect("an answer");
    assert_eq!(known["u"], Known { bytes: 2, lines: 1, whole: true });
}

#[tokio::test]
async fn what_lies_before_the_horizon_is_forgotten_and_stays_so() {
    let bench = bench();
    let lines = [sample(1, "2026-11-20T22:47:50Z"), sample(2, "2026-11-23T22:47:50Z")];
    bench.put("a", Dataset::Exchanges, &lines).await;
    let rows =
        [usage("2026-11-20T22:47:00Z", "ok", &[1.0]), usage("2026-11-23T22:47:00Z", "ok", &[1.0])];
    bench.put("u", Dataset::Usage, &rows).await;
    let retention = Retention { age: Duration::from_secs(86_400), bytes_max: 1 << 30 };
    let horizon = bench.store.retain(&retention, at("2026-11-23T23:10:00Z")).await;
    assert_eq!(horizon.expect("kept"), at("2026-11-22T23:00:00Z"));
    let ever = Window { from: Timestamp::UNIX_EPOCH, to: at("2030-01-01T00:00:00Z") };
    assert_eq!(bench.numbers(&SampleQuery { window: ever, ..query() }), [2]);
    let text = Some("number".to_owned());
    assert_eq!(bench.numbers(&SampleQuery { window: ever, text, ..query() }), [2]);
    let total = |bench: &Bench| {
        let sums = bench.store.usage(ever, &Filter::default(), None, &[]).expect("an answer");
        sums.iter().map(|sum| sum.totals.count).sum::<u64>()
    };
    assert_eq!(total(&bench), 1);
    bench.put("b", Dataset::Exchanges, &lines).await;
    bench.put("v", Dataset::Usage, &rows[..1]).await;
    assert_eq!(bench.numbers(&SampleQuery { window: ever, ..query() }), [2]);
    assert_eq!(total(&bench), 1);
}

#[tokio::test]
async fn a_file_too_large_loses_its_oldest_hours() {
    let bench = bench();
    for hour in 0..20 {
        let lines: Vec<_> = (0..50)
            .map(|n| {
                let mut line = sample(n, &format!("2026-11-23T{hour:02}:47:{n:02}Z"));
                line["id"] = json!(ExchangeId::new(at("2026-11-23T00:00:00Z")));
                line["question"] = json!("many words ".repeat(200));
                line
            })
            .collect();
        bench.put(&format!("{hour}"), Dataset::Exchanges, &lines).await;
    }
    let before = bench.store.samples(&SampleQuery { limit: 5000, ..query() }).unwrap().len();
    let retention = Retention { age: Duration::from_secs(90 * 86_400), bytes_max: 400_000 };
    let horizon = bench.store.retain(&retention, at("2026-11-23T21:00:00Z")).await.unwrap();
    let after = bench.store.samples(&SampleQuery { limit: 5000, ..query() }).unwrap();
    assert_eq!(before, 1000);
    assert!(!after.is_empty() && after.len() < 1000, "{}", after.len());
    assert!(after.iter().all(|row| row.time >= horizon));
}

fn run(at: &str, resolved: Option<&str>) -> Value {
    json!({
        "schema": "flowtap.monitor.v1", "id": format!("daily@{at}"), "monitor": "daily", "at": at,
        "state": if resolved.is_some() { "ok" } else { "violated" },
        "signals": [{"kind": "operations", "measures": [{"metric": "error_rate", "value": 0.3}]}],
        "alerts": [{"signal": "operations", "metric": "error_rate",
                    "since": "2026-11-23T10:00:00Z", "told": at, "resolved": resolved}],
    })
}

#[tokio::test]
async fn runs_tell_of_their_alerts_in_whatever_order_they_come() {
    let bench = bench();
    let over = "2026-11-23T12:00:00Z";
    let runs = [run(over, Some(over)), run("2026-11-23T10:00:00Z", None)];
    bench.put("m", Dataset::Monitors, &runs).await;
    let alerts = bench.store.alerts(None, day(), 10).expect("read");
    assert_eq!(alerts.len(), 1);
    let alert = &alerts[0];
    assert_eq!(alert.id, "daily/operations/error_rate/1795428000");
    assert_eq!((alert.state.as_str(), alert.updated), ("resolved", at(over)));
    assert_eq!(alert.document["measure"]["value"], 0.3);
    assert_eq!(alert.document["run"], format!("daily@{over}"));
    assert_eq!(bench.store.alerts(Some("open"), day(), 10).expect("read"), []);
    assert_eq!(bench.store.alert(&alert.id).expect("read").as_ref(), Some(alert));
    let told = bench.store.runs(Some("daily"), day(), 10).expect("read");
    assert_eq!(told.iter().map(|run| &run.document).collect::<Vec<_>>(), [&runs[0], &runs[1]]);
    let one = bench.store.run("daily@2026-11-23T10:00:00Z").expect("read");
    assert_eq!(one.map(|run| run.state).as_deref(), Some("violated"));
}

#[tokio::test]
async fn notes_are_kept_when_the_index_is_made_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = |anew| {
        let (store, writer) = Store::open(&settings(folder.path()), anew).expect("opens");
        let thread = at_work(writer);
        (Bench { store, _folder: tempfile::tempdir().unwrap() }, thread)
    };
    let (bench, thread) = open(false);
    bench.put("a", Dataset::Exchanges, &[sample(1, "2026-11-23T22:47:50Z")]).await;
    bench.store.put_note("cursor", "42").await.expect("noted");
    let locked = Store::open(&settings(folder.path()), false);
    assert!(matches!(locked, Err(StoreError::Locked { .. })));
    drop(bench);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    assert!(thread.join("store", deadline).is_empty(), "it ended by itself");
    let (bench, thread) = open(true);
    assert_eq!(bench.numbers(&query()), [0_u8; 0]);
    assert_eq!(bench.store.note("cursor").expect("read").as_deref(), Some("42"));
    drop(bench);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    assert!(thread.join("store", deadline).is_empty(), "it ended by itself");
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_and_a_file_of_the_future_too() {
    for damage in [b"not a database, but long enough to be looked at".repeat(100), Vec::new()] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE);
        if damage.is_empty() {
            let db = Connection::open(&path).expect("made");
            db.execute_batch("PRAGMA user_version = 999").expect("set");
        } else {
            std::fs::write(&path, damage).expect("written");
        }
        let (store, writer) = Store::open(&settings(folder.path()), false).expect("opens");
        drop(at_work(writer));
        store.put_note("a", "b").await.expect("it works");
        assert!(folder.path().join("flowtap.db.aside").exists());
    }
}

#[tokio::test]
async fn a_read_ends_at_its_deadline() {
    let bench = bench();
    let endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) \
                   SELECT count(*) FROM n";
    let started = std::time::Instant::now();
    let limit = Duration::from_millis(200);
    let late =
        bench.store.read(limit, |db| Ok(db.query_row(endless, [], |row| row.get::<_, i64>(0))?));
    assert!(matches!(late, Err(StoreError::Late)), "{late:?}");
    assert!(started.elapsed() < Duration::from_secs(30));
    let refused = bench.store.read(limit, |db| Ok(db.execute("DELETE FROM notes", [])?));
    assert!(matches!(refused, Err(StoreError::Database(_))), "readers cannot write");
}

#[tokio::test]
async fn one_that_fails_takes_nothing_else_with_it() {
    let bench = bench();
    let failing = bench.store.write(|session| {
        session.put_note("lost", "1")?;
        Ok(session.db.execute("INSERT INTO nowhere VALUES(1)", [])?)
    });
    let fine = bench.store.put_note("kept", "1");
    let (failed, fine) = tokio::join!(failing, fine);
    assert!(matches!(failed, Err(StoreError::Database(_))));
    fine.expect("noted");
    assert_eq!(bench.store.note("lost").expect("read"), None);
    assert_eq!(bench.store.note("kept").expect("read").as_deref(), Some("1"));
}
