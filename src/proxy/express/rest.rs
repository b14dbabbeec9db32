//! What is left of a request that was answered before all of it was there.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::framing::{Framing, Piece};
use super::{Lane, body};
use crate::proxy::stream::Stream;

/// More of a request than this is not read off; its connection ends.
const READ_OFF_BYTES_MAX: u64 = 256 * 1024;
/// Nor is it waited for longer.
const READ_OFF_WITHIN: Duration = Duration::from_secs(5);

/// What is left of a request.
pub struct Rest {
    body: Framing,
    upstream: Option<Stream>,
    /// When the last byte of it moved.
    moved: Instant,
}

impl Rest {
    /// What is framed as `body` says, for the `upstream` that may still read it.
    pub fn of(body: Framing, upstream: Option<Stream>) -> Self {
        Self { body, upstream, moved: Instant::now() }
    }
}

impl Lane<'_> {
    /// Passes the rest on, since the upstream may want it although it has answered. Where it does not, the
    /// rest is read off, as servers do: the client knows nothing of that, and will use its connection
    /// again. False where it cannot.
    pub async fn finish_request(&mut self, mut rest: Rest) -> bool {
        poll_fn(|cx| self.poll_rest(&mut rest, cx)).await || self.read_off(rest.body).await
    }

    /// Ready with true once all went up, with false where no more of it can.
    fn poll_rest(&mut self, rest: &mut Rest, cx: &mut Context<'_>) -> Poll<bool> {
        let (inbox, outbox) = (&mut self.from_client, &mut self.to_upstream);
        let buffers = &self.depot.buffers;
        while let Some(upstream) = &mut rest.upstream {
            if body::take(&mut rest.body, inbox, outbox, buffers, |_| {}).is_err() {
                break;
            }
            let moved = match outbox.poll_send(upstream, inbox, buffers, cx) {
                Poll::Ready(Ok(())) if rest.body == Framing::Done => return Poll::Ready(true),
                Poll::Ready(Ok(())) => inbox.poll_fill(&mut self.client, buffers, cx),
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                Poll::Pending => Poll::Pending,
            };
            match moved {
                Poll::Ready(Ok(1..)) => rest.moved = Instant::now(),
                Poll::Ready(_) => break,
                Poll::Pending => {
                    let idle = self.listener.tap.settings.timeouts.idle;
                    ready!(self.timer.poll_own(rest.moved + idle, cx));
                    break;
                }
            }
        }
        inbox.consume(outbox.passing());
        outbox.clear(buffers);
        Poll::Ready(false)
    }

    async fn read_off(&mut self, mut body: Framing) -> bool {
        if matches!(body, Framing::Length(left) if left > READ_OFF_BYTES_MAX) {
            return false;
        }
        let (inbox, client, buffers) =
            (&mut self.from_client, &mut self.client, &self.depot.buffers);
        let mut read = 0;
        let all = poll_fn(|cx| {
            while body != Framing::Done && read <= READ_OFF_BYTES_MAX {
                match body.next(inbox.rest()) {
                    Err(_) => return Poll::Ready(false),
                    Ok(Piece::Partial) => {
                        if !matches!(ready!(inbox.poll_fill(client, buffers, cx)), Ok(1..)) {
                            return Poll::Ready(false);
                        }
                    }
                    Ok(piece) => {
                        inbox.consume(piece.bytes());
                        read += piece.bytes() as u64;
                    }
                }
            }
            Poll::Ready(body == Framing::Done)
        });
        tokio::time::timeout(READ_OFF_WITHIN, all).await == Ok(true)
    }
}
