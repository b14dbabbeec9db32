//! With a budget: which share of the samples the judge is asked about, so that every deployment and
//! every model gets its part of the day's tokens.
//!
//! Samples fall into strata by deployment and model. What is left of the day's tokens is dealt out to
//! them like water: all get the same, and what a stratum does not need goes to those that need more
//! (max-min fairness). A stratum needs tokens for the samples that lie there unjudged and for those
//! that will come until midnight if the next hours are like the last day. Its share is what it gets by
//! what it needs, and is fixed before any text of the samples is looked at: a sample is drawn by a hash
//! of its id, with exactly that probability. So `1 / probability` is the weight that makes averages
//! over scores unbiased, however the shares move from part to part (Horvitz & Thompson 1952).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

/// Deployments and models that are told apart; the rest is one stratum a deployment, then one in all.
const STRATA_MAX: usize = 256;
/// The smallest share: a score never stands for more than a thousand of its samples.
const SHARE_MIN: f64 = 0.001;
/// What is known of costs and of a deployment's models fades by this with each part.
const FADING: f64 = 0.9;
const DAY_SECONDS: f64 = 86_400.0;

/// The preferred numbers E24 (IEC 60063) in hundredths, from the largest on. Shares are rounded down to
/// them, so that probabilities are few and scores of one probability can be counted together.
const PREFERRED: [u32; 24] = [
    100, 91, 82, 75, 68, 62, 56, 51, 47, 43, 39, 36, 33, 30, 27, 24, 22, 20, 18, 16, 15, 13, 12, 11,
];

/// What samples are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Stratum {
    pub(super) deployment: Arc<str>,
    /// Empty where no model is known.
    pub(super) model: Arc<str>,
}

/// Bytes of a deployment's sample objects.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Lying {
    /// Of those that nobody has opened yet.
    pub(super) waiting: u64,
    /// Of those of the last day, judged or not.
    pub(super) recent: u64,
}

/// What the day's tokens are dealt out by; shared by all parts.
#[derive(Debug, Default)]
pub(super) struct Ration(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// Samples of opened units that no draw has come to.
    opened: BTreeMap<Stratum, u64>,
    /// Samples that were drawn and are not judged yet.
    under_way: u64,
    /// Samples and bytes of the units that were opened, fading: what bytes stand for.
    mix: BTreeMap<Stratum, f64>,
    bytes: f64,
    /// Tokens and samples of the parts that were judged, fading.
    tokens: f64,
    judged: f64,
}

impl Ration {
    /// A unit of `bytes` was opened; so many samples of it are to be drawn from.
    pub(super) fn opened(&self, bytes: u64, samples: &HashMap<Stratum, u64>) {
        let mut known = self.known();
        known.mix.values_mut().for_each(|n| *n *= FADING);
        known.mix.retain(|_, n| *n > 0.01);
        known.bytes = known.bytes * FADING + bytes as f64;
        for (stratum, n) in samples {
            let stratum = known.bounded(stratum);
            *known.opened.entry(stratum.clone()).or_default() += n;
            *known.mix.entry(stratum).or_default() += *n as f64;
        }
    }

    /// The share of each stratum while `left` tokens are left today. A sample costs `cost` where
    /// nothing was judged yet, and of all samples no more than `rate` are wanted. `None` where not one
    /// sample can be paid.
    pub(super) fn shares(
        &self,
        left: u64,
        cost: f64,
        rate: f64,
        lying: &BTreeMap<String, Lying>,
        now: Timestamp,
    ) -> Option<Shares> {
        let known = self.known();
        let cost = if known.judged > 0.0 { known.tokens / known.judged } else { cost }.max(1.0);
        let left = left as f64 - known.under_way as f64 * cost;
        if left < cost {
            return None;
        }
        let mut needs = known.needs(lying, day_left(now));
        needs.values_mut().for_each(|need| *need *= rate);
        let level = level(needs.values().copied(), left / cost);
        Some(Shares { level, needs })
    }

    /// A draw came to `samples`, and drew `drawn` of them; they are under way until the return value
    /// is dropped.
    pub(super) fn drew(&self, samples: &HashMap<Stratum, u64>, drawn: u64) -> UnderWay<'_> {
        let mut known = self.known();
        for (stratum, n) in samples {
            let stratum = known.bounded(stratum);
            if let Some(left) = known.opened.get_mut(&stratum) {
                *left = left.saturating_sub(*n);
            }
        }
        known.opened.retain(|_, left| *left > 0);
        known.under_way += drawn;
        UnderWay { ration: self, drawn }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Samples that were drawn and are not judged yet.
pub(super) struct UnderWay<'a> {
    ration: &'a Ration,
    drawn: u64,
}

impl UnderWay<'_> {
    /// They are judged, and cost `tokens` together.
    pub(super) fn cost(self, tokens: u64) {
        if tokens > 0 {
            let mut known = self.ration.known();
            known.tokens = known.tokens * FADING + tokens as f64;
            known.judged = known.judged * FADING + self.drawn as f64;
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let mut known = self.ration.known();
        known.under_way = known.under_way.saturating_sub(self.drawn);
    }
}

impl Known {
    /// The stratum, or the one that stands for those that are too many.
    fn bounded(&self, stratum: &Stratum) -> Stratum {
        let room = self.mix.len() < STRATA_MAX || self.mix.contains_key(stratum);
        let other: Arc<str> = Arc::from("other");
        let whole = Stratum { deployment: Arc::clone(&stratum.deployment), model: other.clone() };
        match room {
            true => stratum.clone(),
            false if self.mix.len() < 2 * STRATA_MAX || self.mix.contains_key(&whole) => whole,
            false => Stratum { deployment: other.clone(), model: other },
        }
    }

    /// Samples that each stratum wants judged until midnight, of which `day_left` of the day is left.
    fn needs(&self, lying: &BTreeMap<String, Lying>, day_left: f64) -> BTreeMap<Stratum, f64> {
        let mut needs: BTreeMap<Stratum, f64> =
            self.opened.iter().map(|(stratum, n)| (stratum.clone(), *n as f64)).collect();
        let all: f64 = self.mix.values().sum();
        let per_byte = if self.bytes > 0.0 { all / self.bytes } else { 0.0 };
        for (deployment, lying) in lying {
            let bytes = lying.waiting as f64 + lying.recent as f64 * day_left;
            let models: Vec<_> =
                self.mix.iter().filter(|(of, _)| *of.deployment == **deployment).collect();
            let known: f64 = models.iter().map(|(_, n)| **n).sum();
            for (stratum, n) in &models {
                let part = bytes * per_byte * **n / known;
                *needs.entry((*stratum).clone()).or_default() += part;
            }
            if models.is_empty() {
                // Nothing of it was opened yet: it is kept a place.
                let deployment = Arc::from(deployment.as_str());
                let stratum = Stratum { deployment, model: Arc::from("") };
                *needs.entry(stratum).or_default() += bytes * per_byte;
            }
        }
        needs
    }
}

/// What every stratum gets, in samples, and what each needs.
#[derive(Debug)]
pub(super) struct Shares {
    level: f64,
    needs: BTreeMap<Stratum, f64>,
}

impl Shares {
    /// The part of those wanted that is drawn of this stratum: a preferred number.
    pub(super) fn of(&self, stratum: &Stratum) -> f64 {
        let need = self.needs.get(stratum).copied();
        // Strata beyond the bound share what stands for them.
        self.share(need.unwrap_or_else(|| self.most()))
    }

    /// The smallest part of any stratum of this one's deployment.
    pub(super) fn least(&self, stratum: &Stratum) -> f64 {
        let own = self.needs.iter().filter(|(of, _)| of.deployment == stratum.deployment);
        let least = own.map(|(_, need)| self.share(*need)).fold(1.0, f64::min);
        least.min(self.of(stratum))
    }

    fn most(&self) -> f64 {
        self.needs.values().copied().fold(0.0, f64::max)
    }

    fn share(&self, need: f64) -> f64 {
        if need <= self.level { 1.0 } else { preferred(self.level / need) }
    }
}

/// The largest `x` for which `Σ min(need, x)` is not above `samples`; infinite where all needs are met.
fn level(needs: impl Iterator<Item = f64>, samples: f64) -> f64 {
    let mut needs: Vec<f64> = needs.collect();
    needs.sort_by(f64::total_cmp);
    let (mut left, mut takers) = (samples, needs.len() as f64);
    for need in needs {
        if need * takers > left {
            return left / takers;
        }
        left -= need;
        takers -= 1.0;
    }
    f64::INFINITY
}

/// The largest preferred number that is not above `share`; at least [`SHARE_MIN`].
fn preferred(share: f64) -> f64 {
    // Divided once: 0.27 / 10 would be a little more than 0.027.
    let decades = [100.0, 1_000.0, 10_000.0];
    let all = decades.iter().flat_map(|of| PREFERRED.map(|number| f64::from(number) / of));
    all.into_iter().find(|number| *number <= share).unwrap_or(SHARE_MIN)
}

/// How much of the UTC day is left.
fn day_left(now: Timestamp) -> f64 {
    1.0 - now.as_second().rem_euclid(86_400) as f64 / DAY_SECONDS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stratum(deployment: &str, model: &str) -> Stratum {
        Stratum { deployment: Arc::from(deployment), model: Arc::from(model) }
    }

    fn midnight() -> Timestamp {
        // The last second of a day: nothing more will come.
        "2026-11-23T23:59:59Z".parse().expect("a time")
    }

    #[test]
    fn tokens_are_dealt_out_like_water() {
        let level = |needs: &[f64], samples: f64| level(needs.iter().copied(), samples);
        assert_eq!(level(&[10.0, 20.0, 30.0], 60.0), f64::INFINITY);
        assert_eq!(level(&[10.0, 20.0, 30.0], 50.0), 20.0);
        assert_eq!(level(&[1000.0, 10.0, 1000.0], 110.0), 50.0);
        assert_eq!(level(&[], 5.0), f64::INFINITY);
        assert_eq!(level(&[7.0], 0.0), 0.0);
    }

    #[test]
    fn shares_are_preferred_numbers_rounded_down() {
        for (share, number) in
            [(1.0, 1.0), (0.999, 0.91), (0.5, 0.47), (0.1, 0.1), (0.0999, 0.091), (0.0, 0.001)]
        {
            assert!((preferred(share) - number).abs() < 1e-12, "{share}: {}", preferred(share));
        }
        for n in 2..1000 {
            let share = f64::from(n) / 1000.0;
            let number = preferred(share);
            assert!(number <= share && number > share * 0.86, "{number} of {share}");
        }
    }

    #[test]
    fn every_stratum_gets_its_part_and_all_together_what_is_left() {
        let ration = Ration::default();
        let samples = HashMap::from([
            (stratum("big", "gpt-4"), 10_000),
            (stratum("big", "mini"), 50),
            (stratum("small", ""), 80),
        ]);
        ration.opened(1_000_000, &samples);
        let shares = ration.shares(500_000, 1000.0, 1.0, &BTreeMap::new(), midnight());
        let shares = shares.expect("tokens are left");
        assert_eq!(
            (shares.of(&stratum("big", "mini")), shares.of(&stratum("small", ""))),
            (1.0, 1.0)
        );
        // 500 samples can be paid, 130 of them are those of the small ones.
        assert_eq!(shares.of(&stratum("big", "gpt-4")), 0.036);
        // What is under way is paid for already.
        let held = ration.drew(&samples, 499);
        assert!(ration.shares(500_000, 1000.0, 1.0, &BTreeMap::new(), midnight()).is_some());
        let last = ration.drew(&HashMap::new(), 1);
        assert!(ration.shares(500_000, 1000.0, 1.0, &BTreeMap::new(), midnight()).is_none());
        drop(last);
        // What they cost is known from then on.
        held.cost(499 * 10);
        ration.opened(1_000_000, &samples);
        let shares = ration.shares(500_000, 1000.0, 1.0, &BTreeMap::new(), midnight());
        assert_eq!(shares.expect("tokens").of(&stratum("big", "gpt-4")), 1.0);
    }

    #[test]
    fn what_lies_there_and_what_will_come_is_left_something() {
        let samples = HashMap::from([(stratum("a", "m"), 100)]);
        let share = |lying: &[(&str, Lying)], now: &str| {
            let ration = Ration::default();
            ration.opened(100_000, &samples);
            let lying = lying.iter().map(|(name, lying)| ((*name).to_owned(), *lying)).collect();
            let now = now.parse().expect("a time");
            let shares = ration.shares(100, 1.0, 1.0, &lying, now).expect("tokens are left");
            shares.of(&stratum("a", "m"))
        };
        let lying = |waiting, recent| Lying { waiting, recent };
        let (noon, late) = ("2026-11-23T12:00:00Z", "2026-11-23T23:59:59Z");
        assert_eq!(share(&[], noon), 1.0);
        // As much again waits; as much again comes in half a day.
        assert_eq!(share(&[("a", lying(100_000, 0))], noon), 0.47);
        assert_eq!(share(&[("a", lying(0, 200_000))], noon), 0.47);
        assert_eq!(share(&[("a", lying(0, 200_000))], late), 0.91);
        // Another deployment gets half, however little of it was looked at yet.
        assert_eq!(share(&[("b", lying(100_000_000, 0))], late), 0.47);
    }

    #[test]
    fn strata_are_bounded() {
        let ration = Ration::default();
        for n in 0..5000 {
            let one = stratum(&format!("d{n}"), &format!("m{n}"));
            ration.opened(10, &HashMap::from([(one, 1)]));
        }
        assert!(ration.known().mix.len() <= 2 * STRATA_MAX + 1);
        let many: HashMap<_, _> = (0..5000).map(|n| (stratum("d", &format!("m{n}")), 1)).collect();
        ration.opened(10, &many);
        assert!(ration.known().mix.len() <= 2 * STRATA_MAX + 1);
        let shares = ration.shares(50, 1.0, 1.0, &BTreeMap::new(), midnight()).expect("tokens");
        assert!(shares.of(&stratum("d", "m4999")) < 0.1, "a stranger is no exception");
    }
}
