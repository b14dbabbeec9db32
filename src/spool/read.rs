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
    pub fn each(self, take: impl FnMut(StoredRow<'_>)) -> io::Result<bool> {
        self.each_by(WINDOW_BYTES, take)
    }

    fn each_by(
        mut self,
        window_bytes: usize,
        mut take: impl FnMut(StoredRow<'_>),
    ) -> io::Result<bool> {
        let (mut window, mut place) = (Vec::new(), Place::Beginning);
        loop {
            let is_all = read_on(&mut self.file, &mut window, window_bytes)?;
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
fn read_on(file: &mut File, window: &mut Vec<u8>, bytes: usize) -> io::Result<bool> {
    let wanted = bytes.max(window.len());
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

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom, Write};

    use proptest::prelude::*;

    use super::super::format::tests::{row, write_row};
    use super::*;

    type Found = (Vec<Vec<u8>>, bool);

    fn by_window(bytes: &[u8], window_bytes: usize) -> Found {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        file.seek(SeekFrom::Start(MAGIC.len() as u64)).expect("back");
        let mut rows = Vec::new();
        let read = SegmentRows { file }
            .each_by(window_bytes, |row: StoredRow<'_>| rows.push(row.json.to_vec()));
        (rows, read.expect("read"))
    }

    /// What the walk over all of it finds, which recovery takes.
    fn at_once(bytes: &[u8]) -> Found {
        let mut rows = Vec::new();
        let walk = Walk::new(bytes).expect("a segment");
        let is_damaged = rest(walk, |row| rows.push(row.json.to_vec()));
        (rows, is_damaged)
    }

    proptest! {
        #[test]
        fn by_whatever_window_the_same_rows_and_damages_are_found(
            lens in prop::collection::vec(0_usize..300, 0..12), ends in any::<bool>(), again in any::<bool>(),
            damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            cut in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut bytes = MAGIC.to_vec();
            format::write_json(&mut bytes, Kind::Head, &"head");
            lens.iter().for_each(|len| write_row(&mut bytes, &row(&"x".repeat(*len))));
            if ends {
                let at = bytes.len() as u64;
                let mut footer = Vec::new();
                format::write_footer(&mut footer, &format::Tally::default(), at);
                bytes.extend_from_slice(&footer);
            }
            if again {
                format::write_json(&mut bytes, Kind::Head, &"another");
                write_row(&mut bytes, &row("behind"));
            }
            for (at, byte) in damages {
                let at = MAGIC.len() + at.index(bytes.len() - MAGIC.len());
                bytes[at] = byte;
            }
            let cut = cut.map_or(bytes.len(), |at| MAGIC.len() + at.index(bytes.len() - MAGIC.len()));
            bytes.truncate(cut);
            let expected = at_once(&bytes);
            for window_bytes in [1, 37, 300, WINDOW_BYTES] {
                prop_assert_eq!(by_window(&bytes, window_bytes), expected.clone(), "{}", window_bytes);
            }
        }
    }
}
