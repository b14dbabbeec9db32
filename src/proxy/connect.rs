//! Connecting to the upstream: name, TCP, TLS, and the protocol that both speak.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::body::RequestBody;
use super::held::Holder;
use super::remains::{Leaving, Remains};
use super::stream::Stream;
use crate::config::{Upstream, UpstreamHttp2};

/// The fields of a head that hyper takes where it is told nothing; then the table for them stands on
/// the stack, and costs nothing to make.
pub const HYPER_HEADERS_MAX: usize = 100;

/// A connection ready for requests.
pub enum Sender {
    /// HTTP/1.1: one request at a time.
    Http1(Http1),
    /// HTTP/2: many at once; clones share the connection.
    Http2(http2::SendRequest<RequestBody>),
}

/// An HTTP/1.1 connection, and what it leaves behind.
pub struct Http1 {
    /// Takes requests.
    pub sender: http1::SendRequest<RequestBody>,
    /// How the connection ended, once it has.
    pub remains: Remains,
    /// Who decides on a body that is held back.
    pub holder: Option<Holder>,
}

/// Why there is no connection. Says nothing of the request.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The time for connecting passed.
    #[error("connecting took longer than {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The name or the address leads nowhere.
    #[error("cannot connect: {0}")]
    Io(#[from] io::Error),
    /// The protocol could not be agreed.
    #[error("the HTTP handshake failed: {0}")]
    Handshake(#[from] hyper::Error),
}

impl ConnectError {
    /// The metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "timeout",
            Self::Io(_) => "refused",
            Self::Handshake(_) => "handshake",
        }
    }
}

/// Connects to one upstream.
#[derive(Clone)]
pub struct Connector {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    http2: UpstreamHttp2,
    headers_max: usize,
    timeout: Duration,
}

impl Connector {
    /// A connector to `upstream`, speaking TLS as `tls` says; answers may have `headers_max` fields.
    pub fn new(
        upstream: &Upstream,
        tls: Option<ClientConfig>,
        headers_max: usize,
        timeout: Duration,
    ) -> io::Result<Self> {
        let server_name = || {
            ServerName::try_from(upstream.host.clone())
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
        };
        let tls = match tls {
            Some(config) => Some((TlsConnector::from(Arc::new(config)), server_name()?)),
            None => None,
        };
        let (host, port, http2) = (upstream.host.clone(), upstream.port, upstream.http2);
        Ok(Self { host, port, tls, http2, headers_max, timeout })
    }

    /// A fresh connection, within the time for connecting.
    pub async fn connect(&self) -> Result<Sender, ConnectError> {
        self.in_time(async {
            let stream = self.stream().await?;
            if self.is_http2(&stream) {
                http2_over(stream).await
            } else {
                http1_over(stream, self.headers_max).await
            }
        })
        .await
    }

    /// A fresh connection's bytes, within the time for connecting.
    pub async fn connect_stream(&self) -> Result<Stream, ConnectError> {
        self.in_time(self.stream()).await
    }

    async fn in_time<T>(
        &self,
        connecting: impl Future<Output = Result<T, ConnectError>>,
    ) -> Result<T, ConnectError> {
        let late = |_| ConnectError::Timeout(self.timeout);
        tokio::time::timeout(self.timeout, connecting).await.map_err(late)?
    }

    async fn stream(&self) -> Result<Stream, ConnectError> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await?;
        tcp.set_nodelay(true)?;
        let Some((connector, name)) = &self.tls else { return Ok(Stream::Plain(tcp)) };
        let tls = connector.connect(name.clone(), tcp).await?;
        Ok(Stream::Tls(Box::new(tls.into())))
    }

    fn is_http2(&self, stream: &Stream) -> bool {
        match stream {
            Stream::Plain(_) => self.http2 == UpstreamHttp2::Always,
            Stream::Tls(tls) => tls.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }
}

async fn http1_over(io: Stream, headers_max: usize) -> Result<Sender, ConnectError> {
    let mut builder = http1::Builder::new();
    builder
        .preserve_header_case(true)
        .max_buf_size(1024 * 1024)
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true);
    if headers_max != HYPER_HEADERS_MAX {
        builder.max_headers(headers_max);
    }
    let (io, remains) = Leaving::over(io);
    let (sender, connection) = builder.handshake(TokioIo::new(io)).await?;
    // Its errors reach the exchange that it fails; there is nothing more to learn here.
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    Ok(Sender::Http1(Http1 { sender, remains, holder: None }))
}

/// What an upstream may send ahead on one stream: what a client that does not read can pile up here.
const HTTP2_STREAM_WINDOW: u32 = 256 * 1024;
/// What it may send ahead in all; as large as Go's client grants. Streams are bounded each, so it
/// holds no more memory; but h2 lets small unread DATA frames cost at most half of it, and ends the
/// whole connection past that. Streamed tokens are small frames: with a window of 64 KiB some 130 of
/// them in one burst ended every stream on the connection (measured).
const HTTP2_CONNECTION_WINDOW: u32 = 1 << 30;

async fn http2_over(io: Stream) -> Result<Sender, ConnectError> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .max_header_list_size(256 * 1024);
    let (sender, connection) = builder.handshake(TokioIo::new(io)).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(Sender::Http2(sender))
}
