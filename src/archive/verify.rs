//! `flowtap verify`: holds the ledger in a bucket against the lines that lie beside it.
//!
//! For every instance, run and hour: does `seen = not_sampled + stored + pending + dropped` hold, and
//! are there as many distinct samples in `exchanges/` as the ledger says are stored? While a run goes
//! on, its ledger may lag behind the objects, so only missing samples are a fault then.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::bucket::{Bucket, BucketError, Lines};
use crate::domain::Dataset;
use crate::ledger::{Hour, LedgerRow, run_name};

/// What is wrong with one hour of one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// The parts do not add up to what was seen.
    Unbalanced,
    /// Fewer samples lie in the bucket than were stored.
    Missing,
    /// More samples lie in the bucket than the ledger can explain.
    Surplus,
    /// A sample lies in the bucket twice.
    Duplicate,
    /// There are samples and no ledger.
    NoLedger,
    /// An object cannot be read.
    Unreadable,
}

/// One hour of one run.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    /// Instance and run, as in the objects' names.
    pub run: String,
    /// The hour's first moment.
    pub hour: Timestamp,
    /// The ledger's row; `None` where there is none.
    pub ledger: Option<LedgerRow>,
    /// Lines found in `exchanges/`.
    pub lines: u64,
    /// Distinct ids among them.
    pub distinct: u64,
    /// What is wrong; empty where all is well.
    pub findings: Vec<Finding>,
    /// The objects that cannot be read, or that hold samples which lie in another one, too.
    pub objects: Vec<String>,
}

/// All hours of all runs, by hour and run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// True where something was found and nothing of it is wrong: an empty folder proves nothing.
    pub ok: bool,
    /// Every hour of every run.
    pub checked: Vec<Checked>,
}

/// Reads all of `ledger/` and `exchanges/`. Memory: one object, and the ids of one run's hour.
pub async fn verify(bucket: &dyn Bucket) -> Result<Report, BucketError> {
    let mut hours: BTreeMap<(Hour, String), Hourly> = BTreeMap::new();
    for listed in bucket.list(&prefix(Dataset::Ledger)).await? {
        let body = bucket.get(&listed.name).await?;
        let mut rows = Some(Vec::new());
        let whole = each_line(&body, |line| match (ledger_row(line), &mut rows) {
            (Some(row), Some(rows)) => rows.push(row),
            _ => rows = None,
        });
        place_ledger(&mut hours, &listed.name, rows.filter(|_| whole));
    }
    for listed in bucket.list(&prefix(Dataset::Exchanges)).await? {
        if let Some(key) = object_key(&listed.name) {
            hours.entry(key).or_default().objects.push(listed.name);
        }
    }
    let mut checked = Vec::with_capacity(hours.len());
    for ((hour, run), hourly) in hours {
        checked.push(check(bucket, run, hour, hourly).await?);
    }
    let right = checked.iter().all(|hour| hour.findings.is_empty());
    Ok(Report { ok: right && !checked.is_empty(), checked })
}

/// What was found of one hour of one run.
#[derive(Default)]
struct Hourly {
    ledger: Option<LedgerRow>,
    objects: Vec<String>,
    /// The name of the ledger's object, where that cannot be read.
    unreadable: Option<String>,
}

#[derive(Default)]
struct Contents {
    lines: u64,
    ids: HashSet<String>,
    unreadable: bool,
    /// Names of objects in which something is wrong.
    faulty: Vec<String>,
}

#[derive(Deserialize)]
struct Id {
    id: String,
}

impl Contents {
    fn add(&mut self, name: &str, body: &Bytes) {
        let (mut readable, mut twice) = (true, false);
        readable &= each_line(body, |line| {
            self.lines += 1;
            match serde_json::from_slice::<Id>(line) {
                Ok(Id { id }) => twice |= !self.ids.insert(id),
                Err(_) => readable = false,
            }
        });
        self.unreadable |= !readable;
        if !readable || twice {
            self.faulty.push(name.to_owned());
        }
    }
}

async fn check(
    bucket: &dyn Bucket,
    run: String,
    hour: Hour,
    hourly: Hourly,
) -> Result<Checked, BucketError> {
    let mut contents = Contents {
        unreadable: hourly.unreadable.is_some(),
        faulty: hourly.unreadable.into_iter().collect(),
        ..Contents::default()
    };
    for name in &hourly.objects {
        contents.add(name, &bucket.get(name).await?);
    }
    let findings = findings(hourly.ledger.as_ref(), &contents);
    let (lines, distinct, objects) = (contents.lines, contents.ids.len() as u64, contents.faulty);
    Ok(Checked {
        run,
        hour: hour.start(),
        ledger: hourly.ledger,
        lines,
        distinct,
        findings,
        objects,
    })
}

fn findings(ledger: Option<&LedgerRow>, contents: &Contents) -> Vec<Finding> {
    let distinct = contents.ids.len() as u64;
    let found = match ledger {
        None => vec![(Finding::NoLedger, !contents.unreadable)],
        Some(row) => {
            // Uploaded by a run that ended before it could say so: those are still pending.
            let explained = row.stored + row.pending;
            vec![
                (Finding::Unbalanced, !row.balances()),
                (Finding::Missing, distinct < row.stored),
                (Finding::Surplus, row.closed && distinct > explained),
            ]
        }
    };
    let rest = [
        (Finding::Duplicate, !contents.unreadable && contents.lines > distinct),
        (Finding::Unreadable, contents.unreadable),
    ];
    let all = found.into_iter().chain(rest);
    all.filter(|(_, holds)| *holds).map(|(finding, _)| finding).collect()
}

fn prefix(dataset: Dataset) -> String {
    format!("{}/", dataset.label())
}

/// Puts rows where they belong; an object that cannot be read goes by its name.
fn place_ledger(
    hours: &mut BTreeMap<(Hour, String), Hourly>,
    name: &str,
    rows: Option<Vec<LedgerRow>>,
) {
    match rows {
        Some(rows) => {
            for row in rows {
                let run = run_name(&row.instance, row.incarnation);
                let key = (Hour::of(row.hour), run);
                hours.entry(key).or_default().ledger = Some(row);
            }
        }
        None => {
            let run = file_stem(name).map(str::to_owned);
            if let Some((hour, run)) = Hour::in_name(name).zip(run) {
                hours.entry((hour, run)).or_default().unreadable = Some(name.to_owned());
            }
        }
    }
}

/// Hour and run of an object: its file is named `<instance>-<run>-<sequence>.jsonl.gz`.
fn object_key(name: &str) -> Option<(Hour, String)> {
    let (run, _) = file_stem(name)?.rsplit_once('-')?;
    Some((Hour::in_name(name)?, run.to_owned()))
}

fn file_stem(name: &str) -> Option<&str> {
    name.rsplit('/').next()?.strip_suffix(".jsonl.gz")
}

fn ledger_row(line: &[u8]) -> Option<LedgerRow> {
    let row: LedgerRow = serde_json::from_slice(line).ok()?;
    (row.schema == LedgerRow::SCHEMA).then_some(row)
}

/// Calls `line` with every line of an object; false where the object is damaged.
fn each_line(body: &Bytes, mut line: impl FnMut(&[u8])) -> bool {
    let mut lines = Lines::of(body);
    loop {
        match lines.next() {
            Ok(Some(read)) => line(read),
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<16} {:>9} {:>11} {:>8} {:>8} {:>8} {:>9}  {:<40} verdict",
            "hour (UTC)", "seen", "not sampled", "stored", "pending", "dropped", "in bucket", "run"
        )?;
        self.checked.iter().try_for_each(|hour| writeln!(f, "{hour}"))
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hour = self.hour.strftime("%Y-%m-%d %H:00");
        let figure = |read: fn(&LedgerRow) -> u64| {
            self.ledger.as_ref().map_or_else(|| "-".to_owned(), |row| read(row).to_string())
        };
        let seen = figure(|row| row.seen);
        let (not_sampled, stored) = (figure(|row| row.not_sampled), figure(|row| row.stored));
        let (pending, dropped) = (figure(|row| row.pending), figure(LedgerRow::dropped_total));
        let (distinct, run, verdict) = (self.distinct, &self.run, self.verdict());
        write!(
            f,
            "{hour:<16} {seen:>9} {not_sampled:>11} {stored:>8} {pending:>8} {dropped:>8} {distinct:>9}  {run:<40} {verdict}"
        )
    }
}

impl Checked {
    /// In words: `ok`, or what is wrong, how many samples and which objects it is about; then what the run
    /// cannot account for.
    pub fn verdict(&self) -> String {
        let names = self.findings.iter().map(|finding| match self.samples(*finding) {
            Some(samples) => format!("{} {samples}", finding.label()),
            None => finding.label().to_owned(),
        });
        let mut verdict = names.collect::<Vec<_>>().join(", ");
        if verdict.is_empty() {
            verdict.push_str("ok");
        }
        if !self.objects.is_empty() {
            verdict.push_str(&format!(": {}", self.objects.join(", ")));
        }
        let windows = self.ledger.iter().flat_map(|row| &row.unaccounted);
        for window in windows {
            verdict.push_str(&format!("; unaccounted from {} to {}", window.from, window.to));
        }
        verdict
    }

    /// How many samples a finding is about.
    fn samples(&self, finding: Finding) -> Option<u64> {
        let row = self.ledger.as_ref();
        match finding {
            Finding::Missing => Some(row?.stored.saturating_sub(self.distinct)),
            Finding::Surplus => Some(self.distinct.saturating_sub(row?.stored + row?.pending)),
            Finding::Duplicate => Some(self.lines.saturating_sub(self.distinct)),
            Finding::Unbalanced | Finding::NoLedger | Finding::Unreadable => None,
        }
    }
}

impl Finding {
    /// The name used in reports.
    pub fn label(self) -> &'static str {
        match self {
            Self::Unbalanced => "unbalanced",
            Self::Missing => "missing",
            Self::Surplus => "surplus",
            Self::Duplicate => "duplicate",
            Self::NoLedger => "no_ledger",
            Self::Unreadable => "unreadable",
        }
    }
}
