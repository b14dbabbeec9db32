//! Evidence against a threshold that stays valid however often it is looked at.
//!
//! It is the capital of someone who bets against the threshold, starting with 1. With `m` the threshold
//! and `x = w (m - y) / c` (or `w (y - m) / c` where the figure may not lie above `m`), a bettor who
//! always stakes the share `λ` of the capital has `K(λ) = Π (1 + λ x)`. `c` is the worst that one
//! observation can do to the bettor, so `x ≥ -1` and the capital stays positive. If the mean is on the
//! good side of the threshold, no bet gains in expectation: `K(λ)` is a non-negative supermartingale,
//! and by Ville's inequality its maximum over **all** times exceeds `b` with probability `1 / b` at
//! most. The evidence is the mean of `K(λ)` over fixed stakes, which is a supermartingale as well.
//! Turned around, the thresholds that it does not reject are a confidence sequence: this is the grid of
//! constant bets ("GridKelly", "diversified bets") of Waudby-Smith & Ramdas, *Estimating means of
//! bounded random variables by betting*, JRSS B 86 (2024), sections 4.4 and 5.2; see also Orabona & Jun
//! (2024) on universal portfolios.
//!
//! Constant stakes have two more merits. The capital does not depend on the order of the observations, so
//! counts by value and weight suffice. And it stays valid where the mean moves about (nights differ from
//! days) as long as its average is on the good side: `Π (1 + λ x)` divided by `Π (1 + λ μ)` is a
//! martingale, and `Π (1 + λ μ) ≤ exp(λ Σ μ) ≤ 1`.
//!
//! Weights come in by counting requests that were not sampled as `x = 0`, which leaves the capital as it
//! is: with `w = 1 / p` the expectation of `x` over the sampling is that of `(m - y) / c`.

/// Stakes, from timid (many observations, little deviation) to bold.
pub(super) const STAKES: [f64; 12] =
    [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.55, 0.9];

/// What an infinite capital is shown as: it has to be a number of JSON.
const MOST: f64 = 1e300;

/// The capital of each stake.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// Natural logarithms.
    logs: [f64; STAKES.len()],
}

impl Default for Evidence {
    fn default() -> Self {
        Self { logs: [0.0; STAKES.len()] }
    }
}

impl Evidence {
    /// Adds `count` observations whose weighted deviation to the bad side is `deviation`, where none
    /// can deviate to the good side by more than `worst`.
    pub fn add(&mut self, deviation: f64, worst: f64, count: u64) {
        if count == 0 || deviation == 0.0 {
            return;
        }
        if worst <= 0.0 {
            // The threshold is the end of the scale: anything below it is a proof.
            let proof = if deviation > 0.0 { f64::INFINITY } else { 0.0 };
            self.logs.iter_mut().for_each(|log| *log += proof);
            return;
        }
        let x = (deviation / worst).max(-1.0);
        for (log, stake) in self.logs.iter_mut().zip(STAKES) {
            *log += count as f64 * (stake * x).ln_1p();
        }
    }

    /// The e-value: 1 at first; at most 1 in expectation while all is well.
    pub fn value(&self) -> f64 {
        let top = self.logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if top == f64::INFINITY {
            return MOST;
        }
        let sum: f64 = self.logs.iter().map(|log| (log - top).exp()).sum();
        ((sum / STAKES.len() as f64).ln() + top).exp().min(MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_and_the_grouping_of_observations_do_not_matter() {
        let (mut one, mut other) = (Evidence::default(), Evidence::default());
        for _ in 0..7 {
            one.add(1.5, 2.0, 1);
            one.add(-0.5, 2.0, 2);
        }
        other.add(-0.5, 2.0, 14);
        other.add(1.5, 2.0, 7);
        assert!((one.value() - other.value()).abs() < 1e-9 * one.value());
    }

    #[test]
    fn capital_grows_on_the_bad_side_and_shrinks_on_the_good_one() {
        let mut evidence = Evidence::default();
        assert!((evidence.value() - 1.0).abs() < 1e-12);
        evidence.add(-1.0, 1.0, 100);
        assert!(evidence.value() < 1.0);
        evidence.add(1.0, 1.0, 300);
        assert!(evidence.value() > 1e6);
        evidence.add(1e9, 1.0, 1_000_000);
        assert_eq!(evidence.value(), 1e300, "a number of JSON");
    }

    #[test]
    fn where_the_threshold_ends_the_scale_one_counterexample_is_a_proof() {
        let mut evidence = Evidence::default();
        evidence.add(0.0, 0.0, 1_000);
        assert!((evidence.value() - 1.0).abs() < 1e-12);
        evidence.add(0.5, 0.0, 1);
        assert_eq!(evidence.value(), 1e300);
    }

    /// The expectation is 1 at the threshold, whatever the distribution: here over all outcomes of a
    /// small experiment, exactly.
    #[test]
    fn in_expectation_nothing_is_won_at_the_threshold() {
        let (m, n) = (0.25_f64, 12_u64);
        let choose = |k: u64| (0..k).fold(1.0, |c, i| c * (n - i) as f64 / (i + 1) as f64);
        let expectation: f64 = (0..=n)
            .map(|k| {
                let mut evidence = Evidence::default();
                evidence.add(1.0 - m, m, k);
                evidence.add(-m, m, n - k);
                choose(k) * m.powi(k as i32) * (1.0 - m).powi((n - k) as i32) * evidence.value()
            })
            .sum();
        assert!((expectation - 1.0).abs() < 1e-9, "{expectation}");
    }
}
