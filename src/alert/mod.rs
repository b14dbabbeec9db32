//! Alerts: notices become messages, and messages reach people or are counted.
//!
//! Every target has a queue of its own, so that a dead mail server delays no webhook. A message is tried
//! with growing waits until its deadline; what a target refuses for good is not tried again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::Alerts;
use crate::domain::Notice;
use crate::metrics::Metrics;

mod email;
mod text;
mod webhook;

use email::Mailer;
use webhook::Hook;

/// Notices that may wait for one target.
const WAITING_MAX: usize = 256;
/// After the first failure; doubled by each further one.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Between two attempts, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// One attempt may take so long.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a target cannot be used at all.
#[derive(Debug, thiserror::Error)]
#[error("alerts: {target}: {why}")]
pub struct AlertError {
    /// `email`, or the webhook's name.
    pub target: Arc<str>,
    /// Without any secret.
    pub why: String,
}

/// Why a message did not arrive. The text holds no URL and no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Undelivered {
    /// It may arrive later.
    #[error("{0}")]
    Later(String),
    /// It never will.
    #[error("{0}")]
    Never(String),
}

/// Where messages go.
enum Way {
    Email(Box<Mailer>),
    Webhook(Box<Hook>),
}

/// One of the targets.
struct Target {
    name: Arc<str>,
    way: Way,
}

/// Sends what monitors have to tell.
pub struct Messenger {
    targets: Vec<Target>,
    deadline: Duration,
}

/// What became of a test message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// `email`, or the webhook's name.
    pub target: Arc<str>,
    /// Why it did not arrive; `None` where it did.
    pub error: Option<String>,
}

impl Messenger {
    /// Prepares all targets. Nothing is connected yet.
    pub fn new(alerts: &Alerts) -> Result<Self, AlertError> {
        let failed = |target: &Arc<str>| {
            let target = Arc::clone(target);
            move |why: String| AlertError { target, why }
        };
        let mut targets = Vec::new();
        if let Some(email) = &alerts.email {
            let name = Arc::from("email");
            let mailer = Mailer::new(email, alerts.page.clone()).map_err(failed(&name))?;
            targets.push(Target { way: Way::Email(Box::new(mailer)), name });
        }
        for webhook in &alerts.webhooks {
            let hook = Hook::new(webhook, alerts).map_err(failed(&webhook.name))?;
            targets.push(Target { way: Way::Webhook(Box::new(hook)), name: webhook.name.clone() });
        }
        Ok(Self { targets, deadline: alerts.deadline })
    }

    /// Sends until `notices` closes, and then what still waits.
    pub async fn run(self, mut notices: mpsc::Receiver<Notice>, metrics: Metrics) {
        let (queues, works): (Vec<_>, Vec<_>) = self
            .targets
            .iter()
            .map(|target| {
                let (queue, waiting) = mpsc::channel(WAITING_MAX);
                ((target, queue), target.work(waiting, self.deadline, &metrics))
            })
            .unzip();
        let share = async {
            while let Some(notice) = notices.recv().await {
                let notice = Arc::new(notice);
                for (target, queue) in &queues {
                    if queue.try_send(Arc::clone(&notice)).is_err() {
                        metrics.alert(&target.name, "dropped");
                        tracing::error!(
                            target = &*target.name,
                            "an alert was dropped: too many wait"
                        );
                    }
                }
            }
            drop(queues);
        };
        join(share, join_all(works)).await;
    }

    /// Sends `notice` to every target, or to one, once; all at the same time.
    pub async fn test(&self, notice: &Notice, only: Option<&str>) -> Vec<Delivery> {
        let chosen = self.targets.iter().filter(|target| only.is_none_or(|of| *target.name == *of));
        let sent = chosen.map(async |target| {
            let error = target.attempt(notice).await.err().map(|error| error.to_string());
            Delivery { target: Arc::clone(&target.name), error }
        });
        join_all(sent).await
    }
}

impl Target {
    async fn work(
        &self,
        mut waiting: mpsc::Receiver<Arc<Notice>>,
        deadline: Duration,
        metrics: &Metrics,
    ) {
        while let Some(notice) = waiting.recv().await {
            let result = self.deliver(&notice, Instant::now() + deadline).await;
            metrics.alert(&self.name, result);
        }
    }

    /// Tries until `deadline`; the value of the label `result`.
    async fn deliver(&self, notice: &Notice, deadline: Instant) -> &'static str {
        let target = &*self.name;
        let mut wait = FIRST_WAIT;
        loop {
            match self.attempt(notice).await {
                Ok(()) => return "delivered",
                Err(Undelivered::Never(why)) => {
                    tracing::error!(target, why, "an alert was refused");
                    return "refused";
                }
                Err(Undelivered::Later(why)) if Instant::now() + wait > deadline => {
                    tracing::error!(target, why, "an alert could not be delivered in time");
                    return "failed";
                }
                Err(Undelivered::Later(why)) => {
                    tracing::warn!(target, why, "an alert could not be delivered yet");
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    async fn attempt(&self, notice: &Notice) -> Result<(), Undelivered> {
        let sent = async {
            match &self.way {
                Way::Email(mailer) => mailer.send(notice).await,
                Way::Webhook(hook) => hook.send(notice).await,
            }
        };
        let late = |_| Undelivered::Later("no answer in time".to_owned());
        tokio::time::timeout(ATTEMPT_TIMEOUT, sent).await.map_err(late)?
    }
}
