//! The one thread that writes. What waits is written in one transaction, each piece of work by itself
//! undone where it fails; who asked is told after the commit.

use std::fs::File;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::labels::Cache;
use super::{Store, StoreError};
use crate::capture::failpoint;

/// Pieces of work that may wait; whoever brings one more waits for room.
const QUEUE_MAX: usize = 32;
/// Pieces in one transaction.
const TOGETHER_MAX: usize = 64;
/// How long a transaction goes on taking more.
const TOGETHER_FOR: Duration = Duration::from_millis(250);

/// One piece of work.
type Work = Box<dyn FnOnce(&mut Session<'_>) -> Done + Send>;
/// Tells who asked what came of it, once it is known whether it was committed.
type Tell = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A piece of work that was done, or failed.
struct Done {
    failed: bool,
    tell: Tell,
}

/// Where work is handed in. The thread ends when all are gone.
#[derive(Clone)]
pub(super) struct Hand(SyncSender<Work>);

/// The writing end; [`Writer::run`] needs a thread of its own.
pub struct Writer {
    connection: Connection,
    inbox: Receiver<Work>,
    cache: Cache,
    /// Held for as long as anything is written.
    _lock: File,
}

/// What a piece of work has at hand.
pub(super) struct Session<'a> {
    pub(super) db: &'a Connection,
    pub(super) cache: &'a mut Cache,
}

pub(super) fn writer(connection: Connection, lock: File) -> (Hand, Writer) {
    let (sender, inbox) = sync_channel(QUEUE_MAX);
    (Hand(sender), Writer { connection, inbox, cache: Cache::default(), _lock: lock })
}

impl Store {
    /// Has `work` done by the writer, and waits until it is committed.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Session<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let work: Work = Box::new(move |session| {
            let result = work(session);
            let failed = result.is_err();
            let tell: Tell = Box::new(move |committed| {
                // Who no longer waits need not be told.
                let _ = sender.send(match committed {
                    Err(error) if !failed => Err(error),
                    _ => result,
                });
            });
            Done { failed, tell }
        });
        self.hand.give(work).await?;
        receiver.await.map_err(|_| StoreError::Closed)?
    }
}

impl Hand {
    /// Waits for room without holding up a thread.
    async fn give(&self, mut work: Work) -> Result<(), StoreError> {
        use std::sync::mpsc::TrySendError;
        loop {
            work = match self.0.try_send(work) {
                Ok(()) => return Ok(()),
                Err(TrySendError::Disconnected(_)) => return Err(StoreError::Closed),
                Err(TrySendError::Full(work)) => work,
            };
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Writer {
    /// Writes until every [`Store`] is gone.
    pub fn run(mut self) {
        while let Ok(first) = self.inbox.recv() {
            self.together(first);
        }
        // What the log holds goes into the file, so that the next start has nothing to catch up with.
        if let Err(error) = self.connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)") {
            tracing::warn!(%error, "the store's log was not emptied");
        }
    }

    /// One transaction over all that waits.
    fn together(&mut self, first: Work) {
        let (started, mut told) = (Instant::now(), Vec::new());
        let mut next = Some(first);
        let begun = self.connection.execute_batch("BEGIN IMMEDIATE");
        while let Some(work) = next {
            told.push(self.one(work));
            let more = told.len() < TOGETHER_MAX && started.elapsed() < TOGETHER_FOR;
            next = if more { self.inbox.try_recv().ok() } else { None };
        }
        failpoint::hit("store_written");
        let committed = begun.and_then(|()| self.connection.execute_batch("COMMIT"));
        failpoint::hit("store_committed");
        if let Err(error) = &committed {
            tracing::warn!(%error, "the store could not be written");
            self.cache = Cache::default();
            // Where nothing was begun, there is nothing to undo.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
        // Not every error can be told twice.
        let failed = committed.err().map(|error| error.to_string());
        for tell in told {
            tell(failed.as_ref().map_or(Ok(()), |why| Err(not_committed(why))));
        }
    }

    /// One piece of work, undone where it fails.
    fn one(&mut self, work: Work) -> Tell {
        // Without a transaction these fail, and so will the commit.
        let _ = self.connection.execute_batch("SAVEPOINT one");
        let done = work(&mut Session { db: &self.connection, cache: &mut self.cache });
        if done.failed {
            self.cache = Cache::default();
            let _ = self.connection.execute_batch("ROLLBACK TO one");
        }
        let _ = self.connection.execute_batch("RELEASE one");
        done.tell
    }
}

fn not_committed(why: &str) -> StoreError {
    StoreError::Disk(std::io::Error::other(format!("not committed: {why}")))
}
