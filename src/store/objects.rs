//! Which objects of the bucket were read, how far, and what in them could not be.

use std::collections::HashMap;

use jiff::Timestamp;
use rusqlite::{OptionalExtension as _, params};

use super::lines::{Line, LineFault};
use super::scores::ScoreBook;
use super::usage::RollupBook;
use super::writer::Session;
use super::{READ_WITHIN, Store, StoreError};
use crate::domain::Dataset;

/// Quarantined places that are remembered by name; the oldest leave first. All are counted.
const QUARANTINED_MAX: i64 = 10_000;

/// Some lines of one object, on their way into the store.
#[derive(Debug)]
pub struct Piece {
    /// The object's name.
    pub object: String,
    /// Its size in the listing.
    pub bytes: u64,
    /// Its dataset.
    pub dataset: Dataset,
    /// The lines by number, from 1.
    pub lines: Vec<(u64, Line)>,
    /// What could not be read, by line; 0 is the object as a whole.
    pub faults: Vec<(u64, LineFault)>,
    /// The number of the last line looked at.
    pub through: u64,
    /// Nothing follows.
    pub whole: bool,
}

/// What became of a piece.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Lines that were new.
    pub rows: u64,
    /// What was set aside, and was not before.
    pub faults: Vec<(u64, LineFault)>,
}

/// How far an object was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its size then.
    pub bytes: u64,
    /// Lines read.
    pub lines: u64,
    /// All of it was read.
    pub whole: bool,
}

/// A place that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The object's name.
    pub object: String,
    /// The line; 0 is the object as a whole.
    pub line: u64,
    /// A label of [`LineFault`].
    pub reason: String,
    /// When it was found.
    pub at: Timestamp,
}

impl Store {
    /// Stores a piece: all of it or nothing. Lines that were stored before are left out, whichever
    /// object they stand in; so a piece may be brought again.
    pub async fn put_piece(&self, piece: Piece, now: Timestamp) -> Result<Stored, StoreError> {
        self.write(move |session| session.put_piece(&piece, now)).await
    }

    /// The objects whose names begin with `prefix`, as they were when they were read.
    pub fn known(&self, prefix: &str) -> Result<HashMap<String, Known>, StoreError> {
        let end = format!("{prefix}\u{10ffff}");
        self.read(READ_WITHIN, |db| {
            let mut find = db.prepare_cached(
                "SELECT name, bytes, lines, whole FROM objects WHERE name >= ? AND name < ?",
            )?;
            let rows = find.query_map(params![prefix, end], |row| {
                let known = Known {
                    bytes: unsigned(row.get(1)?),
                    lines: unsigned(row.get(2)?),
                    whole: row.get(3)?,
                };
                Ok((row.get(0)?, known))
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The latest places that could not be read, newest first.
    pub fn quarantined(&self, limit: usize) -> Result<Vec<Quarantined>, StoreError> {
        self.read(READ_WITHIN, |db| {
            let mut find = db.prepare_cached(
                "SELECT object, line, reason, at FROM quarantine ORDER BY id DESC LIMIT ?",
            )?;
            let rows = find.query_map([limit as i64], |row| {
                Ok(Quarantined {
                    object: row.get(0)?,
                    line: unsigned(row.get(1)?),
                    reason: row.get(2)?,
                    at: Timestamp::from_microsecond(row.get(3)?).unwrap_or_default(),
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

impl Session<'_> {
    fn put_piece(&mut self, piece: &Piece, now: Timestamp) -> Result<Stored, StoreError> {
        let (object, known) = self.object(piece)?;
        let changed = known.bytes != piece.bytes;
        let written_once = piece.dataset != Dataset::Ledger;
        if changed && written_once && known.lines > 0 {
            // Its sums are in already and cannot be told from the new ones.
            self.remember(object, piece, known.lines, true)?;
            self.quarantine(&piece.object, 0, LineFault::Changed, now)?;
            return Ok(Stored { rows: 0, faults: vec![(0, LineFault::Changed)] });
        }
        let done = if written_once { known.lines } else { 0 };
        let horizon = self.horizon()?;
        let (mut usage, mut scores) = (RollupBook::default(), ScoreBook::default());
        let mut result = Stored::default();
        for (number, line) in piece.lines.iter().filter(|(number, _)| *number > done) {
            let stored = match line {
                Line::Sample(sample) if sample.time < horizon => false,
                Line::Sample(sample) => self.put_sample(sample, object, *number, &mut scores)?,
                Line::Usage(row) if row.time < horizon => false,
                Line::Usage(row) => usage.add(self, row)?,
                Line::Score(score) if score.exchange_time < horizon => false,
                Line::Score(score) => self.put_score(score, &mut scores)?,
                Line::Trace(part) if part.time < horizon => false,
                Line::Trace(part) => self.put_part(part, object, *number)?,
                Line::Ledger(row) => self.put_ledger(&piece.object, row)?,
                Line::Run(run) => self.put_run(run)?,
            };
            result.rows += u64::from(stored);
        }
        usage.store(self)?;
        scores.store(self)?;
        for (number, fault) in piece.faults.iter().filter(|(n, _)| *n > done || *n == 0) {
            self.quarantine(&piece.object, *number, *fault, now)?;
            result.faults.push((*number, *fault));
        }
        self.remember(object, piece, piece.through.max(done), piece.whole)?;
        Ok(result)
    }

    /// The object's id, and how far it was read.
    fn object(&self, piece: &Piece) -> Result<(i64, Known), StoreError> {
        let mut find =
            self.db.prepare_cached("SELECT id, bytes, lines, whole FROM objects WHERE name = ?")?;
        let found = find
            .query_row([&piece.object], |row| {
                let known = Known {
                    bytes: unsigned(row.get(1)?),
                    lines: unsigned(row.get(2)?),
                    whole: row.get(3)?,
                };
                Ok((row.get(0)?, known))
            })
            .optional()?;
        if let Some(found) = found {
            return Ok(found);
        }
        let mut insert = self
            .db
            .prepare_cached("INSERT INTO objects(name, bytes, lines, whole) VALUES(?, ?, 0, 0)")?;
        let id = insert.insert(params![piece.object, signed(piece.bytes)])?;
        Ok((id, Known { bytes: piece.bytes, lines: 0, whole: false }))
    }

    fn remember(
        &self,
        object: i64,
        piece: &Piece,
        lines: u64,
        whole: bool,
    ) -> Result<(), StoreError> {
        let mut update = self
            .db
            .prepare_cached("UPDATE objects SET bytes = ?, lines = ?, whole = ? WHERE id = ?")?;
        update.execute(params![signed(piece.bytes), signed(lines), whole, object])?;
        Ok(())
    }

    fn quarantine(
        &self,
        object: &str,
        line: u64,
        fault: LineFault,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut insert = self.db.prepare_cached(
            "INSERT INTO quarantine(object, line, reason, at) VALUES(?, ?, ?, ?)",
        )?;
        let id =
            insert.insert(params![object, signed(line), fault.label(), now.as_microsecond()])?;
        let mut forget = self.db.prepare_cached("DELETE FROM quarantine WHERE id <= ?")?;
        forget.execute([id - QUARANTINED_MAX])?;
        Ok(())
    }
}

/// A count as SQLite keeps it.
pub(super) fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A count as SQLite gives it back.
pub(super) fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
