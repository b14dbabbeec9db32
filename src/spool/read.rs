//! Reading a sealed segment for the archive: a window at a time, so that what is packed is still in the
//! processor's cache, and no memory as large as a segment is needed.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::folder::{self, SegmentId};
use super::format::{self, Item, Kind, MAGIC, PREFIX_BYTES, Place, StoredRow, Walk};

/// Bytes that are read at once; a longer record, or damage, takes more.
const WINDOW_BYTES: usize = 256 << 10;

/// A sealed segment's rows, to be walked over.
#[derive(Debug)]
pub struct SegmentRows {
    file: File,
}

impl SegmentRows {
    pub(super) fn open(dir: &Path, id: SegmentId) -> io::Result<Self> {
        let mut file = folder::open_sealed(dir, id)?;
        let mut magic = [0; MAGIC.len()];
        let read = file.read_exact(&mut magic);
        match read {
            Ok(()) if magic == *MAGIC => Ok(Self { file }),
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
            _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    }

    /// Gives `take` the rows in the order in which they were appended; damaged ones are left out. True where
    /// some of the segment cannot be read. Holds a few hundred KiB, or what follows some damage.
    pub fn each(mut self, mut take: impl FnMut(StoredRow<'_>)) -> io::Result<bool> {
        let (mut window, mut place) = (Vec::new(), Place::Beginning);
        loop {
            let is_all = read_on(&mut self.file, &mut window)?;
            let mut at = 0;
            while let Some((kind, body)) = format::record(&window[at..])
                && let Some(behind) = place.behind(kind)
            {
                row(kind, body).into_iter().for_each(&mut take);
                place = behind;
                at += PREFIX_BYTES + body.len();
            }
            if is_all {
                return Ok(rest(Walk::resumed(&window[at..], place), take));
            }
            window.drain(..at);
        }
    }
}

/// Adds the next bytes to what is left in `window`; true if those are the last.
fn read_on(file: &mut File, window: &mut Vec<u8>) -> io::Result<bool> {
    let wanted = WINDOW_BYTES.max(window.len());
    window.reserve(wanted);
    let read = file.take(wanted as u64).read_to_end(window)?;
    Ok(read < wanted)
}

/// The last bytes of a segment, whatever is in them; true where that is damage.
fn rest(walk: Walk<'_>, mut take: impl FnMut(StoredRow<'_>)) -> bool {
    let mut is_damaged = false;
    for item in walk {
        match item {
            Item::Record(kind, body) => row(kind, body).into_iter().for_each(&mut take),
            Item::Damage(_) => is_damaged = true,
        }
    }
    is_damaged
}

fn row(kind: Kind, body: &[u8]) -> Option<StoredRow<'_>> {
    if kind == Kind::Row { format::read_row(body) } else { None }
}
