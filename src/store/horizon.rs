//! Forgetting: everything before the horizon is gone, and is not read from the bucket again.
//!
//! The horizon moves by age, and further where the file would be too large. It is an hour's first
//! moment, as in the bucket's folders.

use jiff::{SignedDuration, Timestamp};
use rusqlite::{OptionalExtension as _, params};

use super::places::first_id;
use super::window::{MICROS, TOTALS_LEVELS, seq_of, time_of};
use super::writer::Session;
use super::{READ_WITHIN, Store, StoreError};
use crate::config::Retention;

/// The note that keeps it, in seconds since the epoch.
const NOTE: &str = "horizon";
const HOUR: i64 = 3600;
/// Rows that one piece of work removes: other writers wait no longer than for that.
const ROWS_AT_ONCE: i64 = 2000;
/// Pages given back to the file system at once.
const PAGES_AT_ONCE: i64 = 2000;
/// Where the file is too large, this share of the time that it spans goes at once.
const SHARE: i64 = 20;

impl Store {
    /// The first moment that is kept.
    pub fn horizon(&self) -> Result<Timestamp, StoreError> {
        let noted = self.note(NOTE)?.and_then(|text| text.parse().ok());
        Ok(noted.and_then(|second| Timestamp::from_second(second).ok()).unwrap_or(Timestamp::MIN))
    }

    /// Forgets what is older than `retention` allows, and more where the file is larger than it
    /// allows. Returns the horizon.
    pub async fn retain(
        &self,
        retention: &Retention,
        now: Timestamp,
    ) -> Result<Timestamp, StoreError> {
        let age = SignedDuration::try_from(retention.age).unwrap_or(SignedDuration::MAX);
        let by_age = now.checked_sub(age).unwrap_or(Timestamp::MIN);
        let mut horizon = self.horizon()?;
        if hour_of(by_age) > hour_of(horizon) {
            horizon = self.forget(by_age).await?;
            self.write(move |session| session.forget_documents(by_age)).await?;
        }
        for _ in 0..SHARE {
            if self.used_bytes()? <= retention.bytes_max {
                break;
            }
            let Some(oldest) = self.oldest()? else { break };
            let share = now.duration_since(oldest).as_secs() / SHARE;
            let next = (oldest.as_second() + share.max(HOUR)).min(now.as_second());
            horizon = self.forget(Timestamp::from_second(next).unwrap_or(horizon)).await?;
        }
        while self.write(|session| session.give_back()).await? {}
        Ok(horizon)
    }

    /// Forgets everything before the hour of `before`.
    async fn forget(&self, before: Timestamp) -> Result<Timestamp, StoreError> {
        let hour = hour_of(before);
        let horizon = Timestamp::from_second(hour).unwrap_or(Timestamp::MIN);
        // Noted first: what is removed must not be read again.
        self.write(move |session| session.put_note(NOTE, &hour.to_string())).await?;
        while self.write(move |session| session.forget_some(horizon)).await? {}
        Ok(horizon)
    }

    /// Bytes of the file that hold something.
    fn used_bytes(&self) -> Result<u64, StoreError> {
        self.read(READ_WITHIN, |db| {
            let pragma = |name: &str| db.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0));
            let (all, free): (i64, i64) = (pragma("page_count")?, pragma("freelist_count")?);
            let size: i64 = pragma("page_size")?;
            Ok(u64::try_from((all - free) * size).unwrap_or(0))
        })
    }

    /// The time of the oldest row.
    fn oldest(&self) -> Result<Option<Timestamp>, StoreError> {
        self.read(READ_WITHIN, |db| {
            let sample: Option<i64> =
                db.query_row("SELECT min(seq) FROM samples", [], |row| row.get(0))?;
            let rollup: Option<i64> =
                db.query_row("SELECT min(time) FROM rollups WHERE span = ?", [60], |row| {
                    row.get(0)
                })?;
            let rollup = rollup.and_then(|second| Timestamp::from_second(second).ok());
            Ok(sample.map(time_of).into_iter().chain(rollup).min())
        })
    }
}

impl Session<'_> {
    /// The first moment that is kept.
    pub(super) fn horizon(&self) -> Result<Timestamp, StoreError> {
        let mut find = self.db.prepare_cached("SELECT value FROM notes WHERE name = ?")?;
        let noted: Option<String> = find.query_row([NOTE], |row| row.get(0)).optional()?;
        let second = noted.and_then(|text| text.parse().ok());
        Ok(second.and_then(|s| Timestamp::from_second(s).ok()).unwrap_or(Timestamp::MIN))
    }

    /// Removes some of what lies before the horizon; true where more may be there.
    fn forget_some(&mut self, horizon: Timestamp) -> Result<bool, StoreError> {
        let (seq, second) = (seq_of(horizon), horizon.as_second());
        let mut oldest = self.db.prepare_cached(
            "SELECT max(seq) FROM (SELECT seq FROM samples WHERE seq < ? ORDER BY seq LIMIT ?)",
        )?;
        let last: Option<i64> = oldest.query_row([seq, ROWS_AT_ONCE], |row| row.get(0))?;
        if let Some(last) = last {
            for sql in [
                "DELETE FROM search WHERE rowid IN (SELECT seq FROM details WHERE seq <= ? \
                 AND (question IS NOT NULL OR answer IS NOT NULL))",
                "DELETE FROM details WHERE seq <= ?",
                "DELETE FROM strays WHERE seq <= ?",
                "DELETE FROM samples WHERE seq <= ?",
            ] {
                self.db.prepare_cached(sql)?.execute([last])?;
            }
        }
        let mut removed = usize::from(last.is_some());
        // An id begins with its time: what is about older samples stands first.
        let (first, micros) = (first_id(horizon), second.saturating_mul(MICROS));
        for sql in [
            "DELETE FROM scores WHERE (sample, criterion) IN (SELECT sample, criterion FROM scores WHERE sample < ? AND at < ? LIMIT ?)",
            "DELETE FROM parts WHERE (sample, object, line) IN (SELECT sample, object, line FROM parts WHERE sample < ? AND at < ? LIMIT ?)",
        ] {
            let bounds = params![first, micros, ROWS_AT_ONCE];
            removed += self.db.prepare_cached(sql)?.execute(bounds)?;
        }
        let ledger =
            "DELETE FROM ledger WHERE object IN (SELECT object FROM ledger WHERE hour < ? LIMIT ?)";
        removed += self.db.prepare_cached(ledger)?.execute([second, ROWS_AT_ONCE])?;
        for table in ["rollups", "score_sums"] {
            for span in TOTALS_LEVELS {
                // A day or an hour that reaches past the horizon stays until it is wholly before it.
                let sql = format!(
                    "DELETE FROM {table} WHERE (span, time) IN (SELECT span, time FROM {table} WHERE span = ? AND time + ? <= ? ORDER BY time LIMIT ?)"
                );
                let bounds = params![span, span, second, ROWS_AT_ONCE];
                removed += self.db.prepare_cached(&sql)?.execute(bounds)?;
            }
        }
        Ok(removed > 0)
    }

    /// Removes the runs, and the alerts that are over, from before `before`.
    fn forget_documents(&mut self, before: Timestamp) -> Result<(), StoreError> {
        let micros = before.as_microsecond();
        self.db.execute("DELETE FROM runs WHERE at < ?", [micros])?;
        let over = "DELETE FROM alerts WHERE updated < ? AND state <> 'open'";
        self.db.execute(over, [micros])?;
        Ok(())
    }

    /// Gives free pages back to the file system; true where more may be.
    fn give_back(&mut self) -> Result<bool, StoreError> {
        let free = |session: &Self| -> Result<i64, StoreError> {
            Ok(session.db.query_row("PRAGMA freelist_count", [], |row| row.get(0))?)
        };
        let before = free(self)?;
        if before < PAGES_AT_ONCE {
            return Ok(false);
        }
        self.db.execute_batch(&format!("PRAGMA incremental_vacuum({PAGES_AT_ONCE})"))?;
        Ok(free(self)? < before)
    }
}

/// The first second of the hour of `at`.
fn hour_of(at: Timestamp) -> i64 {
    at.as_second().div_euclid(HOUR) * HOUR
}
