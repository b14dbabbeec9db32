//! How fast a bucket that fails is tried again.

use std::time::Duration;

/// Failures in a row after which the breaker opens: one object at a time is tried, no more.
const OPEN_AT: u32 = 5;

/// Exponential back-off with jitter, and a breaker. While it is open, each attempt is a probe
/// (half-open); one success closes it.
#[derive(Debug)]
pub(super) struct Pace {
    /// The first wait; each further one is twice as long.
    first: Duration,
    /// The longest wait, and the only one where trying sooner cannot help (wrong name, no permission).
    longest: Duration,
    failures: u32,
}

impl Pace {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Notes a failure; the answer is how long to wait. `chance` in `[0, 1)` spreads the waits of
    /// many sidecars over the upper half of the range.
    pub(super) fn failed(&mut self, transient: bool, chance: f64) -> Duration {
        let doublings = self.failures.min(20);
        self.failures = self.failures.saturating_add(1);
        let doubled = self.first.saturating_mul(1 << doublings);
        let wait = if transient { doubled.min(self.longest) } else { self.longest };
        wait.mul_f64(0.5 + 0.5 * chance)
    }

    pub(super) fn is_open(&self) -> bool {
        self.failures >= OPEN_AT
    }

    /// True where the last attempt failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(Duration::from_millis(500), Duration::from_secs(60))
    }

    #[test]
    fn waits_double_up_to_a_minute_and_success_resets_them() {
        let mut pace = pace();
        let waits: Vec<_> = (0..10).map(|_| pace.failed(true, 1.0).as_millis()).collect();
        assert_eq!(waits[..4], [500, 1000, 2000, 4000]);
        assert_eq!(waits[9], 60_000);
        assert!(pace.is_open());
        pace.succeeded();
        assert!(!pace.is_open() && !pace.is_failing());
        assert_eq!(pace.failed(true, 0.0).as_millis(), 250, "jitter takes up to half");
    }

    #[test]
    fn what_trying_sooner_cannot_help_waits_a_minute_at_once() {
        assert_eq!(pace().failed(false, 1.0), Duration::from_secs(60));
    }
}
