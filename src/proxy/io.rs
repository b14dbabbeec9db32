//! The client's connection with the time limits that hyper leaves to us.
//!
//! hyper has one knob for two limits (a head's deadline and an idle keep-alive connection), none for
//! a client that stops reading, and answers a malformed head with an empty 400. This wrapper knows
//! in which phase the connection is, keeps a limit for each, and holds hyper's empty answer back, so
//! that [`super::serve`] can send one that names the fault. And since half-closed clients are served
//! to the end, hyper does not read while it waits for an answer: this looks for a reset meanwhile.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::scan::{Broken, Scan};
use super::stream::Stream;
use super::tail::{Tail, Trailers};
use super::timer::Timer;

/// What a connection is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Waiting for the first byte of a request.
    Idle,
    /// Reading a request's head.
    Head,
    /// An exchange is under way; its own limits hold.
    Serving,
}

/// What the connection's wrapper and its service tell each other.
#[derive(Debug, Default)]
pub struct ConnectionState {
    phase: AtomicU8,
    /// An answer of the service may still be in hyper's buffer.
    unflushed: AtomicBool,
    /// The status of an answer that hyper gave by itself, held back; 0 for none.
    refused_status: AtomicU16,
    /// The client did not read for too long.
    stalled: AtomicBool,
    /// The connection ends while the client may still be sending.
    unread: AtomicBool,
    /// Behind the request's head something came already.
    body_came: AtomicBool,
    /// Whom to wake when it does.
    body_moved: AtomicWaker,
    /// What goes to the client ahead of the answer.
    ahead: Mutex<BytesMut>,
    /// Whom to wake when that is there, and when it has gone.
    ahead_moved: AtomicWaker,
    /// What came, as strictly as on the express way.
    scan: Mutex<Scan>,
    /// The chunks of a request broke their grammar, whatever hyper says.
    broken: AtomicBool,
    /// The trailers of an answer.
    trailers: Arc<Trailers>,
}

/// Of what an upstream says ahead of its answer, so much waits for the client.
pub const AHEAD_BYTES_MAX: usize = 64 * 1024;

impl ConnectionState {
    /// The service began or ended an exchange.
    pub fn set_phase(&self, phase: Phase) {
        if phase == Phase::Serving {
            self.unflushed.store(true, Ordering::Relaxed);
        }
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// The status of an answer that hyper gave by itself and that was held back.
    pub fn refused_status(&self) -> Option<u16> {
        Some(self.refused_status.load(Ordering::Relaxed)).filter(|status| *status != 0)
    }

    /// Of what the client sends, some may be left unread when the connection ends.
    pub fn leave_unread(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    /// True where that is so.
    pub fn is_left_unread(&self) -> bool {
        self.unread.load(Ordering::Relaxed)
    }

    /// True where behind the request's head something came already; else the task of `cx` is woken by it.
    pub fn has_body_come(&self, cx: &mut Context<'_>) -> bool {
        self.body_moved.register(cx.waker());
        self.body_came.load(Ordering::Relaxed)
    }

    fn note_body(&self, came: bool) {
        self.body_came.store(came, Ordering::Relaxed);
        if came {
            self.body_moved.wake();
        }
    }

    /// The client does not read.
    pub fn stall(&self) {
        self.stalled.store(true, Ordering::Relaxed);
    }

    /// True once the client had not read for longer than the limit.
    pub fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Relaxed)
    }

    /// An informational answer goes to the client ahead of the one that follows; false where too much
    /// waits for a client that does not read.
    pub fn say_ahead(&self, head: &[u8]) -> bool {
        let mut ahead = self.ahead();
        let fits = ahead.len() + head.len() <= AHEAD_BYTES_MAX;
        if fits {
            ahead.extend_from_slice(head);
            self.ahead_moved.wake();
        }
        fits
    }

    /// Ends once all that was to be said ahead was written: the answer must not overtake it.
    pub async fn said_ahead(&self) {
        poll_fn(|cx| {
            self.ahead_moved.register(cx.waker());
            if self.ahead().is_empty() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// The request whose head has come has a body in chunks, or of so many bytes.
    pub fn begin_body(&self, is_chunked: bool, length: u64) {
        self.scanned(|scan| scan.body(is_chunked, length));
    }

    /// What comes from now on may be another protocol's.
    pub fn leave_http(&self) {
        self.scanned(|scan| {
            scan.stop();
            Ok(())
        });
    }

    /// True once the chunks of a request broke their grammar.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// The trailers of the answer that is under way.
    pub fn trailers(&self) -> &Trailers {
        &self.trailers
    }

    fn scanned(&self, look: impl FnOnce(&mut Scan) -> Result<(), Broken>) {
        let mut scan = self.scan.lock().unwrap_or_else(PoisonError::into_inner);
        if look(&mut scan).is_err() {
            self.broken.store(true, Ordering::Relaxed);
        }
    }

    fn ahead(&self) -> MutexGuard<'_, BytesMut> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            _ => Phase::Serving,
        }
    }
}

/// The limits of a client connection.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    /// For a head, from its first byte.
    pub header: Duration,
    /// Without any request.
    pub keep_alive: Duration,
    /// For a client that does not read.
    pub write: Duration,
}

/// A client's stream under [`ClientLimits`].
pub struct TimedStream {
    stream: Stream,
    /// What was read of the stream before it came here.
    ahead: Bytes,
    state: Arc<ConnectionState>,
    limits: ClientLimits,
    read_timer: Timer,
    write_timer: Timer,
    /// The phase that was waited in last, and since when.
    timed_phase: (Phase, Instant),
    tail: Tail,
}

impl TimedStream {
    /// Wraps `stream`, of which `ahead` was read already.
    pub fn new(
        stream: Stream,
        ahead: Bytes,
        state: Arc<ConnectionState>,
        limits: ClientLimits,
    ) -> Self {
        let (read_timer, write_timer) = (Timer::default(), Timer::default());
        let timed_phase = (Phase::Idle, Instant::now());
        let tail = Tail::of(Arc::clone(&state.trailers));
        Self { stream, ahead, state, limits, read_timer, write_timer, timed_phase, tail }
    }

    /// The stream, for what is sent past hyper.
    pub fn stream_mut(&mut self) -> &mut Stream {
        &mut self.stream
    }

    fn read_limit(&self, phase: Phase) -> Option<Duration> {
        match phase {
            Phase::Idle => Some(self.limits.keep_alive),
            Phase::Head => Some(self.limits.header),
            Phase::Serving => None,
        }
    }

    fn poll_read_limit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let phase = self.state.phase();
        if phase != self.timed_phase.0 {
            self.timed_phase = (phase, Instant::now());
        }
        match self.read_limit(phase) {
            Some(limit) => self.read_timer.poll_at(self.timed_phase.1 + limit, cx),
            None => Poll::Pending,
        }
    }

    /// Bytes came: the head's clock starts with its first byte and does not start again with the next.
    fn note_read(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.state.phase() == Phase::Idle {
            self.state.set_phase(Phase::Head);
            self.timed_phase = (Phase::Head, Instant::now());
        }
        if self.state.phase() == Phase::Head {
            let end = memchr::memmem::find(bytes, b"\r\n\r\n");
            self.state.note_body(end.is_none_or(|end| end + 4 < bytes.len()));
        }
        self.state.scanned(|scan| scan.push(bytes));
        if self.state.is_broken() { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) }
    }

    /// An error where the client reset the connection while its answer is under way. Its end alone says
    /// nothing: it may have closed its half only.
    fn poll_reset(&self, cx: &mut Context<'_>) -> Option<io::Error> {
        if self.state.phase() != Phase::Serving {
            return None;
        }
        let tcp = self.stream.tcp();
        match tcp.poll_read_ready(cx) {
            Poll::Ready(Ok(())) => {
                self.state.note_body(true);
                tcp.take_error().ok().flatten()
            }
            Poll::Ready(Err(error)) => Some(error),
            Poll::Pending => None,
        }
    }

    /// Writes what goes ahead of the answer. hyper flushes only when it has written all of its own, so
    /// that nothing of an earlier answer can follow.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.state.phase() != Phase::Serving {
            return Poll::Ready(Ok(()));
        }
        self.state.ahead_moved.register(cx.waker());
        let mut ahead = self.state.ahead();
        let said = !ahead.is_empty();
        while !ahead.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &ahead))?;
            ahead.advance(written);
        }
        if said {
            self.state.ahead_moved.wake();
        }
        Poll::Ready(Ok(()))
    }

    /// What becomes of `parts` where a body's trailers come before their end, or have to go first.
    fn poll_tail(
        &mut self,
        parts: &[io::IoSlice<'_>],
        cx: &mut Context<'_>,
    ) -> Option<Poll<io::Result<usize>>> {
        match self.tail.poll_drain(&mut self.stream, cx) {
            Poll::Ready(Ok(())) => self.tail.take(parts).map(|count| Poll::Ready(Ok(count))),
            Poll::Ready(Err(error)) => Some(Poll::Ready(Err(error))),
            Poll::Pending => Some(Poll::Pending),
        }
    }

    /// Passes a write's result on; a wait longer than the limit becomes an error.
    fn guard_write<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.write_timer.stop();
            return polled;
        }
        self.write_timer.poll_after(self.limits.write, cx).map(|()| {
            self.state.stall();
            Err(io::ErrorKind::TimedOut.into())
        })
    }

    /// While no exchange is under way, and with no earlier answer left to send, hyper writes only to refuse
    /// a head by itself. It may have read that head with the request before it.
    fn hold_back(&self, bytes: &[u8]) -> bool {
        let unflushed = self.state.unflushed.load(Ordering::Relaxed);
        let refusal = self.state.phase() != Phase::Serving && !unflushed;
        if refusal {
            let status = bytes.get(9..12).and_then(|code| std::str::from_utf8(code).ok());
            let status = status.and_then(|code| code.parse().ok()).unwrap_or(400);
            self.state.refused_status.store(status, Ordering::Relaxed);
        }
        refusal
    }
}

impl AsyncRead for TimedStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            let ahead = this.ahead.split_to(buf.remaining().min(this.ahead.len()));
            buf.put_slice(&ahead);
            return Poll::Ready(this.note_read(&ahead));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Pending => match this.poll_read_limit(cx) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            },
            ready => {
                if buf.filled().len() > before {
                    this.note_read(&buf.filled()[before..])?;
                }
                ready
            }
        }
    }
}

impl AsyncWrite for TimedStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.hold_back(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = match this.poll_tail(&[io::IoSlice::new(bytes)], cx) {
            Some(taken) => taken,
            None => Pin::new(&mut this.stream).poll_write(cx, bytes),
        };
        this.guard_write(written, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.hold_back(parts.first().map_or(&[], |part| part)) {
            return Poll::Ready(Ok(parts.iter().map(|part| part.len()).sum()));
        }
        let written = match this.poll_tail(parts, cx) {
            Some(taken) => taken,
            None => Pin::new(&mut this.stream).poll_write_vectored(cx, parts),
        };
        this.guard_write(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(reset) = this.poll_reset(cx) {
            return Poll::Ready(Err(reset));
        }
        let drained = this.tail.poll_drain(&mut this.stream, cx);
        if !matches!(drained, Poll::Ready(Ok(()))) {
            return this.guard_write(drained, cx);
        }
        let said = this.poll_ahead(cx);
        if !matches!(said, Poll::Ready(Ok(()))) {
            return this.guard_write(said, cx);
        }
        let flushed = Pin::new(&mut this.stream).poll_flush(cx);
        if flushed.is_ready() && this.state.phase() != Phase::Serving {
            this.state.unflushed.store(false, Ordering::Relaxed);
        }
        this.guard_write(flushed, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state.refused_status().is_some() {
            return Poll::Ready(Ok(()));
        }
        let shut = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.guard_write(shut, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_for_a_client_that_does_not_read_is_bounded() {
        let state = ConnectionState::default();
        assert!(state.say_ahead(&[b'x'; AHEAD_BYTES_MAX]));
        assert!(!state.say_ahead(b"x"), "no room is left");
        assert_eq!(state.ahead().len(), AHEAD_BYTES_MAX);
    }
}
