//! What lies between a read and a write: buffers that a thread's connections lend each other, so that one
//! that only waits holds none.

use std::future::Future;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::digest::Digest;

/// Bytes of a buffer: what one read may bring.
const BUFFER_BYTES: usize = 32 * 1024;
/// What the read that brings an answer's head may bring: a body for which no memory is lent comes with it, and
/// of a longer one little has to be copied there.
const FIRST_BYTES: usize = 18 * 1024;
/// Bytes of one for a long body: a quarter of the reads and writes.
const WIDE_BYTES: usize = 128 * 1024;
/// Buffers kept for the next one who reads.
const SPARE_MAX: usize = 16;
/// Wide ones, likewise.
const WIDE_SPARE_MAX: usize = 4;
/// A head longer than this is no head.
const HEAD_BYTES_MAX: usize = 1024 * 1024;
/// What passes is copied behind a head where it is no longer than this: one piece of memory is sent
/// quicker than two.
const COPIED_MAX: usize = 8 * 1024;

/// Buffers of one size that nobody uses, most recently used last: that one is still in the processor's
/// cache.
struct Spare {
    bytes: usize,
    max: usize,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Spare {
    fn take(&self) -> Vec<u8> {
        let spare = self.buffers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(self.bytes))
    }

    fn give(&self, mut buffer: Vec<u8>) {
        let mut spare = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        if buffer.capacity() == self.bytes && spare.len() < self.max {
            buffer.clear();
            spare.push(buffer);
        }
    }
}

/// The buffers of a thread's connections.
pub struct Buffers {
    usual: Spare,
    wide: Spare,
}

impl Default for Buffers {
    fn default() -> Self {
        let spare = |bytes, max| Spare { bytes, max, buffers: Mutex::default() };
        Self { usual: spare(BUFFER_BYTES, SPARE_MAX), wide: spare(WIDE_BYTES, WIDE_SPARE_MAX) }
    }
}

impl Buffers {
    fn take(&self) -> Vec<u8> {
        self.usual.take()
    }

    fn give(&self, buffer: Vec<u8>) {
        let is_wide = buffer.capacity() == WIDE_BYTES;
        if is_wide { self.wide.give(buffer) } else { self.usual.give(buffer) }
    }
}

/// Bytes that were read and not used yet.
#[derive(Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    from: usize,
    /// Much is to come.
    is_wide: bool,
    /// A head is to come: little is read at once.
    is_first: bool,
    /// The last read was told to be short, and brought all that it might: more may be there.
    was_short: bool,
    /// `bytes` are another's memory, where all that is read shall stay.
    is_lent: bool,
}

impl Inbox {
    /// One for an answer.
    pub fn for_answer() -> Self {
        Self { is_first: true, ..Self::default() }
    }

    /// One that holds `ahead` already.
    pub fn holding(ahead: &[u8], buffers: &Buffers) -> Self {
        if ahead.is_empty() {
            return Self::default();
        }
        let mut bytes = buffers.take();
        bytes.extend_from_slice(ahead);
        Self { bytes, ..Self::default() }
    }

    /// What was read and not used yet.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.from..]
    }

    /// True where nothing is left.
    pub fn is_empty(&self) -> bool {
        self.from == self.bytes.len()
    }

    /// So many bytes are still to come: whether the next buffer is a wide one.
    pub fn expect(&mut self, bytes: u64) {
        self.is_wide = bytes >= WIDE_BYTES as u64;
        self.is_first = false;
    }

    /// True where more may be there than was read.
    pub fn was_short(&self) -> bool {
        self.was_short
    }

    /// What is read from now on goes into `memory`, behind the rest, and stays there when it is used, until
    /// that is full and [`Self::give_back`] is asked for it. It has room for the rest and more.
    pub fn borrow(&mut self, mut memory: Vec<u8>, buffers: &Buffers) {
        memory.extend_from_slice(self.rest());
        self.consume(self.bytes.len());
        self.release(buffers);
        (self.bytes, self.from, self.is_lent) = (memory, 0, true);
    }

    /// The memory that was lent, where all of it was read and used.
    pub fn give_back_full(&mut self) -> Option<Vec<u8>> {
        let is_full = self.is_empty() && self.bytes.len() == self.bytes.capacity();
        if is_full { self.give_back() } else { None }
    }

    /// The memory that was lent, with what was read; the next read takes a buffer again.
    pub fn give_back(&mut self) -> Option<Vec<u8>> {
        std::mem::take(&mut self.is_lent).then(|| {
            self.from = 0;
            std::mem::take(&mut self.bytes)
        })
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
        if self.is_empty() && self.bytes.capacity() > 0 && !self.is_lent {
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
            self.bytes = if self.is_wide { buffers.wide.take() } else { buffers.take() };
        }
        self.make_room()?;
        let room = self.bytes.capacity() - self.bytes.len();
        let room = if self.is_first { room.min(FIRST_BYTES) } else { room };
        let read = pin!(stream.read_buf(&mut (&mut self.bytes).limit(room))).poll(cx);
        self.was_short = self.is_first && matches!(&read, Poll::Ready(Ok(count)) if *count == room);
        if read.is_pending() {
            self.release(buffers);
        }
        read
    }

    fn make_room(&mut self) -> io::Result<()> {
        if self.is_lent && self.bytes.len() < self.bytes.capacity() {
            return Ok(());
        }
        // What is left is moved to the front only where little room is behind it.
        if self.is_empty() || self.bytes.len() > self.bytes.capacity() / 2 {
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
    /// Of the body's bytes that were written, where one is made.
    digest: Option<Digest>,
    /// Where in `own` bytes of the body stand, while a digest is made.
    of_body: Vec<Range<usize>>,
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

    /// Puts bytes of the body among our own.
    pub fn own_body(&mut self, data: &[u8]) {
        let from = self.own.len();
        self.own.extend_from_slice(data);
        if self.digest.is_some() {
            self.of_body.push(from..self.own.len());
        }
    }

    /// From now on a digest is made of the body's bytes that are written, or none is.
    pub fn digest(&mut self, made: bool) {
        self.digest = made.then(Digest::default);
    }

    /// The digest of what was written of the body, where one was made.
    pub fn take_digest(&mut self) -> Option<Digest> {
        self.digest.take()
    }

    /// So many bytes of our own were written, and then those of `passing`.
    fn note_written(&mut self, of_own: usize, passing: &[u8]) {
        let Some(digest) = &mut self.digest else { return };
        let written = self.own_sent..self.own_sent + of_own;
        for part in &self.of_body {
            let (from, to) = (part.start.max(written.start), part.end.min(written.end));
            digest.add(self.own.get(from..to).unwrap_or_default());
        }
        digest.add(passing);
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

    /// True where nothing waits to be written.
    pub fn is_empty(&self) -> bool {
        self.own.is_empty() && self.passing == 0
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
        (self.unflushed, self.digest) = (true, None);
        true
    }

    /// Forgets what was to be written.
    pub fn clear(&mut self, buffers: &Buffers) {
        (self.own_sent, self.passing, self.unflushed) = (0, 0, false);
        self.of_body.clear();
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
            self.own_body(&inbox.rest()[..self.passing]);
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
            self.note_written(of_own, &inbox.rest()[..sent - of_own]);
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proptest::prelude::*;

    use super::*;

    /// Takes so many bytes with each write, and then none for once.
    struct Slow {
        taken: Vec<u8>,
        steps: Vec<usize>,
        is_tired: bool,
    }

    impl AsyncWrite for Slow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.is_tired = !self.is_tired;
            if self.is_tired {
                return Poll::Pending;
            }
            let step = self.steps.pop().unwrap_or(usize::MAX).clamp(1, bytes.len());
            self.taken.extend_from_slice(&bytes[..step]);
            Poll::Ready(Ok(step))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn send(outbox: &mut Outbox, inbox: &mut Inbox, buffers: &Buffers, to: &mut Slow) {
        let mut cx = Context::from_waker(Waker::noop());
        while outbox.poll_send(to, inbox, buffers, &mut cx).is_pending() {}
    }

    fn digest_of(bytes: &[u8]) -> Digest {
        let mut digest = Digest::default();
        digest.add(bytes);
        digest
    }

    #[test]
    fn what_is_read_into_lent_memory_stays_there_until_it_is_full() {
        let buffers = Buffers::default();
        let mut cx = Context::from_waker(Waker::noop());
        let bytes: Vec<u8> = (0..60_000_u32).map(|n| (n % 251) as u8).collect();
        let mut from = &bytes[..];
        let mut inbox = Inbox::for_answer();
        let mut fill = |inbox: &mut Inbox| match inbox.poll_fill(&mut from, &buffers, &mut cx) {
            Poll::Ready(Ok(count)) => count,
            _ => panic!("there is more"),
        };
        assert_eq!((fill(&mut inbox), inbox.was_short()), (FIRST_BYTES, true));
        inbox.consume(100);
        inbox.expect(50_000);
        inbox.borrow(Vec::with_capacity(50_000), &buffers);
        assert_eq!(inbox.rest(), &bytes[100..FIRST_BYTES]);
        inbox.consume(FIRST_BYTES - 100);
        assert!(inbox.give_back_full().is_none(), "more is to be read into it");
        inbox.release(&buffers);
        assert_eq!((fill(&mut inbox), inbox.was_short()), (50_100 - FIRST_BYTES, false));
        assert!(inbox.give_back_full().is_none(), "some of it was not used yet");
        inbox.consume(inbox.rest().len());
        assert_eq!(inbox.give_back_full().as_deref(), Some(&bytes[100..50_100]));
        assert!(inbox.give_back().is_none() && inbox.is_empty());
        assert_eq!((fill(&mut inbox), inbox.rest()), (9_900, &bytes[50_100..]));
    }

    proptest! {
        /// However a body is cut and taken, what is written is what came, its digest is that of the
        /// body alone, and what was kept is written once more.
        #[test]
        fn what_is_written_is_what_came(
            pieces in proptest::collection::vec(1usize..20_000, 1..5),
            steps in proptest::collection::vec(1usize..9_000, 0..40),
            keep in any::<bool>(),
        ) {
            let (buffers, mut outbox) = (Buffers::default(), Outbox::default());
            let mut to = Slow { taken: Vec::new(), steps, is_tired: false };
            let body: Vec<u8> = (0..pieces.iter().sum::<usize>()).map(|n| (n % 251) as u8).collect();
            let mut inbox = Inbox { bytes: body.clone(), ..Inbox::default() };
            outbox.digest(true);
            if keep {
                outbox.keep();
            }
            outbox.own(&buffers).extend_from_slice(b"head");
            for piece in &pieces {
                outbox.pass(*piece);
                send(&mut outbox, &mut inbox, &buffers, &mut to);
            }
            let sent = [b"head", &body[..]].concat();
            prop_assert_eq!(&to.taken, &sent);
            prop_assert_eq!(outbox.take_digest(), Some(digest_of(&body)));
            if pieces.len() == 1 && keep && outbox.repeat() {
                prop_assert!(sent.len() <= BUFFER_BYTES + b"head".len());
                to.taken.clear();
                send(&mut outbox, &mut inbox, &buffers, &mut to);
                prop_assert_eq!(&to.taken, &sent, "all of it, or nothing");
            } else if pieces.len() == 1 {
                prop_assert!(!keep);
            }
        }
    }
}
