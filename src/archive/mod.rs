//! The worker that brings sealed segments to the bucket, oldest first, and publishes the ledger.
//!
//! A segment leaves the spool only after the bucket has confirmed every object made of it. Names and
//! bytes of an upload are always the same, so a crash between the two only repeats an upload. A bucket
//! that fails is tried again with growing, jittered waits; after five failures in a row a breaker
//! lets single objects through as probes. Errors that trying again cannot heal (no such bucket, no
//! permission) are logged once with what to do, and tried once a minute. Nothing waits for this worker:
//! if the bucket stays away, the spool fills to its quota, then the newest rows are dropped and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream};
use jiff::Timestamp;
use rustix::io::Errno;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bucket::{Bucket, BucketError};
use crate::capture::failpoint;
use crate::domain::Dataset;
use crate::ledger::{Ledger, LedgerRow};
use crate::metrics::Metrics;
use crate::queue::Announcer;
use crate::spool::{Sealed, SegmentId, Spool, Tally};

mod pace;
mod pack;
mod verify;

pub use verify::{Checked, Finding, Report, verify};

use pace::Pace;
use pack::{Object, Packed};

/// Objects that are uploaded at once.
const UPLOADS_MAX: usize = 4;
/// The ledger is published no more often than segments are sealed, since each time is a request to the
/// bucket, and at least so often.
const PUBLISH_EVERY: Duration = Duration::from_mins(15);

/// Between two looks at whether the ledger has a new row.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long things wait; tests wait less.
#[derive(Clone, Copy, Debug)]
struct Tempo {
    /// After the first failure; doubled by each further one.
    first_wait: Duration,
    /// After many failures, and where trying sooner cannot help.
    longest_wait: Duration,
    /// Between two attempts while the process shuts down, at most.
    drain_wait: Duration,
    /// For a segment that the bucket refuses while it takes others.
    refused_for: Duration,
    /// Between two looks at the age of the oldest segment, at most.
    gauge_every: Duration,
}

const TEMPO: Tempo = Tempo {
    first_wait: Duration::from_millis(500),
    longest_wait: Duration::from_secs(60),
    drain_wait: Duration::from_secs(1),
    refused_for: Duration::from_secs(60),
    gauge_every: Duration::from_secs(5),
};

/// Brings segments to the bucket; see the module.
pub struct Archive {
    spool: Spool,
    bucket: Arc<dyn Bucket>,
    ledger: Ledger,
    metrics: Metrics,
    instance: Arc<str>,
    tempo: Tempo,
    pace: Pace,
    queue: Queue,
    draining: CancellationToken,
    published: BTreeMap<String, LedgerRow>,
    published_at: Option<Instant>,
    looked_at: Option<Instant>,
    told: Option<&'static str>,
    announcer: Option<Announcer>,
    uploaded: Arc<Notify>,
}

impl Archive {
    /// A worker for `spool`, whose books are `ledger`. Segments bear the name of the process that
    /// wrote them; `instance` stands in where that cannot be read.
    pub fn new(
        spool: Spool,
        bucket: Arc<dyn Bucket>,
        ledger: Ledger,
        metrics: Metrics,
        instance: Arc<str>,
    ) -> Self {
        Self {
            spool,
            bucket,
            ledger,
            metrics,
            instance,
            tempo: TEMPO,
            pace: Pace::new(TEMPO.first_wait, TEMPO.longest_wait),
            queue: Queue::default(),
            draining: CancellationToken::new(),
            published: BTreeMap::new(),
            published_at: None,
            looked_at: None,
            told: None,
            announcer: None,
            uploaded: Arc::default(),
        }
    }

    /// Tells evaluators of each object of samples that the bucket has confirmed.
    pub fn announcing(self, announcer: Option<Announcer>) -> Self {
        Self { announcer, ..self }
    }

    /// Wakes whoever waits there when something new is in the bucket.
    pub fn uploaded(&self) -> Arc<Notify> {
        Arc::clone(&self.uploaded)
    }

    /// Works until `shutdown` holds a deadline (or its sender is gone, which is a deadline of now).
    /// Then it uploads what is sealed and publishes the ledger, both until the deadline; the rest
    /// stays in the spool for the next run. Call [`Spool::close`] before setting the deadline, so that
    /// the last rows are sealed.
    pub async fn run(mut self, mut shutdown: watch::Receiver<Option<Instant>>) {
        let draining = self.draining.clone();
        let deadline = {
            // Fused, for it is waited for again after it has ended.
            let work = self.work().fuse();
            tokio::pin!(work);
            let deadline = tokio::select! {
                () = &mut work => Instant::now(),
                deadline = told(&mut shutdown) => deadline,
            };
            draining.cancel();
            // A fifth of the time, two seconds at most, is the ledger's.
            let left = deadline.saturating_duration_since(Instant::now());
            let uploads = deadline - (left / 5).min(Duration::from_secs(2));
            let _ = tokio::time::timeout_at(uploads, work).await;
            deadline
        };
        if tokio::time::timeout_at(deadline, self.publish()).await.is_err() {
            tracing::warn!("the ledger could not be published before the deadline");
        }
        let left = self.spool.sealed().len();
        if left > 0 {
            tracing::warn!(
                segments = left,
                "not uploaded before the deadline; they stay in the spool"
            );
        }
    }

    async fn work(&mut self) {
        loop {
            self.gauge();
            match self.turn().await {
                Turn::Uploaded => {}
                Turn::Idle if self.draining.is_cancelled() => {
                    if !self.queue.last_chance() {
                        return;
                    }
                }
                Turn::Idle => {
                    let (spool, draining) = (self.spool.clone(), self.draining.clone());
                    tokio::select! {
                        () = spool.grown() => {}
                        () = draining.cancelled() => {}
                        () = tokio::time::sleep(self.tempo.gauge_every.min(self.publish_every())) => {}
                    }
                }
                Turn::Failed(wait) => self.rest(wait).await,
            }
        }
    }

    /// The oldest segment, and the ledger where it is due.
    async fn turn(&mut self) -> Turn {
        let refused = match self.publish_if_due().await {
            Err(error) if error.kind.is_transient() => return self.failed(&error),
            published => published.err(),
        };
        let next = self.queue.pick(&self.spool.sealed(), Instant::now());
        let next = next.and_then(|id| Some((id, self.spool.segment(id)?)));
        let (id, sealed) = match (next, refused) {
            (Some(next), _) => next,
            (None, Some(refused)) => return self.failed(&refused),
            (None, None) => return Turn::Idle,
        };
        match self.upload(id, sealed).await {
            Ok(()) => self.succeeded(Some(id)),
            Err(Failure::Bucket(error)) => {
                if !error.kind.is_transient() {
                    self.queue.refused(id, Instant::now() + self.tempo.refused_for);
                }
                self.failed(&error)
            }
            Err(Failure::Read(error)) => {
                tracing::warn!(segment = %id, %error, "a segment cannot be read now");
                self.metrics.archive_failed("read");
                Turn::Failed(self.pace.failed(true, chance()))
            }
        }
    }

    async fn upload(&mut self, id: SegmentId, sealed: Sealed) -> Result<(), Failure> {
        let packed = match self.pack(id, sealed.instance.as_deref()).await {
            Ok(packed) => packed,
            Err(error) if is_final(&error) => {
                tracing::warn!(segment = %id, %error, "a segment is lost");
                return self.finish(id, Tally::default(), sealed.tally, true).await;
            }
            Err(error) => return Err(Failure::Read(error)),
        };
        // After a failure one object goes ahead as a probe.
        let at_once = if self.pace.is_failing() { 1 } else { UPLOADS_MAX };
        self.put_all(&packed.objects, at_once).await.map_err(Failure::Bucket)?;
        let lost = sealed.tally.minus(&packed.tally);
        let damaged = sealed.damaged || packed.damaged || !lost.is_empty();
        self.finish(id, packed.tally, lost, damaged).await
    }

    async fn finish(
        &self,
        id: SegmentId,
        stored: Tally,
        lost: Tally,
        damaged: bool,
    ) -> Result<(), Failure> {
        match self.spool.finish(id, stored, lost, damaged).await {
            true => Ok(()),
            false => Err(Failure::Read(io::Error::other("the spool's thread is gone"))),
        }
    }

    async fn pack(&self, id: SegmentId, instance: Option<&str>) -> io::Result<Packed> {
        let spool = self.spool.clone();
        let instance = instance.unwrap_or(&self.instance).to_owned();
        let packing = tokio::task::spawn_blocking(move || {
            spool.read(id).and_then(|rows| pack::pack(rows, id, &instance))
        });
        packing.await.unwrap_or_else(|_| Err(io::Error::other("packing did not end")))
    }

    async fn put_all(&self, objects: &[Object], at_once: usize) -> Result<(), BucketError> {
        let uploads: Vec<_> = objects.iter().map(|object| self.put(object)).collect();
        let mut uploads = stream::iter(uploads).buffered(at_once);
        while let Some(result) = uploads.next().await {
            result?;
        }
        Ok(())
    }

    async fn put(&self, object: &Object) -> Result<(), BucketError> {
        failpoint::hit("archive_begun");
        self.bucket.put(&object.name, object.body.clone()).await?;
        failpoint::hit("archive_put");
        self.metrics.archive_uploaded(object.dataset, object.body.len() as u64);
        if let Some(announcer) =
            self.announcer.as_ref().filter(|_| object.dataset == Dataset::Exchanges)
        {
            announcer.announce(&object.name);
        }
        Ok(())
    }

    /// Publishes where a row is new or the time has come.
    async fn publish_if_due(&mut self) -> Result<(), BucketError> {
        let recent = |at: Option<Instant>, span| at.is_some_and(|at| at.elapsed() < span);
        if recent(self.looked_at, LOOK_EVERY) {
            return Ok(());
        }
        self.looked_at = Some(Instant::now());
        let due = !recent(self.published_at, self.publish_every());
        let rows = self.ledger.rows(Timestamp::now());
        if due || rows.iter().any(|row| !self.published.contains_key(&row.name())) {
            return self.publish().await;
        }
        Ok(())
    }

    /// Writes the rows that changed. The spool makes the same figures safe first, so that the next run
    /// can never publish smaller ones. Where it cannot, that run will not know of them either: each row is
    /// written as it can stand, should it be the last.
    async fn publish(&mut self) -> Result<(), BucketError> {
        self.published_at = Some(Instant::now());
        let rows = self.ledger.rows(Timestamp::now());
        let old =
            |row: &LedgerRow| self.published.get(&row.name()).is_some_and(|p| p.same_figures(row));
        let changed: Vec<_> = rows.iter().filter(|row| !old(row)).cloned().collect();
        if changed.is_empty() {
            return Ok(());
        }
        let is_safe = self.spool.checkpoint().await;
        for row in changed {
            let row = if is_safe { row } else { row.as_last_word() };
            if let Some(line) = line(&row) {
                self.bucket.put(&row.name(), line).await?;
                failpoint::hit("ledger_put");
            }
            self.ledger.forget(&row);
            self.published.insert(row.name(), row);
        }
        let names: BTreeSet<_> =
            self.ledger.rows(Timestamp::now()).iter().map(LedgerRow::name).collect();
        self.published.retain(|name, _| names.contains(name));
        self.succeeded(None);
        Ok(())
    }

    fn publish_every(&self) -> Duration {
        let age = self.spool.settings().segment_age;
        age.clamp(Duration::from_secs(1), PUBLISH_EVERY)
    }

    fn succeeded(&mut self, id: Option<SegmentId>) -> Turn {
        if self.pace.is_failing() {
            tracing::info!("the bucket works again");
        }
        self.pace.succeeded();
        self.told = None;
        self.metrics.breaker_open(false);
        if let Some(id) = id {
            self.queue.took(id, Instant::now() + self.tempo.refused_for);
            self.uploaded.notify_one();
        }
        Turn::Uploaded
    }

    fn failed(&mut self, error: &BucketError) -> Turn {
        let kind = error.kind;
        self.metrics.archive_failed(kind.label());
        if self.told.replace(kind.label()) != Some(kind.label()) {
            if kind.is_transient() {
                tracing::warn!(kind = kind.label(), %error, "the bucket fails; samples wait in the spool");
            } else {
                tracing::error!(kind = kind.label(), %error, "the bucket refuses us: check its name, \
                    region and endpoint, the credentials, the permission to write and the clock; samples wait in the spool meanwhile");
            }
        }
        let wait = self.pace.failed(kind.is_transient(), chance());
        self.metrics.breaker_open(self.pace.is_open());
        Turn::Failed(wait)
    }

    /// Waits, measuring meanwhile; shutting down cuts the wait short.
    async fn rest(&self, wait: Duration) {
        if self.draining.is_cancelled() {
            return tokio::time::sleep(wait.min(self.tempo.drain_wait)).await;
        }
        let end = Instant::now() + wait;
        while Instant::now() < end {
            let slice = (Instant::now() + self.tempo.gauge_every).min(end);
            tokio::select! {
                () = tokio::time::sleep_until(slice) => self.gauge(),
                () = self.draining.cancelled() => return,
            }
        }
    }

    fn gauge(&self) {
        let age =
            self.spool.oldest().map_or(0.0, |at| Timestamp::now().duration_since(at).as_secs_f64());
        self.metrics.archive_oldest_seconds(age.max(0.0));
    }
}

/// What one turn of the work came to.
enum Turn {
    Uploaded,
    Idle,
    Failed(Duration),
}

enum Failure {
    Bucket(BucketError),
    Read(io::Error),
}

/// Which segment is next: the oldest, unless the bucket refuses just that one.
#[derive(Debug, Default)]
struct Queue {
    /// The segment that was refused last; the one behind it is tried to see whether all are.
    suspect: Option<SegmentId>,
    /// Refused while others were taken: until when they wait.
    refused: BTreeMap<SegmentId, Instant>,
    /// The process ends: each refused segment had its last attempt, or has it now.
    ending: bool,
}

impl Queue {
    /// The next of `sealed`, which is sorted.
    fn pick(&mut self, sealed: &[SegmentId], now: Instant) -> Option<SegmentId> {
        self.refused.retain(|id, until| *until > now && sealed.binary_search(id).is_ok());
        let mut waiting = sealed.iter().filter(|id| !self.refused.contains_key(id));
        let first = waiting.next()?;
        let second = (self.suspect == Some(*first)).then(|| waiting.next()).flatten();
        Some(*second.unwrap_or(first))
    }

    /// At the end, what waits gets one more attempt: the bucket may have refused all of it then, not
    /// just that one. False where there is nothing to try, or all was tried.
    fn last_chance(&mut self) -> bool {
        !std::mem::replace(&mut self.ending, true) && !std::mem::take(&mut self.refused).is_empty()
    }

    fn refused(&mut self, id: SegmentId, until: Instant) {
        if self.ending {
            self.refused.insert(id, until);
        }
        self.suspect = if self.suspect.is_none() { Some(id) } else { None };
    }

    /// Notes a success; a segment that was refused before it waits until `until`.
    fn took(&mut self, id: SegmentId, until: Instant) {
        if let Some(suspect) = self.suspect.take().filter(|suspect| *suspect != id) {
            self.refused.insert(suspect, until);
        }
    }
}

/// The deadline, once there is one.
async fn told(shutdown: &mut watch::Receiver<Option<Instant>>) -> Instant {
    match shutdown.wait_for(Option::is_some).await {
        Ok(deadline) => deadline.unwrap_or_else(Instant::now),
        Err(_) => Instant::now(),
    }
}

/// True for errors after which reading again cannot help.
fn is_final(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, InvalidData, InvalidInput, NotFound};
    matches!(error.kind(), NotFound | InvalidData | InvalidInput | FileTooLarge)
        || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

fn line(row: &LedgerRow) -> Option<bytes::Bytes> {
    let line = serde_json::to_vec(row).ok()?;
    pack::gzip(&line).ok()
}

/// A number in `[0, 1)`, for spreading waits: the standard library's own hash keys are random.
fn chance() -> f64 {
    (RandomState::new().hash_one(0_u8) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests;
