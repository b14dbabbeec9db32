//! The thread that sends: at a pace, with bounded requests under way, and nothing else to do.

use std::cell::Cell;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use jiff::Timestamp;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::MissedTickBehavior;

use super::pick::Picked;
use super::recorded::{Recorded, Wanted};
use super::target::Target;
use crate::bucket::{Bucket, BucketError, LineError, Lines};
use crate::domain::{Exchange, Outcome};
use crate::drain::Drain;

/// Failed connections in a row, from the first request on, after which nobody is taken to be there.
const UNREACHABLE_AFTER: u64 = 10;

/// How fast.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Requests a second at most.
    pub(super) rate: f64,
    /// Requests under way at most.
    pub(super) concurrency: usize,
}

/// A request with what came of it.
pub(super) struct Sent {
    pub(super) recorded: Recorded,
    pub(super) exchange: Exchange,
}

/// What comes back from the sending thread.
pub(super) struct Inbox {
    sent: Receiver<Sent>,
    /// Until something was answered: how many were not connected to.
    unreachable: Option<u64>,
    count: u64,
    began: Instant,
    last: Instant,
}

/// Starts the thread: what is fed to it comes out sent. It ends when its feed closes, or when nobody is
/// there.
pub(super) fn start(
    target: Target,
    pace: Pace,
    drain: &Drain,
) -> std::io::Result<(Sender<Recorded>, Inbox)> {
    let (feed, requests) = mpsc::channel(pace.concurrency);
    let (done, sent) = mpsc::channel(pace.concurrency);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    drain.thread("replay", move || runtime.block_on(send(target, pace, requests, done)))?;
    let now = Instant::now();
    Ok((feed, Inbox { sent, unreachable: Some(0), count: 0, began: now, last: now }))
}

async fn send(target: Target, pace: Pace, requests: Receiver<Recorded>, done: Sender<Sent>) {
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / pace.rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let failed = Cell::new(Some(0));
    let paced = stream::unfold((requests, ticks), |(mut requests, mut ticks)| async {
        let recorded = requests.recv().await?;
        ticks.tick().await;
        Some((recorded, (requests, ticks)))
    });
    let reachable = |_: &Recorded| {
        std::future::ready(failed.get().is_none_or(|failed: u64| failed < UNREACHABLE_AFTER))
    };
    let sending = paced.take_while(reachable).map(|recorded| async {
        let exchange = target.send(&recorded, Timestamp::now()).await;
        failed.set(unconnected(failed.get(), exchange.outcome));
        // Whoever took these has gone: what is left need not be sent.
        done.send(Sent { recorded, exchange }).await
    });
    let sending = sending.buffer_unordered(pace.concurrency);
    sending.take_while(|sent| std::future::ready(sent.is_ok())).for_each(|_| async {}).await;
}

/// Failed connections from the first request on; `None` once anything came back.
fn unconnected(before: Option<u64>, outcome: Outcome) -> Option<u64> {
    before.filter(|_| outcome == Outcome::ConnectError).map(|failed| failed + 1)
}

impl Inbox {
    /// The next request that was answered, or failed.
    pub(super) async fn next(&mut self) -> Option<Sent> {
        let sent = self.sent.recv().await?;
        self.unreachable = unconnected(self.unreachable, sent.exchange.outcome);
        self.count += 1;
        self.last = Instant::now();
        Some(sent)
    }

    /// How many were not connected to, where that is why there are no more.
    pub(super) fn unreachable(&self) -> Option<u64> {
        self.unreachable.filter(|failed| *failed > 0)
    }

    /// Requests a second.
    pub(super) fn rate(&self) -> f64 {
        let seconds = self.last.duration_since(self.began).as_secs_f64();
        if seconds > 0.0 { self.count as f64 / seconds } else { 0.0 }
    }
}

/// Reads the picked requests again, and hands them to the sending thread; ends early where that has.
pub(super) async fn feed(
    bucket: &dyn Bucket,
    picked: &Picked,
    wanted: &Wanted,
    feed: Sender<Recorded>,
) -> Result<(), BucketError> {
    for (name, numbers) in &picked.lines {
        let body = bucket.get(name).await?;
        let (mut lines, mut number) = (Lines::of(&body), 0);
        loop {
            let recorded = match lines.next() {
                Ok(Some(line)) if numbers.contains(&number) => Recorded::parse(line, wanted).ok(),
                Ok(Some(_)) | Err(LineError::TooLong) => None,
                Ok(None) | Err(LineError::Damaged) => break,
            };
            number += 1;
            if let Some(recorded) = recorded
                && feed.send(recorded).await.is_err()
            {
                return Ok(());
            }
        }
    }
    Ok(())
}
