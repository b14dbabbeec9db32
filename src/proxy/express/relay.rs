//! The answer on its way down: written as it comes, read no faster than the client reads, and noted.

use std::task::{Context, Poll};

use tokio::time::Instant;

use super::exchange::{Exchange, Stop};
use super::framing::Framing;
use super::{Lane, body};
use crate::domain::Outcome;

/// Where an answer's relay stands; `Err` where it ended in the middle.
type Relayed = Poll<Result<(), Stop>>;

impl Lane<'_> {
    /// Of an answer that is long enough, what is to be recorded is read into the recorder's own memory and
    /// written from there, so that none of it is copied.
    pub fn lend(&self, exchange: &mut Exchange, expected: u64) {
        let there = exchange.from_upstream.rest().len();
        if (there as u64) < expected
            && let Some(memory) = exchange.observation.lend_response(there)
        {
            exchange.from_upstream.borrow(memory, &self.depot.buffers);
        }
    }

    /// Passes the answer on to its end. What breaks off is broken off: no end is made up.
    pub fn poll_relay(&mut self, exchange: &mut Exchange, cx: &mut Context<'_>) -> Relayed {
        loop {
            // A request that still goes up neither holds its answer back nor ends it.
            if self.poll_upload(exchange, cx).is_err() {
                exchange.give_up();
            }
            self.read_on(exchange, cx);
            self.decode(exchange);
            let (inbox, buffers) = (&mut exchange.from_upstream, &self.depot.buffers);
            match self.to_client.poll_send(&mut self.client, inbox, buffers, cx) {
                Poll::Ready(Ok(())) => exchange.client_took_all(),
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Stop)),
                Poll::Pending => return self.poll_reader(exchange, cx),
            }
            if exchange.is_broken {
                return cut(exchange, Outcome::UpstreamAbort);
            }
            let (Some(upstream), false) =
                (&mut exchange.upstream, exchange.framing == Framing::Done)
            else {
                return Poll::Ready(Ok(()));
            };
            match exchange.from_upstream.poll_fill(upstream, &self.depot.buffers, cx) {
                Poll::Ready(Ok(count)) if count > 0 => exchange.moved = Instant::now(),
                Poll::Ready(Ok(_)) if exchange.framing == Framing::ToEnd => self.finish(exchange),
                Poll::Ready(_) => return cut(exchange, Outcome::UpstreamAbort),
                Poll::Pending => return self.poll_writer(exchange, cx),
            }
        }
    }

    /// Where a short read brought all that it might and more of a long answer is there, that goes with it: one
    /// write instead of two. What ends or fails with this does so at the next read.
    fn read_on(&mut self, exchange: &mut Exchange, cx: &mut Context<'_>) {
        let Exchange { from_upstream, upstream: Some(upstream), framing, moved, .. } = exchange
        else {
            return;
        };
        let fresh = !self.to_client.is_passing() && from_upstream.was_short();
        if fresh
            && matches!(framing, Framing::Length(left) if *left > from_upstream.rest().len() as u64)
            && let Poll::Ready(Ok(1..)) = from_upstream.poll_fill(upstream, &self.depot.buffers, cx)
        {
            *moved = Instant::now();
        }
    }

    fn decode(&mut self, exchange: &mut Exchange) {
        if exchange.framing == Framing::Done {
            return;
        }
        let Exchange { framing, from_upstream, observation, came, moved, .. } = exchange;
        let taken =
            body::take(framing, from_upstream, &mut self.to_client, &self.depot.buffers, |data| {
                observation.response_chunk(data, (*moved).into());
                came.down(data);
            });
        exchange.is_broken |= taken.is_err();
        if exchange.framing == Framing::Done {
            self.finish_body(exchange);
        }
    }

    /// The connection's end is the body's.
    fn finish(&mut self, exchange: &mut Exchange) {
        exchange.framing = Framing::Done;
        self.to_client.own(&self.depot.buffers).extend_from_slice(b"0\r\n\r\n");
        self.finish_body(exchange);
    }

    /// The proper end: the upstream's connection can serve again, unless something came behind the answer.
    /// Where the request is still being sent, it serves for that.
    pub fn finish_body(&mut self, exchange: &mut Exchange) {
        exchange.observation.response_complete();
        if exchange.is_sending() {
            return;
        }
        let stray = exchange.from_upstream.rest().len() > self.to_client.passing();
        let reusable = exchange.reusable && exchange.is_sent() && !stray;
        if let Some(upstream) = exchange.upstream.take().filter(|_| reusable) {
            self.depot.put(upstream, exchange.moved.into());
        }
    }

    /// The client has not taken all yet.
    fn poll_reader(&mut self, exchange: &mut Exchange, cx: &mut Context<'_>) -> Relayed {
        exchange.is_slow = true;
        let limit = self.listener.tap.settings.timeouts.idle;
        self.timer.poll_own(exchange.moved + limit, cx).map(|()| {
            self.state.stall();
            Err(Stop)
        })
    }

    /// The upstream has not sent more yet.
    fn poll_writer(&mut self, exchange: &mut Exchange, cx: &mut Context<'_>) -> Relayed {
        if self.is_client_gone(exchange, cx) {
            return Poll::Ready(Err(Stop));
        }
        let limit = self.listener.tap.settings.timeouts.idle;
        std::task::ready!(self.timer.poll_own(exchange.moved + limit, cx));
        cut(exchange, Outcome::Timeout)
    }
}

fn cut(exchange: &mut Exchange, outcome: Outcome) -> Relayed {
    exchange.observation.ended(outcome);
    Poll::Ready(Err(Stop))
}
