//! Rollups: totals of ALL requests, sampled or not, one row a minute for each combination of labels.
//!
//! Rows are mergeable: counts and sums add up, histograms merge by addition. An exchange belongs to
//! the minute in which it began; one that ends after its minute was taken gives the minute another
//! row, so readers add rows up and never expect exactly one. No text of any exchange is in them.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::{Dataset, Operation, Outcome, Row, Summary};

mod bytes;
mod histogram;
mod row;
mod totals;

pub use histogram::Histogram;
pub use row::UsageRow;
pub use totals::{Tokens, Totals};

/// Combinations of labels in one minute; past it models become `other`.
const KEYS_MAX: usize = 1000;
/// The model of what came after the limit.
const OTHER: &str = "other";
/// A minute is taken when it is over by so long, so that what ends late rarely needs another row.
const GRACE_SECONDS: i64 = 5;

/// What a row is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    tap: Arc<str>,
    deployment: Arc<str>,
    model: Arc<str>,
    operation: Operation,
    outcome: Outcome,
    stream: bool,
}

/// Adds up the exchanges of each minute.
#[derive(Debug)]
pub struct Rollup {
    instance: Arc<str>,
    /// By minute since the epoch.
    minutes: BTreeMap<i64, BTreeMap<Key, Totals>>,
}

/// The form of a row; docs/RECORD.md tells its fields.
#[derive(Serialize)]
struct Written<'a> {
    schema: &'static str,
    time: Timestamp,
    tap: &'a str,
    deployment: &'a str,
    instance: &'a str,
    model: &'a str,
    operation: Operation,
    outcome: Outcome,
    stream: bool,
    #[serde(flatten)]
    totals: &'a Totals,
}

impl Rollup {
    /// The schema that rows are written in.
    pub const SCHEMA: &'static str = "flowtap.usage.v1";

    /// An empty rollup of the process `instance`.
    pub fn new(instance: Arc<str>) -> Self {
        Self { instance, minutes: BTreeMap::new() }
    }

    /// Adds one exchange; `model_label` is its model's name as bounded for metrics.
    pub fn record(&mut self, summary: &Summary, model_label: impl Into<Arc<str>>) {
        let minute = summary.time.as_second().div_euclid(60);
        let totals = self.minutes.entry(minute).or_default();
        let mut key = key(summary, model_label.into());
        if totals.len() >= KEYS_MAX && !totals.contains_key(&key) {
            key.model = Arc::from(OTHER);
        }
        totals.entry(key).or_default().add(summary);
    }

    /// The rows of all minutes that are over at `now`; they are forgotten here.
    pub fn take_finished(&mut self, now: Timestamp) -> Vec<Row> {
        let current = (now.as_second() - GRACE_SECONDS).div_euclid(60);
        let rest = self.minutes.split_off(&current);
        let finished = std::mem::replace(&mut self.minutes, rest);
        self.rows(&finished)
    }

    /// All rows, the current minute's too: for shutting down.
    pub fn take_all(&mut self) -> Vec<Row> {
        let all = std::mem::take(&mut self.minutes);
        self.rows(&all)
    }

    fn rows(&self, minutes: &BTreeMap<i64, BTreeMap<Key, Totals>>) -> Vec<Row> {
        let totals = minutes.iter().flat_map(|(minute, totals)| {
            totals.iter().filter_map(|(key, totals)| self.row(*minute, key, totals))
        });
        totals.collect()
    }

    fn row(&self, minute: i64, key: &Key, totals: &Totals) -> Option<Row> {
        let time = Timestamp::from_second(minute * 60).ok()?;
        let written = Written {
            schema: Self::SCHEMA,
            time,
            tap: &key.tap,
            deployment: &key.deployment,
            instance: &self.instance,
            model: &key.model,
            operation: key.operation,
            outcome: key.outcome,
            stream: key.stream,
            totals,
        };
        let json = serde_json::to_vec(&written).ok()?;
        let deployment = Arc::clone(&key.deployment);
        Some(Row { dataset: Dataset::Usage, deployment, time, json })
    }
}

fn key(summary: &Summary, model: Arc<str>) -> Key {
    Key {
        tap: Arc::clone(&summary.tap),
        deployment: Arc::clone(&summary.deployment),
        model,
        operation: summary.operation,
        outcome: summary.outcome,
        stream: summary.stream,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{Dialect, ExchangeId, ModelNames, Usage, UsageSource};

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn summary(time: &str) -> Summary {
        Summary {
            id: ExchangeId::new(at(time)),
            time: at(time),
            tap: Arc::from("chat"),
            deployment: Arc::from("blue"),
            instance: Arc::from("pod-1"),
            dialect: Dialect::Openai,
            operation: Operation::Chat,
            method: "POST".to_owned(),
            path: "/v1/chat/completions".to_owned(),
            status: Some(200),
            outcome: Outcome::Ok,
            fault: None,
            model: ModelNames::default(),
            stream: true,
            latency_ms: 812.4,
            first_byte_ms: Some(95.1),
            first_token_ms: Some(101.7),
            overhead_us: 38,
            usage: Usage::of(Some(412), Some(96), UsageSource::Reported),
            provider: None,
            finish_reason: None,
            response_id: None,
        }
    }

    fn rollup() -> Rollup {
        Rollup::new(Arc::from("pod-1"))
    }

    fn json_of(row: &Row) -> Value {
        serde_json::from_slice(&row.json).expect("json")
    }

    #[test]
    fn a_minute_gives_one_row_with_exact_totals() {
        let mut rollup = rollup();
        rollup.record(&summary("2026-11-23T22:47:01Z"), "gpt-4");
        rollup.record(&summary("2026-11-23T22:47:59.9Z"), "gpt-4");
        let unknown = Summary { usage: Usage::default(), ..summary("2026-11-23T22:47:30Z") };
        rollup.record(&unknown, "gpt-4");
        assert!(rollup.take_finished(at("2026-11-23T22:48:04Z")).is_empty(), "within the grace");
        let rows = rollup.take_finished(at("2026-11-23T22:48:05Z"));
        assert_eq!(rows.len(), 1);
        assert_eq!((rows[0].dataset, rows[0].time), (Dataset::Usage, at("2026-11-23T22:47:00Z")));
        let row = json_of(&rows[0]);
        assert_eq!(row["schema"], "flowtap.usage.v1");
        assert_eq!((&row["count"], &row["usage_unknown"]), (&json!(3), &json!(1)));
        assert_eq!(row["tokens"]["reported"]["input"], 824);
        assert_eq!(row["tokens"]["reported"]["total"], 1016);
        assert_eq!(row["latency_ms"]["buckets"], json!({"77": 3}));
        assert_eq!(row["output_tokens"]["count"], 2, "unknown is no zero");
        assert!(rollup.take_all().is_empty());
    }

    #[test]
    fn labels_keep_apart_what_they_name() {
        let mut rollup = rollup();
        let base = summary("2026-11-23T22:47:01Z");
        rollup.record(&base, "gpt-4");
        rollup.record(&base, "gpt-4o");
        rollup.record(&Summary { outcome: Outcome::Timeout, ..base.clone() }, "gpt-4");
        rollup.record(&Summary { stream: false, ..base.clone() }, "gpt-4");
        rollup.record(&Summary { deployment: Arc::from("green"), ..base.clone() }, "gpt-4");
        rollup.record(&summary("2026-11-23T22:48:01Z"), "gpt-4");
        assert_eq!(rollup.take_all().len(), 6);
    }

    #[test]
    fn the_number_of_rows_is_bounded_and_no_request_is_lost() {
        let mut rollup = rollup();
        for i in 0..5000 {
            rollup.record(&summary("2026-11-23T22:47:01Z"), format!("model-{i}"));
        }
        let rows = rollup.take_all();
        assert_eq!(rows.len(), KEYS_MAX + 1);
        let counts: u64 = rows.iter().filter_map(|row| json_of(row)["count"].as_u64()).sum();
        assert_eq!(counts, 5000);
        assert!(rows.iter().any(|row| json_of(row)["model"] == OTHER));
    }

    #[test]
    fn what_ends_late_gives_its_minute_another_row() {
        let mut rollup = rollup();
        rollup.record(&summary("2026-11-23T22:47:01Z"), "gpt-4");
        let first = rollup.take_finished(at("2026-11-23T22:49:00Z"));
        rollup.record(&summary("2026-11-23T22:47:02Z"), "gpt-4");
        let second = rollup.take_finished(at("2026-11-23T22:49:00Z"));
        assert_eq!((first.len(), second.len()), (1, 1));
        assert_eq!(first[0].time, second[0].time);
    }
}
