//! Reading a sealed segment for the archive.

use std::io;
use std::path::Path;

use super::folder::{self, SegmentId};
use super::format::{self, Item, Kind, StoredRow, Walk};

/// A sealed segment's bytes, to be walked over.
#[derive(Debug)]
pub struct SegmentRows {
    bytes: Vec<u8>,
}

impl SegmentRows {
    pub(super) fn read(dir: &Path, id: SegmentId) -> io::Result<Self> {
        let bytes = folder::read_segment(dir, id)?;
        match Walk::new(&bytes) {
            Some(_) => Ok(Self { bytes }),
            None => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    }

    /// The rows in the order in which they were appended; damaged ones are left out.
    pub fn rows(&self) -> impl Iterator<Item = StoredRow<'_>> {
        Walk::new(&self.bytes).into_iter().flatten().filter_map(|item| match item {
            Item::Record(Kind::Row, body) => format::read_row(body),
            _ => None,
        })
    }

    /// True where some of the segment cannot be read.
    pub fn is_damaged(&self) -> bool {
        let mut items = Walk::new(&self.bytes).into_iter().flatten();
        items.any(|item| matches!(item, Item::Damage(_)))
    }
}
