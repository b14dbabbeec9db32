//! Both ends of HTTP/2, for tests: a server that counts its connections and may say goodbye, a client.
#![allow(clippy::expect_used, clippy::panic)]

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// A client's connection; clones share it.
pub type Client = SendRequest<Full<Bytes>>;

/// No exchange in a test takes longer.
const WITHIN: Duration = Duration::from_secs(60);

/// What is asked for here never ends, and comes in the smallest of pieces.
pub const ENDLESS: &str = "/endless";

/// Runs `test` on a runtime of its own, for a minute at most.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let limited = async { tokio::time::timeout(3 * WITHIN, test).await.expect("in time") };
    runtime.expect("a runtime").block_on(limited)
}

/// An HTTP/2 server that echoes each body after the words `METHOD path authority`, in pieces.
pub struct Server {
    /// Where it listens.
    pub port: u16,
    /// Connections so far.
    pub connections: Arc<AtomicUsize>,
    /// Requests so far.
    pub requests: Arc<AtomicUsize>,
}

impl Server {
    /// Starts one that says goodbye (GOAWAY) on each connection after `requests_max` requests.
    pub fn start(requests_max: usize, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("set");
        let port = listener.local_addr().expect("its address").port();
        let (connections, requests) =
            (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (counted, asked) = (Arc::clone(&connections), Arc::clone(&requests));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                while let Ok((tcp, _)) = listener.accept().await {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let (tls, asked) = (tls.clone(), Arc::clone(&asked));
                    tokio::spawn(async move {
                        match tls {
                            None => serve(tcp, requests_max, asked).await,
                            Some(config) => {
                                let acceptor = tokio_rustls::TlsAcceptor::from(config);
                                if let Ok(stream) = acceptor.accept(tcp).await {
                                    serve(stream, requests_max, asked).await;
                                }
                            }
                        }
                    });
                }
            });
        });
        Self { port, connections, requests }
    }
}

async fn serve(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    requests_max: usize,
    asked: Arc<AtomicUsize>,
) {
    let (goodbye, here) = (Arc::new(Notify::new()), Arc::<AtomicUsize>::default());
    let enough = Arc::clone(&goodbye);
    let service = service_fn(move |request| {
        asked.fetch_add(1, Ordering::SeqCst);
        if here.fetch_add(1, Ordering::SeqCst) + 1 == requests_max {
            enough.notify_one();
        }
        async move { Ok::<_, Infallible>(echo(request).await) }
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let connection = server.serve_connection(TokioIo::new(io), service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = goodbye.notified() => connection.as_mut().graceful_shutdown(),
    }
    drop(connection.await);
}

async fn echo(request: Request<Incoming>) -> Response<Body> {
    if request.uri().path() == ENDLESS {
        let events = futures_util::stream::repeat(Bytes::from_static(b"data: x\n\n"));
        let frames = events.map(|event| Ok(Frame::data(event)));
        return Response::new(BodyExt::boxed(StreamBody::new(frames)));
    }
    let words = format!(
        "{} {} {} ",
        request.method(),
        request.uri().path(),
        request.uri().authority().map_or("", |authority| authority.as_str())
    );
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let pieces = [Bytes::from(words), body, Bytes::from_static(b" end")];
    let pieces = futures_util::stream::iter(pieces).then(|piece| async {
        tokio::time::sleep(Duration::from_millis(2)).await;
        Ok(Frame::data(piece))
    });
    Response::new(BodyExt::boxed(StreamBody::new(pieces)))
}

/// A client's connection to `port`, by prior knowledge.
pub async fn connect(port: u16) -> Client {
    handshake(TcpStream::connect(("127.0.0.1", port)).await.expect("connected")).await
}

/// The same, for a client that takes little ahead of its reading.
pub async fn connect_narrow(port: u16) -> Client {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(16 * 1024);
    let (sender, connection) = builder.handshake(TokioIo::new(tcp)).await.expect("a handshake");
    tokio::spawn(connection);
    sender
}

/// A client's connection over `io`.
pub async fn handshake(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Client {
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io));
    let (sender, connection) = shaken.await.expect("a handshake");
    tokio::spawn(connection);
    sender
}

/// An answer, read to its end.
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The whole body, as text.
    pub text: String,
    /// The trailers.
    pub trailers: HeaderMap,
}

/// Posts `body` and reads the answer whole; an error where it breaks off.
pub async fn post(
    sender: &Client,
    path: &str,
    body: impl Into<Bytes>,
) -> Result<Answer, hyper::Error> {
    let uri = format!("http://client.test{path}");
    let request = Request::post(uri).header("content-type", "application/json");
    send(sender, request.body(Full::new(body.into())).expect("a request")).await
}

/// Sends `request` and reads the answer whole; an error where it breaks off.
pub async fn send(sender: &Client, request: Request<Full<Bytes>>) -> Result<Answer, hyper::Error> {
    let mut sender = sender.clone();
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    Ok(Answer { status, text: String::from_utf8_lossy(&body.to_bytes()).into_owned(), trailers })
}
