//! Scores: one a sample and criterion, and their sums.

use std::collections::BTreeMap;

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Row, params};
use serde_json::Value;

use super::labels::{self, Labels};
use super::window::{MICROS, SCORES_LEVELS};
use super::writer::Session;
use super::{READ_WITHIN, Store, StoreError};
use crate::domain::{Criterion, ExchangeId, Operation, Outcome, Score, ScoreError};

/// What stands for an attempt that gave no score, in four bits.
const FAILED: u8 = 15;

/// One criterion's judgement of one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRow {
    /// The score's own id.
    pub id: ExchangeId,
    /// What was judged.
    pub criterion: String,
    /// When.
    pub time: Timestamp,
    /// 1 to 5; `None` where no valid score came of it.
    pub score: Option<u8>,
    /// Why there is none.
    pub error: Option<String>,
    /// The judge's explanation, or the user's comment.
    pub reason: Option<String>,
    /// With which probability this sample came to be judged.
    pub probability: f64,
    /// Who judged.
    pub judge: Option<Value>,
    /// The text looks as if it tried to talk the judge into something.
    pub injection_suspect: bool,
}

/// Changes of the counts, gathered before they are stored.
#[derive(Default)]
pub(super) struct ScoreBook(BTreeMap<SumKey, i64>);

/// `span`, `time` in seconds, labels, criterion, score (0 for none), the bits of the probability.
type SumKey = (i64, i64, i64, &'static str, u8, u64);

/// A judgement as far as sums are concerned.
struct Judgement {
    criterion: Criterion,
    at: i64,
    labels: i64,
    score: Option<u8>,
    probability: f64,
    time: i64,
    id: [u8; 16],
}

impl Store {
    /// The scores of a sample, by criterion.
    pub fn scores(&self, sample: ExchangeId) -> Result<Vec<ScoreRow>, StoreError> {
        self.read(READ_WITHIN, |db| {
            let mut find = db.prepare_cached(
                "SELECT id, criterion, time, score, error, reason, probability, judge, \
                 injection_suspect FROM scores WHERE sample = ? ORDER BY criterion",
            )?;
            let rows = find.query_map([sample.to_bytes()], row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

impl Session<'_> {
    /// Stores a score where it beats what is known; false where it does not.
    pub(super) fn put_score(
        &mut self,
        score: &Score,
        book: &mut ScoreBook,
    ) -> Result<bool, StoreError> {
        // The rest is read from the bucket.
        if !score.is_judgement() {
            return Ok(false);
        }
        let known = self.judgement(score.exchange, score.criterion)?;
        let labels = self.labels_of_score(score)?;
        let new = Judgement {
            criterion: score.criterion,
            at: score.exchange_time.as_microsecond(),
            labels,
            score: score.score,
            probability: score.probability,
            time: score.time.as_microsecond(),
            id: score.id.to_bytes(),
        };
        if known.as_ref().is_some_and(|known| known.rank() >= new.rank()) {
            return Ok(false);
        }
        known.iter().for_each(|known| book.add(known, -1));
        book.add(&new, 1);
        let mut insert = self.db.prepare_cached(
            "INSERT OR REPLACE INTO scores(sample, criterion, id, at, time, labels, score, error, \
             reason, probability, judge, injection_suspect) \
             VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        let judge = score.judge.as_ref().and_then(|judge| serde_json::to_string(judge).ok());
        insert.execute(params![
            score.exchange.to_bytes(),
            score.criterion.label(),
            new.id,
            new.at,
            new.time,
            labels,
            score.score,
            score.error.map(ScoreError::label),
            score.reason,
            score.probability,
            judge,
            score.injection_suspect,
        ])?;
        self.mark(score.exchange)?;
        Ok(true)
    }

    /// Gives the scores that came before their sample the sample's labels.
    pub(super) fn adopt_scores(
        &mut self,
        sample: ExchangeId,
        labels: i64,
        book: &mut ScoreBook,
    ) -> Result<(), StoreError> {
        let mut any = self.db.prepare_cached("SELECT 1 FROM scores WHERE sample = ? LIMIT 1")?;
        if !any.exists([sample.to_bytes()])? {
            return Ok(());
        }
        for criterion in Criterion::RATED {
            if let Some(known) = self.judgement(sample, *criterion)? {
                book.add(&known, -1);
                book.add(&Judgement { labels, ..known }, 1);
            }
        }
        let mut update = self.db.prepare_cached("UPDATE scores SET labels = ? WHERE sample = ?")?;
        update.execute(params![labels, sample.to_bytes()])?;
        self.mark(sample)
    }

    fn judgement(
        &self,
        sample: ExchangeId,
        criterion: Criterion,
    ) -> Result<Option<Judgement>, StoreError> {
        let mut find = self.db.prepare_cached(
            "SELECT at, labels, score, probability, time, id FROM scores \
             WHERE sample = ? AND criterion = ?",
        )?;
        let found = find.query_row(params![sample.to_bytes(), criterion.label()], |row| {
            Ok(Judgement {
                criterion,
                at: row.get(0)?,
                labels: row.get(1)?,
                score: row.get(2)?,
                probability: row.get(3)?,
                time: row.get(4)?,
                id: row.get(5)?,
            })
        });
        Ok(found.optional()?)
    }

    /// The sample's labels, else those that the score itself tells.
    fn labels_of_score(&mut self, score: &Score) -> Result<i64, StoreError> {
        let mut find = self.db.prepare_cached("SELECT labels FROM samples WHERE id = ?")?;
        let found = find.query_row([score.exchange.to_bytes()], |row| row.get(0)).optional()?;
        if let Some(labels) = found {
            return Ok(labels);
        }
        drop(find);
        self.labels(&Labels {
            tap: labels::name(&score.tap),
            deployment: labels::name(&score.deployment),
            model: String::new(),
            operation: Operation::Other,
            outcome: Outcome::Ok,
            stream: false,
        })
    }

    /// Writes into the sample's row what its scores are, where the sample is known.
    fn mark(&self, sample: ExchangeId) -> Result<(), StoreError> {
        let mut find =
            self.db.prepare_cached("SELECT criterion, score FROM scores WHERE sample = ?")?;
        let (mut packed, mut worst) = (0_i64, None::<u8>);
        let mut rows = find.query([sample.to_bytes()])?;
        while let Some(row) = rows.next()? {
            let (criterion, score): (String, Option<u8>) = (row.get(0)?, row.get(1)?);
            let place = Criterion::RATED.iter().position(|known| known.label() == criterion);
            let bits = i64::from(score.unwrap_or(FAILED));
            packed |= place.map_or(0, |place| bits << (4 * place));
            worst = worst.into_iter().chain(score).min();
        }
        let mut update =
            self.db.prepare_cached("UPDATE samples SET scores = ?, worst = ? WHERE id = ?")?;
        update.execute(params![packed, worst, sample.to_bytes()])?;
        Ok(())
    }
}

impl Judgement {
    /// The larger one stays, in whatever order they come.
    fn rank(&self) -> (bool, i64, [u8; 16]) {
        (self.score.is_some(), self.time, self.id)
    }
}

impl ScoreBook {
    fn add(&mut self, judgement: &Judgement, n: i64) {
        let second = judgement.at.div_euclid(MICROS);
        let (criterion, score) = (judgement.criterion.label(), judgement.score.unwrap_or(0));
        let (labels, bits) = (judgement.labels, judgement.probability.to_bits());
        for span in SCORES_LEVELS {
            let time = second.div_euclid(*span) * span;
            *self.0.entry((*span, time, labels, criterion, score, bits)).or_default() += n;
        }
    }

    /// Adds what was gathered to what is stored.
    pub(super) fn store(self, session: &Session<'_>) -> Result<(), StoreError> {
        let mut upsert = session.db.prepare_cached(
            "INSERT INTO score_sums(span, time, labels, criterion, score, probability, n) \
             VALUES(?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n",
        )?;
        for ((span, time, labels, criterion, score, bits), n) in self.0 {
            let probability = f64::from_bits(bits);
            upsert.execute(params![span, time, labels, criterion, score, probability, n])?;
        }
        Ok(())
    }
}

/// The expression that takes one criterion's score out of the packed `column`.
pub(super) fn packed_score(column: &str, criterion: Criterion) -> String {
    let place = Criterion::RATED.iter().position(|known| *known == criterion).unwrap_or(0);
    format!("(({column} >> {}) & 15)", 4 * place)
}

/// The valid scores of a packed column.
pub(super) fn unpack(packed: i64) -> Vec<(Criterion, u8)> {
    let score = |place: usize| ((packed >> (4 * place)) & 15) as u8;
    let all =
        Criterion::RATED.iter().enumerate().map(|(place, criterion)| (*criterion, score(place)));
    all.filter(|(_, score)| (1..=5).contains(score)).collect()
}

fn row(row: &Row<'_>) -> rusqlite::Result<ScoreRow> {
    let judge: Option<String> = row.get(7)?;
    Ok(ScoreRow {
        id: ExchangeId::from_bytes(row.get(0)?),
        criterion: row.get(1)?,
        time: Timestamp::from_microsecond(row.get(2)?).unwrap_or_default(),
        score: row.get(3)?,
        error: row.get(4)?,
        reason: row.get(5)?,
        probability: row.get(6)?,
        judge: judge.and_then(|judge| serde_json::from_str(&judge).ok()),
        injection_suspect: row.get(8)?,
    })
}
