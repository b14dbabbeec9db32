//! Looking less where memory runs short: the watch over what the process takes.

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::config::Config;
use crate::domain::{CaptureLevel, MemoryBudget, ShedCause, Shedding};
use crate::drain::Drain;
use crate::memory::Memory;
use crate::metrics::Metrics;

/// How often it looks. What captures may take within that time is bounded by their own budget.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The configuration made to fit the memory that there is, and that memory.
pub(super) fn fitted(config: &Config) -> (Config, Option<Memory>) {
    let mut config = config.clone();
    let memory = Memory::find(config.capture.process_bytes_max);
    if let Some(memory) = &memory {
        let made_smaller = config.fit(memory.limit_bytes()).join(", ");
        tracing::info!(limit_bytes = memory.limit_bytes(), made_smaller, "memory is limited");
    }
    (config, memory)
}

/// The thread that watches; it ends when this is dropped.
pub(super) struct MemoryWatch {
    _alive: SyncSender<()>,
}

impl MemoryWatch {
    /// Starts it, where memory is limited; what it decides holds for all that `budget` is given to.
    pub(super) fn start(
        memory: Option<Memory>,
        budget: &MemoryBudget,
        metrics: &Metrics,
        drain: &Drain,
    ) -> std::io::Result<Option<Self>> {
        let Some(memory) = memory else { return Ok(None) };
        let (shedding, metrics) = (budget.shedding().clone(), metrics.clone());
        let (alive, ended) = sync_channel(0);
        metrics.memory_limit(memory.limit_bytes());
        drain.thread("memory", move || {
            let mut level = CaptureLevel::Full;
            while ended.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                level = look(&memory, &shedding, &metrics, level);
            }
        })?;
        Ok(Some(Self { _alive: alive }))
    }
}

/// Asks for the level that the memory in use allows.
fn look(
    memory: &Memory,
    shedding: &Shedding,
    metrics: &Metrics,
    before: CaptureLevel,
) -> CaptureLevel {
    let Some(used_bytes) = memory.used_bytes() else { return before };
    let level = memory.level(used_bytes, before);
    metrics.memory_used(used_bytes);
    if level != before {
        shedding.ask(ShedCause::Memory, level);
        metrics.capture_level(ShedCause::Memory, level);
        tracing::warn!(
            used_bytes,
            limit_bytes = memory.limit_bytes(),
            from = before.label(),
            to = level.label(),
            "memory decides how much is looked at; traffic passes as before"
        );
    }
    level
}
