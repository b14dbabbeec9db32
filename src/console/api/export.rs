//! Samples as a file: CSV for spreadsheets, JSON lines for programs, Parquet for tables. Written as it is
//! read, a page of samples at a time, so that a file of a million rows takes no more memory than a page,
//! or than a group of a table's rows.

use std::convert::Infallible;

use axum::body::Bytes;
use futures_util::Stream;
use futures_util::stream::unfold;
use serde_json::{Value, json};

use super::params::{
    CRITERION, DEPLOYMENT, EXPORTED, FROM, MODEL, ORDER, OUTCOME, Parameter, Q, SCORE, SORT, TAP,
    TO,
};
use super::{Answer, Desk, Problem, Route, View, in_turn, record};
use crate::domain::Criterion;
use crate::export::Table;
use crate::store::{Found, SampleQuery, SampleRow};

/// Samples that are read at once.
const PAGE: usize = 200;

/// The form of a file.
#[derive(Clone, Copy)]
pub(super) enum Form {
    /// RFC 4180, with a line of names; cells that a spreadsheet would take for formulas are guarded.
    Csv,
    /// The records as the bucket holds them.
    Jsonl,
    /// A table of the same fields.
    Parquet,
}

static PARAMETERS: &[&Parameter] = &[
    &FROM,
    &TO,
    &TAP,
    &DEPLOYMENT,
    &MODEL,
    &OUTCOME,
    &Q,
    &CRITERION,
    &SCORE,
    &SORT,
    &ORDER,
    &EXPORTED,
];

pub(super) static CSV: Route = Route {
    path: "/samples.csv",
    about: "The samples of a window as CSV (RFC 4180). A cell that a spreadsheet would take for a \
            formula begins with an apostrophe.",
    parameters: PARAMETERS,
    answer: Answer::File("samples.csv", "text/csv; charset=utf-8", Form::Csv),
};

pub(super) static JSONL: Route = Route {
    path: "/samples.jsonl",
    about: "The whole records of a window's samples as JSON lines, as the bucket holds them.",
    parameters: PARAMETERS,
    answer: Answer::File("samples.jsonl", "application/jsonl; charset=utf-8", Form::Jsonl),
};

pub(super) static PARQUET: Route = Route {
    path: "/samples.parquet",
    about: "The records of a window's samples as a Parquet table: the fields of `exchanges/` as \
            docs/RECORD.md names them, and `scores`. What may be any JSON is text. A file that could not \
            be finished has no end, and no reader takes it for a table.",
    parameters: PARAMETERS,
    answer: Answer::File("samples.parquet", "application/vnd.apache.parquet", Form::Parquet),
};

/// The columns of a CSV file.
const COLUMNS: &[&str] = &[
    "id",
    "time",
    "tap",
    "deployment",
    "model",
    "operation",
    "outcome",
    "status",
    "stream",
    "latency_ms",
    "first_token_ms",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "usage_source",
    "sample_reason",
    "sample_probability",
    "question",
    "answer",
    "context",
    "ground_truth",
];

/// A table whose bytes are taken away as they come.
type Rows = Table<Vec<u8>>;

/// Some samples, what was written of them, and what was not yet.
struct Page {
    rows: Vec<SampleRow>,
    bytes: Vec<u8>,
    table: Option<Rows>,
}

/// Where the writing is.
struct Writing {
    form: Form,
    query: SampleQuery,
    left: usize,
    begun: bool,
    /// What is not written yet of a table.
    table: Option<Rows>,
    desk: Desk,
    view: View,
}

/// The file, page by page. Where a page cannot be read any more, the file ends with a line that says so.
pub(super) fn pages(
    form: Form,
    mut query: SampleQuery,
    desk: Desk,
    view: View,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let left = query.limit;
    query.limit = PAGE.min(left);
    let writing = Writing { form, query, left, begun: false, table: None, desk, view };
    unfold(Some(writing), |writing| async move {
        let mut writing = writing?;
        let text = match writing.page().await {
            Ok(Some(text)) => text,
            Ok(None) => return None,
            Err(problem) => {
                let told = serde_json::to_string(&problem).unwrap_or_default();
                return Some((Ok(Bytes::from(writing.broken(&told))), None));
            }
        };
        Some((Ok(Bytes::from(text)), Some(writing)))
    })
}

impl Writing {
    /// What comes next; `None` after the last.
    async fn page(&mut self) -> Result<Option<Vec<u8>>, Problem> {
        let mut bytes = match std::mem::replace(&mut self.begun, true) {
            true => Vec::new(),
            false => self.head()?,
        };
        while bytes.is_empty() && self.left > 0 {
            bytes = self.some().await?;
        }
        if bytes.is_empty() {
            bytes = self.table.take().map(Table::finish).transpose()?.unwrap_or_default();
        }
        Ok((!bytes.is_empty()).then_some(bytes))
    }

    fn head(&mut self) -> Result<Vec<u8>, Problem> {
        let mut text = Vec::new();
        match self.form {
            Form::Csv => {
                let scores = Criterion::RATED.iter().map(|criterion| criterion.label());
                row(&mut text, COLUMNS.iter().copied().chain(scores));
            }
            Form::Jsonl => {}
            Form::Parquet => self.table = Some(Table::of_samples(Vec::new())?),
        }
        Ok(text)
    }

    /// A page of samples; of a table what is written of it, which may be nothing yet.
    async fn some(&mut self) -> Result<Vec<u8>, Problem> {
        self.query.limit = PAGE.min(self.left);
        let (form, query, table) = (self.form, self.query.clone(), self.table.take());
        let read = move |_: &Desk, view: &View| read(form, &query, table, view);
        let Page { rows, bytes, table } = in_turn(&self.desk, &self.view, read).await?;
        self.table = table;
        self.left = if rows.len() < PAGE { 0 } else { self.left - rows.len() };
        self.query.after = rows.last().map(|row| row.spot).or(self.query.after);
        Ok(bytes)
    }

    /// The last line of a file that could not be finished.
    fn broken(&self, told: &str) -> Vec<u8> {
        let mut text = Vec::new();
        match self.form {
            Form::Csv => row(&mut text, ["the file is not whole", told]),
            Form::Jsonl => text.extend(format!("{{\"not_whole\":{told}}}\n").bytes()),
            // Without its end it is no table.
            Form::Parquet => {}
        }
        text
    }
}

/// Reads a page's rows and writes them down.
fn read(
    form: Form,
    query: &SampleQuery,
    mut table: Option<Rows>,
    view: &View,
) -> Result<Page, Problem> {
    let rows = view.store.samples(query)?;
    let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
    let found = view.store.found(&ids)?;
    let places: Vec<Found> = found.iter().map(|(_, found)| found.clone()).collect();
    let texts = record::texts(view, &places).unwrap_or_default();
    let mut text = Vec::new();
    for sample in &rows {
        let place = found.iter().find(|(id, _)| *id == sample.id).map(|(_, found)| found);
        let record = place.and_then(|found| texts.get(&(found.object.clone(), found.line)));
        match (form, &mut table) {
            (Form::Csv, _) => csv(&mut text, sample, record.map(Vec::as_slice)),
            (Form::Parquet, Some(table)) => {
                table.add(&line(sample, record.map(Vec::as_slice)))?;
                text.append(table.out());
            }
            _ => {
                // A record that the bucket no longer holds is told as far as it is known.
                let known = || super::samples::brief(sample).to_string().into_bytes();
                text.extend(record.cloned().unwrap_or_else(known));
                text.push(b'\n');
            }
        }
    }
    Ok(Page { rows, bytes: text, table })
}

/// A line of a table of samples: the record, as far as it is known, and its scores.
fn line(sample: &SampleRow, record: Option<&[u8]>) -> Value {
    let record = record.and_then(|record| serde_json::from_slice::<Value>(record).ok());
    let mut brief = super::samples::brief(sample);
    let scores = brief["scores"].take();
    let mut line = record.unwrap_or_else(|| {
        brief["model"] = json!({"response": sample.model});
        brief
    });
    line["scores"] = scores;
    line
}

fn csv(text: &mut Vec<u8>, sample: &SampleRow, record: Option<&[u8]>) {
    let record = record.and_then(|record| serde_json::from_slice::<Value>(record).ok());
    let field = |name: &str| record.as_ref().and_then(|record| words(record.get(name)?));
    let number = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
    let cells = vec![
        sample.id.to_string(),
        sample.time.to_string(),
        sample.tap.clone(),
        sample.deployment.clone(),
        sample.model.clone(),
        sample.operation.clone(),
        sample.outcome.clone(),
        number(sample.status.map(u64::from)),
        sample.stream.to_string(),
        sample.latency_ms.to_string(),
        sample.first_token_ms.map_or_else(String::new, |ms| ms.to_string()),
        number(sample.input),
        number(sample.output),
        number(sample.total),
        sample.source.clone().unwrap_or_default(),
        sample.reason.clone(),
        sample.probability.to_string(),
        field("question").or_else(|| sample.question.clone()).unwrap_or_default(),
        field("answer").or_else(|| sample.answer.clone()).unwrap_or_default(),
        field("context").unwrap_or_default(),
        field("ground_truth").unwrap_or_default(),
    ];
    let score = |criterion: &Criterion| {
        let given = sample.scores.iter().find(|(of, _)| of == criterion);
        given.map_or_else(String::new, |(_, score)| score.to_string())
    };
    row(text, cells.into_iter().chain(Criterion::RATED.iter().map(score)));
}

/// A text as it is, other JSON as JSON; `None` for null.
fn words(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

/// One line of CSV.
fn row<S: AsRef<str>>(text: &mut Vec<u8>, cells: impl IntoIterator<Item = S>) {
    for (index, cell) in cells.into_iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        text.extend(self::cell(cell.as_ref()).into_bytes());
    }
    text.extend(b"\r\n");
}

/// A cell: what begins like a formula gets an apostrophe before it (OWASP, CSV injection), unless it is
/// a number; quoted where it must be.
fn cell(text: &str) -> String {
    let first = text.trim_start_matches([' ', '\u{a0}', '\u{feff}']).chars().next();
    let formula = matches!(
        first,
        Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '|' | '%' | '＝' | '＋' | '－' | '＠')
    );
    let guarded = match formula && text.parse::<f64>().is_err() {
        true => format!("'{text}"),
        false => text.to_owned(),
    };
    match guarded.contains([',', '"', '\r', '\n', ';', '\t']) || guarded != guarded.trim() {
        true => format!("\"{}\"", guarded.replace('"', "\"\"")),
        false => guarded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_no_formula_gets_through() {
        for (text, told) in [
            ("plain", "plain"),
            ("a, b", "\"a, b\""),
            ("say \"hi\"\nnow", "\"say \"\"hi\"\"\nnow\""),
            ("=HYPERLINK(\"http://evil\")", "\"'=HYPERLINK(\"\"http://evil\"\")\""),
            (" @SUM(A1)", "' @SUM(A1)"),
            ("-12.5", "-12.5"),
            ("-12.5+cmd|' /C calc'!A0", "'-12.5+cmd|' /C calc'!A0"),
            ("＝1+1", "'＝1+1"),
            ("\t=1", "\"'\t=1\""),
            ("", ""),
        ] {
            assert_eq!(cell(text), told, "{text:?}");
        }
    }
}
