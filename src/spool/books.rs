//! The books between two checkpoints, in room that was taken beforehand.
//!
//! A checkpoint lies in a segment, is written once a second, and needs room. What was counted since then is
//! written again and again into the file `books`, whose blocks were allocated while there were any: so the
//! figures that a killed process leaves behind are a tenth of a second old, on a full disk too. They are
//! fsynced only where no segment takes them; after a power cut the last checkpoint counts.
//!
//! ```text
//! books = slot slot     128 KiB each, written in turn, so that one of them is whole
//! slot  = a record of kind 3 (see `format`) whose body is a [`Note`] as JSON
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};

use super::folder::{Folder, SegmentId};
use super::format::{self, Kind, Mark};
use crate::capture::failpoint;
use crate::ledger::{Checkpoint, Incarnation};

/// Room for a note. Several hundred hours of figures; one that is larger is not written.
const SLOT_BYTES: usize = 128 << 10;
const SLOTS: usize = 2;

/// What the file says: totals that cover all rows before a place in a segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    /// Counts up; the newer one of both slots counts.
    number: u64,
    /// The number of the run, see `lives`.
    life: u64,
    run: Incarnation,
    segment: u64,
    bytes: u64,
    /// The figures that changed since the last checkpoint before that place.
    mark: Mark,
}

/// A place in the spool: all of the segments before this one, and so many bytes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) id: SegmentId,
    pub(super) bytes: u64,
}

impl Note {
    /// Which run wrote it, and the number of that.
    pub(super) fn life(&self) -> (Incarnation, u64) {
        (self.run, self.life)
    }

    /// Up to where it covers rows.
    pub(super) fn place(&self) -> Place {
        let id = SegmentId { incarnation: self.run, sequence: self.segment };
        Place { id, bytes: self.bytes }
    }

    /// The whole books: `checkpoint`, the last one before this note, with what has changed since.
    pub(super) fn over(self, checkpoint: Option<Checkpoint>) -> Checkpoint {
        let mut pages = checkpoint.map(|before| before.pages).unwrap_or_default();
        pages.extend(self.mark.ledger.pages);
        Checkpoint { pages, ..self.mark.ledger }
    }

    /// Segments whose rows were stored by then.
    pub(super) fn removing(&self) -> &[String] {
        &self.mark.removing
    }
}

/// The file, open for writing.
pub(super) struct Books {
    file: File,
    number: u64,
    last: Option<Note>,
}

impl Books {
    /// Opens the file, and takes its room where it has none yet.
    pub(super) fn open(folder: &Folder) -> io::Result<Self> {
        let file = folder.open_books()?;
        let whole = (SLOTS * SLOT_BYTES) as u64;
        if file.metadata()?.len() != whole {
            // Zeros that are written have blocks; a length that is set has none.
            file.write_all_at(&vec![0; SLOTS * SLOT_BYTES], 0)?;
            file.set_len(whole)?;
            file.sync_all()?;
        }
        let number = read(&file).map_or(0, |note| note.number);
        Ok(Self { file, number, last: None })
    }

    /// Writes a note, and fsyncs it if `safe`. True where figures or place are others than last time.
    pub(super) fn write(
        &mut self,
        life: u64,
        place: Place,
        mark: Mark,
        safe: bool,
    ) -> io::Result<bool> {
        let (run, segment) = (place.id.incarnation, place.id.sequence);
        let note = Note { number: self.number + 1, life, run, segment, bytes: place.bytes, mark };
        let mut slot = Vec::new();
        format::write_json(&mut slot, Kind::Checkpoint, &note);
        if slot.len() > SLOT_BYTES {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let at = note.number % SLOTS as u64 * SLOT_BYTES as u64;
        self.file.write_all_at(&slot, at)?;
        failpoint::hit("spool_noted");
        if safe {
            self.file.sync_data()?;
        }
        let changed = self.last.as_ref().is_none_or(|last| !last.says_the_same(&note));
        (self.number, self.last) = (note.number, Some(note));
        Ok(changed)
    }
}

impl Note {
    fn says_the_same(&self, other: &Self) -> bool {
        let (mine, others) = (&self.mark.ledger, &other.mark.ledger);
        self.place() == other.place() && mine.pages == others.pages && mine.clean == others.clean
    }
}

/// What an earlier run wrote last; `None` where there is nothing whole. An error: the folder cannot be read now.
pub(super) fn find(folder: &Folder) -> io::Result<Option<Note>> {
    let file = folder.of_file(|| folder.read_books())?;
    Ok(file.ok().as_ref().and_then(read))
}

fn read(file: &File) -> Option<Note> {
    let mut bytes = vec![0; SLOTS * SLOT_BYTES];
    file.read_exact_at(&mut bytes, 0).ok()?;
    newest(&bytes)
}

/// The newest note in the bytes of the file.
pub(super) fn newest(bytes: &[u8]) -> Option<Note> {
    let notes = bytes.chunks(SLOT_BYTES).take(SLOTS).filter_map(|slot| {
        let (kind, body) = format::record(slot)?;
        (kind == Kind::Checkpoint).then(|| serde_json::from_slice::<Note>(body).ok()).flatten()
    });
    notes.max_by_key(|note| note.number)
}
