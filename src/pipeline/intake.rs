//! From the traffic threads to the pipeline: bounded, lock-free, and waking nobody a request.
//!
//! Waking a sleeping worker for each request cost 5 futex calls of the 11 system calls a request
//! (measured). Here the worker, once woken, gathers for [`GATHER`] before it empties the queue, so
//! that a busy proxy wakes it at most 200 times a second and an idle one not at all. The time is short,
//! so that little memory is in flight and what gathers can stay in the processor's cache.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use jiff::Timestamp;

use crate::domain::{CaptureLevel, DropReason, DropStage, Exchange, Outcome, Shed};
use crate::ledger::{Hour, Ledger};
use crate::metrics::Metrics;

/// How long a woken worker lets exchanges gather.
const GATHER: Duration = Duration::from_millis(5);
/// How long an idle worker sleeps before it looks at the clock.
const IDLE: Duration = Duration::from_secs(1);
/// Exchanges taken at once.
const BATCH_MAX: usize = 1024;

/// The traffic threads' end. The pipeline ends when the last clone is dropped.
pub struct Intake {
    shared: Arc<Shared>,
}

/// What is known of an exchange that is lost as a whole.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// When its request's head had been read.
    pub time: Timestamp,
    /// The status sent to the client.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
}

struct Shared {
    queue: ArrayQueue<Box<Exchange>>,
    worker: OnceLock<Thread>,
    asleep: AtomicBool,
    intakes: AtomicUsize,
    /// When the youngest exchange that was turned away had begun, in microseconds since the epoch.
    lost_us: AtomicI64,
    ledger: Ledger,
    metrics: Metrics,
}

/// The pipeline's end.
pub struct Outtake {
    shared: Arc<Shared>,
}

/// Both ends of a queue for `exchanges_max` exchanges.
pub fn intake(exchanges_max: usize, ledger: Ledger, metrics: Metrics) -> (Intake, Outtake) {
    let shared = Arc::new(Shared {
        queue: ArrayQueue::new(exchanges_max.max(1)),
        worker: OnceLock::new(),
        asleep: AtomicBool::new(false),
        intakes: AtomicUsize::new(1),
        lost_us: AtomicI64::new(i64::MIN),
        ledger,
        metrics,
    });
    (Intake { shared: Arc::clone(&shared) }, Outtake { shared })
}

impl Intake {
    /// Hands an exchange over; never waits. With the queue full it is counted and dropped.
    pub fn offer(&self, exchange: Box<Exchange>) {
        if let Err(refused) = self.shared.queue.push(exchange) {
            let Exchange { tap, time, status, outcome, timing, .. } = &*refused;
            let ending = Ending { time: *time, status: *status, outcome: *outcome };
            return self.shared.lose(tap, ending, timing.total_us, DropReason::Full);
        }
        if self.shared.asleep.load(Ordering::Relaxed)
            && self.shared.asleep.swap(false, Ordering::SeqCst)
        {
            self.shared.wake();
        }
    }
}

impl Intake {
    /// An exchange of `tap` that took `total_us` was lost to a panic before it could be offered.
    pub fn lost_to_panic(&self, tap: &str, ending: Ending, total_us: u64) {
        self.shared.lose(tap, ending, total_us, DropReason::Panic);
    }

    /// No record is made of an exchange, to spare the host: it is entered in the books, and counted and
    /// timed unless looking is off.
    pub fn shed(&self, tap: &str, ending: Ending, total_us: u64, shed: Shed) {
        let shared = &*self.shared;
        shared.enter_lost(ending, DropStage::Capture, shed.cause.drop_reason());
        if shed.level < CaptureLevel::Off {
            shared.count(tap, ending, total_us);
        }
    }
}

impl Clone for Intake {
    fn clone(&self) -> Self {
        self.shared.intakes.fetch_add(1, Ordering::SeqCst);
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.shared.intakes.fetch_sub(1, Ordering::SeqCst);
        self.shared.wake();
    }
}

impl Shared {
    fn is_closed(&self) -> bool {
        self.intakes.load(Ordering::SeqCst) == 0
    }

    fn wake(&self) {
        if let Some(worker) = self.worker.get() {
            worker.unpark();
        }
    }

    fn lose(&self, tap: &str, ending: Ending, total_us: u64, reason: DropReason) {
        self.enter_lost(ending, DropStage::Intake, reason);
        self.count(tap, ending, total_us);
    }

    fn enter_lost(&self, ending: Ending, stage: DropStage, reason: DropReason) {
        let hour = Hour::of(ending.time);
        self.lost_us.fetch_max(ending.time.as_microsecond(), Ordering::Relaxed);
        self.ledger.seen(hour, 1);
        self.ledger.dropped(hour, stage, reason, 1);
    }

    fn count(&self, tap: &str, ending: Ending, total_us: u64) {
        self.metrics.intake_only(tap, ending.status, ending.outcome, total_us as f64 / 1e6);
    }
}

impl Outtake {
    /// True where less than a quarter of the queue is free, those that were `taken` of it included: more will
    /// soon be turned away. A burst that fits is no crowd.
    pub fn is_crowded(&self, taken: usize) -> bool {
        taken + self.shared.queue.len() > self.shared.queue.capacity() / 4 * 3
    }

    /// When the youngest exchange that was turned away since the last call had begun.
    pub fn take_lost(&self) -> Option<jiff::Timestamp> {
        let lost_us = self.shared.lost_us.swap(i64::MIN, Ordering::Relaxed);
        jiff::Timestamp::from_microsecond(lost_us).ok()
    }

    /// Waits for exchanges, for `patience` and a second at most, and moves them to `batch`. False once every
    /// [`Intake`] is gone and the queue is empty.
    pub fn next_batch(&self, batch: &mut Vec<Box<Exchange>>, patience: Duration) -> bool {
        let shared = &*self.shared;
        shared.worker.get_or_init(std::thread::current);
        let closed = shared.is_closed();
        if shared.queue.is_empty() && !closed {
            shared.asleep.store(true, Ordering::SeqCst);
            if shared.queue.is_empty() && !shared.is_closed() {
                std::thread::park_timeout(IDLE.min(patience));
            }
            shared.asleep.store(false, Ordering::SeqCst);
            if !shared.queue.is_empty() {
                std::thread::sleep(GATHER);
            }
        }
        shared.metrics.queue_depth("intake", shared.queue.len() as u64);
        while batch.len() < BATCH_MAX
            && let Some(exchange) = shared.queue.pop()
        {
            batch.push(exchange);
        }
        !(closed && batch.is_empty())
    }
}
