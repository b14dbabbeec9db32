//! Checkpoints in the open segment, and the newest figures beside it (see `books`).

use std::io;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::super::books::{Books, Place};
use super::super::folder::SegmentId;
use super::super::format::{self, Kind, Mark};
use super::{CHECKPOINT_EVERY, Keeper};
use crate::ledger::Checkpoint;

/// Between two times where figures changed: bounds what a kill leaves uncounted.
const BOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two checkpoints where nothing changed: bounds what a power cut leaves uncounted.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(10);

impl Keeper {
    /// Adds a checkpoint to `records` where one is due; `now` says that it is.
    pub(super) fn mark(&mut self, now: bool, records: &mut Vec<u8>) -> bool {
        let since = self.checkpointed.elapsed();
        let Some(open) = self.open.as_ref().filter(|_| now || since >= CHECKPOINT_EVERY) else {
            return false;
        };
        let (time, group) = (Timestamp::now(), &open.unsynced.samples);
        let changed = self.shared.ledger.checkpoint(&mut self.memo, false, group, time);
        if changed.is_none() && !now && since < HEARTBEAT_EVERY {
            return false;
        }
        let unchanged = || Checkpoint { time, clean: self.closed, pages: Default::default() };
        let ledger = changed.unwrap_or_else(unchanged);
        self.checkpointed = Instant::now();
        format::write_json(
            records,
            Kind::Checkpoint,
            &Mark { removing: self.removing.clone(), ledger },
        )
    }

    /// How long the newest figures may be unwritten.
    pub(super) fn book_every(&self) -> Duration {
        if self.busy { BOOK_EVERY } else { CHECKPOINT_EVERY }
    }

    /// Writes the newest figures; false where that failed. No error is told: with a disk that takes
    /// nothing, rows are lost too, and that is.
    pub(super) fn book(&mut self, safe: bool) -> bool {
        self.booked = Instant::now();
        let written = self.write_books(safe);
        self.busy = written.as_ref().is_ok_and(|changed| *changed);
        if written.is_err() {
            self.books = None;
        }
        written.is_ok()
    }

    fn write_books(&mut self, safe: bool) -> io::Result<bool> {
        let folder = self.folder.as_ref().ok_or(io::ErrorKind::NotFound)?;
        if self.books.is_none() {
            self.books = Some(Books::open(folder)?);
        }
        let ledger = self.shared.ledger.since(&self.memo, Timestamp::now());
        let mark = Mark { removing: self.removing.clone(), ledger };
        let place = self.place();
        let books = self.books.as_mut().ok_or(io::ErrorKind::NotFound)?;
        books.write(self.life, place, mark, safe)
    }

    /// Up to where the figures cover rows: those that are fsynced are counted as kept.
    fn place(&self) -> Place {
        let (incarnation, sequence) = (self.shared.ledger.incarnation(), self.sequence);
        match &self.open {
            Some(open) => Place { id: open.id, bytes: open.bytes_synced() },
            None => Place { id: SegmentId { incarnation, sequence }, bytes: u64::MAX },
        }
    }
}
