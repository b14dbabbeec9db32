//! The admin listener: metrics, health, and the console page, on a runtime and connections of their own.
//!
//! It can neither slow traffic nor be reached through a tap. `/metrics`, `/livez` and `/readyz` answer
//! anyone who can connect; `/api` asks for the token, or a session, where a token is set. The page
//! itself holds no data, so it asks for none: like `/api` it wants a `Host` that is ours. What could
//! change anything is taken from our own page or from programs, never from another site.

#[cfg(feature = "hub")]
mod api;
#[cfg(feature = "hub")]
mod assets;
#[cfg(feature = "hub")]
mod entry;
mod guests;
#[cfg(feature = "hub")]
mod monitors;
#[cfg(feature = "hub")]
mod page;
#[cfg(not(feature = "hub"))]
#[path = "no_page.rs"]
mod page;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use axum::http::{HeaderName, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::config::Admin;
use crate::metrics::Metrics;

#[cfg(feature = "hub")]
pub use page::View;

/// The admin listener, bound.
pub struct Console {
    socket: TcpListener,
    desk: Desk,
}

/// What every answer may need.
#[derive(Clone)]
struct Desk {
    metrics: Metrics,
    ready: Ready,
    #[cfg(feature = "hub")]
    shown: page::Shown,
}

/// Whether traffic can be taken: the taps are bound and shutdown has not begun.
#[derive(Clone, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// Says whether traffic can be taken.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }
}

/// Why the admin listener cannot start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (admin.listen): {source}")]
pub struct ConsoleError {
    address: SocketAddr,
    source: std::io::Error,
}

impl Console {
    /// Binds the admin listener.
    pub fn bind(settings: &Admin, metrics: Metrics, ready: Ready) -> Result<Self, ConsoleError> {
        let address = settings.listen;
        let bind = || {
            let socket = TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = bind().map_err(|source| ConsoleError { address, source })?;
        Ok(Self {
            socket,
            desk: Desk {
                metrics,
                ready,
                #[cfg(feature = "hub")]
                shown: page::Shown::new(settings),
            },
        })
    }

    /// The address bound.
    pub fn address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    /// Serves until `stopping` is set.
    pub async fn serve(self, stopping: CancellationToken) {
        let socket = match tokio::net::TcpListener::from_std(self.socket) {
            Ok(socket) => socket,
            Err(error) => return tracing::error!(%error, "the admin listener cannot serve"),
        };
        let (routes, mut guests) = (routes(self.desk), guests::Guests::default());
        loop {
            let accepted = tokio::select! {
                () = stopping.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => guests.receive(stream, &routes),
                // A failing accept must not spin.
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

fn routes(desk: Desk) -> Router {
    let open = Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz));
    let harden = middleware::map_response(harden);
    page::routes(&desk).merge(open).layer(harden).with_state(desk)
}

async fn metrics(State(desk): State<Desk>) -> Response {
    crate::capture::failpoint::hit("scrape");
    ([(CONTENT_TYPE, desk.metrics.content_type())], desk.metrics.encode()).into_response()
}

async fn readyz(State(desk): State<Desk>) -> Response {
    if desk.ready.0.load(Ordering::Relaxed) {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not taking traffic\n").into_response()
    }
}

/// What every answer carries: scripts, styles and data from here alone, no frames, no guessing of
/// types, no text that a script could turn into markup. Forms need the referrer's origin.
async fn harden(mut response: Response) -> Response {
    const HEADERS: &[(&str, &str)] = &[
        (
            "content-security-policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
             connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'",
        ),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ];
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
