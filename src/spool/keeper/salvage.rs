//! What can be saved of a segment that failed, and of the thread's own faults.

use std::io;
use std::mem;
use std::time::Instant;

use super::super::Sealed;
use super::super::folder::State;
use super::super::format::Tally;
use super::super::segment::{self, OpenSegment};
use super::Keeper;
use crate::domain::DropReason;
use crate::ledger::Memo;

impl Keeper {
    /// A fault of this code costs the rows at hand, not the thread.
    pub(super) fn recover_from_panic(&mut self) {
        tracing::error!("the spool's thread panicked; it goes on with a new segment");
        let lost = self.batch.clear();
        self.drop_rows(&lost, DropReason::Panic);
        self.abandon(&io::Error::other("a panic"));
    }

    pub(super) fn sealed(&self, open: &OpenSegment, tally: Tally, damaged: bool) -> Sealed {
        let instance = Some(self.shared.ledger.instance().to_string());
        Sealed { bytes: open.bytes(), opened: open.opened, tally, instance, damaged }
    }

    /// Names complete segments as sealed, and lets the archive have them; where that fails they stay
    /// as they are until it works, in this run or the next.
    pub(super) fn offer_stranded(&mut self) {
        let Some(folder) = &self.folder else { return };
        for (id, sealed) in mem::take(&mut self.stranded) {
            if let Err(error) = folder.seal(id) {
                self.health.failed(&error, Instant::now());
                self.stranded.push((id, sealed));
            } else {
                self.shared.sealed().insert(id, sealed);
                self.shared.grown.notify_one();
            }
        }
    }

    /// Gives up the open segment after an error that leaves its end unknown. Rows that no fsync had
    /// made safe are dropped. The file is cut after the last fsync, uploaded as it is, and then goes
    /// to `corrupt/`; it is never written or fsynced again. That needs no room on the disk.
    pub(super) fn abandon(&mut self, error: &io::Error) {
        self.health.failed(error, Instant::now());
        let Some(mut open) = self.open.take() else { return };
        self.drop_rows(&open.unsynced, self.health.trouble());
        self.memo = Memo::default();
        self.find_folder();
        let safe = open.safe();
        if open.is_unlinked() {
            self.save(&open, &safe);
        } else if safe.is_empty() {
            let aside = self.folder.as_ref().map(|folder| folder.set_aside(open.id, State::Open));
            tracing::warn!(segment = %open.id, ok = aside.is_some_and(|a| a.is_ok()), "set aside");
        } else {
            open.cut();
            self.stranded.push((open.id, self.sealed(&open, safe, true)));
            self.offer_stranded();
        }
    }

    /// Has the books on the disk, in the open segment or at the beginning of a new one; false where the
    /// disk takes neither. A crash then forgets what was booked since the last time, so that what was
    /// stored would be told as lost.
    pub(super) fn make_books_safe(&mut self) -> bool {
        if self.sync(true, false) {
            return true;
        }
        match self.open.is_some() {
            true => self.seal(),
            false => drop(self.begin()),
        }
        self.open.is_some() || self.book(true)
    }

    /// Writes the safe rows of a segment that somebody removed once more, under its own name.
    fn save(&mut self, open: &OpenSegment, safe: &Tally) {
        let id = open.id;
        let missing = io::Error::from(io::ErrorKind::NotFound);
        let saved = match &self.folder {
            Some(folder) if !safe.is_empty() => {
                open.safe_bytes().and_then(|bytes| segment::write_sealed(folder, id, bytes, safe))
            }
            _ => Err(missing),
        };
        if let Ok(bytes) = saved {
            let sealed = Sealed { bytes, ..self.sealed(open, safe.clone(), false) };
            self.shared.sealed().insert(id, sealed);
            self.shared.grown.notify_one();
            return;
        }
        for (hour, n) in &safe.samples {
            self.shared.ledger.unreadable(id.incarnation, *hour, *n);
        }
    }
}
