//! Counts what the store knows of a window: the way of a hub, which needs no look at the bucket.

use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::reader::Counted;
use super::tally::{Chance, Labels, Tally};
use super::window::Window;
use crate::config::Monitor;
use crate::domain::{Outcome, Scope};
use crate::store::{self, Axis, Filter, Store, StoreError};

/// A run waits for an index that lags, so long at most; then it reads the bucket.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// When the last look at the bucket began after which the store had all of it; `None` before the first.
type CaughtUp = Arc<dyn Fn() -> Option<Timestamp> + Send + Sync>;

/// A store, and how far it is.
#[derive(Clone)]
pub struct Indexed {
    store: Store,
    caught_up: CaughtUp,
}

impl fmt::Debug for Indexed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Indexed").finish_non_exhaustive()
    }
}

impl Indexed {
    /// Counts in `store`, as far as `caught_up` says.
    pub fn new(store: Store, caught_up: CaughtUp) -> Self {
        Self { store, caught_up }
    }

    /// Whether the store has all of a window: it has looked since the window's end, and has not yet
    /// forgotten its beginning.
    pub(super) fn has(&self, window: &Window) -> bool {
        let begins = self.store.horizon().is_ok_and(|horizon| horizon <= window.from);
        begins && (self.caught_up)().is_some_and(|looked| looked >= window.to)
    }

    /// Whether a run that is due at `due` should wait: the index will have it soon.
    pub(super) fn is_early(&self, due: Timestamp, now: Timestamp) -> bool {
        let behind = (self.caught_up)().is_none_or(|looked| looked < due);
        behind && now.duration_since(due) < PATIENCE
    }

    /// Counts all that `monitor` needs of `window`, which should begin and end with a minute.
    pub(super) fn count(&self, monitor: &Monitor, window: &Window) -> Result<Counted, StoreError> {
        let mut tally = Tally::new(window.clone(), monitor.scope.clone());
        let scope = &monitor.scope;
        for (from, to) in window.pieces() {
            let piece = store::Window { from, to };
            if monitor.tokens.is_some() || monitor.operations.is_some() {
                self.usage(piece, scope, &mut tally)?;
            }
            if monitor.quality.is_some() {
                self.scores(piece, scope, &mut tally)?;
            }
        }
        Ok(Counted { tally, unreadable: 0 })
    }

    fn usage(
        &self,
        piece: store::Window,
        scope: &Scope,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        let axes = [Axis::Tap, Axis::Deployment, Axis::Model, Axis::Outcome];
        for sums in self.store.usage(piece, &filter(scope, scope.model.as_deref()), None, &axes)? {
            let [tap, deployment, model, outcome] = sums.group.as_slice() else { continue };
            let outcome = Outcome::ALL.iter().find(|known| known.label() == outcome);
            if let Some(outcome) = outcome.copied() {
                let labels = Labels { tap, deployment, model, outcome };
                tally.usage(piece.from, &labels, &sums.totals);
            }
        }
        Ok(())
    }

    fn scores(
        &self,
        piece: store::Window,
        scope: &Scope,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        for row in self.store.quality(piece, &filter(scope, None), None, None)? {
            for (grade, scored) in row.sums.valid() {
                let chance = Chance { probability: scored.probability, least: scored.least };
                tally.score(&row.by, piece.from, grade, chance, scored.count);
            }
            // A judge that failed its own test has said nothing that could raise an alert.
            let unscored = row.sums.failed() + row.sums.drifted();
            tally.unscored = tally.unscored.saturating_add(unscored);
        }
        Ok(())
    }
}

fn filter(scope: &Scope, model: Option<&str>) -> Filter {
    Filter {
        tap: scope.tap.as_deref().map(str::to_owned),
        deployment: scope.deployment.as_deref().map(str::to_owned),
        model: model.map(str::to_owned),
        outcome: None,
    }
}
