//! What a connection to the upstream leaves behind when it ends: its socket, which tells whether what was
//! sent on it can have been taken.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::stream::Stream;
use super::tail::{Tail, Trailers};

/// How long a connection's refusal is waited for, which comes one way through the network and back
/// after what it refuses.
const REFUSED_WITHIN: Duration = Duration::from_millis(100);

/// True where the other side had closed a connection, which has ended, before all that was sent on it
/// came there. Linux tells by the error that it leaves at the socket: `EPIPE` where a reset followed the
/// end, that is, where something reached a closed socket. A request that came there whole before the end
/// leaves none, and one that was dropped unread leaves `ECONNRESET`.
pub async fn closed_before(tcp: &TcpStream) -> bool {
    let until = Instant::now() + REFUSED_WITHIN;
    let mut pause = Duration::from_millis(1);
    loop {
        match tcp.take_error() {
            Ok(Some(error)) => return error.kind() == ErrorKind::BrokenPipe,
            Ok(None) if Instant::now() < until => tokio::time::sleep(pause).await,
            _ => return false,
        }
        pause *= 2;
    }
}

/// The socket of a connection that hyper holds, for when hyper has let go of it.
pub struct Remains {
    socket: oneshot::Receiver<Stream>,
    /// Bytes that came on the connection so far.
    came: Arc<AtomicU64>,
    /// Bytes that had come when a request went up.
    came_before: u64,
    trailers: Arc<Trailers>,
}

impl Remains {
    /// A request goes up now.
    pub fn mark(&mut self) {
        self.came_before = self.came.load(Ordering::Relaxed);
        self.trailers.clear();
    }

    /// The trailers of the request that is under way.
    pub fn trailers(&self) -> &Arc<Trailers> {
        &self.trailers
    }

    /// True where nothing came since.
    pub fn is_unanswered(&self) -> bool {
        self.came.load(Ordering::Relaxed) == self.came_before
    }

    /// As [`closed_before`], of what is left of the connection.
    pub async fn closed_before(self) -> bool {
        match tokio::time::timeout(REFUSED_WITHIN, self.socket).await {
            Ok(Ok(stream)) => closed_before(stream.tcp()).await,
            _ => false,
        }
    }
}

/// A connection that leaves its socket behind.
pub struct Leaving {
    /// `None` once it was left behind.
    stream: Option<Stream>,
    heir: Option<oneshot::Sender<Stream>>,
    came: Arc<AtomicU64>,
    /// The other side has ended its half: ending ours too would hide how it ended the whole.
    has_ended: bool,
    /// The other side takes nothing more. What it answered before may still be read: to whoever writes,
    /// all goes on, until what can be read has been.
    is_deaf: bool,
    tail: Tail,
}

impl Leaving {
    /// The connection, and where its socket is left.
    pub fn over(stream: Stream) -> (Self, Remains) {
        let (heir, remains) = oneshot::channel();
        let came = Arc::<AtomicU64>::default();
        let trailers = Arc::<Trailers>::default();
        let tail = Tail::of(Arc::clone(&trailers));
        let remains =
            Remains { socket: remains, came: Arc::clone(&came), came_before: 0, trailers };
        let stream = Some(stream);
        (Self { stream, heir: Some(heir), came, has_ended: false, is_deaf: false, tail }, remains)
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Stream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| ErrorKind::NotConnected.into())
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Some(stream) => self.tail.poll_drain(stream, cx),
            None => Poll::Ready(Err(ErrorKind::NotConnected.into())),
        }
    }

    /// What becomes of `parts` where a body's trailers come before their end, or have to go first.
    fn poll_tail(
        &mut self,
        parts: &[io::IoSlice<'_>],
        cx: &mut Context<'_>,
    ) -> Option<Poll<io::Result<usize>>> {
        match self.poll_drain(cx) {
            Poll::Ready(Ok(())) => self.tail.take(parts).map(|count| Poll::Ready(Ok(count))),
            Poll::Ready(Err(error)) => Some(Poll::Ready(Err(error))),
            Poll::Pending => Some(Poll::Pending),
        }
    }

    /// A write's result, of `count` bytes: that they are not taken is no failure of the exchange.
    fn written(
        &mut self,
        polled: Poll<io::Result<usize>>,
        count: usize,
    ) -> Poll<io::Result<usize>> {
        let Poll::Ready(Err(error)) = &polled else { return polled };
        self.is_deaf = matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
        if self.is_deaf { Poll::Ready(Ok(count)) } else { polled }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let (Some(stream), Some(heir)) = (self.stream.take(), self.heir.take()) {
            // Where nobody wants it, it is closed.
            drop(heir.send(stream));
        }
    }
}

impl AsyncRead for Leaving {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        ready!(self.stream()?.poll_read(cx, buf))?;
        let count = buf.filled().len() - before;
        self.came.fetch_add(count as u64, Ordering::Relaxed);
        self.has_ended |= room > 0 && count == 0;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Leaving {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.is_deaf {
            return Poll::Ready(Ok(bytes.len()));
        }
        let polled = match self.poll_tail(&[io::IoSlice::new(bytes)], cx) {
            Some(taken) => taken,
            None => self.stream()?.poll_write(cx, bytes),
        };
        self.written(polled, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = parts.iter().map(|part| part.len()).sum();
        if self.is_deaf {
            return Poll::Ready(Ok(count));
        }
        let polled = match self.poll_tail(parts, cx) {
            Some(taken) => taken,
            None => self.stream()?.poll_write_vectored(cx, parts),
        };
        self.written(polled, count)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_deaf {
            return Poll::Ready(Ok(()));
        }
        let drained = ready!(self.poll_drain(cx)).map(|()| 0);
        ready!(self.written(Poll::Ready(drained), 0))?;
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_ended {
            return Poll::Ready(Ok(()));
        }
        self.stream()?.poll_shutdown(cx)
    }
}
