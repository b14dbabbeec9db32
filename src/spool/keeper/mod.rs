//! The spool's thread: batches rows into one write, fsyncs in groups, seals, and keeps the books safe.
//!
//! One thread does it all in order, so that a checkpoint's totals always cover exactly the rows before
//! it. A slow fsync delays later ones while rows wait in the bounded queue; nobody waits for the thread.

use std::io;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::batch::Batch;
use super::books::Books;
use super::faults::Faults;
use super::folder::{Entry, Folder, SegmentId, State};
use super::format::{self, Head, Mark, Tally};
use super::health::Health;
use super::recovery::{self, Recovered};
use super::segment::OpenSegment;
use super::{Recovery, Sealed, Shared, SpoolError};
use crate::capture::failpoint;
use crate::config;
use crate::domain::{Dataset, DropReason, DropStage, Row};
use crate::ledger::{Hour, Memo};

/// Rows are written at the latest when so many bytes of them have been gathered.
const BATCH_BYTES: u64 = 1 << 20;
/// How long the thread, once a row woke it, lets more of them gather: waking it for each cost more than
/// the writing.
const GATHER: Duration = Duration::from_millis(10);
/// Between two checkpoints where figures changed.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);
/// A segment without rows is begun anew when its checkpoints take more.
const ROWLESS_BYTES_MAX: u64 = 1 << 20;
/// The share of the quota that `corrupt/` may take: one part in so many.
const CORRUPT_SHARE: u64 = 16;
/// Room that a footer takes at most, for the size at which a segment is sealed.
const FOOTER_BYTES: u64 = 4096;

mod booking;
mod salvage;

pub(super) enum Message {
    Row(Row),
    Command(Command),
}

pub(super) enum Command {
    Finish { id: SegmentId, stored: Tally, lost: Tally, damaged: bool, reply: oneshot::Sender<()> },
    Checkpoint { reply: oneshot::Sender<bool> },
    Close { reply: oneshot::Sender<()> },
}

/// Opens the folder with the share of the quota that `corrupt/` gets.
pub(super) fn open_folder(settings: &config::Spool, faults: Faults) -> Result<Folder, SpoolError> {
    Folder::open(&settings.dir, settings.bytes_max / CORRUPT_SHARE, faults)
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    receiver: Receiver<Message>,
    faults: Faults,
    folder: Option<Folder>,
    open: Option<OpenSegment>,
    sequence: u64,
    /// The number of this run among those that held the spool.
    life: u64,
    /// Rows gathered for the next write.
    batch: Batch,
    memo: Memo,
    checkpointed: Instant,
    /// Names of segments whose rows are stored and whose files may still be there.
    removing: Vec<String>,
    leftovers: Vec<Entry>,
    /// Segments that are complete and whose names still say otherwise.
    stranded: Vec<(SegmentId, Sealed)>,
    health: Health,
    /// The newest figures beside the segments.
    books: Option<Books>,
    booked: Instant,
    /// Something is going on: figures are written often.
    busy: bool,
    taken_over: bool,
    closed: bool,
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, receiver: Receiver<Message>, faults: Faults) -> Self {
        let now = Instant::now();
        Self {
            shared,
            receiver,
            faults,
            folder: None,
            open: None,
            sequence: 0,
            life: 1,
            batch: Batch::default(),
            memo: Memo::default(),
            checkpointed: now,
            removing: Vec::new(),
            leftovers: Vec::new(),
            stranded: Vec::new(),
            health: Health::new(now),
            books: None,
            booked: now,
            busy: true,
            taken_over: false,
            closed: false,
        }
    }

    /// Hands what an earlier run left to the ledger and the archive.
    pub(super) fn take_over(
        &mut self,
        folder: Folder,
        mut found: Recovered,
        now: Timestamp,
    ) -> Recovery {
        self.leftovers = mem::take(&mut found.leftovers);
        self.removing.append(&mut found.removing);
        self.stranded.extend_from_slice(&found.stranded);
        self.folder = Some(folder);
        self.life = found.lives.next();
        self.taken_over = true;
        found.hand_over(&self.shared, now)
    }

    /// Begins without a folder; it is tried again later.
    pub(super) fn do_without(&mut self, error: &io::Error) -> Recovery {
        self.health.failed(error, Instant::now());
        Recovery { unusable: Some(error.to_string()), ..Recovery::default() }
    }

    /// Runs until all handles are gone.
    pub(super) fn run(mut self) {
        self.ensure_open();
        loop {
            let message = match self.receiver.recv_timeout(self.patience()) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if matches!(message, Some(Message::Row(_))) {
                self.shared.gather(GATHER);
            }
            let step = AssertUnwindSafe(|| self.step(message));
            if panic::catch_unwind(step).is_err() {
                self.recover_from_panic();
            }
        }
        self.close();
    }

    fn step(&mut self, message: Option<Message>) {
        message.into_iter().for_each(|message| self.take_all(message));
        self.tick();
    }

    /// How long there is nothing to do unless something comes.
    fn patience(&self) -> Duration {
        let settings = &self.shared.settings;
        let open = self.open.as_ref();
        let sync = open.and_then(|o| o.first_unsynced).map(|at| at + settings.sync);
        let seal = open.and_then(|o| o.first_row).map(|at| at + settings.segment_age);
        let now = Instant::now();
        let next = [sync, seal].into_iter().flatten().min().unwrap_or(now + CHECKPOINT_EVERY);
        next.saturating_duration_since(now).min(self.book_every())
    }

    /// Takes `message` and what waits behind it, up to one batch.
    fn take_all(&mut self, message: Message) {
        self.take(message);
        while self.batch.bytes() < BATCH_BYTES {
            match self.receiver.try_recv() {
                Ok(message) => self.take(message),
                Err(_) => break,
            }
        }
        self.flush();
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Row(row) => {
                self.shared.release(format::row_bytes(&row));
                let (dataset, hour) = (row.dataset, Hour::of(row.time));
                if let Err(reason) = self.gather(row) {
                    self.drop_rows(&tally_of(dataset, hour), reason);
                }
            }
            Message::Command(command) => {
                self.flush();
                self.obey(command);
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Finish { id, stored, lost, damaged, reply } => {
                self.finish(id, &stored, &lost, damaged);
                let _ = reply.send(());
            }
            Command::Checkpoint { reply } => {
                let _ = reply.send(self.sync(true, false) || self.book(true));
            }
            Command::Close { reply } => {
                self.close();
                let _ = reply.send(());
            }
        }
    }

    /// Adds a row to the batch.
    fn gather(&mut self, row: Row) -> Result<(), DropReason> {
        let bytes = format::row_bytes(&row);
        if self.closed {
            return Err(DropReason::Shutdown);
        }
        let waiting = self.batch.bytes() + bytes + FOOTER_BYTES;
        let full = self.open.as_ref().is_some_and(|open| {
            open.bytes() + waiting > self.shared.settings.segment_bytes
                && (open.has_rows() || !self.batch.is_empty())
        });
        if full {
            self.flush();
            self.seal();
        }
        if !self.ensure_open() {
            return Err(self.health.trouble());
        }
        if self.bytes() + bytes > self.quota() {
            return Err(DropReason::Quota);
        }
        self.batch.add(row);
        Ok(())
    }

    /// Writes the batch.
    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let written = match (&mut self.open, &self.folder) {
            (Some(open), Some(folder)) => open.append_all(folder, &mut self.batch.pieces()),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        };
        let tally = self.batch.clear();
        match written {
            Ok(()) => self.note_written(&tally),
            Err(error) => {
                self.health.failed(&error, Instant::now());
                let reason = self.health.trouble();
                self.drop_rows(&tally, reason);
            }
        }
    }

    fn note_written(&mut self, tally: &Tally) {
        let Some(open) = &mut self.open else { return };
        open.written.merge(tally);
        open.unsynced.merge(tally);
        let now = Instant::now();
        open.first_unsynced.get_or_insert(now);
        open.first_row.get_or_insert(now);
        self.health.worked();
    }

    /// What time demands: fsync, sealing, a checkpoint, another attempt at the disk.
    fn tick(&mut self) {
        let now = Instant::now();
        let settings = &self.shared.settings;
        let due = |at: Option<Instant>, after: Duration| at.is_some_and(|at| now >= at + after);
        let open = self.open.as_ref();
        let seal = due(open.and_then(|o| o.first_row), settings.segment_age);
        let sync = due(open.and_then(|o| o.first_unsynced), settings.sync);
        let rowless = open.is_some_and(|o| !o.has_rows() && o.bytes() > ROWLESS_BYTES_MAX);
        if seal || rowless {
            self.seal();
        } else if sync || self.checkpointed + CHECKPOINT_EVERY <= now {
            self.sync(false, false);
        }
        if !self.stranded.is_empty() && self.health.may_try(now) {
            self.offer_stranded();
        }
        self.ensure_open();
        if self.booked.elapsed() >= self.book_every() {
            self.book(false);
        }
        self.shared.metrics.spool_bytes(self.bytes());
        self.shared.metrics.spool_segments(self.shared.sealed().segments.len() as u64);
    }

    /// Makes safe what was written, and the books with it: at once if `checkpoint`, else when a second
    /// has passed. False where the disk did not let it.
    fn sync(&mut self, checkpoint: bool, footer: bool) -> bool {
        self.flush();
        let mut records = Vec::new();
        let wrote_mark = self.mark(checkpoint, &mut records);
        if let Some(open) = self.open.as_ref().filter(|open| footer && open.has_rows()) {
            format::write_footer(&mut records, &open.written, open.bytes());
        }
        let (Some(open), Some(folder)) = (&mut self.open, &self.folder) else { return false };
        let appended = records.is_empty() || open.append(folder, &records).is_ok();
        if wrote_mark && !appended {
            self.memo = Memo::default();
        }
        if records.is_empty() && open.first_unsynced.is_none() {
            return true;
        }
        let oldest = open.first_unsynced;
        if let Err(error) = open.sync(folder) {
            self.abandon(&error);
            return false;
        }
        if let Some(written) = oldest {
            self.shared.metrics.spool_synced(written.elapsed().as_secs_f64());
        }
        for (hour, n) in mem::take(&mut open.unsynced).samples {
            self.shared.ledger.kept(hour, n);
        }
        appended
    }

    /// Seals the open segment and begins the next one; one without rows is replaced.
    fn seal(&mut self) {
        if !self.sync(false, true) && self.open.is_none() {
            return;
        }
        let Some(open) = self.open.take() else { return };
        if open.has_rows() {
            self.stranded.push((open.id, self.sealed(&open, open.written.clone(), false)));
            self.offer_stranded();
        } else {
            self.leftovers.push(Entry { id: open.id, state: State::Open });
        }
        self.ensure_open();
    }

    /// True where there is a segment to write to.
    fn ensure_open(&mut self) -> bool {
        if self.open.is_none()
            && self.health.may_try(Instant::now())
            && let Err(error) = self.begin()
        {
            self.health.failed(&error, Instant::now());
        }
        self.open.is_some()
    }

    fn begin(&mut self) -> io::Result<()> {
        self.find_folder();
        let id = self.next_id();
        let folder = self.folder.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let (opened, none) = (Timestamp::now(), Default::default());
        let instance = self.shared.ledger.instance().to_string();
        let head = Head { id: Some(id.to_string()), life: self.life, instance, opened };
        let ledger = self.shared.ledger.checkpoint(&mut self.memo, true, &none, opened);
        let Some(ledger) = ledger else { return Ok(()) };
        let mark = Mark { removing: self.removing.clone(), ledger };
        let created = OpenSegment::create(folder, id, &head, &mark);
        if created.is_err() {
            self.memo = Memo::default();
        }
        self.open = Some(created?);
        self.checkpointed = Instant::now();
        self.health.worked();
        self.clear_leftovers();
        Ok(())
    }

    fn next_id(&mut self) -> SegmentId {
        self.sequence += 1;
        SegmentId { incarnation: self.shared.ledger.incarnation(), sequence: self.sequence }
    }

    /// Takes the folder again where it is missing. What earlier runs left is taken over once.
    fn find_folder(&mut self) {
        if self.folder.as_ref().is_some_and(Folder::is_there) {
            return;
        }
        (self.folder, self.books) = (None, None);
        match open_folder(&self.shared.settings, self.faults.clone()) {
            Ok(folder) if !self.taken_over => match recovery::recover(&folder) {
                Ok(found) => drop(self.take_over(folder, found, Timestamp::now())),
                Err(error) => self.health.failed(&error, Instant::now()),
            },
            Ok(folder) => self.folder = Some(folder),
            Err(SpoolError::Disk(error)) => self.health.failed(&error, Instant::now()),
            Err(error) => tracing::error!(%error, "the spool is lost to another process"),
        }
    }

    /// Removes files that hold nothing, now that a newer checkpoint is safe.
    fn clear_leftovers(&mut self) {
        let Some(folder) = &self.folder else { return };
        let (leftovers, removing) = (&mut self.leftovers, &mut self.removing);
        leftovers.retain(|entry| {
            let is_there = folder.remove(entry.id, entry.state).is_err();
            removing.retain(|name| is_there || *name != entry.id.to_string());
            is_there
        });
    }

    /// Books the rows of a segment as stored or lost, makes that safe, then removes the segment.
    fn finish(&mut self, id: SegmentId, stored: &Tally, lost: &Tally, damaged: bool) {
        if self.shared.sealed().remove(id).is_none() {
            return;
        }
        let ledger = &self.shared.ledger;
        for (hour, n) in &stored.samples {
            ledger.stored(id.incarnation, *hour, *n);
        }
        for (hour, n) in &lost.samples {
            ledger.unreadable(id.incarnation, *hour, *n);
        }
        let others = Tally { others: lost.others.clone(), ..Tally::default() };
        self.drop_rows(&others, DropReason::Corrupt);
        self.removing.push(id.to_string());
        let safe = self.make_books_safe();
        failpoint::hit("spool_booked");
        let remove = |folder: &Folder| match damaged {
            true => {
                folder.set_aside(id, State::Sealed).or_else(|_| folder.remove(id, State::Sealed))
            }
            false => folder.remove(id, State::Sealed),
        };
        let missing = Err(io::Error::from(io::ErrorKind::NotFound));
        let gone = self.folder.as_ref().map_or(missing, remove);
        match gone {
            Ok(()) => {
                failpoint::hit("spool_removed");
                drop(self.removing.pop());
            }
            Err(_) => self.leftovers.push(Entry { id, state: State::Sealed }),
        }
        if !safe {
            // What was removed may be the room that the books need.
            self.make_books_safe();
        }
    }

    /// Ends the run's books; the archive is served on.
    fn close(&mut self) {
        self.flush();
        if mem::replace(&mut self.closed, true) {
            return;
        }
        self.shared.ledger.close();
        match self.open.as_ref().is_some_and(OpenSegment::has_rows) {
            true => self.seal(),
            false => drop(self.sync(true, false)),
        }
        self.book(self.open.is_none());
    }

    fn bytes(&self) -> u64 {
        let open = self.open.as_ref().map_or(0, OpenSegment::bytes);
        let stranded: u64 = self.stranded.iter().map(|(_, sealed)| sealed.bytes).sum();
        self.shared.sealed_bytes() + stranded + open + self.batch.bytes()
    }

    fn quota(&self) -> u64 {
        let bytes_max = self.shared.settings.bytes_max;
        bytes_max - bytes_max / CORRUPT_SHARE
    }

    fn drop_rows(&self, tally: &Tally, reason: DropReason) {
        let all = [(Dataset::Exchanges, &tally.samples), (Dataset::Usage, &tally.others)];
        for (dataset, hours) in all {
            for (hour, n) in hours {
                self.shared.ledger.dropped_rows(dataset, *hour, DropStage::Spool, reason, *n);
            }
        }
    }
}

fn tally_of(dataset: Dataset, hour: Hour) -> Tally {
    let mut tally = Tally::default();
    tally.add(dataset, hour);
    tally
}
