//! The way of news from the archive to evaluators: the names of sample objects that the bucket has
//! just confirmed. Names only: no content leaves by this way, and the bucket stays the one truth.
//!
//! News may be lost (a full queue, a restart) without harm: evaluators look through the bucket, too,
//! and find whatever has no scores yet. So nobody waits here, and what is not passed on is counted.

use tokio::sync::mpsc;

use crate::metrics::Metrics;

/// Names that may wait in the process.
const NAMES_MAX: usize = 4096;

/// The archive's end. Clones share the queue.
#[derive(Clone)]
pub struct Announcer {
    sender: mpsc::Sender<String>,
    metrics: Metrics,
}

/// The evaluator's end.
pub struct Inbox {
    receiver: mpsc::Receiver<String>,
}

/// Both ends of a queue within the process.
pub fn within(metrics: Metrics) -> (Announcer, Inbox) {
    let (sender, receiver) = mpsc::channel(NAMES_MAX);
    (Announcer { sender, metrics }, Inbox { receiver })
}

impl Announcer {
    /// Tells that the bucket has confirmed the object `name`; never waits.
    pub fn announce(&self, name: &str) {
        let told = self.sender.try_send(name.to_owned());
        let waiting = self.sender.max_capacity() - self.sender.capacity();
        self.metrics.queue_depth("announce", waiting as u64);
        if told.is_err() {
            self.metrics.announcement_lost();
        }
    }
}

impl Inbox {
    /// The next name; `None` once every [`Announcer`] is gone.
    pub async fn next(&mut self) -> Option<String> {
        self.receiver.recv().await
    }

    /// A name that waits already.
    pub fn try_next(&mut self) -> Option<String> {
        self.receiver.try_recv().ok()
    }
}
