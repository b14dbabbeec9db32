//! The way of news from the archive to evaluators: the names of sample objects that the bucket has
//! just confirmed, within the process or by NATS JetStream. Names only: no content leaves by this way,
//! and the bucket stays the one truth.
//!
//! News may be lost (a full queue, a server that is away) without harm: evaluators look through the
//! bucket, too, and find whatever has no scores yet. So nobody waits here, and what is not passed on
//! is counted.

use tokio::sync::{mpsc, oneshot};

use crate::metrics::Metrics;

mod nats;

pub use nats::{consume, publish};

/// Names that may wait in the process.
const NAMES_MAX: usize = 4096;

/// The archive's end. Clones share the queue.
#[derive(Clone)]
pub struct Announcer {
    sender: mpsc::Sender<News>,
    metrics: Metrics,
}

/// The other end: an evaluator's, or that of whoever carries the news on.
pub struct Inbox {
    receiver: mpsc::Receiver<News>,
}

/// An object of samples lies in the bucket.
#[derive(Debug)]
pub struct News {
    /// Its name.
    pub object: String,
    /// Where somebody waits to hear that it was dealt with.
    pub receipt: Option<Receipt>,
}

/// To be settled once the scores of an object are stored; dropped, the news comes again, perhaps to
/// another evaluator.
#[derive(Debug)]
pub struct Receipt(oneshot::Sender<()>);

impl Receipt {
    /// The scores are stored.
    pub fn settle(self) {
        // Nobody may be waiting any longer.
        let _gone = self.0.send(());
    }
}

/// Both ends of a queue within the process.
pub fn within(metrics: Metrics) -> (Announcer, Inbox) {
    let (sender, receiver) = mpsc::channel(NAMES_MAX);
    (Announcer { sender, metrics }, Inbox { receiver })
}

impl Announcer {
    /// Tells that the bucket has confirmed the object `name`; never waits.
    pub fn announce(&self, name: &str) {
        let news = News { object: name.to_owned(), receipt: None };
        let told = self.sender.try_send(news);
        let waiting = self.sender.max_capacity() - self.sender.capacity();
        self.metrics.queue_depth("announce", waiting as u64);
        if told.is_err() {
            self.metrics.announcement_lost();
        }
    }
}

impl Inbox {
    /// The next news; `None` once every sender is gone.
    pub async fn next(&mut self) -> Option<News> {
        self.receiver.recv().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MetricsLimits;

    #[tokio::test]
    async fn a_full_queue_is_counted_and_nobody_waits() {
        let metrics = Metrics::new(&MetricsLimits { models_max: 1, deployments_max: 1 });
        let (announcer, mut inbox) = within(metrics.clone());
        for number in 0..NAMES_MAX + 3 {
            announcer.announce(&format!("exchanges/{number}"));
        }
        assert!(metrics.encode().contains("flowtap_announcements_lost_total 3"));
        let first = inbox.next().await.expect("news");
        assert_eq!(first.object, "exchanges/0");
        drop(announcer);
        let mut left = 1;
        while inbox.next().await.is_some() {
            left += 1;
        }
        assert_eq!(left, NAMES_MAX);
    }
}
