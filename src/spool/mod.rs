//! The local disk queue before the bucket: append-only segments, written by one thread of its own.
//!
//! Writers hand rows over and never wait; the thread writes them in batches, fsyncs at most every
//! [`config::Spool::sync`] (the loss window), and seals segments by size and age. **A row is safe once
//! it is fsynced**: from then on it reaches the bucket at least once. Every row that does not get that
//! far is counted in the ledger and in the metrics by this room, whoever offered it: callers of
//! [`Writer::try_append`] count nothing.
//!
//! A bad disk never stops anything: rows are dropped and counted until it works again.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, oneshot};

use crate::config;
use crate::domain::{DropReason, DropStage, Row};
use crate::ledger::{Hour, Incarnation, Ledger, Window};
use crate::metrics::Metrics;

mod batch;
mod books;
mod faults;
mod folder;
mod format;
mod health;
mod keeper;
mod lives;
mod read;
mod recovery;
mod segment;

pub use folder::SegmentId;
pub use format::{StoredRow, Tally};
pub use read::SegmentRows;
#[cfg(any(test, feature = "fuzzing"))]
pub use recovery::walk_over;

use keeper::{Command, Keeper, Message};

/// Rows that may wait for the thread.
const QUEUE_ROWS_MAX: usize = 4096;
/// Bytes of rows that may wait for the thread.
const QUEUE_BYTES_MAX: u64 = 16 << 20;
/// More of them are a crowd.
const CROWDED_ROWS: usize = QUEUE_ROWS_MAX / 4 * 3;
/// And more bytes.
const CROWDED_BYTES: u64 = QUEUE_BYTES_MAX / 4 * 3;
/// So many bytes of rows wake the thread from gathering: they are still in the processor's cache then.
const HURRY_BYTES: u64 = QUEUE_BYTES_MAX / 32;
/// Commands that may wait besides.
const QUEUE_COMMANDS_MAX: usize = 64;

/// Why the spool cannot be opened. A disk that does not work is no reason: see [`Recovery`].
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// Another process has it.
    #[error("the spool folder {} is in use by another flowtap", dir.display())]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder cannot be used.
    #[error("the spool folder cannot be used: {0}")]
    Disk(#[from] io::Error),
}

impl SpoolError {
    /// The name used in metrics and logs.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "locked",
            Self::Disk(_) => "disk",
        }
    }
}

/// What the spool found when it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Segments of earlier runs that wait for the bucket.
    pub segments: usize,
    /// Rows in them.
    pub rows: u64,
    /// Places in them that cannot be read.
    pub damages: u64,
    /// Files moved to `corrupt/` because they are no segments of this version.
    pub set_aside: u64,
    /// What the last run cannot account for; `None` where it was shut down in order.
    pub unaccounted: Option<Window>,
    /// The folder cannot be used for now, and why: rows are dropped and counted until it can be.
    pub unusable: Option<String>,
}

/// A sealed segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// Bytes on disk.
    pub bytes: u64,
    /// When its first record was written.
    pub opened: Timestamp,
    /// The rows that it held when it was sealed.
    pub tally: Tally,
    /// The process that wrote it; `None` where that record is damaged.
    pub instance: Option<String>,
    /// Some of it cannot be read.
    pub damaged: bool,
}

/// The spool: for the archive and for shutdown. Clones share it.
#[derive(Clone)]
pub struct Spool {
    shared: Arc<Shared>,
    sender: SyncSender<Message>,
}

/// The spool's entrance. Clones share its bounds.
#[derive(Clone)]
pub struct Writer {
    shared: Arc<Shared>,
    sender: SyncSender<Message>,
}

/// What the thread and the handles share.
struct Shared {
    settings: config::Spool,
    ledger: Ledger,
    metrics: Metrics,
    sealed: Mutex<Shelf>,
    rows_waiting: AtomicUsize,
    bytes_waiting: AtomicU64,
    keeper: OnceLock<Thread>,
    closed: AtomicBool,
    grown: Notify,
}

/// The sealed segments, and their size without counting each time.
#[derive(Default)]
struct Shelf {
    segments: BTreeMap<SegmentId, Sealed>,
    bytes: u64,
}

impl Shelf {
    fn insert(&mut self, id: SegmentId, sealed: Sealed) {
        self.bytes += sealed.bytes;
        let replaced = self.segments.insert(id, sealed);
        self.bytes -= replaced.map_or(0, |sealed| sealed.bytes);
    }

    fn remove(&mut self, id: SegmentId) -> Option<Sealed> {
        let removed = self.segments.remove(&id);
        self.bytes -= removed.as_ref().map_or(0, |sealed| sealed.bytes);
        removed
    }
}

impl Spool {
    /// Opens the folder, takes over what earlier runs left in it, and starts the thread
    /// `flowtap-spool`, which ends when all handles are gone. The one error of a working system is
    /// [`SpoolError::Locked`]; a folder that cannot be used now is tried again once a second.
    pub fn open(
        settings: &config::Spool,
        instance: Arc<str>,
        metrics: Metrics,
        now: Timestamp,
    ) -> Result<(Self, Recovery), SpoolError> {
        Self::open_with(settings, instance, metrics, now, faults::Faults::default())
    }

    fn open_with(
        settings: &config::Spool,
        instance: Arc<str>,
        metrics: Metrics,
        now: Timestamp,
        faults: faults::Faults,
    ) -> Result<(Self, Recovery), SpoolError> {
        let found = match keeper::open_folder(settings, faults.clone()) {
            Err(SpoolError::Disk(error)) => Err(error),
            Err(locked) => return Err(locked),
            Ok(folder) => recovery::recover(&folder).map(|found| (folder, found)),
        };
        let greatest = found.as_ref().ok().and_then(|(_, found)| found.greatest);
        let incarnation = Incarnation::new(now, greatest);
        let ledger = Ledger::new(instance, incarnation, metrics.clone());
        let shared = Arc::new(Shared::new(settings.clone(), ledger, metrics));
        let (sender, receiver) = mpsc::sync_channel(QUEUE_ROWS_MAX + QUEUE_COMMANDS_MAX);
        let mut keeper = Keeper::new(Arc::clone(&shared), receiver, faults);
        let recovery = match found {
            Ok((folder, found)) => keeper.take_over(folder, found, now),
            Err(error) => keeper.do_without(&error),
        };
        std::thread::Builder::new().name("flowtap-spool".to_owned()).spawn(|| keeper.run())?;
        Ok((Self { shared, sender }, recovery))
    }

    /// The books that this spool keeps.
    pub fn ledger(&self) -> Ledger {
        self.shared.ledger.clone()
    }

    /// An entrance for rows.
    pub fn writer(&self) -> Writer {
        Writer { shared: Arc::clone(&self.shared), sender: self.sender.clone() }
    }

    /// The settings that it was opened with.
    pub fn settings(&self) -> &config::Spool {
        &self.shared.settings
    }

    /// All sealed segments, oldest first.
    pub fn sealed(&self) -> Vec<SegmentId> {
        self.shared.sealed().segments.keys().copied().collect()
    }

    /// A sealed segment; `None` where it was finished meanwhile.
    pub fn segment(&self, id: SegmentId) -> Option<Sealed> {
        self.shared.sealed().segments.get(&id).cloned()
    }

    /// When the oldest sealed segment was begun.
    pub fn oldest(&self) -> Option<Timestamp> {
        self.shared.sealed().segments.first_key_value().map(|(_, sealed)| sealed.opened)
    }

    /// Waits until a segment has been sealed since the last call.
    pub async fn grown(&self) {
        self.shared.grown.notified().await;
    }

    /// Opens a sealed segment to be read: blocking.
    pub fn read(&self, id: SegmentId) -> io::Result<SegmentRows> {
        SegmentRows::open(&self.shared.settings.dir, id)
    }

    /// The bucket has confirmed the rows `stored` of a segment, and `lost` could not be read: counts
    /// both, makes the books safe, and removes the segment (into `corrupt/` if `damaged`). The books
    /// are written first, so that after a crash nothing is counted twice. False: the thread is gone.
    pub async fn finish(&self, id: SegmentId, stored: Tally, lost: Tally, damaged: bool) -> bool {
        let (reply, done) = oneshot::channel();
        self.command(Command::Finish { id, stored, lost, damaged, reply }).await
            && done.await.is_ok()
    }

    /// Makes the books safe as they are now. False where the disk did not let it.
    pub async fn checkpoint(&self) -> bool {
        let (reply, done) = oneshot::channel();
        self.command(Command::Checkpoint { reply }).await && done.await.unwrap_or(false)
    }

    /// Writes, fsyncs and seals all that was offered before, ends the run's books, and takes no more
    /// rows. False where that took longer than `within`. The thread goes on serving the archive.
    pub async fn close(&self, within: Duration) -> bool {
        self.shared.closed.store(true, Ordering::Release);
        let (reply, done) = oneshot::channel();
        let close = async { self.command(Command::Close { reply }).await && done.await.is_ok() };
        tokio::time::timeout(within, close).await.unwrap_or(false)
    }

    /// Commands wait for room in the queue without holding a thread.
    async fn command(&self, command: Command) -> bool {
        let mut message = Message::Command(command);
        loop {
            match self.sender.try_send(message) {
                Ok(()) => return true,
                Err(TrySendError::Disconnected(_)) => return false,
                Err(TrySendError::Full(back)) => message = back,
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Writer {
    /// True where so much waits that rows will soon be refused: whoever makes them can spare the work. The
    /// caller books what is not made for this, under [`DropStage::Spool`].
    pub fn is_crowded(&self) -> bool {
        let shared = &self.shared;
        shared.rows_waiting.load(Ordering::Relaxed) > CROWDED_ROWS
            || shared.bytes_waiting.load(Ordering::Relaxed) > CROWDED_BYTES
    }

    /// Offers a row and never waits. An error says why it was dropped, and is counted already.
    pub fn try_append(&self, row: Row) -> Result<(), DropReason> {
        let (dataset, hour) = (row.dataset, Hour::of(row.time));
        let offered = self.offer(row);
        if let Err(reason) = offered {
            self.shared.ledger.dropped_rows(dataset, hour, DropStage::Spool, reason, 1);
        }
        offered
    }

    fn offer(&self, row: Row) -> Result<(), DropReason> {
        let shared = &self.shared;
        let bytes = format::row_bytes(&row);
        if shared.closed.load(Ordering::Acquire) {
            return Err(DropReason::Shutdown);
        }
        if bytes > shared.settings.segment_bytes.min(QUEUE_BYTES_MAX) {
            return Err(DropReason::TooLarge);
        }
        if !shared.try_reserve(bytes) {
            return Err(DropReason::Full);
        }
        self.sender.try_send(Message::Row(row)).map_err(|refused| {
            shared.release(bytes);
            match refused {
                TrySendError::Full(_) => DropReason::Full,
                TrySendError::Disconnected(_) => DropReason::Panic,
            }
        })
    }
}

impl Shared {
    fn new(settings: config::Spool, ledger: Ledger, metrics: Metrics) -> Self {
        Self {
            settings,
            ledger,
            metrics,
            sealed: Mutex::default(),
            rows_waiting: AtomicUsize::new(0),
            bytes_waiting: AtomicU64::new(0),
            keeper: OnceLock::new(),
            closed: AtomicBool::new(false),
            grown: Notify::new(),
        }
    }

    fn sealed(&self) -> MutexGuard<'_, Shelf> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sealed_bytes(&self) -> u64 {
        self.sealed().bytes
    }

    fn try_reserve(&self, bytes: u64) -> bool {
        let rows = self.rows_waiting.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes_waiting.fetch_add(bytes, Ordering::Relaxed);
        let fits = rows < QUEUE_ROWS_MAX && before + bytes <= QUEUE_BYTES_MAX;
        if !fits {
            self.release(bytes);
        } else if (before..before + bytes).contains(&HURRY_BYTES) {
            self.keeper.get().into_iter().for_each(Thread::unpark);
        }
        fits
    }

    /// The calling thread lets rows gather for `at_most`, or until many wait.
    fn gather(&self, at_most: Duration) {
        self.keeper.get_or_init(std::thread::current);
        if self.bytes_waiting.load(Ordering::Relaxed) < HURRY_BYTES {
            std::thread::park_timeout(at_most);
        }
    }

    fn release(&self, bytes: u64) {
        self.rows_waiting.fetch_sub(1, Ordering::Relaxed);
        self.bytes_waiting.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod booked;
#[cfg(test)]
mod tests;
