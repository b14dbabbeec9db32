//! A request's body that its client holds back until it is told to go on (`Expect: 100-continue`): nothing of
//! it is asked for before the upstream has said so, since asking tells the client.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Sleep;

use super::io::ConnectionState;

/// An upstream that says nothing by then knows nothing of waiting clients, which do not wait forever either
/// (RFC 9110, section 10.1.1).
const WAITED: Duration = Duration::from_secs(1);

const HELD: u8 = 0;
const WANTED: u8 = 1;
const UNWANTED: u8 = 2;
const GIVEN_UP: u8 = 3;

#[derive(Default)]
struct State {
    is: AtomicU8,
    moved: AtomicWaker,
}

impl State {
    fn set(&self, is: u8) {
        self.is.store(is, Ordering::Relaxed);
        self.moved.wake();
    }
}

/// Who decides on the body. Once this is dropped, nobody will.
pub struct Holder(Arc<State>);

/// What the body waits by.
pub struct Held {
    state: Arc<State>,
    client: Arc<ConnectionState>,
    waited: Pin<Box<Sleep>>,
}

/// Nobody wants the body.
#[derive(Debug)]
pub struct Unwanted;

/// A body of `client` that waits, and who decides on it.
pub fn hold(client: Arc<ConnectionState>) -> (Holder, Held) {
    let state = Arc::<State>::default();
    let waited = Box::pin(tokio::time::sleep(WAITED));
    (Holder(Arc::clone(&state)), Held { state, client, waited })
}

impl Holder {
    /// Tells that the upstream wants the body.
    pub fn teller(&self) -> impl Fn() + Send + Sync + 'static {
        let state = Arc::clone(&self.0);
        move || state.set(WANTED)
    }

    /// The upstream has answered. True where the body was not asked for by then, and so will not be.
    pub fn answered(&self) -> bool {
        let was = self.0.is.compare_exchange(HELD, UNWANTED, Ordering::Relaxed, Ordering::Relaxed);
        was.is_ok()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if self.0.is.load(Ordering::Relaxed) != WANTED {
            self.0.set(GIVEN_UP);
        }
    }
}

impl Held {
    /// Ready once the body may be asked for, or never will be. It may where it comes unasked.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Unwanted>> {
        self.state.moved.register(cx.waker());
        match self.state.is.load(Ordering::Relaxed) {
            HELD => {
                if !self.client.has_body_come(cx) {
                    ready!(self.waited.as_mut().poll(cx));
                }
                self.state.is.store(WANTED, Ordering::Relaxed);
                Poll::Ready(Ok(()))
            }
            WANTED => Poll::Ready(Ok(())),
            UNWANTED => Poll::Pending,
            _ => Poll::Ready(Err(Unwanted)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn polled(held: &mut Held) -> Poll<bool> {
        held.poll(&mut Context::from_waker(Waker::noop())).map(|asked| asked.is_ok())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_waits_until_it_is_wanted_or_nobody_speaks() {
        let (holder, mut held) = hold(Arc::default());
        assert_eq!(polled(&mut held), Poll::Pending);
        holder.teller()();
        assert_eq!(polled(&mut held), Poll::Ready(true));
        assert!(!holder.answered(), "it was asked for");

        let (holder, mut held) = hold(Arc::default());
        tokio::time::sleep(WAITED).await;
        assert_eq!(polled(&mut held), Poll::Ready(true));
        drop(holder);
        assert_eq!(polled(&mut held), Poll::Ready(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_was_answered_before_it_was_asked_for_is_not() {
        let (holder, mut held) = hold(Arc::default());
        assert!(holder.answered());
        tokio::time::sleep(2 * WAITED).await;
        assert_eq!(polled(&mut held), Poll::Pending);
        drop(holder);
        assert_eq!(polled(&mut held), Poll::Ready(false));
    }
}
