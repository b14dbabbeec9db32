//! `flowtap export`: what lies in the bucket, in the form that another system's tools read: Azure ML's
//! data collector, or Parquet tables.
//!
//! The bucket is walked hour by hour, an object at a time, and written as it is read: memory holds one
//! object, [`BUFFER_BYTES_MAX`] of lines, and the names of one hour's exchanges where spans have to find
//! theirs. The same rows always give the same lines under the same names, so an export may be repeated.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use crate::bucket::{Bucket, BucketError, BucketErrorKind};
use crate::domain::{Dataset, ExchangeId};
use crate::ledger::Hour;

mod azureml;
#[cfg(feature = "hub")]
mod columns;
#[cfg(feature = "hub")]
mod files;
mod lines;
mod row;
#[cfg(feature = "hub")]
mod table;

#[cfg(test)]
mod tests;

#[cfg(feature = "hub")]
pub use table::{Table, TableError};

use azureml::{Collection, Place};
use lines::{Line, Lines};

/// Bytes of lines that are gathered before they are written.
const BUFFER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Exchanges of one hour that spans can be joined to.
const NAMES_MAX: usize = 200_000;
/// Objects that cannot be read, and probabilities, that a report names.
const NAMED_MAX: usize = 20;

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As Azure ML's data collector writes.
    AzureMl,
    /// Tables of every dataset, of the columns that docs/RECORD.md names.
    #[cfg(feature = "hub")]
    Parquet,
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A bucket's.
    #[error(transparent)]
    Bucket(#[from] BucketError),
    /// A table's.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Table(#[from] TableError),
}

/// What is exported, and as what.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The endpoint that paths and lines name; `None` names each row's tap.
    pub endpoint: Option<String>,
    /// What `source` names before the endpoint: a workspace's resource id; may be empty.
    pub workspace: String,
    /// Exchanges that began at this time or later.
    pub from: Option<Timestamp>,
    /// Exchanges that began before this time.
    pub until: Option<Timestamp>,
}

/// Why a row was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// It began before or after the time asked for.
    OutsideOfTime,
    /// Health checks, feedback, embeddings: neither a question nor an answer.
    NoInference,
    /// It did not end well; Azure collects only what does.
    NotSuccessful,
    /// Its content was not kept, or is no JSON.
    NoContent,
    /// A part of its content is missing.
    Truncated,
    /// No row that this version knows.
    Unreadable,
}

/// What was written of one collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Lines.
    pub lines: u64,
    /// Objects that they are in.
    pub objects: u64,
    /// Bytes.
    pub bytes: u64,
}

/// What was exported, and what was not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// By collection.
    pub exported: BTreeMap<&'static str, Written>,
    /// Rows that were left out, by why.
    pub skipped: BTreeMap<Skip, u64>,
    /// Exchanges that were exported, by the probability with which they had been sampled.
    pub probabilities: BTreeMap<String, u64>,
    /// Objects that could not be read to their end.
    pub damaged: u64,
    /// The first of them.
    pub damaged_names: Vec<String>,
}

/// Writes what lies in `source` to `target` in the form asked for.
///
/// # Errors
/// A bucket's that does not answer; damage in an object is part of the report.
pub async fn write(
    form: Form,
    source: &dyn Bucket,
    target: &dyn Bucket,
    settings: &Settings,
) -> Result<Report, ExportError> {
    match form {
        Form::AzureMl => Ok(azureml(source, target, settings).await?),
        #[cfg(feature = "hub")]
        Form::Parquet => files::parquet(source, target, settings).await,
    }
}

/// Writes what lies in `source` to `target` as Azure's data collector would have written it.
async fn azureml(
    source: &dyn Bucket,
    target: &dyn Bucket,
    settings: &Settings,
) -> Result<Report, BucketError> {
    let mut export = Export { source, target, settings, report: Report::default() };
    for ((hour, deployment), part) in export.parts().await? {
        export.part(hour, &deployment, part).await?;
    }
    Ok(export.report)
}

struct Export<'a> {
    source: &'a dyn Bucket,
    target: &'a dyn Bucket,
    settings: &'a Settings,
    report: Report,
}

/// The objects of one deployment and hour.
#[derive(Default)]
struct Part {
    exchanges: Vec<String>,
    traces: Vec<String>,
}

/// What an hour's exchanges are called in the export, for their spans.
type Names = HashMap<ExchangeId, String>;

impl Export<'_> {
    async fn parts(&self) -> Result<BTreeMap<(Hour, String), Part>, BucketError> {
        let mut parts: BTreeMap<(Hour, String), Part> = BTreeMap::new();
        for dataset in [Dataset::Exchanges, Dataset::Traces] {
            for listed in self.source.list(&format!("{}/", dataset.label())).await? {
                let Some(key) = self.place_of(&listed.name) else { continue };
                let part = parts.entry(key).or_default();
                match dataset {
                    Dataset::Traces => part.traces.push(listed.name),
                    _ => part.exchanges.push(listed.name),
                }
            }
        }
        Ok(parts)
    }

    /// Hour and deployment of an object, where it may hold something of the time asked for.
    fn place_of(&self, name: &str) -> Option<(Hour, String)> {
        let hour = Hour::in_name(name)?;
        let deployment = name.split('/').find_map(|part| part.strip_prefix("deployment="))?;
        let early = self.settings.from.is_some_and(|from| hour < Hour::of(from));
        let late = self.settings.until.is_some_and(|until| hour.start() >= until);
        (!early && !late).then(|| (hour, deployment.to_owned()))
    }

    async fn part(&mut self, hour: Hour, deployment: &str, part: Part) -> Result<(), BucketError> {
        let mut names = Names::new();
        let joined = !part.traces.is_empty();
        for name in part.exchanges {
            let mut files = self.files(hour, deployment, &name);
            self.object(&name, &mut files, |export, line, files| {
                export.exchange(line, files, joined.then_some(&mut names));
            })
            .await?;
        }
        for name in part.traces {
            let mut files = self.files(hour, deployment, &name);
            self.object(&name, &mut files, |export, line, files| export.trace(line, files, &names))
                .await?;
        }
        Ok(())
    }

    fn files(&self, hour: Hour, deployment: &str, name: &str) -> Files {
        let file = name.rsplit('/').next().unwrap_or(name);
        let stem = file.strip_suffix(".jsonl.gz").unwrap_or(file);
        let (deployment, stem) = (deployment.to_owned(), stem.to_owned());
        Files { hour, deployment, stem, open: BTreeMap::new(), bytes: 0 }
    }

    async fn object(
        &mut self,
        name: &str,
        files: &mut Files,
        mut row: impl FnMut(&mut Self, &[u8], &mut Files),
    ) -> Result<(), BucketError> {
        let body = self.source.get(name).await?;
        let mut lines = Lines::of(&body);
        loop {
            match lines.next_line() {
                Line::Row(line) => row(self, line, files),
                Line::TooLong => self.report.skip(Skip::Unreadable),
                Line::Damaged => {
                    self.report.damaged(name);
                    break;
                }
                Line::End => break,
            }
            if files.bytes > BUFFER_BYTES_MAX {
                self.flush(files).await?;
            }
        }
        self.flush(files).await
    }

    fn exchange(&mut self, line: &[u8], files: &mut Files, names: Option<&mut Names>) {
        let Some(row) = row::exchange(line) else { return self.report.skip(Skip::Unreadable) };
        if !self.is_asked_for(row.time) {
            return self.report.skip(Skip::OutsideOfTime);
        }
        let endpoint = self.settings.endpoint.as_deref().unwrap_or(&row.tap).to_owned();
        let place = self.place(&endpoint, &files.deployment);
        if let Some(names) = names.filter(|names| names.len() < NAMES_MAX) {
            names.insert(row.id, row.correlation_id());
        }
        match azureml::pair(&row, &place) {
            Err(skip) => self.report.skip(skip),
            Ok((inputs, outputs)) => {
                files.add(&endpoint, Collection::ModelInputs, inputs);
                files.add(&endpoint, Collection::ModelOutputs, outputs);
                self.report.sampled(row.sample.probability);
            }
        }
    }

    fn trace(&mut self, line: &[u8], files: &mut Files, names: &Names) {
        let Some(part) = row::trace(line) else { return self.report.skip(Skip::Unreadable) };
        if !self.is_asked_for(part.exchange_time) {
            return self.report.skip(Skip::OutsideOfTime);
        }
        let endpoint = self.settings.endpoint.as_deref().unwrap_or(&part.tap).to_owned();
        let place = self.place(&endpoint, &files.deployment);
        let name = names.get(&part.exchange).cloned();
        let correlation = name.unwrap_or_else(|| part.exchange.as_uuid());
        for line in azureml::spans(&part, &correlation, &place) {
            files.add(&endpoint, Collection::AppTraces, line);
        }
    }

    fn is_asked_for(&self, time: Timestamp) -> bool {
        let Settings { from, until, .. } = self.settings;
        from.is_none_or(|from| time >= from) && until.is_none_or(|until| time < until)
    }

    fn place<'p>(&'p self, endpoint: &'p str, deployment: &'p str) -> Place<'p> {
        Place { workspace: &self.settings.workspace, endpoint, deployment }
    }

    async fn flush(&mut self, files: &mut Files) -> Result<(), BucketError> {
        for ((endpoint, collection), file) in &mut files.open {
            if file.lines.is_empty() {
                continue;
            }
            file.number += 1;
            let part = if file.number > 1 { format!("-{}", file.number) } else { String::new() };
            let name = format!(
                "modelDataCollector/{endpoint}/{}/{}/{}/{}{part}.jsonl",
                files.deployment,
                collection.label(),
                files.hour.start().strftime("%Y/%m/%d/%H"),
                files.stem
            );
            let body = Bytes::from(std::mem::take(&mut file.lines));
            let written = self.report.exported.entry(collection.label()).or_default();
            written.objects += 1;
            written.bytes += body.len() as u64;
            written.lines += std::mem::take(&mut file.count);
            self.target.put(&name, body).await.map_err(|error| naming(&name, &error))?;
        }
        files.bytes = 0;
        Ok(())
    }
}

fn naming(name: &str, error: &BucketError) -> BucketError {
    let kind: BucketErrorKind = error.kind;
    BucketError::new(kind, format!("{name}: {error}"))
}

/// The files that one object's rows go to; large ones are written in parts.
struct Files {
    hour: Hour,
    deployment: String,
    stem: String,
    open: BTreeMap<(String, Collection), File>,
    bytes: usize,
}

#[derive(Default)]
struct File {
    lines: Vec<u8>,
    count: u64,
    number: u64,
}

impl Files {
    fn add(&mut self, endpoint: &str, collection: Collection, line: Vec<u8>) {
        let file = self.open.entry((endpoint.to_owned(), collection)).or_default();
        file.lines.extend_from_slice(&line);
        file.lines.push(b'\n');
        file.count += 1;
        self.bytes += line.len() + 1;
    }
}

impl Report {
    /// True where something was exported and everything could be read.
    pub fn is_complete(&self) -> bool {
        let unreadable = self.skipped.contains_key(&Skip::Unreadable);
        !self.exported.is_empty() && self.damaged == 0 && !unreadable
    }

    fn skip(&mut self, why: Skip) {
        *self.skipped.entry(why).or_default() += 1;
    }

    fn damaged(&mut self, name: &str) {
        self.damaged += 1;
        if self.damaged_names.len() < NAMED_MAX {
            self.damaged_names.push(name.to_owned());
        }
    }

    fn sampled(&mut self, probability: f64) {
        let text = probability.to_string();
        let room = self.probabilities.len() < NAMED_MAX || self.probabilities.contains_key(&text);
        let key = if room { text } else { "other".to_owned() };
        *self.probabilities.entry(key).or_default() += 1;
    }
}

impl Skip {
    /// In words.
    pub fn describe(self) -> &'static str {
        match self {
            Self::OutsideOfTime => "outside of the time asked for",
            Self::NoInference => "no inference (health checks, feedback, embeddings and the like)",
            Self::NotSuccessful => "not successful: Azure collects only what is",
            Self::NoContent => "without content, or with content that is no JSON",
            Self::Truncated => "with a part of the content missing",
            Self::Unreadable => "not readable as a row of this version",
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.exported.is_empty() {
            writeln!(f, "nothing was exported")?;
        }
        for (collection, Written { lines, objects, bytes }) in &self.exported {
            writeln!(f, "exported {lines:>9} {collection} in {objects} objects, {bytes} bytes")?;
        }
        for (why, rows) in &self.skipped {
            writeln!(f, "skipped  {rows:>9} {}", why.describe())?;
        }
        for name in &self.damaged_names {
            writeln!(f, "damaged  {name}: read up to the damage")?;
        }
        if self.probabilities.len() > 1 {
            let of = |(p, n): (&String, &u64)| format!("{n} with {p}");
            let list = self.probabilities.iter().map(of).collect::<Vec<_>>().join(", ");
            writeln!(
                f,
                "warning: sampled with different probabilities ({list}); Azure's form has no place for \
                 weights, so plain averages over it lean towards what was kept more often"
            )?;
        }
        Ok(())
    }
}
