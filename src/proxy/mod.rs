//! The proxy: one listener before one upstream, as many as there are taps.
//!
//! Traffic runs on threads of its own, each a single-threaded runtime that accepts from every tap's
//! socket and keeps its own idle upstream connections: no lock is contended between connections, and no
//! task wakes another thread. Plain exchanges go the express way ([`express`]), all else hyper's
//! ([`serve`], [`forward`]). Watching a request costs no task, two small header maps and one push into a
//! queue.

mod body;
mod connect;
mod express;
mod failure;
mod files;
mod forward;
mod governor;
mod guard;
mod held;
mod include_usage;
mod io;
mod observe;
mod pool;
mod refuse;
mod remains;
mod route;
mod scan;
mod send;
mod serve;
mod stream;
mod tail;
mod tap;
mod timer;
mod tls;
mod upgrade;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::capture::{BodyLimits, HeaderSelection};
use crate::config::{self, Config};
use crate::domain::MemoryBudget;
use crate::drain::{self, Drain};
use crate::metrics::Metrics;
use crate::pipeline::Intake;

#[cfg(any(test, feature = "fuzzing"))]
pub use express::read_heads;

use connect::Connector;
use express::Depot;
use files::Places;
use governor::Governor;
use include_usage::Injection;
use pool::Pool;
use route::Route;
use serve::Listener;
use tap::TapShared;

/// Why the proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address} (taps[{index}].listen, tap {tap:?}): {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The tap's place in the configuration.
        index: usize,
        /// The tap's name.
        tap: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// Certificates cannot be used.
    #[error("tap {tap:?}: {source}")]
    Tls {
        /// The tap's name.
        tap: String,
        /// Which file and why.
        source: tls::TlsError,
    },
    /// The upstream's URL makes no target.
    #[error("tap {tap:?}: the upstream's address cannot be used")]
    Upstream {
        /// The tap's name.
        tap: String,
    },
    /// No thread could be started.
    #[error("cannot start a traffic thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What the proxy hands on to.
#[derive(Clone)]
pub struct Outlets {
    /// Where finished exchanges go.
    pub intake: Intake,
    /// What memory recording may take.
    pub budget: MemoryBudget,
    /// Counters.
    pub metrics: Metrics,
}

/// Taps whose sockets are bound, not serving yet.
pub struct Proxy {
    taps: Vec<BoundTap>,
    threads: usize,
    deadline: Duration,
}

struct BoundTap {
    shared: Arc<TapShared>,
    socket: TcpListener,
    tls: Option<TlsAcceptor>,
    places: Places,
}

impl Proxy {
    /// Binds every tap's socket; a taken port is told before anything runs.
    pub fn bind(config: &Config, outlets: &Outlets) -> Result<Self, ProxyError> {
        let (budget, metrics) = (outlets.budget.clone(), outlets.metrics.clone());
        let governor = Arc::new(Governor::new(config.capture.overhead_max, budget, metrics));
        let wanted: Vec<_> = config.taps.iter().map(|tap| tap.limits.connections_max).collect();
        let taps = config.taps.iter().zip(Places::of(&wanted)).enumerate();
        let taps = taps
            .map(|(index, (tap, places))| bind_tap(index, tap, places, config, outlets, &governor))
            .collect::<Result<_, _>>()?;
        Ok(Self { taps, threads: config.traffic.threads.max(1), deadline: config.drain_timeout })
    }

    /// The taps' names with the addresses bound, in the order of the configuration.
    pub fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        let bound =
            |tap: &BoundTap| Some((Arc::clone(&tap.shared.name), tap.socket.local_addr().ok()?));
        self.taps.iter().filter_map(bound).collect()
    }

    /// Serves on threads of `drain` until `stopping` is set; then what is under way finishes, to the
    /// deadline. Each thread ends when its last connection has.
    pub fn serve(self, drain: &Drain, stopping: &CancellationToken) -> Result<(), ProxyError> {
        for number in 0..self.threads {
            let listeners = self.listeners(stopping)?;
            let (stopping, deadline) = (stopping.clone(), self.deadline);
            let runtime = self.runtime()?;
            drain.thread(&format!("traffic-{number}"), move || {
                runtime.block_on(work(listeners, stopping, deadline));
            })?;
        }
        Ok(())
    }

    /// Names are looked up by threads of their own; addresses need none.
    fn runtime(&self) -> std::io::Result<Runtime> {
        let mut builder = Builder::new_current_thread();
        let is_name = |tap: &BoundTap| tap.shared.settings.upstream.host.parse::<IpAddr>().is_err();
        match self.taps.iter().any(is_name) {
            true => drain::runtime(builder),
            false => builder.enable_all().build(),
        }
    }

    fn listeners(
        &self,
        stopping: &CancellationToken,
    ) -> Result<Vec<(Listener, TcpListener)>, ProxyError> {
        let tasks = TaskTracker::new();
        let listener = |tap: &BoundTap| {
            let listener = Listener {
                tap: Arc::clone(&tap.shared),
                pool: Arc::new(Pool::new(tap.shared.settings.timeouts.pool_idle)),
                express: Depot::for_tap(&tap.shared.settings).map(Arc::new),
                tls: tap.tls.clone(),
                places: tap.places.clone(),
                tasks: tasks.clone(),
                stopping: stopping.clone(),
            };
            Ok((listener, tap.socket.try_clone()?))
        };
        self.taps.iter().map(listener).collect()
    }
}

fn bind_tap(
    index: usize,
    tap: &config::Tap,
    places: Places,
    config: &Config,
    outlets: &Outlets,
    governor: &Arc<Governor>,
) -> Result<BoundTap, ProxyError> {
    tell_of_few_files(tap, &places);
    let name = || tap.name.to_string();
    let bound = |source| ProxyError::Bind { address: tap.listen, index, tap: name(), source };
    let tls_fault = |source| ProxyError::Tls { tap: name(), source };
    let unusable = || ProxyError::Upstream { tap: name() };

    let server_tls = tap
        .tls
        .as_ref()
        .map(|files| tls::server(files, tap.http2))
        .transpose()
        .map_err(tls_fault)?;
    let client_tls =
        tap.upstream.secure.then(|| tls::client(&tap.upstream)).transpose().map_err(tls_fault)?;
    let connect = tap.timeouts.connect;
    let connector = Connector::new(&tap.upstream, client_tls, tap.limits.headers_max, connect)
        .map_err(|_| unusable())?;
    let others = config.taps.iter().filter(|other| other.name != tap.name);
    let shared = TapShared {
        name: Arc::clone(&tap.name),
        route: Route::to(&tap.upstream, tap.host).ok_or_else(unusable)?,
        connector,
        injection: Injection::new(tap.include_usage),
        settings: tap.clone(),
        intake: outlets.intake.clone(),
        budget: outlets.budget.clone(),
        governor: Arc::clone(governor),
        body_limits: BodyLimits::of(config.capture.body_bytes_max),
        selection: HeaderSelection::new(&config.capture.headers),
        in_flight: outlets.metrics.in_flight(&tap.name),
        others_in_flight: others.map(|tap| outlets.metrics.in_flight(&tap.name)).collect(),
        connections: outlets.metrics.connections(&tap.name),
        metrics: outlets.metrics.clone(),
        cut: AtomicBool::new(false),
        tracing: config.trace.is_some(),
    };
    Ok(BoundTap {
        shared: Arc::new(shared),
        socket: listen(tap.listen).map_err(bound)?,
        tls: server_tls.map(TlsAcceptor::from),
        places,
    })
}

fn tell_of_few_files(tap: &config::Tap, places: &Places) {
    let (wanted, possible) = (tap.limits.connections_max, places.max());
    if possible < wanted {
        tracing::warn!(
            tap = &*tap.name,
            connections_max = wanted,
            possible,
            "there are file descriptors for fewer connections; the others wait"
        );
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    // A restart must not wait for the last connections' TIME_WAIT; a port in use is still refused.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// One traffic thread: accepts, then lets what is under way finish until `deadline` has passed.
async fn work(
    listeners: Vec<(Listener, TcpListener)>,
    stopping: CancellationToken,
    deadline: Duration,
) {
    let Some(tasks) = listeners.first().map(|(listener, _)| listener.tasks.clone()) else {
        return;
    };
    let taps: Vec<_> = listeners.iter().map(|(listener, _)| Arc::clone(&listener.tap)).collect();
    let accepting = TaskTracker::new();
    for (listener, socket) in listeners {
        match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => drop(accepting.spawn(serve::accept(listener, socket))),
            Err(error) => tracing::error!(tap = &*listener.tap.name, %error, "cannot serve"),
        }
    }
    stopping.cancelled().await;
    accepting.close();
    accepting.wait().await;
    tasks.close();
    if tokio::time::timeout(deadline, tasks.wait()).await.is_err() {
        taps.iter().for_each(|tap| tap.cut.store(true, Ordering::Relaxed));
        tracing::warn!(connections = tasks.len(), "cut at the drain deadline");
    }
}
