//! What is booked is on the disk before the segment that it is about goes, and what was seen is told after a
//! kill, also where the disk is full. A copy of a segment is not booked again.

use std::io;
use std::{fs, path::Path};

use super::faults::{Faults, Point};
use super::format::Tally;
use super::tests::*;
use super::{SegmentId, Spool};
use crate::config;
use crate::domain::{DropReason, DropStage};
use crate::ledger::LedgerRow;

/// A spool with 200 samples in several segments.
fn several_sealed() -> (tempfile::TempDir, Faults, Spool) {
    let (dir, faults) = (tempfile::tempdir().expect("a folder"), Faults::default());
    let settings = config::Spool { segment_bytes: 4 << 10, ..settings(dir.path()) };
    let (spool, _) = open_with(&settings, faults.clone());
    offer(&spool, 0..200);
    until("sealed", || spool.sealed().len() > 2);
    until("kept", || ledger_row(&spool).kept == 200);
    (dir, faults, spool)
}

/// Finishes one of several segments while so many writes fail, is killed, and is opened again: how many
/// samples are stored, and how many are lost.
fn finished_on_a_full_disk(failing: u32) -> (u64, u64, u64) {
    let (_dir, faults, spool) = several_sealed();
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

/// Promise (operations): a segment that was stored and could not be removed is not counted once more, however
/// often the process is killed before it can be. Figure: 3 kills, 200 samples, one segment of them stored.
#[test]
fn what_is_stored_and_cannot_be_removed_is_booked_once() {
    let (_dir, faults, spool) = several_sealed();
    faults.arm(Point::Remove, io::ErrorKind::PermissionDenied);
    let (id, sealed) = sealed(&spool).remove(0);
    let n = sealed.tally.rows();
    assert!(n > 0 && block_on(spool.finish(id, sealed.tally, Tally::default(), false)));
    let mut copy = killed_copy(&spool);
    for kill in 0..3 {
        assert!(copy.path().join(format!("{id}.seg")).exists(), "{kill}");
        let (again, _) = open_with(&super::tests::settings(copy.path()), faults.clone());
        assert!(block_on(again.checkpoint()));
        let figures = |of: fn(&LedgerRow) -> u64| total(&again, of);
        assert_eq!((figures(|row| row.stored), figures(|row| row.pending)), (n, 200 - n), "{kill}");
        assert_eq!(figures(|row| row.seen), 200, "{kill}");
        copy = killed_copy(&again);
    }
    faults.disarm();
    let (last, _) = open(&super::tests::settings(copy.path()));
    until("removed", || !copy.path().join(format!("{id}.seg")).exists());
    assert_eq!(total(&last, |row| row.stored), n);
}

fn dropped(rows: &[LedgerRow], stage: DropStage, reason: DropReason) -> u64 {
    let losses = rows.iter().flat_map(|row| &row.dropped);
    let losses = losses.filter(|loss| loss.stage == stage.label() && loss.reason == reason.label());
    losses.map(|loss| loss.count).sum()
}

/// Promise (operations): a process that is killed on a full disk, more than once, leaves books that know what
/// it saw, and what it lost. Figure: 2 kills, 70 of 70 seen accounted for.
#[test]
fn what_was_seen_on_a_full_disk_is_accounted_for_after_a_kill() {
    let (_dir, faults, spool) = ten_kept();
    faults.arm(Point::Write, io::ErrorKind::StorageFull);
    offer(&spool, 10..40);
    until("dropped", || ledger_row(&spool).dropped_total() == 30);
    spool.ledger().seen(hour(), 5);
    spool.ledger().not_sampled(hour(), 5);
    let first = until_noted(&spool, 45);

    // The next life finds the disk as full as the last one left it.
    let (again, _) = open_with(&settings(first.path()), faults.clone());
    assert_eq!(offer(&again, 0..25), 25);
    until("dropped", || ledger_row(&again).dropped_total() == 25);
    let second = until_noted(&again, 70);
    faults.disarm();

    let (after, recovery) = open(&settings(second.path()));
    let rows = after.ledger().rows(at());
    assert!(rows.iter().all(LedgerRow::balances), "{rows:?}");
    assert_eq!(total(&after, |row| row.seen), 70, "{rows:?}");
    assert_eq!((total(&after, |row| row.not_sampled), total(&after, |row| row.pending)), (5, 10));
    assert_eq!(dropped(&rows, DropStage::Spool, DropReason::DiskFull), 55, "{rows:?}");
    assert!(recovery.unaccounted.is_some(), "what the last tenth of a second saw is not known");
}

/// What a kill leaves behind once the books beside the segments know of `seen` exchanges in all.
fn until_noted(spool: &Spool, seen: u64) -> tempfile::TempDir {
    let mut copy = killed_copy(spool);
    until("noted", || {
        copy = killed_copy(spool);
        let (after, _) = open(&settings(copy.path()));
        let noted = total(&after, |row| row.seen) == seen;
        drop(after);
        copy = killed_copy(spool);
        noted && copy.path().join("books").exists()
    });
    copy
}

/// Rows behind the newest figures, fsynced or not, are those that the segment holds.
#[test]
fn figures_beside_the_segments_and_the_rows_behind_them_make_the_whole() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, _) = open(&settings(dir.path()));
    let mut offered = 0;
    for _ in 0..20 {
        offered += offer(&spool, offered..offered + 37);
        let copy = killed_copy(&spool);
        let (after, _) = open(&settings(copy.path()));
        let rows = after.ledger().rows(at());
        assert!(rows.iter().all(|row| row.balances() && row.in_flight == 0), "{rows:?}");
        let there: u64 = sealed(&after).iter().map(|(_, sealed)| sealed.tally.rows()).sum();
        assert_eq!(total(&after, |row| row.pending), there, "{rows:?}");
        assert!(total(&after, |row| row.seen) <= offered as u64);
    }
    until("kept", || ledger_row(&spool).kept == 740);
}

/// A file of figures that is damaged, foreign or missing costs nothing but their newness.
#[test]
fn books_that_cannot_be_read_are_left_aside() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, _) = open(&settings(dir.path()));
    offer(&spool, 0..10);
    until("kept", || ledger_row(&spool).kept == 10);
    let copy = until_noted(&spool, 10);
    let path = copy.path().join("books");
    let whole = fs::read(&path).expect("there");
    let spoil = |change: &dyn Fn(&Path)| {
        let again = tempfile::tempdir().expect("a folder");
        for entry in fs::read_dir(copy.path()).expect("lists").flatten() {
            drop(fs::copy(entry.path(), again.path().join(entry.file_name())));
        }
        change(&again.path().join("books"));
        let (after, _) = open(&settings(again.path()));
        assert_eq!((total(&after, |row| row.seen), total(&after, |row| row.pending)), (10, 10));
        assert!(after.ledger().rows(at()).iter().all(LedgerRow::balances));
        offer(&after, 10..20);
        until("kept", || ledger_row(&after).kept == 10);
    };
    spoil(&|path| fs::remove_file(path).expect("removed"));
    spoil(&|path| fs::write(path, b"").expect("written"));
    spoil(&|path| fs::write(path, b"\x89PNG").expect("written"));
    spoil(&|path| fs::write(path, vec![0; whole.len()]).expect("written"));
    for at in (0..400).step_by(7).chain([128 << 10, (128 << 10) + 20]) {
        spoil(&|path| {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x41;
            fs::write(path, bytes).expect("written");
        });
    }
}

/// Promise (operations): a segment that was copied under another name is uploaded once, and the copy set aside
/// and counted. Figure: 4 names (later, earlier, of another run, open beside sealed), 100 rows once.
#[test]
fn a_copy_of_a_segment_is_set_aside_whatever_its_name() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, _) = open(&settings(dir.path()));
    offer(&spool, 0..100);
    close(&spool);
    let (id, _) = sealed(&spool).remove(0);
    let (later, earlier) = (SegmentId { sequence: 900, ..id }, SegmentId { sequence: 0, ..id });
    for name in [
        format!("{later}.seg"),
        format!("{earlier}.seg"),
        "ffffffffffffffff-00000001.open".to_owned(),
        format!("{id}.open"),
    ] {
        let copy = killed_copy(&spool);
        fs::copy(copy.path().join(format!("{id}.seg")), copy.path().join(&name)).expect("copied");
        let (after, recovery) = open(&settings(copy.path()));
        assert_eq!((recovery.rows, recovery.set_aside), (100, 1), "{name}");
        assert_eq!((total(&after, |row| row.seen), total(&after, |row| row.pending)), (100, 100));
        assert!(copy.path().join("corrupt").join(&name).exists(), "{name}");
        let own = after.ledger().incarnation();
        assert!(own > id.incarnation && own.to_string() != "ffffffffffffffff", "{name}: {own}");
    }
}

/// Promise (operations): a segment in which its own records stand once more, or those of another one, gives
/// each sample once and counts the rest. Figure: 4 ways, 0 twice, books exact.
#[test]
fn records_that_stand_in_a_segment_once_more_are_damage() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, _) = open(&config::Spool { segment_bytes: 8 << 10, ..settings(dir.path()) });
    offer(&spool, 0..150);
    close(&spool);
    let ids: Vec<_> = sealed(&spool).into_iter().map(|(id, _)| id).collect();
    let read = |id: &SegmentId| fs::read(dir.path().join(format!("{id}.seg"))).expect("reads");
    let (own, other) = (read(&ids[0]), read(&ids[1]));
    for (what, bytes, least) in [
        ("twice", [&own[..], &own[8..]].concat(), 150),
        ("without a footer, then once more", [&own[..own.len() - 60], &own].concat(), 150),
        ("and another", [&own[..], &other[..]].concat(), 150),
        ("behind another", [&other[..3000], &own[..]].concat(), 40),
    ] {
        let copy = killed_copy(&spool);
        fs::write(copy.path().join(format!("{}.seg", ids[0])), bytes).expect("writes");
        let (after, _) = open(&settings(copy.path()));
        finish_all(&after);
        let rows = after.ledger().rows(at());
        assert!(rows.iter().all(LedgerRow::balances), "{what}: {rows:?}");
        let (stored, lost) =
            (total(&after, |row| row.stored), total(&after, LedgerRow::dropped_total));
        assert_eq!(stored + lost, 150, "{what}: {rows:?}");
        assert!(stored >= least, "{what}: {stored} stored");
    }
}
