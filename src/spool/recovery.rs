//! What an earlier run left behind: read at start, whatever its state, and never a reason to fail.
//!
//! Sealed segments are judged by their footer, so that start-up costs the same however full the spool
//! is; the newest segment and those without a footer are read whole. A torn segment keeps its place:
//! its whole rows are uploaded, then the file moves to `corrupt/`. A file that is no segment of this
//! version moves there at once, and so does one that bears the name of another segment: its rows are
//! there under their own.

use std::cmp::{self, Ordering};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::mem;
use std::os::unix::fs::FileExt;

use jiff::Timestamp;

use super::books::{self, Note, Place};
use super::folder::{self, Entry, Folder, SegmentId, State};
use super::format::{self, Head, Item, Kind, MAGIC, Mark, TRAILER_BYTES, Tally, Walk};
use super::lives::{Lives, read_head};
use super::{Recovery, Sealed, Shared, StoredRow};
use crate::domain::{DropReason, DropStage};
use crate::ledger::{BookKey, Checkpoint, Found, Hour, Incarnation, Page};

/// All that was found.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// For the ledger.
    pub(super) found: Found,
    /// In which order runs held the spool.
    pub(super) lives: Lives,
    /// The run that is named last: the next one is named behind it.
    pub(super) greatest: Option<Incarnation>,
    /// Segments to upload.
    pub(super) sealed: BTreeMap<SegmentId, Sealed>,
    /// Segments to upload once they can be named as sealed.
    pub(super) stranded: Vec<(SegmentId, Sealed)>,
    /// Files to remove once a new checkpoint is safe: no rows in them, or stored already.
    pub(super) leftovers: Vec<Entry>,
    /// Names of those whose rows are stored: until they are gone, each checkpoint has to say so.
    pub(super) removing: Vec<String>,
    /// Files moved to `corrupt/`.
    pub(super) set_aside: u64,
    /// Places in segments that could not be read, each at least one record.
    pub(super) damages: u64,
    /// The figures that were written beside the segments, where none in them are newer.
    note: Option<Note>,
    /// Samples behind those figures.
    behind: BTreeMap<BookKey, u64>,
}

/// Reads `folder`, seals what was left open, and sets aside what is not ours. An error: it cannot be read now,
/// and nothing was judged by that.
pub(super) fn recover(folder: &Folder) -> io::Result<Recovered> {
    let (note, mut entries) = (books::find(folder)?, folder.entries()?);
    let lives = Lives::of(folder, &entries, note.as_ref())?;
    entries.sort_by_key(|entry| (lives.rank(entry.id), entry.state == State::Sealed));
    let mut recovered = Recovered { note, lives, ..Recovered::default() };
    let mut removing = BTreeSet::new();
    let mut before: Option<SegmentId> = None;
    // Newest first: the newest checkpoint is the one that counts.
    for entry in entries.into_iter().rev() {
        // A second file of one segment, open and sealed: the sealed one counts, it comes first.
        let again = before.replace(entry.id) == Some(entry.id);
        let seen = folder.of_file(|| inspect(folder, &entry, &recovered))?;
        match seen.ok().filter(|_| !again) {
            Some(seen) => recovered.take(folder, &entry, seen, &mut removing),
            None => recovered.reject(folder, &entry),
        }
    }
    recovered.read_note();
    Ok(recovered)
}

/// One segment's content in figures.
#[derive(Debug, Default)]
struct Inspection {
    bytes: u64,
    head: Option<Head>,
    tally: Tally,
    after: Tally,
    behind: Tally,
    mark: Option<Mark>,
    /// Where the last mark ends.
    mark_end: u64,
    damages: u64,
}

impl Recovered {
    /// Gives the ledger its earlier pages and the archive its segments, and tells what was found.
    pub(super) fn hand_over(self, shared: &Shared, now: Timestamp) -> Recovery {
        let unaccounted = self.found.window(now);
        let pages = self.found.settle(shared.ledger.instance(), now);
        for ((stage, reason), n) in self.losses(&pages) {
            shared.metrics.dropped(stage, reason, n);
        }
        shared.ledger.restore(pages);
        let seconds = unaccounted.map_or(0.0, |w| w.to.duration_since(w.from).as_secs_f64());
        shared.metrics.unaccounted_seconds(seconds);
        let stranded = self.stranded.iter().map(|(_, sealed)| sealed);
        let segments: Vec<_> = self.sealed.values().chain(stranded).collect();
        let recovery = Recovery {
            segments: segments.len(),
            rows: segments.iter().map(|sealed| sealed.tally.rows()).sum(),
            damages: self.damages,
            set_aside: self.set_aside,
            unaccounted,
            unusable: None,
        };
        tell(&recovery);
        let mut shelf = shared.sealed();
        self.sealed.into_iter().for_each(|(id, sealed)| shelf.insert(id, sealed));
        drop(shelf);
        shared.grown.notify_one();
        recovery
    }

    /// What this run found to be lost, beyond what the run before had counted itself.
    fn losses(&self, pages: &BTreeMap<BookKey, Page>) -> BTreeMap<(DropStage, DropReason), u64> {
        let known = self.found.checkpoint.iter().flat_map(|checkpoint| checkpoint.pages.values());
        let known = dropped(known);
        let mut losses = dropped(pages.values());
        losses.iter_mut().for_each(|(key, n)| *n -= known.get(key).copied().unwrap_or(0).min(*n));
        // Damage may hit records that are no samples.
        let corrupt = losses.entry((DropStage::Spool, DropReason::Corrupt)).or_default();
        *corrupt = (*corrupt).max(self.damages + self.set_aside);
        losses.retain(|_, n| *n > 0);
        losses
    }

    fn take(
        &mut self,
        folder: &Folder,
        entry: &Entry,
        seen: Inspection,
        removing: &mut BTreeSet<String>,
    ) {
        let name = entry.id.to_string();
        self.found.last.get_or_insert(entry.id.incarnation);
        self.greatest = self.greatest.max(Some(entry.id.incarnation));
        let opened = seen.head.as_ref().map_or(entry.id.incarnation.started(), |head| head.opened);
        self.found.last_change = self.found.last_change.max(Some(opened));
        if let Some(head) = &seen.head {
            self.found.instances.entry(entry.id.incarnation).or_insert(head.instance.clone());
        }
        self.damages += seen.damages;
        add(&mut self.behind, entry.id, &seen.behind);
        if self.found.checkpoint.is_none() {
            add(&mut self.found.after, entry.id, &seen.after);
            if let Some(mark) = seen.mark {
                removing.extend(mark.removing);
                self.found.checkpoint = Some(mark.ledger);
                let covers = |note: &Note| behind(&self.lives, entry.id, note.place());
                self.note = self.note.take().filter(|note| covers(note) >= seen.mark_end);
                removing.extend(self.note.iter().flat_map(Note::removing).cloned());
            }
        }
        if seen.tally.is_empty() || removing.contains(&name) {
            self.leftovers.push(entry.clone());
            return self.removing.extend((!seen.tally.is_empty()).then_some(name));
        }
        add(&mut self.found.present, entry.id, &seen.tally);
        let instance = seen.head.map(|head| head.instance);
        let damaged = seen.damages > 0;
        let sealed = Sealed { bytes: seen.bytes, opened, tally: seen.tally, instance, damaged };
        if entry.state == State::Open && folder.seal(entry.id).is_err() {
            tracing::warn!(segment = %name, "a segment of an earlier run cannot be sealed yet");
            return self.stranded.push((entry.id, sealed));
        }
        self.sealed.insert(entry.id, sealed);
    }

    /// Puts the figures beside the segments over those in them: they are newer.
    fn read_note(&mut self) {
        if let Some(note) = self.note.take() {
            let (run, _) = note.life();
            self.greatest = self.greatest.max(Some(run));
            let last = self.found.last.unwrap_or(run);
            self.found.last = Some(cmp::max_by_key(last, run, |run| self.lives.order(*run)));
            self.found.checkpoint = Some(note.over(self.found.checkpoint.take()));
            self.found.after = mem::take(&mut self.behind);
        }
    }

    fn reject(&mut self, folder: &Folder, entry: &Entry) {
        let empty = folder.path(entry.id, entry.state).symlink_metadata();
        let empty = empty.is_ok_and(|meta| meta.is_file() && meta.len() == 0);
        if empty && entry.state == State::Open {
            // Created, and the process ended before the first byte: nothing was lost.
            self.leftovers.push(entry.clone());
            return;
        }
        self.set_aside += 1;
        if folder.set_aside(entry.id, entry.state).is_err() {
            tracing::warn!(segment = %entry.id, "a file that is no segment cannot be set aside");
        }
    }
}

fn dropped<'a>(pages: impl Iterator<Item = &'a Page>) -> BTreeMap<(DropStage, DropReason), u64> {
    let mut sums = BTreeMap::new();
    for (key, n) in pages.flat_map(|page| &page.counts.dropped) {
        *sums.entry(*key).or_default() += n;
    }
    sums
}

fn tell(recovery: &Recovery) {
    if let Some(window) = recovery.unaccounted {
        let (from, to) = (window.from, window.to);
        tracing::warn!(%from, %to, "the last run ended without a shutdown; what it saw in this window is not accounted for");
    }
    if recovery.damages + recovery.set_aside > 0 {
        let (damages, files) = (recovery.damages, recovery.set_aside);
        tracing::warn!(damages, files, "some of the spool cannot be read and was set aside");
    }
    if recovery.segments > 0 {
        let (segments, rows) = (recovery.segments, recovery.rows);
        tracing::info!(segments, rows, "the spool holds rows of an earlier run");
    }
}

fn add(into: &mut BTreeMap<BookKey, u64>, id: SegmentId, tally: &Tally) {
    for (hour, n) in &tally.samples {
        *into.entry(BookKey { incarnation: id.incarnation, hour: *hour }).or_default() += n;
    }
}

/// Looks into one file; an error means that it is no segment of this version, or not the one that it is
/// named as. It is read whole until there is a checkpoint.
fn inspect(folder: &Folder, entry: &Entry, recovered: &Recovered) -> io::Result<Inspection> {
    let whole = recovered.found.checkpoint.is_none();
    let file = folder.open_segment(entry.id, entry.state)?;
    let mut magic = [0; MAGIC.len()];
    file.read_exact_at(&mut magic, 0)?;
    if magic != *MAGIC {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let short = (entry.state == State::Sealed && !whole).then(|| by_footer(&file)).flatten();
    let from = recovered.note.as_ref();
    let from = from.map_or(u64::MAX, |note| behind(&recovered.lives, entry.id, note.place()));
    let seen = match short {
        Some(seen) => Some(seen),
        None => by_walk(&folder::read_all(&file)?, from),
    };
    let own = |head: &Head| head.id.as_ref().is_none_or(|id| *id == entry.id.to_string());
    let seen = seen.filter(|seen| seen.head.as_ref().is_none_or(own));
    seen.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// From which byte of a segment on its rows are not covered by figures that go up to `place`.
fn behind(lives: &Lives, id: SegmentId, place: Place) -> u64 {
    match lives.rank(id).cmp(&lives.rank(place.id)) {
        Ordering::Less => u64::MAX,
        Ordering::Equal => place.bytes,
        Ordering::Greater => 0,
    }
}

/// Head and footer alone.
fn by_footer(file: &File) -> Option<Inspection> {
    let bytes = file.metadata().ok()?.len();
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact_at(&mut trailer, bytes.checked_sub(TRAILER_BYTES as u64)?).ok()?;
    let offset = format::footer_offset(&trailer)?;
    let mut footer = vec![0; usize::try_from(bytes.checked_sub(offset)?).ok()?];
    file.read_exact_at(&mut footer, offset).ok()?;
    let tally = format::read_footer(&footer)?;
    Some(Inspection { bytes, head: Some(read_head(file)?), tally, ..Inspection::default() })
}

/// Reads `bytes` as a segment's file in every way in which one is read: to be fuzzed.
#[cfg(any(test, feature = "fuzzing"))]
pub fn walk_over(bytes: &[u8]) {
    let rows = by_walk(bytes, 0).map(|seen| seen.tally.rows());
    let walked = Walk::new(bytes).into_iter().flatten();
    let records = walked.filter(|item| matches!(item, Item::Record(Kind::Row, _))).count() as u64;
    assert!(rows.unwrap_or(0) <= records, "more rows than records");
    drop(books::newest(bytes));
    if let Some(trailer) = bytes.last_chunk::<TRAILER_BYTES>() {
        let offset = format::footer_offset(trailer).and_then(|at| usize::try_from(at).ok());
        drop(offset.and_then(|at| bytes.get(at..)).and_then(format::read_footer));
    }
}

/// Every record; rows that begin at `from` or later are those behind the figures beside the segments.
fn by_walk(bytes: &[u8], from: u64) -> Option<Inspection> {
    let mut seen = Inspection { bytes: bytes.len() as u64, ..Inspection::default() };
    let mut walk = Walk::new(bytes)?;
    loop {
        let at = walk.offset();
        match walk.next() {
            None => return Some(seen),
            Some(Item::Damage(_)) => seen.damages += 1,
            Some(Item::Record(Kind::Row, body)) => seen.row(format::read_row(body), at >= from),
            Some(Item::Record(Kind::Checkpoint, body)) => {
                seen.mark(serde_json::from_slice(body).ok(), walk.offset());
            }
            Some(Item::Record(Kind::Head, body)) => seen.head = serde_json::from_slice(body).ok(),
            Some(Item::Record(Kind::Footer, _)) => {}
        }
    }
}

impl Inspection {
    fn row(&mut self, row: Option<StoredRow<'_>>, behind: bool) {
        let Some(row) = row else {
            self.damages += 1;
            return;
        };
        let hour = Hour::of(row.time);
        self.tally.add(row.dataset, hour);
        self.after.add(row.dataset, hour);
        if behind {
            self.behind.add(row.dataset, hour);
        }
    }

    /// Folds a checkpoint into the earlier ones: pages carry absolute figures.
    fn mark(&mut self, mark: Option<Mark>, end: u64) {
        let Some(mark) = mark else {
            self.damages += 1;
            return;
        };
        let mut pages = self.mark.take().map(|before| before.ledger.pages).unwrap_or_default();
        pages.extend(mark.ledger.pages);
        let ledger = Checkpoint { pages, ..mark.ledger };
        self.mark = Some(Mark { removing: mark.removing, ledger });
        self.mark_end = end;
        self.after = Tally::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::faults::{Faults, Point};
    use super::super::tests::*;
    use super::*;
    use crate::config;
    use crate::ledger::LedgerRow;

    /// Promise (operations): a spool that is forbidden while it is read at the start, or cannot be opened for want
    /// of file descriptors, is read once it can be: nothing in it is told as lost, or set aside. Figure: at 14 of
    /// its first 40 openings, for 1 to 5 of them, 200 samples pending, 0 lost.
    #[test]
    fn a_folder_that_cannot_be_read_now_is_not_judged() {
        let dir = tempfile::tempdir().expect("a folder");
        let (first, _) = open(&config::Spool { segment_bytes: 4 << 10, ..settings(dir.path()) });
        offer(&first, 0..200);
        until("kept", || ledger_row(&first).kept == 200 && first.sealed().len() > 3);
        let mut came_back = 0;
        for (after, times) in (0..40).step_by(3).map(|after| (after, 1 + after % 5)) {
            let (copy, faults) = (killed_copy(&first), Faults::default());
            faults.arm_after(Point::Open, io::ErrorKind::PermissionDenied, after, times);
            let (again, recovery) = open_with(&settings(copy.path()), faults.clone());
            came_back += u32::from(recovery.unusable.is_some());
            faults.disarm();
            until("taken over", || total(&again, |row| row.pending) == 200);
            let rows = again.ledger().rows(at());
            assert!(rows.iter().all(LedgerRow::balances), "{rows:?}");
            assert_eq!(
                rows.iter().map(LedgerRow::dropped_total).sum::<u64>(),
                0,
                "{after}: {rows:?}"
            );
            assert_eq!(recovery.set_aside, 0, "{after}");
            assert!(!copy.path().join("corrupt").exists(), "{after}");
        }
        assert!(came_back > 3, "{came_back} came back later");
    }
}
