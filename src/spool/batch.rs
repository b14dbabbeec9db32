//! Rows on their way into a segment, written from where they lie: a copy of them would cost as much as
//! the writing.

use std::io::IoSlice;
use std::mem;

use super::format::{self, Tally};
use crate::domain::Row;
use crate::ledger::Hour;

/// Rows gathered for one write, as records.
#[derive(Default)]
pub(super) struct Batch {
    /// Each record up to its JSON, one behind the other.
    heads: Vec<u8>,
    /// Where each head ends, and its JSON.
    rows: Vec<(usize, Vec<u8>)>,
    bytes: u64,
    tally: Tally,
}

impl Batch {
    /// Adds a row behind the others.
    pub(super) fn add(&mut self, row: Row) {
        self.bytes += format::row_bytes(&row);
        self.tally.add(row.dataset, Hour::of(row.time));
        format::write_row_head(&mut self.heads, &row);
        self.rows.push((self.heads.len(), row.json));
    }

    /// Bytes that the records take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// True where nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// All records, in pieces.
    pub(super) fn pieces(&self) -> Vec<IoSlice<'_>> {
        let mut from = 0;
        let pieces = self.rows.iter().flat_map(|(end, json)| {
            let head = &self.heads[mem::replace(&mut from, *end)..*end];
            [IoSlice::new(head), IoSlice::new(json)]
        });
        pieces.collect()
    }

    /// Forgets the records; what rows they were.
    pub(super) fn clear(&mut self) -> Tally {
        self.heads.clear();
        self.rows.clear();
        self.bytes = 0;
        mem::take(&mut self.tally)
    }
}
