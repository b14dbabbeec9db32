//! The express way: plain HTTP/1.1 exchanges from one socket to the other, without a codec's channels,
//! tasks and header maps between them.
//!
//! It costs a third of what hyper's two codecs cost a request (docs/PERFORMANCE.md), and it takes only
//! what needs no rule: [`ask::read`] says which requests are plain. At the first that is not, the whole
//! connection goes on hyper's way (`proxy/serve.rs`), with all bytes read so far, and stays there. Heads
//! are parsed by `httparse`, as hyper's are. What is observed, the limits and the failures are the same.

mod answer;
mod ask;
mod body;
mod buffer;
mod depot;
mod digest;
mod exchange;
mod field;
mod framing;
mod relay;
mod rest;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::WaitForCancellationFuture;

use super::failure::Failure;
use super::forward::told;
use super::io::ConnectionState;
use super::refuse;
use super::serve::Listener;
use super::stream::{self, FAREWELL, Stream};
use super::timer::Timer;
use buffer::{Inbox, Outbox};
pub use depot::Depot;
use exchange::{Exchange, Stop};
pub use framing::{Chunks, Framing};

/// One client's connection on this way. Only its own task ever polls what is here.
struct Lane<'l> {
    listener: &'l Listener,
    depot: &'l Depot,
    client: Stream,
    from_client: Inbox,
    to_client: Outbox,
    to_upstream: Outbox,
    state: Arc<ConnectionState>,
    timer: Timer,
    /// Since when the next head or its rest is waited for.
    waiting: Option<Instant>,
    stopping: Pin<Box<WaitForCancellationFuture<'l>>>,
    /// `stopping` was polled, and knows whom to wake.
    is_registered: bool,
}

/// What a client's connection brought.
enum Next {
    /// A plain request, whose head is on its way.
    Plain(Box<Exchange>),
    /// Something for hyper.
    Other,
    /// Nothing more.
    End,
}

/// What becomes of the client's connection after an exchange.
enum Keep {
    /// It can take another.
    Yes,
    /// It is closed; some of the request may be `unread`.
    No {
        /// The client may still be sending.
        unread: bool,
    },
}

/// Serves the plain requests of a connection. Gives it back, with what was read of it, where one comes
/// that is not.
/// `ahead` is what was read of the connection before.
pub async fn serve(
    listener: &Listener,
    depot: &Depot,
    client: Stream,
    ahead: &[u8],
) -> Option<(Stream, Bytes)> {
    let mut lane = Lane {
        listener,
        depot,
        client,
        from_client: Inbox::holding(ahead, &depot.buffers),
        to_client: Outbox::default(),
        to_upstream: Outbox::default(),
        state: Arc::default(),
        timer: Timer::default(),
        waiting: None,
        stopping: Box::pin(listener.stopping.cancelled()),
        is_registered: false,
    };
    loop {
        match poll_fn(|cx| lane.poll_next(cx)).await {
            Next::Other => return Some((lane.client, lane.from_client.into_rest().into())),
            Next::End => return None,
            Next::Plain(exchange) => match lane.carry(exchange).await {
                Ok(Keep::Yes) => {}
                Ok(Keep::No { unread }) => {
                    stream::close(&mut lane.client, unread).await;
                    return None;
                }
                Err(Stop) => return None,
            },
        }
    }
}

/// Reads `bytes` as a request's head, an answer's and a body's chunks: to be fuzzed. What goes on from a
/// plain request is one too, with the same method, body and target; no body has more data than bytes.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read_heads(bytes: &[u8]) {
    let route = super::route::Route::for_test("");
    let mut table = field::table();
    if let ask::Read::Plain(asked) = ask::read(bytes, &mut table) {
        let mut sent = Vec::new();
        asked.write(&mut sent, &route, &super::forward::RequestId::Given(String::new()), None);
        let mut table = field::table();
        let ask::Read::Plain(again) = ask::read(&sent, &mut table) else {
            unreachable!("what goes on is no plain request")
        };
        assert_eq!((&again.method, again.target), (&asked.method, asked.target));
        assert_eq!((again.body, again.head_bytes), (asked.body, sent.len()));
    }
    for method in [http::Method::GET, http::Method::HEAD] {
        let mut tables = field::tables();
        let Ok(answer::Read::Final(answer)) = answer::read(bytes, &mut tables, &method) else {
            continue;
        };
        let mut sent = Vec::new();
        answer.write(&mut sent, false);
        // Where the chunks' own field is one more than a table holds, it is not read again.
        if answer.fields.len() == field::ANSWER_FIELDS_MAX
            && answer.framing == framing::Framing::ToEnd
        {
            continue;
        }
        let mut tables = field::tables();
        let again = answer::read(&sent, &mut tables, &method);
        let Ok(answer::Read::Final(again)) = again else {
            unreachable!("what goes on is no answer")
        };
        assert_eq!(again.status, answer.status);
        let to_end = answer.framing == framing::Framing::ToEnd;
        assert!(to_end || again.framing == answer.framing, "another framing");
    }
    let (mut body, mut rest, mut data) =
        (framing::Framing::Chunked(framing::Chunks::START), bytes, 0);
    while let Ok(piece) = body.next(rest) {
        match piece {
            framing::Piece::Partial => break,
            framing::Piece::Data(count) => data += count,
            _ => {}
        }
        rest = &rest[piece.bytes()..];
    }
    assert!(data <= bytes.len());
}

impl Lane<'_> {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Next> {
        loop {
            if !self.from_client.is_empty() {
                if let Some(next) = self.begin() {
                    return Poll::Ready(next);
                }
                if self.from_client.is_full() {
                    return Poll::Ready(Next::Other);
                }
            }
            let is_first = self.from_client.is_empty();
            match self.from_client.poll_fill(&mut self.client, &self.depot.buffers, cx) {
                // A head's clock starts with its first byte, and does not start again with the next.
                Poll::Ready(Ok(count)) if count > 0 && is_first => self.waiting = None,
                Poll::Ready(Ok(count)) if count > 0 => {}
                Poll::Ready(_) => return Poll::Ready(Next::End),
                Poll::Pending => return self.poll_silence(cx).map(|()| Next::End),
            }
        }
    }

    /// Ready where a connection without a request shall end, or a head took too long.
    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let timeouts = &self.listener.tap.settings.timeouts;
        let limit = if self.from_client.is_empty() {
            if self.poll_stopping(cx) {
                return Poll::Ready(());
            }
            timeouts.keep_alive
        } else {
            timeouts.header
        };
        let since = *self.waiting.get_or_insert_with(Instant::now);
        self.timer.poll_own(since + limit, cx)
    }

    fn poll_stopping(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_registered {
            return self.listener.stopping.is_cancelled();
        }
        self.is_registered = true;
        self.stopping.as_mut().poll(cx).is_ready()
    }

    /// Answers a request that failed; the connection ends with it, since a body may be left unread.
    async fn fail(&mut self, mut exchange: Box<Exchange>, failure: Failure) -> Result<Keep, Stop> {
        told(&mut exchange.observation, &failure);
        let status = failure.status.as_u16();
        let mut answer = refuse::raw_answer(status, failure.reason, failure.message);
        if exchange.is_head_only() {
            answer.truncate(memchr::memmem::find(&answer, b"\r\n\r\n").map_or(0, |end| end + 4));
        }
        drop(exchange);
        // Behind what the upstream said ahead of an answer, if some of that was not taken yet.
        let buffers = &self.depot.buffers;
        self.to_client.own(buffers).extend_from_slice(&answer);
        let (outbox, client) = (&mut self.to_client, &mut self.client);
        let sent = poll_fn(|cx| outbox.poll_send(client, &mut Inbox::default(), buffers, cx));
        // The client may be gone already; either way the connection ends here.
        drop(tokio::time::timeout(FAREWELL, sent).await);
        Ok(Keep::No { unread: true })
    }
}
