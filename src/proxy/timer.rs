//! One timer a connection and direction, moved when it fires and not with every request.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A timer that costs nothing until something has to wait, and little when the wait is put off.
#[derive(Default)]
pub struct Timer(Option<Pin<Box<Sleep>>>);

impl Timer {
    /// Nothing waits any more.
    pub fn stop(&mut self) {
        self.0 = None;
    }

    /// From the first call on, until it is stopped.
    pub fn poll_after(&mut self, limit: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let running = self.0.as_ref().map(|sleep| sleep.deadline());
        self.poll_at(running.unwrap_or_else(|| Instant::now() + limit), cx)
    }

    /// Ready at `deadline`, for whichever task asks.
    pub fn poll_at(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if deadline < sleep.deadline() {
            sleep.as_mut().reset(deadline);
        }
        std::task::ready!(sleep.as_mut().poll(cx));
        if deadline <= sleep.deadline() {
            return Poll::Ready(());
        }
        sleep.as_mut().reset(deadline);
        sleep.as_mut().poll(cx)
    }

    /// As [`Self::poll_at`], where one task asks all its life: while the timer runs it need not be
    /// polled, since it knows whom to wake.
    pub fn poll_own(&mut self, deadline: Instant, cx: &mut Context<'_>) -> Poll<()> {
        match &self.0 {
            Some(sleep) if sleep.deadline() <= deadline && !sleep.is_elapsed() => Poll::Pending,
            _ => self.poll_at(deadline, cx),
        }
    }
}
