//! `flowtap injector`: the webhook alone. No tap, no spool, no bucket.

use std::time::Duration;

use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;

use super::StartError;
use super::signals::Signals;
use crate::config::MetricsLimits;
use crate::injector::{Injector, Settings};
use crate::metrics::Metrics;

/// Serves the webhook until SIGTERM or SIGINT; reviews under way get a moment.
pub fn serve_injector(settings: Settings) -> Result<(), StartError> {
    let metrics = Metrics::new(&MetricsLimits { models_max: 1, deployments_max: 1 });
    metrics.build_info(env!("CARGO_PKG_VERSION"));
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let inside = runtime.enter();
    let mut signals = Signals::heard()?;
    drop(inside);
    let injector = Injector::bind(settings, metrics)?;
    if let Some(address) = injector.address() {
        tracing::info!(door = "injector", %address, "listening");
    }
    let stopping = CancellationToken::new();
    let serving = runtime.spawn(injector.serve(stopping.clone()));
    runtime.block_on(async {
        signals.told().await;
        stopping.cancel();
        // A second signal ends at once.
        tokio::select! {
            _ = serving => {}
            () = signals.told() => {}
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    tracing::info!("ended");
    Ok(())
}
