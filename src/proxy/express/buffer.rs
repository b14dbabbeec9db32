//! What lies between a read and a write: buffers that a thread's connections lend each other, so that one
//! that only waits holds none.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// Bytes of a buffer: what one read may bring.
const BUFFER_BYTES: usize = 32 * 1024;
/// Buffers kept for the next one who reads.
const SPARE_MAX: usize = 16;
/// A head longer than this is no head.
const HEAD_BYTES_MAX: usize = 1024 * 1024;
/// What passes is copied behind a head where it is no longer than this: one piece of memory is sent
/// quicker than two.
const COPIED_MAX: usize = 8 * 1024;

/// Buffers that nobody uses, most recently used last: that one is still in the processor's cache.
#[derive(Default)]
pub struct Buffers(Mutex<Vec<Vec<u8>>>);

impl Buffers {
    fn take(&self) -> Vec<u8> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(BUFFER_BYTES))
    }

    fn give(&self, mut buffer: Vec<u8>) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.capacity() == BUFFER_BYTES && spare.len() < SPARE_MAX {
            buffer.clear();
            spare.push(buffer);
        }
    }
}

/// Bytes that were read and not used yet.
#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    from: usize,
}

impl Inbox {
    /// What was read and not used yet.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.from..]
    }

    /// True where nothing is left.
    pub fn is_empty(&self) -> bool {
        self.from == self.bytes.len()
    }

    /// `count` bytes were used.
    pub fn consume(&mut self, count: usize) {
        self.from = (self.from + count).min(self.bytes.len());
    }

    /// A head that has not come whole by now fills the whole buffer.
    pub fn is_full(&self) -> bool {
        self.rest().len() >= BUFFER_BYTES
    }

    /// Gives the buffer back where nothing is left in it.
    pub fn release(&mut self, buffers: &Buffers) {
        if self.is_empty() && self.bytes.capacity() > 0 {
            self.from = 0;
            buffers.give(std::mem::take(&mut self.bytes));
        }
    }

    /// Reads more behind the rest. While nothing comes and nothing is left, no buffer is held.
    pub fn poll_fill(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        buffers: &Buffers,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.capacity() == 0 {
            self.bytes = buffers.take();
        }
        self.make_room()?;
        let read = pin!(stream.read_buf(&mut self.bytes)).poll(cx);
        if read.is_pending() {
            self.release(buffers);
        }
        read
    }

    fn make_room(&mut self) -> io::Result<()> {
        if self.from > 0 {
            self.bytes.drain(..self.from);
            self.from = 0;
        }
        if self.bytes.len() > HEAD_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.bytes.len() == self.bytes.capacity() {
            self.bytes.reserve(self.bytes.len());
        }
        Ok(())
    }

    /// The bytes as they are, for another way.
    pub fn into_rest(mut self) -> Vec<u8> {
        self.bytes.drain(..self.from);
        self.bytes
    }
}

/// Bytes to be written: some of our own, then some that pass from an [`Inbox`] as they are.
#[derive(Default)]
pub struct Outbox {
    own: Vec<u8>,
    own_sent: usize,
    passing: usize,
    unflushed: bool,
    /// What is written shall be kept, to be written once more.
    is_keeping: bool,
    /// What was kept: no more than was written, so that one that waits for long holds little.
    kept: Vec<u8>,
}

impl Outbox {
    /// Where bytes of our own are put.
    pub fn own(&mut self, buffers: &Buffers) -> &mut Vec<u8> {
        if self.own.capacity() == 0 {
            self.own = buffers.take();
        }
        self.unflushed = true;
        &mut self.own
    }

    /// The next `count` bytes of the inbox follow what is there.
    pub fn pass(&mut self, count: usize) {
        self.unflushed = true;
        self.passing += count;
    }

    /// Bytes of the inbox that wait to be written.
    pub fn passing(&self) -> usize {
        self.passing
    }

    /// True while there are such.
    pub fn is_passing(&self) -> bool {
        self.passing > 0
    }

    /// True where no byte of what is there was written.
    pub fn is_untouched(&self) -> bool {
        self.own_sent == 0
    }

    /// Keeps what is written next, if it goes out in one piece that a buffer holds.
    pub fn keep(&mut self) {
        self.is_keeping = true;
    }

    /// What was kept is needed no more.
    pub fn let_go(&mut self) {
        (self.is_keeping, self.kept) = (false, Vec::new());
    }

    /// Puts what was kept where it waits to be written; false where nothing was.
    pub fn repeat(&mut self) -> bool {
        self.is_keeping = false;
        if self.kept.is_empty() {
            return false;
        }
        (self.own, self.own_sent) = (std::mem::take(&mut self.kept), 0);
        self.unflushed = true;
        true
    }

    /// Forgets what was to be written.
    pub fn clear(&mut self, buffers: &Buffers) {
        (self.own_sent, self.passing, self.unflushed) = (0, 0, false);
        if self.own.capacity() > 0 {
            buffers.give(std::mem::take(&mut self.own));
        }
    }

    /// Writes all, and says so once it is flushed.
    pub fn poll_send(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        inbox: &mut Inbox,
        buffers: &Buffers,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let room = BUFFER_BYTES.saturating_sub(self.own.len());
        let copied_max = if self.is_keeping { room } else { COPIED_MAX };
        if !self.own.is_empty() && (1..=copied_max).contains(&self.passing) {
            self.own.extend_from_slice(&inbox.rest()[..self.passing]);
            inbox.consume(std::mem::take(&mut self.passing));
        }
        self.is_keeping &= self.passing == 0;
        while self.own_sent < self.own.len() || self.passing > 0 {
            let own = &self.own[self.own_sent..];
            let sent = ready!(poll_write(stream, own, &inbox.rest()[..self.passing], cx))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_own = sent.min(own.len());
            self.own_sent += of_own;
            self.passing -= sent - of_own;
            inbox.consume(sent - of_own);
        }
        if self.unflushed {
            ready!(Pin::new(stream).poll_flush(cx))?;
            if std::mem::take(&mut self.is_keeping) {
                self.kept = self.own.as_slice().into();
            }
            self.clear(buffers);
        }
        Poll::Ready(Ok(()))
    }
}

fn poll_write(
    stream: &mut (impl AsyncWrite + Unpin),
    own: &[u8],
    passing: &[u8],
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let stream = Pin::new(stream);
    match (own.is_empty(), passing.is_empty()) {
        (_, true) => stream.poll_write(cx, own),
        (true, false) => stream.poll_write(cx, passing),
        (false, false) => {
            stream.poll_write_vectored(cx, &[IoSlice::new(own), IoSlice::new(passing)])
        }
    }
}
