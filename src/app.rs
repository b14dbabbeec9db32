//! Assembly: builds the rooms, wires them, binds the doors, and drains them in the order of the flow.
//!
//! Shutdown follows the data: stop accepting, exchanges under way finish, the intake closes, the
//! pipeline empties, the spool seals, the archive uploads, spans flush. Each step ends when its input
//! has, or at the deadline, whose victims are named.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::archive::Archive;
use crate::config::Config;
use crate::console::{Console, ConsoleError, Ready};
use crate::domain::MemoryBudget;
use crate::drain::Drain;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::pipeline::{self, Pipeline};
use crate::proxy::{self, Proxy, ProxyError};
use crate::spool::Spool;
use crate::trace::Tracer;

/// Why flowtap cannot start; the message names the address or the key.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A tap.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The admin listener.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// The spool's folder.
    #[error(transparent)]
    Spool(#[from] crate::spool::SpoolError),
    /// The bucket.
    #[error("bucket: {0}")]
    Bucket(#[from] crate::bucket::BucketError),
    /// The trace exporter.
    #[error("trace.otlp_endpoint: {0}")]
    Trace(#[from] crate::trace::TraceError),
    /// A thread or a runtime.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A flowtap that serves.
pub struct App {
    drain: Drain,
    stopping: CancellationToken,
    archive_stopping: CancellationToken,
    admin_stopping: CancellationToken,
    spool: Spool,
    tracer: Option<Tracer>,
    ready: Ready,
    drain_timeout: Duration,
    /// The addresses of the taps, in the order of the configuration.
    pub tap_addresses: Vec<SocketAddr>,
    /// The address of the admin listener.
    pub admin_address: Option<SocketAddr>,
}
