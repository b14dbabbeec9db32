//! Where a sample stands: rows are ordered by time, and an id tells its time, so that a sample is found
//! by its id without an index of ids.
//!
//! A ULID begins with its milliseconds, and a sample's id is made when its request begins. So the rows
//! of that millisecond are the few that can have the id. Whatever stands elsewhere (another program's
//! ids, or a thousand requests in one microsecond) is noted in `strays`.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::StoreError;
use super::lines::SampleLine;
use super::window::seq_of;
use super::writer::Session;
use crate::domain::ExchangeId;

/// Rows that one microsecond has room for.
const ROOM: i64 = 1024;

/// Where a sample that is brought stands, or may stand.
pub(super) enum Place {
    /// It was brought before.
    Known,
    /// Here.
    Free(i64),
}

/// The row of this id.
pub(super) fn seq_of_id(db: &Connection, id: ExchangeId) -> Result<Option<i64>, StoreError> {
    let (from, to) = millisecond(id);
    let mut find =
        db.prepare_cached("SELECT seq FROM details WHERE seq >= ? AND seq < ? AND id = ?")?;
    let bytes = id.to_bytes();
    let found = find.query_row(params![from, to, bytes], |row| row.get(0)).optional()?;
    match found {
        Some(seq) => Ok(Some(seq)),
        None => {
            let mut find = db.prepare_cached("SELECT seq FROM strays WHERE id = ?")?;
            Ok(find.query_row([bytes], |row| row.get(0)).optional()?)
        }
    }
}

/// The smallest id of a moment.
pub(super) fn first_id(at: Timestamp) -> [u8; 16] {
    let mut id = [0; 16];
    let millis = at.as_millisecond().clamp(0, (1 << 48) - 1).to_be_bytes();
    id[..6].copy_from_slice(&millis[2..]);
    id
}

/// The rows of the millisecond that the id was made in.
fn millisecond(id: ExchangeId) -> (i64, i64) {
    let first = seq_of(id.time());
    (first, first.saturating_add(1000 * ROOM))
}

impl Session<'_> {
    /// Whether a sample is known, else the first free row of its microsecond, from its id on.
    pub(super) fn place(&self, sample: &SampleLine) -> Result<Place, StoreError> {
        let (from, to) = millisecond(sample.id);
        let first = seq_of(sample.time);
        let id = sample.id.to_bytes();
        if !(from..to).contains(&first) {
            return self.place_of_stray(sample, first);
        }
        let mut beside =
            self.db.prepare_cached("SELECT seq, id FROM details WHERE seq >= ? AND seq < ?")?;
        let (mut rows, mut taken) = (beside.query([from, to])?, Vec::new());
        while let Some(row) = rows.next()? {
            if row.get_ref(1)?.as_blob().is_ok_and(|known| known == id) {
                return Ok(Place::Known);
            }
            taken.push(row.get::<_, i64>(0)?);
        }
        match free(&id, first, |seq| Ok(taken.binary_search(&seq).is_ok()))? {
            Some(seq) => Ok(Place::Free(seq)),
            None => self.place_of_stray(sample, first),
        }
    }

    /// The same for one that does not stand where its id says.
    fn place_of_stray(&self, sample: &SampleLine, first: i64) -> Result<Place, StoreError> {
        if seq_of_id(self.db, sample.id)?.is_some() {
            return Ok(Place::Known);
        }
        let id = sample.id.to_bytes();
        let mut taken = self.db.prepare_cached("SELECT 1 FROM samples WHERE seq = ?")?;
        let seq = match free(&id, first, |seq| Ok(taken.exists([seq])?))? {
            Some(seq) => seq,
            None => self.behind(first)?,
        };
        let mut note = self.db.prepare_cached("INSERT INTO strays(id, seq) VALUES(?, ?)")?;
        note.execute(params![id, seq])?;
        Ok(Place::Free(seq))
    }

    /// The first free row from `first` on: a thousand requests in one microsecond, the next one has room.
    fn behind(&self, first: i64) -> Result<i64, StoreError> {
        let mut last = self.db.prepare_cached(
            "SELECT seq + 1 FROM samples s WHERE seq >= ? \
             AND NOT EXISTS(SELECT 1 FROM samples n WHERE n.seq = s.seq + 1) ORDER BY seq LIMIT 1",
        )?;
        Ok(last.query_row([first], |row| row.get(0))?)
    }
}

/// A free row of the microsecond that begins with `first`; `None` where all are taken.
fn free(
    id: &[u8; 16],
    first: i64,
    mut taken: impl FnMut(i64) -> Result<bool, StoreError>,
) -> Result<Option<i64>, StoreError> {
    let low = i64::from(id[15]) | i64::from(id[14] & 3) << 8;
    for step in 0..ROOM {
        let seq = first | ((low + step) & (ROOM - 1));
        if !taken(seq)? {
            return Ok(Some(seq));
        }
    }
    Ok(None)
}
