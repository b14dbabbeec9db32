//! Looking gives way to traffic: where our own work takes too long too often, less is looked at.
//!
//! Each exchange tells how long our own code held it up. Where the 99th percentile lies above the limit
//! in two windows in a row, looking goes one level down (`domain::CaptureLevel`), and up again after
//! some windows in which it does not; a level that did not hold is left alone for twice as long. The
//! percentile needs no histogram: it lies above the limit if more than one exchange of a hundred does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::domain::{CaptureLevel, MemoryBudget, ShedCause};
use crate::metrics::Metrics;

/// How long exchanges are counted before it is judged by them.
const WINDOW: Duration = Duration::from_secs(10);
/// Fewer say nothing of a 99th percentile, nor do they cost much.
const EXCHANGES_MIN: u64 = 200;
/// Windows above the limit, one after the other, before less is looked at.
const STRIKES: u32 = 2;
/// Windows below it before more is looked at; doubled each time that it did not last.
const CALM: u32 = 3;
const CALM_MAX: u32 = 48;

/// What all taps share. Noting costs one or two additions.
pub struct Governor {
    limit_us: Option<u64>,
    exchanges: AtomicU64,
    above: AtomicU64,
    state: Mutex<State>,
    budget: MemoryBudget,
    metrics: Metrics,
}

/// What the windows so far came to.
#[derive(Debug)]
struct State {
    began: Option<Instant>,
    level: CaptureLevel,
    strikes: u32,
    calm: u32,
    calm_needed: u32,
}

impl Governor {
    /// A governor that steers what `budget` grants; a limit of zero never lowers anything.
    pub fn new(limit: Duration, budget: MemoryBudget, metrics: Metrics) -> Self {
        let limit_us = u64::try_from(limit.as_micros()).ok().filter(|limit| *limit > 0);
        let (exchanges, above) = (AtomicU64::new(0), AtomicU64::new(0));
        let state = Mutex::new(State::new());
        Self { limit_us, exchanges, above, state, budget, metrics }
    }

    /// Our own work on an exchange took `own_us`.
    pub fn note(&self, own_us: u64) {
        let Some(limit_us) = self.limit_us else { return };
        self.exchanges.fetch_add(1, Ordering::Relaxed);
        if own_us > limit_us {
            self.above.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Judges the window if it is over; to be called now and then, by whomever.
    pub fn look(&self, now: Instant) {
        if self.limit_us.is_none() {
            return;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let began = *state.began.get_or_insert(now);
        if now.saturating_duration_since(began) < WINDOW {
            return;
        }
        state.began = Some(now);
        let exchanges = self.exchanges.swap(0, Ordering::Relaxed);
        let above = self.above.swap(0, Ordering::Relaxed);
        let before = state.level;
        state.judge(exchanges, above);
        if state.level != before {
            self.tell(state.level, exchanges, above);
        }
    }

    fn tell(&self, level: CaptureLevel, exchanges: u64, above: u64) {
        self.budget.shedding().ask(ShedCause::Overhead, level);
        self.metrics.capture_level(ShedCause::Overhead, level);
        tracing::warn!(
            level = level.label(),
            exchanges,
            above,
            "how much is looked at has changed, for the time that looking takes"
        );
    }
}

impl State {
    fn new() -> Self {
        let level = CaptureLevel::Full;
        Self { began: None, level, strikes: 0, calm: 0, calm_needed: CALM }
    }

    fn judge(&mut self, exchanges: u64, above: u64) {
        let is_over = exchanges >= EXCHANGES_MIN && above.saturating_mul(100) > exchanges;
        if !is_over {
            (self.strikes, self.calm) = (0, self.calm + 1);
            if self.level != CaptureLevel::Full && self.calm >= self.calm_needed {
                self.calm = 0;
                self.go(-1);
            }
            return;
        }
        (self.strikes, self.calm) = (self.strikes + 1, 0);
        if self.strikes >= STRIKES && self.level != CaptureLevel::Off {
            self.strikes = 0;
            self.calm_needed = (self.calm_needed * 2).min(CALM_MAX);
            self.go(1);
        }
    }

    fn go(&mut self, steps: isize) {
        let at = (self.level as usize).saturating_add_signed(steps);
        self.level = CaptureLevel::ALL.get(at).copied().unwrap_or(self.level);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::MetricsLimits;

    /// The levels after each of `windows`, of which each has so many exchanges above the limit, of 2000.
    fn levels(windows: &[u64]) -> Vec<CaptureLevel> {
        let metrics = Metrics::new(&MetricsLimits { models_max: 1, deployments_max: 1 });
        let budget = MemoryBudget::new(1);
        let governor = Governor::new(Duration::from_millis(1), budget.clone(), metrics);
        let mut now = Instant::now();
        governor.look(now);
        let mut after = |above: &u64| {
            (0..2_000).for_each(|n| governor.note(if n < *above { 1_001 } else { 1_000 }));
            now += WINDOW;
            governor.look(now);
            budget.shedding().now().map_or(CaptureLevel::Full, |shed| shed.level)
        };
        windows.iter().map(&mut after).collect()
    }

    #[test]
    fn less_is_looked_at_after_two_windows_above_the_limit() {
        use CaptureLevel::{Full, Headers, Metrics, Off};
        assert_eq!(levels(&[20; 4]), [Full; 4], "one of a hundred is the percentile itself");
        assert_eq!(levels(&[21, 0, 21, 0]), [Full; 4], "one window says nothing");
        let down = [Full, Headers, Headers, Metrics, Metrics, Off, Off, Off];
        assert_eq!(levels(&[2_000; 8]), down);
    }

    #[test]
    fn more_is_looked_at_again_once_it_has_been_calm_and_later_each_time() {
        use CaptureLevel::{Full, Headers};
        let once = levels(&[21, 21, 0, 0, 0, 0, 0, 0]);
        assert_eq!(once[1..], [&[Headers; 6][..], &[Full]].concat(), "six windows");
        let twice = levels(&[&[21, 21][..], &[0; 6], &[21, 21], &[0; 12]].concat());
        assert_eq!(twice[7..9], [Full; 2]);
        assert_eq!(twice[9..], [&[Headers; 12][..], &[Full]].concat(), "twelve windows");
    }

    #[test]
    fn few_exchanges_and_no_limit_lower_nothing() {
        let metrics = Metrics::new(&MetricsLimits { models_max: 1, deployments_max: 1 });
        let budget = MemoryBudget::new(1);
        for (limit, count) in [(Duration::ZERO, 5_000), (Duration::from_millis(1), 199)] {
            let governor = Governor::new(limit, budget.clone(), metrics.clone());
            let mut now = Instant::now();
            for _ in 0..4 {
                governor.look(now);
                (0..count).for_each(|_| governor.note(5_000));
                now += WINDOW;
            }
            governor.look(now);
            assert!(budget.shedding().is_full(), "{limit:?}");
        }
    }
}
