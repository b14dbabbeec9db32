//! Where spans are sent to us: the endpoint of Azure ML's data collector, and OTLP over HTTP and gRPC.
//!
//! A thread and a runtime of its own, so that no sender can slow traffic. Connections, sizes, times and
//! memory are bounded; what cannot be taken is refused in the protocol's own words, and counted. Nothing
//! is kept here: what was understood goes to the pipeline, which never makes a sender wait.

mod azureml;
mod otlp;
mod post;
mod serve;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, Secret, Tap};
use crate::dialect::span::{self, RawSpan};
use crate::domain::{MemoryBudget, Protocol, ToldSpan};
use crate::drain::Drain;
use crate::metrics::Metrics;
use crate::pipeline::SpanIntake;

/// Spans in one post; exporters send 512.
const SPANS_PER_POST_MAX: usize = 10_000;
/// Bodies that may be held at once, of the largest size.
const BODIES_MAX: u64 = 8;

/// The endpoints, bound.
pub struct Collector {
    doors: Vec<Door>,
    desk: Desk,
}

struct Door {
    protocol: Protocol,
    socket: TcpListener,
}

/// What every answer may need.
#[derive(Clone)]
struct Desk {
    spans: SpanIntake,
    metrics: Metrics,
    /// Any tap: for the limits by which texts are read.
    tap: Arc<Tap>,
    token: Option<Secret>,
    body_bytes_max: usize,
    bodies: MemoryBudget,
}

/// Why an endpoint cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (collector.{}): {source}", protocol.label())]
pub struct CollectorError {
    protocol: Protocol,
    address: SocketAddr,
    source: std::io::Error,
}

impl CollectorError {
    /// The name used in metrics and logs.
    pub fn label(&self) -> &'static str {
        "bind"
    }
}

/// What became of the spans of a post.
#[derive(Debug, Default, PartialEq, Eq)]
struct Taken {
    taken: u64,
    refused: u64,
    /// Why the first that was refused was.
    why: Option<String>,
}

impl Collector {
    /// Binds the endpoints of `settings`; `None` where `config` has no tap whose spans they could be.
    pub fn bind(
        settings: &config::Collector,
        config: &Config,
        spans: SpanIntake,
        metrics: Metrics,
    ) -> Result<Option<Self>, CollectorError> {
        let Some(tap) = config.taps.first() else { return Ok(None) };
        let wanted = [
            (Protocol::Azureml, settings.azureml),
            (Protocol::OtlpGrpc, settings.otlp_grpc),
            (Protocol::OtlpHttp, settings.otlp_http),
        ];
        let wanted = wanted.into_iter().filter_map(|(protocol, at)| Some((protocol, at?)));
        let doors = wanted.map(|(protocol, address)| Door::bind(protocol, address));
        let doors: Vec<Door> = doors.collect::<Result<_, _>>()?;
        doors.iter().for_each(|door| metrics.endpoint_opened(door.protocol));
        let body_bytes_max = settings.body_bytes_max;
        let desk = Desk {
            spans,
            metrics,
            tap: Arc::new(tap.clone()),
            token: settings.token.clone(),
            body_bytes_max,
            bodies: MemoryBudget::new(body_bytes_max as u64 * BODIES_MAX),
        };
        Ok(Some(Self { doors, desk }))
    }

    /// The addresses bound.
    pub fn addresses(&self) -> Vec<(Protocol, SocketAddr)> {
        let address = |door: &Door| Some((door.protocol, door.socket.local_addr().ok()?));
        self.doors.iter().filter_map(address).collect()
    }

    /// Serves on a thread of its own until `stopping` is set.
    pub fn serve(self, drain: &Drain, stopping: CancellationToken) -> std::io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        drain.thread("collector", move || {
            let doors = self.doors.into_iter();
            let served = doors.map(|door| serve::serve(door, self.desk.clone(), stopping.clone()));
            runtime.block_on(futures_util::future::join_all(served));
        })
    }
}

impl Door {
    fn bind(protocol: Protocol, address: SocketAddr) -> Result<Self, CollectorError> {
        let bind = || {
            let socket = TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let socket = bind().map_err(|source| CollectorError { protocol, address, source })?;
        Ok(Self { protocol, socket })
    }
}

impl Desk {
    /// Understands what is a span, and hands it on. `None` where there is no room for them now.
    fn take(
        &self,
        protocol: Protocol,
        told: impl Iterator<Item = Result<RawSpan, String>>,
    ) -> Option<Taken> {
        let mut taken = Taken::default();
        let mut spans: Vec<ToldSpan> = Vec::new();
        for raw in told {
            let raw = match spans.len() < SPANS_PER_POST_MAX {
                true => raw,
                false => Err(format!("a post may hold {SPANS_PER_POST_MAX} spans")),
            };
            match raw {
                Ok(raw) => spans.push(span::read(raw, &self.tap)),
                Err(why) => {
                    taken.refused += 1;
                    taken.why.get_or_insert(why);
                }
            }
        }
        taken.taken = spans.len() as u64;
        if !spans.is_empty() && !self.spans.offer(spans) {
            return None;
        }
        self.metrics.spans_received(protocol, taken.taken, taken.refused);
        if let Some(why) = &taken.why {
            tracing::warn!(
                protocol = protocol.label(),
                refused = taken.refused,
                why,
                "spans were refused"
            );
        }
        Some(taken)
    }
}

/// Reads `body` as each endpoint would, and the spans as the pipeline would: to be fuzzed.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read_posted(body: &[u8], tap: &crate::config::Tap) {
    let azureml = azureml::spans_in(body);
    let otlp = otlp::http::spans_in(&bytes::Bytes::copy_from_slice(body));
    for raw in azureml.into_iter().chain(otlp) {
        drop(crate::dialect::span::read(raw, tap));
    }
}
