//! NATS JetStream: sidecars publish names, evaluators of one durable consumer share them.
//!
//! A name is acknowledged after the scores of its object are stored. Until then the server is told
//! that work goes on; where an evaluator dies, it delivers the name again. A name that is published
//! twice is one message (its id is the name).

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::stream::{RetentionPolicy, StorageType};
use async_nats::jetstream::{self, AckKind, Message};
use async_nats::{ConnectOptions, Event};
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};

use super::{Inbox, News, Receipt};
use crate::config;
use crate::metrics::Metrics;

/// The one consumer that all evaluators share.
const CONSUMER: &str = "evaluators";
/// A name that is not told to be under way for so long is delivered again.
const ACK_WAIT: Duration = Duration::from_secs(30);
/// How often the server is told that work goes on.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
/// A name that could not be dealt with comes again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Names that one evaluator holds at once: few, so that the others get theirs.
const HELD_MAX: usize = 4;
/// Between two attempts where the server fails.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// Names are remembered so long, to know those that are published twice.
const DUPLICATES_WITHIN: Duration = Duration::from_secs(60 * 60);
/// Names that nobody takes are forgotten after this, and at this number.
const AGE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const MESSAGES_MAX: i64 = 1_000_000;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Carries names from `inbox` to the server until every announcer is gone. While the server is away
/// they wait in the inbox, which counts what it cannot hold.
pub async fn publish(settings: config::Queue, mut inbox: Inbox) {
    let mut link = None;
    while let Some(news) = inbox.next().await {
        while let Err(error) = publish_one(&settings, &mut link, &news.object).await {
            tracing::warn!(%error, "an object cannot be announced now");
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }
}

async fn publish_one(
    settings: &config::Queue,
    link: &mut Option<jetstream::Context>,
    object: &str,
) -> Result<(), Failure> {
    if link.is_none() {
        let context = connect(settings).await?;
        context.get_or_create_stream(stream_of(settings)).await?;
        *link = Some(context);
    }
    let Some(context) = link else { return Ok(()) };
    let message = PublishMessage::build().payload(object.to_owned().into()).message_id(object);
    context.send_publish(subject_of(settings), message).await?.await?;
    Ok(())
}

/// An inbox that is filled by the server, and the work of filling it, which goes on until the inbox is
/// gone.
pub fn consume(
    settings: config::Queue,
    metrics: Metrics,
) -> (Inbox, impl Future<Output = ()> + Send + 'static) {
    let (sender, receiver) = mpsc::channel(HELD_MAX);
    let work = async move {
        while !sender.is_closed() {
            if let Err(error) = deliver(&settings, &sender).await {
                metrics.evaluate_failed("queue");
                tracing::warn!(%error, "the queue cannot be read now; the evaluator looks into the bucket");
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    };
    (Inbox { receiver }, work)
}

/// Hands names over as they come, and acknowledges those that are done.
async fn deliver(settings: &config::Queue, sender: &mpsc::Sender<News>) -> Result<(), Failure> {
    let context = connect(settings).await?;
    let stream = context.get_or_create_stream(stream_of(settings)).await?;
    let wanted = pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        ..pull::Config::default()
    };
    let consumer = stream.get_or_create_consumer(CONSUMER, wanted).await?;
    let mut messages = consumer.stream().max_messages_per_batch(1).messages().await?;
    let mut held = FuturesUnordered::new();
    loop {
        tokio::select! {
            () = sender.closed() => return Ok(()),
            Some(()) = held.next() => {}
            message = messages.next(), if held.len() < HELD_MAX => {
                let Some(message) = message else { return Ok(()) };
                let message = message?;
                let (receipt, settled) = oneshot::channel();
                let object = String::from_utf8_lossy(&message.payload).into_owned();
                let news = News { object, receipt: Some(Receipt(receipt)) };
                // There is room for all that may be held.
                if sender.try_send(news).is_ok() {
                    held.push(hold(message, settled));
                }
            }
        }
    }
}

/// Keeps a message until it is settled, and acknowledges it then; else it comes again.
async fn hold(message: Message, mut settled: oneshot::Receiver<()>) {
    let told = loop {
        tokio::select! {
            fate = &mut settled => {
                break match fate {
                    Ok(()) => message.double_ack().await,
                    Err(_) => message.ack_with(AckKind::Nak(Some(AGAIN_AFTER))).await,
                };
            }
            () = tokio::time::sleep(PROGRESS_EVERY) => {
                let _again_soon = message.ack_with(AckKind::Progress).await;
            }
        }
    };
    if let Err(error) = told {
        // It comes again, and is found done.
        tracing::debug!(%error, "a name could not be acknowledged");
    }
}

async fn connect(settings: &config::Queue) -> Result<jetstream::Context, Failure> {
    let mut options = ConnectOptions::new().name("flowtap").event_callback(|event| async move {
        match event {
            Event::Disconnected => tracing::warn!("the queue is away"),
            Event::Connected => tracing::info!("the queue is there"),
            other => tracing::debug!(event = %other, "the queue"),
        }
    });
    if let Some(token) = &settings.token {
        options = options.token(token.expose().to_owned());
    }
    if let Some(file) = &settings.ca_file {
        options = options.add_root_certificates(file.clone());
    }
    let client = options.connect(settings.nats.as_str()).await?;
    Ok(jetstream::new(client))
}

fn subject_of(settings: &config::Queue) -> String {
    format!("{}.objects", settings.stream)
}

fn stream_of(settings: &config::Queue) -> jetstream::stream::Config {
    jetstream::stream::Config {
        name: settings.stream.clone(),
        subjects: vec![subject_of(settings)],
        retention: RetentionPolicy::WorkQueue,
        storage: StorageType::File,
        duplicate_window: DUPLICATES_WITHIN,
        max_age: AGE_MAX,
        max_messages: MESSAGES_MAX,
        ..jetstream::stream::Config::default()
    }
}
