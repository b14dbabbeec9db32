//! What the connections of one tap on one thread share: idle upstream connections, and buffers.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, ReadBuf};

use super::buffer::Buffers;
use super::field::FIELDS_MAX;
use crate::config::{IncludeUsage, Tap, UpstreamHttp2};
use crate::proxy::stream::Stream;

/// An upstream that closes a connection behind its answer, without saying so in it, has mostly done so by
/// then.
const RESTED: Duration = Duration::from_millis(1);

/// See the module. As with hyper's pool, its locks are never contended.
pub struct Depot {
    /// Buffers that nobody uses.
    pub buffers: Buffers,
    idle: Mutex<Vec<(Stream, Instant)>>,
    idle_max: Duration,
}

impl Depot {
    /// For a tap whose upstream speaks HTTP/1.1, with nothing asked of bodies.
    pub fn for_tap(tap: &Tap) -> Option<Self> {
        let http1_upstream = match tap.upstream.http2 {
            UpstreamHttp2::Off => true,
            UpstreamHttp2::Auto => !tap.upstream.secure,
            UpstreamHttp2::Always => false,
        };
        let plain = http1_upstream
            && tap.include_usage != IncludeUsage::Inject
            && tap.limits.headers_max == FIELDS_MAX;
        plain.then(|| Self {
            buffers: Buffers::default(),
            idle: Mutex::default(),
            idle_max: tap.timeouts.pool_idle,
        })
    }

    /// An idle connection on which nothing came since it was put here: the last one that has rested, else
    /// the last one.
    pub fn take(&self, now: Instant) -> Option<Stream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let rested = |(_, since): &(Stream, Instant)| now.duration_since(*since) >= RESTED;
        loop {
            let at = idle.iter().rposition(rested).or(idle.len().checked_sub(1))?;
            let (mut stream, since) = idle.remove(at);
            if now.duration_since(since) < self.idle_max && is_quiet(&mut stream) {
                return Some(stream);
            }
        }
    }

    /// Gives back a connection whose exchange has ended `now`.
    pub fn put(&self, stream: Stream, now: Instant) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push((stream, now));
    }

    /// Drops what is closed or was idle for too long.
    pub fn sweep(&self) {
        let idle_max = self.idle_max;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain_mut(|(stream, since)| since.elapsed() < idle_max && is_quiet(stream));
    }
}

/// True where neither bytes nor an end have come: an upstream that speaks unasked is not asked again.
fn is_quiet(stream: &mut Stream) -> bool {
    let mut byte = [0];
    let mut context = Context::from_waker(Waker::noop());
    Pin::new(stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending()
}
