//! The spool as a whole, on a real disk: what is kept, lost, recovered, and counted.

use std::fs;
use std::path::Path;
use std::time::Instant;

use super::faults::{Faults, Point};
use super::*;
use crate::domain::Dataset;
use crate::ledger::{LedgerRow, metrics_for_tests};

const WAIT: Duration = Duration::from_secs(60);

pub(super) fn settings(dir: &Path) -> config::Spool {
    config::Spool {
        dir: dir.to_owned(),
        bytes_max: 1 << 30,
        segment_bytes: 1 << 20,
        segment_age: Duration::from_secs(600),
        sync: Duration::from_millis(5),
    }
}

pub(super) fn open(settings: &config::Spool) -> (Spool, Recovery) {
    open_with(settings, Faults::default())
}

pub(super) fn open_with(settings: &config::Spool, faults: Faults) -> (Spool, Recovery) {
    let name = Arc::from("pod-1");
    Spool::open_with(settings, name, metrics_for_tests(), Timestamp::now(), faults).expect("opens")
}

pub(super) fn hour() -> Hour {
    Hour::of(at())
}

pub(super) fn at() -> Timestamp {
    "2026-11-23T22:47:50Z".parse().expect("a time")
}

pub(super) fn row(i: usize) -> Row {
    let json = format!("{{\"id\":\"{i:026}\"}}").into_bytes();
    Row { dataset: Dataset::Exchanges, deployment: Arc::from("blue"), time: at(), json }
}

/// Offers rows as the pipeline would: each is seen first.
pub(super) fn offer(spool: &Spool, rows: std::ops::Range<usize>) -> usize {
    let writer = spool.writer();
    let ledger = spool.ledger();
    let accepted = rows.filter(|i| {
        ledger.seen(hour(), 1);
        writer.try_append(row(*i)).is_ok()
    });
    accepted.count()
}

/// A spool that kept ten rows, and the faults of its disk.
pub(super) fn ten_kept() -> (tempfile::TempDir, Faults, Spool) {
    let (dir, faults) = (tempfile::tempdir().expect("a folder"), Faults::default());
    let (spool, _) = open_with(&settings(dir.path()), faults.clone());
    offer(&spool, 0..10);
    until("kept", || ledger_row(&spool).kept == 10);
    (dir, faults, spool)
}

pub(super) fn close(spool: &Spool) {
    assert!(block_on(spool.close(WAIT)), "the spool did not close in time");
}

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().build().expect("a runtime").block_on(future)
}

pub(super) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < WAIT, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub(super) fn ledger_row(spool: &Spool) -> LedgerRow {
    let own = spool.ledger().incarnation();
    let rows = spool.ledger().rows(Timestamp::now());
    rows.into_iter().find(|row| row.incarnation == own).expect("a row of this run")
}

/// The figures of all runs together.
pub(super) fn total(spool: &Spool, figure: impl Fn(&LedgerRow) -> u64) -> u64 {
    spool.ledger().rows(Timestamp::now()).iter().map(figure).sum()
}

pub(super) fn sealed(spool: &Spool) -> Vec<(SegmentId, Sealed)> {
    let ids = spool.sealed().into_iter();
    ids.filter_map(|id| Some((id, spool.segment(id)?))).collect()
}

fn stored_rows(spool: &Spool) -> Vec<String> {
    let segments = spool.sealed().into_iter().filter_map(|id| spool.read(id).ok());
    let mut texts = Vec::new();
    segments.for_each(|rows| _ = rows.each(|row| texts.push(text(row.json))).expect("read"));
    texts
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Ends a run as `kill -9` does, as far as the folder can tell: the thread works on another copy.
pub(super) fn killed_copy(spool: &Spool) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    let entries = fs::read_dir(&spool.settings().dir).expect("lists").flatten();
    // The figures first: rows may be behind them, and never before them.
    let (books, rest): (Vec<_>, Vec<_>) = entries.partition(|entry| entry.file_name() == "books");
    for entry in books.into_iter().chain(rest) {
        if entry.file_type().expect("a type").is_file() {
            fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copies");
        }
    }
    copy
}

fn file(dir: &Path, extension: &str) -> PathBuf {
    let files = fs::read_dir(dir).expect("lists").flatten().map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|e| e == extension)).min().expect("one")
}

#[test]
fn rows_are_kept_in_order_and_read_back() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, recovery) = open(&settings(dir.path()));
    assert_eq!(recovery, Recovery::default());
    assert_eq!(offer(&spool, 0..1000), 1000);
    close(&spool);
    let rows = stored_rows(&spool);
    assert_eq!(rows.len(), 1000);
    assert!(rows.windows(2).all(|pair| pair[0] < pair[1]));
    let books = ledger_row(&spool);
    assert_eq!((books.seen, books.kept, books.pending, books.in_flight), (1000, 1000, 1000, 0));
    assert!(books.closed && books.balances());
}

#[test]
fn a_row_is_kept_only_once_it_is_fsynced_and_that_is_soon() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, _) = open(&settings(dir.path()));
    offer(&spool, 0..10);
    until("ten are kept", || ledger_row(&spool).kept == 10);
    assert!(spool.sealed().is_empty(), "kept, and not yet sealed");
}

#[test]
fn segments_are_sealed_by_size_and_by_age() {
    let dir = tempfile::tempdir().expect("a folder");
    let small = config::Spool { segment_bytes: 16 << 10, ..settings(dir.path()) };
    let (spool, _) = open(&small);
    assert_eq!(offer(&spool, 0..1000), 1000);
    close(&spool);
    let sealed = sealed(&spool);
    assert!(sealed.len() > 4 && sealed.iter().all(|(_, s)| s.bytes <= 16 << 10));
    assert_eq!(stored_rows(&spool).len(), 1000);

    let dir = tempfile::tempdir().expect("a folder");
    let young = config::Spool { segment_age: Duration::from_millis(20), ..settings(dir.path()) };
    let (spool, _) = open(&young);
    offer(&spool, 0..1);
    until("sealed by age", || spool.sealed().len() == 1);
}

#[test]
fn a_finished_segment_is_stored_and_gone() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, _) = open(&settings(dir.path()));
    offer(&spool, 0..5);
    close(&spool);
    let (id, sealed) = sealed(&spool).remove(0);
    assert!(block_on(spool.finish(id, sealed.tally, Tally::default(), false)));
    assert!(spool.sealed().is_empty());
    assert!(!fs::read_dir(dir.path()).expect("lists").flatten().any(|e| e.path().ends_with("seg")));
    assert_eq!((ledger_row(&spool).stored, ledger_row(&spool).pending), (5, 0));
}

#[test]
fn after_a_shutdown_in_order_nothing_is_unaccounted_and_the_books_go_on() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, _) = open(&settings(dir.path()));
    offer(&spool, 0..7);
    close(&spool);
    let first = spool.ledger().incarnation();
    drop(spool);
    let (spool, recovery) = reopen(&settings(dir.path()));
    assert_eq!((recovery.segments, recovery.rows, recovery.unaccounted), (1, 7, None));
    let row = spool.ledger().rows(Timestamp::now()).remove(0);
    assert_eq!((row.incarnation, row.seen, row.pending), (first, 7, 7));
    assert!(spool.ledger().incarnation() > first, "names of two runs never collide");
}

/// Opens again once the thread of the run before has let go of the lock.
fn reopen(settings: &config::Spool) -> (Spool, Recovery) {
    let start = Instant::now();
    loop {
        match Spool::open(settings, Arc::from("pod-1"), metrics_for_tests(), Timestamp::now()) {
            Ok(opened) => return opened,
            Err(error) => assert!(start.elapsed() < WAIT, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn after_a_kill_nothing_fsynced_is_missing_and_the_window_is_named() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, _) = open(&settings(dir.path()));
    offer(&spool, 0..100);
    until("all are kept", || ledger_row(&spool).kept == 100);
    let copy = killed_copy(&spool);
    let (after, recovery) = open(&settings(copy.path()));
    let window = recovery.unaccounted.expect("a window");
    assert!(window.from < window.to);
    assert_eq!(stored_rows(&after).len(), 100);
    let row = after.ledger().rows(Timestamp::now()).into_iter().find(|row| row.kept == 100);
    let row = row.expect("the books of the killed run");
    assert!(row.balances() && row.closed && row.pending == 100);
    assert!(total(&after, |row| row.unaccounted.len() as u64) == 1);
}

#[test]
fn a_crash_between_removal_and_the_next_checkpoint_counts_nothing_twice() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, _) = open(&config::Spool { segment_bytes: 4 << 10, ..settings(dir.path()) });
    offer(&spool, 0..200);
    until("sealed", || spool.sealed().len() > 2);
    until("kept", || ledger_row(&spool).kept == 200);
    let before = killed_copy(&spool);
    let (id, sealed) = sealed(&spool).remove(0);
    let n = sealed.tally.rows();
    assert!(block_on(spool.finish(id, sealed.tally, Tally::default(), false)));
    let after = killed_copy(&spool);
    // The unlink was lost: the segment is still there, and the books know that it is stored.
    let name = format!("{id}.seg");
    let unlink_lost = killed_copy(&spool);
    fs::copy(before.path().join(&name), unlink_lost.path().join(&name)).expect("copies");
    for (copy, stored) in [(before, 0), (after, n), (unlink_lost, n)] {
        let (spool, _) = open(&settings(copy.path()));
        assert_eq!(total(&spool, |row| row.stored), stored);
        assert_eq!(total(&spool, |row| row.pending), 200 - stored);
        assert_eq!(stored_rows(&spool).len() as u64, 200 - stored);
        assert_eq!(total(&spool, LedgerRow::dropped_total), 0);
    }
}

/// Promise (operations): a spool that is torn anywhere starts, gives what is whole and counts the rest.
/// Figure: every byte of a segment.
#[test]
fn torn_at_every_byte_the_spool_starts_and_counts() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, _) = open(&settings(dir.path()));
    offer(&spool, 0..3);
    until("kept", || ledger_row(&spool).kept == 3);
    let whole = fs::read(file(dir.path(), "open")).expect("reads");
    for cut in 0..whole.len() {
        let copy = killed_copy(&spool);
        fs::write(file(copy.path(), "open"), &whole[..cut]).expect("writes");
        let (after, _) = open(&settings(copy.path()));
        let rows = stored_rows(&after);
        assert!(rows.iter().enumerate().all(|(i, row)| row.contains(&format!("{i:026}"))));
        assert_eq!(total(&after, |row| row.pending), rows.len() as u64, "cut at {cut}");
        assert!(after.ledger().rows(Timestamp::now()).iter().all(LedgerRow::balances));
    }
}

/// Promise (operations): flipped, zeroed and foreign segments give what is whole and count the rest.
#[test]
fn damaged_sealed_segments_give_what_is_whole_and_count_the_rest() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, _) = open(&settings(dir.path()));
    offer(&spool, 0..300);
    close(&spool);
    let whole = fs::read(file(dir.path(), "seg")).expect("reads");
    type Mutate = fn(&mut Vec<u8>);
    let mutations: [(&str, std::ops::RangeInclusive<u64>, Mutate); 7] = [
        ("a flipped bit", 1..=1, |bytes| bytes[9000] ^= 4),
        ("a zeroed page", 50..=80, |bytes| bytes[8192..12288].fill(0)),
        ("a torn footer", 0..=0, |bytes| bytes.truncate(bytes.len() - 30)),
        ("half of it", 140..=160, |bytes| bytes.truncate(bytes.len() / 2)),
        ("nothing", 300..=300, Vec::clear),
        ("another version", 300..=300, |bytes| bytes[7] = 9),
        ("a foreign file", 300..=300, |bytes| *bytes = b"\x89PNG\r\n\x1a\n and more".to_vec()),
    ];
    for (what, expected, mutate) in mutations {
        let copy = killed_copy(&spool);
        let mut bytes = whole.clone();
        mutate(&mut bytes);
        fs::write(file(copy.path(), "seg"), bytes).expect("writes");
        let (after, _) = open(&settings(copy.path()));
        finish_all(&after);
        let (stored, lost) =
            (total(&after, |row| row.stored), total(&after, LedgerRow::dropped_total));
        assert_eq!(stored + lost, 300, "{what}");
        assert!(expected.contains(&lost), "{what}: {lost} lost");
        assert!(after.ledger().rows(Timestamp::now()).iter().all(LedgerRow::balances), "{what}");
        assert!(copy.path().join("corrupt").exists(), "{what}: not set aside");
    }
}

/// Does what the archive does, without a bucket.
pub(super) fn finish_all(spool: &Spool) {
    for (id, sealed) in sealed(spool) {
        let mut read = Tally::default();
        let mut damaged = sealed.damaged;
        if let Ok(rows) = spool.read(id) {
            let found = rows.each(|row| read.add(row.dataset, Hour::of(row.time)));
            damaged |= found.expect("read");
        }
        let lost = sealed.tally.minus(&read);
        assert!(block_on(spool.finish(id, read, lost, damaged)));
    }
}

#[test]
fn the_quota_drops_the_newest_and_counts_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, _) = open(&config::Spool { bytes_max: 64 << 10, ..settings(dir.path()) });
    let accepted = offer(&spool, 0..3000) as u64;
    close(&spool);
    let row = ledger_row(&spool);
    let quota = row.dropped.iter().find(|loss| loss.reason == "quota").map_or(0, |loss| loss.count);
    assert!(quota > 0 && row.pending > 0 && row.pending + quota == accepted);
    assert!(row.balances());
    let bytes: u64 = sealed(&spool).iter().map(|(_, sealed)| sealed.bytes).sum();
    assert!(bytes <= 64 << 10);
    assert!(stored_rows(&spool)[0].contains("000"), "the oldest stayed");
}

/// Promise (operations): a producer ten times as fast loses exactly what is counted. Figure: 80,000 rows of 4
/// threads at once.
#[test]
fn a_producer_ten_times_as_fast_loses_exactly_what_is_counted() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, _) = open(&settings(dir.path()));
    let accepted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|t| {
                let spool = &spool;
                scope.spawn(move || offer(spool, t * 20_000..(t + 1) * 20_000))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("ends")).sum()
    });
    close(&spool);
    let row = ledger_row(&spool);
    assert_eq!(row.seen, 80_000);
    assert_eq!(row.pending, accepted as u64);
    assert_eq!(row.in_flight, 0);
    assert!(row.balances() && row.dropped.iter().all(|loss| loss.reason == "full"));
    assert_eq!(stored_rows(&spool).len(), accepted);
}

/// Promise (operations): a full disk drops and counts, and then works again.
#[test]
fn a_full_disk_drops_and_counts_and_then_works_again() {
    let (_dir, faults, spool) = ten_kept();
    faults.arm(Point::Write, io::ErrorKind::StorageFull);
    offer(&spool, 10..20);
    until("dropped", || ledger_row(&spool).dropped_total() == 10);
    assert_eq!(ledger_row(&spool).dropped[0].reason, "disk_full");
    faults.disarm();
    offer(&spool, 20..30);
    close(&spool);
    assert_eq!(stored_rows(&spool).len(), 20);
    assert!(ledger_row(&spool).balances());
}

/// Promise (operations): after a failed fsync the segment is given up and its safe rows are saved.
#[test]
fn after_a_failed_fsync_the_segment_is_given_up_and_its_safe_rows_are_saved() {
    let (_dir, faults, spool) = ten_kept();
    faults.arm(Point::Sync, io::ErrorKind::Other);
    offer(&spool, 10..15);
    until("dropped", || ledger_row(&spool).dropped_total() >= 5);
    faults.disarm();
    until("written again", || offer(&spool, 20..21) == 1 && ledger_row(&spool).kept > 10);
    close(&spool);
    let row = ledger_row(&spool);
    assert!(row.balances() && row.in_flight == 0);
    assert!(!stored_rows(&spool).iter().any(|row| row.contains(&format!("{:026}", 12))));
    assert_eq!(stored_rows(&spool).len() as u64, row.pending);
}

#[test]
fn a_segment_that_cannot_be_renamed_is_sealed_later() {
    let dir = tempfile::tempdir().expect("a folder");
    let faults = Faults::default();
    let (spool, _) = open_with(&settings(dir.path()), faults.clone());
    faults.arm(Point::Rename, io::ErrorKind::PermissionDenied);
    offer(&spool, 0..15);
    close(&spool);
    assert!(spool.sealed().is_empty());
    assert_eq!(ledger_row(&spool).pending, 15, "safe all the same");
    faults.disarm();
    until("sealed", || spool.sealed().len() == 1);
    assert_eq!(stored_rows(&spool).len(), 15);
}

/// After a kill the open segment is found, and cannot be named as sealed at once.
#[test]
fn a_segment_of_an_earlier_run_that_cannot_be_renamed_is_sealed_later() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, _) = open(&settings(dir.path()));
    offer(&spool, 0..15);
    until("kept", || ledger_row(&spool).kept == 15);
    let killed = killed_copy(&spool);
    let faults = Faults::default();
    faults.arm(Point::Rename, io::ErrorKind::PermissionDenied);
    let (spool, recovery) = open_with(&settings(killed.path()), faults.clone());
    assert_eq!(recovery.rows, 15);
    assert!(spool.sealed().len() < recovery.segments, "one has no name for the archive yet");
    faults.disarm();
    until("sealed", || spool.sealed().len() == recovery.segments);
    assert_eq!(stored_rows(&spool).len(), 15);
}

#[test]
fn safe_rows_outlive_a_failed_fsync_on_a_full_disk() {
    let (dir, faults, spool) = ten_kept();
    faults.arm(Point::Sync, io::ErrorKind::StorageFull);
    faults.arm(Point::Create, io::ErrorKind::StorageFull);
    offer(&spool, 10..15);
    until("dropped", || ledger_row(&spool).dropped_total() == 5);
    until("sealed", || spool.sealed().len() == 1);
    let rows = stored_rows(&spool);
    assert!((0..10).all(|i| rows[i].contains(&format!("{i:026}"))) && rows.len() == 10);
    assert!(ledger_row(&spool).balances());
    finish_all(&spool);
    assert!(dir.path().join("corrupt").exists(), "the file is not trusted after the upload either");
}

#[test]
fn a_folder_removed_under_way_is_made_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let deep = dir.path().join("spool");
    let (spool, _) = open(&settings(&deep));
    offer(&spool, 0..10);
    until("kept", || ledger_row(&spool).kept == 10);
    fs::remove_dir_all(&deep).expect("removes");
    offer(&spool, 10..20);
    until("noticed", || deep.join("lock").exists());
    until("written again", || offer(&spool, 20..21) == 1 && ledger_row(&spool).kept > 10);
    close(&spool);
    let row = ledger_row(&spool);
    assert!(row.balances() && row.in_flight == 0, "{row:?}");
    let rows = stored_rows(&spool);
    assert!((0..10).all(|i| rows.iter().any(|row| row.contains(&format!("{i:026}")))));
}

#[test]
fn without_a_usable_folder_rows_are_dropped_until_there_is_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let deep = dir.path().join("spool");
    fs::write(&deep, "a file where the folder should be").expect("writes");
    let (spool, recovery) = open(&settings(&deep));
    assert!(recovery.unusable.is_some());
    offer(&spool, 0..5);
    until("dropped", || ledger_row(&spool).dropped_total() == 5);
    assert_eq!(ledger_row(&spool).dropped[0].reason, "disk");
    fs::remove_file(&deep).expect("removes");
    until("kept", || {
        offer(&spool, 5..6);
        ledger_row(&spool).kept > 0
    });
    close(&spool);
    assert!(ledger_row(&spool).balances());
}

#[test]
fn what_is_too_large_or_too_late_is_refused_with_its_reason() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, _) = open(&settings(dir.path()));
    let large = Row { json: vec![b'x'; 2 << 20], ..row(0) };
    assert_eq!(spool.writer().try_append(large), Err(DropReason::TooLarge));
    close(&spool);
    assert_eq!(spool.writer().try_append(row(0)), Err(DropReason::Shutdown));
}

#[test]
fn a_second_owner_gets_an_error_that_names_the_folder() {
    let dir = tempfile::tempdir().expect("a folder");
    let (_spool, _) = open(&settings(dir.path()));
    let again = Spool::open(
        &settings(dir.path()),
        Arc::from("pod-1"),
        metrics_for_tests(),
        Timestamp::now(),
    );
    let Err(error) = again else { panic!("two owners") };
    assert_eq!(error.label(), "locked");
    assert!(error.to_string().contains(&dir.path().display().to_string()));
}
