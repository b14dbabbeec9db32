//! Scores: one a sample and criterion, and their sums.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, Row, params};
use serde_json::Value;

use super::counts::{Class, Counts, grade_code, grade_of, scale_code, yardstick};
use super::labels::{self, Labels};
use super::places::seq_of_id;
use super::window::{MICROS, SCORES_LEVELS};
use super::writer::Session;
use super::{READ_WITHIN, Store, StoreError};
use crate::domain::{
    Criterion, ExchangeId, Grade, Operation, Outcome, Scale, Score, ScoreError, Yardstick,
};

/// What stands for an attempt that gave no score, in four bits.
const FAILED: u8 = 15;

/// One criterion's judgement of one sample.
#[derive(Clone, Debug, PartialEq)]
pub struct ScoreRow {
    /// The score's own id.
    pub id: ExchangeId,
    /// What was judged; of a custom criterion its name.
    pub criterion: String,
    /// What the score or the value runs over.
    pub scale: Scale,
    /// When.
    pub time: Timestamp,
    /// What was given on that scale; `None` where nothing valid was.
    pub grade: Option<Grade>,
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
    /// The judge had failed its own test.
    pub judge_drift: bool,
}

/// What is gathered of a piece before it is stored.
#[derive(Default)]
pub(super) struct ScoreBook {
    /// Changes of the counts: `span`, `time` in seconds, labels.
    counts: BTreeMap<(i64, i64, i64), Counts>,
    /// Samples whose rows have to be told their scores anew.
    marked: BTreeSet<[u8; 16]>,
    /// The labels of samples that were looked for.
    labels: HashMap<ExchangeId, i64>,
}

/// A judgement as far as sums are concerned.
#[derive(Clone)]
struct Judgement {
    by: Yardstick,
    at: i64,
    labels: i64,
    grade: Option<Grade>,
    drift: bool,
    probability: f64,
    /// The least that any sample had then; its own where that is not known.
    least: f64,
    time: i64,
    id: [u8; 16],
}

impl Store {
    /// The scores of a sample, by criterion.
    pub fn scores(&self, sample: ExchangeId) -> Result<Vec<ScoreRow>, StoreError> {
        self.read(READ_WITHIN, |db| {
            let mut find = db.prepare_cached(
                "SELECT id, criterion, time, scale, grade, error, reason, probability, judge, \
                 injection_suspect, drift FROM scores WHERE sample = ? ORDER BY criterion",
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
        let Some(by) = score.yardstick() else { return Ok(false) };
        let known = self.judgement(score.exchange, by.label())?;
        let labels = match book.labels.get(&score.exchange) {
            Some(labels) => *labels,
            None => self.labels_of_score(score)?,
        };
        book.labels.insert(score.exchange, labels);
        let new = Judgement {
            by,
            at: score.exchange_time.as_microsecond(),
            labels,
            grade: score.grade(),
            drift: score.judge_drift,
            probability: score.probability,
            least: score.probability_least.unwrap_or(score.probability),
            time: score.time.as_microsecond(),
            id: score.id.to_bytes(),
        };
        if known.as_ref().is_some_and(|known| known.rank() >= new.rank()) {
            return Ok(false);
        }
        known.iter().for_each(|known| book.add(known, -1));
        book.add(&new, 1);
        self.write_score(score, &new)?;
        if Criterion::RATED.contains(&score.criterion) {
            book.marked.insert(score.exchange.to_bytes());
        }
        Ok(true)
    }

    fn write_score(&self, score: &Score, new: &Judgement) -> Result<(), StoreError> {
        let mut insert = self.db.prepare_cached(
            "INSERT OR REPLACE INTO scores(sample, criterion, id, at, time, labels, scale, grade, \
             drift, error, reason, probability, least, judge, injection_suspect) \
             VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?;
        let judge = score.judge.as_ref().and_then(|judge| serde_json::to_string(judge).ok());
        insert.execute(params![
            score.exchange.to_bytes(),
            new.by.label(),
            new.id,
            new.at,
            new.time,
            new.labels,
            scale_code(new.by.scale),
            grade_code(new.grade),
            new.drift,
            score.error.map(ScoreError::label),
            score.reason,
            score.probability,
            new.least,
            judge,
            score.injection_suspect,
        ])?;
        Ok(())
    }

    /// Gives the scores that came before their sample the sample's labels.
    pub(super) fn adopt_scores(
        &mut self,
        sample: ExchangeId,
        labels: i64,
        book: &mut ScoreBook,
    ) -> Result<(), StoreError> {
        let mut find =
            self.db.prepare_cached(&format!("SELECT {JUDGEMENT} FROM scores WHERE sample = ?"))?;
        let known: Vec<Judgement> =
            find.query_map([sample.to_bytes()], judgement)?.collect::<Result<_, _>>()?;
        if known.is_empty() {
            return Ok(());
        }
        for known in known {
            book.add(&known, -1);
            book.add(&Judgement { labels, ..known }, 1);
        }
        let mut update = self.db.prepare_cached("UPDATE scores SET labels = ? WHERE sample = ?")?;
        update.execute(params![labels, sample.to_bytes()])?;
        book.marked.insert(sample.to_bytes());
        Ok(())
    }

    fn judgement(
        &self,
        sample: ExchangeId,
        criterion: &str,
    ) -> Result<Option<Judgement>, StoreError> {
        let mut find = self.db.prepare_cached(&format!(
            "SELECT {JUDGEMENT} FROM scores WHERE sample = ? AND criterion = ?"
        ))?;
        Ok(find.query_row(params![sample.to_bytes(), criterion], judgement).optional()?)
    }

    /// The sample's labels, else those that the score itself tells.
    fn labels_of_score(&mut self, score: &Score) -> Result<i64, StoreError> {
        if let Some(seq) = seq_of_id(self.db, score.exchange)? {
            let mut find = self.db.prepare_cached("SELECT labels FROM samples WHERE seq = ?")?;
            return Ok(find.query_row([seq], |row| row.get(0))?);
        }
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
    fn mark(&self, sample: [u8; 16]) -> Result<(), StoreError> {
        let Some(seq) = seq_of_id(self.db, ExchangeId::from_bytes(sample))? else { return Ok(()) };
        let mut find =
            self.db.prepare_cached("SELECT criterion, grade FROM scores WHERE sample = ?")?;
        let (mut packed, mut worst) = (0_i64, None::<u8>);
        let mut rows = find.query([sample])?;
        while let Some(row) = rows.next()? {
            let (criterion, grade): (String, i64) = (row.get(0)?, row.get(1)?);
            let place = Criterion::RATED.iter().position(|known| known.label() == criterion);
            // Figures of other scales, and of criteria that not everybody has, stay out of it.
            let Some(place) = place else { continue };
            let score = u8::try_from(grade).ok();
            packed |= i64::from(score.unwrap_or(FAILED)) << (4 * place);
            worst = worst.into_iter().chain(score).min();
        }
        let mut update =
            self.db.prepare_cached("UPDATE samples SET scores = ?, worst = ? WHERE seq = ?")?;
        update.execute(params![packed, worst, seq])?;
        Ok(())
    }
}

impl Judgement {
    /// The larger one stays, in whatever order they come.
    fn rank(&self) -> (bool, i64, [u8; 16]) {
        (self.grade.is_some(), self.time, self.id)
    }
}

impl ScoreBook {
    fn add(&mut self, judgement: &Judgement, n: i64) {
        let second = judgement.at.div_euclid(MICROS);
        let class = Class {
            grade: grade_code(judgement.grade),
            drift: judgement.drift,
            probability: judgement.probability.to_bits(),
            least: judgement.least.to_bits(),
        };
        for span in SCORES_LEVELS {
            let key = (*span, second.div_euclid(*span) * span, judgement.labels);
            self.counts.entry(key).or_default().add(&judgement.by, class, n);
        }
    }

    /// Adds what was gathered to what is stored.
    pub(super) fn store(self, session: &Session<'_>) -> Result<(), StoreError> {
        let mut find = session.db.prepare_cached(
            "SELECT counts FROM score_sums WHERE span = ? AND time = ? AND labels = ?",
        )?;
        let mut put = session.db.prepare_cached(
            "INSERT OR REPLACE INTO score_sums(span, time, labels, counts) VALUES(?, ?, ?, ?)",
        )?;
        for ((span, time, labels), mut counts) in self.counts {
            let known = find.query_row([span, time, labels], |row| row.get::<_, Vec<u8>>(0));
            if let Some(known) = known.optional()?.and_then(|bytes| Counts::from_bytes(&bytes)) {
                counts.merge(&known);
            }
            put.execute(params![span, time, labels, counts.to_bytes()])?;
        }
        self.marked.into_iter().try_for_each(|sample| session.mark(sample))
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

/// The columns of [`judgement`].
const JUDGEMENT: &str = "criterion, scale, grade, drift, at, labels, probability, time, id, least";

fn judgement(row: &Row<'_>) -> rusqlite::Result<Judgement> {
    let by = yardstick(&row.get::<_, String>(0)?, usize::from(row.get::<_, u8>(1)?));
    Ok(Judgement {
        grade: grade_of(by.scale, row.get(2)?),
        by,
        drift: row.get(3)?,
        at: row.get(4)?,
        labels: row.get(5)?,
        probability: row.get(6)?,
        time: row.get(7)?,
        id: row.get(8)?,
        least: row.get(9)?,
    })
}

fn row(row: &Row<'_>) -> rusqlite::Result<ScoreRow> {
    let judge: Option<String> = row.get(8)?;
    let by = yardstick(&row.get::<_, String>(1)?, usize::from(row.get::<_, u8>(3)?));
    Ok(ScoreRow {
        id: ExchangeId::from_bytes(row.get(0)?),
        criterion: by.label().to_owned(),
        scale: by.scale,
        time: Timestamp::from_microsecond(row.get(2)?).unwrap_or_default(),
        grade: grade_of(by.scale, row.get(4)?),
        error: row.get(5)?,
        reason: row.get(6)?,
        probability: row.get(7)?,
        judge: judge.and_then(|judge| serde_json::from_str(&judge).ok()),
        injection_suspect: row.get(9)?,
        judge_drift: row.get(10)?,
    })
}
