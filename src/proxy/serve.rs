//! Client connections: accepted, served to their end, and let go at shutdown.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connect::HYPER_HEADERS_MAX;
use super::express::{self, Depot};
use super::files::Places;
use super::forward::{self, Passage};
use super::io::{ClientLimits, ConnectionState, Phase, TimedStream};
use super::pool::Pool;
use super::refuse;
use super::stream::{self, Stream};
use super::tap::TapShared;

/// One tap on one worker thread.
#[derive(Clone)]
pub struct Listener {
    /// What all connections of the tap share.
    pub tap: Arc<TapShared>,
    /// The worker's idle upstream connections.
    pub pool: Arc<Pool>,
    /// The way of plain requests, where the tap's connections can be plain HTTP/1.1.
    pub express: Option<Arc<Depot>>,
    /// TLS towards clients.
    pub tls: Option<TlsAcceptor>,
    /// One for each connection, across all workers.
    pub places: Places,
    /// Counts what has to end before the worker may.
    pub tasks: TaskTracker,
    /// Set when no further request shall begin.
    pub stopping: CancellationToken,
}

impl Listener {
    /// What is due once a second: lets go of upstream connections that are closed or were idle for too
    /// long, and has our own work judged.
    fn sweep(&self) {
        self.tap.governor.look(std::time::Instant::now());
        self.pool.sweep();
        if let Some(depot) = &self.express {
            depot.sweep();
        }
    }
}

/// Accepts until told to stop. A failing accept (no file descriptors, say) pauses and goes on.
pub async fn accept(listener: Listener, socket: TcpListener) {
    let sweep = tokio::time::interval(Duration::from_secs(1));
    tokio::pin!(sweep);
    loop {
        let next = async {
            let place = listener.places.take().await;
            (socket.accept().await, place)
        };
        tokio::select! {
            () = listener.stopping.cancelled() => return,
            _ = sweep.tick() => listener.sweep(),
            (accepted, place) = next => match accepted {
                Ok((stream, _)) => {
                    let connection = serve(listener.clone(), stream);
                    listener.tasks.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => pause(&listener.tap.name, &error).await,
            },
        }
    }
}

async fn pause(tap: &str, error: &io::Error) {
    tracing::warn!(tap, %error, "cannot accept a connection; trying again");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// One client's connection, to its end.
async fn serve(listener: Listener, stream: TcpStream) {
    let _open = Open::count(&listener.tap);
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let header = listener.tap.settings.timeouts.header;
    let mut stream = match &listener.tls {
        None => Stream::Plain(stream),
        Some(acceptor) => match tokio::time::timeout(header, acceptor.accept(stream)).await {
            Ok(Ok(tls)) => Stream::Tls(Box::new(tls.into())),
            _ => return listener.tap.metrics.rejected(&listener.tap.name, "tls"),
        },
    };
    let mut ahead = BytesMut::new();
    if listener.tap.settings.http2 {
        let keep_alive = listener.tap.settings.timeouts.keep_alive;
        match tokio::time::timeout(keep_alive, speaks_http2(&mut stream, &mut ahead)).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => return serve_http2(listener, stream, ahead.freeze()).await,
            Ok(Err(_)) | Err(_) => return,
        }
    }
    match &listener.express {
        None => serve_http1(listener, stream, ahead.freeze()).await,
        Some(depot) => {
            if let Some((stream, ahead)) = express::serve(&listener, depot, stream, &ahead).await {
                serve_http1(listener, stream, ahead).await;
            }
        }
    }
}

/// Keeps the gauge of open connections true, whatever ends them.
struct Open(Arc<TapShared>);

impl Open {
    fn count(tap: &Arc<TapShared>) -> Self {
        tap.connections.inc();
        Self(Arc::clone(tap))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

fn timed(
    listener: &Listener,
    stream: Stream,
    ahead: Bytes,
    state: &Arc<ConnectionState>,
) -> TokioIo<TimedStream> {
    let timeouts = &listener.tap.settings.timeouts;
    let limits = ClientLimits {
        header: timeouts.header,
        keep_alive: timeouts.keep_alive,
        write: timeouts.idle,
    };
    TokioIo::new(TimedStream::new(stream, ahead, Arc::clone(state), limits))
}

fn passage(listener: &Listener, state: &Arc<ConnectionState>) -> Arc<Passage> {
    Arc::new(Passage {
        tap: Arc::clone(&listener.tap),
        pool: Arc::clone(&listener.pool),
        connection: Arc::clone(state),
        tasks: listener.tasks.clone(),
    })
}

async fn serve_http1(listener: Listener, stream: Stream, ahead: Bytes) {
    let state = Arc::new(ConnectionState::default());
    let passage = passage(&listener, &state);
    let service = service_fn(move |request| {
        let passage = Arc::clone(&passage);
        async move { Ok::<_, Infallible>(forward::forward(&passage, request).await) }
    });
    let io = timed(&listener, stream, ahead, &state);
    let mut connection = http1_builder(&listener).serve_connection(io, service).with_upgrades();
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = listener.stopping.cancelled() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let Some(parts) = connection.into_parts() else { return };
    let mut io = parts.io.into_inner();
    match (ended, state.refused_status()) {
        (Err(error), Some(status)) => refuse_head(&listener, io, status, &error).await,
        _ if state.is_left_unread() => stream::close(io.stream_mut(), true).await,
        _ => {}
    }
}

/// `pipeline_flush` stays off: it defeats back-pressure, and one stray byte behind a request would
/// stall a stream (docs/ARCHITECTURE.md, "The engine").
fn http1_builder(listener: &Listener) -> http1::Builder {
    let limits = &listener.tap.settings.limits;
    let mut builder = http1::Builder::new();
    builder
        .half_close(true)
        .preserve_header_case(true)
        .max_header_size(limits.header_bytes_max)
        .max_buf_size(limits.header_bytes_max.max(64 * 1024) + 8 * 1024)
        .auto_date_header(false);
    // Its own limit costs hyper nothing; any that is given fills two arrays a request.
    if limits.headers_max != HYPER_HEADERS_MAX {
        builder.max_headers(limits.headers_max);
    }
    builder
}

/// Answers a head that hyper could not read, naming the fault and nothing of its content.
async fn refuse_head(listener: &Listener, mut io: TimedStream, status: u16, error: &hyper::Error) {
    let reason = match status {
        431 => "head_too_large",
        414 => "target_too_long",
        _ => "malformed",
    };
    listener.tap.metrics.rejected(&listener.tap.name, reason);
    tracing::info!(tap = &*listener.tap.name, reason, fault = %error, "malformed request refused");
    let answer = refuse::raw_answer(status, reason, &error.to_string());
    let stream = io.stream_mut();
    // The client may be gone already; either way the connection ends here.
    drop(tokio::time::timeout(Duration::from_secs(5), stream.write_all(&answer)).await);
    stream::close(stream, true).await;
}

/// What an HTTP/2 client sends first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// True for a client whose first bytes are HTTP/2's. What is read of it is put into `ahead`.
async fn speaks_http2(stream: &mut Stream, ahead: &mut BytesMut) -> io::Result<bool> {
    while ahead.len() < PREFACE.len() && PREFACE.starts_with(ahead) {
        if stream.read_buf(ahead).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(ahead.starts_with(PREFACE))
}

async fn serve_http2(listener: Listener, stream: Stream, ahead: Bytes) {
    let state = Arc::new(ConnectionState::default());
    state.set_phase(Phase::Serving);
    state.leave_http();
    let for_service = listener.clone();
    let asked = CancellationToken::new();
    let first = asked.clone();
    let service = service_fn(move |request| {
        first.cancel();
        // Streams of one connection overlap: each has a state of its own, and none a phase.
        let passage = passage(&for_service, &Arc::new(ConnectionState::default()));
        async move { Ok::<_, Infallible>(forward::forward(&passage, request).await) }
    });
    let io = timed(&listener, stream, ahead, &state);
    let mut connection = http2_builder(&listener).serve_connection(io, service);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = silence(&listener, &asked) => return,
        () = listener.stopping.cancelled() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let Err(error) = ended else { return };
    tracing::debug!(tap = &*listener.tap.name, %error, "connection ended");
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref());
    if cause.is_some_and(|cause: &h2::Error| cause.is_library()) {
        listener.tap.metrics.rejected(&listener.tap.name, "http2");
    }
}

/// Ends when a connection was never asked anything for as long as one may be idle: before HTTP/2's first
/// request, hyper has no limit of its own.
async fn silence(listener: &Listener, asked: &CancellationToken) {
    let limit = listener.tap.settings.timeouts.keep_alive;
    if tokio::time::timeout(limit, asked.cancelled()).await.is_ok() {
        std::future::pending().await
    }
}

fn http2_builder(listener: &Listener) -> http2::Builder<TokioExecutor> {
    let settings = &listener.tap.settings;
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .max_header_list_size(u32::try_from(settings.limits.header_bytes_max).unwrap_or(u32::MAX))
        .keep_alive_interval(settings.timeouts.keep_alive)
        .keep_alive_timeout(Duration::from_secs(10))
        .auto_date_header(false);
    builder
}
