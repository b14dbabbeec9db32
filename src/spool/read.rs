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

    /// Gives `take` the rows in the order in which they were appended; damaged ones are left out. True where
    /// some of the segment cannot be read.
    pub fn each<'a>(&'a self, mut take: impl FnMut(StoredRow<'a>)) -> bool {
        let mut is_damaged = false;
        for item in Walk::new(&self.bytes).into_iter().flatten() {
            match item {
                Item::Record(Kind::Row, body) => format::read_row(body).into_iter().for_each(&mut take),
                Item::Record(..) => {}
                Item::Damage(_) => is_damaged = true,
            }
        }
        is_damaged
    }
}
