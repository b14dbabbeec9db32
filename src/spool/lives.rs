//! In which order runs held the spool: each takes a number, one more than any before it, with the spool.
//!
//! Their names alone do not tell. They begin with the clock, and a run that started while the spool could not
//! be read knows no name but its own: on a clock that was set back it is named as one that was earlier.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::books::Note;
use super::folder::{Entry, Folder, SegmentId};
use super::format::{Head, Item, Kind, Walk};
use crate::ledger::Incarnation;

/// A head is never longer.
const HEAD_BYTES_MAX: u64 = 4096;

/// The number of each run of which something is left.
#[derive(Debug, Default)]
pub(super) struct Lives(BTreeMap<Incarnation, u64>);

impl Lives {
    /// By the heads of segments, one a run, and by the figures beside them. An error: the folder cannot be
    /// read now.
    pub(super) fn of(folder: &Folder, entries: &[Entry], note: Option<&Note>) -> io::Result<Self> {
        let mut lives: BTreeMap<_, _> = note.map(Note::life).into_iter().collect();
        for entry in entries {
            if !lives.contains_key(&entry.id.incarnation)
                && let Some(life) = life(folder, entry)?
            {
                lives.insert(entry.id.incarnation, life);
            }
        }
        Ok(Self(lives))
    }

    /// Sorts runs as they held the spool; one whose number cannot be read behind the one named before it.
    pub(super) fn order(&self, run: Incarnation) -> (u64, Incarnation) {
        let before = self.0.range(..=run).next_back();
        (before.map_or(0, |(_, life)| *life), run)
    }

    /// Sorts segments as they were written.
    pub(super) fn rank(&self, id: SegmentId) -> ((u64, Incarnation), u64) {
        (self.order(id.incarnation), id.sequence)
    }

    /// The number of whoever takes the spool over now.
    pub(super) fn next(&self) -> u64 {
        self.0.values().max().map_or(1, |life| life.saturating_add(1))
    }
}

fn life(folder: &Folder, entry: &Entry) -> io::Result<Option<u64>> {
    let file = folder.of_file(|| folder.open_segment(entry.id, entry.state))?;
    let head = file.ok().as_ref().and_then(read_head);
    // A copy under another name says nothing of the run that it is named by.
    let own = |head: &Head| head.id.as_ref().is_none_or(|id| *id == entry.id.to_string());
    Ok(head.filter(own).map(|head| head.life))
}

/// The head of a segment.
pub(super) fn read_head(file: &File) -> Option<Head> {
    let bytes = file.metadata().ok()?.len().min(HEAD_BYTES_MAX);
    let mut start = vec![0; usize::try_from(bytes).ok()?];
    file.read_exact_at(&mut start, 0).ok()?;
    match Walk::new(&start)?.next()? {
        Item::Record(Kind::Head, body) => serde_json::from_slice(body).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use jiff::{Timestamp, ToSpan};

    use super::super::faults::{Faults, Point};
    use super::super::format::Tally;
    use super::super::tests::*;
    use super::super::{Recovery, Spool};
    use crate::config;
    use crate::ledger::{LedgerRow, metrics_for_tests};

    /// A run whose clock is so many hours behind, and that cannot read its spool at first.
    fn late_and_early(settings: &config::Spool, hours: i64) -> (Spool, Recovery) {
        let faults = Faults::default();
        faults.arm_times(Point::Create, io::ErrorKind::PermissionDenied, 1);
        let now = Timestamp::now() - hours.hours();
        Spool::open_with(settings, "pod-1".into(), metrics_for_tests(), now, faults).expect("opens")
    }

    /// Promise (operations): a process that cannot read its spool when it starts, on a clock that was set back,
    /// and is killed once it could, leaves books that know what it stored. Figure: clock 1 hour and 3 days
    /// behind, 60 samples of the run before, 0 told as lost.
    #[test]
    fn who_took_the_spool_over_late_and_was_named_before_others_has_the_last_word() {
        for hours in [0, 1, 72] {
            let dir = tempfile::tempdir().expect("a folder");
            let (first, _) =
                open(&config::Spool { segment_bytes: 4 << 10, ..settings(dir.path()) });
            offer(&first, 0..60);
            until("kept", || ledger_row(&first).kept == 60 && first.sealed().len() > 1);
            let copy = killed_copy(&first);

            let (second, recovery) = late_and_early(&settings(copy.path()), hours);
            assert!(recovery.unusable.is_some());
            let is_earlier = second.ledger().incarnation() < first.ledger().incarnation();
            assert_eq!(is_earlier, hours > 0);
            let pending = || total(&second, |row| row.pending);
            // The figures are taken over before the segments.
            until("taken over", || pending() == 60 && !second.sealed().is_empty());
            let (id, sealed) = sealed(&second).remove(0);
            let n = sealed.tally.rows();
            assert!(block_on(second.finish(id, sealed.tally, Tally::default(), false)));

            let (third, _) = open(&settings(killed_copy(&second).path()));
            let rows = third.ledger().rows(at());
            assert!(n > 0 && rows.iter().all(LedgerRow::balances), "{rows:?}");
            let lost: u64 = rows.iter().map(LedgerRow::dropped_total).sum();
            let (stored, pending) =
                (total(&third, |row| row.stored), total(&third, |row| row.pending));
            assert_eq!((stored, pending, lost), (n, 60 - n, 0), "{hours} h: {rows:?}");
            let last = |spool: &Spool| spool.ledger().incarnation();
            assert!(last(&third) > last(&first) && last(&third) > last(&second));
        }
    }
}
