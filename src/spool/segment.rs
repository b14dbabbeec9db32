//! A segment while it is written.

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Instant;

use jiff::Timestamp;

use super::faults::Point;
use super::folder::{Folder, SegmentId, State};
use super::format::{self, Head, Kind, Mark, Tally};
use crate::capture::failpoint;

/// The one segment that is being written. Its first records are the head and a full checkpoint.
pub(super) struct OpenSegment {
    pub(super) id: SegmentId,
    pub(super) opened: Timestamp,
    /// Since when the first row waits to be sealed.
    pub(super) first_row: Option<Instant>,
    /// Since when the oldest row waits for its fsync.
    pub(super) first_unsynced: Option<Instant>,
    /// Rows written, fsynced or not.
    pub(super) written: Tally,
    /// Rows written and not fsynced.
    pub(super) unsynced: Tally,
    file: File,
    bytes: u64,
    bytes_synced: u64,
}

impl OpenSegment {
    /// Creates the file with its head and first checkpoint, fsynced, its name too.
    pub(super) fn create(
        folder: &Folder,
        id: SegmentId,
        head: &Head,
        mark: &Mark,
    ) -> io::Result<Self> {
        let file = folder.create(id, State::Open)?;
        failpoint::hit("spool_created");
        let mut segment = Self {
            id,
            opened: head.opened,
            first_row: None,
            first_unsynced: None,
            written: Tally::default(),
            unsynced: Tally::default(),
            file,
            bytes: 0,
            bytes_synced: 0,
        };
        let begun = segment.begin(folder, head, mark);
        if begun.is_err() {
            let _ = folder.remove(id, State::Open);
        }
        begun.map(|()| segment)
    }

    fn begin(&mut self, folder: &Folder, head: &Head, mark: &Mark) -> io::Result<()> {
        let mut bytes = format::MAGIC.to_vec();
        format::write_json(&mut bytes, Kind::Head, head);
        format::write_json(&mut bytes, Kind::Checkpoint, mark);
        self.append(folder, &bytes)?;
        self.sync(folder)?;
        folder.sync()
    }

    /// Bytes written.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that an fsync has made safe.
    pub(super) fn bytes_synced(&self) -> u64 {
        self.bytes_synced
    }

    /// True where there is something for the bucket in it.
    pub(super) fn has_rows(&self) -> bool {
        !self.written.is_empty()
    }

    /// Rows that an fsync has made safe.
    pub(super) fn safe(&self) -> Tally {
        self.written.minus(&self.unsynced)
    }

    /// Writes whole records at the end. After an error the segment ends where it ended before: what
    /// was half written is cut off, or else overwritten by the next records.
    pub(super) fn append(&mut self, folder: &Folder, records: &[u8]) -> io::Result<()> {
        self.append_all(folder, &mut [IoSlice::new(records)])
    }

    /// As [`Self::append`], for records in pieces.
    pub(super) fn append_all(
        &mut self,
        folder: &Folder,
        pieces: &mut [IoSlice<'_>],
    ) -> io::Result<()> {
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        let written = folder.faults.at(Point::Write);
        let written = written.and_then(|()| write_all_at(&self.file, pieces, self.bytes));
        match written {
            Ok(()) => {
                self.bytes += bytes as u64;
                failpoint::hit("spool_written");
            }
            Err(_) => {
                let _ = self.file.set_len(self.bytes);
            }
        }
        written
    }

    /// Makes all rows safe. An error means that the file can be trusted no further than the last
    /// fsync, for the kernel may have thrown the pages away.
    pub(super) fn sync(&mut self, folder: &Folder) -> io::Result<()> {
        folder.faults.at(Point::Sync)?;
        self.file.sync_data()?;
        failpoint::hit("spool_synced");
        if self.is_unlinked() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the segment was removed"));
        }
        self.bytes_synced = self.bytes;
        self.first_unsynced = None;
        Ok(())
    }

    /// True where somebody removed the file.
    pub(super) fn is_unlinked(&self) -> bool {
        self.file.metadata().is_ok_and(|meta| meta.nlink() == 0)
    }

    /// Cuts off what no fsync has made safe. Where the disk does not let it, the reader leaves out
    /// what is damaged, and rows that are whole by chance are uploaded though counted as dropped.
    pub(super) fn cut(&mut self) {
        if self.file.set_len(self.bytes_synced).is_ok() {
            self.bytes = self.bytes_synced;
        }
    }

    /// The bytes up to the last fsync, for another file: this works even where the name is gone.
    pub(super) fn safe_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.bytes_synced as usize];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

/// Writes all `pieces` from byte `at` on.
fn write_all_at(file: &File, mut pieces: &mut [IoSlice<'_>], mut at: u64) -> io::Result<()> {
    IoSlice::advance_slices(&mut pieces, 0);
    while !pieces.is_empty() {
        match rustix::io::pwritev(file, pieces, at) {
            Ok(0) => return Err(io::Error::from(io::ErrorKind::WriteZero)),
            Ok(bytes) => {
                IoSlice::advance_slices(&mut pieces, bytes);
                at += bytes as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes a sealed segment in one go: the rows that could be saved from one that failed.
pub(super) fn write_sealed(
    folder: &Folder,
    id: SegmentId,
    mut bytes: Vec<u8>,
    tally: &Tally,
) -> io::Result<u64> {
    let mut footer = Vec::new();
    format::write_footer(&mut footer, tally, bytes.len() as u64);
    bytes.extend_from_slice(&footer);
    let file = folder.create(id, State::Open)?;
    let written = folder
        .faults
        .at(Point::Write)
        .and_then(|()| file.write_all_at(&bytes, 0))
        .and_then(|()| folder.faults.at(Point::Sync))
        .and_then(|()| file.sync_data())
        .and_then(|()| folder.seal(id));
    if written.is_err() {
        let _ = folder.remove(id, State::Open);
    }
    written.map(|()| bytes.len() as u64)
}
