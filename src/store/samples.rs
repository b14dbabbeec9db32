//! Samples: stored by time, found by window, labels, scores and words.

use jiff::Timestamp;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension as _, Row, params, params_from_iter};

use super::labels::Filter;
use super::lines::SampleLine;
use super::objects::{signed, unsigned};
use super::places::{Place, seq_of_id};
use super::scores::{ScoreBook, packed_score};
use super::search::{self, words};
use super::window::{Window, time_of};
use super::writer::Session;
use super::{READ_WITHIN, Store, StoreError};
use crate::domain::{Criterion, ExchangeId};

/// Which samples are asked for, and in which order.
#[derive(Clone, Debug)]
pub struct SampleQuery {
    /// When they began.
    pub window: Window,
    /// What they are about.
    pub filter: Filter,
    /// Words that question or answer hold; see [`super::Store::samples`].
    pub text: Option<String>,
    /// The criterion that `scores` and the sorting by score look at; `None` is the lowest of all.
    pub criterion: Option<Criterion>,
    /// The lowest and the highest score.
    pub scores: Option<(u8, u8)>,
    /// By what they are sorted.
    pub sort: Sort,
    /// Which end comes first.
    pub order: Order,
    /// The last one of the page before.
    pub after: Option<Spot>,
    /// How many, at most.
    pub limit: usize,
}

/// By what samples are sorted; equal ones by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// When they began.
    Time,
    /// How long they took.
    Latency,
    /// Tokens in all; unknown counts as fewer than any.
    Tokens,
    /// The score; those without are left out.
    Score,
}

/// Which end comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The smallest, or the oldest.
    Ascending,
    /// The largest, or the newest.
    Descending,
}

/// A place in a sorted list.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spot {
    /// The figure that is sorted by; 0 where that is time.
    pub value: f64,
    /// The row.
    pub seq: i64,
}

/// What a list shows of a sample.
#[derive(Clone, Debug, PartialEq)]
pub struct SampleRow {
    /// Where it stands in its list.
    pub spot: Spot,
    /// Its id.
    pub id: ExchangeId,
    /// When it began.
    pub time: Timestamp,
    /// The tap.
    pub tap: String,
    /// The endpoint's deployment.
    pub deployment: String,
    /// The model; empty where none is known.
    pub model: String,
    /// What was asked.
    pub operation: String,
    /// How it ended.
    pub outcome: String,
    /// The answer came as a stream.
    pub stream: bool,
    /// The status sent to the client.
    pub status: Option<u16>,
    /// Milliseconds to the last byte.
    pub latency_ms: f64,
    /// Milliseconds to the first content.
    pub first_token_ms: Option<f64>,
    /// Prompt tokens.
    pub input: Option<u64>,
    /// Completion tokens.
    pub output: Option<u64>,
    /// Both.
    pub total: Option<u64>,
    /// Who says so.
    pub source: Option<String>,
    /// Why it was kept.
    pub reason: String,
    /// With what probability.
    pub probability: f64,
    /// The question's beginning.
    pub question: Option<String>,
    /// The answer's beginning.
    pub answer: Option<String>,
    /// Its scores.
    pub scores: Vec<(Criterion, u8)>,
}

/// Where a sample's whole record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The object in the bucket.
    pub object: String,
    /// The line in it, from 1.
    pub line: u64,
}

/// A word with more hits than these is looked for in one row after the other where rows are sorted: to
/// join and sort 800,000 hits took three times as long as sorting a million rows without words.
const HITS_FEW: i64 = 50_000;
/// Rows that are looked into, at most. Of 50,000 hits among a million rows some 200 are among them.
const PROBES_MAX: usize = 4000;

/// What [`row`] reads.
const COLUMNS: &str = "s.seq, d.id, l.tap, l.deployment, l.model, l.operation, l.outcome, l.stream, \
    d.status, s.latency_ms, d.first_token_ms, d.input, d.output, s.total, d.source, d.reason, \
    d.probability, s.scores, d.question, d.answer";
const FROM: &str = "samples s JOIN labels l ON l.id = s.labels JOIN details d ON d.seq = s.seq";

impl Store {
    /// A page of samples. `text` is words that must all be there, in question or answer; words in
    /// double quotes must stand together, a word that ends with `*` may go on. Nothing of it is taken
    /// for syntax, and text without any word finds nothing.
    pub fn samples(&self, query: &SampleQuery) -> Result<Vec<SampleRow>, StoreError> {
        self.read(READ_WITHIN, |db| {
            let spots = spots(db, query, HITS_FEW)?;
            spots.into_iter().filter_map(|spot| at_spot(db, spot).transpose()).collect()
        })
    }

    /// One sample, and where all of it is; `None` where the store does not know it.
    pub fn sample(&self, id: ExchangeId) -> Result<Option<(SampleRow, Found)>, StoreError> {
        self.read(READ_WITHIN, |db| {
            let Some(seq) = seq_of_id(db, id)? else { return Ok(None) };
            let row = at_spot(db, Spot { value: 0.0, seq })?;
            Ok(row.zip(found_at(db, seq)?))
        })
    }

    /// Where the records of some samples are, in the order of the ids; unknown ones are left out.
    pub fn found(&self, ids: &[ExchangeId]) -> Result<Vec<(ExchangeId, Found)>, StoreError> {
        self.read(READ_WITHIN, |db| {
            let one = |id: &ExchangeId| {
                let Some(seq) = seq_of_id(db, *id)? else { return Ok(None) };
                Ok(found_at(db, seq)?.map(|found| (*id, found)))
            };
            ids.iter().filter_map(|id| one(id).transpose()).collect()
        })
    }
}

impl Session<'_> {
    /// Stores a sample; false where it was known.
    pub(super) fn put_sample(
        &mut self,
        sample: &SampleLine,
        object: i64,
        line: u64,
        scores: &mut ScoreBook,
    ) -> Result<bool, StoreError> {
        let Place::Free(seq) = self.place(sample)? else { return Ok(false) };
        let labels = self.labels(&sample.labels)?;
        let mut insert = self.db.prepare_cached(
            "INSERT INTO samples(seq, labels, latency_ms, total) VALUES(?, ?, ?, ?)",
        )?;
        insert.execute(params![seq, labels, sample.latency_ms, sample.usage.total.map(signed)])?;
        self.put_details(seq, sample, object, line)?;
        self.adopt_scores(sample.id, labels, scores)?;
        Ok(true)
    }

    fn put_details(
        &self,
        seq: i64,
        sample: &SampleLine,
        object: i64,
        line: u64,
    ) -> Result<(), StoreError> {
        let mut insert = self.db.prepare_cached(
            "INSERT INTO details(seq, id, status, first_token_ms, input, output, source, reason, \
             probability, object, line, question, answer) \
             VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        let (usage, question, answer) = (&sample.usage, &sample.question, &sample.answer);
        insert.execute(params![
            seq,
            sample.id.to_bytes(),
            sample.status,
            sample.first_token_ms,
            usage.input.map(signed),
            usage.output.map(signed),
            usage.source.map(|source| source.label()),
            sample.reason.label(),
            sample.probability,
            object,
            signed(line),
            question.preview,
            answer.preview,
        ])?;
        if question.preview.is_some() || answer.preview.is_some() {
            let search = "INSERT INTO search(rowid, question, answer) VALUES(?, ?, ?)";
            let mut insert = self.db.prepare_cached(search)?;
            insert.execute(params![seq, question.searched, answer.searched])?;
        }
        Ok(())
    }
}

/// Where a page's rows stand. A word with more than `few` hits in the window is looked for in the rows in
/// their order, and not the order made among the hits.
pub(super) fn spots(
    db: &Connection,
    query: &SampleQuery,
    few: i64,
) -> Result<Vec<Spot>, StoreError> {
    if let (Some(text), true) = (&query.text, query.sort != Sort::Time) {
        let Some(words) = words(text) else { return Ok(Vec::new()) };
        if search::is_frequent(db, &words, query.window, few)?
            && let Some(spots) = holding(db, query, &words)?
        {
            return Ok(spots);
        }
    }
    let Some((sql, values)) = spots_sql(query) else { return Ok(Vec::new()) };
    let mut find = db.prepare_cached(&sql)?;
    let spots = find.query_map(params_from_iter(values), spot)?;
    Ok(spots.collect::<Result<_, _>>()?)
}

/// The page of those that hold the words, out of the first rows of all; `None` where these have too few.
fn holding(
    db: &Connection,
    query: &SampleQuery,
    words: &str,
) -> Result<Option<Vec<Spot>>, StoreError> {
    let all = SampleQuery { text: None, limit: PROBES_MAX, ..query.clone() };
    let Some((sql, values)) = spots_sql(&all) else { return Ok(None) };
    let mut find = db.prepare_cached(&sql)?;
    let (mut page, mut looked_at) = (Vec::new(), 0);
    let mut rows = find.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        let spot = spot(row)?;
        looked_at += 1;
        if search::holds(db, words, spot.seq)? {
            page.push(spot);
        }
        if page.len() == query.limit {
            return Ok(Some(page));
        }
    }
    Ok((looked_at < PROBES_MAX).then_some(page))
}

fn spot(row: &Row<'_>) -> rusqlite::Result<Spot> {
    Ok(Spot { value: row.get(1)?, seq: row.get(0)? })
}

/// The statement that finds a page's rows; `None` where there can be none.
fn spots_sql(query: &SampleQuery) -> Option<(String, Vec<Value>)> {
    let (from, to) = query.window.seqs();
    let mut terms = vec!["s.seq >= ? AND s.seq < ?".to_owned()];
    let mut values = vec![Value::Integer(from), Value::Integer(to)];
    let mut source = "samples s".to_owned();
    if let Some(text) = &query.text {
        source = "search f JOIN samples s ON s.seq = f.rowid".to_owned();
        // Told to the search itself, the window keeps it from walking through all of time.
        terms.push("f.search MATCH ? AND f.rowid >= ? AND f.rowid < ?".to_owned());
        values.extend([Value::Text(words(text)?), Value::Integer(from), Value::Integer(to)]);
    }
    if let Some((condition, asked)) = query.filter.condition() {
        terms.push(condition);
        values.extend(asked);
    }
    let score = match query.criterion {
        Some(criterion) => packed_score("s.scores", criterion),
        None => "s.worst".to_owned(),
    };
    if let Some((low, high)) = query.scores {
        terms.push(format!("{score} BETWEEN ? AND ?"));
        values.extend([Value::Integer(low.into()), Value::Integer(high.into())]);
    }
    let value = match query.sort {
        Sort::Time => "0.0".to_owned(),
        Sort::Latency => "s.latency_ms".to_owned(),
        Sort::Tokens => "ifnull(s.total, -1)".to_owned(),
        Sort::Score => {
            terms.push(format!("{score} BETWEEN 1 AND 5"));
            score
        }
    };
    let (more, end) = match query.order {
        Order::Ascending => (">", "ASC"),
        Order::Descending => ("<", "DESC"),
    };
    match (query.after, query.sort) {
        (Some(spot), Sort::Time) => {
            terms.push(format!("s.seq {more} ?"));
            values.push(Value::Integer(spot.seq));
        }
        (Some(spot), _) => {
            terms.push(format!("({value}, s.seq) {more} (?, ?)"));
            values.extend([Value::Real(spot.value), Value::Integer(spot.seq)]);
        }
        (None, _) => {}
    }
    let by = match (query.sort, &query.text) {
        (Sort::Time, Some(_)) => format!("f.rowid {end}"),
        (Sort::Time, None) => format!("s.seq {end}"),
        _ => format!("{value} {end}, s.seq {end}"),
    };
    values.push(Value::Integer(signed(query.limit as u64)));
    let terms = terms.join(" AND ");
    let sql = format!(
        "SELECT s.seq, CAST({value} AS REAL) FROM {source} WHERE {terms} ORDER BY {by} LIMIT ?"
    );
    Some((sql, values))
}

/// Where the record of a row is.
fn found_at(db: &Connection, seq: i64) -> Result<Option<Found>, StoreError> {
    let mut find = db.prepare_cached(
        "SELECT o.name, d.line FROM details d JOIN objects o ON o.id = d.object WHERE d.seq = ?",
    )?;
    let found =
        find.query_row([seq], |row| Ok(Found { object: row.get(0)?, line: unsigned(row.get(1)?) }));
    Ok(found.optional()?)
}

fn at_spot(db: &Connection, spot: Spot) -> Result<Option<SampleRow>, StoreError> {
    let mut find = db.prepare_cached(&format!("SELECT {COLUMNS} FROM {FROM} WHERE s.seq = ?"))?;
    let found = find.query_row([spot.seq], |found| row(found, spot)).optional()?;
    Ok(found)
}

/// Reads [`COLUMNS`].
fn row(row: &Row<'_>, spot: Spot) -> rusqlite::Result<SampleRow> {
    let count = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(unsigned));
    Ok(SampleRow {
        spot,
        id: ExchangeId::from_bytes(row.get(1)?),
        time: time_of(row.get(0)?),
        tap: row.get(2)?,
        deployment: row.get(3)?,
        model: row.get(4)?,
        operation: row.get(5)?,
        outcome: row.get(6)?,
        stream: row.get(7)?,
        status: row.get(8)?,
        latency_ms: row.get(9)?,
        first_token_ms: row.get(10)?,
        input: count(11)?,
        output: count(12)?,
        total: count(13)?,
        source: row.get(14)?,
        reason: row.get(15)?,
        probability: row.get(16)?,
        scores: super::scores::unpack(row.get(17)?),
        question: row.get(18)?,
        answer: row.get(19)?,
    })
}
