//! Buckets as sidecars fill them.
#![allow(clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use flowtap::config::{Config, Overrides, load};
use flowtap::domain::{ExchangeId, MonitorRun};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// A bucket on the disk, as sidecars fill it.
pub struct Filled {
    /// The bucket is below it.
    pub folder: tempfile::TempDir,
}

impl Filled {
    /// An empty one.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    /// Its folder.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join("bucket")
    }

    /// Writes lines as one object of the hour of `time`.
    pub fn put(
        &self,
        dataset: &str,
        deployment: &str,
        time: Timestamp,
        name: &str,
        lines: &[Value],
    ) {
        let partition = time.strftime("date=%Y-%m-%d/hour=%H").to_string();
        let path = self.bucket().join(dataset).join(format!("deployment={deployment}"));
        let path = path.join(partition).join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        let mut gzip = GzEncoder::new(File::create(path).expect("made"), Compression::fast());
        for line in lines {
            writeln!(gzip, "{line}").expect("written");
        }
        gzip.finish().expect("written");
    }

    /// One score of fluency an hour over the week before `due`, in the order of `scores`, again and again.
    pub fn scores(&self, due: Timestamp, scores: &[u8], probability: f64) {
        for (hour, score) in (1..=160).zip(scores.iter().cycle()) {
            let time = due.checked_sub(HOUR * hour).expect("earlier");
            let line = score_line(time, *score, probability);
            self.put("scores", "blue", time, &format!("a-{hour}.jsonl.gz"), &[line]);
        }
    }

    /// One row of usage an hour: 100 requests, of which `errors` failed.
    pub fn usage(&self, due: Timestamp, errors: u64) {
        for hour in 1..=160 {
            let time = due.checked_sub(HOUR * hour).expect("earlier");
            let rows = [usage_line(time, "ok", 100 - errors), usage_line(time, "timeout", errors)];
            self.put("usage", "blue", time, &format!("b-{hour}.jsonl.gz"), &rows);
        }
    }

    /// A configuration over it, written.
    pub fn config(&self, more: &str) -> PathBuf {
        let file = self.folder.path().join("flowtap.yaml");
        let bucket = self.bucket();
        let text = format!(
            "taps: [{{upstream: 'http://127.0.0.1:9'}}]\nbucket: 'file://{}'\ninstance: hub\n{more}\n",
            bucket.display()
        );
        fs::write(&file, text).expect("written");
        file
    }

    /// The same, loaded.
    pub fn loaded(&self, more: &str) -> Config {
        let file = self.config(more);
        load(Some(&file), &Overrides::default(), &[]).unwrap_or_else(|faults| panic!("{faults}"))
    }

    /// The results that lie in the bucket, by name.
    pub fn results(&self) -> Vec<(String, MonitorRun)> {
        let mut found = Vec::new();
        collect(&self.bucket().join("monitors"), &mut found);
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }
}

fn collect(folder: &Path, found: &mut Vec<(String, MonitorRun)>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            let mut text = String::new();
            let file = File::open(&path).expect("there");
            MultiGzDecoder::new(file).read_to_string(&mut text).expect("gzip");
            let run = serde_json::from_str(&text).expect("a result");
            found.push((path.display().to_string(), run));
        }
    }
}

/// A line of `scores/`.
pub fn score_line(time: Timestamp, score: u8, probability: f64) -> Value {
    json!({
        "schema": "flowtap.score.v1",
        "id": ExchangeId::new(time).to_string(),
        "time": time,
        "exchange": ExchangeId::new(time).to_string(),
        "exchange_time": time,
        "tap": "chat",
        "deployment": "blue",
        "instance": "pod",
        "criterion": "fluency",
        "score": score,
        "error": null,
        "reason": null,
        "probability": probability,
        "judge": null,
        "injection_suspect": false,
    })
}

/// A line of `usage/`: each request took 800 ms and 500 tokens.
pub fn usage_line(time: Timestamp, outcome: &str, count: u64) -> Value {
    let histogram = |index: i64, value: f64| {
        if count == 0 {
            return json!({"count": 0, "sum": 0.0, "min": null, "max": null, "zero": 0, "buckets": {}});
        }
        json!({"count": count, "sum": value * count as f64, "min": value, "max": value, "zero": 0,
               "buckets": {index.to_string(): count}})
    };
    json!({
        "schema": "flowtap.usage.v1", "time": time, "tap": "chat", "deployment": "blue",
        "instance": "pod", "model": "gpt-4", "operation": "chat", "outcome": outcome, "stream": false,
        "count": count,
        "tokens": {"reported": {"count": count, "input": 400 * count, "output": 100 * count,
                   "total": 500 * count, "cached_input": 0, "reasoning_output": 0}},
        "usage_unknown": 0,
        // 800 ms lies in bucket 77.
        "latency_ms": histogram(77, 800.0), "first_token_ms": histogram(53, 100.0),
        "input_tokens": histogram(69, 400.0), "output_tokens": histogram(53, 100.0),
    })
}

/// A line of a criterion that not everybody has, or that is computed: `given` is a field and its value.
pub fn other_line(time: Timestamp, criterion: &str, given: (&str, Value)) -> Value {
    let mut line = score_line(time, 1, 0.5);
    line["score"] = Value::Null;
    match criterion {
        "refusal" | "f1" => line["criterion"] = json!(criterion),
        custom => {
            line["criterion"] = json!("custom");
            line["name"] = json!(custom);
        }
    }
    line[given.0] = given.1;
    line
}
