//! What is booked is on the disk before the segment that it is about goes, also where the disk is full.

use std::io;

use super::faults::{Faults, Point};
use super::format::Tally;
use super::tests::*;
use crate::config;
use crate::ledger::LedgerRow;

/// Finishes one of several segments while so many writes fail, is killed, and is opened again: how many
/// samples are stored, and how many are lost.
fn finished_on_a_full_disk(failing: u32) -> (u64, u64, u64) {
    let dir = tempfile::tempdir().expect("a folder");
    let faults = Faults::default();
    let settings = config::Spool { segment_bytes: 4 << 10, ..settings(dir.path()) };
    let (spool, _) = open_with(&settings, faults.clone());
    offer(&spool, 0..200);
    until("sealed", || spool.sealed().len() > 2);
    until("kept", || ledger_row(&spool).kept == 200);
    let (id, sealed) = sealed(&spool).remove(0);
    let n = sealed.tally.rows();
    faults.arm_times(Point::Write, io::ErrorKind::StorageFull, failing);
    assert!(block_on(spool.finish(id, sealed.tally, Tally::default(), false)));
    let copy = killed_copy(&spool);
    faults.disarm();
    let (after, _) = open(&super::tests::settings(copy.path()));
    (n, total(&after, |row| row.stored), total(&after, LedgerRow::dropped_total))
}

/// Promise (operations): on a full disk, too, a crash tells nothing as lost that was stored. Figure: the
/// checkpoint fails, and the next one, until the segment has made room.
#[test]
fn books_that_the_open_segment_cannot_take_go_to_a_new_one() {
    for failing in [0, 1, 2, 3] {
        let (n, stored, dropped) = finished_on_a_full_disk(failing);
        assert_eq!((stored, dropped), (n, 0), "{failing} writes fail");
    }
}
