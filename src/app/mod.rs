//! Assembly: builds the rooms, wires them, binds the doors, and drains them in the order of the flow.
//!
//! Shutdown follows the data: stop accepting, exchanges under way finish, the intake closes, the
//! pipeline empties, no more spans are taken, the spool seals, the archive uploads, spans flush. Each step ends when its input
//! has, or at the deadline, whose victims are named.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

#[cfg(feature = "hub")]
use crate::alert::AlertError;
use crate::archive::{self, Archive};
use crate::bucket::{self, Bucket};
use crate::collector::{Collector, CollectorError};
use crate::config::{Config, Role};
use crate::console::{Console, ConsoleError, Ready};
use crate::domain::{MemoryBudget, Shedding};
use crate::drain::{self, Drain};
#[cfg(feature = "hub")]
use crate::evaluate::judge::JudgeFault;
use crate::injector::InjectorError;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::pipeline::{self, Pipeline, SpanOuttake};
use crate::proxy::{self, Proxy, ProxyError};
use crate::spool::{Recovery, Spool, SpoolError};
#[cfg(feature = "hub")]
use crate::store::StoreError;
use crate::tokens::Counting;
use crate::trace::{SpanFate, TraceError, Tracer};
use crate::{config, export};

#[cfg(feature = "hub")]
mod beside;
#[cfg(not(feature = "hub"))]
#[path = "alone.rs"]
mod beside;
#[cfg(feature = "hub")]
mod evaluator;
#[cfg(feature = "hub")]
mod hub;
#[cfg(feature = "hub")]
mod index;
mod injector;
#[cfg(feature = "hub")]
mod monitors;
#[cfg(feature = "hub")]
mod replaying;
mod shedding;
mod signals;

#[cfg(feature = "hub")]
pub use hub::{Hub, serve_evaluator, serve_hub};
pub use injector::serve_injector;
#[cfg(feature = "hub")]
pub use monitors::{MonitorError, plan_monitors, run_monitors, test_alerts};
#[cfg(feature = "hub")]
pub use replaying::{ReplayFailed, replay};

use beside::Beside;
use shedding::{MemoryWatch, fitted};
use signals::Waiting;

/// Why flowtap cannot start; the message names the address or the key.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A tap.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The admin listener.
    #[error(transparent)]
    Console(#[from] ConsoleError),
    /// An endpoint for spans.
    #[error(transparent)]
    Collector(#[from] CollectorError),
    /// The spool's folder.
    #[error("spool.dir: {0}")]
    Spool(#[from] SpoolError),
    /// The bucket.
    #[error("bucket: {0}")]
    Bucket(#[from] bucket::BucketError),
    /// A bucket's form for other tools.
    #[error("export: {0}")]
    Export(#[from] export::ExportError),
    /// The index.
    #[cfg(feature = "hub")]
    #[error("store.dir: {0}")]
    Store(#[from] StoreError),
    /// The trace exporter.
    #[error("trace.otlp_endpoint: {0}")]
    Trace(#[from] TraceError),
    /// The judge.
    #[cfg(feature = "hub")]
    #[error("judge: {0}")]
    Judge(#[from] JudgeFault),
    /// An evaluator without work.
    #[cfg(feature = "hub")]
    #[error("there is neither `judge` nor `evaluate`: an evaluator has nothing to do")]
    NothingToEvaluate,
    /// A target of alerts.
    #[cfg(feature = "hub")]
    #[error(transparent)]
    Alert(#[from] AlertError),
    /// The webhook.
    #[error(transparent)]
    Injector(#[from] InjectorError),
    /// A thread or a runtime.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// Takes traffic until SIGTERM or SIGINT, then drains. A second signal ends at once.
pub fn serve(config: &Config, role: Role) -> Result<(), StartError> {
    let waiting = Waiting::begin()?;
    let app = App::start(config, role)?;
    waiting.until_told(|| app.stop());
    Ok(())
}

/// What the workers beside the traffic stand on.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "hub"), expect(dead_code, reason = "a sidecar has few of them"))]
struct Ground<'a> {
    config: &'a Config,
    role: Role,
    bucket: &'a Arc<dyn Bucket>,
    /// Woken when the bucket has something new.
    uploaded: &'a Arc<Notify>,
    /// The runtime of what waits for something other than traffic.
    keeping: &'a Runtime,
    tracer: Option<&'a Tracer>,
    metrics: &'a Metrics,
    drain: &'a Drain,
}

/// A flowtap that takes traffic.
pub struct App {
    drain: Drain,
    memory_watch: Option<MemoryWatch>,
    stopping: CancellationToken,
    receiving: CancellationToken,
    archiving: watch::Sender<Option<tokio::time::Instant>>,
    administering: CancellationToken,
    runtime: Runtime,
    spool: Spool,
    tracer: Option<Tracer>,
    beside: Beside,
    ready: Ready,
    drain_timeout: Duration,
}

impl App {
    /// Starts everything. Doors are bound before anything runs, so that a taken port leaves no trace.
    /// `Role::Run` keeps an index and shows it; where that fails, it serves without.
    pub fn start(config: &Config, role: Role) -> Result<Self, StartError> {
        let (config, memory) = fitted(config);
        let config = &config;
        let metrics = Metrics::new(&config.metrics);
        metrics.build_info(env!("CARGO_PKG_VERSION"));
        config.taps.iter().for_each(|tap| metrics.tap_opened(&tap.name));
        let (drain, ready) = (Drain::default(), Ready::default());
        let mut console = Console::bind(&config.admin, metrics.clone(), ready.clone())?;
        let budget = MemoryBudget::new(config.capture.memory_bytes_max);
        let (told, collector) = bind_collector(config, &metrics, budget.shedding())?;

        let now = Timestamp::now();
        let (spool, recovery) =
            Spool::open(&config.spool, Arc::clone(&config.instance), metrics.clone(), now)?;
        report(&recovery);
        let tracer = start_tracer(config, &metrics)?;
        let counting = Counting::within(memory.as_ref().map(Memory::limit_bytes));
        let memory_watch = MemoryWatch::start(memory, &budget, &metrics, &drain)?;
        let (intake, outtake) =
            pipeline::intake(config.capture.queue_max, spool.ledger(), metrics.clone());
        let outlets = proxy::Outlets { intake, budget: budget.clone(), metrics: metrics.clone() };
        let proxy = Proxy::bind(config, &outlets)?;
        drop(outlets);

        let runtime = keeping_runtime()?;
        let bucket = runtime.block_on(bucket::open(&config.bucket))?;
        let (archiving, until) = watch::channel(None);
        let administering = CancellationToken::new();
        let (instance, place) = (Arc::clone(&config.instance), Arc::clone(&bucket));
        let archive = Archive::new(spool.clone(), place, spool.ledger(), metrics.clone(), instance);
        let uploaded = archive.uploaded();
        let ground = Ground {
            config,
            role,
            bucket: &bucket,
            uploaded: &uploaded,
            keeping: &runtime,
            tracer: tracer.as_ref(),
            metrics: &metrics,
            drain: &drain,
        };
        let (beside, announcer) = Beside::start(&ground, &mut console)?;
        let archive = archive.announcing(announcer);
        start_archive(archive, until, &drain)?;
        log_doors(&proxy, &console, collector.as_ref());
        runtime.spawn(console.serve(administering.clone()));
        let outlets = pipeline_outlets(metrics, &spool, tracer.clone(), budget, counting);
        Pipeline::new(config, outlets).start(outtake, told, &drain)?;
        let (receiving, stopping) = (CancellationToken::new(), CancellationToken::new());
        collector.map(|doors| doors.serve(&drain, receiving.clone())).transpose()?;
        proxy.serve(&drain, &stopping)?;
        ready.set(true);
        Ok(Self {
            drain,
            memory_watch,
            stopping,
            receiving,
            archiving,
            administering,
            runtime,
            spool,
            tracer,
            beside,
            ready,
            drain_timeout: config.drain_timeout,
        })
    }

    /// Drains, in the order of the flow; what meets the deadline is named in the log.
    pub fn stop(self) {
        let deadline = Instant::now() + self.drain_timeout;
        self.ready.set(false);
        self.stopping.cancel();
        self.beside.end_evaluating();
        let mut late = self.drain.join("traffic", deadline);
        // What no longer carries traffic is quick; it gets a moment even if traffic took all the time.
        let deadline = deadline.max(Instant::now() + Duration::from_secs(2));
        late.extend(self.drain.join("pipeline", deadline));
        late.extend(self.drain.join("tokens", deadline));
        // Exchanges have waited for their spans; now nobody does.
        self.receiving.cancel();
        late.extend(self.drain.join("collector", deadline));
        late.extend(self.drain.join("spans", deadline));
        let left = || deadline.saturating_duration_since(Instant::now());
        if !self.runtime.block_on(self.spool.close(left())) {
            late.push("spool".to_owned());
        }
        self.archiving.send_replace(Some(deadline.into()));
        late.extend(self.drain.join("archive", deadline));
        late.extend(self.beside.stop(&self.drain, deadline));
        if self.tracer.is_some_and(|tracer| !tracer.shutdown(left())) {
            late.push("spans".to_owned());
        }
        self.administering.cancel();
        drop(self.memory_watch);
        self.runtime.shutdown_timeout(Duration::from_millis(100));
        late.extend(self.beside.close(&self.drain, deadline));
        if late.is_empty() {
            tracing::info!("drained");
        } else {
            tracing::warn!(
                ?late,
                "the drain deadline passed; what the spool holds goes to the bucket after the next start"
            );
        }
    }
}

/// What the pipeline hands on to.
fn pipeline_outlets(
    metrics: Metrics,
    spool: &Spool,
    tracer: Option<Tracer>,
    budget: MemoryBudget,
    counting: Counting,
) -> pipeline::Outlets {
    let (ledger, spool) = (spool.ledger(), spool.writer());
    pipeline::Outlets { metrics, ledger, spool, tracer, budget, counting }
}

/// The archive on a thread of its own; `until` tells it to end.
fn start_archive(
    archive: Archive,
    until: watch::Receiver<Option<tokio::time::Instant>>,
    drain: &Drain,
) -> std::io::Result<()> {
    let runtime = drain::runtime(Builder::new_current_thread())?;
    drain.thread("archive", move || runtime.block_on(archive.run(until)))
}

/// The runtime of all that waits for something other than traffic.
fn keeping_runtime() -> std::io::Result<Runtime> {
    let mut runtime = Builder::new_multi_thread();
    // Whoever asks the page for much may take what traffic leaves, and no more.
    runtime.worker_threads(1).thread_name("keeping").on_thread_start(drain::step_back);
    drain::runtime(runtime)
}

/// Checks the ledger of the bucket `settings` against what lies there.
pub fn verify(settings: &config::Bucket) -> Result<archive::Report, StartError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let verified = async { archive::verify(&*bucket::open(settings).await?).await };
    Ok(runtime.block_on(verified)?)
}

/// Writes what lies in the bucket `source` to the bucket `target`, in the form asked for.
pub fn export(
    form: export::Form,
    source: &config::Bucket,
    target: &config::Bucket,
    settings: &export::Settings,
) -> Result<export::Report, StartError> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let exported = async {
        let (source, target) = (bucket::open(source).await?, bucket::open(target).await?);
        Ok(export::write(form, &*source, &*target, settings).await?)
    };
    runtime.block_on(exported)
}

/// The endpoints for spans, if there are any, and the pipeline's end of what they hand over.
fn bind_collector(
    config: &Config,
    metrics: &Metrics,
    shedding: &Shedding,
) -> Result<(Option<SpanOuttake>, Option<Collector>), CollectorError> {
    let Some(settings) = &config.collector else { return Ok((None, None)) };
    let (intake, outtake) = pipeline::span_intake(shedding);
    let collector = Collector::bind(settings, config, intake, metrics.clone())?;
    Ok((Some(outtake), collector))
}

/// The exporter of spans, if there is one.
fn start_tracer(config: &Config, metrics: &Metrics) -> Result<Option<Tracer>, TraceError> {
    let Some(trace) = &config.trace else { return Ok(None) };
    let metrics = metrics.clone();
    let fates = Arc::new(move |fate, spans| match fate {
        SpanFate::Exported => metrics.spans_exported(spans),
        SpanFate::Overflowed | SpanFate::Failed | SpanFate::Abandoned => {
            metrics.spans_dropped(spans)
        }
    });
    Tracer::start(trace, &config.instance, fates).map(Some)
}

fn report(recovery: &Recovery) {
    if let Some(window) = &recovery.unaccounted {
        tracing::warn!(
            ?window,
            "the last run ended without a shutdown; this window cannot be accounted for"
        );
    }
    if let Some(reason) = &recovery.unusable {
        tracing::error!(
            reason,
            "the spool cannot be used for now: samples are dropped and counted, traffic passes"
        );
    }
    tracing::info!(
        segments = recovery.segments,
        rows = recovery.rows,
        damages = recovery.damages,
        set_aside = recovery.set_aside,
        "spool opened"
    );
}

fn log_doors(proxy: &Proxy, console: &Console, collector: Option<&Collector>) {
    for (tap, address) in proxy.addresses() {
        tracing::info!(tap = &*tap, %address, "listening");
    }
    for (protocol, address) in collector.into_iter().flat_map(Collector::addresses) {
        tracing::info!(door = protocol.label(), %address, "listening");
    }
    if let Some(address) = console.address() {
        tracing::info!(door = "admin", %address, "listening");
    }
}
