//! The bucket's lines as Parquet tables: one file for each object, below the same folders.
//!
//! Memory holds one object as it lies in the bucket, one group of rows, and the file as far as it is
//! written: a large one is written in parts.

use jiff::Timestamp;
use serde_json::Value;

use super::columns;
use super::lines::{Line, Lines};
use super::table::{Table, TableError};
use super::{ExportError, Report, Settings, Skip, naming};
use crate::bucket::Bucket;
use crate::domain::Dataset;
use crate::ledger::Hour;
use crate::store;

/// Bytes of one file, about; what is more becomes another part.
const FILE_BYTES_MAX: usize = 64 << 20;

/// Writes what lies in `source` to `target` as Parquet tables.
pub(super) async fn parquet(
    source: &dyn Bucket,
    target: &dyn Bucket,
    settings: &Settings,
) -> Result<Report, ExportError> {
    let mut export = Export { source, target, settings, report: Report::default() };
    for dataset in Dataset::ALL {
        for listed in source.list(&format!("{}/", dataset.label())).await? {
            if export.may_hold(&listed.name) {
                export.object(*dataset, &listed.name).await?;
            }
        }
    }
    Ok(export.report)
}

struct Export<'a> {
    source: &'a dyn Bucket,
    target: &'a dyn Bucket,
    settings: &'a Settings,
    report: Report,
}

/// The file that is being written, of one object's lines.
struct File<'a> {
    dataset: Dataset,
    /// The object's name without its ending.
    stem: &'a str,
    table: Option<Table<Vec<u8>>>,
    lines: u64,
    parts: u64,
}

impl Export<'_> {
    /// Whether an object may hold something of the time asked for.
    fn may_hold(&self, name: &str) -> bool {
        let Settings { from, until, .. } = self.settings;
        Hour::in_name(name).is_some_and(|hour| {
            from.is_none_or(|from| hour >= Hour::of(from))
                && until.is_none_or(|until| hour.start() < until)
        })
    }

    async fn object(&mut self, dataset: Dataset, name: &str) -> Result<(), ExportError> {
        let Some(stem) = name.strip_suffix(".jsonl.gz") else {
            self.report.damaged(name);
            return Ok(());
        };
        let body = self.source.get(name).await?;
        let mut lines = Lines::of(&body);
        let mut file = File { dataset, stem, table: None, lines: 0, parts: 0 };
        loop {
            match lines.next_line() {
                Line::Row(line) => self.line(line, &mut file)?,
                Line::TooLong => self.report.skip(Skip::Unreadable),
                Line::Damaged => {
                    self.report.damaged(name);
                    break;
                }
                Line::End => break,
            }
            if file.table.as_mut().is_some_and(|table| table.out().len() > FILE_BYTES_MAX) {
                self.put(&mut file).await?;
            }
        }
        self.put(&mut file).await
    }

    fn line(&mut self, line: &[u8], file: &mut File<'_>) -> Result<(), TableError> {
        let told = serde_json::from_slice::<Value>(line).ok();
        let ours = |line: &Value| {
            line.get("schema").is_some_and(|schema| schema == store::Line::schema(file.dataset))
        };
        let Some(line) = told.filter(ours) else {
            self.report.skip(Skip::Unreadable);
            return Ok(());
        };
        let moment = line.get(columns::moment(file.dataset)).and_then(Value::as_str);
        let Some(moment) = moment.and_then(|text| text.parse().ok()) else {
            self.report.skip(Skip::Unreadable);
            return Ok(());
        };
        if !self.is_asked_for(moment) {
            self.report.skip(Skip::OutsideOfTime);
            return Ok(());
        }
        file.add(&line)
    }

    fn is_asked_for(&self, time: Timestamp) -> bool {
        let Settings { from, until, .. } = self.settings;
        from.is_none_or(|from| time >= from) && until.is_none_or(|until| time < until)
    }

    /// Ends the file, if there is one, and brings it to the target.
    async fn put(&mut self, file: &mut File<'_>) -> Result<(), ExportError> {
        let Some(table) = file.table.take() else { return Ok(()) };
        let body = bytes::Bytes::from(table.finish()?);
        file.parts += 1;
        let part = if file.parts > 1 { format!("-{}", file.parts) } else { String::new() };
        let name = format!("{}{part}.parquet", file.stem);
        let written = self.report.exported.entry(file.dataset.label()).or_default();
        written.objects += 1;
        written.bytes += body.len() as u64;
        written.lines += std::mem::take(&mut file.lines);
        self.target.put(&name, body).await.map_err(|error| naming(&name, &error))?;
        Ok(())
    }
}

impl File<'_> {
    fn add(&mut self, line: &Value) -> Result<(), TableError> {
        if self.table.is_none() {
            self.table = Some(Table::new(self.dataset, Vec::new())?);
        }
        self.lines += 1;
        self.table.as_mut().map_or(Ok(()), |table| table.add(line))
    }
}
