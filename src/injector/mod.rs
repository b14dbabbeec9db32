//! `flowtap injector`: the admission webhook that gives pods their sidecar.
//!
//! It never denies a pod: what cannot be done is told as a warning, and the pod comes up as it is. The
//! certificate is read again when its files change, so that whoever rotates it need not restart anything.

mod certificate;
mod review;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::inject;
use crate::metrics::Metrics;

use certificate::Certificate;
pub use certificate::CertificateError;

/// Connections served at once: the API server keeps a few.
const CONNECTIONS_MAX: usize = 64;
/// The longest review: a pod may have 1.5 MiB, and comes with its former self.
const REVIEW_BYTES_MAX: usize = 8 * 1024 * 1024;
/// For a TLS handshake, for a request's head, and for what follows of it: nobody holds a connection.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// For reviews under way once it is told to end.
const END_WITHIN: Duration = Duration::from_secs(5);
/// How often the certificate's files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How the webhook is served.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The certificate's chain (PEM).
    pub cert_file: PathBuf,
    /// Its key (PEM).
    pub key_file: PathBuf,
    /// What pods get unless their annotations say otherwise.
    pub inject: inject::Settings,
}

/// Why the webhook cannot start.
#[derive(Debug, thiserror::Error)]
pub enum InjectorError {
    /// The address.
    #[error("cannot listen on {address} (--listen): {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// The webhook, bound.
pub struct Injector {
    socket: TcpListener,
    certificate: Certificate,
    desk: Desk,
}

#[derive(Clone)]
struct Desk {
    settings: Arc<inject::Settings>,
    metrics: Metrics,
}

impl Injector {
    /// Binds the listener and reads the certificate.
    pub fn bind(settings: Settings, metrics: Metrics) -> Result<Self, InjectorError> {
        let address = settings.listen;
        let bind = || {
            let socket = TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = bind().map_err(|source| InjectorError::Listen { address, source })?;
        let certificate = Certificate::read(settings.cert_file, settings.key_file)?;
        let desk = Desk { settings: Arc::new(settings.inject), metrics };
        Ok(Self { socket, certificate, desk })
    }

    /// The address bound.
    pub fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// Serves until `stopping` is set, and then those who have asked already.
    pub async fn serve(mut self, stopping: CancellationToken) {
        let socket = match tokio::net::TcpListener::from_std(self.socket) {
            Ok(socket) => socket,
            Err(error) => return tracing::error!(%error, "the webhook cannot serve"),
        };
        let (routes, permits) = (routes(self.desk), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            let accepted = tokio::select! {
                () = stopping.cancelled() => break,
                _ = look.tick() => {
                    self.certificate.refresh();
                    continue;
                }
                accepted = socket.accept() => accepted,
            };
            match (accepted, Arc::clone(&permits).try_acquire_owned()) {
                (Ok((stream, _)), Ok(permit)) => {
                    let (acceptor, routes) = (self.certificate.acceptor(), routes.clone());
                    let stopping = stopping.clone();
                    tokio::spawn(async move {
                        talk(stream, acceptor, routes, stopping).await;
                        drop(permit);
                    });
                }
                // One too many is closed at once; a failing accept must not spin.
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
        drop(socket);
        // All permits are back when the last connection is gone.
        let all = u32::try_from(CONNECTIONS_MAX).unwrap_or(u32::MAX);
        drop(tokio::time::timeout(END_WITHIN, permits.acquire_many(all)).await);
    }
}

async fn talk(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    routes: Router,
    stopping: CancellationToken,
) {
    // Whoever goes away or speaks no TLS is nobody's trouble.
    let Ok(Ok(stream)) = tokio::time::timeout(HEAD_WITHIN, acceptor.accept(stream)).await else {
        return;
    };
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    let service = TowerToHyperService::new(routes);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stopping.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    drop(connection.await);
}

fn routes(desk: Desk) -> Router {
    Router::new()
        .route("/mutate", post(mutate))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ready\n" }))
        .route("/metrics", get(metrics))
        .layer(DefaultBodyLimit::max(REVIEW_BYTES_MAX))
        .layer(from_fn(in_time))
        .with_state(desk)
}

async fn in_time(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(ANSWER_WITHIN, next.run(request)).await;
    answered.unwrap_or_else(|_| StatusCode::REQUEST_TIMEOUT.into_response())
}

async fn metrics(State(desk): State<Desk>) -> Response {
    ([(CONTENT_TYPE, desk.metrics.content_type())], desk.metrics.encode()).into_response()
}

async fn mutate(State(desk): State<Desk>, body: Bytes) -> Response {
    let (answer, what) = review::answer(&body, &desk.settings);
    desk.metrics.injection(what);
    match answer {
        Some(answer) => ([(CONTENT_TYPE, "application/json")], answer.to_string()).into_response(),
        None => {
            (StatusCode::BAD_REQUEST, "no AdmissionReview of admission.k8s.io/v1\n").into_response()
        }
    }
}
