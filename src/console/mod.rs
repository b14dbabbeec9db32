//! The admin listener: metrics, health, and the console page, on a runtime and connections of their own.
//!
//! It can neither slow traffic nor be reached through a tap. `/metrics`, `/livez` and `/readyz` answer
//! anyone who can connect; the page and `/api` ask for the token where one is set, and for a `Host`
//! that is an address, `localhost` or on the allow-list, against DNS rebinding. What could change
//! anything is taken from our own page or from programs, never from another site.

mod api;
mod page;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN};
use axum::http::{HeaderName, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use api::Problem;

use crate::bucket::Bucket;
use crate::config::Admin;
use crate::ingest::Progress;
use crate::metrics::Metrics;
use crate::store::Store;

/// Admin connections served at once.
const CONNECTIONS_MAX: usize = 64;

/// The admin listener, bound.
pub struct Console {
    socket: TcpListener,
    desk: Desk,
}

/// What every answer may need.
#[derive(Clone)]
struct Desk {
    settings: Arc<Admin>,
    metrics: Metrics,
    ready: Ready,
    view: Option<View>,
    turns: api::Turns,
}

/// What the page and the API read; without it they show this process alone.
#[derive(Clone)]
pub struct View {
    /// The index.
    pub store: Store,
    /// Where the whole records are.
    pub bucket: Arc<dyn Bucket>,
    /// How far the index is.
    pub progress: Progress,
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
                settings: Arc::new(settings.clone()),
                metrics,
                ready,
                view: None,
                turns: api::Turns::default(),
            },
        })
    }

    /// Shows what an index holds.
    pub fn show(&mut self, view: View) {
        self.desk.view = Some(view);
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
        let (service, permits) = (routes(self.desk), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        loop {
            let accepted = tokio::select! {
                () = stopping.cancelled() => return,
                accepted = socket.accept() => accepted,
            };
            match (accepted, Arc::clone(&permits).try_acquire_owned()) {
                (Ok((stream, _)), Ok(permit)) => {
                    let service = TowerToHyperService::new(service.clone());
                    tokio::spawn(async move {
                        let mut http = http1::Builder::new();
                        http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
                        // A scraper that goes away is nobody's trouble.
                        drop(http.serve_connection(TokioIo::new(stream), service).await);
                        drop(permit);
                    });
                }
                // One too many is closed at once; a failing accept must not spin.
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

fn routes(desk: Desk) -> Router {
    let guarded = Router::new()
        .route("/", get(overview))
        .merge(api::routes())
        .route_layer(middleware::from_fn_with_state(desk.clone(), admit));
    let open = Router::new()
        .route("/metrics", get(metrics))
        .route("/style.css", get(style))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz));
    let harden = middleware::map_response(harden);
    guarded.merge(open).fallback(not_found).layer(harden).with_state(desk)
}

async fn metrics(State(desk): State<Desk>) -> Response {
    ([(CONTENT_TYPE, desk.metrics.content_type())], desk.metrics.encode()).into_response()
}

async fn readyz(State(desk): State<Desk>) -> Response {
    if desk.ready.0.load(Ordering::Relaxed) {
        "ready\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not taking traffic\n").into_response()
    }
}

async fn overview(State(desk): State<Desk>) -> Response {
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    ([(CONTENT_TYPE, html)], page::overview(&desk.metrics)).into_response()
}

async fn style() -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("text/css; charset=utf-8"))], page::STYLE)
        .into_response()
}

async fn not_found(uri: Uri) -> Problem {
    match uri.path().starts_with("/api") {
        true => api::nowhere(uri).await,
        false => Problem::new(StatusCode::NOT_FOUND, "no such page"),
    }
}

async fn admit(State(desk): State<Desk>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    if !is_host_allowed(&desk.settings, headers) {
        return refused(StatusCode::MISDIRECTED_REQUEST, "this Host is not on admin.hosts");
    }
    if !is_token_right(&desk.settings, headers) {
        return refused(StatusCode::UNAUTHORIZED, "a bearer token is needed");
    }
    if !is_from_here(request.method(), headers) {
        return refused(StatusCode::FORBIDDEN, "another site may not change anything here");
    }
    next.run(request).await
}

fn is_host_allowed(settings: &Admin, headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name = host.strip_prefix('[').and_then(|rest| rest.split(']').next());
    let name = name.unwrap_or_else(|| host.split(':').next().unwrap_or_default());
    let listed = settings.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
    listed || name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// Whether a request that may change something comes from our own page, or from no page at all.
fn is_from_here(method: &Method, headers: &HeaderMap) -> bool {
    if method.is_safe() {
        return true;
    }
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let site = text(HeaderName::from_static("sec-fetch-site"));
    let own = text(HOST).unwrap_or_default();
    let origin = text(ORIGIN).is_none_or(|origin| {
        let place = origin.strip_prefix("http://").or(origin.strip_prefix("https://"));
        place.is_some_and(|place| place.eq_ignore_ascii_case(own))
    });
    origin && site.is_none_or(|site| matches!(site, "same-origin" | "none"))
}

fn is_token_right(settings: &Admin, headers: &HeaderMap) -> bool {
    let Some(token) = &settings.token else { return true };
    let given =
        headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    given.is_some_and(|given| equals_in_constant_time(given, token.expose().as_bytes()))
}

/// Takes as long for a wrong token as for the right one of the same length.
fn equals_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

fn refused(status: StatusCode, why: &str) -> Response {
    Problem::new(status, why).into_response()
}

/// What every answer carries: no scripts from elsewhere, no frames, no guessing of types.
async fn harden(mut response: Response) -> Response {
    const HEADERS: &[(&str, &str)] = &[
        (
            "content-security-policy",
            "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
    ];
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn headers(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, value.parse().expect("a header"))])
    }

    fn admin() -> Admin {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Admin { listen, token: Some(Secret::new("t0ken")), hosts: vec!["flowtap.svc".into()] }
    }

    #[test]
    fn only_addresses_localhost_and_listed_hosts_reach_the_page() {
        for (host, allowed) in [
            ("127.0.0.1:9464", true),
            ("[::1]:9464", true),
            ("localhost", true),
            ("flowtap.svc:80", true),
            ("evil.test", false),
            ("127.0.0.1.evil.test", false),
            ("", false),
        ] {
            assert_eq!(is_host_allowed(&admin(), &headers(HOST, host)), allowed, "{host}");
        }
    }

    #[test]
    fn only_our_own_page_and_programs_may_change_anything() {
        let request = |pairs: &[(&'static str, &str)]| -> HeaderMap {
            let pair = |(name, value): &(&'static str, &str)| {
                (HeaderName::from_static(name), value.parse().expect("a header"))
            };
            pairs.iter().map(pair).collect()
        };
        for (headers, allowed) in [
            (request(&[("host", "a:1")]), true),
            (request(&[("host", "a:1"), ("origin", "http://a:1")]), true),
            (request(&[("host", "a:1"), ("origin", "http://a:2")]), false),
            (request(&[("host", "a:1"), ("origin", "null")]), false),
            (request(&[("host", "a:1"), ("sec-fetch-site", "cross-site")]), false),
            (request(&[("host", "a:1"), ("sec-fetch-site", "same-origin")]), true),
        ] {
            assert_eq!(is_from_here(&Method::POST, &headers), allowed, "{headers:?}");
            assert!(is_from_here(&Method::GET, &headers));
        }
    }

    #[test]
    fn the_token_is_asked_for_where_one_is_set() {
        assert!(is_token_right(&admin(), &headers(AUTHORIZATION, "Bearer t0ken")));
        assert!(!is_token_right(&admin(), &headers(AUTHORIZATION, "Bearer t0kem")));
        assert!(!is_token_right(&admin(), &HeaderMap::new()));
        assert!(is_token_right(&Admin { token: None, ..admin() }, &HeaderMap::new()));
    }
}
