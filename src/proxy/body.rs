//! The two bodies on their way through: forwarded frame by frame, noted in passing, never re-framed.

use std::future::Future;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::connect::Http1;
use super::guard;
use super::held::{self, Held, Holder, Unwanted};
use super::include_usage::Stripper;
use super::io::ConnectionState;
use super::observe::{Observation, RequestFault, RequestSide};
use super::pool::Pool;
use super::tail::Trailers;
use super::tap::TapShared;
use crate::domain::Outcome;

/// Why a body broke off. Passed on as it is: a cut stream must look cut.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The other side's bytes broke off or broke the framing.
    #[error("{0}")]
    Broken(#[from] hyper::Error),
    /// Nothing came for longer than the tap's idle timeout.
    #[error("nothing came within the idle timeout")]
    Idle,
    /// The client's chunks break their grammar, whatever hyper makes of them.
    #[error("the chunks break their grammar")]
    Chunks,
    /// The client holds its body back, and was not told to send it.
    #[error("the body was not asked for")]
    Unwanted,
}

/// The client's body on its way up.
pub enum RequestBody {
    /// There is none.
    Empty,
    /// It was read whole first.
    Whole(Full<Bytes>),
    /// It streams.
    Streamed(Box<StreamedRequest>),
}

/// A client's body that streams.
pub struct StreamedRequest {
    inner: Incoming,
    side: Arc<RequestSide>,
    tap: Arc<TapShared>,
    idle: IdleTimer,
    /// What passed, where it may have to be sent once more.
    kept: Option<Arc<Mutex<Kept>>>,
    /// The client holds it back.
    held: Option<Held>,
    /// The client's connection.
    client: Arc<ConnectionState>,
    /// Where its trailers go, where hyper would not write them.
    trailers: Option<Arc<Trailers>>,
}

/// So much of a body is kept to be sent once more: as much as on the express way.
const KEPT_BYTES_MAX: usize = 32 * 1024;

/// What passed of a body. It is copied: clones of many small pieces would keep as many read buffers alive.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    /// All of it passed, and is here.
    is_whole: bool,
    /// Some of it passed, and is not here.
    is_partial: bool,
}

impl Kept {
    fn push(&mut self, frame: &Frame<Bytes>) {
        match frame.data_ref() {
            Some(piece) if !self.is_partial && self.bytes.len() + piece.len() <= KEPT_BYTES_MAX => {
                self.bytes.extend_from_slice(piece);
            }
            _ => (self.is_partial, self.bytes) = (true, Vec::new()),
        }
    }
}

/// How a body can be sent once more.
pub enum Again {
    /// As it is.
    Here(RequestBody),
    /// If all of it has passed by then.
    Passing(Passing),
}

/// A body that may have passed whole.
pub struct Passing(Arc<Mutex<Kept>>);

impl Again {
    /// The body, if it is here.
    pub fn body(self) -> Option<RequestBody> {
        let kept = match self {
            Self::Here(body) => return Some(body),
            Self::Passing(Passing(kept)) => kept,
        };
        let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let whole = || RequestBody::Whole(Full::new(Bytes::copy_from_slice(&kept.bytes)));
        (kept.is_whole && !kept.is_partial).then(whole)
    }
}

impl RequestBody {
    /// The body `inner`, noted by `observation`.
    pub fn streamed(inner: Incoming, observation: &Observation) -> Self {
        let (side, tap) = (Arc::clone(observation.request()), Arc::clone(observation.tap()));
        if inner.is_end_stream() {
            side.complete();
            return Self::Empty;
        }
        let idle = IdleTimer::new(tap.settings.timeouts.idle);
        let client = Arc::clone(observation.connection());
        let (kept, held, trailers) = (None, None, None);
        let body = StreamedRequest { inner, side, tap, idle, kept, held, client, trailers };
        Self::Streamed(Box::new(body))
    }

    /// Asks for nothing of the body until the one who is given back says so; `None` where there is nothing to
    /// be asked for.
    pub fn hold(&mut self, client: &Arc<ConnectionState>) -> Option<Holder> {
        let Self::Streamed(body) = self else { return None };
        let (holder, held) = held::hold(Arc::clone(client));
        body.held = Some(held);
        Some(holder)
    }

    /// The body goes up in chunks, or will once `trailers` are known: they are put there past hyper.
    pub fn end_with(&mut self, trailers: &Arc<Trailers>) {
        if let Self::Streamed(body) = self
            && body.inner.size_hint().exact().is_none()
        {
            body.trailers = Some(Arc::clone(trailers));
        }
    }

    /// Keeps what is sent of the body from now on, to be sent once more.
    pub fn again(&mut self) -> Again {
        match self {
            Self::Empty => Again::Here(Self::Empty),
            Self::Whole(body) => Again::Here(Self::Whole(body.clone())),
            Self::Streamed(body) => {
                let kept = Arc::clone(body.kept.insert(Arc::default()));
                Again::Passing(Passing(kept))
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Streamed(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(body) => body.is_end_stream(),
            Self::Streamed(body) => body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Whole(body) => body.size_hint(),
            Self::Streamed(body) => body.inner.size_hint(),
        }
    }
}

impl StreamedRequest {
    fn keep(&self, frame: &Option<Result<Frame<Bytes>, hyper::Error>>) {
        let Some(kept) = &self.kept else { return };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Ok(frame)) = frame {
            kept.push(frame);
        }
        kept.is_whole = !matches!(frame, Some(Err(_))) && self.inner.is_end_stream();
    }

    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(held) = &mut self.held {
            match std::task::ready!(held.poll(cx)) {
                Ok(()) => self.held = None,
                Err(Unwanted) => return Poll::Ready(Some(Err(BodyError::Unwanted))),
            }
        }
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => {
                return self.idle.poll(cx).map(|()| {
                    self.side.fail(RequestFault::Idle);
                    Some(Err(BodyError::Idle))
                });
            }
            Poll::Ready(frame) => frame,
        };
        self.idle.touch();
        self.keep(&frame);
        if self.client.is_broken() {
            self.side.fail(RequestFault::Broken);
            return Poll::Ready(Some(Err(BodyError::Chunks)));
        }
        match &frame {
            Some(Ok(frame)) => {
                if let Some(chunk) = frame.data_ref() {
                    self.side.chunk(&self.tap, chunk, Instant::now().into());
                }
                if self.inner.is_end_stream() {
                    self.side.complete();
                }
            }
            Some(Err(error)) => self.side.fail(RequestFault::of(error)),
            None => self.side.complete(),
        }
        let frame = frame.map(|frame| frame.map_err(BodyError::from));
        Poll::Ready(settled(frame, self.trailers.as_deref()))
    }
}

/// What hyper is given: of trailers nothing, where they go `past` it.
fn settled(
    frame: Option<Result<Frame<Bytes>, BodyError>>,
    past: Option<&Trailers>,
) -> Option<Result<Frame<Bytes>, BodyError>> {
    let Some(Ok(mut frame)) = frame else { return frame };
    if let Some(fields) = frame.trailers_mut() {
        guard::strip_trailers(fields);
        if let Some(past) = past {
            past.add(fields);
            return None;
        }
    }
    Some(Ok(frame))
}

impl RequestFault {
    /// What the error of a client's body means: a body that breaks off is a client that left.
    pub fn of(error: &hyper::Error) -> Self {
        let source = std::error::Error::source(error);
        let io = source.and_then(|source| source.downcast_ref::<std::io::Error>());
        let h2 = source.and_then(|source| source.downcast_ref::<h2::Error>());
        let invalid = |error: &std::io::Error| {
            matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::InvalidInput)
        };
        let left = io.is_some_and(|error| !invalid(error))
            || h2.is_some_and(|error| error.is_remote() || error.is_io());
        if left { Self::Left } else { Self::Broken }
    }
}

/// The answer's body on its way down.
pub enum ResponseBody {
    /// Our own answer.
    Local(Full<Bytes>),
    /// The upstream's.
    Streamed(Box<StreamedResponse>),
}

/// An upstream's body that streams.
pub struct StreamedResponse {
    inner: Incoming,
    observation: Observation,
    idle: IdleTimer,
    /// The connection, to be pooled again at the body's end.
    connection: Option<(Http1, Arc<Pool>)>,
    /// Takes out the event that was asked for on the client's behalf.
    stripper: Option<Stripper>,
    /// It goes down in chunks.
    is_chunked: bool,
    /// What it broke off by, to be told in the next turn.
    failed: Option<BodyError>,
}

impl ResponseBody {
    /// The body `inner`, noted by `observation`; at its end the connection goes back to its pool. It goes down
    /// in chunks, or not.
    pub fn streamed(
        inner: Incoming,
        observation: Observation,
        connection: Option<(Http1, Arc<Pool>)>,
        stripper: Option<Stripper>,
        is_chunked: bool,
    ) -> Self {
        let idle = IdleTimer::new(observation.tap().settings.timeouts.idle);
        let is_chunked = is_chunked && inner.size_hint().exact().is_none();
        let failed = None;
        let mut body =
            StreamedResponse { inner, observation, idle, connection, stripper, is_chunked, failed };
        if body.inner.is_end_stream() {
            body.end();
        }
        Self::Streamed(Box::new(body))
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Local(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Streamed(body) if body.stripper.is_some() => body.poll_stripped(cx),
            Self::Streamed(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Local(body) => body.is_end_stream(),
            Self::Streamed(body) => body.stripper.is_none() && body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Local(body) => body.size_hint(),
            Self::Streamed(body) if body.stripper.is_some() => SizeHint::default(),
            Self::Streamed(body) => body.inner.size_hint(),
        }
    }
}

impl StreamedResponse {
    fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => {
                return self.idle.poll(cx).map(|()| {
                    self.observation.ended(Outcome::Timeout);
                    Some(Err(BodyError::Idle))
                });
            }
            Poll::Ready(frame) => frame,
        };
        self.idle.touch();
        match &frame {
            Some(Ok(frame)) => {
                if let Some(chunk) = frame.data_ref() {
                    self.observation.response_chunk(chunk, Instant::now().into());
                }
                if self.inner.is_end_stream() {
                    self.end();
                }
            }
            Some(Err(_)) => self.observation.ended(Outcome::UpstreamAbort),
            None => self.end(),
        }
        let frame = frame.map(|frame| frame.map_err(BodyError::from));
        match settled(frame, self.is_chunked.then(|| self.observation.connection().trailers())) {
            // hyper would drop what it has not written yet, the head with it: it is given a turn for that.
            Some(Err(error)) => {
                self.failed = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => Poll::Ready(frame),
        }
    }

    fn poll_stripped(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            let frame = std::task::ready!(self.poll_frame(cx));
            let Some(stripper) = &mut self.stripper else { return Poll::Ready(frame) };
            let passed = match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(chunk))) => stripper.push(chunk),
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let rest = stripper.finish();
                    self.stripper = None;
                    let rest = (!rest.is_empty()).then(|| Ok(Frame::data(rest)));
                    return Poll::Ready(rest);
                }
            };
            if !passed.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(passed))));
            }
        }
    }

    /// The proper end: the connection can serve again, unless the request is still being sent.
    fn end(&mut self) {
        self.observation.response_complete();
        let is_sent = self.observation.request().is_complete();
        if !is_sent {
            self.observation.connection().leave_unread();
        }
        if let Some((mut http1, pool)) = self.connection.take().filter(|_| is_sent) {
            http1.holder = None;
            pool.put(http1);
        }
    }
}

/// Fires when nothing was touched for `limit`; costs nothing while data flows.
struct IdleTimer {
    limit: Duration,
    touched: Option<Instant>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl IdleTimer {
    fn new(limit: Duration) -> Self {
        Self { limit, touched: None, sleep: None }
    }

    fn touch(&mut self) {
        if self.sleep.is_some() {
            self.touched = Some(Instant::now());
        }
    }

    /// Waits on; the timer is moved only when it fires, not with every piece.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        loop {
            std::task::ready!(sleep.as_mut().poll(cx));
            match self.touched.take().map(|touched| touched + limit) {
                Some(later) if later > Instant::now() => sleep.as_mut().reset(later),
                _ => return Poll::Ready(()),
            }
        }
    }
}
