//! What ends the process: SIGTERM and SIGINT, heard from before anything listens. Later, one that comes as
//! soon as a tap takes traffic would end the process without a drain; and the first process of a container,
//! for which Linux drops signals that nobody handles, would not end at all.

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::drain::Drain;

/// Signals from the moment on at which it was made.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens; inside of a runtime.
    pub(super) fn heard() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Ends with SIGTERM or SIGINT. SIGHUP, by which others read their settings again, ends nothing here.
    pub(super) async fn told(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    tracing::warn!("SIGHUP: the configuration is read at the start alone; it stays as it was");
                }
            }
        }
    }
}

/// Who waits for signals while others work.
pub(super) struct Waiting {
    runtime: Runtime,
    signals: Signals,
}

impl Waiting {
    /// Listens from now on.
    pub(super) fn begin() -> std::io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let inside = runtime.enter();
        let signals = Signals::heard()?;
        drop(inside);
        Ok(Self { runtime, signals })
    }

    /// Waits for SIGTERM or SIGINT, then does `stop`; a second signal ends at once.
    pub(super) fn until_told(mut self, stop: impl FnOnce()) {
        self.runtime.block_on(self.signals.told());
        tracing::info!("draining");
        let listening = Drain::default().thread("impatience", move || {
            self.runtime.block_on(self.signals.told());
            std::process::exit(1);
        });
        if let Err(error) = listening {
            tracing::warn!(%error, "no thread for a second signal: the drain takes the time it takes");
        }
        stop();
    }
}
