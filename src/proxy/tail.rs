//! Trailers on hyper's way: hyper writes those alone that were announced in a head, to clients alone that said
//! that they take some. So it is given none: they are put before the end of the chunks that it writes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use http::HeaderMap;
use tokio::io::AsyncWrite;

/// The last chunk, as hyper ends a body that has chunks.
const LAST: &[u8] = b"0\r\n\r\n";

/// The trailers of a body on its way to a connection.
#[derive(Debug, Default)]
pub struct Trailers(Mutex<Option<Vec<u8>>>);

impl Trailers {
    /// The chunked body that ends now ends with `fields`.
    pub fn add(&self, fields: &HeaderMap) {
        let mut lines = Vec::new();
        for (name, value) in fields {
            lines.extend_from_slice(name.as_str().as_bytes());
            lines.extend_from_slice(if value.is_empty() { b":" } else { b": " });
            lines.extend_from_slice(value.as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
        *self.lock() = (!lines.is_empty()).then_some(lines);
    }

    /// Another body begins: what was not written of the last one's is lost.
    pub fn clear(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The end of what hyper writes to a connection.
#[derive(Debug, Default)]
pub struct Tail {
    trailers: Arc<Trailers>,
    /// What was taken over and not written yet.
    own: BytesMut,
}

impl Tail {
    /// With the trailers of the connection's bodies.
    pub fn of(trailers: Arc<Trailers>) -> Self {
        Self { trailers, own: BytesMut::new() }
    }

    /// Takes over what is to be written, where that ends a body that has trailers: so many bytes. What hyper
    /// has to write is all that follows, since it was told of the end in the same turn.
    pub fn take(&mut self, parts: &[IoSlice<'_>]) -> Option<usize> {
        let mut waiting = self.trailers.lock();
        waiting.as_ref()?;
        let all: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
        let before = all.strip_suffix(LAST)?;
        self.own.extend_from_slice(before);
        self.own.extend_from_slice(b"0\r\n");
        self.own.extend_from_slice(&waiting.take()?);
        self.own.extend_from_slice(b"\r\n");
        Some(all.len())
    }

    /// Writes what was taken over: before anything else.
    pub fn poll_drain(
        &mut self,
        stream: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.own.is_empty() {
            let written = ready!(Pin::new(&mut *stream).poll_write(cx, &self.own))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.own.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_stand_before_the_end_of_the_chunks_and_nowhere_else() {
        let trailers = Arc::new(Trailers::default());
        let mut tail = Tail::of(Arc::clone(&trailers));
        let take = |tail: &mut Tail, parts: &[&str]| {
            let parts: Vec<_> = parts.iter().map(|part| IoSlice::new(part.as_bytes())).collect();
            tail.take(&parts)
        };
        assert_eq!(take(&mut tail, &["1\r\na\r\n", "0\r\n\r\n"]), None, "there are none");
        let mut fields = HeaderMap::new();
        fields.insert("x-sum", "7".parse().expect("a value"));
        fields.insert("x-none", "".parse().expect("a value"));
        trailers.add(&fields);
        assert_eq!(take(&mut tail, &["1\r\na\r\n"]), None, "the end is still to come");
        assert_eq!(take(&mut tail, &["1\r\na\r\n0", "\r\n\r\n"]), Some(11));
        assert_eq!(&tail.own[..], b"1\r\na\r\n0\r\nx-sum: 7\r\nx-none:\r\n\r\n");
        assert_eq!(take(&mut tail, &["0\r\n\r\n"]), None, "once");
        trailers.add(&fields);
        trailers.clear();
        assert_eq!(take(&mut tail, &["0\r\n\r\n"]), None, "another body's");
    }
}
