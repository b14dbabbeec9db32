//! Idle upstream connections of one worker thread and one tap.
//!
//! A plain stack: the last one used is the likeliest to be alive and warm. It beats `pingora-pool`
//! here, which spawns a task a `put` and cannot poll a hyper connection for closing (facts in
//! docs/ARCHITECTURE.md). Each worker has its own, so its lock is never contended.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http2;

use super::body::RequestBody;
use super::connect::{Http1, Sender};

/// Idle connections; see the module.
pub struct Pool {
    idle_max: Duration,
    shelf: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    http1: Vec<(Http1, Instant)>,
    http2: Option<http2::SendRequest<RequestBody>>,
}

impl Pool {
    /// An empty pool that keeps connections for `idle_max`.
    pub fn new(idle_max: Duration) -> Self {
        Self { idle_max, shelf: Mutex::default() }
    }

    /// A connection that can take a request now.
    pub fn take(&self) -> Option<Sender> {
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = shelf.http2.as_ref().filter(|shared| !shared.is_closed()) {
            return Some(Sender::Http2(shared.clone()));
        }
        shelf.http2 = None;
        // One that is not ready yet is still reading the end of its last answer: it stays.
        let fresh = |(http1, since): &(Http1, Instant)| {
            http1.sender.is_ready() && since.elapsed() < self.idle_max
        };
        let ready = shelf.http1.iter().rposition(fresh)?;
        Some(Sender::Http1(shelf.http1.remove(ready).0))
    }

    /// Gives back a connection whose exchange has ended.
    pub fn put(&self, http1: Http1) {
        if !http1.sender.is_closed() {
            let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
            shelf.http1.push((http1, Instant::now()));
        }
    }

    /// Shares an HTTP/2 connection with the requests to come.
    pub fn share(&self, sender: http2::SendRequest<RequestBody>) {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner).http2 = Some(sender);
    }

    /// Drops what is closed or was idle for too long.
    pub fn sweep(&self) {
        let idle_max = self.idle_max;
        let mut shelf = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let is_kept = |(http1, since): &(Http1, Instant)| {
            !http1.sender.is_closed() && since.elapsed() < idle_max
        };
        shelf.http1.retain(is_kept);
        if shelf.http2.as_ref().is_some_and(http2::SendRequest::is_closed) {
            shelf.http2 = None;
        }
    }
}
