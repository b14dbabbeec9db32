//! Averages and shares of what was sampled with unequal probabilities, with their 95% intervals.
//!
//! Every observation weighs `1 / p`, where `p` is the probability with which it came to be looked at.
//! The estimate is Hájek's ratio `ŷ = Σ w y / Σ w` (Hájek 1971; Särndal, Swensson & Wretman, *Model
//! Assisted Survey Sampling*, 1992, eq. 5.7.4). Its variance is that of the linearised ratio,
//! `v = Σ w² e² / (1 - h) / (Σ w)²` with `e = y - ŷ` and leverage `h = w / Σ w` (HC2, MacKinnon & White
//! 1985). Without a finite-population correction it is the variance of `ŷ` around the mean of the
//! process that the requests came from, not only of those requests that happened to be made: that is
//! what a monitor asks about. The degrees of freedom are Satterthwaite's, `(Σ w²)² / Σ w⁴ - 1`.
//!
//! Student's quantile is statrs' below a thousand degrees of freedom, and from there on the expansion of
//! Abramowitz & Stegun, 26.7.5: the inverse of the incomplete beta function that statrs takes loses digits
//! as the degrees grow (six are left at 100,000, none at ten million), the expansion gains them.
//!
//! - The interval of an **average** is Student's, around observations to which half the greatest weight
//!   each is added at both ends of the scale. Without them the interval of thirty fives would be a point
//!   (the idea of Agresti & Coull 1998, for a bounded mean). The greatest is that which any observation
//!   could have, seen or not: where one request in a hundred is kept, and all errors, the first
//!   observations are errors that weigh 1 each, and say next to nothing.
//!
//! - The interval of a **share** is Wilson's with the effective sample size of Korn & Graubard (1998),
//!   `p (1 - p) / v`, and Student's quantile. Share and variance in that size are those with the greatest
//!   weight added at both ends: where what fails is kept more often than what does not, the variance of
//!   a few observations says too little or too much, and no limit of the size by their number mends that.
//!
//! `monitor::tests` holds both to their coverage on thousands of windows whose truth is known.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Observations of one value and weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class {
    /// What was observed.
    pub value: f64,
    /// `1 / p`; 1 or more.
    pub weight: f64,
    /// The most that any could have weighed, seen or not: `1 / p` for the least `p` of their draw.
    pub heaviest: f64,
    /// How often.
    pub count: u64,
}

/// A figure with its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The figure.
    pub value: f64,
    /// Lower end of the 95% interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Observations.
    pub count: u64,
    /// Kish's effective number of them, `(Σ w)² / Σ w²`.
    pub effective: f64,
}

/// Both tails together are 5%.
const UPPER_TAIL: f64 = 0.975;
/// Its quantile of the normal distribution.
pub(super) const Z95: f64 = 1.959_963_984_540_054;
/// From so many degrees of freedom on, Student's quantile is expanded: the first term that is left out
/// is below 1e-14 of it there.
const EXPANDED_FROM: f64 = 1_000.0;

/// The average of values from `lowest` to `highest`; `None` without any.
pub fn average(classes: &[Class], lowest: f64, highest: f64) -> Option<Estimate> {
    let plain = Moments::of(classes)?;
    let padded = with_ends(classes, [lowest, highest], 0.5);
    let moments = Moments::of(&padded)?;
    let half = moments.quantile() * moments.variance(&padded).sqrt();
    Some(Estimate {
        value: plain.mean,
        low: (moments.mean - half).max(lowest).min(plain.mean),
        high: (moments.mean + half).min(highest).max(plain.mean),
        count: plain.count,
        effective: plain.effective(),
    })
}

/// The share of observations with the value 1 among those with 0 or 1; `None` without any.
pub fn share(classes: &[Class]) -> Option<Estimate> {
    let plain = Moments::of(classes)?;
    let padded = with_ends(classes, [0.0, 1.0], 1.0);
    let moments = Moments::of(&padded)?;
    let n = (moments.mean * (1.0 - moments.mean) / moments.variance(&padded)).max(1.0);
    let p = plain.mean.clamp(0.0, 1.0);
    let (low, high) = wilson(p, n, moments.quantile());
    let (count, effective) = (plain.count, plain.effective());
    Some(Estimate { value: p, low: low.min(p), high: high.max(p), count, effective })
}

/// The observations, and one at each of the `ends` that weighs `part` of the most that any could.
fn with_ends(classes: &[Class], ends: [f64; 2], part: f64) -> Vec<Class> {
    let heaviest = heaviest(classes);
    let mut all = classes.to_vec();
    all.extend(ends.map(|value| Class { value, weight: part * heaviest, heaviest, count: 1 }));
    all
}

/// The most that any observation could have weighed; 0 without any.
pub(super) fn heaviest(classes: &[Class]) -> f64 {
    classes.iter().map(|class| class.heaviest.max(class.weight)).fold(0.0, f64::max)
}

/// Wilson's score interval (Wilson 1927) of a share `p` of `n` observations, `z` deviations wide.
pub fn wilson(p: f64, n: f64, z: f64) -> (f64, f64) {
    let shrink = 1.0 + z * z / n;
    let middle = (p + z * z / (2.0 * n)) / shrink;
    let half = z / shrink * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).max(0.0).sqrt();
    ((middle - half).max(0.0), (middle + half).min(1.0))
}

/// Sums over the observations.
struct Moments {
    count: u64,
    weights: f64,
    squares: f64,
    fourths: f64,
    mean: f64,
}

impl Moments {
    fn of(classes: &[Class]) -> Option<Self> {
        let sum = |of: fn(&Class) -> f64| -> f64 {
            classes.iter().map(|class| class.count as f64 * of(class)).sum()
        };
        let weights = sum(|class| class.weight);
        (weights > 0.0).then(|| Self {
            count: classes.iter().map(|class| class.count).fold(0, u64::saturating_add),
            weights,
            squares: sum(|class| class.weight.powi(2)),
            fourths: sum(|class| class.weight.powi(4)),
            mean: sum(|class| class.weight * class.value) / weights,
        })
    }

    fn effective(&self) -> f64 {
        self.weights.powi(2) / self.squares
    }

    fn variance(&self, classes: &[Class]) -> f64 {
        let term = |class: &Class| {
            let leverage = (class.weight / self.weights).min(0.99);
            let error = class.value - self.mean;
            class.count as f64 * (class.weight * error).powi(2) / (1.0 - leverage)
        };
        classes.iter().map(term).sum::<f64>() / self.weights.powi(2)
    }

    /// Student's quantile of the 95% interval.
    fn quantile(&self) -> f64 {
        student((self.squares.powi(2) / self.fourths - 1.0).max(1.0))
    }
}

/// Student's quantile of the 95% interval with so many degrees of freedom, to twelve digits or so.
fn student(freedom: f64) -> f64 {
    if freedom >= EXPANDED_FROM {
        return expanded(freedom);
    }
    StudentsT::new(0.0, 1.0, freedom).map_or(f64::INFINITY, |t| t.inverse_cdf(UPPER_TAIL))
}

/// The same for many degrees of freedom: Abramowitz & Stegun 1964, 26.7.5.
fn expanded(freedom: f64) -> f64 {
    let (z, square) = (Z95, Z95 * Z95);
    // Polynomials in the square, the highest power first.
    let of = |terms: &[f64]| terms.iter().fold(0.0, |sum, term| sum * square + term) * z;
    let series = [
        of(&[79.0, 776.0, 1482.0, -1920.0, -945.0]) / 92_160.0,
        of(&[3.0, 19.0, 17.0, -15.0]) / 384.0,
        of(&[5.0, 16.0, 3.0]) / 96.0,
        of(&[1.0, 1.0]) / 4.0,
        z,
    ];
    series.iter().fold(0.0, |sum, term| sum / freedom + term)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(value: f64, weight: f64, count: u64) -> Class {
        Class { value, weight, heaviest: weight, count }
    }

    fn near(a: f64, b: f64) {
        assert!((a - b).abs() < 5e-4, "{a} is not {b}");
    }

    #[test]
    fn a_weighted_average_is_the_ratio_of_the_sums() {
        let of = average(&[class(5.0, 10.0, 9), class(1.0, 1.0, 10)], 1.0, 5.0).unwrap();
        near(of.value, (5.0 * 90.0 + 10.0) / 100.0);
        near(of.effective, 100.0 * 100.0 / 910.0);
        assert_eq!(of.count, 19);
        assert!(of.low < of.value && of.value <= of.high && of.high <= 5.0);
    }

    #[test]
    fn equal_weights_give_the_textbook_s_student_interval_but_for_the_two_ends() {
        // 100 values: 50 twos, 50 fours, and one at either end with half a weight.
        let of = average(&[class(2.0, 1.0, 50), class(4.0, 1.0, 50)], 1.0, 5.0).unwrap();
        near(of.value, 3.0);
        near(of.high - of.value, of.value - of.low);
        // s = 1.005 and t = 1.984 without the two ends: 0.1994.
        assert!((0.199..0.205).contains(&(of.high - of.value)), "{of:?}");
    }

    #[test]
    fn thirty_fives_do_not_prove_that_all_are_fives() {
        let of = average(&[class(5.0, 1.0, 30)], 1.0, 5.0).unwrap();
        assert_eq!((of.value, of.high), (5.0, 5.0));
        assert!((4.6..4.9).contains(&of.low), "{of:?}");
        let share = share(&[class(1.0, 1.0, 30)]).unwrap();
        assert!((0.85..0.90).contains(&share.low) && share.high == 1.0, "{share:?}");
    }

    #[test]
    fn wilson_is_as_published() {
        // Newcombe 1998, table I: 81 of 263.
        let (low, high) = wilson(81.0 / 263.0, 263.0, 1.959_964);
        near(low, 0.2553);
        near(high, 0.3662);
        let (low, high) = wilson(0.0, 20.0, 1.959_964);
        near(low, 0.0);
        near(high, 0.1611);
    }

    #[test]
    fn student_s_quantile_keeps_its_digits_however_many_degrees_there_are() {
        // By mpmath with 40 digits: the root of the incomplete beta function.
        for (freedom, quantile) in [
            (1.0, 12.706_204_736_174_705),
            (3.7, 2.867_520_707_191_189_5),
            (29.0, 2.045_229_642_132_704_3),
            (250.0, 1.969_498_393_421_153_6),
            (999.0, 1.962_341_461_133_45),
            (1_000.0, 1.962_339_080_826_408_5),
            (10_000.0, 1.960_201_239_890_626_3),
            (100_000.0, 1.959_987_707_534_609_6),
            (1_000_000.0, 1.959_966_356_814_107),
            (10_000_000.0, 1.959_964_221_767_205_5),
        ] {
            let of = student(freedom);
            assert!((of / quantile - 1.0).abs() < 1e-11, "{freedom}: {of} is not {quantile}");
        }
    }

    #[test]
    fn nothing_has_no_figure() {
        assert_eq!(average(&[], 1.0, 5.0), None);
        assert_eq!(share(&[]), None);
    }
}
