//! What a segment's bytes mean.
//!
//! ```text
//! segment = "FTSPOOL" version(u8 = 1) record*
//! record  = length(u32) crc(u32) version(u8 = 1) kind(u8) body
//!           length counts the body; crc is CRC32C over length, version, kind and body
//! kind 1  head        JSON: id, instance, opened. The first record; the file bears the id's name
//! kind 2  row         dataset(u8) micros(i64) deployment_length(u16) deployment json
//! kind 3  checkpoint  JSON: the ledger's totals for all before it, segments being removed
//! kind 4  footer      JSON: samples by hour. The last record of a sealed segment, followed by
//!                     trailer = footer's offset(u64) "FTSPLEND"
//! ```
//! Integers are little endian. JSON text never holds a byte below 0x20, and every record's first ten
//! bytes do (its version and kind), so stored content can never be taken for a record: after damage
//! the reader may safely look for the next one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::domain::{Dataset, Row};
use crate::ledger::{Checkpoint, Hour};

/// The first bytes of every segment; the last of them is the version.
pub(super) const MAGIC: &[u8; 8] = b"FTSPOOL\x01";
const TRAILER: &[u8; 8] = b"FTSPLEND";
const RECORD_VERSION: u8 = 1;
/// Bytes of a record before its body.
pub(super) const PREFIX_BYTES: usize = 10;
/// Bytes that a trailer takes.
pub(super) const TRAILER_BYTES: usize = 16;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Head,
    Row,
    Checkpoint,
    Footer,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Head, Self::Row, Self::Checkpoint, Self::Footer];

    fn byte(self) -> u8 {
        self as u8 + 1
    }

    fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
    }
}

/// Who wrote a segment, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// Its own name, which its file's must be: a copy under another one would be uploaded once more.
    /// `None` in segments of older versions.
    #[serde(default)]
    pub(super) id: Option<String>,
    /// The number of its run, see `lives`; 0 in segments of older versions.
    #[serde(default)]
    pub(super) life: u64,
    pub(super) instance: String,
    pub(super) opened: Timestamp,
}

/// The ledger's totals, and the segments whose objects the bucket had confirmed by then: they need
/// only be unlinked, and their samples are in `stored` already.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) removing: Vec<String>,
    pub(super) ledger: Checkpoint,
}

/// How many rows a segment holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Samples, by the hour of their own time.
    pub samples: BTreeMap<Hour, u64>,
    /// Other rows.
    pub others: BTreeMap<Hour, u64>,
}

impl Tally {
    /// Counts one row.
    pub fn add(&mut self, dataset: Dataset, hour: Hour) {
        *self.of(dataset).entry(hour).or_default() += 1;
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (into, from) in [(&mut self.samples, &other.samples), (&mut self.others, &other.others)]
        {
            for (hour, n) in from {
                *into.entry(*hour).or_default() += n;
            }
        }
    }

    /// What is in `self` and not in `other`.
    pub fn minus(&self, other: &Self) -> Self {
        let less = |mine: &BTreeMap<Hour, u64>, theirs: &BTreeMap<Hour, u64>| {
            let rest = mine
                .iter()
                .map(|(hour, n)| (*hour, n.saturating_sub(theirs.get(hour).copied().unwrap_or(0))));
            rest.filter(|(_, n)| *n > 0).collect()
        };
        let samples = less(&self.samples, &other.samples);
        Self { samples, others: less(&self.others, &other.others) }
    }

    /// Rows in all.
    pub fn rows(&self) -> u64 {
        self.samples.values().chain(self.others.values()).sum()
    }

    /// True where no row is counted.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    fn of(&mut self, dataset: Dataset) -> &mut BTreeMap<Hour, u64> {
        match dataset {
            Dataset::Exchanges => &mut self.samples,
            _ => &mut self.others,
        }
    }
}

/// A row as it lies in a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StoredRow<'a> {
    /// The top folder.
    pub dataset: Dataset,
    /// The partition's deployment.
    pub deployment: &'a str,
    /// The time that names the partition's date and hour.
    pub time: Timestamp,
    /// One JSON object without a line feed.
    pub json: &'a [u8],
}

/// Bytes that `row` takes in a segment.
pub(super) fn row_bytes(row: &Row) -> u64 {
    (PREFIX_BYTES + 11 + row.deployment.len() + row.json.len()) as u64
}

/// Appends the record of `row` up to its JSON, which has to follow.
pub(super) fn write_row_head(out: &mut Vec<u8>, row: &Row) {
    // Deployments are short labels; one that is not is cut, never written with a wrong length.
    let deployment = row.deployment.as_bytes();
    let deployment = &deployment[..deployment.len().min(usize::from(u16::MAX))];
    let length = (deployment.len() as u16).to_le_bytes();
    let micros = row.time.as_microsecond().to_le_bytes();
    let dataset = [row.dataset as u8];
    write_record(out, Kind::Row, &[&dataset, &micros, &length, deployment], &row.json);
}

/// Appends `value` as a JSON record; false, and nothing appended, if it cannot be written as JSON.
pub(super) fn write_json(out: &mut Vec<u8>, kind: Kind, value: &impl Serialize) -> bool {
    let json = serde_json::to_vec(value);
    if let Ok(json) = &json {
        write_record(out, kind, &[json], &[]);
    }
    json.is_ok()
}

/// Appends the footer and the trailer that finds it; `offset` is where in the segment `out` goes.
pub(super) fn write_footer(out: &mut Vec<u8>, tally: &Tally, offset: u64) {
    let at = offset + out.len() as u64;
    if write_json(out, Kind::Footer, tally) {
        out.extend_from_slice(&at.to_le_bytes());
        out.extend_from_slice(TRAILER);
    }
}

/// Appends a record of `parts`, whose body ends with `rest`: that has to follow.
fn write_record(out: &mut Vec<u8>, kind: Kind, parts: &[&[u8]], rest: &[u8]) {
    let length = rest.len() + parts.iter().map(|part| part.len()).sum::<usize>();
    let start = out.len();
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&[RECORD_VERSION, kind.byte()]);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    let crc = checksum(&out[start..start + 4], &out[start + 8..]);
    let crc = crc32c::crc32c_append(crc, rest);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

fn checksum(length: &[u8], rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(length), rest)
}

/// One thing found in a segment's bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Item<'a> {
    /// A whole record.
    Record(Kind, &'a [u8]),
    /// So many bytes that are no record.
    Damage(usize),
}

/// Walks over a segment's bytes behind the magic. After damage it goes on at the next whole record. A head
/// that is not the first record, and all that follows a footer, are of another segment, or of this one once
/// more: the rest is damage.
pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    place: Place,
}

/// Where in a segment a walk is, as far as it matters to what may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing was read yet.
    Beginning,
    /// Before the footer.
    Within,
    /// Behind the footer.
    Ended,
}

impl Place {
    /// The place behind a record of this kind; `None` where none of the kind may be.
    pub(super) fn behind(self, kind: Kind) -> Option<Self> {
        match (self, kind) {
            (Self::Ended, _) | (Self::Within, Kind::Head) => None,
            (_, Kind::Footer) => Some(Self::Ended),
            _ => Some(Self::Within),
        }
    }
}

impl<'a> Walk<'a> {
    /// A walk over the whole segment `bytes`; `None` where the magic or the version is another.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let begun = Self { bytes, at: MAGIC.len(), place: Place::Beginning };
        bytes.starts_with(MAGIC).then_some(begun)
    }

    /// A walk over the last `bytes` of a segment, from a `place` on.
    pub(super) fn resumed(bytes: &'a [u8], place: Place) -> Self {
        Self { bytes, at: 0, place }
    }
}

impl Walk<'_> {
    /// Where in the segment the walk is.
    pub(super) fn offset(&self) -> u64 {
        self.at as u64
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() || is_trailer(rest) {
            return None;
        }
        if let Some((kind, body)) = record(rest) {
            let Some(place) = self.place.behind(kind) else {
                self.at = self.bytes.len();
                return Some(Item::Damage(rest.len()));
            };
            self.place = place;
            self.at += PREFIX_BYTES + body.len();
            return Some(Item::Record(kind, body));
        }
        if self.place == Place::Beginning {
            self.place = Place::Within;
        }
        let gap = (1..rest.len())
            .find(|gap| record(&rest[*gap..]).is_some() || is_trailer(&rest[*gap..]));
        let gap = gap.unwrap_or(rest.len());
        self.at += gap;
        Some(Item::Damage(gap))
    }
}

fn is_trailer(rest: &[u8]) -> bool {
    rest.len() == TRAILER_BYTES && rest.ends_with(TRAILER)
}

/// The record that `bytes` begin with. The cheap checks come first, so that looking for a record at
/// every offset stays linear.
pub(super) fn record(bytes: &[u8]) -> Option<(Kind, &[u8])> {
    let prefix = bytes.get(..PREFIX_BYTES)?;
    if prefix[8] != RECORD_VERSION {
        return None;
    }
    let kind = Kind::of(prefix[9])?;
    let word =
        |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let end = PREFIX_BYTES.checked_add(word(0) as usize)?;
    let body = bytes.get(PREFIX_BYTES..end)?;
    (checksum(&prefix[..4], &bytes[8..end]) == word(4)).then_some((kind, body))
}

/// The row in a record's body; `None` where its parts do not fit together.
pub(super) fn read_row(body: &[u8]) -> Option<StoredRow<'_>> {
    let (fixed, rest) = body.split_at_checked(11)?;
    let dataset = Dataset::ALL.iter().find(|dataset| **dataset as u8 == fixed[0])?;
    let micros = i64::from_le_bytes(fixed[1..9].try_into().ok()?);
    let length = usize::from(u16::from_le_bytes([fixed[9], fixed[10]]));
    let (deployment, json) = rest.split_at_checked(length)?;
    let deployment = std::str::from_utf8(deployment).ok()?;
    let time = Timestamp::from_microsecond(micros).ok()?;
    Some(StoredRow { dataset: *dataset, deployment, time, json })
}

/// The tally that a segment of `bytes_total` bytes ends with, read from its last bytes: `read` gives
/// the bytes of the file from an offset to its end. `None` where there is none or it is damaged.
pub(super) fn footer_offset(trailer: &[u8]) -> Option<u64> {
    let trailer: &[u8; TRAILER_BYTES] = trailer.try_into().ok()?;
    is_trailer(trailer).then(|| {
        let mut offset = [0; 8];
        offset.copy_from_slice(&trailer[..8]);
        u64::from_le_bytes(offset)
    })
}

/// The tally in the footer that `bytes` begin with.
pub(super) fn read_footer(bytes: &[u8]) -> Option<Tally> {
    let (kind, body) = record(bytes)?;
    (kind == Kind::Footer).then(|| serde_json::from_slice(body).ok()).flatten()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use super::*;

    pub(in super::super) fn row(text: &str) -> Row {
        let time = "2026-11-23T22:47:50.123456Z".parse().expect("a time");
        let json = format!("{{\"id\":\"{text}\"}}").into_bytes();
        Row { dataset: Dataset::Exchanges, deployment: Arc::from("blue"), time, json }
    }

    /// Appends `row` as a record.
    pub(in super::super) fn write_row(out: &mut Vec<u8>, row: &Row) {
        write_row_head(out, row);
        out.extend_from_slice(&row.json);
    }

    fn segment(n: usize) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        (0..n).for_each(|i| write_row(&mut bytes, &row(&format!("row-{i}"))));
        bytes
    }

    fn rows(bytes: &[u8]) -> Vec<String> {
        let Some(walk) = Walk::new(bytes) else { return Vec::new() };
        let rows = walk.filter_map(|item| match item {
            Item::Record(Kind::Row, body) => read_row(body),
            _ => None,
        });
        rows.map(|row| String::from_utf8_lossy(row.json).into_owned()).collect()
    }

    #[test]
    fn a_row_is_read_back_as_it_was_written() {
        let mut bytes = MAGIC.to_vec();
        let row = row("a");
        write_row(&mut bytes, &row);
        assert_eq!(bytes.len() as u64, MAGIC.len() as u64 + row_bytes(&row));
        let Some(Item::Record(Kind::Row, body)) = Walk::new(&bytes).expect("ours").next() else {
            panic!("no row");
        };
        let stored = read_row(body).expect("a row");
        assert_eq!((stored.dataset, stored.deployment), (row.dataset, "blue"));
        assert_eq!((stored.time, stored.json), (row.time, row.json.as_slice()));
    }

    #[test]
    fn cut_at_any_byte_the_whole_rows_before_the_cut_are_read() {
        let bytes = segment(3);
        let one = (bytes.len() - MAGIC.len()) / 3;
        for cut in 0..=bytes.len() {
            let whole = cut.saturating_sub(MAGIC.len()) / one;
            assert_eq!(rows(&bytes[..cut]).len(), whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_flipped_bit_loses_one_row_and_no_other() {
        let bytes = segment(3);
        for at in MAGIC.len()..bytes.len() {
            for bit in 0..8 {
                let mut torn = bytes.clone();
                torn[at] ^= 1 << bit;
                assert_eq!(rows(&torn).len(), 2, "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn a_zeroed_page_loses_the_rows_in_it_and_no_other() {
        let mut bytes = segment(400);
        bytes[4096..8192].fill(0);
        let read = rows(&bytes);
        let one = row_bytes(&row("row-100")) as usize;
        assert!(read.len() >= 400 - 4096 / (one - 2) - 2, "only {} rows are left", read.len());
        assert!(read.last().is_some_and(|row| row.contains("row-399")));
    }

    #[test]
    fn another_version_and_foreign_bytes_are_not_read() {
        let mut bytes = segment(1);
        bytes[7] = 2;
        assert!(Walk::new(&bytes).is_none());
        assert!(Walk::new(b"").is_none());
        assert!(Walk::new(b"PNG or anything").is_none());
    }

    #[test]
    fn content_that_imitates_a_record_is_not_taken_for_one() {
        let mut inner = Vec::new();
        write_row(&mut inner, &row("forged"));
        let forged = serde_json::to_vec(&String::from_utf8_lossy(&inner)).expect("json");
        let mut bytes = MAGIC.to_vec();
        write_row(&mut bytes, &Row { json: forged, ..row("outer") });
        write_row(&mut bytes, &row("after"));
        bytes[MAGIC.len() + 5] ^= 1;
        assert_eq!(rows(&bytes), [r#"{"id":"after"}"#]);
    }

    #[test]
    fn a_footer_is_found_from_the_end() {
        let mut bytes = segment(2);
        let mut tally = Tally::default();
        tally.add(Dataset::Exchanges, Hour::of(Timestamp::UNIX_EPOCH));
        let mut footer = Vec::new();
        write_footer(&mut footer, &tally, bytes.len() as u64);
        bytes.extend_from_slice(&footer);
        let offset = footer_offset(&bytes[bytes.len() - TRAILER_BYTES..]).expect("an offset");
        assert_eq!(read_footer(&bytes[offset as usize..]), Some(tally));
        assert_eq!(rows(&bytes).len(), 2);
        assert!(!Walk::new(&bytes).expect("ours").any(|i| matches!(i, Item::Damage(_))));
    }

    #[test]
    fn what_one_tally_has_and_another_lacks() {
        let (one, two) = (Hour::of(Timestamp::UNIX_EPOCH), Hour::of(Timestamp::MAX));
        let mut all = Tally::default();
        all.add(Dataset::Exchanges, one);
        all.add(Dataset::Exchanges, one);
        all.add(Dataset::Usage, two);
        let mut read = Tally::default();
        read.add(Dataset::Exchanges, one);
        let lost = all.minus(&read);
        assert_eq!((lost.samples.get(&one), lost.others.get(&two)), (Some(&1), Some(&1)));
        read.merge(&lost);
        assert_eq!(read, all);
    }
}
